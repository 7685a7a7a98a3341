//! Our links against the peers of the captures: each captured end comes back as a ghost that asks for what it asked for
//! then, and refuses what it refused then, while we take the place of its partner.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and print what they covered"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Direction, Policy};
use turnpike_protocol::mschap::{self, NtHash};
use turnpike_protocol::ppp::packet::{OptionList, Packet, code, frame};
use turnpike_protocol::ppp::{
    Action, AuthProtocol, ClientLink, Encryption, End, Grant, Ipv6Grant, Ipv6Terms, Link,
    ServerLink, Terms, Verdict,
};
use turnpike_protocol::wire::ppp::{Frame, Protocol};
use turnpike_tests::captures::{Call, Chap, File, Side};

const MPPE: u8 = 18;
const IP_ADDRESS: u8 = 3;
const LCP_AUTHENTICATION: u8 = 3;
const CLIENT_ADDRESS: [u8; 4] = [10, 9, 1, 100];
const SERVER_ADDRESS: [u8; 4] = [10, 9, 1, 1];
/// Naks of one option before the ghost gives in.
const MAX_NAKS: u8 = 3;

/// Options by type, in order.
type Request = Vec<(u8, Vec<u8>)>;

/// One end of a captured call, brought back.
struct Ghost {
    side: Side,
    exchange: Option<Chap>,
    /// What it asks for, by protocol.
    requests: BTreeMap<u16, Request>,
    rejects: BTreeSet<(u16, u8)>,
    naks: BTreeMap<(u16, u8), (Vec<u8>, u8)>,
    identifiers: BTreeMap<u16, u8>,
    /// Its request was acknowledged, or it acknowledged ours.
    asked: BTreeSet<u16>,
    answered: BTreeSet<u16>,
    authenticated: bool,
    /// IPCP requests that came before CCP was open, and were answered as pppd does.
    too_early: usize,
    out: VecDeque<Vec<u8>>,
}

/// The first exchange of a call that agreed on MS-CHAPv2.
fn exchange(call: &Call) -> Option<Chap> {
    (call.authentication().unwrap() == Some(AuthProtocol::MsChapV2))
        .then(|| call.mschap_v2().unwrap().into_iter().next())
        .flatten()
}

fn options(data: &[u8]) -> Request {
    OptionList::parse(data)
        .unwrap()
        .iter()
        .map(|option| (option.kind, option.data.to_vec()))
        .collect()
}

fn octets(request: &[(u8, Vec<u8>)]) -> Vec<u8> {
    request
        .iter()
        .flat_map(|(kind, data)| {
            let head = [*kind, u8::try_from(data.len() + 2).unwrap()];
            head.into_iter().chain(data.iter().copied())
        })
        .collect()
}

/// Our interface identifier.
const OURS: u64 = 0x77;

const INTERFACE_IDENTIFIER: u8 = 1;

fn number(identifier: &[u8]) -> u64 {
    u64::from_be_bytes(identifier.try_into().unwrap())
}

impl Ghost {
    fn of(call: &Call, side: Side) -> Self {
        let mut ghost = Self {
            side,
            exchange: exchange(call),
            requests: BTreeMap::new(),
            rejects: BTreeSet::new(),
            naks: BTreeMap::new(),
            identifiers: BTreeMap::new(),
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            authenticated: false,
            too_early: 0,
            out: VecDeque::new(),
        };
        for protocol in [
            Protocol::LCP,
            Protocol::CCP,
            Protocol::IPCP,
            Protocol::IPV6CP,
        ] {
            for (from, packet) in call.control(protocol).unwrap() {
                if from != side {
                    continue;
                }
                match packet.code {
                    code::CONFIGURE_REQUEST => {
                        // A server may have come down to MS-CHAPv2 by Naks; a client says first what it wants.
                        let request = options(packet.data);
                        if side == Side::Server && protocol == Protocol::LCP {
                            ghost.requests.insert(protocol.0, request);
                        } else {
                            ghost.requests.entry(protocol.0).or_insert(request);
                        }
                    }
                    code::CONFIGURE_REJECT => {
                        let kinds = options(packet.data).into_iter().map(|(kind, _)| kind);
                        ghost.rejects.extend(kinds.map(|kind| (protocol.0, kind)));
                    }
                    code::CONFIGURE_NAK => {
                        for (kind, data) in options(packet.data) {
                            ghost.naks.insert((protocol.0, kind), (data, 0));
                        }
                    }
                    _ => {}
                }
            }
        }
        ghost
    }

