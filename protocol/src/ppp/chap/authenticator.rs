//! The server's end of CHAP.

use core::time::Duration;
use std::collections::VecDeque;

use rand_core::Rng as _;

use super::failure::{AUTHENTICATION_FAILURE, Failure};
use super::{
    Algorithm, CHALLENGE, FAILURE, MAX_NAME, MAX_RETRIES, MAX_SERVER_NAME, MD5_LEN, MSCHAP_LEN,
    RESPONSE, SUCCESS, chap_frame, value_and_name,
};
use crate::mschap::change::BLOCK_LEN;
use crate::ppp::action::Action;
use crate::ppp::auth::{AuthProtocol, ChangePassword, ChangeResponse, Credentials, Proof, Remedy};
use crate::ppp::config::Timing;
use crate::ppp::end::{End, ResponseFault, printable};
use crate::ppp::packet::Packet;
use crate::ppp::random::Random;
use crate::{Error, Time};

/// How often a Success is repeated to a client from which nothing else comes.
const SUCCESS_REPEATS: u8 = 3;

/// What the server's end is made from.
pub struct Settings<'a> {
    /// Which CHAP.
    pub algorithm: Algorithm,
    /// Our name in Challenges.
    pub name: &'a [u8],
    /// Identifier of the first Challenge; must differ from the last one of this link.
    pub identifier: u8,
    /// How often the client may try again.
    pub retries: u8,
    /// Challenge again this often after a Success; `None`: never.
    pub rechallenge: Option<Duration>,
    /// Times and counts.
    pub timing: Timing,
}

/// The server's end.
#[derive(Clone)]
pub struct Authenticator {
    algorithm: Algorithm,
    timing: Timing,
    server_name: Vec<u8>,
    rechallenge: Option<Duration>,
    /// Of the outstanding Challenge, or of the answer that a Failure allows.
    identifier: u8,
    /// What the answer is to: the first octets of it, as many as the algorithm takes.
    challenge: [u8; 16],
    /// User name of the last Response.
    name: Option<Vec<u8>>,
    state: State,
    due: Option<Time>,
    rechallenge_at: Option<Time>,
    retries_left: u8,
    /// A Success has been sent: what follows does not concern the call's keys any more (RFC 3079 §2).
    accepted: bool,
    /// The last Success or Failure, and the identifier that it answers. RFC 1994 §4.2: a repeated Response gets the
    /// same verdict.
    answered: Option<(u8, Vec<u8>)>,
}

#[derive(Clone)]
enum State {
    /// The Challenge has gone out so many times. It is repeated as it is: on a path slower than the timer a new one
    /// each time would never be answered in time.
    Challenged { frame: Vec<u8>, sent: u8 },
    /// An answer is being judged.
    Judging,
    /// Success was sent.
    Accepted { repeats_left: u8 },
    /// Failure was sent; the link ends when the client has had time to show it, or to make use of the remedy.
    Refused { remedy: Remedy, end: End },
}

impl Authenticator {
    /// Sends the first Challenge.
    pub fn start(
        settings: Settings<'_>,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Self {
        let Settings {
            algorithm,
            name,
            identifier,
            retries,
            rechallenge,
            timing,
        } = settings;
        let mut authenticator = Self {
            algorithm,
            timing,
            server_name: name[..name.len().min(MAX_SERVER_NAME)].to_vec(),
            rechallenge,
            identifier,
            challenge: [0; 16],
            name: None,
            state: State::Judging,
            due: None,
            rechallenge_at: None,
            retries_left: retries.min(MAX_RETRIES),
            accepted: false,
            answered: None,
        };
        authenticator.ask(random, now, actions);
        authenticator
    }

