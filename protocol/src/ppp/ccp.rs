//! The Compression Control Protocol (RFC 1962) with one option: MPPE (RFC 3078 §2).
//!
//! A Configure-Request speaks of what its sender will *receive*, so strength and mode of the two directions are agreed
//! each on its own. Encryption itself is for both or for none, because old peers cannot encrypt one way only.

use super::action::{Action, MppeTerms};
use super::end::MppeRefusal;
use super::options::{Judgement, Options};
use super::packet::{ConfigOption, OptionBuffer, OptionList, code};
use crate::Role;
use crate::mppe::{Allowed, Direction, Mode, Policy, Stateful, Strength, Strengths};
use crate::mschap::MasterKeys;
use crate::wire::ppp::Protocol;

/// MPPE and MPPC share this option (RFC 3078 §2).
const MPPE: u8 = 18;

/// Naks of the peer, none of which leaves us a strength, before its refusal is believed.
const MAX_NAKS: u8 = 3;

/// The supported bits of RFC 3078 §2.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MppeBits(pub u32);

impl MppeBits {
    /// Re-key before every packet.
    pub const STATELESS: u32 = 0x0100_0000;
    /// 56-bit keys.
    pub const BITS_56: u32 = 0x80;
    /// 128-bit keys.
    pub const BITS_128: u32 = 0x40;
    /// 40-bit keys.
    pub const BITS_40: u32 = 0x20;

    const fn bit(strength: Strength) -> u32 {
        match strength {
            Strength::Bits40 => Self::BITS_40,
            Strength::Bits56 => Self::BITS_56,
            Strength::Bits128 => Self::BITS_128,
        }
    }

    /// The bits that leave a choice of strengths.
    pub fn any_of(strengths: Strengths, mode: Mode) -> Self {
        let stateless = match mode {
            Mode::Stateless => Self::STATELESS,
            Mode::Stateful => 0,
        };
        Self(
            strengths
                .iter()
                .map(Self::bit)
                .fold(stateless, |a, b| a | b),
        )
    }

    /// The bits that ask for exactly these terms.
    pub fn of(terms: MppeTerms) -> Self {
        Self::any_of(Strengths::NONE.with(terms.strength), terms.mode)
    }

    /// The strengths among the bits.
    pub fn strengths(self) -> Strengths {
        [Strength::Bits40, Strength::Bits56, Strength::Bits128]
            .into_iter()
            .filter(|strength| self.0 & Self::bit(*strength) != 0)
            .collect()
    }

    /// What bit H says.
    pub const fn mode(self) -> Mode {
        if self.0 & Self::STATELESS == 0 {
            Mode::Stateful
        } else {
            Mode::Stateless
        }
    }

    /// The terms, when the bits name one strength and nothing that we don't know.
    pub fn terms(self) -> Option<MppeTerms> {
        let terms = MppeTerms {
            strength: self.strengths().only()?,
            mode: self.mode(),
        };
        (Self::of(terms) == self).then_some(terms)
    }
}

/// CCP of one call that has keys: without them there is no such value, and so no MPPE.
#[derive(Clone)]
pub struct Ccp {
    role: Role,
    keys: MasterKeys,
    policy: Policy,
    /// Strengths that are allowed and that there are keys for. Never empty.
    strengths: Strengths,
    /// Strengths that are allowed, but the login gave no keys for them.
    keyless: Strengths,
    stateful: Stateful,
    /// Strengths in our request: all that we allow, until the peer has chosen.
    wanted: Strengths,
    /// Mode in our request.
    wanted_mode: Mode,
    /// Whether MPPE is in our request.
    asking: bool,
    /// The peer will not have MPPE, and policy lets it.
    given_up: bool,
    /// Naks of the peer that leave us no strength.
    naks: u8,
    /// Naks of the peer that want the other mode for what we receive.
    mode_naks_received: u8,
    /// Naks of ours that want the other mode for what the peer receives.
    mode_naks_sent: u8,
    /// Acknowledged by the peer: how we receive.
    receive: Option<MppeTerms>,
    /// Acknowledged by us: how we send.
    transmit: Option<MppeTerms>,
    refusal: Option<MppeRefusal>,
}

