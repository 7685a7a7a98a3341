//! Inner addresses for clients.

mod range;
#[cfg(test)]
mod tests;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use turnpike_protocol::Time;

use crate::aaa::Addresses;
use crate::cause::Cause;

pub use range::{Range, merged};

/// Who hands out inner addresses. [`LocalPools`] does for one server; what several servers share may take its time.
pub trait AddressStore: Send + Sync {
    /// Takes an address for a user.
    ///
    /// # Errors
    /// [`Cause::PoolExhausted`] when none is free, [`Cause::PoolUnknown`] when there is no such pool,
    /// [`Cause::AddressInUse`] when all of the user's own are in use, [`Cause::NotPermitted`] when the user may have none.
    fn allocate<'a>(
        &'a self,
        user: &'a str,
        addresses: &'a Addresses,
        now: Time,
    ) -> BoxFuture<'a, Result<Ipv4Addr, Cause>>;

    /// Takes `asked` in place of `held`, which is given back, if the user may have it and it is free: users with addresses
    /// of their own any of these, others what clients may choose of their pools and is nobody's own.
    fn exchange<'a>(
        &'a self,
        user: &'a str,
        held: Ipv4Addr,
        asked: Ipv4Addr,
        addresses: &'a Addresses,
        now: Time,
    ) -> BoxFuture<'a, bool>;

    /// Gives back an address that `user` had; one that is not in use stays as it is.
    fn release(&self, user: &str, address: Ipv4Addr, now: Time);

    /// Keeps these for the users that they belong to, in place of what was kept before. What is in use stays so until it is
    /// given back.
    fn reserve(&self, reserved: Vec<Range>, now: Time);

    /// How many addresses are in use.
    fn in_use(&self) -> usize;
}

/// Pools of this process.
pub struct LocalPools(Mutex<Pools>);

impl LocalPools {
    /// These.
    pub fn new(pools: Pools) -> Self {
        Self(Mutex::new(pools))
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        // The books are right between any two statements that can panic.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl AddressStore for LocalPools {
    fn allocate<'a>(
        &'a self,
        user: &'a str,
        addresses: &'a Addresses,
        now: Time,
    ) -> BoxFuture<'a, Result<Ipv4Addr, Cause>> {
        let allocated = self.lock().allocate(user, addresses, now);
        core::future::ready(allocated).boxed()
    }

    fn exchange<'a>(
        &'a self,
        user: &'a str,
        held: Ipv4Addr,
        asked: Ipv4Addr,
        addresses: &'a Addresses,
        now: Time,
    ) -> BoxFuture<'a, bool> {
        let exchanged = self.lock().exchange(user, held, asked, addresses, now);
        core::future::ready(exchanged).boxed()
    }

    fn release(&self, user: &str, address: Ipv4Addr, now: Time) {
        self.lock().release(user, address, now);
    }

    fn reserve(&self, reserved: Vec<Range>, now: Time) {
        self.lock().reserve(reserved, now);
    }

    fn in_use(&self) -> usize {
        self.lock().in_use()
    }
}

/// A pool as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// What users and RADIUS call it; that of `[network]` is [`DEFAULT`].
    pub name: Arc<str>,
    /// Sorted, apart from each other and from those of other pools.
    pub ranges: Vec<Range>,
    /// Which pool is asked when this one has none left, by its place among all; no circle.
    pub next: Option<usize>,
}

/// The name of the pool of `[network]`.
pub const DEFAULT: &str = "default";

/// What holds for addresses that are given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rest {
    /// How long one rests before somebody else gets it, so that late packets for one client do not reach the next.
    pub quarantine: Duration,
    /// How long it is kept in mind whose it was: who comes again gets it again while it is free.
    pub sticky: Duration,
}

/// Which inner addresses are in use.
///
/// Addresses that were never used go out first, in order; then those given back, the longest rested first. Memory: some 100
/// octets for each address in use or given back.
#[derive(Debug)]
pub struct Pools {
    /// The one of `[network]` in front.
    pools: Vec<Pool>,
    rest: Rest,
    /// Parts of pools that clients may ask for.
    choices: Vec<Range>,
    /// Never handed out by pools: sorted, apart from each other.
    reserved: Vec<Range>,
    taken: HashSet<u32>,
    /// Given back, since when, and by whom. Disjoint from `taken`, but for addresses taken out of turn as somebody's fixed one
    /// (they are reserved, so they never come here).
    resting: HashMap<u32, (Time, Arc<str>)>,
    /// The last address of a user, if it is resting.
    last: HashMap<Arc<str>, u32>,
}

