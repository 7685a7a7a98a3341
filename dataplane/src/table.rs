//! A hash table of fixed size: open addressing, linear probing, removal by shifting back.
//!
//! Sized at start for half as many entries again as it may hold, or up to three times as many, so probes are short and
//! nothing is ever allocated again; removal leaves no tombstones, so it does not age.

use core::hash::{BuildHasher, Hasher};

use crate::xsk::pages;

/// A key with all that tells it apart in 64 bits.
pub trait Key: Copy + Eq {
    /// Those bits.
    fn bits(self) -> u64;
}

impl Key for u32 {
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl Key for u64 {
    fn bits(self) -> u64 {
        self
    }
}

/// Marks an empty place: values are indices, and there is no such index.
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Place<K> {
    key: K,
    value: u32,
}

/// Keys to indices.
pub struct Table<K> {
    places: Box<[Place<K>]>,
    shift: u32,
    seed: u64,
    len: usize,
    limit: usize,
}

impl<K: Key + Default> Table<K> {
    /// A table for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        let size = (limit.saturating_add(limit / 2))
            .max(16)
            .next_power_of_two();
        // Keys are addresses that strangers choose: an unknown seed keeps them from choosing collisions.
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Self {
            places: pages::slice(size, || Place {
                key: K::default(),
                value: EMPTY,
            }),
            shift: 64 - size.trailing_zeros(),
            seed,
            len: 0,
            limit,
        }
    }

    #[inline]
    fn home(&self, key: K) -> usize {
        let mut x = key.bits() ^ self.seed;
        x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 32;
        x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x >> self.shift) as usize
    }

    fn mask(&self) -> usize {
        self.places.len() - 1
    }

    /// The place of a key, or the empty one where it would go.
    #[inline]
    fn find(&self, key: K) -> usize {
        let mask = self.mask();
        let mut at = self.home(key);
        // A third of the places is empty, so this ends.
        loop {
            let place = &self.places[at & mask];
            if place.value == EMPTY || place.key == key {
                return at & mask;
            }
            at += 1;
        }
    }

    /// Has the memory fetched that [`get`](Self::get) will most likely read.
    #[inline]
    pub fn fetch(&self, key: K) {
        pages::fetch(&self.places[self.home(key)], 0..1);
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: K) -> Option<u32> {
        match self.places[self.find(key)].value {
            EMPTY => None,
            value => Some(value),
        }
    }

    /// Sets the value of a key; any but `u32::MAX`, which is no index. False when the table is full and the key is new.
    #[must_use]
    pub fn insert(&mut self, key: K, value: u32) -> bool {
        debug_assert_ne!(value, EMPTY);
        let at = self.find(key);
        if self.places[at].value == EMPTY {
            if self.len == self.limit {
                return false;
            }
            self.len += 1;
        }
        self.places[at] = Place { key, value };
        true
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: K) -> Option<u32> {
        let mut hole = self.find(key);
        let value = self.places[hole].value;
        if value == EMPTY {
            return None;
        }
        self.len -= 1;
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place.value == EMPTY {
                break;
            }
            // An entry may move into the hole unless its home lies behind the hole.
            let from_home = at.wrapping_sub(self.home(place.key)) & mask;
            if from_home >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole].value = EMPTY;
        Some(value)
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Entries.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few keys in a small table, so that probes collide and wrap.
        #[test]
        fn does_what_a_map_does(steps in proptest::collection::vec((0_u32..24, 0_u32..3, 0_u32..100), 0..400)) {
            let mut table = Table::<u32>::new(12);
            let mut model = HashMap::new();
            for (key, what, value) in steps {
                match what {
                    0 => prop_assert_eq!(table.get(key), model.get(&key).copied()),
                    1 => {
                        let fits = model.len() < 12 || model.contains_key(&key);
                        prop_assert_eq!(table.insert(key, value), fits);
                        if fits {
                            model.insert(key, value);
                        }
                    }
                    _ => prop_assert_eq!(table.remove(key), model.remove(&key)),
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for key in 0..24 {
                prop_assert_eq!(table.get(key), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn does_not_age() {
        let mut table = Table::<u64>::new(1000);
        for n in 0..1000_u64 {
            assert!(table.insert(n, n as u32));
        }
        for n in 0..1_000_000_u64 {
            assert_eq!(table.remove(n), Some(n as u32 % 1_000_000));
            assert!(table.insert(n + 1000, ((n + 1000) % 1_000_000) as u32));
        }
        assert_eq!(table.len(), 1000);
        assert_eq!(
            table.places.iter().filter(|p| p.value != EMPTY).count(),
            1000
        );
    }
}
