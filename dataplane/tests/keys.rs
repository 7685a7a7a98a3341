//! MPPE: keys start and stop at the frames they belong to, whatever happens to those.

mod rig;

use core::time::Duration;

use rig::*;
use turnpike_dataplane::api::{Direction, Encryption, Event, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_protocol::mppe::{Encryptor, Mode};

fn up() -> Vec<u8> {
    udp(INNER, INTERNET, 40)
}

fn down() -> Vec<u8> {
    udp(INTERNET, INNER, 40)
}

fn flows(pair: &mut Pair) -> bool {
    pair.client_sends(&up(), Port::Host) == [up()] && pair.server_sends(&down()) == [down()]
}

#[test]
fn data_in_clear_is_refused() {
    let mut pair = Pair::up(Encryption::Required);
    let plain = [&[0x21][..], &up()].concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(1000), None, &plain)],
    );
    pair.server.assert_dropped(&[(Reason::PlainRefused, 1)]);
    assert!(pair.server.sent(Port::Host).is_empty());
}

#[test]
fn nothing_flows_before_both_directions_are_encrypted() {
    // Receive keys run, transmit keys do not.
    let mut pair = Pair::open();
    pair.forward(Encryption::Required);
    pair.server.secure(AT_SERVER, Direction::Receive, 1, key(1));
    pair.server.send_frame(AT_SERVER, &configure_request(1));
    pair.exchange();
    pair.client
        .secure(AT_CLIENT, Direction::Transmit, 1, key(1));
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.exchange();
    assert!(pair.server.counters(AT_SERVER).mppe_receive.is_some());
    assert!(pair.server_sends(&down()).is_empty());
    pair.server.assert_dropped(&[(Reason::NotYetEncrypted, 1)]);
    assert!(pair.client_sends(&up(), Port::Host).is_empty());
    pair.client.assert_dropped(&[(Reason::NotYetEncrypted, 1)]);
    let mut encryptor = Encryptor::new(&key(1), Mode::Stateless);
    let mut data = [&[0x00, 0x21][..], &up()].concat();
    let sealing = encryptor.seal();
    sealing.cipher.apply(&mut data);
    let packet = [&[0xfd][..], &sealing.header, &data].concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(9), None, &packet)],
    );
    pair.server.assert_dropped(&[(Reason::NotYetEncrypted, 2)]);
}

#[test]
fn without_keys_mppe_is_refused() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = gre_to_server(AT_SERVER.id, Some(1), None, &[0xfd, 0x90, 0x00, 1, 2, 3]);
    pair.server.receive(Port::Access, [packet]);
    pair.server.assert_dropped(&[(Reason::MppeNoKeys, 1)]);
}

#[test]
fn keys_wait_for_the_frames_they_belong_to() {
    let mut pair = Pair::open();
    pair.forward(Encryption::Required);
    pair.server.secure(AT_SERVER, Direction::Receive, 5, key(1));
    pair.server
        .secure(AT_SERVER, Direction::Transmit, 6, key(2));
    pair.server.turn();
    let running = |pair: &mut Pair| {
        let counters = pair.server.counters(AT_SERVER);
        (
            counters.mppe_receive.is_some(),
            counters.mppe_transmit.is_some(),
        )
    };
    // An Ack nobody asked for, and Acks of other requests.
    let mut seq = 0..;
    let mut receive = |pair: &mut Pair, frame: &[u8]| {
        let packet = gre_to_server(AT_SERVER.id, seq.next(), None, frame);
        pair.server.receive(Port::Access, [packet]);
    };
    receive(&mut pair, &configure_ack(5));
    assert_eq!(running(&mut pair), (false, false));
    pair.server.send_frame(AT_SERVER, &configure_request(5));
    receive(&mut pair, &configure_ack(4));
    pair.server.send_frame(AT_SERVER, &configure_ack(5));
    assert_eq!(running(&mut pair), (false, false));
    receive(&mut pair, &configure_ack(5));
    assert_eq!(running(&mut pair), (true, false));
    pair.server.send_frame(AT_SERVER, &configure_ack(6));
    assert_eq!(running(&mut pair), (true, true));
    // A malformed request, which negotiation ignores, silences nobody.
    let mut malformed = configure_request(7);
    malformed[9] = 77;
    receive(&mut pair, &malformed);
    let mut short = configure_request(7);
    short[7] = 77;
    receive(&mut pair, &short);
    // An option without room for its own header, and an octet behind the last one.
    let options = [&[18, 1, 2][..], &[18, 6, 1, 0, 0, 0x40, 0]];
    for options in options {
        receive(&mut pair, &ccp(1, 7, options));
    }
    assert_eq!(running(&mut pair), (true, true));
    receive(&mut pair, &configure_request(7));
    assert_eq!(running(&mut pair), (true, false));
    pair.server.send_frame(AT_SERVER, &configure_ack(6));
    pair.server.send_frame(AT_SERVER, &configure_request(5));
    for options in options {
        receive(&mut pair, &ccp(2, 5, options));
    }
    assert_eq!(running(&mut pair), (false, true));
    receive(&mut pair, &configure_ack(5));
    assert_eq!(running(&mut pair), (true, true));
    receive(&mut pair, &terminate_request(8));
    assert_eq!(running(&mut pair), (false, false));
    receive(&mut pair, &configure_ack(5));
    assert_eq!(
        running(&mut pair),
        (false, false),
        "terminated is terminated"
    );
}

