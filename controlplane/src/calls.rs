//! Which call ids are in use.
//!
//! The id that we choose is the only thing that tells two clients behind one NAT apart (a NAT rewrites the client's
//! id, never ours), so ids are unique over the box while there are free ones. When all 65,535 are taken and the
//! configured limit still allows calls, ids become unique per peer: the workers' tables are keyed by both, so this
//! needs nothing else, and no live call notices. Where GRE may come from another address than the control connection
//! ([`SourceCheck::Relaxed`]) the id is all there is, so it is never shared.
//!
//! An id says which worker owns its call. Workers take turns, but where it is known which of them a peer's packets arrive
//! at, that one is asked first: what it owns it need not hand over.
//!
//! An id rests before it is used again, since late GRE of an old call must not meet a new one: free ids form a queue,
//! and an id that a peer has just given back is not given to the same peer while there is another one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use turnpike_dataplane::api::{CallRef, Owners, SourceCheck, WorkerId};
use turnpike_dataplane::ports::Landing;
use turnpike_protocol::{CallId, Time};

/// How long an id rests where there are others. NATs forget a GRE flow within three minutes, and nothing stays on the
/// way longer than that (RFC 9293 §3.4.2: two minutes).
const REST: Duration = Duration::from_secs(300);

/// Ids of peers whose rest is remembered; beyond that, the oldest have rested.
const MAX_RESTING: usize = 1 << 18;

/// Calls that a worker may own more than a quarter above its part before a call goes elsewhere: handing packets over costs less
/// than waiting for a worker that has all the ciphers to run.
const AHEAD: usize = 64;

/// No call can be added: the limit is reached, or there is no id left for this peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit of calls is reached")]
pub struct Full;

/// An id that no call uses.
#[derive(Clone, Copy, Debug)]
struct Free {
    id: CallId,
    /// When its last call ended; `None` before its first.
    since: Option<Time>,
}

impl Free {
    fn is_rested(&self, now: Time) -> bool {
        self.since.is_none_or(|since| since + REST <= now)
    }
}

/// The ids of all live calls. One per server.
#[derive(Debug)]
pub struct Calls {
    owners: Owners,
    source_check: SourceCheck,
    /// Free ids of each worker, the longest rested in front.
    free: Vec<VecDeque<Free>>,
    /// Live calls by peer and id, which is how workers find them; bounded by `limit`.
    live: HashSet<(Ipv4Addr, CallId)>,
    /// How many live calls use each id: more than one only when ids are shared between peers.
    users: Vec<u32>,
    /// What each peer has given back, and when.
    resting: Resting,
    limit: usize,
    /// Live calls of each worker.
    busy: Vec<usize>,
    /// Where packets arrive, if that is known.
    landing: Option<Landing>,
    /// The worker that is asked first for the next call.
    turn: usize,
    /// Where the search for an id to share begins.
    cursor: u16,
}

impl Calls {
    /// No calls yet. At most `limit` live at once; ids are dealt from `start` upwards, which should differ between
    /// runs, so that GRE for calls of the last run meets nothing.
    pub fn new(
        owners: Owners,
        workers: usize,
        limit: usize,
        start: u16,
        source_check: SourceCheck,
    ) -> Self {
        let mut free = vec![VecDeque::new(); workers.max(1)];
        for step in 0..=u16::MAX {
            let id = CallId(start.wrapping_add(step));
            // 0 is legal, but some peers take it for "unset": never chosen by us.
            if id.0 != 0
                && let Some(queue) = free.get_mut(usize::from(owners.owner(id).0))
            {
                queue.push_back(Free { id, since: None });
            }
        }
        Self {
            owners,
            source_check,
            free,
            live: HashSet::new(),
            users: vec![0; 1 << 16],
            resting: Resting::default(),
            limit,
            busy: vec![0; workers.max(1)],
            landing: None,
            turn: 0,
            cursor: start,
        }
    }

    /// From now on calls belong to whom their packets arrive at, as long as that one does not have much more than its part.
    #[must_use]
    pub fn placed_by(mut self, landing: Option<Landing>) -> Self {
        self.landing = landing;
        self
    }

    /// Takes an id for a call from `peer` to `local`, if it can be of the worker that the call's packets arrive at; else workers
    /// take turns.
    ///
    /// # Errors
    /// [`Full`] when the limit is reached, `peer` holds every id, or ids may not be shared and none is left.
    pub fn lease(&mut self, local: Ipv4Addr, peer: Ipv4Addr, now: Time) -> Result<CallRef, Full> {
        if self.live.len() >= self.limit {
            return Err(Full);
        }
        self.resting.forget_before(now);
        let at = self.landing(peer, local);
        let id = self
            .unused(peer, at, now)
            .or_else(|| self.shared(peer, at))
            .ok_or(Full)?;
        self.busy[usize::from(self.owners.owner(id).0)] += 1;
        let call = CallRef { local, peer, id };
        self.live.insert((peer, id));
        self.resting.remove((peer, id));
        self.users[usize::from(id.0)] += 1;
        Ok(call)
    }

