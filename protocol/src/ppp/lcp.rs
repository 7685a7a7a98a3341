//! The Link Control Protocol (RFC 1661 §5 and §6, RFC 1570).

use core::time::Duration;

use rand_core::Rng as _;

use super::action::LcpTerms;
use super::auth::AuthProtocol;
use super::config::Timing;
use super::end::{End, printable};
use super::fsm::State;
use super::options::{Judgement, Negotiation, Options, Output};
use super::packet::{self, ConfigOption, OptionBuffer, OptionList, Packet, code};
use super::random::Random;
use crate::wire::ppp::Protocol;
use crate::{Error, Time};

mod kind {
    pub(super) const MRU: u8 = 1;
    pub(super) const ACCM: u8 = 2;
    pub(super) const AUTHENTICATION: u8 = 3;
    pub(super) const MAGIC: u8 = 5;
    pub(super) const COMPRESS_PROTOCOL: u8 = 7;
    pub(super) const COMPRESS_ADDRESS: u8 = 8;
}

/// The smallest MRU of a peer that we acknowledge, in octets: every IPv4 host must take 576 (RFC 791 §3.1).
const MIN_MRU: u16 = 576;

/// We can always receive this many octets of information, whatever was agreed (RFC 1661 §6.1).
const MAX_MRU: u16 = 1500;

/// How many Configure-Requests go out at the pace of a peer that may not be ready yet.
const FIRST_REQUESTS: u8 = 4;

/// How often our own magic number may come back before the link counts as looped.
const MAX_LOOPS: u8 = 4;

/// How many Identification texts of a peer are kept.
const MAX_IDENTIFICATIONS: usize = 4;

/// What the two sides of LCP ask for.
#[derive(Clone, Debug)]
pub struct LcpOptions {
    /// Methods that we demand of the peer, best first; a client demands none.
    demand: Vec<AuthProtocol>,
    /// Those of them that the peer has refused.
    refused: Vec<AuthProtocol>,
    /// The one of them for our next request.
    method: Option<AuthProtocol>,
    /// The one that is in our last request.
    asked_method: Option<AuthProtocol>,
    /// `method` is what a Nak to that request suggested.
    taken_up: bool,
    /// Methods that we answer by when the peer demands one, best first; a server answers by none.
    answers: Vec<AuthProtocol>,
    /// What we ask for; after the acknowledgement what holds for frames that we receive.
    asked: LcpTerms,
    ask_mru: bool,
    receive: LcpTerms,
    transmit: LcpTerms,
    /// What the peer demands and we agreed to.
    peer_demand: Option<AuthProtocol>,
    loops: u8,
    random: Random,
    end: Option<End>,
}

impl LcpOptions {
    fn new_magic(&mut self) -> u32 {
        // RFC 1661 §6.4: zero is illegal.
        self.random.next_u32().max(1)
    }

    fn looped(&mut self) {
        self.loops = self.loops.saturating_add(1);
        if self.loops > MAX_LOOPS {
            self.end = Some(End::LoopedBack);
        }
    }

    /// The peer refuses what we demand. Its suggestion if we allow it, else the next of ours; what it has refused is
    /// never demanded again. A Nak may hold several suggestions (RFC 1661 §5.3), and the first that fits counts.
    fn refused_demand(&mut self, suggested: Option<AuthProtocol>) {
        let Some(asked) = self.asked_method else {
            return;
        };
        if self.taken_up {
            return;
        }
        // A Nak that names the very method: taken at its word, and asked again.
        if suggested == Some(asked) {
            self.taken_up = true;
            return;
        }
        if !self.refused.contains(&asked) {
            self.refused.push(asked);
        }
        let wanted = suggested
            .filter(|method| self.demand.contains(method) && !self.refused.contains(method));
        self.taken_up = wanted.is_some();
        self.method = wanted.or_else(|| self.first_open());
        match (self.method, &self.end) {
            (None, None) => self.end = Some(End::AuthenticationRefused { suggested }),
            (Some(_), Some(End::AuthenticationRefused { .. })) => self.end = None,
            _ => {}
        }
    }

