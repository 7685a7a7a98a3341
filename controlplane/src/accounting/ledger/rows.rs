//! Tables, and everything that is said in SQL to write them.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::record::{
    Authentic, Entry, Facts, Kind, Moment, Record, SessionId, Termination, Traffic,
};
use crate::cause::Cause;

/// Marks the file as ours (SQLite's `application_id`): "tpkA".
pub(super) const APPLICATION: i32 = 0x7470_6b41;

/// The form of the tables (SQLite's `user_version`).
pub(super) const VERSION: i32 = 1;

/// How long a write waits for somebody who has locked the file.
const BUSY: Duration = Duration::from_millis(500);

/// The log of changes is cut back to this many octets once it has been larger.
const JOURNAL: i64 = 64 << 20;

const TABLES: &str = "
CREATE TABLE fact(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE session(
    id INTEGER PRIMARY KEY,
    user TEXT NOT NULL,
    client INTEGER NOT NULL,
    server INTEGER NOT NULL,
    address INTEGER,
    prefix BLOB,
    delegated BLOB,
    calling_station TEXT NOT NULL,
    called_station TEXT NOT NULL,
    nas_port INTEGER,
    nas_port_id TEXT NOT NULL,
    authentic INTEGER NOT NULL,
    class BLOB NOT NULL,
    started INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    ended INTEGER,
    failed INTEGER NOT NULL,
    session_time INTEGER NOT NULL DEFAULT 0,
    received_packets INTEGER NOT NULL DEFAULT 0,
    received_octets INTEGER NOT NULL DEFAULT 0,
    sent_packets INTEGER NOT NULL DEFAULT 0,
    sent_octets INTEGER NOT NULL DEFAULT 0,
    cause TEXT,
    terminate INTEGER
);
CREATE INDEX session_address ON session(address, started);
CREATE INDEX session_user ON session(user, started);
CREATE INDEX session_client ON session(client, started);
CREATE INDEX session_started ON session(started);
CREATE INDEX session_prefix ON session(prefix) WHERE prefix IS NOT NULL;
CREATE INDEX session_delegated ON session(delegated) WHERE delegated IS NOT NULL;
CREATE INDEX session_open ON session(id) WHERE ended IS NULL;
CREATE INDEX session_ended ON session(ended) WHERE ended IS NOT NULL;
CREATE TABLE spool(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER,
    kind INTEGER NOT NULL,
    at INTEGER NOT NULL,
    session_time INTEGER NOT NULL,
    received_packets INTEGER NOT NULL,
    received_octets INTEGER NOT NULL,
    sent_packets INTEGER NOT NULL,
    sent_octets INTEGER NOT NULL
);
CREATE INDEX spool_session ON spool(session);
";

pub(super) fn pragma(db: &Connection, name: &str) -> rusqlite::Result<i32> {
    db.pragma_query_value(None, name, |row| row.get(0))
}

pub(super) fn set_up(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is on the disk when it returns: power may fail, too.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "journal_size_limit", JOURNAL)
}

/// Makes the tables if need be, and finds the number of this start: the time, or one more than the last where the clock
/// says less.
pub(super) fn begin(db: &mut Connection, fresh: bool, now: Moment) -> rusqlite::Result<u32> {
    let db = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if fresh {
        db.execute_batch(TABLES)?;
        db.pragma_update(None, "application_id", APPLICATION)?;
        db.pragma_update(None, "user_version", VERSION)?;
    }
    let last: Option<u32> = db
        .query_row("SELECT value FROM fact WHERE name = 'boot'", [], |row| {
            row.get(0)
        })
        .optional()?;
    let time = u32::try_from(now.seconds()).unwrap_or(0);
    let boot = last.map_or(time, |last| time.max(last.wrapping_add(1)));
    set_fact(&db, "boot", i64::from(boot))?;
    db.commit()?;
    Ok(boot)
}

fn set_fact(db: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO fact(name, value) VALUES(?1, ?2)")?
        .execute(params![name, value])
        .map(drop)
}

/// Refuses a file that is no ledger, or a later one.
pub(in crate::accounting) fn check(db: &Connection) -> rusqlite::Result<()> {
    match pragma(db, "application_id")? == APPLICATION && pragma(db, "user_version")? <= VERSION {
        true => Ok(()),
        false => Err(rusqlite::Error::InvalidQuery),
    }
}

/// When the server was alive for the last time, as far as it was written.
pub(super) fn alive(db: &Connection) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT value FROM fact WHERE name = 'alive'", [], |row| {
        row.get(0)
    })
    .optional()
}