impl Ccp {
    /// CCP for `policy`, with the keys that authentication gave. `None` where there will be no MPPE; an error where that
    /// may not be.
    pub fn new(
        role: Role,
        policy: Policy,
        allowed: Allowed,
        keys: Option<MasterKeys>,
    ) -> Result<Option<Self>, MppeRefusal> {
        if policy == Policy::Deny {
            return Ok(None);
        }
        let without = |refusal| match policy {
            Policy::Require => Err(refusal),
            _ => Ok(None),
        };
        let Some(keys) = keys else {
            return without(MppeRefusal::NoKeys);
        };
        let strengths: Strengths = allowed
            .strengths
            .iter()
            .filter(|strength| keys.has(*strength))
            .collect();
        let keyless = allowed.strengths.without(strengths);
        if strengths.is_empty() {
            return without(if keyless.is_empty() {
                MppeRefusal::NoKeys
            } else {
                MppeRefusal::NoLmHash
            });
        }
        Ok(Some(Self {
            role,
            keys,
            policy,
            strengths,
            keyless,
            stateful: allowed.stateful,
            // RFC 3078 §2.1: the initiator asks for all that it supports, and the responder chooses. pppd rejects a single
            // strength that it does not have, and so do others.
            wanted: strengths,
            wanted_mode: allowed.stateful.preferred(),
            asking: matches!(policy, Policy::Prefer | Policy::Require),
            given_up: false,
            naks: 0,
            mode_naks_received: 0,
            mode_naks_sent: 0,
            receive: None,
            transmit: None,
            refusal: None,
        }))
    }

    /// CCP is open. If that means MPPE both ways, a refusal is fatal from now on: data is encrypted, and nothing that
    /// a stranger injects may change that.
    pub fn settle(&mut self) {
        if self.receive.is_some() && self.transmit.is_some() {
            self.policy = Policy::Require;
        } else {
            self.refuse(MppeRefusal::NotRequested);
        }
    }

    /// Codes 14 and 15 (RFC 1962 §3) are about the cipher's state and answered where that is, by the worker.
    pub fn is_reset(code: u8) -> bool {
        matches!(code, code::RESET_REQUEST | code::RESET_ACK)
    }

    /// What was agreed for a direction.
    pub fn terms(&self, direction: Direction) -> Option<MppeTerms> {
        match direction {
            Direction::Receive => self.receive,
            Direction::Transmit => self.transmit,
        }
    }

    /// Whether a call without encryption is out of the question.
    pub fn is_required(&self) -> bool {
        self.policy == Policy::Require
    }

    /// Whether the outcome is known to be "no MPPE".
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// Why MPPE cannot be had although it must.
    pub fn refusal(&self) -> Option<MppeRefusal> {
        self.refusal
    }

    /// Keys for our Configure-Request with this identifier, if it offers MPPE on terms that the peer can only take or
    /// leave.
    pub fn load_receive(&self, identifier: u8) -> Option<Action> {
        self.asked()
            .and_then(|terms| self.load(Direction::Receive, identifier, terms))
    }

    /// Keys for our Configure-Ack with this identifier, if it agrees to MPPE.
    pub fn load_transmit(&self, identifier: u8) -> Option<Action> {
        self.transmit
            .and_then(|terms| self.load(Direction::Transmit, identifier, terms))
    }

    fn load(&self, direction: Direction, identifier: u8, terms: MppeTerms) -> Option<Action> {
        let key = self.keys.start_key(self.role, direction, terms.strength)?;
        Some(Action::Load {
            direction,
            identifier,
            key,
            mode: terms.mode,
        })
    }