#[test]
fn repeated_acks_do_not_restart_a_running_epoch() {
    // Stateless keys would find their place again; stateful ones are lost at once when one side starts afresh.
    for mode in [Mode::Stateless, Mode::Stateful] {
        let mut pair = Pair::open();
        pair.server.mode = mode;
        pair.client.mode = mode;
        pair.start_keys(1);
        pair.forward(Encryption::Required);
        assert!(flows(&mut pair));
        pair.client.send_frame(AT_CLIENT, &configure_ack(1));
        pair.server.send_frame(AT_SERVER, &configure_ack(1));
        pair.exchange();
        for _ in 0..3 {
            assert!(flows(&mut pair), "{mode:?}");
        }
        pair.server.assert_dropped(&[]);
        pair.client.assert_dropped(&[]);
    }
}

#[test]
fn renegotiation_starts_a_new_epoch() {
    let mut pair = Pair::up(Encryption::Required);
    for identifier in 2..6 {
        assert!(flows(&mut pair));
        pair.start_keys(identifier);
    }
    assert!(flows(&mut pair));
    pair.server.assert_dropped(&[]);
    pair.client.assert_dropped(&[]);
}

/// Both sides have sent their requests; each has the other's, and may answer.
fn requested() -> Pair {
    let mut pair = Pair::open();
    pair.forward(Encryption::Required);
    pair.server.secure(AT_SERVER, Direction::Receive, 1, key(1));
    pair.server.send_frame(AT_SERVER, &configure_request(1));
    pair.client.secure(AT_CLIENT, Direction::Receive, 1, key(2));
    pair.client.send_frame(AT_CLIENT, &configure_request(1));
    pair.exchange();
    pair.client
        .secure(AT_CLIENT, Direction::Transmit, 1, key(1));
    pair.server
        .secure(AT_SERVER, Direction::Transmit, 1, key(2));
    pair
}

#[test]
fn data_starts_receive_keys_when_the_ack_was_lost() {
    let mut pair = requested();
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.client.sent(Port::Access);
    pair.server.send_frame(AT_SERVER, &configure_ack(1));
    pair.exchange();
    assert!(flows(&mut pair));
    assert!(flows(&mut pair));
    // The request is repeated, as no Ack came; the peer starts again, and so do we.
    pair.server.send_frame(AT_SERVER, &configure_request(1));
    pair.exchange();
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.exchange();
    assert!(flows(&mut pair));
    pair.server.assert_dropped(&[]);
    pair.client.assert_dropped(&[]);
}

/// A packet with this count that nobody has encrypted.
fn forged(seq: u32, count: u16) -> Vec<u8> {
    let [high, low] = (0x9000 | count).to_be_bytes();
    let payload = [0xfd, high, low, 1, 2, 3, 4];
    gre_to_server(AT_SERVER.id, Some(seq), None, &payload)
}

#[test]
fn looking_for_the_first_key_has_a_budget() {
    let mut pair = requested();
    pair.server.send_frame(AT_SERVER, &configure_ack(1));
    pair.exchange();
    // As the peer would send it after an Ack that was lost.
    let mut encryptor = Encryptor::new(&key(1), Mode::Stateless);
    let mut genuine = |seq| {
        let sealing = encryptor.seal();
        let mut data = [&[0x21][..], &up()].concat();
        sealing.cipher.apply(&mut data);
        let packet = [&[0xfd][..], &sealing.header, &data].concat();
        gre_to_server(AT_SERVER.id, Some(seq), None, &packet)
    };
    // These cost as many key changes as there are for one request, so one with count 0 is not tried any more.
    let dear = [forged(4001, 4000), forged(4002, 4000), forged(4003, 189)];
    pair.server.receive(Port::Access, dear);
    pair.server.receive(Port::Access, [genuine(4004)]);
    assert!(pair.server.sent(Port::Host).is_empty());
    pair.server.assert_dropped(&[(Reason::MppeNoKeys, 4)]);
    // The request is repeated, as no Ack came.
    pair.server.send_frame(AT_SERVER, &configure_request(1));
    pair.server.receive(Port::Access, [genuine(4005)]);
    assert_eq!(inner_of(pair.server.sent(Port::Host)), [up()]);
    pair.server.assert_dropped(&[(Reason::MppeNoKeys, 4)]);
}

