//! The calls: set up by [`Subscriber`]s, carried by a worker.

use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use turnpike_dataplane::api::{Command, Event, Port};
use turnpike_dataplane::rings::{ControlEnd, Full};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{ClientLink, Timing};
use turnpike_protocol::pptp::CallerConfig;
use turnpike_protocol::{CallId, Time};

use super::nic::Nic;
use super::{Flow, raw};
use crate::subscriber::{Action, Subscriber, SubscriberConfig};
use crate::tcp::{self, Heard};

/// From a task to the loop, with the number of the line.
pub(super) enum Message {
    Connected(usize, io::Result<TcpStream>),
    Heard(usize, Heard),
}

/// How far a call has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Begun.
    Setting,
    /// It carries data.
    Up,
    /// It is over, or came to nothing.
    Over,
}

struct Call {
    stage: Stage,
    address: Ipv4Addr,
    mtu: u16,
}

/// A control connection, with the calls that follow each other from its number times as many on.
struct Line {
    subscriber: Option<Subscriber>,
    writer: Option<tcp::Writer>,
    deadline: Option<Time>,
    /// Nothing is left of it, nor of its calls.
    gone: bool,
}

/// All calls, and the worker's other end.
pub(super) struct Calls<'a> {
    options: &'a Flow,
    server: Ipv4Addr,
    /// Where GRE goes over AF_XDP.
    pub(super) nic: Option<Nic>,
    secret: Password,
    origin: Instant,
    pub(super) control: ControlEnd,
    /// Commands that found the ring full, in order.
    waiting: VecDeque<Command>,
    calls: Vec<Call>,
    lines: Vec<Line>,
    deadlines: BTreeSet<(Time, usize)>,
    messages: UnboundedSender<Message>,
    /// Why calls did not come up, or did not stay.
    pub(super) failures: BTreeMap<String, u64>,
    /// Calls that came up.
    pub(super) came_up: u64,
    /// Those of them that ended when nobody here wanted it.
    pub(super) lost: u64,
    /// Times that data stopped in a call that was up.
    pub(super) held: u64,
    /// Calls that are being set up, and lines of which nothing is left.
    setting: usize,
    gone: usize,
    hanging_up: bool,
}

impl<'a> Calls<'a> {
    /// Nobody has dialled yet.
    pub(super) fn new(
        options: &'a Flow,
        server: Ipv4Addr,
        nic: Option<Nic>,
        password: &str,
        origin: Instant,
        control: ControlEnd,
        messages: UnboundedSender<Message>,
    ) -> Self {
        let mut calls = Self {
            options,
            server,
            nic,
            secret: Password::new(password),
            origin,
            control,
            waiting: VecDeque::new(),
            calls: Vec::new(),
            lines: Vec::new(),
            deadlines: BTreeSet::new(),
            messages,
            failures: BTreeMap::new(),
            came_up: 0,
            lost: 0,
            held: 0,
            setting: 0,
            gone: 0,
            hanging_up: false,
        };
        calls.neighbour();
        calls
    }

