//! Our links against the peers of the captures: each captured end comes back as a ghost that asks for what it asked for
//! then, and refuses what it refused then, while we take the place of its partner.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and print what they covered"
)]

mod ghost;

use std::collections::BTreeMap;
use std::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Direction, Policy};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{
    Action, AuthProtocol, ClientLink, Encryption, End, Grant, Ipv6Grant, Ipv6Terms, Link, Remedy,
    ServerLink, Terms, Verdict,
};
use turnpike_protocol::wire::ppp::Protocol;
use turnpike_tests::captures::{File, Side};

use ghost::{Ghost, INTERFACE_IDENTIFIER, IP_ADDRESS, LCP_AUTHENTICATION, MPPE, number};

const CLIENT_ADDRESS: [u8; 4] = [10, 9, 1, 100];
const SERVER_ADDRESS: [u8; 4] = [10, 9, 1, 1];
/// Strongest first.
const ALL_METHODS: [AuthProtocol; 4] = [
    AuthProtocol::MsChapV2,
    AuthProtocol::MsChapV1,
    AuthProtocol::ChapMd5,
    AuthProtocol::Pap,
];
/// Our interface identifier.
const OURS: u64 = 0x77;

/// What became of a call.
#[derive(Debug, Default)]
struct Outcome {
    up: Option<Terms>,
    up6: Option<Ipv6Terms>,
    loads: Vec<Direction>,
    end: Option<End>,
    took: Duration,
    too_early: usize,
    method: Option<AuthProtocol>,
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
                Action::Choose(_) => link.chosen(false, now),
                Action::Load { direction, .. } => outcome.loads.push(direction),
                Action::Authenticate(credentials) => {
                    let proof = (credentials.user_part() == b"alice")
                        .then(|| {
                            let secret = Password::new("correct horse").into();
                            credentials.verify(&secret).ok()
                        })
                        .flatten();
                    let verdict = match proof {
                        Some(proof) => Verdict::Accept(Grant {
                            limits: Default::default(),
                            proof,
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
                            remedy: Remedy::None,
                        },
                    };
                    link.verdict(verdict, now);
                }
                Action::Up(terms) => {
                    outcome.method = link.info().authentication;
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
    let mut methods_seen = BTreeMap::new();
    println!("{:<40} {:<8} outcome", "capture", "ghost");
    for file in File::all().unwrap() {
        let name = &file.name;
        for call in file.calls().unwrap() {
            for (side, ipv6, methods) in [
                (Side::Client, false, &ALL_METHODS[..]),
                (Side::Client, true, &ALL_METHODS),
                (Side::Client, false, &ALL_METHODS[..1]),
                (Side::Server, false, &ALL_METHODS),
                (Side::Server, true, &ALL_METHODS),
            ] {
                let ghost = Ghost::of(&call, side);
                let identifier = ghost.interface_identifier();
                if ipv6 && identifier.is_none() {
                    continue;
                }
                let given = ghost.naks.get(&(Protocol::IPV6CP.0, INTERFACE_IDENTIFIER));
                let given = given.map_or(OURS, |(data, _)| number(data));
                let wants = ghost.naks.get(&(Protocol::LCP.0, LCP_AUTHENTICATION));
                let wants = wants.and_then(|(data, _)| AuthProtocol::parse(data));
                let refuses = wants.is_some_and(|method| !methods.contains(&method));
                // A server that came to no agreement has nothing to ask.
                if side == Side::Server && ghost.login.is_none() {
                    println!("{name:<40} {:<8} skipped: nobody logged in", "Server");
                    continue;
                }
                // A server that never came to giving an address knows none to give.
                let gives = ghost.naks.contains_key(&(Protocol::IPCP.0, IP_ADDRESS));
                let failed = (ghost.login.as_ref()).is_some_and(|login| login.answer.is_err());
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
                let denied = failed;
                let link = match side {
                    Side::Client => {
                        let config = ServerLink {
                            mppe,
                            methods: methods.to_vec(),
                            ..ServerLink::default()
                        };
                        Link::server(config, [5; 32], Time::ZERO)
                    }
                    Side::Server => {
                        let config = ClientLink {
                            mppe,
                            ipv6: ipv6.then_some(OURS),
                            methods: methods.to_vec(),
                            ..ClientLink::new(b"alice", Password::new("correct horse"))
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
                let by = outcome.method.map_or("-".to_owned(), |by| by.to_string());
                println!("{name:<40} {:<8} {by:<9} {told}", format!("{side:?}"));
                talks += 1;
                if outcome.up.is_some() {
                    *methods_seen.entry((format!("{side:?}"), by)).or_insert(0) += 1;
                }
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
    println!("{talks} conversations, {with_ipv6} with IPv6; up by {methods_seen:?}");
    assert_eq!(methods_seen.len(), 8, "every method, both ends");
}
