//! What travels in the world: frames, octets of control connections, data, and farewells.

use core::net::Ipv4Addr;
use core::time::Duration;

use turnpike_controlplane::cause::Cause;
use turnpike_dataplane::api::{CallRef, Port};
use turnpike_protocol::Time;
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::wire::ethernet::{self};

use super::model::Way;
use super::network::{Kind, Sky, describe, kind};
use super::play::{Happening, Outcome, World};
use super::story::{Ending, Person};
use super::trial::Fate;

impl World {
    /// Takes what the workers sent, and gives it to the network or to the model.
    pub(super) fn frames(&mut self) -> Outcome<bool> {
        let mut any = false;
        for worker in 0..=self.server.len() {
            let (node, direction) = match self.server.get_mut(worker) {
                Some(node) => (node, 1),
                None => (&mut self.client, 0),
            };
            let out = node.sent(Port::Access);
            let inner = node.sent(Port::Host);
            any |= !out.is_empty() || !inner.is_empty();
            for frame in out {
                self.carry(frame, direction)?;
            }
            for frame in inner {
                let way = if direction == 1 { Way::Up } else { Way::Down };
                self.model.came(&frame[ethernet::HEADER_LEN..], way)?;
            }
        }
        Ok(any)
    }

    pub(super) fn carry(&mut self, frame: Vec<u8>, direction: usize) -> Outcome {
        let kind = kind(&frame)?;
        match (kind, self.story.mppe) {
            (Kind::Clear, Policy::Require) => {
                return Err("data left in clear although encryption is required".to_owned());
            }
            (Kind::Encrypted, Policy::Deny) => {
                return Err("data was encrypted although nobody wanted it".to_owned());
            }
            _ => {}
        }
        // The last octet of the client's address: which queue its packets come by.
        let client = ethernet::HEADER_LEN + 15;
        let to = match direction {
            0 => Some(usize::from(frame.get(client).copied().unwrap_or(0)) % self.server.len()),
            _ => None,
        };
        let fate = match &mut self.trial {
            Some(trial) => trial.fate(&frame, direction)?,
            None => Fate::default(),
        };
        if fate.again {
            self.send_again(&frame)?;
        }
        let line = match (&self.trace, kind) {
            (Some(_), Kind::CcpAck | Kind::Control) => describe(&frame),
            _ => None,
        };
        let sky = Sky {
            weather: &self.story.weather,
            bad: self.bad,
            now: self.now,
        };
        let mut arrivals =
            self.wires[direction].carry(frame, kind, sky, &mut self.chance, &mut self.model.tally);
        if fate.lost {
            arrivals.clear();
        }
        if let Some(trial) = &mut self.trial {
            trial.shift(&mut arrivals, direction, fate);
        }
        if let (Some(trace), Some(line)) = (&mut self.trace, line) {
            let times: Vec<_> = arrivals.iter().map(|(at, _)| at.since(self.now)).collect();
            trace.push(format!(
                "{:?} {} {line}, arrives after {times:?}",
                self.now.since(Time::ZERO),
                ["up", "down"][direction]
            ));
        }
        for (at, frame) in arrivals {
            self.plan(at, Happening::Frame(to, frame));
        }
        Ok(())
    }

    pub(super) fn tcp(&mut self, at: usize, to_server: bool, octets: &[u8]) {
        let delay = self.story.weather.delay;
        let connection = &mut self.connections[at];
        let stream = if to_server {
            &mut connection.up
        } else {
            &mut connection.down
        };
        for (time, piece) in stream.carry(octets, delay, self.now, &mut self.chance) {
            self.plan(
                time,
                if to_server {
                    Happening::ToServer(at, piece)
                } else {
                    Happening::ToClient(at, piece)
                },
            );
        }
    }

    /// One end closes TCP; the other one hears of it after everything that was sent.
    pub(super) fn close(&mut self, at: usize, by_client: bool) {
        let delay = self.story.weather.delay;
        let connection = &mut self.connections[at];
        let (open, stream) = if by_client {
            (&mut connection.client_open, &mut connection.up)
        } else {
            (&mut connection.server_open, &mut connection.down)
        };
        if !core::mem::take(open) {
            return;
        }
        let time = stream.arrival(delay, self.now, &mut self.chance);
        self.plan(
            time,
            if by_client {
                Happening::ClientGone(at)
            } else {
                Happening::ServerGone(at)
            },
        );
    }

    pub(super) fn leave(&mut self, at: usize, ending: Ending) -> Outcome {
        let now = self.now;
        let connection = &mut self.connections[at];
        if connection.leaving {
            return Ok(());
        }
        connection.leaving = true;
        self.model.tally.count(ending.name());
        match ending {
            Ending::HangUp => connection.subscriber.hang_up(now),
            Ending::ShutDown => connection.tunnel.shut_down(Cause::ServerStopping, now),
            Ending::Kill => {
                let calls: Vec<CallRef> = connection
                    .tunnel
                    .snapshots()
                    .map(|snapshot| snapshot.call)
                    .collect();
                for call in calls {
                    connection.tunnel.kill(call, Cause::Killed, now);
                }
                // An operator kills calls; connections without a call end by themselves, later.
                connection.subscriber.hang_up(now);
            }
            Ending::Cut => {
                connection.client_open = false;
                if !connection.subscriber.is_finished() {
                    connection.subscriber.connection_lost(now);
                }
                let at_server = now + self.chance.up_to(Duration::from_secs(2));
                self.plan(at_server, Happening::ClientGone(at));
            }
        }
        let person = &self.connections[at].person;
        if self.bad && person.leaves.is_some() {
            let again = Person {
                leaves: None,
                ..person.clone()
            };
            let later = now + self.chance.up_to(Duration::from_secs(2));
            self.plan(later, Happening::Dial(again));
        }
        Ok(())
    }

    pub(super) fn data(&mut self, address: Ipv4Addr, way: Way) -> Outcome {
        // The client must think so, too: nobody else has packets with this source.
        let online = self.online().any(|other| other == address);
        if !online || !self.model.has(address) {
            return Ok(());
        }
        let filler = self.chance.below(1_300) as usize;
        if let Some(packet) = self.model.packet(address, way, filler) {
            match way {
                Way::Up => self.client.arrive_from_linux(&packet)?,
                Way::Down => {
                    let worker = self.chance.below(self.server.len() as u32) as usize;
                    self.server[worker].arrive_from_linux(&packet)?;
                }
            }
        }
        if self.busy {
            let later = self.now + self.chance.up_to(Duration::from_millis(120));
            self.plan(later, Happening::Data(address, way));
        }
        Ok(())
    }
}

/// A packet for an address, of nobody.
pub(super) fn stray(address: Ipv4Addr) -> Vec<u8> {
    let mut packet = turnpike_protocol::wire::ipv4::Header {
        source: super::model::REMOTE,
        destination: address,
        protocol: turnpike_protocol::wire::ipv4::UDP,
        ttl: 64,
        traffic_class: 0,
        ident: 0,
        dont_fragment: false,
        payload_len: 8,
    }
    .to_bytes()
    .to_vec();
    packet.extend([0; 8]);
    packet
}
