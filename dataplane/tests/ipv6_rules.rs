//! Which IPv6 packets pass a call, and that they are as well protected as IPv4.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use core::net::Ipv6Addr;

use rig::*;
use turnpike_dataplane::api::{Command, Direction, Encryption, Forward6, Port};
use turnpike_dataplane::counters::Reason;
use turnpike_protocol::Role;
use turnpike_protocol::wire::ipv6::{self, link_local};

/// Of another call.
const OTHER_INNER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 8, 0, 0, 0, 9);

#[test]
fn nothing_passes_in_clear_where_encryption_is_required() {
    // Terms, but no keys in any direction, in one, or in the other.
    for (receive, transmit) in [(false, false), (true, false), (false, true)] {
        let mut pair = Pair::open();
        pair.forward(Encryption::Required);
        pair.forward6(Encryption::Required);
        let server = &mut pair.server;
        if receive {
            server.secure(AT_SERVER, Direction::Receive, 1, key(1));
            server.send_frame(AT_SERVER, &configure_request(1));
            server.receive(
                Port::Access,
                [gre_to_server(
                    AT_SERVER.id,
                    Some(0),
                    None,
                    &configure_ack(1),
                )],
            );
        }
        if transmit {
            server.secure(AT_SERVER, Direction::Transmit, 1, key(2));
            server.send_frame(AT_SERVER, &configure_ack(1));
        }
        server.sent(Port::Access);
        server.receive(Port::Host, [from_linux(&udp6(INTERNET6, INNER6, 10))]);
        server.receive(Port::Access, [plain6(9, &udp6(INNER6, INTERNET6, 10))]);
        assert!(server.sent(Port::Access).is_empty());
        assert!(server.sent(Port::Host).is_empty());
        server.assert_dropped(&[(Reason::NotYetEncrypted, 1), (Reason::PlainRefused, 1)]);
    }
    // And with keys running: in clear it is refused, whatever IPv4 does.
    let mut pair = Pair::up6(Encryption::Required);
    let server = &mut pair.server;
    server.receive(Port::Access, [plain6(900, &udp6(INNER6, INTERNET6, 10))]);
    server.assert_dropped(&[(Reason::PlainRefused, 1)]);
    // CCP is being argued about: nothing goes out.
    server.receive(
        Port::Access,
        [gre_to_server(
            AT_SERVER.id,
            Some(901),
            None,
            &configure_request(9),
        )],
    );
    server.receive(Port::Host, [from_linux(&udp6(INTERNET6, INNER6, 10))]);
    assert!(server.sent(Port::Access).is_empty());
    server.assert_dropped(&[(Reason::PlainRefused, 1), (Reason::NotYetEncrypted, 1)]);
}

#[test]
fn each_version_waits_for_its_own_terms() {
    for (with6, without6) in [
        (Encryption::Plain, Reason::NotYetForwarding),
        (Encryption::Required, Reason::NotYetForwarding),
    ] {
        // IPv4 is up, IPv6 is not.
        let mut pair = Pair::up(with6);
        pair.server.tell(Command::Route6 {
            prefix: PREFIX6.parse().unwrap(),
            call: AT_SERVER,
        });
        pair.client.tell(Command::Route6 {
            prefix: "::/0".parse().unwrap(),
            call: AT_CLIENT,
        });
        pair.client.tell(Command::Forward6 {
            call: AT_CLIENT,
            forward: forward6(Role::Client, with6),
        });
        pair.client.turn();
        let up = udp6(INNER6, INTERNET6, 10);
        assert!(pair.client_sends(&up, Port::Host).is_empty());
        assert!(pair.server_sends(&udp6(INTERNET6, INNER6, 10)).is_empty());
        pair.server.assert_dropped(&[(without6, 2)]);
        // IPv6 is up, and held again; IPv4 does not notice.
        let mut pair = Pair::up6(with6);
        assert_eq!(pair.client_sends(&up, Port::Host).len(), 1);
        pair.server.tell(Command::Hold6 { call: AT_SERVER });
        pair.server.turn();
        assert!(pair.client_sends(&up, Port::Host).is_empty());
        assert!(pair.server_sends(&udp6(INTERNET6, INNER6, 10)).is_empty());
        pair.server.assert_dropped(&[(without6, 2)]);
        let up = udp(INNER, INTERNET, 10);
        assert_eq!(pair.client_sends(&up, Port::Host), [up]);
        // And the other way round.
        let mut pair = Pair::up6(with6);
        pair.server.tell(Command::Hold { call: AT_SERVER });
        pair.server.turn();
        let up = udp6(INNER6, INTERNET6, 10);
        assert_eq!(pair.client_sends(&up, Port::Host), [up]);
        pair.server.assert_dropped(&[]);
    }
}

