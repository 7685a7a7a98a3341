//! IPv6 inside calls: where packets go, and what a router does to them.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use core::net::Ipv6Addr;

use rig::*;
use turnpike_dataplane::api::{CallRef, Command, Encryption, Forward6, Owners, Port, WorkerId};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channels};
use turnpike_protocol::wire::ipv6::{self, link_local, transport_checksum};
use turnpike_protocol::{CallId, Role};

/// A second call on the server, with a client that the test plays itself.
const OTHER: CallRef = CallRef {
    local: SERVER,
    peer: GATEWAY,
    id: CallId(1),
};
const OTHER_INNER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 8, 0, 0, 0, 9);

fn other_forward6() -> Forward6 {
    Forward6 {
        prefixes: ["2001:db8:1:8::/64".parse().ok(), None],
        identifier: 8,
        compress_address: false,
        compress_protocol: false,
        ..forward6(Role::Server, Encryption::Plain)
    }
}

fn other_call() -> [Command; 4] {
    [
        Command::Neighbour {
            port: Port::Access,
            address: OTHER.peer,
            mac: Some(GATEWAY_MAC),
        },
        Command::Open {
            call: OTHER,
            peer_id: CallId(55),
            via: OTHER.peer,
            window: 64,
        },
        Command::Route6 {
            prefix: "2001:db8:1:8::/64".parse().unwrap(),
            call: OTHER,
        },
        Command::Forward6 {
            call: OTHER,
            forward: other_forward6(),
        },
    ]
}

fn with_other_call(pair: &mut Pair) {
    for command in other_call() {
        pair.server.tell(command);
    }
    pair.server.turn();
}

/// What an ICMPv6 error says: type, code, the fourth word, and what it quotes.
fn error(packet: &[u8]) -> ([u8; 2], u32, &[u8]) {
    let ip = ipv6::Packet::new_checked(packet).unwrap();
    assert_eq!(ip.total_len(), packet.len());
    assert_eq!(ip.next_header(), ipv6::ICMPV6);
    assert_eq!(ip.source(), SERVER_INNER6);
    let message = &packet[40..];
    let sum = transport_checksum(ip.source(), ip.destination(), ipv6::ICMPV6, message);
    assert_eq!(sum, 0);
    let word = u32::from_be_bytes(message[4..8].try_into().unwrap());
    ([message[0], message[1]], word, &message[8..])
}

#[test]
fn data_goes_both_ways_plain_and_encrypted() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up6(encryption);
        let mut octets = 0;
        for size in [0, 1, 8, 500, 1360] {
            for (source, destination) in [(INNER6, INTERNET6), (BEHIND, SERVER_INNER6)] {
                let up = udp6(source, destination, size);
                assert_eq!(
                    pair.client_sends(&up, Port::Host),
                    core::slice::from_ref(&up)
                );
                octets += up.len() as u64;
                let down = udp6(destination, source, size);
                assert_eq!(pair.server_sends(&down), [down]);
            }
            // Both versions share the call's numbers and keys.
            let up = udp(INNER, INTERNET, size);
            assert_eq!(
                pair.client_sends(&up, Port::Host),
                core::slice::from_ref(&up)
            );
            octets += up.len() as u64;
            let down = udp(INTERNET, INNER, size);
            assert_eq!(pair.server_sends(&down), [down]);
        }
        pair.server.assert_dropped(&[]);
        pair.client.assert_dropped(&[]);
        let counters = pair.server.counters(AT_SERVER);
        assert_eq!(
            (counters.received_packets, counters.received_octets),
            (15, octets)
        );
        assert_eq!((counters.sent_packets, counters.sent_octets), (15, octets));
        assert_eq!((counters.missing, counters.dropped), (0, 0));
    }
}

#[test]
fn frames_on_the_link_say_what_they_hold() {
    let mut pair = Pair::up6(Encryption::Plain);
    let packet = udp6(INNER6, INTERNET6, 10);
    pair.client.receive(Port::Host, [from_linux(&packet)]);
    pair.exchange();
    // With its hop limit as it was: Linux lowers it.
    assert_eq!(
        pair.server.sent(Port::Host),
        [ethernet(LINUX_MAC, HOST_MAC, &packet)]
    );
    assert_eq!(ethernet(LINUX_MAC, HOST_MAC, &packet)[12..14], [0x86, 0xdd]);
}

