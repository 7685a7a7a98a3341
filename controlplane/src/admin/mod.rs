//! Operator commands over a Unix socket: what they ask, what they get, and the server end.
//!
//! A request is one line of JSON, and so is its answer; a capture's answer is followed by pcapng until either end
//! closes. Whoever runs the calls implements [`Backend`]; nothing here knows how.

mod client;
mod server;
mod text;
mod types;

use core::future::Future;

use tokio::sync::mpsc;

pub use types::{
    Killed, Lcp, LcpOptions, Packet, PortStats, Selector, Session, Side, Stats, WorkerStats,
};

use serde::{Deserialize, Serialize};

use crate::cause::Cause;

pub use client::{Client, Error};
pub use server::Server;
pub use text::{killed_text, sessions_text, stats_text};

/// Name of the control socket inside the run directory.
pub const SOCKET_NAME: &str = "turnpike.sock";

/// How many captured packets may wait for a slow reader of a capture before packets are lost (and counted as lost).
pub const CAPTURE_BACKLOG: usize = 1024;

/// One line to the server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Every call.
    Sessions,
    /// Counters.
    Stats,
    /// End calls.
    Kill {
        /// These.
        calls: Selector,
    },
    /// Stream packets; the answer is followed by pcapng until either end closes.
    Capture {
        /// Of these calls.
        calls: Selector,
    },
}

/// One line from the server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Every call.
    Sessions(Vec<Session>),
    /// Counters.
    Stats(Box<Stats>),
    /// Calls that were told to end.
    Killed(Vec<Killed>),
    /// A capture begins right after this line.
    Capturing,
    /// The request failed: why.
    Error(String),
}

/// What operator commands are asked of. All answers are snapshots; none may wait for a client of ours.
pub trait Backend: Send + Sync + 'static {
    /// Every call, in the order of call ids.
    fn sessions(&self) -> impl Future<Output = Vec<Session>> + Send;

    /// Counters of everything.
    fn stats(&self) -> impl Future<Output = Stats> + Send;

    /// Ends every call that `selector` names with this cause; the answer names those that were told to end. `Err` says
    /// why none was, such as an id that several calls have.
    fn kill(
        &self,
        selector: Selector,
        cause: Cause,
    ) -> impl Future<Output = Result<Vec<Killed>, String>> + Send;

    /// Packets of every call that `selector` names, and of those that come up while the capture runs, through a
    /// channel of [`CAPTURE_BACKLOG`]; a full channel loses packets ([`Packet::lost`]), it never holds up a call.
    /// Dropping the receiver ends the capture. `Err` says why there can be none.
    fn capture(
        &self,
        selector: Selector,
    ) -> impl Future<Output = Result<mpsc::Receiver<Packet>, String>> + Send;
}

#[cfg(test)]
mod tests;
