//! PAP (RFC 1334 §2): the password in clear, for calls that are not encrypted.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::action::Action;
use super::auth::{Credentials, Outcome};
use super::chap::MAX_NAME;
use super::config::{Applicant, Timing};
use super::end::{End, ResponseFault, printable};
use super::packet::{self, Packet};
use crate::wire::ppp::Protocol;
use crate::{Error, Time};

const REQUEST: u8 = 1;
const ACK: u8 = 2;
const NAK: u8 = 3;

/// What a Nak says to people.
const REFUSAL: &[u8] = b"Authentication failed";

/// The number of a Nak that has none: authentication failure (RFC 2759 §6).
const AUTHENTICATION_FAILURE: u32 = 691;

const MALFORMED: Error = Error::Malformed("PAP packet");

/// Splits a field with its length in front.
fn field(data: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let (&length, rest) = data.split_first().ok_or(MALFORMED)?;
    rest.split_at_checked(usize::from(length)).ok_or(MALFORMED)
}

/// The server's end.
#[derive(Clone)]
pub struct Authenticator {
    timing: Timing,
    /// Of the last Authenticate-Request.
    identifier: u8,
    name: Option<Vec<u8>>,
    state: State,
    due: Option<Time>,
}

#[derive(Clone)]
enum State {
    /// No request has come.
    Waiting,
    /// A request is being judged.
    Judging,
    /// Ack was sent. RFC 1334 §2.2.1: every further request gets the same answer.
    Accepted,
    /// Nak was sent; the link ends when the client has had time to show it.
    Refused(End),
}

impl Authenticator {
    /// Waits for a request, as long as CHAP would repeat a Challenge.
    pub fn start(timing: Timing, now: Time) -> Self {
        Self {
            timing,
            identifier: 0,
            name: None,
            state: State::Waiting,
            due: Some(now + timing.restart * u32::from(timing.max_configure)),
        }
    }

    /// The name that the client gave.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// Whether a verdict is awaited.
    pub fn is_judging(&self) -> bool {
        matches!(self.state, State::Judging)
    }

    /// The end that a Nak has announced.
    pub fn refusal(&self) -> Option<&End> {
        match &self.state {
            State::Refused(end) => Some(end),
            _ => None,
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
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Error> {
        if packet.code != REQUEST {
            return Ok(());
        }
        let (name, rest) = field(packet.data)?;
        let (password, _) = field(rest)?;
        // RFC 1334 §2.2.1: each repetition has a new identifier; the answer has that of the latest.
        self.identifier = packet.identifier;
        match self.state {
            State::Waiting => {}
            State::Judging => return Ok(()),
            State::Accepted | State::Refused(_) => {
                self.answer(actions);
                return Ok(());
            }
        }
        let name = &name[..name.len().min(MAX_NAME)];
        self.name = Some(name.to_vec());
        if name.is_empty() {
            let end = End::ResponseUnusable {
                fault: ResponseFault::NoName,
                name: String::new(),
            };
            self.end_with(end, now, actions);
        } else {
            self.state = State::Judging;
            self.due = None;
            actions.push_back(Action::Authenticate(Credentials::Pap {
                name: name.to_vec(),
                password: Zeroizing::new(password.to_vec()),
            }));
        }
        Ok(())
    }

    fn answer(&self, actions: &mut VecDeque<Action>) {
        let (code, message) = match self.state {
            State::Refused(_) => (NAK, REFUSAL),
            _ => (ACK, &b""[..]),
        };
        let data = [&[message.len() as u8], message].concat();
        actions.push_back(Action::Send(packet::frame(
            Protocol::PAP,
            code,
            self.identifier,
            &data,
        )));
    }

    /// The verdict is to let the client in. An Ack that gets lost is asked for again.
    pub fn accept(&mut self, actions: &mut VecDeque<Action>) {
        self.state = State::Accepted;
        self.answer(actions);
    }

    /// The verdict is to keep it out.
    pub fn refuse(
        &mut self,
        code: u32,
        message: String,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        let end = End::AuthenticationFailed {
            code,
            message,
            name: printable(self.name.as_deref().unwrap_or_default()),
        };
        self.end_with(end, now, actions);
    }

    fn end_with(&mut self, end: End, now: Time, actions: &mut VecDeque<Action>) {
        self.state = State::Refused(end);
        self.due = Some(now + self.timing.failure_delay);
        self.answer(actions);
    }

    /// Says when it is over.
    pub fn handle_timeout(&mut self, now: Time) -> Option<End> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        match &self.state {
            State::Waiting => Some(End::AuthenticationTimeout),
            State::Refused(end) => Some(end.clone()),
            State::Judging | State::Accepted => None,
        }
    }
}

/// The client's end.
#[derive(Clone)]
pub struct Peer {
    timing: Timing,
    applicant: Applicant,
    first: u8,
    sent: u8,
    accepted: bool,
    due: Option<Time>,
}

impl Peer {
    /// Sends the first request.
    pub fn start(
        applicant: Applicant,
        identifier: u8,
        timing: Timing,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Self {
        let mut peer = Self {
            timing,
            applicant,
            first: identifier,
            sent: 0,
            accepted: false,
            due: None,
        };
        peer.ask(now, actions);
        peer
    }

    fn ask(&mut self, now: Time, actions: &mut VecDeque<Action>) {
        let applicant = &self.applicant;
        let password = applicant.secret.password().map_or("", |own| own.as_str());
        let mut data = Zeroizing::new(Vec::with_capacity(512));
        for text in [&applicant.name[..], password.as_bytes()] {
            // One octet holds the length.
            let text = &text[..text.len().min(255)];
            data.push(text.len() as u8);
            data.extend_from_slice(text);
        }
        let identifier = self.first.wrapping_add(self.sent);
        self.sent += 1;
        self.due = Some(now + self.timing.restart);
        actions.push_back(Action::Send(packet::frame(
            Protocol::PAP,
            REQUEST,
            identifier,
            &data,
        )));
    }

    /// The identifier of the last request.
    pub fn identifier(&self) -> u8 {
        self.first.wrapping_add(self.sent).wrapping_sub(1)
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// Takes a packet: the first answer to any of our requests counts.
    pub fn receive(&mut self, packet: &Packet<'_>) -> Result<Option<Outcome>, Error> {
        let ours = packet.identifier.wrapping_sub(self.first) < self.sent;
        if !ours || self.accepted {
            return Ok(None);
        }
        match packet.code {
            ACK => {
                self.accepted = true;
                self.due = None;
                Ok(Some(Outcome::Accepted(None)))
            }
            NAK => {
                self.due = None;
                // Some servers leave even the length out.
                let message = field(packet.data).map_or(&[][..], |(message, _)| message);
                Ok(Some(Outcome::Ended(End::AuthenticationFailed {
                    code: AUTHENTICATION_FAILURE,
                    message: printable(message),
                    name: printable(&self.applicant.name),
                })))
            }
            _ => Ok(None),
        }
    }

    /// Repeats the request, or says that it is over.
    pub fn handle_timeout(&mut self, now: Time, actions: &mut VecDeque<Action>) -> Option<End> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        if self.sent >= self.timing.max_configure {
            self.due = None;
            return Some(End::AuthenticationTimeout);
        }
        self.ask(now, actions);
        None
    }
}