#[test]
fn garbage_starts_no_keys() {
    let mut pair = requested();
    // By keys that are nobody's. One in five hundred of these has the protocol number of something.
    let mut encryptor = Encryptor::new(&key(9), Mode::Stateless);
    for seq in 0..2000 {
        let mut data = vec![0; 60];
        encryptor.seal().cipher.apply(&mut data);
        let packet = [&[0xfd, 0x90, 0x00][..], &data].concat();
        let packet = gre_to_server(AT_SERVER.id, Some(10 + seq), None, &packet);
        pair.server.receive(Port::Access, [packet]);
        // Acknowledgements.
        pair.server.sent(Port::Access);
    }
    pair.server.assert_dropped(&[(Reason::MppeNoKeys, 2000)]);
    assert!(pair.server.counters(AT_SERVER).mppe_receive.is_none());
}

#[test]
fn a_call_in_clear_takes_nothing_that_is_encrypted() {
    let mut pair = requested();
    // The client has neither acknowledged nor rejected the keys that it was offered, and is let do without.
    pair.forward(Encryption::Plain);
    let mut encryptor = Encryptor::new(&key(1), Mode::Stateless);
    for seq in 0..2 {
        let mut data = [&[0x21][..], &up()].concat();
        let sealing = encryptor.seal();
        sealing.cipher.apply(&mut data);
        let packet = [&[0xfd][..], &sealing.header, &data].concat();
        let packet = gre_to_server(AT_SERVER.id, Some(10 + seq), None, &packet);
        pair.server.receive(Port::Access, [packet]);
    }
    pair.server.assert_dropped(&[(Reason::EncryptedRefused, 2)]);
    assert!(pair.server.sent(Port::Host).is_empty());
}

#[test]
fn a_call_in_clear_takes_what_its_peer_agreed_to_encrypt() {
    let mut pair = requested();
    // RFC 1962 §2: each direction is agreed on its own. The client asks for none.
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.exchange();
    pair.forward(Encryption::Plain);
    let mut encryptor = Encryptor::new(&key(1), Mode::Stateless);
    let mut data = [&[0x21][..], &up()].concat();
    let sealing = encryptor.seal();
    sealing.cipher.apply(&mut data);
    let packet = [&[0xfd][..], &sealing.header, &data].concat();
    let packet = gre_to_server(AT_SERVER.id, Some(10), None, &packet);
    pair.server.receive(Port::Access, [packet]);
    assert_eq!(inner_of(pair.server.sent(Port::Host)), [up()]);
    assert_eq!(pair.server_sends(&down()), [down()]);
}

#[test]
fn keys_that_were_not_offered_are_not_looked_for() {
    let mut pair = Pair::open();
    pair.forward(Encryption::Required);
    pair.server.secure(AT_SERVER, Direction::Receive, 1, key(1));
    pair.client
        .secure(AT_CLIENT, Direction::Transmit, 1, key(1));
    pair.client.secure(AT_CLIENT, Direction::Receive, 1, key(2));
    pair.client.send_frame(AT_CLIENT, &configure_request(1));
    pair.exchange();
    pair.server
        .secure(AT_SERVER, Direction::Transmit, 1, key(2));
    pair.server.send_frame(AT_SERVER, &configure_ack(1));
    pair.exchange();
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.exchange();
    assert!(pair.client_sends(&up(), Port::Host).is_empty());
    pair.server.assert_dropped(&[(Reason::MppeNoKeys, 1)]);
}

#[test]
fn data_may_overtake_the_ack() {
    let mut pair = requested();
    pair.server.send_frame(AT_SERVER, &configure_ack(1));
    pair.exchange();
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    let ack = pair.client.sent(Port::Access);
    // The first data is lost on top, so the count does not begin at 0.
    pair.client
        .receive(Port::Host, [from_linux(&up()), from_linux(&up())]);
    let data = pair.client.sent(Port::Access);
    assert_eq!(data.len(), 2);
    pair.server.receive(Port::Access, [&data[1]]);
    assert_eq!(inner_of(pair.server.sent(Port::Host)), [up()]);
    pair.server.receive(Port::Access, ack);
    assert!(flows(&mut pair));
    pair.server.assert_dropped(&[(Reason::GreLate, 1)]);
}

