//! GRE: what is accepted, in which order, and how it is acknowledged.

mod rig;

use core::time::Duration;
use std::collections::BTreeSet;

use rig::*;
use turnpike_dataplane::api::{CallRef, Command, Datagram, Encryption, Event, MAX_DATAGRAM, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channel};
use turnpike_dataplane::worker::WorkerConfig;
use turnpike_protocol::gre::Seq;
use turnpike_protocol::wire::ipv4;
use turnpike_protocol::{CallId, Role};

const ECHO: &[u8] = &[0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0];

fn data(seq: u32, octets: usize) -> Vec<u8> {
    let payload = [&[0x21][..], &udp(INNER, INTERNET, octets)].concat();
    gre_to_server(AT_SERVER.id, Some(seq), None, &payload)
}

#[test]
fn control_frames_make_the_round_trip() {
    let mut pair = Pair::open();
    pair.client.send_frame(AT_CLIENT, ECHO);
    pair.exchange();
    assert_eq!(pair.server.frames(), [ECHO]);
    pair.server.send_frame(AT_SERVER, &ECHO[2..]);
    pair.exchange();
    assert_eq!(pair.client.frames(), [&ECHO[2..]], "as it was sent");
    assert_eq!(pair.server.total(Total::FramesReceived), 1);
    assert_eq!(pair.server.total(Total::FramesSent), 1);
    let last = pair.server.now.as_nanos();
    let counters = pair.server.counters(AT_SERVER);
    assert_eq!((counters.gre_received, counters.gre_sent), (1, 1));
    assert_eq!(counters.last_received_ns, last);
    pair.server.tell(Command::Close { call: AT_SERVER });
    pair.server.turn();
    assert!(
        matches!(pair.server.events.pop(), Some(Event::Closed { counters: last, .. }) if last == counters)
    );
    pair.client.send_frame(AT_CLIENT, ECHO);
    pair.exchange();
    pair.server.assert_dropped(&[(Reason::UnknownCall, 1)]);
}

#[test]
fn frames_that_answer_a_command_find_it_carried_out() {
    // The command is queued, then the answer arrives, and both wait for the same turn.
    let mut server = End::new(Role::Server);
    server.tell(Command::Open {
        call: AT_SERVER,
        peer_id: AT_CLIENT.id,
        via: CLIENT,
        window: 64,
    });
    server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(1), None, ECHO)],
    );
    assert_eq!(server.frames(), [ECHO]);
}

#[test]
fn unknown_protocols_go_up_in_clear() {
    let mut pair = Pair::up(Encryption::Plain);
    for (seq, frame) in (0..).zip([
        &[0x2d, 1, 2, 3][..],
        &[0x00, 0x2b, 0x60],
        &[0x80, 0x57, 1, 1, 0, 4],
    ]) {
        pair.server.receive(
            Port::Access,
            [gre_to_server(AT_SERVER.id, Some(seq), None, frame)],
        );
        assert_eq!(pair.server.frames(), [frame]);
    }
    pair.server.assert_dropped(&[]);
}

