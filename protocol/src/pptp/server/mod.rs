//! The answering side (PAC): RFC 2637 §3.1.2 and §3.2.4.1.

use core::time::Duration;
use std::collections::VecDeque;

use crate::Error;
use crate::pptp::codes::{
    CallResult, DisconnectResult, EchoResult, GeneralError, IncomingResult, StartResult,
    StopReason, StopResult,
};
use crate::pptp::decoder::{Decoder, Incoming};
use crate::pptp::keep_alive::{Due, KeepAlive};
use crate::pptp::message::{
    CallDisconnectNotify, IncomingCallReply, IncomingCallRequest, Message, OutgoingCallReply,
    OutgoingCallRequest, StartReply, StartRequest,
};
use crate::pptp::{CallId, End, PeerInfo, Text};
use crate::time::Time;

mod action;

pub use action::{ClearCause, OutgoingCall, Refusal, ServerAction, ServerConfig};

/// The only version there is: 1, revision 0.
pub(super) const VERSION: u16 = 0x0100;

/// Framing and bearer capabilities: both kinds of each. Nobody should refuse over them, but some look.
pub(super) const CAPABILITIES: u32 = 3;

/// The receive window, in packets, that is announced to a peer that announced this one.
const fn our_window(window: u16) -> u16 {
    match window {
        0 => 64,
        window => window,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    WaitStart,
    Established,
    WaitStopReply { until: Time },
    Finished,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Call {
    peer_id: CallId,
    max_bps: u32,
    window: u16,
    /// Ours, once connected.
    id: Option<CallId>,
    /// The owner said that data could flow.
    up: bool,
}

/// One control connection, seen from the server. Plain data; octets and time come in, [`ServerAction`]s come out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    config: ServerConfig,
    state: State,
    decoder: Decoder,
    keep_alive: KeepAlive,
    calls: Vec<Call>,
    /// Until when the connection must have started, and have asked for a call that comes up. Only losing such a call
    /// sets it anew: calls that come to nothing buy no time, however many follow each other.
    setup_until: Time,
    actions: VecDeque<ServerAction>,
}

impl Server {
    /// A connection that was accepted at `now`.
    pub fn new(config: ServerConfig, now: Time) -> Self {
        Self {
            keep_alive: KeepAlive::new(config.echo_interval, config.echo_timeout, now),
            setup_until: now + config.setup_time,
            state: State::WaitStart,
            decoder: Decoder::new(),
            calls: Vec::new(),
            actions: VecDeque::new(),
            config,
        }
    }

    /// Takes octets as they came. An error means that framing is lost: [`ServerAction::Finished`] is queued and TCP
    /// must be closed.
    pub fn receive(&mut self, mut octets: &[u8], now: Time) -> Result<(), Error> {
        while self.state != State::Finished {
            match self.decoder.next(&mut octets) {
                Ok(None) => break,
                Ok(Some(Incoming::Message(message))) => {
                    self.keep_alive.heard(now);
                    self.handle(message, now);
                }
                Ok(Some(Incoming::Unknown { control_type })) => {
                    self.keep_alive.heard(now);
                    self.push(ServerAction::Ignored { control_type });
                }
                Err(error) => {
                    self.finish(End::FramingLost(error));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<ServerAction> {
        let action = self.actions.pop_front();
        // Idle connections keep no room for it.
        if action.is_none() {
            self.actions = VecDeque::new();
        }
        action
    }

    /// When [`Server::handle_timeout`] wants to be called; `None` when it is all over.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Finished => None,
            State::WaitStart => Some(self.setup_until),
            State::WaitStopReply { until } => Some(until),
            State::Established => {
                let keep_alive = self.keep_alive.deadline();
                Some(if self.calls.is_empty() {
                    keep_alive.min(self.setup_until)
                } else {
                    keep_alive
                })
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::Finished => {}
            State::WaitStart => {
                if now >= self.setup_until {
                    self.finish(End::NotStarted);
                }
            }
            State::WaitStopReply { until } => {
                if now >= until {
                    self.finish(End::StopUnanswered);
                }
            }
            State::Established => {
                if self.calls.is_empty() && now >= self.setup_until {
                    self.send(&Message::StopRequest {
                        reason: StopReason::NONE,
                    });
                    self.finish(End::NoCall);
                    return;
                }
                match self.keep_alive.poll(now) {
                    Due::Nothing => {}
                    Due::Ask(identifier) => self.send(&Message::EchoRequest { identifier }),
                    Due::Dead => self.finish(End::EchoUnanswered),
                }
            }
        }
    }

    /// Answers a [`ServerAction::Call`]: connected, under the id `id` that we chose. False when there is no such
    /// request (any more), or the id is used in this connection; nothing is sent then.
    pub fn connect(&mut self, peer_id: CallId, id: CallId) -> bool {
        if self.state != State::Established || self.calls.iter().any(|call| call.id == Some(id)) {
            return false;
        }
        let Some(call) = self
            .calls
            .iter_mut()
            .find(|call| call.peer_id == peer_id && call.id.is_none())
        else {
            return false;
        };
        call.id = Some(id);
        let reply = connected(call, id);
        self.send(&reply);
        true
    }

    /// Data can flow in a connected call: the connection has proved its worth, and has a set-up limit of its own again
    /// when it loses this call. False when there is no such call (any more).
    pub fn up(&mut self, id: CallId) -> bool {
        let call = self.calls.iter_mut().find(|call| call.id == Some(id));
        call.map(|call| call.up = true).is_some()
    }

    /// There is reason to doubt that the client lives: it is sent an Echo-Request now, and the connection ends as with any
    /// echo that is not answered when nothing has come after `patience`.
    pub fn prove(&mut self, patience: Duration, now: Time) {
        if self.state == State::Established {
            let identifier = self.keep_alive.prove(patience, now);
            self.send(&Message::EchoRequest { identifier });
        }
    }

    /// After [`Self::prove`]: the client was heard on another way, so that the answer has its usual time again.
    pub fn trust(&mut self, now: Time) {
        self.keep_alive.trust(now);
    }

    /// Answers a [`ServerAction::Call`] with a refusal. False when there is no such request (any more).
    pub fn refuse(&mut self, peer_id: CallId, refusal: Refusal, now: Time) -> bool {
        let Some(at) = self
            .calls
            .iter()
            .position(|call| call.peer_id == peer_id && call.id.is_none())
        else {
            return false;
        };
        self.remove(at, now);
        self.send(&refused(peer_id, refusal));
        true
    }

    /// Ends a connected call from our side: Call-Disconnect-Notify. False when there is no such call (any more).
    pub fn disconnect(
        &mut self,
        id: CallId,
        result: DisconnectResult,
        error: GeneralError,
        now: Time,
    ) -> bool {
        let Some(at) = self.calls.iter().position(|call| call.id == Some(id)) else {
            return false;
        };
        self.remove(at, now);
        self.send(&disconnect(id, result, error));
        true
    }

    /// Ends the connection: Call-Disconnect-Notify for every call, Stop-Control-Connection-Request, and a bounded
    /// wait for its answer.
    pub fn stop(&mut self, reason: StopReason, now: Time) {
        match self.state {
            State::Finished | State::WaitStopReply { .. } => {}
            State::WaitStart => self.finish(End::StopAnswered),
            State::Established => {
                for call in core::mem::take(&mut self.calls) {
                    match call.id {
                        Some(id) => {
                            self.send(&disconnect(
                                id,
                                DisconnectResult::ADMIN_SHUTDOWN,
                                GeneralError::NONE,
                            ));
                            self.push(ServerAction::Cleared {
                                id,
                                by: ClearCause::Connection,
                            });
                        }
                        None => {
                            self.send(&refused(call.peer_id, Refusal::DO_NOT_ACCEPT));
                            self.push(ServerAction::Withdrawn {
                                peer_id: call.peer_id,
                            });
                        }
                    }
                }
                self.send(&Message::StopRequest { reason });
                self.state = State::WaitStopReply {
                    until: now + self.config.stop_timeout,
                };
            }
        }
    }

    /// Whether [`ServerAction::Finished`] has been queued.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    fn handle(&mut self, message: Message, now: Time) {
        let control_type = message.control_type();
        match message {
            Message::StartRequest(request) => self.start(request),
            Message::StopRequest { reason } => {
                self.send(&Message::StopReply {
                    result: StopResult::OK,
                    error: GeneralError::NONE,
                });
                self.finish(End::Stopped(reason));
            }
            Message::StopReply { .. } => {
                if matches!(self.state, State::WaitStopReply { .. }) {
                    self.finish(End::StopAnswered);
                } else {
                    self.push(ServerAction::Ignored { control_type });
                }
            }
            // RFC 2637 §2.5: answered in every state.
            Message::EchoRequest { identifier } => self.send(&Message::EchoReply {
                identifier,
                result: EchoResult::OK,
                error: GeneralError::NONE,
            }),
            // Any message proves the path; a wrong identifier is no reason to end calls.
            Message::EchoReply { .. } => {}
            Message::OutgoingCallRequest(request) => self.call(&request, now),
            Message::IncomingCallRequest(request) => self.refuse_incoming(&request),
            Message::CallClearRequest { call_id } => self.clear(call_id, now),
            Message::CallDisconnectNotify(notify) => {
                // Sent by a PAC about its own id; from a client it can only mean that the call is over.
                if let Some(at) = self.find(notify.call_id) {
                    self.clear_at(at, now);
                }
            }
            Message::WanErrorNotify {
                peer_call_id,
                errors,
            } => self.push(ServerAction::WanError {
                id: peer_call_id,
                errors,
            }),
            Message::SetLinkInfo {
                peer_call_id,
                send_accm,
                receive_accm,
            } => self.push(ServerAction::LinkInfo {
                id: peer_call_id,
                send_accm,
                receive_accm,
            }),
            // What only a PAC sends to a PNS: we asked for none of it.
            Message::StartReply(_)
            | Message::OutgoingCallReply(_)
            | Message::IncomingCallReply(_)
            | Message::IncomingCallConnected(_) => {
                self.push(ServerAction::Ignored { control_type });
            }
        }
    }

    fn start(&mut self, request: StartRequest) {
        match self.state {
            State::WaitStart => {}
            State::Established | State::WaitStopReply { .. } => {
                let reply = self.start_reply(StartResult::EXISTS, GeneralError::NONE);
                self.send(&reply);
                return;
            }
            State::Finished => return,
        }
        // RFC 2637 §3.1.2: only the major version, the high octet, decides.
        let refusal = if request.version >> 8 == 0 {
            Some((StartResult::VERSION, GeneralError::NONE))
        } else {
            self.config.refuse
        };
        if let Some((result, error)) = refusal {
            let reply = self.start_reply(result, error);
            self.send(&reply);
            self.finish(End::RefusedByUs(result, error));
            return;
        }
        let reply = self.start_reply(StartResult::OK, GeneralError::NONE);
        self.send(&reply);
        self.state = State::Established;
        self.push(ServerAction::Started(PeerInfo {
            host_name: request.host_name,
            vendor: request.vendor,
            version: request.version,
            firmware: request.firmware,
            framing: request.framing,
            bearer: request.bearer,
            max_channels: request.max_channels,
        }));
    }

    fn start_reply(&self, result: StartResult, error: GeneralError) -> Message {
        Message::StartReply(StartReply {
            version: VERSION,
            result,
            error,
            framing: CAPABILITIES,
            bearer: CAPABILITIES,
            max_channels: self.config.max_calls,
            firmware: self.config.firmware,
            host_name: self.config.host_name,
            vendor: self.config.vendor,
        })
    }

    fn call(&mut self, request: &OutgoingCallRequest, now: Time) {
        let peer_id = request.call_id;
        match self.state {
            State::Established => {}
            State::WaitStart => {
                self.send(&refused(
                    peer_id,
                    Refusal {
                        result: CallResult::GENERAL_ERROR,
                        error: GeneralError::NOT_CONNECTED,
                    },
                ));
                return;
            }
            State::WaitStopReply { .. } | State::Finished => {
                self.send(&refused(peer_id, Refusal::DO_NOT_ACCEPT));
                return;
            }
        }
        if let Some(call) = self.calls.iter().find(|call| call.peer_id == peer_id) {
            // The same request again: the same answer, or none while there is none.
            if let Some(id) = call.id {
                let reply = connected(call, id);
                self.send(&reply);
            }
            return;
        }
        // Calls that are still being set up may take the time they have, but they are the last ones.
        if now >= self.setup_until && !self.calls.iter().any(|call| call.up) {
            self.send(&refused(peer_id, Refusal::TIME_OUT));
            return;
        }
        if self.calls.len() >= usize::from(self.config.max_calls) {
            self.send(&refused(peer_id, Refusal::NO_RESOURCE));
            return;
        }
        self.calls.push(Call {
            peer_id,
            max_bps: request.max_bps,
            window: request.window,
            id: None,
            up: false,
        });
        self.push(ServerAction::Call(OutgoingCall {
            peer_id,
            serial: request.serial,
            min_bps: request.min_bps,
            max_bps: request.max_bps,
            window: request.window,
            our_window: our_window(request.window),
            delay: request.delay,
        }));
    }

    /// RFC 2637 §2.10: there is no line here that a call could come in by.
    fn refuse_incoming(&mut self, request: &IncomingCallRequest) {
        let (result, error) = match self.state {
            State::WaitStart => (IncomingResult::GENERAL_ERROR, GeneralError::NOT_CONNECTED),
            State::Established | State::WaitStopReply { .. } | State::Finished => {
                (IncomingResult::DO_NOT_ACCEPT, GeneralError::NONE)
            }
        };
        self.send(&Message::IncomingCallReply(IncomingCallReply {
            call_id: CallId(0),
            peer_call_id: request.call_id,
            result,
            error,
            window: 0,
            delay: 0,
        }));
    }

    fn clear(&mut self, call_id: CallId, now: Time) {
        match self.find(call_id) {
            Some(at) => self.clear_at(at, now),
            None if self.state == State::Established => self.send(&disconnect(
                call_id,
                DisconnectResult::GENERAL_ERROR,
                GeneralError::BAD_CALL_ID,
            )),
            None => {}
        }
    }

    /// The call that the client means. A NAT on the way may have changed the id in one message and not in the other,
    /// so when there is only one call it is that one.
    fn find(&self, call_id: CallId) -> Option<usize> {
        match self.calls.len() {
            1 => Some(0),
            _ => self.calls.iter().position(|call| call.peer_id == call_id),
        }
    }

    fn clear_at(&mut self, at: usize, now: Time) {
        let call = self.remove(at, now);
        match call.id {
            Some(id) => {
                self.send(&disconnect(
                    id,
                    DisconnectResult::REQUEST,
                    GeneralError::NONE,
                ));
                self.push(ServerAction::Cleared {
                    id,
                    by: ClearCause::Request,
                });
            }
            None => self.push(ServerAction::Withdrawn {
                peer_id: call.peer_id,
            }),
        }
    }

    fn remove(&mut self, at: usize, now: Time) -> Call {
        let call = self.calls.remove(at);
        if call.up {
            self.setup_until = now + self.config.setup_time;
        }
        call
    }

    fn finish(&mut self, end: End) {
        if self.state == State::Finished {
            return;
        }
        self.state = State::Finished;
        for call in core::mem::take(&mut self.calls) {
            self.push(match call.id {
                Some(id) => ServerAction::Cleared {
                    id,
                    by: ClearCause::Connection,
                },
                None => ServerAction::Withdrawn {
                    peer_id: call.peer_id,
                },
            });
        }
        self.push(ServerAction::Finished(end));
    }

    fn send(&mut self, message: &Message) {
        self.push(ServerAction::Send(message.emit()));
    }

    fn push(&mut self, action: ServerAction) {
        self.actions.push_back(action);
    }
}

fn connected(call: &Call, id: CallId) -> Message {
    Message::OutgoingCallReply(OutgoingCallReply {
        call_id: id,
        peer_call_id: call.peer_id,
        result: CallResult::CONNECTED,
        error: GeneralError::NONE,
        cause: 0,
        speed: call.max_bps,
        window: our_window(call.window),
        delay: 0,
        channel: 0,
    })
}

fn refused(peer_id: CallId, refusal: Refusal) -> Message {
    Message::OutgoingCallReply(OutgoingCallReply {
        call_id: CallId(0),
        peer_call_id: peer_id,
        result: refusal.result,
        error: refusal.error,
        cause: 0,
        speed: 0,
        window: 0,
        delay: 0,
        channel: 0,
    })
}

fn disconnect(id: CallId, result: DisconnectResult, error: GeneralError) -> Message {
    Message::CallDisconnectNotify(CallDisconnectNotify {
        call_id: id,
        result,
        error,
        cause: 0,
        statistics: Text::EMPTY,
    })
}
