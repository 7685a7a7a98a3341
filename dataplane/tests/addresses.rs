//! Which outer addresses a call has: where its GRE may come from, and where ours comes from and goes to.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use core::net::Ipv4Addr;

use rig::*;
use turnpike_dataplane::api::{
    CallRef, Command, Encryption, Event, Forward, FrameBytes, Port, SourceCheck,
};
use turnpike_dataplane::counters::Reason;
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channel};
use turnpike_protocol::wire::{gre, ipv4};
use turnpike_protocol::{CallId, Role};

const ID: CallId = AT_SERVER.id;
/// Another of our addresses.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Where a carrier's NAT lets GRE come from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// LCP Configure-Request with a magic number.
const REQUEST: &[u8] = &[0xff, 3, 0xc0, 0x21, 1, 7, 0, 10, 5, 6, 1, 2, 3, 4];

fn server(source_check: SourceCheck, sizes: &RingSizes) -> End {
    let (control, end) = channel(sizes).unwrap();
    let mut config = config(Role::Server);
    config.source_check = source_check;
    let mut server = End::with(config, MemDevice::new(256), control, end);
    server.tell(Command::Neighbour {
        port: Port::Access,
        address: CLIENT,
        mac: Some(CLIENT_MAC),
    });
    server.turn();
    server
}

fn open(server: &mut End, call: CallRef, peer_id: u16, address: Ipv4Addr) {
    for command in [
        Command::Open {
            call,
            peer_id: CallId(peer_id),
            // All of them behind one router.
            via: CLIENT,
            window: 64,
        },
        Command::Route {
            prefix: address.into(),
            call,
        },
        Command::Forward {
            call,
            forward: Forward {
                address,
                ..forward(Encryption::Plain)
            },
        },
    ] {
        server.tell(command);
        server.turn();
    }
}

fn relaxed() -> End {
    let mut server = server(SourceCheck::Relaxed, &RingSizes::default());
    open(&mut server, AT_SERVER, 0, INNER);
    server
}

/// Source and destination of what left on the access port.
fn outer(server: &mut End) -> Vec<(Ipv4Addr, Ipv4Addr, gre::Packet)> {
    server
        .sent(Port::Access)
        .iter()
        .map(|frame| {
            let (gre, _) = gre_of(frame);
            let ip = ipv4::Packet::new_checked(&frame[14..]).unwrap();
            (ip.source(), ip.destination(), gre)
        })
        .collect()
}

fn data_from(source: Ipv4Addr, local: Ipv4Addr, id: CallId, inner: Ipv4Addr) -> Vec<u8> {
    let payload = [&[0x21][..], &udp(inner, INTERNET, 10)].concat();
    to(local, gre_from(source, id, Some(5), None, &payload))
}

/// The same frame for another of our addresses.
fn to(local: Ipv4Addr, mut frame: Vec<u8>) -> Vec<u8> {
    frame[30..34].copy_from_slice(&local.octets());
    ipv4::Packet::new_checked(&mut frame[14..])
        .unwrap()
        .fill_checksum();
    frame
}

fn bound(server: &mut End) -> Vec<Ipv4Addr> {
    let bound = server.events.iter().filter_map(|event| match event {
        Event::Bound { call, source } => {
            assert_eq!(*call, AT_SERVER);
            Some(*source)
        }
        _ => None,
    });
    bound.collect()
}

#[test]
fn the_same_id_of_two_peers_is_two_calls() {
    let mut server = server(SourceCheck::Strict, &RingSizes::default());
    let peers = [CLIENT, Ipv4Addr::new(198, 51, 100, 78)];
    let inner = [INNER, Ipv4Addr::new(10, 20, 0, 11)];
    let call = |n: usize| CallRef {
        peer: peers[n],
        ..AT_SERVER
    };
    for (n, address) in inner.into_iter().enumerate() {
        open(&mut server, call(n), 40 + n as u16, address);
    }
    for n in [0, 1, 1, 0] {
        // From its own peer with its own inner address, and to it.
        server.receive(Port::Access, [data_from(peers[n], SERVER, ID, inner[n])]);
        server.receive(Port::Host, [from_linux(&udp(INTERNET, inner[n], 10))]);
        let sent = outer(&mut server);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].1, peers[n]);
        assert_eq!(sent[0].2.call_id, CallId(40 + n as u16));
    }
    assert_eq!(server.sent(Port::Host).len(), 2, "and two that came twice");
    server.assert_dropped(&[(Reason::GreDuplicate, 2)]);
    // One does not speak for the other.
    server.receive(Port::Access, [data_from(peers[0], SERVER, ID, inner[1])]);
    assert!(server.sent(Port::Host).is_empty());
    // The end of one is not the end of the other.
    server.tell(Command::Close { call: call(0) });
    server.turn();
    server.receive(Port::Host, [from_linux(&udp(INTERNET, inner[1], 10))]);
    assert_eq!(outer(&mut server).len(), 1);
    server.receive(Port::Access, [data_from(peers[0], SERVER, ID, inner[0])]);
    assert_eq!(server.counters(call(1)).received_packets, 1);
    server.assert_dropped(&[(Reason::GreDuplicate, 3), (Reason::WrongSource, 1)]);
}

