//! Server and caller in one box: made-up time, segments cut anywhere.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use turnpike_protocol::pptp::{
    CallId, CallResult, Caller, CallerAction, CallerConfig, ClearCause, DisconnectResult, End,
    GeneralError, IncomingCallRequest, Message, Refusal, Server, ServerAction, ServerConfig,
    StartResult, StopReason, Text,
};
use turnpike_protocol::{Error, Time};

const SECOND: Duration = Duration::from_secs(1);

/// A wire that delivers in pieces of `piece` octets, or everything at once.
struct Pair {
    server: Server,
    caller: Caller,
    now: Time,
    piece: usize,
    to_server: Vec<u8>,
    to_caller: Vec<u8>,
    server_said: Vec<ServerAction>,
    caller_said: Vec<CallerAction>,
    next_id: u16,
    refusal: Option<Refusal>,
}

impl Pair {
    fn new(piece: usize) -> Self {
        Self::with(ServerConfig::default(), CallerConfig::default(), piece)
    }

    fn with(server: ServerConfig, caller: CallerConfig, piece: usize) -> Self {
        let now = Time::ZERO;
        Self {
            server: Server::new(server, now),
            caller: Caller::new(caller, now),
            now,
            piece,
            to_server: Vec::new(),
            to_caller: Vec::new(),
            server_said: Vec::new(),
            caller_said: Vec::new(),
            next_id: 1000,
            refusal: None,
        }
    }

    /// Takes what both want to say; answers requests for calls.
    fn collect(&mut self) {
        while let Some(action) = self.server.poll() {
            match action {
                ServerAction::Send(octets) => self.to_caller.extend(octets),
                ServerAction::Call(call) => {
                    match self.refusal {
                        Some(refusal) => {
                            assert!(self.server.refuse(call.peer_id, refusal, self.now));
                        }
                        None => {
                            let id = CallId(self.next_id);
                            self.next_id += 1;
                            assert!(self.server.connect(call.peer_id, id));
                        }
                    }
                    self.server_said.push(ServerAction::Call(call));
                }
                other => self.server_said.push(other),
            }
        }
        while let Some(action) = self.caller.poll() {
            match action {
                CallerAction::Send(octets) => self.to_server.extend(octets),
                other => self.caller_said.push(other),
            }
        }
    }

    /// Until nothing is on the wire.
    fn settle(&mut self) {
        loop {
            self.collect();
            if self.to_server.is_empty() && self.to_caller.is_empty() {
                return;
            }
            let octets = std::mem::take(&mut self.to_server);
            for piece in octets.chunks(self.piece) {
                self.server.receive(piece, self.now).unwrap();
            }
            let octets = std::mem::take(&mut self.to_caller);
            for piece in octets.chunks(self.piece) {
                self.caller.receive(piece, self.now).unwrap();
            }
        }
    }

