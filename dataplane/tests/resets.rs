//! MPPE after losses: resets of stateful keys by the worker, and outages of any length.
#![allow(clippy::print_stdout, reason = "tests say what they measured")]

mod rig;

use core::time::Duration;

use rig::*;
use turnpike_dataplane::api::{Encryption, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::mppe::{Dialect, Mode};

fn up() -> Vec<u8> {
    udp(INNER, INTERNET, 40)
}

fn down() -> Vec<u8> {
    udp(INTERNET, INNER, 40)
}

/// The client sends packets that are lost on the way.
fn lose(pair: &mut Pair, packets: usize) {
    for _ in 0..packets {
        pair.client.receive(Port::Host, [from_linux(&up())]);
        pair.client.sent(Port::Access);
    }
}

/// What the client sends arrives; what the server answers with is kept.
fn arrives(pair: &mut Pair) -> Vec<Vec<u8>> {
    pair.client.receive(Port::Host, [from_linux(&up())]);
    let sent = pair.client.sent(Port::Access);
    pair.server.receive(Port::Access, sent);
    pair.server.sent(Port::Access)
}

fn payloads(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| gre_of(frame).1).collect()
}

#[test]
fn a_loss_is_answered_by_one_reset_request_a_second() {
    let mut pair = Pair::stateful();
    assert_eq!(pair.client_sends(&up(), Port::Host), [up()]);
    lose(&mut pair, 1);
    let requests = arrives(&mut pair);
    assert_eq!(payloads(&requests), [reset_request(1, &[])]);
    // The request is lost. It is repeated, but not at once.
    for _ in 0..5 {
        assert!(arrives(&mut pair).is_empty());
    }
    pair.server.pass(Duration::from_millis(1001));
    pair.server.sent(Port::Access);
    let again = arrives(&mut pair);
    assert_eq!(payloads(&again), [reset_request(1, &[])], "the same one");
    // It is answered before the next packet, which can be read, and so can all after it.
    pair.client.receive(Port::Access, again);
    let answer = pair.client.sent(Port::Access);
    assert_eq!(payloads(&answer), [reset_ack(1)]);
    pair.server.receive(Port::Access, answer);
    for _ in 0..600 {
        assert_eq!(pair.client_sends(&up(), Port::Host), [up()]);
    }
    assert_eq!(pair.server_sends(&down()), [down()]);
    // A new loss has a new identifier, and does not wait.
    lose(&mut pair, 1);
    assert_eq!(payloads(&arrives(&mut pair)), [reset_request(2, &[])]);
    pair.server
        .assert_dropped(&[(Reason::MppeNeedReset, 8), (Reason::ResetIgnored, 1)]);
    assert_eq!(pair.server.total(Total::ResetsRequested), 3);
    assert_eq!(pair.client.total(Total::ResetsAnswered), 1);
}

#[test]
fn stateless_losses_ask_for_nothing() {
    let mut pair = Pair::up(Encryption::Required);
    lose(&mut pair, 3);
    assert!(arrives(&mut pair).is_empty());
    assert_eq!(inner_of(pair.server.sent(Port::Host)), [up()]);
    assert_eq!(pair.server.total(Total::ResetsRequested), 0);
}

