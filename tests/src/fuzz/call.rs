//! A whole call fed with noise: octets of its control connection and of its GRE, in any state that it gets to, while a
//! good call of somebody else has to stay up.

use std::mem::discriminant;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::Duration;

use turnpike_protocol::gre::Seq;
use turnpike_protocol::pptp::Message;
use turnpike_protocol::wire::{gre, ppp};

use super::input::chunk;
use super::{Input, Trace};
use crate::concentrator::{Concentrator, Output};
use crate::peers::{Lost, Method, Mppe, Player, Profile, Said, Wish};

/// Where the noise comes from.
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// Steps of one input.
const MOST_STEPS: usize = 64;
/// Control connections of one input.
const MOST_LINES: usize = 4;
/// A packet of IP over Ethernet.
const MOST_OCTETS: usize = 1400;
/// Everything of a call whose client is gone is gone within this time.
const FORGOTTEN: Duration = Duration::from_secs(20);

const USUAL: Wish = Wish {
    method: Method::MsChapV2,
    mppe: Mppe::keys(128, true),
};

/// What the input asks for.
mod step {
    pub const TCP: u8 = 0;
    pub const FRAME: u8 = 1;
    pub const GRE: u8 = 2;
    pub const WAIT: u8 = 3;
    pub const JUMP: u8 = 4;
    pub const CLOSE: u8 = 5;
    pub const DATA: u8 = 6;
    pub const COUNT: u8 = 7;
}

fn profiles() -> &'static [Profile] {
    static PROFILES: OnceLock<Vec<Profile>> = OnceLock::new();
    PROFILES.get_or_init(Profile::all)
}

/// Somebody who says whatever the input says.
struct Stranger {
    line: Option<usize>,
    lines: usize,
    /// The id that the server chose for the last call.
    call: turnpike_protocol::CallId,
    seq: Seq,
}

/// The noise.
pub fn call(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut witness = Player::new(&profiles()[0], USUAL, Lost::Nothing);
    assert_eq!(witness.dial(), Ok(true), "the good call does not come up");
    let mut input = Input(octets);
    let mut stranger = Stranger {
        line: None,
        lines: 0,
        call: turnpike_protocol::CallId(0),
        seq: Seq(0),
    };
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        stranger.step(&mut input, &mut witness);
        witness.wait(Duration::ZERO).expect("the good call stays");
        stranger.look(&mut witness, &mut trace);
    }
    // The good call is as good as before, and of the others nothing is left.
    witness.move_data(2).expect("the good call works");
    if let Some(line) = stranger.line {
        witness.server.hang_up(line);
    }
    witness.wait(FORGOTTEN).expect("the good call stays");
    witness.move_data(2).expect("the good call works");
    stranger.look(&mut witness, &mut trace);
    for line in 1..=stranger.lines {
        assert!(witness.server.snapshots(line).is_empty());
    }
    let (came, went) = witness.server.balance();
    assert_eq!(came, went, "packets are lost without a name");
    for ended in witness.server.ended() {
        trace.note((ended.cause, ended.user.is_some(), ended.up.is_some()));
    }
    for (reason, _) in witness.server.drops() {
        trace.note(reason);
    }
    trace.note(witness.server.judged().min(4));
    trace
}

impl Stranger {
    fn step(&mut self, input: &mut Input<'_>, witness: &mut Player<'_>) {
        let server = &mut witness.server;
        match input.octet() % step::COUNT {
            step::TCP => {
                let octets = input.chunk();
                let line = match self.line {
                    Some(line) => line,
                    None if self.lines < MOST_LINES => {
                        self.lines += 1;
                        *self.line.insert(server.connect(STRANGER))
                    }
                    None => return,
                };
                server.tcp(line, octets);
            }
            step::FRAME => {
                let frame = input.chunk();
                self.send(server, &frame[..frame.len().min(MOST_OCTETS)]);
            }
            step::GRE => {
                let packet = input.chunk();
                server.gre(STRANGER, &packet[..packet.len().min(MOST_OCTETS)]);
            }
            step::WAIT => {
                let time = Duration::from_millis(input.u16().into());
                witness.wait(time).expect("the good call stays");
            }
            step::JUMP => self.seq = Seq(self.seq.0.wrapping_add(input.u32())),
            step::CLOSE => {
                if let Some(line) = self.line.take() {
                    server.hang_up(line);
                }
            }
            // Something for the stranger's address, should it have one.
            _ => {
                let mut packet = turnpike_protocol::wire::ipv4::Header {
                    source: Ipv4Addr::new(192, 0, 2, 1),
                    destination: Ipv4Addr::new(10, 20, 0, 11),
                    protocol: 17,
                    ttl: 64,
                    traffic_class: 0,
                    ident: 0,
                    dont_fragment: false,
                    payload_len: 600,
                }
                .to_bytes()
                .to_vec();
                packet.resize(620, input.octet());
                server.from_linux(&packet);
            }
        }
    }