#[test]
fn both_requests_repeated_and_both_acks_doubled() {
    let mut pair = requested();
    // The server's request was repeated before its first Ack came: two Acks, and the peer starts at each.
    pair.server.send_frame(AT_SERVER, &configure_request(1));
    pair.server.sent(Port::Access);
    pair.server.send_frame(AT_SERVER, &configure_request(1));
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.exchange();
    pair.client.send_frame(AT_CLIENT, &configure_ack(1));
    pair.exchange();
    pair.server.send_frame(AT_SERVER, &configure_ack(1));
    let ack = pair.server.sent(Port::Access);
    pair.client.receive(Port::Access, [&ack[0], &ack[0]]);
    assert!(flows(&mut pair));
    assert!(flows(&mut pair));
    pair.client.assert_dropped(&[(Reason::GreDuplicate, 1)]);
}

#[test]
fn packets_of_an_old_epoch_start_no_new_one() {
    let mut pair = Pair::up(Encryption::Required);
    for _ in 0..20 {
        assert!(flows(&mut pair));
    }
    // On their way while we ask for something new.
    pair.client.receive(Port::Host, [from_linux(&up())]);
    let old = pair.client.sent(Port::Access);
    pair.server.secure(AT_SERVER, Direction::Receive, 2, key(3));
    pair.server.send_frame(AT_SERVER, &configure_request(2));
    pair.server.receive(Port::Access, old);
    pair.server.assert_dropped(&[(Reason::MppeNoKeys, 1)]);
    pair.exchange();
    pair.client
        .secure(AT_CLIENT, Direction::Transmit, 2, key(3));
    pair.client.send_frame(AT_CLIENT, &configure_ack(2));
    pair.exchange();
    assert!(flows(&mut pair));
}

#[test]
fn reset_requests_are_answered_here() {
    let mut pair = Pair::up(Encryption::Required);
    assert!(flows(&mut pair));
    pair.client
        .send_frame(AT_CLIENT, &reset_request(77, &[1, 2, 3, 4]));
    let request = pair.client.sent(Port::Access);
    pair.server.receive(Port::Access, request);
    let answer = pair.server.sent(Port::Access);
    assert_eq!(answer.len(), 1);
    assert_eq!(gre_of(&answer[0]).1, reset_ack(77));
    pair.client.receive(Port::Access, answer);
    pair.client.assert_dropped(&[(Reason::ResetIgnored, 1)]);
    assert!(pair.server.frames().iter().all(|frame| frame[4] != 14));
    assert_eq!(pair.server.total(Total::ResetsAnswered), 1);
    assert!(flows(&mut pair), "stateless: nothing changed");
    // Without keys there is nothing to reset.
    let mut pair = Pair::up(Encryption::Plain);
    pair.client.send_frame(AT_CLIENT, &reset_request(1, &[]));
    pair.exchange();
    pair.server.assert_dropped(&[(Reason::ResetIgnored, 1)]);
}

#[test]
fn what_is_encrypted_must_make_sense() {
    let mut pair = Pair::up(Encryption::Required);
    // The client's keys, used by the test. The CCP frames took the numbers before.
    let mut encryptor = Encryptor::new(&key(1), Mode::Stateless);
    let mut seq = 100..;
    let mut seal = |plain: &[u8]| {
        let sealing = encryptor.seal();
        let mut data = plain.to_vec();
        sealing.cipher.apply(&mut data);
        let payload = [&[0x00, 0xfd][..], &sealing.header, &data].concat();
        gre_to_server(AT_SERVER.id, seq.next(), None, &payload)
    };
    let good = [&[0x00, 0x21][..], &up()].concat();
    // A good packet after each bad one: several bad ones in a row look like keys that have gone wrong.
    for (plain, reason) in [
        (&[0xc0, 0x21, 5, 1, 0, 4][..], Reason::ControlInMppe),
        (&[0x80, 0x21, 5, 1, 0, 4], Reason::ControlInMppe),
        (&[0x12, 0x34, 0x56], Reason::MppeGarbage),
        (&[0x00, 0x2d, 1, 2, 3], Reason::UnknownInMppe),
    ] {
        let before = pair.server.worker.counters().reason(reason);
        let packets = [seal(plain), seal(&good), seal(&good[1..])];
        pair.server.receive(Port::Access, packets);
        assert_eq!(inner_of(pair.server.sent(Port::Host)), [up(), up()]);
        assert_eq!(pair.server.worker.counters().reason(reason), before + 1);
    }
    pair.server.assert_dropped(&[
        (Reason::ControlInMppe, 2),
        (Reason::MppeGarbage, 1),
        (Reason::UnknownInMppe, 1),
    ]);
    assert!(
        pair.server
            .frames()
            .iter()
            .all(|frame| frame[2..4] == [0x80, 0xfd])
    );
    // Headers.
    for (n, payload) in (200..).zip([
        &[0xfd, 0x80, 0x10, 1, 2][..],
        &[0xfd, 0xb0, 0x10, 1, 2],
        &[0xfd, 0x10, 0x10, 1, 2],
        &[0xfd, 0x90],
    ]) {
        pair.server.receive(
            Port::Access,
            [gre_to_server(AT_SERVER.id, Some(n), None, payload)],
        );
    }
    pair.server.assert_dropped(&[
        (Reason::ControlInMppe, 2),
        (Reason::MppeGarbage, 1),
        (Reason::UnknownInMppe, 1),
        (Reason::MppeNotEncrypted, 1),
        (Reason::MppeCompressed, 1),
        (Reason::MppeNotFlushed, 1),
        (Reason::MppeShort, 1),
    ]);
}