    fn first_open(&self) -> Option<AuthProtocol> {
        let mut open = self
            .demand
            .iter()
            .filter(|method| !self.refused.contains(method));
        open.next().copied()
    }
}

impl Options for LcpOptions {
    const PROTOCOL: Protocol = Protocol::LCP;

    fn request(&mut self) -> OptionBuffer {
        let mut request = OptionBuffer::default();
        if self.ask_mru {
            request.push(kind::MRU, &self.asked.mru.to_be_bytes());
        }
        self.asked_method = self.method;
        self.taken_up = false;
        if let Some(method) = self.method {
            request.push(kind::AUTHENTICATION, method.option_data());
        }
        if let Some(magic) = self.asked.magic {
            request.push(kind::MAGIC, &magic.to_be_bytes());
        }
        if self.asked.compress_protocol {
            request.push(kind::COMPRESS_PROTOCOL, &[]);
        }
        if self.asked.compress_address {
            request.push(kind::COMPRESS_ADDRESS, &[]);
        }
        request
    }

    fn judge(&mut self, option: ConfigOption<'_>) -> Judgement {
        match (option.kind, option.data) {
            (kind::MRU, &[high, low]) if u16::from_be_bytes([high, low]) < MIN_MRU => {
                Judgement::Nak(MIN_MRU.to_be_bytes().to_vec())
            }
            (kind::MRU, [_, _]) => Judgement::Ack,
            // ACCM means nothing without escaping; pppd and Apple send 0 and want it acknowledged.
            (kind::ACCM, [_, _, _, _]) => Judgement::Ack,
            (kind::AUTHENTICATION, data) if let Some(best) = self.answers.first() => {
                let fits = AuthProtocol::parse(data).is_some_and(|own| self.answers.contains(&own));
                if fits {
                    Judgement::Ack
                } else {
                    Judgement::Nak(best.option_data().to_vec())
                }
            }
            (kind::MAGIC, &[a, b, c, d]) => {
                let magic = u32::from_be_bytes([a, b, c, d]);
                if self.asked.magic == Some(magic) {
                    self.looped();
                    Judgement::Nak(self.new_magic().to_be_bytes().to_vec())
                } else if magic == 0 {
                    Judgement::Nak(self.new_magic().to_be_bytes().to_vec())
                } else {
                    Judgement::Ack
                }
            }
            (kind::COMPRESS_PROTOCOL | kind::COMPRESS_ADDRESS, []) => Judgement::Ack,
            // Among them 13, Callback: a Windows client whose Callback was acknowledged waits for CBCP after
            // authentication and never reaches IPCP. And 17 to 19, multilink.
            _ => Judgement::Reject,
        }
    }

    fn insisted(&mut self, option: Option<ConfigOption<'_>>) {
        if let Some(option) = option
            && option.kind == kind::AUTHENTICATION
        {
            self.end = Some(End::AuthenticationRefused {
                suggested: AuthProtocol::parse(option.data),
            });
        }
    }

    fn acknowledging(&mut self, request: OptionList<'_>) {
        self.transmit = LcpTerms::default();
        self.peer_demand = None;
        for option in request.iter() {
            match option.kind {
                kind::MRU => self.transmit.mru = option.u16().unwrap_or(self.transmit.mru),
                kind::ACCM => self.transmit.accm = option.u32(),
                kind::AUTHENTICATION => self.peer_demand = AuthProtocol::parse(option.data),
                kind::MAGIC => self.transmit.magic = option.u32(),
                kind::COMPRESS_PROTOCOL => self.transmit.compress_protocol = true,
                kind::COMPRESS_ADDRESS => self.transmit.compress_address = true,
                _ => {}
            }
        }
    }

    fn acknowledged(&mut self) {
        self.receive = self.asked;
        self.loops = 0;
    }

