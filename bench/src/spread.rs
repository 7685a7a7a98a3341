//! Times as a distribution, as every report of this program shows them.

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

/// Significant digits of values in [`Spread::buckets`]: within 1 %, so that a report stays small.
const DIGITS: u8 = 2;

/// Times as a distribution, in milliseconds; all 0 where there were none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// Half took no longer.
    pub p50: f64,
    /// Nine in ten took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// 999 of 1000 took no longer.
    pub p999: f64,
    /// The most.
    pub max: f64,
    /// Times and how many took so long, to within 1 %, in order; those that nobody took are left out.
    #[serde(default)]
    pub buckets: Vec<(f64, u64)>,
}

impl Spread {
    /// The heads of the columns of [`Spread::columns`].
    pub(crate) const HEADS: &str = "       min       p50       p90       p99     p99.9       max";

    /// From a histogram that has so many units to a millisecond.
    pub(crate) fn of<T: Counter>(histogram: &Histogram<T>, units: f64) -> Self {
        let ms = |value: u64| value as f64 / units;
        let quantile = |q| ms(histogram.value_at_quantile(q).min(histogram.max()));
        Self {
            count: histogram.len(),
            min: ms(histogram.min()),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: ms(histogram.max()),
            buckets: coarse(histogram)
                .into_iter()
                .map(|(value, count)| (ms(value), count))
                .collect(),
        }
    }

    /// The times for people, ten characters each.
    pub(crate) fn columns(&self) -> String {
        [self.min, self.p50, self.p90, self.p99, self.p999, self.max]
            .map(|ms| format!("{ms:>10.2}"))
            .concat()
    }
}

/// Values, each the highest of its bucket, and their counts.
fn coarse<T: Counter>(histogram: &Histogram<T>) -> Vec<(u64, u64)> {
    let Ok(mut coarse) = Histogram::<u64>::new_with_bounds(1, histogram.max().max(2), DIGITS)
    else {
        return Vec::new();
    };
    for step in histogram.iter_recorded() {
        coarse.saturating_record_n(step.value_iterated_to(), step.count_since_last_iteration());
    }
    coarse
        .iter_recorded()
        .map(|step| {
            let value = step.value_iterated_to().min(histogram.max());
            (value, step.count_since_last_iteration())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        assert_eq!(Spread::of(&histogram, 1e3).max, 0.0);
        for n in 1..=1000 {
            histogram.record(n * 100).unwrap();
        }
        let spread = Spread::of(&histogram, 1e3);
        assert_eq!((spread.count, spread.min), (1000, 0.1));
        assert_eq!(spread.p50.round(), 50.0);
        assert_eq!(spread.p99.round(), 99.0);
        assert_eq!(spread.columns().len(), Spread::HEADS.len());
    }

    #[test]
    fn buckets_have_everything_in_order_and_are_few() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).unwrap();
        for value in 1..=100_000 {
            histogram.record(value * 7 % 100_003).unwrap();
        }
        let spread = Spread::of(&histogram, 1e3);
        assert_eq!(spread.count, 100_000);
        let counted: u64 = spread.buckets.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 100_000);
        assert!(spread.buckets.is_sorted_by(|a, b| a.0 < b.0));
        assert!(spread.buckets.len() < 2_000, "{}", spread.buckets.len());
        assert_eq!(spread.buckets.last().unwrap().0, spread.max);
        let below: u64 = spread
            .buckets
            .iter()
            .take_while(|(value, _)| *value <= spread.p50)
            .map(|(_, count)| count)
            .sum();
        assert!((49_000..=51_000).contains(&below), "{below}");
        assert!((spread.p50 - 50.0).abs() < 0.5, "{}", spread.p50);
    }

    #[test]
    fn nothing_is_an_empty_distribution() {
        let histogram = Histogram::<u64>::new_with_bounds(1, 1_000, 3).unwrap();
        let spread = Spread::of(&histogram, 1e3);
        assert_eq!((spread.count, spread.max), (0, 0.0));
        assert!(spread.buckets.is_empty());
        assert_eq!(spread.columns().len(), Spread::HEADS.len());
    }
}
