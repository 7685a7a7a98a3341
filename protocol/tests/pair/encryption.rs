//! What policies, keys and CCP make of a call.

use turnpike_protocol::mppe::{Allowed, Stateful, Strengths};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{AuthProtocol, Verdict};

use super::*;
use crate::harness::grant;

#[test]
fn policies_meet() {
    use Policy::{Allow, Deny, Prefer, Require};
    for client_policy in [Deny, Allow, Prefer, Require] {
        for server_policy in [Deny, Allow, Prefer, Require] {
            let mut pair = with_policies(client_policy, server_policy);
            pair.open();
            pair.run(MINUTE, |pair| pair.both_up() || pair.both_ended());
            let denied = [client_policy, server_policy].contains(&Deny);
            let required = [client_policy, server_policy].contains(&Require);
            let wanted = required || [client_policy, server_policy].contains(&Prefer);
            if denied && required {
                assert!(
                    pair.ends
                        .iter()
                        .any(|end| matches!(end.end, Some(End::MppeRefused(_)))),
                    "{client_policy:?} {server_policy:?}"
                );
            } else {
                assert!(pair.both_up(), "{client_policy:?} {server_policy:?}");
                // A side that may still learn better by CCP does.
                pair.run(Duration::from_secs(1), |_| false);
                assert!(pair.both_up());
                pair.assert_agreed(wanted && !denied);
                assert!(
                    pair.now.since(turnpike_protocol::Time::ZERO) < Duration::from_secs(3),
                    "{client_policy:?} {server_policy:?} waited for a timer"
                );
            }
        }
    }
}

#[test]
fn no_keys_means_no_mppe() {
    let mut pair = with_policies(Policy::Prefer, Policy::Prefer);
    pair.verdict = Box::new(keyless_verdict);
    assert!(pair.set_up());
    assert_eq!(pair.server().up.unwrap().encryption, Encryption::Plain);
    assert!(pair.server().transmit.running.is_none());

    let mut pair = with_policies(Policy::Require, Policy::Require);
    pair.verdict = Box::new(keyless_verdict);
    pair.open();
    assert!(pair.run(MINUTE, Pair::both_ended));
    assert_eq!(
        pair.server().end,
        Some(End::MppeRefused(MppeRefusal::NoKeys))
    );
    assert!(matches!(
        pair.client().end,
        Some(End::PeerTerminated { .. })
    ));
}

#[test]
fn lost_and_doubled_ccp_acknowledgements_start_the_same_keys() {
    for (lost, doubled) in [(Side::Client, 0), (Side::Server, 0), (Side::Client, 1000)] {
        let mut pair = Pair::new(client(), server(), 9);
        pair.faults.duplication = doubled;
        let mut acks = 0;
        pair.filter = Box::new(move |from, frame| {
            let ack = ccp_ack(frame).is_some() && from == lost;
            acks += u32::from(ack);
            ack && acks == 1
        });
        assert!(pair.set_up());
        pair.run(Duration::from_secs(10), |_| false);
        assert!(pair.both_up());
        pair.assert_agreed(true);
        assert_eq!(pair.counts.lost_ccp_acks, 1);
        assert_eq!(pair.counts.doubled_ccp_acks > 0, doubled > 0);
    }
}

#[test]
fn ccp_negotiated_anew_holds_data_and_starts_the_keys_again() {
    let mut pair = Pair::new(client(), server(), 18);
    assert!(pair.set_up());
    let request = [0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 10, 18, 6, 1, 0, 0, 0x40];
    pair.inject(Side::Server, &request);
    assert!(pair.server().up.is_none(), "no data without CCP");
    assert!(pair.run(MINUTE, |pair| pair.ends[1].up.is_some()));
    pair.run(Duration::from_secs(10), |_| false);
    assert!(pair.both_up());
    pair.assert_agreed(true);
    assert!(pair.server().transmit.starts >= 2);
}

