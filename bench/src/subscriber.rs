//! One dialling client without I/O: the control connection, the calls in it, and PPP in each call.
//!
//! Octets of TCP, [`Event`]s of the worker and points in time go in; [`Action`]s come out. The order of actions is
//! part of their meaning: a call is opened at the worker before PPP says its first word, keys are loaded before the
//! frame they belong to, a route stands before the acknowledgement that lets the server use it.

mod cause;
mod unusual;

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use ipnet::Ipv6Net;
use turnpike_dataplane::api::{
    CallCounters, CallRef, Command, Encryption, Event, Forward, Forward6, FrameBytes,
};
use turnpike_protocol::ppp::packet::is_echo_request;
use turnpike_protocol::ppp::{self, ClientLink, CloseReason, Ipv6Terms, Link, LinkInfo, Terms};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig, End, PeerInfo, StopReason};
use turnpike_protocol::{CallId, Error, Time};

pub use cause::Cause;

/// What a [`Subscriber`] is made of.
pub struct SubscriberConfig {
    /// The control connection.
    pub caller: CallerConfig,
    /// PPP of every call.
    pub link: ClientLink,
    /// Our outer address.
    pub local: Ipv4Addr,
    /// The server's.
    pub server: Ipv4Addr,
    /// Next hop of GRE packets on the access port.
    pub via: Ipv4Addr,
}

/// What the owner has to do, in this order.
#[allow(
    clippy::large_enum_variant,
    reason = "commands hold their frames inline; actions are consumed at once"
)]
pub enum Action {
    /// Send these octets on the control connection.
    Tcp(Vec<u8>),
    /// Give this to the worker.
    Command(Command),
    /// The server answered.
    Started(PeerInfo),
    /// Data may flow; again when the terms change.
    Up {
        /// The id that we chose.
        id: CallId,
        /// Addresses and sizes.
        terms: Terms,
        /// Everything agreed.
        info: Box<LinkInfo>,
    },
    /// IPv6 may flow; again when the terms change.
    Up6 {
        /// The id that we chose.
        id: CallId,
        /// Identifiers and sizes.
        terms: Ipv6Terms,
    },
    /// Data stopped; the call may come back up.
    Held {
        /// The id that we chose.
        id: CallId,
    },
    /// A call is over and the worker has forgotten it. Comes once for every call.
    Ended {
        /// The id that we chose.
        id: CallId,
        /// Why.
        cause: Cause,
        /// What it moved; zero when it never got as far as the worker.
        counters: CallCounters,
    },
    /// The control connection is over: close TCP after what has been said.
    Finished(End),
}

/// How far a call has come. There is no way back.
enum Stage {
    /// The server has not answered yet.
    Asked,
    /// The worker knows the call; PPP runs.
    Open(Box<Link>),
    /// The worker has been told to forget it.
    Closing(Cause),
    /// Reported.
    Ended,
}

struct Call {
    id: CallId,
    stage: Stage,
    seed: [u8; 32],
    /// What stands at the worker.
    routed: Option<Ipv4Addr>,
    /// All of IPv6 leads into the call.
    routed6: bool,
    /// GRE packets of the server, as the worker counted them last.
    gre_received: u64,
    /// The control connection still knows it.
    connected: bool,
    /// We were asked to hang up.
    closing: bool,
    /// When PPP is over, it is left to the server to say so on the control connection.
    left_to_server: bool,
}

/// One control connection of a client and its calls.
pub struct Subscriber {
    config: SubscriberConfig,
    caller: Caller,
    calls: Vec<Call>,
    actions: VecDeque<Action>,
    /// TCP is gone without a goodbye.
    lost: bool,
}

impl Subscriber {
    /// A connection to the server that came up at `now`, to carry `calls`: ids that we chose (unique among all
    /// connections between the two addresses), each with the seed of its PPP randomness.
    pub fn new(
        config: SubscriberConfig,
        calls: impl IntoIterator<Item = (CallId, [u8; 32])>,
        now: Time,
    ) -> Self {
        let mut caller = Caller::new(config.caller.clone(), now);
        let calls = calls
            .into_iter()
            .filter(|(id, _)| caller.call(*id, now))
            .map(|(id, seed)| Call {
                id,
                stage: Stage::Asked,
                seed,
                routed: None,
                routed6: false,
                gre_received: 0,
                connected: false,
                closing: false,
                left_to_server: false,
            })
            .collect();
        let mut subscriber = Self {
            config,
            caller,
            calls,
            actions: VecDeque::new(),
            lost: false,
        };
        subscriber.pump(now);
        subscriber
    }