#[test]
fn outer_headers_are_checked() {
    let mut pair = Pair::up(Encryption::Plain);
    let good = data(0, 10);
    let edit = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        let mut packet = frame[14..].to_vec();
        if let Ok(mut ip) = ipv4::Packet::new_checked(&mut packet[..]) {
            ip.fill_checksum();
        }
        [&frame[..14], &packet].concat()
    };
    let mut bad_sum = good.clone();
    bad_sum[24] ^= 0xff;
    let cases = [
        (edit(&|f| f[13] = 6), Reason::NotIpv4),
        (good[..10].to_vec(), Reason::NotIpv4),
        (edit(&|f| f[14] = 0x65), Reason::OuterHeader),
        (edit(&|f| f[14] = 0x41), Reason::OuterHeader),
        (edit(&|f| f.truncate(60)), Reason::OuterHeader),
        (edit(&|f| f[20] = 0x20), Reason::OuterFragment),
        (edit(&|f| f[21] = 1), Reason::OuterFragment),
        (edit(&|f| f[23] = 17), Reason::OuterProtocol),
        (bad_sum, Reason::OuterChecksum),
        (edit(&|f| f[35] = 0), Reason::GreVersion),
        (edit(&|f| f[36] = 0), Reason::GreProtocol),
        (edit(&|f| f[34] = 0xb0), Reason::GreFlags),
        (edit(&|f| f[39] = 0xff), Reason::GreTruncated),
        (
            edit(&|f| {
                f.truncate(40);
                f[16..18].copy_from_slice(&26_u16.to_be_bytes());
            }),
            Reason::GreShort,
        ),
        (edit(&|f| f[41] ^= 0xff), Reason::UnknownCall),
        (
            gre_from(INTERNET, AT_SERVER.id, Some(0), None, ECHO),
            Reason::WrongSource,
        ),
        (edit(&|f| f[33] ^= 1), Reason::WrongDestination),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (frame, reason) in cases {
        pair.server.receive(Port::Access, [frame]);
        *expected.entry(reason).or_insert(0) += 1;
        pair.server
            .assert_dropped(&expected.iter().map(|(r, n)| (*r, *n)).collect::<Vec<_>>());
    }
    // None of them did anything to the call.
    assert_eq!(pair.server.counters(AT_SERVER).gre_received, 0);
    pair.server.receive(Port::Access, [&good]);
    assert_eq!(pair.server.sent(Port::Host).len(), 1);
}

#[test]
fn late_and_repeated_packets_are_dropped_and_missing_ones_counted() {
    let mut pair = Pair::up(Encryption::Plain);
    for (seq, delivered) in [
        (u32::MAX - 1, true),
        (u32::MAX - 1, false),
        (0, true),
        (u32::MAX, false),
        (u32::MAX, false),
        (0, false),
        (1, true),
        (5, true),
    ] {
        pair.server.receive(Port::Access, [data(seq, 10)]);
        assert_eq!(
            pair.server.sent(Port::Host).len(),
            usize::from(delivered),
            "{seq}"
        );
    }
    // The second copy of a late packet is a duplicate.
    pair.server
        .assert_dropped(&[(Reason::GreDuplicate, 3), (Reason::GreLate, 1)]);
    let counters = pair.server.counters(AT_SERVER);
    assert_eq!(
        (counters.missing, counters.dropped, counters.gre_received),
        (4, 4, 8)
    );
    assert_eq!(pair.server.total(Total::Missing), 4);
}

#[test]
fn encryption_survives_loss_and_reordering() {
    let mut pair = Pair::up(Encryption::Required);
    let mut frames = Vec::new();
    for n in 0..9000 {
        pair.client
            .receive(Port::Host, [from_linux(&udp(INNER, INTERNET, n % 7))]);
        frames.extend(pair.client.sent(Port::Access));
    }
    // One lost, two swapped, one repeated; then an outage longer than the coherency count.
    let order = [0, 2, 4, 3, 5, 5, 8900, 8901];
    let mut delivered = Vec::new();
    for n in order {
        pair.server.receive(Port::Access, [&frames[n]]);
        delivered.extend(inner_of(pair.server.sent(Port::Host)));
    }
    let expected: Vec<_> = [0, 2, 4, 5].map(|n| udp(INNER, INTERNET, n % 7)).to_vec();
    assert_eq!(delivered[..4], expected);
    // So long a gap takes a few packets to close, each lost under a name, and then data flows again.
    for frame in &frames[8902..8910] {
        pair.server.receive(Port::Access, [frame]);
        delivered.extend(inner_of(pair.server.sent(Port::Host)));
    }
    assert_eq!(delivered.last(), Some(&udp(INNER, INTERNET, 8909 % 7)));
    let late = pair.server.worker.counters().reason(Reason::GreLate);
    let duplicate = pair.server.worker.counters().reason(Reason::GreDuplicate);
    let far = pair
        .server
        .worker
        .counters()
        .reason(Reason::MppeTooFarAhead);
    assert_eq!((late, duplicate), (1, 1));
    assert_eq!(far, 14 - delivered.len() as u64);
    assert!((1..5).contains(&far), "{far}");
}