#[test]
fn malformed_ccp_changes_nothing() {
    let mut pair = Pair::new(client(), server(), 19);
    assert!(pair.set_up());
    for frame in [
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 10, 18, 9, 1, 0, 0, 0x40][..],
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 10, 18, 1, 1, 0, 0, 0x40],
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 99, 18, 6, 1, 0, 0, 0x40],
        &[0xff, 0x03, 0x80, 0xfd, 1, 77, 0, 3],
        &[0xff, 0x03, 0x80, 0xfd, 1],
        &[0xff, 0x03],
        &[],
    ] {
        pair.inject(Side::Server, frame);
        assert!(pair.server().up.is_some());
    }
    assert_eq!(pair.server().ups, 1);
    assert!(pair.server().link.info().malformed >= 4);
}

#[test]
fn ccp_closed_by_the_peer_ends_an_encrypted_call() {
    for policy in [Policy::Allow, Policy::Prefer, Policy::Require] {
        let mut pair = with_policies(Policy::Require, policy);
        assert!(pair.set_up());
        pair.run(Duration::from_secs(1), |_| false);
        pair.assert_agreed(true);
        pair.inject(Side::Server, &[0xff, 0x03, 0x80, 0xfd, 5, 9, 0, 4]);
        assert!(pair.server().up.is_none(), "never back to clear");
        assert!(pair.run(MINUTE, |pair| pair.ends[1].end.is_some()));
        assert_eq!(
            pair.server().end,
            Some(End::MppeRefused(MppeRefusal::Terminated)),
            "{policy:?}"
        );
    }
}

const STRENGTHS: [Strength; 3] = [Strength::Bits40, Strength::Bits56, Strength::Bits128];
const MODES: [Stateful; 3] = [Stateful::Refuse, Stateful::Accept, Stateful::Ask];

fn with_allowed(client_allowed: Allowed, server_allowed: Allowed, seed: u64) -> Pair {
    Pair::new(
        ClientLink {
            mppe_allowed: client_allowed,
            ..client()
        },
        ServerLink {
            mppe_allowed: server_allowed,
            ..server()
        },
        seed,
    )
}

/// Every set of strengths against every other, in every mode: the strongest in common, and the mode that both take; or an
/// end that says why not.
#[test]
fn strengths_and_modes_meet() {
    let sets: Vec<Strengths> = (1..8)
        .map(|set| {
            STRENGTHS
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| set >> bit & 1 == 1)
                .map(|(_, strength)| strength)
                .collect()
        })
        .collect();
    let mut seen = [0; 3];
    for (at_client, at_server) in sets.iter().flat_map(|a| sets.iter().map(move |b| (*a, *b))) {
        for (of_client, of_server) in MODES.iter().flat_map(|a| MODES.map(|b| (*a, b))) {
            let allowed = |strengths, stateful| Allowed {
                strengths,
                stateful,
            };
            let case = format!("{at_client:?} {of_client:?} and {at_server:?} {of_server:?}");
            let mut pair = with_allowed(
                allowed(at_client, of_client),
                allowed(at_server, of_server),
                2,
            );
            pair.open();
            pair.run(MINUTE, |pair| pair.both_up() || pair.both_ended());
            let Some(strength) = at_client.and(at_server).strongest() else {
                let ends: Vec<_> = pair.ends.iter().map(|end| end.end.clone()).collect();
                let named =
                    |peer, ours| Some(End::MppeRefused(MppeRefusal::Strength { peer, ours }));
                // Whoever loses patience first; the other one is told.
                assert!(
                    ends[0] == named(only(at_server), at_client)
                        || ends[0] == named(at_server, at_client)
                        || ends[1] == named(only(at_client), at_server)
                        || ends[1] == named(at_client, at_server),
                    "{case}: {ends:?}"
                );
                seen[2] += 1;
                continue;
            };
            assert!(pair.both_up(), "{case}: {:?}", pair.server().end);
            pair.assert_agreed(true);
            let asked = [of_client, of_server].contains(&Stateful::Ask);
            let refused = [of_client, of_server].contains(&Stateful::Refuse);
            let mode = if asked && !refused {
                Mode::Stateful
            } else {
                Mode::Stateless
            };
            seen[mode as usize] += 1;
            for end in &pair.ends {
                let info = end.link.info();
                let expected = Some(MppeTerms { strength, mode });
                assert_eq!(info.mppe_receive, expected, "{case}");
                assert_eq!(info.mppe_transmit, expected, "{case}");
                let running = end.receive.running.as_ref().unwrap();
                assert_eq!((running.1, running.2), (strength, mode));
            }
            assert!(
                pair.now.since(turnpike_protocol::Time::ZERO) < Duration::from_secs(1),
                "{case}: waited for a timer"
            );
        }
    }
    assert_eq!(seen, [222, 111, 108], "stateless, stateful, refused");
}

