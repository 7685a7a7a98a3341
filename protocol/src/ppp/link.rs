//! One call's PPP: the phases of RFC 1661 §3.2, for both roles.

use core::time::Duration;
use std::collections::VecDeque;

use rand_core::Rng as _;

use super::action::{Action, LinkInfo};
use super::auth::{AuthProtocol, Grant, Limits, Outcome, Verdict};
use super::config::{ClientLink, ServerLink, Timing};
use super::end::{CloseReason, End, PhaseName, farewell};
use super::lcp::{Authentication, Lcp, Notice};
use super::network::{Ncps, Network, Start};
use super::options::Output;
use super::packet::{Packet, code};
use super::random::Random;
use crate::mppe::Direction;
use crate::mschap::MasterKeys;
use crate::wire::ppp::{Frame, Protocol};
use crate::{Error, Role, Time};

mod authentication;
mod timers;

use authentication::Auth;

/// After the peer's Terminate-Request: time in which a repeated one still gets its Terminate-Ack.
const LINGER: Duration = Duration::from_secs(1);

/// What the MRU that we ask for exceeds the MTU by: MPPE's header and the inner protocol field.
const MRU_OVERHEAD: u16 = 4;

/// PPP of one call, either end. Plain data: frames and time go in, [`Action`]s come out of [`Link::poll`], to be
/// carried out in their order; [`Link::deadline`] says when [`Link::handle_timeout`] wants to be called.
#[derive(Clone)]
pub struct Link {
    side: Side,
    random: Random,
    lcp: Lcp,
    phase: Phase,
    actions: VecDeque<Action>,
    set_up_at: Option<Time>,
    /// Of the last Challenge or Authenticate-Request.
    auth_identifier: u8,
    /// Verdicts still to come on Responses to Challenges that a new LCP negotiation has made void.
    void_verdicts: u8,
    name: Option<Vec<u8>>,
    malformed: u64,
}

#[derive(Clone)]
enum Side {
    Server(ServerLink),
    Client(Box<ClientLink>),
}

/// What exists only in a phase lives in it: keys, in the last but two.
#[derive(Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "one per call, moved once per phase"
)]
enum Phase {
    Dead,
    Establish,
    Authenticate(Auth),
    Network { auth: Auth, network: Network },
    Terminate { end: End, linger: Option<Time> },
    Finished,
}

impl Link {
    /// The server's end. `seed` must be unpredictable and used once: challenges come of it.
    pub fn server(config: ServerLink, seed: [u8; 32], _now: Time) -> Self {
        let lcp = Lcp::new(
            Authentication::Demand(AuthProtocol::usable(&config.methods, config.mppe)),
            config.mtu.saturating_add(MRU_OVERHEAD),
            config.timing,
            Random::apart(seed),
        );
        Self::new(Side::Server(config), lcp, seed, None)
    }

    /// The client's end. `seed` as for the server.
    pub fn client(config: ClientLink, seed: [u8; 32], _now: Time) -> Self {
        let lcp = Lcp::new(
            Authentication::Answer(config.usable_methods()),
            config.mtu.saturating_add(MRU_OVERHEAD),
            config.timing,
            Random::apart(seed),
        );
        let name = Some(config.name.clone());
        Self::new(Side::Client(Box::new(config)), lcp, seed, name)
    }

    fn new(side: Side, lcp: Lcp, seed: [u8; 32], name: Option<Vec<u8>>) -> Self {
        let mut random = Random::new(seed);
        let auth_identifier = random.next_u32().to_be_bytes()[0];
        Self {
            side,
            random,
            lcp,
            phase: Phase::Dead,
            actions: VecDeque::new(),
            set_up_at: None,
            auth_identifier,
            void_verdicts: 0,
            name,
            malformed: 0,
        }
    }

    /// GRE is ready both ways: begin with LCP. Does nothing a second time.
    pub fn open(&mut self, now: Time) {
        if matches!(self.phase, Phase::Dead) {
            self.phase = Phase::Establish;
            self.set_up_at = self.timing().set_up.map(|limit| now + limit);
            self.lcp.start(now);
            self.settle(now);
        }
    }

