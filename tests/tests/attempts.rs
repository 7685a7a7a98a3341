//! Attempts to get packets past an encryption that was agreed, or is about to be: none passes, in either direction, and
//! each has the name under which it is dropped.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print the table they check"
)]

#[path = "attempts/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::time::Duration;

use stage::{INNER, Out, Stage, Terms, inner};
use turnpike_controlplane::cause::Cause;
use turnpike_protocol::mppe::{Mode, Policy, Strength};
use turnpike_protocol::ppp::packet::code;

const CCP: [u8; 2] = [0x80, 0xfd];
const CHAP: [u8; 2] = [0xc2, 0x23];
const LCP: [u8; 2] = [0xc0, 0x21];

fn nothing(_: &[u8]) -> bool {
    false
}

fn everything(_: &[u8]) -> bool {
    true
}

fn of(protocol: [u8; 2], frame: &[u8]) -> bool {
    frame[2..4] == protocol
}

/// Something that a client does.
struct Attempt {
    name: &'static str,
    /// What its own link never sends: how far it lets the call come.
    mute: fn(&[u8]) -> bool,
    act: fn(&mut Stage, Terms),
    /// Encrypted packets flow afterwards, both ways, as before.
    flows: bool,
    /// Under which names the attempt, and then one packet of each kind, are dropped.
    drops: &'static [&'static str],
    /// How the call ends, when the client goes on like that.
    end: Option<Cause>,
}

fn option(bits: [u8; 4]) -> Vec<u8> {
    [&[18, 6][..], &bits].concat()
}

/// Bits of another strength and mode than the agreed ones.
fn other(terms: Terms) -> [u8; 4] {
    let mut bits = terms.bits();
    bits[0] ^= 1;
    bits[3] = if bits[3] == 0x40 { 0x20 } else { 0x40 };
    bits
}

fn repeat_request(stage: &mut Stage, bits: [u8; 4]) {
    stage.mute = everything;
    stage.send_ccp(code::CONFIGURE_REQUEST, 77, &option(bits));
    stage.settle();
}

