//! What can be told about a call.

use core::net::Ipv4Addr;

use turnpike_dataplane::api::CallRef;
use turnpike_protocol::ppp::{Ipv6Grant, LinkInfo};
use turnpike_protocol::{CallId, Time};

/// How far a call has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// LCP.
    Establishing,
    /// The client proves who it is.
    Authenticating,
    /// CCP and IPCP.
    Network,
    /// Data can flow.
    Up,
    /// Saying goodbye, or waiting for the worker to forget the call.
    Ending,
}

impl Stage {
    /// Its name for operators.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Establishing => "establishing",
            Self::Authenticating => "authenticating",
            Self::Network => "network",
            Self::Up => "up",
            Self::Ending => "ending",
        }
    }
}

/// What can be told about a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The call.
    pub call: CallRef,
    /// The id the client chose.
    pub peer_id: CallId,
    /// How far it has come.
    pub stage: Stage,
    /// When it was placed.
    pub since: Time,
    /// The user, once accepted.
    pub user: Option<String>,
    /// The client's inner address, once accepted.
    pub address: Option<Ipv4Addr>,
    /// Its prefixes, once IPv6 can flow.
    pub ipv6: Option<Ipv6Grant>,
    /// What PPP has agreed; `None` once the call is being forgotten.
    pub link: Option<LinkInfo>,
}
