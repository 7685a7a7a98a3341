//! PPP frames, and links of both roles that get them at every point of a call.

use std::mem::discriminant;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::Duration;

use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::packet::{OptionList, Packet};
use turnpike_protocol::ppp::{
    Action, AuthProtocol, ClientLink, CloseReason, Credentials, Encryption, Grant, Ipv6Grant, Link,
    MppeBits, PhaseName, Remedy, ServerLink, Verdict,
};
use turnpike_protocol::wire::ppp::{Frame, Framing, Protocol};
use turnpike_protocol::{Time, mppe};

use super::input::chunk;
use super::{Input, Trace, seeds};

/// More actions than any one input asks for.
const MAX_ACTIONS: usize = 16;

/// Headers, control packets and options.
pub fn frame(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let Ok(frame) = Frame::parse(octets) else {
        return trace;
    };
    let information = &octets[frame.header_len..];
    trace.note((
        frame.header_len,
        frame.protocol.is_data(),
        frame.protocol.is_encrypted(),
    ));
    for compress in [false, true] {
        let framing = Framing {
            compress_address: compress,
            compress_protocol: compress,
        };
        let (header, length) = framing.header(frame.protocol);
        // RFC 1661 §6.5: 00FF is never assigned, because alone in one octet it would look like an address.
        if frame.protocol.is_well_formed() && frame.protocol != Protocol(0x00ff) {
            assert_eq!(
                Frame::parse(&[&header[..length], information].concat())
                    .map(|again| again.protocol),
                Ok(frame.protocol)
            );
        }
    }
    trace.note(mppe::plausible(octets));
    let Ok(packet) = Packet::parse(information) else {
        return trace;
    };
    assert!(packet.whole.len() == packet.data.len() + 4 && packet.whole.len() <= information.len());
    trace.note(packet.code);
    match OptionList::parse(packet.data) {
        Ok(options) => {
            assert_eq!(
                options
                    .iter()
                    .map(|option| option.whole.len())
                    .sum::<usize>(),
                packet.data.len()
            );
            for option in options.iter() {
                assert_eq!(option.data.len() + 2, option.whole.len());
                trace.note((
                    option.kind,
                    AuthProtocol::parse(option.data).map(|method| discriminant(&method)),
                ));
                trace.note(option.u32().and_then(|bits| MppeBits(bits).terms()));
            }
        }
        Err(_) => trace.note(0),
    }
    trace
}

fn secret() -> Password {
    Password::new("correct horse")
}

fn verdict(credentials: &Credentials) -> Verdict {
    match credentials.verify(&secret().into()) {
        Ok(proof) => Verdict::Accept(Grant {
            limits: Default::default(),
            proof,
            address: Ipv4Addr::new(10, 20, 0, 9),
            server_address: Ipv4Addr::new(10, 20, 0, 1),
            dns: [Some(Ipv4Addr::new(10, 20, 0, 1)), None],
            nbns: [None; 2],
            ipv6: Some(Ipv6Grant {
                server_identifier: 1,
                client_identifier: 7,
                prefix: "2001:db8:1:1::/64".parse().expect("a prefix"),
                delegated: None,
                dns: [None; 2],
            }),
        }),
        Err(_) => refusal(691, Remedy::None),
    }
}

fn refusal(code: u32, remedy: Remedy) -> Verdict {
    Verdict::Reject {
        code,
        message: String::new(),
        remedy,
    }
}

/// A link at some point of a call.
#[derive(Clone)]
struct Point {
    link: Link,
    now: Time,
    loaded: bool,
    asked: Vec<Credentials>,
}

/// One end's points before each frame that it got, and these frames.
#[derive(Default)]
struct Road {
    points: Vec<Point>,
    frames: Vec<Vec<u8>>,
}

/// What a call on a road is like: encryption, the login, and whether the password has expired.
const SETTINGS: [(mppe::Policy, AuthProtocol, bool); 8] = [
    (mppe::Policy::Require, AuthProtocol::MsChapV2, false),
    (mppe::Policy::Prefer, AuthProtocol::MsChapV2, false),
    (mppe::Policy::Deny, AuthProtocol::MsChapV2, false),
    (mppe::Policy::Require, AuthProtocol::MsChapV1, false),
    (mppe::Policy::Deny, AuthProtocol::ChapMd5, false),
    (mppe::Policy::Deny, AuthProtocol::Pap, false),
    (mppe::Policy::Require, AuthProtocol::MsChapV2, true),
    (mppe::Policy::Require, AuthProtocol::MsChapV1, true),
];