/// Answers the server's request, which it sends because the client's has come again.
fn answer_anew(stage: &mut Stage, terms: Terms, code: u8, data: impl FnOnce(&[u8]) -> Vec<u8>) {
    repeat_request(stage, terms.bits());
    let (identifier, options) = stage.request.clone().unwrap();
    stage.send_ccp(code, identifier, &data(&options));
    stage.settle();
}

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "in clear on an open call",
        mute: nothing,
        act: |_, _| (),
        flows: true,
        drops: &["plain-refused"],
        end: None,
    },
    Attempt {
        name: "encrypted, with another call's address",
        mute: nothing,
        act: |stage, _| stage.send_encrypted(&packet("10.20.0.77".parse().unwrap())),
        flows: true,
        drops: &["plain-refused", "spoofed"],
        end: None,
    },
    Attempt {
        name: "LCP, CCP and IPCP inside MPPE",
        mute: nothing,
        act: |stage, _| {
            for protocol in [LCP, CCP, [0x80, 0x21]] {
                stage.send_encrypted(&[&protocol[..], &[5, 1, 0, 4]].concat());
                // Stateful keys are reset after that.
                stage.settle();
                stage.send_encrypted(&packet(INNER));
                assert_eq!(stage.settle().up, 1);
            }
        },
        flows: true,
        drops: &["control-in-mppe", "plain-refused"],
        end: None,
    },
    Attempt {
        name: "MPPE frames that are too short, or not encrypted",
        mute: nothing,
        act: |stage, _| {
            for frame in [
                &[0xfd][..],
                &[0xfd, 0x90],
                &[0xfd, 0x80, 0x30, 0, 0x21, 0x45],
                &[0xfd, 0xb0, 0x30, 0, 0x21, 0x45],
            ] {
                stage.send_frame(frame);
            }
        },
        flows: true,
        drops: &[
            "mppe-compressed",
            "mppe-not-encrypted",
            "mppe-short",
            "plain-refused",
        ],
        end: None,
    },
    Attempt {
        name: "before authentication",
        mute: |frame| of(CHAP, frame),
        act: |_, _| (),
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding", "pool-without-call"],
        end: Some(Cause::SetupTimeout),
    },
    Attempt {
        name: "before CCP",
        mute: |frame| of(CCP, frame),
        act: |_, _| (),
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding", "pool-without-call"],
        end: None,
    },
    Attempt {
        name: "before CCP, with IPCP pressed for",
        mute: |frame| of(CCP, frame),
        act: |stage, _| {
            for identifier in 50..55 {
                let head = [
                    0xff,
                    3,
                    0x80,
                    0x21,
                    code::CONFIGURE_REQUEST,
                    identifier,
                    0,
                    10,
                    3,
                    6,
                ];
                stage.send_frame(&[&head[..], &INNER.octets()].concat());
                stage.settle();
            }
        },
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding", "pool-without-call"],
        end: None,
    },
    Attempt {
        name: "with only the server's request acknowledged",
        mute: |frame| of(CCP, frame) && frame[4] == code::CONFIGURE_REQUEST,
        act: |_, _| (),
        flows: false,
        drops: &["not-yet-forwarding", "pool-without-call"],
        end: None,
    },
    Attempt {
        name: "while CCP is argued about",
        mute: |frame| of(CCP, frame),
        act: |stage, terms| {
            for round in 0..2 {
                stage.send_ccp(code::CONFIGURE_REQUEST, 80 + round, &option(other(terms)));
                let (identifier, _) = stage.request.clone().unwrap();
                stage.send_ccp(code::CONFIGURE_NAK, identifier, &option(other(terms)));
                stage.settle();
                probe(stage);
            }
        },
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding", "pool-without-call"],
        end: None,
    },
    Attempt {
        name: "after malformed CCP requests",
        mute: nothing,
        act: |stage, terms| {
            for data in [
                &[18, 9, 1, 0, 0, 0x40][..],
                &[18, 1, 1, 0, 0, 0x40],
                &[18, 6, 1, 0, 0, 0x40, 21],
                &[18],
            ] {
                stage.send_ccp(code::CONFIGURE_REQUEST, 77, data);
                stage.send_ccp(code::CONFIGURE_ACK, 1, data);
            }
            let bits = terms.bits();
            // Lengths beyond the frame, and under the header's.
            for length in [99, 3] {
                let head = [0xff, 3, 0x80, 0xfd, code::CONFIGURE_REQUEST, 77, 0, length];
                stage.send_frame(&[&head[..], &option(bits)].concat());
            }
            stage.send_frame(&[0xff, 3, 0x80, 0xfd, code::CONFIGURE_REQUEST]);
        },
        flows: true,
        drops: &["plain-refused"],
        end: None,
    },
    Attempt {
        name: "after a repeated CCP request",
        mute: nothing,
        act: |stage, terms| repeat_request(stage, terms.bits()),
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a CCP request for other bits",
        mute: nothing,
        act: |stage, terms| repeat_request(stage, other(terms)),
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a CCP request for no encryption",
        mute: nothing,
        act: |stage, _| repeat_request(stage, [0; 4]),
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a late Configure-Reject of MPPE",
        mute: nothing,
        act: |stage, terms| {
            answer_anew(stage, terms, code::CONFIGURE_REJECT, <[u8]>::to_vec);
            // Where stateful keys were asked for, stateless ones are asked for before it is believed.
            let (identifier, options) = stage.request.clone().unwrap();
            stage.send_ccp(code::CONFIGURE_REJECT, identifier, &options);
            stage.settle();
        },
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a late Nak without encryption",
        mute: nothing,
        act: |stage, terms| answer_anew(stage, terms, code::CONFIGURE_NAK, |_| option([0; 4])),
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a Protocol-Reject of CCP",
        mute: nothing,
        act: |stage, _| {
            stage.mute = everything;
            stage.send_frame(&[0xff, 3, 0xc0, 0x21, 8, 9, 0, 10, 0x80, 0xfd, 1, 1, 0, 4]);
            stage.settle();
        },
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a CCP Terminate-Request",
        mute: nothing,
        act: |stage, _| {
            stage.mute = everything;
            stage.send_ccp(code::TERMINATE_REQUEST, 9, &[]);
            stage.settle();
        },
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after a CCP Terminate-Ack that nobody asked for",
        mute: nothing,
        act: |stage, _| {
            stage.mute = everything;
            stage.send_ccp(code::TERMINATE_ACK, 9, &[]);
            stage.settle();
        },
        flows: false,
        drops: &["mppe-no-keys", "not-yet-forwarding"],
        end: Some(Cause::EncryptionLost),
    },
    Attempt {
        name: "after LCP was begun anew",
        mute: nothing,
        act: |stage, _| {
            stage.mute = everything;
            let request = [0xff, 3, 0xc0, 0x21, 1, 77, 0, 10, 5, 6, 1, 2, 3, 4];
            stage.send_frame(&request);
            stage.settle();
        },
        flows: false,
        drops: &["not-yet-forwarding"],
        end: None,
    },
];

