//! The receiving half of a direction.

use super::budget::Budget;
use super::cipher::Cipher;
use super::keys::{Chain, Changer, Link, Reference, SessionKey};
use super::stateful::{Outcome, Running};
use super::stateless::Ahead;
use super::{COMPRESSION, COUNTS, Dialect, ENCRYPTED, FLUSHED, HEADER_LEN, Mode, StartKey};
use crate::Time;

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
/// and time earn. A gap too long for that is closed in several packets, which are lost.
pub struct Decryptor {
    start: StartKey,
    /// As of the last packet that was found plausible.
    link: Link,
    /// GRE numbers since then, whether packets came with them or not.
    numbers: u64,
    budget: Budget,
    state: State,
}

/// Stateful keys are rare and three times as large: they alone are allocated, when they start.
#[repr(u8)]
enum State {
    Stateless(Ahead),
    Stateful(Box<Running>),
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
    /// So many octets at the beginning are all that a packet with stateless keys touches.
    pub const PER_PACKET: usize =
        core::mem::offset_of!(Self, state) + 8 + core::mem::size_of::<Ahead>();

    /// At coherency count 0 with the first keys of `start`.
    pub fn new(start: &StartKey, mode: Mode) -> Self {
        let link = Link::first(start);
        let state = match mode {
            Mode::Stateless => State::Stateless(Ahead::new(link.clone())),
            Mode::Stateful => State::Stateful(Box::new(Running::new(&link))),
        };
        Self {
            start: start.clone(),
            link,
            numbers: 0,
            budget: Budget::new(),
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
        self.open_with(header, missing, &mut Reference)
    }

    /// [`open`](Self::open) with key changes by `changer`.
    pub fn open_with(
        &mut self,
        header: [u8; HEADER_LEN],
        missing: u32,
        changer: &mut impl Changer,
    ) -> Result<Cipher<'_>, Refusal> {
        let gap = self.numbers + u64::from(missing);
        self.numbers = gap + 1;
        self.budget.packet();
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
                ahead.open(
                    &self.start,
                    &self.link,
                    &mut self.budget,
                    count,
                    gap,
                    self.numbers,
                    changer,
                )
            }
            State::Stateful(running) => running.open(
                &self.start,
                &self.link,
                &mut self.budget,
                count,
                flushed,
                gap,
                self.numbers,
                changer,
            ),
        }
    }

    /// Opens a packet with stateless keys as [`open`](Self::open) does, but leaves its key changes to the caller: the key of
    /// [`chain`](Self::chain) has to be changed so many times, [`follow`](Self::follow) be told of each, and the last is the
    /// packet's. Several packets may be opened before any change is made, which are then made one packet after the other, and
    /// before anything else is asked of this.
    ///
    /// None, and nothing done, where it is not as simple as that (stateful keys, a packet that is refused or far away): once
    /// all changes due have been made, `open` knows what to do.
    pub fn open_later(&mut self, header: [u8; HEADER_LEN], missing: u32) -> Option<u32> {
        let State::Stateless(ahead) = &mut self.state else {
            return None;
        };
        if header[0] & (ENCRYPTED | COMPRESSION | FLUSHED) != ENCRYPTED | FLUSHED {
            return None;
        }
        let gap = self.numbers + u64::from(missing);
        let count = u64::from(u16::from_be_bytes([header[0] & 0x0f, header[1]]));
        let changes = ahead.open_later(&self.link, &mut self.budget, count, gap)?;
        self.numbers = gap + 1;
        Some(changes)
    }

    /// Where stateless keys are, for the changes that [`open_later`](Self::open_later) asks for. None with stateful keys.
    pub fn chain(&self) -> Option<Chain<'_>> {
        match &self.state {
            State::Stateless(ahead) => Some(Chain {
                start: &self.start,
                key: &ahead.link.key,
            }),
            State::Stateful(_) => None,
        }
    }

    /// The next key of the [`chain`](Self::chain).
    pub fn follow(&mut self, key: &SessionKey) {
        if let State::Stateless(ahead) = &mut self.state {
            ahead.link.key.clone_from(key);
        }
    }

    /// Time goes by, which earns key changes. Need not be called for every packet.
    pub fn pass(&mut self, now: Time) {
        self.budget.pass(now);
    }

    /// Key changes made so far, also those that turned out to be for nothing.
    pub fn changes_made(&self) -> u64 {
        self.budget.spent()
    }

    /// A CCP Reset-Request has gone out for this direction. A sender of the Linux dialect changes its key at each that it
    /// gets, so they are counted.
    pub fn requested(&mut self) {
        if let State::Stateful(running) = &mut self.state {
            running.requested();
        }
    }

    /// Stateful mode: whether it has lost its thread, and only a flushed packet helps.
    pub fn is_waiting(&self) -> bool {
        match &self.state {
            State::Stateless(_) => false,
            State::Stateful(running) => running.is_waiting(),
        }
    }

    /// What resets do to the peer's keys, once one has shown it. Stateful mode only.
    pub fn dialect(&self) -> Option<Dialect> {
        match &self.state {
            State::Stateless(_) => None,
            State::Stateful(running) => running.dialect,
        }
    }

    /// What an earlier epoch of the same call has shown.
    pub fn set_dialect(&mut self, dialect: Option<Dialect>) {
        if let State::Stateful(running) = &mut self.state {
            running.dialect = dialect;
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
            State::Stateful(running) => match running.judge(plausible) {
                Outcome::Unsettled => {}
                Outcome::Continued(numbers) => self.numbers -= numbers,
                Outcome::Moved { link, numbers } => {
                    self.link = link;
                    self.numbers -= numbers;
                }
            },
        }
    }
}

/// How many packets before the one with `count` were lost, when `expected` is the count after the last one and `gap` GRE
/// numbers lie between. None: it is a late one.
///
/// The count leaves a choice of numbers 4096 apart; `doubt` says how many guesses have failed.
pub(super) fn lost(expected: u64, count: u64, gap: u64, doubt: u8) -> Option<u64> {
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
