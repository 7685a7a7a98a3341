//! Each authentication method on its own, lists of them, and what a Failure still allows.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use turnpike_protocol::mppe::Policy;
use turnpike_protocol::mschap::{NtHash, Password};
use turnpike_protocol::ppp::{
    AuthProtocol, ClientLink, Credentials, Encryption, End, Remedy, ServerLink, Timing, Verdict,
};

use crate::MINUTE;
use crate::harness::{Pair, Side, client, grant, local_verdict, server};

pub const ALL: [AuthProtocol; 4] = [
    AuthProtocol::MsChapV2,
    AuthProtocol::MsChapV1,
    AuthProtocol::ChapMd5,
    AuthProtocol::Pap,
];

/// A client that knows the password itself, and methods at both ends.
pub fn pair(
    server_methods: &[AuthProtocol],
    client_methods: &[AuthProtocol],
    mppe: Policy,
    seed: u64,
) -> Pair {
    Pair::new(
        ClientLink {
            secret: Password::new("correct horse").into(),
            methods: client_methods.to_vec(),
            mppe,
            ..client()
        },
        ServerLink {
            methods: server_methods.to_vec(),
            mppe,
            ..server()
        },
        seed,
    )
}

/// Frames of one protocol that a side has sent.
fn sent(pair: &Pair, side: Side, protocol: [u8; 2]) -> usize {
    let sent = pair.ends[side as usize].sent.iter();
    sent.filter(|frame| frame[2..4] == protocol).count()
}

const PAP: [u8; 2] = [0xc0, 0x23];
const CCP: [u8; 2] = [0x80, 0xfd];

#[test]
fn each_method_lets_the_right_password_in_and_no_other() {
    for method in ALL {
        let mut pair = pair(&[method], &[method], Policy::Prefer, 1);
        assert!(pair.set_up(), "{method}");
        pair.assert_agreed(method.gives_keys());
        for end in &pair.ends {
            assert_eq!(end.link.info().authentication, Some(method));
            let encryption = match method.gives_keys() {
                true => Encryption::Required,
                false => Encryption::Plain,
            };
            assert_eq!(end.up.unwrap().encryption, encryption, "{method}");
        }
        assert_eq!(pair.server().authentications, 1);
        // No keys: MPPE is not even spoken of.
        assert_eq!(sent(&pair, Side::Server, CCP) > 0, method.gives_keys());

        for (name, password) in [("alice", "wrong"), ("bob", "correct horse"), ("alice", "")] {
            let mut pair = Pair::new(
                ClientLink {
                    name: name.as_bytes().to_vec(),
                    secret: Password::new(password).into(),
                    methods: vec![method],
                    mppe: Policy::Prefer,
                    ..client()
                },
                ServerLink {
                    methods: vec![method],
                    mppe: Policy::Prefer,
                    ..server()
                },
                2,
            );
            pair.open();
            assert!(pair.run(MINUTE, Pair::both_ended));
            for end in &pair.ends {
                let failed = matches!(end.end, Some(End::AuthenticationFailed { code: 691, .. }));
                assert!(failed && end.ups == 0, "{method}: {:?}", end.end);
            }
            assert_eq!(pair.server().authentications, 1, "{method}");
        }
    }
}

#[test]
fn lists_come_to_a_method_that_both_allow() {
    let lists = || {
        (0..16u32).map(|bits| {
            let chosen = (0..4).filter(move |bit| bits & 1 << bit != 0);
            chosen.map(|bit| ALL[bit]).collect::<Vec<_>>()
        })
    };
    for ours in lists() {
        for theirs in lists() {
            let mut pair = pair(&ours, &theirs, Policy::Prefer, 3);
            pair.open();
            let both: Vec<_> = ours.iter().filter(|own| theirs.contains(own)).collect();
            let case = format!("server {ours:?}, client {theirs:?}");
            if both.is_empty() {
                assert!(pair.run(MINUTE, Pair::both_ended), "{case}");
                let end = &pair.server().end;
                let refused = matches!(
                    end,
                    Some(End::AuthenticationRefused { .. } | End::PeerTerminated { .. })
                );
                assert!(refused, "{case}: {end:?}");
                assert_eq!(pair.server().authentications, 0, "{case}");
                assert_eq!(pair.ends.iter().map(|end| end.ups).sum::<u32>(), 0);
                continue;
            }
            assert!(pair.run(MINUTE, Pair::both_up), "{case}");
            let method = pair.server().link.info().authentication.unwrap();
            assert!(both.contains(&&method), "{case}: {method}");
            // What the server likes best if the client has it, else what the client likes best if the server has it.
            let expected = match (ours[0], theirs[0]) {
                (first, _) if theirs.contains(&first) => first,
                (_, first) if ours.contains(&first) => first,
                _ => *both[0],
            };
            assert_eq!(method, expected, "{case}");
        }
    }
}

