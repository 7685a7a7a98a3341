//! IPv4 (RFC 791) and the Internet checksum (RFC 1071, RFC 1624).

use core::net::Ipv4Addr;
use core::ops::Range;

use crate::Error;
use crate::wire::{read_u16, write_u16};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of GRE.
pub const GRE: u8 = 47;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// A view over an IPv4 packet. Octets beyond its total length (link padding) are not part of it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks version, header length and total length against the octets at hand; not the checksum.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Error> {
        let b = bytes.as_ref();
        if b.len() < HEADER_LEN {
            return Err(Error::Malformed("IPv4 header"));
        }
        if b[0] >> 4 != 4 {
            return Err(Error::Malformed("IPv4 version"));
        }
        let header = usize::from(b[0] & 0x0f) * 4;
        let total = usize::from(read_u16(b, 2));
        if header < HEADER_LEN || total < header || total > b.len() {
            return Err(Error::Malformed("IPv4 length"));
        }
        Ok(Self(bytes))
    }

    /// Octets of the header, options included: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 0x0f) * 4
    }

    /// Octets of the whole packet.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(read_u16(self.0.as_ref(), 2))
    }

    /// The octet of DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.0.as_ref()[1]
    }

    /// Identification.
    #[inline]
    pub fn ident(&self) -> u16 {
        read_u16(self.0.as_ref(), 4)
    }

    /// DF.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        read_u16(self.0.as_ref(), 6) & DONT_FRAGMENT != 0
    }

    /// MF.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        read_u16(self.0.as_ref(), 6) & MORE_FRAGMENTS != 0
    }

    /// Fragment offset in octets.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(read_u16(self.0.as_ref(), 6) & OFFSET) * 8
    }

    /// Whether this is a piece of a larger datagram (first, middle or last).
    #[inline]
    pub fn is_fragment(&self) -> bool {
        read_u16(self.0.as_ref(), 6) & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[8]
    }

    /// Protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[9]
    }

    /// Header checksum as it stands.
    #[inline]
    pub fn header_checksum(&self) -> u16 {
        read_u16(self.0.as_ref(), 10)
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        let b = self.0.as_ref();
        Ipv4Addr::new(b[12], b[13], b[14], b[15])
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        let b = self.0.as_ref();
        Ipv4Addr::new(b[16], b[17], b[18], b[19])
    }

    /// Whether the header checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum(&self.0.as_ref()[..self.header_len()]) == 0
    }

    /// Where the payload lies.
    #[inline]
    pub fn payload_range(&self) -> Range<usize> {
        self.header_len()..self.total_len()
    }

    /// The payload.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.payload_range()]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Takes one from the time to live and mends the checksum. False, and nothing done, when it was 0 or 1: the
    /// packet must not be forwarded (RFC 1812 §5.3.1).
    #[inline]
    #[must_use]
    pub fn decrement_ttl(&mut self) -> bool {
        let b = self.0.as_mut();
        if b[8] <= 1 {
            return false;
        }
        let old = read_u16(b, 8);
        b[8] -= 1;
        let new = read_u16(b, 8);
        let sum = checksum_update(read_u16(b, 10), old, new);
        write_u16(b, 10, sum);
        true
    }

    /// Writes the header checksum.
    #[inline]
    pub fn fill_checksum(&mut self) {
        let header = self.header_len();
        let b = self.0.as_mut();
        write_u16(b, 10, 0);
        let sum = checksum(&b[..header]);
        write_u16(b, 10, sum);
    }

    /// The payload.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = self.payload_range();
        &mut self.0.as_mut()[range]
    }
}

/// A header without options, of a packet that is no fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Identification; must differ between packets that may be fragmented (RFC 6864 §4.2).
    pub ident: u16,
    /// DF.
    pub dont_fragment: bool,
    /// Octets of the payload; at most 65,515.
    pub payload_len: u16,
}

