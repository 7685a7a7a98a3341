//! The control connection: messages, and both state machines.

use std::mem::discriminant;
use std::time::Duration;

use turnpike_protocol::pptp::{
    Caller, CallerAction, CallerConfig, Decoder, DisconnectResult, GeneralError, Incoming,
    MAX_MESSAGE, Message, Refusal, Server, ServerAction, ServerConfig, StopReason,
};
use turnpike_protocol::{CallId, Error, Time};

use super::{Input, Trace};

/// Fewest octets of a message.
const MIN_MESSAGE: usize = 16;

fn decode(stream: &[u8], segment: usize) -> (Vec<Incoming>, Option<Error>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for mut octets in stream.chunks(segment.max(1)) {
        loop {
            match decoder.next(&mut octets) {
                Ok(Some(incoming)) => messages.push(incoming),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// A stream says the same however it is cut, and what was read is written as it was read.
pub fn decoder(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let whole = decode(octets, usize::MAX);
    for segment in [1, 13] {
        assert_eq!(decode(octets, segment), whole, "cut into {segment} octets");
    }
    for incoming in &whole.0 {
        match incoming {
            Incoming::Message(message) => {
                trace.note(discriminant(message));
                let written = message.emit();
                assert!((12..=MAX_MESSAGE).contains(&written.len()));
                assert_eq!(Message::parse(&written).as_ref(), Ok(message));
            }
            Incoming::Unknown { control_type } => trace.note(*control_type > 15),
        }
    }
    trace.note(whole.1.map(|error| error.to_string()));
    trace
}

/// What we send must be readable.
fn sent(octets: &[u8], trace: &mut Trace) {
    let (messages, error) = decode(octets, usize::MAX);
    assert_eq!(error, None);
    assert!(!messages.is_empty());
    for incoming in &messages {
        match incoming {
            Incoming::Message(message) => trace.note(discriminant(message)),
            Incoming::Unknown { .. } => panic!("we sent an unknown message"),
        }
    }
}

/// A script: octets from a client, time, and orders of the server's owner.
pub fn server(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mut now = Time::ZERO;
    let config = ServerConfig {
        max_calls: 8,
        ..ServerConfig::default()
    };
    let mut server = Server::new(config, now);
    let (mut asked, mut connected, mut finished) = (Vec::new(), Vec::new(), false);
    let mut drain =
        |server: &mut Server, asked: &mut Vec<CallId>, trace: &mut Trace, allowed: usize| {
            let mut actions = 0;
            while let Some(action) = server.poll() {
                assert!(!finished, "{action:?} after the end");
                actions += 1;
                assert!(actions <= allowed, "{actions} actions");
                trace.note(discriminant(&action));
                match action {
                    ServerAction::Send(octets) => sent(&octets, trace),
                    ServerAction::Call(call) => asked.push(call.peer_id),
                    ServerAction::Finished(_) => finished = true,
                    _ => {}
                }
            }
        };
    while !input.is_empty() && !server.is_finished() {
        let order = input.octet();
        let mut allowed = 32;
        match order {
            0..=199 => {
                let chunk = input.chunk();
                allowed += 2 * (chunk.len() / MIN_MESSAGE);
                if let Err(error) = server.receive(chunk, now) {
                    // The owner closes TCP.
                    trace.note(error.to_string());
                    drain(&mut server, &mut asked, &mut trace, allowed);
                    return trace;
                }
            }
            200..=219 => {
                now += Duration::from_millis(u64::from(input.u16()));
                server.handle_timeout(now);
            }
            220..=234 => {
                let peer_id = asked.pop().unwrap_or(CallId(input.u16()));
                let id = CallId(u16::from(input.octet()));
                if server.connect(peer_id, id) {
                    connected.push(id);
                }
            }
            235..=241 => {
                let peer_id = asked.pop().unwrap_or(CallId(input.u16()));
                server.refuse(peer_id, Refusal::NO_RESOURCE, now);
            }
            242..=250 => {
                let id = connected.pop().unwrap_or(CallId(input.u16()));
                server.disconnect(
                    id,
                    DisconnectResult(input.octet()),
                    GeneralError(input.octet()),
                    now,
                );
            }
            _ => server.stop(StopReason(input.octet()), now),
        }
        drain(&mut server, &mut asked, &mut trace, allowed);
    }
    // Left alone, it comes to an end.
    server.stop(StopReason(3), now);
    drain(&mut server, &mut asked, &mut trace, 64);
    for _ in 0..64 {
        let Some(due) = server.deadline() else { break };
        now = now.max(due);
        server.handle_timeout(now);
        drain(&mut server, &mut asked, &mut trace, 64);
    }
    assert!(server.is_finished(), "does not stop");
    trace
}

/// The same for a client.
pub fn caller(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mut now = Time::ZERO;
    let mut caller = Caller::new(CallerConfig::default(), now);
    let mut finished = false;
    let mut drain = |caller: &mut Caller, trace: &mut Trace, allowed: usize| {
        let mut actions = 0;
        while let Some(action) = caller.poll() {
            assert!(!finished, "{action:?} after the end");
            actions += 1;
            assert!(actions <= allowed, "{actions} actions");
            trace.note(discriminant(&action));
            match action {
                CallerAction::Send(octets) => sent(&octets, trace),
                CallerAction::Finished(_) => finished = true,
                _ => {}
            }
        }
    };
    let mut calls = 0;
    while !input.is_empty() && !caller.is_finished() {
        let order = input.octet();
        let mut allowed = 32;
        match order {
            0..=199 => {
                let chunk = input.chunk();
                allowed += 2 * (chunk.len() / MIN_MESSAGE) + calls;
                if let Err(error) = caller.receive(chunk, now) {
                    trace.note(error.to_string());
                    drain(&mut caller, &mut trace, allowed);
                    return trace;
                }
            }
            200..=219 => {
                now += Duration::from_millis(u64::from(input.u16()));
                allowed += calls;
                caller.handle_timeout(now);
            }
            220..=239 => {
                calls += usize::from(caller.call(CallId(u16::from(input.octet() % 16)), now))
            }
            240..=245 => {
                caller.clear(CallId(u16::from(input.octet() % 16)), now);
            }
            246..=250 => {
                caller.set_link_info(
                    CallId(u16::from(input.octet() % 16)),
                    input.u32(),
                    input.u32(),
                );
            }
            _ => {
                allowed += calls;
                caller.stop(StopReason(input.octet()), now);
            }
        }
        drain(&mut caller, &mut trace, allowed);
    }
    caller.stop(StopReason(1), now);
    drain(&mut caller, &mut trace, 64 + calls);
    for _ in 0..64 {
        let Some(due) = caller.deadline() else { break };
        now = now.max(due);
        caller.handle_timeout(now);
        drain(&mut caller, &mut trace, 64 + calls);
    }
    assert!(caller.is_finished(), "does not stop");
    trace
}