fn packet(source: std::net::Ipv4Addr) -> Vec<u8> {
    [&[0x00, 0x21][..], &inner(source)].concat()
}

/// One packet of each kind: up in clear with a short and with a long protocol number, up encrypted, down.
fn probe(stage: &mut Stage) -> Out {
    stage.send_frame(&[&[0x21][..], &inner(INNER)].concat());
    stage.send_frame(&packet(INNER));
    stage.send_encrypted(&packet(INNER));
    stage.send_down();
    stage.settle()
}

fn attempt(attempt: &Attempt, terms: Terms) {
    let case = format!("{} ({terms:?})", attempt.name);
    let mut stage = Stage::new(terms, attempt.mute);
    if (attempt.mute)(&[0xff, 3, CCP[0], CCP[1], 1])
        || (attempt.mute)(&[0xff, 3, CHAP[0], CHAP[1], 2])
    {
        assert_eq!(stage.settle(), Out::default(), "{case}");
    } else {
        for _ in 0..20 {
            stage.send_encrypted(&packet(INNER));
            stage.send_down();
            let out = stage.settle();
            assert_eq!(
                (out.up, out.clear, out.down, out.unreadable),
                (1, 0, 1, 0),
                "{case}"
            );
        }
    }
    assert!(stage.drops().is_empty(), "{case}");
    (attempt.act)(&mut stage, terms);
    let out = probe(&mut stage);
    let passed = usize::from(attempt.flows);
    let expected = Out {
        up: passed,
        down: passed,
        ..Out::default()
    };
    assert_eq!(out, expected, "{case}");
    let drops: BTreeSet<&str> = stage.drops().into_keys().collect();
    assert_eq!(drops, attempt.drops.iter().copied().collect(), "{case}");
    if let Some(cause) = attempt.end {
        // A minute in which packets keep coming.
        for _ in 0..60 {
            stage.pass(Duration::from_secs(1));
            if stage.ended.is_some() {
                break;
            }
            assert_eq!(probe(&mut stage), Out::default(), "{case}");
        }
        assert_eq!(stage.ended, Some(cause), "{case}");
    }
}

#[test]
fn nothing_passes_an_encryption() {
    let mut cases = 0;
    for one in ATTEMPTS {
        println!("{:<52} {}", one.name, one.drops.join(", "));
        for policy in [Policy::Require, Policy::Prefer] {
            for strength in [Strength::Bits128, Strength::Bits56, Strength::Bits40] {
                for mode in [Mode::Stateless, Mode::Stateful] {
                    let terms = Terms {
                        policy,
                        strength,
                        mode,
                    };
                    attempt(one, terms);
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} cases");
}
