//! Sessions from their beginning to their end, with time made up.

use std::path::Path;

use turnpike_protocol::CallId;

use super::super::record::{Kind, Record};
use super::*;

fn config(directory: &Path) -> Accounting {
    Accounting {
        file: directory.join("ledger"),
        keep: None,
        checkpoint: Duration::from_secs(60),
        interim: None,
        failures: false,
        mandatory: false,
        radius: true,
        stations: Stations::default(),
    }
}

fn call(id: u16) -> CallRef {
    CallRef {
        local: Ipv4Addr::new(192, 0, 2, 1),
        peer: Ipv4Addr::new(203, 0, 113, 5),
        id: CallId(id),
    }
}

fn begun(id: u16) -> Begun {
    Begun {
        call: call(id),
        user: format!("user{id}"),
        address: Ipv4Addr::new(10, 20, 3, 4),
        ipv6: None,
    }
}

fn counters(octets: u64) -> CallCounters {
    CallCounters {
        received_packets: 1,
        received_octets: octets,
        sent_packets: 2,
        sent_octets: 2 * octets,
        ..CallCounters::default()
    }
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

async fn records(books: &Books) -> Vec<Record> {
    books.clerk().waiting(0, 10_000).await.unwrap()
}

/// Kinds, users and octets from the client.
async fn told(books: &Books) -> Vec<(Kind, String, u64)> {
    let records = records(books).await;
    let told = records.into_iter().map(|record| {
        let user = record.session.map(|(_, facts)| facts.user);
        (
            record.kind,
            user.unwrap_or_default(),
            record.traffic.received_octets,
        )
    });
    told.collect()
}

fn line(kind: Kind, user: &str, octets: u64) -> (Kind, String, u64) {
    (kind, user.to_owned(), octets)
}

#[tokio::test]
async fn a_session_has_one_start_and_one_stop() {
    let directory = tempfile::tempdir().unwrap();
    let books = Books::open(&config(directory.path()), "edge1", true).unwrap();
    books.begin(&begun(17), at(10)).await.unwrap();
    let id = books.session(call(17)).unwrap();
    let end = |octets| {
        let counters = counters(octets);
        books.end(call(17), Some("user17"), Cause::Silent, &counters, at(75));
    };
    end(500);
    end(900);
    books.reading(call(17), &counters(1000), at(80));
    assert_eq!(books.session(call(17)), None);

    let records = records(&books).await;
    let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::On, Kind::Start, Kind::Stop]);
    let (session, facts) = records[2].session.clone().unwrap();
    assert_eq!((session, records[1].session_id()), (id, Some(id)));
    assert_eq!(
        (facts.nas_port, facts.nas_port_id.as_str()),
        (Some(17), "pptp17")
    );
    assert_eq!(facts.calling_station, "203.0.113.5");
    assert_eq!(facts.called_station, "192.0.2.1");
    assert_eq!(records[2].session_time, 65);
    assert_eq!(records[2].traffic.received_octets, 500);
    assert_eq!(records[2].termination.as_ref().unwrap().code, 2);
}

#[tokio::test]
async fn a_call_that_logs_in_anew_has_two_sessions_with_their_own_counts() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.failures = true;
    let books = Books::open(&config, "edge1", true).unwrap();
    books.begin(&begun(1), at(0)).await.unwrap();
    books.cease(call(1), Some(&counters(100)), at(10));
    books.cease(call(1), Some(&counters(100)), at(11));
    let again = Begun {
        user: "other".to_owned(),
        ..begun(1)
    };
    books.begin(&again, at(12)).await.unwrap();
    books.end(
        call(1),
        Some("other"),
        Cause::HungUp,
        &counters(130),
        at(20),
    );
    // One that ceases and is over before anybody logs in again is no failed attempt.
    books.begin(&begun(2), at(0)).await.unwrap();
    books.cease(call(2), Some(&counters(7)), at(10));
    books.end(call(2), None, Cause::HungUp, &counters(7), at(11));
    let expected = [
        line(Kind::On, "", 0),
        line(Kind::Start, "user1", 0),
        line(Kind::Stop, "user1", 100),
        line(Kind::Start, "other", 0),
        line(Kind::Stop, "other", 30),
        line(Kind::Start, "user2", 0),
        line(Kind::Stop, "user2", 7),
    ];
    assert_eq!(told(&books).await, expected);
    let state = books.state();
    assert!(state.open.is_empty() && state.due.is_empty());
    assert!(state.bases.is_empty() && state.refused.is_empty());
}

