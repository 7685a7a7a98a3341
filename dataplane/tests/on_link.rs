//! IPv6 on a call's link: what a client asks its router there, and the answers.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use core::net::Ipv6Addr;

use rig::*;
use turnpike_dataplane::api::{Command, Encryption, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_protocol::wire::ipv6::{self, link_local};
use turnpike_protocol::wire::ndp::{ALL_NODES, ALL_ROUTERS};

const DHCP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ROUTER: Ipv6Addr = link_local(1);
const NODE: Ipv6Addr = link_local(IDENTIFIER);

fn icmp(source: Ipv6Addr, destination: Ipv6Addr, kind: u8) -> Vec<u8> {
    let mut message = [0; 24];
    message[0] = kind;
    ipv6(source, destination, ipv6::ICMPV6, &message)
}

fn to_port(source: Ipv6Addr, destination: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut payload = [0; 60];
    payload[..2].copy_from_slice(&546_u16.to_be_bytes());
    payload[2..4].copy_from_slice(&port.to_be_bytes());
    ipv6(source, destination, ipv6::UDP, &payload)
}

/// Sends a packet from the client's end of the wire, whatever its Linux would think of it.
fn put(pair: &mut Pair, packet: &[u8]) {
    pair.client.send_inner(AT_CLIENT, packet);
    pair.exchange();
}

#[test]
fn questions_of_a_client_come_up() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up6(encryption);
        let asked = [
            icmp(NODE, ALL_ROUTERS, 133),
            // RFC 4861 §4.1: who has no address yet has none here.
            icmp(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, 133),
            icmp(INNER6, ROUTER, 135),
            icmp(
                Ipv6Addr::UNSPECIFIED,
                "ff02::1:ff00:1".parse().unwrap(),
                135,
            ),
            icmp(NODE, ROUTER, 128),
            to_port(NODE, DHCP, 547),
            to_port(INNER6, DHCP, 547),
        ];
        for packet in &asked {
            put(&mut pair, packet);
        }
        let expected = asked.map(|packet| (AT_SERVER, packet));
        assert_eq!(pair.server.inner(), expected);
        for port in [Port::Uplink, Port::Host] {
            assert!(pair.server.sent(port).is_empty());
        }
        pair.server.assert_dropped(&[]);
        assert_eq!(pair.server.total(Total::InnerReceived), 7);
        assert_eq!(pair.server.counters(AT_SERVER).received_packets, 7);
    }
}

#[test]
fn other_packets_end_on_the_link() {
    let mut pair = Pair::up6(Encryption::Required);
    for packet in [
        // Multicast listener reports, what routers say, echo replies.
        icmp(NODE, "ff02::16".parse().unwrap(), 143),
        icmp(NODE, ALL_NODES, 134),
        icmp(NODE, ALL_NODES, 136),
        icmp(NODE, ALL_NODES, 137),
        icmp(NODE, ROUTER, 129),
        to_port(NODE, DHCP, 546),
        to_port(NODE, "ff02::fb".parse().unwrap(), 5353),
        ipv6(NODE, DHCP, ipv6::UDP, &[2, 34, 2, 35, 0, 8, 0]),
        ipv6(NODE, ALL_ROUTERS, ipv6::ICMPV6, &[133, 0, 0, 0]),
        ipv6(
            NODE,
            ALL_ROUTERS,
            ipv6::HOP_BY_HOP,
            &[58, 0, 5, 2, 0, 0, 1, 0],
        ),
        ipv6(NODE, ROUTER, ipv6::TCP, &[0; 20]),
    ] {
        put(&mut pair, &packet);
    }
    pair.server.assert_dropped(&[(Reason::LinkScope, 11)]);
    // The same questions to somebody beyond the link are packets as any other.
    for packet in [
        icmp(INNER6, INTERNET6, 128),
        to_port(INNER6, INTERNET6, 547),
        icmp(INNER6, SERVER_INNER6, 128),
    ] {
        assert_eq!(pair.client_sends(&packet, Port::Host), [packet]);
    }
    assert_eq!(pair.server.inner(), []);
}

#[test]
fn nobody_asks_for_somebody_else() {
    let mut pair = Pair::up6(Encryption::Required);
    for source in [
        link_local(IDENTIFIER + 1),
        ROUTER,
        INTERNET6,
        SERVER_INNER6,
        ALL_NODES,
    ] {
        put(&mut pair, &icmp(source, ALL_ROUTERS, 133));
        put(&mut pair, &to_port(source, DHCP, 547));
    }
    assert_eq!(pair.server.inner(), []);
    pair.server.assert_dropped(&[(Reason::Spoofed, 10)]);
}

#[test]
fn a_question_passes_the_gate_or_not_at_all() {
    let mut pair = Pair::up6(Encryption::Required);
    let frame = [&[0x57][..], &icmp(NODE, ALL_ROUTERS, 133)].concat();
    let in_clear = |seq| [gre_to_server(AT_SERVER.id, Some(seq), None, &frame)];
    pair.server.receive(Port::Access, in_clear(900));
    pair.server.assert_dropped(&[(Reason::PlainRefused, 1)]);
    pair.server.tell(Command::Hold6 { call: AT_SERVER });
    pair.server.turn();
    pair.server.receive(Port::Access, in_clear(901));
    assert_eq!(pair.server.inner(), []);
    pair.server
        .assert_dropped(&[(Reason::NotYetForwarding, 1), (Reason::PlainRefused, 1)]);
}

#[test]
fn answers_go_as_the_call_carries_packets() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up6(encryption);
        for destination in [ALL_NODES, NODE] {
            let answer = icmp(ROUTER, destination, 134);
            pair.server.send_inner(AT_SERVER, &answer);
            let frames = pair.server.sent(Port::Access);
            let (_, payload) = gre_of(&frames[0]);
            let in_clear = payload.windows(40).any(|window| window == &answer[..40]);
            assert_eq!(in_clear, encryption == Encryption::Plain);
            pair.client.receive(Port::Access, frames);
            assert_eq!(inner_of(pair.client.sent(Port::Host)), [answer]);
        }
        pair.server.assert_dropped(&[]);
        // No larger than the link takes, and not when IPv6 is held while IPv4 is not.
        let large = udp6(ROUTER, NODE, 1361);
        pair.server.send_inner(AT_SERVER, &large);
        pair.server.tell(Command::Hold6 { call: AT_SERVER });
        pair.server.send_inner(AT_SERVER, &icmp(ROUTER, NODE, 134));
        assert!(pair.server.sent(Port::Access).is_empty());
        pair.server
            .assert_dropped(&[(Reason::TooBig, 1), (Reason::NotYetForwarding, 1)]);
    }
    // Nor before there are keys.
    let mut pair = Pair::open();
    pair.forward(Encryption::Required);
    pair.forward6(Encryption::Required);
    pair.server.send_inner(AT_SERVER, &icmp(ROUTER, NODE, 134));
    assert!(pair.server.sent(Port::Access).is_empty());
    pair.server.assert_dropped(&[(Reason::NotYetEncrypted, 1)]);
}