/// What a Nak of ours leaves of a set.
fn only(strengths: Strengths) -> Strengths {
    strengths.strongest().into_iter().collect()
}

/// Loss, doubling and reordering neither mix up the strengths nor the modes of the directions.
#[test]
fn strengths_and_modes_survive_bad_wires() {
    let mut up = 0;
    for seed in 0..400 {
        let pick = |shift: u64| Allowed {
            strengths: Strengths::STRONG.with(STRENGTHS[(seed >> shift & 1) as usize]),
            stateful: MODES[(seed / 4 % 9 / if shift == 0 { 1 } else { 3 } % 3) as usize],
        };
        let mut pair = with_allowed(pick(0), pick(1), seed);
        pair.faults = Faults {
            loss: 60,
            duplication: 60,
            reordering: 100,
        };
        if pair.set_up() {
            pair.run(Duration::from_secs(10), |_| false);
        }
        if pair.both_up() {
            pair.assert_agreed(true);
            let [client, server] = [pair.ends[0].link.info(), pair.ends[1].link.info()];
            assert_eq!(client.mppe_receive, server.mppe_transmit, "seed {seed}");
            assert_eq!(client.mppe_transmit, server.mppe_receive, "seed {seed}");
            up += 1;
        }
    }
    println!("{up} of 400 calls came up");
    assert!(up > 380, "{up}");
}

/// A peer that will not agree, where a call may do without encryption: it is left in clear, and CCP falls silent.
#[test]
fn endless_argument_over_an_optional_encryption_ends_in_clear() {
    let mut pair = with_policies(Policy::Deny, Policy::Prefer);
    let mut asked = 0;
    pair.filter = Box::new(move |from, frame| {
        // The client's Protocol-Reject of CCP, if any.
        from == Side::Client && frame.starts_with(&[0xff, 0x03, 0xc0, 0x21, 8])
    });
    pair.open();
    pair.run(Duration::from_secs(1), |_| false);
    while asked < 30 {
        asked += 1;
        let Some(request) = pair
            .server()
            .sent
            .iter()
            .rev()
            .find(|frame| frame.starts_with(&[0xff, 0x03, 0x80, 0xfd, 1]))
            .cloned()
        else {
            break;
        };
        // Two strengths for ever, ours among them.
        let nak = [
            0xff, 0x03, 0x80, 0xfd, 3, request[5], 0, 10, 18, 6, 1, 0, 0, 0x60,
        ];
        pair.inject(Side::Server, &nak);
    }
    // At once, not when CCP's requests have run out.
    let soon = Duration::from_secs(2);
    assert!(pair.run(soon, Pair::both_up), "{:?}", pair.server().end);
    assert_eq!(pair.server().up.unwrap().encryption, Encryption::Plain);
    let sent = pair.server().sent.len();
    for _ in 0..30 {
        let request = [0xff, 0x03, 0x80, 0xfd, 1, 9, 0, 10, 18, 6, 1, 0, 0, 0x60];
        pair.inject(Side::Server, &request);
    }
    assert_eq!(pair.server().sent.len(), sent);
    assert!(pair.server().up.is_some());
}

