//! The loop of a storm: set-ups begin, packets come and go, and every phase is noted.

use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write as _};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use turnpike_dataplane::api::{Command, Event};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{ClientLink, End, PhaseName, Timing};
use turnpike_protocol::pptp::CallerConfig;
use turnpike_protocol::{CallId, Time};

use super::Storm;
use super::calls::{Calls, Done};
use super::report::{Books, Marks, Phase};
use super::wire::{self, MAX_PACKET, Wire};
use crate::dial::{Outcome, password};
use crate::report::sheet::Sheet;
use crate::report::{Origin, Page};
use crate::subscriber::{Action, Cause, Subscriber, SubscriberConfig};
use crate::tcp::{self, Heard};

/// How long everybody may take to end after having been asked to.
const HANG_UP_LIMIT: Duration = Duration::from_secs(12);

/// How often new set-ups are begun, where a rate is asked for.
const TICK: Duration = Duration::from_millis(1);

/// From a task to the loop, with the number of the set-up.
enum Message {
    Connected(u32, io::Result<TcpStream>),
    Heard(u32, Heard),
}

/// One set-up, and what follows it.
struct Attempt {
    subscriber: Option<Subscriber>,
    writer: Option<UnboundedSender<Vec<u8>>>,
    local: Option<Ipv4Addr>,
    id: CallId,
    marks: Marks,
    /// It came up, or did not.
    settled: bool,
    /// We have hung up.
    ending: bool,
    deadline: Option<Time>,
}

struct Front<'a> {
    options: &'a Storm,
    server: Ipv4Addr,
    secret: Password,
    origin: Instant,
    attempts: HashMap<u32, Attempt>,
    by_id: HashMap<CallId, u32>,
    next_id: CallId,
    calls: Calls,
    wires: HashMap<Ipv4Addr, Wire>,
    deadlines: BTreeSet<(Time, u32)>,
    messages: UnboundedSender<Message>,
    books: Books,
    /// Begun and not settled.
    outstanding: u32,
    /// Set-ups that the rate wanted earlier; those with smaller numbers than `late_before` are among them.
    held_back: u64,
    late_before: u32,
    begun: u32,
    /// Nobody is dialled any more.
    stopping: bool,
    progress: ProgressBar,
}

