//! Whether octets look like what a peer sends.

use crate::wire::ipv4;

/// How much the beginning of a packet, from its inner protocol field on, looks like one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Likeness {
    /// It is garbage.
    No,
    /// Of random octets about two in a thousand are like this.
    Perhaps,
    /// An IPv4 header with its checksum, or an IPv6 header with the right length: of random octets one in a million.
    Sure,
}

impl Likeness {
    /// Octets that are looked at: an inner protocol field and the longest IPv4 header.
    pub(super) const HEAD: usize = 62;

    /// Judges a packet of `len` octets by the first [`Self::HEAD`] of them, or all if there are fewer.
    ///
    /// RFC 3078 §3: only protocols 0021 to 00FA are encrypted. The protocol alone is a weak check (in its one-octet
    /// form two fifths of all garbage would pass), so IP headers are looked at too, and other protocols count only in
    /// the two-octet form.
    pub(super) fn of(head: &[u8], len: usize) -> Self {
        match head {
            [0x00, 0x21, packet @ ..] => Self::of_ipv4(packet, len - 2),
            [0x21, packet @ ..] => Self::of_ipv4(packet, len - 1),
            [0x00, 0x57, packet @ ..] => Self::of_ipv6(packet, len - 2),
            [0x57, packet @ ..] => Self::of_ipv6(packet, len - 1),
            // RFC 1661 §2: the last octet of a protocol number is odd.
            [0x00, protocol, ..] if (0x21..=0xfa).contains(protocol) && protocol & 1 == 1 => {
                Self::Perhaps
            }
            _ => Self::No,
        }
    }

    fn of_ipv4(packet: &[u8], len: usize) -> Self {
        let well_formed = packet.len() >= 20
            && packet[0] >> 4 == 4
            && (5..=15).contains(&(packet[0] & 0x0f))
            && (20..=len).contains(&usize::from(u16::from_be_bytes([packet[2], packet[3]])));
        if !well_formed {
            return Self::No;
        }
        match packet.get(..usize::from(packet[0] & 0x0f) * 4) {
            Some(header) if ipv4::checksum(header) == 0 => Self::Sure,
            _ => Self::Perhaps,
        }
    }

    fn of_ipv6(packet: &[u8], len: usize) -> Self {
        if packet.len() < 40 || packet[0] >> 4 != 6 {
            return Self::No;
        }
        match usize::from(u16::from_be_bytes([packet[4], packet[5]])) {
            payload if payload == len - 40 => Self::Sure,
            payload if payload < len - 40 => Self::Perhaps,
            _ => Self::No,
        }
    }
}
