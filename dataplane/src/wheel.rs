//! Which call is to be looked at when: a wheel of doubly linked lists over call slots.
//!
//! Everything is constant time and nothing is allocated after start. A tick is about a millisecond; a call may come up
//! to one tick early.

use core::time::Duration;

use turnpike_protocol::Time;

use crate::xsk::pages;

/// log2 of the nanoseconds of a tick.
pub(crate) const TICK_SHIFT: u32 = 20;

/// A tick.
pub(crate) const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);

/// Lists of the wheel, and bits of the mask that says which ones are not empty.
const SLOTS: usize = 128;

/// The longest delay that the wheel can hold.
pub(crate) const MAX_DELAY: Duration = Duration::from_nanos((SLOTS as u64 - 2) << TICK_SHIFT);

const NONE: u32 = u32::MAX;
const IDLE: u8 = u8::MAX;

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    /// The list it is in; [`IDLE`] when it is in none.
    list: u8,
}

/// Whether `due` lies in a later tick than `now`.
pub(crate) fn is_later(due: Time, now: Time) -> bool {
    tick(due) > tick(now)
}

/// The wheel.
pub(crate) struct Wheel {
    heads: [u32; SLOTS],
    filled: u128,
    links: Box<[Link]>,
    /// The tick up to which lists have been emptied.
    tick: u64,
}

pub(crate) fn tick(time: Time) -> u64 {
    time.as_nanos() >> TICK_SHIFT
}

impl Wheel {
    /// A wheel for call slots `0..calls`.
    pub(crate) fn new(calls: usize) -> Self {
        let idle = Link {
            previous: NONE,
            next: NONE,
            list: IDLE,
        };
        Self {
            heads: [NONE; SLOTS],
            filled: 0,
            links: pages::slice(calls, || idle),
            tick: 0,
        }
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of_val(&*self.links)
    }

    /// Whether a call waits.
    #[inline]
    pub(crate) fn contains(&self, call: u32) -> bool {
        self.links[call as usize].list != IDLE
    }

    /// Puts a call where it expires at `due`, wherever it was before. Later than [`MAX_DELAY`] counts as that.
    pub(crate) fn insert(&mut self, call: u32, due: Time) {
        self.remove(call);
        let due = tick(due).clamp(self.tick, self.tick + SLOTS as u64 - 1);
        let list = (due % SLOTS as u64) as usize;
        let next = self.heads[list];
        self.links[call as usize] = Link {
            previous: NONE,
            next,
            list: list as u8,
        };
        if next != NONE {
            self.links[next as usize].previous = call;
        }
        self.heads[list] = call;
        self.filled |= 1 << list;
    }

    /// Takes a call out.
    pub(crate) fn remove(&mut self, call: u32) {
        let Link {
            previous,
            next,
            list,
        } = self.links[call as usize];
        if list == IDLE {
            return;
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        if previous != NONE {
            self.links[previous as usize].next = next;
        } else {
            self.heads[usize::from(list)] = next;
            if next == NONE {
                self.filled &= !(1 << list);
            }
        }
        self.links[call as usize].list = IDLE;
    }

    /// Takes out the next call that is due, until there is none.
    pub(crate) fn expire(&mut self, now: Time) -> Option<u32> {
        let until = tick(now);
        loop {
            // Clear of the ticks before the first that holds a call.
            let ahead = u64::from(
                self.filled
                    .rotate_right((self.tick % SLOTS as u64) as u32)
                    .trailing_zeros(),
            );
            if ahead == SLOTS as u64 || self.tick + ahead > until {
                self.tick = self.tick.max(until);
                return None;
            }
            self.tick += ahead;
            let call = self.heads[(self.tick % SLOTS as u64) as usize];
            if call != NONE {
                self.remove(call);
                return Some(call);
            }
        }
    }

    /// When the next call is due; at most one tick before it was asked to be.
    pub(crate) fn next(&self) -> Option<Time> {
        let ahead = u64::from(
            self.filled
                .rotate_right((self.tick % SLOTS as u64) as u32)
                .trailing_zeros(),
        );
        (ahead < SLOTS as u64).then(|| Time::from_nanos((self.tick + ahead) << TICK_SHIFT))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(tick: u64) -> Time {
        Time::from_nanos(tick << TICK_SHIFT)
    }

    proptest! {
        /// Every call comes out at its tick, once, whatever was inserted, moved and removed.
        #[test]
        fn does_what_a_sorted_map_does(steps in proptest::collection::vec((0_u32..8, 0_u64..126, 0_u8..4), 0..200)) {
            let mut wheel = Wheel::new(8);
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (call, n, what) in steps {
                match what {
                    0 | 1 => {
                        wheel.insert(call, at(now + n));
                        model.insert(call, now + n);
                    }
                    2 => {
                        wheel.remove(call);
                        model.remove(&call);
                    }
                    _ => {
                        now += n;
                        let mut out: Vec<_> = core::iter::from_fn(|| wheel.expire(at(now))).collect();
                        out.sort_unstable();
                        let due: Vec<_> = model.iter().filter(|(_, due)| **due <= now).map(|(c, _)| *c).collect();
                        prop_assert_eq!(out, due);
                        model.retain(|_, due| *due > now);
                    }
                }
                prop_assert_eq!(wheel.next(), model.values().min().map(|due| at(*due)));
                for call in 0..8 {
                    prop_assert_eq!(wheel.contains(call), model.contains_key(&call));
                }
            }
        }
    }

    #[test]
    fn a_long_sleep_loses_nobody() {
        let mut wheel = Wheel::new(2);
        wheel.insert(0, at(100));
        wheel.insert(1, at(3));
        assert_eq!(wheel.expire(at(1_000_000)), Some(1));
        assert_eq!(wheel.expire(at(1_000_000)), Some(0));
        assert_eq!(wheel.expire(at(1_000_000)), None);
        wheel.insert(0, at(1_000_050));
        assert_eq!(wheel.expire(at(1_000_049)), None);
        assert_eq!(wheel.expire(at(1_000_050)), Some(0));
    }
}