    fn ask(&mut self, random: &mut Random, now: Time, actions: &mut VecDeque<Action>) {
        random.fill_bytes(&mut self.challenge);
        let value = self.challenge();
        let size = [value.len() as u8];
        let frame = chap_frame(
            CHALLENGE,
            self.identifier,
            &[&size, value, &self.server_name],
        );
        actions.push_back(Action::Send(frame.clone()));
        self.state = State::Challenged { frame, sent: 1 };
        self.due = Some(now + self.timing.restart);
    }

    fn challenge(&self) -> &[u8] {
        &self.challenge[..self.algorithm.challenge_len()]
    }

    fn short_challenge(&self) -> [u8; 8] {
        let mut challenge = [0; 8];
        challenge.copy_from_slice(&self.challenge[..8]);
        challenge
    }

    /// The method.
    pub const fn method(&self) -> AuthProtocol {
        match self.algorithm {
            Algorithm::Md5 => AuthProtocol::ChapMd5,
            Algorithm::MsChapV1 => AuthProtocol::MsChapV1,
            Algorithm::MsChapV2 => AuthProtocol::MsChapV2,
        }
    }

    /// The name that the client gave.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The last identifier in use.
    pub fn identifier(&self) -> u8 {
        self.identifier
    }

    /// Whether a verdict is awaited.
    pub fn is_judging(&self) -> bool {
        matches!(self.state, State::Judging)
    }

    /// The end that a Failure has announced.
    pub fn refusal(&self) -> Option<&End> {
        match &self.state {
            State::Refused { end, .. } => Some(end),
            _ => None,
        }
    }

