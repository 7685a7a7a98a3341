//! The calling side (PNS): RFC 2637 §3.1.1 and §3.2.4.2.

use std::collections::VecDeque;

use core::time::Duration;

use crate::Error;
use crate::pptp::codes::{
    CallResult, DisconnectResult, EchoResult, GeneralError, IncomingResult, StartResult,
    StopReason, StopResult,
};
use crate::pptp::decoder::{Decoder, Incoming};
use crate::pptp::keep_alive::{Due, KeepAlive};
use crate::pptp::message::{
    CallDisconnectNotify, IncomingCallReply, Message, OutgoingCallReply, OutgoingCallRequest,
    StartReply, StartRequest, WanErrors,
};
use crate::pptp::server::{CAPABILITIES, VERSION};
use crate::pptp::{CallId, End, PeerInfo, Text};
use crate::time::Time;

/// How a [`Caller`] behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerConfig {
    /// DNS name told to the server.
    pub host_name: Text<64>,
    /// Vendor told to the server.
    pub vendor: Text<64>,
    /// Driver version told to the server.
    pub firmware: u16,
    /// Receive window told to the server, in packets.
    pub window: u16,
    /// Highest speed asked for, in bits per second.
    pub max_bps: u32,
    /// How long the server may take to start the connection, or to answer for a call.
    pub setup_time: Duration,
    /// After so long without a message an Echo-Request goes out (RFC 2637 §3.1.4: 60 s).
    pub echo_interval: Duration,
    /// How long its answer may take (RFC 2637 §3.1.4: 60 s).
    pub echo_timeout: Duration,
    /// How long the server may take to answer our Stop-Control-Connection-Request, or our Call-Clear-Request.
    pub stop_timeout: Duration,
}

impl Default for CallerConfig {
    fn default() -> Self {
        Self {
            host_name: Text::EMPTY,
            vendor: Text::from("turnpike"),
            firmware: 1,
            window: 64,
            max_bps: 100_000_000,
            setup_time: Duration::from_secs(60),
            echo_interval: Duration::from_secs(60),
            echo_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
        }
    }
}

/// What the owner of a [`Caller`] has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallerAction {
    /// Send these octets.
    Send(Vec<u8>),
    /// The connection is up.
    Started(PeerInfo),
    /// A call is connected: GRE may flow.
    Connected {
        /// The id that we chose.
        id: CallId,
        /// The id that the server chose.
        peer_id: CallId,
        /// Speed in bits per second, as the server says.
        speed: u32,
        /// The server's receive window in packets.
        window: u16,
    },
    /// The server refused a call, or did not answer for it in time ([`CallResult::TIME_OUT`]).
    Refused {
        /// The id that we chose.
        id: CallId,
        /// Result.
        result: CallResult,
        /// Error.
        error: GeneralError,
    },
    /// A connected call is over.
    Disconnected {
        /// The id that we chose.
        id: CallId,
        /// What the server said, if it said something.
        result: Option<(DisconnectResult, GeneralError)>,
    },
    /// WAN-Error-Notify. For logs.
    WanError {
        /// The id that we chose, as the server says; not checked.
        id: CallId,
        /// Counts.
        errors: WanErrors,
    },
    /// Something arrived that makes no sense to a client here and was ignored. For logs.
    Ignored {
        /// Its control message type.
        control_type: u16,
    },
    /// Over: send what is queued, then close TCP. Calls that were open or asked for have been reported. The last
    /// action.
    Finished(End),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    WaitStartReply { until: Time },
    Established,
    WaitStopReply { until: Time },
    Finished,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallState {
    /// Not asked for yet: the connection is not up.
    Wanted,
    /// Asked for.
    WaitReply { until: Time },
    /// Connected, under the server's id.
    Connected { peer_id: CallId },
    /// We asked to clear it. Some servers never answer.
    WaitDisconnect { peer_id: CallId, until: Time },
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Call {
    id: CallId,
    state: CallState,
}

/// One control connection, seen from the client. Plain data; octets and time come in, [`CallerAction`]s come out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    config: CallerConfig,
    state: State,
    decoder: Decoder,
    keep_alive: KeepAlive,
    calls: Vec<Call>,
    serial: u16,
    actions: VecDeque<CallerAction>,
}

