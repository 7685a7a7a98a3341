//! Which calls owe an acknowledgement, and when: a wheel of singly linked lists of entries out of one pool.
//!
//! An entry is not taken out when its call owes nothing any longer, or owes it at another time: that is seen when it
//! expires, by what the call itself says. So an insertion touches the call's line, which is at hand, and the entry that
//! was used last: no neighbours in a list, which would be in no cache with many calls. A tick is that of
//! [`wheel`](crate::wheel); a call may come up to one tick early. Nothing is allocated after start.

use turnpike_protocol::Time;

use crate::wheel::{TICK_SHIFT, tick};

/// Lists of the wheel, and bits of the mask that says which ones are not empty.
const LISTS: u64 = 128;

/// Entries beside one for each call. A call has more than one only where it sends so many packets that it is
/// acknowledged by number, again and again.
const SPARE: usize = 4096;

const NONE: u32 = u32::MAX;
const NO_LIST: u8 = u8::MAX;

/// Where a call waits. Its own state, which entries are compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The list with its earliest entry.
    list: u8,
    /// It is among those of this turn.
    at_once: bool,
}

impl Place {
    /// It does not wait.
    pub(crate) const NONE: Self = Self {
        list: NO_LIST,
        at_once: false,
    };
}

/// What says that a call's time has come, unless it was given up meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The call's slot.
    pub(crate) slot: u32,
    /// The list that it was in; [`NO_LIST`]: at once.
    list: u8,
}

impl Entry {
    /// Whether the call is to be acknowledged now, though it may have time: there was no room for it to wait.
    #[inline]
    pub(crate) const fn is_at_once(self) -> bool {
        self.list == NO_LIST
    }

    /// Whether this entry is the one that the call in its slot waits with. It does so no longer.
    #[inline]
    pub(crate) fn take(self, place: &mut Place) -> bool {
        if self.is_at_once() {
            return core::mem::take(&mut place.at_once);
        }
        let waits = place.list == self.list;
        if waits {
            place.list = NO_LIST;
        }
        waits
    }
}

struct Node {
    slot: u32,
    next: u32,
}

/// The calls of one worker that owe an acknowledgement.
pub(crate) struct Acks {
    heads: [u32; LISTS as usize],
    /// Lists that are not empty.
    filled: u128,
    /// Written as they are needed for the first time; never more than there is room for.
    nodes: Vec<Node>,
    /// Those in no list, last used first, as they are in a cache.
    free: u32,
    /// Slots of this turn, each once; those before `done` have had their turn.
    at_once: Vec<u32>,
    done: usize,
    /// The tick up to which lists have been emptied.
    tick: u64,
}

impl Acks {
    /// For call slots `0..calls`.
    pub(crate) fn new(calls: usize) -> Self {
        Self::with_entries(calls, calls + SPARE)
    }

    fn with_entries(calls: usize, entries: usize) -> Self {
        Self {
            heads: [NONE; LISTS as usize],
            filled: 0,
            nodes: Vec::with_capacity(entries),
            free: NONE,
            at_once: Vec::with_capacity(calls),
            done: 0,
            tick: 0,
        }
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of::<Node>() * self.nodes.capacity() + size_of::<u32>() * self.at_once.capacity()
    }

    /// A call is to come up by `due`; it does no later than it would have.
    #[inline]
    pub(crate) fn watch(&mut self, place: &mut Place, slot: u32, due: Time, now: Time) {
        if due <= now {
            return self.now(place, slot);
        }
        if self.filled == 0 {
            // After a long rest the wheel is where time is.
            self.tick = self.tick.max(tick(now));
        }
        let due = tick(due).clamp(self.tick, self.tick + LISTS - 1);
        let ahead = u64::from(place.list).wrapping_sub(self.tick) % LISTS;
        if place.list != NO_LIST && self.tick + ahead <= due {
            return;
        }
        let at = match self.free {
            NONE if self.nodes.len() < self.nodes.capacity() => {
                self.nodes.push(Node { slot, next: NONE });
                // There are fewer than `NONE`.
                (self.nodes.len() - 1) as u32
            }
            NONE => return self.now(place, slot),
            at => {
                self.free = self.nodes[at as usize].next;
                at
            }
        };
        let list = (due % LISTS) as u8;
        let head = &mut self.heads[usize::from(list)];
        self.nodes[at as usize] = Node { slot, next: *head };
        *head = at;
        self.filled |= 1 << list;
        place.list = list;
    }

    fn now(&mut self, place: &mut Place, slot: u32) {
        if place.at_once {
            return;
        }
        if self.at_once.len() == self.at_once.capacity() {
            self.at_once.drain(..core::mem::take(&mut self.done));
        }
        debug_assert!(
            self.at_once.len() < self.at_once.capacity(),
            "once for each call"
        );
        self.at_once.push(slot);
        place.at_once = true;
    }

    /// A call is over: the next one in its slot begins without a [`Place`].
    pub(crate) fn forget(&mut self, place: Place, slot: u32) {
        // Few calls end while they wait for a turn that is full.
        if place.at_once {
            self.at_once.drain(..core::mem::take(&mut self.done));
            self.at_once.retain(|waiting| *waiting != slot);
        }
    }

