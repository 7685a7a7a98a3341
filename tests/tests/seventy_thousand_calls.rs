//! More calls on one local address than there are call ids: every one logs in at the real server cores, has a real
//! record at a worker, and carries packets both ways.
//!
//! And the same in small as the benchmark `million` does it: with MPPE, from anywhere, and with clients that just go.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they saw"
)]

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use turnpike_controlplane::cause::Cause;
use turnpike_protocol::CallId;
use turnpike_protocol::mppe::Policy;
use turnpike_tests::crowd::{Client, Crowd, Options, Peers};

const CALLS: usize = 70_000;
/// Ids there are: 16 bits, and 0 is never chosen.
const IDS: usize = 65_535;
/// Clients behind each outer address.
const BEHIND_ONE_NAT: usize = 4;
const WORKERS: usize = 2;

#[test]
fn seventy_thousand_calls_live_on_one_local_address() {
    let start = Instant::now();
    let mut world = Crowd::new(Options {
        calls: CALLS,
        workers: WORKERS,
        mppe: Policy::Deny,
        peers: Peers::Behind(BEHIND_ONE_NAT),
        step: Duration::from_millis(1),
    });
    for _ in 0..IDS {
        world.dial();
    }
    // Unique over the box as long as there are ids.
    let id = |client: &Client| client.call().id;
    let unique: HashSet<CallId> = world.clients.iter().map(id).collect();
    assert_eq!(unique.len(), IDS);
    for n in (0..IDS).step_by(97) {
        world.flow(n);
    }
    for _ in IDS..CALLS {
        world.dial();
    }
    println!("{CALLS} calls up after {:.1?}", start.elapsed());
    assert_eq!(world.calls.len(), CALLS);
    // Then unique per peer.
    let mut by_id = HashMap::<CallId, HashSet<Ipv4Addr>>::new();
    for client in &world.clients {
        let by_id = by_id.entry(id(client)).or_default();
        assert!(by_id.insert(client.call().peer));
    }
    assert!(!by_id.contains_key(&CallId(0)));
    let shared = by_id.values().filter(|peers| peers.len() > 1).count();
    assert_eq!(shared, CALLS - IDS);
    let held: Vec<usize> = (0..WORKERS)
        .map(|worker| {
            let own = |client: &&Client| usize::from(world.owners.owner(id(client)).0) == worker;
            world.clients.iter().filter(own).count()
        })
        .collect();
    println!("{shared} ids are used by two peers; calls of each worker: {held:?}");
    assert!(held.iter().all(|calls| *calls > CALLS * 2 / 5));

    // Old calls and new ones, those that share an id among them.
    for n in 0..CALLS {
        world.flow(n);
    }
    println!(
        "packets flowed on all of them after {:.1?}",
        start.elapsed()
    );
    // Nothing was lost or taken for another call's.
    for node in &world.nodes {
        let drops: Vec<_> = node
            .worker
            .counters()
            .reasons()
            .filter(|(_, n)| *n > 0)
            .collect();
        assert!(drops.is_empty(), "{drops:?}");
    }

    // One of two calls with the same id ends; the other one stays, and so do its packets.
    let last = CALLS - 1;
    let twin = world
        .clients
        .iter()
        .position(|client| id(client) == id(&world.clients[last]));
    let twin = twin.unwrap();
    assert_ne!(twin, last);
    world.hang_up(last);
    world.flow(twin);
    for n in 0..last {
        world.hang_up(n);
    }
    assert_eq!(world.ended, HashMap::from([(Cause::HungUp, CALLS)]));
    assert!(world.calls.is_empty());
    println!("all over after {:.1?}", start.elapsed());
}

#[test]
fn clients_from_anywhere_come_encrypted_and_go_without_a_word() {
    const CALLS: usize = 500;
    let mut crowd = Crowd::new(Options {
        calls: CALLS,
        workers: 1,
        mppe: Policy::Require,
        peers: Peers::Random,
        step: Duration::from_micros(20),
    });
    for n in 0..CALLS {
        crowd.dial();
        crowd.forget(n);
    }
    for n in (0..CALLS).chain((0..CALLS).rev()) {
        crowd.flow(n);
    }
    for n in 0..CALLS {
        crowd.lose(n);
    }
    assert_eq!(crowd.ended, HashMap::from([(Cause::ConnectionLost, CALLS)]));
    assert!(crowd.calls.is_empty());
}
