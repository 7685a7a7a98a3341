//! Receiving with tables that run on from packet to packet, and resets in either dialect.

use super::budget::Budget;
use super::cipher::{Cipher, Rc4State};
use super::decryptor::{Refusal, lost};
use super::keys::{Changer, Link, Reference};
use super::{Dialect, FLAG_INTERVAL, Likeness, StartKey};

/// Reset-Requests that may have changed the peer's key at once: nobody loses more flushed packets in a row than this and
/// has a usable path.
const MAX_REQUESTS: u64 = 32;

/// Tables that run on, and what they rest upon.
pub(super) struct Running {
    tables: Rc4State,
    /// Packets of this epoch up to the last one known to be right, lost ones included; modulo 4096 the count expected
    /// next.
    expected: u64,
    /// How far the chain was followed on behalf of flushed packets; at or after the decryptor's link.
    reach: Link,
    /// A place taken by a flushed packet that is only perhaps right: the next packet tells.
    trial: Option<Place>,
    /// What was opened and not judged.
    opened: Opened,
    /// Out of step: everything up to the next flushed packet is lost.
    waiting: bool,
    /// Reset-Requests sent since the last packet known to be right.
    requests: u64,
    /// What the last reset was seen to do.
    pub(super) dialect: Option<Dialect>,
    /// Flushed packets in a row for which no key was found, modulo 4; see [`lost`].
    doubt: u8,
}

struct Place {
    link: Link,
    expected: u64,
    /// The decryptor's GRE numbers just after the packet.
    numbers: u64,
    /// What this place says of the peer, if it is right.
    dialect: Option<Dialect>,
}

enum Opened {
    Nothing,
    /// The next one in line; GRE numbers just after it.
    Next {
        numbers: u64,
    },
    /// A flushed one for which a key was found.
    Flushed {
        place: Place,
        sure: bool,
    },
    /// A flushed one that no key fits.
    Lost,
}

/// What [`Running::judge`] found.
pub(super) enum Outcome {
    /// Nothing to go on from.
    Unsettled,
    /// The keys stay where they are, up to these GRE numbers.
    Continued(u64),
    /// The keys have moved here.
    Moved { link: Link, numbers: u64 },
}

impl Running {
    pub(super) fn new(link: &Link) -> Self {
        Self {
            tables: Rc4State::new(&link.key),
            expected: 0,
            reach: link.clone(),
            trial: None,
            opened: Opened::Nothing,
            waiting: false,
            requests: 0,
            dialect: None,
            doubt: 0,
        }
    }

    /// A Reset-Request has gone out.
    pub(super) fn requested(&mut self) {
        self.requests = (self.requests + 1).min(MAX_REQUESTS);
    }

    #[expect(clippy::too_many_arguments, reason = "the decryptor's own parts")]
    pub(super) fn open<'a>(
        &'a mut self,
        start: &'a StartKey,
        settled: &Link,
        budget: &mut Budget,
        count: u64,
        flushed: bool,
        gap: u64,
        numbers: u64,
        changer: &mut impl Changer,
    ) -> Result<Cipher<'a>, Refusal> {
        if !flushed {
            let (expected, gap) = match &self.trial {
                Some(trial) => (trial.expected, gap - trial.numbers),
                None => (self.expected, gap),
            };
            let flag = count % FLAG_INTERVAL == FLAG_INTERVAL - 1;
            let next = !flag
                && !self.waiting
                && lost(expected, count, gap, 0) == Some(0)
                && matches!(self.opened, Opened::Nothing);
            if !next {
                self.wait();
                return Err(Refusal::NeedReset);
            }
            self.opened = Opened::Next { numbers };
            return Ok(Cipher::Running(&mut self.tables));
        }
        // How many packets were lost is sure from GRE but for whole turns of the count, and whole turns are 16 key
        // changes: where the likeliest number fits no key, the others are tried.
        let lost = lost(self.expected, count, gap, self.doubt).ok_or(Refusal::Late)?;
        let index = self.expected + lost;
        // RFC 3078 §8.2: one change for each flag packet from the expected one to this.
        let least = (index + 1) / FLAG_INTERVAL - self.expected / FLAG_INTERVAL;
        let most = least + self.requests + 1;
        if !(settled.changes..=settled.changes + least).contains(&self.reach.changes) {
            self.reach = settled.clone();
        }
        let needed = settled.changes + least - self.reach.changes;
        let affordable = budget.take(needed);
        self.reach.advance(start, affordable, changer);
        // Every key that is tried costs as much as a change, too.
        if affordable < needed || !budget.take_all(2 * (most - least) + 1) {
            self.wait();
            return Err(Refusal::TooFarAhead);
        }
        Ok(Cipher::Searching(Search {
            running: self,
            start,
            settled: settled.changes,
            index,
            least,
            most,
            numbers,
        }))
    }

    pub(super) fn judge(&mut self, plausible: bool) -> Outcome {
        match core::mem::replace(&mut self.opened, Opened::Nothing) {
            Opened::Nothing => Outcome::Unsettled,
            Opened::Next { numbers } if plausible => match self.trial.take() {
                Some(mut trial) => {
                    trial.expected += 1;
                    trial.numbers = numbers;
                    self.settle(trial)
                }
                None => {
                    self.expected += 1;
                    self.requests = 0;
                    Outcome::Continued(numbers)
                }
            },
            Opened::Flushed { place, sure } if plausible => {
                self.waiting = false;
                self.doubt = 0;
                if sure {
                    return self.settle(place);
                }
                self.trial = Some(place);
                Outcome::Unsettled
            }
            Opened::Lost => {
                self.doubt = (self.doubt + 1) % 4;
                self.wait();
                Outcome::Unsettled
            }
            Opened::Next { .. } | Opened::Flushed { .. } => {
                self.wait();
                Outcome::Unsettled
            }
        }
    }

    fn settle(&mut self, place: Place) -> Outcome {
        self.trial = None;
        self.expected = place.expected;
        self.requests = 0;
        self.dialect = place.dialect.or(self.dialect);
        Outcome::Moved {
            link: place.link,
            numbers: place.numbers,
        }
    }

    fn wait(&mut self) {
        self.waiting = true;
        self.trial = None;
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }
}

