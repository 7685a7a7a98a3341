//! What is asked of sessions that were: who had an address at a time.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use ipnet::Ipv6Net;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row};

use super::ledger::rows;
use super::record::{Moment, Traffic};
use crate::cause::Cause;

/// How long a question waits for a writer that has locked the file.
const BUSY: Duration = Duration::from_secs(5);

/// After this long without a sign of life, a session that has no end belongs to a server that is gone. Above the longest
/// time between two of them.
const SILENCE: i64 = 10 * 60 * 1000;

/// Which sessions are meant; everything that is given has to fit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Question {
    /// The inner address, or one in the session's prefixes.
    pub address: Option<IpAddr>,
    /// The user.
    pub user: Option<String>,
    /// The outer address.
    pub client: Option<Ipv4Addr>,
    /// Up at this time.
    pub at: Option<Moment>,
    /// Not over before this time.
    pub since: Option<Moment>,
    /// Begun at this time at the latest.
    pub until: Option<Moment>,
    /// Attempts that failed, too.
    pub failed: bool,
    /// The latest so many.
    pub limit: u32,
}

/// How a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes on.
    Up,
    /// It is over.
    Ended,
    /// It never came up.
    Failed,
    /// Its server was killed, and has not been started since.
    Unknown,
}

/// One session, as operators see it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Past {
    /// Acct-Session-Id.
    pub session: String,
    /// How it stands.
    pub state: State,
    /// The user.
    pub user: String,
    /// The client's outer address.
    pub client: Ipv4Addr,
    /// The address that it dialled.
    pub server: Ipv4Addr,
    /// Its inner address.
    pub address: Option<Ipv4Addr>,
    /// The prefix of its link.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// The prefix for the network behind it.
    pub ipv6_delegated: Option<Ipv6Net>,
    /// When it began, as this machine's clock has it (RFC 3339).
    pub from: String,
    /// When it ended; of one that goes on, when its counters were written last.
    pub to: String,
    /// How long it lasted, in seconds, up to then.
    pub seconds: u32,
    /// What it moved up to then.
    pub traffic: Traffic,
    /// Why it ended.
    pub cause: Option<String>,
    /// The same in words.
    pub text: Option<&'static str>,
}

/// The ledger, open for reading. The server may run meanwhile, or not.
pub struct History(Connection);

impl History {
    /// Opens the file.
    ///
    /// # Errors
    /// When there is none, it may not be read, or it is something else.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        // Not read-only: the first reader after a crash has to bring the file in order.
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "query_only", true)?;
        rows::check(&db)?;
        Ok(Self(db))
    }

    /// The sessions that are meant, the latest last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn ask(&self, question: &Question, now: Moment) -> rusqlite::Result<Vec<Past>> {
        let mut conditions = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let mut add = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(condition.replace('$', &format!("?{}", values.len())));
        };
        match question.address {
            Some(IpAddr::V4(address)) => add("address = $", i64::from(address.to_bits()).into()),
            Some(IpAddr::V6(address)) => {
                for prefix in prefixes(address) {
                    add("$", rows::prefix_blob(prefix).into());
                }
                let list = std::mem::take(&mut conditions).join(",");
                conditions.push(format!("(prefix IN ({list}) OR delegated IN ({list}))"));
            }
            None => {}
        }
        let mut add = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(condition.replace('$', &format!("?{}", values.len())));
        };
        if let Some(user) = &question.user {
            add("user = $", user.clone().into());
        }
        if let Some(client) = question.client {
            add("client = $", i64::from(client.to_bits()).into());
        }
        // People ask by whole seconds, which is what answers show: all of each is meant.
        let begins = |at: Moment| at.seconds() * 1000;
        let ends = |at: Moment| begins(at) + 999;
        if let Some(at) = question.at {
            add("started <= $", ends(at).into());
            add("(ended IS NULL OR ended >= $)", begins(at).into());
        }
        if let Some(since) = question.since {
            add("(ended IS NULL OR ended >= $)", since.0.into());
        }
        if let Some(until) = question.until {
            add("started <= $", ends(until).into());
        }
        if !question.failed {
            conditions.push("NOT failed".to_owned());
        }
        let conditions = match conditions.is_empty() {
            true => String::new(),
            false => format!("WHERE {}", conditions.join(" AND ")),
        };
        let mut sessions = self.0.prepare(&format!(
            "SELECT id, user, client, server, address, prefix, delegated, started, seen, ended, failed, session_time, \
             received_packets, received_octets, sent_packets, sent_octets, cause FROM session {conditions} \
             ORDER BY started DESC, id DESC LIMIT {}",
            question.limit
        ))?;
        let sessions =
            sessions.query_map(rusqlite::params_from_iter(values), |row| past(row, now))?;
        let mut sessions = sessions.collect::<Result<Vec<_>, _>>()?;
        sessions.reverse();
        Ok(sessions)
    }
}

/// All prefixes that hold an address and that a call may have.
fn prefixes(address: Ipv6Addr) -> impl Iterator<Item = Ipv6Net> {
    (1..=64).filter_map(move |length| Some(Ipv6Net::new(address, length).ok()?.trunc()))
}

fn past(row: &Row<'_>, now: Moment) -> rusqlite::Result<Past> {
    let address = |column| -> rusqlite::Result<Option<Ipv4Addr>> {
        Ok(row.get::<_, Option<u32>>(column)?.map(Ipv4Addr::from_bits))
    };
    let (started, seen) = (Moment(row.get(7)?), Moment(row.get(8)?));
    let ended: Option<i64> = row.get(9)?;
    let state = match (ended, row.get(10)?) {
        (_, true) => State::Failed,
        (Some(_), false) => State::Ended,
        (None, false) if now.0 - seen.0 > SILENCE => State::Unknown,
        (None, false) => State::Up,
    };
    let cause: Option<String> = row.get(16)?;
    let known = cause.as_deref().and_then(Cause::of_name);
    Ok(Past {
        session: rows::id_of(row.get(0)?).to_string(),
        state,
        user: row.get(1)?,
        client: address(2)?.unwrap_or(Ipv4Addr::UNSPECIFIED),
        server: address(3)?.unwrap_or(Ipv4Addr::UNSPECIFIED),
        address: address(4)?,
        ipv6_prefix: rows::prefix(row, 5)?,
        ipv6_delegated: rows::prefix(row, 6)?,
        from: local(started),
        to: local(ended.map_or(seen, Moment)),
        seconds: row.get(11)?,
        traffic: rows::traffic(row, 12)?,
        text: known.map(Cause::text),
        cause,
    })
}

/// A time as this machine's clock shows it, with its distance from UTC.
fn local(at: Moment) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(at) => at
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%dT%H:%M:%S%:z")
            .to_string(),
        Err(_) => at.0.to_string(),
    }
}

/// Sessions as a table.
pub fn history_text(sessions: &[Past]) -> String {
    let header = [
        "USER", "ADDRESS", "CLIENT", "FROM", "TO", "SECONDS", "IN", "OUT", "END",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for session in sessions {
        let to = match session.state {
            State::Up => "up".to_owned(),
            State::Unknown => format!("? (seen {})", session.to),
            State::Ended | State::Failed => session.to.clone(),
        };
        let dash = |text: &str| match text {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        rows.push([
            dash(&session.user),
            session
                .address
                .map_or_else(|| "-".to_owned(), |a| a.to_string()),
            session.client.to_string(),
            session.from.clone(),
            to,
            session.seconds.to_string(),
            session.traffic.received_octets.to_string(),
            session.traffic.sent_octets.to_string(),
            session.cause.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let widths: [usize; 9] = core::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
