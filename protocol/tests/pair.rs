//! Our client against our server: the phases of a call over wires of all kinds.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print the table they check"
)]

#[path = "pair/choice.rs"]
mod choice;
#[path = "pair/encryption.rs"]
mod encryption;
#[path = "pair/harness.rs"]
mod harness;
#[path = "pair/ipv6.rs"]
mod ipv6;
#[path = "pair/methods.rs"]
mod methods;
#[path = "pair/refusals.rs"]
mod refusals;
#[path = "pair/timing.rs"]
mod timing;

use std::fmt::Write as _;
use std::time::Duration;

use harness::{
    CLIENT_ADDRESS, Faults, Pair, Side, ccp_ack, client, impatient_pair, keyless_verdict, server,
};
use turnpike_protocol::mppe::{Mode, Policy, Strength};
use turnpike_protocol::ppp::{
    ClientLink, CloseReason, Encryption, End, IpcpFailure, MppeRefusal, MppeTerms, PhaseName,
    ServerLink,
};

const MINUTE: Duration = Duration::from_secs(60);

fn with_policies(client_policy: Policy, server_policy: Policy) -> Pair {
    Pair::new(
        ClientLink {
            mppe: client_policy,
            ..client()
        },
        ServerLink {
            mppe: server_policy,
            ..server()
        },
        1,
    )
}

#[test]
fn a_clean_call_comes_up_in_a_few_round_trips() {
    let mut pair = Pair::new(client(), server(), 1);
    assert!(pair.set_up());
    pair.assert_agreed(true);
    assert!(
        pair.now.since(turnpike_protocol::Time::ZERO) <= pair.latency * 14,
        "{:?}",
        pair.now
    );
    let terms = pair.server().up.unwrap();
    assert_eq!(terms.encryption, Encryption::Required);
    assert_eq!(terms.mtu, 1400);
    assert_eq!(terms.address.octets(), CLIENT_ADDRESS);
    assert!(terms.compress_address && terms.compress_protocol);
    let info = pair.client().link.info();
    let mppe = MppeTerms {
        strength: Strength::Bits128,
        mode: Mode::Stateless,
    };
    assert_eq!(info.phase, PhaseName::Up);
    assert_eq!(info.mppe_receive, Some(mppe));
    assert_eq!(info.mppe_transmit, Some(mppe));
    assert_eq!(info.lcp_receive.mru, 1404);
    assert_eq!(info.name.as_deref(), Some(&b"alice"[..]));
    assert_eq!(
        pair.client().up.unwrap().dns,
        [Some([10, 20, 0, 53].into()), None]
    );
    for end in &pair.ends {
        assert_eq!((end.receive.starts, end.transmit.starts), (1, 1));
        assert_eq!(end.ups, 1, "nothing about the terms changes any more");
    }
}

#[test]
fn wrong_password_is_said_and_shown_before_the_end() {
    let mut pair = Pair::new(
        ClientLink {
            name: b"CORP\\bob".to_vec(),
            ..client()
        },
        server(),
        3,
    );
    pair.open();
    assert!(pair.run(MINUTE, Pair::both_ended));
    let Some(End::AuthenticationFailed {
        code: 691,
        message,
        name,
    }) = &pair.server().end
    else {
        panic!("{:?}", pair.server().end);
    };
    assert_eq!(
        (message.as_str(), name.as_str()),
        ("wrong password", "CORP\\bob")
    );
    assert!(matches!(
        pair.client().end,
        Some(End::AuthenticationFailed { code: 691, .. })
    ));
    assert_eq!(pair.server().authentications, 1);
    let failure = pair
        .server()
        .sent
        .iter()
        .find(|frame| frame[2..5] == [0xc2, 0x23, 4])
        .expect("a Failure")
        .clone();
    let text = String::from_utf8(failure[8..].to_vec()).unwrap();
    assert!(
        text.starts_with("E=691 R=0 C=") && text.ends_with(" V=3"),
        "{text}"
    );
    assert_eq!(text.len(), "E=691 R=0 C=".len() + 32 + " V=3".len());
}

#[test]
fn a_failure_that_gets_lost_is_repeated_for_a_repeated_response() {
    let mut pair = Pair::new(
        ClientLink {
            name: b"bob".to_vec(),
            timing: turnpike_protocol::ppp::Timing {
                restart: Duration::from_millis(300),
                ..Default::default()
            },
            ..client()
        },
        server(),
        3,
    );
    let mut lost = 0;
    pair.filter = Box::new(move |_, frame| {
        let failure = frame[2..5] == [0xc2, 0x23, 4];
        lost += u32::from(failure);
        failure && lost == 1
    });
    pair.open();
    assert!(pair.run(MINUTE, Pair::both_ended));
    assert!(matches!(
        pair.client().end,
        Some(End::AuthenticationFailed { code: 691, .. })
    ));
    assert_eq!(
        pair.server().authentications,
        1,
        "the verdict is asked once"
    );
}