/// A call between our own two roles, step by step, by each login, with and without encryption.
fn roads() -> &'static [Road; 2] {
    static ROADS: OnceLock<[Road; 2]> = OnceLock::new();
    ROADS.get_or_init(|| {
        let mut roads = [Road::default(), Road::default()];
        for (policy, method, expired) in SETTINGS {
            let now = Time::ZERO;
            let server = ServerLink {
                mppe: policy,
                methods: vec![method],
                choice: true,
                ..ServerLink::default()
            };
            let client = ClientLink {
                mppe: policy,
                methods: vec![method],
                ipv6: Some(7),
                new_password: expired.then(|| Password::new("staple battery")),
                ..ClientLink::new(b"alice", secret())
            };
            let point = |link| Point {
                link,
                now,
                loaded: false,
                asked: Vec::new(),
            };
            let mut ends = [
                point(Link::server(server, [1; 32], now)),
                point(Link::client(client, [2; 32], now)),
            ];
            let mut wires: [Vec<Vec<u8>>; 2] = Default::default();
            for end in &mut ends {
                end.link.open(now);
            }
            let mut up = 0;
            for round in 0..200 {
                let which = round % 2;
                let end = &mut ends[which];
                while let Some(action) = end.link.poll() {
                    match action {
                        Action::Send(frame) => wires[1 - which].push(frame),
                        Action::Authenticate(credentials) => {
                            let verdict = match (&credentials, expired) {
                                (Credentials::ChangePassword(_), _) | (_, false) => {
                                    verdict(&credentials)
                                }
                                (_, true) => refusal(648, Remedy::ChangePassword),
                            };
                            end.link.verdict(verdict, now);
                        }
                        Action::Choose(_) => end.link.chosen(false, now),
                        Action::Load { .. } => end.loaded = true,
                        Action::Up(_) => up += 1,
                        Action::Hold | Action::Up6(_) | Action::Hold6 | Action::Finished(_) => {}
                    }
                }
                if !wires[which].is_empty() {
                    let frame = wires[which].remove(0);
                    roads[which].points.push(end.clone());
                    end.link.handle_frame(&frame, now);
                    roads[which].frames.push(frame);
                }
            }
            assert_eq!(up >= 2, !expired, "both ends come up");
            for (road, end) in roads.iter_mut().zip(ends) {
                road.points.push(end);
                road.frames.push(Vec::new());
            }
        }
        roads
    })
}

impl Point {
    fn drain(&mut self, trace: &mut Trace) {
        let mut actions = 0;
        while let Some(action) = self.link.poll() {
            actions += 1;
            assert!(actions <= MAX_ACTIONS, "too much for one input");
            trace.note(discriminant(&action));
            match action {
                Action::Send(frame) => {
                    // The longest is a Change-Password packet of MS-CHAPv1: RFC 2433 §10.
                    assert!((8..=1122).contains(&frame.len()), "{} octets", frame.len());
                    let header = Frame::parse(&frame).expect("our own frame");
                    let packet =
                        Packet::parse(&frame[header.header_len..]).expect("our own packet");
                    trace.note((header.protocol.0, packet.code));
                }
                Action::Authenticate(credentials) => {
                    self.asked.push(credentials);
                    assert!(self.asked.len() < 256, "questions without an answer");
                }
                // Half of all addresses may be had.
                Action::Choose(address) => {
                    let even = address.to_bits() % 2 == 0;
                    self.link.chosen(even, self.now);
                }
                Action::Load { .. } => self.loaded = true,
                Action::Up(terms) => {
                    if terms.encryption == Encryption::Required {
                        assert!(self.loaded, "encryption without keys");
                    }
                    assert!(!terms.address.is_unspecified());
                    trace.note(terms.encryption);
                }
                Action::Hold | Action::Up6(_) | Action::Hold6 => {}
                Action::Finished(end) => trace.note(discriminant(&end)),
            }
        }
    }

