//! The receiving half of a direction.

use super::cipher::{Cipher, Rc4State};
use super::keys::Link;
use super::{COMPRESSION, COUNTS, ENCRYPTED, FLAG_INTERVAL, FLUSHED, HEADER_LEN, Mode, StartKey};

/// Key changes that one packet may cost at most: one turn of the coherency count, about 2 ms.
const CHANGES_PER_PACKET: u64 = COUNTS;
/// Key changes that each packet adds to the credit. A flood of forged packets thus costs no more than genuine ones do.
const CREDIT_PER_PACKET: u64 = 8;
/// Highest credit, and what a call starts with.
const CREDIT_MAX: u64 = 16 * COUNTS;
/// A count that seems this far ahead, without a gap in the GRE numbers to explain it, is a late packet.
const LATE: u64 = COUNTS / 2;

/// Keys and coherency count of the direction we receive in. Never printed.
///
/// Packets come in the order of their GRE numbers, each with the gap before it. The gap says how often the
/// coherency count went round, which the count itself, modulo 4096, cannot.
///
/// GRE is not authenticated, so anybody who can guess a call id can send packets that would run the keys forward.
/// Therefore nothing is final before [`judge`](Self::judge) was told that the plaintext made sense, a late packet never
/// moves anything, and the number of key changes is bounded: per packet, and over many packets by a credit that packets
/// earn. A gap too long for that is closed in several packets, which are lost.
pub struct Decryptor {
    start: StartKey,
    /// As of the last packet that was found plausible.
    link: Link,
    /// GRE numbers since then, whether packets came with them or not.
    numbers: u64,
    state: State,
}

#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation in a worker"
)]
enum State {
    Stateless(Ahead),
    Stateful(Running),
}

/// Stateless: how far the chain was followed without knowing yet whether that was right.
struct Ahead {
    /// At or after the decryptor's link; kept also when the guess was wrong, so that the work need not be done twice.
    link: Link,
    /// Packets opened and not judged.
    pending: u32,
    /// The last of them.
    opened: Place,
    /// The GRE numbers leave no other place for it, or it continues `trial`.
    sure: bool,
    /// A place that was guessed, and at which a packet was plausible. Garbage is so now and then: it takes the next
    /// packet to settle there.
    trial: Option<Place>,
    /// How many guesses failed, modulo 4; see [`lost`].
    doubt: u8,
    credit: u64,
}

/// A packet's place: the key changes up to its key, and [`Decryptor::numbers`] just after it.
#[derive(Clone, Copy)]
struct Place {
    changes: u64,
    numbers: u64,
}

/// Stateful: tables that run on.
struct Running {
    tables: Rc4State,
    /// Packets of this epoch up to the last plausible one, lost ones included; modulo 4096 the count expected next.
    expected: u64,
    /// The packet that was opened and not judged: link, expected count and numbers that its acceptance leads to.
    opened: Option<(Link, u64, u64)>,
    /// Out of step: everything up to the next flushed packet is lost.
    waiting: bool,
}

/// Why a packet cannot be decrypted. Each is a reason to count the packet and drop it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// Bit D is clear.
    #[error("MPPE packet is not encrypted")]
    NotEncrypted,
    /// Bit B or C is set, without MPPC.
    #[error("MPPE packet is compressed")]
    Compressed,
    /// Bit A is clear where the mode demands it.
    #[error("MPPE packet lacks the flushed bit")]
    NotFlushed,
    /// The count belongs to a packet before the last one.
    #[error("MPPE packet is late")]
    Late,
    /// More key changes away than may be made for one packet. Those made are kept: the next packets get there.
    #[error("MPPE packet is too far ahead")]
    TooFarAhead,
    /// Stateful mode lost its thread: send a CCP Reset-Request (at most one a second).
    #[error("MPPE packet needs a reset")]
    NeedReset,
}

impl Decryptor {
    /// At coherency count 0 with the first keys of `start`.
    pub fn new(start: &StartKey, mode: Mode) -> Self {
        let link = Link::first(start);
        let state = match mode {
            Mode::Stateless => State::Stateless(Ahead {
                link: link.clone(),
                pending: 0,
                opened: Place {
                    changes: 0,
                    numbers: 0,
                },
                sure: false,
                trial: None,
                doubt: 0,
                credit: CREDIT_MAX,
            }),
            Mode::Stateful => State::Stateful(Running {
                tables: Rc4State::new(&link.key),
                expected: 0,
                opened: None,
                waiting: false,
            }),
        };
        Self {
            start: start.clone(),
            link,
            numbers: 0,
            state,
        }
    }