#[test]
fn headers_are_as_the_peer_asked() {
    let mut pair = Pair::up6(Encryption::Plain);
    with_other_call(&mut pair);
    for (address, head) in [
        (INNER6, &[0x57][..]),
        (OTHER_INNER6, &[0xff, 0x03, 0x00, 0x57]),
    ] {
        let packet = udp6(INTERNET6, address, 10);
        let mut frame = from_linux(&packet);
        // Padding of the link.
        frame.resize(frame.len() + 9, 0xee);
        pair.server.receive(Port::Host, [frame]);
        let frames = pair.server.sent(Port::Access);
        assert_eq!(gre_of(&frames[0]).1, [head, &packet].concat());
    }
}

#[test]
fn an_encrypted_packet_does_not_show_its_content() {
    let mut pair = Pair::up6(Encryption::Required);
    let packet = udp6(INTERNET6, INNER6, 1000);
    pair.server.receive(Port::Host, [from_linux(&packet)]);
    let frames = pair.server.sent(Port::Access);
    let (_, payload) = gre_of(&frames[0]);
    assert_eq!(payload[0], 0xfd);
    assert_eq!(payload.len(), 1 + 2 + 2 + packet.len());
    assert!(!payload.windows(8).any(|window| window == &packet[100..108]));
}

#[test]
fn packets_from_the_uplink_lose_a_hop() {
    let mut pair = Pair::up6(Encryption::Plain);
    let packet = udp6(INTERNET6, INNER6, 10);
    let from_uplink = |packet: &[u8]| [ethernet(UPLINK_MAC, GATEWAY_MAC, packet)];
    pair.server.receive(Port::Uplink, from_uplink(&packet));
    pair.exchange();
    assert_eq!(
        inner_of(pair.client.sent(Port::Host)),
        [with_hop_limit(packet.clone(), 16)]
    );
    // The last hop: Linux answers. Our own address is Linux', too.
    for special in [
        with_hop_limit(packet.clone(), 1),
        with_hop_limit(packet, 0),
        udp6(INTERNET6, SERVER_INNER6, 10),
    ] {
        pair.server.receive(Port::Uplink, from_uplink(&special));
        assert_eq!(
            pair.server.sent(Port::Host),
            [ethernet(LINUX_MAC, HOST_MAC, &special)]
        );
    }
    pair.server.assert_dropped(&[]);
    // What belongs to a link comes from no other.
    for (source, destination) in [
        (link_local(5), INNER6),
        (INTERNET6, link_local(IDENTIFIER)),
        (INTERNET6, Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1)),
    ] {
        pair.server
            .receive(Port::Uplink, from_uplink(&udp6(source, destination, 10)));
    }
    pair.server.assert_dropped(&[(Reason::LinkScope, 3)]);
    assert!(pair.server.sent(Port::Access).is_empty());
}

#[test]
fn one_nic_may_be_access_and_uplink() {
    let mut pair = Pair::up6(Encryption::Plain);
    let packet = udp6(INTERNET6, INNER6, 10);
    pair.server
        .receive(Port::Access, [ethernet(SERVER_MAC, GATEWAY_MAC, &packet)]);
    pair.exchange();
    assert_eq!(
        inner_of(pair.client.sent(Port::Host)),
        [with_hop_limit(packet, 16)]
    );
    let elsewhere = udp6(INTERNET6, INTERNET6, 10);
    pair.server.receive(
        Port::Access,
        [ethernet(SERVER_MAC, GATEWAY_MAC, &elsewhere), vec![0; 13]],
    );
    pair.server.assert_dropped(&[(Reason::NotIpv4, 2)]);
}