    /// Takes out the next entry whose time has come, until there is none.
    #[inline]
    pub(crate) fn expire(&mut self, now: Time) -> Option<Entry> {
        if let Some(&slot) = self.at_once.get(self.done) {
            self.done += 1;
            if self.done == self.at_once.len() {
                self.at_once.clear();
                self.done = 0;
            }
            return Some(Entry {
                slot,
                list: NO_LIST,
            });
        }
        let until = tick(now);
        let ahead = self.ahead();
        if ahead == LISTS || self.tick + ahead > until {
            self.tick = self.tick.max(until);
            return None;
        }
        self.tick += ahead;
        let list = (self.tick % LISTS) as u8;
        let head = &mut self.heads[usize::from(list)];
        let at = *head;
        let node = &mut self.nodes[at as usize];
        *head = node.next;
        if *head == NONE {
            self.filled &= !(1 << list);
        }
        node.next = self.free;
        self.free = at;
        Some(Entry {
            slot: node.slot,
            list,
        })
    }

    /// Ticks from where the wheel is to its first entry.
    #[inline]
    fn ahead(&self) -> u64 {
        let filled = self.filled.rotate_right((self.tick % LISTS) as u32);
        u64::from(filled.trailing_zeros())
    }

    /// When the next entry expires; at most one tick before it was asked to.
    pub(crate) fn next(&self) -> Option<Time> {
        if self.done < self.at_once.len() {
            return Some(Time::ZERO);
        }
        let ahead = self.ahead();
        (ahead < LISTS).then(|| Time::from_nanos((self.tick + ahead) << TICK_SHIFT))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALLS: u32 = 6;

    fn at(tick: u64) -> Time {
        Time::from_nanos((1_000 + tick) << TICK_SHIFT)
    }

    proptest! {
        /// A call that is owed something comes up at its tick, or before; one that is owed nothing only if it was once;
        /// and the pool is whole in the end. Slots change their calls meanwhile, and the pool is short.
        #[test]
        fn nobody_is_forgotten(
            entries in 0_usize..12,
            steps in proptest::collection::vec((0..CALLS, 0_u64..126, 0_u8..8), 0..300),
        ) {
            let mut acks = Acks::with_entries(CALLS as usize, entries);
            let mut places = [Place::NONE; CALLS as usize];
            let mut owed = [None::<u64>; CALLS as usize];
            let mut now = 0;
            for (slot, n, what) in steps {
                let call = slot as usize;
                match what {
                    // Sooner than before, or for the first time.
                    0..=3 => {
                        let due = owed[call].map_or(now + n, |due| due.min(now + n));
                        owed[call] = Some(due);
                        acks.watch(&mut places[call], slot, at(due), at(now));
                    }
                    // Data carried it.
                    4 => owed[call] = None,
                    // Another call.
                    5 => {
                        acks.forget(places[call], slot);
                        owed[call] = None;
                        places[call] = Place::NONE;
                    }
                    _ => now += n / 4,
                }
                if what > 5 {
                    while let Some(entry) = acks.expire(at(now)) {
                        let call = entry.slot as usize;
                        if !entry.take(&mut places[call]) {
                            continue;
                        }
                        match owed[call] {
                            Some(due) if due > now && !entry.is_at_once() => {
                                acks.watch(&mut places[call], entry.slot, at(due), at(now));
                                if places[call].at_once {
                                    // There was no room.
                                    prop_assert!(acks.nodes.len() == acks.nodes.capacity());
                                }
                            }
                            _ => owed[call] = None,
                        }
                    }
                    prop_assert!(owed.iter().flatten().all(|due| *due > now));
                    prop_assert!(acks.next().is_none_or(|next| next > at(now)));
                }
                let first = owed.iter().flatten().min();
                prop_assert!(first.is_none_or(|due| acks.next().is_some_and(|next| next <= at(*due))));
                prop_assert!(acks.nodes.capacity() == entries && acks.at_once.len() <= CALLS as usize);
            }
            while acks.expire(at(now + 1_000)).is_some() {}
            prop_assert_eq!(acks.filled, 0);
            let used = |at: u32| (at != NONE).then_some(at);
            let free = core::iter::successors(used(acks.free), |at| used(acks.nodes[*at as usize].next));
            prop_assert_eq!(free.count(), acks.nodes.len());
        }
    }

    #[test]
    fn after_a_long_rest_times_are_kept() {
        let mut acks = Acks::new(1);
        let mut place = Place::NONE;
        acks.watch(&mut place, 0, at(50_000_000), at(49_999_950));
        assert_eq!(acks.next(), Some(at(50_000_000)));
        assert_eq!(acks.expire(at(49_999_999)), None);
        let entry = acks.expire(at(50_000_000)).unwrap();
        assert!(entry.take(&mut place));
        assert_eq!((place, acks.next()), (Place::NONE, None));
    }

    #[test]
    fn an_entry_of_a_call_that_is_over_is_nobodys() {
        let mut acks = Acks::new(1);
        let mut place = Place::NONE;
        acks.watch(&mut place, 0, at(5), at(0));
        acks.watch(&mut place, 0, at(0), at(0));
        acks.forget(place, 0);
        place = Place::NONE;
        acks.watch(&mut place, 0, at(7), at(0));
        let entry = acks.expire(at(6)).unwrap();
        assert!(!entry.take(&mut place));
        assert_eq!(acks.expire(at(6)), None);
        assert!(acks.expire(at(7)).unwrap().take(&mut place));
    }
}