#[test]
fn acknowledgements_ride_on_data_or_go_alone() {
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.receive(Port::Access, [data(41, 10)]);
    let turn = pair.server.turn();
    assert!(pair.server.sent(Port::Access).is_empty());
    let due = turn.next.unwrap().since(pair.server.now);
    assert!(
        due <= Duration::from_millis(50) && due > Duration::from_millis(47),
        "{due:?}"
    );
    // Rides on data.
    pair.server
        .receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 1))]);
    let frames = pair.server.sent(Port::Access);
    assert_eq!(gre_of(&frames[0]).0.ack, Some(Seq(41)));
    pair.server.pass(Duration::from_millis(60));
    assert!(pair.server.sent(Port::Access).is_empty(), "owed no more");
    assert_eq!(pair.server.turn().next, None);
    // Goes alone, late enough, without a number.
    pair.server.receive(Port::Access, [data(42, 10)]);
    pair.server.pass(Duration::from_millis(48));
    assert!(pair.server.sent(Port::Access).is_empty());
    pair.server.pass(Duration::from_millis(2));
    let frames = pair.server.sent(Port::Access);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].len(), 14 + 20 + 12);
    let (gre, payload) = gre_of(&frames[0]);
    assert_eq!((gre.seq, gre.ack, payload.len()), (None, Some(Seq(42)), 0));
    assert_eq!(gre.call_id, AT_CLIENT.id);
    // Is never acknowledged itself.
    pair.client.receive(Port::Access, frames);
    assert_eq!(pair.client.turn().next, None);
    assert_eq!(pair.client.total(Total::AcksReceived), 1);
    pair.server.assert_dropped(&[]);
}

/// RFC 2637 §4.2: a sender may stop when so many packets are unacknowledged.
#[test]
fn half_of_the_window_is_acknowledged_once_at_the_end_of_a_turn() {
    for (window, half) in [(1, 1), (3, 2), (16, 8), (64, 32), (u16::MAX, 32)] {
        let mut server = End::new(Role::Server);
        server.open(window);
        server.turn();
        let control = |seqs: core::ops::Range<u32>| {
            seqs.map(|n| gre_to_server(AT_SERVER.id, Some(n), None, ECHO))
        };
        server.receive(Port::Access, control(0..half - 1));
        assert!(server.sent(Port::Access).is_empty(), "{window}");
        server.receive(Port::Access, control(half - 1..half));
        let acks = |server: &mut End| -> Vec<_> {
            let frames = server.sent(Port::Access);
            frames.iter().map(|frame| gre_of(frame).0.ack).collect()
        };
        assert_eq!(acks(&mut server), [Some(Seq(half - 1))], "{window}");
        // However many come in a turn.
        server.receive(Port::Access, control(half..half + 60));
        assert_eq!(acks(&mut server), [Some(Seq(half + 59))], "{window}");
        server.pass(Duration::from_millis(60));
        assert_eq!(server.total(Total::AcksSent), 2);
        assert_eq!(server.turn().next, None);
    }
}

#[test]
fn several_packets_are_acknowledged_as_soon_as_the_sender_pauses() {
    let mut pair = Pair::up(Encryption::Plain);
    for n in 0..20_u32 {
        pair.server
            .receive(Port::Access, (8 * n..8 * n + 7).map(|seq| data(seq, 1)));
        let next = pair.server.turn().next.unwrap().since(pair.server.now);
        assert!(next > Duration::from_millis(47), "{next:?}");
        pair.server.receive(Port::Access, [data(8 * n + 7, 1)]);
        let next = pair.server.turn().next.unwrap().since(pair.server.now);
        assert!(next > Duration::from_millis(2) && next <= Duration::from_millis(4));
        assert!(pair.server.sent(Port::Access).is_empty());
        pair.server.pass(Duration::from_millis(4));
        let frames = pair.server.sent(Port::Access);
        assert_eq!(frames.len(), 1);
        assert_eq!(gre_of(&frames[0]).0.ack, Some(Seq(8 * n + 7)));
        pair.server.pass(Duration::from_millis(60));
        assert!(pair.server.sent(Port::Access).is_empty());
        assert_eq!(pair.server.turn().next, None);
    }
    // Data carries it as ever.
    pair.server
        .receive(Port::Access, (160..168).map(|seq| data(seq, 1)));
    pair.server
        .receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 1))]);
    let frames = pair.server.sent(Port::Access);
    assert_eq!(gre_of(&frames[0]).0.ack, Some(Seq(167)));
    pair.server.pass(Duration::from_millis(60));
    assert!(pair.server.sent(Port::Access).is_empty());
}

