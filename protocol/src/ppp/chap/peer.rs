//! The client's end of CHAP.

use std::collections::VecDeque;

use rand_core::Rng as _;

use super::failure::Failure;
use super::{
    Algorithm, CHALLENGE, CHANGE_PASSWORD_V1, CHANGE_PASSWORD_V2, FAILURE, MAX_NAME, MSCHAP_LEN,
    RESPONSE, SUCCESS, chap_frame, value_and_name,
};
use crate::mschap::change::{self, BLOCK_LEN};
use crate::mschap::{self, MasterKeys, Password};
use crate::ppp::action::Action;
use crate::ppp::auth::{Outcome, Secret, chap_md5};
use crate::ppp::config::{Applicant, Timing};
use crate::ppp::end::{End, printable};
use crate::ppp::packet::{self, Packet};
use crate::ppp::random::Random;
use crate::wire::ppp::Protocol;
use crate::{Error, Time};

/// "Password expired" (RFC 2759 §6).
const PASSWORD_EXPIRED: u32 = 648;
/// The most answers that an unfriendly server gets out of us by `R=1`.
const MAX_ABANDONED: usize = 8;

/// The client's end.
#[derive(Clone)]
pub struct Peer {
    algorithm: Algorithm,
    timing: Timing,
    applicant: Applicant,
    answered: Option<Answered>,
    /// Challenges whose answers failed, by identifier: late copies of them are not answered again.
    abandoned: Vec<(u8, Vec<u8>)>,
    /// A Success has been taken: later Challenges are answered, but change neither phase nor keys (RFC 3079 §2).
    accepted: bool,
    sent: u8,
    due: Option<Time>,
}

#[derive(Clone)]
struct Answered {
    identifier: u8,
    challenge: Vec<u8>,
    frame: Vec<u8>,
    expected: Expected,
    verdict_came: bool,
}

/// What a Success must hold, and what it yields.
#[derive(Clone)]
enum Expected {
    /// Any text.
    Anything(Option<MasterKeys>),
    /// The server's proof.
    Proof(mschap::Response),
}