#[test]
fn each_call_answers_from_the_address_it_was_dialled_on() {
    let mut server = server(SourceCheck::Strict, &RingSizes::default());
    let second = CallRef {
        local: SECOND,
        id: CallId(701),
        ..AT_SERVER
    };
    let inner = Ipv4Addr::new(10, 20, 0, 11);
    open(&mut server, AT_SERVER, 1, INNER);
    open(&mut server, second, 2, inner);
    for (call, address) in [(AT_SERVER, INNER), (second, inner)] {
        // Data, control frames and acknowledgements.
        server.receive(Port::Host, [from_linux(&udp(INTERNET, address, 10))]);
        server.send_frame(call, REQUEST);
        server.receive(
            Port::Access,
            [data_from(CLIENT, call.local, call.id, address)],
        );
        server.pass(core::time::Duration::from_millis(200));
        let sent = outer(&mut server);
        assert_eq!(sent.len(), 3);
        assert!(sent.iter().all(|sent| sent.0 == call.local), "{sent:?}");
        assert_eq!(server.sent(Port::Host).len(), 1);
    }
    // To the other of the two addresses.
    server.receive(Port::Access, [data_from(CLIENT, SERVER, second.id, inner)]);
    server.assert_dropped(&[(Reason::WrongDestination, 1)]);
}

#[test]
fn icmp_about_gre_ends_no_call() {
    let mut server = server(SourceCheck::Strict, &RingSizes::default());
    open(&mut server, AT_SERVER, 0, INNER);
    server.receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 10))]);
    let ours = server.sent(Port::Access).remove(0);
    // RFC 792: destination unreachable of every code, redirects, source quench, time exceeded, quoting our packet.
    for (kind, code) in (0..16)
        .map(|code| (3, code))
        .chain([(4, 0), (5, 1), (11, 0), (12, 0)])
    {
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&ours[14..14 + 28]);
        let sum = ipv4::checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = ipv4(CLIENT, SERVER, ipv4::ICMP, &message);
        server.receive(Port::Access, [ethernet(SERVER_MAC, CLIENT_MAC, &packet)]);
    }
    server.assert_dropped(&[(Reason::OuterProtocol, 20)]);
    // Both directions go on.
    server.receive(Port::Access, [data_from(CLIENT, SERVER, ID, INNER)]);
    server.receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 10))]);
    assert_eq!(server.sent(Port::Host).len(), 1);
    assert_eq!(outer(&mut server).len(), 1);
    assert!(server.events.is_empty(), "{:?}", server.events);
}

#[test]
fn gre_from_elsewhere_is_bound_by_the_first_valid_lcp_frame() {
    let mut server = relaxed();
    // Until then ours goes where TCP comes from.
    server.send_frame(AT_SERVER, REQUEST);
    assert_eq!(outer(&mut server)[0].1, CLIENT);

    server.receive(
        Port::Access,
        [gre_from(ELSEWHERE, ID, Some(1), None, REQUEST)],
    );
    assert_eq!(bound(&mut server), [ELSEWHERE]);
    assert_eq!(server.frames(), [REQUEST]);
    server.send_frame(AT_SERVER, REQUEST);
    server.receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 10))]);
    server.receive(Port::Access, [data_from(ELSEWHERE, SERVER, ID, INNER)]);
    assert_eq!(server.sent(Port::Host).len(), 1);
    server.pass(core::time::Duration::from_millis(200));
    let sent = outer(&mut server);
    assert_eq!(sent.len(), 3);
    assert!(
        sent.iter()
            .all(|sent| (sent.0, sent.1) == (SERVER, ELSEWHERE))
    );

    // From then on it comes from there and nowhere else, and nobody binds it again.
    server.assert_dropped(&[]);
    for source in [CLIENT, STRANGER] {
        server.receive(Port::Access, [gre_from(source, ID, Some(9), None, REQUEST)]);
        server.receive(Port::Access, [data_from(source, SERVER, ID, INNER)]);
    }
    server.assert_dropped(&[(Reason::WrongSource, 4)]);
    assert_eq!(bound(&mut server), [ELSEWHERE]);
    assert!(server.frames().is_empty());

    // The way to it may be another one.
    let via = Ipv4Addr::new(198, 51, 100, 254);
    server.tell(Command::Neighbour {
        port: Port::Access,
        address: via,
        mac: Some(GATEWAY_MAC),
    });
    server.tell(Command::Via {
        call: AT_SERVER,
        via,
    });
    server.send_frame(AT_SERVER, REQUEST);
    let sent = server.sent(Port::Access);
    assert_eq!(sent[0][..6], GATEWAY_MAC.0);

    // A call that has the id after it is bound anew.
    server.tell(Command::Close { call: AT_SERVER });
    server.turn();
    open(&mut server, AT_SERVER, 0, INNER);
    server.events.clear();
    server.receive(
        Port::Access,
        [gre_from(STRANGER, ID, Some(0), None, REQUEST)],
    );
    assert_eq!(bound(&mut server), [STRANGER]);
}