#[test]
fn an_acknowledgement_that_rode_along_leaves_no_early_one_behind() {
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.receive(Port::Access, [data(1, 10)]);
    pair.server.pass(Duration::from_millis(30));
    pair.server
        .receive(Port::Host, [from_linux(&udp(INTERNET, INNER, 1))]);
    pair.server.receive(Port::Access, [data(2, 10)]);
    pair.server.sent(Port::Access);
    pair.server.pass(Duration::from_millis(25));
    assert!(pair.server.sent(Port::Access).is_empty());
    pair.server.pass(Duration::from_millis(25));
    assert_eq!(pair.server.sent(Port::Access).len(), 1);
}

#[test]
fn closing_a_call_forgets_what_it_owed() {
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.receive(Port::Access, [data(1, 10)]);
    pair.server.tell(Command::Close { call: AT_SERVER });
    pair.server.turn();
    pair.server.pass(Duration::from_secs(1));
    assert!(pair.server.sent(Port::Access).is_empty());
    assert_eq!(pair.server.turn().next, None);
}

#[test]
fn many_acknowledgements_go_out_in_several_turns() {
    const CALLS: u16 = 600;
    let (control, end) = channel(&RingSizes::default()).unwrap();
    let config = WorkerConfig {
        calls: 1024,
        ..config(Role::Server)
    };
    let mut server = End::with(config, MemDevice::new(1024), control, end);
    server.tell(Command::Neighbour {
        port: Port::Access,
        address: CLIENT,
        mac: Some(CLIENT_MAC),
    });
    for n in 0..CALLS {
        server.tell(Command::Open {
            call: CallRef {
                id: CallId(n),
                ..AT_SERVER
            },
            peer_id: CallId(n + 10_000),
            via: CLIENT,
            window: 64,
        });
    }
    server.turn();
    server.receive(
        Port::Access,
        (0..CALLS).map(|n| gre_to_server(CallId(n), Some(1), None, ECHO)),
    );
    assert!(server.sent(Port::Access).is_empty());
    server.now += Duration::from_millis(60);
    let mut acknowledged = BTreeSet::new();
    for expected in [256, 256, 88] {
        let turn = server.turn();
        let frames = server.sent(Port::Access);
        assert_eq!(frames.len(), expected);
        acknowledged.extend(frames.iter().map(|frame| gre_of(frame).0.call_id.0));
        let more = acknowledged.len() < usize::from(CALLS);
        assert_eq!(turn.next.is_some(), more);
        assert!(turn.next.is_none_or(|next| next <= server.now), "at once");
    }
    let all: BTreeSet<u16> = (10_000..10_000 + CALLS).collect();
    assert_eq!(acknowledged, all);
    assert_eq!(server.total(Total::AcksSent), u64::from(CALLS));
}

#[test]
fn empty_and_short_payloads_end_here() {
    let mut pair = Pair::up(Encryption::Plain);
    for (seq, payload) in (0..).zip([&[][..], &[0xff, 0x03], &[0x00], &[0xff, 0x03, 0x80]]) {
        pair.server.receive(
            Port::Access,
            [gre_to_server(AT_SERVER.id, Some(seq), None, payload)],
        );
    }
    pair.server
        .assert_dropped(&[(Reason::EmptyPayload, 1), (Reason::PppShort, 3)]);
    pair.server.pass(Duration::from_millis(50));
    let frames = pair.server.sent(Port::Access);
    assert_eq!(
        gre_of(&frames[0]).0.ack,
        Some(Seq(3)),
        "received all the same"
    );
}

#[test]
fn one_call_cannot_fill_the_event_ring() {
    let mut pair = Pair::open();
    let frames = (0..400).map(|seq| gre_to_server(AT_SERVER.id, Some(seq), None, ECHO));
    let frames: Vec<_> = frames.collect();
    for chunk in frames.chunks(64) {
        pair.server.receive(Port::Access, chunk);
    }
    assert_eq!(pair.server.frames().len(), 128);
    pair.server.assert_dropped(&[(Reason::FrameRate, 272)]);
    pair.server.now += Duration::from_secs(1);
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(400), None, ECHO)],
    );
    assert_eq!(pair.server.frames().len(), 1);
}

