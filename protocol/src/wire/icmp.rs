//! ICMP errors about packets that cannot be forwarded (RFC 792, RFC 1191, RFC 1812 §4.3.2).

use core::net::Ipv4Addr;

use crate::wire::{ipv4, write_u16};

/// Octets in front of the quoted packet: an IPv4 header and an ICMP header.
pub const OVERHEAD: usize = ipv4::HEADER_LEN + 8;

/// The largest ICMP error. RFC 1812 §4.3.2.3: as much of the original as fits without exceeding 576 octets.
pub const MAX_LEN: usize = 576;

const UNREACHABLE: u8 = 3;
const REDIRECT: u8 = 5;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const SOURCE_QUENCH: u8 = 4;

/// What is reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// No route to the network (type 3, code 0).
    NetworkUnreachable,
    /// The host cannot be reached (type 3, code 1).
    HostUnreachable,
    /// Too big, and DF is set (type 3, code 4; RFC 1191 §4).
    FragmentationNeeded {
        /// Octets of the largest packet that fits.
        mtu: u16,
    },
    /// Forbidden by administration (type 3, code 13; RFC 1812 §5.2.7.1).
    Prohibited,
    /// Time to live ran out on the way (type 11, code 0).
    TimeExceeded,
}

impl Message {
    fn header(self) -> [u8; 8] {
        let (kind, code, mtu) = match self {
            Self::NetworkUnreachable => (UNREACHABLE, 0, 0),
            Self::HostUnreachable => (UNREACHABLE, 1, 0),
            Self::FragmentationNeeded { mtu } => (UNREACHABLE, 4, mtu),
            Self::Prohibited => (UNREACHABLE, 13, 0),
            Self::TimeExceeded => (TIME_EXCEEDED, 0, 0),
        };
        let [high, low] = mtu.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// How many octets of `original` (an IPv4 packet) an error about it quotes; `None` when there must be no error.
///
/// RFC 1812 §4.3.2.7: never about ICMP errors, never about broadcast or multicast, never about fragments other than
/// the first, never to a source that is not one host.
pub fn quoted_len(original: &[u8]) -> Option<usize> {
    let packet = ipv4::Packet::new_checked(original).ok()?;
    let source = packet.source();
    if packet.fragment_offset() != 0
        || !is_one_host(source)
        || !is_one_host(packet.destination())
        || (packet.protocol() == ipv4::ICMP && !is_query(packet.payload()))
    {
        return None;
    }
    Some(packet.total_len().min(MAX_LEN - OVERHEAD))
}

fn is_one_host(address: Ipv4Addr) -> bool {
    // Net 0, loopback and class E, which holds the limited broadcast address.
    let first = address.octets()[0];
    first != 0 && first < 224 && !address.is_loopback()
}

/// An ICMP message whose type cannot be read counts as an error, so that nothing is sent about it.
fn is_query(payload: &[u8]) -> bool {
    match payload.first() {
        None => false,
        Some(&kind) => !matches!(
            kind,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        ),
    }
}

/// Turns the packet at `buffer[OVERHEAD..]` into an ICMP error about itself, from `source` to the one who sent it,
/// without moving it. Returns the length of the error, which begins at `buffer[0]`; `None`, and nothing written,
/// when RFC 1812 §4.3.2.7 forbids it.
pub fn emit_in_front(message: Message, source: Ipv4Addr, buffer: &mut [u8]) -> Option<usize> {
    let original = buffer.get(OVERHEAD..)?;
    let quoted = quoted_len(original)?;
    let destination = ipv4::Packet::new_checked(original).ok()?.source();
    finish(
        message,
        source,
        destination,
        &mut buffer[..OVERHEAD + quoted],
    )
}

/// Writes an ICMP error about `original` to the front of `buffer` and returns its length; `None` when it must not be
/// sent or does not fit.
pub fn emit(
    message: Message,
    source: Ipv4Addr,
    original: &[u8],
    buffer: &mut [u8],
) -> Option<usize> {
    let quoted = quoted_len(original)?;
    let destination = ipv4::Packet::new_checked(original).ok()?.source();
    let packet = buffer.get_mut(..OVERHEAD + quoted)?;
    packet[OVERHEAD..].copy_from_slice(&original[..quoted]);
    finish(message, source, destination, packet)
}

/// Writes both headers in front of the quoted octets.
fn finish(
    message: Message,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    packet: &mut [u8],
) -> Option<usize> {
    ipv4::Header {
        source,
        destination,
        protocol: ipv4::ICMP,
        ttl: 64,
        // RFC 1812 §4.3.2.5: precedence 6 (internetwork control).
        traffic_class: 0xc0,
        // RFC 6864 §4.1: an atomic datagram needs no identification.
        ident: 0,
        dont_fragment: true,
        payload_len: u16::try_from(packet.len() - ipv4::HEADER_LEN).ok()?,
    }
    .emit(packet)?;
    let icmp = &mut packet[ipv4::HEADER_LEN..];
    icmp[..8].copy_from_slice(&message.header());
    let sum = ipv4::checksum(icmp);
    write_u16(icmp, 2, sum);
    Some(packet.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
    const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const US: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

    fn packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ipv4::Header {
            source,
            destination,
            protocol,
            ttl: 1,
            traffic_class: 0,
            ident: 7,
            dont_fragment: true,
            payload_len: u16::try_from(payload.len()).expect("short"),
        }
        .to_bytes()
        .to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn check(error: &[u8], kind: u8, code: u8, mtu: u16, original: &[u8]) {
        let ip = ipv4::Packet::new_checked(error).expect("well formed");
        assert!(ip.verify_checksum());
        assert_eq!((ip.source(), ip.destination()), (US, CLIENT));
        let icmp = ip.payload();
        assert_eq!(ipv4::checksum(icmp), 0);
        assert_eq!(icmp[..2], [kind, code]);
        assert_eq!(icmp[4..8], u32::from(mtu).to_be_bytes());
        let quoted = original.len().min(MAX_LEN - OVERHEAD);
        assert_eq!(icmp[8..], original[..quoted]);
    }

    #[test]
    fn quotes_the_original_both_ways_of_writing() {
        for len in [0, 8, 520, 528, 529, 1400] {
            let original = packet(CLIENT, REMOTE, ipv4::UDP, &vec![0xa5; len]);
            for (message, kind, code, mtu) in [
                (Message::NetworkUnreachable, 3, 0, 0),
                (Message::HostUnreachable, 3, 1, 0),
                (Message::FragmentationNeeded { mtu: 1400 }, 3, 4, 1400),
                (Message::Prohibited, 3, 13, 0),
                (Message::TimeExceeded, 11, 0, 0),
            ] {
                let mut buffer = vec![0; OVERHEAD];
                buffer.extend_from_slice(&original);
                let written = emit_in_front(message, US, &mut buffer).expect("allowed");
                assert!(written <= MAX_LEN);
                check(&buffer[..written], kind, code, mtu, &original);
                let mut copy = [0; MAX_LEN];
                let written = emit(message, US, &original, &mut copy).expect("allowed");
                check(&copy[..written], kind, code, mtu, &original);
            }
        }
    }

    #[test]
    fn no_error_about_errors_groups_and_later_fragments() {
        let echo = packet(CLIENT, REMOTE, ipv4::ICMP, &[8, 0, 0, 0]);
        assert!(quoted_len(&echo).is_some());
        for kind in [3, 4, 5, 11, 12] {
            let error = packet(CLIENT, REMOTE, ipv4::ICMP, &[kind, 0, 0, 0]);
            assert_eq!(quoted_len(&error), None, "type {kind}");
        }
        assert_eq!(quoted_len(&packet(CLIENT, REMOTE, ipv4::ICMP, &[])), None);
        for bad in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            let bad = Ipv4Addr::from(bad);
            assert_eq!(quoted_len(&packet(bad, REMOTE, ipv4::UDP, &[])), None);
            assert_eq!(quoted_len(&packet(CLIENT, bad, ipv4::UDP, &[])), None);
        }
        let mut fragment = packet(CLIENT, REMOTE, ipv4::UDP, &[0; 8]);
        fragment[7] = 1;
        assert_eq!(quoted_len(&fragment), None);
        fragment[6..8].copy_from_slice(&[0x20, 0]);
        assert!(quoted_len(&fragment).is_some(), "the first fragment");
        assert_eq!(quoted_len(&[0x45; 10]), None);
    }
}