    /// The cipher for the packet with this header.
    ///
    /// `missing` is how many GRE numbers before this packet's never came, counted from the last MPPE packet that was
    /// given to `open` (whatever became of it); numbers under which control frames came are not among them.
    ///
    /// Each success must be followed by [`judge`](Self::judge). With stateless keys several packets may be opened first
    /// and judged afterwards, in the same order.
    pub fn open(&mut self, header: [u8; HEADER_LEN], missing: u32) -> Result<Cipher<'_>, Refusal> {
        let gap = self.numbers + u64::from(missing);
        self.numbers = gap + 1;
        if header[0] & ENCRYPTED == 0 {
            return Err(Refusal::NotEncrypted);
        }
        if header[0] & COMPRESSION != 0 {
            return Err(Refusal::Compressed);
        }
        let flushed = header[0] & FLUSHED != 0;
        let count = u64::from(u16::from_be_bytes([header[0] & 0x0f, header[1]]));
        match &mut self.state {
            State::Stateless(ahead) => {
                if !flushed {
                    return Err(Refusal::NotFlushed);
                }
                ahead.open(&self.start, &self.link, count, gap, self.numbers)
            }
            State::Stateful(running) => {
                running.open(&self.start, &self.link, count, flushed, gap, self.numbers)
            }
        }
    }

    /// Says of the oldest packet not judged yet whether its plaintext made sense ([`plausible`](super::plausible)).
    pub fn judge(&mut self, plausible: bool) {
        match &mut self.state {
            State::Stateless(ahead) => {
                let Some(pending) = ahead.pending.checked_sub(1) else {
                    return;
                };
                ahead.pending = pending;
                if pending > 0 {
                    // The last of a batch decides; if it fails, the gap to the next plausible packet is just longer.
                    return;
                }
                if ahead.judge(plausible) {
                    self.link = ahead.link.clone();
                    self.numbers -= ahead.opened.numbers;
                }
            }
            State::Stateful(running) => {
                let Some((link, expected, numbers)) = running.opened.take() else {
                    return;
                };
                if plausible {
                    self.link = link;
                    self.numbers -= numbers;
                    running.expected = expected;
                } else {
                    running.waiting = true;
                }
            }
        }
    }
}

/// How many packets before the one with `count` were lost, when `expected` is the count after the last one and `gap` GRE
/// numbers lie between. None: it is a late one.
///
/// The count leaves a choice of numbers 4096 apart; `doubt` says how many guesses have failed.
fn lost(expected: u64, count: u64, gap: u64, doubt: u8) -> Option<u64> {
    let least = (count + COUNTS - expected % COUNTS) % COUNTS;
    // Not all that is missing need have been MPPE packets: the largest number that the gap allows.
    let within = gap
        .checked_sub(least)
        .map(|more| least + more / COUNTS * COUNTS);
    // A sender may also lose packets between MPPE and GRE: the smallest number beyond the gap.
    let beyond = within.map_or(least, |within| within + COUNTS);
    let near = (beyond - gap < LATE).then_some(beyond);
    match doubt {
        0 => within.or(near),
        1 => near.or(within),
        2 => within.map(|_| least).or(near),
        _ => within.map(|_| beyond).or(near),
    }
}

impl Ahead {
    fn open(
        &mut self,
        start: &StartKey,
        settled: &Link,
        count: u64,
        gap: u64,
        numbers: u64,
    ) -> Result<Cipher<'static>, Refusal> {
        self.credit = (self.credit + CREDIT_PER_PACKET).min(CREDIT_MAX);
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
        let affordable = needed.min(self.credit).min(CHANGES_PER_PACKET);
        self.link.advance(start, affordable);
        self.credit -= affordable;
        if affordable < needed {
            return Err(Refusal::TooFarAhead);
        }
        self.pending += 1;
        self.opened = Place { changes, numbers };
        Ok(Cipher::Fresh(self.link.key.clone()))
    }

    /// Whether the last packet opened, with `link` at its key, is where to go on from for good.
    fn judge(&mut self, plausible: bool) -> bool {
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

impl Running {
    fn open(
        &mut self,
        start: &StartKey,
        settled: &Link,
        count: u64,
        flushed: bool,
        gap: u64,
        numbers: u64,
    ) -> Result<Cipher<'_>, Refusal> {
        let lost = lost(self.expected, count, gap, 0);
        let flag = count % FLAG_INTERVAL == FLAG_INTERVAL - 1;
        if !flushed {
            if flag || self.waiting || lost != Some(0) || self.opened.is_some() {
                self.waiting = true;
                return Err(Refusal::NeedReset);
            }
            self.opened = Some((settled.clone(), self.expected + 1, numbers));
            return Ok(Cipher::Running(&mut self.tables));
        }
        let index = self.expected + lost.ok_or(Refusal::Late)?;
        // RFC 3078 §8.2: one change for each flag packet from the expected one to this.
        let changes = (index + 1) / FLAG_INTERVAL - self.expected / FLAG_INTERVAL;
        if changes > CHANGES_PER_PACKET {
            return Err(Refusal::TooFarAhead);
        }
        let mut link = settled.clone();
        link.advance(start, changes);
        self.tables = Rc4State::new(&link.key);
        self.waiting = false;
        self.opened = Some((link, index + 1, numbers));
        Ok(Cipher::Running(&mut self.tables))
    }
}