    /// The identifier that the peer asks with, in the end.
    fn interface_identifier(&self) -> Option<u64> {
        let request = self.requests.get(&Protocol::IPV6CP.0)?;
        let (_, data) = (request.iter()).find(|(kind, _)| *kind == INTERFACE_IDENTIFIER)?;
        Some(number(data))
    }

    fn wants_mppe(&self) -> bool {
        let request = self.requests.get(&Protocol::CCP.0);
        request.is_some_and(|request| request.iter().any(|(kind, _)| *kind == MPPE))
    }

    fn ask(&mut self, protocol: Protocol) {
        if let Some(request) = self.requests.get(&protocol.0) {
            let identifier = self.identifiers.entry(protocol.0).or_insert(0);
            *identifier += 1;
            let frame = frame(
                protocol,
                code::CONFIGURE_REQUEST,
                *identifier,
                &octets(request),
            );
            self.out.push_back(frame);
        }
    }

    fn is_open(&self, protocol: Protocol) -> bool {
        self.asked.contains(&protocol.0) && self.answered.contains(&protocol.0)
    }

    /// Takes a frame of our link.
    fn hear(&mut self, octets: &[u8]) {
        let header = Frame::parse(octets).unwrap();
        let packet = Packet::parse(&octets[header.header_len..]).unwrap();
        match header.protocol {
            Protocol::CHAP => self.hear_chap(&packet),
            protocol => self.hear_control(protocol, &packet),
        }
    }

    fn hear_control(&mut self, protocol: Protocol, packet: &Packet<'_>) {
        let reply = |code, data: &[u8]| frame(protocol, code, packet.identifier, data);
        match packet.code {
            code::CONFIGURE_REQUEST => self.judge(protocol, packet),
            code::CONFIGURE_ACK => {
                assert_eq!(packet.identifier, self.identifiers[&protocol.0]);
                assert_eq!(packet.data, octets(&self.requests[&protocol.0]));
                self.asked.insert(protocol.0);
                self.advance(protocol);
            }
            code::CONFIGURE_NAK => {
                let request = self.requests.get_mut(&protocol.0).unwrap();
                for (kind, data) in options(packet.data) {
                    // What was not asked for is not taken up.
                    for (_, old) in request.iter_mut().filter(|(asked, _)| *asked == kind) {
                        old.clone_from(&data);
                    }
                }
                self.ask(protocol);
            }
            code::CONFIGURE_REJECT => {
                let request = self.requests.get_mut(&protocol.0).unwrap();
                let rejected = options(packet.data);
                let before = request.len();
                request.retain(|option| !rejected.contains(option));
                assert_eq!(before - request.len(), rejected.len(), "as they were");
                self.ask(protocol);
            }
            code::TERMINATE_REQUEST => self.out.push_back(reply(code::TERMINATE_ACK, &[])),
            code::ECHO_REQUEST => self.out.push_back(reply(code::ECHO_REPLY, &[0, 0, 0, 0])),
            code::PROTOCOL_REJECT => {
                assert_eq!(packet.data[..2], Protocol::IPV6CP.0.to_be_bytes());
            }
            code::TERMINATE_ACK | code::ECHO_REPLY => {}
            other => panic!("{protocol}: code {other}"),
        }
    }