#[derive(Debug)]
struct Pool {
    name: Arc<str>,
    ranges: Vec<Range>,
    /// Index of the range and the address in it that is next to be used for the first time.
    fresh: (usize, u32),
    /// Given back, the longest ago in front, and when. Those that somebody has got since, out of turn, are left in here until
    /// they come to the front or are many.
    returned: VecDeque<(u32, Time)>,
    next: Option<usize>,
}

impl Pools {
    /// All addresses of `pools`, of which there is one at least, are free, except `reserved`: those that belong to certain
    /// users, and our own. Clients may ask for `choices`.
    pub fn new(
        pools: &[PoolConfig],
        rest: Rest,
        choices: &[Range],
        reserved: impl IntoIterator<Item = Range>,
    ) -> Self {
        let pools = pools.iter().map(|config| Pool {
            name: config.name.clone(),
            ranges: config.ranges.clone(),
            fresh: (0, config.ranges.first().map_or(0, |range| range.first)),
            returned: VecDeque::new(),
            next: config.next,
        });
        Self {
            pools: pools.collect(),
            rest,
            choices: choices.to_vec(),
            reserved: merged(reserved),
            taken: HashSet::new(),
            resting: HashMap::new(),
            last: HashMap::new(),
        }
    }

    /// As [`AddressStore::reserve`].
    pub fn reserve(&mut self, reserved: impl IntoIterator<Item = Range>, now: Time) {
        let before = core::mem::replace(&mut self.reserved, merged(reserved));
        let resting = core::mem::take(&mut self.resting);
        for (address, rest) in resting {
            if self.is_reserved(address) {
                self.forget(&rest.1, address);
            } else {
                self.resting.insert(address, rest);
            }
        }
        let nobody: Arc<str> = "".into();
        for address in before
            .into_iter()
            .flat_map(|range| range.first..=range.last)
        {
            // Not reserved any more: as good as given back, unless its first turn is still to come.
            if !self.is_reserved(address)
                && !self.taken.contains(&address)
                && let Some(pool) = self.passed(address)
            {
                self.rest_now(pool, address, nobody.clone(), now);
            }
        }
    }

    /// As [`AddressStore::allocate`].
    ///
    /// # Errors
    /// As there.
    pub fn allocate(
        &mut self,
        user: &str,
        addresses: &Addresses,
        now: Time,
    ) -> Result<Ipv4Addr, Cause> {
        let address = match addresses {
            Addresses::Fixed(ranges) => ranges
                .iter()
                .flat_map(|range| range.first..=range.last)
                .find(|address| !self.taken.contains(address))
                .ok_or(Cause::AddressInUse)?,
            Addresses::None => return Err(Cause::NotPermitted),
            Addresses::Pool | Addresses::Named(_) => {
                let first = self.first_pool(addresses).ok_or(Cause::PoolUnknown)?;
                self.last_of(user, first, now)
                    .or_else(|| self.next_of(first, now))
                    .ok_or(Cause::PoolExhausted)?
            }
        };
        self.take(address);
        Ok(address.into())
    }

    /// As [`AddressStore::exchange`].
    pub fn exchange(
        &mut self,
        user: &str,
        held: Ipv4Addr,
        asked: Ipv4Addr,
        addresses: &Addresses,
        now: Time,
    ) -> bool {
        let address = u32::from(asked);
        let may = |ranges: &[Range]| ranges.iter().any(|range| range.contains(asked));
        let allowed = match addresses {
            Addresses::Pool | Addresses::Named(_) => {
                may(&self.choices)
                    && !self.is_reserved(address)
                    && self
                        .first_pool(addresses)
                        .is_some_and(|first| self.chain(first).any(|pool| may(&pool.ranges)))
            }
            Addresses::Fixed(ranges) => may(ranges),
            Addresses::None => false,
        };
        if !allowed || !self.take(address) {
            return false;
        }
        self.release(user, held, now);
        true
    }

    /// Gives an address back; `false` when it was not in use.
    pub fn release(&mut self, user: &str, address: Ipv4Addr, now: Time) -> bool {
        let address = u32::from(address);
        let was_taken = self.taken.remove(&address);
        if was_taken
            && !self.is_reserved(address)
            && let Some(pool) = self.passed(address)
        {
            self.rest_now(pool, address, user.into(), now);
        }
        was_taken
    }

    /// As [`AddressStore::in_use`].
    pub fn in_use(&self) -> usize {
        self.taken.len()
    }