    fn naked(&mut self, option: ConfigOption<'_>) {
        match option.kind {
            kind::MRU => match option.u16() {
                // Windows 2000 answers an MRU with a Nak of the very same value; dropping the option is what it wants.
                Some(mru) if mru != self.asked.mru && (MIN_MRU..=MAX_MRU).contains(&mru) => {
                    self.asked.mru = mru;
                }
                _ => self.rejected(option),
            },
            kind::MAGIC => {
                // RFC 1661 §6.4: a Nak of our magic number is what a loop answers.
                self.looped();
                if self.asked.magic.is_some() {
                    self.asked.magic = Some(self.new_magic());
                }
            }
            kind::AUTHENTICATION if !self.demand.is_empty() => {
                self.refused_demand(AuthProtocol::parse(option.data));
            }
            // Test gear and some routers answer booleans with Nak: they mean Reject.
            kind::COMPRESS_PROTOCOL | kind::COMPRESS_ADDRESS => self.rejected(option),
            // RFC 1661 §5.3: a Nak may name options that we did not ask for; we don't want them.
            _ => {}
        }
    }

    fn rejected(&mut self, option: ConfigOption<'_>) {
        match option.kind {
            kind::MRU => {
                self.ask_mru = false;
                self.asked.mru = LcpTerms::default().mru;
            }
            // Our own request that comes back on a looped line has an option that we reject: this one.
            kind::AUTHENTICATION if self.loops > 0 => self.looped(),
            kind::AUTHENTICATION => self.end = Some(End::AuthenticationRefused { suggested: None }),
            kind::MAGIC => self.asked.magic = None,
            kind::COMPRESS_PROTOCOL => self.asked.compress_protocol = false,
            kind::COMPRESS_ADDRESS => self.asked.compress_address = false,
            _ => {}
        }
    }

    fn diverged(&mut self) {
        self.end = Some(End::LcpFailed("the two sides go round in circles"));
    }

    fn has_failed(&self) -> bool {
        self.end.is_some()
    }
}

/// Whose authentication LCP negotiates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authentication {
    /// The server's part: the peer must use one of these methods, best first.
    Demand(Vec<AuthProtocol>),
    /// The client's: we answer by these when the peer demands it, best first.
    Answer(Vec<AuthProtocol>),
}

/// What LCP tells the link besides its [`Output`]s.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The peer does not speak this protocol (RFC 1661 §5.7).
    ProtocolRejected(Protocol),
}

/// What the Echo timer wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Due {
    /// It was not due.
    Nothing,
    /// Send this Echo-Request.
    Echo(Vec<u8>),
    /// The peer is gone.
    Silent(End),
}

/// LCP of one call.
#[derive(Clone, Debug)]
pub struct Lcp {
    negotiation: Negotiation<LcpOptions>,
    timing: Timing,
    /// Something of the peer came since the last echo.
    heard: bool,
    heard_ever: bool,
    /// Those left of [`FIRST_REQUESTS`].
    first_requests: u8,
    unanswered: u8,
    echo_at: Option<Time>,
    echo_identifier: u8,
    reject_identifier: u8,
    identification: Vec<String>,
}

impl Lcp {
    /// LCP in state Initial. `mru`: what we ask for, in octets.
    pub fn new(authentication: Authentication, mru: u16, timing: Timing, random: Random) -> Self {
        let (demand, answers, end) = match authentication {
            // Nobody is let in unauthenticated because there is no method.
            Authentication::Demand(methods) if methods.is_empty() => {
                let end = End::AuthenticationRefused { suggested: None };
                (methods, Vec::new(), Some(end))
            }
            Authentication::Demand(methods) => (methods, Vec::new(), None),
            Authentication::Answer(methods) => (Vec::new(), methods, None),
        };
        let mut options = LcpOptions {
            method: demand.first().copied(),
            demand,
            refused: Vec::new(),
            asked_method: None,
            taken_up: false,
            answers,
            asked: LcpTerms {
                mru,
                magic: None,
                compress_protocol: true,
                compress_address: true,
                accm: None,
            },
            ask_mru: true,
            receive: LcpTerms::default(),
            transmit: LcpTerms::default(),
            peer_demand: None,
            loops: 0,
            random,
            end,
        };
        options.asked.magic = Some(options.new_magic());
        // The first ones are extra: silence is believed no sooner because of them.
        let patient = Timing {
            restart: timing.first_restart,
            max_configure: timing.max_configure.saturating_add(FIRST_REQUESTS - 1),
            ..timing
        };
        let negotiation = Negotiation::new(options, patient);
        Self {
            negotiation,
            timing,
            heard: false,
            heard_ever: false,
            first_requests: FIRST_REQUESTS,
            unanswered: 0,
            echo_at: None,
            echo_identifier: 0,
            reject_identifier: 0,
            identification: Vec::new(),
        }
    }

