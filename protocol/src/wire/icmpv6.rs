//! ICMPv6 errors about packets that cannot be forwarded (RFC 4443).

use core::net::Ipv6Addr;

use crate::wire::{ipv6, write_u16};

/// Octets in front of the quoted packet: an IPv6 header and an ICMPv6 header.
pub const OVERHEAD: usize = ipv6::HEADER_LEN + 8;

/// The largest ICMPv6 error. RFC 4443 §2.4(c): as much of the original as fits the minimum MTU.
pub const MAX_LEN: usize = ipv6::MIN_MTU as usize;

/// Types under this are errors (RFC 4443 §2.1).
const FIRST_INFORMATIONAL: u8 = 128;
const REDIRECT: u8 = 137;

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// No route to the destination (type 1, code 0).
    NoRoute,
    /// Nobody has the address (type 1, code 3).
    AddressUnreachable,
    /// Larger than the next link takes (type 2; RFC 4443 §3.2).
    PacketTooBig {
        /// Octets of the largest packet that fits.
        mtu: u16,
    },
    /// The hop limit ran out on the way (type 3, code 0).
    TimeExceeded,
}

impl Message {
    fn header(self) -> [u8; 8] {
        let (kind, code, mtu) = match self {
            Self::NoRoute => (1, 0, 0),
            Self::AddressUnreachable => (1, 3, 0),
            Self::PacketTooBig { mtu } => (2, 0, mtu),
            Self::TimeExceeded => (3, 0, 0),
        };
        let [high, low] = mtu.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// How many octets of `original` (an IPv6 packet) an error about it quotes; `None` when there must be no error.
///
/// RFC 4443 §2.4(e): never about ICMPv6 errors and redirects, never about multicast (but that a packet is too big),
/// never to a source that is not one node. An extension header in front of ICMPv6 is not looked behind: no error then,
/// as it may be about one.
pub fn quoted_len(message: Message, original: &[u8]) -> Option<usize> {
    let packet = ipv6::Packet::new_checked(original).ok()?;
    let source = packet.source();
    let too_big = matches!(message, Message::PacketTooBig { .. });
    let may_be_error = match packet.next_header() {
        ipv6::ICMPV6 => match packet.payload().first() {
            None => true,
            Some(&kind) => kind < FIRST_INFORMATIONAL || kind == REDIRECT,
        },
        // Hop-by-hop options, routing, fragment, destination options.
        ipv6::HOP_BY_HOP | 43 | 60 => true,
        // The first fragment of an echo is worth an error, a later one cannot be told from others.
        44 => packet.payload().first() == Some(&ipv6::ICMPV6),
        _ => false,
    };
    if may_be_error
        || source.is_unspecified()
        || source.is_multicast()
        || source.is_loopback()
        || (packet.destination().is_multicast() && !too_big)
    {
        return None;
    }
    Some(packet.total_len().min(MAX_LEN - OVERHEAD))
}

/// Turns the packet at `buffer[OVERHEAD..]` into an ICMPv6 error about itself, from `source` to the one who sent it,
/// without moving it. Returns the length of the error, which begins at `buffer[0]`; `None`, and nothing written, when
/// RFC 4443 §2.4(e) forbids it.
pub fn emit_in_front(message: Message, source: Ipv6Addr, buffer: &mut [u8]) -> Option<usize> {
    let original = buffer.get(OVERHEAD..)?;
    let quoted = quoted_len(message, original)?;
    let destination = ipv6::Packet::new_checked(original).ok()?.source();
    let packet = &mut buffer[..OVERHEAD + quoted];
    let header = ipv6::Header {
        source,
        destination,
        next_header: ipv6::ICMPV6,
        hop_limit: 64,
        payload_len: u16::try_from(8 + quoted).ok()?,
    };
    packet[..ipv6::HEADER_LEN].copy_from_slice(&header.to_bytes());
    let icmp = &mut packet[ipv6::HEADER_LEN..];
    icmp[..8].copy_from_slice(&message.header());
    let sum = ipv6::transport_checksum(source, destination, ipv6::ICMPV6, icmp);
    write_u16(icmp, 2, sum);
    Some(packet.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 7, 0, 0, 0, 9);
    const REMOTE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
    const US: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

    fn packet(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let header = ipv6::Header {
            source,
            destination,
            next_header: next,
            hop_limit: 1,
            payload_len: u16::try_from(payload.len()).expect("short"),
        };
        [&header.to_bytes()[..], payload].concat()
    }

    #[test]
    fn quotes_the_original() {
        for len in [0, 8, 1184, 1192, 1193, 1400] {
            let original = packet(CLIENT, REMOTE, ipv6::UDP, &vec![0xa5; len]);
            for (message, kind, code, mtu) in [
                (Message::NoRoute, 1, 0, 0),
                (Message::AddressUnreachable, 1, 3, 0),
                (Message::PacketTooBig { mtu: 1400 }, 2, 0, 1400u32),
                (Message::TimeExceeded, 3, 0, 0),
            ] {
                let mut buffer = vec![0; OVERHEAD];
                buffer.extend_from_slice(&original);
                let written = emit_in_front(message, US, &mut buffer).expect("allowed");
                assert!(written <= 1280);
                let ip = ipv6::Packet::new_checked(&buffer[..written]).expect("well formed");
                assert_eq!((ip.source(), ip.destination()), (US, CLIENT));
                assert_eq!(ip.total_len(), written);
                let icmp = ip.payload();
                assert_eq!(ipv6::transport_checksum(US, CLIENT, ipv6::ICMPV6, icmp), 0);
                assert_eq!(icmp[..2], [kind, code]);
                assert_eq!(icmp[4..8], mtu.to_be_bytes());
                assert_eq!(icmp[8..], original[..original.len().min(1232)]);
            }
        }
    }

    #[test]
    fn no_error_about_errors_and_groups() {
        let too_big = Message::PacketTooBig { mtu: 1280 };
        let echo = packet(CLIENT, REMOTE, ipv6::ICMPV6, &[128, 0, 0, 0]);
        assert!(quoted_len(Message::TimeExceeded, &echo).is_some());
        for kind in [1, 2, 3, 4, 100, 127, 137] {
            let error = packet(CLIENT, REMOTE, ipv6::ICMPV6, &[kind, 0, 0, 0]);
            assert_eq!(quoted_len(too_big, &error), None, "type {kind}");
        }
        for (next, payload) in [
            (ipv6::ICMPV6, &[][..]),
            (0, &[58, 0, 0, 0, 0, 0, 0, 0]),
            (43, &[58, 0, 0, 0, 0, 0, 0, 0]),
            (60, &[58, 0, 0, 0, 0, 0, 0, 0]),
            (44, &[58, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let packet = packet(CLIENT, REMOTE, next, payload);
            assert_eq!(quoted_len(too_big, &packet), None, "{next}");
        }
        let fragment = packet(CLIENT, REMOTE, 44, &[17, 0, 0, 1, 0, 0, 0, 0]);
        assert!(quoted_len(too_big, &fragment).is_some());
        for bad in [
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        ] {
            assert_eq!(quoted_len(too_big, &packet(bad, REMOTE, 17, &[])), None);
        }
        let group = packet(CLIENT, Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1), 17, &[]);
        assert_eq!(quoted_len(Message::TimeExceeded, &group), None);
        assert!(quoted_len(too_big, &group).is_some());
        assert_eq!(quoted_len(too_big, &[0x60; 39]), None);
    }
}