pub(super) async fn run(
    options: &Storm,
    origin: Origin,
    server: Ipv4Addr,
) -> anyhow::Result<Outcome> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (messages, mut inbox) = unbounded_channel();
    let page = options.html.as_deref().map(Page::create).transpose()?;
    let mut front = Front::new(options, server, messages)?;
    // A wire for each address at once: what is wrong with one is said before anybody is dialled.
    for local in &options.from {
        front.wire(*local)?;
    }
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut give_up: Option<tokio::time::Instant> = None;
    loop {
        front.begin_what_is_due();
        if front.is_settled() && give_up.is_none() {
            front.progress.finish_and_clear();
            front.hang_up();
            give_up = Some(tokio::time::Instant::now() + HANG_UP_LIMIT);
        }
        if front.is_settled() && front.attempts.is_empty() {
            break;
        }
        let timer = front.next_deadline();
        tokio::select! {
            _ = interrupt.recv() => if front.stop() { break },
            _ = terminate.recv() => if front.stop() { break },
            Some(message) = inbox.recv() => {
                front.message(message)?;
                // Those that came together are dealt with together.
                while let Ok(message) = inbox.try_recv() {
                    front.message(message)?;
                }
            }
            local = wire::readable(&front.wires), if !front.wires.is_empty() => front.packets(local),
            () = until(timer) => front.timeouts(),
            () = until(give_up) => break,
            _ = ticks.tick(), if front.more_to_begin() => {}
        }
    }
    let refused = front.wires.values().map(|wire| wire.refused).sum();
    let report = front.books.report(origin, server, front.held_back, refused);
    let text = if options.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        report.text()
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    if let Some(page) = page {
        page.write(&Sheet::of(&report)?)?;
    }
    Ok(if report.failed == 0 && report.lost == 0 && report.up > 0 {
        Outcome::AllGood
    } else {
        Outcome::SomeFailed
    })
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl<'a> Front<'a> {
    fn new(
        options: &'a Storm,
        server: Ipv4Addr,
        messages: UnboundedSender<Message>,
    ) -> anyhow::Result<Self> {
        let progress = ProgressBar::new(options.calls.into());
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {pos}/{len} calls, {per_sec} {msg} {elapsed}")
        {
            progress.set_style(style);
        }
        Ok(Self {
            options,
            server,
            secret: Password::new(password(
                options.password.as_deref(),
                options.password_file.as_deref(),
            )?),
            origin: Instant::now(),
            attempts: HashMap::new(),
            by_id: HashMap::new(),
            next_id: CallId(0),
            calls: Calls::default(),
            wires: HashMap::new(),
            deadlines: BTreeSet::new(),
            messages,
            books: Books::new()?,
            outstanding: 0,
            held_back: 0,
            late_before: 0,
            begun: 0,
            stopping: false,
            progress,
        })
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn more_to_begin(&self) -> bool {
        !self.stopping && self.begun < self.options.calls
    }

    /// Everybody has been tried, and has come up or not.
    fn is_settled(&self) -> bool {
        !self.more_to_begin() && self.outstanding == 0
    }

    /// Begins the set-ups whose time has come.
    fn begin_what_is_due(&mut self) {
        if !self.more_to_begin() {
            return;
        }
        let due = match self.options.rate {
            // The first one is due at once.
            Some(rate) => (self.origin.elapsed().as_secs_f64() * rate) as u64 + 1,
            None => u64::MAX,
        };
        let due = u32::try_from(due)
            .unwrap_or(u32::MAX)
            .min(self.options.calls);
        while self.begun < due {
            if self.outstanding >= self.options.outstanding {
                self.late_before = match self.options.rate {
                    Some(_) => due,
                    None => 0,
                };
                break;
            }
            // Where every id is a call's, some have to end first.
            let Some(id) = self.free_id() else {
                break;
            };
            self.begin(id);
        }
    }

    /// An id that no call has. They are taken in turn, so that one is used again as late as can be.
    fn free_id(&mut self) -> Option<CallId> {
        let first = self.next_id;
        loop {
            let id = self.next_id;
            self.next_id = CallId(id.0.wrapping_add(1));
            if !self.by_id.contains_key(&id) {
                return Some(id);
            }
            if self.next_id == first {
                return None;
            }
        }
    }

    fn begin(&mut self, id: CallId) {
        let number = self.begun;
        self.held_back += u64::from(number < self.late_before);
        self.begun += 1;
        self.books.begun += 1;
        self.outstanding += 1;
        let from = match self.options.from.as_slice() {
            [] => None,
            from => Some(from[number as usize % from.len()]),
        };
        let attempt = Attempt {
            subscriber: None,
            writer: None,
            local: None,
            id,
            marks: Marks::new(self.now()),
            settled: false,
            ending: false,
            deadline: None,
        };
        self.attempts.insert(number, attempt);
        self.by_id.insert(id, number);
        let server = SocketAddrV4::new(self.server, self.options.port);
        let connecting = tcp::connect(from, server, self.options.patience);
        let messages = self.messages.clone();
        tokio::spawn(async move {
            // The loop outlives its tasks, or nobody cares.
            let _ = messages.send(Message::Connected(number, connecting.await));
        });
    }

    /// The wire of a local address.
    fn wire(&mut self, local: Ipv4Addr) -> anyhow::Result<()> {
        if !self.wires.contains_key(&local) {
            let wire = Wire::open(local, self.server)?;
            self.wires.insert(local, wire);
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> anyhow::Result<()> {
        let now = self.now();
        let number = match message {
            Message::Connected(number, Ok(stream)) => {
                let local = match stream.local_addr()? {
                    SocketAddr::V4(local) => *local.ip(),
                    SocketAddr::V6(_) => anyhow::bail!("the server was reached by IPv6"),
                };
                self.wire(local)?;
                self.connected(number, stream, local, now)?;
                number
            }
            Message::Connected(number, Err(error)) => {
                let reason = match error.kind() {
                    io::ErrorKind::AddrNotAvailable => {
                        "no TCP port is free here: give more addresses to dial --from".to_owned()
                    }
                    _ => format!("cannot connect: {error}"),
                };
                self.fail(number, &reason);
                self.forget(number);
                return Ok(());
            }
            Message::Heard(number, Heard::Octets(octets)) => {
                let subscriber = self.subscriber(number);
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
        self.pump(number, now);
        Ok(())
    }

    fn subscriber(&mut self, number: u32) -> Option<&mut Subscriber> {
        self.attempts.get_mut(&number)?.subscriber.as_mut()
    }

    /// The control connection is gone.
    fn cut(&mut self, number: u32, now: Time) {
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.writer = None;
            if let Some(subscriber) = &mut attempt.subscriber
                && !subscriber.is_finished()
            {
                subscriber.connection_lost(now);
            }
        }
    }

    fn connected(
        &mut self,
        number: u32,
        stream: TcpStream,
        local: Ipv4Addr,
        now: Time,
    ) -> anyhow::Result<()> {
        let Some(attempt) = self.attempts.get_mut(&number) else {
            return Ok(());
        };
        let messages = self.messages.clone();
        let hear = move |heard| messages.send(Message::Heard(number, heard)).is_ok();
        let writer = tcp::attach(stream, hear)?;
        let options = self.options;
        let patience = options.patience;
        let config = SubscriberConfig {
            caller: CallerConfig {
                setup_time: patience,
                ..CallerConfig::default()
            },
            link: ClientLink {
                mppe: options.mppe.into(),
                mppe_allowed: options.allowed(),
                methods: options.auth.iter().map(|auth| (*auth).into()).collect(),
                timing: Timing {
                    set_up: Some(patience),
                    ..Timing::default()
                },
                ..ClientLink::new(options.user_of(number).as_bytes(), self.secret.clone())
            },
            local,
            server: self.server,
            via: self.server,
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        attempt.marks.end(Phase::Tcp, now);
        attempt.local = Some(local);
        attempt.writer = Some(writer);
        let mut subscriber = Subscriber::new(config, [(attempt.id, seed)], now);
        if self.stopping {
            subscriber.hang_up(now);
        }
        attempt.subscriber = Some(subscriber);
        Ok(())
    }

    /// Reads what has come for a local address.
    fn packets(&mut self, local: Ipv4Addr) {
        let mut buffer = [0; MAX_PACKET];
        while let Some(range) = self
            .wires
            .get(&local)
            .and_then(|wire| wire.receive(&mut buffer))
        {
            let now = self.now();
            let Done { event, .. } = self.calls.receive(&buffer[range], now);
            if let Some(event) = event {
                self.event(&event, now);
            }
        }
    }

    fn event(&mut self, event: &Event, now: Time) {
        let (Event::Frame { call, .. } | Event::Closed { call, .. }) = event else {
            return;
        };
        let Some(number) = self.by_id.get(&call.id).copied() else {
            return;
        };
        if let Some(subscriber) = self.subscriber(number) {
            subscriber.event(event, now);
        }
        self.pump(number, now);
    }

    fn next_deadline(&self) -> Option<tokio::time::Instant> {
        let (at, _) = self.deadlines.first()?;
        let at = Duration::from_nanos(at.as_nanos());
        Some(tokio::time::Instant::from_std(self.origin + at))
    }

    fn timeouts(&mut self) {
        let now = self.now();
        while let Some((due, number)) = self.deadlines.first().copied()
            && due <= now
        {
            self.deadlines.pop_first();
            if let Some(attempt) = self.attempts.get_mut(&number) {
                attempt.deadline = None;
                if let Some(subscriber) = &mut attempt.subscriber {
                    subscriber.handle_timeout(now);
                }
            }
            self.pump(number, now);
        }
    }

    /// Does what a set-up wants done, and notes how far it has come.
    fn pump(&mut self, number: u32, now: Time) {
        while let Some(action) = self.subscriber(number).and_then(Subscriber::poll) {
            self.act(number, action, now);
        }
        let Some(attempt) = self.attempts.get_mut(&number) else {
            return;
        };
        let Some(subscriber) = &attempt.subscriber else {
            return;
        };
        match subscriber.info(attempt.id).map(|info| info.phase) {
            Some(PhaseName::Authenticate) => attempt.marks.end(Phase::Lcp, now),
            Some(PhaseName::Network | PhaseName::Up) => {
                attempt.marks.end(Phase::Authentication, now);
            }
            _ => {}
        }
        let deadline = subscriber.deadline();
        let over = subscriber.is_finished() && attempt.settled;
        if let (Some(packet), Some(local)) = (self.calls.acknowledge(attempt.id), attempt.local)
            && let Some(wire) = self.wires.get_mut(&local)
        {
            wire.send(&packet);
        }
        let before = core::mem::replace(&mut attempt.deadline, deadline);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, number));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, number));
            }
        }
        if over {
            self.forget(number);
        }
    }

    fn act(&mut self, number: u32, action: Action, now: Time) {
        let Some(attempt) = self.attempts.get_mut(&number) else {
            return;
        };
        match action {
            Action::Tcp(octets) => {
                if let Some(writer) = &attempt.writer {
                    // A writer that is gone shows as the end of the connection.
                    let _ = writer.send(octets);
                }
            }
            Action::Command(command) => {
                if matches!(command, Command::Open { .. }) {
                    attempt.marks.end(Phase::Call, now);
                }
                let Done { packet, event } = self.calls.command(&command);
                if let (Some(packet), Some(local)) = (packet, attempt.local)
                    && let Some(wire) = self.wires.get_mut(&local)
                {
                    wire.send(&packet);
                }
                if let (Some(event), Some(subscriber)) = (event, self.subscriber(number)) {
                    subscriber.event(&event, now);
                }
            }
            Action::Started(_) => attempt.marks.end(Phase::Control, now),
            Action::Up { .. } if !attempt.settled => {
                attempt.marks.end(Phase::Network, now);
                attempt.settled = true;
                let marks = attempt.marks;
                self.outstanding -= 1;
                self.progress.inc(1);
                self.books.up(&marks, self.origin.elapsed());
                if !self.options.keep {
                    self.hang_up_one(number, now);
                }
            }
            Action::Up { .. } | Action::Up6 { .. } | Action::Held { .. } => {}
            Action::Ended { cause, .. } => {
                let (settled, ending) = (attempt.settled, attempt.ending);
                let reason = reason(&cause);
                if !settled {
                    self.fail(number, &reason);
                    self.hang_up_one(number, now);
                } else if !ending {
                    self.books.lost(&reason);
                    self.hang_up_one(number, now);
                }
            }
            // The writer sends what is left and closes.
            Action::Finished(_) => attempt.writer = None,
        }
    }

    /// A set-up came to nothing.
    fn fail(&mut self, number: u32, reason: &str) {
        if let Some(attempt) = self.attempts.get_mut(&number)
            && !attempt.settled
        {
            attempt.settled = true;
            self.outstanding -= 1;
            self.progress.inc(1);
            let phase = attempt.marks.current();
            self.books.failed(phase, reason, self.origin.elapsed());
        }
    }

    fn hang_up_one(&mut self, number: u32, now: Time) {
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.ending = true;
            if let Some(subscriber) = &mut attempt.subscriber {
                subscriber.hang_up(now);
            }
        }
    }

    fn hang_up(&mut self) {
        let now = self.now();
        let all: Vec<u32> = self.attempts.keys().copied().collect();
        for number in all {
            self.hang_up_one(number, now);
            self.pump(number, now);
        }
    }

    /// Nobody new, and everybody who is there goes. True the second time: leave at once.
    fn stop(&mut self) -> bool {
        if core::mem::replace(&mut self.stopping, true) {
            return true;
        }
        self.progress.finish_and_clear();
        self.hang_up();
        false
    }

    fn forget(&mut self, number: u32) {
        if let Some(attempt) = self.attempts.remove(&number) {
            self.by_id.remove(&attempt.id);
            if let Some(deadline) = attempt.deadline {
                self.deadlines.remove(&(deadline, number));
            }
        }
    }
}

/// Why a call ended, without what is different for each user: it is counted by this.
fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Link(End::AuthenticationFailed { code, message, .. }) => {
            format!("the server refuses the login: E={code} {message}")
        }
        _ => cause.to_string(),
    }
}