#[test]
fn sources_are_checked() {
    let mut pair = Pair::up6(Encryption::Plain);
    let link = link_local(IDENTIFIER);
    let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let site = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2);
    let mut seq = 0;
    let mut judge = |source, destination| {
        let before = pair.server.worker.counters().reasons().collect::<Vec<_>>();
        let packet = udp6(source, destination, 10);
        pair.server.receive(Port::Access, [plain6(seq, &packet)]);
        seq += 1;
        let sent = pair.server.sent(Port::Host);
        let after = pair.server.worker.counters().reasons().collect::<Vec<_>>();
        let reason = after.into_iter().find(|reason| !before.contains(reason));
        assert_eq!(sent.is_empty(), reason.is_some());
        reason.map(|(reason, _)| reason)
    };
    for own in [
        INNER6,
        BEHIND,
        "2001:db8:1:7:ffff:ffff:ffff:ffff".parse().unwrap(),
        "2001:db8:d:7ff::".parse().unwrap(),
    ] {
        assert_eq!(judge(own, INTERNET6), None);
        assert_eq!(judge(own, SERVER_INNER6), None);
        // What is for the link stays there.
        for link_scope in [routers, site, link_local(1)] {
            assert_eq!(judge(own, link_scope), Some(Reason::LinkScope));
        }
    }
    for foreign in [
        INTERNET6,
        OTHER_INNER6,
        SERVER_INNER6,
        "2001:db8:1:6:ffff::".parse().unwrap(),
        "2001:db8:d:6ff:ffff::".parse().unwrap(),
        "2001:db8:d:800::".parse().unwrap(),
        link_local(IDENTIFIER + 1),
        "fec0::1".parse().unwrap(),
        "::ffff:10.20.0.10".parse().unwrap(),
        Ipv6Addr::LOCALHOST,
        routers,
    ] {
        for destination in [INTERNET6, routers, link_local(1)] {
            assert_eq!(judge(foreign, destination), Some(Reason::Spoofed));
        }
    }
    for destination in [INTERNET6, SERVER_INNER6, routers, link_local(1)] {
        assert_eq!(judge(link, destination), Some(Reason::LinkScope));
    }
    assert_eq!(
        judge(Ipv6Addr::UNSPECIFIED, routers),
        Some(Reason::LinkScope)
    );
    assert_eq!(
        judge(Ipv6Addr::UNSPECIFIED, INTERNET6),
        Some(Reason::Spoofed)
    );
    let counters = pair.server.counters(AT_SERVER);
    assert_eq!(
        (counters.received_packets, counters.dropped),
        (8, u64::from(seq) - 8)
    );
}

#[test]
fn a_client_takes_what_is_for_it_and_sends_by_source() {
    let mut pair = Pair::up6(Encryption::Plain);
    pair.client.tell(Command::Unroute6 {
        prefix: "::/0".parse().unwrap(),
    });
    pair.client.tell(Command::Route6 {
        prefix: PREFIX6.parse().unwrap(),
        call: AT_CLIENT,
    });
    pair.client.tell(Command::Forward6 {
        call: AT_CLIENT,
        forward: Forward6 {
            prefixes: [PREFIX6.parse().ok(), None],
            ..forward6(Role::Client, Encryption::Plain)
        },
    });
    pair.client.turn();
    let down = udp6(INTERNET6, INNER6, 10);
    assert_eq!(pair.server_sends(&down), [down]);
    assert!(pair.server_sends(&udp6(INTERNET6, BEHIND, 10)).is_empty());
    pair.client
        .assert_dropped(&[(Reason::WrongInnerDestination, 1)]);
    pair.client
        .receive(Port::Host, [from_linux(&udp6(BEHIND, INTERNET6, 10))]);
    pair.client
        .assert_dropped(&[(Reason::WrongInnerDestination, 1), (Reason::NoRoute, 1)]);
    // A router's words to everybody, and to the address on the link alone.
    for (seq, destination) in [
        (70, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
        (71, link_local(IDENTIFIER)),
    ] {
        let advertisement = ipv6(link_local(1), destination, ipv6::ICMPV6, &[134, 0, 0, 0]);
        let frame = gre_from(
            SERVER,
            AT_CLIENT.id,
            Some(seq),
            None,
            &[&[0x57][..], &advertisement].concat(),
        );
        // The same frame, but to the client.
        let mut frame = frame;
        frame[..6].copy_from_slice(&CLIENT_MAC.0);
        let packet = ipv4(
            SERVER,
            CLIENT,
            turnpike_protocol::wire::ipv4::GRE,
            &frame[34..],
        );
        frame[14..].copy_from_slice(&packet);
        pair.client.receive(Port::Access, [frame]);
        assert_eq!(inner_of(pair.client.sent(Port::Host)), [advertisement]);
    }
}

#[test]
fn a_link_with_less_than_the_minimum_carries_no_ipv6() {
    let mut pair = Pair::up6(Encryption::Plain);
    for (mtu, carries) in [(1280, true), (1279, false)] {
        pair.server.tell(Command::Forward6 {
            call: AT_SERVER,
            forward: Forward6 {
                mtu,
                ..forward6(Role::Server, Encryption::Plain)
            },
        });
        pair.server.turn();
        let down = udp6(INTERNET6, INNER6, 10);
        assert_eq!(!pair.server_sends(&down).is_empty(), carries);
    }
    pair.server.assert_dropped(&[(Reason::NotYetForwarding, 1)]);
}

#[test]
fn malformed_packets_are_named_drops() {
    let mut pair = Pair::up6(Encryption::Plain);
    let good = udp6(INNER6, INTERNET6, 10);
    let mut long = good.clone();
    long[5] += 1;
    let mut version = good.clone();
    version[0] = 0x45;
    let frames = [&good[..39], &long, &version, &[]]
        .into_iter()
        .zip(0..)
        .map(|(packet, seq)| plain6(seq, packet));
    pair.server
        .receive(Port::Access, frames.collect::<Vec<_>>());
    pair.server.assert_dropped(&[(Reason::InnerHeader, 4)]);
    let down = udp6(INTERNET6, INNER6, 10);
    let mut version = from_linux(&down);
    version[14] = 0x45;
    let frames = [version, from_linux(&down[..41])];
    pair.server.receive(Port::Host, frames);
    pair.server.assert_dropped(&[(Reason::InnerHeader, 6)]);
    for n in 0..20 {
        pair.server.tell(Command::Route6 {
            prefix: format!("2001:db8:2:{n}::/64").parse().unwrap(),
            call: AT_SERVER,
        });
    }
    pair.server.turn();
    pair.server
        .assert_dropped(&[(Reason::InnerHeader, 6), (Reason::RoutesFull, 6)]);
}
