//! Messages to octets and back.

use crate::Error;
use crate::pptp::codes::{
    CallResult, DisconnectResult, EchoResult, GeneralError, IncomingResult, StartResult,
    StopReason, StopResult,
};
use crate::pptp::message::{
    CallDisconnectNotify, IncomingCallConnected, IncomingCallReply, IncomingCallRequest,
    MAX_MESSAGE, Message, OutgoingCallReply, OutgoingCallRequest, StartReply, StartRequest,
    WanErrors,
};
use crate::pptp::{CallId, Text};
use crate::wire::{read_u16, read_u32};

/// Octets of the header that every message has (RFC 2637 §1.4), with the control message type and its reserved field.
pub(super) const HEADER_LEN: usize = 12;

/// "The magic cookie is always sent as the constant 0x1A2B3C4D" (RFC 2637 §1.4).
const COOKIE: u32 = 0x1a2b_3c4d;

/// PPTP message type of control messages; management messages (2) are not defined.
const CONTROL: u16 = 1;

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