    fn judge(&mut self, protocol: Protocol, packet: &Packet<'_>) {
        let id = packet.identifier;
        if protocol != Protocol::LCP {
            assert!(self.authenticated, "an NCP before the verdict");
        }
        if protocol == Protocol::CCP && !self.requests.contains_key(&protocol.0) {
            let mut data = protocol.0.to_be_bytes().to_vec();
            data.extend(packet.whole);
            self.out
                .push_back(frame(Protocol::LCP, code::PROTOCOL_REJECT, 77, &data));
            return;
        }
        if protocol == Protocol::IPCP && self.wants_mppe() && !self.is_open(Protocol::CCP) {
            self.too_early += 1;
            self.out
                .push_back(frame(protocol, code::TERMINATE_ACK, id, &[]));
            return;
        }
        let request = options(packet.data);
        let no_mppe = protocol == Protocol::CCP && !self.wants_mppe();
        let rejected: Request = request
            .iter()
            .filter(|(kind, _)| {
                self.rejects.contains(&(protocol.0, *kind)) || no_mppe && *kind == MPPE
            })
            .cloned()
            .collect();
        let mut naks = Request::new();
        for (kind, data) in &request {
            if let Some((better, count)) = self.naks.get_mut(&(protocol.0, *kind))
                && better != data
                && *count < MAX_NAKS
            {
                *count += 1;
                naks.push((*kind, better.clone()));
            }
        }
        let answer = if !rejected.is_empty() {
            frame(protocol, code::CONFIGURE_REJECT, id, &octets(&rejected))
        } else if !naks.is_empty() {
            frame(protocol, code::CONFIGURE_NAK, id, &octets(&naks))
        } else {
            self.answered.insert(protocol.0);
            frame(protocol, code::CONFIGURE_ACK, id, packet.data)
        };
        self.out.push_back(answer);
        self.advance(protocol);
    }

    /// A layer has got further: what follows from that.
    fn advance(&mut self, protocol: Protocol) {
        if !self.is_open(protocol) {
            return;
        }
        match protocol {
            Protocol::LCP if self.side == Side::Server => {
                let exchange = self.exchange.as_ref().unwrap();
                let mut data = vec![16];
                data.extend(exchange.challenge);
                data.extend(b"pptpd");
                self.out.push_back(frame(Protocol::CHAP, 1, 9, &data));
            }
            Protocol::CCP if self.wants_mppe() => self.ask(Protocol::IPCP),
            _ => {}
        }
    }

    fn begin_network(&mut self) {
        self.authenticated = true;
        self.ask(Protocol::CCP);
        self.ask(Protocol::IPV6CP);
        if !self.wants_mppe() {
            self.ask(Protocol::IPCP);
        }
    }

    fn hear_chap(&mut self, packet: &Packet<'_>) {
        let exchange = self.exchange.as_ref().unwrap();
        match (self.side, packet.code) {
            (Side::Client, 1) => {
                assert_eq!(packet.data[0], 16);
                let challenge = packet.data[1..17].try_into().unwrap();
                let password = if exchange.answer.is_ok() {
                    "correct horse"
                } else {
                    "wrong horse"
                };
                let response = mschap::nt_response(
                    &NtHash::from_password(password),
                    challenge,
                    &exchange.peer_challenge,
                    &exchange.name,
                );
                let mut data = vec![49];
                data.extend(exchange.peer_challenge);
                data.extend([0; 8]);
                data.extend(response);
                data.push(0);
                data.extend(&exchange.name);
                self.out
                    .push_back(frame(Protocol::CHAP, 2, packet.identifier, &data));
            }
            (Side::Server, 2) => {
                let message = match &exchange.answer {
                    Err(message) => Err(message.clone()),
                    Ok(message) => {
                        let success = mschap::verify(
                            &NtHash::from_password("correct horse"),
                            &exchange.challenge,
                            packet.data[1..17].try_into().unwrap(),
                            packet.data[25..49].try_into().unwrap(),
                            &packet.data[50..],
                        );
                        // The captured text after the proof stays.
                        let mut text = success.unwrap().authenticator_response.to_vec();
                        text.extend(&message[42..]);
                        Ok(text)
                    }
                };
                let (code, text) = match &message {
                    Ok(text) => (3, text),
                    Err(text) => (4, text),
                };
                self.out
                    .push_back(frame(Protocol::CHAP, code, packet.identifier, text));
                if message.is_ok() {
                    self.begin_network();
                }
            }
            (Side::Client, 3) => self.begin_network(),
            (Side::Client, 4) => assert!(packet.data.starts_with(b"E=691 R=0 C=")),
            other => panic!("CHAP {other:?}"),
        }
    }
}

