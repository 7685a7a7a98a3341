//! Whole frames over AF_XDP, written once and sent again and again with other numbers.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Instant;

use anyhow::Context as _;
use ipnet::Ipv4Net;
use socket2::{Domain, Protocol, Socket, Type};
use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::{BATCH, Device as _, Frame};
use turnpike_dataplane::netdev::Netlink;
use turnpike_dataplane::xsk::{Binding, Sizes, Xsk};
use turnpike_protocol::CallId;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{gre, ipv4};

use super::{Flood, Numbers, Tally, Way, header};
use crate::dial::linux;

/// How long Linux has to find the link-layer address of the next hop.
const RESOLVE: Duration = Duration::from_secs(3);

/// How long Linux has to send what it was given, once the flood is over.
const DRAIN: Duration = Duration::from_secs(2);

/// Any UDP port makes Linux look for the neighbour; this one is "discard".
const DISCARD: u16 = 9;

/// Octets in front of GRE.
const OUTER: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

/// Where the sequence number is in the GRE header (RFC 2637 §4.1); the call id is in the two octets of the key before.
const CALL_ID: usize = OUTER + 6;
const SEQ: usize = OUTER + 8;

/// Enough to be under way at once: Linux sends while it takes.
const SIZES: Sizes = Sizes {
    ring: 512,
    // Written into before they are offered, so that a full ring does not starve the writer.
    worker: BATCH as u32,
    // It sends only.
    held: 0,
    huge_pages: false,
    busy_poll: 0,
};

pub(super) struct Sender {
    device: Xsk,
    /// Octets of every frame.
    len: usize,
    /// Frames that can be under way; all of them hold the same packet.
    frames: usize,
    given: u64,
}

impl Sender {
    pub(super) fn open(flood: &Flood, interface: &str) -> anyhow::Result<Self> {
        let mut netlink = Netlink::open()?;
        let link = netlink
            .link(interface)?
            .with_context(|| format!("there is no network interface {interface}"))?;
        let via = linux::next_hop(flood.target, interface)?
            .with_context(|| format!("no route to {} through {interface}", flood.target))?;
        let source = source(&netlink.addresses(link.index)?, via)
            .with_context(|| format!("{interface} has no IPv4 address to send from"))?;
        let to = resolve(via, interface)?;
        let packet = packet(flood, link.mac, to, source);
        let binding = Binding {
            port: Port::Access,
            device: link.index,
            queue: 0,
        };
        let mut device = Xsk::open(&[binding], &SIZES)?;
        // What is written into the free frames stays there: they are ours alone, and nothing is received into them,
        // since no XDP program steers anything to this socket.
        let mut frames = Vec::new();
        while let Some(mut frame) = device.allocate(Port::Access) {
            anyhow::ensure!(frame.set_len(packet.len()), "packets too large for AF_XDP");
            device.bytes(&mut frame).copy_from_slice(&packet);
            frames.push(frame);
        }
        let count = frames.len();
        for frame in frames {
            device.release(frame);
        }
        Ok(Self {
            device,
            len: packet.len(),
            frames: count,
            given: 0,
        })
    }

    /// A frame that nobody sends now; it holds the packet with old numbers.
    fn frame(&mut self) -> Option<Frame> {
        let mut frame = self.device.allocate(Port::Access)?;
        // It did when the packet was written.
        let fits = frame.set_len(self.len);
        debug_assert!(fits);
        Some(frame)
    }

    /// Frames that Linux has not sent yet.
    fn waiting(&mut self) -> usize {
        let free: Vec<Frame> = core::iter::from_fn(|| self.device.allocate(Port::Access)).collect();
        let waiting = self.frames - free.len();
        for frame in free {
            self.device.release(frame);
        }
        waiting
    }
}

impl Way for Sender {
    fn burst(&mut self, count: u64, numbers: &mut Numbers) -> anyhow::Result<u64> {
        let mut given = 0;
        while given < count {
            let Some(mut frame) = self.frame() else {
                break;
            };
            let (CallId(id), Seq(seq)) = numbers.take();
            let bytes = self.device.bytes(&mut frame);
            bytes[CALL_ID..SEQ].copy_from_slice(&id.to_be_bytes());
            bytes[SEQ..SEQ + 4].copy_from_slice(&seq.to_be_bytes());
            if self.device.transmit(Port::Access, frame).is_err() {
                // The ring is full. The numbers are skipped; nobody misses them.
                break;
            }
            given += 1;
        }
        self.device.flush();
        self.given += given;
        let (_, failed) = self.device.troubles(Port::Access);
        anyhow::ensure!(failed == 0, "the interface is down or gone");
        Ok(given)
    }

