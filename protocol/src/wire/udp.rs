//! UDP (RFC 768) in whole packets: what a question and its answer inside a call are.

use core::net::{SocketAddrV4, SocketAddrV6};

use crate::Error;
use crate::wire::{ipv4, ipv6, read_u16, write_u16};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// Hop limit and time to live of packets of ours.
const HOPS: u8 = 64;

/// A datagram whose length and checksum are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the datagram in an IPv4 packet, which must not be a fragment.
    ///
    /// # Errors
    /// When the packet is none of UDP, or its lengths or checksum are wrong. A checksum of 0 is none (RFC 768).
    pub fn in_ipv4(packet: &'a [u8]) -> Result<Self, Error> {
        let ip = ipv4::Packet::new_checked(packet)?;
        if ip.protocol() != ipv4::UDP || ip.is_fragment() {
            return Err(Error::Malformed("UDP in IPv4"));
        }
        let segment = whole(&packet[ip.payload_range()])?;
        let sum = ipv4::transport_checksum(ip.source(), ip.destination(), ipv4::UDP, segment);
        if read_u16(segment, 6) != 0 && sum != 0 {
            return Err(Error::Malformed("UDP checksum"));
        }
        Ok(Self::of(segment))
    }

    /// Reads the datagram in an IPv6 packet without extension headers.
    ///
    /// # Errors
    /// As [`Datagram::in_ipv4`]; there must be a checksum (RFC 8200 §8.1).
    pub fn in_ipv6(packet: &'a [u8]) -> Result<Self, Error> {
        let ip = ipv6::Packet::new_checked(packet)?;
        if ip.next_header() != ipv6::UDP {
            return Err(Error::Malformed("UDP in IPv6"));
        }
        let segment = whole(&packet[ipv6::HEADER_LEN..ip.total_len()])?;
        let sum = ipv6::transport_checksum(ip.source(), ip.destination(), ipv6::UDP, segment);
        if read_u16(segment, 6) == 0 || sum != 0 {
            return Err(Error::Malformed("UDP checksum"));
        }
        Ok(Self::of(segment))
    }

    fn of(segment: &'a [u8]) -> Self {
        Self {
            source: read_u16(segment, 0),
            destination: read_u16(segment, 2),
            payload: &segment[HEADER_LEN..],
        }
    }
}

/// The datagram at the beginning of `bytes`, header included.
fn whole(bytes: &[u8]) -> Result<&[u8], Error> {
    if bytes.len() < HEADER_LEN {
        return Err(Error::Malformed("UDP header"));
    }
    let len = usize::from(read_u16(bytes, 4));
    match bytes.get(..len) {
        Some(segment) if len >= HEADER_LEN => Ok(segment),
        _ => Err(Error::Malformed("UDP length")),
    }
}

/// A header in front of `payload`, its checksum still 0; `None` when it is too long for any packet.
fn segment(source: u16, destination: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(HEADER_LEN + payload.len()).ok()?;
    let mut segment = vec![0; HEADER_LEN];
    write_u16(&mut segment, 0, source);
    write_u16(&mut segment, 2, destination);
    write_u16(&mut segment, 4, len);
    segment.extend_from_slice(payload);
    Some(segment)
}

/// RFC 768: a checksum that comes out as 0 is sent as FFFF.
fn set_checksum(segment: &mut [u8], sum: u16) {
    write_u16(segment, 6, if sum == 0 { 0xffff } else { sum });
}

/// A whole IPv4 packet with a datagram; `None` when it would be longer than IPv4 allows.
pub fn ipv4_packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let mut segment = segment(from.port(), to.port(), payload)?;
    let header = ipv4::Header {
        source: *from.ip(),
        destination: *to.ip(),
        protocol: ipv4::UDP,
        ttl: HOPS,
        traffic_class: 0,
        ident: 0,
        dont_fragment: false,
        payload_len: u16::try_from(segment.len()).ok()?,
    };
    u16::try_from(ipv4::HEADER_LEN + segment.len()).ok()?;
    let sum = ipv4::transport_checksum(header.source, header.destination, ipv4::UDP, &segment);
    set_checksum(&mut segment, sum);
    Some([&header.to_bytes()[..], &segment].concat())
}

