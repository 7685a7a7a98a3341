//! The thread that writes to the ledger.
//!
//! Whoever has something to write down puts it into a bounded queue and may wait for the [`Receipt`], which comes when it is
//! on the disk. While one commit runs the next entries gather, and go together: the more there is to write, the more goes
//! into each. When the disk does not take it, everything waits here, in order, and is tried again; calls go on.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};
use tracing::{error, info, warn};

use super::ledger::{Error, Ledger};
use super::record::{Entry, Moment, Record};

/// Entries that may wait to be written. A tenth is kept for sessions' beginnings and ends: of readings the next says
/// the same and more.
const QUEUE: usize = 1 << 16;
const READINGS: usize = QUEUE / 10 * 9;

/// Entries in one commit.
const COMMIT: usize = 1024;

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often old sessions are looked for, and how many are forgotten at once, so that nobody waits long for them.
const TIDY: Duration = Duration::from_secs(60);
const FORGET: usize = 500;

/// Comes when something is on the disk; an error when it never will be.
pub type Receipt = oneshot::Receiver<()>;

/// Whether the ledger takes what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Good,
    /// It has not since then.
    Failing(Instant),
}

enum Job {
    Enter(Entry, oneshot::Sender<()>),
    Waiting {
        after: i64,
        limit: usize,
        reply: oneshot::Sender<Vec<Record>>,
    },
    Backlog(oneshot::Sender<u64>),
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closing: bool,
    /// Entries that there was no room for.
    lost: u64,
}

#[derive(Default)]
struct Desk {
    queue: Mutex<Queue>,
    bell: Condvar,
    /// Something was written that may have to be delivered.
    written: Notify,
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // It is whole between any two statements.
        self.queue
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The way to the thread.
pub struct Clerk {
    desk: Arc<Desk>,
    health: watch::Receiver<Health>,
    thread: Mutex<Option<JoinHandle<Ledger>>>,
}

impl Clerk {
    /// Starts the thread. Sessions are kept for `retention` after their end; `None`: for ever.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(ledger: Ledger, retention: Option<Duration>) -> std::io::Result<Self> {
        let desk = Arc::<Desk>::default();
        let (told, health) = watch::channel(Health::Good);
        let writer = Writer {
            ledger,
            retention,
            desk: desk.clone(),
            health: told,
            tidy_at: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("accounting".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            desk,
            health,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has something written down after everything before it.
    pub fn enter(&self, entry: Entry) -> Receipt {
        let (done, receipt) = oneshot::channel();
        let mut queue = self.desk.queue();
        let room = match &entry {
            Entry::Reading { .. } => READINGS,
            _ => QUEUE,
        };
        if queue.closing || queue.jobs.len() >= room {
            // Readings are cumulative: a later one makes up for it.
            if !matches!(entry, Entry::Reading { .. }) {
                queue.lost += 1;
                if queue.lost == 1 {
                    error!(
                        "accounting loses records: {QUEUE} wait in memory to be written, and there is no room for more"
                    );
                }
            }
            return receipt;
        }
        queue.jobs.push_back(Job::Enter(entry, done));
        drop(queue);
        self.desk.bell.notify_one();
        receipt
    }

    /// Records that wait to be delivered, those after the number `after`; `None` when the file cannot be read.
    pub async fn waiting(&self, after: i64, limit: usize) -> Option<Vec<Record>> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Waiting {
            after,
            limit,
            reply,
        });
        answer.await.ok()
    }

    /// How many records wait to be delivered.
    pub async fn backlog(&self) -> Option<u64> {
        let (reply, answer) = oneshot::channel();
        self.ask(Job::Backlog(reply));
        answer.await.ok()
    }

    /// Waits until something was written since the last time. For one to wait.
    pub async fn written(&self) {
        self.desk.written.notified().await;
    }

    /// Whether the ledger takes what it is given.
    pub fn health(&self) -> Health {
        *self.health.borrow()
    }

    /// Entries that there was no room for.
    pub fn lost(&self) -> u64 {
        self.desk.queue().lost
    }

    /// Writes down what waits, and ends. What the disk does not take now is lost, and the log says so.
    pub fn close(&self) -> Option<Ledger> {
        self.desk.queue().closing = true;
        self.desk.bell.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        thread.and_then(|thread| thread.join().ok())
    }

