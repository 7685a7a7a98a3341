//! Logins whose packets come late, twice, out of their phase or not at all: the verdict never changes, who judges is asked
//! once, and nothing is Protocol-Rejected that belongs to a later phase.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{
    AuthProtocol, ClientLink, Encryption, End, Proof, Remedy, ResponseFault, ServerLink, Verdict,
};

use crate::MINUTE;
use crate::harness::{Faults, Pair, Side, client, grant, local_verdict, server};
use crate::methods::ALL;

const SECOND: Duration = Duration::from_secs(1);

/// Something that happens to a login.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    arrange: fn(&mut Pair),
    /// Frames that the server gets while it waits for the verdict.
    injected: bool,
    /// The client negotiates LCP anew while its Response is on the way.
    anew: bool,
}

const fn case(name: &'static str, arrange: fn(&mut Pair)) -> Case {
    Case {
        name,
        arrange,
        injected: false,
        anew: false,
    }
}

const CASES: [Case; 8] = [
    case("Response 10 s late", |pair| {
        pair.late = Box::new(|from, frame| {
            if from == Side::Client && is_answer(frame) {
                10 * SECOND
            } else {
                Duration::ZERO
            }
        });
    }),
    case("every frame twice", |pair| pair.faults.duplication = 1000),
    case("Success lost three times", |pair| {
        let left = Cell::new(3);
        pair.filter = Box::new(move |from, frame| {
            let lost = from == Side::Server && is_success(frame) && left.get() > 0;
            left.set(left.get() - u32::from(lost));
            lost
        });
    }),
    case("Response to an earlier copy of the Challenge", |pair| {
        // The first one takes so long that the server asks again; what answers the later copies is lost.
        let sent = Cell::new(0);
        pair.filter = Box::new(move |from, frame| {
            let answers = from == Side::Client && is_answer(frame);
            sent.set(sent.get() + u32::from(answers));
            answers && (2..4).contains(&sent.get())
        });
        let first = Cell::new(true);
        pair.late = Box::new(move |from, frame| {
            if from == Side::Client && is_answer(frame) && first.replace(false) {
                4 * SECOND
            } else {
                Duration::ZERO
            }
        });
    }),
    case("CCP and IPCP before the Success", |pair| {
        pair.late = Box::new(|from, frame| {
            if from == Side::Server && is_success(frame) {
                4 * SECOND
            } else {
                Duration::ZERO
            }
        });
    }),
    case("a verdict that takes 8 s", |pair| {
        pair.verdict_delay = 8 * SECOND
    }),
    Case {
        injected: true,
        ..case("NCP frames before the verdict", |pair| {
            pair.verdict_delay = 3 * SECOND;
        })
    },
    Case {
        anew: true,
        ..case("Challenge crossing a renegotiation", |pair| {
            pair.verdict_delay = 2 * SECOND;
        })
    },
];

/// A CHAP Response, or a PAP Authenticate-Request.
fn is_answer(frame: &[u8]) -> bool {
    matches!(frame, [_, _, 0xc2, 0x23, 2, ..] | [_, _, 0xc0, 0x23, 1, ..])
}

/// A CHAP Success, or a PAP Authenticate-Ack.
fn is_success(frame: &[u8]) -> bool {
    matches!(frame, [_, _, 0xc2, 0x23, 3, ..] | [_, _, 0xc0, 0x23, 2, ..])
}

fn is_protocol_reject(frame: &[u8]) -> bool {
    matches!(frame, [_, _, 0xc0, 0x21, 8, ..])
}

/// Configure-Requests of IPCP, CCP and IPV6CP.
const EARLY: [&[u8]; 3] = [
    &[0xff, 3, 0x80, 0x21, 1, 1, 0, 10, 3, 6, 0, 0, 0, 0],
    &[0xff, 3, 0x80, 0xfd, 1, 1, 0, 10, 18, 6, 1, 0, 0, 0x40],
    &[
        0xff, 3, 0x80, 0x57, 1, 1, 0, 14, 1, 10, 2, 0, 0, 0, 0, 0, 0, 7,
    ],
];

