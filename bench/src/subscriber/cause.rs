//! Why calls end, in words and as Windows' numbers.

use core::fmt;

use turnpike_protocol::ppp;
use turnpike_protocol::pptp::{CallResult, DisconnectResult, GeneralError};

/// Why a call is over, with what a person needs to know about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// We hung up.
    HungUp,
    /// PPP ended it.
    Link(ppp::End),
    /// The server refused the call.
    Refused(CallResult, GeneralError),
    /// The server disconnected the call.
    Disconnected(DisconnectResult, GeneralError),
    /// The control connection ended.
    Connection,
}

impl Cause {
    /// The code that Windows would show for this, where there is a usual one.
    pub const fn windows_error(&self) -> Option<u32> {
        match self {
            Self::HungUp => None,
            Self::Link(end) => match end {
                ppp::End::Closed(_) => None,
                ppp::End::PeerTerminated { .. } => Some(629),
                ppp::End::NoAnswer { heard: false } => Some(806),
                ppp::End::NoAnswer { heard: true } | ppp::End::SetUpTimeout { .. } => Some(718),
                ppp::End::LcpFailed(_) | ppp::End::LoopedBack => Some(734),
                ppp::End::AuthenticationRefused { .. } => Some(919),
                ppp::End::AuthenticationTimeout => Some(718),
                ppp::End::AuthenticationFailed { code, .. } => Some(*code),
                ppp::End::ResponseUnusable { .. } => Some(691),
                ppp::End::ServerNotAuthentic => Some(778),
                ppp::End::MppeRefused(_) => Some(741),
                ppp::End::IpcpFailed(_) => Some(720),
                ppp::End::EchoFailure { .. } => Some(628),
            },
            Self::Refused(..) | Self::Disconnected(..) => Some(619),
            Self::Connection => Some(628),
        }
    }

    /// The cause in words, without what is different for each user: by these, calls that ended alike are counted.
    pub fn kind(&self) -> String {
        match self {
            Self::Link(ppp::End::AuthenticationFailed { code, message, .. }) => {
                format!("the server refuses the login: E={code} {message}")
            }
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HungUp => f.write_str("hung up"),
            Self::Link(end) => end.fmt(f),
            Self::Refused(result, error) => {
                write!(f, "the server refused the call: {result} ({error})")
            }
            Self::Disconnected(result, error) => {
                write!(f, "the server disconnected the call: {result} ({error})")
            }
            Self::Connection => f.write_str("the control connection ended"),
        }
    }
}