impl Caller {
    /// A connection that came up at `now`; Start-Control-Connection-Request is queued.
    pub fn new(config: CallerConfig, now: Time) -> Self {
        let mut caller = Self {
            state: State::WaitStartReply {
                until: now + config.setup_time,
            },
            decoder: Decoder::new(),
            keep_alive: KeepAlive::new(config.echo_interval, config.echo_timeout, now),
            calls: Vec::new(),
            serial: 0,
            actions: VecDeque::new(),
            config,
        };
        let request = Message::StartRequest(StartRequest {
            version: VERSION,
            framing: CAPABILITIES,
            bearer: CAPABILITIES,
            // RFC 2637 §2.1: 0 from a PNS.
            max_channels: 0,
            firmware: caller.config.firmware,
            host_name: caller.config.host_name,
            vendor: caller.config.vendor,
        });
        caller.send(&request);
        caller
    }

    /// Asks for a call under the id `id` that we chose, as soon as the connection is up. False when the id is used in
    /// this connection or the connection is closing.
    pub fn call(&mut self, id: CallId, now: Time) -> bool {
        if self.calls.iter().any(|call| call.id == id) {
            return false;
        }
        match self.state {
            State::WaitStartReply { .. } => {
                self.calls.push(Call {
                    id,
                    state: CallState::Wanted,
                });
                true
            }
            State::Established => {
                self.calls.push(Call {
                    id,
                    state: CallState::WaitReply {
                        until: now + self.config.setup_time,
                    },
                });
                self.ask(id);
                true
            }
            State::WaitStopReply { .. } | State::Finished => false,
        }
    }

    /// Ends a call: Call-Clear-Request. [`CallerAction::Disconnected`] follows when the server has answered, or has
    /// taken too long. False when there is no such call (any more), or it is being cleared.
    pub fn clear(&mut self, id: CallId, now: Time) -> bool {
        let Some(at) = self.calls.iter().position(|call| call.id == id) else {
            return false;
        };
        match self.calls[at].state {
            CallState::WaitDisconnect { .. } => return false,
            CallState::Wanted => {
                self.calls.remove(at);
                self.push(CallerAction::Disconnected { id, result: None });
                return true;
            }
            CallState::WaitReply { .. } => {
                // RFC 2637 §3.2.4.2: aborted while dialling; a reply that comes after this is ignored.
                self.calls.remove(at);
                self.push(CallerAction::Disconnected { id, result: None });
            }
            CallState::Connected { peer_id } => {
                self.calls[at].state = CallState::WaitDisconnect {
                    peer_id,
                    until: now + self.config.stop_timeout,
                };
            }
        }
        self.send(&Message::CallClearRequest { call_id: id });
        true
    }

    /// Sends Set-Link-Info for a connected call, as Windows does. False when there is no such call.
    pub fn set_link_info(&mut self, id: CallId, send_accm: u32, receive_accm: u32) -> bool {
        let peer = self.calls.iter().find_map(|call| match call.state {
            CallState::Connected { peer_id } if call.id == id => Some(peer_id),
            CallState::Connected { .. }
            | CallState::Wanted
            | CallState::WaitReply { .. }
            | CallState::WaitDisconnect { .. } => None,
        });
        let Some(peer_call_id) = peer else {
            return false;
        };
        self.send(&Message::SetLinkInfo {
            peer_call_id,
            send_accm,
            receive_accm,
        });
        true
    }

