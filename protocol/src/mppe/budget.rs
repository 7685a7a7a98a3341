//! What key changes a receiver may spend.

use crate::Time;

/// Key changes that one packet may cost at most: one turn of the coherency count, about 2 ms.
pub(super) const PER_PACKET: u64 = super::COUNTS;
/// Key changes that each packet adds to the credit. A flood of forged packets thus costs no more than genuine ones do.
pub(super) const EARNED_BY_PACKET: u64 = 8;
/// Time earns one key change in as many nanoseconds as two to the power of this: some 15,000 a second, about 7 ms of
/// work. A slow call thus hears again soon, even if forgeries have used up all credit.
const EARNED_BY_TIME_SHIFT: u32 = 16;
/// Highest credit, and what a call starts with.
const MOST: u64 = 16 * super::COUNTS;

/// Credit of one call, and what has been spent.
pub(super) struct Budget {
    credit: u64,
    /// Up to when time has been paid for.
    paid: Time,
    spent: u64,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self {
            credit: MOST,
            paid: Time::ZERO,
            spent: 0,
        }
    }

    /// Time goes by.
    pub(super) fn pass(&mut self, now: Time) {
        let earned = now.as_nanos().saturating_sub(self.paid.as_nanos()) >> EARNED_BY_TIME_SHIFT;
        if earned > 0 {
            self.paid = Time::from_nanos(self.paid.as_nanos() + (earned << EARNED_BY_TIME_SHIFT));
            self.credit = self.credit.saturating_add(earned).min(MOST);
        }
    }

    /// A packet came.
    pub(super) fn packet(&mut self) {
        self.credit = (self.credit + EARNED_BY_PACKET).min(MOST);
    }

    /// Takes as much of `wanted` as one packet may cost now.
    pub(super) fn take(&mut self, wanted: u64) -> u64 {
        let taken = wanted.min(self.credit).min(PER_PACKET);
        self.credit -= taken;
        self.spent += taken;
        taken
    }

    /// Takes all of `wanted`, or nothing.
    pub(super) fn take_all(&mut self, wanted: u64) -> bool {
        let affordable = wanted <= self.credit && wanted <= PER_PACKET;
        if affordable {
            self.take(wanted);
        }
        affordable
    }

    /// Everything that was ever taken.
    pub(super) const fn spent(&self) -> u64 {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_packets_earn_up_to_a_limit() {
        let mut budget = Budget::new();
        budget.pass(Time::from_nanos(1 << 40));
        while budget.take(u64::MAX) > 0 {}
        assert_eq!(
            budget.spent(),
            MOST,
            "what time earns stays under the limit"
        );
        budget.packet();
        assert_eq!(budget.take(u64::MAX), EARNED_BY_PACKET);
        budget.pass(Time::from_nanos((1 << 40) + 1_000_000_000));
        assert!(!budget.take_all(PER_PACKET + 1));
        let mut second = 0;
        while budget.take_all(1) {
            second += 1;
        }
        assert_eq!(second, 1_000_000_000 >> EARNED_BY_TIME_SHIFT);
        // A clock that stands, or goes back, earns nothing.
        budget.pass(Time::ZERO);
        assert_eq!(budget.take(1), 0);
    }
}
