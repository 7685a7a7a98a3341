//! The GRE end of many calls, without a worker: numbers, acknowledgements and control frames, and no data.

use std::collections::HashMap;

use turnpike_dataplane::api::{CallCounters, CallRef, Command, Event, FrameBytes};
use turnpike_protocol::gre::{Receiver, Sender};
use turnpike_protocol::wire::{gre, ppp};
use turnpike_protocol::{CallId, Time};

struct Call {
    call: CallRef,
    peer_id: CallId,
    sender: Sender,
    receiver: Receiver,
    counters: CallCounters,
}

/// Every call that is open, by the id that we chose.
#[derive(Default)]
pub(super) struct Calls(HashMap<CallId, Call>);

/// What is to be done for a command or a packet.
#[derive(Default)]
pub(super) struct Done {
    /// A GRE packet to send, with its header.
    pub(super) packet: Option<Vec<u8>>,
    /// What the call's link has to hear.
    pub(super) event: Option<Event>,
}

impl Calls {
    /// Does what a worker would do with a command. Keys and routes are for data, which there is none of.
    pub(super) fn command(&mut self, command: &Command) -> Done {
        let mut done = Done::default();
        match command {
            Command::Open { call, peer_id, .. } => {
                self.0.insert(
                    call.id,
                    Call {
                        call: *call,
                        peer_id: *peer_id,
                        sender: Sender::default(),
                        receiver: Receiver::default(),
                        counters: CallCounters::default(),
                    },
                );
            }
            Command::Send { call, frame } => {
                if let Some(call) = self.0.get_mut(&call.id) {
                    done.packet = Some(call.data(frame));
                }
            }
            Command::Query { call } => {
                if let Some(Call { call, counters, .. }) = self.0.get(&call.id) {
                    let (call, counters) = (*call, *counters);
                    done.event = Some(Event::Counters { call, counters });
                }
            }
            Command::Close { call } => {
                if let Some(Call { call, counters, .. }) = self.0.remove(&call.id) {
                    done.event = Some(Event::Closed { call, counters });
                }
            }
            _ => {}
        }
        done
    }

    /// A GRE packet came. One for a call that is over, or that is none, is nothing.
    pub(super) fn receive(&mut self, octets: &[u8], now: Time) -> Done {
        let mut done = Done::default();
        let Ok(packet) = gre::Packet::parse(octets) else {
            return done;
        };
        let Some(call) = self.0.get_mut(&packet.call_id) else {
            return done;
        };
        call.counters.gre_received += 1;
        if let Some(ack) = packet.ack {
            call.sender.acknowledged(ack);
        }
        let Some(seq) = packet.seq else {
            return done;
        };
        if !call.receiver.accept(seq).is_delivered() {
            return done;
        }
        call.receiver.note_received(now);
        let frame = &octets[packet.payload_range()];
        let control = ppp::Frame::parse(frame).is_ok_and(|header| !header.protocol.is_data());
        done.event = control
            .then(|| FrameBytes::new(frame))
            .flatten()
            .map(|frame| Event::Frame {
                call: call.call,
                frame,
            });
        done
    }

    /// The acknowledgement that a call still owes after everything that it had to say has been said.
    pub(super) fn acknowledge(&mut self, id: CallId) -> Option<Vec<u8>> {
        let call = self.0.get_mut(&id)?;
        let ack = call.receiver.ack_to_send()?;
        let header = gre::Header {
            call_id: call.peer_id,
            seq: None,
            ack: Some(ack),
            payload_len: 0,
        };
        Some(call.packet(header, &[]))
    }

    /// Nothing more is known of a call, nor said about it.
    pub(super) fn forget(&mut self, id: CallId) {
        self.0.remove(&id);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Call {
    fn data(&mut self, frame: &[u8]) -> Vec<u8> {
        let header = gre::Header {
            call_id: self.peer_id,
            seq: Some(self.sender.next()),
            ack: self.receiver.ack_to_send(),
            // A frame is never longer than MAX_FRAME.
            payload_len: frame.len() as u16,
        };
        self.packet(header, frame)
    }

    fn packet(&mut self, header: gre::Header, frame: &[u8]) -> Vec<u8> {
        self.counters.gre_sent += 1;
        let mut octets = vec![0; header.len()];
        // There is room for it: it was just made.
        let _ = header.emit(&mut octets);
        octets.extend_from_slice(frame);
        octets
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use turnpike_protocol::gre::Seq;

    use super::*;

    const FRAME: [u8; 8] = [0xff, 3, 0xc0, 0x21, 1, 1, 0, 4];
    const CALL: CallRef = CallRef {
        local: Ipv4Addr::new(10, 7, 1, 1),
        peer: Ipv4Addr::new(10, 7, 0, 1),
        id: CallId(9),
    };

    fn from_server(seq: u32, ack: Option<u32>, frame: &[u8]) -> Vec<u8> {
        let header = gre::Header {
            call_id: CALL.id,
            seq: Some(Seq(seq)),
            ack: ack.map(Seq),
            payload_len: frame.len() as u16,
        };
        let mut octets = vec![0; header.len()];
        header.emit(&mut octets).unwrap();
        octets.extend_from_slice(frame);
        octets
    }

    #[test]
    fn frames_are_numbered_and_acknowledged_once() {
        let mut calls = Calls::default();
        assert!(
            calls
                .receive(&from_server(0, None, &FRAME), Time::ZERO)
                .event
                .is_none()
        );
        calls.command(&Command::Open {
            call: CALL,
            peer_id: CallId(77),
            via: CALL.peer,
            window: 64,
        });
        let send = || Command::Send {
            call: CALL,
            frame: FrameBytes::new(&FRAME).unwrap(),
        };
        for (number, ack) in [(0, None), (1, Some(Seq(5))), (2, None)] {
            let octets = calls.command(&send()).packet.unwrap();
            let packet = gre::Packet::parse(&octets).unwrap();
            assert_eq!(packet.call_id, CallId(77));
            assert_eq!((packet.seq, packet.ack), (Some(Seq(number)), ack));
            assert_eq!(octets[packet.payload_range()], FRAME);
            if number == 0 {
                let done = calls.receive(&from_server(5, Some(0), &FRAME), Time::ZERO);
                assert!(
                    matches!(done.event, Some(Event::Frame { call, frame }) if call == CALL && *frame == FRAME)
                );
            }
        }
        // The same number again, and data.
        assert!(
            calls
                .receive(&from_server(5, None, &FRAME), Time::ZERO)
                .event
                .is_none()
        );
        assert!(
            calls
                .receive(&from_server(6, None, &[0x21, 0x45]), Time::ZERO)
                .event
                .is_none()
        );
        let octets = calls.acknowledge(CALL.id).unwrap();
        let packet = gre::Packet::parse(&octets).unwrap();
        assert_eq!((packet.seq, packet.ack), (None, Some(Seq(6))));
        assert!(calls.acknowledge(CALL.id).is_none());

        let done = calls.command(&Command::Close { call: CALL });
        let Some(Event::Closed { counters, .. }) = done.event else {
            panic!("not closed");
        };
        assert_eq!((counters.gre_sent, counters.gre_received), (4, 3));
        assert_eq!(calls.len(), 0);
        assert!(calls.command(&send()).packet.is_none());
    }
}