#[test]
fn nothing_but_a_valid_lcp_frame_binds() {
    let mut server = relaxed();
    let edit = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = REQUEST.to_vec();
        change(&mut frame);
        gre_from(ELSEWHERE, ID, Some(1), None, &frame)
    };
    let cases = [
        // Other codes, other protocols.
        edit(&|f| f[4] = 9),
        edit(&|f| f[4] = 5),
        edit(&|f| f[4] = 2),
        edit(&|f| f[3] = 0x23),
        edit(&|f| f[2..4].copy_from_slice(&[0x80, 0x21])),
        // Lengths that do not fit.
        edit(&|f| f[7] = 11),
        edit(&|f| f[7] = 9),
        edit(&|f| f[7] = 3),
        edit(&|f| f[7] = 5),
        edit(&|f| f[9] = 1),
        edit(&|f| f[9] = 0),
        edit(&|f| f[9] = 7),
        edit(&|f| f.truncate(7)),
        edit(&|f| f.truncate(1)),
        // Without a frame.
        gre_from(ELSEWHERE, ID, None, Some(1), &[]),
        gre_from(ELSEWHERE, ID, Some(1), None, &[]),
        data_from(ELSEWHERE, SERVER, ID, INNER),
        // From addresses that are nobody's.
        gre_from(Ipv4Addr::UNSPECIFIED, ID, Some(1), None, REQUEST),
        gre_from(Ipv4Addr::BROADCAST, ID, Some(1), None, REQUEST),
        gre_from(Ipv4Addr::new(224, 0, 0, 1), ID, Some(1), None, REQUEST),
        gre_from(Ipv4Addr::LOCALHOST, ID, Some(1), None, REQUEST),
    ];
    let count = cases.len() as u64;
    server.receive(Port::Access, cases);
    server.assert_dropped(&[(Reason::SourceUnknown, count)]);
    assert!(server.events.is_empty(), "{:?}", server.events);
    // Nor did any of them count: number 0 is the first.
    assert_eq!(server.counters(AT_SERVER).gre_received, 0);
    server.events.clear();
    // Without FF 03, without options, with padding: valid.
    server.receive(
        Port::Access,
        [gre_from(
            ELSEWHERE,
            ID,
            Some(0),
            None,
            &[0xc0, 0x21, 1, 1, 0, 4, 0, 0],
        )],
    );
    assert_eq!(bound(&mut server), [ELSEWHERE]);
}

#[test]
fn a_source_that_is_the_peers_is_bound_without_a_word() {
    let mut server = relaxed();
    server.receive(Port::Access, [gre_from(CLIENT, ID, Some(1), None, REQUEST)]);
    assert!(bound(&mut server).is_empty());
    assert_eq!(server.frames(), [REQUEST]);
    server.receive(
        Port::Access,
        [gre_from(ELSEWHERE, ID, Some(2), None, REQUEST)],
    );
    server.assert_dropped(&[(Reason::WrongSource, 1)]);
}

#[test]
fn nothing_is_bound_while_nobody_can_be_told() {
    let sizes = RingSizes {
        events: 8,
        ..RingSizes::default()
    };
    let mut server = server(SourceCheck::Relaxed, &sizes);
    let other = CallRef {
        id: CallId(701),
        ..AT_SERVER
    };
    open(&mut server, AT_SERVER, 0, INNER);
    open(&mut server, other, 1, Ipv4Addr::new(10, 20, 0, 11));
    // Without a reader the ring fills.
    let mut seq = 0;
    let mut arrive = |server: &mut End, source, id| {
        let frame = gre_from(source, id, Some(seq), None, REQUEST);
        seq += 1;
        assert!(server.worker.device_mut().inject(Port::Access, &frame));
        server.worker.turn(server.now);
    };
    for _ in 0..10 {
        arrive(&mut server, CLIENT, other.id);
    }
    arrive(&mut server, ELSEWHERE, ID);
    server.turn();
    assert!(bound(&mut server).is_empty());
    server.events.clear();
    // The client asks again.
    arrive(&mut server, ELSEWHERE, ID);
    server.turn();
    assert_eq!(bound(&mut server), [ELSEWHERE]);
    assert_eq!(server.frames(), [REQUEST]);
}

#[test]
fn a_strict_server_takes_gre_from_the_peer_only() {
    let mut server = server(SourceCheck::Strict, &RingSizes::default());
    open(&mut server, AT_SERVER, 0, INNER);
    server.receive(
        Port::Access,
        [gre_from(ELSEWHERE, ID, Some(1), None, REQUEST)],
    );
    server.assert_dropped(&[(Reason::WrongSource, 1)]);
    assert!(server.events.is_empty());
    let frame = FrameBytes::new(REQUEST).unwrap();
    server.tell(Command::Send {
        call: AT_SERVER,
        frame,
    });
    server.turn();
    assert_eq!(outer(&mut server)[0].1, CLIENT);
}
