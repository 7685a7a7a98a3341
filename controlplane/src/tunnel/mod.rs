//! One control connection and its calls, without I/O.
//!
//! A [`Tunnel`] owns a [`pptp::Server`] and a [`ppp::Link`](turnpike_protocol::ppp::Link) per call. Octets of the TCP
//! connection, events of the workers, verdicts on logins and the time come in; [`Action`]s come out of
//! [`Tunnel::poll`], and the order in which they come is what makes the whole correct:
//!
//! - a call is opened at its worker before the Outgoing-Call-Reply that lets the client send,
//! - keys are loaded before the Configure-Request or Configure-Ack that lets them be used,
//! - the route stands everywhere and the terms at the owner before our IPCP Configure-Ack,
//! - at the end routes go first, then the call; only when the worker has said [`Event::Closed`] does
//!   [`Action::Ended`] set the id and the address free.

mod action;
mod call;
mod ipv6;
mod refusal;
mod snapshot;
#[cfg(test)]
mod tests;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use turnpike_dataplane::api::{CallRef, Command, Event};
use turnpike_protocol::mppe::{Allowed, Policy};
use turnpike_protocol::ppp::Grant;
use turnpike_protocol::pptp::{
    self, CallResult, ClearCause, DisconnectResult, End, GeneralError, ServerAction, ServerConfig,
    StartResult, StopReason, Text,
};
use turnpike_protocol::{CallId, Time};

use crate::aaa::Login;
use crate::cause::Cause;
use crate::dhcp6::Dhcp6;
use crate::inform::Inform;

pub use action::{Action, Ended, Notice};
use call::Call;
pub use refusal::Refusal;
pub use snapshot::{Snapshot, Stage};

/// How long a client that may have crashed has to answer: what is left of it, if anything, is a busy path.
const PATIENCE: Duration = Duration::from_secs(10);

/// When it is asked inside its calls, too, having said nothing on the control connection.
const ASK_IN_CALLS: Duration = Duration::from_secs(5);

/// What all tunnels of a server have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Our host name, in Start-Control-Connection-Reply and in CHAP Challenges.
    pub name: String,
    /// The largest inner packet that we send into a call, in octets; smaller when the client's MRU asks for it.
    pub mtu: u16,
    /// Whether calls are encrypted.
    pub mppe: Policy,
    /// How clients log in.
    pub login: Login,
    /// Key lengths and modes that clients may have.
    pub mppe_allowed: Allowed,
    /// How long a control connection may be without a call that comes up, and a call without its network phase.
    pub setup_time: Duration,
    /// Silence after which the control connection and PPP ask for an echo.
    pub echo_interval: Duration,
    /// Calls that one control connection may hold at once.
    pub calls: u16,
    /// What clients are told that ask by DHCP inside their call; `None`: nobody answers.
    pub inform: Option<Arc<Inform>>,
    /// The same by DHCPv6.
    pub dhcp6: Option<Arc<Dhcp6>>,
}

/// What a call needs before it can be accepted.
pub struct Placement {
    /// The call, with the id that was leased for it.
    pub call: CallRef,
    /// The next hop of its GRE on the access port.
    pub via: Ipv4Addr,
    /// Randomness for magic numbers, challenges and identifiers; different for every call.
    pub seed: [u8; 32],
}

/// One control connection and its calls.
pub struct Tunnel {
    settings: Arc<Settings>,
    local: Ipv4Addr,
    peer: Ipv4Addr,
    control: pptp::Server,
    /// We asked the client to stop, for this reason.
    stopping: Option<Cause>,
    /// Nothing is sent or read on the control connection any more.
    over: bool,
    /// The client has been asked for a sign of life, and none has come yet.
    doubted: bool,
    /// When it is asked in its calls.
    ask_at: Option<Time>,
    calls: Vec<Call>,
    actions: VecDeque<Action>,
}

impl Tunnel {
    /// A control connection that `peer` has just opened to `local`.
    pub fn new(
        settings: impl Into<Arc<Settings>>,
        local: Ipv4Addr,
        peer: Ipv4Addr,
        now: Time,
    ) -> Self {
        Self::with(settings.into(), local, peer, None, now)
    }

    /// The same for a client that there is no room for: it is told so in Start-Control-Connection-Reply.
    pub fn refusing(
        settings: impl Into<Arc<Settings>>,
        local: Ipv4Addr,
        peer: Ipv4Addr,
        now: Time,
    ) -> Self {
        let refuse = (StartResult::GENERAL_ERROR, GeneralError::NO_RESOURCE);
        Self::with(settings.into(), local, peer, Some(refuse), now)
    }