#[test]
fn a_server_without_the_password_is_found_out() {
    let mut pair = Pair::new(client(), server(), 4);
    pair.verdict = Box::new(|credentials| {
        let turnpike_protocol::ppp::Verdict::Accept(mut grant) =
            harness::local_verdict(credentials)
        else {
            panic!("alice is known");
        };
        if let turnpike_protocol::ppp::Proof::MsChapV2 {
            authenticator_response,
            ..
        } = &mut grant.proof
        {
            authenticator_response[41] ^= 1;
        }
        turnpike_protocol::ppp::Verdict::Accept(grant)
    });
    pair.open();
    assert!(pair.run(MINUTE, |pair| pair.ends[0].end.is_some()));
    assert_eq!(pair.client().end, Some(End::ServerNotAuthentic));
}

#[test]
fn every_single_loss_is_survived() {
    // Every frame of a clean call in turn, then every pair of them: whichever gets lost, the call comes up.
    let mut clean = Pair::new(client(), server(), 5);
    assert!(clean.set_up());
    let frames = clean.counts.sent;
    assert!(frames > 15, "{frames}");
    for first in 0..frames {
        for second in first..frames {
            let mut pair = Pair::new(client(), server(), 5);
            let mut count = 0;
            pair.filter = Box::new(move |_, _| {
                count += 1;
                count - 1 == first || count - 1 == second
            });
            assert!(pair.set_up(), "without frames {first} and {second}");
            // What was still on its way arrives, and changes nothing.
            pair.run(Duration::from_secs(10), |_| false);
            assert!(pair.both_up(), "without frames {first} and {second}");
            pair.assert_agreed(true);
            assert_eq!(pair.server().authentications, 1);
        }
    }
}

#[test]
fn a_lost_success_is_repeated() {
    let mut pair = Pair::new(client(), server(), 6);
    let mut successes = 0;
    pair.filter = Box::new(move |_, frame| {
        let success = frame[2..5] == [0xc2, 0x23, 3];
        successes += u32::from(success);
        success && successes <= 2
    });
    assert!(pair.set_up());
    pair.assert_agreed(true);
    assert_eq!(
        pair.server().authentications,
        1,
        "the verdict is asked once"
    );
}

#[test]
fn a_slow_verdict_is_asked_for_once() {
    let mut pair = Pair::new(client(), server(), 7);
    pair.verdict_delay = Duration::from_secs(11);
    assert!(pair.set_up());
    pair.run(Duration::from_secs(10), |_| false);
    pair.assert_agreed(true);
    assert_eq!(pair.server().authentications, 1);
}

#[test]
fn paths_slower_than_the_timers_work() {
    for latency in [500, 900, 1400, 1600, 2000, 2900] {
        let mut pair = Pair::new(client(), server(), 8);
        pair.latency = Duration::from_millis(latency);
        assert!(pair.set_up(), "latency {latency} ms");
        pair.run(MINUTE, |_| false);
        assert!(pair.both_up(), "latency {latency} ms");
        pair.assert_agreed(true);
    }
}

#[test]
fn hanging_up_from_either_side_ends_both() {
    for (side, reason) in [
        (Side::Client, CloseReason::UserRequest),
        (Side::Server, CloseReason::Shutdown),
    ] {
        let mut pair = Pair::new(client(), server(), 10);
        assert!(pair.set_up());
        let now = pair.now;
        pair.ends[side as usize].link.close(reason, now);
        pair.drain(side);
        assert!(pair.run(MINUTE, Pair::both_ended));
        assert_eq!(pair.ends[side as usize].end, Some(End::Closed(reason)));
        let other = &pair.ends[side.other() as usize].end;
        assert!(
            matches!(other, Some(End::PeerTerminated { text }) if !text.is_empty()),
            "{other:?}"
        );
        assert!(pair.now.since(now) <= Duration::from_secs(2));
    }
}

#[test]
fn hanging_up_on_a_dead_peer_ends_in_time() {
    let mut pair = Pair::new(client(), server(), 11);
    assert!(pair.set_up());
    pair.filter = Box::new(|_, _| true);
    let now = pair.now;
    pair.server().link.close(CloseReason::Administrative, now);
    pair.drain(Side::Server);
    assert!(pair.run(MINUTE, |pair| pair.ends[1].end.is_some()));
    assert_eq!(pair.now.since(now), Duration::from_secs(6));
}

