//! Peers as they were met, one script in `peers/` each: what they send, and what they must get.
//!
//! A script is read line by line; `#` begins a comment. The first line says which end we are, with settings:
//! `server mppe=require|prefer|allow|deny strengths=128,56,40 stateful=refuse|accept|ask keys=no dns=ADDRESS ipv6=yes`
//! or `client mppe=..`. Then:
//! - `> OCTETS`: the peer sends this frame, as it stands in GRE. `> ack PROTOCOL`, `> nak PROTOCOL OCTETS` and
//!   `> reject PROTOCOL OCTETS` answer our last request of that protocol; `> response NAME` answers our Challenge,
//!   `> challenge` sends one, `> success` proves the server to us.
//! - `< OCTETS`: we send this; `..` stands for any octet, `**` for any number of them. `ID` is the identifier
//!   of our last Challenge.
//! - `load receive|transmit IDENTIFIER` (and `BITS stateless|stateful`, where it matters), `authenticate NAME`, `up plain|required MTU ADDRESS`, `hold`,
//!   `up6 plain|required MTU OURS THEIRS` (interface identifiers), `hold6`, `end TEXT` (part of [`End`]'s text): what else we ask for. All in the order in which it must come.
//! - `wait TIME` (such as `3s` or `500ms`): nothing more is asked for before; then time passes.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Allowed, Policy, Stateful, Strength};
use turnpike_protocol::mschap::{self, NtHash, Success};
use turnpike_protocol::ppp::{
    Action, ClientLink, Credentials, End, Grant, Ipv6Grant, Link, Remedy, ServerLink, Verdict,
};

const PASSWORD: &str = "correct horse";
const CHALLENGE: [u8; 16] = [0x5a; 16];

#[test]
fn every_peer_gets_what_it_needs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "scripts are missing");
    let mut failed = Vec::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if std::panic::catch_unwind(|| Player::new(&name, &text).play()).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

struct Player<'a> {
    name: &'a str,
    lines: Vec<(usize, &'a str)>,
    link: Link,
    now: Time,
    keys: bool,
    ipv6: bool,
    dns: Option<[u8; 4]>,
    /// Our last Configure-Request of each protocol: identifier and data.
    requests: HashMap<[u8; 2], (u8, Vec<u8>)>,
    /// Our last Challenge: identifier and value.
    challenge: Option<(u8, [u8; 16])>,
    /// What our last Response deserves: its identifier, and the proof.
    success: Option<(u8, Success)>,
}

