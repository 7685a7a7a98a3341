//! Client link and server link over a wire that loses, doubles, delays and reorders, in made-up time.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Direction, Mode, Policy, StartKey, Strength};
use turnpike_protocol::mschap::{NtHash, Password};
use turnpike_protocol::ppp::{
    Action, AuthProtocol, ClientLink, End, Grant, Ipv6Grant, Ipv6Terms, Link, Proof, Remedy,
    ServerLink, Terms, Timing, Verdict,
};

pub const CLIENT_ADDRESS: [u8; 4] = [10, 20, 0, 10];
pub const SERVER_ADDRESS: [u8; 4] = [10, 20, 0, 1];
const PASSWORD: &str = "correct horse";

/// What goes wrong, in thousandths of all frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u32,
    pub duplication: u32,
    pub reordering: u32,
}

/// How often each did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sent: u32,
    pub lost: u32,
    pub doubled: u32,
    pub overtaken: u32,
    pub lost_ccp_acks: u32,
    pub doubled_ccp_acks: u32,
}

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// MPPE of one direction as a worker runs it: loaded, then started at a CCP frame.
#[derive(Default)]
pub struct Keys {
    loaded: Option<(u8, Vec<u8>, Strength, Mode)>,
    pub running: Option<(Vec<u8>, Strength, Mode)>,
    pub starts: u32,
}

impl Keys {
    fn load(&mut self, identifier: u8, key: &StartKey, mode: Mode) {
        self.loaded = Some((identifier, key.bytes().to_vec(), key.strength(), mode));
    }

    /// A Configure-Request puts its direction in question, as Linux sees it.
    fn stop(&mut self) {
        self.running = None;
    }

    fn start(&mut self, identifier: u8) {
        if let Some((expected, key, strength, mode)) = self.loaded.clone()
            && expected == identifier
        {
            self.running = Some((key, strength, mode));
            self.starts += 1;
        }
    }
}

/// One end: the link and what its surroundings would do.
pub struct End_ {
    pub link: Link,
    pub up: Option<Terms>,
    pub up_at: Option<Time>,
    pub ups: u32,
    pub up6: Option<Ipv6Terms>,
    pub end: Option<End>,
    pub receive: Keys,
    pub transmit: Keys,
    pub authentications: u32,
    pub sent: Vec<Vec<u8>>,
}

/// Picks frames off the wire.
pub type Filter = Box<dyn FnMut(Side, &[u8]) -> bool>;

/// Makes frames late.
pub type Lateness = Box<dyn FnMut(Side, &[u8]) -> Duration>;

struct InFlight {
    at: Time,
    order: u64,
    to: Side,
    frame: Vec<u8>,
}

pub struct Pair {
    pub now: Time,
    pub latency: Duration,
    pub faults: Faults,
    pub counts: Counts,
    pub ends: [End_; 2],
    /// Takes a frame off the wire when it returns true; called with the sender.
    pub filter: Filter,
    /// How much later than others a frame arrives; called with the sender.
    pub late: Lateness,
    /// Answer of whoever judges, and how long that takes.
    pub verdict: Box<dyn Fn(&turnpike_protocol::ppp::Credentials) -> Verdict>,
    /// Addresses that a client gets for the asking.
    pub gives: Vec<std::net::Ipv4Addr>,
    /// Addresses that were asked for.
    pub asked: Vec<std::net::Ipv4Addr>,
    /// Nobody decides.
    pub undecided: bool,
    pub verdict_delay: Duration,
    /// Print every frame that is sent.
    pub trace: bool,
    verdicts: Vec<(Time, Verdict)>,
    wire: Vec<InFlight>,
    order: u64,
    random: ChaCha8Rng,
}

pub fn server() -> ServerLink {
    ServerLink {
        mppe: Policy::Require,
        ..ServerLink::default()
    }
}

pub fn client() -> ClientLink {
    ClientLink::new(b"alice", NtHash::from_password(PASSWORD))
}