    /// Begins to negotiate.
    pub fn start(&mut self, now: Time) {
        self.negotiation.start(now);
    }

    /// Ends it, with a text for the peer.
    pub fn close(&mut self, text: &'static str, now: Time) {
        self.negotiation.close(text, now);
    }

    /// The next thing to do.
    pub fn poll(&mut self, now: Time) -> Option<Output> {
        let output = self.negotiation.poll()?;
        match output {
            Output::Up => {
                self.unanswered = 0;
                self.heard = true;
                self.echo_at = self.timing.echo_interval.map(|interval| now + interval);
            }
            Output::Down | Output::Finished => self.echo_at = None,
            _ => {}
        }
        Some(output)
    }

    /// Why LCP cannot go on, if so.
    pub fn take_end(&mut self) -> Option<End> {
        self.negotiation.options.end.take()
    }

    /// The Restart timer that suits the path.
    pub fn restart(&self) -> Duration {
        self.negotiation.restart()
    }

    /// Whether LCP is open.
    pub fn is_open(&self) -> bool {
        self.negotiation.state() == State::Opened
    }

    /// Options for frames that we receive.
    pub fn receive_terms(&self) -> LcpTerms {
        self.negotiation.options.receive
    }

    /// Options for frames that we send.
    pub fn transmit_terms(&self) -> LcpTerms {
        self.negotiation.options.transmit
    }

    /// How the client authenticates itself: what we demand, or what the peer demands of us.
    pub fn authentication(&self) -> Option<AuthProtocol> {
        let options = &self.negotiation.options;
        options.asked_method.or(options.peer_demand)
    }

    /// Identification texts of the peer.
    pub fn identification(&self) -> &[String] {
        &self.identification
    }

    /// Whether anything of the peer ever came.
    pub fn heard_ever(&self) -> bool {
        self.heard_ever
    }

