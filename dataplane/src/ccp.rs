//! CCP frames as they pass: they start and stop the keys (RFC 1962, RFC 3078).
//!
//! A Configure-Request speaks of what its sender will receive, so its Ack starts that direction, at the very packet at
//! which a Linux peer starts it too (`ppp_ccp_peek`), and a new request stops it. A direction that was stopped starts
//! afresh, from its start key and count 0, with the next Ack; an Ack that nobody asked for starts nothing, so repeated
//! ones do not restart keys under which data flows.

use turnpike_protocol::mppe::{Decryptor, Encryptor};
use turnpike_protocol::wire::ppp;

use crate::api::Mppe;
use crate::call::Call;
use crate::cipher;
use crate::counters::Reason;

const CONFIGURE_REQUEST: u8 = 1;
const CONFIGURE_ACK: u8 = 2;
const TERMINATE_REQUEST: u8 = 5;
const TERMINATE_ACK: u8 = 6;
const RESET_REQUEST: u8 = 14;
const RESET_ACK: u8 = 15;

/// Octets of code, identifier and length.
const HEADER_LEN: usize = 4;

/// Counts beyond what the missing GRE numbers explain that still can begin an epoch: the peer may have lost a packet
/// between MPPE and GRE.
const SLACK: u32 = 8;

/// Key changes that finding the start of an epoch may cost per Configure-Request of ours: an outage of a whole turn of
/// the count, twice. About 4 ms.
const START_CREDIT: u32 = 8192;

