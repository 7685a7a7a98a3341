//! Receiving with keys that change before every packet.

use super::budget::Budget;
use super::cipher::Cipher;
use super::decryptor::{Refusal, lost};
use super::keys::{Changer, Link};
use super::{COUNTS, StartKey};

/// Key changes that the caller makes for a packet at most. A packet earns as many, so they are always there to be spent.
const MOST_LATER: u64 = super::budget::EARNED_BY_PACKET;

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

/// Where the key of a packet is thought to be.
struct Guess {
    /// Key changes up to there.
    changes: u64,
    /// As in [`Ahead`].
    sure: bool,
    /// It continues the trial.
    tried: bool,
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

    /// Where the key of a packet is. None: it is late.
    fn guess(&self, settled: &Link, count: u64, gap: u64) -> Option<Guess> {
        // RFC 3078 §7.1: packet 0 uses the key after one change, so the next count is the number of changes so far.
        let tried = self.trial.and_then(|trial| {
            Some(trial.changes + lost(trial.changes, count, gap - trial.numbers, 0)? + 1)
        });
        if let Some(changes) = tried {
            return Some(Guess {
                changes,
                sure: true,
                tried: true,
            });
        }
        let lost = lost(settled.changes, count, gap, self.doubt)?;
        Some(Guess {
            changes: settled.changes + lost + 1,
            sure: lost <= gap && gap < COUNTS,
            tried: false,
        })
    }

    /// A packet is to be opened where it was guessed to be.
    fn go(&mut self, guess: &Guess) {
        if !guess.tried {
            self.trial = None;
        }
        self.sure = guess.sure;
    }

    /// How many key changes lead to the key of a packet. They are counted as made. None, and nothing done, where these are
    /// none or many, or the way does not lead on from the packet before.
    pub(super) fn open_later(
        &mut self,
        settled: &Link,
        budget: &mut Budget,
        count: u64,
        gap: u64,
    ) -> Option<u32> {
        let guess = self.guess(settled, count, gap)?;
        let needed = guess.changes.checked_sub(self.link.changes)?;
        if !(1..=MOST_LATER).contains(&needed) {
            return None;
        }
        self.go(&guess);
        budget.packet();
        let taken = budget.take(needed);
        debug_assert_eq!(taken, needed, "a packet has just earned as many");
        self.link.changes = guess.changes;
        self.pending += 1;
        self.opened = Place {
            changes: guess.changes,
            numbers: gap + 1,
        };
        // It is small.
        Some(needed as u32)
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
        let guess = self.guess(settled, count, gap).ok_or(Refusal::Late)?;
        self.go(&guess);
        let changes = guess.changes;
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
