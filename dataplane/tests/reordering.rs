//! Packets that overtook each other: held, put back in order, and given up in time.

mod rig;

use core::time::Duration;

use rig::*;
use turnpike_dataplane::api::{Command, Encryption, Event, Owners, Port, WorkerId};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::device::Device as _;
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channels};
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::Role;
use turnpike_protocol::gre::Seq;

const ECHO: &[u8] = &[0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn reordering(packets: u8) -> Reordering {
    Reordering {
        packets,
        ..Reordering::default()
    }
}

fn up(packets: u8) -> Pair {
    Pair::up_reordering(Encryption::Plain, reordering(packets))
}

/// A packet whose size is its number.
fn data(seq: u32) -> Vec<u8> {
    let payload = [&[0x21][..], &udp(INNER, INTERNET, seq as usize)].concat();
    gre_to_server(AT_SERVER.id, Some(seq), None, &payload)
}

/// The numbers of the packets that came out.
fn numbers(end: &mut End) -> Vec<usize> {
    let packets = inner_of(end.sent(Port::Host));
    packets.iter().map(|packet| packet.len() - 20).collect()
}

#[test]
fn what_overtook_is_delivered_in_order() {
    let mut pair = up(8);
    let server = &mut pair.server;
    for (seq, out) in [
        (0, &[0][..]),
        (2, &[]),
        (4, &[]),
        (4, &[]),
        (3, &[]),
        (1, &[1, 2, 3, 4]),
        (3, &[]),
        (5, &[5]),
    ] {
        server.receive(Port::Access, [data(seq)]);
        assert_eq!(numbers(server), out, "{seq}");
    }
    server.assert_dropped(&[(Reason::GreDuplicate, 2)]);
    assert_eq!(server.total(Total::Held), 3);
    assert_eq!(server.total(Total::Released), 3);
    let counters = server.counters(AT_SERVER);
    assert_eq!(
        (counters.missing, counters.held, counters.dropped),
        (0, 3, 2)
    );
    assert_eq!(counters.received_packets, 6);
}

#[test]
fn the_worker_wakes_when_a_packet_has_waited_long_enough() {
    let mut pair = up(8);
    let server = &mut pair.server;
    server.receive(Port::Access, [data(0)]);
    server.pass(ms(200));
    numbers(server);
    server.receive(Port::Access, [data(3)]);
    let began = server.now;
    server.pass(ms(20));
    server.receive(Port::Access, [data(5)]);
    let mut out = Vec::new();
    while out.len() < 2 {
        // As the worker's thread does: it sleeps until it is to look again.
        let turn = server.turn();
        for number in numbers(server) {
            out.push((number, server.now.since(began)));
        }
        match turn.next {
            Some(next) => server.now = server.now.max(next) + Duration::from_nanos(1),
            None => break,
        }
        assert!(server.now.since(began) < ms(100), "{out:?}");
    }
    let numbers: Vec<usize> = out.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [3, 5]);
    // Not too early, and late by two ticks at most.
    for ((_, at), due) in out.iter().zip([50, 70]) {
        assert!((ms(due)..ms(due + 3)).contains(at), "{at:?}");
    }
    assert_eq!(server.total(Total::ReorderTimeouts), 2);
    assert_eq!(server.total(Total::Missing), 3);
    server.receive(Port::Access, [data(4)]);
    server.assert_dropped(&[(Reason::GreLate, 1)]);
}

#[test]
fn what_was_lost_here_is_hardly_waited_for() {
    let mut pair = up(8);
    let server = &mut pair.server;
    server.receive(Port::Access, [data(0)]);
    numbers(server);
    server.worker.device_mut().overflow();
    server.receive(Port::Access, [data(2)]);
    assert!(numbers(server).is_empty(), "it may have been overtaken");
    server.pass(ms(3));
    assert_eq!(numbers(server), [2]);
    // One that has few packets finds its gap later.
    server.pass(ms(40));
    server.receive(Port::Access, [data(4)]);
    server.pass(ms(3));
    assert_eq!(numbers(server), [4]);
    server.pass(ms(10));
    server.receive(Port::Access, [data(6)]);
    server.pass(ms(45));
    assert!(numbers(server).is_empty(), "the time after that is over");
    server.pass(ms(8));
    assert_eq!(numbers(server), [6]);
    assert_eq!(server.total(Total::Missing), 3);
    server.assert_dropped(&[]);
}