/// What everybody gets.
pub fn grant(proof: Proof) -> Grant {
    Grant {
        limits: Default::default(),
        proof,
        address: CLIENT_ADDRESS.into(),
        server_address: SERVER_ADDRESS.into(),
        dns: [Some([10, 20, 0, 53].into()), None],
        nbns: [None; 2],
        ipv6: None,
    }
}

/// Local users as a server has them: alice.
pub fn local_verdict(credentials: &turnpike_protocol::ppp::Credentials) -> Verdict {
    let proof = (credentials.user_part() == b"alice")
        .then(|| credentials.verify(&Password::new(PASSWORD).into()).ok())
        .flatten();
    match proof {
        Some(proof) => Verdict::Accept(grant(proof)),
        None => Verdict::Reject {
            code: 691,
            message: "wrong password".to_owned(),
            remedy: Remedy::None,
        },
    }
}

/// The local verdict with IPv6.
pub fn ipv6_verdict(credentials: &turnpike_protocol::ppp::Credentials) -> Verdict {
    match local_verdict(credentials) {
        Verdict::Accept(grant) => Verdict::Accept(Grant {
            ipv6: Some(Ipv6Grant {
                server_identifier: 1,
                client_identifier: 0x0211_22ff_fe33_4455,
                prefix: "2001:db8:1:7::/64".parse().expect("a prefix"),
                delegated: None,
                dns: [None; 2],
            }),
            ..grant
        }),
        reject => reject,
    }
}

/// The local verdict without its keys, as some RADIUS servers give it.
pub fn keyless_verdict(credentials: &turnpike_protocol::ppp::Credentials) -> Verdict {
    match local_verdict(credentials) {
        Verdict::Accept(grant) => Verdict::Accept(Grant {
            proof: grant.proof.without_keys(),
            ..grant
        }),
        reject => reject,
    }
}

impl Pair {
    pub fn new(client: ClientLink, server: ServerLink, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut seeds = [[0; 32]; 2];
        seeds.iter_mut().for_each(|seed| random.fill_bytes(seed));
        let end = |link| End_ {
            link,
            up: None,
            up_at: None,
            ups: 0,
            up6: None,
            end: None,
            receive: Keys::default(),
            transmit: Keys::default(),
            authentications: 0,
            sent: Vec::new(),
        };
        Self {
            now: Time::ZERO,
            latency: Duration::from_millis(20),
            faults: Faults::default(),
            counts: Counts::default(),
            ends: [
                end(Link::client(client, seeds[0], Time::ZERO)),
                end(Link::server(server, seeds[1], Time::ZERO)),
            ],
            filter: Box::new(|_, _| false),
            late: Box::new(|_, _| Duration::ZERO),
            verdict: Box::new(local_verdict),
            gives: Vec::new(),
            asked: Vec::new(),
            undecided: false,
            verdict_delay: Duration::from_millis(1),
            trace: std::env::var_os("TRACE").is_some(),
            verdicts: Vec::new(),
            wire: Vec::new(),
            order: 0,
            random,
        }
    }

    pub fn client(&mut self) -> &mut End_ {
        &mut self.ends[Side::Client as usize]
    }

    pub fn server(&mut self) -> &mut End_ {
        &mut self.ends[Side::Server as usize]
    }

    pub fn open(&mut self) {
        let now = self.now;
        self.server().link.open(now);
        self.client().link.open(now);
        self.drain(Side::Server);
        self.drain(Side::Client);
    }

    pub fn both_up(&self) -> bool {
        self.ends.iter().all(|end| end.up.is_some())
    }

    pub fn both_ended(&self) -> bool {
        self.ends.iter().all(|end| end.end.is_some())
    }

    /// Runs until `done`, or for `limit`; whether it was done.
    pub fn run(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
        true
    }

    /// Opens both ends and runs until data could flow both ways.
    pub fn set_up(&mut self) -> bool {
        self.open();
        self.run(Duration::from_secs(120), Self::both_up)
    }