/// A whole IPv6 packet with a datagram; `None` when it would be longer than IPv6 allows.
pub fn ipv6_packet(from: SocketAddrV6, to: SocketAddrV6, payload: &[u8]) -> Option<Vec<u8>> {
    let mut segment = segment(from.port(), to.port(), payload)?;
    let header = ipv6::Header {
        source: *from.ip(),
        destination: *to.ip(),
        next_header: ipv6::UDP,
        hop_limit: HOPS,
        payload_len: u16::try_from(segment.len()).ok()?,
    };
    let sum = ipv6::transport_checksum(header.source, header.destination, ipv6::UDP, &segment);
    set_checksum(&mut segment, sum);
    Some([&header.to_bytes()[..], &segment].concat())
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 1), 67);
    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 10), 68);
    const FROM6: SocketAddrV6 = SocketAddrV6::new(ipv6::link_local(1), 547, 0, 0);
    const TO6: SocketAddrV6 = SocketAddrV6::new(ipv6::ALL_DHCP_SERVERS, 546, 0, 0);

    #[test]
    fn packets_are_read_as_they_were_written() {
        for payload in [&b""[..], b"x", b"four", &[0xff; 1000]] {
            let packet = ipv4_packet(FROM, TO, payload).expect("it fits");
            let ip = ipv4::Packet::new_checked(&packet[..]).expect("well formed");
            assert!(ip.verify_checksum());
            assert_eq!((ip.source(), ip.destination()), (*FROM.ip(), *TO.ip()));
            let expected = Datagram {
                source: 67,
                destination: 68,
                payload,
            };
            assert_eq!(Datagram::in_ipv4(&packet), Ok(expected));
            let packet = ipv6_packet(FROM6, TO6, payload).expect("it fits");
            let datagram = Datagram::in_ipv6(&packet).expect("well formed");
            assert_eq!((datagram.source, datagram.destination), (547, 546));
            assert_eq!(datagram.payload, payload);
        }
        assert_eq!(ipv4_packet(FROM, TO, &[0; 65_508]), None);
        assert!(ipv4_packet(FROM, TO, &[0; 65_507]).is_some());
        assert_eq!(ipv6_packet(FROM6, TO6, &[0; 65_528]), None);
    }

    #[test]
    fn every_octet_counts() {
        let packet = ipv4_packet(FROM, TO, b"payload").expect("it fits");
        // Ports, length, checksum, payload.
        for at in ipv4::HEADER_LEN..packet.len() {
            let mut broken = packet.clone();
            broken[at] ^= 0x04;
            assert!(Datagram::in_ipv4(&broken).is_err(), "{at}");
        }
        let packet = ipv6_packet(FROM6, TO6, b"payload").expect("it fits");
        for at in 8..packet.len() {
            let mut broken = packet.clone();
            broken[at] ^= 0x04;
            assert!(Datagram::in_ipv6(&broken).is_err(), "{at}");
        }
        for len in 0..packet.len() {
            assert!(Datagram::in_ipv6(&packet[..len]).is_err());
        }
    }

    #[test]
    fn a_checksum_may_be_left_out_in_ipv4_only() {
        let mut packet = ipv4_packet(FROM, TO, b"payload").expect("it fits");
        packet[26..28].fill(0);
        assert!(Datagram::in_ipv4(&packet).is_ok());
        let mut packet = ipv6_packet(FROM6, TO6, b"payload").expect("it fits");
        packet[46..48].fill(0);
        assert!(Datagram::in_ipv6(&packet).is_err());
    }

    #[test]
    fn lengths_that_cannot_be() {
        let packet = ipv4_packet(FROM, TO, b"payload").expect("it fits");
        for len in [0_u8, 7, 16, 255] {
            let mut broken = packet.clone();
            broken[25] = len;
            // Without a checksum, so that nothing else is wrong.
            broken[26..28].fill(0);
            assert!(Datagram::in_ipv4(&broken).is_err(), "{len}");
        }
        // Padding behind it is not part of it.
        let mut padded = packet.clone();
        padded[25] = 8 + 3;
        padded[26..28].fill(0);
        let datagram = Datagram::in_ipv4(&padded).expect("well formed");
        assert_eq!(datagram.payload, b"pay");
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        // The payload makes the sum of everything else all ones.
        let packet = ipv4_packet(FROM, TO, &[0, 0]).expect("it fits");
        let sum = [packet[26], packet[27]];
        let packet = ipv4_packet(FROM, TO, &sum).expect("it fits");
        assert_eq!(packet[26..28], [0xff, 0xff]);
        assert!(Datagram::in_ipv4(&packet).is_ok());
    }
}