/// A packet that came while little was waited for is looked at when that is over.
#[test]
fn what_came_before_the_end_of_that_time_waits_like_any_other_after_it() {
    for before in [0, 1, 2, 3] {
        let mut pair = up(8);
        let server = &mut pair.server;
        server.receive(Port::Access, [data(0)]);
        numbers(server);
        server.worker.device_mut().overflow();
        server.pass(Duration::ZERO);
        server.pass(ms(50 - before));
        server.receive(Port::Access, [data(2)]);
        server.pass(ms(40));
        assert!(numbers(server).is_empty(), "{before} ms before");
        server.receive(Port::Access, [data(1)]);
        assert_eq!(numbers(server), [1, 2]);
    }
}

#[test]
fn a_full_queue_gives_up_the_oldest_gap() {
    let mut pair = up(4);
    let server = &mut pair.server;
    // 1 and 3 never come: there is room for as many as may overtake.
    server.receive(Port::Access, [0, 2, 4, 5].map(data));
    assert_eq!(numbers(server), [0]);
    server.receive(Port::Access, [data(6)]);
    assert_eq!(
        numbers(server),
        [2],
        "1 would be late by more than 4 places"
    );
    server.receive(Port::Access, [data(7)]);
    assert!(numbers(server).is_empty());
    server.receive(Port::Access, [data(8)]);
    assert_eq!(numbers(server), [4, 5, 6, 7, 8]);
    assert_eq!(server.total(Total::ReorderFull), 2);
    assert_eq!(server.counters(AT_SERVER).missing, 2);
    // So far ahead that nothing of it is another order.
    server.receive(Port::Access, [data(10), data(100)]);
    assert_eq!(numbers(server), [10, 100]);
    server.assert_dropped(&[]);
}

#[test]
fn calls_share_the_room_and_go_on_without_it() {
    let mut pair = Pair::up_reordering(
        Encryption::Plain,
        Reordering {
            total: 3,
            ..Reordering::default()
        },
    );
    let server = &mut pair.server;
    server.receive(Port::Access, [0, 2, 3, 5].map(data));
    assert_eq!(numbers(server), [0]);
    server.receive(Port::Access, [data(7)]);
    assert_eq!(numbers(server), [2, 3, 5, 7]);
    assert_eq!(server.total(Total::ReorderFull), 1);
    assert_eq!(server.counters(AT_SERVER).missing, 3);
    server.assert_dropped(&[]);
}

#[test]
fn control_frames_keep_their_place() {
    let mut pair = up(8);
    let server = &mut pair.server;
    let frame = |seq, identifier| {
        let mut echo = ECHO.to_vec();
        echo[5] = identifier;
        gre_to_server(AT_SERVER.id, Some(seq), None, &echo)
    };
    server.receive(
        Port::Access,
        [frame(0, 0), frame(2, 2), data(3), frame(4, 4)],
    );
    assert_eq!(server.frames().len(), 1);
    server.receive(Port::Access, [frame(1, 1)]);
    let identifiers: Vec<u8> = server.frames().iter().map(|frame| frame[5]).collect();
    assert_eq!(identifiers, [1, 2, 4]);
    assert_eq!(numbers(server), [3]);
    server.assert_dropped(&[]);
}