fn pair(method: AuthProtocol, password: &str, rechallenge: Option<Duration>, seed: u64) -> Pair {
    let mppe = match method.gives_keys() {
        true => Policy::Require,
        false => Policy::Deny,
    };
    let client = ClientLink {
        secret: Password::new(password).into(),
        methods: vec![method],
        mppe,
        ..client()
    };
    let server = ServerLink {
        methods: vec![method],
        rechallenge,
        mppe,
        ..server()
    };
    Pair::new(client, server, seed)
}

/// Plays a login until both are up, or both are over, or nothing more is to be expected.
fn play(pair: &mut Pair, case: &Case) {
    (case.arrange)(pair);
    pair.open();
    if case.injected || case.anew {
        let asked = |pair: &Pair| pair.ends[1].authentications == 1 || pair.both_ended();
        pair.run(2 * MINUTE, asked);
    }
    if case.injected && !pair.both_ended() {
        for frame in EARLY {
            pair.inject(Side::Server, frame);
        }
    }
    if case.anew && !pair.both_ended() {
        let request = pair.client().sent[0].clone();
        assert_eq!(request[2..5], [0xc0, 0x21, 1]);
        pair.inject(Side::Server, &request);
    }
    pair.run(5 * MINUTE, |pair| pair.both_up() || pair.both_ended());
}

/// What must hold however a login went.
fn assert_sound(pair: &mut Pair, method: AuthProtocol, what: &str) {
    let required = match method.gives_keys() {
        true => Encryption::Required,
        false => Encryption::Plain,
    };
    for end in &pair.ends {
        assert!(
            end.up.is_none_or(|terms| terms.encryption == required),
            "{what}: up without the encryption it requires"
        );
        assert!(
            !end.sent.iter().any(|frame| is_protocol_reject(frame)),
            "{what}: something was Protocol-Rejected"
        );
    }
    if pair.both_up() {
        pair.assert_agreed(method.gives_keys());
    }
}

#[test]
fn the_right_password_gets_in_whatever_the_timing_and_the_wrong_one_never() {
    for case in CASES {
        for method in ALL {
            let what = format!("{}, {method}", case.name);
            let mut right = pair(method, "correct horse", None, 1);
            play(&mut right, &case);
            assert!(right.both_up(), "{what}: {:?}", right.server().end);
            // What is still on its way may not turn anything over.
            right.run(30 * SECOND, |_| false);
            assert!(right.both_up(), "{what}: {:?}", right.server().end);
            assert_sound(&mut right, method, &what);
            let asked = 1 + u32::from(case.anew);
            assert_eq!(right.server().authentications, asked, "{what}");

            let mut wrong = pair(method, "wrong horse", None, 1);
            play(&mut wrong, &case);
            assert!(wrong.both_ended(), "{what}");
            assert_eq!(wrong.server().ups + wrong.client().ups, 0, "{what}");
            assert_sound(&mut wrong, method, &what);
            let ends = [wrong.client().end.clone(), wrong.server().end.clone()];
            assert!(
                ends.iter()
                    .all(|end| matches!(end, Some(End::AuthenticationFailed { .. }))),
                "{what}: {ends:?}"
            );
        }
    }
}

/// How many seeds are played.
fn seeds() -> u64 {
    let more = std::env::var("TURNPIKE_WORLDS").ok();
    more.and_then(|n| n.parse().ok()).unwrap_or(400)
}

/// A path for a seed: loss up to 10 %, delay up to `latency`, copies and overtaking.
fn weather(pair: &mut Pair, seed: u64, latency: Duration) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed ^ 0x7069_6e65);
    let mut up_to = |most: u32| chance.next_u32() % (most + 1);
    pair.latency = latency * up_to(1000) / 1000;
    pair.faults = Faults {
        loss: up_to(100),
        duplication: up_to(50),
        reordering: up_to(50),
    };
}

