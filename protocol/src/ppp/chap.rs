//! CHAP (RFC 1994 §4) as MS-CHAPv2 uses it (RFC 2759 §3 to §6): the authenticator and the peer.

use core::fmt::Write as _;
use std::collections::VecDeque;

use rand_chacha::ChaCha20Rng;
use rand_core::Rng as _;

use super::action::Action;
use super::auth::Credentials;
use super::config::Timing;
use super::end::{End, printable};
use super::packet::{self, Packet};
use crate::mschap::{self, MasterKeys, NtHash};
use crate::wire::ppp::Protocol;
use crate::{Error, Time};

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// Octets of an MS-CHAPv2 challenge (RFC 2759 §3).
const CHALLENGE_LEN: usize = 16;
/// Octets of its response value (RFC 2759 §4): peer challenge 16, zero 8, NT response 24, flags 1.
const RESPONSE_LEN: usize = 49;
/// The longest name that we send or take, in octets; what a RADIUS attribute can hold (RFC 2865 §5).
const MAX_NAME: usize = 253;
/// The longest name of a server, in octets.
const MAX_SERVER_NAME: usize = 64;
/// How often a Success is repeated to a client from which nothing else comes.
const SUCCESS_REPEATS: u8 = 3;
/// "Authentication failure" (RFC 2759 §6).
const AUTHENTICATION_FAILURE: u32 = 691;

/// Splits Value-Size, Value and Name of a Challenge or Response.
fn value_and_name<'a>(packet: &Packet<'a>) -> Result<(&'a [u8], &'a [u8]), Error> {
    let (&size, rest) = packet
        .data
        .split_first()
        .ok_or(Error::Malformed("CHAP packet"))?;
    rest.split_at_checked(usize::from(size))
        .ok_or(Error::Malformed("CHAP value size"))
}

fn chap_frame(code: u8, identifier: u8, parts: &[&[u8]]) -> Vec<u8> {
    packet::frame(Protocol::CHAP, code, identifier, &parts.concat())
}

/// The server's end.
#[derive(Clone)]
pub struct Authenticator {
    timing: Timing,
    identifier: u8,
    challenge: [u8; CHALLENGE_LEN],
    /// The Challenge as it is repeated: on a path slower than the timer a new one each time would never be answered
    /// in time.
    challenge_frame: Vec<u8>,
    /// User name of the Response, once there was one.
    name: Option<Vec<u8>>,
    state: AuthenticatorState,
    due: Option<Time>,
}

#[derive(Clone)]
enum AuthenticatorState {
    /// The Challenge has gone out so many times.
    Challenged { sent: u8 },
    /// A Response is being judged.
    Judging,
    /// Success was sent. RFC 1994 §4.2: a repeated Response gets the same verdict.
    Accepted { frame: Vec<u8>, repeats_left: u8 },
    /// Failure was sent; the link ends when the client has had time to show it.
    Refused { frame: Vec<u8>, end: End },
}

