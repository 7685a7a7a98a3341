//! The router on a call's link, under made-up time.

use core::net::Ipv6Addr;
use core::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::router::{Advertised, Router};
use turnpike_protocol::wire::ipv6::{self, link_local};
use turnpike_protocol::wire::ndp::{ALL_NODES, ALL_ROUTERS};

const NODE: Ipv6Addr = link_local(7);
const US: Ipv6Addr = link_local(1);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const START: Time = Time::from_nanos(5_000_000_000);

fn advertised() -> Advertised {
    Advertised {
        identifier: 1,
        prefix: "2001:db8:1:7::/64".parse().expect("a prefix"),
        mtu: 1400,
        dns: vec!["2001:db8::53".parse().expect("an address")],
        dhcp: false,
    }
}

fn icmp(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = ipv6::transport_checksum(source, destination, ipv6::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ipv6::Header {
        source,
        destination,
        next_header: ipv6::ICMPV6,
        hop_limit,
        payload_len: message.len() as u16,
    };
    [&header.to_bytes()[..], &message].concat()
}

fn solicitation(source: Ipv6Addr) -> Vec<u8> {
    icmp(source, ALL_ROUTERS, 255, &[133, 0, 0, 0, 0, 0, 0, 0])
}

fn neighbor(source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    icmp(source, target, 255, &message)
}

/// What was sent: to whom, and its type.
fn sent(router: &mut Router) -> Vec<(Ipv6Addr, u8)> {
    core::iter::from_fn(|| router.poll())
        .map(|packet| {
            let ip = ipv6::Packet::new_checked(&packet[..]).expect("well formed");
            assert_eq!(ip.source(), US);
            let sum = ipv6::transport_checksum(
                ip.source(),
                ip.destination(),
                ip.next_header(),
                ip.payload(),
            );
            assert_eq!(sum, 0);
            (ip.destination(), ip.payload()[0])
        })
        .collect()
}

/// Lets time pass until `end`; when advertisements went out, and to whom.
fn run(router: &mut Router, end: Time) -> Vec<(Time, Ipv6Addr)> {
    let mut all = Vec::new();
    loop {
        let at = router.deadline();
        if at > end {
            return all;
        }
        router.handle_timeout(at);
        for (to, kind) in sent(router) {
            assert_eq!(kind, 134);
            all.push((at, to));
        }
    }
}

fn after(from: Time, to: Time) -> f64 {
    to.since(from).as_secs_f64()
}

#[test]
fn advertisements_come_at_once_then_fast_then_slowly() {
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut router = Router::new(advertised(), seed, START);
        let sent = run(&mut router, START + Duration::from_secs(7200));
        assert_eq!(sent[0], (START, ALL_NODES));
        for (n, pair) in sent.windows(2).enumerate() {
            let interval = after(pair[0].0, pair[1].0);
            if n < 2 {
                assert!((3.0..=16.0).contains(&interval), "{n}: {interval}");
            } else {
                assert!((198.0..=600.0).contains(&interval), "{n}: {interval}");
            }
        }
        assert!(sent.len() >= 14);
        firsts.insert(sent[5].0);
    }
    assert!(firsts.len() > 190, "routers do not speak in step");
}

#[test]
fn whoever_asks_is_answered_alone_and_soon() {
    let mut waits = Vec::new();
    for seed in 0..200 {
        let mut router = Router::new(advertised(), seed, START);
        router.handle_timeout(START);
        assert_eq!(sent(&mut router), [(ALL_NODES, 134)]);
        // Again and again: one answer.
        let now = START + Duration::from_millis(40);
        for _ in 0..5 {
            assert_eq!(router.receive(&solicitation(NODE), now), Ok(true));
        }
        assert_eq!(sent(&mut router), []);
        let answers = run(&mut router, now + Duration::from_secs(1));
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].1, NODE);
        let wait = after(now, answers[0].0);
        assert!(wait <= 0.5);
        waits.push(wait);
        // And once more later.
        let later = now + Duration::from_secs(2);
        assert_eq!(router.receive(&solicitation(NODE), later), Ok(true));
        let answers = run(&mut router, later + Duration::from_millis(500));
        assert_eq!(answers.len(), 1);
    }
    let mean = waits.iter().sum::<f64>() / 200.0;
    assert!((0.2..0.3).contains(&mean), "{mean}");
}

