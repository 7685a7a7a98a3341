//! Server and caller in one box: made-up time, segments cut anywhere.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use turnpike_protocol::pptp::{
    CallId, CallResult, Caller, CallerAction, CallerConfig, ClearCause, DisconnectResult, End,
    GeneralError, Message, Refusal, Server, ServerAction, ServerConfig, StartResult, StopReason,
};
use turnpike_protocol::{Error, Time};

const SECOND: Duration = Duration::from_secs(1);

/// A wire that delivers in pieces of `piece` octets, or everything at once.
pub struct Pair {
    pub server: Server,
    pub caller: Caller,
    pub now: Time,
    pub piece: usize,
    pub to_server: Vec<u8>,
    pub to_caller: Vec<u8>,
    pub server_said: Vec<ServerAction>,
    pub caller_said: Vec<CallerAction>,
    pub next_id: u16,
    pub refusal: Option<Refusal>,
}

impl Pair {
    pub fn new(piece: usize) -> Self {
        Self::with(ServerConfig::default(), CallerConfig::default(), piece)
    }

    pub fn with(server: ServerConfig, caller: CallerConfig, piece: usize) -> Self {
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
    pub fn collect(&mut self) {
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
    pub fn settle(&mut self) {
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
    pub fn pass(&mut self, time: Duration) {
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

    pub fn server_takes(&mut self) -> Vec<ServerAction> {
        std::mem::take(&mut self.server_said)
    }

    pub fn caller_takes(&mut self) -> Vec<CallerAction> {
        std::mem::take(&mut self.caller_said)
    }

    pub fn up(piece: usize) -> Self {
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
    assert!(pair.server.disconnect(
        CallId(1000),
        DisconnectResult::LOST_CARRIER,
        GeneralError::NONE,
        pair.now
    ));
    assert!(!pair.server.disconnect(
        CallId(1000),
        DisconnectResult::LOST_CARRIER,
        GeneralError::NONE,
        pair.now
    ));
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
fn who_is_doubted_proves_that_it_lives_or_is_soon_over() {
    let mut pair = Pair::with(ServerConfig::default(), CallerConfig::default(), 1000);
    pair.caller.call(CallId(3), pair.now);
    pair.settle();
    // As often as anybody likes.
    for _ in 0..3 {
        pair.server.prove(10 * SECOND, pair.now);
        pair.server.prove(10 * SECOND, pair.now);
        pair.settle();
        pair.pass(60 * SECOND);
        assert!(!pair.server.is_finished());
    }
    pair.server_takes();
    // Deaf and dumb: doubts do not put off the end either. Each is a question of its own: what was asked before may have been
    // acknowledged by a machine that has lost its power since, and only the next one makes it say that it knows nothing.
    pair.server.prove(10 * SECOND, pair.now);
    let end = pair.now + 10 * SECOND;
    pair.server.prove(10 * SECOND, pair.now + 5 * SECOND);
    pair.collect();
    // Each has 16 octets (RFC 2637 §2.5).
    assert_eq!(pair.to_caller.len(), 2 * 16);
    assert_eq!(pair.server.deadline(), Some(end));
    pair.server.handle_timeout(end);
    pair.collect();
    assert!(pair.server.is_finished());
    let last = pair.server_takes().pop();
    assert_eq!(last, Some(ServerAction::Finished(End::EchoUnanswered)));
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
    assert!(pair.server.up(CallId(1000)));
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
fn dead_calls_buy_no_time() {
    // One after the other: accepted, never up, given up.
    let mut pair = Pair::new(1000);
    pair.settle();
    for id in 0..4 {
        pair.caller.call(CallId(id), pair.now);
        pair.settle();
        pair.pass(7 * SECOND);
        pair.caller.clear(CallId(id), pair.now);
        pair.settle();
    }
    assert!(!pair.server.is_finished());
    pair.pass(2 * SECOND);
    assert_eq!(
        pair.server_takes().last(),
        Some(&ServerAction::Finished(End::NoCall))
    );

    // Overlapping, so that there is always one: whoever is being set up may go on, no other one comes after the limit.
    let mut pair = Pair::new(1000);
    pair.settle();
    pair.pass(20 * SECOND);
    pair.caller.call(CallId(1), pair.now);
    pair.settle();
    pair.pass(11 * SECOND);
    assert!(!pair.server.is_finished());
    pair.caller_takes();
    pair.caller.call(CallId(2), pair.now);
    pair.settle();
    assert_eq!(
        pair.caller_takes(),
        [CallerAction::Refused {
            id: CallId(2),
            result: CallResult::TIME_OUT,
            error: GeneralError::NONE
        }]
    );
    pair.caller.clear(CallId(1), pair.now);
    pair.settle();
    pair.pass(Duration::ZERO);
    assert!(pair.server.is_finished());
}

#[test]
fn a_call_that_was_up_gives_a_fresh_limit_once() {
    let mut pair = Pair::up(1000);
    assert!(pair.server.up(CallId(1000)));
    pair.pass(100 * SECOND);
    // Beside a call that is up, others are welcome at any time.
    pair.caller.call(CallId(1), pair.now);
    pair.settle();
    assert_eq!(pair.next_id, 1002);
    pair.caller.clear(CallId(1), pair.now);
    pair.caller.clear(CallId(0), pair.now);
    pair.settle();
    pair.pass(20 * SECOND);
    assert!(!pair.server.is_finished());
    pair.caller.call(CallId(2), pair.now);
    pair.settle();
    assert_eq!(pair.next_id, 1003);
    pair.pass(5 * SECOND);
    pair.caller.clear(CallId(2), pair.now);
    pair.settle();
    pair.pass(4 * SECOND);
    assert!(!pair.server.is_finished());
    pair.pass(2 * SECOND);
    assert!(pair.server.is_finished());
    assert!(!pair.server.up(CallId(1002)), "it is over");
}

#[test]
fn starting_late_buys_no_time() {
    let mut pair = Pair::new(1000);
    pair.now = Time::ZERO + 29 * SECOND;
    pair.settle();
    assert_eq!(pair.server.deadline(), Some(Time::ZERO + 30 * SECOND));
    // Nor does starting twice.
    let started = pair.caller_takes();
    assert!(matches!(started[..], [CallerAction::Started(_)]));
    let mut again = Caller::new(CallerConfig::default(), pair.now);
    let Some(CallerAction::Send(octets)) = again.poll() else {
        panic!("no request");
    };
    pair.server.receive(&octets, pair.now).unwrap();
    assert_eq!(pair.server.deadline(), Some(Time::ZERO + 30 * SECOND));
    pair.server.handle_timeout(Time::ZERO + 30 * SECOND);
    pair.collect();
    assert_eq!(
        pair.server_takes().last(),
        Some(&ServerAction::Finished(End::NoCall))
    );
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
