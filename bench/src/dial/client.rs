//! The client between TCP, the worker and Linux: [`Subscriber`]s in the middle, and what is known of every call.

mod ask;
mod outcome;
mod reports;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Instant;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use turnpike_dataplane::api::{CallCounters, Command, Event, Port};
use turnpike_dataplane::ports::Ports;
use turnpike_dataplane::rings::{ControlEnd, Full};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{ClientLink, LinkInfo, Terms, Timing};
use turnpike_protocol::pptp::{CallerConfig, Text};
use turnpike_protocol::wire::ipv6::link_local;
use turnpike_protocol::{CallId, Time};

use super::Dial;
use super::inform::{self, Told};
use super::linux::{self, Linux};
use super::report::{Line, OverLine, Printer, UpLine};
use crate::subscriber::{Action, Cause, Subscriber, SubscriberConfig};
use crate::tcp::{self, Heard};

/// How long TCP may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// From a task to the loop.
pub(super) enum Message {
    Connected(usize, io::Result<TcpStream>),
    Heard(usize, Heard),
    /// To be sent inside the call with this id.
    Ask(u16, Vec<u8>),
    /// What the server told about the network behind the call with this id.
    Told(u16, anyhow::Result<Told>),
}

/// A control connection.
pub(super) struct Connection {
    ids: Vec<CallId>,
    subscriber: Option<Subscriber>,
    writer: Option<tcp::Writer>,
    begun: Time,
    deadline: Option<Time>,
}

/// What is known of a call.
struct Call {
    connection: usize,
    address: Option<Ipv4Addr>,
    came_up: bool,
    over: Option<(String, Option<u32>, bool)>,
    counters: CallCounters,
}

pub(super) struct Client<'a> {
    options: &'a Dial,
    server: Ipv4Addr,
    secret: Password,
    host_name: Text<64>,
    origin: Instant,
    pub(super) printer: Printer,
    pub(super) connections: Vec<Connection>,
    calls: BTreeMap<u16, Call>,
    pub(super) control: ControlEnd,
    /// Commands that found the ring full, in order.
    pub(super) waiting: VecDeque<Command>,
    deadlines: BTreeSet<(Time, usize)>,
    messages: UnboundedSender<Message>,
    linux: Linux,
    pub(super) ports: Ports,
    locals: Vec<Ipv4Addr>,
    via: Option<Ipv4Addr>,
    routed: bool,
    pub(super) progress: ProgressBar,
    pub(super) hanging_up: bool,
}

