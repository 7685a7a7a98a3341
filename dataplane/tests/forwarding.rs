//! Where packets go, and which ones do not.

mod rig;

use rig::uplink::with_uplink;
use rig::*;
use turnpike_dataplane::api::{CallRef, Command, Encryption, Event, Forward, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_protocol::CallId;
use turnpike_protocol::wire::ipv4;

/// A second call on the server, with a client that the test plays itself.
const OTHER: CallRef = CallRef {
    local: SERVER,
    peer: GATEWAY,
    id: CallId(1),
};
const OTHER_INNER: core::net::Ipv4Addr = core::net::Ipv4Addr::new(10, 20, 0, 11);

fn with_other_call(pair: &mut Pair) {
    for command in [
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
        Command::Route {
            prefix: OTHER_INNER.into(),
            call: OTHER,
        },
        Command::Forward {
            call: OTHER,
            forward: Forward {
                address: OTHER_INNER,
                compress_address: false,
                compress_protocol: false,
                ..forward(Encryption::Plain)
            },
        },
    ] {
        pair.server.tell(command);
    }
    pair.server.turn();
}

#[test]
fn data_goes_both_ways_plain_and_encrypted() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up(encryption);
        let mut octets = 0;
        for size in [0, 1, 8, 500, 1380] {
            let up = udp(INNER, INTERNET, size);
            assert_eq!(
                pair.client_sends(&up, Port::Host),
                core::slice::from_ref(&up)
            );
            let down = udp(INTERNET, INNER, size);
            assert_eq!(pair.server_sends(&down), [down]);
            octets += up.len() as u64;
        }
        pair.server.assert_dropped(&[]);
        pair.client.assert_dropped(&[]);
        let counters = pair.server.counters(AT_SERVER);
        assert_eq!(
            (counters.received_packets, counters.received_octets),
            (5, octets)
        );
        assert_eq!((counters.sent_packets, counters.sent_octets), (5, octets));
        assert_eq!((counters.missing, counters.dropped), (0, 0));
        let encrypted = encryption == Encryption::Required;
        assert_eq!(counters.mppe_receive.is_some(), encrypted);
        assert_eq!(
            counters.mppe_transmit.map(|mppe| mppe.bits),
            encrypted.then_some(128)
        );
    }
}

#[test]
fn an_encrypted_packet_does_not_show_its_content() {
    let mut pair = Pair::up(Encryption::Required);
    let packet = udp(INTERNET, INNER, 1000);
    pair.server.receive(Port::Host, [from_linux(&packet)]);
    let frames = pair.server.sent(Port::Access);
    let (_, payload) = gre_of(&frames[0]);
    assert_eq!(
        payload[0], 0xfd,
        "address and protocol are compressed as asked"
    );
    assert_eq!(payload.len(), 1 + 2 + 2 + packet.len());
    assert!(!payload.windows(8).any(|window| window == &packet[100..108]));
}

#[test]
fn headers_are_as_the_peer_asked() {
    let mut pair = Pair::up(Encryption::Plain);
    with_other_call(&mut pair);
    for (address, head) in [
        (INNER, &[0x21][..]),
        (OTHER_INNER, &[0xff, 0x03, 0x00, 0x21]),
    ] {
        let packet = udp(INTERNET, address, 10);
        pair.server.receive(Port::Host, [from_linux(&packet)]);
        let frames = pair.server.sent(Port::Access);
        let (_, payload) = gre_of(&frames[0]);
        assert_eq!(payload, [head, &packet].concat());
    }
}

#[test]
fn linux_gets_packets_with_their_time_to_live() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = udp(INNER, INTERNET, 10);
    pair.client.receive(Port::Host, [from_linux(&packet)]);
    pair.exchange();
    let frames = pair.server.sent(Port::Host);
    assert_eq!(frames, [ethernet(LINUX_MAC, HOST_MAC, &packet)]);
}

#[test]
fn padding_of_the_link_is_cut() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = udp(INTERNET, INNER, 2);
    let mut frame = from_linux(&packet);
    frame.resize(60, 0xee);
    pair.server.receive(Port::Host, [frame]);
    let frames = pair.server.sent(Port::Access);
    assert_eq!(gre_of(&frames[0]).1.len(), 1 + packet.len());
    let mut frame = frames[0].clone();
    frame.resize(frame.len() + 20, 0xee);
    pair.client.receive(Port::Access, [frame]);
    assert_eq!(inner_of(pair.client.sent(Port::Host)), [packet]);
}