    fn wait(&mut self, time: Duration, trace: &mut Trace) {
        let end = self.now + time;
        for _ in 0..1000 {
            let Some(due) = self.link.deadline().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.link.handle_timeout(self.now);
            self.drain(trace);
        }
        assert!(
            self.link.deadline().is_none_or(|due| due > end),
            "timers without end"
        );
        self.now = end;
    }
}

const PROTOCOLS: [Protocol; 10] = [
    Protocol::LCP,
    Protocol::CHAP,
    Protocol::CCP,
    Protocol::IPCP,
    Protocol::IPV6CP,
    Protocol::PAP,
    Protocol::EAP,
    Protocol::IPV4,
    Protocol::COMPRESSED,
    Protocol::CBCP,
];

/// A script for a link of this road: where to begin, then frames, time and verdicts.
fn link(road: &Road, octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let from = usize::from(input.octet()) % road.points.len();
    let mut point = road.points[from].clone();
    point.drain(&mut trace);
    while !input.is_empty() {
        match input.octet() {
            0..=127 => point.link.handle_frame(input.chunk(), point.now),
            128..=207 => {
                // A control packet whose length is right.
                let protocol = PROTOCOLS[usize::from(input.octet()) % PROTOCOLS.len()];
                let (code, identifier, data) = (input.octet() % 17, input.octet(), input.chunk());
                let mut frame = vec![0xff, 0x03];
                frame.extend_from_slice(&protocol.0.to_be_bytes());
                frame.extend_from_slice(&[code, identifier]);
                frame.extend_from_slice(
                    &u16::try_from(data.len() + 4)
                        .unwrap_or(u16::MAX)
                        .to_be_bytes(),
                );
                frame.extend_from_slice(data);
                point.link.handle_frame(&frame, point.now);
            }
            208..=223 => {
                let time = Duration::from_millis(u64::from(input.u16()));
                point.wait(time, &mut trace);
            }
            224..=239 => {
                let verdict = match point.asked.pop() {
                    Some(credentials) => verdict(&credentials),
                    None => refusal(691, Remedy::None),
                };
                point.link.verdict(verdict, point.now);
            }
            240..=251 => {
                // The next frame of the call as it should be.
                let next = usize::from(input.octet()) % road.frames.len();
                point.link.handle_frame(&road.frames[next], point.now);
            }
            _ => point.link.heard(),
        }
        point.drain(&mut trace);
    }
    let info = point.link.info();
    trace.note((info.phase as u8, info.mppe_receive, info.mppe_transmit));
    // Whatever state that left, a link ends when it is told to, in time.
    point.link.close(CloseReason::Shutdown, point.now);
    point.drain(&mut trace);
    point.wait(Duration::from_secs(60), &mut trace);
    assert!(point.link.info().phase == PhaseName::Dead, "does not end");
    assert_eq!(point.link.deadline(), None);
    trace
}

/// The server's end.
pub fn server(octets: &[u8]) -> Trace {
    link(&roads()[0], octets)
}

/// The client's end.
pub fn client(octets: &[u8]) -> Trace {
    link(&roads()[1], octets)
}

/// The right next frame at every point, and captured frames at some.
fn link_seeds(road: &Road) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, frame) in road.frames.iter().enumerate() {
        let at = u8::try_from(at % 256).unwrap_or(0);
        seeds.push([&[at, 0][..], &chunk(frame)].concat());
        seeds.push(vec![at, 240, at, 240, at.wrapping_add(1)]);
    }
    for (at, frame) in seeds::ppp_frames().iter().enumerate() {
        let at = u8::try_from(at % road.points.len()).unwrap_or(0);
        seeds.push(
            [
                &[at, 0][..],
                &chunk(frame),
                &[208, 0x10, 0],
                &[0],
                &chunk(frame),
            ]
            .concat(),
        );
    }
    seeds
}

/// Seeds of [`server`].
pub fn server_seeds() -> Vec<Vec<u8>> {
    link_seeds(&roads()[0])
}

/// Seeds of [`client`].
pub fn client_seeds() -> Vec<Vec<u8>> {
    link_seeds(&roads()[1])
}
