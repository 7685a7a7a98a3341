//! IPV6CP beside IPCP: both ends, with and without it, and never to the harm of IPv4.

use std::time::Duration;

use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::{ClientLink, Encryption, ServerLink};

use super::harness::{Faults, Pair, client, ipv6_verdict, server};

const MINUTE: Duration = Duration::from_secs(60);

fn pair(identifier: Option<u64>, mtu: u16, mppe: Policy, seed: u64) -> Pair {
    let client = ClientLink {
        ipv6: identifier,
        mtu,
        mppe,
        ..client()
    };
    let mut pair = Pair::new(client, ServerLink { mppe, ..server() }, seed);
    pair.verdict = Box::new(ipv6_verdict);
    pair
}

fn both_up6(pair: &Pair) -> bool {
    pair.ends.iter().all(|end| end.up6.is_some())
}

/// Frames of IPV6CP that an end sent.
fn asked(sent: &[Vec<u8>]) -> usize {
    sent.iter()
        .filter(|frame| frame[2..4] == [0x80, 0x57])
        .count()
}

#[test]
fn the_client_keeps_its_identifier_or_is_given_one() {
    for (asks, gets) in [
        (7, 7),
        (0, 0x0211_22ff_fe33_4455),
        (1, 0x0211_22ff_fe33_4455),
    ] {
        for mppe in [Policy::Require, Policy::Deny] {
            let mut pair = pair(Some(asks), 1400, mppe, 1);
            assert!(pair.set_up());
            assert!(pair.run(MINUTE, both_up6), "{asks:x}, {mppe:?}");
            let at_client = pair.client().up6.unwrap();
            let at_server = pair.server().up6.unwrap();
            assert_eq!((at_client.ours, at_client.theirs), (gets, 1));
            assert_eq!((at_server.ours, at_server.theirs), (1, gets));
            let encryption = match mppe {
                Policy::Deny => Encryption::Plain,
                _ => Encryption::Required,
            };
            assert_eq!(at_client.encryption, encryption);
            assert_eq!(at_server.encryption, encryption);
            assert_eq!(pair.server().link.info().ipv6, Some(at_server));
        }
    }
}

#[test]
fn who_does_not_want_it_is_not_asked() {
    let mut pair = pair(None, 1400, Policy::Require, 1);
    assert!(pair.set_up());
    assert!(!pair.run(MINUTE, |pair| pair.ends.iter().any(|end| end.up6.is_some())));
    assert_eq!(asked(&pair.server().sent), 0);
    assert!(pair.both_up());
}

#[test]
fn a_server_without_it_says_so_once_for_each_request() {
    let mut pair = Pair::new(
        ClientLink {
            ipv6: Some(7),
            ..client()
        },
        server(),
        1,
    );
    assert!(pair.set_up());
    pair.run(MINUTE, |_| false);
    assert!(pair.both_up() && !both_up6(&pair));
    let requests = asked(&pair.client().sent);
    let rejects = (pair.server().sent.iter())
        .filter(|frame| frame[2..5] == [0xc0, 0x21, 8] && frame[8..10] == [0x80, 0x57])
        .count();
    assert_eq!((requests, rejects), (1, 1));
}

#[test]
fn a_small_mtu_carries_none() {
    for (mtu, up) in [(1280, true), (1279, false)] {
        let mut pair = pair(Some(7), mtu, Policy::Require, 1);
        assert!(pair.set_up());
        assert_eq!(pair.run(MINUTE, both_up6), up, "{mtu}");
        assert!(pair.both_up());
    }
}

#[test]
fn comes_up_on_bad_wires() {
    for seed in 0..200 {
        let mut pair = pair(Some(seed % 3), 1400, Policy::Require, seed);
        pair.faults = Faults {
            loss: 100,
            duplication: 50,
            reordering: 100,
        };
        assert!(pair.set_up(), "{seed}");
        assert!(pair.run(MINUTE * 2, both_up6), "{seed}");
        assert_eq!(
            pair.client().up6.unwrap().theirs,
            pair.server().up6.unwrap().ours,
            "{seed}"
        );
    }
}