    /// MPPE is refused for good: fatal, or we go on without.
    pub fn refuse(&mut self, refusal: MppeRefusal) {
        if self.policy == Policy::Require {
            // What came first is the cause of the rest.
            self.refusal.get_or_insert(refusal);
        } else {
            self.asking = false;
            self.given_up = true;
            self.receive = None;
        }
    }

    /// The terms that our request asks for, when it leaves no choice.
    fn asked(&self) -> Option<MppeTerms> {
        let strength = self.wanted.only().filter(|_| self.asking)?;
        Some(MppeTerms {
            strength,
            mode: self.wanted_mode,
        })
    }

    /// What we would have the peer ask for, when it asks for these bits.
    fn advice(&self, bits: MppeBits) -> MppeBits {
        // RFC 3078 §2.1: one strength, the strongest of the peer's that we have; of its own, because pppd hangs up when
        // it reads one that it did not ask for. Without MPPC (which every peer takes) and the obsolete bit D.
        let common = bits.strengths().and(self.strengths);
        let strengths = if common.is_empty() {
            self.strengths
        } else {
            common
        };
        let mode = if bits.mode() != self.stateful.preferred()
            && self.stateful.takes(bits.mode())
            && self.mode_naks_sent >= patience(self.stateful)
        {
            bits.mode()
        } else {
            self.stateful.preferred()
        };
        MppeBits::any_of(only_strongest(strengths), mode)
    }

    /// Why we cannot have what the peer insists on.
    fn refusal_of(&self, bits: MppeBits) -> MppeRefusal {
        let peer = bits.strengths();
        if !peer.and(self.strengths).is_empty() && !self.stateful.takes(bits.mode()) {
            MppeRefusal::Stateful
        } else if peer.is_empty() || !peer.and(self.strengths).is_empty() {
            MppeRefusal::Bits(bits.0)
        } else if !peer.and(self.keyless).is_empty() {
            MppeRefusal::NoLmHash
        } else {
            MppeRefusal::Strength {
                peer,
                ours: self.strengths,
            }
        }
    }
}

/// Naks about the mode, of ours for one direction and of the peer's for the other, before the peer gets its way. Who asks
/// has more of it than who accepts, so that two of us agree on what one asks for.
const fn patience(stateful: Stateful) -> u8 {
    match stateful {
        Stateful::Refuse => u8::MAX,
        Stateful::Accept => 1,
        Stateful::Ask => 2,
    }
}

fn only_strongest(strengths: Strengths) -> Strengths {
    strengths.strongest().into_iter().collect()
}

impl Options for Ccp {
    const PROTOCOL: Protocol = Protocol::CCP;

    fn request(&mut self) -> OptionBuffer {
        let mut request = OptionBuffer::default();
        if self.asking {
            let bits = MppeBits::any_of(self.wanted, self.wanted_mode);
            request.push(MPPE, &bits.0.to_be_bytes());
        }
        request
    }

    fn judge(&mut self, option: ConfigOption<'_>) -> Judgement {
        // Deflate, BSD-Compress and the like cannot stand next to MPPE (RFC 3078 §6): rejected, MPPE stays.
        let Some(bits) = option.u32().filter(|_| option.kind == MPPE).map(MppeBits) else {
            return Judgement::Reject;
        };
        if self.given_up {
            return Judgement::Reject;
        }
        if bits.strengths().is_empty() {
            match self.policy {
                // RFC 3078 §2.1: "no encryption, no compression" (MikroTik and TP-Link name it so).
                Policy::Allow | Policy::Prefer if bits.0 == 0 => return Judgement::Ack,
                // MPPC alone: not asked for encryption, we do not begin with it.
                Policy::Allow => return Judgement::Reject,
                _ => {}
            }
        }
        if self.policy == Policy::Allow {
            self.asking = true;
        }
        let advice = self.advice(bits);
        if bits == advice {
            Judgement::Ack
        } else {
            Judgement::Nak(advice.0.to_be_bytes().to_vec())
        }
    }