#[test]
fn the_uplink_is_taken_when_its_next_hop_is_known() {
    let mut pair = Pair::up(Encryption::Plain);
    with_uplink(&mut pair, None);
    let packet = udp(INNER, INTERNET, 10);
    assert_eq!(
        pair.client_sends(&packet, Port::Host).len(),
        1,
        "no neighbour: Linux"
    );
    with_uplink(&mut pair, Some(GATEWAY_MAC));
    pair.client.receive(Port::Host, [from_linux(&packet)]);
    pair.exchange();
    let forwarded = with_ttl(packet.clone(), 16);
    assert_eq!(
        pair.server.sent(Port::Uplink),
        [ethernet(GATEWAY_MAC, UPLINK_MAC, &forwarded)]
    );
    // What expires, what is for ourselves and what no router forwards is for Linux.
    for special in [
        with_ttl(packet.clone(), 1),
        udp(INNER, SERVER_INNER, 10),
        udp(INNER, core::net::Ipv4Addr::new(224, 0, 0, 1), 10),
        udp(INNER, core::net::Ipv4Addr::BROADCAST, 10),
        udp(INNER, core::net::Ipv4Addr::LOCALHOST, 10),
    ] {
        assert_eq!(pair.client_sends(&special, Port::Host), [special]);
    }
    pair.server.tell(Command::DefaultRoute { via: None });
    pair.server.turn();
    assert_eq!(
        pair.client_sends(&packet, Port::Host).len(),
        1,
        "taken back: Linux"
    );
    pair.server.assert_dropped(&[]);
    let out = pair.server.worker.counters().transmitted(Port::Uplink);
    assert_eq!((out.frames, out.octets), (1, 14 + packet.len() as u64));
}

/// What is for the machine itself must not go out to the gateway, which would not send it back.
#[test]
fn packets_from_the_uplink_lose_a_hop() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = udp(INTERNET, INNER, 10);
    pair.server
        .receive(Port::Uplink, [ethernet(UPLINK_MAC, GATEWAY_MAC, &packet)]);
    pair.exchange();
    assert_eq!(
        inner_of(pair.client.sent(Port::Host)),
        [with_ttl(packet.clone(), 16)]
    );
    // The last hop: Linux answers.
    let last = with_ttl(packet, 1);
    pair.server
        .receive(Port::Uplink, [ethernet(UPLINK_MAC, GATEWAY_MAC, &last)]);
    assert_eq!(
        pair.server.sent(Port::Host),
        [ethernet(LINUX_MAC, HOST_MAC, &last)]
    );
    // Our own address is Linux', too.
    let own = udp(INTERNET, SERVER_INNER, 10);
    pair.server
        .receive(Port::Uplink, [ethernet(UPLINK_MAC, GATEWAY_MAC, &own)]);
    assert_eq!(inner_of(pair.server.sent(Port::Host)), [own]);
    pair.server.assert_dropped(&[]);
}

#[test]
fn one_nic_may_be_access_and_uplink() {
    let mut pair = Pair::up(Encryption::Plain);
    // Also a client's own PPTP through the tunnel: GRE from the internet to an inner address.
    let gre = ipv4(
        INTERNET,
        INNER,
        ipv4::GRE,
        &gre_to_server(CallId(9), Some(1), None, &[0x21])[34..],
    );
    for packet in [udp(INTERNET, INNER, 10), gre] {
        pair.server
            .receive(Port::Access, [ethernet(SERVER_MAC, GATEWAY_MAC, &packet)]);
        pair.exchange();
        assert_eq!(
            inner_of(pair.client.sent(Port::Host)),
            [with_ttl(packet, 16)]
        );
    }
    pair.server.receive(
        Port::Access,
        [ethernet(
            SERVER_MAC,
            GATEWAY_MAC,
            &udp(INTERNET, GATEWAY, 10),
        )],
    );
    pair.server.assert_dropped(&[(Reason::OuterProtocol, 1)]);
}