    fn with(
        settings: Arc<Settings>,
        local: Ipv4Addr,
        peer: Ipv4Addr,
        refuse: Option<(StartResult, GeneralError)>,
        now: Time,
    ) -> Self {
        let config = ServerConfig {
            host_name: Text::from(settings.name.as_str()),
            max_calls: settings.calls,
            setup_time: settings.setup_time,
            echo_interval: settings.echo_interval,
            refuse,
            ..ServerConfig::default()
        };
        Self {
            settings,
            local,
            peer,
            control: pptp::Server::new(config, now),
            stopping: None,
            over: false,
            doubted: false,
            ask_at: None,
            calls: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Our address and the client's.
    pub fn ends(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.local, self.peer)
    }

    /// Octets came on the control connection, cut in any way.
    pub fn receive(&mut self, octets: &[u8], now: Time) {
        if !self.over {
            (self.doubted, self.ask_at) = (false, None);
            // An error has queued the end of the connection, which says what was wrong.
            let _ = self.control.receive(octets, now);
            self.pump(now);
        }
    }

    /// The control connection was closed or reset by the client or by the network.
    pub fn hung_up(&mut self, now: Time) {
        // Many clients just close TCP when their call is over: nothing is lost then.
        let cause = if self.calls.iter().any(Call::is_live) {
            Cause::ConnectionLost
        } else {
            Cause::HungUp
        };
        self.over(self.stopping.unwrap_or(cause), now);
    }

    /// A worker reported something. Events of calls that are none of ours are ignored.
    pub fn event(&mut self, event: Event, now: Time) {
        match event {
            Event::Frame { call, frame } => {
                if let Some(call) = self.find(call) {
                    call.frame(&frame, now);
                    if core::mem::take(&mut self.doubted) {
                        self.ask_at = None;
                        self.control.trust(now);
                    }
                }
            }
            Event::Closed { call, counters } => {
                if let Some(index) = self.position(call) {
                    let call = self.calls.swap_remove(index);
                    self.actions.extend(call.ended(counters).map(Action::Ended));
                }
            }
            Event::Bound { call, source } => {
                if self.find(call).is_some_and(|call| call.is_live()) {
                    self.actions.push_back(Action::Bound { call, source });
                }
            }
            Event::Inner { call, packet } => {
                let Self {
                    calls,
                    actions,
                    settings,
                    ..
                } = self;
                let asked = calls.iter_mut().find(|other| other.name() == Some(call));
                match (asked, &settings.inform) {
                    (Some(call), _) if packet.first().is_some_and(|octet| octet >> 4 == 6) => {
                        call.inner6(&packet, settings.dhcp6.as_deref(), now, actions);
                    }
                    (Some(call), Some(inform)) => call.inner(&packet, inform, actions),
                    _ => {}
                }
            }
            Event::Garbled { call } => {
                if let Some(call) = self.find(call) {
                    call.close(Cause::Garbled, now);
                }
            }
            Event::Counters { call, counters } => {
                if let Some(call) = self.find(call) {
                    call.counted(&counters);
                }
            }
            Event::Lost { .. } => {}
        }
        self.pump(now);
    }

    /// The answer to [`Action::Place`]: a place, or why there is none.
    pub fn placed(&mut self, peer_id: CallId, placement: Result<Placement, Cause>, now: Time) {
        let waiting = self
            .calls
            .iter()
            .position(|call| call.is_placing() && call.peer_id() == peer_id);
        match (waiting, placement) {
            (Some(index), Ok(placement)) => {
                let id = placement.call.id;
                self.calls[index].place(placement, &self.settings, now, &mut self.actions);
                self.control.connect(peer_id, id);
                // The reply goes out before the first LCP frame, though nothing depends on it.
                self.pump_control(now);
                if let Some(call) = self.calls.get_mut(index) {
                    call.start(now);
                }
            }
            (Some(index), Err(cause)) => {
                self.calls.swap_remove(index);
                self.refuse(peer_id, cause, now);
            }
            // Cleared while a place was looked for: what was leased goes back.
            (None, Ok(placement)) => {
                let ended = Ended {
                    call: placement.call,
                    cause: Cause::HungUp,
                    counters: Default::default(),
                    user: None,
                    address: None,
                    ipv6: None,
                    up: None,
                };
                self.actions.push_back(Action::Ended(ended));
            }
            (None, Err(_)) => {}
        }
        self.pump(now);
    }

    /// The answer to [`Action::Authenticate`]. A refusal says which cause the call ends with. `false`: nobody waits for it
    /// any more, and an address and prefixes that were taken for it are free.
    pub fn verdict(&mut self, call: CallRef, verdict: Result<Grant, Refusal>, now: Time) -> bool {
        let taken = self.position(call).is_some_and(|index| {
            let Self { calls, actions, .. } = self;
            calls[index].verdict(verdict, now, actions)
        });
        self.pump(now);
        taken
    }

    /// Answers [`Action::Choose`]: the client has this address instead of the one that it held; `None`: it stays with
    /// that.
    pub fn chosen(&mut self, call: CallRef, address: Option<Ipv4Addr>, now: Time) {
        if let Some(call) = self.find(call) {
            call.chosen(address, now);
        }
        self.pump(now);
    }

    /// Asks the call's worker what it has counted; [`Event::Counters`] answers.
    pub fn query(&mut self, call: CallRef) {
        if self.find(call).is_some_and(|call| call.is_live()) {
            self.actions
                .push_back(Action::data(Command::Query { call }));
        }
    }

    /// Ends one call for a reason of ours, politely: PPP says goodbye first.
    pub fn kill(&mut self, call: CallRef, cause: Cause, now: Time) {
        if let Some(call) = self.find(call) {
            call.close(cause, now);
        }
        self.pump(now);
    }

    /// Ends a call whose user has logged in again. It is told as with [`Tunnel::kill`], but not waited for: who redials
    /// has often crashed.
    pub fn replace(&mut self, call: CallRef, now: Time) {
        if let Some(index) = self.position(call) {
            self.calls[index].close(Cause::Replaced, now);
            self.pump(now);
        }
        // It may have been over at once.
        if let Some(index) = self.position(call) {
            self.end(index, Cause::Replaced, true, now);
        }
        self.pump(now);
    }

    /// Somebody has logged in from the same address, by another control connection, with a call that has the client's id of
    /// one of ours: either there are several clients, or this one has crashed and dials again. It is asked on the control
    /// connection at once, where a machine that has forgotten it answers with a reset. Who says nothing there may still be
    /// alive, with TCP that has stalled, and is asked in its calls, too; not before, since that question reaches a client that
    /// has crashed in its new call, with a number that is none of that call's.
    pub fn doubt(&mut self, now: Time) {
        if self.over || self.doubted || !self.calls.iter().any(Call::is_live) {
            return;
        }
        self.doubted = true;
        self.ask_at = Some(now + ASK_IN_CALLS);
        self.control.prove(PATIENCE, now);
        self.pump(now);
    }

    /// Somebody dials from the same address, by another control connection, and has given its call the client's id of one of
    /// ours. If this client has crashed and dials again, what goes out for its old call reaches the new one, under numbers
    /// that make the new one's own come late. So calls that are up say nothing of themselves for a moment, until the new login
    /// has shown what to ask ([`Tunnel::doubt`]).
    pub fn hush(&mut self, now: Time) {
        for call in &mut self.calls {
            call.hush(now);
        }
    }

    /// Ends everything: every call gets a PPP Terminate-Request and a Call-Disconnect-Notify, the client a
    /// Stop-Control-Connection-Request. [`Action::Close`] comes when it answers, or after five seconds.
    pub fn shut_down(&mut self, cause: Cause, now: Time) {
        for call in &mut self.calls {
            call.close(cause, now);
        }
        self.pump(now);
        let mut index = self.calls.len();
        while index > 0 {
            index -= 1;
            self.end(index, cause, true, now);
        }
        if !self.over {
            self.stopping.get_or_insert(cause);
            self.control.stop(StopReason::LOCAL_SHUTDOWN, now);
        }
        self.pump(now);
    }

    /// Routes changed, or the address where the call's GRE comes from: it goes by `via` from now on.
    pub fn reroute(&mut self, call: CallRef, via: Ipv4Addr) {
        if let Some(index) = self.position(call) {
            self.calls[index].reroute(via, &mut self.actions);
        }
    }

    /// When [`Tunnel::handle_timeout`] wants to be called next.
    pub fn deadline(&self) -> Option<Time> {
        let control = (!self.over).then(|| self.control.deadline()).flatten();
        let calls = self.calls.iter().filter_map(Call::deadline);
        let ask_at = self.ask_at.filter(|_| !self.over);
        calls.chain(control).chain(ask_at).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if !self.over {
            self.control.handle_timeout(now);
        }
        let asks = self.ask_at.is_some_and(|at| at <= now);
        if asks {
            self.ask_at = None;
        }
        for call in &mut self.calls {
            if asks {
                call.probe(&mut self.actions);
            }
            call.handle_timeout(now);
        }
        self.pump(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        // Idle tunnels keep no room for what set-ups have to do.
        if action.is_none() {
            self.actions = VecDeque::new();
        }
        action
    }

    /// Whether there is something to do.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Whether the control connection is over and every call has been forgotten by its worker.
    pub fn is_finished(&self) -> bool {
        self.over && self.calls.is_empty() && self.actions.is_empty()
    }

    /// The calls that have been placed and are not over.
    pub fn snapshots(&self) -> impl Iterator<Item = Snapshot> + '_ {
        self.calls.iter().filter_map(Call::snapshot)
    }

    fn position(&self, call: CallRef) -> Option<usize> {
        self.calls
            .iter()
            .position(|other| other.name() == Some(call))
    }

    fn find(&mut self, call: CallRef) -> Option<&mut Call> {
        let index = self.position(call)?;
        self.calls.get_mut(index)
    }

    /// Turns what the cores have to say into actions, until they are silent.
    fn pump(&mut self, now: Time) {
        loop {
            self.pump_control(now);
            let mut over = None;
            for (index, call) in self.calls.iter_mut().enumerate() {
                let cause = call.pump(now, &mut self.actions);
                if let Some(id) = call.take_up() {
                    self.control.up(id);
                }
                if let Some(cause) = cause {
                    over = Some((index, cause));
                    break;
                }
            }
            let Some((index, cause)) = over else { break };
            self.end(index, cause, true, now);
        }
    }

    fn pump_control(&mut self, now: Time) {
        while let Some(action) = self.control.poll() {
            match action {
                ServerAction::Send(octets) => {
                    if !self.over {
                        self.actions.push_back(Action::Tcp(octets));
                    }
                }
                ServerAction::Started(peer) => self.notice(Notice::Started(peer)),
                ServerAction::Call(call) => {
                    self.calls.reserve_exact(1);
                    self.calls.push(Call::new(call.peer_id, call.our_window));
                    let peer_id = call.peer_id;
                    self.actions.push_back(Action::Place { peer_id });
                }
                ServerAction::Withdrawn { peer_id } => self
                    .calls
                    .retain(|call| !(call.is_placing() && call.peer_id() == peer_id)),
                ServerAction::Cleared {
                    id,
                    by: ClearCause::Request,
                } => {
                    let index = self
                        .calls
                        .iter()
                        .position(|call| call.name().is_some_and(|name| name.id == id));
                    if let Some(index) = index {
                        self.end(index, Cause::HungUp, false, now);
                    }
                }
                // What follows says why the connection is over, and with it every call.
                ServerAction::Cleared {
                    by: ClearCause::Connection,
                    ..
                } => {}
                // RFC 2637 §2.15: character maps mean nothing inside GRE; the others are for PACs with real lines.
                ServerAction::LinkInfo { .. }
                | ServerAction::WanError { .. }
                | ServerAction::Ignored { .. } => {}
                ServerAction::Finished(end) => {
                    let cause = self.stopping.unwrap_or(cause_of(end));
                    self.over(cause, now);
                }
            }
        }
    }

    fn refuse(&mut self, peer_id: CallId, cause: Cause, now: Time) {
        let disconnect = cause.disconnect();
        let refusal = match disconnect.result {
            // RFC 2637 §2.8 and §2.13 share this result and its error codes.
            2 => pptp::Refusal {
                result: CallResult::GENERAL_ERROR,
                error: GeneralError(disconnect.error),
            },
            _ => pptp::Refusal::DO_NOT_ACCEPT,
        };
        self.control.refuse(peer_id, refusal, now);
        self.notice(Notice::Refused { peer_id, cause });
    }

    /// Ends a call; `tell` sends the client a Call-Disconnect-Notify. The first cause that was given stands.
    fn end(&mut self, index: usize, cause: Cause, tell: bool, now: Time) {
        let Some(call) = self.calls.get_mut(index) else {
            return;
        };
        let Some(name) = call.name() else {
            // Never placed: nothing is held for it, and its place goes back when it comes.
            self.calls.swap_remove(index);
            return;
        };
        if let Some(cause) = call.end(cause, now, &mut self.actions)
            && tell
            && !self.over
        {
            let said = cause.disconnect();
            let result = DisconnectResult(said.result);
            self.control
                .disconnect(name.id, result, GeneralError(said.error), now);
        }
    }

    /// The control connection is gone, or will be in a moment: calls end without a word on it.
    fn over(&mut self, cause: Cause, now: Time) {
        if self.over {
            return;
        }
        self.over = true;
        self.notice(Notice::Over(cause));
        let mut index = self.calls.len();
        while index > 0 {
            index -= 1;
            self.end(index, cause, false, now);
        }
        self.actions.push_back(Action::Close);
    }

    fn notice(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notice(notice));
    }
}

/// The cause that calls end with when their control connection is over.
fn cause_of(end: End) -> Cause {
    match end {
        End::Stopped(_) => Cause::HungUp,
        End::StopAnswered | End::StopUnanswered => Cause::ServerStopping,
        End::NotStarted | End::NoCall => Cause::SetupTimeout,
        End::EchoUnanswered => Cause::Silent,
        End::RefusedByUs(..) => Cause::TooManyConnections,
        End::RefusedByPeer(..) | End::FramingLost(_) => Cause::ControlMisbehaved,
    }
}
