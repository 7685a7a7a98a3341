//! Inner IPv6 prefixes to calls.
//!
//! Calls have links of 64 bits and delegations that are shorter, of few different lengths. So the longest match is one
//! look-up for each length that is in use, the longest first, however many calls there are.

use core::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::api::CallRef;
use crate::routes::{Pools, Target};
use crate::table::{Key, Table};

/// The longest prefix, in bits.
const MAX_LEN: u8 = 64;

/// Different lengths in use at the same time, at most.
const MAX_LENGTHS: usize = 16;

/// A prefix: its length, and the high half of its address with nothing behind the prefix.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Prefix {
    high: u64,
    len: u8,
}

impl Prefix {
    fn new(prefix: Ipv6Net) -> Option<Self> {
        let len = prefix.prefix_len();
        (len <= MAX_LEN).then(|| Self::of(high(prefix.addr()), len))
    }

    #[inline]
    fn of(high: u64, len: u8) -> Self {
        let mask = u64::MAX.checked_shl(u32::from(MAX_LEN - len)).unwrap_or(0);
        Self {
            high: high & mask,
            len,
        }
    }
}

impl Key for Prefix {
    fn bits(self) -> u64 {
        // Prefixes of different lengths may begin with the same address.
        self.high ^ u64::from(self.len)
    }
}

