//! What a storm measured, as text and as JSON, from the same type.

use core::fmt::Write as _;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fleet::{Marks, Phase, Times};
use crate::live;
use crate::report::Origin;
use crate::spread::Spread;

/// What is counted while a storm lasts.
pub(super) struct Books {
    phases: [Times; Phase::ALL.len()],
    total: Times,
    failures: BTreeMap<String, u64>,
    each_second: Vec<u64>,
    pub(super) begun: u64,
    pub(super) up: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    /// When the last set-up was over, since the first began.
    last: Duration,
}

impl Books {
    pub(super) fn new() -> anyhow::Result<Self> {
        let empty = Times::new()?;
        Ok(Self {
            phases: core::array::from_fn(|_| empty.clone()),
            total: empty,
            failures: BTreeMap::new(),
            each_second: Vec::new(),
            begun: 0,
            up: 0,
            failed: 0,
            lost: 0,
            last: Duration::ZERO,
        })
    }

    /// A call came up, so long after the first set-up began.
    pub(super) fn up(&mut self, marks: &Marks, since_first: Duration) {
        let mut before = marks.begun;
        for (times, end) in self.phases.iter_mut().zip(marks.ends) {
            let end = end.unwrap_or(before);
            times.record(end.since(before));
            before = end;
        }
        self.total.record(before.since(marks.begun));
        self.up += 1;
        self.last = since_first;
        let second = usize::try_from(since_first.as_secs()).unwrap_or(usize::MAX);
        if self.each_second.len() <= second {
            self.each_second.resize(second + 1, 0);
        }
        self.each_second[second] += 1;
    }

    /// One did not.
    pub(super) fn failed(&mut self, reason: String, since_first: Duration) {
        *self.failures.entry(reason).or_default() += 1;
        self.failed += 1;
        self.last = since_first;
    }

    /// One that was up ended, and nobody here wanted it to.
    pub(super) fn lost(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
        self.lost += 1;
    }

    /// How it goes, for people who watch.
    pub(super) fn so_far(&self, outstanding: u32) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{} up, {} failed, {} lost, {outstanding} under way",
                self.up, self.failed, self.lost
            ),
            live::each_second("up each second", self.each_second.iter().copied()),
        ];
        for (phase, times) in Phase::ALL.into_iter().zip(&self.phases) {
            lines.extend(live::times(phase.name(), &times.spread()));
        }
        lines.extend(live::times("all", &self.total.spread()));
        lines.extend(live::causes(&self.failures));
        lines
    }

    pub(super) fn report(
        &self,
        origin: Origin,
        server: Ipv4Addr,
        held_back: u64,
        refused: u64,
    ) -> Report {
        let seconds = self.last.as_secs_f64();
        Report {
            origin,
            server,
            begun: self.begun,
            up: self.up,
            failed: self.failed,
            lost: self.lost,
            held_back,
            refused,
            seconds,
            rate: if seconds > 0.0 {
                self.up as f64 / seconds
            } else {
                0.0
            },
            failures: self.failures.clone(),
            phases: Phase::ALL
                .into_iter()
                .zip(&self.phases)
                .map(|(phase, times)| PhaseReport {
                    phase,
                    ms: times.spread(),
                })
                .collect(),
            total_ms: self.total.spread(),
            each_second: self.each_second.clone(),
        }
    }
}

/// A phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// How long it took, in calls that came up.
    pub ms: Spread,
}

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// With what this was measured, when, and where.
    #[serde(flatten)]
    pub origin: Origin,
    /// The server.
    pub server: Ipv4Addr,
    /// Set-ups that were begun.
    pub begun: u64,
    /// Calls that came up.
    pub up: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Calls that came up, and ended when nobody here wanted them to.
    pub lost: u64,
    /// Set-ups that began late because `--outstanding` others were under way: then the server, and not `--rate`, says how
    /// many there are in a second.
    pub held_back: u64,
    /// GRE packets that this machine had no room for.
    pub refused: u64,
    /// From the first set-up's begin to the last one's end.
    pub seconds: f64,
    /// Calls that came up, per second of that.
    pub rate: f64,
    /// Why calls failed, and in which phase.
    pub failures: BTreeMap<String, u64>,
    /// How long the phases took.
    pub phases: Vec<PhaseReport>,
    /// How long set-ups took, from TCP's first packet to data.
    pub total_ms: Spread,
    /// Calls that came up in each second.
    pub each_second: Vec<u64>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} of {} calls came up in {:.2} s: {:.1} per second\n",
            self.up, self.begun, self.seconds, self.rate
        );
        if self.held_back > 0 {
            let _ = writeln!(
                text,
                "{} set-ups began late: as many as --outstanding allows were under way",
                self.held_back
            );
        }
        if self.refused > 0 {
            let _ = writeln!(text, "{} packets found no room here", self.refused);
        }
        if self.up > 0 {
            let _ = writeln!(text, "\n{:<15}{}", "ms", Spread::HEADS);
            let phases = self.phases.iter().map(|one| (one.phase.name(), &one.ms));
            for (name, ms) in phases.chain([("all", &self.total_ms)]) {
                let _ = writeln!(text, "{name:<15}{}", ms.columns());
            }
        }
        if !self.failures.is_empty() {
            text.push('\n');
        }
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "{count:>8}  {reason}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use turnpike_protocol::Time;

    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn phases_are_told_apart_and_add_up() {
        let mut books = Books::new().unwrap();
        books.begun = 3;
        let mut marks = Marks::new(at(100));
        assert_eq!(marks.current(), Phase::Tcp);
        marks.end(Phase::Tcp, at(101));
        marks.end(Phase::Control, at(103));
        marks.end(Phase::Call, at(106));
        assert_eq!(marks.current(), Phase::Lcp);
        // LCP was seen to be open only when authentication was over, too.
        marks.end(Phase::Authentication, at(116));
        marks.end(Phase::Authentication, at(999));
        marks.end(Phase::Network, at(136));
        books.up(&marks, Duration::from_millis(2_036));
        books.failed("lcp: no answer".to_owned(), Duration::from_millis(3_000));
        books.failed("lcp: no answer".to_owned(), Duration::from_millis(4_000));
        let report = books.report(Origin::default(), Ipv4Addr::LOCALHOST, 0, 0);
        let longest: Vec<f64> = report.phases.iter().map(|one| one.ms.max.round()).collect();
        assert_eq!(longest, [1.0, 2.0, 3.0, 10.0, 0.0, 20.0]);
        assert_eq!(report.total_ms.p50.round(), 36.0);
        assert_eq!(report.each_second, [0, 0, 1]);
        assert_eq!((report.up, report.failed), (1, 2));
        assert_eq!(report.rate, 0.25);
        assert_eq!(report.failures, [("lcp: no answer".to_owned(), 2)].into());
        let text = report.text();
        for part in [
            "1 of 3 calls came up in 4.00 s: 0.2 per second",
            "authentication",
            "2  lcp: no answer",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
