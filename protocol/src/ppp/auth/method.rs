//! Methods, as LCP names them.

use core::fmt;

use crate::mppe::Policy;

/// A value of LCP's Authentication-Protocol option (RFC 1661 §6.2), with CHAP's algorithm octet where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AuthProtocol {
    /// PAP, c023 (RFC 1334).
    Pap,
    /// CHAP with MD5, c223 05 (RFC 1994).
    ChapMd5,
    /// MS-CHAPv1, c223 80 (RFC 2433).
    MsChapV1,
    /// MS-CHAPv2, c223 81 (RFC 2759).
    MsChapV2,
    /// EAP, c227 (RFC 3748).
    Eap,
    /// Something else; the protocol number.
    Other(u16),
}

impl AuthProtocol {
    /// Reads the option's data (after type and length).
    pub fn parse(data: &[u8]) -> Option<Self> {
        Some(match *data {
            [0xc0, 0x23] => Self::Pap,
            [0xc2, 0x27] => Self::Eap,
            [0xc2, 0x23, 0x05] => Self::ChapMd5,
            [0xc2, 0x23, 0x80] => Self::MsChapV1,
            [0xc2, 0x23, 0x81] => Self::MsChapV2,
            [high, low, ..] => Self::Other(u16::from_be_bytes([high, low])),
            _ => return None,
        })
    }

    /// The option's data.
    pub(in crate::ppp) fn option_data(self) -> &'static [u8] {
        match self {
            Self::Pap => &[0xc0, 0x23],
            Self::Eap => &[0xc2, 0x27],
            Self::ChapMd5 => &[0xc2, 0x23, 0x05],
            Self::MsChapV1 => &[0xc2, 0x23, 0x80],
            Self::MsChapV2 => &[0xc2, 0x23, 0x81],
            // Only ever received.
            Self::Other(_) => &[],
        }
    }

    /// Whether a link can carry it out.
    pub const fn is_known(self) -> bool {
        matches!(
            self,
            Self::Pap | Self::ChapMd5 | Self::MsChapV1 | Self::MsChapV2
        )
    }

    /// Whether it yields keys for MPPE. Without them a call that must be encrypted cannot come up, so that the method
    /// is not even tried there: PAP would give the password away for nothing.
    pub const fn gives_keys(self) -> bool {
        matches!(self, Self::MsChapV1 | Self::MsChapV2)
    }

    /// Those of `methods` that a link with this policy may use, in their order, each once.
    pub(in crate::ppp) fn usable(methods: &[Self], policy: Policy) -> Vec<Self> {
        let mut usable = Vec::new();
        for &method in methods {
            let fits = method.is_known() && (policy != Policy::Require || method.gives_keys());
            if fits && !usable.contains(&method) {
                usable.push(method);
            }
        }
        usable
    }
}

impl fmt::Display for AuthProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pap => f.write_str("PAP"),
            Self::ChapMd5 => f.write_str("CHAP-MD5"),
            Self::MsChapV1 => f.write_str("MS-CHAPv1"),
            Self::MsChapV2 => f.write_str("MS-CHAPv2"),
            Self::Eap => f.write_str("EAP"),
            Self::Other(protocol) => write!(f, "protocol {protocol:04x}"),
        }
    }
}
