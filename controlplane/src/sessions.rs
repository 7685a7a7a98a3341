//! The calls there are, for operators: who, where from, how far; and the captures that run.
//!
//! Tunnels publish what they hold; operators read it without asking a tunnel. Counters come from the workers.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use turnpike_dataplane::api::{CallRef, CaptureSide, Captured, Direction};
use turnpike_protocol::CallId;

use crate::admin::{CAPTURE_BACKLOG, Killed, Packet, Selector, Side};
use crate::cause::Cause;
use crate::switchboard::CaptureSink;
use crate::tunnel::Snapshot;

/// What a tunnel's task is asked to do from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// End one call.
    Kill(CallRef, Cause),
    /// Close the connection: it has said nothing of use, and somebody else needs its place.
    Displace,
}

/// One call as its tunnel published it last.
#[derive(Clone)]
pub struct Entry {
    /// The control connection, as log lines name it.
    pub tunnel: u64,
    /// What is known of the call.
    pub snapshot: Snapshot,
    orders: mpsc::UnboundedSender<Order>,
}

/// All calls, and the captures that wait for packets.
#[derive(Default)]
pub struct Sessions {
    /// By id first: that is the order in which operators see them.
    entries: Mutex<BTreeMap<(CallId, CallRef), Entry>>,
    captures: Mutex<Vec<Arc<Capture>>>,
}

impl Sessions {
    /// Takes what a tunnel holds now in place of what it held before; `held` is the tunnel's own list of that.
    /// Answers with captures that a call has to be added to.
    pub fn publish(
        &self,
        tunnel: u64,
        snapshots: impl Iterator<Item = Snapshot>,
        held: &mut Vec<CallRef>,
        orders: &mpsc::UnboundedSender<Order>,
    ) -> Vec<(CallRef, Arc<Capture>)> {
        let before = std::mem::take(held);
        let mut entries = lock(&self.entries);
        let mut captures = lock(&self.captures);
        captures.retain(|capture| !capture.is_closed());
        let mut wanted = Vec::new();
        for snapshot in snapshots {
            let call = snapshot.call;
            held.push(call);
            for capture in captures.iter() {
                if capture.wants(&snapshot) {
                    wanted.push((call, capture.clone()));
                }
            }
            let entry = Entry {
                tunnel,
                snapshot,
                orders: orders.clone(),
            };
            entries.insert((call.id, call), entry);
        }
        for gone in before {
            if !held.contains(&gone) {
                entries.remove(&(gone.id, gone));
            }
        }
        wanted
    }

    /// All calls, in the order of their ids.
    pub fn all(&self) -> Vec<Entry> {
        lock(&self.entries).values().cloned().collect()
    }

    /// How many calls there are.
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether there is no call.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells the tunnels to end every call that `selector` names.
    pub fn kill(&self, selector: &Selector, cause: Cause) -> Vec<Killed> {
        let mut killed = Vec::new();
        for entry in lock(&self.entries).values() {
            let Snapshot {
                call,
                user,
                address,
                ..
            } = &entry.snapshot;
            if selects(selector, &entry.snapshot)
                && entry.orders.send(Order::Kill(*call, cause)).is_ok()
            {
                killed.push(Killed {
                    call_id: call.id.0,
                    user: user.clone(),
                    client: call.peer,
                    address: *address,
                });
            }
        }
        killed
    }

    /// Starts a capture; answers with its packets and with the calls that it must be added to now. Worker clocks
    /// started at `origin_unix_nanos`, in nanoseconds since 1970.
    pub fn capture(
        &self,
        selector: Selector,
        origin_unix_nanos: u64,
    ) -> (mpsc::Receiver<Packet>, Vec<(CallRef, Arc<Capture>)>) {
        let (packets, receiver) = mpsc::channel(CAPTURE_BACKLOG);
        let capture = Arc::new(Capture {
            selector,
            origin_unix_nanos,
            packets,
            lost: Default::default(),
            attached: Mutex::default(),
        });
        // Listed before the calls are read, as publish() locks in this order too: no call falls between.
        let entries = lock(&self.entries);
        lock(&self.captures).push(capture.clone());
        let wanted = entries
            .values()
            .filter(|entry| capture.wants(&entry.snapshot))
            .map(|entry| (entry.snapshot.call, capture.clone()))
            .collect();
        (receiver, wanted)
    }
}

/// A capture that runs.
pub struct Capture {
    selector: Selector,
    origin_unix_nanos: u64,
    packets: mpsc::Sender<Packet>,
    /// Packets lost since the last one that came through, outer and inner.
    lost: [AtomicU64; 2],
    /// Calls that it has been added to. Grows with the calls seen while it runs; a capture is a short thing.
    attached: Mutex<HashSet<CallRef>>,
}

impl Capture {
    /// True once for every call that it should be added to.
    fn wants(&self, snapshot: &Snapshot) -> bool {
        selects(&self.selector, snapshot) && lock(&self.attached).insert(snapshot.call)
    }
}

impl CaptureSink for Capture {
    fn packet(&self, packet: &Captured) {
        let (side, lost) = match packet.side {
            CaptureSide::Outer => (Side::Outer, &self.lost[0]),
            CaptureSide::Inner => (Side::Inner, &self.lost[1]),
        };
        let Ok(slot) = self.packets.try_reserve() else {
            lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        slot.send(Packet {
            call_id: packet.call.id.0,
            unix_nanos: self.origin_unix_nanos.saturating_add(packet.at.as_nanos()),
            side,
            inbound: packet.direction == Direction::Receive,
            original_len: u32::from(packet.original_len),
            bytes: packet.bytes[..usize::from(packet.len)].to_vec(),
            lost: lost.swap(0, Ordering::Relaxed),
        });
    }

    fn is_closed(&self) -> bool {
        self.packets.is_closed()
    }
}

fn selects(selector: &Selector, snapshot: &Snapshot) -> bool {
    selector.matches(
        snapshot.call.id.0,
        snapshot.user.as_deref(),
        snapshot.call.peer,
        snapshot.address,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole between any two statements, so a panic elsewhere does not spoil them.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