/// Code, identifier and the rest of a whole frame; None when its lengths cannot be.
fn parse(frame: &[u8]) -> Option<(u8, u8, &[u8])> {
    let [code, identifier, high, low, ..] = *frame else {
        return None;
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let rest = frame.get(HEADER_LEN..len)?;
    Some((code, identifier, rest))
}

/// Whether the options of a Configure-Request or Ack fill it. A peer that takes a malformed one seriously could be
/// silenced by anybody who can forge a packet.
fn well_formed(mut options: &[u8]) -> bool {
    while let [_, len, ..] = *options {
        match options.get(usize::from(len)..) {
            Some(rest) if len >= 2 => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

/// What a received frame asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Nothing: negotiation is somebody else's.
    Forward,
    /// A Reset-Ack.
    Reset,
}

/// Judges a received CCP frame (from its code on) that is about resets: these end here.
pub(crate) fn judge_received(call: &mut Call, frame: &[u8]) -> Result<Answer, Reason> {
    match parse(frame) {
        Some((RESET_REQUEST, identifier, _)) => {
            let encryptor = call.encap.encryptor.as_mut().ok_or(Reason::ResetIgnored)?;
            encryptor.reset(identifier);
            Ok(Answer::Reset)
        }
        Some((RESET_ACK, ..)) => Err(Reason::ResetIgnored),
        _ => Ok(Answer::Forward),
    }
}

/// Turns a Reset-Request (from its code on) into its Reset-Ack; returns the length of that. Data in the request is
/// not repeated.
pub(crate) fn make_reset_ack(frame: &mut [u8]) -> usize {
    frame[0] = RESET_ACK;
    frame[2..4].copy_from_slice(&(HEADER_LEN as u16).to_be_bytes());
    HEADER_LEN
}

/// A CCP frame (from its code on) that the control plane got to see.
pub(crate) fn received(call: &mut Call, frame: &[u8]) {
    match parse(frame) {
        Some((CONFIGURE_REQUEST, _, options)) if well_formed(options) => stop_transmit(call),
        Some((CONFIGURE_ACK, identifier, options)) if well_formed(options) => {
            if let Some(loaded) = &mut call.cold.receive
                && loaded.identifier == identifier
                && loaded.requests > 0
            {
                loaded.requests -= 1;
                let decryptor = Decryptor::new(&loaded.key, loaded.mode);
                start_receive(call, decryptor);
            }
        }
        Some((TERMINATE_REQUEST | TERMINATE_ACK, ..)) => stop(call),
        _ => {}
    }
}

/// A control frame of ours, as it stands in the GRE payload, that has gone out.
pub(crate) fn sent_frame(call: &mut Call, frame: &[u8]) {
    if let Ok(header) = ppp::Frame::parse(frame)
        && header.protocol == ppp::Protocol::CCP
    {
        sent(call, &frame[header.header_len..]);
    }
}

fn sent(call: &mut Call, frame: &[u8]) {
    match parse(frame) {
        Some((CONFIGURE_REQUEST, identifier, _)) => {
            stop_receive(call);
            if let Some(loaded) = &mut call.cold.receive
                && loaded.identifier == identifier
            {
                loaded.requests = loaded.requests.saturating_add(1);
                loaded.credit = START_CREDIT;
            }
        }
        Some((CONFIGURE_ACK, identifier, _)) => {
            if call.encap.encryptor.is_none()
                && let Some(loaded) = &call.cold.transmit
                && loaded.identifier == identifier
            {
                call.cold.mppe_transmit = Some(Mppe::new(loaded.key.strength(), loaded.mode));
                call.encap.encryptor = Some(Encryptor::new(&loaded.key, loaded.mode));
            }
        }
        Some((TERMINATE_REQUEST | TERMINATE_ACK, ..)) => stop(call),
        _ => {}
    }
}

fn start_receive(call: &mut Call, decryptor: Decryptor) {
    if let Some(loaded) = &call.cold.receive {
        call.cold.mppe_receive = Some(Mppe::new(loaded.key.strength(), loaded.mode));
        call.decap.decryptor = Some(decryptor);
        call.decap.mppe_missing = 0;
    }
}

fn stop_receive(call: &mut Call) {
    call.decap.mppe_missing = 0;
    call.decap.decryptor = None;
    call.cold.mppe_receive = None;
}

fn stop_transmit(call: &mut Call) {
    call.encap.encryptor = None;
    call.cold.mppe_transmit = None;
}

fn stop(call: &mut Call) {
    stop_receive(call);
    stop_transmit(call);
    if let Some(loaded) = &mut call.cold.receive {
        loaded.requests = 0;
    }
}

/// An MPPE packet (header and ciphertext, decrypted in place) while receive keys are loaded and not running: the Ack
/// that should have started them may be lost or overtaken. They start if the plaintext makes sense.
pub(crate) fn try_start(call: &mut Call, packet: &mut [u8]) -> Result<(), Reason> {
    let missing = call.decap.mppe_missing;
    call.decap.mppe_missing = missing.saturating_add(1);
    let loaded = call
        .cold
        .receive
        .as_mut()
        .filter(|loaded| loaded.requests > 0)
        .ok_or(Reason::MppeNoKeys)?;
    let [first, second, data @ ..] = packet else {
        return Err(Reason::MppeShort);
    };
    let header = [*first, *second];
    let count = u32::from(u16::from_be_bytes([*first & 0x0f, *second]));
    if count > missing.saturating_add(SLACK) {
        return Err(Reason::MppeNoKeys);
    }
    // Each try starts at the first key. Whoever sends rubbish with high counts would have us step through them all for
    // every packet, so tries have a budget, renewed by each request of ours.
    let Some(credit) = loaded.credit.checked_sub(count + 1) else {
        return Err(Reason::MppeNoKeys);
    };
    loaded.credit = credit;
    let mut decryptor = Decryptor::new(&loaded.key, loaded.mode);
    let cipher = decryptor
        .open(header, missing)
        .map_err(|_| Reason::MppeNoKeys)?;
    cipher::run(cipher, data);
    if !turnpike_protocol::mppe::plausible(data) {
        return Err(Reason::MppeNoKeys);
    }
    decryptor.judge(true);
    start_receive(call, decryptor);
    Ok(())
}
