//! The control connection of RFC 2637 §2 and §3: messages, and a state machine for each role.

use core::fmt;

mod caller;
mod codec;
mod codes;
mod decoder;
mod keep_alive;
mod message;
mod server;
mod text;

pub use caller::{Caller, CallerAction, CallerConfig};
pub use codes::{
    CallResult, DisconnectResult, EchoResult, GeneralError, IncomingResult, StartResult,
    StopReason, StopResult,
};
pub use decoder::{Decoder, Incoming};
pub use message::{
    CallDisconnectNotify, IncomingCallConnected, IncomingCallReply, IncomingCallRequest,
    MAX_MESSAGE, Message, OutgoingCallReply, OutgoingCallRequest, StartReply, StartRequest,
    WanErrors,
};
pub use server::{ClearCause, OutgoingCall, Refusal, Server, ServerAction, ServerConfig};
pub use text::Text;

/// The TCP port of the control connection (RFC 2637 §3.1).
pub const PORT: u16 = 1723;

/// A call id (RFC 2637 §2.7): chosen by the receiver of the GRE packets that carry it. Every value is legal; 0 comes
/// from Windows and pptp-linux and never means "unset".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u16);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the other side said about itself when the connection started. Nothing depends on it; it is for logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// DNS name, as far as it gave one.
    pub host_name: Text<64>,
    /// Kind of software.
    pub vendor: Text<64>,
    /// Protocol version: 0x0100 is version 1, revision 0.
    pub version: u16,
    /// Firmware or driver version.
    pub firmware: u16,
    /// Framing capabilities: 1 asynchronous, 2 synchronous.
    pub framing: u32,
    /// Bearer capabilities: 1 analog, 2 digital.
    pub bearer: u32,
    /// How many calls it can hold; means nothing from a PNS.
    pub max_channels: u16,
}

/// Why a control connection is over. The owner closes TCP after what is queued has been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The peer sent Stop-Control-Connection-Request; it has its reply.
    Stopped(StopReason),
    /// The peer answered our Stop-Control-Connection-Request, or nothing had been started.
    StopAnswered,
    /// The peer did not answer our Stop-Control-Connection-Request in time.
    StopUnanswered,
    /// The connection was not started within the set-up time.
    NotStarted,
    /// The connection was started but had no call for the set-up time.
    NoCall,
    /// The peer did not answer our Echo-Request in time (RFC 2637 §3.1.4).
    EchoUnanswered,
    /// We refused to start: version, authorisation or limits.
    RefusedByUs(StartResult, GeneralError),
    /// The peer refused to start.
    RefusedByPeer(StartResult, GeneralError),
    /// What came was no PPTP message: framing is lost (RFC 2637 §1.4).
    FramingLost(crate::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(reason) => write!(f, "stopped by the peer: {reason}"),
            Self::StopAnswered => f.write_str("stopped"),
            Self::StopUnanswered => f.write_str("stopped, without the peer's answer"),
            Self::NotStarted => f.write_str("not started within the set-up time"),
            Self::NoCall => f.write_str("no call for the set-up time"),
            Self::EchoUnanswered => f.write_str("the peer answers no echo"),
            Self::RefusedByUs(result, error) => write!(f, "refused by us: {result} ({error})"),
            Self::RefusedByPeer(result, error) => {
                write!(f, "refused by the peer: {result} ({error})")
            }
            Self::FramingLost(error) => write!(f, "not PPTP: {error}"),
        }
    }
}