    /// Gives an id back: it rests. Calls that are not live are ignored.
    pub fn free(&mut self, call: CallRef, now: Time) {
        let key = (call.peer, call.id);
        if !self.live.remove(&key) {
            return;
        }
        self.resting.insert(key, now);
        self.busy[usize::from(self.owners.owner(call.id).0)] -= 1;
        let users = &mut self.users[usize::from(call.id.0)];
        *users -= 1;
        if *users == 0
            && let Some(queue) = self.free.get_mut(usize::from(self.owners.owner(call.id).0))
        {
            queue.push_back(Free {
                id: call.id,
                since: Some(now),
            });
        }
    }

    /// How many calls are live.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no call is live.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The worker that owns a call.
    pub fn owner(&self, call: CallRef) -> WorkerId {
        self.owners.owner(call.id)
    }

    /// The worker that this peer's packets arrive at, unless it has too many calls.
    fn landing(&self, peer: Ipv4Addr, local: Ipv4Addr) -> Option<usize> {
        let worker = usize::from(self.landing.as_ref()?.worker(peer, local).0);
        let part = self.live.len() / self.busy.len();
        (*self.busy.get(worker)? <= part + part / 4 + AHEAD).then_some(worker)
    }

    /// An id that no call uses: one that has rested, else one that is new to this peer, else the one that has rested
    /// longest. Worker `at` is asked first.
    fn unused(&mut self, peer: Ipv4Addr, at: Option<usize>, now: Time) -> Option<CallId> {
        let workers = self.free.len();
        let first = at.unwrap_or(self.turn);
        let turns = (0..workers).map(|step| (first + step) % workers);
        let rested = turns.clone().find_map(|worker| {
            let front = self.free[worker].front()?;
            front.is_rested(now).then_some((worker, 0))
        });
        let new_to_peer = || {
            turns.clone().find_map(|worker| {
                let new = |free: &Free| !self.resting.contains((peer, free.id));
                Some((worker, self.free[worker].iter().position(new)?))
            })
        };
        let longest = || {
            let fronts = (0..workers).filter_map(|worker| {
                let front = self.free[worker].front()?;
                Some((front.since, worker))
            });
            fronts.min().map(|(_, worker)| (worker, 0))
        };
        let (worker, place) = rested.or_else(new_to_peer).or_else(longest)?;
        if at.is_none() {
            self.turn = worker + 1;
        }
        Some(self.free[worker].remove(place)?.id)
    }

    /// An id that others use but not this peer: one that it has not had for a while, else the one that has rested
    /// longest. One of worker `at`, if there is one.
    fn shared(&mut self, peer: Ipv4Addr, at: Option<usize>) -> Option<CallId> {
        if self.source_check == SourceCheck::Relaxed {
            return None;
        }
        let mut elsewhere = None;
        for step in 1..=u16::MAX {
            let id = CallId(self.cursor.wrapping_add(step));
            let key = (peer, id);
            if id.0 == 0 || self.live.contains(&key) || self.resting.contains(key) {
                continue;
            }
            if at.is_none_or(|worker| usize::from(self.owners.owner(id).0) == worker) {
                self.cursor = id.0;
                return Some(id);
            }
            elsewhere = elsewhere.or(Some(id));
        }
        elsewhere.or_else(|| self.resting.longest(peer))
    }
}

/// Ids that a peer has given back lately.
#[derive(Debug, Default)]
struct Resting {
    since: HashMap<(Ipv4Addr, CallId), Time>,
    /// In the order of time. What was used again meanwhile is still in here.
    order: VecDeque<(Time, (Ipv4Addr, CallId))>,
}

impl Resting {
    fn insert(&mut self, key: (Ipv4Addr, CallId), now: Time) {
        self.since.insert(key, now);
        self.order.push_back((now, key));
        while self.order.len() > MAX_RESTING {
            self.forget_first();
        }
    }

    fn remove(&mut self, key: (Ipv4Addr, CallId)) {
        self.since.remove(&key);
    }

    fn contains(&self, key: (Ipv4Addr, CallId)) -> bool {
        self.since.contains_key(&key)
    }

    fn forget_before(&mut self, now: Time) {
        while self
            .order
            .front()
            .is_some_and(|(since, _)| *since + REST <= now)
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((since, key)) = self.order.pop_front()
            && self.since.get(&key) == Some(&since)
        {
            self.since.remove(&key);
        }
    }

