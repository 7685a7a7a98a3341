//! Accounting of real calls, and what is left of it when its process is killed in the middle of a write.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of it is test"
)]

mod rig;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rig::{PASSWORD, Rig, Saw};
use turnpike_controlplane::accounting::{
    Begun, Books, History, Kind, Ledger, Moment, Question, SessionId, State, Stations,
};
use turnpike_controlplane::admin::Selector;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::config::Accounting;
use turnpike_controlplane::listener::Limits;
use turnpike_dataplane::api::{CallCounters, CallRef};
use turnpike_protocol::{CallId, Time};

const LIMITS: Limits = Limits {
    per_source: 100,
    total: 100,
};

fn config(file: &Path) -> Accounting {
    Accounting {
        file: file.to_owned(),
        keep: None,
        checkpoint: Duration::from_secs(1),
        interim: None,
        failures: true,
        mandatory: false,
        radius: true,
        stations: Stations::default(),
    }
}

fn question() -> Question {
    Question {
        failed: true,
        limit: 1000,
        ..Question::default()
    }
}

/// Every call that a server had leaves one Start and one Stop with the cause that it ended with, or a failed attempt.
#[tokio::test]
async fn calls_leave_what_they_should() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger");
    let books = Arc::new(Books::open(&config(&file), "turnpike", true).unwrap());
    let rig = Rig::accounting(LIMITS, 100, Some(books.clone())).await;
    let from = Ipv4Addr::new(127, 0, 0, 2);
    let up = async |id: u16| {
        let mut client = rig.dial(from, id, PASSWORD).await;
        let Saw::Up(address) = client.until(|saw| matches!(saw, Saw::Up(_))).await else {
            unreachable!("that was waited for");
        };
        (client, address)
    };
    let (mut polite, first) = up(1).await;
    let (mut killed, second) = up(2).await;
    // It is on the disk when the client hears that it is up.
    let ask = |question: &Question| {
        let history = History::open(&file).unwrap();
        history.ask(question, Moment::now()).unwrap()
    };
    let had = |address: Ipv4Addr| Question {
        address: Some(IpAddr::V4(address)),
        at: Some(Moment::now()),
        ..question()
    };
    let now = ask(&had(second));
    assert_eq!((now.len(), now[0].state), (1, State::Up));
    assert_eq!((now[0].user.as_str(), now[0].client), ("alice", from));

    polite.clear();
    polite.until(|saw| *saw == Saw::Disconnected).await;
    let selector = Selector::Client(second);
    rig.shared.sessions.kill(&selector, Cause::Killed).unwrap();
    killed.until(|saw| *saw == Saw::Disconnected).await;
    let mut wrong = rig.dial(from, 3, "wrong").await;
    wrong.until(|saw| matches!(saw, Saw::LinkOver(_))).await;
    drop((polite, killed, wrong));
    rig.until("nothing is held", Rig::is_empty).await;
    books.close();

    let mut ends: Vec<_> = ask(&question())
        .into_iter()
        .map(|past| (past.address, past.state, past.cause.unwrap()))
        .collect();
    ends.sort_by_key(|(address, ..)| *address);
    let end = |address, state, cause: Cause| (address, state, cause.name().to_owned());
    let mut expected = [
        end(None, State::Failed, Cause::AuthenticationFailed),
        end(Some(first), State::Ended, Cause::HungUp),
        end(Some(second), State::Ended, Cause::Killed),
    ];
    expected.sort_by_key(|(address, ..)| *address);
    assert_eq!(ends, expected);

    let ledger = Ledger::open(&file, true, Moment::now()).unwrap();
    let mut kinds: HashMap<_, Vec<Kind>> = HashMap::new();
    for record in ledger.waiting(0, 1000).unwrap() {
        kinds
            .entry(record.session_id())
            .or_default()
            .push(record.kind);
    }
    assert_eq!(kinds.remove(&None), Some(vec![Kind::On, Kind::Off]));
    let mut kinds: Vec<_> = kinds.into_values().collect();
    kinds.sort_by_key(Vec::len);
    let session = vec![Kind::Start, Kind::Stop];
    assert_eq!(kinds, [vec![Kind::Failed], session.clone(), session]);
}

/// The part of [`what_was_accepted_outlives_a_kill`] that is killed.
const CHILD: &str = "TURNPIKE_TEST_LEDGER";

/// What a session has moved when it is read for the `turn`th time.
fn counters(turn: u64) -> CallCounters {
    CallCounters {
        received_octets: 1000 * turn,
        ..CallCounters::default()
    }
}

fn call(id: u16) -> CallRef {
    CallRef {
        local: Ipv4Addr::LOCALHOST,
        peer: Ipv4Addr::new(127, 0, 0, 2),
        id: CallId(id),
    }
}

/// Writes for ever, and says on standard output what is safe: begun sessions by their name.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(file) = std::env::var_os(CHILD) else {
        return;
    };
    let books = Books::open(&config(Path::new(&file)), "turnpike", true).unwrap();
    let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
    for turn in 1_u64.. {
        let id = (turn % 60_000) as u16;
        let begun = Begun {
            call: call(id),
            user: format!("user{turn}"),
            address: Ipv4Addr::from_bits(turn as u32),
            ipv6: None,
        };
        books.begin(&begun, at(turn)).await.unwrap();
        println!("begun user{turn}");
        books.reading(call(id), &counters(turn), at(turn));
        // Every second one ends, and is forgotten.
        if turn % 2 == 0 {
            books.end(call(id), None, Cause::HungUp, &counters(2 * turn), at(turn));
        }
    }
}

#[test]
fn what_was_accepted_outlives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger");
    let mut begun = Vec::new();
    // Several times the same file, at different moments of a write.
    for accepted in [1, 2, 57, 200, 333] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_is_killed", "--exact", "--nocapture"])
            .env(CHILD, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < accepted {
            let line = lines.next().unwrap().unwrap();
            // The harness writes on the same line.
            if let Some((_, user)) = line.split_once("begun ") {
                begun.push(user.to_owned());
                seen += 1;
            }
        }
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said by then.
        let rest = lines.map_while(Result::ok);
        begun.extend(rest.filter_map(|line| Some(line.split_once("begun ")?.1.to_owned())));
    }

    let mut ledger = Ledger::open(&file, true, Moment::now()).unwrap();
    ledger.end_open(Cause::ServerCrashed, None).unwrap();
    let records = ledger.waiting(0, 1_000_000).unwrap();
    let mut sessions: HashMap<SessionId, Vec<_>> = HashMap::new();
    for record in records {
        if let Some((id, facts)) = record.session.clone() {
            sessions.entry(id).or_default().push((record, facts.user));
        }
    }
    let mut users = Vec::new();
    for told in sessions.values() {
        let [(start, user), (stop, _)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((start.kind, stop.kind), (Kind::Start, Kind::Stop));
        let turn: u64 = user["user".len()..].parse().unwrap();
        let cause = stop.termination.clone().unwrap().cause;
        let octets = stop.traffic.received_octets;
        match cause.as_str() {
            "hung_up" => assert_eq!(octets, 2 * turn * 1000),
            // As of the last reading, or before there was one.
            "server_crashed" => assert!(octets == turn * 1000 || octets == 0, "{octets}"),
            other => panic!("{other}"),
        }
        users.push(user.clone());
    }
    for user in begun {
        let index = users.iter().position(|other| *other == user);
        users.swap_remove(index.unwrap_or_else(|| panic!("{user} is lost")));
    }
    // Those that nobody was told of any more: the last of each run.
    assert!(users.len() <= 5, "{users:?}");
}
