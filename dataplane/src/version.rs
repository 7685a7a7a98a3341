//! The version of an inner packet.

use turnpike_protocol::wire::ethernet;

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Four,
    Six,
}

impl Version {
    /// Of an inner packet that has been checked to be one of both.
    #[inline]
    pub(crate) fn of(packet: &[u8]) -> Self {
        match packet.first() {
            Some(octet) if octet >> 4 == 6 => Self::Six,
            _ => Self::Four,
        }
    }

    /// Of what an Ethernet frame from a port says that it holds.
    #[inline]
    pub(crate) fn of_frame(frame: &[u8]) -> Option<Self> {
        match *frame.get(12..ethernet::HEADER_LEN)? {
            [0x08, 0x00] => Some(Self::Four),
            [0x86, 0xdd] => Some(Self::Six),
            _ => None,
        }
    }

    /// What an Ethernet frame with it says.
    #[inline]
    pub(crate) fn ethertype(self) -> u16 {
        match self {
            Self::Four => ethernet::IPV4,
            Self::Six => ethernet::IPV6,
        }
    }
}
