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
}

impl Arrival {
    /// Whether the packet goes on to PPP.
    #[inline]
    pub const fn is_delivered(self) -> bool {
        match self {
            Self::First | Self::InOrder | Self::Ahead { .. } => true,
            Self::Duplicate | Self::Late => false,
        }
    }
}

/// When acknowledgements that no data packet carries are sent on their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckSettings {
    /// How long a received packet waits for a data packet that can carry its acknowledgement.
    pub delay: Duration,
    /// So many unacknowledged packets don't wait.
    pub packets: u32,
}

impl Default for AckSettings {
    /// 50 ms or 8 packets: sooner than every known client's window or timeout needs.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(50),
            packets: 8,
        }
    }
}

/// A number further than this from the last one is believed only when the next one follows it. Anybody can forge one
/// packet; believed at once, it would make every genuine one late for good.
pub const MAX_JUMP: u32 = 1 << 14;

/// State of the receiving half. Plain data.
///
/// Packets that come out of order are discarded, as RFC 2637 §4.3 allows. A queue that waits a bounded time for the
/// missing ones belongs between [`Receiver::accept`] and delivery: it would hold what is [`Arrival::Ahead`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receiver {
    settings: AckSettings,
    last: Option<Seq>,
    /// A packet came with a number far from the last: the one after it, which would prove it.
    doubtful: Option<Seq>,
    /// Bit n: the number n + 1 before `last` has come.
    came: u64,
    /// Packets received since the last acknowledgement went out.
    unacked: u32,
    /// When an acknowledgement has to go out on its own.
    due: Time,
}

impl Receiver {
    /// Nothing received yet.
    pub const fn new(settings: AckSettings) -> Self {
        Self {
            settings,
            last: None,
            doubtful: None,
            came: 0,
            unacked: 0,
            due: Time::MAX,
        }
    }

    /// Judges the number of a data packet and moves on when it is to be delivered.
    #[inline]
    pub fn accept(&mut self, seq: Seq) -> Arrival {
        let Some(last) = self.last else {
            self.last = Some(seq);
            return Arrival::First;
        };
        let distance = seq.distance(last);
        if distance.unsigned_abs() <= MAX_JUMP {
            self.doubtful = None;
        } else if self.doubtful == Some(seq) {
            self.doubtful = None;
            if distance < 0 {
                // The peer's numbers are somewhere else altogether.
                self.last = Some(seq);
                self.came = 0;
                return Arrival::First;
            }
        } else {
            self.doubtful = Some(seq.next());
            return Arrival::Late;
        }
        if distance > 0 {
            let ahead = distance.unsigned_abs();
            self.came = match ahead {
                1..64 => (self.came << ahead) | 1 << (ahead - 1),
                64 => 1 << 63,
                _ => 0,
            };
            self.last = Some(seq);
            return match ahead {
                1 => Arrival::InOrder,
                _ => Arrival::Ahead { missing: ahead - 1 },
            };
        }
        let behind = distance.unsigned_abs();
        if behind == 0 {
            return Arrival::Duplicate;
        }
        match 1u64.checked_shl(behind - 1) {
            Some(bit) if self.came & bit != 0 => Arrival::Duplicate,
            Some(bit) => {
                // A second copy of a late packet is a duplicate.
                self.came |= bit;
                Arrival::Late
            }
            // Too far back to know whether it came.
            None => Arrival::Late,
        }
    }

    /// The highest number received.
    #[inline]
    pub const fn last(&self) -> Option<Seq> {
        self.last
    }

    /// Notes that a data packet was accepted at `now`, so that it gets acknowledged.
    #[inline]
    pub fn note_received(&mut self, now: Time) {
        if self.unacked == 0 {
            self.due = now + self.settings.delay;
        }
        self.unacked = self.unacked.saturating_add(1);
        if self.unacked >= self.settings.packets && self.due > now {
            self.due = now;
        }
    }

    /// Takes the acknowledgement that is owed, to be sent with a data packet or on its own.
    #[inline]
    pub fn ack_to_send(&mut self) -> Option<Seq> {
        if self.unacked == 0 {
            return None;
        }
        self.unacked = 0;
        self.due = Time::MAX;
        self.last
    }

    /// When an acknowledgement must go out on its own; `None` when none is owed.
    #[inline]
    pub fn ack_due(&self) -> Option<Time> {
        (self.unacked > 0).then_some(self.due)
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
    fn acknowledges_after_50_ms_or_8_packets() {
        let mut receiver = Receiver::default();
        let start = Time::from_nanos(1_000);
        assert_eq!(receiver.ack_due(), None);
        assert_eq!(receiver.ack_to_send(), None);
        receiver.accept(Seq(0));
        receiver.note_received(start);
        assert_eq!(receiver.ack_due(), Some(start + Duration::from_millis(50)));
        let later = start + Duration::from_millis(10);
        for seq in 1..8 {
            receiver.accept(Seq(seq));
            receiver.note_received(later);
        }
        assert_eq!(receiver.ack_due(), Some(later));
        assert_eq!(receiver.ack_to_send(), Some(Seq(7)));
        assert_eq!(receiver.ack_due(), None);
        assert_eq!(receiver.ack_to_send(), None);
    }
}
