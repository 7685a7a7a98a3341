//! The one place that waits for everything a tunnel lives on: its TCP connection, its workers, its timers, operators
//! and the end of the server.

mod bookkeeping;
mod diary;
mod judge;
mod places;
mod timeouts;

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span};
use turnpike_dataplane::api::{CallRef, Command, Event};
use turnpike_protocol::{CallId, Time};

use crate::aaa::{Addresses, Chain, Entitlements, Store};
use crate::accounting::Kept;
use crate::admission::{Admission, SettingUp, Waiting};
use crate::applicants::{Applicant, Applicants};
use crate::calls::Calls;
use crate::cause::Cause;
use crate::counts::Counts;
use crate::listener::Ticket;
use crate::neighbours::Lookups;
use crate::pool::AddressStore;
use crate::post;
use crate::prefixes::Prefixes;
use crate::rivals::{Rivals, SameUser};
use crate::sessions::{Order, Sessions};
use crate::switchboard::{Inbox, Letter, Mail, Switchboard};
use crate::tunnel::{Action, Notice, Settings, Tunnel};
use crate::twins::{Twin, Twins};

use judge::Judging;
use timeouts::Timeouts;

/// Octets that may wait for a client that does not read; then the connection is closed. Control messages are at most
/// 220 octets, so a client that is served at all never gets there.
const MAX_UNSENT: usize = 32 * 1024;

/// How long what is still to be sent may take when the connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// How clients' GRE finds its way.
pub enum Paths {
    /// As Linux' routes say.
    Linux(Lookups),
    /// Every client is on link. For networks without routers, and for tests.
    OnLink,
}

impl Paths {
    async fn next_hop(&self, peer: Ipv4Addr, local: Ipv4Addr) -> io::Result<Ipv4Addr> {
        match self {
            Self::Linux(lookups) => lookups.next_hop(peer, local).await,
            Self::OnLink => Ok(peer),
        }
    }

    fn want(&self, via: Ipv4Addr) {
        if let Self::Linux(lookups) = self {
            lookups.want(via);
        }
    }

    fn unwant(&self, via: Ipv4Addr) {
        if let Self::Linux(lookups) = self {
            lookups.unwant(via);
        }
    }
}

/// What a login may give besides the user's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Our inner address.
    pub server_address: Ipv4Addr,
    /// DNS servers.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers.
    pub nbns: [Option<Ipv4Addr>; 2],
}

/// A clock whose origin is the start of the server.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }

    /// When it started.
    pub fn origin(&self) -> std::time::Instant {
        self.origin
    }

    /// Now.
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn instant(&self, time: Time) -> Instant {
        Instant::from_std(self.origin) + time.since(Time::ZERO)
    }
}

/// Everything that tunnels share.
pub struct Shared {
    /// Settings of all tunnels.
    pub settings: Arc<Settings>,
    /// What logins give.
    pub terms: Terms,
    /// The clock of all tunnels.
    pub clock: Clock,
    /// Call ids.
    pub calls: Mutex<Calls>,
    /// Users of files.
    pub users: Arc<Store>,
    /// Who judges logins.
    pub backends: Chain,
    /// Whether a client with a wrong name or password may try again in the same call.
    pub retry: bool,
    /// Calls that have not logged in.
    pub applicants: Arc<Applicants>,
    /// Calls that are being set up.
    pub admission: Admission,
    /// Inner addresses.
    pub pools: Box<dyn AddressStore>,
    /// IPv6 prefixes; `None`: there is no IPv6 inside calls.
    pub prefixes: Option<Mutex<Prefixes>>,
    /// The workers.
    pub switchboard: Switchboard,
    /// Next hops.
    pub paths: Paths,
    /// What operators see.
    pub sessions: Sessions,
    /// Calls by user.
    pub rivals: Rivals,
    /// Calls by the ids that their clients gave them.
    pub twins: Arc<Twins>,
    /// What happens when a user who has a call logs in again.
    pub same_user: SameUser,
    /// What is counted.
    pub counts: Counts,
    /// Who had which address when.
    pub books: Kept,
    /// Changes when routes change.
    pub routes: watch::Receiver<u64>,
    /// True when the server goes down.
    pub stopping: watch::Receiver<bool>,
}

