//! A long run in pieces, to see what changes in the course of it.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::Times;
use crate::spread::Spread;

/// What is counted in the piece that is not over yet.
pub(super) struct Piece {
    pub(super) set_up: Times,
    pub(super) back: Times,
    pub(super) echo: Times,
    pub(super) failed: u64,
    pub(super) ended: u64,
    pub(super) strikes: u64,
    pub(super) fewest: u32,
}

impl Piece {
    pub(super) fn new() -> anyhow::Result<Self> {
        let empty = Times::new()?;
        Ok(Self {
            set_up: empty.clone(),
            back: empty.clone(),
            echo: empty,
            failed: 0,
            ended: 0,
            strikes: 0,
            fewest: u32::MAX,
        })
    }

    /// The piece ends at `now` with so many calls up; another begins.
    pub(super) fn close(&mut self, now: Duration, up: u32, memory_kib: Option<u64>) -> Interval {
        let count = core::mem::take;
        Interval {
            until: now.as_secs_f64(),
            up,
            fewest_up: core::mem::replace(&mut self.fewest, up).min(up),
            failed: count(&mut self.failed),
            ended: count(&mut self.ended),
            strikes: count(&mut self.strikes),
            set_up_ms: self.set_up.take().spread(),
            back_ms: self.back.take().spread(),
            echo_ms: self.echo.take().spread(),
            memory_kib,
        }
    }
}

/// A piece of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// When it ended, in seconds from the beginning.
    pub until: f64,
    /// Calls that were up then.
    pub up: u32,
    /// The fewest that were up at a time.
    pub fewest_up: u32,
    /// Set-ups that came to nothing.
    pub failed: u64,
    /// Calls that ended and that nobody here ended.
    pub ended: u64,
    /// What was done to calls.
    pub strikes: u64,
    /// How long set-ups took.
    pub set_up_ms: Spread,
    /// How long calls were not up.
    pub back_ms: Spread,
    /// Round trips of LCP echoes.
    pub echo_ms: Spread,
    /// Memory of the process that is watched, when the piece ended, in KiB.
    pub memory_kib: Option<u64>,
}

impl Interval {
    /// The heads of the columns of [`Self::line`].
    pub(super) const HEADS: &str = "  seconds      up  fewest  struck   ended  failed  set-up ms p50       p99  echo ms p50       p99  memory KiB";

    /// For people.
    pub(super) fn line(&self) -> String {
        let memory = (self.memory_kib).map_or_else(|| "-".to_owned(), |kib| kib.to_string());
        format!(
            "{:>9.0}{:>8}{:>8}{:>8}{:>8}{:>8}{:>15.2}{:>10.2}{:>13.2}{:>10.2}{memory:>12}",
            self.until,
            self.up,
            self.fewest_up,
            self.strikes,
            self.ended,
            self.failed,
            self.set_up_ms.p50,
            self.set_up_ms.p99,
            self.echo_ms.p50,
            self.echo_ms.p99,
        )
    }
}

/// What is different at the end of a long run: its last third against its first.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Drift {
    /// So many times as long a set-up takes, by the medians of intervals.
    pub set_up: Option<f64>,
    /// The same of an echo.
    pub echo: Option<f64>,
    /// So much more memory the watched process has, on the average.
    pub memory_kib: Option<f64>,
}

impl Drift {
    /// `None` when there are fewer than three intervals.
    pub(super) fn of(intervals: &[Interval]) -> Option<Self> {
        let third = intervals.len() / 3;
        if third == 0 {
            return None;
        }
        let (first, last) = (&intervals[..third], &intervals[intervals.len() - third..]);
        let both = |value: &dyn Fn(&Interval) -> Option<f64>| {
            let mean = |part: &[Interval]| {
                let values: Vec<f64> = part.iter().filter_map(value).collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            };
            Some((mean(first)?, mean(last)?))
        };
        let p50 = |ms: &Spread| (ms.count > 0).then_some(ms.p50);
        let ratio = |(before, after): (f64, f64)| (before > 0.0).then(|| after / before);
        Some(Self {
            set_up: both(&|interval| p50(&interval.set_up_ms)).and_then(ratio),
            echo: both(&|interval| p50(&interval.echo_ms)).and_then(ratio),
            memory_kib: both(&|interval| interval.memory_kib.map(|kib| kib as f64))
                .map(|(before, after)| after - before),
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        for (name, ratio) in [("a set-up", self.set_up), ("an echo", self.echo)] {
            parts.extend(ratio.map(|ratio| format!("{name} takes {ratio:.2} times as long")));
        }
        parts.extend((self.memory_kib).map(|kib| format!("memory is {kib:+.0} KiB")));
        format!(
            "in the last third of the time, against the first: {}",
            parts.join(", ")
        )
    }
}

/// Memory of a process that is in RAM, in KiB; `None` when there is no such process.
pub(super) fn memory_of(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds_are_compared() {
        let mut piece = Piece::new().unwrap();
        let mut intervals = Vec::new();
        for (at, ms) in (1..=7).zip([10, 10, 99, 99, 99, 20, 40]) {
            piece.set_up.record(Duration::from_millis(ms));
            piece.strikes += 2;
            let memory = Some(1_000 + 10 * at);
            intervals.push(piece.close(Duration::from_secs(at), 5, memory));
        }
        assert_eq!(Drift::of(&intervals[..2]), None);
        let drift = Drift::of(&intervals).unwrap();
        // 1 % is what a histogram tells apart.
        let set_up = drift.set_up.unwrap();
        assert!((2.9..3.1).contains(&set_up), "{set_up}");
        assert_eq!((drift.echo, drift.memory_kib), (None, Some(50.0)));
        assert_eq!((intervals[6].strikes, intervals[6].fewest_up), (2, 5));
        let text = drift.text();
        assert!(text.contains("memory is +50 KiB"), "{text}");
        assert!(!text.contains("echo"), "{text}");
        let width = Interval::HEADS.len();
        assert_eq!(intervals[0].line().len(), width, "{}", intervals[0].line());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory_of(std::process::id()).is_some_and(|kib| kib > 100));
        assert_eq!(memory_of(u32::MAX), None);
    }
}