    /// Tells the worker who the next hop is on the link. A raw socket has none, and the worker a name for it.
    pub(super) fn neighbour(&mut self) {
        let known = match &self.nic {
            Some(nic) => nic.neighbour(),
            None => Some((self.server, raw::SERVER)),
        };
        if let Some((address, mac)) = known {
            self.command(Command::Neighbour {
                port: Port::Access,
                address,
                mac: Some(mac),
            });
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// Whether there are calls yet to begin.
    pub(super) fn more_to_begin(&self) -> bool {
        !self.hanging_up && self.calls.len() < self.options.calls.into()
    }

    /// Begins what the rate wants begun, so long after the first.
    pub(super) fn begin_what_is_due(&mut self, since_first: Duration) {
        let due = (since_first.as_secs_f64() * self.options.setup_rate) as usize + 1;
        while self.more_to_begin() && self.calls.len() < due {
            self.begin();
        }
    }

    /// The calls of a line.
    fn calls_of(&self, line: usize) -> core::ops::Range<usize> {
        let each = usize::from(self.options.calls_per_connection);
        line * each..((line + 1) * each).min(self.calls.len())
    }

    /// Whether no call of a line is left.
    fn is_silent(&self, line: usize) -> bool {
        let calls = &self.calls[self.calls_of(line)];
        calls.iter().all(|call| call.stage == Stage::Over)
    }

    fn begin(&mut self) {
        let number = self.lines.len();
        self.lines.push(Line {
            subscriber: None,
            writer: None,
            deadline: None,
            gone: false,
        });
        let first = self.calls.len();
        let calls = usize::from(self.options.calls) - first;
        let calls = calls.min(self.options.calls_per_connection.into());
        self.calls.resize_with(first + calls, || Call {
            stage: Stage::Setting,
            address: Ipv4Addr::UNSPECIFIED,
            mtu: 0,
        });
        self.setting += calls;
        let from = self.options.from.as_ref();
        let from = from.and_then(|from| from.of(number as u64));
        let server = SocketAddrV4::new(self.server, self.options.port);
        let connecting = tcp::connect(from, server, self.options.patience);
        let messages = self.messages.clone();
        tokio::spawn(async move {
            // The loop outlives its tasks, or nobody cares.
            let _ = messages.send(Message::Connected(number, connecting.await));
        });
    }

    /// Calls begun.
    pub(super) fn begun(&self) -> u64 {
        self.calls.len() as u64
    }

    /// Every call has come up or has not.
    pub(super) fn is_settled(&self) -> bool {
        !self.more_to_begin() && self.setting == 0
    }

    /// Every call is over, and every connection.
    pub(super) fn is_over(&self) -> bool {
        self.gone == self.lines.len()
    }

    /// Inner addresses of the calls that are up.
    pub(super) fn up(&self) -> impl Iterator<Item = Ipv4Addr> {
        let up = self.calls.iter().filter(|call| call.stage == Stage::Up);
        up.map(|call| call.address)
    }

    /// The largest inner packet that every call takes, in octets.
    pub(super) fn mtu(&self) -> Option<u16> {
        let up = self.calls.iter().filter(|call| call.stage == Stage::Up);
        up.map(|call| call.mtu).min()
    }

    pub(super) fn message(&mut self, message: Message) -> anyhow::Result<()> {
        let now = self.now();
        let number = match message {
            // Nobody waits for it any more.
            Message::Connected(number, Ok(_)) if self.lines[number].gone => number,
            Message::Connected(number, Ok(stream)) => {
                self.connected(number, stream, now)?;
                number
            }
            Message::Connected(number, Err(error)) => {
                for call in self.calls_of(number) {
                    self.over(call, &format!("cannot connect: {error}"));
                }
                number
            }
            Message::Heard(number, Heard::Octets(octets)) => {
                let subscriber = self.lines[number].subscriber.as_mut();
                if subscriber.is_some_and(|subscriber| subscriber.receive(&octets, now).is_err()) {
                    self.cut(number, now);
                }
                number
            }
            Message::Heard(number, Heard::Gone) => {
                self.cut(number, now);
                number
            }
        };
        self.pump(number);
        Ok(())
    }

    /// The control connection is gone.
    fn cut(&mut self, number: usize, now: Time) {
        let line = &mut self.lines[number];
        line.writer = None;
        if let Some(subscriber) = &mut line.subscriber
            && !subscriber.is_finished()
        {
            subscriber.connection_lost(now);
        }
    }

    fn connected(&mut self, number: usize, stream: TcpStream, now: Time) -> anyhow::Result<()> {
        let local = match stream.local_addr()? {
            SocketAddr::V4(local) => *local.ip(),
            SocketAddr::V6(_) => anyhow::bail!("the server was reached by IPv6"),
        };
        let via = match &mut self.nic {
            Some(nic) => nic.reach(local, self.server)?,
            None => self.server,
        };
        if self.nic.is_some() {
            self.neighbour();
        }
        let messages = self.messages.clone();
        let hear = move |heard| messages.send(Message::Heard(number, heard)).is_ok();
        let writer = tcp::attach(stream, hear)?;
        let options = self.options;
        let config = SubscriberConfig {
            caller: CallerConfig {
                setup_time: options.patience,
                ..CallerConfig::default()
            },
            link: ClientLink {
                mppe: options.mppe.into(),
                mppe_allowed: options.allowed(),
                methods: options.auth.iter().map(|auth| (*auth).into()).collect(),
                timing: Timing {
                    set_up: Some(options.patience),
                    ..Timing::default()
                },
                ..ClientLink::new(options.user_of(number).as_bytes(), self.secret.clone())
            },
            local,
            server: self.server,
            via,
        };
        let calls = self.calls_of(number).map(|call| {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)
                .map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
            // There are no more calls than ids.
            Ok((CallId(call as u16), seed))
        });
        let calls = calls.collect::<anyhow::Result<Vec<_>>>()?;
        let line = &mut self.lines[number];
        line.subscriber = Some(Subscriber::new(config, calls, now));
        line.writer = Some(writer);
        Ok(())
    }

    fn command(&mut self, command: Command) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(command);
        } else if let Err(Full(command)) = self.control.commands.push(command) {
            self.waiting.push_back(command);
        }
    }

    /// Ends the worker's thread, after everything that it has been told.
    pub(super) fn stop_worker(&mut self) {
        self.command(Command::Stop);
    }

    /// Whether the worker has been given everything.
    pub(super) fn is_said(&self) -> bool {
        self.waiting.is_empty()
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
            self.control.wake.prepare();
            let stuck = self.waiting.is_empty() || self.control.commands.room() == 0;
            if self.control.events.is_empty() && stuck {
                return;
            }
            self.control.wake.finish();
        }
    }

    fn event(&mut self, event: &Event) {
        let (Event::Frame { call, .. }
        | Event::Counters { call, .. }
        | Event::Garbled { call }
        | Event::Closed { call, .. }) = event
        else {
            return;
        };
        let number = usize::from(call.id.0 / self.options.calls_per_connection);
        let now = self.now();
        if let Some(subscriber) = self
            .lines
            .get_mut(number)
            .and_then(|line| line.subscriber.as_mut())
        {
            subscriber.event(event, now);
            self.pump(number);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<tokio::time::Instant> {
        let (at, _) = self.deadlines.first()?;
        let at = Duration::from_nanos(at.as_nanos());
        Some(tokio::time::Instant::from_std(self.origin + at))
    }

    pub(super) fn timeouts(&mut self) {
        let now = self.now();
        while let Some((due, number)) = self.deadlines.first().copied()
            && due <= now
        {
            self.deadlines.pop_first();
            let line = &mut self.lines[number];
            line.deadline = None;
            if let Some(subscriber) = &mut line.subscriber {
                subscriber.handle_timeout(now);
            }
            self.pump(number);
        }
    }

    /// Does what the calls of a line want done, and notes the next deadline.
    fn pump(&mut self, number: usize) {
        while let Some(action) = self.lines[number]
            .subscriber
            .as_mut()
            .and_then(Subscriber::poll)
        {
            self.act(number, action);
        }
        let silent = self.is_silent(number);
        let line = &mut self.lines[number];
        let deadline = line.subscriber.as_ref().and_then(Subscriber::deadline);
        let before = core::mem::replace(&mut line.deadline, deadline);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, number));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, number));
            }
        }
        let finished = line.subscriber.as_ref().is_none_or(Subscriber::is_finished);
        if finished && silent && !line.gone {
            line.gone = true;
            self.gone += 1;
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::Tcp(octets) => {
                if let Some(writer) = &self.lines[number].writer {
                    writer.send(octets);
                }
            }
            Action::Command(command) => self.command(command),
            Action::Up { id, terms, .. } => {
                let call = &mut self.calls[usize::from(id.0)];
                if call.stage == Stage::Setting {
                    call.stage = Stage::Up;
                    self.setting -= 1;
                    self.came_up += 1;
                }
                call.address = terms.address;
                call.mtu = terms.mtu;
            }
            Action::Held { id } => {
                let was_up = self.calls[usize::from(id.0)].stage == Stage::Up;
                self.held += u64::from(!self.hanging_up && was_up);
            }
            Action::Started(_) | Action::Up6 { .. } => {}
            Action::Ended { id, cause, .. } => {
                let now = self.now();
                self.over(id.0.into(), &cause.kind());
                if self.is_silent(number)
                    && let Some(subscriber) = &mut self.lines[number].subscriber
                {
                    subscriber.hang_up(now);
                }
            }
            // The writer sends what is left and closes.
            Action::Finished(_) => self.lines[number].writer = None,
        }
    }

    fn over(&mut self, number: usize, reason: &str) {
        let stage = core::mem::replace(&mut self.calls[number].stage, Stage::Over);
        self.setting -= usize::from(stage == Stage::Setting);
        if self.hanging_up || stage == Stage::Over {
            return;
        }
        let reason = match stage {
            Stage::Up => {
                self.lost += 1;
                format!("when up: {reason}")
            }
            Stage::Setting | Stage::Over => reason.to_owned(),
        };
        *self.failures.entry(reason).or_default() += 1;
    }

    /// Everybody goes. False when that has been said before.
    pub(super) fn hang_up(&mut self) -> bool {
        if core::mem::replace(&mut self.hanging_up, true) {
            return false;
        }
        let now = self.now();
        for number in 0..self.lines.len() {
            match &mut self.lines[number].subscriber {
                Some(subscriber) => subscriber.hang_up(now),
                None => {
                    for call in self.calls_of(number) {
                        self.over(call, "hung up before it was connected");
                    }
                }
            }
            self.pump(number);
        }
        true
    }
}
