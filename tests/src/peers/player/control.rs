//! The control connection of a scripted client.

use core::time::Duration;

use turnpike_protocol::CallId;
use turnpike_protocol::pptp::{
    CallResult, EchoResult, GeneralError, Message, OutgoingCallRequest, StartRequest, StartResult,
    StopResult, Text,
};

use super::super::Outcome;
use super::{Player, Said, hex};

impl Player<'_> {
    pub(super) fn start(&mut self) {
        let control = &self.profile.control;
        let message = Message::StartRequest(StartRequest {
            version: 0x0100,
            framing: control.framing,
            bearer: control.bearer,
            max_channels: control.channels,
            firmware: control.firmware,
            host_name: Text::from(control.host.as_str()),
            vendor: Text::from(control.vendor.as_str()),
        });
        let mut octets = message.emit();
        for (field, text) in [(28, &control.host), (92, &control.vendor)] {
            octets[field + text.len() + 1..field + 64].fill(control.padding);
        }
        self.write(&octets);
    }

    pub(super) fn tell(&mut self, message: &Message) {
        self.write(&message.emit());
    }

    fn write(&mut self, octets: &[u8]) {
        self.note(&format!("up TCP {}", hex(octets)));
        let echo = Duration::from_secs(self.profile.control.echo);
        self.echo_due = Some(self.server.now() + echo);
        self.said.push(Said::Tcp(octets.to_vec()));
        self.server.tcp(self.line, octets);
    }

    pub(super) fn hear(&mut self, octets: &[u8]) -> Outcome {
        self.note(&format!("down TCP {}", hex(octets)));
        let echo = Duration::from_secs(self.profile.control.echo);
        self.echo_due = Some(self.server.now() + echo);
        // The server writes one message at a time.
        match Message::parse(octets).map_err(|error| error.to_string())? {
            Message::StartReply(reply) => {
                if reply.result != StartResult::OK || reply.version != 0x0100 || self.started {
                    return Err(format!("{reply:?}"));
                }
                self.started = true;
                let control = &self.profile.control;
                self.tell(&Message::OutgoingCallRequest(OutgoingCallRequest {
                    call_id: CallId(control.call_id),
                    serial: control.serial,
                    min_bps: control.min_bps,
                    max_bps: control.max_bps,
                    bearer: control.call_bearer,
                    framing: control.call_framing,
                    window: control.window,
                    delay: control.delay,
                    phone: Text::EMPTY,
                    subaddress: Text::EMPTY,
                }));
            }
            Message::OutgoingCallReply(reply) => {
                let control = &self.profile.control;
                let good = reply.result == CallResult::CONNECTED
                    && reply.peer_call_id == CallId(control.call_id)
                    && reply.call_id != CallId(0)
                    && reply.window == control.window
                    && reply.speed == control.max_bps;
                if !good || self.call.is_some() {
                    return Err(format!("{reply:?}"));
                }
                self.call = Some(reply.call_id);
                if let Some([send_accm, receive_accm]) = control.link_info {
                    self.tell(&Message::SetLinkInfo {
                        peer_call_id: reply.call_id,
                        send_accm,
                        receive_accm,
                    });
                }
                self.link.start(self.server.now());
            }
            Message::EchoRequest { identifier } => self.tell(&Message::EchoReply {
                identifier,
                result: EchoResult::OK,
                error: GeneralError::NONE,
            }),
            Message::EchoReply { identifier: 77, .. } => {}
            Message::CallDisconnectNotify(notify) => {
                if Some(notify.call_id) != self.call {
                    return Err(format!("{notify:?}"));
                }
                self.cleared = true;
            }
            Message::StopReply { .. } => self.stopped = true,
            Message::StopRequest { .. } => {
                self.tell(&Message::StopReply {
                    result: StopResult::OK,
                    error: GeneralError::NONE,
                });
            }
            other => return Err(format!("the server says {other:?}")),
        }
        Ok(())
    }
}
