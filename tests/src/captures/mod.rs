//! Captured PPTP sessions of other implementations (`tests/captures`): from a pcap file to PPP frames.

mod call;
mod file;
mod login;

pub use call::{Call, Clear, Messages, Wire};
pub use file::{Datagram, File};
pub use login::Login;

/// The end that a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The one that dialled.
    Client,
    /// The one that listens on TCP port 1723.
    Server,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The opposite end.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}