/// The part of an address that routes go by.
fn high(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

#[derive(Clone, Copy)]
struct Route {
    call: CallRef,
    slot: u32,
}

/// The IPv6 routes of one worker; every worker has a copy.
pub(crate) struct Routes6 {
    index: Table<Prefix>,
    routes: Box<[Option<Route>]>,
    free: Vec<u32>,
    /// Lengths in use, and how many routes have each; longest first.
    lengths: Vec<(u8, u32)>,
    pools: Pools,
}

impl Routes6 {
    /// Room for this many routes, allocated now.
    pub(crate) fn new(limit: usize) -> Self {
        let count = u32::try_from(limit).unwrap_or(u32::MAX - 1);
        Self {
            index: Table::new(limit),
            routes: vec![None; limit].into_boxed_slice(),
            free: (0..count).rev().collect(),
            lengths: Vec::with_capacity(MAX_LENGTHS),
            pools: Pools::new(),
        }
    }

    /// Adds or replaces a route. False when there is no room, or the prefix is longer than 64 bits.
    #[must_use]
    pub(crate) fn add(&mut self, prefix: Ipv6Net, call: CallRef, slot: u32) -> bool {
        let Some(prefix) = Prefix::new(prefix) else {
            return false;
        };
        let at = match self.index.get(prefix) {
            Some(at) => at,
            None => {
                if !self.has_room_for(prefix.len) {
                    return false;
                }
                let Some(at) = self.free.pop() else {
                    return false;
                };
                let inserted = self.index.insert(prefix, at);
                debug_assert!(inserted, "the table has as much room as there are routes");
                self.count(prefix.len);
                at
            }
        };
        self.routes[at as usize] = Some(Route { call, slot });
        true
    }

    fn has_room_for(&self, len: u8) -> bool {
        self.lengths.len() < MAX_LENGTHS || self.lengths.iter().any(|(known, _)| *known == len)
    }

    fn count(&mut self, len: u8) {
        let at = self.lengths.partition_point(|(known, _)| *known > len);
        match self.lengths.get_mut(at) {
            Some((known, routes)) if *known == len => *routes += 1,
            _ => self.lengths.insert(at, (len, 1)),
        }
    }

    /// Takes a route back; unknown ones are none.
    pub(crate) fn remove(&mut self, prefix: Ipv6Net) {
        let Some(prefix) = Prefix::new(prefix) else {
            return;
        };
        let Some(at) = self.index.remove(prefix) else {
            return;
        };
        self.routes[at as usize] = None;
        self.free.push(at);
        self.lengths.retain_mut(|(len, routes)| {
            *routes -= u32::from(*len == prefix.len);
            *routes > 0
        });
    }

    /// Marks addresses as ours. False when there is no room.
    #[must_use]
    pub(crate) fn add_pool(&mut self, prefix: Ipv6Net) -> bool {
        self.pools
            .add(prefix.network().to_bits(), prefix.broadcast().to_bits())
    }

    /// Has memory fetched that [`get`](Self::get) will most likely read.
    #[inline]
    pub(crate) fn fetch(&self, address: Ipv6Addr) {
        if let Some((longest, _)) = self.lengths.first() {
            self.index.fetch(Prefix::of(high(address), *longest));
        }
    }

    /// What stands behind an address: the longest match.
    #[inline]
    pub(crate) fn get(&self, address: Ipv6Addr) -> Target {
        let high = high(address);
        for (len, _) in &self.lengths {
            if let Some(at) = self.index.get(Prefix::of(high, *len))
                && let Some(Route { call, slot }) = self.routes[at as usize]
            {
                return Target::Call { call, slot };
            }
        }
        self.pools.get(address.to_bits())
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use proptest::prelude::*;
    use turnpike_protocol::CallId;

    use super::*;

    fn call(id: u16) -> CallRef {
        CallRef {
            local: Ipv4Addr::new(192, 0, 2, 1),
            peer: Ipv4Addr::new(192, 0, 2, 2),
            id: CallId(id),
        }
    }

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn id(routes: &Routes6, address: &str) -> Option<u16> {
        match routes.get(address.parse().unwrap()) {
            Target::Call { call, .. } => Some(call.id.0),
            Target::Unused | Target::Elsewhere => None,
        }
    }

    #[test]
    fn the_longest_match_wins_and_pools_come_last() {
        let mut routes = Routes6::new(4);
        assert!(routes.add_pool(net("2001:db8:1::/48")));
        assert!(routes.add(net("2001:db8:1::/56"), call(1), 1));
        assert!(routes.add(net("2001:db8:1::/64"), call(2), 2));
        assert!(routes.add(net("2001:db8:1:0100::/64"), call(3), 3));
        assert_eq!(id(&routes, "2001:db8:1::9"), Some(2));
        assert_eq!(id(&routes, "2001:db8:1:0:ffff::"), Some(2));
        assert_eq!(id(&routes, "2001:db8:1:1::9"), Some(1));
        assert_eq!(id(&routes, "2001:db8:1:100::"), Some(3));
        let get = |routes: &Routes6, address: &str| routes.get(address.parse().unwrap());
        assert_eq!(get(&routes, "2001:db8:1:101::1"), Target::Unused);
        assert_eq!(get(&routes, "2001:db8:2::"), Target::Elsewhere);
        routes.remove(net("2001:db8:1::/64"));
        assert_eq!(id(&routes, "2001:db8:1::9"), Some(1));
        routes.remove(net("2001:db8:1::/64"));
        routes.remove(net("2001:db8:1::/56"));
        assert_eq!(get(&routes, "2001:db8:1::9"), Target::Unused);
        assert_eq!(id(&routes, "2001:db8:1:100::"), Some(3));
        // A default route, and what is too long to be one.
        assert!(routes.add(net("::/0"), call(4), 4));
        assert_eq!(id(&routes, "fe80::1"), Some(4));
        assert!(!routes.add(net("2001:db8::/65"), call(5), 5));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let mut routes = Routes6::new(1);
        for n in 0..9 {
            assert!(routes.add(net("2001:db8::/64"), call(n), 0), "replaces");
            assert!(!routes.add(net("2001:db8:0:1::/64"), call(n), 0));
            routes.remove(net("2001:db8::/64"));
            assert!(routes.add(net("2001:db8:0:1::/60"), call(n), 0));
            routes.remove(net("2001:db8:0:1::/60"));
        }
        let mut routes = Routes6::new(64);
        for len in 0..64 {
            let prefix = Ipv6Net::new(Ipv6Addr::UNSPECIFIED, len).unwrap();
            assert_eq!(routes.add(prefix, call(1), 0), len < 16);
            assert!(routes.lengths.len() <= MAX_LENGTHS);
        }
        assert!(routes.add(net("8000::/15"), call(1), 0), "a known length");
    }

    proptest! {
        /// Few prefixes, nested and side by side.
        #[test]
        fn does_what_a_scan_does(
            steps in proptest::collection::vec((0_u64..16, 60_u8..=64, any::<bool>()), 0..60),
            asked in 0_u64..16,
        ) {
            let mut routes = Routes6::new(256);
            let mut model: Vec<(Ipv6Net, u16)> = Vec::new();
            let address = |high: u64| Ipv6Addr::from_bits(u128::from(high) << 64 | 7);
            for (n, (high, len, add)) in steps.into_iter().enumerate() {
                let prefix = Ipv6Net::new(address(high), len).unwrap().trunc();
                model.retain(|(known, _)| *known != prefix);
                if add {
                    model.push((prefix, n as u16));
                    prop_assert!(routes.add(prefix, call(n as u16), 0));
                } else {
                    routes.remove(prefix);
                }
            }
            let expected = model
                .iter()
                .filter(|(prefix, _)| prefix.contains(&address(asked)))
                .max_by_key(|(prefix, _)| prefix.prefix_len())
                .map(|(_, id)| *id);
            let found = match routes.get(address(asked)) {
                Target::Call { call, .. } => Some(call.id.0),
                Target::Unused | Target::Elsewhere => None,
            };
            prop_assert_eq!(found, expected);
        }
    }
}
