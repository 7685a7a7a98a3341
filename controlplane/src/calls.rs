//! Which call ids are in use.
//!
//! The id that we choose is the only thing that tells two clients behind one NAT apart (a NAT rewrites the client's
//! id, never ours), so ids are unique over the box while there are free ones. When all 65,535 are taken and the
//! configured limit still allows calls, ids become unique per peer: the workers' tables are keyed by both, so this
//! needs nothing else, only clients of one NAT can then no longer be told apart by id alone.
//!
//! An id rests before it is used again: free ids form a queue, since late GRE of an old call must not meet a new one.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;

use turnpike_dataplane::api::{CallRef, Owners, WorkerId};
use turnpike_protocol::CallId;

/// No call can be added: the limit is reached, or this peer uses every id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit of calls is reached")]
pub struct Full;

/// The ids of all live calls. One per server.
#[derive(Debug)]
pub struct Calls {
    owners: Owners,
    /// Free ids of each worker, the longest rested in front.
    free: Vec<VecDeque<CallId>>,
    /// Live calls by peer and id, which is how workers find them; bounded by `limit`.
    live: HashSet<(Ipv4Addr, CallId)>,
    /// How many live calls use each id: more than one only when ids are shared between peers.
    users: Vec<u32>,
    limit: usize,
    /// The worker that is asked first for the next call.
    turn: usize,
    /// Where the search for an id to share begins.
    cursor: u16,
}

impl Calls {
    /// No calls yet. At most `limit` live at once; ids are dealt from `start` upwards, which should differ between
    /// runs, so that GRE for calls of the last run meets nothing.
    pub fn new(owners: Owners, workers: usize, limit: usize, start: u16) -> Self {
        let mut free = vec![VecDeque::new(); workers.max(1)];
        for step in 0..=u16::MAX {
            let id = CallId(start.wrapping_add(step));
            // 0 is legal, but some peers take it for "unset": never chosen by us.
            if id.0 != 0
                && let Some(queue) = free.get_mut(usize::from(owners.owner(id).0))
            {
                queue.push_back(id);
            }
        }
        Self {
            owners,
            free,
            live: HashSet::new(),
            users: vec![0; 1 << 16],
            limit,
            turn: 0,
            cursor: start,
        }
    }

    /// Takes an id for a call from `peer` to `local`; workers take turns.
    ///
    /// # Errors
    /// [`Full`] when the limit is reached or `peer` holds every id.
    pub fn lease(&mut self, local: Ipv4Addr, peer: Ipv4Addr) -> Result<CallRef, Full> {
        if self.live.len() >= self.limit {
            return Err(Full);
        }
        let id = self.rested().or_else(|| self.shared(peer)).ok_or(Full)?;
        let call = CallRef { local, peer, id };
        self.live.insert((peer, id));
        self.users[usize::from(id.0)] += 1;
        Ok(call)
    }

    /// Gives an id back, to the end of its queue. Calls that are not live are ignored.
    pub fn free(&mut self, call: CallRef) {
        if !self.live.remove(&(call.peer, call.id)) {
            return;
        }
        let users = &mut self.users[usize::from(call.id.0)];
        *users -= 1;
        if *users == 0
            && let Some(queue) = self.free.get_mut(usize::from(self.owners.owner(call.id).0))
        {
            queue.push_back(call.id);
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

    fn rested(&mut self) -> Option<CallId> {
        let workers = self.free.len();
        for step in 0..workers {
            let worker = (self.turn + step) % workers;
            if let Some(id) = self.free[worker].pop_front() {
                self.turn = worker + 1;
                return Some(id);
            }
        }
        None
    }

    fn shared(&mut self, peer: Ipv4Addr) -> Option<CallId> {
        for _ in 0..=u16::MAX {
            self.cursor = self.cursor.wrapping_add(1);
            let id = CallId(self.cursor);
            if id.0 != 0 && !self.live.contains(&(peer, id)) {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 3);

    #[test]
    fn an_id_rests_until_all_others_were_used() {
        let mut calls = Calls::new(Owners::round_robin(1), 1, 65_535, 65_000);
        let first = calls.lease(LOCAL, PEER).unwrap();
        calls.free(first);
        calls.free(first);
        let mut seen = HashSet::new();
        for _ in 0..65_534 {
            let call = calls.lease(LOCAL, PEER).unwrap();
            assert_ne!(call.id, CallId(0));
            assert_ne!(call.id, first.id);
            assert!(seen.insert(call.id));
        }
        assert_eq!(calls.lease(LOCAL, PEER).unwrap().id, first.id);
        assert_eq!(calls.lease(LOCAL, PEER), Err(Full));
    }

    #[test]
    fn workers_take_turns() {
        let owners = Owners::round_robin(3);
        let mut calls = Calls::new(owners.clone(), 3, 100, 77);
        let dealt: Vec<u8> = (0..6)
            .map(|_| owners.owner(calls.lease(LOCAL, PEER).unwrap().id).0)
            .collect();
        assert_eq!(dealt, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn the_limit_holds_and_frees() {
        let mut calls = Calls::new(Owners::round_robin(2), 2, 2, 1);
        let call = calls.lease(LOCAL, PEER).unwrap();
        calls.lease(LOCAL, PEER).unwrap();
        assert_eq!(calls.lease(LOCAL, OTHER), Err(Full));
        calls.free(call);
        assert_eq!(calls.len(), 1);
        calls.lease(LOCAL, OTHER).unwrap();
    }

    #[test]
    fn when_ids_run_out_they_are_unique_per_peer() {
        let mut calls = Calls::new(Owners::round_robin(2), 2, 70_000, 1);
        for _ in 0..65_535 {
            calls.lease(LOCAL, PEER).unwrap();
        }
        assert_eq!(calls.lease(LOCAL, PEER), Err(Full));
        let shared = calls.lease(LOCAL, OTHER).unwrap();
        assert_ne!(shared.id, CallId(0));
        // The id is still the first peer's: it must not become free for a third.
        calls.free(shared);
        assert!(calls.free.iter().all(VecDeque::is_empty));
    }
}
