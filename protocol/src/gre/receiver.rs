//! The receiving half: which packets are delivered, and when they are acknowledged.

use core::time::Duration;

use crate::gre::Seq;
use crate::time::Time;

/// What a data packet is, judged by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// The first one of the call, whatever its number: peers begin at 0, at 1 or anywhere. Deliver.
    First,
    /// The one after the last. Deliver.
    InOrder,
    /// Numbers in between have not come. Deliver; those between are late from now on.
    Ahead {
        /// How many have not come: 1 to 2³¹ - 2; many more than 2¹⁴ only when two packets in a row say so.
        missing: u32,
    },
    /// Came before. Discard.
    Duplicate,
    /// Behind the last, and too late: discard (RFC 2637 §4.3: never out of order).
    Late,
    /// Numbers before it have not come, but may: keep it until [`Receiver::release`] names it, and deliver what that
    /// names now.
    Held,
    /// What held packets wait for. Deliver, then what [`Receiver::release`] names.
    Awaited {
        /// How many before it were given up.
        missing: u32,
    },
    /// There is no room for it in front of what is held. Numbers have been given up for it: deliver what
    /// [`Receiver::release`] names, and judge this one again. At most once for a packet.
    Beyond,
}

impl Arrival {
    /// Whether the packet goes on to PPP at once.
    #[inline]
    pub const fn is_delivered(self) -> bool {
        match self {
            Self::First | Self::InOrder | Self::Ahead { .. } | Self::Awaited { .. } => true,
            Self::Duplicate | Self::Late | Self::Held | Self::Beyond => false,
        }
    }
}

/// When acknowledgements that no data packet carries are sent on their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckSettings {
    /// How long a received packet waits for a data packet that can carry its acknowledgement: 131 ms at most, in steps
    /// of 2 us.
    pub delay: Duration,
    /// How long the last one waits where [`AckSettings::SEVERAL`] are unacknowledged; the same steps.
    pub pause: Duration,
    /// So many unacknowledged packets don't wait.
    pub packets: u16,
}

impl AckSettings {
    /// With so many unacknowledged, a peer that pauses may have made its window so small, and wait to hear of them.
    pub const SEVERAL: u16 = 8;

    /// The same for a call for which we announced a receive window of so many packets.
    ///
    /// RFC 2637 §4.4: a sender begins with half of the window, so half of it does not wait; two packets at least, as
    /// each acknowledgement costs as much as a packet.
    #[must_use]
    pub fn within(self, window: u16) -> Self {
        let half = (window / 2).max(2).min(window.max(1));
        Self {
            packets: self.packets.min(half),
            ..self
        }
    }
}

impl Default for AckSettings {
    /// 50 ms, a pause of 4 ms or 32 packets: sooner than every known client's window or timeout needs.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(50),
            pause: Duration::from_millis(4),
            packets: 32,
        }
    }
}

/// A delay in steps of 2 us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Delay(u16);

impl Delay {
    const STEP: u64 = 2_000;

    const fn new(delay: Duration) -> Self {
        let steps = delay.as_nanos() / Self::STEP as u128;
        Self(if steps > u16::MAX as u128 {
            u16::MAX
        } else {
            steps as u16
        })
    }

    #[inline]
    fn after(self, time: Time) -> Time {
        time + Duration::from_nanos(u64::from(self.0) * Self::STEP)
    }
}

/// A number further than this from the last one is believed only when the next one follows it. Anybody can forge one
/// packet; believed at once, it would make every genuine one late for good.
pub const MAX_JUMP: u32 = 1 << 14;

/// The most packets that a call may hold: as many as [`Receiver`] remembers.
pub const MAX_HELD: u8 = 64;

/// A packet that was held and is to be delivered now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Released {
    /// Its number.
    pub seq: Seq,
    /// How many numbers before it were given up: they are late from now on.
    pub missing: u32,
}

