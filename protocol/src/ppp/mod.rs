//! PPP over GRE: LCP, authentication, CCP and IPCP of one call, for both roles.
//!
//! It neither reads a clock nor sends anything: frames and [`Time`](crate::Time) go in, [`Action`]s come out.

mod action;
mod auth;
mod config;
mod end;
pub mod fsm;

pub use action::{Action, Encryption, LcpTerms, LinkInfo, MppeTerms, Terms};
pub use auth::{AuthProtocol, Credentials, Grant, Verdict};
pub use config::{ClientLink, ServerLink, Timing};
pub use end::{CloseReason, End, IpcpFailure, MppeRefusal, PhaseName};