    /// The next thing to happen not after `end`.
    fn step(&mut self, end: Time) -> bool {
        let next = [
            self.wire.iter().map(|frame| frame.at).min(),
            self.verdicts.iter().map(|(at, _)| *at).min(),
            self.ends[0].link.deadline(),
            self.ends[1].link.deadline(),
        ]
        .into_iter()
        .flatten()
        .min();
        let Some(next) = next.filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        let arrived = self
            .wire
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.at <= now)
            .min_by_key(|(_, frame)| (frame.at, frame.order))
            .map(|(index, _)| index);
        if let Some(index) = arrived {
            let InFlight { to, frame, .. } = self.wire.swap_remove(index);
            self.deliver(to, &frame);
        } else if let Some(index) = self.verdicts.iter().position(|(at, _)| *at <= now) {
            let (_, verdict) = self.verdicts.remove(index);
            self.server().link.verdict(verdict, now);
            self.drain(Side::Server);
        } else {
            for side in [Side::Client, Side::Server] {
                let link = &mut self.ends[side as usize].link;
                if link.deadline().is_some_and(|deadline| deadline <= now) {
                    link.handle_timeout(now);
                    assert!(
                        link.deadline().is_none_or(|deadline| deadline > now),
                        "a timer that stays due would spin"
                    );
                }
                self.drain(side);
            }
        }
        true
    }

    fn deliver(&mut self, to: Side, frame: &[u8]) {
        let now = self.now;
        let end = &mut self.ends[to as usize];
        if let Some(identifier) = ccp_ack(frame) {
            end.receive.start(identifier);
        } else if is_ccp_request(frame) {
            end.transmit.stop();
        }
        end.link.handle_frame(frame, now);
        self.drain(to);
    }

    /// Carries out what a link wants.
    pub fn drain(&mut self, side: Side) {
        let now = self.now;
        while let Some(action) = self.ends[side as usize].link.poll() {
            let end = &mut self.ends[side as usize];
            assert!(end.end.is_none(), "{action:?} after the end");
            match action {
                Action::Send(frame) => {
                    assert!(frame.starts_with(&[0xff, 0x03]) && frame.len() <= 1504);
                    // An IPCP frame of the server may be the last that the client needs before it sends data.
                    if side == Side::Server && frame[2..4] == [0x80, 0x21] && frame[4] == 2 {
                        let encrypted =
                            end.transmit.running.is_some() && end.receive.running.is_some();
                        assert!(
                            end.up.is_some() || !encrypted,
                            "data may come before we are ready"
                        );
                    }
                    let started = ccp_ack(&frame);
                    if is_ccp_request(&frame) {
                        end.receive.stop();
                    }
                    end.sent.push(frame.clone());
                    if self.trace {
                        println!("{:>8} ms {side:?} {frame:02x?}", now.as_nanos() / 1_000_000);
                    }
                    self.send(side, frame);
                    if let Some(identifier) = started {
                        self.ends[side as usize].transmit.start(identifier);
                    }
                }
                Action::Load {
                    direction,
                    identifier,
                    key,
                    mode,
                } => match direction {
                    Direction::Receive => end.receive.load(identifier, &key, mode),
                    Direction::Transmit => end.transmit.load(identifier, &key, mode),
                },
                Action::Authenticate(credentials) => {
                    end.authentications += 1;
                    let verdict = (self.verdict)(&credentials);
                    self.verdicts.push((now + self.verdict_delay, verdict));
                }
                Action::Choose(address) => {
                    self.asked.push(address);
                    if !self.undecided {
                        end.link.chosen(self.gives.contains(&address), now);
                    }
                }
                Action::Up(terms) => {
                    end.up = Some(terms);
                    end.up_at = end.up_at.or(Some(now));
                    end.ups += 1;
                }
                Action::Hold => {
                    assert!(end.up.take().is_some(), "Hold without Up");
                }
                Action::Up6(terms) => {
                    assert_ne!(terms.ours, terms.theirs);
                    assert!(terms.ours != 0 && terms.theirs != 0 && terms.mtu >= 1280);
                    end.up6 = Some(terms);
                }
                Action::Hold6 => {
                    assert!(end.up6.take().is_some(), "Hold6 without Up6");
                }
                Action::Finished(why) => {
                    assert!(end.up.is_none(), "ended without Hold");
                    assert!(end.up6.is_none(), "ended without Hold6");
                    assert_eq!(end.link.deadline(), None);
                    end.end = Some(why);
                }
            }
        }
    }

    fn send(&mut self, from: Side, frame: Vec<u8>) {
        self.counts.sent += 1;
        let is_ccp_ack = u32::from(ccp_ack(&frame).is_some());
        if (self.filter)(from, &frame) || self.chance(self.faults.loss) {
            self.counts.lost += 1;
            self.counts.lost_ccp_acks += is_ccp_ack;
            return;
        }
        let mut copies = 1;
        if self.chance(self.faults.duplication) {
            self.counts.doubled += 1;
            self.counts.doubled_ccp_acks += is_ccp_ack;
            copies = 2;
        }
        for _ in 0..copies {
            let mut at = self.now + self.latency + (self.late)(from, &frame);
            if self.chance(self.faults.reordering) {
                self.counts.overtaken += 1;
                at += Duration::from_millis(u64::from(self.random.next_u32() % 100));
            }
            self.order += 1;
            self.wire.push(InFlight {
                at,
                order: self.order,
                to: from.other(),
                frame: frame.clone(),
            });
        }
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.next_u32() % 1000 < thousandths
    }

    /// Puts a frame on the wire that no link sent.
    pub fn inject(&mut self, to: Side, frame: &[u8]) {
        self.deliver(to, frame);
    }

    /// Both ends agree, and where encryption is required the same keys run at both ends of each direction.
    pub fn assert_agreed(&self, encrypted: bool) {
        let [client, server] = &self.ends;
        let (at_client, at_server) = (client.up.expect("both ends are up"), server.up.unwrap());
        assert_eq!(at_client.address, at_server.address);
        assert_eq!(at_client.server_address, at_server.server_address);
        assert_eq!(at_client.dns, at_server.dns);
        assert_eq!(at_client.encryption, at_server.encryption);
        assert_eq!(at_client.mtu, at_server.mtu);
        for (sender, receiver) in [(client, server), (server, client)] {
            if encrypted {
                assert!(sender.transmit.running.is_some(), "transmit keys run");
                assert_eq!(sender.transmit.running, receiver.receive.running);
            } else {
                assert!(sender.transmit.running.is_none() && receiver.receive.running.is_none());
            }
        }
        // RFC 3079 §2: MS-CHAPv1 has one key for both directions.
        let method = server.link.info().authentication;
        if encrypted && method != Some(AuthProtocol::MsChapV1) {
            assert_ne!(client.transmit.running, client.receive.running);
        }
    }
}

/// Both ends give up early.
pub fn impatient_pair(seed: u64) -> Pair {
    Pair::new(
        ClientLink {
            timing: impatient(),
            ..client()
        },
        ServerLink {
            timing: impatient(),
            ..server()
        },
        seed,
    )
}

/// Shorter waits, so that limits are reached soon.
fn impatient() -> Timing {
    Timing {
        set_up: Some(Duration::from_secs(20)),
        ..Timing::default()
    }
}

/// The identifier of a CCP Configure-Ack.
pub fn ccp_ack(frame: &[u8]) -> Option<u8> {
    match frame {
        [0xff, 0x03, 0x80, 0xfd, 2, identifier, ..] => Some(*identifier),
        _ => None,
    }
}

fn is_ccp_request(frame: &[u8]) -> bool {
    frame.starts_with(&[0xff, 0x03, 0x80, 0xfd, 1])
}