    /// Takes a frame of the peer that was not encrypted, with or without FF 03. Data frames only show that the peer
    /// is alive. Malformed frames are counted and dropped, as are frames that come too early.
    pub fn handle_frame(&mut self, frame: &[u8], now: Time) {
        if matches!(self.phase, Phase::Dead | Phase::Finished) {
            return;
        }
        let outcome = Frame::parse(frame).and_then(|header| {
            self.lcp.note_heard();
            let information = frame.get(header.header_len..).unwrap_or_default();
            self.dispatch(header.protocol, information, now)
        });
        if outcome.is_err() {
            self.malformed += 1;
        }
        self.settle(now);
    }

    /// An LCP Echo-Request for whoever wants to know now whether the peer lives (RFC 1661 §5.8); `None` when LCP is not open.
    /// An answer is heard like any other frame; that there is none ends nothing.
    pub fn probe(&mut self) -> Option<Vec<u8>> {
        self.lcp.probe()
    }

    /// No Echo-Request goes out by the clock before `until`, and none counts as unanswered.
    pub fn postpone_echo(&mut self, until: Time) {
        self.lcp.postpone_echo(until);
    }

    /// Something else of the peer came in on this call: data, or an acknowledgement. The next echo needs no answer.
    pub fn heard(&mut self) {
        self.lcp.note_heard();
    }

    /// The answer to an [`Action::Authenticate`]: one for each, in their order. `false`: nobody waits for it any more,
    /// because LCP was negotiated anew or the link ended, and what it grants is not in use.
    pub fn verdict(&mut self, verdict: Verdict, now: Time) -> bool {
        if let Some(left) = self.void_verdicts.checked_sub(1) {
            self.void_verdicts = left;
            return false;
        }
        let again = matches!(self.phase, Phase::Network { .. });
        let (Phase::Authenticate(auth) | Phase::Network { auth, .. }) = &mut self.phase else {
            return false;
        };
        if !auth.is_judging() {
            return false;
        }
        match verdict {
            Verdict::Accept(grant) if !auth.accept(&grant.proof, now, &mut self.actions) => {
                // A proof of another method is a fault of whoever judges: nobody gets in by it.
                self.terminate(End::Closed(CloseReason::LocalFailure), now);
            }
            // Challenged again in mid-call: addresses and keys stay (RFC 3079 §2).
            Verdict::Accept(_) if again => {}
            Verdict::Accept(grant) => {
                let choice = matches!(&self.side, Side::Server(config) if config.choice);
                let ncps = Ncps::server(&grant, choice);
                let Grant { proof, limits, .. } = grant;
                self.start_network(proof.into_keys(), ncps, limits, now);
            }
            Verdict::Reject {
                code,
                message,
                remedy,
            } => {
                let verdict = (code, message, remedy);
                auth.refuse(verdict, &mut self.random, now, &mut self.actions);
                // Somebody has to type: the set-up limit was not made for that, and begins anew after it.
                let patience = auth.patience();
                let limit = self.timing().set_up.unwrap_or_default();
                if let Some(patience) = patience {
                    self.set_up_at = self.set_up_at.map(|at| at.max(patience + limit));
                }
            }
        }
        self.settle(now);
        true
    }

    /// Server role: answers [`Action::Choose`]. With `granted` the client has that address from now on, instead of the
    /// one that it was granted.
    pub fn chosen(&mut self, granted: bool, now: Time) {
        if let Phase::Network { network, .. } = &mut self.phase {
            // It was read before: it cannot be malformed.
            let _ = network.chosen(granted, now);
        }
        self.settle(now);
    }

    /// Ends the link from our side: Terminate-Request, and [`Action::Finished`] when the peer has acknowledged it or
    /// time is up.
    pub fn close(&mut self, reason: CloseReason, now: Time) {
        self.terminate(End::Closed(reason), now);
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        // Idle links keep no room for it.
        if action.is_none() {
            self.actions = VecDeque::new();
        }
        action
    }

