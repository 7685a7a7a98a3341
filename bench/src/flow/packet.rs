//! What every packet carries: whose it is, its number, and when it was to be sent.

use core::net::{Ipv4Addr, SocketAddrV4};

use turnpike_protocol::wire::{ipv4, udp};

use crate::traffic::{HEADER, compose, parse};

/// Octets of IPv4 and UDP in front of a stamp.
pub(super) const FRONT: usize = ipv4::HEADER_LEN + udp::HEADER_LEN;

/// Octets of the smallest inner packet that has room for a stamp.
pub const MIN_SIZE: usize = FRONT + Stamp::LEN;

/// UDP port at the inner end of every call.
pub(super) const PORT: u16 = 7001;

/// Hops that a packet may take.
const TTL: u8 = 64;

/// The first octets of a datagram. It begins as those of `dial --traffic`, so that the same responder echoes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    /// The flow, counted from 0.
    pub(super) flow: u32,
    /// Its number in the flow, counted from 0.
    pub(super) number: u64,
    /// When it was to be sent: nanoseconds on the tester's clock.
    pub(super) planned: u64,
    /// A number of this run, so that nothing of an earlier one counts.
    pub(super) run: u32,
    /// Which part of the run.
    pub(super) trial: u8,
    /// Which way it goes: a [`super::plan::Way`].
    pub(super) way: u8,
    /// Octets of the inner IP packet.
    pub(super) size: u16,
}

impl Stamp {
    const LEN: usize = HEADER + 16;

    /// Writes it to the front of a datagram, which must have room.
    pub(super) fn write(&self, datagram: &mut [u8]) {
        compose(datagram, self.flow, self.number);
        let rest = &mut datagram[HEADER..Self::LEN];
        rest[..8].copy_from_slice(&self.planned.to_be_bytes());
        rest[8..12].copy_from_slice(&self.run.to_be_bytes());
        rest[12] = self.trial;
        rest[13] = self.way;
        rest[14..].copy_from_slice(&self.size.to_be_bytes());
    }

    /// Reads it. `None` when the datagram has none, or not the length that it was sent with.
    pub(super) fn read(datagram: &[u8]) -> Option<Self> {
        let (flow, number) = parse(datagram)?;
        let rest = datagram.get(HEADER..Self::LEN)?;
        let stamp = Self {
            flow,
            number,
            planned: u64::from_be_bytes(rest[..8].try_into().ok()?),
            run: u32::from_be_bytes(rest[8..12].try_into().ok()?),
            trial: rest[12],
            way: rest[13],
            size: u16::from_be_bytes(rest[14..].try_into().ok()?),
        };
        (usize::from(stamp.size) == FRONT + datagram.len()).then_some(stamp)
    }

    /// Writes a whole inner packet, from a call to somebody behind the server. What follows the stamp stays as it is: it
    /// means nothing. There is no UDP checksum, which IPv4 allows.
    pub(super) fn write_packet(&self, from: Ipv4Addr, to: SocketAddrV4, packet: &mut [u8]) {
        let header = ipv4::Header {
            source: from,
            destination: *to.ip(),
            protocol: ipv4::UDP,
            ttl: TTL,
            traffic_class: 0,
            // The low bits will do: nobody may make fragments of it.
            ident: self.number as u16,
            dont_fragment: true,
            payload_len: self.size - ipv4::HEADER_LEN as u16,
        };
        packet[..ipv4::HEADER_LEN].copy_from_slice(&header.to_bytes());
        let udp = &mut packet[ipv4::HEADER_LEN..];
        udp[..2].copy_from_slice(&PORT.to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&header.payload_len.to_be_bytes());
        udp[6..8].fill(0);
        self.write(&mut udp[udp::HEADER_LEN..]);
    }
}

/// The datagram in an inner packet, when it is one of UDP to our port. Its checksum is not looked at: a stamp tells what
/// is ours, and machines that leave checksums to their network cards are none the worse for it.
pub(super) fn datagram(packet: &[u8]) -> Option<&[u8]> {
    let ip = ipv4::Packet::new_checked(packet).ok()?;
    if ip.protocol() != ipv4::UDP || ip.is_fragment() {
        return None;
    }
    let udp = &packet[ip.payload_range()];
    let (header, _) = udp.split_first_chunk::<{ udp::HEADER_LEN }>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let ours = u16::from_be_bytes([header[2], header[3]]) == PORT;
    udp.get(udp::HEADER_LEN..len).filter(|_| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        flow: 7,
        number: 0x1_0000_0002,
        planned: 123_456_789_012,
        run: 0xdead_beef,
        trial: 3,
        way: 1,
        size: 576,
    };

    #[test]
    fn a_packet_is_what_a_host_would_send() {
        let from = Ipv4Addr::new(10, 20, 0, 10);
        let to = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 90), PORT);
        let mut packet = vec![0xff; 576];
        STAMP.write_packet(from, to, &mut packet);
        let ip = ipv4::Packet::new_checked(&packet).unwrap();
        assert!(ip.verify_checksum() && ip.dont_fragment());
        assert_eq!((ip.source(), ip.destination()), (from, *to.ip()));
        assert_eq!(ip.total_len(), 576);
        assert!(udp::Datagram::in_ipv4(&packet).is_ok());
        let datagram = datagram(&packet).unwrap();
        assert_eq!(Stamp::read(datagram), Some(STAMP));
        // Cut, or grown, on its way.
        assert_eq!(Stamp::read(&datagram[..datagram.len() - 1]), None);
        assert_eq!(Stamp::read(&datagram[..20]), None);
    }

    #[test]
    fn the_smallest_packet_has_room() {
        let stamp = Stamp {
            size: MIN_SIZE as u16,
            ..STAMP
        };
        let mut packet = vec![0; MIN_SIZE];
        let to = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 90), PORT);
        stamp.write_packet(Ipv4Addr::new(10, 20, 0, 10), to, &mut packet);
        assert_eq!(Stamp::read(datagram(&packet).unwrap()), Some(stamp));
    }

    #[test]
    fn others_packets_are_not_taken() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 10), 53);
        let other = udp::ipv4_packet(to, to, &[0; 40]).unwrap();
        assert_eq!(datagram(&other), None);
        let to = SocketAddrV4::new(*to.ip(), PORT);
        let other = udp::ipv4_packet(to, to, &[0; 40]).unwrap();
        assert_eq!(Stamp::read(datagram(&other).unwrap()), None);
        assert_eq!(datagram(&other[..20]), None);
        assert_eq!(datagram(&[]), None);
    }
}