    /// Until when somebody may be typing.
    pub fn patience(&self) -> Option<Time> {
        match self.state {
            State::Refused {
                remedy: Remedy::Retry | Remedy::ChangePassword,
                ..
            } => self.due,
            _ => None,
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        [self.due, self.rechallenge_at].into_iter().flatten().min()
    }

    /// Takes a packet. Only an answer to the outstanding Challenge, or to what a Failure asked for, means anything.
    pub fn receive(
        &mut self,
        packet: &Packet<'_>,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Error> {
        let change = Some(packet.code) == self.algorithm.change_code();
        if packet.code != RESPONSE && !change {
            return Ok(());
        }
        if let Some((identifier, frame)) = &self.answered
            && *identifier == packet.identifier
        {
            actions.push_back(Action::Send(frame.clone()));
            return Ok(());
        }
        let expected = match &self.state {
            State::Challenged { .. } => !change,
            State::Judging | State::Accepted { .. } => false,
            State::Refused { remedy, .. } => match remedy {
                Remedy::None => false,
                Remedy::Retry => !change,
                Remedy::ChangePassword => change,
            },
        };
        if !expected || packet.identifier != self.identifier {
            return Ok(());
        }
        let outcome = if change {
            Ok(self.change(packet.data)?)
        } else {
            let (value, name) = value_and_name(packet)?;
            let name = &name[..name.len().min(MAX_NAME)];
            // The call is somebody's by now: whoever else the client says it is gets no share of it.
            if self.accepted && self.name.as_deref() != Some(name) {
                Err(ResponseFault::OtherName)
            } else {
                self.name = Some(name.to_vec());
                self.credentials(value, name)
            }
        };
        match outcome {
            Ok(credentials) => {
                self.state = State::Judging;
                self.due = None;
                actions.push_back(Action::Authenticate(credentials));
            }
            Err(fault) => {
                let end = End::ResponseUnusable {
                    fault,
                    name: self.printable_name(),
                };
                let failure = self.failure(AUTHENTICATION_FAILURE, false);
                self.send_failure(&failure, Remedy::None, end, now, actions);
            }
        }
        Ok(())
    }

    fn credentials(&self, value: &[u8], name: &[u8]) -> Result<Credentials, ResponseFault> {
        if name.is_empty() {
            return Err(ResponseFault::NoName);
        }
        let identifier = self.identifier;
        let name = name.to_vec();
        let part = |from: usize| {
            let mut octets = [0; 24];
            octets.copy_from_slice(&value[from..from + 24]);
            octets
        };
        match self.algorithm {
            Algorithm::Md5 => Ok(Credentials::ChapMd5 {
                identifier,
                challenge: self.challenge().to_vec(),
                response: <[u8; MD5_LEN]>::try_from(value).map_err(|_| ResponseFault::Size)?,
                name,
            }),
            Algorithm::MsChapV1 | Algorithm::MsChapV2 if value.len() != MSCHAP_LEN => {
                Err(ResponseFault::Size)
            }
            // RFC 2433 §6: flag 0 says that the NT response is not to be used, and the LM response proves too little.
            Algorithm::MsChapV1 if value[48] & 1 == 0 => Err(ResponseFault::LmOnly),
            Algorithm::MsChapV1 => Ok(Credentials::MsChapV1 {
                identifier,
                challenge: self.short_challenge(),
                lm_response: part(0),
                nt_response: part(24),
                name,
            }),
            Algorithm::MsChapV2 => {
                let mut peer_challenge = [0; 16];
                peer_challenge.copy_from_slice(&value[..16]);
                // The eight reserved octets and the flags are not looked at: Windows 98 sets flags.
                Ok(Credentials::MsChapV2 {
                    identifier,
                    challenge: self.challenge,
                    peer_challenge,
                    nt_response: part(24),
                    name,
                })
            }
        }
    }

    /// Reads a Change-Password packet. It has no name: that of the Response before it holds.
    fn change(&self, data: &[u8]) -> Result<Credentials, Error> {
        const MALFORMED: Error = Error::Malformed("Change-Password packet");
        let (encrypted_password, data) = data.split_first_chunk::<BLOCK_LEN>().ok_or(MALFORMED)?;
        let (encrypted_hash, data) = data.split_first_chunk::<16>().ok_or(MALFORMED)?;
        let response = match self.algorithm {
            // RFC 2433 §10: password 516 and hash 16 once more under LM hashes, LM response 24, NT response 24, flags 2.
            Algorithm::MsChapV1 => {
                let data = data.get(BLOCK_LEN + 16 + 24..).ok_or(MALFORMED)?;
                let (nt_response, _) = data.split_first_chunk::<24>().ok_or(MALFORMED)?;
                ChangeResponse::MsChapV1 {
                    challenge: self.short_challenge(),
                    nt_response: *nt_response,
                }
            }
            // RFC 2759 §7: peer challenge 16, zero 8, NT response 24, flags 2.
            Algorithm::Md5 | Algorithm::MsChapV2 => {
                let (peer_challenge, data) = data.split_first_chunk::<16>().ok_or(MALFORMED)?;
                let data = data.get(8..).ok_or(MALFORMED)?;
                let (nt_response, _) = data.split_first_chunk::<24>().ok_or(MALFORMED)?;
                ChangeResponse::MsChapV2 {
                    challenge: self.challenge,
                    peer_challenge: *peer_challenge,
                    nt_response: *nt_response,
                }
            }
        };
        Ok(Credentials::ChangePassword(Box::new(ChangePassword {
            identifier: self.identifier,
            encrypted_password: *encrypted_password,
            encrypted_hash: *encrypted_hash,
            response,
            name: self.name.clone().unwrap_or_default(),
        })))
    }

    /// The verdict is to let the client in. MS-CHAPv2's text is sent as it is: Windows 98 takes anything after it for
    /// an error.
    pub fn accept(&mut self, proof: &Proof, now: Time, actions: &mut VecDeque<Action>) {
        let message: &[u8] = match proof {
            Proof::MsChapV2 {
                authenticator_response,
                ..
            } => authenticator_response,
            Proof::MsChapV1 { .. } | Proof::ChapMd5 | Proof::Pap => &[],
        };
        let frame = chap_frame(SUCCESS, self.identifier, &[message]);
        actions.push_back(Action::Send(frame.clone()));
        self.answered = Some((self.identifier, frame));
        // In mid-call there is nothing to follow by which it would be known to have come.
        let repeats_left = if self.accepted { 0 } else { SUCCESS_REPEATS };
        self.state = State::Accepted { repeats_left };
        self.due = (!self.accepted).then_some(now + self.timing.restart);
        self.accepted = true;
        self.rechallenge_at = self.rechallenge.map(|interval| now + interval);
    }

    /// The verdict is to keep it out.
    pub fn refuse(
        &mut self,
        verdict: (u32, String, Remedy),
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        let (code, message, remedy) = verdict;
        let remedy = match remedy {
            _ if self.algorithm == Algorithm::Md5 || self.accepted => Remedy::None,
            Remedy::Retry => match self.retries_left.checked_sub(1) {
                Some(left) => {
                    self.retries_left = left;
                    Remedy::Retry
                }
                None => Remedy::None,
            },
            remedy => remedy,
        };
        let end = End::AuthenticationFailed {
            code,
            message,
            name: self.printable_name(),
        };
        // RFC 2433 §10: with MS-CHAPv1 a change of the password answers the challenge that there was.
        let new = match remedy {
            Remedy::None => false,
            Remedy::Retry => true,
            Remedy::ChangePassword => self.algorithm != Algorithm::MsChapV1,
        };
        if new {
            random.fill_bytes(&mut self.challenge);
        }
        let failure = self.failure(code, remedy == Remedy::Retry);
        self.send_failure(&failure, remedy, end, now, actions);
    }

    fn failure(&self, code: u32, retry: bool) -> Failure {
        Failure {
            code,
            retry,
            challenge: Some(self.challenge().to_vec()),
            message: String::new(),
        }
    }

    fn send_failure(
        &mut self,
        failure: &Failure,
        remedy: Remedy,
        end: End,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        let text = failure.text(self.algorithm);
        let frame = chap_frame(FAILURE, self.identifier, &[text.as_bytes()]);
        actions.push_back(Action::Send(frame.clone()));
        self.answered = Some((self.identifier, frame));
        self.rechallenge_at = None;
        let wait = match remedy {
            Remedy::None => self.timing.failure_delay,
            Remedy::Retry | Remedy::ChangePassword => {
                // RFC 2759 §6, §7: what follows has the next identifier.
                self.identifier = self.identifier.wrapping_add(1);
                self.timing.patience
            }
        };
        self.state = State::Refused { remedy, end };
        self.due = Some(now + wait);
    }

    fn printable_name(&self) -> String {
        printable(self.name.as_deref().unwrap_or_default())
    }

    /// The client has begun with the next phase: it knows the verdict.
    pub fn note_progress(&mut self) {
        if matches!(self.state, State::Accepted { .. }) {
            self.due = None;
        }
    }

    /// Repeats what may have got lost, challenges again, or says that it is over.
    pub fn handle_timeout(
        &mut self,
        random: &mut Random,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Option<End> {
        if self.rechallenge_at.is_some_and(|at| at <= now) {
            self.rechallenge_at = None;
            self.identifier = self.identifier.wrapping_add(1);
            self.ask(random, now, actions);
            return None;
        }
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        match &mut self.state {
            State::Challenged { frame, sent } => {
                if *sent >= self.timing.max_configure {
                    return Some(End::AuthenticationTimeout);
                }
                *sent += 1;
                self.due = Some(now + self.timing.restart);
                actions.push_back(Action::Send(frame.clone()));
            }
            State::Judging => {}
            State::Accepted { repeats_left } => {
                if let Some(left) = repeats_left.checked_sub(1) {
                    *repeats_left = left;
                    self.due = Some(now + self.timing.restart);
                    let frame = self.answered.as_ref().map(|(_, frame)| frame.clone());
                    actions.extend(frame.map(Action::Send));
                }
            }
            State::Refused { end, .. } => return Some(end.clone()),
        }
        None
    }
}
