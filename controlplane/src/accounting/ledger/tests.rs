//! The file alone.

use std::net::Ipv4Addr;

use super::super::record::{
    Authentic, Entry, Facts, Kind, Moment, SessionId, Termination, Traffic,
};
use super::*;

pub(in crate::accounting) fn facts(user: &str) -> Box<Facts> {
    Box::new(Facts {
        user: user.to_owned(),
        client: Ipv4Addr::new(203, 0, 113, 5),
        server: Ipv4Addr::new(192, 0, 2, 1),
        address: Some(Ipv4Addr::new(10, 20, 3, 4)),
        prefix: Some("2001:db8:1:7::/64".parse().unwrap()),
        delegated: Some("2001:db8:8000:700::/56".parse().unwrap()),
        calling_station: "203.0.113.5".to_owned(),
        called_station: "192.0.2.1".to_owned(),
        nas_port: Some(17),
        nas_port_id: "pptp17".to_owned(),
        authentic: Authentic::Radius,
        class: vec![b"one".to_vec(), vec![], vec![0xff; 253]],
    })
}

fn begin(id: u64, at: i64) -> Entry {
    Entry::Begin {
        id: SessionId(id),
        facts: facts("alice"),
        at: Moment(at),
    }
}

fn traffic(octets: u64) -> Traffic {
    Traffic {
        received_packets: octets / 100,
        received_octets: octets,
        sent_packets: octets / 50,
        sent_octets: octets * 2,
    }
}

fn reading(id: u64, at: i64, octets: u64, interim: bool) -> Entry {
    Entry::Reading {
        id: SessionId(id),
        at: Moment(at),
        session_time: (at / 1000) as u32,
        traffic: traffic(octets),
        interim,
    }
}

fn end(id: u64, at: i64, octets: u64) -> Entry {
    Entry::End {
        id: SessionId(id),
        at: Moment(at),
        session_time: (at / 1000) as u32,
        traffic: traffic(octets),
        cause: Cause::Killed,
    }
}

fn kinds(ledger: &Ledger) -> Vec<(Kind, Option<u64>)> {
    let records = ledger.waiting(0, 1000).unwrap();
    records
        .iter()
        .map(|record| (record.kind, record.session_id().map(|id| id.0)))
        .collect()
}

#[test]
fn records_come_back_as_they_were_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, true, Moment(5_000)).unwrap();
    // Beyond 32 bits, and with a number of 64.
    let id = SessionId(u64::MAX - 1);
    let large = Traffic {
        received_octets: (3 << 32) + 7,
        ..traffic(u64::from(u32::MAX))
    };
    let entries = [
        Entry::On { at: Moment(900) },
        Entry::Begin {
            id,
            facts: facts("alice"),
            at: Moment(1_500),
        },
        Entry::Reading {
            id,
            at: Moment(61_500),
            session_time: 60,
            traffic: large,
            interim: true,
        },
        Entry::End {
            id,
            at: Moment(99_000),
            session_time: 97,
            traffic: large,
            cause: Cause::Silent,
        },
    ];
    ledger.enter(&entries, Moment(99_000)).unwrap();
    drop(ledger);
    let ledger = Ledger::open(&path, true, Moment(99_500)).unwrap();
    let records = ledger.waiting(0, 1000).unwrap();
    assert_eq!(ledger.backlog().unwrap(), 4);
    assert_eq!(
        records.iter().map(|record| record.kind).collect::<Vec<_>>(),
        [Kind::On, Kind::Start, Kind::Interim, Kind::Stop]
    );
    assert_eq!(records[0].session, None);
    assert_eq!(records[1].session, Some((id, *facts("alice"))));
    assert_eq!(records[1].traffic, Traffic::default());
    assert_eq!((records[2].session_time, records[2].traffic), (60, large));
    assert_eq!(records[2].termination, None);
    assert_eq!(records[3].at, Moment(99_000));
    assert_eq!(records[3].delay(Moment(160_900)), 61);
    let why = Termination {
        cause: "silent".to_owned(),
        code: 2,
    };
    assert_eq!(records[3].termination, Some(why));
    // From a place on, and not more than asked for.
    let some = ledger.waiting(records[1].number, 1).unwrap();
    assert_eq!(some, records[2..3]);
}