impl<'a> Player<'a> {
    fn new(name: &'a str, text: &'a str) -> Self {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.split('#').next().unwrap().trim()))
            .filter(|(_, line)| !line.is_empty())
            .collect::<Vec<_>>();
        let (_, first) = lines.remove(0);
        let mut words = first.split_whitespace();
        let role = words.next().unwrap();
        let settings: HashMap<&str, &str> =
            words.map(|word| word.split_once('=').unwrap()).collect();
        let mppe = match settings.get("mppe").copied().unwrap_or("require") {
            "require" => Policy::Require,
            "prefer" => Policy::Prefer,
            "allow" => Policy::Allow,
            "deny" => Policy::Deny,
            other => panic!("{name}: policy {other}"),
        };
        let strengths = settings.get("strengths").copied().unwrap_or("128");
        let mppe_allowed = Allowed {
            strengths: strengths
                .split(',')
                .map(|bits| match bits {
                    "128" => Strength::Bits128,
                    "56" => Strength::Bits56,
                    "40" => Strength::Bits40,
                    other => panic!("{name}: strength {other}"),
                })
                .collect(),
            stateful: match settings.get("stateful").copied().unwrap_or("refuse") {
                "refuse" => Stateful::Refuse,
                "accept" => Stateful::Accept,
                "ask" => Stateful::Ask,
                other => panic!("{name}: stateful {other}"),
            },
        };
        let link = match role {
            "server" => Link::server(
                ServerLink {
                    mppe,
                    mppe_allowed,
                    ..ServerLink::default()
                },
                [7; 32],
                Time::ZERO,
            ),
            "client" => Link::client(
                ClientLink {
                    mppe,
                    mppe_allowed,
                    ..ClientLink::new(b"alice", NtHash::from_password(PASSWORD))
                },
                [7; 32],
                Time::ZERO,
            ),
            other => panic!("{name}: role {other}"),
        };
        Self {
            name,
            lines,
            link,
            now: Time::ZERO,
            keys: settings.get("keys") != Some(&"no"),
            ipv6: settings.get("ipv6") == Some(&"yes"),
            dns: settings.get("dns").map(|text| {
                let address: std::net::Ipv4Addr = text.parse().unwrap();
                address.octets()
            }),
            requests: HashMap::new(),
            challenge: None,
            success: None,
        }
    }

    fn play(mut self) {
        self.link.open(self.now);
        for (number, line) in core::mem::take(&mut self.lines) {
            let place = format!("{}:{number}: {line}", self.name);
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            match verb {
                ">" => {
                    let frame = self.peer_frame(rest, &place);
                    self.link.handle_frame(&frame, self.now);
                }
                "wait" => {
                    self.expect_nothing(&place);
                    self.wait(rest, &place);
                }
                _ => self.expect(verb, rest, &place),
            }
        }
        let name = self.name.to_owned();
        self.expect_nothing(&name);
    }

    fn peer_frame(&self, text: &str, place: &str) -> Vec<u8> {
        let mut words = text.splitn(3, ' ');
        let verb = words.next().unwrap();
        let code = match verb {
            "ack" => 2,
            "nak" => 3,
            "reject" => 4,
            "response" => return self.response(words.next().unwrap_or("")),
            "challenge" => {
                let mut frame = vec![0xff, 0x03, 0xc2, 0x23, 1, 9, 0, 21, 16];
                frame.extend(CHALLENGE);
                return frame;
            }
            "success" => {
                let (identifier, success) = self.success.as_ref().expect(place);
                let mut frame = vec![0xff, 0x03, 0xc2, 0x23, 3, *identifier, 0, 46];
                frame.extend(success.authenticator_response);
                return frame;
            }
            _ => {
                return self
                    .octets(text)
                    .iter()
                    .map(|octet| octet.expect(place))
                    .collect();
            }
        };
        let protocol = exact(words.next().expect(place), place);
        let protocol = [protocol[0], protocol[1]];
        let (identifier, request) = self.requests.get(&protocol).expect(place);
        let data = match words.next() {
            Some(data) => exact(data, place),
            None => request.clone(),
        };
        let length = u16::try_from(4 + data.len()).unwrap().to_be_bytes();
        let mut frame = vec![0xff, 0x03, protocol[0], protocol[1], code, *identifier];
        frame.extend(length);
        frame.extend(data);
        frame
    }

    fn response(&self, name: &str) -> Vec<u8> {
        let (identifier, challenge) = self.challenge.expect("a Challenge came");
        let peer_challenge = [3; 16];
        let hash = NtHash::from_password(PASSWORD);
        let proof = mschap::nt_response(&hash, &challenge, &peer_challenge, name.as_bytes());
        let length = u16::try_from(54 + name.len()).unwrap().to_be_bytes();
        let mut frame = vec![0xff, 0x03, 0xc2, 0x23, 2, identifier];
        frame.extend(length);
        frame.push(49);
        frame.extend(peer_challenge);
        frame.extend([0; 8]);
        frame.extend(proof);
        frame.push(4); // as Windows 98 does
        frame.extend(name.as_bytes());
        frame
    }

    fn expect(&mut self, verb: &str, rest: &str, place: &str) {
        let action = self
            .link
            .poll()
            .unwrap_or_else(|| panic!("{place}: nothing came"));
        match (verb, &action) {
            ("<", Action::Send(frame)) => {
                assert!(self.matches(rest, frame), "{place}: {frame:02x?}");
                self.note(frame);
            }
            (
                "load",
                Action::Load {
                    direction,
                    identifier,
                    key,
                    mode,
                },
            ) => {
                let short = format!("{direction:?} {identifier}").to_lowercase();
                let long = format!("{short} {} {mode:?}", key.strength().bits()).to_lowercase();
                assert!(rest == short || rest == long, "{place}: {long}");
            }
            ("authenticate", Action::Authenticate(credentials)) => {
                assert_eq!(credentials.name(), rest.as_bytes(), "{place}");
                let verdict = self.judge(credentials);
                self.link.verdict(verdict, self.now);
            }
            ("up", Action::Up(terms)) => {
                let came = format!("{:?} {} {}", terms.encryption, terms.mtu, terms.address);
                assert_eq!(came.to_lowercase(), rest, "{place}");
            }
            ("hold", Action::Hold) => {}
            ("up6", Action::Up6(terms)) => {
                let (encryption, mtu) = (terms.encryption, terms.mtu);
                let came = format!("{encryption:?} {mtu} {:x} {:x}", terms.ours, terms.theirs);
                assert_eq!(came.to_lowercase(), rest, "{place}");
            }
            ("hold6", Action::Hold6) => {}
            ("end", Action::Finished(end)) => {
                assert!(end.to_string().contains(rest), "{place}: {end} ({end:?})");
            }
            _ => panic!("{place}: {}", show(&action)),
        }
    }

    fn octets(&self, text: &str) -> Vec<Option<u8>> {
        let identifier = self.challenge.map_or(0, |(identifier, _)| identifier);
        octets(&text.replace("ID", &format!("{identifier:02x}")))
    }

    fn matches(&self, pattern: &str, frame: &[u8]) -> bool {
        let (pattern, open) = match pattern.trim_end().strip_suffix("**") {
            Some(front) => (front, true),
            None => (pattern, false),
        };
        let pattern = self.octets(pattern);
        (frame.len() == pattern.len() || open && frame.len() > pattern.len())
            && pattern
                .iter()
                .zip(frame)
                .all(|(wanted, octet)| wanted.is_none_or(|wanted| wanted == *octet))
    }

    fn note(&mut self, frame: &[u8]) {
        match *frame {
            [_, _, a, b, 1, identifier, _, _, ref data @ ..] if [a, b] != [0xc2, 0x23] => {
                self.requests.insert([a, b], (identifier, data.to_vec()));
            }
            [_, _, 0xc2, 0x23, 1, identifier, _, _, 16, ref rest @ ..] => {
                self.challenge = Some((identifier, rest[..16].try_into().unwrap()));
            }
            [_, _, 0xc2, 0x23, 2, identifier, _, _, 49, ref rest @ ..] => {
                let success = mschap::verify(
                    &NtHash::from_password(PASSWORD),
                    &CHALLENGE,
                    rest[..16].try_into().unwrap(),
                    rest[24..48].try_into().unwrap(),
                    &rest[49..],
                );
                self.success = success.map(|success| (identifier, success));
            }
            _ => {}
        }
    }

    fn judge(&self, credentials: &Credentials) -> Verdict {
        match credentials.verify(&NtHash::from_password(PASSWORD).into()) {
            Ok(proof) => Verdict::Accept(Grant {
                limits: Default::default(),
                proof: if self.keys {
                    proof
                } else {
                    proof.without_keys()
                },
                address: [10, 20, 0, 10].into(),
                server_address: [10, 20, 0, 1].into(),
                dns: [self.dns.map(Into::into), None],
                nbns: [None; 2],
                ipv6: self.ipv6.then(|| Ipv6Grant {
                    server_identifier: 1,
                    client_identifier: 0x0211_22ff_fe33_4455,
                    prefix: "2001:db8:1:7::/64".parse().unwrap(),
                    delegated: None,
                    dns: [None; 2],
                }),
            }),
            Err(_) => Verdict::Reject {
                code: 691,
                message: String::new(),
                remedy: Remedy::None,
            },
        }
    }

    fn wait(&mut self, text: &str, place: &str) {
        let milliseconds: u64 = match text.strip_suffix("ms") {
            Some(number) => number.parse().expect(place),
            None => {
                text.strip_suffix('s')
                    .expect(place)
                    .parse::<u64>()
                    .expect(place)
                    * 1000
            }
        };
        let end = self.now + Duration::from_millis(milliseconds);
        while let Some(deadline) = self.link.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.link.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn expect_nothing(&mut self, place: &str) {
        if let Some(action) = self.link.poll() {
            panic!("{place}: not asked for: {}", show(&action));
        }
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Send(frame) => {
            let text: Vec<String> = frame.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("< {}", text.join(" "))
        }
        Action::Finished(end) => format!("end {end}"),
        other => format!("{other:?}"),
    }
}

/// Octets of a line; `..` is none in particular.
fn octets(text: &str) -> Vec<Option<u8>> {
    let digits: Vec<char> = text
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok())
        .collect()
}

fn exact(text: &str, place: &str) -> Vec<u8> {
    octets(text)
        .iter()
        .map(|octet| octet.expect(place))
        .collect()
}

/// The texts of ends are part of the scripts.
#[test]
fn an_end_says_what_to_look_at() {
    let text = End::NoAnswer { heard: false }.to_string();
    assert!(text.contains("GRE") && text.contains("firewall"), "{text}");
}
