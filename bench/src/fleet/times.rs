//! Times, collected.

use core::time::Duration;

use hdrhistogram::Histogram;

use crate::spread::Spread;

/// The longest time that is told apart, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;

/// Microseconds in a millisecond.
const UNITS: f64 = 1e3;

/// A histogram of microseconds, to three digits.
#[derive(Clone)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST, 3)?))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(LONGEST);
        self.0.saturating_record(microseconds.max(1));
    }

    /// What has been collected, to begin anew.
    pub(crate) fn take(&mut self) -> Self {
        let taken = self.clone();
        self.0.reset();
        taken
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn spread(&self) -> Spread {
        Spread::of(&self.0, UNITS)
    }
}