#[test]
fn clients_reach_each_other() {
    let mut pair = Pair::up6(Encryption::Plain);
    with_other_call(&mut pair);
    let packet = udp6(INNER6, OTHER_INNER6, 100);
    pair.client.receive(Port::Host, [from_linux(&packet)]);
    let frames = pair.client.sent(Port::Access);
    pair.server.receive(Port::Access, frames);
    let frames = pair.server.sent(Port::Access);
    assert_eq!(frames.len(), 1);
    let (gre, payload) = gre_of(&frames[0]);
    assert_eq!(gre.call_id, CallId(55));
    assert_eq!(payload[4..], with_hop_limit(packet.clone(), 16));
    let last = with_hop_limit(packet, 1);
    assert_eq!(pair.client_sends(&last, Port::Host), [last]);
    pair.server.assert_dropped(&[]);
}

#[test]
fn workers_hand_packets_to_the_owner() {
    let mut ends: Vec<_> = channels(2, &RingSizes::default())
        .unwrap()
        .into_iter()
        .zip(0..)
        .map(|((control, end), id)| {
            let config = turnpike_dataplane::worker::WorkerConfig {
                id: WorkerId(id),
                owners: Owners::round_robin(2),
                ..config(Role::Server)
            };
            End::with(config, MemDevice::new(64), control, end)
        })
        .collect();
    // Worker 1 has the call, worker 0 gets the packets; and the other way round.
    for end in &mut ends {
        end.tell(Command::Neighbour {
            port: Port::Access,
            address: CLIENT,
            mac: Some(CLIENT_MAC),
        });
        end.tell(Command::Route6 {
            prefix: PREFIX6.parse().unwrap(),
            call: AT_SERVER,
        });
    }
    for command in other_call() {
        match command {
            Command::Route6 { prefix, call } => {
                ends[0].tell(Command::Route6 { prefix, call });
                ends[1].tell(Command::Route6 { prefix, call });
            }
            command => ends[1].tell(command),
        }
    }
    ends[0].tell(Command::Open {
        call: AT_SERVER,
        peer_id: CallId(0),
        via: CLIENT,
        window: 64,
    });
    ends[0].tell(Command::Forward6 {
        call: AT_SERVER,
        forward: forward6(Role::Server, Encryption::Plain),
    });
    for end in &mut ends {
        end.turn();
    }
    let from_uplink = ethernet(UPLINK_MAC, GATEWAY_MAC, &udp6(INTERNET6, OTHER_INNER6, 10));
    ends[0].receive(Port::Uplink, [from_uplink]);
    ends[1].turn();
    let frames = ends[1].sent(Port::Access);
    assert_eq!(
        gre_of(&frames[0]).1[4..],
        with_hop_limit(udp6(INTERNET6, OTHER_INNER6, 10), 16)
    );
    // Out of a tunnel of one, into a tunnel of the other.
    let packet = udp6(INNER6, OTHER_INNER6, 10);
    ends[0].receive(Port::Access, [plain6(0, &packet)]);
    ends[1].turn();
    let frames = ends[1].sent(Port::Access);
    assert_eq!(gre_of(&frames[0]).1[4..], with_hop_limit(packet, 16));
    assert_eq!(ends[0].total(Total::HandedOver), 2);
    ends[0].assert_dropped(&[]);
    ends[1].assert_dropped(&[]);
}

#[test]
fn a_packet_for_its_own_link_does_not_go_round() {
    let mut pair = Pair::up6(Encryption::Plain);
    for (source, destination) in [
        (INNER6, "2001:db8:1:7::dead".parse().unwrap()),
        (BEHIND, "2001:db8:d:7ff::1".parse().unwrap()),
    ] {
        let packet = udp6(source, destination, 30);
        assert!(pair.client_sends(&packet, Port::Host).is_empty());
        let back = inner_of(pair.client.sent(Port::Host));
        assert_eq!(back.len(), 1);
        assert_eq!(error(&back[0]), ([1, 3], 0, &packet[..]));
    }
    pair.server.assert_dropped(&[(Reason::SameLink, 2)]);
}

