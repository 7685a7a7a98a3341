//! Inner addresses for clients.

use core::fmt;
use core::net::Ipv4Addr;
use std::collections::{HashSet, VecDeque};

use crate::aaa::Addresses;
use crate::cause::Cause;

/// Addresses from `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// From `first` to `last`, both included; `None` when they stand the wrong way round.
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Option<Self> {
        let (first, last) = (u32::from(first), u32::from(last));
        (first <= last).then_some(Self { first, last })
    }

    /// One address.
    pub fn single(address: Ipv4Addr) -> Self {
        let address = u32::from(address);
        Self {
            first: address,
            last: address,
        }
    }

    /// The addresses of a prefix that a client may have: without network and broadcast address, except in prefixes
    /// of 31 and 32 bits, which have none (RFC 3021).
    pub fn hosts(prefix: ipnet::Ipv4Net) -> Self {
        let (network, broadcast) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        let edge = u32::from(prefix.prefix_len() < 31);
        Self {
            first: network + edge,
            last: broadcast - edge,
        }
    }

    /// The first address.
    pub fn first(self) -> Ipv4Addr {
        self.first.into()
    }

    /// The last address.
    pub fn last(self) -> Ipv4Addr {
        self.last.into()
    }

    /// How many addresses there are.
    pub fn size(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address))
    }

    /// Whether hosts can have all of these addresses: none of 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3
    /// (RFC 1122 §3.2.1.3).
    pub fn is_unicast(self) -> bool {
        let (first, last) = (self.first().octets()[0], self.last().octets()[0]);
        first > 0 && last < 224 && !(first..=last).contains(&127)
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

/// Which inner addresses are in use.
///
/// Addresses that were never used go out first, in order; then those given back, the longest rested first, so that
/// late packets for one client do not reach the next. Memory: some 30 octets for each address in use or given back.
#[derive(Debug)]
pub struct Pool {
    /// Sorted and apart from each other.
    ranges: Vec<Range>,
    /// Never handed out by [`Addresses::Pool`]: sorted, apart from each other.
    reserved: Vec<Range>,
    /// Index of the range and the address in it that is next to be used for the first time.
    fresh: (usize, u32),
    /// Given back, the longest ago in front. Disjoint from `taken`, but for addresses taken out of turn as somebody's
    /// fixed one (they are reserved, so they never come here).
    returned: VecDeque<u32>,
    taken: HashSet<u32>,
}

impl Pool {
    /// All of `ranges`, sorted and apart from each other as [`crate::config::Network::pool`] is, is free, except
    /// `reserved`: addresses that belong to certain users, and our own.
    pub fn new(ranges: &[Range], reserved: impl IntoIterator<Item = Range>) -> Self {
        let reserved = merged(reserved);
        let first = ranges.first().map_or(0, |range| range.first);
        Self {
            ranges: ranges.to_vec(),
            reserved,
            fresh: (0, first),
            returned: VecDeque::new(),
            taken: HashSet::new(),
        }
    }

    /// Reserves these in place of what was reserved before. What is in use stays so until it is given back.
    pub fn reserve(&mut self, reserved: impl IntoIterator<Item = Range>) {
        let before = core::mem::replace(&mut self.reserved, merged(reserved));
        let returned = core::mem::take(&mut self.returned);
        let freed = before
            .into_iter()
            .flat_map(|range| range.first..=range.last);
        // Not reserved any more: as good as given back, unless its first turn is still to come.
        let freed: Vec<_> = freed.filter(|address| self.is_passed(*address)).collect();
        for address in returned.into_iter().chain(freed) {
            if self.reservation(address).is_none() && !self.taken.contains(&address) {
                self.returned.push_back(address);
            }
        }
    }

    /// Whether an address of the pool has had its turn among those never used.
    fn is_passed(&self, address: u32) -> bool {
        let (index, next) = self.fresh;
        let at = self.ranges.partition_point(|range| range.last < address);
        let of_pool = self
            .ranges
            .get(at)
            .is_some_and(|range| range.first <= address);
        of_pool && (at < index || (at == index && address < next))
    }

    /// Takes an address for a user.
    ///
    /// # Errors
    /// [`Cause::PoolExhausted`] when none is free, [`Cause::AddressInUse`] when all of the user's own are in use,
    /// [`Cause::NotPermitted`] when the user may have none.
    pub fn allocate(&mut self, addresses: &Addresses) -> Result<Ipv4Addr, Cause> {
        let address = match addresses {
            Addresses::Pool => self
                .next_fresh()
                .or_else(|| self.returned.pop_front())
                .ok_or(Cause::PoolExhausted)?,
            Addresses::Fixed(ranges) => ranges
                .iter()
                .flat_map(|range| range.first..=range.last)
                .find(|address| !self.taken.contains(address))
                .ok_or(Cause::AddressInUse)?,
            Addresses::None => return Err(Cause::NotPermitted),
        };
        // One that a RADIUS server gives may be anybody's at other times.
        if self.reservation(address).is_none() && matches!(addresses, Addresses::Fixed(_)) {
            self.returned.retain(|other| *other != address);
        }
        self.taken.insert(address);
        Ok(address.into())
    }

    /// Takes `asked` in place of `held`, which is given back, if the user may have it and it is free: users with addresses
    /// of their own any of these, others what lies in `choices` and in the pool and is nobody's own.
    pub fn exchange(
        &mut self,
        held: Ipv4Addr,
        asked: Ipv4Addr,
        addresses: &Addresses,
        choices: &[Range],
    ) -> bool {
        let address = u32::from(asked);
        let may = |ranges: &[Range]| ranges.iter().any(|range| range.contains(asked));
        let allowed = match addresses {
            Addresses::Pool => {
                may(choices) && may(&self.ranges) && self.reservation(address).is_none()
            }
            Addresses::Fixed(ranges) => may(ranges),
            Addresses::None => false,
        };
        if !allowed || !self.taken.insert(address) {
            return false;
        }
        self.returned.retain(|other| *other != address);
        self.release(held);
        true
    }

    /// Gives an address back; `false` when it was not in use.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let was_taken = self.taken.remove(&address);
        if was_taken && self.reservation(address).is_none() && self.is_passed(address) {
            self.returned.push_back(address);
        }
        was_taken
    }

    /// How many addresses are in use.
    pub fn in_use(&self) -> usize {
        self.taken.len()
    }

    fn next_fresh(&mut self) -> Option<u32> {
        loop {
            let (index, address) = self.fresh;
            let range = *self.ranges.get(index)?;
            if address > range.last {
                let next = self.ranges.get(index + 1)?;
                self.fresh = (index + 1, next.first);
                continue;
            }
            // A reservation is stepped over as a whole, however long it is.
            let reservation = self.reservation(address);
            let last = reservation.map_or(address, |reserved| reserved.last);
            // Addresses above 223.255.255.255 are in no range: this cannot wrap.
            self.fresh.1 = last.saturating_add(1);
            // Somebody's own until lately, and still in use.
            let is_taken = self.taken.contains(&address);
            if reservation.is_none() && !is_taken {
                return Some(address);
            }
        }
    }

    /// The reservation that holds an address.
    fn reservation(&self, address: u32) -> Option<Range> {
        let index = self
            .reserved
            .partition_point(|reserved| reserved.last < address);
        self.reserved
            .get(index)
            .copied()
            .filter(|reserved| reserved.first <= address)
    }
}

