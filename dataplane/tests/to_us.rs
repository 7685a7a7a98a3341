//! Packets for the concentrator itself inside a call, and its answers.

mod rig;

use core::net::Ipv4Addr;
use core::time::Duration;

use rig::*;
use turnpike_dataplane::api::{CallRef, Command, Encryption, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_protocol::CallId;
use turnpike_protocol::wire::ipv4;

/// UDP from port 68 to `port`, as DHCP clients send it.
fn question(source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut payload = vec![0; 8 + 240];
    payload[..2].copy_from_slice(&68_u16.to_be_bytes());
    payload[2..4].copy_from_slice(&port.to_be_bytes());
    payload[4..6].copy_from_slice(&(8 + 240_u16).to_be_bytes());
    ipv4(source, destination, ipv4::UDP, &payload)
}

/// Sends a packet from the client's end of the wire, whatever its Linux would think of it.
fn put(pair: &mut Pair, packet: &[u8]) {
    // The client's worker finds calls by source address.
    pair.client.send_inner(AT_CLIENT, packet);
    pair.exchange();
}

#[test]
fn questions_of_a_client_come_up() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up(encryption);
        let asked = [
            question(INNER, Ipv4Addr::BROADCAST, 67),
            question(INNER, SERVER_INNER, 67),
            // It has not heard of its address yet.
            question(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 67),
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
        assert_eq!(pair.server.total(Total::InnerReceived), 3);
        // They are the client's packets as any other.
        assert_eq!(pair.server.counters(AT_SERVER).received_packets, 3);
    }
}

#[test]
fn what_is_no_question_for_us_goes_where_it_went() {
    let mut pair = Pair::up(Encryption::Required);
    let other_port = question(INNER, SERVER_INNER, 68);
    let elsewhere = question(INNER, INTERNET, 67);
    let tcp = changed(question(INNER, SERVER_INNER, 67), |packet| packet[9] = 6);
    let fragment = changed(question(INNER, SERVER_INNER, 67), |packet| {
        packet[6] |= 0x20
    });
    let later = changed(question(INNER, SERVER_INNER, 67), |packet| packet[7] = 1);
    let short = ipv4(INNER, SERVER_INNER, ipv4::UDP, &[0, 68, 0, 67]);
    for packet in [other_port, elsewhere, fragment, later, short] {
        assert_eq!(pair.client_sends(&packet, Port::Host), [packet]);
    }
    assert_eq!(pair.client_sends(&tcp, Port::Host).len(), 1);
    assert_eq!(pair.server.inner(), []);
    pair.server.assert_dropped(&[]);
}

#[test]
fn nobody_asks_for_somebody_else() {
    let mut pair = Pair::up(Encryption::Required);
    let stranger = Ipv4Addr::new(10, 20, 0, 11);
    put(&mut pair, &question(stranger, Ipv4Addr::BROADCAST, 67));
    put(&mut pair, &question(stranger, SERVER_INNER, 67));
    // Without a source only to everybody, and only DHCP.
    let nobody = Ipv4Addr::UNSPECIFIED;
    put(&mut pair, &question(nobody, SERVER_INNER, 67));
    put(&mut pair, &question(nobody, Ipv4Addr::BROADCAST, 68));
    put(&mut pair, &question(nobody, INTERNET, 67));
    assert_eq!(pair.server.inner(), []);
    assert!(pair.server.sent(Port::Host).is_empty());
    pair.server.assert_dropped(&[(Reason::Spoofed, 5)]);
}

#[test]
fn a_question_passes_the_gate_or_not_at_all() {
    let mut pair = Pair::up(Encryption::Required);
    // In clear where encryption is required.
    let frame = [
        &[0xff, 0x03, 0x00, 0x21][..],
        &question(INNER, SERVER_INNER, 67),
    ]
    .concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(900), None, &frame)],
    );
    assert_eq!(pair.server.inner(), []);
    pair.server.assert_dropped(&[(Reason::PlainRefused, 1)]);
    // While data is held.
    pair.server.tell(Command::Hold { call: AT_SERVER });
    pair.server.turn();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(901), None, &frame)],
    );
    assert_eq!(pair.server.inner(), []);
    pair.server
        .assert_dropped(&[(Reason::NotYetForwarding, 1), (Reason::PlainRefused, 1)]);
}