    /// Whether the server has let the client in, and LCP has not been negotiated anew since then: a login that is to be
    /// judged now changes neither addresses nor keys.
    pub const fn is_authenticated(&self) -> bool {
        matches!(self.phase, Phase::Network { .. })
    }

    /// Our magic number, while LCP is open and has one (RFC 1661 §6.4).
    pub fn magic(&self) -> Option<u32> {
        self.lcp
            .receive_terms()
            .magic
            .filter(|_| self.lcp.is_open())
    }

    /// What has been agreed so far.
    pub fn info(&self) -> LinkInfo {
        let network = match &self.phase {
            Phase::Network { network, .. } => Some(network),
            _ => None,
        };
        LinkInfo {
            phase: self.phase_name(),
            lcp_receive: self.lcp.receive_terms(),
            lcp_transmit: self.lcp.transmit_terms(),
            authentication: self
                .lcp
                .is_open()
                .then(|| self.lcp.authentication())
                .flatten(),
            name: self.name.clone(),
            mppe_receive: network.and_then(|network| network.mppe(Direction::Receive)),
            mppe_transmit: network.and_then(|network| network.mppe(Direction::Transmit)),
            terms: network.and_then(Network::up),
            ipv6: network.and_then(Network::up6),
            identification: self.lcp.identification().to_vec(),
            malformed: self.malformed,
        }
    }

    /// Why the link is ending, from the first goodbye of either side until [`Action::Finished`].
    pub fn ending(&self) -> Option<&End> {
        match &self.phase {
            Phase::Terminate { end, .. } => Some(end),
            _ => None,
        }
    }

    fn phase_name(&self) -> PhaseName {
        match &self.phase {
            Phase::Dead | Phase::Finished => PhaseName::Dead,
            Phase::Establish => PhaseName::Establish,
            Phase::Authenticate(_) => PhaseName::Authenticate,
            Phase::Network { network, .. } if network.up().is_some() => PhaseName::Up,
            Phase::Network { .. } => PhaseName::Network,
            Phase::Terminate { .. } => PhaseName::Terminate,
        }
    }

    fn dispatch(&mut self, protocol: Protocol, information: &[u8], now: Time) -> Result<(), Error> {
        match (&mut self.phase, protocol) {
            (Phase::Terminate { .. }, Protocol::LCP) => {
                // RFC 1661 §3.7: everything but the end of the end is discarded.
                let packet = Packet::parse(information)?;
                if matches!(packet.code, code::TERMINATE_REQUEST | code::TERMINATE_ACK) {
                    self.lcp.receive(information, now)?;
                }
                Ok(())
            }
            (Phase::Dead | Phase::Finished | Phase::Terminate { .. }, _) => Ok(()),
            (_, Protocol::LCP) => {
                if let Some(Notice::ProtocolRejected(protocol)) =
                    self.lcp.receive(information, now)?
                {
                    self.protocol_rejected(protocol, now);
                }
                Ok(())
            }
            (Phase::Authenticate(_) | Phase::Network { .. }, Protocol::CHAP | Protocol::PAP) => {
                self.receive_authentication(protocol, information, now)
            }
            (Phase::Network { auth, network }, _) if network.speaks(protocol) => {
                auth.note_progress();
                network.receive(protocol, information, now)
            }
            (phase, _) => {
                // An NCP that comes before the verdict is known to us only: a Protocol-Reject would make the peer give
                // it up for good, silence makes it try again. IP and MPPE are the worker's business.
                let network = matches!(phase, Phase::Network { .. });
                let early = (is_ncp(protocol) || protocol.is_data()) && !network;
                let late = matches!(protocol, Protocol::CHAP | Protocol::PAP);
                let data = matches!(
                    protocol,
                    Protocol::IPV4 | Protocol::IPV6 | Protocol::COMPRESSED
                );
                if !early && !late && !data {
                    self.actions.extend(
                        self.lcp
                            .protocol_reject(protocol, information)
                            .map(Action::Send),
                    );
                }
                Ok(())
            }
        }
    }

