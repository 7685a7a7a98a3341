//! IPv6 (RFC 8200): the fixed header, and the checksum that goes over parts of it.

use core::net::Ipv6Addr;

use crate::Error;
use crate::wire::{ipv4, read_u16, write_u16};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;

/// The smallest MTU of a link with IPv6, in octets (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;

/// Next header: hop-by-hop options (RFC 8200 §4.3).
pub const HOP_BY_HOP: u8 = 0;
/// Next header: TCP.
pub const TCP: u8 = 6;
/// Next header: UDP.
pub const UDP: u8 = 17;
/// Next header: ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;

/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1).
pub const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Whether an address is good on one link only: fe80::/10 (RFC 4291 §2.5.6).
#[inline]
pub const fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

/// The link-local address of an interface identifier (RFC 4291 §2.5.6).
pub const fn link_local(identifier: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfe80 << 112) | identifier as u128)
}

/// A view over an IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks version and payload length against the octets at hand. Jumbograms (RFC 2675) are refused.
    pub fn new_checked(bytes: T) -> Result<Self, Error> {
        let b = bytes.as_ref();
        if b.len() < HEADER_LEN {
            return Err(Error::Malformed("IPv6 header"));
        }
        if b[0] >> 4 != 6 {
            return Err(Error::Malformed("IPv6 version"));
        }
        if HEADER_LEN + usize::from(read_u16(b, 4)) > b.len() {
            return Err(Error::Malformed("IPv6 length"));
        }
        Ok(Self(bytes))
    }

    /// Octets of the whole packet.
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(read_u16(self.0.as_ref(), 4))
    }

    /// Protocol of what follows the fixed header; may be an extension header.
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[6]
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[7]
    }

    /// Source address.
    pub fn source(&self) -> Ipv6Addr {
        self.address(8)
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv6Addr {
        self.address(24)
    }

    /// What follows the fixed header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..self.total_len()]
    }

    fn address(&self, at: usize) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0.as_ref()[at..at + 16]);
        Ipv6Addr::from(octets)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Lowers the hop limit by one. False, and nothing changed, when it is 0 or would become 0: such a packet must not
    /// be forwarded (RFC 8200 §3).
    #[inline]
    #[must_use]
    pub fn decrement_hop_limit(&mut self) -> bool {
        let hop_limit = &mut self.0.as_mut()[7];
        let alive = *hop_limit > 1;
        *hop_limit -= u8::from(alive);
        alive
    }
}

/// A fixed header to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Protocol of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Octets that follow.
    pub payload_len: u16,
}

impl Header {
    /// The header's octets; traffic class and flow label are 0.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 0x60;
        write_u16(&mut bytes, 4, self.payload_len);
        bytes[6] = self.next_header;
        bytes[7] = self.hop_limit;
        bytes[8..24].copy_from_slice(&self.source.octets());
        bytes[24..40].copy_from_slice(&self.destination.octets());
        bytes
    }
}

/// The checksum of a TCP, UDP or ICMPv6 message with its pseudo-header (RFC 8200 §8.1); 0 over a message whose own
/// checksum is right.
pub fn transport_checksum(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    message: &[u8],
) -> u16 {
    let mut pseudo = [0; HEADER_LEN];
    pseudo[..16].copy_from_slice(&source.octets());
    pseudo[16..32].copy_from_slice(&destination.octets());
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    pseudo[32..36].copy_from_slice(&len.to_be_bytes());
    pseudo[39] = next_header;
    // One's complement sums may be taken in parts (RFC 1071 §2).
    let sum = u32::from(!ipv4::checksum(&pseudo)) + u32::from(!ipv4::checksum(message));
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        let mut bytes = [0; 44];
        bytes[0] = 0x60;
        bytes[5] = 4;
        bytes[6] = 58;
        bytes[7] = 255;
        bytes[23] = 1;
        bytes[39] = 2;
        let packet = Packet::new_checked(&bytes[..]).expect("well formed");
        assert_eq!(packet.source(), Ipv6Addr::from(1u128));
        assert_eq!(packet.destination(), Ipv6Addr::from(2u128));
        assert_eq!(
            (packet.next_header(), packet.hop_limit(), packet.total_len()),
            (58, 255, 44)
        );
        let mut packet = Packet::new_checked(&mut bytes[..]).expect("well formed");
        assert!(packet.decrement_hop_limit());
        assert_eq!(packet.hop_limit(), 254);
        bytes[7] = 1;
        let mut packet = Packet::new_checked(&mut bytes[..]).expect("well formed");
        assert!(!packet.decrement_hop_limit());
        assert_eq!(packet.hop_limit(), 1);
        assert!(Packet::new_checked(&bytes[..43]).is_err());
        assert!(Packet::new_checked(&bytes[..39]).is_err());
    }

    #[test]
    fn checksums_cover_the_pseudo_header() {
        // A Router Solicitation from fe80::1 to ff02::2.
        let (source, destination) = (link_local(1), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
        let mut message = [133, 0, 0, 0, 0, 0, 0, 0];
        let sum = transport_checksum(source, destination, ICMPV6, &message);
        // Summed by hand over addresses, length, next header and the message.
        assert_eq!(sum, 0x7d36);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(transport_checksum(source, destination, ICMPV6, &message), 0);
        assert_ne!(
            transport_checksum(source, link_local(2), ICMPV6, &message),
            0
        );
    }
}