#[test]
fn clients_reach_each_other() {
    let mut pair = Pair::up(Encryption::Plain);
    with_other_call(&mut pair);
    let packet = udp(INNER, OTHER_INNER, 100);
    pair.client.receive(Port::Host, [from_linux(&packet)]);
    let frames = pair.client.sent(Port::Access);
    pair.server.receive(Port::Access, frames);
    let frames = pair.server.sent(Port::Access);
    assert_eq!(frames.len(), 1);
    let (gre, payload) = gre_of(&frames[0]);
    assert_eq!(gre.call_id, CallId(55));
    assert_eq!(payload[4..], with_ttl(packet.clone(), 16));
    let last = with_ttl(packet, 1);
    assert_eq!(pair.client_sends(&last, Port::Host), [last]);
    pair.server.assert_dropped(&[]);
}

#[test]
fn a_pool_address_without_call_is_unreachable() {
    let mut pair = Pair::up(Encryption::Plain);
    let nobody = core::net::Ipv4Addr::new(10, 20, 0, 200);
    let check = |error: &[u8], packet: &[u8]| {
        let ip = ipv4::Packet::new_checked(error).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.source(), SERVER_INNER);
        assert_eq!(ip.protocol(), ipv4::ICMP);
        assert_eq!(ip.payload()[..2], [3, 1], "host unreachable");
        assert_eq!(ipv4::checksum(ip.payload()), 0);
        assert_eq!(ip.payload()[8..], *packet);
    };
    // From the tunnel, back into the tunnel.
    let packet = udp(INNER, nobody, 100);
    assert!(pair.client_sends(&packet, Port::Host).is_empty());
    let errors = inner_of(pair.client.sent(Port::Host));
    assert_eq!(errors.len(), 1);
    check(&errors[0], &packet);
    // From Linux, back to Linux; never forwarded to it.
    let packet = udp(INTERNET, nobody, 100);
    pair.server.receive(Port::Host, [from_linux(&packet)]);
    let errors = pair.server.sent(Port::Host);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0][..12], [LINUX_MAC.0, HOST_MAC.0].concat());
    check(&errors[0][14..], &packet);
    // From the uplink, back to whoever sent it.
    pair.server
        .receive(Port::Uplink, [ethernet(UPLINK_MAC, GATEWAY_MAC, &packet)]);
    let errors = pair.server.sent(Port::Uplink);
    assert_eq!(errors[0][..12], [GATEWAY_MAC.0, UPLINK_MAC.0].concat());
    check(&errors[0][14..], &packet);
    // No errors about errors.
    let error = ipv4(INTERNET, nobody, ipv4::ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]);
    pair.server.receive(Port::Host, [from_linux(&error)]);
    assert!(pair.server.sent(Port::Host).is_empty());
    pair.server.assert_dropped(&[(Reason::PoolWithoutCall, 4)]);
    assert_eq!(pair.server.total(Total::IcmpSent), 3);
    assert_eq!(pair.server.total(Total::IcmpSuppressed), 1);
}

#[test]
fn icmp_errors_are_limited() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = udp(INTERNET, core::net::Ipv4Addr::new(10, 20, 0, 200), 0);
    for _ in 0..100 {
        pair.server.receive(Port::Host, [from_linux(&packet)]);
    }
    assert_eq!(pair.server.sent(Port::Host).len(), 50);
    // Whoever scans unused addresses does not keep others from learning what fits.
    let large = with_df(udp(INTERNET, INNER, 1480));
    for _ in 0..100 {
        pair.server.receive(Port::Host, [from_linux(&large)]);
    }
    let errors = inner_of(pair.server.sent(Port::Host));
    assert_eq!(errors.len(), 50);
    assert!(errors.iter().all(|error| error[20..22] == [3, 4]));
    pair.server
        .assert_dropped(&[(Reason::PoolWithoutCall, 100), (Reason::TooBig, 100)]);
    assert_eq!(pair.server.total(Total::IcmpSuppressed), 100);
}

