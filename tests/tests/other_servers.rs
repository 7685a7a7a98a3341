//! What PPTP servers in wide use were seen to get wrong, from outside, and that turnpike does not. The table in
//! `README.md` beside this folder says which test holds which fact, here and elsewhere.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::Ipv4Addr;
use std::time::Duration;

use turnpike_controlplane::cause::Cause;
use turnpike_dataplane::api::Port;
use turnpike_dataplane::counters::Reason;
use turnpike_protocol::pptp::{CallResult, Message, OutgoingCallRequest, StartRequest, Text};
use turnpike_protocol::wire::ppp::Protocol;
use turnpike_protocol::{CallId, Time};
use turnpike_tests::concentrator::{Concentrator, Output, settings};
use turnpike_tests::peers::{CLIENT, Lost, Method, Mppe, Player, Profile, REMOTE, Wish, udp};

const USUAL: Wish = Wish {
    method: Method::MsChapV2,
    mppe: Mppe::keys(128, true),
};

const ALL_CLIENTS: [&str; 7] = [
    "windows-xp",
    "windows-7",
    "windows-10",
    "android",
    "macos",
    "routeros",
    "yamaha-rtx",
];

fn xp() -> Profile {
    Profile::changed("windows-xp", &[])
}

/// A call of this client that is up.
fn up(profile: &Profile) -> Player<'_> {
    let mut player = Player::new(profile, USUAL, Lost::Nothing);
    assert_eq!(player.dial(), Ok(true));
    player.move_data(3).unwrap();
    player
}

fn dropped(player: &Player<'_>, reason: Reason) -> u64 {
    let drops = player.server.drops();
    drops
        .iter()
        .find(|(name, _)| *name == reason)
        .map_or(0, |(_, n)| *n)
}

/// IP in clear, as it stands in GRE.
fn in_clear(player: &Player<'_>) -> Vec<u8> {
    let packet = udp(player.address().unwrap(), REMOTE, 9);
    [&[0xff, 0x03, 0x00, 0x21][..], &packet].concat()
}

fn inner_packets(server: &mut Concentrator) -> usize {
    let mut count = 0;
    while let Some(output) = server.poll() {
        count += usize::from(matches!(output, Output::Inner(_)));
    }
    count
}

#[test]
fn clear_ip_is_dropped_where_encryption_is_required() {
    let profile = xp();
    let mut player = up(&profile);
    let clear = in_clear(&player);
    for _ in 0..5 {
        player.send(&clear).unwrap();
    }
    assert_eq!(dropped(&player, Reason::PlainRefused), 5);
    // What was not dropped would have come out beside these.
    player.move_data(3).unwrap();
}

#[test]
fn a_malformed_ccp_request_does_not_open_the_call_to_clear_data() {
    let profile = xp();
    let mut player = up(&profile);
    for bad in [
        &[0x80, 0xfd, 1, 9, 0, 10, 18, 1, 1, 0, 0, 0x40][..],
        &[0x80, 0xfd, 1, 9, 0, 10, 18, 9, 1, 0, 0, 0x40],
        &[0x80, 0xfd, 1, 9, 0, 3],
        &[0x80, 0xfd, 1, 9, 0, 5, 18],
        &[0x80, 0xfd, 1],
    ] {
        player.send(bad).unwrap();
        let clear = in_clear(&player);
        player.send(&clear).unwrap();
        // The script does not take data in clear.
        player.move_data(2).unwrap();
    }
}