    fn finish(&mut self) -> anyhow::Result<Tally> {
        let end = Instant::now() + DRAIN;
        let mut waiting = self.waiting();
        while waiting > 0 && Instant::now() < end {
            self.device.flush();
            waiting = self.waiting();
        }
        let (dropped, _) = self.device.troubles(Port::Access);
        let refused = dropped + waiting as u64;
        Ok(Tally {
            sent: self.given - refused,
            refused,
        })
    }
}

/// The address to send from: the one on the next hop's network, or else the first.
fn source(addresses: &[Ipv4Net], via: Ipv4Addr) -> Option<Ipv4Addr> {
    addresses
        .iter()
        .find(|net| net.contains(&via))
        .or(addresses.first())
        .map(Ipv4Net::addr)
}

/// The link-layer address of the next hop, which Linux is made to look for.
fn resolve(via: Ipv4Addr, interface: &str) -> anyhow::Result<MacAddr> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket
        .bind_device(Some(interface.as_bytes()))
        .with_context(|| format!("cannot send on {interface}"))?;
    let end = Instant::now() + RESOLVE;
    loop {
        if let Some(mac) = linux::neighbour(via, interface)? {
            return Ok(mac);
        }
        anyhow::ensure!(
            Instant::now() < end,
            "{via} does not answer on {interface}: no link-layer address to send to"
        );
        // It may fail: whoever was looked for in vain shows here.
        let _ = socket.send_to(&[], &SocketAddr::V4(SocketAddrV4::new(via, DISCARD)).into());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The whole frame, with the first numbers.
fn packet(flood: &Flood, from: MacAddr, to: MacAddr, source: Ipv4Addr) -> Vec<u8> {
    let gre = header((CallId(flood.ids.0), Seq(0)), flood.size);
    let payload_len = gre.len() + usize::from(flood.size);
    let mut packet = Vec::with_capacity(OUTER + payload_len);
    packet.extend(
        ethernet::Header {
            destination: to,
            source: from,
            ethertype: ethernet::IPV4,
        }
        .to_bytes(),
    );
    packet.extend(
        ipv4::Header {
            source,
            destination: flood.target,
            protocol: ipv4::GRE,
            ttl: 64,
            traffic_class: 0,
            ident: 0,
            // One identification for all will do: nobody may make fragments of them.
            dont_fragment: true,
            payload_len: u16::try_from(payload_len).unwrap_or(u16::MAX),
        }
        .to_bytes(),
    );
    let mut header = [0; gre::MAX_HEADER_LEN];
    let len = gre.emit(&mut header).unwrap_or(0);
    packet.extend(&header[..len]);
    packet.resize(OUTER + payload_len, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_what_a_stranger_would_send() {
        let (from, to) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let flood = Flood {
            target: Ipv4Addr::new(10, 7, 0, 1),
            interface: None,
            rate: None,
            time: Duration::ZERO,
            size: 64,
            ids: (60_000, 60_001),
            cpu: None,
        };
        let nets: Vec<Ipv4Net> = ["192.0.2.9/24", "10.7.0.66/24"]
            .map(|net| net.parse().unwrap())
            .to_vec();
        let source = source(&nets, flood.target).unwrap();
        let mut bytes = packet(&flood, from, to, source);
        bytes[CALL_ID..SEQ].copy_from_slice(&0xfafb_u16.to_be_bytes());
        bytes[SEQ..SEQ + 4].copy_from_slice(&0x0102_0304_u32.to_be_bytes());
        let frame = ethernet::Packet::new_checked(&bytes).unwrap();
        assert_eq!((frame.source(), frame.destination()), (from, to));
        assert_eq!(frame.ethertype(), ethernet::IPV4);
        let ip = ipv4::Packet::new_checked(frame.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.source(), Ipv4Addr::new(10, 7, 0, 66));
        assert_eq!((ip.destination(), ip.protocol()), (flood.target, ipv4::GRE));
        let gre = gre::Packet::parse(ip.payload()).unwrap();
        assert_eq!(gre.call_id, CallId(0xfafb));
        assert_eq!(gre.seq, Some(Seq(0x0102_0304)));
        assert_eq!((gre.ack, gre.payload_len), (None, 64));
        assert_eq!(
            super::source(&nets[..1], flood.target),
            Some(nets[0].addr())
        );
        assert_eq!(super::source(&[], flood.target), None);
    }
}