    fn longest(&self, peer: Ipv4Addr) -> Option<CallId> {
        let is_resting = |since: &Time, key| self.since.get(key) == Some(since);
        self.order
            .iter()
            .find(|(since, key)| key.0 == peer && is_resting(since, key))
            .map(|(_, key)| key.1)
    }
}

#[cfg(test)]
mod tests {
    use turnpike_dataplane::netdev::Rss;

    use super::*;

    const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 3);
    const START: Time = Time::ZERO;

    fn calls(workers: usize, limit: usize, start: u16) -> Calls {
        let owners = Owners::round_robin(workers);
        Calls::new(owners, workers, limit, start, SourceCheck::Strict)
    }

    /// Takes every id for `peer`.
    fn fill(calls: &mut Calls, peer: Ipv4Addr) -> Vec<CallRef> {
        (0..65_535)
            .map(|_| calls.lease(LOCAL, peer, START).unwrap())
            .collect()
    }

    #[test]
    fn an_id_rests_until_all_others_were_used() {
        let mut calls = calls(1, 65_535, 65_000);
        let first = calls.lease(LOCAL, PEER, START).unwrap();
        calls.free(first, START);
        calls.free(first, START);
        let mut seen = HashSet::new();
        for _ in 0..65_534 {
            let call = calls.lease(LOCAL, PEER, START).unwrap();
            assert_ne!(call.id, CallId(0));
            assert_ne!(call.id, first.id);
            assert!(seen.insert(call.id));
        }
        assert_eq!(calls.lease(LOCAL, PEER, START).unwrap().id, first.id);
        assert_eq!(calls.lease(LOCAL, PEER, START), Err(Full));
    }

    #[test]
    fn workers_take_turns() {
        let owners = Owners::round_robin(3);
        let mut calls = calls(3, 100, 77);
        let dealt: Vec<u8> = (0..6)
            .map(|_| owners.owner(calls.lease(LOCAL, PEER, START).unwrap().id).0)
            .collect();
        assert_eq!(dealt, [0, 1, 2, 0, 1, 2]);
    }

    /// A device that spreads packets over as many queues as there are workers.
    fn landing(workers: u32) -> Landing {
        let key = (1..=40_u8).map(|octet| octet.wrapping_mul(0x9d)).collect();
        let table = (0..128).map(|entry| entry % workers).collect();
        Landing::new(Rss::new(table, key).unwrap(), workers).unwrap()
    }

    #[test]
    fn a_call_belongs_to_whom_its_packets_arrive_at() {
        let owners = Owners::round_robin(2);
        let landing = landing(2);
        let mut calls = calls(2, 10_000, 77).placed_by(Some(landing.clone()));
        let mut seen = [0; 2];
        for last in 0..200 {
            let peer = Ipv4Addr::new(10, 7, 1, last);
            let call = calls.lease(LOCAL, peer, START).unwrap();
            assert_eq!(owners.owner(call.id), landing.worker(peer, LOCAL), "{peer}");
            seen[usize::from(owners.owner(call.id).0)] += 1;
        }
        assert!(seen.iter().all(|&calls| calls > 50), "{seen:?}");
    }

    #[test]
    fn no_worker_gets_much_more_than_its_part() {
        let mut calls = calls(2, 70_000, 77).placed_by(Some(landing(2)));
        // A NAT: all from one address.
        let mut own = [0_usize; 2];
        let mut all = Vec::new();
        for _ in 0..60_000 {
            let call = calls.lease(LOCAL, PEER, START).unwrap();
            own[usize::from(calls.owner(call).0)] += 1;
            all.push(call);
        }
        let (most, least) = (own[0].max(own[1]), own[0].min(own[1]));
        assert!(most > least, "one is asked first: {own:?}");
        assert!(most <= 30_000 + 7_500 + AHEAD + 1, "{own:?}");
        // What ends is counted, too.
        for call in all {
            calls.free(call, START);
        }
        assert_eq!(calls.busy, [0, 0]);
    }

    #[test]
    fn shared_ids_are_of_whom_packets_arrive_at() {
        let landing = landing(2);
        let mut calls = calls(2, 70_000, 77);
        fill(&mut calls, PEER);
        calls = calls.placed_by(Some(landing.clone()));
        for last in 0..100 {
            let peer = Ipv4Addr::new(10, 7, 1, last);
            let call = calls.lease(LOCAL, peer, START).unwrap();
            assert_eq!(calls.owner(call), landing.worker(peer, LOCAL), "{peer}");
        }
    }

    #[test]
    fn the_limit_holds_and_frees() {
        let mut calls = calls(2, 2, 1);
        let call = calls.lease(LOCAL, PEER, START).unwrap();
        calls.lease(LOCAL, PEER, START).unwrap();
        assert_eq!(calls.lease(LOCAL, OTHER, START), Err(Full));
        calls.free(call, START);
        assert_eq!(calls.len(), 1);
        calls.lease(LOCAL, OTHER, START).unwrap();
    }

    #[test]
    fn an_id_that_a_peer_gave_back_goes_to_another_one_first() {
        let mut calls = calls(1, 65_535, 1);
        let held = fill(&mut calls, PEER);
        let [first, second, third] = [held[9], held[400], held[7]];
        for call in [first, second, third] {
            calls.free(call, START);
        }
        let soon = START + Duration::from_secs(10);
        // All three rest, but only for the peer that had them.
        assert_eq!(calls.lease(LOCAL, OTHER, soon).unwrap().id, first.id);
        // There is no other one: the longest rested.
        assert_eq!(calls.lease(LOCAL, PEER, soon).unwrap().id, second.id);
        let others = calls.lease(LOCAL, OTHER, soon).unwrap();
        assert_eq!(others.id, third.id);
        calls.free(others, soon);
        calls.free(second, soon);
        // `third` was given back by this peer, `second` was not.
        assert_eq!(calls.lease(LOCAL, OTHER, soon).unwrap().id, second.id);
    }

    #[test]
    fn a_rested_id_goes_before_one_that_is_not_whichever_worker_has_it() {
        let mut calls = calls(2, 65_535, 1);
        let held = fill(&mut calls, PEER);
        let of = |worker: u8| {
            let own =
                move |call: &&CallRef| Owners::round_robin(2).owner(call.id) == WorkerId(worker);
            *held.iter().find(own).unwrap()
        };
        // It would be this worker's turn.
        let late = START + Duration::from_secs(60);
        calls.turn = 0;
        calls.free(of(1), START);
        calls.free(of(0), late);
        let now = START + REST;
        assert_eq!(calls.lease(LOCAL, PEER, now).unwrap().id, of(1).id);
        assert_eq!(calls.lease(LOCAL, PEER, now).unwrap().id, of(0).id);
    }

    #[test]
    fn when_ids_run_out_they_are_unique_per_peer() {
        let mut calls = calls(2, 70_000, 1);
        let first = fill(&mut calls, PEER);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), 65_535);
        assert_eq!(calls.lease(LOCAL, PEER, START), Err(Full));
        let shared = calls.lease(LOCAL, OTHER, START).unwrap();
        assert_ne!(shared.id, CallId(0));
        // The id is still the first peer's: it must not become free for a third.
        calls.free(shared, START);
        assert!(calls.free.iter().all(VecDeque::is_empty));
        // Given back by the first, it is unique over the box again, for whoever did not have it.
        let whose = first.iter().find(|call| call.id == shared.id).unwrap();
        calls.free(*whose, START);
        let third = Ipv4Addr::new(10, 7, 0, 4);
        assert_eq!(calls.lease(LOCAL, third, START).unwrap().id, shared.id);
        assert_eq!(calls.len(), 65_535);
    }

    #[test]
    fn shared_ids_rest_too_per_peer() {
        let mut calls = calls(2, 200_000, 1);
        fill(&mut calls, PEER);
        let mut seen = HashSet::new();
        for _ in 0..65_535 {
            // One call after the other, as a client does that redials.
            let call = calls.lease(LOCAL, OTHER, START).unwrap();
            assert!(seen.insert(call.id), "{} rests", call.id);
            calls.free(call, START);
        }
        // All rest: the one that has done so longest, and it is not the next in any order of ids.
        let held = calls.lease(LOCAL, OTHER, START).unwrap();
        let next = calls.lease(LOCAL, OTHER, START).unwrap();
        assert_ne!(held.id, next.id);
        assert_eq!(
            calls.lease(LOCAL, OTHER, START).unwrap().id.0,
            next.id.0 + 1
        );
        // Nothing is remembered longer than it matters.
        calls.lease(LOCAL, OTHER, START + REST).unwrap();
        assert!(calls.resting.since.is_empty() && calls.resting.order.is_empty());
    }

    #[test]
    fn where_sources_are_not_checked_ids_are_never_shared() {
        let owners = Owners::round_robin(1);
        let mut calls = Calls::new(owners, 1, 70_000, 1, SourceCheck::Relaxed);
        let held = fill(&mut calls, PEER);
        assert_eq!(calls.lease(LOCAL, OTHER, START), Err(Full));
        calls.free(held[3], START);
        assert_eq!(calls.lease(LOCAL, OTHER, START).unwrap().id, held[3].id);
    }

    #[test]
    fn what_rests_is_bounded() {
        let mut calls = calls(1, 1, 1);
        for n in 0..MAX_RESTING + 10 {
            let peer = Ipv4Addr::from_bits(n as u32);
            let call = calls.lease(LOCAL, peer, START).unwrap();
            calls.free(call, START);
        }
        assert_eq!(calls.resting.order.len(), MAX_RESTING);
        assert_eq!(calls.resting.since.len(), MAX_RESTING);
    }
}
