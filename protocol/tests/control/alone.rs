//! One side alone, asked and listened to.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::pptp::{
    CallId, CallResult, Caller, CallerAction, CallerConfig, DisconnectResult, End, GeneralError,
    IncomingCallRequest, Message, Refusal, Server, ServerAction, ServerConfig, StartResult, Text,
};

use crate::pair::Pair;

const SECOND: Duration = Duration::from_secs(1);

/// Octets in, messages out.
fn ask(server: &mut Server, message: &Message, now: Time) -> Vec<Message> {
    server.receive(&message.emit(), now).unwrap();
    let mut answers = Vec::new();
    while let Some(action) = server.poll() {
        if let ServerAction::Send(octets) = action {
            answers.push(Message::parse(&octets).unwrap());
        }
    }
    answers
}

fn started() -> Server {
    let mut server = Server::new(ServerConfig::default(), Time::ZERO);
    let mut caller = Caller::new(CallerConfig::default(), Time::ZERO);
    let Some(CallerAction::Send(octets)) = caller.poll() else {
        panic!("no request");
    };
    server.receive(&octets, Time::ZERO).unwrap();
    while server.poll().is_some() {}
    server
}

fn start_request(version: u16) -> Message {
    let mut caller = Caller::new(CallerConfig::default(), Time::ZERO);
    let Some(CallerAction::Send(octets)) = caller.poll() else {
        panic!("no request");
    };
    match Message::parse(&octets).unwrap() {
        Message::StartRequest(mut request) => {
            request.version = version;
            Message::StartRequest(request)
        }
        other => panic!("{}", other.name()),
    }
}

fn dial(server: &mut Server, peer_id: u16, id: Option<u16>) -> Vec<Message> {
    let mut caller = Caller::new(CallerConfig::default(), Time::ZERO);
    caller.call(CallId(peer_id), Time::ZERO);
    while caller.poll().is_some() {}
    let reply = ask(
        &mut Server::new(ServerConfig::default(), Time::ZERO),
        &start_request(0x0100),
        Time::ZERO,
    );
    caller.receive(&reply[0].emit(), Time::ZERO).unwrap();
    let request = std::iter::from_fn(|| caller.poll())
        .find_map(|action| match action {
            CallerAction::Send(octets) => Some(Message::parse(&octets).unwrap()),
            _ => None,
        })
        .unwrap();
    let mut answers = ask(server, &request, Time::ZERO);
    if let Some(id) = id {
        assert!(server.connect(CallId(peer_id), CallId(id)));
        while let Some(ServerAction::Send(octets)) = server.poll() {
            answers.push(Message::parse(&octets).unwrap());
        }
    }
    answers
}

#[test]
fn versions_and_second_starts() {
    for (version, expected) in [
        (0x0100, StartResult::OK),
        (0x0101, StartResult::OK),
        (0x0200, StartResult::OK),
        (0x00ff, StartResult::VERSION),
    ] {
        let mut server = Server::new(ServerConfig::default(), Time::ZERO);
        let answers = ask(&mut server, &start_request(version), Time::ZERO);
        assert!(
            matches!(&answers[..], [Message::StartReply(reply)] if reply.result == expected),
            "{version:04x}: {answers:?}"
        );
        assert_eq!(server.is_finished(), expected != StartResult::OK);
    }
    let mut server = started();
    let answers = ask(&mut server, &start_request(0x0100), Time::ZERO);
    assert!(
        matches!(&answers[..], [Message::StartReply(reply)] if reply.result == StartResult::EXISTS)
    );
    assert!(!server.is_finished());
}

#[test]
fn incoming_calls_are_refused() {
    let request = Message::IncomingCallRequest(IncomingCallRequest {
        call_id: CallId(77),
        serial: 1,
        bearer: 1,
        channel: 0,
        dialed: Text::from("100"),
        dialing: Text::EMPTY,
        subaddress: Text::EMPTY,
    });
    let answers = ask(&mut started(), &request, Time::ZERO);
    assert!(
        matches!(&answers[..], [Message::IncomingCallReply(reply)]
            if reply.peer_call_id == CallId(77) && reply.result.0 == 3),
        "{answers:?}"
    );
}

#[test]
fn calls_before_the_start_are_not_connected() {
    let mut server = Server::new(ServerConfig::default(), Time::ZERO);
    let answers = dial(&mut server, 1, None);
    assert!(matches!(&answers[..], [Message::OutgoingCallReply(reply)]
            if reply.result == CallResult::GENERAL_ERROR && reply.error == GeneralError::NOT_CONNECTED));
}

#[test]
fn the_same_request_gets_the_same_answer() {
    let mut server = started();
    let first = dial(&mut server, 0, Some(500));
    let again = dial(&mut server, 0, None);
    assert_eq!(first, again);
    assert!(!server.connect(CallId(0), CallId(501)));
}