    /// Ends the connection and every call in it: Stop-Control-Connection-Request, and a bounded wait for the answer.
    pub fn stop(&mut self, reason: StopReason, now: Time) {
        match self.state {
            State::Finished | State::WaitStopReply { .. } => {}
            State::WaitStartReply { .. } => self.finish(End::StopAnswered),
            State::Established => {
                self.send(&Message::StopRequest { reason });
                self.state = State::WaitStopReply {
                    until: now + self.config.stop_timeout,
                };
            }
        }
    }

    /// Takes octets as they came. An error means that framing is lost: [`CallerAction::Finished`] is queued and TCP
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
                    self.push(CallerAction::Ignored { control_type });
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
    pub fn poll(&mut self) -> Option<CallerAction> {
        self.actions.pop_front()
    }

    /// When [`Caller::handle_timeout`] wants to be called; `None` when it is all over.
    pub fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Finished => None,
            State::WaitStartReply { until } | State::WaitStopReply { until } => Some(until),
            State::Established => {
                self.calls
                    .iter()
                    .filter_map(|call| match call.state {
                        CallState::WaitReply { until }
                        | CallState::WaitDisconnect { until, .. } => Some(until),
                        CallState::Wanted | CallState::Connected { .. } => None,
                    })
                    .chain([self.keep_alive.deadline()])
                    .min()
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        match self.state {
            State::Finished => {}
            State::WaitStartReply { until } => {
                if now >= until {
                    self.finish(End::NotStarted);
                }
            }
            State::WaitStopReply { until } => {
                if now >= until {
                    self.finish(End::StopUnanswered);
                }
            }
            State::Established => {
                self.expire_calls(now);
                match self.keep_alive.poll(now) {
                    Due::Nothing => {}
                    Due::Ask(identifier) => self.send(&Message::EchoRequest { identifier }),
                    Due::Dead => self.finish(End::EchoUnanswered),
                }
            }
        }
    }