    /// Lets time pass, serving deadlines as they come.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = [self.server.deadline(), self.caller.deadline()]
                .into_iter()
                .flatten()
                .min();
            match next {
                Some(next) if next <= end => {
                    self.now = self.now.max(next);
                    self.server.handle_timeout(self.now);
                    self.caller.handle_timeout(self.now);
                    self.settle();
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn server_takes(&mut self) -> Vec<ServerAction> {
        std::mem::take(&mut self.server_said)
    }

    fn caller_takes(&mut self) -> Vec<CallerAction> {
        std::mem::take(&mut self.caller_said)
    }

    fn up(piece: usize) -> Self {
        let mut pair = Self::new(piece);
        assert!(pair.caller.call(CallId(0), pair.now));
        pair.settle();
        pair.server_takes();
        pair.caller_takes();
        pair
    }
}

#[test]
fn a_call_from_start_to_stop_whatever_the_segments() {
    for piece in 1..=400 {
        let mut pair = Pair::new(piece);
        // 0 is a legal id, and the commonest one.
        assert!(pair.caller.call(CallId(0), pair.now));
        assert!(pair.caller.call(CallId(7), pair.now));
        pair.settle();
        let said = pair.caller_takes();
        assert!(matches!(said[0], CallerAction::Started(_)), "{said:?}");
        assert_eq!(
            said[1..],
            [(0, 1000), (7, 1001)].map(|(id, peer_id)| CallerAction::Connected {
                id: CallId(id),
                peer_id: CallId(peer_id),
                speed: 100_000_000,
                window: 64
            })
        );
        assert!(
            pair.caller
                .set_link_info(CallId(7), 0xffff_ffff, 0xffff_ffff)
        );
        assert!(pair.caller.clear(CallId(7), pair.now));
        assert!(!pair.caller.clear(CallId(7), pair.now));
        pair.settle();
        assert_eq!(
            pair.caller_takes(),
            [CallerAction::Disconnected {
                id: CallId(7),
                result: Some((DisconnectResult::REQUEST, GeneralError::NONE))
            }]
        );
        let said = pair.server_takes();
        assert!(matches!(said[0], ServerAction::Started(_)));
        assert!(matches!(&said[1], ServerAction::Call(call) if call.peer_id == CallId(0)));
        assert!(matches!(&said[2], ServerAction::Call(call) if call.peer_id == CallId(7)));
        assert_eq!(
            said[3..],
            [
                ServerAction::LinkInfo {
                    id: CallId(1001),
                    send_accm: 0xffff_ffff,
                    receive_accm: 0xffff_ffff
                },
                ServerAction::Cleared {
                    id: CallId(1001),
                    by: ClearCause::Request
                }
            ]
        );
        pair.caller.stop(StopReason::NONE, pair.now);
        pair.settle();
        assert_eq!(
            pair.server_takes(),
            [
                ServerAction::Cleared {
                    id: CallId(1000),
                    by: ClearCause::Connection
                },
                ServerAction::Finished(End::Stopped(StopReason::NONE))
            ]
        );
        assert_eq!(
            pair.caller_takes(),
            [
                CallerAction::Disconnected {
                    id: CallId(0),
                    result: None
                },
                CallerAction::Finished(End::StopAnswered)
            ]
        );
        assert_eq!(
            (pair.server.deadline(), pair.caller.deadline()),
            (None, None)
        );
    }
}

#[test]
fn shutdown_tells_every_call() {
    let mut pair = Pair::up(1000);
    assert!(pair.caller.call(CallId(1), pair.now));
    pair.settle();
    pair.server_takes();
    pair.caller_takes();
    pair.server.stop(StopReason::LOCAL_SHUTDOWN, pair.now);
    pair.settle();
    let admin = Some((DisconnectResult::ADMIN_SHUTDOWN, GeneralError::NONE));
    assert_eq!(
        pair.caller_takes(),
        [
            CallerAction::Disconnected {
                id: CallId(0),
                result: admin
            },
            CallerAction::Disconnected {
                id: CallId(1),
                result: admin
            },
            CallerAction::Finished(End::Stopped(StopReason::LOCAL_SHUTDOWN))
        ]
    );
    assert_eq!(
        pair.server_takes().last(),
        Some(&ServerAction::Finished(End::StopAnswered))
    );
}

#[test]
fn an_unanswered_stop_waits_five_seconds() {
    let mut pair = Pair::up(1000);
    pair.server.stop(StopReason::LOCAL_SHUTDOWN, pair.now);
    pair.collect();
    pair.to_caller.clear();
    // Echoes are answered even now.
    let echo = Message::EchoRequest { identifier: 9 }.emit();
    pair.server.receive(&echo, pair.now).unwrap();
    pair.collect();
    assert_eq!(pair.to_caller.len(), 20);
    let until = pair.server.deadline().unwrap();
    assert_eq!(until.since(pair.now), 5 * SECOND);
    pair.server.handle_timeout(until);
    pair.collect();
    assert_eq!(
        pair.server_takes().last(),
        Some(&ServerAction::Finished(End::StopUnanswered))
    );
}

#[test]
fn one_call_ends_the_others_stay() {
    let mut pair = Pair::up(1000);
    assert!(pair.caller.call(CallId(1), pair.now));
    pair.settle();
    pair.caller_takes();
    assert!(
        pair.server
            .disconnect(CallId(1000), DisconnectResult::LOST_CARRIER, pair.now)
    );
    assert!(
        !pair
            .server
            .disconnect(CallId(1000), DisconnectResult::LOST_CARRIER, pair.now)
    );
    pair.settle();
    assert_eq!(
        pair.caller_takes(),
        [CallerAction::Disconnected {
            id: CallId(0),
            result: Some((DisconnectResult::LOST_CARRIER, GeneralError::NONE))
        }]
    );
    // The id is free again on the client's side; the call gets a new one on ours.
    assert!(pair.caller.call(CallId(0), pair.now));
    pair.settle();
    assert!(matches!(
        pair.caller_takes()[..],
        [CallerAction::Connected {
            id: CallId(0),
            peer_id: CallId(1002),
            ..
        }]
    ));
}

#[test]
fn echoes_go_both_ways_and_silence_ends() {
    let config = ServerConfig {
        echo_interval: 30 * SECOND,
        ..ServerConfig::default()
    };
    let mut pair = Pair::with(config, CallerConfig::default(), 1000);
    pair.caller.call(CallId(3), pair.now);
    pair.settle();
    pair.pass(3600 * SECOND);
    assert!(!pair.server.is_finished() && !pair.caller.is_finished());
    pair.server_takes();
    pair.caller_takes();
    // The client goes deaf and dumb: asked once after 30 s, over 60 s later.
    let start = pair.now;
    loop {
        let at = pair.server.deadline().unwrap();
        pair.server.handle_timeout(at);
        pair.collect();
        pair.to_caller.clear();
        if pair.server.is_finished() {
            let silence = at.since(start);
            assert!(
                silence <= 90 * SECOND && silence >= 60 * SECOND,
                "{silence:?}"
            );
            break;
        }
    }
    assert_eq!(
        pair.server_takes(),
        [
            ServerAction::Cleared {
                id: CallId(1000),
                by: ClearCause::Connection
            },
            ServerAction::Finished(End::EchoUnanswered)
        ]
    );
    // And the other way round, by the caller's timers.
    pair.to_server.clear();
    while !pair.caller.is_finished() {
        let at = pair.caller.deadline().unwrap();
        pair.caller.handle_timeout(at);
        pair.collect();
    }
    assert_eq!(
        pair.caller_takes().last(),
        Some(&CallerAction::Finished(End::EchoUnanswered))
    );
}

#[test]
fn probes_hold_nothing_beyond_the_set_up_time() {
    let half = &Message::EchoRequest { identifier: 1 }.emit()[..9];
    for probe in [&[][..], half] {
        let mut server = Server::new(ServerConfig::default(), Time::ZERO);
        server.receive(probe, Time::ZERO + 29 * SECOND).unwrap();
        assert_eq!(server.deadline(), Some(Time::ZERO + 30 * SECOND));
        server.handle_timeout(Time::ZERO + 30 * SECOND);
        assert_eq!(server.poll(), Some(ServerAction::Finished(End::NotStarted)));
        assert_eq!(server.poll(), None);
    }
    // Echoes are answered before the start, but buy no time.
    let mut server = Server::new(ServerConfig::default(), Time::ZERO);
    let echo = Message::EchoRequest { identifier: 1 }.emit();
    server.receive(&echo, Time::ZERO + 29 * SECOND).unwrap();
    assert!(matches!(server.poll(), Some(ServerAction::Send(_))));
    assert_eq!(server.deadline(), Some(Time::ZERO + 30 * SECOND));
    // Garbage ends at once.
    let mut server = Server::new(ServerConfig::default(), Time::ZERO);
    let error = server.receive(b"GET / HTTP/1.1\r\n", Time::ZERO);
    assert!(matches!(error, Err(Error::Malformed(_))));
    assert!(matches!(
        server.poll(),
        Some(ServerAction::Finished(End::FramingLost(_)))
    ));
    assert_eq!(server.deadline(), None);
}

#[test]
fn a_connection_without_calls_is_stopped() {
    let mut pair = Pair::new(1000);
    pair.settle();
    pair.pass(29 * SECOND);
    assert!(!pair.server.is_finished());
    pair.pass(2 * SECOND);
    assert_eq!(
        pair.server_takes().last(),
        Some(&ServerAction::Finished(End::NoCall))
    );
    assert_eq!(
        pair.caller_takes().last(),
        Some(&CallerAction::Finished(End::Stopped(StopReason::NONE)))
    );
    // The time starts again when the last call is gone.
    let mut pair = Pair::up(1000);
    pair.pass(1000 * SECOND);
    assert!(!pair.server.is_finished());
    pair.caller.clear(CallId(0), pair.now);
    pair.settle();
    pair.pass(29 * SECOND);
    assert!(!pair.server.is_finished());
    pair.pass(2 * SECOND);
    assert!(pair.server.is_finished());
}

#[test]
fn refusals_reach_the_caller() {
    let mut pair = Pair::new(1000);
    pair.refusal = Some(Refusal::NO_RESOURCE);
    pair.caller.call(CallId(5), pair.now);
    pair.settle();
    assert_eq!(
        pair.caller_takes().last(),
        Some(&CallerAction::Refused {
            id: CallId(5),
            result: CallResult::GENERAL_ERROR,
            error: GeneralError::NO_RESOURCE
        })
    );
    let limit = ServerConfig {
        max_calls: 2,
        ..ServerConfig::default()
    };
    let mut pair = Pair::with(limit, CallerConfig::default(), 1000);
    for id in 0..3 {
        pair.caller.call(CallId(id), pair.now);
    }
    pair.settle();
    assert!(pair.caller_takes().contains(&CallerAction::Refused {
        id: CallId(2),
        result: CallResult::GENERAL_ERROR,
        error: GeneralError::NO_RESOURCE
    }));
    let full = ServerConfig {
        refuse: Some((StartResult::GENERAL_ERROR, GeneralError::NO_RESOURCE)),
        ..ServerConfig::default()
    };
    let mut pair = Pair::with(full, CallerConfig::default(), 1000);
    pair.caller.call(CallId(1), pair.now);
    pair.settle();
    assert_eq!(
        pair.caller_takes(),
        [
            CallerAction::Disconnected {
                id: CallId(1),
                result: None
            },
            CallerAction::Finished(End::RefusedByPeer(
                StartResult::GENERAL_ERROR,
                GeneralError::NO_RESOURCE
            ))
        ]
    );
    assert!(pair.server.is_finished());
}

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