#[test]
fn packets_that_are_too_big_leave_other_icmp_errors_alone() {
    let mut pair = Pair::up(Encryption::Plain);
    let large = with_df(udp(INTERNET, INNER, 1480));
    for _ in 0..100 {
        pair.server.receive(Port::Host, [from_linux(&large)]);
    }
    assert_eq!(pair.server.sent(Port::Host).len(), 50);
    let nobody = udp(INTERNET, core::net::Ipv4Addr::new(10, 20, 0, 200), 0);
    pair.server.receive(Port::Host, [from_linux(&nobody)]);
    assert_eq!(pair.server.sent(Port::Host).len(), 1);
}

#[test]
fn a_route_that_is_taken_back_leads_nowhere() {
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.tell(Command::Unroute {
        prefix: INNER.into(),
    });
    pair.server.turn();
    let packet = udp(INTERNET, INNER, 10);
    assert!(pair.server_sends(&packet).is_empty());
    pair.server.receive(
        Port::Uplink,
        [ethernet(UPLINK_MAC, GATEWAY_MAC, &udp(INNER, INTERNET, 1))],
    );
    pair.server
        .assert_dropped(&[(Reason::PoolWithoutCall, 1), (Reason::NoRoute, 1)]);
}

#[test]
fn a_route_whose_call_is_gone_leads_nowhere() {
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.tell(Command::Close { call: AT_SERVER });
    pair.server.turn();
    with_other_call(&mut pair);
    // The other call has the slot of the closed one now, and must not get its packets.
    assert!(pair.server_sends(&udp(INTERNET, INNER, 10)).is_empty());
    pair.server.assert_dropped(&[(Reason::NoRoute, 1)]);
}

#[test]
fn sources_are_checked() {
    let mut pair = Pair::up(Encryption::Plain);
    let spoofed = [&[0x21][..], &udp(INTERNET, GATEWAY, 10)].concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(0), None, &spoofed)],
    );
    pair.server.assert_dropped(&[(Reason::Spoofed, 1)]);
    assert_eq!(pair.server.counters(AT_SERVER).dropped, 1);
    // A client takes only what is for its own address.
    pair.server.tell(Command::Route {
        prefix: INTERNET.into(),
        call: AT_SERVER,
    });
    pair.server.turn();
    assert!(pair.server_sends(&udp(GATEWAY, INTERNET, 10)).is_empty());
    pair.client
        .assert_dropped(&[(Reason::WrongInnerDestination, 1)]);
    // And sends only from it.
    pair.client
        .receive(Port::Host, [from_linux(&udp(GATEWAY, INTERNET, 10))]);
    pair.client
        .assert_dropped(&[(Reason::WrongInnerDestination, 1), (Reason::NoRoute, 1)]);
}

#[test]
fn data_waits_for_forward() {
    let mut pair = Pair::open();
    let data = [&[0x21][..], &udp(INNER, INTERNET, 10)].concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(0), None, &data)],
    );
    pair.server.tell(Command::Route {
        prefix: INNER.into(),
        call: AT_SERVER,
    });
    pair.server
        .receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 10))]);
    pair.server.assert_dropped(&[(Reason::NotYetForwarding, 2)]);
    assert!(pair.server.sent(Port::Access).is_empty());
    // And stops at Hold.
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.tell(Command::Hold { call: AT_SERVER });
    pair.server.turn();
    assert!(
        pair.client_sends(&udp(INNER, INTERNET, 10), Port::Host)
            .is_empty()
    );
    assert!(pair.server_sends(&udp(INTERNET, INNER, 10)).is_empty());
    pair.server.assert_dropped(&[(Reason::NotYetForwarding, 2)]);
}

#[test]
fn inner_packets_are_checked() {
    let mut pair = Pair::up(Encryption::Plain);
    let good = udp(INNER, INTERNET, 10);
    let mut bad_sum = good.clone();
    bad_sum[10] ^= 1;
    let mut long = good.clone();
    long[3] += 1;
    let mut version = good.clone();
    version[0] = 0x65;
    let frames = [&good[..12], &long, &version, &bad_sum, &[]]
        .into_iter()
        .zip(0..)
        .map(|(packet, seq)| {
            gre_to_server(AT_SERVER.id, Some(seq), None, &[&[0x21], packet].concat())
        });
    pair.server
        .receive(Port::Access, frames.collect::<Vec<_>>());
    pair.server
        .assert_dropped(&[(Reason::InnerHeader, 4), (Reason::InnerChecksum, 1)]);
    let down = udp(INTERNET, INNER, 10);
    let mut arp = from_linux(&down);
    arp[13] = 6;
    let mut bad_sum = from_linux(&down);
    bad_sum[24] ^= 1;
    let frames = [arp, bad_sum, from_linux(&down[..25]), vec![0; 13]];
    pair.server.receive(Port::Host, frames);
    pair.server.assert_dropped(&[
        (Reason::NotIpv4, 2),
        (Reason::InnerHeader, 5),
        (Reason::InnerChecksum, 2),
    ]);
}