/// What became of a call.
#[derive(Debug, Default)]
struct Outcome {
    up: Option<Terms>,
    up6: Option<Ipv6Terms>,
    loads: Vec<Direction>,
    end: Option<End>,
    took: Duration,
    too_early: usize,
}

fn converse(mut link: Link, mut ghost: Ghost, ipv6: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut now = Time::ZERO;
    ghost.ask(Protocol::LCP);
    link.open(now);
    let limit = Time::ZERO + Duration::from_secs(20);
    loop {
        let mut busy = false;
        while let Some(action) = link.poll() {
            busy = true;
            match action {
                Action::Send(frame) => ghost.hear(&frame),
                Action::Load { direction, .. } => outcome.loads.push(direction),
                Action::Authenticate(credentials) => {
                    let success = (credentials.user_part() == b"alice")
                        .then(|| credentials.verify(&NtHash::from_password("correct horse")))
                        .flatten();
                    let verdict = match success {
                        Some(success) => Verdict::Accept(Grant {
                            authenticator_response: success.authenticator_response,
                            keys: Some(success.keys),
                            address: CLIENT_ADDRESS.into(),
                            server_address: SERVER_ADDRESS.into(),
                            dns: [None; 2],
                            nbns: [None; 2],
                            ipv6: ipv6.then(|| Ipv6Grant {
                                server_identifier: OURS,
                                client_identifier: 0x99,
                                prefix: "2001:db8:1:7::/64".parse().unwrap(),
                                delegated: None,
                                dns: [None; 2],
                            }),
                        }),
                        None => Verdict::Reject {
                            code: 691,
                            message: String::new(),
                        },
                    };
                    link.verdict(verdict, now);
                }
                Action::Up(terms) => {
                    outcome.up = Some(terms);
                    outcome.took = now.since(Time::ZERO);
                }
                Action::Hold => outcome.up = None,
                Action::Up6(terms) => outcome.up6 = Some(terms),
                Action::Hold6 => outcome.up6 = None,
                Action::Finished(end) => outcome.end = Some(end),
            }
        }
        if let Some(frame) = ghost.out.pop_front() {
            busy = true;
            link.handle_frame(&frame, now);
        }
        if busy {
            continue;
        }
        match link.deadline().filter(|deadline| *deadline <= limit) {
            Some(deadline) if outcome.end.is_none() => {
                now = now.max(deadline);
                link.handle_timeout(now);
            }
            _ => break,
        }
    }
    assert_eq!(link.info().malformed, 0);
    outcome.too_early = ghost.too_early;
    outcome
}

