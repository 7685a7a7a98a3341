//! What became of calls that were to stay up, as text and as JSON, from the same type.

use core::fmt::Write as _;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::intervals::{Drift, Interval, Piece};
use crate::fleet::{Fleet, Times};
use crate::live;
use crate::monkey::Kind;
use crate::report::Origin;
use crate::spread::Spread;

/// The most seconds of which it is kept how many calls were up: two days. Later ones are left out.
const MAX_SAMPLES: usize = 172_800;

/// What happened by one kind of strike.
struct Struck {
    count: u64,
    ended: u64,
    back: Times,
}

/// What is counted while calls are kept up.
pub(super) struct Books {
    pub(super) dials: u64,
    came_up: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
    ended: BTreeMap<String, u64>,
    strikes: BTreeMap<Kind, Struck>,
    set_up: Times,
    back: Times,
    echo: Times,
    /// What a new kind begins with.
    empty: Times,
    piece: Piece,
    intervals: Vec<Interval>,
    up_each_second: Vec<u32>,
    fewest: Option<u32>,
    work: (Duration, Option<Duration>),
    at_end: (u32, u32),
}

impl Books {
    pub(super) fn new() -> anyhow::Result<Self> {
        let empty = Times::new()?;
        Ok(Self {
            dials: 0,
            came_up: 0,
            failed: 0,
            failures: BTreeMap::new(),
            ended: BTreeMap::new(),
            strikes: BTreeMap::new(),
            set_up: empty.clone(),
            back: empty.clone(),
            echo: empty.clone(),
            empty,
            piece: Piece::new()?,
            intervals: Vec::new(),
            up_each_second: Vec::new(),
            fewest: None,
            work: (Duration::ZERO, None),
            at_end: (0, 0),
        })
    }

    /// All have dialled once, and so many are up.
    pub(super) fn begin(&mut self, up: u32, now: Duration) {
        self.work = (now, None);
        self.fewest = Some(up);
    }

    /// The time is over.
    pub(super) fn end(&mut self, now: Duration) {
        self.work.1 = Some(now);
    }

    /// A piece of the time is over, with so many calls up.
    pub(super) fn interval(
        &mut self,
        up: u32,
        now: Duration,
        memory_kib: Option<u64>,
    ) -> &Interval {
        let interval = self.piece.close(now, up, memory_kib);
        self.intervals.push(interval);
        &self.intervals[self.intervals.len() - 1]
    }

    /// Whether no piece is over yet.
    pub(super) fn has_no_interval(&self) -> bool {
        self.intervals.is_empty()
    }

    /// A set-up came to something, after so long.
    pub(super) fn came_up(&mut self, time: Duration) {
        self.came_up += 1;
        self.set_up.record(time);
        self.piece.set_up.record(time);
    }

    /// An echo was answered, after so long.
    pub(super) fn answered(&mut self, time: Duration) {
        self.echo.record(time);
        self.piece.echo.record(time);
    }

    /// So many calls are up at the end, and so many have answered.
    pub(super) fn settled(&mut self, up: u32, answered: u32) {
        self.at_end = (up, answered);
    }

    /// A call went, and so many are left.
    pub(super) fn down_to(&mut self, up: u32) {
        self.piece.fewest = up.min(self.piece.fewest);
        if let (Some(fewest), None) = (&mut self.fewest, self.work.1) {
            *fewest = up.min(*fewest);
        }
    }

    pub(super) fn failed(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
        self.failed += 1;
        self.piece.failed += 1;
    }

    /// A call ended by itself, or because it did not survive what was done to it.
    pub(super) fn lost(&mut self, by: Option<Kind>, reason: String) {
        *self.ended.entry(reason).or_default() += 1;
        self.piece.ended += 1;
        if let Some(struck) = by.and_then(|kind| self.strikes.get_mut(&kind)) {
            struck.ended += 1;
        }
    }