    fn absent(&mut self, request: OptionList<'_>) -> OptionBuffer {
        let mut absent = OptionBuffer::default();
        let mut asked = request
            .iter()
            .filter(|option| option.kind == MPPE)
            .filter_map(|option| option.u32().map(MppeBits));
        let first = asked.next();
        if let Some(bits) = first
            && bits.mode() != self.stateful.preferred()
        {
            // This request gets a Nak, or the peer has had enough of them.
            self.mode_naks_sent = self.mode_naks_sent.saturating_add(1);
        }
        // RFC 1661 §5.1: an option is there once. Of two we would have to guess which one the peer holds us to.
        if (first.is_none() && self.asking) || asked.next().is_some() {
            let any = MppeBits::any_of(self.strengths, self.stateful.preferred());
            let advice = self.advice(first.unwrap_or(any));
            absent.push(MPPE, &advice.0.to_be_bytes());
        }
        absent
    }

    fn insisted(&mut self, option: Option<ConfigOption<'_>>) {
        self.refuse(match option {
            Some(option) => self.refusal_of(MppeBits(option.u32().unwrap_or(0))),
            None => MppeRefusal::NotRequested,
        });
    }

    fn acknowledging(&mut self, request: OptionList<'_>) {
        self.transmit = request
            .iter()
            .find(|option| option.kind == MPPE)
            .and_then(|option| option.u32())
            .and_then(|bits| MppeBits(bits).terms());
        if self.transmit.is_none() {
            // A peer that receives in clear gets nothing else from us, and it had better not encrypt either: old peers
            // cannot encrypt one way only.
            self.refuse(MppeRefusal::NotRequested);
        }
    }

    fn chooses(&mut self) -> bool {
        let open = self.asking && self.wanted.only().is_none();
        if open {
            self.wanted = only_strongest(self.wanted);
        }
        open
    }

    fn acknowledged(&mut self) {
        self.receive = self.asked();
    }

    fn naked(&mut self, option: ConfigOption<'_>) {
        let Some(bits) = option.u32().filter(|_| option.kind == MPPE).map(MppeBits) else {
            return;
        };
        if !self.asking {
            return;
        }
        if bits.strengths().is_empty() {
            self.refuse(self.refusal_of(bits));
            return;
        }
        // A Yamaha RTX names two for ever: choose one and insist.
        let common = only_strongest(bits.strengths().and(self.strengths));
        if common.is_empty() {
            self.naks += 1;
            if self.naks >= MAX_NAKS {
                self.refuse(self.refusal_of(bits));
            }
            return;
        }
        let same = common == self.wanted;
        self.wanted = common;
        let preferred = self.stateful.preferred();
        if bits.mode() == preferred {
            self.wanted_mode = preferred;
            return;
        }
        if self.stateful.takes(bits.mode()) {
            self.mode_naks_received += 1;
            if self.mode_naks_received > patience(self.stateful) {
                self.wanted_mode = bits.mode();
            }
        } else if same && bits.strengths() == common {
            // Nothing but the mode is left to argue about.
            self.mode_naks_received += 1;
            if self.mode_naks_received >= MAX_NAKS {
                self.refuse(MppeRefusal::Stateful);
            }
        }
    }

    fn rejected(&mut self, option: ConfigOption<'_>) {
        if option.kind != MPPE {
            return;
        }
        if self.asking && self.wanted_mode == Mode::Stateful {
            // pppd rejects the whole option for its mode, and hangs up when a Nak asks for stateful keys.
            self.stateful = Stateful::Accept;
            self.wanted_mode = Mode::Stateless;
        } else {
            self.refuse(MppeRefusal::Rejected);
        }
    }

    fn diverged(&mut self) {
        self.refuse(MppeRefusal::NoAgreement);
        // Where a call may do without, CCP falls silent.
        self.refusal.get_or_insert(MppeRefusal::NoAgreement);
    }

    fn has_failed(&self) -> bool {
        self.refusal.is_some()
    }
}
