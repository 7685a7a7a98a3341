//! PPP over GRE: LCP, authentication, CCP, IPCP and IPV6CP of one call, for both roles.
//!
//! [`Link`] is the whole of it. It neither reads a clock nor sends anything: frames and [`Time`](crate::Time) go in,
//! [`Action`]s come out.
//!
//! Below it one option engine (`options`) around the automaton of RFC 1661 ([`fsm`]) serves LCP, CCP and the NCPs,
//! which only say what they ask for and how they judge the peer's options.

mod action;
mod auth;
mod ccp;
mod chap;
mod config;
mod end;
pub mod fsm;
mod ipcp;
mod ipv6cp;
mod lcp;
mod link;
mod network;
mod options;
pub mod packet;
mod pap;
mod random;

pub use action::{Action, Encryption, Ipv6Terms, LcpTerms, LinkInfo, MppeTerms, Terms};
pub use auth::{
    AuthProtocol, ChangePassword, ChangeResponse, Changed, Credentials, Grant, Ipv6Grant, Limits,
    Proof, Remedy, Secret, Unproved, Verdict, chap_md5,
};
pub use ccp::MppeBits;
pub use config::{ClientLink, ServerLink, Timing};
pub(crate) use end::printable;
pub use end::{CloseReason, End, IpcpFailure, MppeRefusal, PhaseName, ResponseFault};
pub use link::Link;