    /// Notes that something of the peer came: it is alive, and it is ready.
    pub fn note_heard(&mut self) {
        self.heard = true;
        if !self.heard_ever {
            self.heard_ever = true;
            self.negotiation.set_restart(self.timing.restart);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        [self.negotiation.deadline(), self.echo_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Restart and Echo timers.
    pub fn handle_timeout(&mut self, now: Time) -> Due {
        if !self.heard_ever && self.negotiation.deadline().is_some_and(|at| at <= now) {
            self.first_requests = self.first_requests.saturating_sub(1);
            if self.first_requests == 1 {
                self.negotiation.set_restart(self.timing.restart);
            }
        }
        self.negotiation.handle_timeout(now);
        if self.echo_at.is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        self.echo_at = self.timing.echo_interval.map(|interval| now + interval);
        // Whatever came counts: on a busy link echoes may be the first to be lost.
        self.unanswered = if core::mem::take(&mut self.heard) {
            0
        } else {
            self.unanswered.saturating_add(1)
        };
        if self.unanswered >= self.timing.echo_failures.max(1) {
            return Due::Silent(End::EchoFailure {
                unanswered: self.unanswered,
            });
        }
        Due::Echo(self.echo_request())
    }

    /// An Echo-Request beside those that come by the clock, when LCP is open: its answer counts as a sign of life, and that
    /// none comes counts for nothing.
    pub fn probe(&mut self) -> Option<Vec<u8>> {
        self.is_open().then(|| self.echo_request())
    }

    /// The next Echo-Request by the clock is not sent before `until`.
    pub fn postpone_echo(&mut self, until: Time) {
        self.echo_at = self.echo_at.map(|at| at.max(until));
    }

    fn echo_request(&mut self) -> Vec<u8> {
        self.echo_identifier = self.echo_identifier.wrapping_add(1);
        let magic = self.receive_terms().magic.unwrap_or(0).to_be_bytes();
        packet::frame(
            Protocol::LCP,
            code::ECHO_REQUEST,
            self.echo_identifier,
            &magic,
        )
    }

    /// Takes the information field of an LCP frame.
    pub fn receive(&mut self, information: &[u8], now: Time) -> Result<Option<Notice>, Error> {
        let packet = Packet::parse(information)?;
        if self.negotiation.receive(&packet, now)? {
            // RFC 1661 §5.6: without these codes there is no LCP.
            if packet.code == code::CODE_REJECT
                && matches!(
                    packet.data.first(),
                    Some(code::CONFIGURE_REQUEST..=code::CODE_REJECT)
                )
            {
                self.negotiation.options.end =
                    Some(End::LcpFailed("the peer rejects codes of LCP"));
            }
            return Ok(None);
        }
        match packet.code {
            code::PROTOCOL_REJECT => {
                // RFC 1661 §5.7: counts in state Opened only.
                let protocol = match *packet.data {
                    [high, low, ..] => Protocol(u16::from_be_bytes([high, low])),
                    _ => return Err(Error::Malformed("Protocol-Reject")),
                };
                if self.is_open() {
                    if protocol == Protocol::LCP {
                        self.negotiation.protocol_rejected(now);
                        self.negotiation.options.end = Some(End::LcpFailed("the peer rejects LCP"));
                    }
                    return Ok(Some(Notice::ProtocolRejected(protocol)));
                }
            }
            code::ECHO_REQUEST => self.receive_echo_request(&packet, now)?,
            code::ECHO_REPLY => {
                if self.is_our_magic(&packet) {
                    self.negotiation.options.looped();
                }
            }
            code::IDENTIFICATION => self.receive_identification(&packet),
            code::DISCARD_REQUEST | code::TIME_REMAINING => {}
            _ => self.negotiation.receive_unknown(&packet, now),
        }
        Ok(None)
    }

    fn receive_echo_request(&mut self, packet: &Packet<'_>, now: Time) -> Result<(), Error> {
        let rest = packet
            .data
            .get(4..)
            .ok_or(Error::Malformed("Echo-Request"))?;
        if self.is_our_magic(packet) {
            self.negotiation.options.looped();
            return Ok(());
        }
        // RFC 1661 §5.8: our own magic number in front, the rest as it came.
        let mut data = self
            .receive_terms()
            .magic
            .unwrap_or(0)
            .to_be_bytes()
            .to_vec();
        data.extend_from_slice(rest);
        self.negotiation.receive_echo(packet.identifier, data, now);
        Ok(())
    }

    fn is_our_magic(&self, packet: &Packet<'_>) -> bool {
        self.is_open()
            && self
                .receive_terms()
                .magic
                .is_some_and(|magic| packet.data.starts_with(&magic.to_be_bytes()))
    }

    fn receive_identification(&mut self, packet: &Packet<'_>) {
        let text = printable(packet.data.get(4..).unwrap_or_default());
        if self.identification.len() < MAX_IDENTIFICATIONS && !self.identification.contains(&text) {
            self.identification.push(text);
        }
    }

    /// A Protocol-Reject of a frame's information field, when LCP is open (RFC 1661 §5.7).
    pub fn protocol_reject(&mut self, protocol: Protocol, information: &[u8]) -> Option<Vec<u8>> {
        if !self.is_open() {
            return None;
        }
        self.reject_identifier = self.reject_identifier.wrapping_add(1);
        let mut data = protocol.0.to_be_bytes().to_vec();
        data.extend_from_slice(&information[..information.len().min(packet::MAX_DATA)]);
        Some(packet::frame(
            Protocol::LCP,
            code::PROTOCOL_REJECT,
            self.reject_identifier,
            &data,
        ))
    }
}
