//! The authentication phase: which protocols there are, and what passes between a link and whoever decides.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::mschap::{self, MasterKeys, NtHash, Success};

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

/// What a peer gave to prove who it is; answered by [`Link::verdict`](super::Link::verdict). One variant per method.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// An MS-CHAPv2 Response (RFC 2759 §4).
    MsChapV2 {
        /// CHAP identifier.
        identifier: u8,
        /// What we asked.
        challenge: [u8; 16],
        /// What the peer added.
        peer_challenge: [u8; 16],
        /// The answer.
        nt_response: [u8; 24],
        /// The name as it was on the wire: any octets, perhaps with `DOMAIN\` in front.
        name: Vec<u8>,
    },
}

impl Credentials {
    /// The name as it was on the wire.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::MsChapV2 { name, .. } => name,
        }
    }

    /// The name after the last backslash: what is hashed (RFC 2759 §8.2) and looked up. Never re-encoded.
    pub fn user_part(&self) -> &[u8] {
        mschap::user_part(self.name())
    }

    /// Checks the response against a password's hash, in constant time.
    pub fn verify(&self, hash: &NtHash) -> Option<Success> {
        match self {
            Self::MsChapV2 {
                challenge,
                peer_challenge,
                nt_response,
                ..
            } => mschap::verify(
                hash,
                challenge,
                peer_challenge,
                nt_response,
                self.user_part(),
            ),
        }
    }
}

/// Responses to challenges can be searched for the password: only the name is printed.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MsChapV2 {
                identifier, name, ..
            } => f
                .debug_struct("MsChapV2")
                .field("identifier", identifier)
                .field("name", &super::end::printable(name))
                .finish_non_exhaustive(),
        }
    }
}

/// The answer to [`Credentials`].
#[derive(Clone)]
pub enum Verdict {
    /// Let in.
    Accept(Grant),
    /// Keep out. The peer gets `E=code R=0 C=.. V=3` and a second to show it.
    Reject {
        /// Code of RFC 2759 §6; 691 for wrong credentials.
        code: u32,
        /// For the log of this side only; the peer is not told (a text there makes some clients hang).
        message: String,
    },
}

/// What a user who was let in gets.
#[derive(Clone)]
pub struct Grant {
    /// `S=` and 40 upper-case hex digits (RFC 2759 §5); as [`Success::authenticator_response`] has it, or as a RADIUS
    /// server sent it.
    pub authenticator_response: [u8; 42],
    /// Keys for MPPE. Without keys MPPE is neither offered nor acknowledged.
    pub keys: Option<MasterKeys>,
    /// The client's inner address.
    pub address: Ipv4Addr,
    /// Ours.
    pub server_address: Ipv4Addr,
    /// DNS servers (RFC 1877 §1.1, §1.3). One that is `None` is rejected when the client asks for it.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers (RFC 1877 §1.2, §1.4).
    pub nbns: [Option<Ipv4Addr>; 2],
    /// IPv6, if the user gets any; without it the client hears that IPV6CP is not spoken.
    pub ipv6: Option<Ipv6Grant>,
}

/// The IPv6 that a user gets. A link negotiates the identifiers; the rest is told by router advertisements and DHCPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Grant {
    /// Our interface identifier; neither 0 nor `client_identifier`.
    pub server_identifier: u64,
    /// Interface identifier for a client that has none of its own; not 0, and different for every call.
    pub client_identifier: u64,
    /// The /64 of the call itself (RFC 4862).
    pub prefix: Ipv6Net,
    /// What may be delegated into the call by DHCPv6 (RFC 8415 §6.3).
    pub delegated: Option<Ipv6Net>,
    /// Name servers (RFC 8106).
    pub dns: [Option<Ipv6Addr>; 2],
}