    /// Octets of the control connection, as they came. After an error TCP must be closed.
    pub fn receive(&mut self, octets: &[u8], now: Time) -> Result<(), Error> {
        let result = self.caller.receive(octets, now);
        self.pump(now);
        result
    }

    /// The control connection was closed or reset by the other side.
    pub fn connection_lost(&mut self, now: Time) {
        self.lost = true;
        for at in 0..self.calls.len() {
            self.calls[at].connected = false;
            self.close(at, Cause::Connection);
        }
        self.pump(now);
    }

    /// Something from the worker. False when it is about no call of this connection.
    pub fn event(&mut self, event: &Event, now: Time) -> bool {
        let call = match event {
            Event::Frame { call, .. }
            | Event::Counters { call, .. }
            | Event::Garbled { call }
            | Event::Closed { call, .. } => *call,
            Event::Inner { .. } | Event::Bound { .. } | Event::Lost { .. } => return false,
        };
        let Some(at) = self.position(call.id) else {
            return false;
        };
        match event {
            Event::Frame { frame, .. } => {
                if let Stage::Open(link) = &mut self.calls[at].stage {
                    link.handle_frame(frame, now);
                }
            }
            Event::Closed { counters, .. } => {
                let id = self.calls[at].id;
                let stage = core::mem::replace(&mut self.calls[at].stage, Stage::Ended);
                if let Stage::Closing(cause) = stage {
                    self.actions.push_back(Action::Ended {
                        id,
                        cause,
                        counters: *counters,
                    });
                }
            }
            // What else has come counts as an answer to an echo.
            Event::Counters { counters, .. } => {
                let call = &mut self.calls[at];
                let before = core::mem::replace(&mut call.gre_received, counters.gre_received);
                if let Stage::Open(link) = &mut call.stage
                    && counters.gre_received > before
                {
                    link.heard();
                }
            }
            Event::Inner { .. }
            | Event::Garbled { .. }
            | Event::Bound { .. }
            | Event::Lost { .. } => {}
        }
        self.pump(now);
        true
    }

    /// The earliest time at which [`Subscriber::handle_timeout`] wants to be called.
    pub fn deadline(&self) -> Option<Time> {
        self.calls
            .iter()
            .filter_map(|call| match &call.stage {
                Stage::Open(link) => link.deadline(),
                Stage::Asked | Stage::Closing(_) | Stage::Ended => None,
            })
            .chain(self.caller.deadline().filter(|_| !self.lost))
            .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if !self.lost {
            self.caller.handle_timeout(now);
        }
        for call in &mut self.calls {
            if let Stage::Open(link) = &mut call.stage
                && link.deadline().is_some_and(|deadline| deadline <= now)
            {
                link.handle_timeout(now);
            }
        }
        self.pump(now);
    }

    /// Ends one call properly: LCP Terminate, then Call-Clear-Request. False when there is no such call any more.
    pub fn clear(&mut self, id: CallId, now: Time) -> bool {
        let Some(at) = self.position(id) else {
            return false;
        };
        self.begin_closing(at, now);
        self.pump(now);
        true
    }

