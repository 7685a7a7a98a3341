//! All fifteen control messages (RFC 2637 §2.1 to §2.15).

use crate::pptp::codes::{
    CallResult, DisconnectResult, EchoResult, GeneralError, IncomingResult, StartResult,
    StopReason, StopResult,
};
use crate::pptp::{CallId, Text};

/// Octets of the longest message (Incoming-Call-Request).
pub const MAX_MESSAGE: usize = 220;

/// Start-Control-Connection-Request (RFC 2637 §2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartRequest {
    /// 0x0100 is version 1, revision 0.
    pub version: u16,
    /// Framing capabilities: 1 asynchronous, 2 synchronous.
    pub framing: u32,
    /// Bearer capabilities: 1 analog, 2 digital.
    pub bearer: u32,
    /// Calls that this PAC can hold.
    pub max_channels: u16,
    /// Firmware or driver version.
    pub firmware: u16,
    /// DNS name of the sender.
    pub host_name: Text<64>,
    /// Vendor.
    pub vendor: Text<64>,
}

/// Start-Control-Connection-Reply (RFC 2637 §2.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartReply {
    /// 0x0100 is version 1, revision 0.
    pub version: u16,
    /// Result.
    pub result: StartResult,
    /// Error, with a result of [`StartResult::GENERAL_ERROR`].
    pub error: GeneralError,
    /// Framing capabilities: 1 asynchronous, 2 synchronous.
    pub framing: u32,
    /// Bearer capabilities: 1 analog, 2 digital.
    pub bearer: u32,
    /// Calls that this PAC can hold.
    pub max_channels: u16,
    /// Firmware or driver version.
    pub firmware: u16,
    /// DNS name of the sender.
    pub host_name: Text<64>,
    /// Vendor.
    pub vendor: Text<64>,
}

/// Outgoing-Call-Request (RFC 2637 §2.7): how every VPN call begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutgoingCallRequest {
    /// Chosen by the PNS.
    pub call_id: CallId,
    /// For logs.
    pub serial: u16,
    /// Lowest acceptable speed in bits per second.
    pub min_bps: u32,
    /// Highest acceptable speed in bits per second.
    pub max_bps: u32,
    /// Bearer type: 1 analog, 2 digital, 3 any.
    pub bearer: u32,
    /// Framing type: 1 asynchronous, 2 synchronous, 3 any.
    pub framing: u32,
    /// Packets that the PNS buffers.
    pub window: u16,
    /// Processing delay of the PNS in tenths of a second.
    pub delay: u16,
    /// Number to dial.
    pub phone: Text<64>,
    /// Further dialling information.
    pub subaddress: Text<64>,
}

/// Outgoing-Call-Reply (RFC 2637 §2.8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutgoingCallReply {
    /// Chosen by the PAC.
    pub call_id: CallId,
    /// Taken from the request.
    pub peer_call_id: CallId,
    /// Result.
    pub result: CallResult,
    /// Error, with a result of [`CallResult::GENERAL_ERROR`].
    pub error: GeneralError,
    /// Q.931 cause, or 0.
    pub cause: u16,
    /// Speed in bits per second.
    pub speed: u32,
    /// Packets that the PAC buffers.
    pub window: u16,
    /// Processing delay of the PAC in tenths of a second.
    pub delay: u16,
    /// Physical channel.
    pub channel: u32,
}

/// Incoming-Call-Request (RFC 2637 §2.9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingCallRequest {
    /// Chosen by the PAC.
    pub call_id: CallId,
    /// For logs.
    pub serial: u16,
    /// Bearer type: 1 analog, 2 digital.
    pub bearer: u32,
    /// Physical channel.
    pub channel: u32,
    /// Number that was dialled.
    pub dialed: Text<64>,
    /// Number of the caller.
    pub dialing: Text<64>,
    /// Further dialling information.
    pub subaddress: Text<64>,
}

