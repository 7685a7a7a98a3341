//! MPPE of received packets: at once, or together with the rest of the turn.

use turnpike_protocol::Time;
use turnpike_protocol::mppe::{self, Refusal};
use turnpike_protocol::wire::ppp::{self, Protocol};

use crate::api::GARBAGE_LIMIT;
use crate::call::{Call, Gate};
use crate::ccp;
use crate::cipher::Engine;
use crate::counters::Reason;
use crate::decap::Verdict;
use crate::path::Core;
use crate::rings::EventSender;

fn refused(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::NotEncrypted => Reason::MppeNotEncrypted,
        Refusal::Compressed => Reason::MppeCompressed,
        Refusal::NotFlushed => Reason::MppeNotFlushed,
        Refusal::Late => Reason::MppeLate,
        Refusal::TooFarAhead => Reason::MppeTooFarAhead,
        Refusal::NeedReset => Reason::MppeNeedReset,
    }
}

/// Opens an MPPE packet (header and ciphertext) whose key is a few changes ahead, which are yet to be made; returns how
/// many. None, and nothing done, where that is not so.
#[inline]
pub(crate) fn open_later(call: &mut Call<'_>, packet: &[u8], now: Time) -> Option<u32> {
    let decryptor = call.keys.decryptor.as_mut()?;
    let [first, second, _, ..] = *packet else {
        return None;
    };
    decryptor.pass(now);
    let changes = decryptor.open_later([first, second], call.decap.mppe_missing)?;
    call.decap.mppe_missing = 0;
    Some(changes)
}

/// Decrypts an MPPE packet (header and ciphertext) in place.
fn decrypt(
    call: &mut Call<'_>,
    engine: &mut Engine,
    packet: &mut [u8],
    now: Time,
) -> Result<(), Reason> {
    let Some(decryptor) = &mut call.keys.decryptor else {
        return ccp::try_start(call, engine, packet);
    };
    let [first, second, data @ ..] = packet else {
        return Err(Reason::MppeShort);
    };
    let missing = core::mem::take(&mut call.decap.mppe_missing);
    decryptor.pass(now);
    let cipher = decryptor
        .open_with([*first, *second], missing, engine)
        .map_err(refused)?;
    engine.run(cipher, data);
    judge(call, data)
}

/// Whether the oldest packet that was opened and not judged makes sense.
#[inline]
fn judge(call: &mut Call<'_>, data: &[u8]) -> Result<(), Reason> {
    let plausible = mppe::plausible(data);
    if let Some(decryptor) = &mut call.keys.decryptor {
        decryptor.judge(plausible);
    }
    if plausible {
        call.decap.garbage = 0;
        if call.decap.stateful {
            ccp::in_step(call);
        }
        return Ok(());
    }
    Err(match ppp::Frame::parse_protocol(data) {
        Ok(ppp::Frame {
            protocol:
                Protocol::LCP
                | Protocol::PAP
                | Protocol::CHAP
                | Protocol::EAP
                | Protocol::CCP
                | Protocol::IPCP
                | Protocol::IPV6CP,
            ..
        }) => Reason::ControlInMppe,
        _ => {
            call.decap.garbage = call.decap.garbage.saturating_add(1);
            Reason::MppeGarbage
        }
    })
}

/// Whether a packet that was decrypted passes.
#[inline]
fn encrypted(gate: Gate, call: &Call<'_>) -> Result<(), Reason> {
    match gate {
        // RFC 1962 §2: each direction is agreed on its own, and the peer may have agreed to this one. Otherwise these keys
        // were offered and not taken, and a packet of its own has started them.
        Gate::Plain
            if call
                .cold
                .receive
                .as_ref()
                .is_some_and(|loaded| loaded.acknowledged) =>
        {
            Ok(())
        }
        Gate::Plain => Err(Reason::EncryptedRefused),
        Gate::Closed => Err(Reason::NotYetForwarding),
        Gate::Encrypted if call.keys.encryptor.is_some() => Ok(()),
        Gate::Encrypted => Err(Reason::NotYetEncrypted),
    }
}

/// Tells that the peer's key is another than ours. When the ring has no room, the next packet does.
#[cold]
fn garbled(call: &mut Call<'_>, events: &mut EventSender) {
    if events.garbled(call.encap.call).is_ok() {
        call.decap.garbage = 0;
    }
}

impl Core {
    /// An MPPE packet (`at..end`, header and ciphertext) that has to be decrypted before anything else of its call is done.
    pub(crate) fn decrypt(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        end: usize,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        let outcome = decrypt(&mut call, &mut self.engine, &mut bytes[at..end], now);
        self.decrypted(outcome, bytes, at + mppe::HEADER_LEN, end, slot, now)
    }

    /// A packet whose cipher has run after [`open_later`]: plaintext from `at`.
    #[inline]
    pub(crate) fn opened(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        end: usize,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        let outcome = judge(&mut call, &bytes[at..end]);
        self.decrypted(outcome, bytes, at, end, slot, now)
    }

    #[inline]
    fn decrypted(
        &mut self,
        outcome: Result<(), Reason>,
        bytes: &mut [u8],
        at: usize,
        end: usize,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        if let Err(reason) = outcome {
            if call.decap.garbage >= GARBAGE_LIMIT {
                garbled(&mut call, &mut self.events);
            }
            let Some(identifier) = ccp::wanted_reset(&mut call, now) else {
                return Err(reason);
            };
            call.decap.dropped += 1;
            return Ok(Verdict::Reset {
                reason,
                identifier,
                slot,
            });
        }
        // It parsed, or it would not have been plausible.
        let inner = ppp::Frame::parse_protocol(&bytes[at..end]).map_err(|_| Reason::MppeGarbage)?;
        let at = at + inner.header_len;
        match inner.protocol {
            Protocol::IPV4 => {
                encrypted(call.decap.gate, &call)?;
                self.inner(bytes, at, end, slot, now)
            }
            Protocol::IPV6 => {
                encrypted(call.six.gate, &call)?;
                self.inner6(bytes, at, end, slot, now)
            }
            _ => Err(Reason::UnknownInMppe),
        }
    }
}