#[test]
fn nothing_flows_while_encryption_is_argued_about() {
    let list = |bits: i64| toml::Value::Array(vec![bits.into()]);
    let request = toml::Value::Array(vec!["12 06 01000020".into()]);
    let profile = Profile::changed(
        "windows-xp",
        &[("ccp.strengths", list(40)), ("ccp.request", request)],
    );
    let mut player = Player::new(&profile, USUAL, Lost::Nothing);
    assert_eq!(player.dial(), Ok(false));
    assert_eq!(player.server.ended()[0].cause, Cause::EncryptionStrength);
    assert_eq!(player.server.ended()[0].counters.received_packets, 0);

    // The same with one that sends its data all the while.
    let profile = Profile::changed("windows-xp", &[]);
    let mut player = Player::new(&profile, USUAL, Lost::Nothing);
    assert_eq!(player.dial(), Ok(true));
    let dropped = |player: &Player<'_>| {
        [
            Reason::PlainRefused,
            Reason::NotYetEncrypted,
            Reason::NotYetForwarding,
        ]
        .map(|reason| dropped(player, reason))
        .iter()
        .sum::<u64>()
    };
    let before = dropped(&player);
    let clear = in_clear(&player);
    for identifier in 100..103 {
        // Other bits than were agreed: Naked.
        let request = [0x80, 0xfd, 1, identifier, 0, 10, 18, 6, 0, 0, 0, 0x20];
        player.send(&request).unwrap();
        player.send(&clear).unwrap();
        let down = udp(REMOTE, player.address().unwrap(), 1);
        // Comes out encrypted or not at all, else the script says so.
        player.server.from_linux(&down);
        player.wait(Duration::from_millis(10)).unwrap();
    }
    // Three packets each way.
    assert_eq!(dropped(&player), before + 6, "{:?}", player.server.drops());
}