    fn receive_authentication(
        &mut self,
        protocol: Protocol,
        information: &[u8],
        now: Time,
    ) -> Result<(), Error> {
        let packet = Packet::parse(information)?;
        let (Phase::Authenticate(auth) | Phase::Network { auth, .. }) = &mut self.phase else {
            return Ok(());
        };
        let outcome = auth.receive(protocol, &packet, &mut self.random, now, &mut self.actions)?;
        if let Some(name) = auth.name() {
            self.name = Some(name.to_vec());
        }
        match outcome {
            Some(Outcome::Accepted(keys)) => {
                if let Side::Client(config) = &self.side {
                    let ncps = Ncps::client(config);
                    self.start_network(keys, ncps, Limits::default(), now);
                }
            }
            Some(Outcome::Ended(end)) => self.terminate(end, now),
            None => {}
        }
        Ok(())
    }

    fn protocol_rejected(&mut self, protocol: Protocol, now: Time) {
        match &mut self.phase {
            Phase::Network { network, .. } => network.protocol_rejected(protocol, now),
            Phase::Authenticate(auth) if auth.protocol() == Some(protocol) => {
                self.terminate(End::AuthenticationRefused { suggested: None }, now);
            }
            _ => {}
        }
    }

    /// Does what the automata want, from the lowest layer up.
    fn settle(&mut self, now: Time) {
        let mut opened = false;
        while let Some(output) = self.lcp.poll(now) {
            match output {
                Output::Request { frame, .. } | Output::Ack { frame, .. } | Output::Send(frame) => {
                    self.actions.push_back(Action::Send(frame));
                }
                // The next phase begins when our Configure-Ack is on its way.
                Output::Up => opened = true,
                Output::Down => {
                    opened = false;
                    self.lcp_down(now);
                }
                Output::Finished => self.lcp_finished(),
                Output::PeerTerminated(text) => self.peer_terminated(&text, now),
            }
        }
        if let Some(end) = self.lcp.take_end() {
            self.terminate(end, now);
            return;
        }
        if opened && matches!(self.phase, Phase::Establish) {
            self.authenticate(now);
        }
        if let Phase::Network { network, .. } = &mut self.phase {
            let end = network.settle(now, &mut self.actions);
            if network.up().is_some() {
                self.set_up_at = None;
            }
            if let Some(end) = end {
                self.terminate(end, now);
            }
        }
    }

    fn authenticate(&mut self, now: Time) {
        let method = self.lcp.authentication();
        let auth = match (&self.side, method) {
            (Side::Server(config), Some(method)) => {
                self.auth_identifier = self.auth_identifier.wrapping_add(1);
                let identifier = self.auth_identifier;
                let (random, actions) = (&mut self.random, &mut self.actions);
                Auth::server(method, config, identifier, random, now, actions)
            }
            // LCP does not open without what a server demands.
            (Side::Server(_), None) => None,
            (Side::Client(config), Some(method)) => {
                let identifier = self.auth_identifier.wrapping_add(1);
                Auth::client(method, config, identifier, now, &mut self.actions)
            }
            (Side::Client(_), None) => Some(Auth::None),
        };
        let Some(auth) = auth else {
            self.terminate(End::AuthenticationRefused { suggested: None }, now);
            return;
        };
        self.phase = Phase::Authenticate(auth);
        if let (Side::Client(config), None) = (&self.side, method) {
            let ncps = Ncps::client(config);
            self.start_network(None, ncps, Limits::default(), now);
        }
    }

