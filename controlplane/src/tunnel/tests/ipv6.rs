//! IPv6 inside a call: prefixes, routes, and the router on the link.

use core::net::{Ipv6Addr, SocketAddrV6};

use turnpike_protocol::wire::ipv6::{self, link_local};
use turnpike_protocol::wire::udp;

use super::*;

/// The client's interface identifier.
const CLIENT: u64 = 7;

fn with_ipv6() -> World {
    let mut world = World::new(Settings {
        dhcp6: Some(Arc::new(Dhcp6 {
            duid: Dhcp6::duid_of([2, 0, 0, 0, 0, 9]),
            dns: vec![],
            domain: None,
        })),
        ..settings()
    });
    world.ipv6 = true;
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.pass(Duration::from_millis(10));
    world
}

fn solicitation() -> Vec<u8> {
    let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let mut message = [133, 0, 0, 0, 0, 0, 0, 0];
    let sum = ipv6::transport_checksum(link_local(CLIENT), routers, ipv6::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ipv6::Header {
        source: link_local(CLIENT),
        destination: routers,
        next_header: ipv6::ICMPV6,
        hop_limit: 255,
        payload_len: 8,
    };
    [&header.to_bytes()[..], &message].concat()
}

/// Lets the client ask, and time pass; what happened then.
fn ask(world: &mut World, packet: &[u8]) -> Vec<String> {
    world.did.clear();
    let event = Event::Inner {
        call: world.call(100),
        packet: FrameBytes::new(packet).unwrap(),
    };
    world.tunnel.event(event, world.now);
    world.pass(Duration::from_millis(500));
    world.did.clone()
}

/// A PPP frame of the client's that its link has not sent.
fn put(world: &mut World, frame: &[u8]) {
    let event = Event::Frame {
        call: world.call(100),
        frame: FrameBytes::new(frame).unwrap(),
    };
    world.tunnel.event(event, world.now);
    world.settle();
}

#[test]
fn everything_stands_before_the_client_is_told() {
    let world = with_ipv6();
    let order = [
        "route6 2001:db8:1:7::/64",
        "route6 2001:db8:d:700::/56",
        "forward6 7 1400",
        "ipv6 up 2001:db8:1:7::/64",
        "IPV6CP Configure-Ack",
        "icmpv6 134 to ff02::1",
    ];
    let positions = order.map(|step| world.position(step));
    assert!(positions.is_sorted(), "{:#?}", world.did);
    let snapshot = world.tunnel.snapshots().next().unwrap();
    assert_eq!(snapshot.ipv6, Some(GRANT6));
    // Once each.
    for step in order {
        let times = world.did.iter().filter(|did| *did == step).count();
        assert_eq!(times, 1, "{step}");
    }
}

#[test]
fn a_client_without_ipv6_has_no_prefix() {
    let mut world = World::new(settings());
    world.ipv6 = true;
    world.client_ipv6 = false;
    world.caller.call(CallId(0), world.now);
    world.settle();
    world.pass(Duration::from_secs(1000));
    world.position("up alice 10.20.0.9 1400");
    for word in ["route6", "forward6", "icmpv6", "ipv6"] {
        assert!(!world.did.iter().any(|did| did.starts_with(word)), "{word}");
    }
    assert_eq!(world.tunnel.snapshots().next().unwrap().ipv6, None);
    // What it was given all the same goes back.
    world.caller.clear(CallId(0), world.now);
    world.settle();
    assert_eq!(world.end().ipv6, Some(GRANT6));
}

#[test]
fn the_router_answers_and_speaks_by_itself() {
    let mut world = with_ipv6();
    assert_eq!(ask(&mut world, &solicitation()), ["icmpv6 134 to fe80::7"]);
    // Noise is no question.
    assert!(ask(&mut world, &[0x60; 40]).is_empty());
    let mut far = solicitation();
    far[7] = 64;
    assert!(ask(&mut world, &far).is_empty());
    // In an hour everybody hears of it some ten times, between echoes.
    world.did.clear();
    world.pass(Duration::from_secs(3600));
    let spoken = world
        .did
        .iter()
        .filter(|did| *did == "icmpv6 134 to ff02::1")
        .count();
    assert!((6..=22).contains(&spoken), "{spoken}");
}

#[test]
fn nothing_is_said_while_ipv6_is_held() {
    let mut world = with_ipv6();
    // IPV6CP Terminate-Request.
    world.did.clear();
    put(&mut world, &[0xff, 0x03, 0x80, 0x57, 5, 99, 0, 4]);
    assert_eq!(world.position("hold6"), 0);
    assert!(ask(&mut world, &solicitation()).is_empty());
    // The client negotiates anew; the routes still stand.
    world.did.clear();
    world.pass(Duration::from_secs(10));
    assert!(world.position("forward6 7 1400") < world.position("icmpv6 134 to ff02::1"));
    assert!(!world.did.iter().any(|did| did.starts_with("route6")));
    // IPv4 went on.
    assert!(!world.did.iter().any(|did| did == "hold"));
    world.caller.clear(CallId(0), world.now);
    world.settle();
    world.position("unroute6 2001:db8:1:7::/64");
    assert_eq!(world.end().ipv6, Some(GRANT6));
}

#[test]
fn prefixes_go_back_once_and_after_their_routes() {
    let mut world = with_ipv6();
    world.did.clear();
    world.caller.clear(CallId(0), world.now);
    world.settle();
    let order = [
        "unroute6 2001:db8:1:7::/64",
        "unroute6 2001:db8:d:700::/56",
        "close",
        "ended 100 hung_up",
    ];
    let positions = order.map(|step| world.position(step));
    assert!(positions.is_sorted(), "{:#?}", world.did);
    assert_eq!(world.end().ipv6, Some(GRANT6));
    assert!(!world.did.iter().any(|did| did.starts_with("release6")));
    world.pass(Duration::from_secs(1000));
    assert_eq!(world.ended.len(), 1);
}

#[test]
fn a_login_that_is_made_anew_gives_its_prefixes_back_first() {
    let mut world = with_ipv6();
    world.did.clear();
    let request = [0xff, 0x03, 0xc0, 0x21, 1, 77, 0, 10, 5, 6, 1, 2, 3, 4];
    put(&mut world, &request);
    world.pass(Duration::from_secs(10));
    let order = [
        "hold6",
        "unroute6 2001:db8:1:7::/64",
        "unroute6 2001:db8:d:700::/56",
        "release6 2001:db8:1:7::/64",
        "authenticate",
        "route6 2001:db8:1:7::/64",
        "forward6 7 1400",
    ];
    let positions = order.map(|step| world.position(step));
    assert!(positions.is_sorted(), "{:#?}", world.did);
    world.caller.clear(CallId(0), world.now);
    world.settle();
    assert_eq!(world.end().ipv6, Some(GRANT6));
    let releases = world
        .did
        .iter()
        .filter(|did| did.starts_with("release6"))
        .count();
    assert_eq!(releases, 1);
}

/// A DHCPv6 message to all servers.
fn dhcpv6(kind: u8, options: &[&[u8]]) -> Vec<u8> {
    let message = [&[kind, 1, 2, 3][..], &options.concat()].concat();
    let from = SocketAddrV6::new(link_local(CLIENT), 546, 0, 0);
    let to = SocketAddrV6::new(ipv6::ALL_DHCP_SERVERS, 547, 0, 0);
    udp::ipv6_packet(from, to, &message).unwrap()
}

const CLIENT_ID: &[u8] = &[0, 1, 0, 4, 0, 3, 0, 1];
const SERVER_ID: &[u8] = &[0, 2, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 9];
/// IA_PD with IAID 1.
const DELEGATION: &[u8] = &[0, 25, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn a_prefix_is_delegated_inside_the_call() {
    let mut world = with_ipv6();
    let did = ask(&mut world, &dhcpv6(1, &[CLIENT_ID, DELEGATION]));
    assert_eq!(did[0], "dhcpv6, bound false");
    assert_eq!(did[1], "udp6 to fe80::7");
    let did = ask(&mut world, &dhcpv6(3, &[CLIENT_ID, SERVER_ID, DELEGATION]));
    assert_eq!(did[0], "dhcpv6, bound true");
    let did = ask(&mut world, &dhcpv6(8, &[CLIENT_ID, SERVER_ID, DELEGATION]));
    assert_eq!(did[0], "dhcpv6, bound false");
    let did = ask(&mut world, &dhcpv6(3, &[CLIENT_ID, DELEGATION]));
    assert_eq!(did, ["no dhcpv6: dhcpv6_identifiers"]);
    // Nobody is there to ask once IPv6 has gone down.
    put(&mut world, &[0xff, 0x03, 0x80, 0x57, 5, 99, 0, 4]);
    world.did.clear();
    let did = ask(&mut world, &dhcpv6(1, &[CLIENT_ID, DELEGATION]));
    assert!(!did.iter().any(|did| did.contains("dhcpv6")), "{did:?}");
}