#[test]
fn nothing_is_given_away_where_encryption_is_required() {
    for (ours, theirs) in [
        (&ALL[..], &[AuthProtocol::Pap, AuthProtocol::ChapMd5][..]),
        (&[AuthProtocol::Pap], &ALL),
        (&[AuthProtocol::ChapMd5], &[AuthProtocol::ChapMd5]),
        (&[AuthProtocol::Eap], &ALL),
        (&[], &ALL),
    ] {
        let mut pair = pair(ours, theirs, Policy::Require, 4);
        pair.open();
        assert!(pair.run(MINUTE, Pair::both_ended), "{ours:?}, {theirs:?}");
        assert_eq!(sent(&pair, Side::Client, PAP), 0);
        assert_eq!(sent(&pair, Side::Client, [0xc2, 0x23]), 0);
        assert_eq!(pair.server().authentications, 0);
    }
    // Only the client insists: it does not give its password to a server that wants it in clear.
    let mut pair = pair(&ALL[3..], &ALL, Policy::Require, 4);
    pair.ends[1].link = turnpike_protocol::ppp::Link::server(
        ServerLink {
            methods: vec![AuthProtocol::Pap],
            mppe: Policy::Allow,
            ..server()
        },
        [9; 32],
        pair.now,
    );
    pair.open();
    assert!(pair.run(MINUTE, Pair::both_ended));
    assert_eq!(sent(&pair, Side::Client, PAP), 0);
}

#[test]
fn a_hash_is_enough_for_microsofts_methods_only() {
    for (method, enough) in ALL.into_iter().zip([true, true, false, false]) {
        let config = |methods: &[AuthProtocol]| {
            let methods = methods.to_vec();
            Pair::new(
                ClientLink {
                    secret: NtHash::from_password("correct horse").into(),
                    methods: methods.clone(),
                    mppe: Policy::Prefer,
                    ..client()
                },
                ServerLink {
                    methods,
                    mppe: Policy::Prefer,
                    ..server()
                },
                5,
            )
        };
        let mut alone = config(&[method]);
        alone.open();
        alone.run(MINUTE, |pair| pair.both_up() || pair.both_ended());
        assert_eq!(alone.both_up(), enough, "{method}");
        // The list goes on to what can be answered.
        let mut list = config(&[method, AuthProtocol::MsChapV2]);
        assert!(list.set_up(), "{method}");
    }
}

/// A client with passwords to try, and the answer to each that is wrong.
fn trying(method: AuthProtocol, passwords: &[&str], verdict: (u32, Remedy)) -> Pair {
    let mut passwords = passwords.iter().map(|text| Password::new(*text).into());
    let mut pair = Pair::new(
        ClientLink {
            secret: passwords.next().unwrap(),
            other_secrets: passwords.collect(),
            methods: vec![method],
            mppe: Policy::Prefer,
            ..client()
        },
        ServerLink {
            methods: vec![method],
            mppe: Policy::Prefer,
            // No more than three, whatever is asked for.
            retries: 200,
            ..server()
        },
        6,
    );
    pair.verdict = Box::new(move |credentials| match local_verdict(credentials) {
        Verdict::Reject { message, .. } => Verdict::Reject {
            code: verdict.0,
            message,
            remedy: verdict.1,
        },
        accept => accept,
    });
    pair
}

#[test]
fn a_client_may_try_again_three_times() {
    for method in [AuthProtocol::MsChapV1, AuthProtocol::MsChapV2] {
        for wrong in 0..6 {
            let mut passwords = vec!["wrong"; wrong];
            passwords.push("correct horse");
            let mut pair = trying(method, &passwords, (691, Remedy::Retry));
            pair.open();
            pair.run(MINUTE * 3, |pair| pair.both_up() || pair.both_ended());
            assert_eq!(pair.both_up(), wrong <= 3, "{method}, {wrong} wrong ones");
            let asked = u32::try_from(wrong.min(3)).unwrap() + 1;
            assert_eq!(pair.server().authentications, asked, "{method}");
            if pair.both_up() {
                pair.assert_agreed(true);
            }
        }
    }
    // Others have no words for it.
    for method in [AuthProtocol::ChapMd5, AuthProtocol::Pap] {
        let passwords = ["wrong", "correct horse"];
        let mut pair = trying(method, &passwords, (691, Remedy::Retry));
        pair.open();
        assert!(pair.run(MINUTE, Pair::both_ended), "{method}");
        assert_eq!(pair.server().authentications, 1);
    }
}

