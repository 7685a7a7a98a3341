//! The only holder of ring ends: one task per worker moves commands down and events up.
//!
//! Tunnels send commands through [`Switchboard::send`], which waits when a worker's ring is full: nothing accepted is
//! lost. Events go to the tunnel that registered the call. The order of one tunnel's commands is kept per worker.

mod inbox;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use turnpike_dataplane::api::{
    CallCounters, CallRef, Captured, Command, Datagram, Event, MAX_DATAGRAM, Owners,
};
use turnpike_dataplane::counters::Counters;
use turnpike_dataplane::rings::{ControlEnd, Full};
use turnpike_dataplane::wake::Wake;
use turnpike_protocol::CallId;

use crate::async_fd::watch;

pub use inbox::{Inbox, Letter, Mail};

/// Commands that may wait between the tunnels and one worker's ring.
const QUEUE: usize = 256;

/// How long a worker may take to answer a query before the answer is given up.
const QUERY_TIME: Duration = Duration::from_millis(500);

/// Where captured packets of a call go.
pub trait CaptureSink: Send + Sync {
    /// One packet.
    fn packet(&self, packet: &Captured);

    /// Whether nobody wants packets any more.
    fn is_closed(&self) -> bool;
}

enum Order {
    Register {
        call: CallRef,
        inbox: Inbox,
    },
    Command {
        /// Boxed: commands hold their frame inline.
        command: Box<Command>,
        /// Told when the command lies in the ring.
        queued: Option<oneshot::Sender<()>>,
    },
    Query {
        call: CallRef,
        reply: oneshot::Sender<CallCounters>,
    },
    Capture {
        call: CallRef,
        sink: Arc<dyn CaptureSink>,
    },
    Datagram(Box<Datagram>),
}

/// What the switchboard itself counts.
#[derive(Debug, Default)]
pub struct Losses {
    /// Control frames for a tunnel that does not keep up.
    pub inbox_full: AtomicU64,
    /// Control frames that found a worker's event ring full.
    pub event_ring_full: AtomicU64,
    /// Events for a call that no tunnel holds any more.
    pub no_tunnel: AtomicU64,
    /// Datagrams from Linux that found a ring full or were too long.
    pub datagrams: AtomicU64,
}

impl Losses {
    /// All of them by name.
    pub fn by_name(&self) -> [(String, u64); 4] {
        [
            ("frames_lost_inbox_full", &self.inbox_full),
            ("frames_lost_event_ring_full", &self.event_ring_full),
            ("events_without_tunnel", &self.no_tunnel),
            ("datagrams_lost", &self.datagrams),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
    }
}

/// The way to all workers. Cheap to clone.
#[derive(Clone)]
pub struct Switchboard {
    lines: Arc<[mpsc::Sender<Order>]>,
    counters: Arc<[Arc<Counters>]>,
    owners: Owners,
    losses: Arc<Losses>,
}

/// The workers do not answer any more: the server is going down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the workers have stopped")]
pub struct Stopped;

impl Switchboard {
    /// Takes over the ring ends, one per worker in their order, and starts a task for each. The tasks end when the
    /// last clone of the switchboard is dropped and what was accepted has been delivered.
    ///
    /// # Errors
    /// When a worker's eventfd cannot be watched.
    pub fn start(ends: Vec<ControlEnd>, owners: Owners) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let losses = Arc::new(Losses::default());
        let mut lines = Vec::new();
        let mut counters = Vec::new();
        let mut tasks = Vec::new();
        for end in ends {
            let (orders, queue) = mpsc::channel(QUEUE);
            lines.push(orders);
            counters.push(end.counters.clone());
            let line = Line {
                wake: watch(WakeFd(end.wake.clone()))?,
                end,
                queue,
                pending: None,
                inboxes: HashMap::new(),
                queries: HashMap::new(),
                captures: HashMap::new(),
                losses: losses.clone(),
            };
            tasks.push(tokio::spawn(line.run()));
        }
        let switchboard = Self {
            lines: lines.into(),
            counters: counters.into(),
            owners,
            losses,
        };
        Ok((switchboard, tasks))
    }

