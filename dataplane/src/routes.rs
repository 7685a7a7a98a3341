//! Inner IPv4 addresses to calls, and what both versions of routes have in common.

use core::net::Ipv4Addr;

use ipnet::Ipv4Net;
use turnpike_protocol::CallId;

use crate::api::CallRef;
use crate::calls::NO_SLOT;
use crate::table::Table;
use crate::xsk::pages;

/// Routes shorter than one address, at most; they are scanned.
const MAX_PREFIXES: usize = 256;

/// Address ranges that are ours, at most.
const MAX_POOLS: usize = 4096;

/// What stands behind an inner address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A call; also where it may be found in this worker's slots, if it was there when the route was made.
    Call { call: CallRef, slot: u32 },
    /// An address of ours that no call has.
    Unused,
    /// Somebody else's.
    Elsewhere,
}

/// A quarter of a cache line.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Route {
    call: CallRef,
    slot: u32,
}

const _: () = assert!(size_of::<Route>() == 16);

impl Route {
    /// What stands where there is none.
    const NONE: Self = Self {
        call: CallRef {
            local: Ipv4Addr::UNSPECIFIED,
            peer: Ipv4Addr::UNSPECIFIED,
            id: CallId(0),
        },
        slot: NO_SLOT,
    };
}

/// The routes of one worker; every worker has a copy.
pub(crate) struct Routes {
    exact: Table<u32>,
    /// By what `exact` says; what it does not name means nothing.
    routes: Box<[Route]>,
    free: Vec<u32>,
    /// Longest first.
    prefixes: Vec<(Ipv4Net, Route)>,
    pools: Pools,
}

impl Routes {
    /// Room for this many routes to single addresses, allocated now.
    pub(crate) fn new(limit: usize) -> Self {
        let count = u32::try_from(limit).unwrap_or(u32::MAX - 1);
        Self {
            exact: Table::new(limit),
            routes: pages::slice(limit, || Route::NONE),
            free: (0..count).rev().collect(),
            prefixes: Vec::with_capacity(MAX_PREFIXES),
            pools: Pools::new(),
        }
    }

    /// Adds or replaces a route. False when there is no room.
    #[must_use]
    pub(crate) fn add(&mut self, prefix: Ipv4Net, call: CallRef, slot: u32) -> bool {
        let prefix = prefix.trunc();
        let route = Route { call, slot };
        if prefix.prefix_len() < 32 {
            if let Some(known) = self.prefixes.iter_mut().find(|known| known.0 == prefix) {
                known.1 = route;
                return true;
            }
            if self.prefixes.len() == MAX_PREFIXES {
                return false;
            }
            let at = self
                .prefixes
                .partition_point(|known| known.0.prefix_len() >= prefix.prefix_len());
            self.prefixes.insert(at, (prefix, route));
            return true;
        }
        let key = prefix.addr().to_bits();
        let at = match self.exact.get(key) {
            Some(at) => at,
            None => match self.free.pop() {
                Some(at) => at,
                None => return false,
            },
        };
        self.routes[at as usize] = route;
        self.exact.insert(key, at)
    }

    /// Octets of memory for routes to single addresses.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of_val(&*self.routes) + size_of::<u32>() * self.free.capacity() + self.exact.octets()
    }

    /// Takes a route back; unknown ones are none.
    pub(crate) fn remove(&mut self, prefix: Ipv4Net) {
        let prefix = prefix.trunc();
        if prefix.prefix_len() < 32 {
            self.prefixes.retain(|known| known.0 != prefix);
        } else if let Some(at) = self.exact.remove(prefix.addr().to_bits()) {
            self.free.push(at);
        }
    }

    /// Marks addresses as ours. False when there is no room.
    #[must_use]
    pub(crate) fn add_pool(&mut self, prefix: Ipv4Net) -> bool {
        let bits = |address: Ipv4Addr| u128::from(address.to_bits());
        self.pools
            .add(bits(prefix.network()), bits(prefix.broadcast()))
    }

    /// Has memory fetched for [`next`](Self::next), in the first of three rounds over many addresses.
    #[inline]
    pub(crate) fn fetch(&self, address: Ipv4Addr) {
        self.exact.fetch(address.to_bits());
    }

    /// The second round: has memory fetched for [`slot`](Self::slot). None where the address alone has no route.
    #[inline]
    pub(crate) fn next(&self, address: Ipv4Addr) -> Option<u32> {
        let at = self.exact.get(address.to_bits())?;
        pages::fetch(&self.routes[at as usize], 0..1);
        Some(at)
    }

    /// The third round: where the call may be.
    #[inline]
    pub(crate) fn slot(&self, at: u32) -> u32 {
        self.routes[at as usize].slot
    }

    /// What stands behind an address: the longest match.
    #[inline]
    pub(crate) fn get(&self, address: Ipv4Addr) -> Target {
        let bits = address.to_bits();
        if let Some(at) = self.exact.get(bits) {
            let Route { call, slot } = self.routes[at as usize];
            return Target::Call { call, slot };
        }
        if !self.prefixes.is_empty()
            && let Some((_, Route { call, slot })) =
                self.prefixes.iter().find(|(p, _)| p.contains(&address))
        {
            return Target::Call {
                call: *call,
                slot: *slot,
            };
        }
        self.pools.get(u128::from(bits))
    }
}