#[test]
fn odd_mppe_headers_make_nobody_deaf_and_garbage_is_not_answered() {
    let profile = xp();
    let mut player = up(&profile);
    let heard = player.heard.len();
    for bad in [
        // An old count, neither encrypted nor flushed, too short, and what decrypts to nothing.
        &[0xfd, 0x90, 0x00, 1, 2, 3, 4, 5, 6, 7, 8][..],
        &[0xfd, 0x80, 0x03, 1, 2, 3, 4],
        &[0xfd, 0x10, 0x03, 1, 2, 3, 4],
        &[0xfd],
        &[0xfd, 0x90],
        &[0xfd, 0x90, 0x03],
        &[0xfd, 0x90, 0x04, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        &[0xfd, 0x90, 0x05, 9, 8, 7, 6, 5, 4, 3, 2, 1, 10, 11],
    ] {
        player.send(bad).unwrap();
        player.move_data(2).unwrap();
    }
    player.wait(Duration::from_secs(5)).unwrap();
    let said: Vec<&[u8]> = player.heard[heard..]
        .iter()
        .map(|(_, frame)| &frame[..])
        .collect();
    assert!(said.is_empty(), "neither rejects nor resets: {said:02x?}");
}

#[test]
fn control_frames_inside_mppe_are_not_obeyed() {
    let profile = xp();
    let mut player = up(&profile);
    for inside in [
        // Terminate-Requests of LCP, IPCP and CCP, and a Configure-Request of CCP.
        &[0xc0, 0x21, 5, 1, 0, 4][..],
        &[0x80, 0x21, 5, 1, 0, 4],
        &[0x80, 0xfd, 5, 1, 0, 4],
        &[0x80, 0xfd, 1, 1, 0, 10, 18, 6, 0, 0, 0, 0x20],
    ] {
        let frame = player.sealed(inside);
        player.send(&frame).unwrap();
        player.move_data(2).unwrap();
    }
    assert_eq!(dropped(&player, Reason::ControlInMppe), 4);
    assert!(!player.is_over());
}

#[test]
fn icmp_about_gre_ends_nothing() {
    let profile = xp();
    let mut player = up(&profile);
    for code in 0..16 {
        // Destination unreachable, with a GRE packet of the server quoted.
        let quoted = ip(
            [198, 51, 100, 1],
            CLIENT.octets(),
            47,
            &[0x30, 1, 0x88, 0x0b, 0, 0, 0, 0],
        );
        let mut message = vec![3, code, 0, 0, 0, 0, 0, 0];
        message.extend(quoted);
        let packet = ip(CLIENT.octets(), [198, 51, 100, 1], 1, &message);
        let frame = [
            &[2, 0, 0, 0, 0, 1, 2, 0xee, 203, 0, 113, 77, 8, 0][..],
            &packet,
        ]
        .concat();
        player.server.ethernet(Port::Access, &frame);
    }
    player.move_data(3).unwrap();
    player.wait(Duration::from_secs(100)).unwrap();
}

fn ip(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = turnpike_protocol::wire::ipv4::Header {
        source: source.into(),
        destination: destination.into(),
        protocol,
        ttl: 64,
        traffic_class: 0,
        ident: 0,
        dont_fragment: false,
        payload_len: payload.len() as u16,
    }
    .to_bytes()
    .to_vec();
    packet.extend(payload);
    packet
}

#[test]
fn spoofed_sources_go_nowhere() {
    let profile = xp();
    let mut player = up(&profile);
    for source in [
        REMOTE,
        Ipv4Addr::new(10, 20, 0, 200),
        Ipv4Addr::new(10, 20, 0, 1),
    ] {
        let plain = [&[0x00, 0x21][..], &udp(source, REMOTE, 1)].concat();
        let frame = player.sealed(&plain);
        player.send(&frame).unwrap();
    }
    assert_eq!(dropped(&player, Reason::Spoofed), 3);
    player.move_data(2).unwrap();
}

fn start() -> Vec<u8> {
    Message::StartRequest(StartRequest {
        version: 0x0100,
        framing: 3,
        bearer: 3,
        max_channels: 0,
        firmware: 0,
        host_name: Text::EMPTY,
        vendor: Text::EMPTY,
    })
    .emit()
}

fn call(id: u16) -> Vec<u8> {
    Message::OutgoingCallRequest(OutgoingCallRequest {
        call_id: CallId(id),
        serial: 0,
        min_bps: 300,
        max_bps: 100_000_000,
        bearer: 3,
        framing: 3,
        window: 64,
        delay: 0,
        phone: Text::EMPTY,
        subaddress: Text::EMPTY,
    })
    .emit()
}

/// The messages that the server sent on a control connection, and whether it closed it.
fn answers(server: &mut Concentrator, line: usize) -> (Vec<Message>, bool) {
    let (mut messages, mut closed) = (Vec::new(), false);
    while let Some(output) = server.poll() {
        match output {
            Output::Tcp(at, octets) if at == line => {
                messages.push(Message::parse(&octets).unwrap())
            }
            Output::Closed(at) if at == line => closed = true,
            _ => {}
        }
    }
    (messages, closed)
}

#[test]
fn control_messages_may_be_cut_anywhere() {
    let octets = [start(), call(0)].concat();
    for size in [1, 2, 5, 11, 12, 13, 155, 156, 157, octets.len()] {
        let mut server = Concentrator::new(settings());
        let line = server.connect(CLIENT);
        for piece in octets.chunks(size) {
            server.tcp(line, piece);
        }
        let (messages, closed) = answers(&mut server, line);
        assert!(
            matches!(
                &messages[..],
                [Message::StartReply(_), Message::OutgoingCallReply(reply)]
                    if reply.result == CallResult::CONNECTED && reply.peer_call_id == CallId(0)
            ) && !closed,
            "{size}: {messages:?}"
        );
    }
}

#[test]
fn half_a_message_holds_nothing_for_long() {
    let mut server = Concentrator::new(settings());
    let line = server.connect(CLIENT);
    server.tcp(line, &start()[..100]);
    let end = Time::ZERO + Duration::from_secs(60);
    while let Some(next) = server.deadline().filter(|next| *next <= end) {
        server.wake(next);
    }
    assert_eq!(answers(&mut server, line), (Vec::new(), true));
}

#[test]
fn disconnect_notices_have_the_servers_id() {
    for name in ALL_CLIENTS {
        let profile = Profile::changed(name, &[]);
        let mut player = up(&profile);
        let call = player.server.snapshots(0)[0].call;
        // The script looks at the id.
        player
            .server
            .with_tunnel(0, |tunnel, now| tunnel.kill(call, Cause::Killed, now));
        player.wait(Duration::from_secs(10)).unwrap_err();
        assert!(player.is_over(), "{name}");
    }
}

#[test]
fn one_way_traffic_is_acknowledged() {
    let profile = xp();
    let mut player = up(&profile);
    for n in 0..40 {
        let plain = [
            &[0x00, 0x21][..],
            &udp(player.address().unwrap(), REMOTE, n),
        ]
        .concat();
        let frame = player.sealed(&plain);
        player.send(&frame).unwrap();
        // The script wants an acknowledgement within 100 ms.
        player
            .wait(Duration::from_millis(u64::from(n) * 10))
            .unwrap();
    }
}

#[test]
fn a_client_that_crashed_gets_in_beside_its_old_call() {
    let profile = xp();
    let mut old = up(&profile);
    // Power is lost; the same address dials again.
    let profile = Profile::changed("windows-xp", &[("control.call-id", 1.into())]);
    let server = core::mem::replace(&mut old.server, Concentrator::new(settings()));
    let mut new = Player::with(server, &profile, USUAL, Lost::Nothing);
    assert_eq!(new.dial(), Ok(true));
    new.move_data(3).unwrap();
    // The old one ends by itself: nobody answers for it.
    new.wait(Duration::from_secs(200)).unwrap();
    let ended = new.server.ended();
    assert!(
        ended.len() == 1 && ended[0].cause == Cause::Silent,
        "{ended:?}"
    );
    new.move_data(3).unwrap();
}

#[test]
fn gre_may_begin_with_any_number() {
    for first in [0_i64, 1, 0x7fff_fff0, 0x8000_0000, 0xffff_fff0, 0xffff_ffff] {
        let profile = Profile::changed("windows-xp", &[("gre.first", first.into())]);
        let mut player = Player::new(&profile, USUAL, Lost::Nothing);
        assert_eq!(player.dial(), Ok(true), "{first:x}");
        player.move_data(40).unwrap();
    }
}

#[test]
fn a_failure_says_why_and_leaves_time_to_read_it() {
    for (domain, user) in [("CORP", "alice"), ("", "mallory")] {
        let profile = Profile::changed("windows-xp", &[("login.domain", domain.into())]);
        let mut player = Player::new(&profile, USUAL, Lost::Nothing);
        player.pretend(user, "wrong horse");
        assert_eq!(player.dial(), Ok(false));
        let text = player.failure().unwrap().to_owned();
        assert!(
            text.starts_with("E=691 R=0 C=") && text.ends_with(" V=3"),
            "{user}: {text:?}"
        );
        let (at, _) = player
            .heard
            .iter()
            .find(|(_, frame)| frame.windows(3).any(|octets| octets == [0xc2, 0x23, 4]))
            .unwrap();
        let next = player.heard.iter().find(|(time, _)| time > at).unwrap();
        assert!(next.0.since(*at) >= Duration::from_millis(500), "{user}");
        assert!(
            player
                .closed_at
                .is_none_or(|closed| closed.since(*at) >= Duration::from_millis(500))
        );
        assert_eq!(player.server.ended().len(), 1);
        assert_eq!(inner_packets(&mut player.server), 0);
    }
}

#[test]
fn the_first_packets_after_ipcp_arrive() {
    for name in ALL_CLIENTS {
        let profile = Profile::changed(name, &[]);
        let mut player = Player::new(&profile, USUAL, Lost::Nothing);
        assert_eq!(player.dial(), Ok(true), "{name}");
        // In the very moment in which the last Acknowledgement came.
        assert_eq!(
            player.server.now().since(Time::ZERO),
            Duration::ZERO,
            "{name}"
        );
        player.move_data(1).unwrap();
    }
}

#[test]
fn an_open_call_is_negotiated_anew() {
    for name in ALL_CLIENTS {
        let profile = Profile::changed(name, &[]);
        let mut player = up(&profile);
        for protocol in [
            Protocol::IPCP,
            Protocol::CCP,
            Protocol::LCP,
            Protocol::CCP,
            Protocol::IPCP,
        ] {
            player
                .renegotiate(protocol)
                .unwrap_or_else(|error| panic!("{name}, {protocol:?}: {error}"));
            player
                .move_data(3)
                .unwrap_or_else(|error| panic!("{name}, {protocol:?}: {error}"));
        }
        // Authentication is part of LCP's renegotiation.
        assert_eq!(player.server.judged(), 2, "{name}");
        assert!(player.server.ended().is_empty());
    }
}
