//! The thread, with disks that do and do not take what they are given.

use std::path::Path;

use rusqlite::Connection;

use super::super::ledger::tests::facts;
use super::super::record::{Kind, SessionId, Traffic};
use super::*;

/// Longer than anything takes on a busy machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

fn ledger(path: &Path) -> Ledger {
    Ledger::open(path, true, Moment::now()).unwrap()
}

fn begin(id: u64) -> Entry {
    Entry::Begin {
        id: SessionId(id),
        facts: facts("alice"),
        at: Moment::now(),
    }
}

fn reading(id: u64) -> Entry {
    Entry::Reading {
        id: SessionId(id),
        at: Moment::now(),
        session_time: 1,
        traffic: Traffic::default(),
        interim: false,
    }
}

async fn is_written(receipt: Receipt) -> bool {
    tokio::time::timeout(PATIENCE, receipt)
        .await
        .unwrap()
        .is_ok()
}

#[tokio::test]
async fn a_receipt_comes_when_it_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clerk = Clerk::start(ledger(&path), None).unwrap();
    for id in 1..=50 {
        assert!(is_written(clerk.enter(begin(id))).await);
        // Somebody else sees it, as whoever comes after a crash would.
        let db = Connection::open(&path).unwrap();
        let count: i64 = db
            .query_row("SELECT count(*) FROM session", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, id.cast_signed());
    }
    let records = clerk.waiting(0, 100).await.unwrap();
    assert_eq!(records.len(), 50);
    assert_eq!(clerk.backlog().await, Some(50));
    assert!(records.iter().all(|record| record.kind == Kind::Start));
}

#[tokio::test]
async fn the_end_writes_what_waits_and_takes_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clerk = Clerk::start(ledger(&path), None).unwrap();
    let receipts: Vec<_> = (0..5000).map(|id| clerk.enter(begin(id))).collect();
    let ledger = clerk.close().unwrap();
    for receipt in receipts {
        assert!(is_written(receipt).await);
    }
    assert_eq!(ledger.backlog().unwrap(), 5000);
    assert!(!is_written(clerk.enter(begin(9999))).await);
    assert_eq!(clerk.lost(), 1);
    assert!(clerk.close().is_none());
}

#[tokio::test]
async fn what_the_disk_does_not_take_waits_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clerk = Clerk::start(ledger(&path), None).unwrap();
    assert!(is_written(clerk.enter(begin(1))).await);
    assert_eq!(clerk.health(), Health::Good);

    // Somebody locks the file, and keeps it.
    let thief = Connection::open(&path).unwrap();
    thief.execute_batch("BEGIN IMMEDIATE").unwrap();
    let second = clerk.enter(begin(2));
    let mut health = clerk.health.clone();
    let failing = health.wait_for(|health| matches!(health, Health::Failing(_)));
    let failing = tokio::time::timeout(PATIENCE, failing).await.unwrap();
    drop(failing.unwrap());
    let third = clerk.enter(begin(3));
    let ends = clerk.enter(Entry::End {
        id: SessionId(2),
        at: Moment::now(),
        session_time: 1,
        traffic: Traffic::default(),
        cause: crate::cause::Cause::HungUp,
    });
    thief.execute_batch("ROLLBACK").unwrap();
    for receipt in [second, third, ends] {
        assert!(is_written(receipt).await);
    }
    assert_eq!(clerk.health(), Health::Good);
    let kinds: Vec<_> = clerk
        .waiting(0, 9)
        .await
        .unwrap()
        .iter()
        .map(|record| (record.kind, record.session_id().unwrap().0))
        .collect();
    let expected = [
        (Kind::Start, 1),
        (Kind::Start, 2),
        (Kind::Start, 3),
        (Kind::Stop, 2),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn memory_is_bounded_and_readings_go_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clerk = Clerk::start(ledger(&path), None).unwrap();
    let thief = Connection::open(&path).unwrap();
    thief.execute_batch("BEGIN IMMEDIATE").unwrap();
    // One goes to the thread, which cannot write it.
    let first = clerk.enter(begin(0));
    while !clerk.desk.queue().jobs.is_empty() {
        tokio::task::yield_now().await;
    }
    for id in 0..QUEUE as u64 {
        drop(clerk.enter(reading(id)));
    }
    assert_eq!(clerk.desk.queue().jobs.len(), READINGS);
    assert_eq!(clerk.lost(), 0, "readings are made up for");
    for id in 1..=QUEUE as u64 {
        drop(clerk.enter(begin(id)));
    }
    assert_eq!(clerk.desk.queue().jobs.len(), QUEUE);
    assert_eq!(clerk.lost(), READINGS as u64);
    thief.execute_batch("ROLLBACK").unwrap();
    assert!(is_written(first).await);
    let ledger = clerk.close().unwrap();
    assert_eq!(ledger.backlog().unwrap(), (QUEUE - READINGS + 1) as u64);
}

#[tokio::test]
async fn an_end_that_the_disk_refuses_says_what_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let clerk = Clerk::start(ledger(&path), None).unwrap();
    assert!(is_written(clerk.enter(begin(1))).await);
    let thief = Connection::open(&path).unwrap();
    thief.execute_batch("BEGIN IMMEDIATE").unwrap();
    let lost = clerk.enter(begin(2));
    let ledger = clerk.close().unwrap();
    assert!(!is_written(lost).await);
    thief.execute_batch("ROLLBACK").unwrap();
    assert_eq!(ledger.backlog().unwrap(), 1);
}

#[tokio::test]
async fn old_sessions_go_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, false, Moment(0)).unwrap();
    let count = FORGET as u64 * 2 + 7;
    let old: Vec<_> = (0..count)
        .map(|id| Entry::Failed {
            id: SessionId(id),
            facts: facts("alice"),
            at: Moment(0),
            cause: crate::cause::Cause::NoGre,
        })
        .collect();
    ledger.enter(&old, Moment(0)).unwrap();
    let clerk = Clerk::start(ledger, Some(Duration::from_secs(3600))).unwrap();
    drop(clerk.enter(begin(count)));
    let db = Connection::open(&path).unwrap();
    let start = Instant::now();
    loop {
        let left: i64 = db
            .query_row("SELECT count(*) FROM session", [], |row| row.get(0))
            .unwrap();
        if left == 1 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{left} are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