#[test]
fn bad_paths_keep_few_out_and_let_nobody_in_who_must_not() {
    let mut table = String::new();
    for (longest, least) in [(SECOND, 0.99), (10 * SECOND, 0.0)] {
        for case in CASES {
            let mut up = 0;
            for seed in 0..seeds() {
                let method = ALL[seed as usize % ALL.len()];
                let what = format!("{}, {method}, seed {seed}, delay {longest:?}", case.name);
                let mut right = pair(method, "correct horse", None, seed);
                // The case's own arrangement comes on top.
                weather(&mut right, seed, longest);
                play(&mut right, &case);
                assert!(
                    right.both_up() || right.both_ended(),
                    "{what}: neither in nor out"
                );
                assert_sound(&mut right, method, &what);
                up += u64::from(right.both_up());

                let mut wrong = pair(method, "wrong horse", None, seed);
                weather(&mut wrong, seed, longest);
                play(&mut wrong, &case);
                assert!(wrong.both_ended(), "{what}");
                assert_eq!(wrong.server().ups + wrong.client().ups, 0, "{what}");
                assert_sound(&mut wrong, method, &what);
            }
            let share = up as f64 / seeds() as f64;
            let _ = writeln!(
                table,
                "delay up to {:>2} s, {:<44} {:>6.2} % of {} in",
                longest.as_secs(),
                case.name,
                100.0 * share,
                seeds()
            );
            assert!(share >= least, "{}:\n{table}", case.name);
        }
    }
    println!("{table}");
}

#[test]
fn challenges_in_mid_call_disturb_nobody_who_knows_the_answer() {
    for method in ALL {
        if method == AuthProtocol::Pap {
            continue;
        }
        let mut pair = pair(method, "correct horse", Some(30 * SECOND), 1);
        assert!(pair.set_up(), "{method}");
        let keys = pair.server().receive.running.clone();
        let ups = pair.server().ups;
        pair.run(5 * MINUTE, |_| false);
        assert!(pair.both_up(), "{method}");
        assert_eq!(pair.server().ups, ups, "{method}: data was interrupted");
        assert_eq!(pair.server().receive.running, keys, "{method}: new keys");
        assert!(
            pair.server().authentications >= 9,
            "{method}: {}",
            pair.server().authentications
        );
        // The account is gone in the meantime.
        pair.verdict = Box::new(|credentials| match local_verdict(credentials) {
            Verdict::Accept(_) => Verdict::Reject {
                code: 691,
                message: "gone".to_owned(),
                remedy: Remedy::None,
            },
            reject => reject,
        });
        assert!(pair.run(2 * MINUTE, Pair::both_ended), "{method}");
        let end = pair.server().end.clone();
        assert!(
            matches!(end, Some(End::AuthenticationFailed { .. })),
            "{method}: {end:?}"
        );
    }
}

#[test]
fn a_call_stays_the_users_who_began_it() {
    // MD5 says nothing of the name: the proof would hold for anybody with this password.
    let mut pair = pair(AuthProtocol::ChapMd5, "correct horse", Some(30 * SECOND), 1);
    pair.verdict = Box::new(|_| Verdict::Accept(grant(Proof::ChapMd5)));
    assert!(pair.set_up());
    pair.filter = Box::new(|from, frame| from == Side::Client && is_answer(frame));
    let answers = |pair: &Pair| {
        let sent = pair.ends[0].sent.iter();
        sent.filter(|frame| is_answer(frame)).count()
    };
    let before = answers(&pair);
    assert!(pair.run(MINUTE, |pair| answers(pair) > before));
    let mut answer = pair.client().sent.last().unwrap().clone();
    let name = answer.len() - b"alice".len();
    assert_eq!(answer[name..], *b"alice");
    answer[name..].copy_from_slice(b"carol");
    pair.inject(Side::Server, &answer);
    assert!(pair.run(MINUTE, Pair::both_ended));
    let end = pair.server().end.clone();
    assert!(
        matches!(
            end,
            Some(End::ResponseUnusable {
                fault: ResponseFault::OtherName,
                ..
            })
        ),
        "{end:?}"
    );
    assert_eq!(pair.server().authentications, 1);
}