    fn ask(&self, job: Job) {
        let mut queue = self.desk.queue();
        if !queue.closing {
            queue.jobs.push_back(job);
        }
        drop(queue);
        self.desk.bell.notify_one();
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        drop(self.close());
    }
}

struct Writer {
    ledger: Ledger,
    retention: Option<Duration>,
    desk: Arc<Desk>,
    health: watch::Sender<Health>,
    /// When old sessions are looked for next.
    tidy_at: Instant,
}

impl Writer {
    fn run(mut self) -> Ledger {
        loop {
            let Some(jobs) = self.next() else {
                return self.ledger;
            };
            if !self.write(jobs) {
                return self.ledger;
            }
            self.tidy();
        }
    }

    /// What waits, up to a commit; empty when it is time to look for old sessions, `None` at the end.
    fn next(&mut self) -> Option<Vec<Job>> {
        let mut queue = self.desk.queue();
        loop {
            if !queue.jobs.is_empty() {
                let count = queue.jobs.len().min(COMMIT);
                return Some(queue.jobs.drain(..count).collect());
            }
            if queue.closing {
                return None;
            }
            let patience = self.tidy_at.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Some(Vec::new());
            }
            queue = self
                .desk
                .bell
                .wait_timeout(queue, patience)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue);
        }
    }

    /// Does these jobs, however long it takes. False when the end came first.
    fn write(&mut self, jobs: Vec<Job>) -> bool {
        let (mut entries, mut receipts, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Enter(entry, receipt) => {
                    entries.push(entry);
                    receipts.push(receipt);
                }
                question => questions.push(question),
            }
        }
        while !entries.is_empty() {
            match self.ledger.enter(&entries, Moment::now()) {
                Ok(()) => break,
                Err(error) => {
                    if !self.failed(&error, entries.len()) {
                        return false;
                    }
                }
            }
        }
        if !entries.is_empty() && *self.health.borrow() != Health::Good {
            self.health.send_replace(Health::Good);
            info!("accounting writes again");
        }
        if entries
            .iter()
            .any(|entry| !matches!(entry, Entry::Delivered { .. }))
        {
            self.desk.written.notify_one();
        }
        for receipt in receipts {
            // Most do not wait for it.
            let _ = receipt.send(());
        }
        // After the entries before them, so that whoever asks sees what it was told is written.
        for question in questions {
            match question {
                Job::Waiting {
                    after,
                    limit,
                    reply,
                } => match self.ledger.waiting(after, limit) {
                    Ok(records) => drop(reply.send(records)),
                    Err(error) => warn!("accounting records cannot be read: {error}"),
                },
                Job::Backlog(reply) => match self.ledger.backlog() {
                    Ok(count) => drop(reply.send(count)),
                    Err(error) => warn!("accounting records cannot be read: {error}"),
                },
                Job::Enter(..) => {}
            }
        }
        true
    }

    /// Waits until it is worth another try; false when there will be none.
    fn failed(&mut self, error: &Error, entries: usize) -> bool {
        if *self.health.borrow() == Health::Good {
            self.health.send_replace(Health::Failing(Instant::now()));
            let remedy = match error.is_corrupt() {
                true => {
                    "the file is broken: the next start of the server puts it aside and makes another"
                }
                false => "they are written as soon as that is mended: is the disk full?",
            };
            error!(
                "accounting cannot write: {error}; calls go on, and records wait in memory ({remedy})"
            );
        }
        let queue = self.desk.queue();
        if queue.closing {
            let lost = entries + queue.jobs.len();
            error!("accounting loses {lost} records at the end of the server: {error}");
            return false;
        }
        // Rung for every entry; that is no reason to hurry.
        let until = Instant::now() + RETRY;
        let mut queue = queue;
        while !queue.closing && Instant::now() < until {
            let patience = until.saturating_duration_since(Instant::now());
            queue = self
                .desk
                .bell
                .wait_timeout(queue, patience)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(queue, _)| queue);
        }
        true
    }

    /// Forgets some old sessions, now and then; the rest in a moment.
    fn tidy(&mut self) {
        if Instant::now() < self.tidy_at {
            return;
        }
        let forgotten = match self.retention {
            Some(retention) => {
                let age = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
                let before = Moment(Moment::now().0.saturating_sub(age));
                self.ledger.forget(before, FORGET)
            }
            None => Ok(0),
        };
        match forgotten {
            Ok(FORGET) => return,
            Ok(_) => {}
            Err(error) => warn!("old sessions cannot be forgotten: {error}"),
        }
        self.tidy_at = Instant::now() + TIDY;
    }
}

#[cfg(test)]
mod tests;