#[test]
fn clearing_through_a_nat() {
    // One call: whatever the id says. Several: the id decides, and an unknown one is answered with error 5.
    let mut server = started();
    dial(&mut server, 10, Some(500));
    let answers = ask(
        &mut server,
        &Message::CallClearRequest {
            call_id: CallId(999),
        },
        Time::ZERO,
    );
    assert!(
        matches!(&answers[..], [Message::CallDisconnectNotify(notify)]
            if notify.call_id == CallId(500) && notify.result == DisconnectResult::REQUEST)
    );
    dial(&mut server, 10, Some(501));
    dial(&mut server, 11, Some(502));
    let answers = ask(
        &mut server,
        &Message::CallClearRequest {
            call_id: CallId(999),
        },
        Time::ZERO,
    );
    assert!(
        matches!(&answers[..], [Message::CallDisconnectNotify(notify)]
            if notify.error == GeneralError::BAD_CALL_ID)
    );
    let answers = ask(
        &mut server,
        &Message::CallClearRequest {
            call_id: CallId(11),
        },
        Time::ZERO,
    );
    assert!(
        matches!(&answers[..], [Message::CallDisconnectNotify(notify)]
            if notify.call_id == CallId(502))
    );
}

#[test]
fn a_call_cleared_before_it_is_answered_is_withdrawn() {
    let mut server = started();
    dial(&mut server, 4, None);
    server
        .receive(
            &Message::CallClearRequest { call_id: CallId(4) }.emit(),
            Time::ZERO,
        )
        .unwrap();
    assert_eq!(
        server.poll(),
        Some(ServerAction::Withdrawn { peer_id: CallId(4) })
    );
    assert!(!server.connect(CallId(4), CallId(500)));
    assert!(!server.refuse(CallId(4), Refusal::NO_RESOURCE, Time::ZERO));
    assert_eq!(server.poll(), None);
}

#[test]
fn unknown_types_are_skipped_and_strange_ones_ignored() {
    let mut server = started();
    let mut unknown = Message::EchoRequest { identifier: 1 }.emit();
    unknown[9] = 99;
    let mut octets = unknown;
    octets.extend(
        Message::SetLinkInfo {
            peer_call_id: CallId(12345),
            send_accm: 0,
            receive_accm: 0,
        }
        .emit(),
    );
    octets.extend(
        Message::StopReply {
            result: turnpike_protocol::pptp::StopResult::OK,
            error: GeneralError::NONE,
        }
        .emit(),
    );
    server.receive(&octets, Time::ZERO).unwrap();
    assert_eq!(
        server.poll(),
        Some(ServerAction::Ignored { control_type: 99 })
    );
    assert!(matches!(server.poll(), Some(ServerAction::LinkInfo { .. })));
    assert_eq!(
        server.poll(),
        Some(ServerAction::Ignored { control_type: 4 })
    );
    assert_eq!(server.poll(), None);
}

#[test]
fn callers_wait_a_bounded_time() {
    // No reply to the start.
    let mut caller = Caller::new(CallerConfig::default(), Time::ZERO);
    caller.call(CallId(1), Time::ZERO);
    let at = caller.deadline().unwrap();
    assert_eq!(at, Time::ZERO + 60 * SECOND);
    caller.handle_timeout(at);
    let said: Vec<_> = std::iter::from_fn(|| caller.poll()).collect();
    assert_eq!(
        said[1..],
        [
            CallerAction::Disconnected {
                id: CallId(1),
                result: None
            },
            CallerAction::Finished(End::NotStarted)
        ]
    );
    // No reply to the call, then none to its clearing.
    let mut pair = Pair::new(1000);
    pair.settle();
    pair.caller_takes();
    pair.caller.call(CallId(1), pair.now);
    pair.collect();
    pair.to_server.clear();
    let at = pair.caller.deadline().unwrap();
    pair.caller.handle_timeout(at);
    pair.collect();
    assert_eq!(
        pair.caller_takes(),
        [CallerAction::Refused {
            id: CallId(1),
            result: CallResult::TIME_OUT,
            error: GeneralError::NONE
        }]
    );
    let mut pair = Pair::up(1000);
    pair.caller.clear(CallId(0), pair.now);
    pair.collect();
    pair.to_server.clear();
    let at = pair.caller.deadline().unwrap();
    assert_eq!(at.since(pair.now), 5 * SECOND);
    pair.caller.handle_timeout(at);
    pair.collect();
    assert_eq!(
        pair.caller_takes(),
        [CallerAction::Disconnected {
            id: CallId(0),
            result: None
        }]
    );
}