    /// Whether [`CallerAction::Finished`] has been queued.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    fn expire_calls(&mut self, now: Time) {
        while let Some(at) = self.calls.iter().position(|call| match call.state {
            CallState::WaitReply { until } | CallState::WaitDisconnect { until, .. } => {
                now >= until
            }
            CallState::Wanted | CallState::Connected { .. } => false,
        }) {
            let call = self.calls.remove(at);
            if let CallState::WaitReply { .. } = call.state {
                self.send(&Message::CallClearRequest { call_id: call.id });
                self.push(CallerAction::Refused {
                    id: call.id,
                    result: CallResult::TIME_OUT,
                    error: GeneralError::NONE,
                });
            } else {
                self.push(CallerAction::Disconnected {
                    id: call.id,
                    result: None,
                });
            }
        }
    }

    fn handle(&mut self, message: Message, now: Time) {
        let control_type = message.control_type();
        match message {
            Message::StartReply(reply) => self.started(&reply, now),
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
                    self.push(CallerAction::Ignored { control_type });
                }
            }
            Message::EchoRequest { identifier } => self.send(&Message::EchoReply {
                identifier,
                result: EchoResult::OK,
                error: GeneralError::NONE,
            }),
            Message::EchoReply { .. } => {}
            Message::OutgoingCallReply(reply) => self.answered(&reply),
            Message::CallDisconnectNotify(notify) => self.disconnected(&notify),
            Message::IncomingCallRequest(request) => {
                self.send(&Message::IncomingCallReply(IncomingCallReply {
                    call_id: CallId(0),
                    peer_call_id: request.call_id,
                    result: IncomingResult::DO_NOT_ACCEPT,
                    error: GeneralError::NONE,
                    window: 0,
                    delay: 0,
                }));
            }
            Message::WanErrorNotify {
                peer_call_id,
                errors,
            } => self.push(CallerAction::WanError {
                id: peer_call_id,
                errors,
            }),
            Message::StartRequest(_)
            | Message::OutgoingCallRequest(_)
            | Message::IncomingCallReply(_)
            | Message::IncomingCallConnected(_)
            | Message::CallClearRequest { .. }
            | Message::SetLinkInfo { .. } => self.push(CallerAction::Ignored { control_type }),
        }
    }

    fn started(&mut self, reply: &StartReply, now: Time) {
        let State::WaitStartReply { .. } = self.state else {
            self.push(CallerAction::Ignored { control_type: 2 });
            return;
        };
        // Some modems answer 0 and mean 1.
        if reply.result != StartResult::OK && reply.result != StartResult(0) {
            self.finish(End::RefusedByPeer(reply.result, reply.error));
            return;
        }
        self.state = State::Established;
        self.push(CallerAction::Started(PeerInfo {
            host_name: reply.host_name,
            vendor: reply.vendor,
            version: reply.version,
            firmware: reply.firmware,
            framing: reply.framing,
            bearer: reply.bearer,
            max_channels: reply.max_channels,
        }));
        let until = now + self.config.setup_time;
        for at in 0..self.calls.len() {
            self.calls[at].state = CallState::WaitReply { until };
            self.ask(self.calls[at].id);
        }
    }

    fn ask(&mut self, id: CallId) {
        self.serial = self.serial.wrapping_add(1);
        let request = Message::OutgoingCallRequest(OutgoingCallRequest {
            call_id: id,
            serial: self.serial,
            min_bps: 300,
            max_bps: self.config.max_bps,
            bearer: CAPABILITIES,
            framing: CAPABILITIES,
            window: self.config.window,
            delay: 0,
            phone: Text::EMPTY,
            subaddress: Text::EMPTY,
        });
        self.send(&request);
    }

    fn answered(&mut self, reply: &OutgoingCallReply) {
        let id = reply.peer_call_id;
        let waiting = self
            .calls
            .iter()
            .position(|call| call.id == id && matches!(call.state, CallState::WaitReply { .. }));
        let Some(at) = waiting else {
            self.push(CallerAction::Ignored { control_type: 8 });
            return;
        };
        if reply.result == CallResult::CONNECTED {
            self.calls[at].state = CallState::Connected {
                peer_id: reply.call_id,
            };
            self.push(CallerAction::Connected {
                id,
                peer_id: reply.call_id,
                speed: reply.speed,
                window: reply.window,
            });
        } else {
            self.calls.remove(at);
            self.push(CallerAction::Refused {
                id,
                result: reply.result,
                error: reply.error,
            });
        }
    }

    fn disconnected(&mut self, notify: &CallDisconnectNotify) {
        let named = self.calls.iter().position(|call| match call.state {
            CallState::Connected { peer_id } | CallState::WaitDisconnect { peer_id, .. } => {
                peer_id == notify.call_id
            }
            CallState::Wanted | CallState::WaitReply { .. } => false,
        });
        // pptpd names another id; a single call is meant all the same.
        let at = named.or_else(|| {
            (self.calls.len() == 1
                && matches!(
                    self.calls[0].state,
                    CallState::Connected { .. } | CallState::WaitDisconnect { .. }
                ))
            .then_some(0)
        });
        let Some(at) = at else {
            self.push(CallerAction::Ignored { control_type: 13 });
            return;
        };
        let call = self.calls.remove(at);
        self.push(CallerAction::Disconnected {
            id: call.id,
            result: Some((notify.result, notify.error)),
        });
    }

    fn finish(&mut self, end: End) {
        if self.state == State::Finished {
            return;
        }
        self.state = State::Finished;
        for call in core::mem::take(&mut self.calls) {
            self.push(CallerAction::Disconnected {
                id: call.id,
                result: None,
            });
        }
        self.push(CallerAction::Finished(end));
    }

    fn send(&mut self, message: &Message) {
        self.push(CallerAction::Send(message.emit()));
    }

    fn push(&mut self, action: CallerAction) {
        self.actions.push_back(action);
    }
}
