//! Sends what is due, and says how late.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::packet::Stamp;
use super::plan::{Script, Trial, Way};

/// How long a generator that is late goes on after the last packet was due, in nanoseconds.
const OVERTIME: u64 = 1_000_000_000;

/// The longest time that is told apart, in nanoseconds: a minute.
pub(super) const LONGEST: u64 = 60_000_000_000;

/// Packets and octets of inner IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Amount {
    pub(super) packets: u64,
    pub(super) octets: u64,
}

impl Amount {
    pub(super) fn add(&mut self, size: u16) {
        self.packets += 1;
        self.octets += u64::from(size);
    }
}

/// What has been sent one way in one trial.
pub(super) struct Generator {
    pub(super) trial: Arc<Trial>,
    pub(super) way: Way,
    script: Arc<Script>,
    /// Place in the schedule of the next packet: all before have been sent.
    pub(super) next: u64,
    pub(super) sent: Amount,
    pub(super) each_second: Vec<Amount>,
    /// When the last one was sent.
    pub(super) last: u64,
    /// From when packets were due until they were made, in nanoseconds.
    pub(super) lateness: Histogram<u64>,
}

impl Generator {
    pub(super) fn new(
        trial: Arc<Trial>,
        way: Way,
        script: Arc<Script>,
    ) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            trial,
            way,
            script,
            next: 0,
            sent: Amount::default(),
            each_second: Vec::new(),
            last: 0,
            lateness: Histogram::new_with_bounds(1, LONGEST, 3)?,
        })
    }

    /// When the next packet is due; `None` when there is none any more.
    pub(super) fn due(&self) -> Option<u64> {
        let schedule = &self.trial.schedule;
        (self.next < schedule.count).then(|| schedule.at(self.next))
    }

    /// The next packet, if it is due now.
    pub(super) fn take(&mut self, now: u64) -> Option<Stamp> {
        loop {
            let planned = self.due().filter(|due| *due <= now)?;
            let schedule = &self.trial.schedule;
            if now > schedule.end().saturating_add(OVERTIME) {
                return None;
            }
            let (flow, number) = schedule.whose(self.next);
            self.next += 1;
            if self.trial.verifies() && self.script.is_verified(self.way, flow) {
                continue;
            }
            let pattern = &self.trial.pattern;
            // Flows begin at different places of the pattern, or all would send their large packets at once.
            let place = number.wrapping_add(flow.into()) % pattern.len() as u64;
            let size = pattern[place as usize];
            self.count(planned, size, now);
            return Some(Stamp {
                flow,
                number,
                planned,
                run: self.script.run,
                trial: self.trial.number,
                way: self.way as u8,
                size,
            });
        }
    }

    fn count(&mut self, planned: u64, size: u16, now: u64) {
        self.sent.add(size);
        self.last = now;
        if self.trial.verifies() {
            return;
        }
        self.lateness.saturating_record((now - planned).max(1));
        let second = second(now.saturating_sub(self.trial.schedule.start));
        if self.each_second.len() <= second {
            self.each_second.resize(second + 1, Amount::default());
        }
        self.each_second[second].add(size);
        let live = &self.script.live[self.way as usize];
        live.sent.store(self.sent.packets, Ordering::Relaxed);
    }
}

/// The second in which a time lies, in nanoseconds. A trial with more of them than fit is none that ends.
pub(super) fn second(since_start: u64) -> usize {
    usize::try_from(since_start / 1_000_000_000).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use core::net::Ipv4Addr;

    use super::super::plan::{Schedule, Size};
    use super::*;

    pub(in super::super) fn trial(number: u8, flows: u32, count: u64, size: Size) -> Arc<Trial> {
        Arc::new(Trial {
            number,
            schedule: Schedule {
                start: 1_000_000_000,
                interval: 1e6,
                count,
                flows,
            },
            pattern: size.pattern(),
            flows: (0..flows)
                .map(|n| Ipv4Addr::from_bits(0x0a14_000a + n))
                .collect(),
            ways: vec![Way::Up],
            window: 64,
        })
    }

    fn generator(trial: Arc<Trial>) -> Generator {
        let script = Arc::new(Script::new(5, trial.flows.len()));
        Generator::new(trial, Way::Up, script).unwrap()
    }

    #[test]
    fn nothing_is_sent_before_its_time_and_everything_after_it() {
        let mut generator = generator(trial(1, 2, 5, Size::Imix));
        assert_eq!(generator.take(999_999_999), None);
        let first = generator.take(1_000_000_000).unwrap();
        assert_eq!((first.flow, first.number, first.size), (0, 0, 64));
        assert_eq!(generator.take(1_000_000_000), None);
        // Held up: what was due meanwhile is sent with the times at which it was.
        let late: Vec<(u32, u64, u64)> = core::iter::from_fn(|| generator.take(1_010_000_000))
            .map(|stamp| (stamp.flow, stamp.number, stamp.planned))
            .collect();
        assert_eq!(
            late,
            [
                (1, 0, 1_001_000_000),
                (0, 1, 1_002_000_000),
                (1, 1, 1_003_000_000),
                (0, 2, 1_004_000_000)
            ]
        );
        assert_eq!(generator.due(), None);
        assert_eq!(generator.sent.packets, 5);
        let latest = generator.lateness.max() as f64 / 1e6;
        assert!((latest - 9.0).abs() < 0.1, "{latest}");
        assert_eq!(generator.lateness.len(), 5);
        assert_eq!(generator.each_second[0].packets, 5);
    }

    #[test]
    fn a_generator_that_cannot_keep_up_gives_up() {
        let mut generator = generator(trial(1, 1, 100, Size::Fixed(64)));
        assert!(generator.take(1_050_000_000).is_some());
        assert!(generator.take(3_000_000_000).is_none());
        assert_eq!(generator.next, 1);
    }

    #[test]
    fn who_is_verified_is_not_asked_again() {
        let mut generator = generator(trial(0, 3, u64::MAX, Size::Fixed(64)));
        let script = generator.script.clone();
        script.verify(Way::Up, 1);
        let now = 1_005_500_000;
        let flows: Vec<u32> = core::iter::from_fn(|| generator.take(now).map(|stamp| stamp.flow))
            .take(4)
            .collect();
        assert_eq!(flows, [0, 2, 0, 2]);
        script.verify(Way::Up, 0);
        script.verify(Way::Up, 2);
        assert_eq!(generator.take(now), None);
    }
}
