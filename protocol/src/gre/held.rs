//! The packets that calls hold, and since when: one store for many calls, of fixed size.

use crate::gre::{MAX_HELD, Seq};
use crate::time::Time;

const NONE: u16 = u16::MAX;

/// The packets that one call holds. Plain data; means something to the [`Held`] that filled it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue(u16);

impl Queue {
    /// Holds nothing.
    pub const EMPTY: Self = Self(NONE);

    /// Whether nothing is held.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == NONE
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[derive(Clone, Debug)]
struct Entry<T> {
    seq: Seq,
    since: Time,
    packet: T,
}

/// Where the packets of a call are. Numbers in a queue are no further apart than [`MAX_HELD`], so each has a place of
/// its own.
type Places = [u16; MAX_HELD as usize];

/// All packets that wait for earlier ones; `T` is what the caller holds a packet by.
///
/// Memory for all of them is allocated at start. Holding and taking a packet is constant time; what looks through a
/// queue looks at [`MAX_HELD`] places.
#[derive(Clone, Debug)]
pub struct Held<T> {
    entries: Box<[Option<Entry<T>>]>,
    free: Vec<u16>,
    queues: Box<[Places]>,
    free_queues: Vec<u16>,
}

impl<T> Held<T> {
    /// Room for this many packets, 65,535 at most.
    pub fn new(limit: usize) -> Self {
        let limit = u16::try_from(limit).unwrap_or(NONE);
        let all = || (0..limit).rev().collect::<Vec<_>>();
        Self {
            entries: (0..limit).map(|_| None).collect(),
            free: all(),
            // Each queue that is used has a packet at least.
            queues: vec![[NONE; MAX_HELD as usize]; limit.into()].into_boxed_slice(),
            free_queues: all(),
        }
    }

    /// How many packets are held.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds a packet that [`Receiver::accept`](crate::gre::Receiver::accept) said to hold.
    ///
    /// # Errors
    /// The packet, when there is no room. (Also when its place is taken, which the receiver does not let happen.)
    pub fn hold(&mut self, queue: &mut Queue, seq: Seq, now: Time, packet: T) -> Result<(), T> {
        let Some(at) = self.free.last().copied() else {
            return Err(packet);
        };
        if queue.is_empty() {
            match self.free_queues.pop() {
                Some(free) => *queue = Queue(free),
                None => return Err(packet),
            }
        }
        let place = &mut self.queues[usize::from(queue.0)][place(seq)];
        if *place != NONE {
            return Err(packet);
        }
        *place = at;
        self.free.pop();
        self.entries[usize::from(at)] = Some(Entry {
            seq,
            since: now,
            packet,
        });
        Ok(())
    }

    /// Takes a packet that [`Receiver::release`](crate::gre::Receiver::release) has named. `None` when it is not held.
    pub fn take(&mut self, queue: &mut Queue, seq: Seq) -> Option<T> {
        let places = self.queues.get_mut(usize::from(queue.0))?;
        let at = core::mem::replace(&mut places[place(seq)], NONE);
        let entry = self.entries.get_mut(usize::from(at))?.take()?;
        self.free.push(at);
        if places.iter().all(|place| *place == NONE) {
            self.free_queues.push(queue.0);
            *queue = Queue::EMPTY;
        }
        Some(entry.packet)
    }

    /// Since when the packet that came first has been waiting.
    pub fn since(&self, queue: Queue) -> Option<Time> {
        self.entries(queue).map(|entry| entry.since).min()
    }

    /// The highest number of those that have been waiting since `time` or longer.
    pub fn waiting_since(&self, queue: Queue, time: Time) -> Option<Seq> {
        self.entries(queue)
            .filter(|entry| entry.since <= time)
            .map(|entry| entry.seq)
            .reduce(|a, b| if b.distance(a) > 0 { b } else { a })
    }

    fn entries(&self, queue: Queue) -> impl Iterator<Item = &Entry<T>> {
        let places = self.queues.get(usize::from(queue.0));
        places
            .into_iter()
            .flatten()
            .filter_map(|at| self.entries.get(usize::from(*at))?.as_ref())
    }
}

fn place(seq: Seq) -> usize {
    (seq.0 % u32::from(MAX_HELD)) as usize
}