    fn start_network(&mut self, keys: Option<MasterKeys>, ncps: Ncps, limits: Limits, now: Time) {
        let (role, mut policy, mut allowed, mtu) = match &self.side {
            Side::Server(config) => (Role::Server, config.mppe, config.mppe_allowed, config.mtu),
            Side::Client(config) => (Role::Client, config.mppe, config.mppe_allowed, config.mtu),
        };
        if let Some((own, strengths)) = limits.mppe {
            policy = own;
            allowed.strengths = strengths;
        }
        let start = Start {
            role,
            policy,
            allowed,
            keys,
            ncps,
            mtu: limits.mtu.map_or(mtu, |own| own.min(mtu)),
            transmit: self.lcp.transmit_terms(),
            timing: self.timing(),
            restart: self.lcp.restart(),
        };
        match Network::start(start, now) {
            Ok(network) => {
                if let Phase::Authenticate(auth) =
                    core::mem::replace(&mut self.phase, Phase::Establish)
                {
                    self.phase = Phase::Network { auth, network };
                }
            }
            Err(end) => self.terminate(end, now),
        }
    }

    /// The peer negotiates LCP anew: all above it starts over, authentication and keys included.
    fn lcp_down(&mut self, now: Time) {
        let (Phase::Authenticate(auth) | Phase::Network { auth, .. }) = &self.phase else {
            return;
        };
        let judging = auth.is_judging();
        // What answers an old Challenge must not look like an answer to the next one.
        if let Some(identifier) = auth.identifier() {
            self.auth_identifier = identifier;
        }
        self.void_verdicts = self.void_verdicts.saturating_add(u8::from(judging));
        self.hold();
        self.phase = Phase::Establish;
        // A call that never was up keeps the limit it has: starting over must not buy time.
        if self.set_up_at.is_none() {
            self.set_up_at = self.timing().set_up.map(|limit| now + limit);
        }
    }

    fn lcp_finished(&mut self) {
        if !matches!(self.phase, Phase::Terminate { .. }) {
            self.hold();
            self.phase = Phase::Terminate {
                end: End::NoAnswer {
                    heard: self.lcp.heard_ever(),
                },
                linger: None,
            };
        }
        self.finish();
    }

    fn peer_terminated(&mut self, text: &[u8], now: Time) {
        if matches!(self.phase, Phase::Terminate { .. } | Phase::Finished) {
            return;
        }
        self.hold();
        self.set_up_at = None;
        // A client that shows "wrong password" hangs up by itself: that is no other end than ours.
        let end = match &self.phase {
            Phase::Authenticate(auth) | Phase::Network { auth, .. } => auth.refusal().cloned(),
            _ => None,
        };
        self.phase = Phase::Terminate {
            end: end.unwrap_or_else(|| End::PeerTerminated {
                text: farewell(text),
            }),
            linger: Some(now + LINGER),
        };
    }

    fn terminate(&mut self, end: End, now: Time) {
        if matches!(self.phase, Phase::Terminate { .. } | Phase::Finished) {
            return;
        }
        self.hold();
        self.set_up_at = None;
        let text = end.text();
        let dead = matches!(self.phase, Phase::Dead);
        self.phase = Phase::Terminate { end, linger: None };
        if dead {
            self.finish();
        } else {
            self.lcp.close(text, now);
            self.settle(now);
            // Where LCP had already ended there is no Terminate-Ack to wait for.
            if self.lcp.deadline().is_none() {
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        if let Phase::Terminate { .. } = &self.phase
            && let Phase::Terminate { end, .. } =
                core::mem::replace(&mut self.phase, Phase::Finished)
        {
            self.set_up_at = None;
            self.actions.push_back(Action::Finished(end));
        }
    }

    fn hold(&mut self) {
        if let Phase::Network { network, .. } = &self.phase {
            let ipv4 = network.up().map(|_| Action::Hold);
            let ipv6 = network.up6().map(|_| Action::Hold6);
            self.actions.extend(ipv4.into_iter().chain(ipv6));
        }
    }

    fn timing(&self) -> Timing {
        match &self.side {
            Side::Server(config) => config.timing,
            Side::Client(config) => config.timing,
        }
    }
}

/// Network control protocols (RFC 1661 §2).
fn is_ncp(protocol: Protocol) -> bool {
    (0x8000..0xc000).contains(&protocol.0)
}
