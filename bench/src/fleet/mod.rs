//! Many callers in one thread: each a control connection with one call, as Windows does it, and no data.
//!
//! Works against any PPTP server, from any Linux: GRE goes over raw sockets, and only PPP's control frames are looked at.
//! [`Fleet`] dials whom it is told to, keeps their calls alive and says what becomes of them ([`News`]); when to dial, and
//! what to do next, is decided by whoever owns it.

mod calls;
mod options;
mod phase;
mod roster;
mod sources;
mod times;
mod turn;
mod wire;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use turnpike_protocol::ppp::ClientLink;
use turnpike_protocol::pptp::CallerConfig;
use turnpike_protocol::wire::ppp::Protocol;
use turnpike_protocol::{CallId, Time};

use self::calls::Calls;
use self::wire::Wire;
use crate::subscriber::Subscriber;
use crate::tcp::{self, Heard, Writer};

pub use options::Dialling;
pub(crate) use phase::Marks;
pub use phase::Phase;
pub(crate) use roster::Roster;
pub use sources::Sources;
pub(crate) use times::Times;

/// How long a caller who has hung up waits for the server. The timers of a proper goodbye run out before.
const END_LIMIT: Duration = Duration::from_secs(15);

/// How one caller dials.
pub(crate) struct Terms {
    pub(crate) caller: CallerConfig,
    pub(crate) link: ClientLink,
}

/// What became of the caller with a number, as [`Fleet::dial`] gave it. Of each caller either [`Self::Up`] or
/// [`Self::Failed`] comes first, unless it was cut off before, and [`Self::Gone`] last.
pub(crate) enum News {
    /// Data may flow, for the first time.
    Up(u32, Marks),
    /// It may not for now: something is negotiated anew.
    Held(u32),
    /// It may again.
    UpAgain(u32),
    /// An LCP Echo-Request was answered, after so long.
    Answered(u32, Duration),
    /// The set-up came to nothing.
    Failed(u32, Phase, String),
    /// The call was up, has ended, and nobody here wanted it to.
    Lost(u32, String),
    /// Nothing is left of the caller.
    Gone(u32),
}

/// Ways to end a call, besides the proper one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leave {
    /// LCP Terminate-Request, and no more: clearing the call is left to the server.
    Terminate,
    /// Call-Clear-Request, and no word of PPP.
    Clear,
    /// A TCP reset, and nothing else.
    Reset,
    /// Nothing at all, and no answer to anything either while the power is off for so long.
    PowerCut(Duration),
}

/// From a task to the loop, with the caller's number.
enum Message {
    Connected(u32, io::Result<TcpStream>),
    Heard(u32, Heard),
}

/// How far a caller has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    SettingUp,
    Up,
    /// It ended, or never came up, and this has been said.
    Over,
}

struct Caller {
    /// Until TCP is connected.
    terms: Option<Terms>,
    subscriber: Option<Subscriber>,
    writer: Option<Writer>,
    local: Option<Ipv4Addr>,
    id: CallId,
    marks: Marks,
    stage: Stage,
    /// We have hung up, and are patient until then.
    ending: Option<Time>,
    /// The last Echo-Request that has not been answered: its identifier, and when it left.
    asked: Option<(u8, Time)>,
    deadline: Option<Time>,
}

/// LCP echoes of all callers.
#[derive(Default)]
pub(crate) struct Echoes {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// Callers, and all that they share.
pub(crate) struct Fleet {
    server: SocketAddrV4,
    patience: Duration,
    origin: Instant,
    callers: HashMap<u32, Caller>,
    next_number: u32,
    by_id: HashMap<CallId, u32>,
    next_id: CallId,
    calls: Calls,
    wires: HashMap<Ipv4Addr, Wire>,
    deadlines: BTreeSet<(Time, u32)>,
    messages: UnboundedSender<Message>,
    inbox: UnboundedReceiver<Message>,
    news: VecDeque<News>,
    pub(crate) echoes: Echoes,
    /// Connections that we left by a reset, because the server had not ended them in time.
    pub(crate) unfinished: u64,
}

impl Fleet {
    /// Nobody yet. There is a wire for each of `locals` at once: what is wrong with one is said before anybody is dialled.
    /// A TCP connection that is not there within `patience` never will be.
    pub(crate) fn new(
        server: SocketAddrV4,
        locals: &[Ipv4Addr],
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let (messages, inbox) = unbounded_channel();
        let mut fleet = Self {
            server,
            patience,
            origin: Instant::now(),
            callers: HashMap::new(),
            next_number: 0,
            by_id: HashMap::new(),
            next_id: CallId(0),
            calls: Calls::default(),
            wires: HashMap::new(),
            deadlines: BTreeSet::new(),
            messages,
            inbox,
            news: VecDeque::new(),
            echoes: Echoes::default(),
            unfinished: 0,
        };
        for local in locals {
            fleet.wire(*local)?;
        }
        Ok(fleet)
    }