#[test]
fn a_pool_address_without_call_is_unreachable() {
    let mut pair = Pair::up6(Encryption::Plain);
    let nobody = "2001:db8:1:ffff::1".parse().unwrap();
    // From the tunnel, back into the tunnel.
    let packet = udp6(INNER6, nobody, 100);
    assert!(pair.client_sends(&packet, Port::Host).is_empty());
    let errors = inner_of(pair.client.sent(Port::Host));
    assert_eq!(errors.len(), 1);
    assert_eq!(error(&errors[0]), ([1, 3], 0, &packet[..]));
    // From Linux and the uplink, back to whoever sent it.
    let packet = udp6(INTERNET6, nobody, 100);
    for (port, ours, theirs) in [
        (Port::Host, HOST_MAC, LINUX_MAC),
        (Port::Uplink, UPLINK_MAC, GATEWAY_MAC),
    ] {
        pair.server.receive(port, [ethernet(ours, theirs, &packet)]);
        let errors = pair.server.sent(port);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0][..12], [theirs.0, ours.0].concat());
        assert_eq!(error(&errors[0][14..]), ([1, 3], 0, &packet[..]));
    }
    // No errors about errors.
    let about = ipv6(INTERNET6, nobody, ipv6::ICMPV6, &[1, 3, 0, 0, 0, 0, 0, 0]);
    pair.server.receive(Port::Host, [from_linux(&about)]);
    assert!(pair.server.sent(Port::Host).is_empty());
    pair.server.assert_dropped(&[(Reason::PoolWithoutCall, 4)]);
    assert_eq!(pair.server.total(Total::IcmpSent), 3);
    assert_eq!(pair.server.total(Total::IcmpSuppressed), 1);
    // And they are limited, with those of IPv4.
    for _ in 0..100 {
        pair.server.receive(Port::Host, [from_linux(&packet)]);
    }
    assert_eq!(pair.server.sent(Port::Host).len(), 46);
}

#[test]
fn packets_that_are_too_big_come_back() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up6(encryption);
        let fits = udp6(INTERNET6, INNER6, 1360);
        assert_eq!(pair.server_sends(&fits), [fits]);
        let large = udp6(INTERNET6, INNER6, 1361);
        pair.server.receive(Port::Host, [from_linux(&large)]);
        let errors = inner_of(pair.server.sent(Port::Host));
        assert_eq!(error(&errors[0]), ([2, 0], 1400, &large[..1280 - 48]));
        assert_eq!(errors[0].len(), 1280);
        assert!(pair.server.sent(Port::Access).is_empty());
        pair.server.assert_dropped(&[(Reason::TooBig, 1)]);
        assert_eq!(pair.server.counters(AT_SERVER).dropped, 1);
        // Not in the way of other errors.
        for _ in 0..100 {
            pair.server.receive(Port::Host, [from_linux(&large)]);
        }
        assert_eq!(pair.server.sent(Port::Host).len(), 49);
        let nobody = udp6(INTERNET6, "2001:db8:1:ffff::1".parse().unwrap(), 0);
        pair.server.receive(Port::Host, [from_linux(&nobody)]);
        assert_eq!(pair.server.sent(Port::Host).len(), 1);
    }
}