/// State of the receiving half. Plain data.
///
/// RFC 2637 §4.3 forbids delivery out of order. Without a queue, what comes out of order is discarded. With one
/// ([`Receiver::with_queue`]), a packet that is ahead of a gap is held: the receiver says which number to keep, and
/// [`Receiver::release`] which one to deliver. The packets themselves, and how long they have been waiting, are the
/// caller's ([`Held`](crate::gre::Held)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    /// [`AckSettings`]. All small: a call's receiver and sender fill one cache line.
    delay: Delay,
    pause: Delay,
    packets: u16,
    /// Packets received since the last acknowledgement went out.
    unacked: u16,
    /// When the first of them came.
    since: Time,
    /// And how much later the last, in nanoseconds.
    last_after: u32,
    /// The highest number received.
    last: Option<Seq>,
    /// A packet came with a number far from the last: the one after it, which would prove it.
    doubtful: Option<Seq>,
    /// Bit n: the number n + 1 before `last` has come.
    came: u64,
    /// How many packets may be held.
    queue: u8,
    /// Numbers after the last one delivered or given up, up to `last`: 0 when nothing is held, else `last` is, and the
    /// first of them has not come.
    span: u8,
    /// The first so many of these are no longer waited for.
    hopeless: u8,
    /// Given up since the last delivery.
    lost: u8,
}

impl Receiver {
    /// Nothing received yet; nothing will be held.
    pub const fn new(settings: AckSettings) -> Self {
        Self {
            delay: Delay::new(settings.delay),
            pause: Delay::new(settings.pause),
            packets: if settings.packets == 0 {
                1
            } else {
                settings.packets
            },
            unacked: 0,
            since: Time::ZERO,
            last_after: 0,
            last: None,
            doubtful: None,
            came: 0,
            queue: 0,
            span: 0,
            hopeless: 0,
            lost: 0,
        }
    }

    /// The same with a queue for this many packets, [`MAX_HELD`] at most: a packet comes in time when no more than so
    /// many have overtaken it.
    #[must_use]
    pub const fn with_queue(mut self, packets: u8) -> Self {
        self.queue = if packets > MAX_HELD {
            MAX_HELD
        } else {
            packets
        };
        self
    }

    /// Judges the number of a data packet and moves on when it is to be delivered or held.
    #[inline]
    pub fn accept(&mut self, seq: Seq) -> Arrival {
        match self.last {
            Some(last) if self.span == 0 && seq == last.next() => {
                self.doubtful = None;
                self.came = self.came << 1 | 1;
                self.last = Some(seq);
                Arrival::InOrder
            }
            Some(last) => self.out_of_order(seq, last),
            None => {
                self.last = Some(seq);
                Arrival::First
            }
        }
    }

    fn out_of_order(&mut self, seq: Seq, last: Seq) -> Arrival {
        let distance = seq.distance(last);
        if distance.unsigned_abs() > MAX_JUMP {
            if self.doubtful != Some(seq) {
                self.doubtful = Some(seq.next());
                return Arrival::Late;
            }
            if self.span > 0 {
                // Still doubtful: it is judged again.
                self.hopeless = self.span;
                return Arrival::Beyond;
            }
            if distance < 0 {
                // The peer's numbers are somewhere else altogether.
                self.doubtful = None;
                self.last = Some(seq);
                self.came = 0;
                return Arrival::First;
            }
        }
        self.doubtful = None;
        if distance > 0 {
            return self.ahead(seq, distance.unsigned_abs());
        }
        let behind = distance.unsigned_abs();
        if behind == 0 {
            return Arrival::Duplicate;
        }
        let Some(bit) = 1u64.checked_shl(behind - 1) else {
            // Too far back to know whether it came.
            return Arrival::Late;
        };
        if self.came & bit != 0 {
            return Arrival::Duplicate;
        }
        // A second copy of a late packet is a duplicate.
        self.came |= bit;
        let span = u32::from(self.span);
        if behind + 1 == span {
            self.span -= 1;
            Arrival::Awaited {
                missing: u32::from(core::mem::take(&mut self.lost)),
            }
        } else if behind < span {
            Arrival::Held
        } else {
            Arrival::Late
        }
    }

