//! The sending half: numbers, and what the peer has acknowledged.

use crate::gre::Seq;

/// State of the sending half. Plain data.
///
/// The peer's window (RFC 2637 §4.2) is not obeyed: Windows and the Linux kernel ignore it, and a sender that waits
/// stalls behind every lost acknowledgement. [`Sender::unacknowledged`] is there for statistics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    next: Seq,
    /// One after the highest number the peer acknowledged.
    unacked: Seq,
}

impl Sender {
    /// A sender whose first packet has the number `first`; RFC 2637 §4.1 says 0.
    pub const fn new(first: Seq) -> Self {
        Self {
            next: first,
            unacked: first,
        }
    }

    /// Takes the number for a data packet. Packets that only acknowledge have none.
    #[inline]
    #[allow(
        clippy::should_implement_trait,
        reason = "numbers never run out: this is no iterator"
    )]
    pub fn next(&mut self) -> Seq {
        let seq = self.next;
        self.next = seq.next();
        seq
    }

    /// The peer acknowledged everything up to `ack`. Old, repeated and made-up numbers change nothing.
    #[inline]
    pub fn acknowledged(&mut self, ack: Seq) {
        let after = ack.next();
        if after.distance(self.unacked) > 0 && self.next.distance(after) >= 0 {
            self.unacked = after;
        }
    }

    /// How many sent packets the peer has not acknowledged (it may have lost them: GRE never repeats).
    #[inline]
    pub const fn unacknowledged(&self) -> u32 {
        self.next.distance(self.unacked).unsigned_abs()
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new(Seq(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_across_the_wrap() {
        let mut sender = Sender::new(Seq(u32::MAX - 1));
        assert_eq!(sender.next(), Seq(u32::MAX - 1));
        assert_eq!(sender.next(), Seq(u32::MAX));
        assert_eq!(sender.next(), Seq(0));
        assert_eq!(sender.unacknowledged(), 3);
        sender.acknowledged(Seq(u32::MAX));
        assert_eq!(sender.unacknowledged(), 1);
        // Older, and never sent.
        sender.acknowledged(Seq(u32::MAX - 1));
        sender.acknowledged(Seq(1));
        sender.acknowledged(Seq(1 << 31));
        assert_eq!(sender.unacknowledged(), 1);
        sender.acknowledged(Seq(0));
        assert_eq!(sender.unacknowledged(), 0);
    }

    #[test]
    fn nothing_sent_nothing_acknowledged() {
        let mut sender = Sender::default();
        sender.acknowledged(Seq(0));
        sender.acknowledged(Seq(u32::MAX));
        assert_eq!(sender.unacknowledged(), 0);
        assert_eq!(sender.next(), Seq(0));
    }
}
