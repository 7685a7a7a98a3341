//! Counts what comes: lost, late, twice, and how long it took.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::generator::{Amount, LONGEST, second};
use super::packet::Stamp;
use super::plan::{Script, Trial, Way};

/// Which numbers of a flow have come, back from the highest.
#[derive(Debug)]
pub(super) struct Window {
    bits: Box<[u64]>,
    /// One more than the highest number that has come.
    next: u64,
}

/// What a number is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coming {
    /// Higher than all before.
    InOrder,
    /// Lower than one that came before it (RFC 4737 §3.3).
    Reordered,
    /// It has come before.
    Duplicate,
    /// So far behind that nobody knows whether it has come before.
    Stale,
}

impl Window {
    /// Tells apart so many numbers; a power of two, at least 64.
    pub(super) fn new(numbers: usize) -> Self {
        Self {
            bits: vec![0; numbers / 64].into(),
            next: 0,
        }
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let numbers = self.bits.len() as u64 * 64;
        let at = number & (numbers - 1);
        ((at / 64) as usize, 1 << (at % 64))
    }

    pub(super) fn note(&mut self, number: u64) -> Coming {
        let numbers = self.bits.len() as u64 * 64;
        let (word, bit) = self.place(number);
        if number >= self.next {
            if number - self.next >= numbers {
                self.bits.fill(0);
            } else {
                // What is left behind makes room.
                for passed in self.next..number {
                    let (word, bit) = self.place(passed);
                    self.bits[word] &= !bit;
                }
            }
            self.bits[word] |= bit;
            self.next = number + 1;
            return Coming::InOrder;
        }
        if self.next - number > numbers {
            return Coming::Stale;
        }
        if self.bits[word] & bit != 0 {
            return Coming::Duplicate;
        }
        self.bits[word] |= bit;
        Coming::Reordered
    }
}

/// One flow.
pub(super) struct Flow {
    window: Window,
    /// Each packet once.
    pub(super) received: u64,
    pub(super) reordered: u64,
    pub(super) duplicates: u64,
    pub(super) stale: u64,
    /// In nanoseconds.
    pub(super) latency: Histogram<u32>,
}

/// What came in one second. Latencies in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Second {
    pub(super) amount: Amount,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// What has come one way in one trial.
pub(super) struct Receiver {
    pub(super) trial: Arc<Trial>,
    pub(super) way: Way,
    script: Arc<Script>,
    pub(super) flows: Vec<Flow>,
    pub(super) received: Amount,
    /// When the last one came that counts.
    pub(super) last: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) each_second: Vec<Second>,
    /// Latencies of the second that lasts.
    this_second: Histogram<u64>,
    /// Packets that are none of this trial's.
    pub(super) foreign: u64,
}

impl Receiver {
    pub(super) fn new(
        trial: Arc<Trial>,
        way: Way,
        script: Arc<Script>,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let empty = Histogram::<u32>::new_with_bounds(1_000, LONGEST, 1)?;
        // Who verifies counts only all of them together.
        let flows = if trial.verifies() {
            Vec::new()
        } else {
            trial
                .flows
                .iter()
                .map(|_| Flow {
                    window: Window::new(trial.window),
                    received: 0,
                    reordered: 0,
                    duplicates: 0,
                    stale: 0,
                    latency: empty.clone(),
                })
                .collect()
        };
        Ok(Self {
            trial,
            way,
            script,
            flows,
            received: Amount::default(),
            last: 0,
            latency: Histogram::new_with_bounds(1, LONGEST, 3)?,
            each_second: Vec::new(),
            this_second: Histogram::new_with_bounds(1_000, LONGEST, 2)?,
            foreign: 0,
        })
    }

    /// A datagram came. Its stamp, when it is one of this run for this way.
    pub(super) fn take(&mut self, datagram: &[u8], now: u64) -> Option<Stamp> {
        let stamp = Stamp::read(datagram)
            .filter(|stamp| stamp.run == self.script.run && stamp.way == self.way as u8);
        let Some(stamp) = stamp else {
            self.foreign += 1;
            return None;
        };
        self.script.verify(self.way, stamp.flow);
        if stamp.trial != self.trial.number {
            // Of the trial before: it is over, and this one counted as lost.
            self.foreign += u64::from(stamp.trial != 0);
        } else if self.trial.verifies() {
            self.received.add(stamp.size);
        } else {
            self.count(&stamp, now);
        }
        Some(stamp)
    }

    fn count(&mut self, stamp: &Stamp, now: u64) {
        let Some(flow) = self.flows.get_mut(stamp.flow as usize) else {
            self.foreign += 1;
            return;
        };
        match flow.window.note(stamp.number) {
            Coming::InOrder => {}
            Coming::Reordered => flow.reordered += 1,
            Coming::Duplicate => {
                flow.duplicates += 1;
                return;
            }
            Coming::Stale => {
                flow.stale += 1;
                return;
            }
        }
        flow.received += 1;
        self.received.add(stamp.size);
        self.last = now;
        let latency = now.saturating_sub(stamp.planned).max(1);
        flow.latency.saturating_record(latency);
        self.latency.saturating_record(latency);
        let second = second(now.saturating_sub(self.trial.schedule.start));
        if self.each_second.len() <= second {
            self.close_second();
            self.each_second.resize(second + 1, Second::default());
        }
        self.each_second[second].amount.add(stamp.size);
        self.this_second.saturating_record(latency);
        let live = &self.script.live[self.way as usize];
        live.received
            .store(self.received.packets, Ordering::Relaxed);
        live.octets.store(self.received.octets, Ordering::Relaxed);
    }