/// Windows does not know Reset-Acks.
#[test]
fn a_peer_that_rejects_reset_acks_gets_no_more() {
    let mut pair = Pair::stateful();
    let request = |pair: &mut Pair, identifier| {
        pair.client
            .send_frame(AT_CLIENT, &reset_request(identifier, &[]));
        let sent = pair.client.sent(Port::Access);
        pair.server.receive(Port::Access, sent);
        payloads(&pair.server.sent(Port::Access))
    };
    assert_eq!(request(&mut pair, 7), [reset_ack(7)]);
    // A Code-Reject of something else changes nothing.
    pair.client
        .send_frame(AT_CLIENT, &code_reject(1, &[14, 7, 0, 4]));
    pair.exchange();
    assert_eq!(request(&mut pair, 8), [reset_ack(8)]);
    pair.client
        .send_frame(AT_CLIENT, &code_reject(2, &[15, 8, 0, 4]));
    pair.exchange();
    assert!(request(&mut pair, 9).is_empty());
    pair.server
        .assert_dropped(&[(Reason::ResetUnacknowledged, 1)]);
    // The next packet is flushed all the same.
    pair.server.receive(Port::Host, [from_linux(&down())]);
    let sent = pair.server.sent(Port::Access);
    let payload = gre_of(&sent[0]).1;
    assert_eq!(payload[..2], [0xfd, 0x90], "{payload:x?}");
    pair.client.receive(Port::Access, sent);
    assert_eq!(inner_of(pair.client.sent(Port::Host)), [down()]);
}

#[test]
fn outages_of_any_length_heal_by_themselves() {
    for stateful in [false, true] {
        for lost in [10, 300, 4_000, 10_000] {
            let mut pair = if stateful {
                Pair::stateful()
            } else {
                Pair::up(Encryption::Required)
            };
            assert_eq!(pair.client_sends(&up(), Port::Host), [up()]);
            // Echoes are lost, too: numbers without a count.
            lose(&mut pair, lost / 2);
            pair.client
                .send_frame(AT_CLIENT, &[0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0]);
            pair.client.sent(Port::Access);
            lose(&mut pair, lost - lost / 2);
            let mut more = 0;
            while pair.client_sends(&up(), Port::Host).is_empty() {
                more += 1;
                assert!(more < 8, "{lost} lost");
                pair.server.pass(Duration::from_millis(10));
            }
            for _ in 0..10 {
                assert_eq!(pair.client_sends(&up(), Port::Host), [up()]);
                assert_eq!(pair.server_sends(&down()), [down()]);
            }
            println!("stateful {stateful}, {lost} lost: {more} more went into it");
        }
    }
}

/// A stateful call in which one packet in twenty is lost each way, resets and their answers too: nobody is deaf for long.
#[test]
fn losses_without_end_leave_nobody_deaf() {
    for dialect in [Dialect::Rfc3078, Dialect::Linux] {
        for seed in 1..5_u64 {
            let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // Xorshift.
            let mut lost = move || {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                (chance >> 33) % 100 < 5
            };
            let mut pair = Pair::open_assuming(Reordering::default(), Some(dialect));
            pair.server.mode = Mode::Stateful;
            pair.client.mode = Mode::Stateful;
            pair.start_keys(1);
            pair.forward(Encryption::Required);
            let (mut silent, mut longest) = ([0_u32; 2], 0);
            let mut under_way: [Vec<Vec<u8>>; 2] = Default::default();
            // Each step is a packet each way, and 10 ms.
            for _ in 0..10_000 {
                pair.client.pass(Duration::from_millis(10));
                pair.server.pass(Duration::from_millis(10));
                pair.client.receive(Port::Host, [from_linux(&up())]);
                pair.server.receive(Port::Host, [from_linux(&down())]);
                let [up, down] = core::mem::take(&mut under_way);
                under_way = [
                    pair.client.sent(Port::Access),
                    pair.server.sent(Port::Access),
                ];
                for (end, frames) in [(&mut pair.server, up), (&mut pair.client, down)] {
                    end.receive(Port::Access, frames.into_iter().filter(|_| !lost()));
                }
                for (which, end) in [&mut pair.client, &mut pair.server].into_iter().enumerate() {
                    under_way[which].extend(end.sent(Port::Access));
                    let came = !end.sent(Port::Host).is_empty();
                    silent[which] = if came { 0 } else { silent[which] + 1 };
                    longest = longest.max(silent[which]);
                    // A lost request costs a second, and so does a lost flushed packet.
                    assert!(silent[which] < 1_500, "{dialect:?}, seed {seed}");
                }
            }
            println!("{dialect:?}, seed {seed}: silent for {longest} packets at most");
        }
    }
}