    fn ahead(&mut self, seq: Seq, ahead: u32) -> Arrival {
        // The first number that is waited for is 1.
        let place = u32::from(self.span) + ahead;
        let room = u32::from(self.queue) + 1;
        if place > room && self.span > 0 {
            self.hopeless = self.span.min(u8::try_from(place - room).unwrap_or(u8::MAX));
            return Arrival::Beyond;
        }
        self.came = match ahead {
            1..64 => (self.came << ahead) | 1 << (ahead - 1),
            64 => 1 << 63,
            _ => 0,
        };
        self.last = Some(seq);
        match (place, u8::try_from(place)) {
            (1, _) => Arrival::InOrder,
            (_, Ok(span)) if place <= room => {
                self.span = span;
                Arrival::Held
            }
            // Further ahead than the queue is long, and nothing is held: that is an outage, not another order.
            _ => Arrival::Ahead { missing: ahead - 1 },
        }
    }

    /// The next held packet that is to be delivered now. To be asked until there is none whenever
    /// [`Receiver::accept`] or [`Receiver::give_up`] has changed what is held.
    pub fn release(&mut self) -> Option<Released> {
        let last = self.last?;
        // Of the numbers after the last one delivered, in the highest bits, lowest number first; `last` has no bit.
        let others = u32::from(self.span).checked_sub(1)?;
        let held = self.came.checked_shl(64 - others).unwrap_or(0);
        let missing = held.leading_zeros().min(others);
        if missing > u32::from(self.hopeless) {
            self.span -= self.hopeless;
            self.lost += core::mem::take(&mut self.hopeless);
            return None;
        }
        // `missing` is below 65, as `span` is.
        let gone = (missing + 1) as u8;
        self.span -= gone;
        self.hopeless = self.hopeless.saturating_sub(gone);
        Some(Released {
            seq: Seq(last.0.wrapping_sub(self.span.into())),
            missing: missing + u32::from(core::mem::take(&mut self.lost)),
        })
    }

    /// No longer waits for numbers up to `through`; held packets up to there are released.
    pub fn give_up(&mut self, through: Seq) {
        if let Some(last) = self.last {
            let through = through.distance(last).saturating_add(self.span.into());
            let through = u8::try_from(through.max(0)).unwrap_or(u8::MAX);
            self.hopeless = self.hopeless.max(through.min(self.span));
        }
    }

    /// Whether packets are held.
    #[inline]
    pub const fn is_holding(&self) -> bool {
        self.span > 0
    }

    /// The highest number received; it is also what acknowledgements name (RFC 2637 §4.2), delivered or held.
    #[inline]
    pub const fn last(&self) -> Option<Seq> {
        self.last
    }

    /// Notes that a data packet was accepted at `now`, delivered or held, so that it gets acknowledged. Returns
    /// [`ack_due`](Self::ack_due) where that may have become sooner.
    #[inline]
    pub fn note_received(&mut self, now: Time) -> Option<Time> {
        self.unacked = self.unacked.saturating_add(1);
        if self.unacked == 1 {
            self.since = now;
        }
        self.last_after = u32::try_from(now.since(self.since).as_nanos()).unwrap_or(u32::MAX);
        if [1, AckSettings::SEVERAL, self.packets].contains(&self.unacked) {
            self.ack_due()
        } else {
            None
        }
    }

    /// Takes the acknowledgement that is owed, to be sent with a data packet or on its own.
    #[inline]
    pub fn ack_to_send(&mut self) -> Option<Seq> {
        if self.unacked == 0 {
            return None;
        }
        self.unacked = 0;
        self.last
    }