/// A client that has just been accepted.
pub struct Guest {
    /// Its connection.
    pub stream: TcpStream,
    /// The address that it dialled.
    pub local: Ipv4Addr,
    /// Its own.
    pub peer: Ipv4Addr,
    /// Its place.
    pub ticket: Ticket,
    /// The way to its task.
    pub orders: post::Sender<Order>,
    /// There is no room: tell it so, within this time.
    pub refuse: Option<Duration>,
}

/// Serves one control connection until it and its calls are over.
///
/// As many of these wait as there are connections, each in the memory of the largest thing that it ever waits for. So what
/// is rare or short is boxed while it lasts.
pub fn run(
    guest: Guest,
    orders: post::Receiver<Order>,
    shared: Arc<Shared>,
) -> impl Future<Output = ()> + Send {
    let Guest {
        stream,
        local,
        peer,
        ticket,
        orders: own_orders,
        refuse,
    } = guest;
    let number = ticket.number();
    let span = info_span!("tunnel", tunnel = number, client = %peer);
    let (inbox, mail) = Inbox::new();
    let settings = shared.settings.clone();
    let now = shared.clock.now();
    let tunnel = match refuse {
        None => Tunnel::new(settings, local, peer, now),
        Some(time) => {
            let settings = Settings {
                setup_time: settings.setup_time.min(time),
                ..Settings::clone(&settings)
            };
            Tunnel::refusing(settings, local, peer, now)
        }
    };
    let mut driver = Driver {
        tunnel,
        ticket,
        stream: Some(stream),
        unsent: Vec::new(),
        closing: None,
        shut: false,
        inbox,
        orders: own_orders,
        held: Vec::new(),
        ways: Vec::new(),
        queue: VecDeque::new(),
        setting_up: Vec::new(),
        applicants: Vec::new(),
        accounts: Vec::new(),
        judging: Vec::new(),
        timeouts: Vec::new(),
        shared,
    };
    let (mut mail, mut orders) = (mail, orders);
    async move { driver.serve(&mut mail, &mut orders).await }.instrument(span)
}

/// How a call's GRE goes out.
struct Way {
    call: CallRef,
    /// Where it goes in the end.
    to: Ipv4Addr,
    /// The next hop, which is kept for it.
    via: Ipv4Addr,
    /// Its place among the calls with the same id.
    twin: Twin,
}

/// The user of a call.
struct LoggedIn {
    call: CallRef,
    user: String,
    /// Which addresses the user may have.
    addresses: Addresses,
    /// What a RADIUS server said of the call.
    entitlements: Option<Arc<Entitlements>>,
}

struct Driver {
    tunnel: Tunnel,
    ticket: Ticket,
    /// `None` once the connection is closed; the tunnel lives on until its calls are forgotten.
    stream: Option<TcpStream>,
    /// Octets that the kernel would not take yet.
    unsent: Vec<u8>,
    /// The tunnel is done with the connection; at this time it is closed even if not everything was sent.
    closing: Option<Instant>,
    /// Everything was sent and we said so; the client's end is awaited, since a reset could overtake what it has not
    /// read yet.
    shut: bool,
    inbox: Inbox,
    orders: post::Sender<Order>,
    /// Calls that are published.
    held: Vec<CallRef>,
    /// How calls' GRE goes out.
    ways: Vec<Way>,
    /// Calls that wait until they may be set up. The first is waited for.
    queue: VecDeque<(CallId, Applicant, Waiting)>,
    /// Places of calls that are being set up, the oldest first, and how long they may keep them.
    setting_up: Vec<(CallRef, SettingUp, Instant)>,
    /// Places of calls that have not logged in.
    applicants: Vec<(CallRef, Applicant)>,
    /// Users of calls that have logged in.
    accounts: Vec<LoggedIn>,
    /// Logins that somebody else judges.
    judging: Vec<Judging>,
    /// Calls that may last or be idle for so long only.
    timeouts: Vec<Timeouts>,
    shared: Arc<Shared>,
}

