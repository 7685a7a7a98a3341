//! Others who forward the same packets: Linux itself, and a loop over a raw GRE socket and a tun device, as servers in user
//! space do it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tun_rs::{DeviceBuilder, SyncDevice};
use turnpike_dataplane::device::BATCH;
use turnpike_dataplane::netdev::{Netlink, Offloads, Route, set_offloads};
use turnpike_dataplane::thread::pin;
use turnpike_protocol::CallId;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::wire::gre;

use super::device::pool;
use super::packets::{self, Case, Macs, Way, Work};
use super::places::find;

/// The tun device's name.
const TUN: &str = "roadtun";
/// Packets that may wait in it; in the raw socket, octets.
const QUEUE: u32 = 4096;
const BUFFER: usize = 16 << 20;
/// Octets of a packet, and in front of it: GRE with a sequence number, and PPP.
const ROOM: usize = 2048;
const GRE: usize = 12;
const FRONT: usize = GRE + 1;
/// The IPv4 header that a raw socket leaves in front.
const OUTER: usize = 20;

/// Linux' side of the device under test.
pub(super) struct Peers<'a> {
    access: &'a str,
    uplink: &'a str,
    macs: Macs,
    cpu: usize,
    calls: u16,
}

/// One that forwards, until it is dropped.
pub(super) struct Peer {
    route: Option<Route>,
    /// Files that say which processors do what a device received.
    steered: Vec<String>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl<'a> Peers<'a> {
    /// Fixes neighbours, and has both interfaces receive without XDP in the same way as with it: by NAPI.
    pub(super) fn prepare(
        access: &'a str,
        uplink: &'a str,
        macs: Macs,
        cpu: usize,
        calls: u16,
    ) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        for (interface, neighbour, mac) in [
            (access, packets::CLIENT, macs.client),
            (uplink, packets::NEXT_HOP, macs.network),
        ] {
            netlink.neighbour_set(find(interface)?.index, neighbour, mac)?;
            set_offloads(interface, Offloads::Merge, true)?;
        }
        Ok(Self {
            access,
            uplink,
            macs,
            cpu,
            calls,
        })
    }

    /// Starts one for packets of this case. The ports must be closed.
    pub(super) fn start(&self, case: &Case) -> anyhow::Result<Peer> {
        debug_assert!(case.macs.client == self.macs.client);
        let mut peer = Peer {
            route: None,
            steered: Vec::new(),
            stop: Arc::default(),
            thread: None,
        };
        if case.work == Work::Route {
            let via = Some(IpAddr::V4(packets::CLIENT));
            peer.route_pool(find(self.access)?.index, via)?;
            // On the processor that others forward on.
            for interface in [self.access, self.uplink] {
                let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
                std::fs::write(&file, format!("{:x}", 1_u64 << self.cpu))
                    .with_context(|| format!("cannot write {file}"))?;
                peer.steered.push(file);
            }
            return Ok(peer);
        }
        let tun = DeviceBuilder::new()
            .name(TUN)
            .mtu(*packets::SIZES.end())
            .tx_queue_len(QUEUE)
            .build_sync()
            .context("cannot make a tun device")?;
        tun.set_nonblocking(true)?;
        let device = find(TUN)?;
        Netlink::open()?.set_up(device.index, true)?;
        peer.route_pool(device.index, None)?;
        let socket = gre_socket()?;
        let (stop, cpu, way, calls) = (peer.stop.clone(), self.cpu, case.way, self.calls);
        peer.thread = Some(std::thread::spawn(move || {
            anyhow::ensure!(pin(cpu), "this process may not use processor {cpu}");
            match way {
                Way::Up => up(&socket, &tun, &stop),
                Way::Down => down(&socket, &tun, calls, &stop),
            }
        }));
        Ok(peer)
    }
}

impl Peer {
    fn route_pool(&mut self, device: u32, via: Option<IpAddr>) -> anyhow::Result<()> {
        let route = Route {
            destination: IpNet::V4(pool()?),
            device,
            via,
            source: None,
        };
        Netlink::open()?.route_add(&route)?;
        self.route = Some(route);
        Ok(())
    }