    /// When an acknowledgement must go out on its own; `None` when none is owed. Later while packets follow each other.
    #[inline]
    pub fn ack_due(&self) -> Option<Time> {
        let last = self.since + Duration::from_nanos(u64::from(self.last_after));
        let first = self.delay.after(self.since);
        match self.unacked {
            0 => None,
            unacked if unacked >= self.packets => Some(last),
            AckSettings::SEVERAL.. => Some(first.min(self.pause.after(last))),
            _ => Some(first),
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new(AckSettings::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(arrivals: &[u32]) -> Vec<Arrival> {
        let mut receiver = Receiver::default();
        arrivals
            .iter()
            .map(|seq| receiver.accept(Seq(*seq)))
            .collect()
    }

    #[test]
    fn counts_what_is_missing() {
        use Arrival::{Ahead, Duplicate, First, InOrder, Late};
        assert_eq!(
            judge(&[5, 6, 9, 8, 8, 7, 6, 5, 4, 10, 0]),
            [
                First,
                InOrder,
                Ahead { missing: 2 },
                Late,
                Duplicate,
                Late,
                Duplicate,
                // What is behind the first one never counts as received, except the first one itself.
                Duplicate,
                Late,
                InOrder,
                Late
            ]
        );
    }

    /// One packet can be forged by anybody; it must not make every genuine one late.
    #[test]
    fn a_far_jump_wants_a_second_packet() {
        use Arrival::{Ahead, First, InOrder, Late};
        let far = 5 + (1 << 30);
        assert_eq!(
            judge(&[5, 6, far, 7, 8, far, 9]),
            [First, InOrder, Late, InOrder, InOrder, Late, InOrder]
        );
        // After a long outage the second packet tells.
        assert_eq!(
            judge(&[5, far, far + 1, far + 2]),
            [First, Late, Ahead { missing: (1 << 30) }, InOrder]
        );
        // A peer that begins anew far behind is heard again, too.
        assert_eq!(judge(&[far, 1, 2, 3]), [First, Late, First, InOrder]);
    }

    #[test]
    fn remembers_the_last_64() {
        for gap in 1..=200 {
            let mut receiver = Receiver::default();
            receiver.accept(Seq(0));
            receiver.accept(Seq(gap));
            let expected = if gap <= 64 {
                Arrival::Duplicate
            } else {
                Arrival::Late
            };
            assert_eq!(receiver.accept(Seq(0)), expected, "gap {gap}");
            assert_eq!(receiver.last(), Some(Seq(gap)));
        }
    }

    #[test]
    fn nothing_is_delivered_twice_or_backwards_around_the_wrap() {
        let mut receiver = Receiver::default();
        let mut delivered = Vec::new();
        for seq in (0..200u32).map(|n| n.wrapping_sub(100)) {
            for copy in [seq, seq.wrapping_sub(1), seq.wrapping_sub(70)] {
                if receiver.accept(Seq(copy)).is_delivered() {
                    delivered.push(copy);
                }
            }
        }
        assert_eq!(
            delivered,
            (0..200u32).map(|n| n.wrapping_sub(100)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn acknowledges_after_50_ms_or_a_pause_or_32_packets() {
        const MS: Duration = Duration::from_millis(1);
        let mut receiver = Receiver::default();
        let start = Time::from_nanos(1_000);
        assert_eq!(receiver.ack_due(), None);
        assert_eq!(receiver.ack_to_send(), None);
        let mut now = start;
        for n in 1..32 {
            receiver.accept(Seq(n));
            let due = match n {
                1..8 => start + 50 * MS,
                _ => now + 4 * MS,
            };
            let sooner = [1, 8].contains(&n).then_some(due);
            assert_eq!(receiver.note_received(now), sooner, "{n}");
            assert_eq!(receiver.ack_due(), Some(due), "{n}");
            now += MS;
        }
        receiver.accept(Seq(32));
        assert_eq!(receiver.note_received(now), Some(now));
        assert_eq!(receiver.ack_due(), Some(now));
        assert_eq!(receiver.ack_to_send(), Some(Seq(32)));
        assert_eq!(receiver.ack_due(), None);
        assert_eq!(receiver.ack_to_send(), None);
    }

    #[test]
    fn packets_that_follow_each_other_wait_no_longer_than_the_first_may() {
        let mut receiver = Receiver::default();
        let due = receiver.note_received(Time::ZERO);
        for n in 1..16 {
            receiver.note_received(Time::ZERO + n * Duration::from_millis(3));
        }
        let late = Time::ZERO + Duration::from_millis(49);
        assert_eq!(receiver.note_received(late), None);
        assert_eq!(receiver.ack_due(), due);
    }

    /// A window of 0 is none at all; nobody announces it.
    #[test]
    fn half_of_the_window_does_not_wait() {
        for (window, packets) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 2),
            (6, 3),
            (16, 8),
            (63, 31),
            (64, 32),
            (65, 32),
            (65_535, 32),
        ] {
            let settings = AckSettings::default().within(window);
            assert_eq!(settings.packets, packets, "{window}");
            let mut receiver = Receiver::new(settings);
            for n in 1..=packets {
                receiver.note_received(Time::ZERO);
                assert_eq!(receiver.ack_due() == Some(Time::ZERO), n == packets);
            }
        }
    }
}
