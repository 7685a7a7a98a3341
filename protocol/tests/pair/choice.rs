//! Clients that ask for an address of their own.

use std::net::Ipv4Addr;
use std::time::Duration;

use turnpike_protocol::ppp::{ClientLink, ServerLink};

use super::harness::{CLIENT_ADDRESS, Faults, Pair, Side, client, server};

const MINUTE: Duration = Duration::from_secs(60);
const GRANTED: Ipv4Addr = Ipv4Addr::from_octets(CLIENT_ADDRESS);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 7);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 8);

fn pair(address: Ipv4Addr, choice: bool, seed: u64) -> Pair {
    let client = ClientLink {
        address,
        ..client()
    };
    let server = ServerLink { choice, ..server() };
    let mut pair = Pair::new(client, server, seed);
    pair.gives = vec![OWN];
    pair
}

/// The address that both ends have agreed on.
fn agreed(pair: &mut Pair) -> Ipv4Addr {
    let at_client = pair.client().up.unwrap().address;
    assert_eq!(pair.server().up.unwrap().address, at_client);
    at_client
}

#[test]
fn a_client_gets_what_it_may_have_and_else_what_it_is_given() {
    for (asks, choice, gets, asked) in [
        (OWN, true, OWN, vec![OWN]),
        (OTHER, true, GRANTED, vec![OTHER]),
        (OWN, false, GRANTED, vec![]),
        (Ipv4Addr::UNSPECIFIED, true, GRANTED, vec![]),
        (GRANTED, true, GRANTED, vec![]),
    ] {
        let mut pair = pair(asks, choice, 1);
        assert!(pair.set_up(), "{asks}");
        assert_eq!(agreed(&mut pair), gets, "{asks}, {choice}");
        assert_eq!(pair.asked, asked, "{asks}, {choice}");
    }
}

#[test]
fn a_bad_wire_changes_nothing_about_that() {
    for seed in 0..200 {
        for (asks, gets) in [(OWN, OWN), (OTHER, GRANTED)] {
            let mut pair = pair(asks, true, seed);
            pair.faults = Faults {
                loss: 100,
                duplication: 50,
                reordering: 100,
            };
            if pair.set_up() {
                assert_eq!(agreed(&mut pair), gets, "seed {seed}");
                assert_eq!(pair.asked, [asks], "seed {seed}");
            } else {
                assert!(pair.run(MINUTE, Pair::both_ended), "seed {seed}");
            }
        }
    }
}

#[test]
fn while_nobody_decides_the_client_waits_and_asks_once() {
    let mut pair = pair(OWN, true, 1);
    pair.undecided = true;
    pair.open();
    assert!(!pair.run(Duration::from_secs(8), Pair::both_up));
    assert_eq!(pair.asked, [OWN]);
    assert!(pair.ends.iter().all(|end| end.up.is_none()));
    let now = pair.now;
    pair.server().link.chosen(true, now);
    pair.drain(Side::Server);
    assert!(pair.run(MINUTE, Pair::both_up));
    assert_eq!(agreed(&mut pair), OWN);
    // Nothing was asked: nothing happens.
    let now = pair.now;
    pair.server().link.chosen(false, now);
    pair.drain(Side::Server);
    assert_eq!(agreed(&mut pair), OWN);
}
