//! One engine for the option negotiations of LCP, IPCP and CCP (RFC 1661 §4 and §5): what differs between them is
//! which options they ask for and how they judge the peer's, and that is [`Options`].

use core::time::Duration;
use std::collections::VecDeque;

use super::config::Timing;
use super::fsm::{self, Act, Event, State};
use super::packet::{self, ConfigOption, OptionBuffer, OptionList, Packet, code};
use crate::wire::ppp::Protocol;
use crate::{Error, Time};

/// Refusals in a row, in either direction, before a negotiation is given up. Max-Failure makes two honest sides
/// converge well before.
const MAX_ROUNDS: u8 = 20;

/// The longest that the Restart timer grows to.
const MAX_RESTART: Duration = Duration::from_secs(12);

/// What one option of the peer's Configure-Request deserves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// Fine as it is.
    Ack,
    /// Known, but with this data in place of the peer's.
    Nak(Vec<u8>),
    /// Unknown, or not to be had.
    Reject,
}

/// The options of one protocol.
pub trait Options {
    /// The protocol.
    const PROTOCOL: Protocol;

    /// The options of our next Configure-Request.
    fn request(&mut self) -> OptionBuffer;

    /// Judges one option of the peer's request.
    fn judge(&mut self, option: ConfigOption<'_>) -> Judgement;

    /// Options that the peer's request lacks and should have: appended to a Configure-Nak (RFC 1661 §5.3).
    fn absent(&mut self, _request: OptionList<'_>) -> OptionBuffer {
        OptionBuffer::default()
    }

    /// The peer insists: Max-Failure Naks were in vain, and this option is rejected now. `None`: it never sent one
    /// that [`Self::absent`] wanted.
    fn insisted(&mut self, _option: Option<ConfigOption<'_>>) {}

    /// We acknowledge this request of the peer.
    fn acknowledging(&mut self, request: OptionList<'_>);

    /// The peer acknowledged our last request.
    fn acknowledged(&mut self);

    /// The peer acknowledged a request that left it a choice, and so made none. Returns `true` after having made it: the
    /// answer counts as a Nak, and a new request goes out.
    fn chooses(&mut self) -> bool {
        false
    }

    /// The peer would rather have this value in our request.
    fn naked(&mut self, option: ConfigOption<'_>);

    /// The peer does not know, or will not have, this option of our request.
    fn rejected(&mut self, option: ConfigOption<'_>);

    /// The negotiation goes round in circles.
    fn diverged(&mut self);

    /// Whether this negotiation cannot succeed any more; nothing is answered then, and the link decides what follows.
    fn has_failed(&self) -> bool;
}

/// What a negotiation wants done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send our Configure-Request.
    Request {
        /// Its identifier.
        identifier: u8,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Send our Configure-Ack.
    Ack {
        /// Identifier of the peer's request.
        identifier: u8,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Send any other frame.
    Send(Vec<u8>),
    /// tlu. Comes before the Configure-Ack that opens the layer.
    Up,
    /// tld.
    Down,
    /// tlf: ended, or never began.
    Finished,
    /// The peer sent a Terminate-Request with this text. Comes before all that follows from it.
    PeerTerminated(Vec<u8>),
}

/// What a negotiation needs of [`Timing`] besides the Restart timer.
#[derive(Clone, Copy, Debug)]
struct Counts {
    max_configure: u8,
    max_terminate: u8,
    max_failure: u8,
}

/// One negotiation: the automaton, the Restart timer, identifiers and counters around some [`Options`].
#[derive(Clone, Debug)]
pub struct Negotiation<O> {
    /// The options.
    pub options: O,
    state: State,
    counts: Counts,
    /// The Restart timer of the settings.
    shortest: Duration,
    /// Identifier of our last Configure-Request or Terminate-Request.
    identifier: u8,
    /// Options of our last Configure-Request.
    request: Vec<u8>,
    /// The last request has had its answer; another one to it is an echo of a repetition.
    answered: bool,
    /// Whether the last request, and the one before it, were sent more than once.
    repeated: bool,
    repeated_before: bool,
    /// Requests are kept back until [`Self::release`].
    held: bool,
    /// The peer sent Terminate-Ack while our request was under way: it was not ready.
    peer_was_closed: bool,
    restarts_left: u8,
    /// The Restart timer as the path has shown to need it: no shorter than `shortest`.
    restart: Duration,
    /// When our last request was sent.
    sent_at: Time,
    restart_at: Option<Time>,
    naks_sent: u8,
    refusals_sent: u8,
    refusals_received: u8,
    terminate_text: &'static str,
    outputs: VecDeque<Output>,
}

impl<O: Options> Negotiation<O> {
    /// A negotiation in state Initial.
    pub fn new(options: O, timing: Timing) -> Self {
        Self {
            options,
            state: State::Initial,
            counts: Counts {
                max_configure: timing.max_configure,
                max_terminate: timing.max_terminate,
                max_failure: timing.max_failure,
            },
            shortest: timing.restart,
            restart: timing.restart,
            sent_at: Time::ZERO,
            identifier: 0,
            request: Vec::new(),
            answered: true,
            repeated: false,
            repeated_before: false,
            held: false,
            peer_was_closed: false,
            restarts_left: 0,
            restart_at: None,
            naks_sent: 0,
            refusals_sent: 0,
            refusals_received: 0,
            terminate_text: "",
            outputs: VecDeque::new(),
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.restart_at
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        // Open layers keep no room for it.
        if output.is_none() {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Open and Up: begin to negotiate.
    pub fn start(&mut self, now: Time) {
        self.run(Event::Open, None, now);
        self.run(Event::Up, None, now);
    }

    /// As [`Self::start`], but wait for the peer's request (the passive side of RFC 1661 §4.2, state Stopped).
    pub fn start_passively(&mut self) {
        self.state = State::Stopped;
    }

    /// As [`Self::start`], but send no request of our own before [`Self::release`]; the peer's are answered.
    pub fn start_held(&mut self, now: Time) {
        self.held = true;
        self.start(now);
    }

    /// As [`Self::start_passively`], and even after the peer's request no request of our own before
    /// [`Self::release`].
    pub fn start_passively_held(&mut self) {
        self.held = true;
        self.start_passively();
    }

    /// Sends the request that was kept back. Does nothing a second time.
    pub fn release(&mut self, now: Time) {
        if core::mem::take(&mut self.held) && matches!(self.state, State::ReqSent | State::AckSent)
        {
            self.send_request(true, now);
        }
    }

    /// Repeats our request at once if the peer has said by Terminate-Ack that it was not ready for it: pppd with
    /// require-mppe answers IPCP so until CCP is open, and the Restart timer would cost seconds.
    pub fn hurry(&mut self, now: Time) {
        if core::mem::take(&mut self.peer_was_closed)
            && !self.held
            && matches!(self.state, State::ReqSent | State::AckSent)
        {
            self.send_request(false, now);
        }
    }

    /// Close, with a text for the Terminate-Request.
    pub fn close(&mut self, text: &'static str, now: Time) {
        self.terminate_text = text;
        self.run(Event::Close, None, now);
    }

    /// The peer rejected the whole protocol (RFC 1661 §5.7).
    pub fn protocol_rejected(&mut self, now: Time) {
        self.run(Event::RejectFatal, None, now);
    }

    /// The Restart timer.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.restart_at.is_none_or(|at| at > now) {
            return;
        }
        self.restart_at = None;
        let event = if self.restarts_left > 0 {
            Event::TimeoutRetry
        } else {
            Event::TimeoutLast
        };
        self.run(event, None, now);
    }

    /// What the Restart timer is set to.
    pub fn restart(&self) -> Duration {
        self.restart
    }

    /// Shortens or lengthens the Restart timer from its next start on.
    pub fn set_restart(&mut self, restart: Duration) {
        self.shortest = restart;
        self.restart = restart;
    }

    /// Begins with a Restart timer that another negotiation on this path has found to suit it.
    pub fn expect(&mut self, restart: Duration) {
        self.restart = restart.max(self.shortest);
    }

    /// Takes a packet of codes 1 to 7; `false` for any other code, which is then up to the protocol. A malformed one
    /// changes nothing.
    pub fn receive(&mut self, packet: &Packet<'_>, now: Time) -> Result<bool, Error> {
        // RFC 1661 §4.1: nothing is received while the lower layer is down.
        if matches!(self.state, State::Initial | State::Starting) {
            return Ok(true);
        }
        match packet.code {
            code::CONFIGURE_REQUEST => self.receive_request(packet, now)?,
            code::CONFIGURE_ACK => self.receive_ack(packet, now),
            code::CONFIGURE_NAK | code::CONFIGURE_REJECT => self.receive_refusal(packet, now)?,
            code::TERMINATE_REQUEST => {
                self.outputs
                    .push_back(Output::PeerTerminated(packet.data.to_vec()));
                self.run(
                    Event::TerminateRequest,
                    Some((code::TERMINATE_ACK, packet.identifier, Vec::new())),
                    now,
                );
            }
            code::TERMINATE_ACK => {
                self.peer_was_closed =
                    matches!(self.state, State::ReqSent | State::AckRcvd | State::AckSent);
                self.run(Event::TerminateAck, None, now);
            }
            code::CODE_REJECT => match packet.data.first() {
                // RFC 1661 §5.6: without these seven there is no negotiation.
                Some(code::CONFIGURE_REQUEST..=code::CODE_REJECT) => {
                    self.run(Event::RejectFatal, None, now);
                }
                Some(_) => self.run(Event::RejectTolerable, None, now),
                None => return Err(Error::Malformed("Code-Reject")),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Answers a packet whose code the protocol does not know.
    pub fn receive_unknown(&mut self, packet: &Packet<'_>, now: Time) {
        self.run(
            Event::UnknownCode,
            Some((
                code::CODE_REJECT,
                self.identifier.wrapping_add(1),
                packet.whole.to_vec(),
            )),
            now,
        );
    }

    /// Answers an Echo-Request with `data`, where the automaton allows it.
    pub fn receive_echo(&mut self, identifier: u8, data: Vec<u8>, now: Time) {
        self.run(Event::Echo, Some((code::ECHO_REPLY, identifier, data)), now);
    }

    fn receive_request(&mut self, packet: &Packet<'_>, now: Time) -> Result<(), Error> {
        let request = OptionList::parse(packet.data)?;
        if packet.data.len() > packet::MAX_DATA {
            return Err(Error::Malformed("length of Configure-Request"));
        }
        if matches!(self.state, State::Closed | State::Closing | State::Stopping) {
            let answer = (code::TERMINATE_ACK, packet.identifier, Vec::new());
            self.run(Event::RequestGood, Some(answer), now);
            return Ok(());
        }
        let (answer, data) = self.judge(request);
        if self.options.has_failed() {
            return Ok(());
        }
        let event = if answer == code::CONFIGURE_ACK {
            self.naks_sent = 0;
            self.refusals_sent = 0;
            self.options.acknowledging(request);
            Event::RequestGood
        } else {
            self.refusals_sent = self.refusals_sent.saturating_add(1);
            if self.refusals_sent > MAX_ROUNDS {
                self.options.diverged();
                return Ok(());
            }
            Event::RequestBad
        };
        self.run(event, Some((answer, packet.identifier, data)), now);
        Ok(())
    }

    /// RFC 1661 §5.3, §5.4: a Reject first and alone, then a Nak, else an Ack.
    fn judge(&mut self, request: OptionList<'_>) -> (u8, Vec<u8>) {
        let mut rejects = OptionBuffer::default();
        let mut naks = OptionBuffer::default();
        // RFC 1661 §4.6, Max-Failure: Naks become Rejects, and nothing is appended any more.
        let patient = self.naks_sent < self.counts.max_failure;
        for option in request.iter() {
            match self.options.judge(option) {
                Judgement::Ack => {}
                Judgement::Nak(data) if patient => naks.push(option.kind, &data),
                Judgement::Nak(_) => {
                    self.options.insisted(Some(option));
                    rejects.copy(option);
                }
                Judgement::Reject => rejects.copy(option),
            }
        }
        if !rejects.is_empty() {
            return (code::CONFIGURE_REJECT, rejects.into_bytes());
        }
        let mut absent = self.options.absent(request).into_bytes();
        if !patient && !absent.is_empty() {
            self.options.insisted(None);
            absent.clear();
        }
        let mut naks = naks.into_bytes();
        naks.append(&mut absent);
        if !naks.is_empty() {
            self.naks_sent = self.naks_sent.saturating_add(1);
            return (code::CONFIGURE_NAK, naks);
        }
        // RFC 1661 §5.2: the options come back as they were.
        let copy = request.iter().flat_map(|option| option.whole);
        (code::CONFIGURE_ACK, copy.copied().collect())
    }

    fn receive_ack(&mut self, packet: &Packet<'_>, now: Time) {
        if matches!(self.state, State::Closed | State::Stopped) {
            self.run(
                Event::Ack,
                Some((code::TERMINATE_ACK, packet.identifier, Vec::new())),
                now,
            );
            return;
        }
        // RFC 1661 §5.2: identifier and options must be those of our last request. An Ack that comes a second time
        // answers a repetition of the request; the table would call that crossed lines and start over, which on a path
        // slower than the Restart timer never ends.
        if !self.is_answer(packet, now) {
            return;
        }
        if packet.data == self.request {
            self.answered = true;
            if self.options.chooses() {
                self.run(Event::Nak, None, now);
                return;
            }
            self.refusals_received = 0;
            self.options.acknowledged();
            if !self.options.has_failed() {
                self.run(Event::Ack, None, now);
            }
        }
    }

    fn receive_refusal(&mut self, packet: &Packet<'_>, now: Time) -> Result<(), Error> {
        if matches!(self.state, State::Closed | State::Stopped) {
            self.run(
                Event::Nak,
                Some((code::TERMINATE_ACK, packet.identifier, Vec::new())),
                now,
            );
            return Ok(());
        }
        let options = OptionList::parse(packet.data)?;
        if !self.is_answer(packet, now) {
            return Ok(());
        }
        if packet.code == code::CONFIGURE_REJECT {
            // RFC 1661 §5.4: a Reject names options of our request; what we never asked for is ignored.
            let request = core::mem::take(&mut self.request);
            let asked = |kind| OptionList::parse(&request).is_ok_and(|list| list.has(kind));
            let mut any = false;
            for option in options.iter().filter(|option| asked(option.kind)) {
                any = true;
                self.options.rejected(option);
            }
            self.request = request;
            if !any {
                return Ok(());
            }
        } else {
            options.iter().for_each(|option| self.options.naked(option));
        }
        self.answered = true;
        self.refusals_received = self.refusals_received.saturating_add(1);
        if self.refusals_received > MAX_ROUNDS {
            self.options.diverged();
        }
        if !self.options.has_failed() {
            self.run(Event::Nak, None, now);
        }
        Ok(())
    }

    /// Whether this answers our last request, and is the first to do so.
    fn is_answer(&mut self, packet: &Packet<'_>, now: Time) -> bool {
        let current = packet.identifier == self.identifier;
        let before = packet.identifier == self.identifier.wrapping_sub(1);
        if current && !self.answered {
            // One request and one answer: this is how long the path takes. (After a repetition nobody knows to which of the
            // two the answer belongs.)
            if !self.repeated {
                let needed = (now.since(self.sent_at) * 2).max(self.shortest);
                self.restart = self.restart.min(needed);
            }
            return true;
        }
        // Two answers to one request: the path is slower than the Restart timer. Repetitions that cross the answers
        // make either side start over (RFC 1661 §4.3), again and again, unless it grows.
        if (current && self.repeated) || (before && self.repeated_before) {
            self.restart = MAX_RESTART.min(self.restart * 2);
        }
        false
    }

    /// One step of the automaton. `answer` (code, identifier, data) is what the sca, scn, sta, scj and ser of this
    /// event send.
    fn run(&mut self, event: Event, answer: Option<(u8, u8, Vec<u8>)>, now: Time) {
        let (actions, next) = fsm::step(self.state, event);
        self.state = next;
        // RFC 1661 §4.1: actions may be done in any convenient order. The layer above must be ready when the peer
        // learns that it may use it, so "up" goes before the acknowledgement.
        if actions.contains(&Act::LayerUp) {
            self.outputs.push_back(Output::Up);
        }
        for action in actions {
            match action {
                Act::LayerUp | Act::LayerStarted => {}
                Act::LayerDown => self.outputs.push_back(Output::Down),
                Act::LayerFinished => self.outputs.push_back(Output::Finished),
                Act::InitializeCounter => {
                    self.restarts_left = if actions.contains(&Act::SendTerminateRequest) {
                        self.counts.max_terminate
                    } else {
                        self.counts.max_configure
                    };
                }
                Act::ZeroCounter => {
                    self.restarts_left = 0;
                    self.restart_at = Some(now + self.restart);
                }
                Act::SendRequest => self.send_request(event != Event::TimeoutRetry, now),
                Act::SendTerminateRequest => self.send_terminate(now),
                Act::SendTerminateAck => {
                    if let Some((_, identifier, _)) = &answer {
                        self.send(code::TERMINATE_ACK, *identifier, &[]);
                    }
                }
                Act::SendAck => {
                    if let Some((_, identifier, data)) = &answer {
                        let frame =
                            packet::frame(O::PROTOCOL, code::CONFIGURE_ACK, *identifier, data);
                        self.outputs.push_back(Output::Ack {
                            identifier: *identifier,
                            frame,
                        });
                    }
                }
                Act::SendNak | Act::SendCodeReject | Act::SendEchoReply => {
                    if let Some((code, identifier, data)) = &answer {
                        self.send(*code, *identifier, data);
                    }
                }
            }
        }
        if !self.state.has_timer() {
            self.restart_at = None;
        }
    }

    fn send(&mut self, code: u8, identifier: u8, data: &[u8]) {
        let frame = packet::frame(O::PROTOCOL, code, identifier, data);
        self.outputs.push_back(Output::Send(frame));
    }

    /// A changed request has a new identifier, a repeated one keeps it (RFC 1661 §5.1): an answer to any of the
    /// repetitions will do.
    fn send_request(&mut self, changed: bool, now: Time) {
        if self.held {
            return;
        }
        if changed {
            self.identifier = self.identifier.wrapping_add(1);
            self.request = self.options.request().into_bytes();
            self.repeated_before = self.repeated;
        }
        self.repeated = !changed;
        self.answered = false;
        self.peer_was_closed = false;
        self.restarts_left = self.restarts_left.saturating_sub(1);
        self.sent_at = now;
        self.restart_at = Some(now + self.restart);
        self.outputs.push_back(Output::Request {
            identifier: self.identifier,
            frame: packet::frame(
                O::PROTOCOL,
                code::CONFIGURE_REQUEST,
                self.identifier,
                &self.request,
            ),
        });
    }

    fn send_terminate(&mut self, now: Time) {
        self.identifier = self.identifier.wrapping_add(1);
        self.answered = true;
        self.restarts_left = self.restarts_left.saturating_sub(1);
        self.restart_at = Some(now + self.restart);
        self.send(
            code::TERMINATE_REQUEST,
            self.identifier,
            self.terminate_text.as_bytes(),
        );
    }
}