    /// Ends everything properly: LCP Terminate and Call-Clear-Request for every call, then
    /// Stop-Control-Connection-Request.
    pub fn hang_up(&mut self, now: Time) {
        for at in 0..self.calls.len() {
            self.begin_closing(at, now);
        }
        self.pump(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether every call has been reported and the control connection is over.
    pub fn is_finished(&self) -> bool {
        (self.lost || self.caller.is_finished())
            && self
                .calls
                .iter()
                .all(|call| matches!(call.stage, Stage::Ended))
    }

    /// What a call has agreed so far; `None` before PPP began and after it ended.
    pub fn info(&self, id: CallId) -> Option<LinkInfo> {
        match &self.calls[self.position(id)?].stage {
            Stage::Open(link) => Some(link.info()),
            Stage::Asked | Stage::Closing(_) | Stage::Ended => None,
        }
    }

    /// The name of a call at the worker.
    pub fn call_ref(&self, id: CallId) -> CallRef {
        CallRef {
            local: self.config.local,
            peer: self.config.server,
            id,
        }
    }

    fn position(&self, id: CallId) -> Option<usize> {
        self.calls
            .iter()
            .position(|call| call.id == id && !matches!(call.stage, Stage::Ended))
    }

    fn begin_closing(&mut self, at: usize, now: Time) {
        let call = &mut self.calls[at];
        call.closing = true;
        match &mut call.stage {
            Stage::Asked => {
                let id = call.id;
                self.caller.clear(id, now);
            }
            Stage::Open(link) => link.close(CloseReason::UserRequest, now),
            Stage::Closing(_) | Stage::Ended => {}
        }
    }

    /// Moves everything that waits inside to the queue of actions.
    fn pump(&mut self, now: Time) {
        loop {
            let before = self.actions.len();
            while let Some(action) = self.caller.poll() {
                self.control(action, now);
            }
            for at in 0..self.calls.len() {
                self.pump_link(at, now);
            }
            let idle = self
                .calls
                .iter()
                .all(|call| !call.connected && !matches!(call.stage, Stage::Asked));
            if idle && !self.lost {
                // Nothing left to hold the connection for. Asked again, it does nothing. What it has to say leaves
                // at once: the end of the last call may have been all that happened.
                self.caller.stop(StopReason::NONE, now);
                while let Some(action) = self.caller.poll() {
                    self.control(action, now);
                }
            }
            if self.actions.len() == before {
                return;
            }
        }
    }

    fn control(&mut self, action: CallerAction, now: Time) {
        match action {
            CallerAction::Send(_) if self.lost => {}
            CallerAction::Send(octets) => self.actions.push_back(Action::Tcp(octets)),
            CallerAction::Started(peer) => self.actions.push_back(Action::Started(peer)),
            CallerAction::Connected { id, peer_id, .. } => {
                let call_ref = self.call_ref(id);
                let Some(at) = self.position(id) else {
                    return;
                };
                let call = &mut self.calls[at];
                call.connected = true;
                self.actions.push_back(Action::Command(Command::Open {
                    call: call_ref,
                    peer_id,
                    via: self.config.via,
                    window: self.config.caller.window,
                }));
                let mut link = Link::client(self.config.link.clone(), call.seed, now);
                link.open(now);
                call.stage = Stage::Open(Box::new(link));
            }
            CallerAction::Refused { id, result, error } => {
                self.over(id, Cause::Refused(result, error));
            }
            CallerAction::Disconnected { id, result } => {
                let hung_up = self.position(id).is_some_and(|at| self.calls[at].closing);
                self.over(
                    id,
                    match result {
                        _ if hung_up => Cause::HungUp,
                        Some((result, error)) => Cause::Disconnected(result, error),
                        None => Cause::Connection,
                    },
                );
            }
            // Nothing in them matters to a client that has no line.
            CallerAction::WanError { .. } | CallerAction::Ignored { .. } => {}
            CallerAction::Finished(end) => self.actions.push_back(Action::Finished(end)),
        }
    }

    /// The control connection has forgotten the call.
    fn over(&mut self, id: CallId, cause: Cause) {
        if let Some(at) = self.calls.iter().position(|call| call.id == id) {
            self.calls[at].connected = false;
            self.close(at, cause);
        }
    }

    fn pump_link(&mut self, at: usize, now: Time) {
        loop {
            let call = &mut self.calls[at];
            let Stage::Open(link) = &mut call.stage else {
                return;
            };
            let Some(action) = link.poll() else {
                return;
            };
            let id = call.id;
            let name = CallRef {
                local: self.config.local,
                peer: self.config.server,
                id,
            };
            match action {
                ppp::Action::Send(frame) => {
                    // A link never makes a frame beyond the MRU.
                    if let Some(frame) = FrameBytes::new(&frame) {
                        if is_echo_request(&frame) {
                            self.command(Command::Query { call: name });
                        }
                        self.command(Command::Send { call: name, frame });
                    }
                }
                ppp::Action::Load {
                    direction,
                    identifier,
                    key,
                    mode,
                } => self.command(Command::Secure {
                    call: name,
                    direction,
                    identifier,
                    key,
                    mode,
                }),
                ppp::Action::Up(terms) => {
                    let info = Box::new(link.info());
                    self.up(at, name, terms, info);
                }
                ppp::Action::Hold => {
                    self.command(Command::Hold { call: name });
                    self.actions.push_back(Action::Held { id });
                }
                ppp::Action::Finished(end) => {
                    let cause = if call.closing {
                        Cause::HungUp
                    } else {
                        Cause::Link(end)
                    };
                    self.close(at, cause);
                    if self.calls[at].connected && !self.calls[at].left_to_server {
                        self.caller.clear(id, now);
                    }
                }
                ppp::Action::Up6(terms) => self.up6(at, name, terms),
                ppp::Action::Hold6 => self.command(Command::Hold6 { call: name }),
                // A client judges nobody.
                ppp::Action::Authenticate(_) | ppp::Action::Choose(_) => {}
            }
        }
    }

    fn up(&mut self, at: usize, name: CallRef, terms: Terms, info: Box<LinkInfo>) {
        let id = name.id;
        let before = self.calls[at].routed;
        if before != Some(terms.address) {
            if let Some(old) = before {
                self.command(Command::Unroute { prefix: old.into() });
            }
            self.calls[at].routed = Some(terms.address);
            self.command(Command::Route {
                prefix: terms.address.into(),
                call: name,
            });
        }
        self.command(Command::Forward {
            call: name,
            forward: Forward {
                address: terms.address,
                compress_address: terms.compress_address,
                compress_protocol: terms.compress_protocol,
                mtu: terms.mtu,
                encryption: match terms.encryption {
                    ppp::Encryption::Plain => Encryption::Plain,
                    ppp::Encryption::Required => Encryption::Required,
                },
            },
        });
        self.actions.push_back(Action::Up { id, terms, info });
    }

    /// The prefix is not known before the server's router tells Linux, which makes an address of it: all sources go into
    /// the call, and all destinations may come out. So only one call at a time can have IPv6.
    fn up6(&mut self, at: usize, name: CallRef, terms: Ipv6Terms) {
        if !core::mem::replace(&mut self.calls[at].routed6, true) {
            self.command(Command::Route6 {
                prefix: Ipv6Net::default(),
                call: name,
            });
        }
        self.command(Command::Forward6 {
            call: name,
            forward: Forward6 {
                prefixes: [Some(Ipv6Net::default()), None],
                identifier: terms.ours,
                compress_address: terms.compress_address,
                compress_protocol: terms.compress_protocol,
                mtu: terms.mtu,
                encryption: match terms.encryption {
                    ppp::Encryption::Plain => Encryption::Plain,
                    ppp::Encryption::Required => Encryption::Required,
                },
            },
        });
        self.actions.push_back(Action::Up6 { id: name.id, terms });
    }

    /// Takes a call away from the worker, or reports it at once when the worker never knew it.
    fn close(&mut self, at: usize, cause: Cause) {
        let call = &mut self.calls[at];
        let id = call.id;
        match &call.stage {
            Stage::Asked => {
                call.stage = Stage::Ended;
                self.actions.push_back(Action::Ended {
                    id,
                    cause,
                    counters: CallCounters::default(),
                });
            }
            Stage::Open(_) => {
                call.stage = Stage::Closing(cause);
                let routed = call.routed.take();
                let routed6 = core::mem::take(&mut call.routed6);
                if let Some(address) = routed {
                    self.command(Command::Unroute {
                        prefix: address.into(),
                    });
                }
                if routed6 {
                    self.command(Command::Unroute6 {
                        prefix: Ipv6Net::default(),
                    });
                }
                let call = self.call_ref(id);
                self.command(Command::Close { call });
            }
            Stage::Closing(_) | Stage::Ended => {}
        }
    }

    fn command(&mut self, command: Command) {
        self.actions.push_back(Action::Command(command));
    }
}