#[test]
fn a_full_event_ring_drops_frames_but_no_answers() {
    let sizes = RingSizes {
        events: 8,
        ..RingSizes::default()
    };
    let (mut control, end) = channel(&sizes).unwrap();
    let mut worker =
        turnpike_dataplane::worker::Worker::new(config(Role::Server), MemDevice::new(64), end);
    let now = turnpike_protocol::Time::ZERO;
    control
        .commands
        .push(Command::Open {
            call: AT_SERVER,
            peer_id: CallId(1),
            via: CLIENT,
            window: 64,
        })
        .unwrap();
    for seq in 0..10 {
        let frame = gre_to_server(AT_SERVER.id, Some(seq), None, ECHO);
        assert!(worker.device_mut().inject(Port::Access, &frame));
    }
    for _ in 0..5 {
        control
            .commands
            .push(Command::Query { call: AT_SERVER })
            .unwrap();
    }
    worker.turn(now);
    // The answers came first; three slots were left, of which two are kept for answers.
    let turn = worker.turn(now);
    assert!(!turn.busy);
    assert_eq!(worker.counters().reason(Reason::EventRingFull), 9);
    for _ in 0..5 {
        control
            .commands
            .push(Command::Query { call: AT_SERVER })
            .unwrap();
    }
    let turn = worker.turn(now);
    assert!(turn.next.is_some(), "three of them wait for room");
    let mut events = Vec::new();
    for _ in 0..9 {
        while let Ok(event) = control.events.pop() {
            events.push(event);
        }
        worker.turn(now);
    }
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|e| wanted(e)).count();
    assert_eq!(count(|e| matches!(e, Event::Counters { .. })), 10);
    assert_eq!(count(|e| matches!(e, Event::Frame { .. })), 1);
    assert_eq!(count(|e| matches!(e, Event::Lost { frames: 9 })), 1);
    assert!(worker.counters().total(Total::EventStalls) > 0);
}

#[test]
fn a_worker_sleeps_while_answers_wait_for_room() {
    let sizes = RingSizes {
        events: 8,
        ..RingSizes::default()
    };
    let (control, end) = channel(&sizes).unwrap();
    let mut server = End::with(config(Role::Server), MemDevice::new(64), control, end);
    for _ in 0..9 {
        server.tell(Command::Query { call: AT_SERVER });
    }
    let turn = server.worker.turn(server.now);
    assert_eq!(turn.next, Some(server.now + Duration::from_millis(1)));
    let sleeps = |server: &End| server.worker.counters().total(Total::Sleeps);
    server.worker.wait(Duration::from_millis(1));
    assert_eq!(sleeps(&server), 1, "it must not spin");
    // There is room again, though nobody says so.
    while server.control.events.pop().is_ok() {}
    let turn = server.worker.turn(server.now);
    assert_eq!((turn.busy, turn.next), (true, None));
    assert!(matches!(
        server.control.events.pop(),
        Ok(Event::Counters { .. })
    ));
    // Any other command keeps it awake.
    server.tell(Command::Query { call: AT_SERVER });
    server.worker.wait(Duration::from_secs(60));
    assert_eq!(sleeps(&server), 1);
}

#[test]
fn datagrams_that_linux_reassembled_are_like_received_ones() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = udp(INNER, INTERNET, 1350);
    let frame = gre_to_server(
        AT_SERVER.id,
        Some(0),
        None,
        &[&[0x21][..], &packet].concat(),
    );
    let mut bytes = [0; MAX_DATAGRAM];
    bytes[..frame.len() - 14].copy_from_slice(&frame[14..]);
    assert!(pair.server.control.datagrams.push(Datagram {
        len: frame.len() as u16 - 14,
        bytes,
    }));
    pair.server.turn();
    assert_eq!(inner_of(pair.server.sent(Port::Host)), [packet]);
    // One that says too much of itself.
    assert!(pair.server.control.datagrams.push(Datagram {
        len: u16::MAX,
        bytes,
    }));
    pair.server.turn();
    pair.server.assert_dropped(&[(Reason::GreDuplicate, 1)]);
    assert_eq!(pair.server.total(Total::Datagrams), 2);
}