#[test]
fn whoever_has_no_address_is_answered_with_everybody_and_not_too_often() {
    for seed in 0..200 {
        let mut router = Router::new(advertised(), seed, START);
        router.handle_timeout(START);
        sent(&mut router);
        let mut now = START;
        let mut all = vec![(START, ALL_NODES)];
        // Somebody asks ten times a second.
        for _ in 0..100 {
            now += Duration::from_millis(100);
            all.extend(run(&mut router, now));
            assert_eq!(router.receive(&solicitation(NOBODY), now), Ok(true));
        }
        assert!((3..=4).contains(&all.len()), "{}", all.len());
        for pair in all.windows(2) {
            assert_eq!(pair[1].1, ALL_NODES);
            assert!((3.0..=3.6).contains(&after(pair[0].0, pair[1].0)));
        }
    }
    // Long after the last one it is answered at once.
    let mut router = Router::new(advertised(), 1, START);
    run(&mut router, START + Duration::from_secs(100));
    let now = START + Duration::from_secs(100);
    assert_eq!(router.receive(&solicitation(NOBODY), now), Ok(true));
    assert!(after(now, router.deadline()) <= 0.5);
}

#[test]
fn an_advertisement_says_what_it_was_told() {
    let mut router = Router::new(advertised(), 1, START);
    router.handle_timeout(START);
    let packet = router.poll().expect("an advertisement");
    let message = &packet[40..];
    // Hop limit, flags, router lifetime.
    assert_eq!(message[4..8], [64, 0, 7, 8]);
    // MTU; prefix: 64 bits, A and not L, valid 2 hours, preferred 1; name server, half an hour.
    assert_eq!(message[16..24], [5, 1, 0, 0, 0, 0, 5, 0x78]);
    assert_eq!(message[24..28], [3, 4, 64, 0x40]);
    assert_eq!(message[28..36], [0, 0, 0x1c, 0x20, 0, 0, 0x0e, 0x10]);
    assert_eq!(
        message[40..56],
        [0x20, 1, 0xd, 0xb8, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(message[56..64], [25, 3, 0, 0, 0, 0, 7, 8]);
    // Changed: told soon, but not at once after the last.
    let changed = Advertised {
        mtu: 1300,
        dhcp: true,
        dns: Vec::new(),
        ..advertised()
    };
    let now = START + Duration::from_secs(1);
    router.advertise(changed.clone(), now);
    assert_eq!(after(START, router.deadline()), 3.0);
    let at = router.deadline();
    router.handle_timeout(at);
    let packet = router.poll().expect("an advertisement");
    assert_eq!(packet[45], 0x40, "other settings by DHCP");
    assert_eq!(packet[56..64], [5, 1, 0, 0, 0, 0, 5, 0x14]);
    assert_eq!(packet.len(), 40 + 16 + 8 + 32);
    // The same again is nothing new.
    let deadline = router.deadline();
    router.advertise(changed, at + Duration::from_secs(1));
    assert_eq!(router.deadline(), deadline);
}

#[test]
fn neighbours_and_echoes_get_answers() {
    let mut router = Router::new(advertised(), 1, START);
    assert_eq!(router.receive(&neighbor(NODE, US), START), Ok(true));
    assert_eq!(router.receive(&neighbor(NOBODY, US), START), Ok(true));
    assert_eq!(sent(&mut router), [(NODE, 136), (ALL_NODES, 136)]);
    let echo = |destination| icmp(NODE, destination, 64, &[128, 0, 0, 0, 0, 1, 0, 2, 9, 9]);
    for to in [US, ALL_NODES, ALL_ROUTERS] {
        assert_eq!(router.receive(&echo(to), START), Ok(true));
        assert_eq!(sent(&mut router), [(NODE, 129)]);
    }
    // Somebody else is meant, or nobody could be answered.
    for packet in [
        neighbor(NODE, link_local(2)),
        echo(link_local(2)),
        icmp(NOBODY, US, 64, &[128, 0, 0, 0, 0, 1, 0, 2]),
        icmp(NODE, US, 64, &[129, 0, 0, 0, 0, 1, 0, 2]),
    ] {
        assert_eq!(router.receive(&packet, START), Ok(false));
    }
    // From afar, and cut.
    let mut far = solicitation(NODE);
    far[7] = 254;
    assert!(router.receive(&far, START).is_err());
    assert!(router.receive(&solicitation(NODE)[..47], START).is_err());
    assert!(router.receive(&[], START).is_err());
    assert_eq!(sent(&mut router), []);
    // Who asks faster than answers are fetched is not remembered without bound.
    for _ in 0..100 {
        assert_eq!(router.receive(&echo(US), START), Ok(true));
    }
    assert_eq!(sent(&mut router).len(), 8);
}
