//! Calls of one address to which their clients gave the same id.
//!
//! A client that crashed and redials may give its new call the id of its old one, and GRE that goes out for the old call
//! reaches the new one until echoes have ended that. So when a call begins and has the id of an older call, the older one says
//! nothing for a moment, and when its user has logged in, the older one's connection is asked for an echo at once. Clients behind one address may also have the same id by chance, and a translator that
//! knows PPTP tells them apart: those answer, and go on.

use core::net::Ipv4Addr;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use turnpike_protocol::CallId;

use crate::post;
use crate::sessions::Order;

/// How many of the latest calls with an id are told of a newer one. Many clients number their calls from a constant, and behind a
/// carrier's address thousands of them may be alive.
const TOLD: usize = 8;

/// The connections that have a call with an id, oldest first.
type Holders = Vec<(u64, post::Sender<Order>)>;

/// The calls of all clients, by address and the client's id.
#[derive(Default)]
pub struct Twins(Mutex<HashMap<(Ipv4Addr, CallId), Holders>>);

/// A call's place among them; given back when dropped.
pub struct Twin {
    twins: Arc<Twins>,
    key: (Ipv4Addr, CallId),
    connection: u64,
}

impl Twins {
    /// A client at `peer` has given a call the id `peer_id` on the connection with this number, whose orders these are. Older
    /// calls with it are told to be silent for a moment.
    pub fn enter(
        self: &Arc<Self>,
        peer: Ipv4Addr,
        peer_id: CallId,
        connection: u64,
        orders: &post::Sender<Order>,
    ) -> Twin {
        let key = (peer, peer_id);
        let mut twins = self.lock();
        let holders = twins.entry(key).or_default();
        // Nearly always there is one.
        if holders.is_empty() {
            holders.reserve_exact(1);
        }
        holders.push((connection, orders.clone()));
        tell_older(holders, connection, Order::Hush);
        Twin {
            twins: self.clone(),
            key,
            connection,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Ipv4Addr, CallId), Holders>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Twin {
    /// Has the older calls with the same id asked whether their clients live.
    pub fn doubt_older(&self) {
        let twins = self.twins.lock();
        if let Some(holders) = twins.get(&self.key) {
            tell_older(holders, self.connection, Order::Doubt);
        }
    }
}

/// Sends an order to the latest of the connections that had a call with the id before this one. A connection's later calls
/// count as younger ones: it is only told of another connection's.
fn tell_older(holders: &Holders, connection: u64, order: Order) {
    let own = holders.iter().position(|(other, _)| *other == connection);
    let older = holders[..own.unwrap_or(0)].iter().rev();
    for (_, orders) in older.take(TOLD) {
        // Of one that is gone nothing is to be feared.
        let _ = orders.send(order);
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let mut twins = self.twins.lock();
        let Some(holders) = twins.get_mut(&self.key) else {
            return;
        };
        if let Some(at) = holders
            .iter()
            .position(|(other, _)| *other == self.connection)
        {
            holders.remove(at);
        }
        if holders.is_empty() {
            twins.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
    const AWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

    fn doubts(orders: &mut post::Receiver<Order>) -> usize {
        std::iter::from_fn(|| orders.try_recv())
            .filter(|order| *order == Order::Doubt)
            .count()
    }

    #[test]
    fn older_calls_of_the_same_address_and_id_are_asked() {
        let twins = Arc::new(Twins::default());
        let (old, mut old_hears) = post::channel();
        let (new, mut new_hears) = post::channel();
        let first = twins.enter(HOME, CallId(7), 1, &old);
        // Another id, another address, or the connection itself.
        let others = [
            twins.enter(HOME, CallId(8), 2, &new),
            twins.enter(AWAY, CallId(7), 2, &new),
            twins.enter(HOME, CallId(7), 1, &old),
        ];
        for twin in &others {
            twin.doubt_older();
        }
        assert!(old_hears.try_recv().is_none() && new_hears.try_recv().is_none());
        let second = twins.enter(HOME, CallId(7), 2, &new);
        // Nobody has logged in yet: both calls of the older connection are silent, and that is all.
        let told: Vec<Order> = std::iter::from_fn(|| old_hears.try_recv()).collect();
        assert_eq!(told, [Order::Hush; 2]);
        assert!(new_hears.try_recv().is_none());
        second.doubt_older();
        // Both calls of the older connection; and the older one never asks about the younger one.
        first.doubt_older();
        assert_eq!((doubts(&mut old_hears), doubts(&mut new_hears)), (2, 0));
        drop((first, others));
        let third = twins.enter(HOME, CallId(7), 3, &old);
        third.doubt_older();
        assert_eq!((doubts(&mut old_hears), doubts(&mut new_hears)), (0, 1));
        drop((second, third));
        assert!(twins.lock().is_empty());
    }

    #[test]
    fn a_crowd_with_one_id_costs_a_call_no_more_than_eight_questions() {
        let twins = Arc::new(Twins::default());
        let (orders, mut hears) = post::channel();
        let crowd: Vec<Twin> = (0..100)
            .map(|connection| {
                let twin = twins.enter(HOME, CallId(0), connection, &orders);
                twin.doubt_older();
                twin
            })
            .collect();
        // 0 + 1 + ... + 7, and then 8 each.
        assert_eq!(doubts(&mut hears), 28 + 92 * TOLD);
        drop(crowd);
        assert!(twins.lock().is_empty());
    }
}
