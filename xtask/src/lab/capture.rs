//! A witness on a bridge: counts the GRE packets that pass and searches them for a marker.
//!
//! It listens with a packet socket on the bridge itself, between client and concentrator. AF_XDP sends past the taps of
//! its own device, so a capture on the concentrator's interface would prove nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use memchr::memmem::Finder;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::netns::Namespace;

/// Room for packets that the witness has not looked at yet, in octets of kernel memory.
const ROOM: usize = 512 << 20;

/// What the witness saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// GRE packets by source and destination address.
    pub packets: BTreeMap<(Ipv4Addr, Ipv4Addr), u64>,
    /// Of these, fragments other than the first.
    pub later_fragments: u64,
    /// Packets that held the marker.
    pub markers: u64,
}

impl Seen {
    /// GRE packets sent to `address`.
    pub fn to(&self, address: Ipv4Addr) -> u64 {
        self.sum(|(_, to)| *to == address)
    }

    /// GRE packets sent by `address`.
    pub fn from(&self, address: Ipv4Addr) -> u64 {
        self.sum(|(from, _)| *from == address)
    }

    fn sum(&self, wanted: impl Fn(&(Ipv4Addr, Ipv4Addr)) -> bool) -> u64 {
        self.packets
            .iter()
            .filter(|(pair, _)| wanted(pair))
            .map(|(_, count)| count)
            .sum()
    }
}

/// A running witness.
#[derive(Debug)]
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

impl Witness {
    /// Listens on `bridge` in `namespace` and searches packets for `marker`.
    pub fn start(namespace: &Namespace, bridge: &str, marker: &str) -> Result<Self> {
        // Without this a bridge's own tap sees only what is addressed to the bridge.
        namespace.ip(&format!("link set {bridge} promisc on"))?;
        let links: Vec<serde_json::Value> =
            serde_json::from_str(&namespace.ip(&format!("-json link show dev {bridge}"))?)?;
        let index = links
            .first()
            .and_then(|link| link["ifindex"].as_u64())
            .and_then(|index| u32::try_from(index).ok())
            .context("the bridge has no index")?;
        let stop = Arc::new(AtomicBool::new(false));
        let marker = marker.to_owned();
        let (say, hear) = std::sync::mpsc::sync_channel(1);
        let told = stop.clone();
        let thread = namespace.enter(move || {
            let socket = open(index);
            match socket {
                Ok(socket) => {
                    let _ = say.send(Ok(()));
                    watch(socket, &marker, &told)
                }
                Err(error) => {
                    let _ = say.send(Err(format!("{error:#}")));
                    Err(error)
                }
            }
        })?;
        hear.recv()
            .context("the witness ended early")?
            .map_err(|error| anyhow!("{error}"))?;
        Ok(Self { stop, thread })
    }

    /// Ends it, after whatever waits in its socket has been looked at.
    pub fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the witness panicked"))?
    }
}

fn open(index: u32) -> Result<Socket> {
    let ethertype = u16::try_from(libc::ETH_P_IP).context("ETH_P_IP")?;
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        .context("cannot open a packet socket")?;
    socket.attach_filter(&filter(index)?)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, ROOM)?;
    // Whatever came before the filter stood.
    socket.set_nonblocking(true)?;
    let mut reader = &socket;
    let mut buffer = [0; 64];
    while reader.read(&mut buffer).is_ok() {}
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

/// A classic BPF program: accept whole packets whose interface is `index` and whose IPv4 protocol is GRE, that are not
/// on their way out of this machine's own stack.
fn filter(index: u32) -> Result<[SockFilter; 6]> {
    let load = |size: u32, from: u32| -> Result<SockFilter> {
        Ok(SockFilter::new(
            u16::try_from(libc::BPF_LD | size | libc::BPF_ABS)?,
            0,
            0,
            from,
        ))
    };
    let unless_equal_skip = |value: u32, skip: u8| -> Result<SockFilter> {
        let code = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K)?;
        Ok(SockFilter::new(code, 0, skip, value))
    };
    let give = |len: u32| -> Result<SockFilter> {
        Ok(SockFilter::new(
            u16::try_from(libc::BPF_RET | libc::BPF_K)?,
            0,
            0,
            len,
        ))
    };
    // Linux' "ancillary" loads lie at negative offsets.
    let ancillary = |which: i32| (libc::SKF_AD_OFF + which).cast_unsigned();
    Ok([
        load(libc::BPF_W, ancillary(libc::SKF_AD_IFINDEX))?,
        unless_equal_skip(index, 3)?,
        // Octet 9 of the IPv4 header behind 14 octets of Ethernet.
        load(libc::BPF_B, 14 + 9)?,
        unless_equal_skip(47, 1)?,
        give(u32::MAX)?,
        give(0)?,
    ])
}

fn watch(socket: Socket, marker: &str, stop: &AtomicBool) -> Result<Seen> {
    let finder = Finder::new(marker.as_bytes());
    let mut seen = Seen::default();
    let mut reader = &socket;
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Asked before reading: what came before the wish to stop is looked at.
        let last = stop.load(Ordering::Relaxed);
        match reader.read(&mut buffer) {
            Ok(len) => seen.note(&buffer[..len], &finder),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if last {
                    return Ok(seen);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the packet socket"),
        }
    }
}

impl Seen {
    /// Notes one Ethernet frame with a GRE packet.
    fn note(&mut self, frame: &[u8], marker: &Finder<'_>) {
        let Some(packet) = frame.get(14..).filter(|packet| packet.len() >= 20) else {
            return;
        };
        let address =
            |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        *self.packets.entry((address(12), address(16))).or_default() += 1;
        let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
        self.later_fragments += u64::from(offset != 0);
        self.markers += u64::from(marker.find(packet).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_by_address_and_searched() {
        let mut seen = Seen::default();
        let finder = Finder::new(b"marker");
        let mut frame = vec![0; 14 + 20];
        frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 2]);
        seen.note(&frame, &finder);
        frame.extend(b"..marker..");
        seen.note(&frame, &finder);
        frame[21] = 1;
        seen.note(&frame, &finder);
        seen.note(&frame[..30], &finder);
        assert_eq!(seen.from(Ipv4Addr::new(10, 0, 0, 1)), 3);
        assert_eq!(seen.to(Ipv4Addr::new(10, 0, 0, 2)), 3);
        assert_eq!(seen.to(Ipv4Addr::new(10, 0, 0, 1)), 0);
        assert_eq!((seen.markers, seen.later_fragments), (2, 1));
    }
}
