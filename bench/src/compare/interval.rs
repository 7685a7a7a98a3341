//! How sure a figure is: intervals, and the change from one interval to another.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

/// Means that are drawn to see how much a mean varies.
const DRAWS: usize = 4_000;

/// Every comparison of the same files says the same.
const SEED: u64 = 0x7475_726e_7069_6b65;

/// The least that a variation can be seen in: blocks of samples, or runs.
const LEAST: usize = 3;

/// The fewest seconds that say something about a rate.
const SECONDS: usize = 5;

/// A figure, and between what bounds it lies at the confidence that was asked for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// A figure with the error of its logarithm (or, for shares, of itself), and how many degrees of freedom that has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Mean {
    pub(super) value: f64,
    error: f64,
    freedom: f64,
}

/// One without error, where all samples are the same.
fn exact(value: f64) -> Mean {
    Mean {
        value,
        error: 0.0,
        freedom: f64::INFINITY,
    }
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Mean and standard error of a mean of values that do not hang together.
fn mean_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = average(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

/// The mean of samples taken one after the other, by a bootstrap of blocks: what happens in one second goes on in the next,
/// so seconds are drawn in runs of neighbours. `None` when there are too few.
pub(super) fn over_time(runs: &[&[f64]]) -> Option<Mean> {
    let samples: usize = runs.iter().map(|run| run.len()).sum();
    if samples < SECONDS {
        return None;
    }
    let length = (samples as f64).cbrt().round() as usize;
    let blocks = samples / length;
    let all: Vec<f64> = runs.iter().flat_map(|run| run.iter().copied()).collect();
    let mean = average(&all);
    // Fewer than this say nothing about how much they vary.
    if blocks < LEAST || runs.iter().any(|run| run.len() < length) || mean <= 0.0 {
        return None;
    }
    let mut chance = ChaCha8Rng::seed_from_u64(SEED);
    let means: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut sum = 0.0;
            let mut taken = 0;
            while taken < samples {
                // Where a block begins, over all runs; it goes round within its own.
                let mut at = (chance.next_u64() % samples as u64) as usize;
                let mut of = runs.iter();
                let run = loop {
                    let run = of.next()?;
                    match at.checked_sub(run.len()) {
                        Some(rest) => at = rest,
                        None => break run,
                    }
                };
                for step in 0..length.min(samples - taken) {
                    sum += run[(at + step) % run.len()];
                    taken += 1;
                }
            }
            Some(sum / samples as f64)
        })
        .collect::<Option<_>>()?;
    let (_, error) = mean_error(&means);
    // The error of one draw, not of their mean; blocks make it a little too small.
    let short = samples as f64 / (samples - length).max(1) as f64;
    Some(Mean {
        value: mean,
        error: error * (DRAWS as f64).sqrt() * short.sqrt() / mean,
        freedom: (blocks - 1) as f64,
    })
}

/// The mean of one figure of each run, in logarithms: ratios matter. `None` when there are too few, or one is 0.
pub(super) fn over_runs(figures: &[f64]) -> Option<Mean> {
    if figures.len() < LEAST || figures.iter().any(|figure| *figure <= 0.0) {
        return None;
    }
    let logs: Vec<f64> = figures.iter().map(|figure| figure.ln()).collect();
    let (mean, error) = mean_error(&logs);
    Some(Mean {
        value: mean.exp(),
        error,
        freedom: (figures.len() - 1) as f64,
    })
}

/// The same of shares, as they are.
pub(super) fn shares_over_runs(shares: &[f64]) -> Option<Mean> {
    if shares.len() < LEAST {
        return None;
    }
    let (value, error) = mean_error(shares);
    match error > 0.0 {
        true => Some(Mean {
            value,
            error,
            freedom: (shares.len() - 1) as f64,
        }),
        false => Some(exact(value)),
    }
}

/// By so many errors of both together the difference may be off: Welch's interval.
fn reach(before: Mean, after: Mean, confidence: f64) -> f64 {
    let (a, b) = (before.error.powi(2), after.error.powi(2));
    if a + b == 0.0 {
        return 0.0;
    }
    let freedom = (a + b).powi(2) / (a.powi(2) / before.freedom + b.powi(2) / after.freedom);
    // Never fewer than the smaller side has, whatever rounding does.
    let freedom = freedom.max(before.freedom.min(after.freedom)).min(1e6);
    let tail = 1.0 - (1.0 - confidence) / 2.0;
    let times = StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(tail));
    times * (a + b).sqrt()
}

/// How much larger `after` is, as a ratio.
pub(super) fn ratio_of_means(before: Mean, after: Mean, confidence: f64) -> Estimate {
    let value = after.value / before.value;
    let reach = reach(before, after, confidence).exp();
    Estimate {
        value,
        low: value / reach,
        high: value * reach,
    }
}

/// How much larger `after` is, as a difference.
pub(super) fn difference_of_means(before: Mean, after: Mean, confidence: f64) -> Estimate {
    let value = after.value - before.value;
    let reach = reach(before, after, confidence);
    Estimate {
        value,
        low: value - reach,
        high: value + reach,
    }
}

/// A quantile of values that are counted in `buckets`, by order statistics: how many of `n` values lie below the true
/// quantile is a matter of chance with known bounds, and the values at these ranks bound it. `None` when there are too few
/// values on one side of it.
pub(super) fn quantile(buckets: &[(f64, u64)], quantile: f64, confidence: f64) -> Option<Estimate> {
    let n: u64 = buckets.iter().map(|(_, count)| count).sum();
    let below = Binomial::new(quantile, n).ok()?;
    let tail = (1.0 - confidence) / 2.0;
    if n == 0 || below.cdf(0) > tail || below.sf(n - 1) > tail {
        return None;
    }
    let low = below.inverse_cdf(tail);
    let high = below.inverse_cdf(1.0 - tail) + 1;
    if low < 1 || high > n {
        return None;
    }
    let middle = ((n as f64 * quantile).ceil() as u64).clamp(1, n);
    Some(Estimate {
        value: at_rank(buckets, middle)?,
        low: at_rank(buckets, low)?,
        high: at_rank(buckets, high)?,
    })
}