    /// Ends it; what went wrong meanwhile.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let result = match self.thread.take() {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the loop over a tun device panicked"))),
            None => Ok(()),
        };
        if let Some(route) = self.route.take() {
            // It goes with its device, if that has gone.
            let _ = Netlink::open().and_then(|mut netlink| netlink.route_delete(&route));
        }
        for file in self.steered.drain(..) {
            let _ = std::fs::write(file, "0");
        }
        result
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Who wants to know of faults has called `stop`.
        let _ = self.end();
    }
}

fn gre_socket() -> anyhow::Result<Socket> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::RAW.nonblocking(),
        Some(Protocol::from(47)),
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
    socket.connect(&SocketAddr::new(IpAddr::V4(packets::CLIENT), 0).into())?;
    Ok(socket)
}

/// Out of tunnels: many packets by one system call, one system call for each into the tun device, which takes no more at a time.
fn up(socket: &Socket, tun: &SyncDevice, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut buffers = vec![[0_u8; ROOM]; BATCH];
    let mut lens = Vec::with_capacity(BATCH);
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    while !stop.load(Ordering::Relaxed) {
        lens.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            flags,
            None,
        ) {
            Ok(received) => lens.extend(received.map(|message| message.bytes)),
            Err(Errno::EAGAIN) => {}
            Err(e) => return Err(e).context("receiving from a raw socket"),
        }
        for (buffer, len) in buffers.iter().zip(&lens) {
            if let Some(packet) = buffer.get(OUTER + FRONT..*len) {
                // What it does not take is lost, and missed where packets are counted.
                let _ = tun.send(packet);
            }
        }
    }
    Ok(())
}

/// Into tunnels: one system call for each packet out of the tun device, many packets by one into the raw socket.
fn down(socket: &Socket, tun: &SyncDevice, calls: u16, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut buffers = vec![[0_u8; ROOM]; BATCH];
    let mut lens = Vec::with_capacity(BATCH);
    let mut sequences = vec![0_u32; usize::from(calls)];
    let first = u32::from(packets::inner_address(0));
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    while !stop.load(Ordering::Relaxed) {
        lens.clear();
        for buffer in &mut buffers {
            let Ok(len) = tun.recv(&mut buffer[FRONT..]) else {
                break;
            };
            let destination = buffer[FRONT + 16..FRONT + 20].try_into();
            let call = destination.map_or(0, |octets| u32::from_be_bytes(octets) - first);
            let Some(sequence) = sequences.get_mut(call as usize) else {
                continue;
            };
            let header = gre::Header {
                call_id: CallId(call as u16 + 1),
                seq: Some(Seq(*sequence)),
                ack: None,
                payload_len: len as u16 + 1,
            };
            *sequence = sequence.wrapping_add(1);
            let mut octets = [0; gre::MAX_HEADER_LEN];
            let written = header.emit(&mut octets);
            debug_assert_eq!(written.unwrap_or_default(), GRE);
            buffer[..GRE].copy_from_slice(&octets[..GRE]);
            buffer[GRE] = 0x21;
            lens.push(FRONT + len);
        }
        let mut sent = 0;
        while sent < lens.len() && !stop.load(Ordering::Relaxed) {
            let slices: Vec<[IoSlice<'_>; 1]> = buffers[sent..]
                .iter()
                .zip(&lens[sent..])
                .map(|(buffer, len)| [IoSlice::new(&buffer[..*len])])
                .collect();
            let flags = MsgFlags::MSG_DONTWAIT;
            let nobody = vec![None; slices.len()];
            match sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &slices,
                &nobody,
                [],
                flags,
            ) {
                Ok(results) => sent += results.count().max(1),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {}
                Err(e) => return Err(e).context("sending by a raw socket"),
            }
        }
    }
    Ok(())
}
