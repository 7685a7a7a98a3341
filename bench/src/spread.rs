//! Times as a distribution, as every report of this program shows them.

use hdrhistogram::{Counter, Histogram};
use serde::Serialize;

/// Times as a distribution, in milliseconds; all 0 where there were none.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
}

impl Spread {
    /// The heads of the columns of [`Spread::columns`].
    pub(crate) const HEADS: &str = "       min       p50       p90       p99     p99.9       max";

    /// From a histogram that has so many units to a millisecond.
    pub(crate) fn of<T: Counter>(histogram: &Histogram<T>, units: f64) -> Self {
        let ms = |value: u64| value as f64 / units;
        let quantile = |q| ms(histogram.value_at_quantile(q));
        Self {
            count: histogram.len(),
            min: ms(histogram.min()),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: ms(histogram.max()),
        }
    }

    /// The times for people, ten characters each.
    pub(crate) fn columns(&self) -> String {
        [self.min, self.p50, self.p90, self.p99, self.p999, self.max]
            .map(|ms| format!("{ms:>10.2}"))
            .concat()
    }
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
}