/// The server was alive.
pub(super) fn seen(db: &Connection, now: Moment) -> rusqlite::Result<()> {
    set_fact(db, "alive", now.0)
}

pub(super) fn enter(db: &Connection, entry: &Entry, spools: bool) -> rusqlite::Result<()> {
    let (id, kind, at, session_time, traffic) = match entry {
        Entry::Begin { id, facts, at } => {
            if !insert(db, *id, facts, *at, None)? {
                return Ok(());
            }
            (Some(*id), Kind::Start, *at, 0, Traffic::default())
        }
        Entry::Reading {
            id,
            at,
            session_time,
            traffic,
            interim,
        } => {
            if !update(db, *id, *at, *session_time, traffic, None)? || !interim {
                return Ok(());
            }
            (Some(*id), Kind::Interim, *at, *session_time, *traffic)
        }
        Entry::End {
            id,
            at,
            session_time,
            traffic,
            cause,
        } => {
            if !update(db, *id, *at, *session_time, traffic, Some(*cause))? {
                return Ok(());
            }
            (Some(*id), Kind::Stop, *at, *session_time, *traffic)
        }
        Entry::Failed {
            id,
            facts,
            at,
            cause,
        } => {
            if !insert(db, *id, facts, *at, Some(*cause))? {
                return Ok(());
            }
            (Some(*id), Kind::Failed, *at, 0, Traffic::default())
        }
        Entry::On { at } => (None, Kind::On, *at, 0, Traffic::default()),
        Entry::Off { at } => (None, Kind::Off, *at, 0, Traffic::default()),
        Entry::Delivered { number } => {
            return db
                .prepare_cached("DELETE FROM spool WHERE number = ?1")?
                .execute([number])
                .map(drop);
        }
    };
    if !spools {
        return Ok(());
    }
    let [a, b, c, d] = columns(&traffic);
    db.prepare_cached(
        "INSERT INTO spool(session, kind, at, session_time, received_packets, received_octets, sent_packets, sent_octets) \
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![id.map(number_of), kind.code(), at.0, session_time, a, b, c, d])
    .map(drop)
}

/// False when the session is there already.
fn insert(
    db: &Connection,
    id: SessionId,
    facts: &Facts,
    at: Moment,
    failed: Option<Cause>,
) -> rusqlite::Result<bool> {
    let inserted = db
        .prepare_cached(
            "INSERT OR IGNORE INTO session(id, user, client, server, address, prefix, delegated, calling_station, \
             called_station, nas_port, nas_port_id, authentic, class, started, seen, ended, failed, cause, terminate) \
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, ?15, ?16, ?17, ?18)",
        )?
        .execute(params![
            number_of(id),
            facts.user,
            facts.client.to_bits(),
            facts.server.to_bits(),
            facts.address.map(Ipv4Addr::to_bits),
            facts.prefix.map(prefix_blob),
            facts.delegated.map(prefix_blob),
            facts.calling_station,
            facts.called_station,
            facts.nas_port,
            facts.nas_port_id,
            facts.authentic.code(),
            class_blob(&facts.class),
            at.0,
            failed.map(|_| at.0),
            failed.is_some(),
            failed.map(Cause::name),
            failed.map(Cause::radius_terminate_cause),
        ])?;
    Ok(inserted == 1)
}

/// False when the session is over already, or not known.
fn update(
    db: &Connection,
    id: SessionId,
    at: Moment,
    session_time: u32,
    traffic: &Traffic,
    cause: Option<Cause>,
) -> rusqlite::Result<bool> {
    let [a, b, c, d] = columns(traffic);
    let updated = db
        .prepare_cached(
            "UPDATE session SET seen = ?2, session_time = ?3, received_packets = ?4, received_octets = ?5, \
             sent_packets = ?6, sent_octets = ?7, ended = ?8, cause = ?9, terminate = ?10 \
             WHERE id = ?1 AND ended IS NULL",
        )?
        .execute(params![
            number_of(id),
            at.0,
            session_time,
            a,
            b,
            c,
            d,
            cause.map(|_| at.0),
            cause.map(Cause::name),
            cause.map(Cause::radius_terminate_cause),
        ])?;
    Ok(updated == 1)
}

pub(super) fn waiting(db: &Connection, after: i64, limit: usize) -> rusqlite::Result<Vec<Record>> {
    let mut rows = db.prepare_cached(
        "SELECT spool.number, spool.kind, spool.at, spool.session_time, spool.received_packets, spool.received_octets, \
         spool.sent_packets, spool.sent_octets, session.id, user, client, server, address, prefix, delegated, \
         calling_station, called_station, nas_port, nas_port_id, authentic, class, cause, terminate \
         FROM spool LEFT JOIN session ON session.id = spool.session WHERE number > ?1 ORDER BY number LIMIT ?2",
    )?;
    let rows = rows.query_map(params![after, limit as i64], |row| {
        let kind = Kind::of(row.get(1)?).ok_or(rusqlite::Error::IntegralValueOutOfRange(1, 0))?;
        let id: Option<i64> = row.get(8)?;
        let termination = match kind {
            Kind::Stop | Kind::Failed => Some(Termination {
                cause: row.get::<_, Option<String>>(21)?.unwrap_or_default(),
                code: row.get::<_, Option<u8>>(22)?.unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(Record {
            number: row.get(0)?,
            kind,
            at: Moment(row.get(2)?),
            session: id
                .map(|id| Ok::<_, rusqlite::Error>((id_of(id), facts(row, 9)?)))
                .transpose()?,
            session_time: row.get(3)?,
            traffic: traffic(row, 4)?,
            termination,
        })
    })?;
    rows.collect()
}

/// Facts from the columns that begin at `first`, in the order of the table.
fn facts(row: &Row<'_>, first: usize) -> rusqlite::Result<Facts> {
    let address = |column| -> rusqlite::Result<Option<Ipv4Addr>> {
        Ok(row.get::<_, Option<u32>>(column)?.map(Ipv4Addr::from_bits))
    };
    let class: Vec<u8> = row.get(first + 11)?;
    Ok(Facts {
        user: row.get(first)?,
        client: address(first + 1)?.unwrap_or(Ipv4Addr::UNSPECIFIED),
        server: address(first + 2)?.unwrap_or(Ipv4Addr::UNSPECIFIED),
        address: address(first + 3)?,
        prefix: prefix(row, first + 4)?,
        delegated: prefix(row, first + 5)?,
        calling_station: row.get(first + 6)?,
        called_station: row.get(first + 7)?,
        nas_port: row.get(first + 8)?,
        nas_port_id: row.get(first + 9)?,
        authentic: match row.get::<_, u8>(first + 10)? {
            1 => Authentic::Radius,
            _ => Authentic::Local,
        },
        class: class_list(&class),
    })
}

pub(in crate::accounting) fn prefix(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<Ipv6Net>> {
    let blob: Option<Vec<u8>> = row.get(column)?;
    Ok(blob.and_then(|blob| {
        let (length, address) = blob.split_last()?;
        let address: [u8; 16] = address.try_into().ok()?;
        Ipv6Net::new(address.into(), *length).ok()
    }))
}

pub(in crate::accounting) fn traffic(row: &Row<'_>, first: usize) -> rusqlite::Result<Traffic> {
    let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    Ok(Traffic {
        received_packets: count(first)?,
        received_octets: count(first + 1)?,
        sent_packets: count(first + 2)?,
        sent_octets: count(first + 3)?,
    })
}

fn columns(traffic: &Traffic) -> [i64; 4] {
    [
        traffic.received_packets,
        traffic.received_octets,
        traffic.sent_packets,
        traffic.sent_octets,
    ]
    .map(u64::cast_signed)
}

fn number_of(id: SessionId) -> i64 {
    id.0.cast_signed()
}

pub(in crate::accounting) fn id_of(number: i64) -> SessionId {
    SessionId(number.cast_unsigned())
}

/// Network and length in one value that an index can find.
pub(in crate::accounting) fn prefix_blob(prefix: Ipv6Net) -> Vec<u8> {
    let mut blob = prefix.network().octets().to_vec();
    blob.push(prefix.prefix_len());
    blob
}

/// Each attribute behind its length, which is one octet (RFC 2865 §5).
fn class_blob(class: &[Vec<u8>]) -> Vec<u8> {
    let mut blob = Vec::new();
    for value in class {
        let value = &value[..value.len().min(255)];
        blob.push(value.len() as u8);
        blob.extend(value);
    }
    blob
}

fn class_list(mut blob: &[u8]) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    while let Some((length, rest)) = blob.split_first() {
        let Some((value, rest)) = rest.split_at_checked((*length).into()) else {
            break;
        };
        list.push(value.to_vec());
        blob = rest;
    }
    list
}