    pub(super) fn struck(&mut self, kind: Kind) {
        let struck = self.strikes.entry(kind).or_insert_with(|| Struck {
            count: 0,
            ended: 0,
            back: self.empty.clone(),
        });
        struck.count += 1;
        self.piece.strikes += 1;
    }

    /// A call is up again after so long.
    pub(super) fn back(&mut self, by: Option<Kind>, time: Duration) {
        self.back.record(time);
        self.piece.back.record(time);
        if let Some(struck) = by.and_then(|kind| self.strikes.get_mut(&kind)) {
            struck.back.record(time);
        }
    }

    /// So many calls are up now.
    pub(super) fn sample(&mut self, up: u32, now: Duration) {
        let second = usize::try_from(now.as_secs()).unwrap_or(usize::MAX);
        while self.up_each_second.len() <= second.min(MAX_SAMPLES) {
            self.up_each_second.push(up);
        }
    }

    /// How it goes, for people who watch.
    pub(super) fn so_far(&self) -> Vec<String> {
        let strikes: u64 = self.strikes.values().map(|struck| struck.count).sum();
        let ended: u64 = self.ended.values().sum();
        let mut words = String::new();
        if strikes > 0 {
            let _ = write!(words, "{strikes} struck, ");
        }
        let _ = write!(words, "{ended} ended, {} failed", self.failed);
        let up = self.up_each_second.iter().map(|up| u64::from(*up));
        let mut lines = vec![words, live::each_second("up", up)];
        for (name, times) in [
            ("set-up", &self.set_up),
            ("not up", &self.back),
            ("LCP echo", &self.echo),
        ] {
            lines.extend(live::times(name, &times.spread()));
        }
        lines.extend(live::causes(&self.failures));
        lines.extend(live::causes(&self.ended));
        lines
    }

    pub(super) fn report(
        &self,
        origin: Origin,
        server: Ipv4Addr,
        plan: &Plan<'_>,
        fleet: &Fleet,
    ) -> Report {
        let (begun, ended) = self.work;
        let kinds: Vec<KindReport> = (self.strikes.iter())
            .map(|(kind, struck)| KindReport {
                kind: *kind,
                count: struck.count,
                ended: struck.ended,
                back_ms: struck.back.spread(),
            })
            .collect();
        Report {
            origin,
            server,
            calls: plan.keeping.calls,
            back: self.at_end.0,
            answered: self.at_end.1,
            fewest_up: self.fewest.unwrap_or(0),
            seconds: ended.map_or(0.0, |ended| ended.saturating_sub(begun).as_secs_f64()),
            dials: self.dials,
            came_up: self.came_up,
            failed: self.failed,
            reconnects: self.back.count(),
            unfinished: fleet.unfinished,
            refused: fleet.refused(),
            failures: self.failures.clone(),
            ended: self.ended.clone(),
            set_up_ms: self.set_up.spread(),
            back_ms: self.back.spread(),
            echoes_sent: fleet.echoes.sent,
            echoes_answered: fleet.echoes.answered,
            echo_ms: self.echo.spread(),
            up_each_second: self.up_each_second.clone(),
            drift: Drift::of(&self.intervals),
            intervals: self.intervals.clone(),
            monkey: plan.mischief.as_ref().map(|_| MonkeyReport {
                seed: plan.seed,
                strikes: kinds.iter().map(|kind| kind.count).sum(),
                kinds,
            }),
        }
    }
}

/// One kind of what the monkey did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindReport {
    /// Which.
    pub kind: Kind,
    /// How often.
    pub count: u64,
    /// How many calls did not survive it, of a kind that is to be survived.
    pub ended: u64,
    /// From dialling anew, or from the negotiation's begin, until data may flow.
    pub back_ms: Spread,
}