impl<'a> Client<'a> {
    /// Nobody has dialled yet; every call has its place in a connection. Messages of its tasks come back by
    /// `messages`, to be given to [`Client::message`].
    #[allow(
        clippy::too_many_arguments,
        reason = "each is made elsewhere, and there is one caller"
    )]
    pub(super) fn new(
        options: &'a Dial,
        server: Ipv4Addr,
        password: &str,
        origin: Instant,
        control: ControlEnd,
        ports: Ports,
        progress: ProgressBar,
        messages: UnboundedSender<Message>,
    ) -> Result<Self, linux::Error> {
        let mut client = Self {
            options,
            server,
            secret: Password::new(password),
            host_name: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map(|name| Text::from(name.trim()))
                .unwrap_or_default(),
            origin,
            printer: Printer { json: options.json },
            connections: Vec::new(),
            calls: BTreeMap::new(),
            control,
            waiting: VecDeque::new(),
            deadlines: BTreeSet::new(),
            messages,
            linux: Linux::new(&ports)?,
            ports,
            locals: Vec::new(),
            via: None,
            routed: false,
            progress,
            hanging_up: false,
        };
        client.plan();
        Ok(client)
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// Deals the calls to connections. Ids begin at 0, which is legal and what Windows does.
    fn plan(&mut self) {
        let ids: Vec<CallId> = (0..self.options.calls).map(CallId).collect();
        for ids in ids.chunks(self.options.per_connection().into()) {
            for id in ids {
                self.calls.insert(
                    id.0,
                    Call {
                        connection: self.connections.len(),
                        address: None,
                        came_up: false,
                        over: None,
                        counters: CallCounters::default(),
                    },
                );
            }
            self.connections.push(Connection {
                ids: ids.to_vec(),
                subscriber: None,
                writer: None,
                begun: Time::ZERO,
                deadline: None,
            });
        }
    }

    pub(super) fn connect(&mut self, at: usize) {
        self.connections[at].begun = self.now();
        let messages = self.messages.clone();
        let server = SocketAddrV4::new(self.server, self.options.port);
        let connecting = tcp::connect(None, server, CONNECT_LIMIT);
        tokio::spawn(async move {
            // The loop outlives its tasks, or nobody cares.
            let _ = messages.send(Message::Connected(at, connecting.await));
        });
    }

    pub(super) fn message(&mut self, message: Message) {
        let now = self.now();
        match message {
            Message::Connected(at, Ok(stream)) => {
                if let Err(error) = self.begin(at, stream, now) {
                    self.fail(at, &format!("cannot begin: {error:#}"), None);
                }
            }
            Message::Connected(at, Err(error)) => {
                // Windows' code for a server that cannot be reached at all.
                self.fail(
                    at,
                    &format!("cannot connect to the server: {error}"),
                    Some(800),
                );
            }
            Message::Heard(at, Heard::Octets(octets)) => {
                if let Some(subscriber) = &mut self.connections[at].subscriber
                    && subscriber.receive(&octets, now).is_err()
                {
                    self.connections[at].writer = None;
                }
                self.pump(at);
            }
            Message::Ask(id, packet) => self.ask(id, &packet),
            Message::Told(id, told) => self.told(id, told),
            Message::Heard(at, Heard::Gone) => {
                self.connections[at].writer = None;
                if let Some(subscriber) = &mut self.connections[at].subscriber
                    && !subscriber.is_finished()
                {
                    subscriber.connection_lost(now);
                }
                self.pump(at);
            }
        }
    }

    /// The control connection stands.
    fn begin(&mut self, at: usize, stream: TcpStream, now: Time) -> anyhow::Result<()> {
        let local = match stream.local_addr()? {
            core::net::SocketAddr::V4(local) => *local.ip(),
            core::net::SocketAddr::V6(_) => anyhow::bail!("the server was reached by IPv6"),
        };
        let local = self.options.gre_source.unwrap_or(local);
        if !self.locals.contains(&local) {
            self.ports.local_add(local)?;
            self.locals.push(local);
        }
        if self.via.is_none() {
            let via =
                linux::next_hop(self.server, &self.options.interface)?.with_context(|| {
                    format!(
                        "no route to {} through {}",
                        self.server, self.options.interface
                    )
                })?;
            self.via = Some(via);
            self.neighbour();
            if let Some(device) = self.ports.index(Port::Access) {
                self.linux.keep_way(self.server, device, via)?;
            }
        }
        let messages = self.messages.clone();
        let hear = move |heard| messages.send(Message::Heard(at, heard)).is_ok();
        let writer = tcp::attach(stream, hear)?;
        let link = ClientLink {
            mppe: self.options.policy(),
            mppe_allowed: self.options.allowed(),
            timing: Timing {
                echo_interval: Some(self.options.echo_interval),
                ..Timing::default()
            },
            mtu: self.options.mtu,
            methods: self
                .options
                .auth
                .iter()
                .map(|auth| (*auth).into())
                .collect(),
            new_password: self.options.new_password.as_deref().map(Password::new),
            ipv6: self
                .options
                .ipv6
                .then(|| linux::identifier(self.ports.host_peer_mac())),
            ..ClientLink::new(self.options.user.as_bytes(), self.secret.clone())
        };
        let config = SubscriberConfig {
            caller: CallerConfig {
                host_name: self.host_name,
                ..CallerConfig::default()
            },
            link,
            local,
            server: self.server,
            via: self.via.unwrap_or(self.server),
        };
        let mut calls = Vec::new();
        for id in &self.connections[at].ids {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)
                .map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
            calls.push((*id, seed));
        }
        let mut subscriber = Subscriber::new(config, calls, now);
        if self.hanging_up {
            subscriber.hang_up(now);
        }
        self.connections[at].subscriber = Some(subscriber);
        self.connections[at].writer = Some(writer);
        self.pump(at);
        Ok(())
    }

    /// No call of this connection will come up.
    fn fail(&mut self, at: usize, reason: &str, error: Option<u32>) {
        for id in self.connections[at].ids.clone() {
            self.over(
                id,
                reason.to_owned(),
                error,
                self.hanging_up,
                CallCounters::default(),
            );
        }
    }

    /// Tells the worker who the next hop is on the link.
    pub(super) fn neighbour(&mut self) {
        let Some(via) = self.via else {
            return;
        };
        match linux::neighbour(via, &self.options.interface) {
            Ok(Some(mac)) => self.command(Command::Neighbour {
                port: Port::Access,
                address: via,
                mac: Some(mac),
            }),
            // Linux knew it when TCP connected; what it forgets it learns again.
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(command);
        } else if let Err(Full(command)) = self.control.commands.push(command) {
            self.waiting.push_back(command);
        }
    }

    /// Takes what the worker has for us, and gives it what it had no room for.
    pub(super) fn drain(&mut self) {
        // Awake: what comes from now on need not ring. Looked at again after `prepare`, so that nothing is missed.
        self.control.wake.finish();
        loop {
            while let Some(command) = self.waiting.pop_front() {
                if let Err(Full(command)) = self.control.commands.push(command) {
                    self.waiting.push_front(command);
                    break;
                }
            }
            while let Ok(event) = self.control.events.pop() {
                self.event(&event);
            }
            while self.control.captured.pop().is_ok() {}
            self.control.wake.prepare();
            let stuck = self.waiting.is_empty() || self.control.commands.room() == 0;
            if self.control.events.is_empty() && stuck {
                return;
            }
            self.control.wake.finish();
        }
    }

    fn event(&mut self, event: &Event) {
        let now = self.now();
        let id = match event {
            Event::Frame { call, .. }
            | Event::Counters { call, .. }
            | Event::Garbled { call }
            | Event::Closed { call, .. } => call.id,
            // Where a client's calls come from is checked strictly, and what comes for it goes to its Linux.
            Event::Inner { .. } | Event::Bound { .. } => return,
            Event::Lost { frames } => {
                tracing::warn!(frames, "control frames found the event ring full");
                return;
            }
        };
        let Some(at) = self.calls.get(&id.0).map(|call| call.connection) else {
            return;
        };
        if let Some(subscriber) = &mut self.connections[at].subscriber {
            subscriber.event(event, now);
        }
        self.pump(at);
    }

    pub(super) fn next_deadline(&self) -> Option<tokio::time::Instant> {
        let (at, _) = self.deadlines.first()?;
        let at = Duration::from_nanos(at.as_nanos());
        Some(tokio::time::Instant::from_std(self.origin + at))
    }

    pub(super) fn timeouts(&mut self) {
        let now = self.now();
        while let Some((due, at)) = self.deadlines.first().copied()
            && due <= now
        {
            self.deadlines.pop_first();
            self.connections[at].deadline = None;
            if let Some(subscriber) = &mut self.connections[at].subscriber {
                subscriber.handle_timeout(now);
            }
            self.pump(at);
        }
    }

    /// Does what a connection wants done, and notes its next deadline.
    fn pump(&mut self, at: usize) {
        loop {
            let action = match &mut self.connections[at].subscriber {
                Some(subscriber) => subscriber.poll(),
                None => return,
            };
            match action {
                Some(action) => self.act(at, action),
                None => break,
            }
        }
        let deadline = self.connections[at]
            .subscriber
            .as_ref()
            .and_then(Subscriber::deadline);
        let before = core::mem::replace(&mut self.connections[at].deadline, deadline);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, at));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, at));
            }
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Tcp(octets) => {
                if let Some(writer) = &self.connections[at].writer {
                    writer.send(octets);
                }
            }
            Action::Command(command) => self.command(command),
            Action::Started(_) | Action::Held { .. } => {}
            Action::Up { id, terms, info } => self.up_now(at, id, &terms, &info),
            Action::Up6 { id, terms } => {
                if let Some(port) = self.ports.info(Port::Host)
                    && let Err(error) = self.linux.router(link_local(terms.theirs), port.mac)
                {
                    tracing::error!(call = id.0, "{error}");
                }
            }
            Action::Ended {
                id,
                cause,
                counters,
            } => {
                let asked = self.hanging_up && cause == Cause::HungUp;
                self.over(
                    id,
                    cause.to_string(),
                    cause.windows_error(),
                    asked,
                    counters,
                );
            }
            Action::Finished(end) => {
                tracing::debug!("control connection: {end}");
                // The writer sends what is left and closes.
                self.connections[at].writer = None;
            }
        }
    }

    /// Calls that are up.
    pub(super) fn up(&self) -> impl Iterator<Item = (u16, Ipv4Addr)> {
        self.calls.iter().filter_map(|(id, call)| {
            let alive = call.came_up && call.over.is_none();
            call.address.filter(|_| alive).map(|address| (*id, address))
        })
    }

    /// Every call has come up or failed.
    pub(super) fn is_settled(&self) -> bool {
        self.calls
            .values()
            .all(|call| call.came_up || call.over.is_some())
    }

    /// Every call is over, and every connection.
    pub(super) fn is_over(&self) -> bool {
        self.calls.values().all(|call| call.over.is_some())
            && self.connections.iter().all(|connection| {
                connection
                    .subscriber
                    .as_ref()
                    .is_none_or(Subscriber::is_finished)
            })
    }

    /// SIGINT or SIGTERM. False the second time: leave at once.
    pub(super) fn interrupted(&mut self) -> bool {
        if self.hanging_up {
            return false;
        }
        self.hang_up();
        true
    }

    pub(super) fn hang_up(&mut self) {
        let now = self.now();
        self.hanging_up = true;
        self.progress.finish_and_clear();
        for at in 0..self.connections.len() {
            match &mut self.connections[at].subscriber {
                Some(subscriber) => {
                    subscriber.hang_up(now);
                    self.pump(at);
                }
                None => self.fail(at, "hung up before it was dialled", None),
            }
        }
    }
}