#[test]
fn whoever_types_has_a_minute_for_it() {
    let mut pair = trying(
        AuthProtocol::MsChapV2,
        &["wrong", "correct horse"],
        (691, Remedy::Retry),
    );
    // The second Response is held up, as long as a set-up may take in all.
    let held = Rc::new(Cell::new(true));
    let responses = Rc::new(Cell::new(0));
    let (filter_held, seen) = (held.clone(), responses.clone());
    pair.filter = Box::new(move |from, frame| {
        let response = from == Side::Client && frame[2..5] == [0xc2, 0x23, 2];
        seen.set(seen.get() + u32::from(response));
        response && seen.get() > 1 && filter_held.get()
    });
    pair.ends[0].link = turnpike_protocol::ppp::Link::client(
        ClientLink {
            secret: Password::new("wrong").into(),
            other_secrets: vec![Password::new("correct horse").into()],
            timing: Timing {
                max_configure: 30,
                set_up: None,
                ..Timing::default()
            },
            ..client()
        },
        [8; 32],
        pair.now,
    );
    pair.open();
    pair.run(Duration::from_secs(55), |_| false);
    assert!(pair.server().end.is_none());
    held.set(false);
    assert!(pair.run(MINUTE, Pair::both_up));
    assert_eq!(pair.server().authentications, 2);

    // And no more than that.
    let mut pair = trying(AuthProtocol::MsChapV2, &["wrong"; 2], (691, Remedy::Retry));
    let mut responses = 0;
    pair.filter = Box::new(move |from, frame| {
        let response = from == Side::Client && frame[2..5] == [0xc2, 0x23, 2];
        responses += u32::from(response);
        response && responses > 1
    });
    pair.open();
    assert!(pair.run(MINUTE * 2, |pair| pair.ends[1].end.is_some()));
    let end = &pair.server().end;
    assert!(
        matches!(end, Some(End::AuthenticationFailed { code: 691, .. })),
        "{end:?}"
    );
}

#[test]
fn every_code_reaches_the_client() {
    for method in [AuthProtocol::MsChapV1, AuthProtocol::MsChapV2] {
        for code in [646, 647, 648, 649, 691, 709] {
            let mut pair = trying(method, &["wrong"], (code, Remedy::None));
            pair.open();
            assert!(pair.run(MINUTE, Pair::both_ended));
            for end in &pair.ends {
                let Some(End::AuthenticationFailed { code: told, .. }) = end.end else {
                    panic!("{:?}", end.end);
                };
                assert_eq!(told, code, "{method}");
            }
        }
    }
}

/// A store of one user whose password has expired.
fn expired(pair: &mut Pair) -> Rc<Cell<u32>> {
    let changes = Rc::new(Cell::new(0));
    let count = changes.clone();
    pair.verdict = Box::new(move |credentials| {
        let old = Password::new("correct horse").into();
        let reject = |code, remedy| Verdict::Reject {
            code,
            message: String::new(),
            remedy,
        };
        match credentials {
            Credentials::ChangePassword(change) => match change.open(&old) {
                Ok(changed) => {
                    assert_eq!(changed.password.as_str(), "battery staple");
                    count.set(count.get() + 1);
                    Verdict::Accept(grant(changed.proof))
                }
                Err(_) => reject(709, Remedy::None),
            },
            other if other.verify(&old).is_ok() => reject(648, Remedy::ChangePassword),
            _ => reject(691, Remedy::None),
        }
    });
    changes
}

#[test]
fn an_expired_password_is_changed_in_the_call() {
    for method in [AuthProtocol::MsChapV1, AuthProtocol::MsChapV2] {
        for (old, new, changed) in [
            ("correct horse", Some("battery staple"), true),
            ("correct horse", None, false),
            ("wrong", Some("battery staple"), false),
        ] {
            let mut pair = Pair::new(
                ClientLink {
                    secret: Password::new(old).into(),
                    new_password: new.map(Password::new),
                    methods: vec![method],
                    ..client()
                },
                ServerLink {
                    methods: vec![method],
                    ..server()
                },
                7,
            );
            let changes = expired(&mut pair);
            pair.open();
            pair.run(MINUTE * 2, |pair| pair.both_up() || pair.both_ended());
            assert_eq!(pair.both_up(), changed, "{method}, {old}, {new:?}");
            assert_eq!(changes.get(), u32::from(changed));
            if changed {
                pair.assert_agreed(true);
            }
        }
    }
}

#[test]
fn a_change_survives_loss_and_is_stored_once() {
    let mut up = 0;
    for seed in 0..200 {
        let mut pair = Pair::new(
            ClientLink {
                secret: Password::new("correct horse").into(),
                new_password: Some(Password::new("battery staple")),
                ..client()
            },
            server(),
            seed,
        );
        pair.faults.loss = 100;
        pair.faults.duplication = 50;
        let changes = expired(&mut pair);
        pair.open();
        pair.run(MINUTE * 2, |pair| pair.both_up() || pair.both_ended());
        up += u32::from(pair.both_up());
        assert!(changes.get() <= 1, "seed {seed}");
        if pair.both_up() {
            pair.assert_agreed(true);
        }
    }
    assert!(up >= 198, "{up} of 200");
}
