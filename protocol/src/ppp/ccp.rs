//! The Compression Control Protocol (RFC 1962) with one option: MPPE (RFC 3078 §2).
//!
//! A Configure-Request speaks of what its sender will *receive*. Both directions are made alike, because old peers mix
//! them up and cannot encrypt one way only.

use super::action::{Action, MppeTerms};
use super::end::MppeRefusal;
use super::options::{Judgement, Options};
use super::packet::{ConfigOption, OptionBuffer, OptionList, code};
use crate::Role;
use crate::mppe::{Direction, Mode, Policy, Strength};
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

    /// The bits that ask for exactly these terms.
    pub const fn of(terms: MppeTerms) -> Self {
        let strength = match terms.strength {
            Strength::Bits40 => Self::BITS_40,
            Strength::Bits56 => Self::BITS_56,
            Strength::Bits128 => Self::BITS_128,
        };
        let mode = match terms.mode {
            Mode::Stateless => Self::STATELESS,
            Mode::Stateful => 0,
        };
        Self(strength | mode)
    }

    /// The terms, when the bits name one strength and nothing that we don't know.
    pub const fn terms(self) -> Option<MppeTerms> {
        let mode = if self.0 & Self::STATELESS == 0 {
            Mode::Stateful
        } else {
            Mode::Stateless
        };
        let strength = match self.0 & !Self::STATELESS {
            Self::BITS_40 => Strength::Bits40,
            Self::BITS_56 => Strength::Bits56,
            Self::BITS_128 => Strength::Bits128,
            _ => return None,
        };
        Some(MppeTerms { strength, mode })
    }
}

/// CCP of one call that has keys: without them there is no such value, and so no MPPE.
#[derive(Clone)]
pub struct Ccp {
    role: Role,
    keys: MasterKeys,
    policy: Policy,
    /// What we ask for, and all that we agree to.
    wanted: MppeTerms,
    /// Whether MPPE is in our request.
    asking: bool,
    /// The peer will not have MPPE, and policy lets it.
    given_up: bool,
    naks: u8,
    /// Acknowledged by the peer: how we receive.
    receive: Option<MppeTerms>,
    /// Acknowledged by us: how we send.
    transmit: Option<MppeTerms>,
    refusal: Option<MppeRefusal>,
}

impl Ccp {
    /// CCP for `policy`, with the keys that authentication gave.
    pub fn new(role: Role, policy: Policy, keys: MasterKeys) -> Self {
        Self {
            role,
            keys,
            policy,
            wanted: MppeTerms {
                strength: Strength::Bits128,
                mode: Mode::Stateless,
            },
            asking: matches!(policy, Policy::Prefer | Policy::Require),
            given_up: false,
            naks: 0,
            receive: None,
            transmit: None,
            refusal: None,
        }
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

    /// Keys for our Configure-Request with this identifier, if it offers MPPE.
    pub fn load_receive(&self, identifier: u8) -> Option<Action> {
        self.load(Direction::Receive, identifier, self.wanted)
            .filter(|_| self.asking)
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

    fn wanted_data(&self) -> Vec<u8> {
        MppeBits::of(self.wanted).0.to_be_bytes().to_vec()
    }
}

impl Options for Ccp {
    const PROTOCOL: Protocol = Protocol::CCP;

    fn request(&mut self) -> OptionBuffer {
        let mut request = OptionBuffer::default();
        if self.asking {
            request.push(MPPE, &self.wanted_data());
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
        // RFC 3078 §2.1: "no encryption, no compression" (MikroTik and TP-Link name it so).
        if bits.0 == 0 && self.policy != Policy::Require {
            return Judgement::Ack;
        }
        if self.policy == Policy::Allow {
            self.asking = true;
        }
        if bits.terms() == Some(self.wanted) {
            Judgement::Ack
        } else {
            // RFC 3078 §2.1: one strength, ours; without MPPC (which every peer takes), stateless.
            Judgement::Nak(self.wanted_data())
        }
    }

    fn absent(&mut self, request: OptionList<'_>) -> OptionBuffer {
        let mut absent = OptionBuffer::default();
        if self.asking && !request.has(MPPE) {
            absent.push(MPPE, &self.wanted_data());
        }
        absent
    }

    fn insisted(&mut self, option: Option<ConfigOption<'_>>) {
        match option {
            Some(option) => self.refuse(MppeRefusal::Bits(option.u32().unwrap_or(0))),
            None => self.refuse(MppeRefusal::NotRequested),
        }
    }

    fn acknowledging(&mut self, request: OptionList<'_>) {
        self.transmit = request
            .iter()
            .find(|option| option.kind == MPPE)
            .and_then(|option| option.u32())
            .and_then(|bits| MppeBits(bits).terms());
        if self.transmit.is_none() {
            // Both directions are alike: a peer that receives in clear gets nothing else from us.
            self.refuse(MppeRefusal::NotRequested);
        }
    }

    fn acknowledged(&mut self) {
        self.receive = self.asking.then_some(self.wanted);
    }

    fn naked(&mut self, option: ConfigOption<'_>) {
        let Some(bits) = option.u32().filter(|_| option.kind == MPPE) else {
            return;
        };
        if !self.asking {
            return;
        }
        if bits == 0 {
            self.refuse(MppeRefusal::Bits(bits));
        } else if bits & MppeBits::of(self.wanted).0 & !MppeBits::STATELESS == 0 {
            self.naks += 1;
            if self.naks >= MAX_NAKS {
                self.refuse(MppeRefusal::Bits(bits));
            }
        }
        // Else the strength that we want is among the peer's. A Yamaha RTX names two for ever: choose one and insist.
    }

    fn rejected(&mut self, option: ConfigOption<'_>) {
        if option.kind == MPPE {
            self.refuse(MppeRefusal::Rejected);
        }
    }

    fn diverged(&mut self) {
        self.refusal = Some(MppeRefusal::NoAgreement);
    }

    fn has_failed(&self) -> bool {
        self.refusal.is_some()
    }
}
