//! All fifteen control messages (RFC 2637 §2.1 to §2.15).

use crate::Error;
use crate::pptp::codes::{
    CallResult, DisconnectResult, EchoResult, GeneralError, IncomingResult, StartResult,
    StopReason, StopResult,
};
use crate::pptp::{CallId, Text};
use crate::wire::{read_u16, read_u32};

/// Octets of the longest message (Incoming-Call-Request).
pub const MAX_MESSAGE: usize = 220;

/// Octets of the header that every message has (RFC 2637 §1.4), with the control message type and its reserved field.
pub(super) const HEADER_LEN: usize = 12;

/// "The magic cookie is always sent as the constant 0x1A2B3C4D" (RFC 2637 §1.4).
pub(super) const COOKIE: u32 = 0x1a2b_3c4d;

/// PPTP message type of control messages; management messages (2) are not defined.
pub(super) const CONTROL: u16 = 1;

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

/// Length of the message of each control message type (RFC 2637 §2), indexed by type.
const LENGTHS: [usize; 16] = [
    0, 156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 28, 16, 148, 40, 24,
];

impl Message {
    /// The control message type (RFC 2637 §1.4): 1 to 15.
    pub const fn control_type(&self) -> u16 {
        match self {
            Self::StartRequest(_) => 1,
            Self::StartReply(_) => 2,
            Self::StopRequest { .. } => 3,
            Self::StopReply { .. } => 4,
            Self::EchoRequest { .. } => 5,
            Self::EchoReply { .. } => 6,
            Self::OutgoingCallRequest(_) => 7,
            Self::OutgoingCallReply(_) => 8,
            Self::IncomingCallRequest(_) => 9,
            Self::IncomingCallReply(_) => 10,
            Self::IncomingCallConnected(_) => 11,
            Self::CallClearRequest { .. } => 12,
            Self::CallDisconnectNotify(_) => 13,
            Self::WanErrorNotify { .. } => 14,
            Self::SetLinkInfo { .. } => 15,
        }
    }

    /// The name in RFC 2637.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StartRequest(_) => "Start-Control-Connection-Request",
            Self::StartReply(_) => "Start-Control-Connection-Reply",
            Self::StopRequest { .. } => "Stop-Control-Connection-Request",
            Self::StopReply { .. } => "Stop-Control-Connection-Reply",
            Self::EchoRequest { .. } => "Echo-Request",
            Self::EchoReply { .. } => "Echo-Reply",
            Self::OutgoingCallRequest(_) => "Outgoing-Call-Request",
            Self::OutgoingCallReply(_) => "Outgoing-Call-Reply",
            Self::IncomingCallRequest(_) => "Incoming-Call-Request",
            Self::IncomingCallReply(_) => "Incoming-Call-Reply",
            Self::IncomingCallConnected(_) => "Incoming-Call-Connected",
            Self::CallClearRequest { .. } => "Call-Clear-Request",
            Self::CallDisconnectNotify(_) => "Call-Disconnect-Notify",
            Self::WanErrorNotify { .. } => "WAN-Error-Notify",
            Self::SetLinkInfo { .. } => "Set-Link-Info",
        }
    }

    /// Reads one whole message, from the first octet of its length field to its last octet (the
    /// [`Decoder`](super::Decoder) finds both). `Malformed`: framing is lost and the connection must be closed
    /// (RFC 2637 §1.4). `Incompatible`: a control message type that nobody defined; skip it.
    ///
    /// A message longer than its type needs is read as far as it is known.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        check_header(bytes)?;
        if bytes.len() < HEADER_LEN || usize::from(read_u16(bytes, 0)) != bytes.len() {
            return Err(Error::Malformed("control message length"));
        }
        let control_type = read_u16(bytes, 8);
        let needed = LENGTHS.get(usize::from(control_type)).copied().unwrap_or(0);
        if needed == 0 {
            return Err(Error::Incompatible("control message type"));
        }
        if bytes.len() < needed {
            return Err(Error::Malformed("control message length"));
        }
        Ok(read(control_type, bytes))
    }

    /// The message as octets.
    pub fn emit(&self) -> Vec<u8> {
        let control_type = self.control_type();
        let len = LENGTHS[usize::from(control_type)];
        let mut writer = Writer(Vec::with_capacity(len));
        // Every length is at most 220.
        writer.u16(len as u16);
        writer.u16(CONTROL);
        writer.u32(COOKIE);
        writer.u16(control_type);
        writer.u16(0);
        write(self, &mut writer);
        debug_assert_eq!(writer.0.len(), len);
        writer.0
    }
}

