//! The authentication phase: which methods there are, and what passes between a link and whoever decides.

mod credentials;
mod method;

use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

pub use credentials::{
    ChangePassword, ChangeResponse, Changed, Credentials, Proof, Secret, Unproved, chap_md5,
};
pub use method::AuthProtocol;

use super::end::End;
use crate::mppe::{Policy, Strengths};
use crate::mschap::MasterKeys;

/// What a packet from the server means for the client's link.
pub(super) enum Outcome {
    /// The server let us in, and proved itself where the method can.
    Accepted(Option<MasterKeys>),
    /// It is over.
    Ended(End),
}

/// The answer to [`Credentials`].
#[derive(Clone)]
pub enum Verdict {
    /// Let in.
    Accept(Grant),
    /// Keep out. A peer that uses MS-CHAP gets `E=code R=.. C=.. V=..`, any other a Failure or Nak.
    Reject {
        /// Code of RFC 2759 §6; 691 for wrong credentials.
        code: u32,
        /// For the log of this side only; the peer is not told (a text there makes some clients hang).
        message: String,
        /// What the peer may do about it before the call ends.
        remedy: Remedy,
    },
}

/// What a peer that was kept out may still do in the same call. Only MS-CHAP has words for these; with other methods
/// the call ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Remedy {
    /// Nothing: the call ends when the peer has had time to show the reason.
    None,
    /// Try again, with another password or name (`R=1`). A link grants this as often as
    /// [`ServerLink::retries`](super::ServerLink::retries) says.
    Retry,
    /// Change the password, which has expired; makes sense with code 648 only. Another [`Credentials`] follows.
    ChangePassword,
}

/// What a user who was let in gets.
#[derive(Clone)]
pub struct Grant {
    /// What [`Credentials::verify`] gave, or a RADIUS server.
    pub proof: Proof,
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
    /// What holds for this call alone.
    pub limits: Limits,
}

/// What holds for one call in place of the link's settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Whether it is encrypted, and with which key lengths.
    pub mppe: Option<(Policy, Strengths)>,
    /// The largest inner packet that we send into it, in octets, where that is less than the link's.
    pub mtu: Option<u16>,
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
