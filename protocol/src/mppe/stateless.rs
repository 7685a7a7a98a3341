//! Receiving with keys that change before every packet.

use super::budget::Budget;
use super::cipher::Cipher;
use super::decryptor::{Refusal, lost};
use super::keys::{Changer, Link};
use super::{COUNTS, StartKey};

/// How far the chain was followed without knowing yet whether that was right.
pub(super) struct Ahead {
    /// At or after the decryptor's link; kept also when the guess was wrong, so that the work need not be done twice.
    pub(super) link: Link,
    /// Packets opened and not judged.
    pub(super) pending: u32,
    /// The last of them.
    pub(super) opened: Place,
    /// The GRE numbers leave no other place for it, or it continues `trial`.
    sure: bool,
    /// A place that was guessed, and at which a packet was plausible. Garbage is so now and then: it takes the next
    /// packet to settle there.
    trial: Option<Place>,
    /// How many guesses failed, modulo 4; see [`lost`].
    doubt: u8,
}

/// A packet's place: the key changes up to its key, and the decryptor's GRE numbers just after it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    changes: u64,
    pub(super) numbers: u64,
}

impl Ahead {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            pending: 0,
            opened: Place {
                changes: 0,
                numbers: 0,
            },
            sure: false,
            trial: None,
            doubt: 0,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the decryptor's own parts")]
    pub(super) fn open(
        &mut self,
        start: &StartKey,
        settled: &Link,
        budget: &mut Budget,
        count: u64,
        gap: u64,
        numbers: u64,
        changer: &mut impl Changer,
    ) -> Result<Cipher<'static>, Refusal> {
        // RFC 3078 §7.1: packet 0 uses the key after one change, so the next count is the number of changes so far.
        let tried = self.trial.and_then(|trial| {
            Some(trial.changes + lost(trial.changes, count, gap - trial.numbers, 0)? + 1)
        });
        let changes = match tried {
            Some(changes) => {
                self.sure = true;
                changes
            }
            None => {
                let lost = lost(settled.changes, count, gap, self.doubt).ok_or(Refusal::Late)?;
                self.trial = None;
                self.sure = lost <= gap && gap < COUNTS;
                settled.changes + lost + 1
            }
        };
        if self.link.changes > changes {
            self.link = settled.clone();
        }
        let needed = changes - self.link.changes;
        let affordable = budget.take(needed);
        self.link.advance(start, affordable, changer);
        if affordable < needed {
            return Err(Refusal::TooFarAhead);
        }
        self.pending += 1;
        self.opened = Place { changes, numbers };
        Ok(Cipher::Fresh(self.link.key.clone()))
    }

    /// Whether the last packet opened, with `link` at its key, is where to go on from for good.
    pub(super) fn judge(&mut self, plausible: bool) -> bool {
        if !plausible {
            self.doubt = if self.trial.take().is_some() {
                0
            } else {
                (self.doubt + 1) % 4
            };
            return false;
        }
        if self.link.changes != self.opened.changes {
            return false;
        }
        if !self.sure {
            self.trial = Some(self.opened);
            return false;
        }
        self.trial = None;
        self.doubt = 0;
        true
    }
}