    /// Since the fleet was made.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// When so much time will have passed since then.
    pub(crate) fn instant(&self, at: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + at)
    }

    fn now(&self) -> Time {
        Time::ZERO + self.elapsed()
    }

    /// Whether there is nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// GRE packets that this machine had no room for.
    pub(crate) fn refused(&self) -> u64 {
        self.wires.values().map(|wire| wire.refused).sum()
    }

    /// What has become of callers since this was asked last, one by one.
    pub(crate) fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// A call id that no caller has. They are taken in turn, so that one is used again as late as can be.
    pub(crate) fn free_id(&mut self) -> Option<CallId> {
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

    /// Whether no caller has this call id.
    pub(crate) fn is_free(&self, id: CallId) -> bool {
        !self.by_id.contains_key(&id)
    }

    /// Dials for a call with this id, which must be free, from an address or from Linux' choice. Gives the caller's number:
    /// 0 for the first, 1 for the second.
    pub(crate) fn dial(&mut self, id: CallId, from: Option<Ipv4Addr>, terms: Terms) -> u32 {
        let caller = Caller {
            terms: Some(terms),
            subscriber: None,
            writer: None,
            local: None,
            id,
            marks: Marks::new(self.now()),
            stage: Stage::SettingUp,
            ending: None,
            asked: None,
            deadline: None,
        };
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.callers.insert(number, caller);
        self.by_id.insert(id, number);
        let connecting = tcp::connect(from, self.server, self.patience);
        let messages = self.messages.clone();
        tokio::spawn(async move {
            // The loop outlives its tasks, or nobody cares.
            let _ = messages.send(Message::Connected(number, connecting.await));
        });
        number
    }

    /// Hangs up properly: LCP Terminate, Call-Clear-Request, Stop-Control-Connection-Request.
    pub(crate) fn hang_up(&mut self, number: u32) {
        let now = self.now();
        self.begin_ending(number, now);
        self.pump(number, now);
    }

    /// Everybody hangs up.
    pub(crate) fn hang_up_all(&mut self) {
        let all: Vec<u32> = self.callers.keys().copied().collect();
        for number in all {
            self.hang_up(number);
        }
    }

    /// Leaves in another way.
    pub(crate) fn leave(&mut self, number: u32, way: Leave) {
        let now = self.now();
        let Some(caller) = self.callers.get_mut(&number) else {
            return;
        };
        let id = caller.id;
        caller.ending.get_or_insert(now + END_LIMIT);
        match (way, &mut caller.subscriber) {
            (Leave::Terminate, Some(subscriber)) => drop(subscriber.terminate(id, now)),
            (Leave::Clear, Some(subscriber)) => drop(subscriber.clear_only(id, now)),
            // Who has no connection yet has nothing to say on it.
            (Leave::Terminate | Leave::Clear, None) => {}
            (Leave::Reset, _) => {
                if let Some(writer) = caller.writer.take() {
                    writer.reset();
                }
                self.forget(number);
            }
            (Leave::PowerCut(off), _) => {
                if let Some(writer) = caller.writer.take() {
                    writer.vanish(off);
                }
                self.forget(number);
            }
        }
        self.pump(number, now);
    }

    /// Negotiates LCP or IPCP of a call anew, and all that stands on it.
    pub(crate) fn renegotiate(&mut self, number: u32, protocol: Protocol) {
        let now = self.now();
        if let Some(caller) = self.callers.get_mut(&number)
            && let Some(subscriber) = &mut caller.subscriber
        {
            subscriber.renegotiate(caller.id, protocol, now);
        }
        self.pump(number, now);
    }

    /// Sends an LCP Echo-Request beside those that go by the clock.
    pub(crate) fn probe(&mut self, number: u32) {
        let now = self.now();
        if let Some(caller) = self.callers.get_mut(&number)
            && let Some(subscriber) = &mut caller.subscriber
        {
            subscriber.probe(caller.id);
        }
        self.pump(number, now);
    }
}

/// Sleeps until a time, or for ever.
pub(crate) async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