#[test]
fn a_silent_peer_is_noticed() {
    let mut pair = Pair::new(client(), server(), 12);
    assert!(pair.set_up());
    // Echoes keep an idle call up.
    pair.run(MINUTE * 60, |_| false);
    assert!(pair.both_up());
    pair.filter = Box::new(|_, _| true);
    assert!(pair.run(MINUTE * 3, Pair::both_ended));
    assert_eq!(pair.server().end, Some(End::EchoFailure { unanswered: 4 }));
    assert_eq!(pair.client().end, Some(End::EchoFailure { unanswered: 4 }));
}

#[test]
fn data_counts_as_an_answer_to_echoes() {
    let mut pair = Pair::new(client(), server(), 12);
    assert!(pair.set_up());
    pair.filter = Box::new(|_, _| true);
    for _ in 0..60 {
        pair.run(Duration::from_secs(10), |_| false);
        pair.server().link.heard();
    }
    assert!(pair.server().up.is_some());
    assert!(pair.client().end.is_some());
}

#[test]
fn nobody_there_is_told_from_somebody_who_stopped() {
    let mut pair = Pair::new(client(), server(), 13);
    pair.filter = Box::new(|from, _| from == Side::Client);
    pair.open();
    assert!(pair.run(MINUTE * 2, Pair::both_ended));
    assert_eq!(pair.server().end, Some(End::NoAnswer { heard: false }));
    assert_eq!(pair.client().end, Some(End::NoAnswer { heard: true }));
    let request = |frame: &&Vec<u8>| frame[2..5] == [0xc0, 0x21, 1];
    assert_eq!(pair.server().sent.iter().filter(request).count(), 13);
    let waited = pair.now.since(turnpike_protocol::Time::ZERO);
    assert!(waited >= Duration::from_secs(30), "{waited:?}");
}

#[test]
fn set_up_has_a_limit_in_every_phase() {
    // No CHAP gets through, then no IPCP.
    for (protocol, phase) in [
        ([0xc2, 0x23], PhaseName::Authenticate),
        ([0x80, 0x21], PhaseName::Network),
    ] {
        let mut pair = impatient_pair(14);
        pair.filter = Box::new(move |_, frame| frame[2..4] == protocol);
        pair.open();
        assert!(pair.run(MINUTE, |pair| pair.ends[1].end.is_some()));
        assert_eq!(pair.server().end, Some(End::SetUpTimeout { phase }));
    }
}

#[test]
fn starting_over_buys_no_time() {
    let mut pair = impatient_pair(17);
    // The client negotiates LCP again and again, and never says who it is.
    pair.filter = Box::new(|_, frame| frame[2..4] == [0xc2, 0x23]);
    pair.open();
    let request = pair.client().sent[0].clone();
    assert_eq!(request[2..5], [0xc0, 0x21, 1]);
    for _ in 0..10 {
        pair.run(Duration::from_secs(7), |pair| pair.ends[1].end.is_some());
        if pair.server().end.is_some() {
            break;
        }
        assert_eq!(
            pair.server().link.info().phase,
            PhaseName::Authenticate,
            "LCP came up again"
        );
        pair.inject(Side::Server, &request);
    }
    assert_eq!(
        pair.server().end,
        Some(End::SetUpTimeout {
            phase: PhaseName::Authenticate
        })
    );
    let took = pair.now.since(turnpike_protocol::Time::ZERO);
    assert!(took < Duration::from_secs(21), "{took:?}");
}

#[test]
fn our_own_frames_coming_back_are_a_loop() {
    for side in [Side::Server, Side::Client] {
        let mut pair = Pair::new(client(), server(), 15);
        pair.filter = Box::new(|_, _| true);
        pair.open();
        for _ in 0..40 {
            let sent = core::mem::take(&mut pair.ends[side as usize].sent);
            for frame in sent {
                if pair.ends[side as usize].end.is_none() {
                    pair.inject(side, &frame);
                }
            }
        }
        assert!(pair.run(MINUTE, |pair| pair.ends[side as usize].end.is_some()));
        assert_eq!(
            pair.ends[side as usize].end,
            Some(End::LoopedBack),
            "{side:?}"
        );
    }
}