/// Checks as much of the header as has come.
pub(super) fn check_header(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() >= 2 {
        let length = usize::from(read_u16(bytes, 0));
        if !(HEADER_LEN..=MAX_MESSAGE).contains(&length) {
            return Err(Error::Malformed("control message length"));
        }
    }
    if bytes.len() >= 4 && read_u16(bytes, 2) != CONTROL {
        return Err(Error::Malformed("PPTP message type"));
    }
    if bytes.len() >= 8 && read_u32(bytes, 4) != COOKIE {
        return Err(Error::Malformed("magic cookie"));
    }
    Ok(())
}

/// Reads the body; type and length have been checked.
fn read(control_type: u16, b: &[u8]) -> Message {
    let id = |at| CallId(read_u16(b, at));
    match control_type {
        1 => Message::StartRequest(StartRequest {
            version: read_u16(b, 12),
            framing: read_u32(b, 16),
            bearer: read_u32(b, 20),
            max_channels: read_u16(b, 24),
            firmware: read_u16(b, 26),
            host_name: Text::new(&b[28..92]),
            vendor: Text::new(&b[92..156]),
        }),
        2 => Message::StartReply(StartReply {
            version: read_u16(b, 12),
            result: StartResult(b[14]),
            error: GeneralError(b[15]),
            framing: read_u32(b, 16),
            bearer: read_u32(b, 20),
            max_channels: read_u16(b, 24),
            firmware: read_u16(b, 26),
            host_name: Text::new(&b[28..92]),
            vendor: Text::new(&b[92..156]),
        }),
        3 => Message::StopRequest {
            reason: StopReason(b[12]),
        },
        4 => Message::StopReply {
            result: StopResult(b[12]),
            error: GeneralError(b[13]),
        },
        5 => Message::EchoRequest {
            identifier: read_u32(b, 12),
        },
        6 => Message::EchoReply {
            identifier: read_u32(b, 12),
            result: EchoResult(b[16]),
            error: GeneralError(b[17]),
        },
        7 => Message::OutgoingCallRequest(OutgoingCallRequest {
            call_id: id(12),
            serial: read_u16(b, 14),
            min_bps: read_u32(b, 16),
            max_bps: read_u32(b, 20),
            bearer: read_u32(b, 24),
            framing: read_u32(b, 28),
            window: read_u16(b, 32),
            delay: read_u16(b, 34),
            phone: Text::new(&b[40..104]),
            subaddress: Text::new(&b[104..168]),
        }),
        8 => Message::OutgoingCallReply(OutgoingCallReply {
            call_id: id(12),
            peer_call_id: id(14),
            result: CallResult(b[16]),
            error: GeneralError(b[17]),
            cause: read_u16(b, 18),
            speed: read_u32(b, 20),
            window: read_u16(b, 24),
            delay: read_u16(b, 26),
            channel: read_u32(b, 28),
        }),
        9 => Message::IncomingCallRequest(IncomingCallRequest {
            call_id: id(12),
            serial: read_u16(b, 14),
            bearer: read_u32(b, 16),
            channel: read_u32(b, 20),
            dialed: Text::new(&b[28..92]),
            dialing: Text::new(&b[92..156]),
            subaddress: Text::new(&b[156..220]),
        }),
        10 => Message::IncomingCallReply(IncomingCallReply {
            call_id: id(12),
            peer_call_id: id(14),
            result: IncomingResult(b[16]),
            error: GeneralError(b[17]),
            window: read_u16(b, 18),
            delay: read_u16(b, 20),
        }),
        11 => Message::IncomingCallConnected(IncomingCallConnected {
            peer_call_id: id(12),
            speed: read_u32(b, 16),
            window: read_u16(b, 20),
            delay: read_u16(b, 22),
            framing: read_u32(b, 24),
        }),
        12 => Message::CallClearRequest { call_id: id(12) },
        13 => Message::CallDisconnectNotify(CallDisconnectNotify {
            call_id: id(12),
            result: DisconnectResult(b[14]),
            error: GeneralError(b[15]),
            cause: read_u16(b, 16),
            statistics: Text::new(&b[20..148]),
        }),
        14 => Message::WanErrorNotify {
            peer_call_id: id(12),
            errors: WanErrors {
                crc: read_u32(b, 16),
                framing: read_u32(b, 20),
                hardware_overruns: read_u32(b, 24),
                buffer_overruns: read_u32(b, 28),
                timeouts: read_u32(b, 32),
                alignment: read_u32(b, 36),
            },
        },
        _ => Message::SetLinkInfo {
            peer_call_id: id(12),
            send_accm: read_u32(b, 16),
            receive_accm: read_u32(b, 20),
        },
    }
}