#[test]
fn what_is_written_twice_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, true, Moment(0)).unwrap();
    let entries = [begin(1, 1000), end(1, 2000, 100)];
    ledger.enter(&entries, Moment(2000)).unwrap();
    ledger.enter(&entries, Moment(2000)).unwrap();
    // Nothing comes after an end, and nothing of a session that never began.
    let late = [
        reading(1, 3000, 200, true),
        end(1, 4000, 300),
        reading(2, 3000, 1, true),
        end(2, 4000, 1),
    ];
    ledger.enter(&late, Moment(4000)).unwrap();
    let expected = [(Kind::Start, Some(1)), (Kind::Stop, Some(1))];
    assert_eq!(kinds(&ledger), expected);
    assert_eq!(ledger.waiting(1, 9).unwrap()[0].traffic, traffic(100));

    // A record goes when it was delivered; the others keep their numbers.
    let delivered = [Entry::Delivered { number: 1 }];
    ledger.enter(&delivered, Moment(4000)).unwrap();
    ledger.enter(&delivered, Moment(4000)).unwrap();
    assert_eq!(kinds(&ledger), [(Kind::Stop, Some(1))]);
    ledger
        .enter(&[Entry::Delivered { number: 2 }], Moment(4000))
        .unwrap();
    ledger
        .enter(&[Entry::On { at: Moment(1) }], Moment(4000))
        .unwrap();
    assert_eq!(
        ledger.waiting(0, 9).unwrap()[0].number,
        3,
        "a number is never used again"
    );
}

#[test]
fn sessions_that_a_crash_left_open_end_at_the_last_sign_of_life() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, true, Moment(0)).unwrap();
    assert_eq!(ledger.end_open(Cause::ServerCrashed, None).unwrap(), 0);
    let entries = [
        begin(1, 10_000),
        begin(2, 20_000),
        begin(3, 30_000),
        reading(1, 70_000, 500, false),
        end(3, 80_000, 9),
    ];
    ledger.enter(&entries, Moment(90_000)).unwrap();
    drop(ledger);
    let mut ledger = Ledger::open(&path, true, Moment(900_000)).unwrap();
    assert_eq!(ledger.end_open(Cause::ServerCrashed, None).unwrap(), 2);
    assert_eq!(ledger.end_open(Cause::ServerCrashed, None).unwrap(), 0);
    let records = ledger.waiting(0, 99).unwrap();
    let crashed: Vec<_> = records
        .iter()
        .filter(|record| record.kind == Kind::Stop && record.session_id() != Some(SessionId(3)))
        .map(|record| {
            let why = record.termination.clone().unwrap();
            assert_eq!((why.cause.as_str(), why.code), ("server_crashed", 11));
            (
                record.session_id().unwrap().0,
                record.at,
                record.session_time,
                record.traffic,
            )
        })
        .collect();
    let at = Moment(90_000);
    assert_eq!(
        crashed,
        [(1, at, 80, traffic(500)), (2, at, 70, Traffic::default())]
    );
}

#[test]
fn no_two_starts_have_ids_in_common() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let boot = |at| Ledger::open(&path, false, Moment(at)).unwrap().boot();
    let boots = [
        boot(7_000_000),
        boot(7_000_000),
        boot(9_000_000),
        boot(1000),
    ];
    assert_eq!(boots, [7000, 7001, 9000, 9001]);
}

