//! The worker: one turn after the other over a device and the rings.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use std::sync::Arc;

use rtrb::Consumer;
use turnpike_protocol::gre::AckSettings;
use turnpike_protocol::mppe::Dialect;
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_protocol::{Role, Time};

use crate::api::{Command, Datagram, Owners, Port, PortInfo, SourceCheck, WorkerId};
use crate::burst::Bursts;
use crate::commands;
use crate::counters::{Counters, Total};
use crate::device::{BATCH, Batch, Device};
use crate::handoff::Origin;
use crate::path::{Arrival, Core, Path};
pub use crate::reorder::{MAX_TIME, Reordering};
use crate::rings::WorkerEnd;
use crate::wake::Wake;
use crate::wheel;

/// Datagrams from Linux that one turn takes: each may be a whole chain of fragments, but they are few.
const DATAGRAMS: usize = 16;

/// How long commands wait for room in the event ring until the worker looks again.
const STALL: Duration = Duration::from_millis(1);

/// What a worker is.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its index.
    pub id: WorkerId,
    /// Server: routes lead by destination, and packets are forwarded as by a router. Client: routes lead by source,
    /// and packets are those of the host itself.
    pub role: Role,
    /// Which worker has which call ids; the same in every worker.
    pub owners: Owners,
    /// From where GRE for a call is taken. A client's calls have no control connection to compare with: strict.
    pub source_check: SourceCheck,
    /// Calls it has room for.
    pub calls: usize,
    /// Routes to single addresses it has room for: calls of all workers.
    pub routes: usize,
    /// IPv6 routes it has room for: links and delegations of calls of all workers. 0 where there is no IPv6.
    pub routes6: usize,
    /// Its ports, in the order of [`Port::ALL`]. The access port must be there.
    pub ports: [Option<PortInfo>; Port::ALL.len()],
    /// Link-layer address of Linux' end of the host port.
    pub host_peer_mac: MacAddr,
    /// Our inner address: packets for it go to Linux, ICMP errors come from it.
    pub server_address: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub server_address6: Option<Ipv6Addr>,
    /// When acknowledgements go out on their own, at the latest: calls with a small window have them sooner. A delay
    /// above 120 ms is cut to that.
    pub acks: AckSettings,
    /// How packets that overtook each other are put back in order.
    pub reordering: Reordering,
}

/// What a turn found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// There was something to do, so there may be more.
    pub busy: bool,
    /// When the next turn is needed, even if nothing comes.
    pub next: Option<Time>,
    /// [`Command::Stop`] came: this was the last turn.
    pub stopped: bool,
}

/// Carries calls over a device.
pub struct Worker<D> {
    path: Path<D>,
    commands: Consumer<Command>,
    datagrams: Consumer<Datagram>,
    control: Arc<Wake>,
    starved: Arc<core::sync::atomic::AtomicBool>,
    wake: Arc<Wake>,
    batches: [Batch; Port::ALL.len()],
    /// Parcels seen at the beginning of the turn, per ring.
    handed_over: Vec<usize>,
    stopped: bool,
    /// Commands wait for room in the event ring.
    stalled: bool,
}

impl<D: Device> Worker<D> {
    /// A worker without calls. All memory that it will ever use is allocated here.
    pub fn new(mut config: WorkerConfig, device: D, end: WorkerEnd) -> Self {
        config.acks.delay = config.acks.delay.min(wheel::MAX_DELAY);
        config.reordering = config.reordering.bounded();
        Self {
            handed_over: vec![0; end.peers.incoming.len()],
            path: Path {
                core: Core::new(config, end.events, end.captured, end.counters),
                peers: end.peers,
                bursts: Bursts::new(),
                device,
            },
            commands: end.commands,
            datagrams: end.datagrams,
            control: end.control,
            starved: end.starved,
            wake: end.wake,
            batches: Default::default(),
            stopped: false,
            stalled: false,
        }
    }

    /// Stateful MPPE of new calls follows this dialect from the start. Else it follows RFC 3078 until the peer has shown
    /// another.
    pub fn assume(&mut self, dialect: Dialect) {
        self.path.core.dialect = Some(dialect);
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.path.device
    }

