//! CHAP (RFC 1994 §4) with MD5, as MS-CHAPv1 (RFC 2433) and as MS-CHAPv2 (RFC 2759): the authenticator and the peer.

mod authenticator;
mod failure;
mod peer;

pub use authenticator::{Authenticator, Settings};
pub use peer::Peer;

use super::auth::AuthProtocol;
use super::packet::{self, Packet};
use crate::Error;
use crate::wire::ppp::Protocol;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;
/// RFC 2433 §10: Change Password Packet (version 2).
const CHANGE_PASSWORD_V1: u8 = 6;
/// RFC 2759 §7.
const CHANGE_PASSWORD_V2: u8 = 7;

/// Octets of the value of a Response by MD5 (RFC 1994 §4.1).
const MD5_LEN: usize = 16;
/// Octets of the value of both versions of MS-CHAP: LM response 24, NT response 24, flag 1 (RFC 2433 §6); peer
/// challenge 16, zero 8, NT response 24, flags 1 (RFC 2759 §4).
const MSCHAP_LEN: usize = 49;
/// The longest name that we send or take, in octets; what a RADIUS attribute can hold (RFC 2865 §5).
pub(super) const MAX_NAME: usize = 253;
/// The longest name of a server, in octets.
const MAX_SERVER_NAME: usize = 64;
/// How often a peer may try again (`R=1`) in one call.
const MAX_RETRIES: u8 = 3;

/// CHAP's algorithm octet (RFC 1994 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// 05.
    Md5,
    /// 80.
    MsChapV1,
    /// 81.
    MsChapV2,
}

impl Algorithm {
    /// That of a method of LCP's; `None`: it is not CHAP, or not known.
    pub const fn of(method: AuthProtocol) -> Option<Self> {
        match method {
            AuthProtocol::ChapMd5 => Some(Self::Md5),
            AuthProtocol::MsChapV1 => Some(Self::MsChapV1),
            AuthProtocol::MsChapV2 => Some(Self::MsChapV2),
            AuthProtocol::Pap | AuthProtocol::Eap | AuthProtocol::Other(_) => None,
        }
    }

    /// Octets of our Challenge.
    const fn challenge_len(self) -> usize {
        match self {
            Self::MsChapV1 => 8,
            Self::Md5 | Self::MsChapV2 => 16,
        }
    }

    /// Code of its Change-Password packet.
    const fn change_code(self) -> Option<u8> {
        match self {
            Self::Md5 => None,
            Self::MsChapV1 => Some(CHANGE_PASSWORD_V1),
            Self::MsChapV2 => Some(CHANGE_PASSWORD_V2),
        }
    }
}

/// Splits Value-Size, Value and Name of a Challenge or Response.
fn value_and_name<'a>(packet: &Packet<'a>) -> Result<(&'a [u8], &'a [u8]), Error> {
    let (&size, rest) = packet
        .data
        .split_first()
        .ok_or(Error::Malformed("CHAP packet"))?;
    rest.split_at_checked(usize::from(size))
        .ok_or(Error::Malformed("CHAP value size"))
}

fn chap_frame(code: u8, identifier: u8, parts: &[&[u8]]) -> Vec<u8> {
    packet::frame(Protocol::CHAP, code, identifier, &parts.concat())
}