#[test]
fn old_sessions_are_forgotten_when_their_records_are_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, true, Moment(0)).unwrap();
    let entries: Vec<_> = (1..=4)
        .flat_map(|id| [begin(id, 0), end(id, 1000 * id as i64, 1)])
        .chain([begin(5, 0)])
        .collect();
    ledger.enter(&entries, Moment(9000)).unwrap();
    assert_eq!(ledger.forget(Moment(9000), 99).unwrap(), 0);
    let delivered: Vec<_> = (1..=6).map(|number| Entry::Delivered { number }).collect();
    ledger.enter(&delivered, Moment(9000)).unwrap();
    // 1 to 3 are delivered, 3 is too young, 4 is not delivered, 5 is up.
    assert_eq!(ledger.forget(Moment(3000), 1).unwrap(), 1);
    assert_eq!(ledger.forget(Moment(3000), 99).unwrap(), 1);
    assert_eq!(ledger.forget(Moment(9000), 99).unwrap(), 1);
    assert_eq!(ledger.forget(Moment(9000), 99).unwrap(), 0);
    let waiting = kinds(&ledger);
    assert_eq!(waiting.last(), Some(&(Kind::Start, Some(5))));
    assert_eq!(waiting[0], (Kind::Start, Some(4)));
}

#[test]
fn without_anybody_to_deliver_to_nothing_waits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, false, Moment(0)).unwrap();
    let entries = [
        Entry::On { at: Moment(0) },
        begin(1, 0),
        reading(1, 5, 1, true),
        end(1, 9, 1),
    ];
    ledger.enter(&entries, Moment(9)).unwrap();
    assert_eq!(ledger.backlog().unwrap(), 0);
    assert_eq!(ledger.forget(Moment(10), 9).unwrap(), 1);
}

#[test]
fn a_full_disk_is_said_and_nothing_is_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, true, Moment(0)).unwrap();
    ledger.limit(160 << 10);
    let mut written = 0;
    let error = loop {
        let entries: Vec<_> = (written * 10..written * 10 + 10)
            .map(|id| begin(id, 0))
            .collect();
        match ledger.enter(&entries, Moment(0)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000);
    };
    assert!(error.to_string().contains("full"), "{error}");
    assert!(!error.is_corrupt());
    assert_eq!(ledger.backlog().unwrap(), 10 * written);
    // There is room again.
    ledger.limit(1 << 20);
    let entries = [begin(1_000_000, 0), end(1_000_000, 9, 1)];
    ledger.enter(&entries, Moment(9)).unwrap();
    assert_eq!(ledger.backlog().unwrap(), 10 * written + 2);
}

#[test]
fn broken_and_foreign_files_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let open = |path: &Path| Ledger::open(path, true, Moment(7_000)).err().unwrap();

    // Broken: out of the way, and a new one in its place.
    std::fs::write(&path, "this is no database, however long it is".repeat(99)).unwrap();
    assert!(open(&path).is_corrupt());
    let (mut ledger, aside) = Ledger::open_anew(&path, true, Moment(7_000)).unwrap();
    let aside = aside.unwrap();
    assert_eq!(aside, directory.path().join("ledger-broken-7"));
    assert!(std::fs::read(&aside).unwrap().starts_with(b"this is no"));
    ledger.enter(&[begin(1, 1)], Moment(1)).unwrap();
    drop(ledger);
    let (ledger, aside) = Ledger::open_anew(&path, true, Moment(7_000)).unwrap();
    assert_eq!((ledger.backlog().unwrap(), aside), (1, None));
    drop(ledger);

    // A newer one, and somebody else's, are never touched.
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Ledger::open_anew(&path, true, Moment(0)).err().unwrap();
    assert!(error.to_string().contains("newer turnpike"), "{error}");
    let foreign = directory.path().join("foreign");
    let db = Connection::open(&foreign).unwrap();
    db.execute_batch("CREATE TABLE cookies(name)").unwrap();
    drop(db);
    assert!(open(&foreign).to_string().contains("another program"));

    let error = open(&directory.path().join("nowhere/ledger")).to_string();
    assert!(error.contains("so that its directory exists"), "{error}");
}

#[test]
fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = Ledger::open(&path, true, Moment(0)).unwrap();
    ledger.enter(&[begin(1, 1)], Moment(1)).unwrap();
    let files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap())
        .collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
    }
}