#[test]
fn who_asks_without_end_is_heard_at_his_rate() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = question(INNER, SERVER_INNER, 67);
    for _ in 0..100 {
        put(&mut pair, &packet);
    }
    assert_eq!(pair.server.inner().len(), 32);
    pair.server.assert_dropped(&[(Reason::InnerRate, 68)]);
    pair.server.pass(Duration::from_secs(1));
    for _ in 0..100 {
        put(&mut pair, &packet);
    }
    assert_eq!(pair.server.inner().len(), 8);
    // Echoes of PPP are not held up by it.
    let echo = [0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0];
    pair.client.send_frame(AT_CLIENT, &echo);
    pair.exchange();
    assert_eq!(pair.server.frames(), [echo]);
}

#[test]
fn questions_leave_room_for_control_frames() {
    let mut pair = Pair::up(Encryption::Plain);
    let packet = question(INNER, SERVER_INNER, 67);
    let frame = [&[0x21][..], &packet].concat();
    let ring = pair.server.control.events.buffer().capacity();
    // Nobody reads the ring. The bucket fills again meanwhile.
    let mut seq = 1000;
    for _ in 0..ring {
        pair.server.now += Duration::from_secs(4);
        let gre = gre_to_server(AT_SERVER.id, Some(seq), None, &frame);
        seq += 1;
        assert!(pair.server.worker.device_mut().inject(Port::Access, &gre));
        pair.server.worker.turn(pair.server.now);
        pair.server.sent(Port::Access);
    }
    assert_eq!(pair.server.control.events.slots(), ring / 2);
    let echo = [0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0];
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(seq), None, &echo)],
    );
    assert_eq!(pair.server.frames(), [echo]);
    pair.server
        .assert_dropped(&[(Reason::EventRingFull, (ring - ring / 2) as u64)]);
}

#[test]
fn answers_go_through_the_call() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up(encryption);
        let answer = question(SERVER_INNER, INNER, 68);
        pair.server.send_inner(AT_SERVER, &answer);
        let sent = pair.server.sent(Port::Access);
        let (_, payload) = gre_of(&sent[0]);
        match encryption {
            Encryption::Plain => assert_eq!(payload, [&[0x21][..], &answer].concat()),
            Encryption::Required => assert_eq!(payload[0], 0xfd),
        }
        pair.client.receive(Port::Access, sent);
        assert_eq!(inner_of(pair.client.sent(Port::Host)), [answer]);
        assert_eq!(pair.server.total(Total::InnerSent), 1);
        pair.server.assert_dropped(&[]);
    }
}

#[test]
fn answers_wait_for_nothing_and_pass_no_gate() {
    // Encryption is required and not there yet.
    let mut pair = Pair::open();
    pair.forward(Encryption::Required);
    let answer = question(SERVER_INNER, INNER, 68);
    pair.server.send_inner(AT_SERVER, &answer);
    assert!(pair.server.sent(Port::Access).is_empty());
    pair.server.assert_dropped(&[(Reason::NotYetEncrypted, 1)]);
    // Nor before the call may carry data, nor for a call that is gone, nor larger than its MTU.
    let mut pair = Pair::open();
    pair.server.send_inner(AT_SERVER, &answer);
    let gone = CallRef {
        id: CallId(701),
        ..AT_SERVER
    };
    pair.server.send_inner(gone, &answer);
    pair.forward(Encryption::Plain);
    pair.server
        .send_inner(AT_SERVER, &udp(SERVER_INNER, INNER, 1381));
    pair.server.send_inner(AT_SERVER, &[]);
    assert!(pair.server.sent(Port::Access).is_empty());
    pair.server.assert_dropped(&[
        (Reason::InnerHeader, 1),
        (Reason::NotYetForwarding, 1),
        (Reason::TooBig, 1),
        (Reason::NoSuchCall, 1),
    ]);
}