#[test]
fn an_unknown_neighbour_is_a_named_drop() {
    let mut pair = Pair::up(Encryption::Required);
    pair.server.tell(Command::Neighbour {
        port: Port::Access,
        address: CLIENT,
        mac: None,
    });
    let packet = udp(INTERNET, INNER, 10);
    assert!(pair.server_sends(&packet).is_empty());
    pair.server.assert_dropped(&[(Reason::NoNeighbour, 1)]);
    // Another next hop, whose address comes later; no key was spent on the dropped packet.
    pair.server.tell(Command::Via {
        call: AT_SERVER,
        via: GATEWAY,
    });
    pair.server.tell(Command::Neighbour {
        port: Port::Access,
        address: GATEWAY,
        mac: Some(CLIENT_MAC),
    });
    assert_eq!(pair.server_sends(&packet), [packet]);
}

#[test]
fn full_rings_and_empty_memory_are_named_drops() {
    use turnpike_dataplane::mem::MemDevice;
    use turnpike_dataplane::rings::{RingSizes, channel};
    use turnpike_protocol::Role;

    let (control, end) = channel(&RingSizes::default()).unwrap();
    let device = MemDevice::new(4).with_transmit_room(1).without(Port::Host);
    let server = End::with(config(Role::Server), device, control, end);
    let mut pair = Pair::up(Encryption::Plain);
    pair.server = server;
    pair.server.open(64);
    pair.forward(Encryption::Plain);
    let down = ethernet(UPLINK_MAC, GATEWAY_MAC, &udp(INTERNET, INNER, 10));
    pair.server.receive(Port::Uplink, [&down, &down]);
    pair.server.assert_dropped(&[(Reason::TransmitFull, 1)]);
    let up = [&[0x21][..], &udp(INNER, INTERNET, 10)].concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(0), None, &up)],
    );
    // Three chunks wait to be received and one waits to be sent: none is left for a control frame.
    for _ in 0..3 {
        pair.server.worker.device_mut().inject(Port::Uplink, &down);
    }
    pair.server.send_frame(AT_SERVER, &[0xc0, 0x21, 9, 1, 0, 4]);
    pair.server.assert_dropped(&[
        (Reason::TransmitFull, 4),
        (Reason::NoPort, 1),
        (Reason::NoMemory, 1),
    ]);
}

#[test]
fn commands_that_cannot_be_carried_out_are_counted() {
    let mut server = End::new(turnpike_protocol::Role::Server);
    let call = |n: u16| CallRef {
        id: CallId(n),
        ..AT_SERVER
    };
    let open = |n| Command::Open {
        call: call(n),
        peer_id: CallId(1),
        via: CLIENT,
        window: 64,
    };
    for n in 0..16 {
        server.tell(open(n));
    }
    server.tell(open(16));
    server.tell(Command::Close { call: call(3) });
    server.tell(open(4));
    server.tell(Command::Hold { call: call(77) });
    server.tell(Command::Close { call: call(77) });
    server.tell(Command::Query { call: call(77) });
    for n in 0..17 {
        server.tell(Command::Route {
            prefix: core::net::Ipv4Addr::from_bits(n).into(),
            call: call(1),
        });
    }
    server.turn();
    server.assert_dropped(&[
        (Reason::CallsFull, 1),
        (Reason::CallExists, 1),
        (Reason::NoSuchCall, 3),
        (Reason::RoutesFull, 1),
    ]);
    // Whoever asked gets an answer.
    assert!(matches!(
        server.events[..],
        [
            Event::Closed { .. },
            Event::Closed { .. },
            Event::Counters { .. }
        ]
    ));
    server.tell(Command::Stop);
    assert!(server.turn().stopped);
}
