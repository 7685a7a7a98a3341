//! PPP frames as they stand in a GRE payload: address and control field, protocol field (RFC 1661 §2, §6.5, §6.6).
//!
//! No flags, no check sequence, no escaping inside GRE (RFC 2637 §4).

use core::fmt;

use crate::Error;
use crate::wire::read_u16;

/// The address and control field of RFC 1662 §3.1.
pub const ADDRESS_CONTROL: [u8; 2] = [0xff, 0x03];

/// Octets of the longest header: address, control, two octets of protocol.
pub const MAX_HEADER_LEN: usize = 4;

/// A PPP protocol number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u16);

impl Protocol {
    /// IPv4 (RFC 1332).
    pub const IPV4: Self = Self(0x0021);
    /// IPv6 (RFC 5072).
    pub const IPV6: Self = Self(0x0057);
    /// Van Jacobson compressed TCP/IP (RFC 1332 §4).
    pub const VJ_COMPRESSED: Self = Self(0x002d);
    /// Van Jacobson uncompressed TCP/IP (RFC 1332 §4).
    pub const VJ_UNCOMPRESSED: Self = Self(0x002f);
    /// Multilink (RFC 1990).
    pub const MULTILINK: Self = Self(0x003d);
    /// Compressed or encrypted datagram (RFC 1962 §4, RFC 3078 §3).
    pub const COMPRESSED: Self = Self(0x00fd);
    /// IP Control Protocol (RFC 1332).
    pub const IPCP: Self = Self(0x8021);
    /// IPv6 Control Protocol (RFC 5072).
    pub const IPV6CP: Self = Self(0x8057);
    /// Compression Control Protocol (RFC 1962).
    pub const CCP: Self = Self(0x80fd);
    /// Link Control Protocol (RFC 1661).
    pub const LCP: Self = Self(0xc021);
    /// Password Authentication Protocol (RFC 1334).
    pub const PAP: Self = Self(0xc023);
    /// Callback Control Protocol.
    pub const CBCP: Self = Self(0xc029);
    /// Challenge Handshake Authentication Protocol (RFC 1994).
    pub const CHAP: Self = Self(0xc223);
    /// Extensible Authentication Protocol (RFC 3748).
    pub const EAP: Self = Self(0xc227);

    /// Whether frames of this protocol carry network data (RFC 1661 §2: 0000 to 3FFF) rather than negotiate.
    #[inline]
    pub const fn is_data(self) -> bool {
        self.0 < 0x4000
    }

    /// Whether MPPE encrypts this protocol (RFC 3078 §3: 0021 to 00FA).
    #[inline]
    pub const fn is_encrypted(self) -> bool {
        self.0 >= 0x0021 && self.0 <= 0x00fa
    }

    /// Whether the number obeys RFC 1661 §2: the last octet is odd, the first one even.
    #[inline]
    pub const fn is_well_formed(self) -> bool {
        self.0 & 0x0101 == 0x0001
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::IPV6 => f.write_str("IPv6"),
            Self::COMPRESSED => f.write_str("MPPE"),
            Self::IPCP => f.write_str("IPCP"),
            Self::IPV6CP => f.write_str("IPV6CP"),
            Self::CCP => f.write_str("CCP"),
            Self::LCP => f.write_str("LCP"),
            Self::PAP => f.write_str("PAP"),
            Self::CHAP => f.write_str("CHAP"),
            Self::EAP => f.write_str("EAP"),
            Self(number) => write!(f, "protocol {number:04x}"),
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What the information field holds.
    pub protocol: Protocol,
    /// Octets before the information field: 1 to 4.
    pub header_len: usize,
}

impl Frame {
    /// Reads the header of a whole frame. Takes every mix of address field and protocol compression, negotiated or
    /// not, because peers begin before they have agreed.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let address_len = if bytes.starts_with(&ADDRESS_CONTROL) {
            2
        } else {
            0
        };
        let inner = Self::parse_protocol(&bytes[address_len..])?;
        Ok(Self {
            protocol: inner.protocol,
            header_len: address_len + inner.header_len,
        })
    }

    /// Reads a protocol field with nothing before it, as it begins the plaintext of an MPPE packet.
    #[inline]
    pub fn parse_protocol(bytes: &[u8]) -> Result<Self, Error> {
        // RFC 1661 §6.5: an odd first octet is the end of the protocol field.
        match bytes {
            [first, ..] if first & 1 == 1 => Ok(Self {
                protocol: Protocol(u16::from(*first)),
                header_len: 1,
            }),
            [_, _, ..] => Ok(Self {
                protocol: Protocol(read_u16(bytes, 0)),
                header_len: 2,
            }),
            _ => Err(Error::Malformed("PPP header")),
        }
    }
}

/// How a frame begins: what the peer allows us to leave out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Framing {
    /// Leave out FF 03 (RFC 1661 §6.6). Never applies to LCP.
    pub compress_address: bool,
    /// One octet of protocol where it fits (RFC 1661 §6.5). Never applies to LCP.
    pub compress_protocol: bool,
}

impl Framing {
    /// The header of a frame of `protocol`: the octets and how many of them count.
    #[inline]
    pub fn header(self, protocol: Protocol) -> ([u8; MAX_HEADER_LEN], usize) {
        let mut bytes = [0; MAX_HEADER_LEN];
        let mut len = 0;
        if !self.compress_address || protocol == Protocol::LCP {
            bytes[..2].copy_from_slice(&ADDRESS_CONTROL);
            len = 2;
        }
        let [high, low] = protocol.0.to_be_bytes();
        if self.compress_protocol && high == 0 && low & 1 == 1 {
            bytes[len] = low;
            len += 1;
        } else {
            bytes[len] = high;
            bytes[len + 1] = low;
            len += 2;
        }
        (bytes, len)
    }

    /// Writes the header to the front of `buffer`; `None` when it does not fit, else the octets written.
    #[inline]
    pub fn emit(self, protocol: Protocol, buffer: &mut [u8]) -> Option<usize> {
        let (bytes, len) = self.header(protocol);
        buffer.get_mut(..len)?.copy_from_slice(&bytes[..len]);
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lcp_is_never_compressed() {
        let framing = Framing {
            compress_address: true,
            compress_protocol: true,
        };
        assert_eq!(framing.header(Protocol::LCP), ([0xff, 0x03, 0xc0, 0x21], 4));
        assert_eq!(framing.header(Protocol::COMPRESSED), ([0xfd, 0, 0, 0], 1));
        assert_eq!(framing.header(Protocol::CHAP), ([0xc2, 0x23, 0, 0], 2));
    }

    #[test]
    fn every_header_parses_back() {
        for protocol in (1..=0xffffu16)
            .map(Protocol)
            .filter(|protocol| protocol.is_well_formed() && *protocol != Protocol(0x00ff))
        {
            for (compress_address, compress_protocol) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let framing = Framing {
                    compress_address,
                    compress_protocol,
                };
                let (bytes, len) = framing.header(protocol);
                let frame = Frame::parse(&bytes[..len]).expect("our own header");
                assert_eq!((frame.protocol, frame.header_len), (protocol, len));
            }
        }
    }

    #[test]
    fn nothing_is_malformed() {
        assert!(Frame::parse(&[]).is_err());
        assert!(Frame::parse(&ADDRESS_CONTROL).is_err());
        assert!(Frame::parse(&[0xff, 0x03, 0xc0]).is_err());
    }
}