    fn send(&mut self, server: &mut Concentrator, frame: &[u8]) {
        let header = gre::Header {
            call_id: self.call,
            seq: Some(self.seq),
            ack: None,
            payload_len: u16::try_from(frame.len()).expect("a short frame"),
        };
        self.seq = self.seq.next();
        let mut packet = vec![0; header.len()];
        header.emit(&mut packet).expect("room for a header");
        packet.extend_from_slice(frame);
        server.gre(STRANGER, &packet);
    }

    /// What the server says to it.
    fn look(&mut self, witness: &mut Player<'_>, trace: &mut Trace) {
        for output in witness.others.drain(..) {
            trace.note(discriminant(&output));
            match output {
                Output::Tcp(_, octets) => {
                    let message = Message::parse(&octets).expect("a message that is whole");
                    trace.note(discriminant(&message));
                    if let Message::OutgoingCallReply(reply) = message {
                        trace.note(reply.result.0);
                        if reply.call_id.0 != 0 {
                            self.call = reply.call_id;
                        }
                    }
                }
                Output::Closed(line) => {
                    if self.line == Some(line) {
                        self.line = None;
                    }
                }
                Output::Gre { to, packet } => {
                    assert_eq!(to, STRANGER, "GRE for somebody who is not there");
                    let header = gre::Packet::parse(&packet).expect("GRE that is whole");
                    let payload = &packet[header.payload_range()];
                    if let Ok(frame) = ppp::Frame::parse(payload) {
                        trace.note((frame.protocol.0, payload.get(frame.header_len)));
                    }
                }
                Output::Inner(_) => {}
            }
        }
    }
}

/// Whole calls of known clients, as a stranger would make them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for profile in profiles() {
        let mut server = Concentrator::new(USUAL.settings());
        // In the noise the good call was first.
        server.skip();
        let mut player = Player::with(server, profile, USUAL, Lost::Nothing);
        assert_eq!(player.dial(), Ok(true), "{}", profile.name);
        player.move_data(2).expect("data moves");
        let mut seed = Vec::new();
        for said in &player.said {
            let (what, octets) = match said {
                Said::Tcp(octets) => (step::TCP, octets),
                Said::Frame(frame) => (step::FRAME, frame),
            };
            seed.push(what);
            seed.extend(chunk(octets));
        }
        seed.extend([step::DATA, 7]);
        seeds.push(seed);
    }
    let junk = [&[step::GRE][..], &chunk(&[0x30, 0x01, 0x88, 0x0b])].concat();
    seeds.push(
        [
            &junk[..],
            &[step::WAIT, 0x40, 0, step::JUMP, 0, 0, 1, 0, step::CLOSE],
        ]
        .concat(),
    );
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The noise starts from calls that come up: else it would only ever know the door.
    #[test]
    fn seeds_are_calls() {
        for (seed, profile) in seeds().iter().zip(profiles()) {
            let mut witness = Player::new(&profiles()[0], USUAL, Lost::Nothing);
            assert_eq!(witness.dial(), Ok(true));
            let mut stranger = Stranger {
                line: None,
                lines: 0,
                call: turnpike_protocol::CallId(0),
                seq: Seq(0),
            };
            let mut input = Input(seed);
            while !input.is_empty() {
                stranger.step(&mut input, &mut witness);
                witness.wait(Duration::ZERO).unwrap();
                stranger.look(&mut witness, &mut Trace::default());
            }
            let calls = witness.server.snapshots(1);
            assert!(
                calls.len() == 1 && calls[0].link.as_ref().unwrap().terms.is_some(),
                "{}: {calls:?}",
                profile.name
            );
        }
    }
}