#[test]
fn forged_packets_do_not_make_a_call_deaf() {
    let mut pair = Pair::up(Encryption::Required);
    assert!(flows(&mut pair));
    // The next numbers, with counts from anywhere; the peer's own packets with these numbers are lost.
    let mut lost = Vec::new();
    for (seq, count) in (3..).zip([1, 2000, 4095, 3, 0]) {
        pair.server.receive(Port::Access, [forged(seq, count)]);
        pair.client.receive(Port::Host, [from_linux(&up())]);
        lost.extend(pair.client.sent(Port::Access));
    }
    pair.server.receive(Port::Access, lost);
    pair.server.sent(Port::Host);
    // So many bad ones look like keys that have gone wrong: a few packets go into finding out.
    let lost = (0..8).filter(|_| !flows(&mut pair)).count();
    assert!(lost < 4, "{lost}");
    assert!(flows(&mut pair));
}

/// Keys that are not the peer's are told of, once, after a hundred packets that make no sense; one that does begins the
/// count anew.
#[test]
fn a_hundred_packets_of_garbage_in_a_row_are_told() {
    for mode in [Mode::Stateless, Mode::Stateful] {
        let mut pair = match mode {
            Mode::Stateless => Pair::up(Encryption::Required),
            Mode::Stateful => Pair::stateful(),
        };
        let mut encryptor = Encryptor::new(&key(1), mode);
        let mut seq = 100..;
        let mut send = |pair: &mut Pair, plain: &[u8]| {
            let sealing = encryptor.seal();
            let mut data = plain.to_vec();
            sealing.cipher.apply(&mut data);
            let payload = [&[0x00, 0xfd][..], &sealing.header, &data].concat();
            // The peer obeys whatever is asked of it.
            encryptor.reset(1);
            let packet = gre_to_server(AT_SERVER.id, seq.next(), None, &payload);
            pair.server.receive(Port::Access, [packet]);
            pair.server.turn();
            pair.server.sent(Port::Access);
            let told =
                |event: &Event| matches!(event, Event::Garbled { call } if *call == AT_SERVER);
            let count = pair
                .server
                .events
                .iter()
                .filter(|event| told(event))
                .count();
            pair.server.events.retain(|event| !told(event));
            count
        };
        let good = [&[0x00, 0x21][..], &up()].concat();
        for _ in 0..90 {
            assert_eq!(send(&mut pair, &[0x12, 0x34, 0x56]), 0);
        }
        // So many bad ones shake the belief in the count, and looking for keys elsewhere is paid for with time.
        let mut tries = 0;
        while inner_of(pair.server.sent(Port::Host)).is_empty() {
            pair.server.pass(Duration::from_millis(200));
            assert_eq!(send(&mut pair, &good), 0);
            tries += 1;
            assert!(tries < 9, "{mode:?}");
        }
        let garbage = |pair: &Pair| pair.server.worker.counters().reason(Reason::MppeGarbage);
        let before = garbage(&pair);
        let mut events = 0;
        let mut sent = 0;
        while garbage(&pair) < before + 250 {
            sent += 1;
            assert!(sent < 2000, "{mode:?}");
            pair.server.pass(Duration::from_millis(200));
            events += send(&mut pair, &[0x12, 0x34, 0x56]) as u64;
            assert_eq!(events, (garbage(&pair) - before) / 100, "{mode:?}");
        }
    }
}