    /// The device, for tests that let frames arrive.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.path.device
    }

    /// The device back.
    pub fn into_device(self) -> D {
        self.path.device
    }

    /// What it counts.
    pub fn counters(&self) -> &Counters {
        &self.path.core.counters
    }

    /// One turn.
    ///
    /// Frames are taken before commands are drained: a frame that answers a command was received after the command was
    /// queued, so it is never processed before it, however short the round trip.
    pub fn turn(&mut self, now: Time) -> Turn {
        let taken = self.take();
        let datagrams = self.datagrams.slots().min(DATAGRAMS);
        let (executed, stalled) = self.execute(now);
        self.stalled = stalled;
        if self.path.device.overrun(Port::Access) {
            self.path.core.reorder.overrun(now);
        }
        for (port, batch) in Port::ALL.into_iter().zip(&mut self.batches) {
            self.path.receive_all(port, batch, now);
        }
        self.take_parcels(now);
        self.take_datagrams(datagrams, now);
        self.path.release_overdue(now);
        if self.stopped {
            self.path.release_everything(now);
        }
        self.path.flush(now);
        self.path.send_acks(now);
        self.finish();
        let busy = taken || datagrams > 0 || executed > 0;
        if busy {
            self.path.core.counters.add(Total::Turns, 1);
        }
        let due = [self.path.core.acks.next(), self.path.core.reorder.next()];
        let mut next = due.into_iter().flatten().min();
        if stalled {
            let again = now + STALL;
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        Turn {
            busy,
            next,
            stopped: self.stopped,
        }
    }

    /// Takes what ports and other workers have now; says whether there was anything.
    fn take(&mut self) -> bool {
        let mut any = false;
        for (port, batch) in Port::ALL.into_iter().zip(&mut self.batches) {
            if !self.path.device.has(port) {
                continue;
            }
            let n = self.path.device.receive(port, batch);
            if n > 0 {
                any = true;
                let octets = batch.iter().map(|frame| frame.len() as u64).sum();
                self.path.core.counters.add_received(port, n as u64, octets);
            }
        }
        for (waiting, incoming) in self.handed_over.iter_mut().zip(&self.path.peers.incoming) {
            *waiting = incoming.waiting().min(BATCH);
            any |= *waiting > 0;
        }
        any
    }

    /// Drains the command ring; says how many commands were carried out, and whether some wait for room in the event
    /// ring.
    fn execute(&mut self, now: Time) -> (usize, bool) {
        let waiting = self.commands.slots();
        if waiting == 0 {
            return (0, false);
        }
        let Ok(chunk) = self.commands.read_chunk(waiting) else {
            return (0, false);
        };
        let mut executed = 0;
        let mut stalled = false;
        let (first, second) = chunk.as_slices();
        for command in first.iter().chain(second) {
            if commands::wants_answer(command) && !self.path.core.events.has_room_for_answer() {
                stalled = true;
                break;
            }
            executed += 1;
            if !self.path.execute(command, now) {
                self.stopped = true;
                break;
            }
        }
        // Commands are dropped where they lie, and keys with them.
        chunk.commit(executed);
        self.path
            .core
            .counters
            .add(Total::Commands, executed as u64);
        if stalled {
            self.path.core.counters.add(Total::EventStalls, 1);
        }
        (executed, stalled)
    }

    fn take_parcels(&mut self, now: Time) {
        for from in 0..self.handed_over.len() {
            for _ in 0..core::mem::take(&mut self.handed_over[from]) {
                let Some(parcel) = self.path.peers.incoming[from].take() else {
                    break;
                };
                let arrival = Arrival {
                    origin: parcel.origin,
                    handed_over: true,
                };
                self.path.core.counters.add(Total::TakenOver, 1);
                self.path.receive_copy(parcel.octets(), true, arrival, now);
                self.path.peers.incoming[from].give_back(parcel);
            }
        }
    }

    fn take_datagrams(&mut self, n: usize, now: Time) {
        if n == 0 {
            return;
        }
        let Ok(chunk) = self.datagrams.read_chunk(n) else {
            return;
        };
        let (first, second) = chunk.as_slices();
        for datagram in first.iter().chain(second) {
            let len = usize::from(datagram.len).min(datagram.bytes.len());
            let arrival = Arrival {
                origin: Origin::Port(Port::Access),
                handed_over: false,
            };
            self.path.core.counters.add(Total::Datagrams, 1);
            self.path
                .receive_copy(&datagram.bytes[..len], false, arrival, now);
        }
        chunk.commit_all();
    }

    /// One wake-up per ring, and the books.
    fn finish(&mut self) {
        self.path.device.flush();
        self.path.peers.ring();
        self.path.core.events.report_lost();
        let events = self.path.core.events.needs_ring();
        let captured = self.path.core.captured.needs_ring();
        // The other side of the fence in `CommandSender::push`.
        fence(Ordering::SeqCst);
        let starved = self.starved.load(Ordering::Relaxed) && self.commands.slots() == 0;
        if starved {
            self.starved.store(false, Ordering::Relaxed);
        }
        if events || captured || starved {
            self.control.ring();
        }
        let accounts = self.path.device.accounts();
        debug_assert_eq!(
            accounts.held + self.path.core.reorder.len(),
            accounts.total,
            "a turn must leave every chunk with the device, or in a queue"
        );
    }

    /// Sleeps until there is something to do, but no longer than `timeout`.
    pub fn wait(&mut self, timeout: Duration) {
        self.wake.prepare();
        // Commands that wait for room in the event ring are no reason to stay awake: the turn said when to look again.
        let idle = (self.stalled || self.commands.is_empty())
            && self.datagrams.is_empty()
            && !self.path.peers.is_waiting();
        if idle {
            self.path.core.counters.add(Total::Sleeps, 1);
            self.path.device.wait(&self.wake, timeout);
        }
        self.wake.finish();
    }
}