    /// Nothing more comes in the last second that there is.
    pub(super) fn close_second(&mut self) {
        if let Some(last) = self.each_second.last_mut() {
            let quantile = |q| self.this_second.value_at_quantile(q);
            last.p50 = quantile(0.5);
            last.p99 = quantile(0.99);
            last.p999 = quantile(0.999);
            last.max = self.this_second.max();
            self.this_second.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::generator::tests::trial;
    use super::super::plan::Size;
    use super::*;

    #[test]
    fn numbers_are_told_apart_as_far_as_the_window_goes() {
        let mut window = Window::new(64);
        let mut note = |number| window.note(number);
        assert_eq!(note(0), Coming::InOrder);
        assert_eq!(note(0), Coming::Duplicate);
        assert_eq!(note(3), Coming::InOrder);
        assert_eq!(note(1), Coming::Reordered);
        assert_eq!(note(1), Coming::Duplicate);
        // 2 is missing, and so is everything up to 65.
        assert_eq!(note(66), Coming::InOrder);
        assert_eq!(note(2), Coming::Stale);
        assert_eq!(note(3), Coming::Duplicate);
        assert_eq!(note(4), Coming::Reordered);
        assert_eq!(note(65), Coming::Reordered);
        assert_eq!(note(65), Coming::Duplicate);
        // What a whole window jumps over was never there.
        assert_eq!(note(1_000_000), Coming::InOrder);
        assert_eq!(note(999_999), Coming::Reordered);
        assert_eq!(note(999_937), Coming::Reordered);
        assert_eq!(note(999_936), Coming::Stale);
    }

    #[test]
    fn a_window_agrees_with_a_list() {
        // Numbers that jump forth and back within the window.
        let mut window = Window::new(64);
        let mut seen = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        for n in 0..5_000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let number = (n / 2 + (state >> 59)).saturating_sub(16);
            let highest = seen.last().copied();
            let expected = if seen.contains(&number) {
                Coming::Duplicate
            } else if highest.is_some_and(|highest| highest > number) {
                Coming::Reordered
            } else {
                Coming::InOrder
            };
            assert_eq!(window.note(number), expected, "{number} at {n}");
            seen.insert(number);
        }
    }

    fn datagram(change: impl FnOnce(&mut Stamp)) -> Vec<u8> {
        let mut stamp = Stamp {
            flow: 0,
            number: 0,
            planned: 1_000_000_000,
            run: 5,
            trial: 1,
            way: Way::Up as u8,
            size: 100,
        };
        let mut datagram = vec![0; 72];
        change(&mut stamp);
        stamp.write(&mut datagram);
        datagram
    }

    #[test]
    fn everything_is_counted_once_and_under_its_name() {
        let script = Arc::new(Script::new(5, 2));
        let trial = trial(1, 2, 10, Size::Fixed(100));
        let mut receiver = Receiver::new(trial, Way::Up, script.clone()).unwrap();
        let ms = 1_000_000;
        for (flow, number, after) in [
            (0, 0, 1),
            (1, 0, 2),
            (0, 2, 3),
            (0, 1, 2_004),
            (0, 1, 2_005),
            (1, 500, 2_006),
            (1, 1, 2_007),
        ] {
            let octets = datagram(|stamp| {
                stamp.flow = flow;
                stamp.number = number;
            });
            assert!(receiver.take(&octets, 1_000_000_000 + after * ms).is_some());
        }
        for wrong in [
            datagram(|stamp| stamp.run = 6),
            datagram(|stamp| stamp.way = Way::Down as u8),
            datagram(|stamp| stamp.size = 101),
            b"tpk1".to_vec(),
        ] {
            assert!(receiver.take(&wrong, 2_000_000_000).is_none());
        }
        // Another trial's, and a flow that there is not.
        receiver.take(&datagram(|stamp| stamp.trial = 2), 2_000_000_000);
        receiver.take(&datagram(|stamp| stamp.flow = 2), 2_000_000_000);
        // A late packet of the verification is nothing to speak of.
        receiver.take(&datagram(|stamp| stamp.trial = 0), 2_000_000_000);
        receiver.close_second();
        assert_eq!(receiver.foreign, 6);
        let counts = |flow: &Flow| (flow.received, flow.reordered, flow.duplicates, flow.stale);
        assert_eq!(counts(&receiver.flows[0]), (3, 1, 1, 0));
        assert_eq!(counts(&receiver.flows[1]), (2, 0, 0, 1));
        assert_eq!(receiver.received.packets, 5);
        assert_eq!(receiver.received.octets, 500);
        let seconds: Vec<u64> = receiver
            .each_second
            .iter()
            .map(|second| second.amount.packets)
            .collect();
        assert_eq!(seconds, [3, 0, 2]);
        let near = |value: u64, ms: f64| (value as f64 / 1e6 / ms - 1.0).abs() < 0.02;
        assert!(near(receiver.each_second[0].max, 3.0));
        assert_eq!(receiver.each_second[1], Second::default());
        assert!(near(receiver.each_second[2].p50, 2_004.0));
        assert!(near(receiver.latency.max(), 2_006.0));
        assert_eq!(script.count(Way::Up, 2), 2);
    }
}