/// The value of this rank; ranks begin at 1.
fn at_rank(buckets: &[(f64, u64)], rank: u64) -> Option<f64> {
    let mut below = 0;
    buckets
        .iter()
        .find(|(_, count)| {
            below += count;
            below >= rank
        })
        .map(|(value, _)| *value)
}

/// How much larger `after` is, as a ratio, from an interval each (Donner and Zou's recovery of variances, in logarithms): less
/// wide than from end to end, since both are hardly off the worst way at once. `None` where a bound is 0.
pub(super) fn ratio(before: Estimate, after: Estimate) -> Option<Estimate> {
    if before.low <= 0.0 || after.low <= 0.0 {
        return None;
    }
    let difference = recovered(before.map(f64::ln), after.map(f64::ln));
    Some(difference.map(f64::exp))
}

fn recovered(before: Estimate, after: Estimate) -> Estimate {
    let value = after.value - before.value;
    let down = (after.value - after.low).hypot(before.high - before.value);
    let up = (after.high - after.value).hypot(before.value - before.low);
    Estimate {
        value,
        low: value - down,
        high: value + up,
    }
}

impl Estimate {
    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self {
            value: change(self.value),
            low: change(self.low),
            high: change(self.high),
        }
    }
}

/// A share of `of`, after Wilson: right for few and for none, too.
fn share(part: u64, of: u64, confidence: f64) -> Option<Estimate> {
    if of == 0 {
        return None;
    }
    let z = Normal::standard().inverse_cdf(1.0 - (1.0 - confidence) / 2.0);
    let (n, p) = (of as f64, part as f64 / of as f64);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Some(Estimate {
        value: p,
        low: (middle - half).max(0.0).min(p),
        high: (middle + half).min(1.0).max(p),
    })
}

/// How much larger a share has become, after Newcombe. `None` where there is nothing to have a share of.
pub(super) fn difference_of_shares(
    before: (u64, u64),
    after: (u64, u64),
    confidence: f64,
) -> Option<Estimate> {
    let before = share(before.0, before.1, confidence)?;
    let after = share(after.0, after.1, confidence)?;
    Some(recovered(before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-4, "{found} {expected}");
    }

    #[test]
    fn shares_are_as_in_newcombe() {
        // Newcombe 1998, Interval estimation for the difference between independent proportions, table II, method 10.
        let found = difference_of_shares((48, 80), (56, 70), 0.95).unwrap();
        close(found.value, 0.2);
        close(found.low, 0.0524);
        close(found.high, 0.3339);
        let none = difference_of_shares((0, 10), (0, 20), 0.95).unwrap();
        close(none.low, -0.2775);
        close(none.high, 0.1611);
        assert!(difference_of_shares((0, 0), (0, 20), 0.95).is_none());
    }

    #[test]
    fn ranks_are_those_of_the_binomial_distribution() {
        // The median of 100 values lies between the 40th and the 61st at 95 % (any table of order statistics).
        let buckets: Vec<(f64, u64)> = (1..=100).map(|value| (f64::from(value), 1)).collect();
        let found = quantile(&buckets, 0.5, 0.95).unwrap();
        assert_eq!((found.value, found.low, found.high), (50.0, 40.0, 61.0));
        // No value is above the 99th of 100 often enough.
        assert!(quantile(&buckets, 0.99, 0.95).is_none());
        assert!(quantile(&buckets[..3], 0.5, 0.95).is_none());
        assert!(quantile(&[], 0.5, 0.95).is_none());
    }

    #[test]
    fn runs_are_compared_as_welch_does() {
        // Two samples with variances 1 and 4 (in logarithms) of five each: 5.88 degrees of freedom, t = 2.4589.
        let step = |by: f64| [-2.0, -1.0, 0.0, 1.0, 2.0].map(|n: f64| (n * by).exp());
        let unit = (1.0 / 2.5_f64).sqrt();
        let before = over_runs(&step(unit)).unwrap();
        let after = over_runs(&step(2.0 * unit)).unwrap();
        close(before.error, (1.0 / 5.0_f64).sqrt());
        let found = ratio_of_means(before, after, 0.95);
        close(found.value, 1.0);
        close(found.high.ln(), 2.459);
        assert!(over_runs(&[1.0, 2.0]).is_none());
        assert!(over_runs(&[1.0, 2.0, 0.0]).is_none());
    }

    #[test]
    fn seconds_that_hang_together_are_less_sure() {
        let calm: Vec<f64> = (0..60_u32).map(|n| f64::from(100 + n * 7 % 10)).collect();
        let mut waves = calm.clone();
        waves.sort_by(f64::total_cmp);
        let calm = over_time(&[&calm]).unwrap();
        let waves = over_time(&[&waves]).unwrap();
        assert_eq!(calm.value, waves.value);
        assert!(waves.error > 1.4 * calm.error, "{waves:?} {calm:?}");
        assert!(over_time(&[&[1.0; 5]]).is_none());
        assert!(over_time(&[]).is_none());
        assert_eq!(over_time(&[&[5.0; 20]]).unwrap().error, 0.0);
        assert_eq!(over_time(&[&[5.0; 20]]), over_time(&[&[5.0; 20]]));
    }
}