/// Incoming-Call-Reply (RFC 2637 §2.10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingCallReply {
    /// Chosen by the PNS.
    pub call_id: CallId,
    /// Taken from the request.
    pub peer_call_id: CallId,
    /// Result.
    pub result: IncomingResult,
    /// Error, with a result of [`IncomingResult::GENERAL_ERROR`].
    pub error: GeneralError,
    /// Packets that the PNS buffers.
    pub window: u16,
    /// Processing delay of the PNS in tenths of a second.
    pub delay: u16,
}

/// Incoming-Call-Connected (RFC 2637 §2.11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IncomingCallConnected {
    /// Taken from the reply.
    pub peer_call_id: CallId,
    /// Speed in bits per second.
    pub speed: u32,
    /// Packets that the PAC buffers.
    pub window: u16,
    /// Processing delay of the PAC in tenths of a second.
    pub delay: u16,
    /// Framing type: 1 asynchronous, 2 synchronous.
    pub framing: u32,
}

/// Call-Disconnect-Notify (RFC 2637 §2.13).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallDisconnectNotify {
    /// The id that the sender (the PAC) chose.
    pub call_id: CallId,
    /// Why.
    pub result: DisconnectResult,
    /// Error, with a result of [`DisconnectResult::GENERAL_ERROR`].
    pub error: GeneralError,
    /// Q.931 cause, or 0.
    pub cause: u16,
    /// Statistics for logs, as text of the vendor's own kind.
    pub statistics: Text<128>,
}

/// Counts in WAN-Error-Notify (RFC 2637 §2.14), since the call began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WanErrors {
    /// Frames with a wrong check sequence.
    pub crc: u32,
    /// Framing errors.
    pub framing: u32,
    /// Hardware overruns.
    pub hardware_overruns: u32,
    /// Buffer overruns.
    pub buffer_overruns: u32,
    /// Time-outs.
    pub timeouts: u32,
    /// Alignment errors.
    pub alignment: u32,
}

/// A control message. Reserved fields are sent as 0 and not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "messages live for one statement; a box each would cost more"
)]
pub enum Message {
    /// RFC 2637 §2.1.
    StartRequest(StartRequest),
    /// RFC 2637 §2.2.
    StartReply(StartReply),
    /// RFC 2637 §2.3. Clears all calls.
    StopRequest {
        /// Why.
        reason: StopReason,
    },
    /// RFC 2637 §2.4.
    StopReply {
        /// Result.
        result: StopResult,
        /// Error, with a result of [`StopResult::GENERAL_ERROR`].
        error: GeneralError,
    },
    /// RFC 2637 §2.5.
    EchoRequest {
        /// To be copied.
        identifier: u32,
    },
    /// RFC 2637 §2.6.
    EchoReply {
        /// From the request.
        identifier: u32,
        /// Result.
        result: EchoResult,
        /// Error, with a result of [`EchoResult::GENERAL_ERROR`].
        error: GeneralError,
    },
    /// RFC 2637 §2.7.
    OutgoingCallRequest(OutgoingCallRequest),
    /// RFC 2637 §2.8.
    OutgoingCallReply(OutgoingCallReply),
    /// RFC 2637 §2.9.
    IncomingCallRequest(IncomingCallRequest),
    /// RFC 2637 §2.10.
    IncomingCallReply(IncomingCallReply),
    /// RFC 2637 §2.11.
    IncomingCallConnected(IncomingCallConnected),
    /// RFC 2637 §2.12.
    CallClearRequest {
        /// The id that the sender (the PNS) chose.
        call_id: CallId,
    },
    /// RFC 2637 §2.13.
    CallDisconnectNotify(CallDisconnectNotify),
    /// RFC 2637 §2.14.
    WanErrorNotify {
        /// The id that the receiver (the PNS) chose.
        peer_call_id: CallId,
        /// Counts.
        errors: WanErrors,
    },
    /// RFC 2637 §2.15.
    SetLinkInfo {
        /// The id that the receiver (the PAC) chose.
        peer_call_id: CallId,
        /// Asynchronous control character map of the client for sending; means nothing inside GRE.
        send_accm: u32,
        /// The same for receiving.
        receive_accm: u32,
    },
}