/// Sorted, and joined where they overlap.
fn merged(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut sorted: Vec<_> = ranges.into_iter().collect();
    sorted.sort();
    let mut merged: Vec<Range> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(before) if before.overlaps(range) => before.last = before.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Range::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    fn pool(ranges: &[&str], reserved: &[&str]) -> Pool {
        let ranges: Vec<_> = ranges.iter().map(|text| range(text)).collect();
        Pool::new(&ranges, reserved.iter().map(|text| range(text)))
    }

    /// The next address, or why there is none, as text.
    fn next(pool: &mut Pool) -> String {
        match pool.allocate(&Addresses::Pool) {
            Ok(address) => address.to_string(),
            Err(cause) => cause.name().to_owned(),
        }
    }

    #[test]
    fn prefixes_keep_their_own_addresses() {
        let hosts = |prefix: &str| Range::hosts(prefix.parse().unwrap()).to_string();
        assert_eq!(hosts("10.21.0.0/24"), "10.21.0.1-10.21.0.254");
        assert_eq!(hosts("10.21.0.0/30"), "10.21.0.1-10.21.0.2");
        assert_eq!(hosts("10.21.0.0/31"), "10.21.0.0-10.21.0.1");
        assert_eq!(hosts("10.21.0.0/32"), "10.21.0.0");
        assert_eq!(hosts("0.0.0.0/0"), "0.0.0.1-255.255.255.254");
        assert_eq!(
            Range::hosts("0.0.0.0/0".parse().unwrap()).size(),
            (1 << 32) - 2
        );
    }

    #[test]
    fn a_chosen_address_is_in_use_and_comes_round_once() {
        let mut pool = pool(&["10.0.0.1-10.0.0.4"], &["10.0.0.3"]);
        let choices = [range("10.0.0.2-10.0.0.9")];
        let at = |text: &str| range(text).first();
        let exchange = |pool: &mut Pool, held: &str, asked: &str| {
            pool.exchange(at(held), at(asked), &Addresses::Pool, &choices)
        };
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert!(
            !exchange(&mut pool, "10.0.0.1", "10.0.0.3"),
            "somebody's own"
        );
        assert!(
            !exchange(&mut pool, "10.0.0.1", "10.0.0.5"),
            "not of the pool"
        );
        assert!(
            !exchange(&mut pool, "10.0.0.1", "10.0.0.1"),
            "not to be chosen"
        );
        // One whose first turn is still to come.
        assert!(exchange(&mut pool, "10.0.0.1", "10.0.0.4"));
        assert!(!exchange(&mut pool, "10.0.0.2", "10.0.0.4"), "in use");
        assert_eq!(pool.in_use(), 1);
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert_eq!(next(&mut pool), "pool_exhausted");
        pool.release(at("10.0.0.4"));
        assert_eq!(next(&mut pool), "10.0.0.4");
        // One that was given back.
        pool.release(at("10.0.0.2"));
        assert!(exchange(&mut pool, "10.0.0.1", "10.0.0.2"));
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert_eq!(next(&mut pool), "pool_exhausted");
        assert_eq!(pool.in_use(), 3);
    }

    #[test]
    fn users_choose_among_their_own_addresses() {
        let mut pool = pool(&["10.0.0.1-10.0.0.4"], &["10.9.0.1-10.9.0.3"]);
        let own = Addresses::Fixed(vec![range("10.9.0.1-10.9.0.3")]);
        let at = |text: &str| range(text).first();
        assert_eq!(pool.allocate(&own), Ok(at("10.9.0.1")));
        assert!(!pool.exchange(at("10.9.0.1"), at("10.0.0.1"), &own, &[]));
        assert!(pool.exchange(at("10.9.0.1"), at("10.9.0.3"), &own, &[]));
        assert_eq!(pool.allocate(&own), Ok(at("10.9.0.1")));
        assert!(!pool.exchange(at("10.9.0.1"), at("10.9.0.3"), &own, &[]));
        assert!(!pool.exchange(at("10.9.0.1"), at("10.9.0.2"), &Addresses::None, &[]));
    }

    #[test]
    fn every_address_goes_out_once_and_rests_after_use() {
        let mut pool = pool(&["10.0.0.1-10.0.0.2", "10.0.1.5"], &[]);
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert!(pool.release(range("10.0.0.1").first()));
        assert!(!pool.release(range("10.0.0.1").first()), "twice");
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(next(&mut pool), "10.0.1.5");
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert_eq!(next(&mut pool), "pool_exhausted");
        assert_eq!(pool.in_use(), 3);
        pool.release(range("10.0.1.5").first());
        pool.release(range("10.0.0.2").first());
        assert_eq!(next(&mut pool), "10.0.1.5");
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(next(&mut pool), "pool_exhausted");
    }

    #[test]
    fn what_belongs_to_somebody_is_given_to_nobody_else() {
        let mut pool = pool(
            &["10.0.0.1-10.0.0.9"],
            &[
                "10.0.0.1",
                "10.0.0.3-10.0.0.6",
                "10.0.0.5-10.0.0.8",
                "10.9.0.1",
            ],
        );
        let own = Addresses::Fixed(vec![range("10.0.0.1"), range("10.9.0.1")]);
        let first = pool.allocate(&own).unwrap();
        assert_eq!(first.to_string(), "10.0.0.1");
        assert_eq!(pool.allocate(&own).unwrap().to_string(), "10.9.0.1");
        assert_eq!(pool.allocate(&own), Err(Cause::AddressInUse));
        assert!(pool.release(first));
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(next(&mut pool), "10.0.0.9");
        assert_eq!(next(&mut pool), "pool_exhausted");
        assert_eq!(pool.allocate(&own), Ok(first));
        assert_eq!(pool.allocate(&Addresses::None), Err(Cause::NotPermitted));
    }

    #[test]
    fn reservations_change_and_no_address_goes_out_twice() {
        let mut pool = pool(&["10.0.0.1-10.0.0.6"], &["10.0.0.2", "10.0.0.5"]);
        let own = |text| Addresses::Fixed(vec![range(text)]);
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert_eq!(next(&mut pool), "10.0.0.3");
        pool.release(range("10.0.0.3").first());
        // In use by its owner, and its turn has not come.
        assert!(pool.allocate(&own("10.0.0.5")).is_ok());
        pool.reserve([range("10.0.0.3"), range("10.0.0.1")]);
        // Free for all now, after its turn had passed it.
        assert_eq!(next(&mut pool), "10.0.0.4");
        assert_eq!(next(&mut pool), "10.0.0.6");
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(next(&mut pool), "pool_exhausted");
        pool.release(range("10.0.0.5").first());
        assert_eq!(next(&mut pool), "10.0.0.5");
        // Now somebody's own, it goes to nobody else when it is given back.
        assert_eq!(pool.allocate(&own("10.0.0.1")), Err(Cause::AddressInUse));
        pool.release(range("10.0.0.1").first());
        assert_eq!(next(&mut pool), "pool_exhausted");
        assert!(pool.allocate(&own("10.0.0.1")).is_ok());
        assert!(pool.allocate(&own("10.0.0.3")).is_ok());
        // Given back before its turn, it has its turn once.
        let mut pool = self::pool(&["10.0.0.1-10.0.0.2"], &["10.0.0.2"]);
        assert!(pool.allocate(&own("10.0.0.2")).is_ok());
        pool.reserve([]);
        pool.release(range("10.0.0.2").first());
        assert_eq!(next(&mut pool), "10.0.0.1");
        assert_eq!(next(&mut pool), "10.0.0.2");
        assert_eq!(next(&mut pool), "pool_exhausted");
    }

    #[test]
    fn big_reservations_and_pools_cost_nothing_until_used() {
        let mut pool = pool(&["10.0.0.0-10.15.255.255"], &["10.0.0.0-10.15.255.254"]);
        assert_eq!(next(&mut pool), "10.15.255.255");
        assert_eq!(next(&mut pool), "pool_exhausted");
        assert!(pool.returned.is_empty());
        assert_eq!(next(&mut self::pool(&[], &[])), "pool_exhausted");
    }

    #[test]
    fn a_long_run_neither_doubles_nor_loses_addresses() {
        let mut pool = pool(&["10.0.0.1-10.0.0.50", "10.0.1.1-10.0.1.50"], &["10.0.0.7"]);
        let mut held = VecDeque::new();
        // A fixed sequence that takes more often than it gives back, then the other way round, again and again.
        let mut state = 1_u64;
        for step in 0..20_000_u32 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mostly_take = (step / 300).is_multiple_of(2);
            if (state >> 33).is_multiple_of(4) != mostly_take {
                match pool.allocate(&Addresses::Pool) {
                    Ok(address) => {
                        assert!(!held.contains(&address), "{address} was given twice");
                        assert_ne!(address.to_string(), "10.0.0.7");
                        held.push_back(address);
                    }
                    Err(cause) => {
                        assert_eq!(cause, Cause::PoolExhausted);
                        assert_eq!(held.len(), 99);
                    }
                }
            } else if let Some(address) = held.pop_front() {
                assert!(pool.release(address));
            }
            assert_eq!(pool.in_use(), held.len());
        }
    }
}