impl Driver {
    async fn serve(&mut self, mail: &mut Mail, orders: &mut post::Receiver<Order>) {
        let mut routes = self.shared.routes.clone();
        let mut stopping = self.shared.stopping.clone();
        let mut following = true;
        let mut told = false;
        loop {
            if self.tunnel.has_actions() {
                Box::pin(self.act()).await;
            }
            if self.tunnel.is_finished() && self.stream.is_none() {
                return;
            }
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = stopped(&mut stopping), if !told => {
                    told = true;
                    let now = self.shared.clock.now();
                    self.tunnel.shut_down(Cause::ServerStopping, now);
                }
                order = orders.recv() => self.obey(order),
                letter = mail.next() => {
                    self.hear(letter);
                    while let Some(letter) = mail.try_next() {
                        if self.tunnel.has_actions() {
                            Box::pin(self.act()).await;
                        }
                        self.hear(letter);
                    }
                }
                () = until(deadline) => self.handle_timeout(),
                judged = judge::judged(&mut self.judging), if !self.judging.is_empty() => {
                    Box::pin(self.judged(*judged)).await;
                }
                place = places::turn(&mut self.queue), if !self.queue.is_empty() => {
                    if let Some((peer_id, applicant, _)) = self.queue.pop_front() {
                        Box::pin(self.let_in(peer_id, applicant, place)).await;
                    }
                }
                changed = routes.changed(), if following => {
                    following = changed.is_ok();
                    Box::pin(self.reroute()).await;
                }
                ready = ready(&self.stream, !self.unsent.is_empty()) => {
                    match ready {
                        Ok(Ready::Read) => self.read(),
                        Ok(Ready::Write) => self.flush(),
                        Err(error) => self.lost(&error),
                    }
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let now = self.shared.clock.now();
        match order {
            Order::Kill(call, cause) => self.tunnel.kill(call, cause, now),
            Order::Replace(call) => self.tunnel.replace(call, now),
            Order::Hush => self.tunnel.hush(now),
            Order::Doubt => self.tunnel.doubt(now),
            Order::Displace => self.lost(&io::Error::other("displaced")),
        }
    }

    fn hear(&mut self, letter: Letter) {
        if let Some(event) = letter.open() {
            if let Event::Counters { call, counters } = &event {
                self.active(*call, counters);
            }
            self.tunnel.event(event, self.shared.clock.now());
        }
    }

    /// When [`Self::handle_timeout`] is due.
    fn deadline(&self) -> Option<Instant> {
        let tunnel = self.tunnel.deadline();
        let tunnel = tunnel.map(|at| self.shared.clock.instant(at));
        let stalls = self.setting_up.first().map(|(.., until)| *until);
        let closing = self.closing.filter(|_| self.stream.is_some());
        let timeouts = self.timeouts.iter().map(Timeouts::due);
        let others = stalls.into_iter().chain(closing).chain(timeouts);
        tunnel.into_iter().chain(others).min()
    }

    fn handle_timeout(&mut self) {
        let at = Instant::now();
        if self.closing.is_some_and(|closing| closing <= at) {
            self.stream = None;
        }
        self.setting_up.retain(|(.., until)| *until > at);
        self.setting_up.shrink_to_fit();
        self.time_out(at);
        self.tunnel.handle_timeout(self.shared.clock.now());
    }

    fn read(&mut self) {
        let Some(stream) = &self.stream else { return };
        // Not the task's: there are as many of these as there are connections.
        let mut buffer = [0; 2048];
        match stream.try_read(&mut buffer) {
            Ok(0) => {
                self.stream = None;
                self.tunnel.hung_up(self.shared.clock.now());
            }
            Ok(_) if self.closing.is_some() => {}
            Ok(octets) => self
                .tunnel
                .receive(&buffer[..octets], self.shared.clock.now()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        debug!(%error, "control connection lost");
        self.stream = None;
        self.tunnel.hung_up(self.shared.clock.now());
    }

    fn flush(&mut self) {
        while let Some(stream) = &self.stream {
            if self.unsent.is_empty() {
                break;
            }
            match stream.try_write(&self.unsent) {
                Ok(octets) if octets == self.unsent.len() => self.unsent = Vec::new(),
                Ok(octets) => drop(self.unsent.drain(..octets)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.lost(&error),
            }
        }
        if self.closing.is_some()
            && !self.shut
            && let Some(stream) = &self.stream
        {
            self.shut = true;
            if SockRef::from(stream)
                .shutdown(std::net::Shutdown::Write)
                .is_err()
            {
                self.stream = None;
            }
        }
    }

    /// Does everything that the tunnel wants done, in its order.
    async fn act(&mut self) {
        while let Some(action) = self.tunnel.poll() {
            match action {
                Action::Tcp(octets) => {
                    self.unsent.extend_from_slice(&octets);
                    self.flush();
                    if self.unsent.len() > MAX_UNSENT {
                        self.lost(&io::Error::other("the client does not read"));
                    }
                }
                Action::Data(command) => {
                    // Before the worker knows the call, so that none of its events finds no inbox. Not earlier: only
                    // what was opened is closed, and only closing takes an inbox away.
                    if let Command::Open { call, .. } = &*command {
                        let _ = self
                            .shared
                            .switchboard
                            .register(*call, self.inbox.clone())
                            .await;
                    }
                    if self.shared.switchboard.send_boxed(command).await.is_err() {
                        debug!("a command found no worker");
                    }
                }
                Action::Place { peer_id } => self.admit(peer_id).await,
                Action::Authenticate {
                    call,
                    credentials,
                    holds,
                } => {
                    self.authenticate(call, credentials, holds).await;
                }
                Action::Notice(notice) => {
                    if matches!(notice, Notice::Started(_)) {
                        self.ticket.proven();
                    }
                    if let Notice::Up { call, .. } = notice {
                        self.setting_up.retain(|(other, ..)| *other != call);
                        self.setting_up.shrink_to_fit();
                    }
                    self.attempted(&notice);
                    diary::notice(&notice, &self.shared.counts);
                }
                Action::Choose { call, held, asked } => {
                    let address = self.choose(call, held, asked).await;
                    let now = self.shared.clock.now();
                    self.tunnel.chosen(call, address, now);
                }
                Action::Bound { call, source } => self.bound(call, source).await,
                Action::Begin(begun) => self.begin(&begun).await,
                Action::Cease(call) => self.cease(call).await,
                Action::Release { call, address } => self.release(call, address),
                Action::Release6(grant) => self.release6(&grant),
                Action::Ended(ended) => self.free(&ended),
                Action::Close => {
                    self.closing = Some(Instant::now() + LINGER);
                    self.flush();
                }
            }
        }
        self.publish().await;
    }

    async fn publish(&mut self) {
        let captures = self.shared.sessions.publish(
            self.ticket.number(),
            self.tunnel.snapshots(),
            &mut self.held,
            &self.orders,
        );
        for (call, capture) in captures {
            // Workers that stopped have nothing to capture.
            let _ = self.shared.switchboard.capture(call, capture).await;
        }
    }
}

enum Ready {
    Read,
    Write,
}

async fn ready(stream: &Option<TcpStream>, write: bool) -> io::Result<Ready> {
    std::future::poll_fn(|context| {
        let Some(stream) = stream else {
            return Poll::Pending;
        };
        if write && let Poll::Ready(result) = stream.poll_write_ready(context) {
            return Poll::Ready(result.map(|()| Ready::Write));
        }
        let readable = stream.poll_read_ready(context);
        readable.map(|result| result.map(|()| Ready::Read))
    })
    .await
}

/// Waits for the end of the server.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender is gone only when the server is.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Both keep their books whole between any two statements.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
