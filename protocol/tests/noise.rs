//! A link under noise: at every point of a call, random frames, frames of the call changed in a few octets, timers in
//! any order. Nothing panics, nothing grows without bound, nothing comes up that should not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and can trace what they do"
)]

#[path = "pair/harness.rs"]
#[allow(dead_code, reason = "one harness, several tests")]
mod harness;

use std::time::Duration;

use harness::{Pair, Side, client, server};
use proptest::prelude::*;
use turnpike_protocol::Time;
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::{
    Action, ClientLink, Credentials, Encryption, Link, PhaseName, Remedy, ServerLink, Verdict,
};

/// More actions than any one input asks for.
const MAX_ACTIONS: usize = 12;

#[derive(Clone, Debug)]
enum Input {
    /// Octets that may be anything.
    Anything(Vec<u8>),
    /// A control packet with a right length and options of any kind.
    Packet {
        protocol: u16,
        code: u8,
        identifier: u8,
        data: Vec<u8>,
    },
    /// A frame of the call so far, with some octets changed.
    Changed { which: usize, at: usize, to: u8 },
    /// Time passes.
    Wait(Duration),
    /// A verdict, asked for or not.
    Verdict(bool),
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let option = (
        prop::sample::select(vec![
            0u8, 1, 2, 3, 5, 7, 8, 13, 17, 18, 26, 129, 130, 131, 132,
        ]),
        prop::collection::vec(any::<u8>(), 0..7),
        prop::bool::weighted(0.02),
    );
    prop::collection::vec(option, 0..6).prop_map(|options| {
        let mut data = Vec::new();
        for (kind, value, broken) in options {
            data.push(kind);
            data.push(u8::try_from(value.len() + 2).unwrap() + u8::from(broken) * 9);
            data.extend(value);
        }
        data
    })
}

fn input() -> impl Strategy<Value = Input> {
    let protocols = vec![
        0xc021u16, 0xc223, 0x80fd, 0x8021, 0x8057, 0xc023, 0x0021, 0x00fd,
    ];
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Input::Anything),
        6 => (prop::sample::select(protocols), 0u8..17, 0u8..6, prop_oneof![options(), prop::collection::vec(any::<u8>(), 0..80)])
            .prop_map(|(protocol, code, identifier, data)| Input::Packet { protocol, code, identifier, data }),
        3 => (any::<usize>(), any::<usize>(), any::<u8>())
            .prop_map(|(which, at, to)| Input::Changed { which, at, to }),
        1 => (0u64..5000).prop_map(|time| Input::Wait(Duration::from_millis(time))),
        1 => any::<bool>().prop_map(Input::Verdict),
    ]
}

fn frame(protocol: u16, code: u8, identifier: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff, 0x03];
    frame.extend(protocol.to_be_bytes());
    frame.extend([code, identifier]);
    frame.extend(u16::try_from(data.len() + 4).unwrap().to_be_bytes());
    frame.extend(data);
    frame
}

/// A call that has gone on for `frames` deliveries, its ends, and the frames that each had from the other.
fn call(frames: u32, seed: u64) -> (Pair, [Vec<Vec<u8>>; 2]) {
    let mut pair = Pair::new(client(), server(), seed);
    let mut left = frames;
    pair.filter = Box::new(move |_, _| {
        let stop = left == 0;
        left = left.saturating_sub(1);
        stop
    });
    pair.open();
    pair.run(Duration::from_secs(1), |pair| pair.counts.sent > frames);
    let heard = [pair.server().sent.clone(), pair.client().sent.clone()];
    (pair, heard)
}

/// What a link was told and wants, watched.
struct Watched {
    link: Link,
    now: Time,
    asked: Vec<Credentials>,
    loaded: bool,
}

impl Watched {
    fn drain(&mut self) {
        for count in 0.. {
            let Some(action) = self.link.poll() else {
                break;
            };
            assert!(count < MAX_ACTIONS, "too much for one input");
            match action {
                Action::Send(frame) => {
                    assert!(frame.starts_with(&[0xff, 0x03]));
                    assert!((8..=580).contains(&frame.len()), "{} octets", frame.len());
                }
                Action::Authenticate(credentials) => self.asked.push(credentials),
                Action::Choose(_) => self.link.chosen(false, self.now),
                Action::Load { .. } => self.loaded = true,
                Action::Up(terms) => {
                    if terms.encryption == Encryption::Required {
                        assert!(self.loaded, "encryption without keys");
                    }
                    assert!((576 - 4..=1400).contains(&terms.mtu), "{}", terms.mtu);
                    assert!(!terms.address.is_unspecified());
                }
                Action::Hold | Action::Up6(_) | Action::Hold6 | Action::Finished(_) => {}
            }
        }
    }