impl Peer {
    /// Waits for a Challenge.
    pub fn start(algorithm: Algorithm, applicant: Applicant, timing: Timing, now: Time) -> Self {
        let mut applicant = applicant;
        applicant.name.truncate(MAX_NAME);
        applicant.others.reverse();
        Self {
            algorithm,
            timing,
            applicant,
            answered: None,
            abandoned: Vec::new(),
            accepted: false,
            sent: 0,
            // As long as an authenticator may repeat its Challenge.
            due: Some(now + timing.restart * u32::from(timing.max_configure)),
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// Takes a packet.
    pub fn receive(
        &mut self,
        packet: &Packet<'_>,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Result<Option<Outcome>, Error> {
        match packet.code {
            CHALLENGE => {
                let (value, _) = value_and_name(packet)?;
                let fits = match self.algorithm {
                    Algorithm::Md5 => !value.is_empty(),
                    Algorithm::MsChapV1 | Algorithm::MsChapV2 => {
                        value.len() == self.algorithm.challenge_len()
                    }
                };
                if !fits {
                    return Err(Error::Malformed("length of a CHAP challenge"));
                }
                self.challenged(packet.identifier, value, random, now, actions);
                Ok(None)
            }
            SUCCESS | FAILURE => Ok(self.receive_verdict(packet, random, now, actions)),
            _ => Ok(None),
        }
    }

    fn challenged(
        &mut self,
        identifier: u8,
        challenge: &[u8],
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        let same = |id: u8, old: &[u8]| id == identifier && old == challenge;
        if self.abandoned.iter().any(|(id, old)| same(*id, old)) {
            return;
        }
        // A Challenge that comes again gets the answer it had: what is sent next must not depend on which copy the
        // server heard.
        let known = self
            .answered
            .take()
            .filter(|old| same(old.identifier, &old.challenge));
        let answered =
            known.or_else(|| self.answer(identifier, challenge, &self.applicant.secret, random));
        if let Some(answered) = answered {
            self.send(answered, now, actions);
        }
    }

    fn send(&mut self, answered: Answered, now: Time, actions: &mut VecDeque<Action>) {
        actions.push_back(Action::Send(answered.frame.clone()));
        self.answered = Some(Answered {
            verdict_came: false,
            ..answered
        });
        if !self.accepted {
            self.sent = 1;
            self.due = Some(now + self.timing.restart);
        }
    }

    /// A Response; `None` when the secret is not enough for it.
    fn answer(
        &self,
        identifier: u8,
        challenge: &[u8],
        secret: &Secret,
        random: &mut Random,
    ) -> Option<Answered> {
        let name = &self.applicant.name[..];
        let (value, expected) = match self.algorithm {
            Algorithm::Md5 => {
                let response = chap_md5(identifier, secret.password()?, challenge);
                (response.to_vec(), Expected::Anything(None))
            }
            Algorithm::MsChapV1 => {
                let (nt_response, keys) = answer_v1(secret, challenge.try_into().ok()?);
                // RFC 2433 §6: no LM response, flag 1.
                let value = [&[0; 24][..], &nt_response, &[1]].concat();
                (value, Expected::Anything(Some(keys)))
            }
            Algorithm::MsChapV2 => {
                let mut peer_challenge = [0; 16];
                random.fill_bytes(&mut peer_challenge);
                let challenge = challenge.try_into().ok()?;
                let response =
                    mschap::Response::new(&secret.nt_hash(), challenge, &peer_challenge, name);
                let value = [&peer_challenge[..], &[0; 8], &response.nt_response, &[0]].concat();
                debug_assert_eq!(value.len(), MSCHAP_LEN);
                (value, Expected::Proof(response))
            }
        };
        let size = [value.len() as u8];
        Some(Answered {
            identifier,
            challenge: challenge.to_vec(),
            frame: chap_frame(RESPONSE, identifier, &[&size, &value, name]),
            expected,
            verdict_came: false,
        })
    }

    fn receive_verdict(
        &mut self,
        packet: &Packet<'_>,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Option<Outcome> {
        let answered = self.answered.as_mut()?;
        if packet.identifier != answered.identifier || answered.verdict_came {
            return None;
        }
        answered.verdict_came = true;
        self.due = None;
        if packet.code == FAILURE {
            let failure = Failure::parse(packet.data);
            return match self.try_again(&failure, random) {
                Some(answered) => {
                    self.send(answered, now, actions);
                    None
                }
                None => Some(Outcome::Ended(End::AuthenticationFailed {
                    code: failure.code,
                    message: failure.message,
                    name: printable(&self.applicant.name),
                })),
            };
        }
        let keys = match &answered.expected {
            Expected::Anything(keys) => keys.clone(),
            Expected::Proof(response) if response.verify_success(packet.data) => {
                Some(response.keys.clone())
            }
            Expected::Proof(_) => return Some(Outcome::Ended(End::ServerNotAuthentic)),
        };
        (!core::mem::replace(&mut self.accepted, true)).then_some(Outcome::Accepted(keys))
    }

    /// What a Failure leaves us to do: another password, or a new one.
    fn try_again(&mut self, failure: &Failure, random: &mut Random) -> Option<Answered> {
        let before = self.answered.as_ref()?;
        if self.accepted
            || self.algorithm == Algorithm::Md5
            || self.abandoned.len() >= MAX_ABANDONED
        {
            return None;
        }
        let old = (before.identifier, before.challenge.clone());
        let identifier = before.identifier.wrapping_add(1);
        let challenge = match &failure.challenge {
            Some(challenge) => challenge.clone(),
            // RFC 2433 §8: without C= the old challenge, 23 added to its first octet.
            None => {
                let mut challenge = old.1.clone();
                let first = challenge.first_mut()?;
                *first = first.wrapping_add(23);
                challenge
            }
        };
        let answered = if failure.code == PASSWORD_EXPIRED
            && let Some(new) = self.applicant.new_password.take()
        {
            // RFC 2433 §10: over "the same challenge used in the last response".
            let challenge = match self.algorithm {
                Algorithm::MsChapV1 => &old.1,
                Algorithm::Md5 | Algorithm::MsChapV2 => &challenge,
            };
            let answered = self.change(identifier, challenge, &new, random)?;
            self.applicant.secret = Secret::Password(new);
            answered
        } else if failure.retry {
            let secret = self.applicant.others.pop()?;
            let answered = self.answer(identifier, &challenge, &secret, random)?;
            self.applicant.secret = secret;
            answered
        } else {
            return None;
        };
        self.abandoned.push(old);
        Some(answered)
    }

    /// A Change-Password packet.
    fn change(
        &self,
        identifier: u8,
        challenge: &[u8],
        new: &Password,
        random: &mut Random,
    ) -> Option<Answered> {
        let old = self.applicant.secret.nt_hash();
        let mut filler = [0; BLOCK_LEN];
        random.fill_bytes(&mut filler);
        let password = change::encrypt_password(new, &old, filler)?;
        let hash = change::encrypt_hash(&old, &new.nt_hash());
        let (code, rest, expected) = match self.algorithm {
            Algorithm::Md5 => return None,
            Algorithm::MsChapV1 => {
                let (response, keys) =
                    answer_v1(&Secret::Password(new.clone()), challenge.try_into().ok()?);
                let rest = [&[0; BLOCK_LEN + 16 + 24][..], &response, &[0, 1]].concat();
                (CHANGE_PASSWORD_V1, rest, Expected::Anything(Some(keys)))
            }
            Algorithm::MsChapV2 => {
                let mut peer_challenge = [0; 16];
                random.fill_bytes(&mut peer_challenge);
                let response = mschap::Response::new(
                    &new.nt_hash(),
                    challenge.try_into().ok()?,
                    &peer_challenge,
                    &self.applicant.name,
                );
                let rest = [&peer_challenge[..], &[0; 8], &response.nt_response, &[0, 0]].concat();
                (CHANGE_PASSWORD_V2, rest, Expected::Proof(response))
            }
        };
        let data = [&password[..], &hash, &rest].concat();
        Some(Answered {
            identifier,
            challenge: challenge.to_vec(),
            frame: packet::whole_frame(Protocol::CHAP, code, identifier, &data),
            expected,
            verdict_came: false,
        })
    }

    /// Repeats the Response, or says that it is over.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut VecDeque<Action>) -> Option<End> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        match &self.answered {
            Some(answered) if self.sent < self.timing.max_configure => {
                self.sent += 1;
                self.due = Some(now + self.timing.restart);
                actions.push_back(Action::Send(answered.frame.clone()));
                None
            }
            _ => Some(End::AuthenticationTimeout),
        }
    }
}

fn answer_v1(secret: &Secret, challenge: &[u8; 8]) -> ([u8; 24], MasterKeys) {
    let hash = secret.nt_hash();
    let lm_hash = secret.password().and_then(Password::lm_hash);
    (
        mschap::v1::nt_response(&hash, challenge),
        MasterKeys::from_mschap_v1(&hash, lm_hash.as_ref(), challenge),
    )
}