/// Ranges of addresses that are ours.
pub(crate) struct Pools {
    /// First and last address; sorted, disjoint.
    ranges: Vec<(u128, u128)>,
}

impl Pools {
    /// None; memory for all that there may be is allocated now.
    pub(crate) fn new() -> Self {
        Self {
            ranges: Vec::with_capacity(MAX_POOLS),
        }
    }

    /// Adds the addresses from `first` to `last`. False when there is no room.
    #[must_use]
    pub(crate) fn add(&mut self, mut first: u128, mut last: u128) -> bool {
        self.ranges.retain(|(from, to)| {
            // Merge what overlaps or touches.
            let touches = *from <= last.saturating_add(1) && first <= to.saturating_add(1);
            if touches {
                first = first.min(*from);
                last = last.max(*to);
            }
            !touches
        });
        if self.ranges.len() == MAX_POOLS {
            return false;
        }
        let at = self.ranges.partition_point(|(from, _)| *from < first);
        self.ranges.insert(at, (first, last));
        true
    }

    /// Whose an address without a route is.
    pub(crate) fn get(&self, address: u128) -> Target {
        let after = self.ranges.partition_point(|(from, _)| *from <= address);
        match after.checked_sub(1).map(|at| self.ranges[at]) {
            Some((_, to)) if address <= to => Target::Unused,
            _ => Target::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: u16) -> CallRef {
        CallRef {
            local: Ipv4Addr::new(192, 0, 2, 1),
            peer: Ipv4Addr::new(192, 0, 2, 2),
            id: CallId(id),
        }
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn id(routes: &Routes, address: &str) -> Option<u16> {
        match routes.get(address.parse().unwrap()) {
            Target::Call { call, .. } => Some(call.id.0),
            Target::Unused | Target::Elsewhere => None,
        }
    }

    #[test]
    fn the_longest_match_wins_and_pools_come_last() {
        let mut routes = Routes::new(2);
        assert!(routes.add_pool(net("10.0.0.0/16")));
        assert!(routes.add(net("10.0.1.0/24"), call(1), 1));
        assert!(routes.add(net("10.0.1.0/28"), call(2), 2));
        assert!(routes.add(net("10.0.1.7/32"), call(3), 3));
        assert_eq!(id(&routes, "10.0.1.7"), Some(3));
        assert_eq!(id(&routes, "10.0.1.8"), Some(2));
        assert_eq!(id(&routes, "10.0.1.16"), Some(1));
        assert_eq!(routes.get(Ipv4Addr::new(10, 0, 2, 1)), Target::Unused);
        assert_eq!(routes.get(Ipv4Addr::new(10, 1, 0, 0)), Target::Elsewhere);
        routes.remove(net("10.0.1.7/32"));
        assert_eq!(id(&routes, "10.0.1.7"), Some(2));
        routes.remove(net("10.0.1.0/28"));
        assert_eq!(id(&routes, "10.0.1.7"), Some(1));
        routes.remove(net("10.0.1.0/24"));
        assert_eq!(routes.get(Ipv4Addr::new(10, 0, 1, 7)), Target::Unused);
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let mut routes = Routes::new(1);
        for n in 0..9 {
            assert!(routes.add(net("10.0.0.1/32"), call(n), 0), "replaces");
            assert!(!routes.add(net("10.0.0.2/32"), call(n), 0));
            routes.remove(net("10.0.0.1/32"));
            assert!(routes.add(net("10.0.0.2/32"), call(n), 0));
            routes.remove(net("10.0.0.2/32"));
        }
    }

    #[test]
    fn pools_merge() {
        let mut routes = Routes::new(1);
        for prefix in [
            "10.0.0.0/24",
            "10.0.2.0/24",
            "10.0.1.0/24",
            "10.0.0.0/8",
            "0.0.0.0/1",
        ] {
            assert!(routes.add_pool(net(prefix)));
        }
        assert_eq!(routes.pools.ranges, [(0, 0x7fff_ffff)]);
        assert!(routes.add_pool(net("255.255.255.255/32")));
        assert_eq!(routes.get(Ipv4Addr::BROADCAST), Target::Unused);
        assert_eq!(
            routes.get(Ipv4Addr::new(255, 255, 255, 254)),
            Target::Elsewhere
        );
    }
}