/// What the monkey did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MonkeyReport {
    /// What all chances followed from.
    pub seed: u64,
    /// How often something happened.
    pub strikes: u64,
    /// By kind.
    pub kinds: Vec<KindReport>,
}

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// With what this was measured, when, and where.
    #[serde(flatten)]
    pub origin: Origin,
    /// The server.
    pub server: Ipv4Addr,
    /// Calls that were to be up.
    pub calls: u32,
    /// Those that were up at the end.
    pub back: u32,
    /// Those that answered the last echo.
    pub answered: u32,
    /// The fewest that were up at a time, between all having dialled once and the end of the time.
    pub fewest_up: u32,
    /// How long that was.
    pub seconds: f64,
    /// Set-ups that were begun.
    pub dials: u64,
    /// Those that came up.
    pub came_up: u64,
    /// Those that did not.
    pub failed: u64,
    /// How often a call came back: dialled anew, or after a negotiation.
    pub reconnects: u64,
    /// Control connections that the server did not end in time after a goodbye, and that were reset.
    pub unfinished: u64,
    /// GRE packets that this machine had no room for.
    pub refused: u64,
    /// Why set-ups came to nothing, and in which phase.
    pub failures: BTreeMap<String, u64>,
    /// Why calls ended that were up and that nobody here ended.
    pub ended: BTreeMap<String, u64>,
    /// How long set-ups took, from TCP's first packet to data.
    pub set_up_ms: Spread,
    /// How long calls were not up, without the time that their clients stayed away by design.
    pub back_ms: Spread,
    /// LCP Echo-Requests sent.
    pub echoes_sent: u64,
    /// Those that were answered.
    pub echoes_answered: u64,
    /// Their round trips.
    pub echo_ms: Spread,
    /// Calls that were up, each second from the beginning.
    pub up_each_second: Vec<u32>,
    /// The time in pieces, if it was to be seen so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intervals: Vec<Interval>,
    /// What has changed in the course of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// What the monkey did, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monkey: Option<MonkeyReport>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} of {} calls were up at the end, {} answered an echo\n",
            self.back, self.calls, self.answered
        );
        let _ = writeln!(
            text,
            "{:.1} s with {} or more up; {} set-ups, {} of them failed; {} times a call came back",
            self.seconds, self.fewest_up, self.dials, self.failed, self.reconnects
        );
        for (count, words) in [
            (
                self.unfinished,
                "control connections were not ended by the server, and reset",
            ),
            (self.refused, "packets found no room here"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "{count} {words}");
            }
        }
        if let Some(monkey) = &self.monkey {
            let _ = writeln!(
                text,
                "the monkey struck {} times (--seed {})",
                monkey.strikes, monkey.seed
            );
        }
        let _ = writeln!(
            text,
            "\n{:<22}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "times", "min", "p50", "p90", "p99", "max"
        );
        let mut row = |name: &str, ms: &Spread| {
            if ms.count > 0 {
                let _ = writeln!(
                    text,
                    "{name:<22}{:>8}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                    ms.count, ms.min, ms.p50, ms.p90, ms.p99, ms.max
                );
            }
        };
        row("set-up", &self.set_up_ms);
        row("echo", &self.echo_ms);
        row("back", &self.back_ms);
        let kinds = self.monkey.as_ref().map_or(&[][..], |monkey| &monkey.kinds);
        for one in kinds {
            row(&format!("back after {}", one.kind), &one.back_ms);
        }
        if !self.intervals.is_empty() {
            let _ = writeln!(text, "\n{}", Interval::HEADS);
        }
        for interval in &self.intervals {
            let _ = writeln!(text, "{}", interval.line());
        }
        if let Some(drift) = &self.drift {
            let _ = writeln!(text, "{}", drift.text());
        }
        if !(self.failures.is_empty() && self.ended.is_empty()) {
            text.push('\n');
        }
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "{count:>8}  {reason}");
        }
        for (reason, count) in &self.ended {
            let _ = writeln!(text, "{count:>8}  when up: {reason}");
        }
        text
    }
}
