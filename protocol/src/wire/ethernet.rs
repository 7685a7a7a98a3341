//! Ethernet II.

use core::fmt;

use crate::Error;
use crate::wire::{read_u16, write_u16};

/// Octets of an untagged header.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an IEEE 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an IEEE 802.1ad (outer) tag.
pub const QINQ: u16 = 0x88a8;

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether this is a group address (multicast or broadcast): lowest bit of the first octet.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A view over an Ethernet frame without its check sequence.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks that the header is there.
    pub fn new_checked(bytes: T) -> Result<Self, Error> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(Error::Malformed("Ethernet header"));
        }
        Ok(Self(bytes))
    }

    /// Destination address.
    pub fn destination(&self) -> MacAddr {
        let b = self.0.as_ref();
        MacAddr([b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// Source address.
    pub fn source(&self) -> MacAddr {
        let b = self.0.as_ref();
        MacAddr([b[6], b[7], b[8], b[9], b[10], b[11]])
    }

    /// `EtherType`, or the id of the outermost VLAN tag.
    pub fn ethertype(&self) -> u16 {
        read_u16(self.0.as_ref(), 12)
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the destination address.
    pub fn set_destination(&mut self, address: MacAddr) {
        self.0.as_mut()[..6].copy_from_slice(&address.0);
    }

    /// Sets the source address.
    pub fn set_source(&mut self, address: MacAddr) {
        self.0.as_mut()[6..12].copy_from_slice(&address.0);
    }

    /// Sets the `EtherType`.
    pub fn set_ethertype(&mut self, ethertype: u16) {
        write_u16(self.0.as_mut(), 12, ethertype);
    }

    /// What follows the header.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.0.as_mut()[HEADER_LEN..]
    }
}

/// A whole untagged header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Destination address.
    pub destination: MacAddr,
    /// Source address.
    pub source: MacAddr,
    /// `EtherType`.
    pub ethertype: u16,
}

impl Header {
    /// The header as octets.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..6].copy_from_slice(&self.destination.0);
        bytes[6..12].copy_from_slice(&self.source.0);
        bytes[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes
    }

    /// Writes the header to the front of `buffer`; `None` when it does not fit, else the octets written.
    #[inline]
    pub fn emit(self, buffer: &mut [u8]) -> Option<usize> {
        buffer
            .get_mut(..HEADER_LEN)?
            .copy_from_slice(&self.to_bytes());
        Some(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips() {
        let header = Header {
            destination: MacAddr([1, 2, 3, 4, 5, 6]),
            source: MacAddr([7, 8, 9, 10, 11, 12]),
            ethertype: IPV4,
        };
        let mut frame = [0; 20];
        assert_eq!(header.emit(&mut frame), Some(14));
        let packet = Packet::new_checked(&frame[..]).expect("long enough");
        assert_eq!(packet.destination(), header.destination);
        assert_eq!(packet.source(), header.source);
        assert_eq!(packet.ethertype(), IPV4);
        assert_eq!(packet.payload().len(), 6);
        assert!(Packet::new_checked([0; 13]).is_err());
        assert_eq!(header.emit(&mut [0; 13]), None);
        assert_eq!(header.source.to_string(), "07:08:09:0a:0b:0c");
    }
}
