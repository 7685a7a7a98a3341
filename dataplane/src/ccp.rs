//! CCP frames as they pass: they start and stop the keys (RFC 1962, RFC 3078).
//!
//! A Configure-Request speaks of what its sender will receive, so its Ack starts that direction, at the very packet at
//! which a Linux peer starts it too (`ppp_ccp_peek`), and a new request stops it. A direction that was stopped starts
//! afresh, from its start key and count 0, with the next Ack; an Ack that nobody asked for starts nothing, so repeated
//! ones do not restart keys under which data flows.

use core::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Decryptor, Dialect, Encryptor, Mode};
use turnpike_protocol::wire::ppp;

use crate::api::Mppe;
use crate::call::Call;
use crate::cipher::Engine;
use crate::counters::Reason;

const CONFIGURE_REQUEST: u8 = 1;
const CONFIGURE_ACK: u8 = 2;
const TERMINATE_REQUEST: u8 = 5;
const TERMINATE_ACK: u8 = 6;
const CODE_REJECT: u8 = 7;
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

/// A Reset-Request that brought no packet that can be read is repeated after this time.
const RESET_INTERVAL: Duration = Duration::from_secs(1);

/// Doubts about the peer's key are at least so far apart: what it rejects now may have been sent before the last one.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of a call's resets.
#[derive(Default)]
pub(crate) struct Resets {
    /// Of our last Reset-Request.
    identifier: u8,
    /// When it went out, while nothing that can be read has come since.
    requested: Option<Time>,
    /// The peer has rejected a Reset-Ack: it gets no more.
    unacknowledged: bool,
    /// What resets do to the peer's keys, once it has shown it; outlives an epoch.
    dialect: Option<Dialect>,
    /// When the peer was last found to read garbage.
    doubted: Option<Time>,
}

impl Resets {
    /// Of a peer whose dialect is known, or not.
    pub(crate) fn new(dialect: Option<Dialect>) -> Self {
        Self {
            dialect,
            ..Self::default()
        }
    }
}

/// A Reset-Request (RFC 1962 §3) as it stands in the GRE payload.
pub(crate) const fn reset_request(identifier: u8) -> [u8; 8] {
    [0xff, 0x03, 0x80, 0xfd, RESET_REQUEST, identifier, 0, 4]
}

/// After a packet that could not be read: the identifier of the Reset-Request that has to go out now, if any. A new
/// loss has a new one, at once; a repetition keeps it.
pub(crate) fn wanted_reset(call: &mut Call<'_>, now: Time) -> Option<u8> {
    let decryptor = call.keys.decryptor.as_mut()?;
    if !decryptor.is_waiting() {
        return None;
    }
    let resets = &mut call.cold.resets;
    match resets.requested {
        Some(last) if now.since(last) < RESET_INTERVAL => return None,
        Some(_) => {}
        None => resets.identifier = resets.identifier.wrapping_add(1),
    }
    resets.requested = Some(now);
    decryptor.requested();
    Some(resets.identifier)
}

/// After a stateful packet that could be read.
pub(crate) fn in_step(call: &mut Call<'_>) {
    call.cold.resets.requested = None;
    let Some(dialect) = call.keys.decryptor.as_ref().and_then(Decryptor::dialect) else {
        return;
    };
    if call.cold.resets.dialect != Some(dialect) {
        call.cold.resets.dialect = Some(dialect);
        if let Some(encryptor) = &mut call.keys.encryptor {
            encryptor.set_dialect(dialect);
        }
    }
}