impl Header {
    /// The header as octets, checksum included.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0] = 0x45;
        b[1] = self.traffic_class;
        write_u16(&mut b, 2, self.payload_len.saturating_add(20));
        write_u16(&mut b, 4, self.ident);
        write_u16(
            &mut b,
            6,
            if self.dont_fragment { DONT_FRAGMENT } else { 0 },
        );
        b[8] = self.ttl;
        b[9] = self.protocol;
        b[12..16].copy_from_slice(&self.source.octets());
        b[16..].copy_from_slice(&self.destination.octets());
        let sum = checksum(&b);
        write_u16(&mut b, 10, sum);
        b
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

/// The Internet checksum (RFC 1071) of `bytes`; 0 when they hold a right checksum already.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(0, bytes))
}

/// The checksum of TCP, UDP over IPv4: pseudo header (RFC 793 §3.1) and segment. For UDP a result of 0 is sent as
/// FFFF (RFC 768).
pub fn transport_checksum(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    segment: &[u8],
) -> u16 {
    let length = u64::try_from(segment.len()).unwrap_or(0);
    let mut total = u64::from(protocol) + length;
    total = sum(total, &source.octets());
    total = sum(total, &destination.octets());
    !fold(sum(total, segment))
}

/// The checksum after one aligned 16-bit word of the data changed from `old` to `new` (RFC 1624 §3, equation 3).
#[inline]
pub fn checksum_update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[inline]
fn sum(start: u64, bytes: &[u8]) -> u64 {
    let mut total = start;
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    // The last one to three octets, padded with zeros on the right (RFC 1071 §1).
    let mut last = [0; 4];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_be_bytes(last))
}

#[inline]
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    // At most 16 bits are left.
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        protocol: UDP,
        ttl: 64,
        traffic_class: 0,
        ident: 0x1234,
        dont_fragment: true,
        payload_len: 8,
    };

    #[test]
    fn checksum_of_rfc_1071() {
        // RFC 1071 §3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
        assert_eq!(checksum(&[0x01]), !0x0100);
        assert_eq!(checksum(&[]), 0xffff);
    }

    #[test]
    fn header_round_trips() {
        let mut bytes = [0; 30];
        assert_eq!(HEADER.emit(&mut bytes), Some(20));
        let packet = Packet::new_checked(&bytes[..]).expect("well formed");
        assert!(packet.verify_checksum());
        assert_eq!(packet.source(), HEADER.source);
        assert_eq!(packet.destination(), HEADER.destination);
        assert_eq!(packet.protocol(), UDP);
        assert_eq!(packet.ttl(), 64);
        assert_eq!(packet.ident(), 0x1234);
        assert!(packet.dont_fragment() && !packet.is_fragment());
        assert_eq!(packet.payload_range(), 20..28);
    }

    #[test]
    fn ttl_mends_the_checksum() {
        for ttl in 0..=255u8 {
            for ident in [0, 0x1234, 0xffff, 0x8d2b] {
                let mut bytes = [0; 28];
                let header = Header {
                    ttl,
                    ident,
                    ..HEADER
                };
                header.emit(&mut bytes);
                let mut packet = Packet::new_checked(&mut bytes[..]).expect("well formed");
                assert_eq!(packet.decrement_ttl(), ttl > 1);
                assert!(packet.verify_checksum());
                assert_eq!(packet.ttl(), if ttl > 1 { ttl - 1 } else { ttl });
            }
        }
    }

    #[test]
    fn refuses_lengths_that_lie() {
        let mut bytes = [0; 28];
        HEADER.emit(&mut bytes);
        assert!(Packet::new_checked(&bytes[..27]).is_err());
        assert!(Packet::new_checked(&bytes[..19]).is_err());
        let mut short_header = bytes;
        short_header[0] = 0x44;
        assert!(Packet::new_checked(&short_header[..]).is_err());
        let mut options_beyond_total = bytes;
        options_beyond_total[0] = 0x4f;
        assert!(Packet::new_checked(&options_beyond_total[..]).is_err());
        let mut version = bytes;
        version[0] = 0x65;
        assert!(Packet::new_checked(&version[..]).is_err());
    }
}
