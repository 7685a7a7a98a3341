//! The file that accounting is kept in: sessions, and the records that wait to be delivered.
//!
//! One SQLite file in WAL mode: a commit is one append and one `fsync`, operators read it from another process while the
//! server writes, and after a crash it opens as it was at the last commit. Everything here blocks; the
//! [`Clerk`](super::Clerk) has a thread for it.

pub(super) mod rows;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, Transaction, params};

use super::record::{Entry, Moment, Record};
use crate::cause::Cause;

use rows::{APPLICATION, VERSION, enter, id_of, pragma, seen, traffic};

/// What went wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system, or SQLite.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: rusqlite::Error,
    },
    /// It cannot be made or opened.
    #[error("cannot open {path}: {source}; write `file` in [accounting] so that its directory exists and the server may write there", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a database of something else.
    #[error("{path} belongs to another program; name another `file` in [accounting]", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a later version.
    #[error("{path} was written by a newer turnpike (form {version}, this one knows {VERSION})", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        version: i32,
    },
}

impl Error {
    /// Whether what is in the file is spoilt, so that trying again is of no use.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::File { source, .. } if matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ))
    }
}

/// The file, open for writing.
pub struct Ledger {
    db: Connection,
    path: PathBuf,
    spools: bool,
    boot: u32,
}

impl Ledger {
    /// Opens the file, or makes it. `spools`: records are to be delivered and wait here for that.
    ///
    /// # Errors
    /// [`Error`]; of a spoilt file [`Error::is_corrupt`] holds.
    pub fn open(path: &Path, spools: bool, now: Moment) -> Result<Self, Error> {
        // Names and addresses of users: for the owner alone. SQLite gives what it makes beside it the same mode.
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::Open {
                path: path.to_owned(),
                source,
            })?;
        let file = |source| Error::File {
            path: path.to_owned(),
            source,
        };
        let mut db = Connection::open(path).map_err(file)?;
        let application = pragma(&db, "application_id").map_err(file)?;
        let version = pragma(&db, "user_version").map_err(file)?;
        let tables: i64 = db
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(file)?;
        match (application, tables) {
            (APPLICATION, _) if version > VERSION => {
                return Err(Error::Newer {
                    path: path.to_owned(),
                    version,
                });
            }
            (APPLICATION, _) | (0, 0) => {}
            _ => {
                return Err(Error::Foreign {
                    path: path.to_owned(),
                });
            }
        }
        rows::set_up(&db).map_err(file)?;
        let boot = rows::begin(&mut db, tables == 0, now).map_err(file)?;
        Ok(Self {
            db,
            path: path.to_owned(),
            spools,
            boot,
        })
    }

    /// Opens the file after moving a spoilt one out of the way; answers with where that is now.
    ///
    /// # Errors
    /// [`Error`]
    pub fn open_anew(
        path: &Path,
        spools: bool,
        now: Moment,
    ) -> Result<(Self, Option<PathBuf>), Error> {
        match Self::open(path, spools, now) {
            Err(error) if error.is_corrupt() => {
                let aside = beside(path, &format!("-broken-{}", now.seconds()));
                std::fs::rename(path, &aside).map_err(|source| Error::Open {
                    path: path.to_owned(),
                    source,
                })?;
                // What SQLite kept beside it belongs to it, and would spoil the next.
                for extra in ["-wal", "-shm"] {
                    let _ = std::fs::rename(beside(path, extra), beside(&aside, extra));
                }
                Ok((Self::open(path, spools, now)?, Some(aside)))
            }
            opened => Ok((opened?, None)),
        }
    }

    /// The first half of the ids of this start's sessions.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything down at once: when this returns, all of it outlives a crash, else none of it is there. What was
    /// written already changes nothing, so whoever is in doubt may repeat it.
    ///
    /// # Errors
    /// [`Error::File`]: the disk is full, the file broken or locked.
    pub fn enter(&mut self, entries: &[Entry], now: Moment) -> Result<(), Error> {
        let spools = self.spools;
        self.write(|db| {
            for entry in entries {
                enter(db, entry, spools)?;
            }
            seen(db, now)
        })
    }

    /// Ends all sessions that are open, with the counters that were written last: as of `at`, or of the last sign of life
    /// that was written when there was a crash. Answers how many these were.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn end_open(&mut self, cause: Cause, at: Option<Moment>) -> Result<usize, Error> {
        let spools = self.spools;
        self.write(|db| {
            let alive = match at {
                Some(at) => Some(at.0),
                None => rows::alive(db)?,
            };
            let mut open = db.prepare(
                "SELECT id, started, seen, session_time, received_packets, received_octets, sent_packets, sent_octets \
                 FROM session WHERE ended IS NULL ORDER BY started, id",
            )?;
            let open = open.query_map([], |row| {
                let started: i64 = row.get(1)?;
                let seen: i64 = row.get(2)?;
                let at = Moment(alive.unwrap_or(seen).max(seen));
                let session_time: u32 = row.get(3)?;
                Ok(Entry::End {
                    id: id_of(row.get(0)?),
                    at,
                    session_time: at.seconds_since(Moment(started)).max(session_time),
                    traffic: traffic(row, 4)?,
                    cause,
                })
            })?;
            let open = open.collect::<Result<Vec<_>, _>>()?;
            for entry in &open {
                enter(db, entry, spools)?;
            }
            Ok(open.len())
        })
    }

    /// Records that wait to be delivered, those after the number `after`, in their order.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn waiting(&self, after: i64, limit: usize) -> Result<Vec<Record>, Error> {
        rows::waiting(&self.db, after, limit).map_err(|source| self.failed(source))
    }

    /// How many records wait.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn backlog(&self) -> Result<u64, Error> {
        let count: i64 = self
            .db
            .query_row("SELECT count(*) FROM spool", [], |row| row.get(0))
            .map_err(|source| self.failed(source))?;
        Ok(count.unsigned_abs())
    }

    /// Forgets sessions that were over before `before` and of which no record waits, `limit` of them at most. Answers how
    /// many these were.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn forget(&mut self, before: Moment, limit: usize) -> Result<usize, Error> {
        self.write(|db| {
            db.prepare_cached(
                "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE ended IS NOT NULL AND ended < ?1 \
                 AND NOT EXISTS (SELECT 1 FROM spool WHERE spool.session = session.id) ORDER BY ended LIMIT ?2)",
            )?
            .execute(params![before.0, limit as i64])
        })
    }

    /// Lets the file grow to so many octets at most, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit(&self, octets: i64) {
        let page = pragma(&self.db, "page_size").unwrap();
        self.db
            .pragma_update(None, "max_page_count", octets / i64::from(page))
            .unwrap();
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let written = self
            .db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .and_then(|db| {
                let done = work(&db)?;
                db.commit()?;
                Ok(done)
            });
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }
}

fn beside(path: &Path, extra: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extra);
    name.into()
}

#[cfg(test)]
pub(super) mod tests;
