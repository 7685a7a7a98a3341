//! Questions, with sessions that are known.

use super::super::ledger::Ledger;
use super::super::ledger::tests::facts;
use super::super::record::{Entry, SessionId};
use super::*;

const HOUR: i64 = 3_600_000;

fn only<T>(one: &T) -> &[T] {
    std::slice::from_ref(one)
}

fn question() -> Question {
    Question {
        limit: 100,
        ..Question::default()
    }
}

/// Alice had the address from 1 to 2 and then from 4 on, bob from 2 to 3; carol failed at 5.
fn written(path: &Path) -> Ledger {
    let mut ledger = Ledger::open(path, false, Moment(0)).unwrap();
    let session = |id, user: &str, from: i64| Entry::Begin {
        id: SessionId(id),
        facts: facts(user),
        at: Moment(from * HOUR),
    };
    let end = |id, to: i64| Entry::End {
        id: SessionId(id),
        at: Moment(to * HOUR),
        session_time: 3600,
        traffic: Traffic {
            received_packets: 1,
            received_octets: 40,
            sent_packets: 2,
            sent_octets: 80,
        },
        cause: Cause::HungUp,
    };
    let mut failed = facts("carol");
    (failed.address, failed.prefix, failed.delegated) = (None, None, None);
    let entries = [
        session(1, "alice", 1),
        end(1, 2),
        session(2, "bob", 2),
        end(2, 3),
        session(3, "alice", 4),
        Entry::Failed {
            id: SessionId(4),
            facts: failed,
            at: Moment(5 * HOUR),
            cause: Cause::AuthenticationFailed,
        },
    ];
    ledger.enter(&entries, Moment(5 * HOUR)).unwrap();
    ledger
}

#[test]
fn who_had_the_address_has_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    // The writer stays: a question is asked while it runs.
    let ledger = written(&path);
    let ask = |question: &Question| -> Vec<(String, State)> {
        let history = History::open(&path).unwrap();
        let now = Moment(4 * HOUR + 1000);
        let sessions = history.ask(question, now).unwrap();
        sessions
            .into_iter()
            .map(|past| (past.user, past.state))
            .collect()
    };
    let (alice, bob) = (
        ("alice".to_owned(), State::Ended),
        ("bob".to_owned(), State::Ended),
    );
    let up = ("alice".to_owned(), State::Up);
    let carol = ("carol".to_owned(), State::Failed);
    let of = |address: &str, at: i64| Question {
        address: Some(address.parse().unwrap()),
        at: Some(Moment(at)),
        ..question()
    };
    let half = HOUR / 2;
    assert_eq!(ask(&of("10.20.3.4", HOUR + half)), only(&alice));
    assert_eq!(ask(&of("10.20.3.4", 2 * HOUR + half)), only(&bob));
    assert_eq!(ask(&of("10.20.3.4", 3 * HOUR + half)), []);
    assert_eq!(ask(&of("10.20.3.4", 4 * HOUR + half)), only(&up));
    assert_eq!(ask(&of("10.20.3.5", HOUR + half)), []);
    // One of the link's, and one of the network's behind it.
    assert_eq!(ask(&of("2001:db8:1:7::99", HOUR + half)), only(&alice));
    assert_eq!(ask(&of("2001:db8:8000:7ff::1", HOUR + half)), only(&alice));
    assert_eq!(ask(&of("2001:db8:8000:800::1", HOUR + half)), []);

    assert_eq!(ask(&question()), [alice.clone(), bob.clone(), up.clone()]);
    let question = |change: fn(&mut Question)| {
        let mut question = question();
        change(&mut question);
        question
    };
    assert_eq!(
        ask(&question(|all| all.failed = true)),
        [alice.clone(), bob.clone(), up.clone(), carol]
    );
    assert_eq!(
        ask(&question(|all| all.user = Some("alice".to_owned()))),
        [alice.clone(), up.clone()]
    );
    assert_eq!(ask(&question(|all| all.limit = 1)), only(&up));
    assert_eq!(
        ask(&question(|all| all.since = Some(Moment(2 * HOUR + 1)))),
        [bob.clone(), up]
    );
    assert_eq!(
        ask(&question(|all| all.until = Some(Moment(2 * HOUR)))),
        [alice, bob]
    );
    let other = Some(Ipv4Addr::new(203, 0, 113, 6));
    let mut question = question(|_| ());
    question.client = other;
    assert_eq!(ask(&question), []);
    drop(ledger);

    // Nor is the writer needed.
    let history = History::open(&path).unwrap();
    let late = history
        .ask(&super::tests::question(), Moment(9 * HOUR))
        .unwrap();
    assert_eq!(late[2].state, State::Unknown);
}

#[test]
fn text_and_json_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    drop(written(&path));
    let history = History::open(&path).unwrap();
    let sessions = history.ask(&question(), Moment(4 * HOUR + 1000)).unwrap();
    let text = history_text(&sessions);
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0].len(), 9);
    let alice = &sessions[0];
    assert_eq!(
        lines[1],
        [
            "alice",
            "10.20.3.4",
            "203.0.113.5",
            &alice.from,
            &alice.to,
            "3600",
            "40",
            "80",
            "hung_up"
        ]
    );
    assert_eq!(lines[3][4], "up");
    let json = serde_json::to_value(&sessions).unwrap();
    assert_eq!(json[0]["user"], "alice");
    assert_eq!(json[0]["traffic"]["received_octets"], 40);
    assert_eq!(json[0]["ipv6_delegated"], "2001:db8:8000:700::/56");
    assert_eq!(json[0]["text"], "the client hung up");
    assert_eq!(json[2]["state"], "up");
    let from: jiff::Timestamp = alice.from.parse().unwrap();
    assert_eq!(from.as_millisecond(), HOUR);
}

#[test]
fn what_is_no_ledger_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    assert!(History::open(&path).is_err());
    assert!(!path.exists(), "asking makes no file");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE session(id)")
        .unwrap();
    assert!(matches!(
        History::open(&path),
        Err(rusqlite::Error::InvalidQuery)
    ));
}

/// Answers show whole seconds, and who asks again with what they show means the same session.
#[test]
fn a_session_is_found_by_the_second_that_it_began_and_ended_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, false, Moment(0)).unwrap();
    let begin = Entry::Begin {
        id: SessionId(1),
        facts: facts("alice"),
        at: Moment(10_400),
    };
    let end = Entry::End {
        id: SessionId(1),
        at: Moment(20_600),
        session_time: 10,
        traffic: Traffic::default(),
        cause: Cause::HungUp,
    };
    ledger.enter(&[begin, end], Moment(20_600)).unwrap();
    let history = History::open(&path).unwrap();
    let found = |question: Question| history.ask(&question, Moment(30_000)).unwrap().len();
    for (second, expected) in [(9, 0), (10, 1), (20, 1), (21, 0)] {
        let at = Some(Moment(second * 1000));
        assert_eq!(found(Question { at, ..question() }), expected, "{second}");
    }
    for (second, expected) in [(9, 0), (10, 1)] {
        let until = Some(Moment(second * 1000));
        assert_eq!(
            found(Question {
                until,
                ..question()
            }),
            expected,
            "{second}"
        );
    }
}
