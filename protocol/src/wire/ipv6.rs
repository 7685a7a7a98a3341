//! IPv6 (RFC 8200): the fixed header, as far as telling packets apart needs it.

use core::net::Ipv6Addr;

use crate::Error;
use crate::wire::read_u16;

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;

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

    fn address(&self, at: usize) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0.as_ref()[at..at + 16]);
        Ipv6Addr::from(octets)
    }
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
        assert!(Packet::new_checked(&bytes[..43]).is_err());
        assert!(Packet::new_checked(&bytes[..39]).is_err());
    }
}
