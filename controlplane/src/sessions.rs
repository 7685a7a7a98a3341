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
use crate::post;
use crate::switchboard::CaptureSink;
use crate::tunnel::Snapshot;

/// What a tunnel's task is asked to do from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// End one call.
    Kill(CallRef, Cause),
    /// End one call now: its user has logged in again. Nobody is waited for, since the client may have crashed.
    Replace(CallRef),
    /// Say nothing for a moment: a call that begins on another connection from the client's address has the same id.
    Hush,
    /// Find out at once whether the client lives: a call of another connection from its address has the same id.
    Doubt,
    /// Close the connection: it has said nothing of use, and somebody else needs its place.
    Displace,
}

/// The packets of a capture, and the calls that it must be added to now.
pub type Capturing = (mpsc::Receiver<Packet>, Vec<(CallRef, Arc<Capture>)>);

/// An id without the client's address, and several clients' calls have it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("several calls have this id; name one of {}", .0.join(", "))]
pub struct Ambiguous(Vec<String>);

/// How many of the calls meant are listed.
const LISTED: usize = 8;

/// Refuses an id that several calls have.
fn unambiguous(
    selector: &Selector,
    entries: &BTreeMap<(CallId, CallRef), Entry>,
) -> Result<(), Ambiguous> {
    let Selector::Call { id, client: None } = selector else {
        return Ok(());
    };
    let meant = entries
        .keys()
        .filter(|(call, _)| call.0 == *id)
        .map(|(call, name)| format!("{call}@{}", name.peer));
    let meant: Vec<_> = meant.take(LISTED).collect();
    if meant.len() > 1 {
        return Err(Ambiguous(meant));
    }
    Ok(())
}

/// One call as its tunnel published it last.
#[derive(Clone)]
pub struct Entry {
    /// The control connection, as log lines name it.
    pub tunnel: u64,
    /// What is known of the call.
    pub snapshot: Snapshot,
    orders: post::Sender<Order>,
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
        orders: &post::Sender<Order>,
    ) -> Vec<(CallRef, Arc<Capture>)> {
        let before = std::mem::take(held);
        let mut entries = lock(&self.entries);
        let mut captures = lock(&self.captures);
        captures.retain(|capture| !capture.is_closed());
        let mut wanted = Vec::new();
        for snapshot in snapshots {
            let call = snapshot.call;
            held.reserve_exact(1);
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
    ///
    /// # Errors
    /// [`Ambiguous`]; then none is told.
    pub fn kill(&self, selector: &Selector, cause: Cause) -> Result<Vec<Killed>, Ambiguous> {
        let mut killed = Vec::new();
        let entries = lock(&self.entries);
        unambiguous(selector, &entries)?;
        for entry in entries.values() {
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
        Ok(killed)
    }

    /// Starts a capture; answers with its packets and with the calls that it must be added to now. Worker clocks
    /// started at `origin_unix_nanos`, in nanoseconds since 1970.
    ///
    /// # Errors
    /// [`Ambiguous`].
    pub fn capture(
        &self,
        selector: Selector,
        origin_unix_nanos: u64,
    ) -> Result<Capturing, Ambiguous> {
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
        unambiguous(&capture.selector, &entries)?;
        lock(&self.captures).push(capture.clone());
        let wanted = entries
            .values()
            .filter(|entry| capture.wants(&entry.snapshot))
            .map(|entry| (entry.snapshot.call, capture.clone()))
            .collect();
        Ok((receiver, wanted))
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
        if !selects(&self.selector, snapshot) {
            return false;
        }
        let mut attached = lock(&self.attached);
        // An id alone means one call: another client's that gets the same id later is not it.
        let other = matches!(self.selector, Selector::Call { client: None, .. })
            && attached.iter().any(|call| call.peer != snapshot.call.peer);
        !other && attached.insert(snapshot.call)
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use turnpike_protocol::Time;

    use super::*;
    use crate::tunnel::Stage;

    const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 7, 0, 2), Ipv4Addr::new(10, 7, 0, 3)];

    fn snapshot(peer: usize, id: u16) -> Snapshot {
        Snapshot {
            call: CallRef {
                local: Ipv4Addr::new(10, 7, 0, 1),
                peer: PEERS[peer],
                id: CallId(id),
            },
            peer_id: CallId(0),
            stage: Stage::Up,
            since: Time::ZERO,
            user: None,
            address: None,
            ipv6: None,
            link: None,
        }
    }

    fn call(id: u16, client: Option<Ipv4Addr>) -> Selector {
        Selector::Call { id, client }
    }

    #[test]
    fn an_id_that_two_calls_have_wants_the_client_too() {
        let sessions = Sessions::default();
        let (orders, mut told) = post::channel();
        let all = [(0, 17), (1, 17), (1, 18)].map(|(peer, id)| snapshot(peer, id));
        sessions.publish(1, all.into_iter(), &mut Vec::new(), &orders);

        let refused = sessions.kill(&call(17, None), Cause::Killed).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "several calls have this id; name one of 17@10.7.0.2, 17@10.7.0.3"
        );
        assert!(told.try_recv().is_none(), "nobody is told");
        assert!(sessions.capture(call(17, None), 0).is_err());

        let killed = sessions
            .kill(&call(17, Some(PEERS[1])), Cause::Killed)
            .unwrap();
        assert_eq!((killed.len(), killed[0].client), (1, PEERS[1]));
        assert_eq!(
            told.try_recv().unwrap(),
            Order::Kill(snapshot(1, 17).call, Cause::Killed)
        );
        assert!(told.try_recv().is_none(), "the other one is not");
        assert_eq!(
            sessions.kill(&call(18, None), Cause::Killed).unwrap().len(),
            1
        );
        assert!(
            sessions
                .kill(&call(19, None), Cause::Killed)
                .unwrap()
                .is_empty()
        );
        let (_, wanted) = sessions.capture(call(17, Some(PEERS[0])), 0).unwrap();
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].0, snapshot(0, 17).call);
    }

    #[test]
    fn a_capture_by_id_stays_with_the_call_it_began_with() {
        let sessions = Sessions::default();
        let (orders, _told) = post::channel();
        let (_packets, wanted) = sessions.capture(call(17, None), 0).unwrap();
        assert!(wanted.is_empty());
        let publish = |snapshot| {
            let held = &mut Vec::new();
            sessions
                .publish(1, core::iter::once(snapshot), held, &orders)
                .len()
        };
        assert_eq!(publish(snapshot(1, 17)), 1);
        assert_eq!(publish(snapshot(0, 17)), 0);
        assert_eq!(publish(snapshot(1, 18)), 0);
    }
}