/// The key of a flushed packet, to be found among several by what the packet decrypts to.
///
/// RFC 3078 §8.2 has the tables initialised with the current key; Linux changes the key on every flushed packet, on
/// lost ones too. Which it was only the plaintext tells.
pub struct Search<'a> {
    running: &'a mut Running,
    start: &'a StartKey,
    /// Key changes at the settled link.
    settled: u64,
    /// The packet's place in the epoch.
    index: u64,
    /// Key changes from there: in the RFC's dialect, and at most.
    least: u64,
    most: u64,
    numbers: u64,
}

impl Search<'_> {
    /// Decrypts in place with the key that fits best. When none does, the octets are not plausible afterwards.
    pub(super) fn apply(self, octets: &mut [u8]) {
        let mut link = self.running.reach.clone();
        // A flag packet changes the key in both dialects, once.
        let flag = self.index % FLAG_INTERVAL == FLAG_INTERVAL - 1;
        let likely = match self.running.dialect {
            Some(Dialect::Linux) if !flag => self.least + self.running.requests.max(1),
            Some(Dialect::Linux) => self.least + self.running.requests.saturating_sub(1),
            Some(Dialect::Rfc3078) | None => self.least,
        };
        let mut best: Option<(Likeness, Link)> = None;
        for changes in self.least..=self.most {
            if changes > self.least {
                link.advance(self.start, 1, &mut Reference);
            }
            let likeness = like(&link, octets);
            let better = match &best {
                None => likeness > Likeness::No,
                Some((known, _)) => {
                    likeness > *known
                        || (likeness == *known && link.changes == self.settled + likely)
                }
            };
            if better {
                best = Some((likeness, link.clone()));
            }
        }
        let Some((likeness, link)) = best else {
            self.running.opened = Opened::Lost;
            Rc4State::new(&link.key).apply(octets);
            return;
        };
        self.running.tables = Rc4State::new(&link.key);
        self.running.tables.apply(octets);
        let extra = link.changes - self.settled - self.least;
        let dialect = match extra {
            0 if flag => None,
            0 => Some(Dialect::Rfc3078),
            _ => Some(Dialect::Linux),
        };
        self.running.opened = Opened::Flushed {
            place: Place {
                link,
                expected: self.index + 1,
                numbers: self.numbers,
                dialect,
            },
            sure: likeness == Likeness::Sure,
        };
    }
}

/// What `octets` would be under this key. Their beginning says it.
fn like(link: &Link, octets: &[u8]) -> Likeness {
    let mut head = [0; Likeness::HEAD];
    let head = &mut head[..octets.len().min(Likeness::HEAD)];
    head.copy_from_slice(&octets[..head.len()]);
    Rc4State::new(&link.key).apply(head);
    Likeness::of(head, octets.len())
}
