//! What a server is configured with, and what it asks its owner to do.

use core::time::Duration;

use crate::pptp::codes::{CallResult, GeneralError, StartResult};
use crate::pptp::message::WanErrors;
#[cfg(doc)]
use crate::pptp::server::Server;
use crate::pptp::{CallId, End, PeerInfo, Text};

/// How a [`Server`] behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// DNS name told to peers.
    pub host_name: Text<64>,
    /// Vendor told to peers.
    pub vendor: Text<64>,
    /// Firmware version told to peers.
    pub firmware: u16,
    /// Calls in one connection at most; more are refused with "no resource".
    pub max_calls: u16,
    /// How long a connection may take to start and to ask for a call that comes up ([`Server::up`]); after it, no other
    /// call is accepted, and the connection ends with the last call that is still being set up. Counted anew when a
    /// call that was up is over.
    pub setup_time: Duration,
    /// After so long without a message an Echo-Request goes out (RFC 2637 §3.1.4: 60 s).
    pub echo_interval: Duration,
    /// How long its answer may take (RFC 2637 §3.1.4: 60 s).
    pub echo_timeout: Duration,
    /// How long the answer to our Stop-Control-Connection-Request may take.
    pub stop_timeout: Duration,
    /// Refuse to start, with this answer, because some limit is reached.
    pub refuse: Option<(StartResult, GeneralError)>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host_name: Text::EMPTY,
            vendor: Text::from("turnpike"),
            firmware: 1,
            max_calls: 256,
            setup_time: Duration::from_secs(30),
            echo_interval: Duration::from_secs(60),
            echo_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
            refuse: None,
        }
    }
}

/// A client asks for a call; answered with [`Server::connect`] or [`Server::refuse`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutgoingCall {
    /// The id that the client chose. 0 is valid.
    pub peer_id: CallId,
    /// For logs.
    pub serial: u16,
    /// Lowest acceptable speed in bits per second.
    pub min_bps: u32,
    /// Highest acceptable speed in bits per second.
    pub max_bps: u32,
    /// Packets that the client buffers; 0 from Windows.
    pub window: u16,
    /// Packets that [`Server::connect`](super::Server::connect) will say we buffer.
    pub our_window: u16,
    /// Processing delay of the client in tenths of a second.
    pub delay: u16,
}

/// Why a call is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Result of the Outgoing-Call-Reply.
    pub result: CallResult,
    /// Error, with a result of [`CallResult::GENERAL_ERROR`].
    pub error: GeneralError,
}

impl Refusal {
    /// No more calls now.
    pub const NO_RESOURCE: Self = Self {
        result: CallResult::GENERAL_ERROR,
        error: GeneralError::NO_RESOURCE,
    };
    /// No call came up in the time for it.
    pub const TIME_OUT: Self = Self {
        result: CallResult::TIME_OUT,
        error: GeneralError::NONE,
    };
    /// Forbidden.
    pub const DO_NOT_ACCEPT: Self = Self {
        result: CallResult::DO_NOT_ACCEPT,
        error: GeneralError::NONE,
    };
}

/// Why the peer's side ended a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClearCause {
    /// Call-Clear-Request, or a Call-Disconnect-Notify; the call has had our Call-Disconnect-Notify.
    Request,
    /// The whole control connection is over; [`ServerAction::Finished`] says why.
    Connection,
}

/// What the owner of a [`Server`] has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerAction {
    /// Send these octets.
    Send(Vec<u8>),
    /// The connection is up.
    Started(PeerInfo),
    /// A client asks for a call. Make its GRE path ready, then answer: clients send at once.
    Call(OutgoingCall),
    /// A call that was asked for and not answered yet is not wanted any more.
    Withdrawn {
        /// The id that the client chose.
        peer_id: CallId,
    },
    /// A connected call is over.
    Cleared {
        /// The id that we chose.
        id: CallId,
        /// Why.
        by: ClearCause,
    },
    /// Set-Link-Info. Means nothing inside GRE; for logs.
    LinkInfo {
        /// The id that we chose, as the peer says; not checked.
        id: CallId,
        /// Character map for sending.
        send_accm: u32,
        /// Character map for receiving.
        receive_accm: u32,
    },
    /// WAN-Error-Notify. For logs.
    WanError {
        /// The id in it, not checked.
        id: CallId,
        /// Counts.
        errors: WanErrors,
    },
    /// Something arrived that makes no sense to a server here and was ignored. For logs.
    Ignored {
        /// Its control message type.
        control_type: u16,
    },
    /// Over: send what is queued, then close TCP. Calls that were open have been reported as
    /// [`ServerAction::Cleared`]. The last action.
    Finished(End),
}