/// Keys start at the Ack, and what is encrypted comes behind it, in whichever order they arrive.
#[test]
fn encrypted_packets_are_decrypted_in_order() {
    let mut pair = Pair::up_reordering(Encryption::Required, reordering(32));
    let mut frames = Vec::new();
    for n in 0..60 {
        pair.client
            .receive(Port::Host, [from_linux(&udp(INNER, INTERNET, n))]);
        frames.extend(pair.client.sent(Port::Access));
    }
    let missing_before = pair.server.total(Total::Missing);
    // Every fourth is late by three; 40 is lost.
    let mut order: Vec<usize> = (0..60).filter(|n| *n != 40).collect();
    order.sort_by_key(|n| (if n % 4 == 0 { n + 3 } else { *n }, n % 4 == 0));
    for n in order {
        pair.server.receive(Port::Access, [&frames[n]]);
    }
    pair.server.pass(ms(60));
    let expected: Vec<usize> = (0..60).filter(|n| *n != 40).collect();
    assert_eq!(numbers(&mut pair.server), expected);
    assert_eq!(pair.server.total(Total::Missing) - missing_before, 1);
    pair.server.assert_dropped(&[]);
}

/// RFC 2637 §4.3: the highest number received is acknowledged, though it waits.
#[test]
fn held_packets_are_acknowledged() {
    let mut pair = up(8);
    let server = &mut pair.server;
    server.receive(Port::Access, [0, 1, 2, 4].map(data));
    // Delayed, but sooner than the gap is given up.
    server.pass(ms(50));
    let acks: Vec<_> = server
        .sent(Port::Access)
        .iter()
        .map(|f| gre_of(f).0.ack)
        .collect();
    assert_eq!(acks, [Some(Seq(4))]);
}

#[test]
fn the_end_of_a_call_flushes_its_queue() {
    let mut pair = up(8);
    let server = &mut pair.server;
    server.receive(Port::Access, [0, 2, 4].map(data));
    assert_eq!(numbers(server), [0]);
    server.tell(Command::Close { call: AT_SERVER });
    server.turn();
    assert_eq!(numbers(server), [2, 4]);
    assert_eq!(server.total(Total::ReorderFlushed), 2);
    match server.events.pop() {
        Some(Event::Closed { counters, .. }) => {
            assert_eq!((counters.received_packets, counters.missing), (3, 2));
        }
        other => panic!("{other:?}"),
    }
    server.assert_dropped(&[]);
    // Nothing of it is left to be looked at.
    assert_eq!(server.pass(ms(100)).next, None);
}

/// Chunks of held frames are nobody's but the queue's; when the worker ends they are the device's again.
#[test]
fn a_worker_that_stops_keeps_no_chunk() {
    let mut pair = up(8);
    let server = &mut pair.server;
    server.receive(Port::Access, [0, 2, 4].map(data));
    let accounts = server.worker.device().accounts();
    assert_eq!(accounts.held + 2, accounts.total);
    server.tell(Command::Stop);
    assert!(server.turn().stopped);
    assert_eq!(numbers(server), [0, 2, 4]);
    let accounts = server.worker.device().accounts();
    assert_eq!(accounts.held, accounts.total);
}

/// Packets of one call come to two workers' queues; its owner puts them in order.
#[test]
fn packets_that_another_worker_hands_over_wait_as_well() {
    let mut workers: Vec<End> = channels(2, &RingSizes::default())
        .unwrap()
        .into_iter()
        .zip(0_u8..)
        .map(|((control, end), id)| {
            let mut config = config(Role::Server);
            config.id = WorkerId(id);
            config.owners = Owners::round_robin(2);
            config.reordering = Reordering::default();
            End::with(config, MemDevice::new(64), control, end)
        })
        .collect();
    // The call is the first one's.
    for worker in &mut workers {
        worker.tell(Command::Route {
            prefix: INNER.into(),
            call: AT_SERVER,
        });
    }
    workers[0].tell(Command::Open {
        call: AT_SERVER,
        peer_id: AT_CLIENT.id,
        via: CLIENT,
        window: 64,
    });
    workers[0].tell(Command::Forward {
        call: AT_SERVER,
        forward: forward(Encryption::Plain),
    });
    for (worker, seq) in [(0, 0), (0, 3), (1, 2), (0, 4), (1, 1)] {
        workers[worker].receive(Port::Access, [data(seq)]);
        while workers[0].turn().busy {}
    }
    assert_eq!(numbers(&mut workers[0]), [0, 1, 2, 3, 4]);
    for worker in &workers {
        worker.assert_dropped(&[]);
    }
}