impl Authenticator {
    /// Sends the first Challenge.
    pub fn start(
        name: &[u8],
        identifier: u8,
        random: &mut ChaCha20Rng,
        timing: Timing,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Self {
        let mut challenge = [0; CHALLENGE_LEN];
        random.fill_bytes(&mut challenge);
        let name = &name[..name.len().min(MAX_SERVER_NAME)];
        let size = [CHALLENGE_LEN as u8];
        let challenge_frame = chap_frame(CHALLENGE, identifier, &[&size, &challenge, name]);
        actions.push_back(Action::Send(challenge_frame.clone()));
        Self {
            timing,
            identifier,
            challenge,
            challenge_frame,
            name: None,
            state: AuthenticatorState::Challenged { sent: 1 },
            due: Some(now + timing.restart),
        }
    }

    /// The name that the client gave.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// Whether a verdict is awaited.
    pub fn is_judging(&self) -> bool {
        matches!(self.state, AuthenticatorState::Judging)
    }

    /// The end that a Failure has announced.
    pub fn refusal(&self) -> Option<&End> {
        match &self.state {
            AuthenticatorState::Refused { end, .. } => Some(end),
            _ => None,
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// Takes a packet. Only a Response to the outstanding Challenge means anything.
    pub fn receive(
        &mut self,
        packet: &Packet<'_>,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Error> {
        if packet.code != RESPONSE || packet.identifier != self.identifier {
            return Ok(());
        }
        match &self.state {
            AuthenticatorState::Challenged { .. } => {}
            AuthenticatorState::Judging => return Ok(()),
            AuthenticatorState::Accepted { frame, .. }
            | AuthenticatorState::Refused { frame, .. } => {
                actions.push_back(Action::Send(frame.clone()));
                return Ok(());
            }
        }
        let (value, name) = value_and_name(packet)?;
        let name = &name[..name.len().min(MAX_NAME)];
        self.name = Some(name.to_vec());
        match Self::credentials(self.identifier, &self.challenge, value, name) {
            Some(credentials) => {
                self.state = AuthenticatorState::Judging;
                self.due = None;
                actions.push_back(Action::Authenticate(credentials));
            }
            // A value of another size, or no name: nothing that could be judged.
            None => self.refuse(AUTHENTICATION_FAILURE, String::new(), now, actions),
        }
        Ok(())
    }

    fn credentials(
        identifier: u8,
        challenge: &[u8; CHALLENGE_LEN],
        value: &[u8],
        name: &[u8],
    ) -> Option<Credentials> {
        if value.len() != RESPONSE_LEN || name.is_empty() {
            return None;
        }
        Some(Credentials::MsChapV2 {
            identifier,
            challenge: *challenge,
            peer_challenge: value.get(..16)?.try_into().ok()?,
            // The eight reserved octets and the flags are not looked at: Windows 98 sets flags.
            nt_response: value.get(24..48)?.try_into().ok()?,
            name: name.to_vec(),
        })
    }

    /// The verdict is to let the client in. The text is sent as it is: Windows 98 takes anything after it for an error.
    pub fn accept(&mut self, message: &[u8; 42], now: Time, actions: &mut VecDeque<Action>) {
        let frame = chap_frame(SUCCESS, self.identifier, &[message]);
        actions.push_back(Action::Send(frame.clone()));
        self.state = AuthenticatorState::Accepted {
            frame,
            repeats_left: SUCCESS_REPEATS,
        };
        self.due = Some(now + self.timing.restart);
    }

    /// The verdict is to keep it out.
    pub fn refuse(
        &mut self,
        code: u32,
        message: String,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        // RFC 2759 §6. No M=: a macOS client hangs on it. R=0: the client is to dial again.
        let mut text = format!("E={code} R=0 C=");
        for octet in self.challenge {
            let _ = write!(text, "{octet:02X}");
        }
        text += " V=3";
        let frame = chap_frame(FAILURE, self.identifier, &[text.as_bytes()]);
        actions.push_back(Action::Send(frame.clone()));
        self.state = AuthenticatorState::Refused {
            frame,
            end: End::AuthenticationFailed {
                code,
                message,
                name: printable(self.name.as_deref().unwrap_or_default()),
            },
        };
        self.due = Some(now + self.timing.failure_delay);
    }

    /// The client has begun with the next phase: it knows the verdict.
    pub fn note_progress(&mut self) {
        if matches!(self.state, AuthenticatorState::Accepted { .. }) {
            self.due = None;
        }
    }

    /// Repeats what may have got lost, or says that it is over.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut VecDeque<Action>) -> Option<End> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        match &mut self.state {
            AuthenticatorState::Challenged { sent } => {
                if *sent >= self.timing.max_configure {
                    return Some(End::AuthenticationTimeout);
                }
                *sent += 1;
                self.due = Some(now + self.timing.restart);
                actions.push_back(Action::Send(self.challenge_frame.clone()));
            }
            AuthenticatorState::Judging => {}
            AuthenticatorState::Accepted {
                frame,
                repeats_left,
            } => {
                if let Some(left) = repeats_left.checked_sub(1) {
                    *repeats_left = left;
                    self.due = Some(now + self.timing.restart);
                    actions.push_back(Action::Send(frame.clone()));
                }
            }
            AuthenticatorState::Refused { end, .. } => return Some(end.clone()),
        }
        None
    }
}

/// What a packet from the server means for the client's link.
pub enum Outcome {
    /// The server let us in and proved itself.
    Accepted(MasterKeys),
    /// It is over.
    Ended(End),
}

/// The client's end.
#[derive(Clone)]
pub struct Peer {
    timing: Timing,
    name: Vec<u8>,
    secret: NtHash,
    answered: Option<Answered>,
    /// A Success has been taken: later Challenges are answered, but change neither phase nor keys (RFC 3079 §2).
    accepted: bool,
    sent: u8,
    due: Option<Time>,
}

#[derive(Clone)]
struct Answered {
    identifier: u8,
    challenge: [u8; CHALLENGE_LEN],
    response: mschap::Response,
    frame: Vec<u8>,
    verdict_came: bool,
}

impl Peer {
    /// Waits for a Challenge.
    pub fn start(name: &[u8], secret: NtHash, timing: Timing, now: Time) -> Self {
        Self {
            timing,
            name: name[..name.len().min(MAX_NAME)].to_vec(),
            secret,
            answered: None,
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
        random: &mut ChaCha20Rng,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Result<Option<Outcome>, Error> {
        match packet.code {
            CHALLENGE => {
                let (value, _) = value_and_name(packet)?;
                let challenge = value
                    .try_into()
                    .map_err(|_| Error::Malformed("MS-CHAPv2 challenge"))?;
                self.answer(packet.identifier, challenge, random, now, actions);
                Ok(None)
            }
            SUCCESS | FAILURE => Ok(self.receive_verdict(packet)),
            _ => Ok(None),
        }
    }

    fn answer(
        &mut self,
        identifier: u8,
        challenge: [u8; CHALLENGE_LEN],
        random: &mut ChaCha20Rng,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        // A Challenge that comes again, though with another identifier, gets the answer it had: what is sent next must
        // not depend on which copy the server heard.
        let known = self
            .answered
            .take()
            .filter(|old| old.identifier == identifier && old.challenge == challenge);
        let mut answered = known.unwrap_or_else(|| {
            let mut peer_challenge = [0; 16];
            random.fill_bytes(&mut peer_challenge);
            let response =
                mschap::Response::new(&self.secret, &challenge, &peer_challenge, &self.name);
            let frame = chap_frame(
                RESPONSE,
                identifier,
                &[
                    &[RESPONSE_LEN as u8],
                    &peer_challenge,
                    &[0; 8],
                    &response.nt_response,
                    &[0],
                    &self.name,
                ],
            );
            Answered {
                identifier,
                challenge,
                response,
                frame,
                verdict_came: false,
            }
        });
        answered.verdict_came = false;
        actions.push_back(Action::Send(answered.frame.clone()));
        self.answered = Some(answered);
        if !self.accepted {
            self.sent = 1;
            self.due = Some(now + self.timing.restart);
        }
    }

    fn receive_verdict(&mut self, packet: &Packet<'_>) -> Option<Outcome> {
        let answered = self.answered.as_mut()?;
        if packet.identifier != answered.identifier || answered.verdict_came {
            return None;
        }
        answered.verdict_came = true;
        if packet.code == FAILURE {
            self.due = None;
            return Some(Outcome::Ended(parse_failure(packet.data, &self.name)));
        }
        if !answered.response.verify_success(packet.data) {
            self.due = None;
            return Some(Outcome::Ended(End::ServerNotAuthentic));
        }
        self.due = None;
        let keys = answered.response.keys.clone();
        (!core::mem::replace(&mut self.accepted, true)).then_some(Outcome::Accepted(keys))
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

/// Reads "E=691 R=0 C=... V=3 M=text" (RFC 2759 §6). Without a code it is 691.
fn parse_failure(text: &[u8], name: &[u8]) -> End {
    let text = printable(text);
    let (fields, message) = match text.split_once("M=") {
        Some((fields, message)) => (fields, message),
        None => (text.as_str(), ""),
    };
    let code = fields
        .split(' ')
        .find_map(|field| field.strip_prefix("E="))
        .and_then(|code| code.parse().ok())
        .unwrap_or(AUTHENTICATION_FAILURE);
    End::AuthenticationFailed {
        code,
        message: message.to_owned(),
        name: printable(name),
    }
}