    fn take(&mut self, input: &Input, heard: &[Vec<u8>]) {
        match input {
            Input::Anything(octets) => self.link.handle_frame(octets, self.now),
            Input::Packet {
                protocol,
                code,
                identifier,
                data,
            } => self
                .link
                .handle_frame(&frame(*protocol, *code, *identifier, data), self.now),
            Input::Changed { which, at, to } => {
                if heard.is_empty() {
                    return;
                }
                let mut frame = heard[which % heard.len()].clone();
                let at = at % frame.len();
                frame[at] = *to;
                self.link.handle_frame(&frame, self.now);
            }
            Input::Wait(time) => {
                let end = self.now + *time;
                while let Some(due) = self.link.deadline().filter(|due| *due <= end) {
                    self.now = self.now.max(due);
                    self.link.handle_timeout(self.now);
                    self.drain();
                }
                self.now = end;
            }
            Input::Verdict(accept) => {
                let verdict = match self.asked.pop() {
                    Some(credentials) if *accept => harness::local_verdict(&credentials),
                    _ => Verdict::Reject {
                        code: 691,
                        message: String::new(),
                        remedy: Remedy::None,
                    },
                };
                self.link.verdict(verdict, self.now);
            }
        }
        self.drain();
    }
}

proptest! {
    #[test]
    fn links_live_through_noise(
        frames in 0u32..30,
        seed in 0u64..50,
        inputs in prop::collection::vec(input(), 1..120),
    ) {
        let (pair, heard) = call(frames, seed);
        let now = pair.now;
        for (end, heard) in pair.ends.into_iter().zip(heard) {
            let mut watched = Watched {
                loaded: end.receive.running.is_some(),
                link: end.link,
                now,
                asked: Vec::new(),
            };
            watched.drain();
            for input in &inputs {
                watched.take(input, &heard);
            }
            // Whatever state the noise left, a link ends when it is told to, in time.
            watched.link.close(turnpike_protocol::ppp::CloseReason::Shutdown, watched.now);
            watched.drain();
            watched.take(&Input::Wait(Duration::from_secs(30)), &heard);
            prop_assert_eq!(watched.link.info().phase, PhaseName::Dead);
            prop_assert_eq!(watched.link.deadline(), None);
        }
    }

    /// Whatever a stranger says to a server that requires encryption, it never lets data flow without.
    #[test]
    fn nothing_talks_a_server_out_of_encryption(
        seed in 0u64..50,
        inputs in prop::collection::vec(input(), 1..80),
    ) {
        let mut pair = Pair::new(client(), server(), seed);
        prop_assert!(pair.set_up());
        let heard = pair.client().sent.clone();
        let now = pair.now;
        let [_, end] = pair.ends;
        let mut link = end.link;
        let mut watched_now = now;
        for input in &inputs {
            match input {
                Input::Packet { protocol, code, identifier, data } => {
                    link.handle_frame(&frame(*protocol, *code, *identifier, data), watched_now);
                }
                Input::Changed { which, at, to } => {
                    let mut frame = heard[which % heard.len()].clone();
                    let at = at % frame.len();
                    frame[at] = *to;
                    link.handle_frame(&frame, watched_now);
                }
                Input::Wait(time) => {
                    watched_now += *time;
                    link.handle_timeout(watched_now);
                }
                Input::Anything(octets) => link.handle_frame(octets, watched_now),
                Input::Verdict(_) => {}
            }
            while let Some(action) = link.poll() {
                if let Action::Up(terms) = action {
                    prop_assert_eq!(terms.encryption, Encryption::Required);
                }
            }
        }
    }
}

/// The same wire noise, injected into calls of all policies while both ends go on talking: they end or agree.
#[test]
fn calls_agree_or_end_among_strangers() {
    let policies = [Policy::Allow, Policy::Prefer, Policy::Require];
    let strangers: Vec<Vec<u8>> = [
        (0xc021, 6, 1, vec![]),
        (0xc021, 9, 1, vec![0, 0, 0, 0]),
        (0xc021, 7, 1, vec![12, 1, 0, 4]),
        (0xc021, 8, 1, vec![0x00, 0xfd]),
        (0xc223, 3, 1, b"S=".to_vec()),
        (0xc223, 2, 1, vec![49]),
        (0x80fd, 2, 1, vec![18, 6, 1, 0, 0, 0x40]),
        (0x80fd, 3, 1, vec![18, 6, 1, 0, 0, 0x60]),
        (0x80fd, 14, 1, vec![]),
        (0x8021, 6, 1, vec![]),
        (0x8021, 3, 1, vec![3, 6, 0, 0, 0, 0]),
    ]
    .into_iter()
    .map(|(protocol, code, identifier, data)| frame(protocol, code, identifier, &data))
    .collect();
    for (number, stranger) in strangers.iter().enumerate() {
        for policy in policies {
            for side in [Side::Client, Side::Server] {
                for after in 1..24 {
                    let mut pair = Pair::new(
                        ClientLink {
                            mppe: Policy::Prefer,
                            ..client()
                        },
                        ServerLink {
                            mppe: policy,
                            ..server()
                        },
                        1,
                    );
                    pair.open();
                    pair.run(Duration::from_secs(1), |pair| pair.counts.sent >= after);
                    if pair.ends[side as usize].end.is_none() {
                        pair.inject(side, stranger);
                    }
                    pair.run(Duration::from_secs(60), |_| false);
                    assert!(
                        pair.both_up() || pair.both_ended(),
                        "frame {number} to the {side:?} after {after}, {policy:?}"
                    );
                    if pair.both_up() {
                        let encrypted =
                            pair.server().up.unwrap().encryption == Encryption::Required;
                        pair.assert_agreed(encrypted);
                    }
                }
            }
        }
    }
}