#[test]
fn no_strength_allowed_is_no_encryption() {
    let none = Allowed {
        strengths: Strengths::NONE,
        ..Allowed::default()
    };
    for (policy, end) in [
        (Policy::Require, Some(End::MppeRefused(MppeRefusal::NoKeys))),
        (Policy::Prefer, None),
    ] {
        let mut pair = Pair::new(
            ClientLink {
                mppe: Policy::Allow,
                ..client()
            },
            ServerLink {
                mppe: policy,
                mppe_allowed: none,
                ..server()
            },
            4,
        );
        pair.open();
        pair.run(MINUTE, |pair| pair.both_up() || pair.both_ended());
        assert_eq!(pair.server().end, end);
        assert_eq!(pair.both_up(), end.is_none());
    }
}

/// MS-CHAPv1 makes keys of 40 and 56 bits from the LM hash, which ends at 14 characters (RFC 3079 §2).
#[test]
fn weak_keys_of_ms_chap_v1_want_a_short_password() {
    let weak: Strengths = [Strength::Bits56, Strength::Bits40].into_iter().collect();
    for (password, client_strengths, server_strengths, outcome) in [
        ("fourteen chars", weak, Strengths::ALL, Ok(Strength::Bits56)),
        (
            "fifteen  chars.",
            Strengths::ALL,
            Strengths::ALL,
            Ok(Strength::Bits128),
        ),
        (
            "fifteen  chars.",
            Strengths::ALL,
            weak,
            Err(MppeRefusal::NoLmHash),
        ),
        (
            "vierzehn Zeich\u{e4}",
            Strengths::ALL,
            weak,
            Err(MppeRefusal::NoLmHash),
        ),
    ] {
        let allowed = |strengths| Allowed {
            strengths,
            ..Allowed::default()
        };
        let mut pair = Pair::new(
            ClientLink {
                secret: Password::new(password).into(),
                methods: vec![AuthProtocol::MsChapV1],
                mppe_allowed: allowed(client_strengths),
                ..client()
            },
            ServerLink {
                methods: vec![AuthProtocol::MsChapV1],
                mppe_allowed: allowed(server_strengths),
                ..server()
            },
            6,
        );
        pair.verdict = Box::new(move |credentials| {
            let proof = credentials.verify(&Password::new(password).into()).ok();
            Verdict::Accept(grant(proof.expect("the right password")))
        });
        pair.open();
        pair.run(MINUTE, |pair| pair.both_up() || pair.both_ended());
        match outcome {
            Ok(strength) => {
                assert!(pair.both_up(), "{password}: {:?}", pair.server().end);
                pair.assert_agreed(true);
                let terms = pair.server().link.info().mppe_receive.unwrap();
                assert_eq!(terms.strength, strength);
            }
            Err(refusal) => {
                assert_eq!(
                    pair.server().end,
                    Some(End::MppeRefused(refusal)),
                    "{password}"
                );
            }
        }
    }
    // A client that asks for what the password has no keys for.
    let mut pair = Pair::new(
        ClientLink {
            secret: Password::new("fifteen  chars.").into(),
            methods: vec![AuthProtocol::MsChapV1],
            mppe: Policy::Allow,
            ..client()
        },
        ServerLink {
            methods: vec![AuthProtocol::MsChapV1],
            mppe_allowed: Allowed {
                strengths: Strengths::ALL,
                ..Allowed::default()
            },
            ..server()
        },
        6,
    );
    pair.verdict = Box::new(|credentials| {
        let proof = credentials
            .verify(&Password::new("fifteen  chars.").into())
            .ok();
        Verdict::Accept(grant(proof.expect("the right password")))
    });
    pair.filter = Box::new(|from, frame| from == Side::Client && frame[2..4] == [0x80, 0xfd]);
    pair.open();
    pair.run(Duration::from_secs(1), |_| false);
    for identifier in 0..6 {
        let request = [
            0xff, 3, 0x80, 0xfd, 1, identifier, 0, 10, 18, 6, 1, 0, 0, 0x20,
        ];
        pair.inject(Side::Server, &request);
    }
    assert!(pair.run(MINUTE, |pair| pair.ends[1].end.is_some()));
    assert_eq!(
        pair.server().end,
        Some(End::MppeRefused(MppeRefusal::NoLmHash))
    );
}