    fn rest_now(&mut self, pool: usize, address: u32, user: Arc<str>, now: Time) {
        if self.rest.sticky > Duration::ZERO && !user.is_empty() {
            // Of two that the user had, the later one.
            self.last.insert(user.clone(), address);
        }
        self.resting.insert(address, (now, user));
        let Self { pools, resting, .. } = self;
        let Some(pool) = pools.get_mut(pool) else {
            return;
        };
        pool.returned.push_back((address, now));
        if pool.returned.len() > 64 + 2 * resting.len() {
            pool.returned.retain(|entry| is_current(resting, *entry));
        }
    }

    /// An address is in use now; `false` when it was before.
    fn take(&mut self, address: u32) -> bool {
        if let Some((_, user)) = self.resting.remove(&address) {
            self.forget(&user, address);
        }
        self.taken.insert(address)
    }

    /// The user's last address is that no more.
    fn forget(&mut self, user: &str, address: u32) {
        if self.last.get(user) == Some(&address) {
            self.last.remove(user);
        }
    }

    /// The pool that is asked first.
    fn first_pool(&self, addresses: &Addresses) -> Option<usize> {
        match addresses {
            Addresses::Named(name) => self.pools.iter().position(|pool| pool.name == *name),
            _ => Some(0),
        }
    }

    /// A pool, and those that are asked after it.
    fn chain(&self, first: usize) -> impl Iterator<Item = &Pool> {
        core::iter::successors(self.pools.get(first), |pool| self.pools.get(pool.next?))
    }

    /// The address that the user had before, if it is free, not long ago, and of these pools.
    fn last_of(&self, user: &str, first: usize, now: Time) -> Option<u32> {
        let address = *self.last.get(user)?;
        let (since, _) = self.resting.get(&address)?;
        let kept = now.since(*since) <= self.rest.sticky;
        let asked = self.chain(first).any(|pool| {
            pool.ranges
                .iter()
                .any(|range| range.contains(address.into()))
        });
        (kept && asked).then_some(address)
    }

    /// The next address of a pool, or of those after it.
    fn next_of(&mut self, first: usize, now: Time) -> Option<u32> {
        let mut next = Some(first);
        while let Some(pool) = next {
            if let Some(address) = self
                .next_fresh(pool)
                .or_else(|| self.next_rested(pool, now))
            {
                return Some(address);
            }
            next = self.pools.get(pool)?.next;
        }
        None
    }

    fn next_fresh(&mut self, pool: usize) -> Option<u32> {
        let Self {
            pools,
            reserved,
            taken,
            ..
        } = self;
        let pool = pools.get_mut(pool)?;
        loop {
            let (index, address) = pool.fresh;
            let range = *pool.ranges.get(index)?;
            if address > range.last {
                let next = pool.ranges.get(index + 1)?;
                pool.fresh = (index + 1, next.first);
                continue;
            }
            // A reservation is stepped over as a whole, however long it is.
            let reservation = range_of(reserved, address);
            let last = reservation.map_or(address, |reserved| reserved.last);
            // Addresses above 223.255.255.255 are in no range: this cannot wrap.
            pool.fresh.1 = last.saturating_add(1);
            // Somebody's own until lately, and still in use.
            let is_taken = taken.contains(&address);
            if reservation.is_none() && !is_taken {
                return Some(address);
            }
        }
    }

    /// The address that has rested longest, if that is long enough.
    fn next_rested(&mut self, pool: usize, now: Time) -> Option<u32> {
        let returned = &mut self.pools.get_mut(pool)?.returned;
        loop {
            let entry = *returned.front()?;
            let (address, since) = entry;
            let is_current = is_current(&self.resting, entry);
            if is_current && now.since(since) < self.rest.quarantine {
                return None;
            }
            returned.pop_front();
            if is_current {
                return Some(address);
            }
        }
    }

    /// The pool of an address that has had its turn among those never used.
    fn passed(&self, address: u32) -> Option<usize> {
        self.pools.iter().position(|pool| {
            let (index, next) = pool.fresh;
            let at = pool.ranges.partition_point(|range| range.last < address);
            let of_pool = pool
                .ranges
                .get(at)
                .is_some_and(|range| range.first <= address);
            of_pool && (at < index || (at == index && address < next))
        })
    }

    fn is_reserved(&self, address: u32) -> bool {
        range_of(&self.reserved, address).is_some()
    }
}

/// The one of sorted ranges that holds an address.
fn range_of(ranges: &[Range], address: u32) -> Option<Range> {
    let index = ranges.partition_point(|range| range.last < address);
    let range = ranges.get(index).copied();
    range.filter(|range| range.first <= address)
}

/// Whether an address still rests since then.
fn is_current(resting: &HashMap<u32, (Time, Arc<str>)>, (address, since): (u32, Time)) -> bool {
    resting.get(&address).is_some_and(|rest| rest.0 == since)
}
