//! Which record is delivered next: to one place, without I/O.
//!
//! Many records are on their way at once, but of one session never two, and the next only when the one before has arrived.
//! That the server started or stopped ([`Kind::On`], [`Kind::Off`]) is told when everything before has arrived, and before
//! anything after: whoever hears it takes the sessions of before for over. When nothing arrives, one record at a time is
//! tried, less and less often; when one arrives again, more and more go together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use turnpike_protocol::Time;

use super::record::{Kind, Record};

/// Records that are held in memory; all others wait on the disk.
pub const HELD: usize = 512;

/// Records on their way at once, at most.
const TOGETHER: usize = 64;

/// How long after a failure the next is tried, from the first to the longest.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// A record that failed so often while others arrived is tried at its own pace, and nobody waits for it but its session.
const STUBBORN: u32 = 3;

/// A record that failed so often lets others go first every other time, starts and stops of the server among them: there are
/// servers that do not answer to all kinds.
const IGNORED: u32 = 10;

struct Held {
    record: Arc<Record>,
    flying: bool,
    tries: u32,
    /// Tries that failed while others arrived.
    ignored: u32,
    /// Whether another goes first the next time.
    yields: bool,
    /// What had arrived when it was tried last.
    before: u64,
    rest_until: Time,
}

impl Held {
    fn is_stubborn(&self) -> bool {
        self.ignored >= STUBBORN
    }
}

/// Records that are to be delivered to one place.
pub struct Courier {
    held: BTreeMap<i64, Held>,
    /// The last record that was taken in.
    last: i64,
    flying: usize,
    /// Records that have arrived.
    arrived: u64,
    together: usize,
    /// Tries that failed since something arrived.
    failures: u32,
    rest_until: Time,
}

impl Default for Courier {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            last: 0,
            flying: 0,
            arrived: 0,
            together: TOGETHER,
            failures: 0,
            rest_until: Time::ZERO,
        }
    }
}

impl Courier {
    /// Which records to take in: those after this number, and how many; `None` when there is no room.
    pub fn wants(&self) -> Option<(i64, usize)> {
        let room = HELD - self.held.len().min(HELD);
        // Not one by one.
        (room >= HELD / 4).then_some((self.last, room))
    }

    /// Takes records in, in their order.
    pub fn take(&mut self, records: Vec<Record>) {
        for record in records {
            self.last = self.last.max(record.number);
            let held = Held {
                record: Arc::new(record),
                flying: false,
                tries: 0,
                ignored: 0,
                yields: false,
                before: 0,
                rest_until: Time::ZERO,
            };
            self.held.insert(held.record.number, held);
        }
    }

    /// The next record to send, if one may be sent now. Its fate is told by [`Self::landed`].
    pub fn next(&mut self, now: Time) -> Option<Arc<Record>> {
        if self.flying >= self.together || (self.failures > 0 && now < self.rest_until) {
            return None;
        }
        let mut before = HashSet::new();
        let mut first = true;
        let mut yielding = None;
        for held in self.held.values() {
            let barrier = matches!(held.record.kind, Kind::On | Kind::Off);
            let turn = match held.record.session_id() {
                Some(id) => before.insert(id),
                None => first,
            };
            if turn && !held.flying && held.rest_until <= now {
                if !held.yields || yielding.is_some() {
                    let record = held.record.clone();
                    return Some(self.send(record, yielding));
                }
                yielding = Some(held.record.number);
            }
            if barrier && !held.yields && !held.is_stubborn() {
                break;
            }
            first &= held.tries >= IGNORED || held.is_stubborn();
        }
        // There is nobody to yield to.
        let record = self.held.get(&yielding?)?.record.clone();
        Some(self.send(record, yielding))
    }

    fn send(&mut self, record: Arc<Record>, yielding: Option<i64>) -> Arc<Record> {
        if let Some(held) = yielding.and_then(|number| self.held.get_mut(&number)) {
            held.yields = false;
        }
        if let Some(held) = self.held.get_mut(&record.number) {
            held.flying = true;
            held.before = self.arrived;
            self.flying += 1;
        }
        record
    }

    /// A record has arrived, or has not.
    pub fn landed(&mut self, number: i64, arrived: bool, now: Time) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        self.flying -= usize::from(std::mem::take(&mut held.flying));
        if arrived {
            self.held.remove(&number);
            self.arrived += 1;
            self.together = (self.together * 2).min(TOGETHER);
            if std::mem::take(&mut self.failures) > 0 {
                // Nothing was wrong with those that were tried meanwhile.
                for held in self.held.values_mut().filter(|held| !held.is_stubborn()) {
                    held.rest_until = now;
                }
            }
            return;
        }
        held.tries = held.tries.saturating_add(1);
        held.yields = held.tries >= IGNORED && held.tries % 2 == 0;
        held.ignored += u32::from(held.before < self.arrived);
        held.rest_until = now + rest(held.tries);
        self.together = 1;
        // Those that went together are one try.
        if self.failures == 0 || now >= self.rest_until {
            self.failures = self.failures.saturating_add(1);
            self.rest_until = now + rest(self.failures);
        }
    }

    /// When [`Self::next`] may have something that it has not now.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        let resting = self.held.values().filter(|held| !held.flying);
        let first = resting.map(|held| held.rest_until).min()?;
        let first = match self.failures {
            0 => first,
            _ => first.max(self.rest_until),
        };
        (first > now).then_some(first)
    }

    /// Tries that failed since something arrived.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn rest(failures: u32) -> Duration {
    let doubled = FIRST_REST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_REST)
}

#[cfg(test)]
mod tests;