#[test]
fn lcp_negotiated_anew_starts_everything_over() {
    let mut pair = Pair::new(client(), server(), 16);
    assert!(pair.set_up());
    // A Configure-Request of the client, as it was: all layers go down and come back, with new keys.
    let keys = pair.server().receive.running.clone();
    let request = pair.client().sent[0].clone();
    assert_eq!(request[2..5], [0xc0, 0x21, 1]);
    pair.inject(Side::Server, &request);
    assert!(pair.server().up.is_none());
    assert!(pair.run(MINUTE, Pair::both_up));
    pair.run(Duration::from_secs(10), |_| false);
    assert!(pair.both_up());
    pair.assert_agreed(true);
    assert_ne!(pair.server().receive.running, keys);
    assert_eq!(pair.server().authentications, 2);
}

#[test]
fn a_verdict_on_a_challenge_that_is_void_changes_nothing() {
    let mut pair = Pair::new(client(), server(), 17);
    pair.verdict_delay = Duration::from_secs(2);
    pair.open();
    assert!(pair.run(MINUTE, |pair| pair.ends[1].authentications == 1));
    let request = pair.client().sent[0].clone();
    pair.inject(Side::Server, &request);
    assert!(pair.run(MINUTE, Pair::both_up));
    pair.assert_agreed(true);
    assert_eq!(pair.server().authentications, 2);
}

#[test]
fn ipcp_negotiated_anew_agrees_again() {
    for side in [Side::Server, Side::Client] {
        let mut pair = Pair::new(client(), server(), 18);
        assert!(pair.set_up());
        let mut requests = pair.ends[side.other() as usize].sent.clone();
        requests.retain(|frame| frame[2..5] == [0x80, 0x21, 1]);
        let request = requests.pop().unwrap();
        pair.inject(side, &request);
        assert!(pair.run(MINUTE, Pair::both_up));
        pair.run(Duration::from_secs(10), |_| false);
        assert!(pair.both_up());
        pair.assert_agreed(true);
        assert_eq!(pair.server().authentications, 1);
    }
}

#[test]
fn ipcp_closed_by_the_peer_ends_the_call() {
    let mut pair = Pair::new(client(), server(), 18);
    assert!(pair.set_up());
    pair.inject(Side::Server, &[0xff, 0x03, 0x80, 0x21, 5, 9, 0, 4]);
    assert!(pair.server().up.is_none());
    assert!(pair.run(MINUTE, |pair| pair.ends[1].end.is_some()));
    assert_eq!(
        pair.server().end,
        Some(End::IpcpFailed(IpcpFailure::Terminated))
    );
}

#[test]
fn noisy_wires_agree() {
    let mut totals = harness::Counts::default();
    for seed in 0..600 {
        let mut pair = Pair::new(client(), server(), seed);
        pair.faults = Faults {
            loss: 50,
            duplication: 50,
            reordering: 50,
        };
        assert!(pair.set_up(), "seed {seed}");
        // The rest of what is on the wire may turn things over once more, but not for long.
        pair.faults = Faults::default();
        pair.run(Duration::from_secs(10), |_| false);
        assert!(pair.run(MINUTE, Pair::both_up), "seed {seed}");
        pair.assert_agreed(true);
        totals.lost += pair.counts.lost;
        totals.doubled += pair.counts.doubled;
        totals.overtaken += pair.counts.overtaken;
        totals.lost_ccp_acks += pair.counts.lost_ccp_acks;
        totals.doubled_ccp_acks += pair.counts.doubled_ccp_acks;
    }
    assert!(
        totals.lost > 100
            && totals.doubled > 100
            && totals.overtaken > 100
            && totals.lost_ccp_acks > 10
            && totals.doubled_ccp_acks > 10,
        "{totals:?}"
    );
}

/// Set-up time by loss rate, as a table that is read when something changes it.
#[test]
fn set_up_time_by_loss_rate() {
    let mut table = String::from("loss   up      median   9 in 10  slowest\n");
    for loss in [0, 10, 20, 50, 100, 200, 300] {
        let mut times: Vec<Duration> = Vec::new();
        const CALLS: u64 = 500;
        for seed in 0..CALLS {
            let mut pair = Pair::new(client(), server(), seed);
            pair.faults.loss = loss;
            if pair.set_up() {
                times.push(pair.now.since(turnpike_protocol::Time::ZERO));
            }
        }
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 10].as_secs_f64();
        let _ = writeln!(
            table,
            "{:>3} %  {:>3}/{CALLS} {:>6.2} s {:>6.2} s {:>6.2} s",
            loss / 10,
            times.len(),
            at(5),
            at(9),
            at(10),
        );
    }
    println!("{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pair/set_up_time.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(
        table,
        std::fs::read_to_string(path).unwrap_or_default(),
        "UPDATE_SNAPSHOTS=1 writes the new table, if it is the better one"
    );
}