/// Writes the body.
fn write(message: &Message, w: &mut Writer) {
    match message {
        Message::StartRequest(m) => {
            w.u16(m.version);
            w.u16(0);
            w.u32(m.framing);
            w.u32(m.bearer);
            w.u16(m.max_channels);
            w.u16(m.firmware);
            w.text(&m.host_name);
            w.text(&m.vendor);
        }
        Message::StartReply(m) => {
            w.u16(m.version);
            w.u8(m.result.0);
            w.u8(m.error.0);
            w.u32(m.framing);
            w.u32(m.bearer);
            w.u16(m.max_channels);
            w.u16(m.firmware);
            w.text(&m.host_name);
            w.text(&m.vendor);
        }
        Message::StopRequest { reason } => {
            w.u8(reason.0);
            w.u8(0);
            w.u16(0);
        }
        Message::StopReply { result, error } => {
            w.u8(result.0);
            w.u8(error.0);
            w.u16(0);
        }
        Message::EchoRequest { identifier } => w.u32(*identifier),
        Message::EchoReply {
            identifier,
            result,
            error,
        } => {
            w.u32(*identifier);
            w.u8(result.0);
            w.u8(error.0);
            w.u16(0);
        }
        Message::OutgoingCallRequest(m) => {
            w.u16(m.call_id.0);
            w.u16(m.serial);
            w.u32(m.min_bps);
            w.u32(m.max_bps);
            w.u32(m.bearer);
            w.u32(m.framing);
            w.u16(m.window);
            w.u16(m.delay);
            w.len_of(&m.phone);
            w.u16(0);
            w.text(&m.phone);
            w.text(&m.subaddress);
        }
        Message::OutgoingCallReply(m) => {
            w.u16(m.call_id.0);
            w.u16(m.peer_call_id.0);
            w.u8(m.result.0);
            w.u8(m.error.0);
            w.u16(m.cause);
            w.u32(m.speed);
            w.u16(m.window);
            w.u16(m.delay);
            w.u32(m.channel);
        }
        Message::IncomingCallRequest(m) => {
            w.u16(m.call_id.0);
            w.u16(m.serial);
            w.u32(m.bearer);
            w.u32(m.channel);
            w.len_of(&m.dialed);
            w.len_of(&m.dialing);
            w.text(&m.dialed);
            w.text(&m.dialing);
            w.text(&m.subaddress);
        }
        Message::IncomingCallReply(m) => {
            w.u16(m.call_id.0);
            w.u16(m.peer_call_id.0);
            w.u8(m.result.0);
            w.u8(m.error.0);
            w.u16(m.window);
            w.u16(m.delay);
            w.u16(0);
        }
        Message::IncomingCallConnected(m) => {
            w.u16(m.peer_call_id.0);
            w.u16(0);
            w.u32(m.speed);
            w.u16(m.window);
            w.u16(m.delay);
            w.u32(m.framing);
        }
        Message::CallClearRequest { call_id } => {
            w.u16(call_id.0);
            w.u16(0);
        }
        Message::CallDisconnectNotify(m) => {
            w.u16(m.call_id.0);
            w.u8(m.result.0);
            w.u8(m.error.0);
            w.u16(m.cause);
            w.u16(0);
            w.text(&m.statistics);
        }
        Message::WanErrorNotify {
            peer_call_id,
            errors,
        } => {
            w.u16(peer_call_id.0);
            w.u16(0);
            w.u32(errors.crc);
            w.u32(errors.framing);
            w.u32(errors.hardware_overruns);
            w.u32(errors.buffer_overruns);
            w.u32(errors.timeouts);
            w.u32(errors.alignment);
        }
        Message::SetLinkInfo {
            peer_call_id,
            send_accm,
            receive_accm,
        } => {
            w.u16(peer_call_id.0);
            w.u16(0);
            w.u32(*send_accm);
            w.u32(*receive_accm);
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn text<const N: usize>(&mut self, text: &Text<N>) {
        self.0.extend_from_slice(text.field());
    }

    fn len_of<const N: usize>(&mut self, text: &Text<N>) {
        // N is 64 wherever a length is sent.
        self.u16(text.as_bytes().len() as u16);
    }
}