#[tokio::test]
async fn what_a_radius_server_said_is_kept_for_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let books = Books::open(&config(directory.path()), "edge1", true).unwrap();
    let own = Entitlements {
        class: vec![vec![1, 2], vec![3]],
        interim: Some(Duration::from_secs(120)),
        ..Entitlements::default()
    };
    let begun = begun(1);
    books.begin_with(&begun, Some(&own), at(0)).await.unwrap();
    for second in 1..=600 {
        for call in books.due(at(second)) {
            books.reading(call, &counters(second), at(second));
        }
    }
    let records = records(&books).await;
    let interims = records.iter().filter(|record| record.kind == Kind::Interim);
    assert!((4..=6).contains(&interims.count()));
    let (_, facts) = records[1].session.clone().unwrap();
    assert_eq!(facts.class, own.class);
    assert_eq!(facts.authentic, Authentic::Radius);
}

#[tokio::test]
async fn failed_attempts_are_written_where_that_is_wanted() {
    for failures in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        config.failures = failures;
        let books = Books::open(&config, "edge1", true).unwrap();
        books.refused(call(1), "mallory");
        let zero = CallCounters::default();
        books.end(call(1), None, Cause::AuthenticationFailed, &zero, at(5));
        books.end(call(2), None, Cause::NoGre, &zero, at(5));
        books.end(call(3), Some("bob"), Cause::IpcpFailed, &zero, at(5));
        let mut expected = vec![line(Kind::On, "", 0)];
        if failures {
            expected.extend(["mallory", "", "bob"].map(|user| line(Kind::Failed, user, 0)));
        }
        assert_eq!(told(&books).await, expected);
        assert!(books.state().refused.is_empty());
    }
}

#[tokio::test]
async fn sessions_are_looked_at_by_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.interim = Some(Duration::from_secs(600));
    let books = Books::open(&config, "edge1", true).unwrap();
    let calls = 200;
    for id in 1..=calls {
        drop(books.enter_begin(&begun(id), None, at(0), Moment(0)));
    }
    assert_eq!(books.due(at(0)), []);
    // Two hours.
    let mut looked = 0;
    let mut busiest = 0;
    for second in 1..=7200 {
        let due = books.due(at(second));
        busiest = busiest.max(due.len());
        looked += due.len();
        for call in due {
            books.reading(call, &counters(second), at(second));
        }
    }
    // 120 checkpoints each, and what Interims add, which are checkpoints, too.
    let each = looked / usize::from(calls);
    assert!((119..=133).contains(&each), "{each}");
    assert!(busiest < 40, "{busiest} at once");
    let records = records(&books).await;
    let mut last = HashMap::new();
    let mut interims = 0;
    for record in records.iter().filter(|record| record.kind == Kind::Interim) {
        interims += 1;
        let id = record.session_id().unwrap();
        let time = record.session_time;
        assert_eq!(record.traffic.received_octets, u64::from(time));
        match last.insert(id, time) {
            // Apart from each other at once, and then about as often as is said.
            None => assert!((300..=601).contains(&time), "{time}"),
            Some(before) => assert!((569..=632).contains(&(time - before)), "{}", time - before),
        }
    }
    assert_eq!(last.len(), usize::from(calls));
    let each = interims / usize::from(calls);
    assert!((10..=12).contains(&each), "{each}");
    let firsts: std::collections::HashSet<_> = records
        .iter()
        .filter(|record| record.kind == Kind::Interim)
        .take(100)
        .map(|record| record.session_time)
        .collect();
    assert!(
        firsts.len() > 50,
        "{} of 100 at different times",
        firsts.len()
    );
}