#[test]
fn captured_peers_get_through() {
    let (mut talks, mut with_ipv6) = (0, 0);
    println!("{:<40} {:<8} outcome", "capture", "ghost");
    for file in File::all().unwrap() {
        let name = &file.name;
        for call in file.calls().unwrap() {
            let exchanged = exchange(&call).is_some();
            for (side, ipv6) in Side::BOTH
                .into_iter()
                .flat_map(|side| [(side, false), (side, true)])
            {
                let ghost = Ghost::of(&call, side);
                let identifier = ghost.interface_identifier();
                if ipv6 && identifier.is_none() {
                    continue;
                }
                let given = ghost.naks.get(&(Protocol::IPV6CP.0, INTERFACE_IDENTIFIER));
                let given = given.map_or(OURS, |(data, _)| number(data));
                let refuses = side == Side::Client
                    && ghost
                        .naks
                        .contains_key(&(Protocol::LCP.0, LCP_AUTHENTICATION));
                if !exchanged && !refuses {
                    continue;
                }
                // A server that never came to giving an address knows none to give.
                let gives = ghost.naks.contains_key(&(Protocol::IPCP.0, IP_ADDRESS));
                let failed = exchange(&call).is_some_and(|exchange| exchange.answer.is_err());
                if side == Side::Server && !gives && !failed {
                    println!("{name:<40} {:<8} skipped: it gave no address", "Server");
                    continue;
                }
                let refused = ghost.rejects.contains(&(Protocol::CCP.0, MPPE));
                let required = ghost.wants_mppe() || refused;
                let mppe = if required {
                    Policy::Require
                } else {
                    Policy::Prefer
                };
                let denied = ghost
                    .exchange
                    .as_ref()
                    .is_some_and(|exchange| exchange.answer.is_err());
                let link = match side {
                    Side::Client => {
                        let config = ServerLink {
                            mppe,
                            ..ServerLink::default()
                        };
                        Link::server(config, [5; 32], Time::ZERO)
                    }
                    Side::Server => {
                        let config = ClientLink {
                            mppe,
                            ipv6: ipv6.then_some(OURS),
                            ..ClientLink::new(b"alice", NtHash::from_password("correct horse"))
                        };
                        Link::client(config, [6; 32], Time::ZERO)
                    }
                };
                let outcome = converse(link, ghost, ipv6);
                let told = match (&outcome.up, &outcome.end) {
                    (Some(terms), _) => format!("up, {:?}, MTU {}", terms.encryption, terms.mtu),
                    (None, Some(end)) => end.to_string(),
                    (None, None) => "nothing".to_owned(),
                };
                println!("{name:<40} {:<8} {told}", format!("{side:?}"));
                talks += 1;
                if refuses {
                    assert!(
                        matches!(outcome.end, Some(End::AuthenticationRefused { .. })),
                        "{name} {side:?}: {outcome:?}"
                    );
                } else if denied {
                    assert!(
                        matches!(
                            outcome.end,
                            Some(End::AuthenticationFailed { code: 691, .. })
                        ),
                        "{name} {side:?}: {outcome:?}"
                    );
                } else if refused {
                    assert!(
                        matches!(outcome.end, Some(End::MppeRefused(_))),
                        "{name} {side:?}: {outcome:?}"
                    );
                } else {
                    let terms = outcome
                        .up
                        .unwrap_or_else(|| panic!("{name} {side:?}: {outcome:?}"));
                    assert_eq!(terms.address.octets(), CLIENT_ADDRESS, "{name} {side:?}");
                    assert_eq!(terms.server_address.octets(), SERVER_ADDRESS);
                    let identifiers = outcome.up6.map(|terms| (Some(terms.theirs), terms.ours));
                    let expected = ipv6.then_some((identifier, given));
                    assert_eq!(identifiers, expected, "{name} {side:?}: {outcome:?}");
                    with_ipv6 += u32::from(ipv6);
                    let encryption = if required {
                        assert!(outcome.loads.contains(&Direction::Receive));
                        assert!(outcome.loads.contains(&Direction::Transmit));
                        Encryption::Required
                    } else {
                        Encryption::Plain
                    };
                    assert_eq!(terms.encryption, encryption, "{name} {side:?}");
                    // Nothing waited for a timer, and pppd was never asked for IPCP before it was ready.
                    assert_eq!(outcome.took, Duration::ZERO, "{name} {side:?}");
                    assert_eq!(outcome.too_early, 0, "{name} {side:?}");
                }
            }
        }
    }
    assert!(talks > 60, "{talks} conversations");
    assert!(with_ipv6 > 20, "{with_ipv6} with IPv6");
    println!("{talks} conversations, {with_ipv6} with IPv6");
}