    /// Says where events of a call go; before its [`Command::Open`].
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn register(&self, call: CallRef, inbox: Inbox) -> Result<(), Stopped> {
        self.order(call.id, Order::Register { call, inbox }).await
    }

    /// Sends a command: to the owner of the call it names, or to every worker when it names a route, a neighbour or
    /// the worker itself. Waits while rings are full. A command that opens a call, or one for every worker, lies in the
    /// ring when this returns: what is told to the client or to another worker after it comes later.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.send_boxed(Box::new(command)).await
    }

    /// The same with a command that a task holds on to: it would have room for the longest of them otherwise.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn send_boxed(&self, command: Box<Command>) -> Result<(), Stopped> {
        let Some(call) = command.call() else {
            return self.broadcast(&command).await;
        };
        // What follows the opening of a call goes to the client by TCP, which no ring holds back: its first frame may
        // come a fraction of a millisecond later.
        let (queued, receipt) = if matches!(*command, Command::Open { .. }) {
            let (queued, receipt) = oneshot::channel();
            (Some(queued), Some(receipt))
        } else {
            (None, None)
        };
        self.order(call.id, Order::Command { command, queued })
            .await?;
        match receipt {
            Some(receipt) => receipt.await.map_err(|_| Stopped),
            None => Ok(()),
        }
    }

    /// The counters of a call; `None` when no worker has it or the worker does not answer in time.
    pub async fn query(&self, call: CallRef) -> Option<CallCounters> {
        let (reply, answer) = oneshot::channel();
        self.order(call.id, Order::Query { call, reply })
            .await
            .ok()?;
        tokio::time::timeout(QUERY_TIME, answer).await.ok()?.ok()
    }

    /// Copies a call's packets to `sink` until that is closed or the call ends.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn capture(&self, call: CallRef, sink: Arc<dyn CaptureSink>) -> Result<(), Stopped> {
        self.order(call.id, Order::Capture { call, sink }).await
    }

    /// Hands an IPv4 datagram of protocol 47 that Linux received to the owner of its call. Never waits: what does
    /// not fit is dropped and counted, as a network would.
    pub fn datagram(&self, octets: &[u8]) {
        let id = gre_call_id(octets).filter(|_| octets.len() <= MAX_DATAGRAM);
        let Some(id) = id else {
            self.losses.datagrams.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut datagram = Box::new(Datagram {
            // At most MAX_DATAGRAM, which fits.
            len: octets.len() as u16,
            bytes: [0; MAX_DATAGRAM],
        });
        datagram.bytes[..octets.len()].copy_from_slice(octets);
        let owner = usize::from(self.owners.owner(id).0);
        let sent = self
            .lines
            .get(owner)
            .is_some_and(|line| line.try_send(Order::Datagram(datagram)).is_ok());
        if !sent {
            self.losses.datagrams.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What each worker counts.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// What was lost on the way.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    async fn order(&self, id: CallId, order: Order) -> Result<(), Stopped> {
        let owner = usize::from(self.owners.owner(id).0);
        let line = self.lines.get(owner).ok_or(Stopped)?;
        line.send(order).await.map_err(|_| Stopped)
    }

    async fn broadcast(&self, command: &Command) -> Result<(), Stopped> {
        let mut receipts = Vec::with_capacity(self.lines.len());
        for line in self.lines.iter() {
            let Some(command) = copy(command).map(Box::new) else {
                continue;
            };
            let (queued, receipt) = oneshot::channel();
            let order = Order::Command {
                command,
                queued: Some(queued),
            };
            line.send(order).await.map_err(|_| Stopped)?;
            receipts.push(receipt);
        }
        for receipt in receipts {
            receipt.await.map_err(|_| Stopped)?;
        }
        Ok(())
    }
}

/// Commands that go to every worker hold no secret and may be copied.
fn copy(command: &Command) -> Option<Command> {
    Some(match command {
        Command::Route { prefix, call } => Command::Route {
            prefix: *prefix,
            call: *call,
        },
        Command::Unroute { prefix } => Command::Unroute { prefix: *prefix },
        Command::Pool { prefix } => Command::Pool { prefix: *prefix },
        Command::Local { address, ours } => Command::Local {
            address: *address,
            ours: *ours,
        },
        Command::Route6 { prefix, call } => Command::Route6 {
            prefix: *prefix,
            call: *call,
        },
        Command::Unroute6 { prefix } => Command::Unroute6 { prefix: *prefix },
        Command::Pool6 { prefix } => Command::Pool6 { prefix: *prefix },
        Command::Neighbour { port, address, mac } => Command::Neighbour {
            port: *port,
            address: *address,
            mac: *mac,
        },
        Command::DefaultRoute { via } => Command::DefaultRoute { via: *via },
        Command::Stop => Command::Stop,
        Command::Open { .. }
        | Command::Via { .. }
        | Command::Send { .. }
        | Command::SendInner { .. }
        | Command::Secure { .. }
        | Command::Forward { .. }
        | Command::Echo { .. }
        | Command::Hold { .. }
        | Command::Forward6 { .. }
        | Command::Hold6 { .. }
        | Command::Query { .. }
        | Command::Capture { .. }
        | Command::Close { .. } => return None,
    })
}

/// The call id of an enhanced GRE packet in an IPv4 datagram (RFC 2637 §4.1); the owner checks everything else.
fn gre_call_id(datagram: &[u8]) -> Option<CallId> {
    let header = usize::from(datagram.first()? & 0x0f) * 4;
    let key = datagram.get(header + 6..header + 8)?;
    Some(CallId(u16::from_be_bytes([key[0], key[1]])))
}

/// An eventfd shared with the worker, as tokio wants to see it.
struct WakeFd(Arc<Wake>);

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for WakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One worker's task.
struct Line {
    end: ControlEnd,
    wake: AsyncFd<WakeFd>,
    queue: mpsc::Receiver<Order>,
    /// A command that found the ring full; nothing is taken from the queue before it has gone.
    pending: Option<(Command, Option<oneshot::Sender<()>>)>,
    inboxes: HashMap<CallRef, Inbox>,
    queries: HashMap<CallRef, Vec<oneshot::Sender<CallCounters>>>,
    captures: HashMap<CallRef, Vec<Arc<dyn CaptureSink>>>,
    losses: Arc<Losses>,
}

/// Events, and captured packets, taken from a worker's rings before its commands get their turn.
const EVENTS_AT_ONCE: usize = 256;

impl Line {
    async fn run(mut self) {
        let mut open = true;
        loop {
            self.take_events();
            self.take_captured();
            let mut moved = self.push_pending();
            while self.pending.is_none() {
                match self.queue.try_recv() {
                    Ok(order) => {
                        self.carry_out(order);
                        moved = true;
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
            }
            // Once for all of them: a worker that shares its processor with us would take its turn for each.
            self.end.commands.ring();
            if !open && self.pending.is_none() {
                return;
            }
            if moved {
                // Other tasks of this thread get their turn between two loads.
                tokio::task::yield_now().await;
                continue;
            }
            self.wake.get_ref().0.prepare();
            let idle = self.end.events.is_empty()
                && self.end.captured.is_empty()
                && (self.pending.is_none() || self.end.commands.room() == 0);
            if idle {
                tokio::select! {
                    guard = self.wake.readable() => {
                        self.end.wake.finish();
                        match guard {
                            Ok(mut guard) => guard.clear_ready(),
                            Err(_) => return,
                        }
                    }
                    order = self.queue.recv(), if self.pending.is_none() => {
                        self.end.wake.finish();
                        match order {
                            // What it comes to is rung for together with what follows.
                            Some(order) => self.carry_out(order),
                            None => return,
                        }
                    }
                }
            } else {
                self.end.wake.finish();
                tokio::task::yield_now().await;
            }
        }
    }

    /// True when a command has found its way into the ring.
    fn push_pending(&mut self) -> bool {
        let Some((command, queued)) = self.pending.take() else {
            return false;
        };
        self.push(command, queued);
        self.pending.is_none()
    }

    fn push(&mut self, command: Command, queued: Option<oneshot::Sender<()>>) {
        match self.end.commands.queue(command) {
            Ok(()) => {
                if let Some(queued) = queued {
                    let _ = queued.send(());
                }
            }
            Err(Full(command)) => self.pending = Some((command, queued)),
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Register { call, inbox } => {
                self.inboxes.insert(call, inbox);
            }
            Order::Command { command, queued } => self.push(*command, queued),
            Order::Query { call, reply } => {
                // A call that is not registered has no counters: the reply is dropped.
                if self.inboxes.contains_key(&call) {
                    self.queries.entry(call).or_default().push(reply);
                    self.push(Command::Query { call }, None);
                }
            }
            Order::Capture { call, sink } => {
                if self.inboxes.contains_key(&call) {
                    self.captures.entry(call).or_default().push(sink);
                    self.push(Command::Capture { call, on: true }, None);
                }
            }
            Order::Datagram(datagram) => {
                if !self.end.datagrams.push(*datagram) {
                    self.losses.datagrams.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn take_events(&mut self) {
        // Bounded, so that commands get their turn whatever comes; the ring is looked at again before sleeping.
        for _ in 0..EVENTS_AT_ONCE {
            let Ok(event) = self.end.events.pop() else {
                return;
            };
            match event {
                Event::Frame { call, .. }
                | Event::Inner { call, .. }
                | Event::Bound { call, .. }
                | Event::Garbled { call } => self.deliver(call, event),
                Event::Counters { call, counters } => {
                    // As many answers come as were asked for: what no operator waits for is for the tunnel.
                    if !self.answer(call, counters) {
                        self.deliver(call, event);
                    }
                }
                Event::Closed { call, counters } => {
                    self.answer(call, counters);
                    self.captures.remove(&call);
                    self.deliver(call, event);
                    self.inboxes.remove(&call);
                }
                Event::Lost { frames } => {
                    self.losses
                        .event_ring_full
                        .fetch_add(frames, Ordering::Relaxed);
                    tracing::warn!(
                        frames,
                        "a worker's event ring was full; PPP frames were lost"
                    );
                }
            }
        }
    }

    fn deliver(&mut self, call: CallRef, event: Event) {
        let lost = match self.inboxes.get(&call) {
            Some(inbox) if inbox.deliver(event) => return,
            Some(_) => &self.losses.inbox_full,
            None => &self.losses.no_tunnel,
        };
        lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells operators who asked; whether there was one.
    fn answer(&mut self, call: CallRef, counters: CallCounters) -> bool {
        let Some(replies) = self.queries.remove(&call) else {
            return false;
        };
        for reply in replies {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(counters);
        }
        true
    }

    fn take_captured(&mut self) {
        for _ in 0..EVENTS_AT_ONCE {
            let Ok(packet) = self.end.captured.pop() else {
                return;
            };
            let Some(sinks) = self.captures.get_mut(&packet.call) else {
                continue;
            };
            sinks.retain(|sink| !sink.is_closed());
            for sink in sinks.iter() {
                sink.packet(&packet);
            }
            if sinks.is_empty() && self.pending.is_none() {
                let call = packet.call;
                self.captures.remove(&call);
                self.push(Command::Capture { call, on: false }, None);
            }
        }
    }
}