/// The peer has rejected a protocol (an LCP packet, from its code on). One that we never send in clear is what it reads
/// instead of what we encrypted.
pub(crate) fn protocol_rejected(call: &mut Call<'_>, packet: &[u8], now: Time) {
    const PROTOCOL_REJECT: u8 = 8;
    let Some((PROTOCOL_REJECT, _, [high, low, ..])) = parse(packet) else {
        return;
    };
    let resets = &mut call.cold.resets;
    let protocol = u16::from_be_bytes([*high, *low]);
    // Control protocols are rejected for other reasons, and MPPE itself while CCP settles.
    let garbage = protocol < 0x8000 && protocol != ppp::Protocol::COMPRESSED.0;
    let soon = resets
        .doubted
        .is_some_and(|last| now.since(last) < DOUBT_INTERVAL);
    if let Some(encryptor) = &mut call.keys.encryptor
        && garbage
        && !soon
    {
        resets.doubted = Some(now);
        encryptor.doubt();
    }
}

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
pub(crate) fn judge_received(call: &mut Call<'_>, frame: &[u8]) -> Result<Answer, Reason> {
    match parse(frame) {
        Some((RESET_REQUEST, identifier, _)) => {
            let encryptor = call.keys.encryptor.as_mut().ok_or(Reason::ResetIgnored)?;
            encryptor.reset(identifier);
            if call.cold.resets.unacknowledged {
                return Err(Reason::ResetUnacknowledged);
            }
            Ok(Answer::Reset)
        }
        Some((CODE_REJECT, _, [RESET_ACK, ..])) => {
            call.cold.resets.unacknowledged = true;
            Ok(Answer::Forward)
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
pub(crate) fn received(call: &mut Call<'_>, frame: &[u8]) {
    match parse(frame) {
        Some((CONFIGURE_REQUEST, _, options)) if well_formed(options) => stop_transmit(call),
        Some((CONFIGURE_ACK, identifier, options)) if well_formed(options) => {
            if let Some(loaded) = &mut call.cold.receive
                && loaded.identifier == identifier
                && loaded.requests > 0
            {
                loaded.requests -= 1;
                loaded.acknowledged = true;
                let decryptor = Decryptor::new(&loaded.key, loaded.mode);
                start_receive(call, decryptor);
            }
        }
        Some((TERMINATE_REQUEST | TERMINATE_ACK, ..)) => stop(call),
        _ => {}
    }
}

/// A control frame of ours, as it stands in the GRE payload, that has gone out.
pub(crate) fn sent_frame(call: &mut Call<'_>, frame: &[u8]) {
    if let Ok(header) = ppp::Frame::parse(frame)
        && header.protocol == ppp::Protocol::CCP
    {
        sent(call, &frame[header.header_len..]);
    }
}

fn sent(call: &mut Call<'_>, frame: &[u8]) {
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
            if call.keys.encryptor.is_none()
                && let Some(loaded) = &call.cold.transmit
                && loaded.identifier == identifier
            {
                call.cold.mppe_transmit = Some(Mppe::new(loaded.key.strength(), loaded.mode));
                let mut encryptor = Encryptor::new(&loaded.key, loaded.mode);
                if let Some(dialect) = call.cold.resets.dialect {
                    encryptor.set_dialect(dialect);
                }
                call.keys.encryptor = Some(encryptor);
            }
        }
        Some((TERMINATE_REQUEST | TERMINATE_ACK, ..)) => stop(call),
        _ => {}
    }
}

fn start_receive(call: &mut Call<'_>, mut decryptor: Decryptor) {
    stop_receive(call);
    if let Some(loaded) = &call.cold.receive {
        decryptor.set_dialect(call.cold.resets.dialect);
        call.cold.resets.requested = None;
        call.decap.stateful = loaded.mode == Mode::Stateful;
        call.cold.mppe_receive = Some(Mppe::new(loaded.key.strength(), loaded.mode));
        call.keys.decryptor = Some(decryptor);
    }
}

fn stop_receive(call: &mut Call<'_>) {
    call.decap.garbage = 0;
    call.decap.mppe_missing = 0;
    if let Some(decryptor) = call.keys.decryptor.take() {
        call.cold.key_changes += decryptor.changes_made();
    }
    call.cold.mppe_receive = None;
}

fn stop_transmit(call: &mut Call<'_>) {
    call.keys.encryptor = None;
    call.cold.mppe_transmit = None;
}

fn stop(call: &mut Call<'_>) {
    stop_receive(call);
    stop_transmit(call);
    if let Some(loaded) = &mut call.cold.receive {
        loaded.requests = 0;
    }
}

/// An MPPE packet (header and ciphertext, decrypted in place) while receive keys are loaded and not running: the Ack
/// that should have started them may be lost or overtaken. They start if the plaintext is an IP packet beyond doubt: what is
/// only plausible would let one forged packet in five hundred start them.
pub(crate) fn try_start(
    call: &mut Call<'_>,
    engine: &mut Engine,
    packet: &mut [u8],
) -> Result<(), Reason> {
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
        .open_with(header, missing, engine)
        .map_err(|_| Reason::MppeNoKeys)?;
    engine.run(cipher, data);
    if !turnpike_protocol::mppe::is_ip(data) {
        return Err(Reason::MppeNoKeys);
    }
    decryptor.judge(true);
    start_receive(call, decryptor);
    Ok(())
}