#[tokio::test]
async fn a_worker_that_does_not_answer_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let books = Books::open(&config(directory.path()), "edge1", true).unwrap();
    drop(books.enter_begin(&begun(1), None, at(0), Moment(0)));
    let asked: usize = (1..=600).map(|second| books.due(at(second)).len()).sum();
    assert!((9..=11).contains(&asked), "{asked}");
}

#[tokio::test]
async fn what_a_crash_left_open_is_over_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let books = Books::open(&config, "edge1", true).unwrap();
    books.begin(&begun(1), at(0)).await.unwrap();
    books.begin(&begun(2), at(0)).await.unwrap();
    books.reading(call(1), &counters(777), at(60));
    books.end(call(2), None, Cause::HungUp, &counters(5), at(61));
    assert_eq!(books.clerk().backlog().await, Some(4));
    // It is not told that it ends.
    drop(books.clerk.close());

    let books = Books::open(&config, "edge1", true).unwrap();
    let expected = [
        line(Kind::On, "", 0),
        line(Kind::Start, "user1", 0),
        line(Kind::Start, "user2", 0),
        line(Kind::Stop, "user2", 5),
        line(Kind::Stop, "user1", 777),
        line(Kind::On, "", 0),
    ];
    assert_eq!(told(&books).await, expected);
    let crashed = records(&books).await[4].clone();
    assert_eq!(crashed.termination.unwrap().code, 11);

    // Who is told so leaves nothing to the next.
    books.begin(&begun(3), at(0)).await.unwrap();
    books.close();
    let books = Books::open(&config, "edge1", true).unwrap();
    let told = told(&books).await;
    let kinds: Vec<_> = told[6..].iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [Kind::Start, Kind::Stop, Kind::Off, Kind::On]);
    let stopped = records(&books).await[7].clone();
    assert_eq!(stopped.termination.unwrap().cause, "server_stopping");
}

#[tokio::test]
async fn only_where_it_is_mandatory_a_broken_ledger_keeps_calls_out() {
    for mandatory in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        config.mandatory = mandatory;
        let books = Books::open(&config, "edge1", true).unwrap();
        assert_eq!(books.admit(), Ok(()));
        books.begin(&begun(1), at(0)).await.unwrap();
        let thief = rusqlite::Connection::open(&config.file).unwrap();
        thief.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = mandatory.then_some(Cause::AccountingFailed);
        tokio::time::pause();
        let second = books.begin(&begun(2), at(1)).await;
        tokio::time::resume();
        assert_eq!(second.err(), refused);
        while books.clerk().health() == Health::Good {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(books.admit().err(), refused);
        assert!(!books.is_overdue(), "not for a moment's trouble");
        // Without delay where nobody waits for the disk.
        if !mandatory {
            books.begin(&begun(3), at(2)).await.unwrap();
        }
        thief.execute_batch("ROLLBACK").unwrap();
        while books.clerk().health() != Health::Good {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(books.admit(), Ok(()));
        let starts = told(&books).await.len() - 1;
        assert_eq!(starts, if mandatory { 2 } else { 3 });
    }
}

#[test]
fn shares_are_spread() {
    let mut tenths = [0; 10];
    for id in 0..10_000 {
        let share = share(0x6a1b_0000_0000_0000 + id, id % 7);
        assert!((0.0..1.0).contains(&share));
        tenths[(share * 10.0) as usize] += 1;
    }
    assert!(
        tenths.iter().all(|count| (900..1100).contains(count)),
        "{tenths:?}"
    );
}