/// A SYN that announces this segment size.
fn syn(source: Ipv6Addr, destination: Ipv6Addr, mss: u16) -> Vec<u8> {
    let mut segment = vec![0; 24];
    segment[12] = 0x60;
    segment[13] = 0x02;
    segment[20..22].copy_from_slice(&[2, 4]);
    segment[22..24].copy_from_slice(&mss.to_be_bytes());
    let sum = transport_checksum(source, destination, ipv6::TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv6(source, destination, ipv6::TCP, &segment)
}

#[test]
fn segment_sizes_are_lowered_both_ways() {
    let mut pair = Pair::up6(Encryption::Plain);
    for (announced, expected) in [(1440, 1340), (1340, 1340), (1200, 1200)] {
        for up in [true, false] {
            let sent = if up {
                // The client's end would clamp, too.
                let packet = syn(INNER6, INTERNET6, announced);
                let seq = pair.server.counters(AT_SERVER).gre_received as u32;
                pair.server.receive(Port::Access, [plain6(seq, &packet)]);
                inner_of(pair.server.sent(Port::Host))
            } else {
                let packet = syn(INTERNET6, INNER6, announced);
                pair.server.receive(Port::Host, [from_linux(&packet)]);
                let frames = pair.server.sent(Port::Access);
                vec![gre_of(&frames[0]).1[1..].to_vec()]
            };
            let ip = ipv6::Packet::new_checked(&sent[0][..]).unwrap();
            let segment = ip.payload();
            assert_eq!(segment[22..24], u16::to_be_bytes(expected));
            let sum = transport_checksum(ip.source(), ip.destination(), ipv6::TCP, segment);
            assert_eq!(sum, 0);
        }
    }
    assert_eq!(pair.server.total(Total::MssClamped), 2);
}

#[test]
fn routes_that_are_taken_back_lead_nowhere() {
    let mut pair = Pair::up6(Encryption::Plain);
    pair.server.tell(Command::Unroute6 {
        prefix: PREFIX6.parse().unwrap(),
    });
    pair.server.turn();
    let down = udp6(INTERNET6, INNER6, 10);
    assert!(pair.server_sends(&down).is_empty());
    // The delegation stays.
    let down = udp6(INTERNET6, BEHIND, 10);
    assert_eq!(pair.server_sends(&down).len(), 1);
    pair.server.receive(
        Port::Uplink,
        [ethernet(
            UPLINK_MAC,
            GATEWAY_MAC,
            &udp6(INNER6, INTERNET6, 1),
        )],
    );
    pair.server
        .assert_dropped(&[(Reason::PoolWithoutCall, 1), (Reason::NoRoute, 1)]);
    // A call that has the slot of a closed one does not get its packets.
    let mut pair = Pair::up6(Encryption::Plain);
    pair.server.tell(Command::Close { call: AT_SERVER });
    pair.server.turn();
    with_other_call(&mut pair);
    assert!(pair.server_sends(&udp6(INTERNET6, INNER6, 10)).is_empty());
    pair.server.assert_dropped(&[(Reason::NoRoute, 1)]);
}

#[test]
fn many_calls_are_looked_up_ahead() {
    // Enough calls that batches are looked at before they are worked on.
    let (control, end) = channels(1, &RingSizes::default()).unwrap().remove(0);
    let config = turnpike_dataplane::worker::WorkerConfig {
        calls: 2000,
        routes: 2000,
        routes6: 2000,
        ..config(Role::Server)
    };
    let mut server = End::with(config, MemDevice::new(256), control, end);
    server.tell(Command::Neighbour {
        port: Port::Access,
        address: CLIENT,
        mac: Some(CLIENT_MAC),
    });
    let prefix = |n: u16| format!("2001:db8:1:{n:x}::/64").parse().unwrap();
    for n in 0..1100 {
        let call = CallRef {
            id: CallId(n),
            ..AT_SERVER
        };
        server.tell(Command::Open {
            call,
            peer_id: CallId(n),
            via: CLIENT,
            window: 64,
        });
        server.tell(Command::Route6 {
            prefix: prefix(n),
            call,
        });
        server.tell(Command::Forward6 {
            call,
            forward: Forward6 {
                prefixes: [Some(prefix(n)), None],
                ..forward6(Role::Server, Encryption::Plain)
            },
        });
        server.turn();
    }
    let packet = |n: u16| {
        let destination = Ipv6Addr::new(0x2001, 0xdb8, 1, n, 0, 0, 0, 1);
        from_linux(&udp6(INTERNET6, destination, 10))
    };
    // And one that is too short for its address.
    let mut frames: Vec<_> = (0..32).map(|n| packet(n * 33)).collect();
    frames.push(packet(0)[..44].to_vec());
    server.receive(Port::Host, frames);
    let ids: Vec<_> = server
        .sent(Port::Access)
        .iter()
        .map(|frame| gre_of(frame).0.call_id.0 / 33)
        .collect();
    assert_eq!(ids, (0..32).collect::<Vec<_>>());
    server.assert_dropped(&[(Reason::InnerHeader, 1)]);
}
