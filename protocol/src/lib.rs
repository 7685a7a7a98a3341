//! Every byte and every state machine of PPTP, for both roles: the server (PAC) and the client (PNS).
//!
//! No I/O, no clock, no tasks, no unsafe: bytes and [`Time`] come in as arguments; messages, events and the next
//! deadline are polled out. The server, the workers and the load tester share this crate.
#![forbid(unsafe_code)]

pub mod error;
pub mod gre;
pub mod mppe;
pub mod mschap;
pub mod ppp;
pub mod pptp;
pub mod radius;
pub mod router;
pub mod time;
pub mod wire;

pub use error::Error;
pub use pptp::CallId;
pub use time::Time;

/// Which end of the call this is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The concentrator: PAC of RFC 2637, authenticator of RFC 2759.
    Server,
    /// The dialling end: PNS of RFC 2637, peer of RFC 2759.
    Client,
}
