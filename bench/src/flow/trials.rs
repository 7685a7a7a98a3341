//! What follows what: flows are verified, then each trial is run, and its two halves are put together.

use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Flow;
use super::calls::Calls;
use super::generator::Generator;
use super::plan::{Order, Schedule, Script, Size, Trial, Way};
use super::receiver::Receiver;
use super::report::{TrialReport, VerifiedReport, VerifiedWay, WayReport};
use super::side::Half;
use crate::live::{self, Live};

/// Between an order and the first packet, so that both ends have heard of it.
const LEAD: Duration = Duration::from_millis(100);

/// How long packets of a trial may be under way after the last was to be sent; the generator may take a second of it.
const GRACE: Duration = Duration::from_secs(3);

/// What is doubled comes after what is complete.
const AFTER: Duration = Duration::from_millis(200);

/// A flow that is not verified is tried again after this, or later if there are many.
const AGAIN: Duration = Duration::from_millis(250);

/// Packets per second each way at most while flows are verified.
const VERIFY_RATE: f64 = 20_000.0;

/// Octets of inner packets that verify.
const VERIFY_SIZE: u16 = 64;

/// Numbers that a flow's receiver tells apart, in seconds of its packets.
const WINDOW: f64 = 2.0;

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    More,
    Over,
}

enum Stage {
    SettingUp,
    Verifying {
        since: Instant,
    },
    Running {
        trial: Arc<Trial>,
        /// Since when everything that was sent has come.
        complete: Option<Instant>,
    },
    /// The ends have been told to rest and will say what they have.
    Collecting {
        trial: Arc<Trial>,
        generators: Vec<Generator>,
        receivers: Vec<Receiver>,
    },
    Over,
}

/// All trials of a run.
pub(super) struct Trials<'a> {
    options: &'a Flow,
    origin: Instant,
    script: Arc<Script>,
    ways: Vec<Way>,
    flows: Arc<[Ipv4Addr]>,
    stage: Stage,
    /// Trials begun.
    begun: u8,
    pub(super) verified: Option<VerifiedReport>,
    pub(super) reports: Vec<TrialReport>,
    live: Live,
    /// Since when the trial runs.
    since: Instant,
    /// Packets sent and received in each second of it so far, by way.
    seconds: Vec<[Vec<u64>; 2]>,
}

impl<'a> Trials<'a> {
    pub(super) fn new(options: &'a Flow, origin: Instant, script: Arc<Script>) -> Self {
        Self {
            options,
            origin,
            script,
            ways: options.ways(),
            flows: [].into(),
            stage: Stage::SettingUp,
            begun: 0,
            verified: None,
            reports: Vec::new(),
            live: Live::new(
                ProgressBar::new(options.calls.into()),
                "{bar:40} {pos}/{len} calls {elapsed}",
            ),
            since: Instant::now(),
            seconds: Vec::new(),
        }
    }

    /// Shows how many calls are up, while they come up.
    pub(super) fn set_up(&self, calls: &Calls<'_>) {
        if matches!(self.stage, Stage::SettingUp) {
            self.live.bar.set_position(calls.came_up);
        }
    }

    /// Every call has come up or has not: what is up has flows.
    ///
    /// # Errors
    /// When packets of a size that is asked for do not fit the calls.
    pub(super) fn begin(&mut self, calls: &Calls<'_>) -> anyhow::Result<()> {
        self.live.bar.finish_and_clear();
        let Some(mtu) = calls.mtu() else {
            // Nobody is up.
            self.stage = Stage::Over;
            return Ok(());
        };
        for size in &self.options.size {
            let largest = size.pattern().iter().copied().max().unwrap_or(0);
            anyhow::ensure!(
                largest <= mtu,
                "the calls take inner packets of at most {mtu} octets, and --size {size} has some of {largest}"
            );
        }
        self.flows = calls.up().collect();
        let every = AGAIN
            .as_secs_f64()
            .max(self.flows.len() as f64 / VERIFY_RATE);
        self.order(
            Size::Fixed(VERIFY_SIZE),
            self.flows.len() as f64 / every,
            u64::MAX,
        );
        self.stage = Stage::Verifying {
            since: Instant::now(),
        };
        Ok(())
    }

    /// Tells both ends to begin.
    fn order(&mut self, size: Size, rate: f64, count: u64) -> Arc<Trial> {
        let start = self.origin.elapsed() + LEAD;
        let of_flow = rate / self.flows.len().max(1) as f64 * WINDOW;
        let trial = Arc::new(Trial {
            number: self.begun,
            schedule: Schedule {
                // Enough for 500 years.
                start: start.as_nanos() as u64,
                interval: 1e9 / rate,
                count,
                // There are no more flows than calls.
                flows: self.flows.len() as u32,
            },
            pattern: size.pattern(),
            flows: self.flows.clone(),
            ways: self.ways.clone(),
            window: (of_flow as usize).clamp(64, 1 << 16).next_power_of_two(),
        });
        for live in &self.script.live {
            live.sent.store(0, Ordering::Relaxed);
            live.received.store(0, Ordering::Relaxed);
            live.octets.store(0, Ordering::Relaxed);
        }
        self.script.order(Order::Go(trial.clone()));
        trial
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When a report cannot be put together.
    pub(super) fn step(&mut self) -> anyhow::Result<Step> {
        match &mut self.stage {
            Stage::SettingUp => {}
            Stage::Over => return Ok(Step::Over),
            Stage::Verifying { since } => {
                let time = since.elapsed();
                let flows = self.flows.len() as u32;
                let all = |way: &Way| self.script.count(*way, flows) == flows;
                if self.ways.iter().all(all) || time >= self.options.verify + LEAD {
                    self.verified(time.saturating_sub(LEAD));
                    self.next_trial();
                }
            }
            Stage::Running { trial, complete } => {
                let now = self.origin.elapsed();
                let end = Duration::from_nanos(trial.schedule.end());
                let everything = self.ways.iter().all(|way| {
                    let live = &self.script.live[*way as usize];
                    live.sent.load(Ordering::Relaxed) == trial.schedule.count
                        && live.received.load(Ordering::Relaxed) == trial.schedule.count
                });
                if everything {
                    complete.get_or_insert_with(Instant::now);
                }
                let settled = complete.is_some_and(|since| since.elapsed() >= AFTER);
                if now >= end && settled || now >= end + GRACE {
                    let trial = trial.clone();
                    self.collect(trial);
                } else {
                    self.show();
                }
            }
            Stage::Collecting { .. } => {}
        }
        Ok(Step::More)
    }

    fn collect(&mut self, trial: Arc<Trial>) {
        self.live.bar.finish_and_clear();
        self.script.order(Order::Rest);
        self.stage = Stage::Collecting {
            trial,
            generators: Vec::new(),
            receivers: Vec::new(),
        };
    }

    fn verified(&mut self, time: Duration) {
        let flows = self.flows.len() as u32;
        let all = |flow: &u32| {
            self.ways
                .iter()
                .all(|way| self.script.is_verified(*way, *flow))
        };
        self.verified = Some(VerifiedReport {
            flows,
            ways: self
                .ways
                .iter()
                .map(|way| {
                    let verified = self.script.count(*way, flows);
                    // The ends will say how many packets it took.
                    let way_report = VerifiedWay {
                        verified,
                        ..VerifiedWay::default()
                    };
                    (way.name(), way_report)
                })
                .collect(),
            all_ways: (0..flows).filter(all).count() as u32,
            seconds: time.as_secs_f64(),
        });
    }

    fn next_trial(&mut self) {
        let Some(size) = self.options.size.get(usize::from(self.begun)).copied() else {
            self.stage = Stage::Over;
            return;
        };
        self.begun += 1;
        let rate = self.options.rate_of(self.flows.len());
        let seconds = self.options.seconds.as_secs_f64();
        let trial = self.order(size, rate, ((rate * seconds) as u64).max(1));
        self.live = Live::new(
            ProgressBar::new(self.options.seconds.as_millis() as u64),
            "{prefix} {bar:40} {elapsed}",
        );
        self.live.bar.set_prefix(format!("size {size}"));
        self.since = Instant::now();
        self.seconds = vec![<[Vec<u64>; 2]>::default(); self.ways.len()];
        self.stage = Stage::Running {
            trial,
            complete: None,
        };
    }

    /// How it goes.
    fn show(&mut self) {
        let time = self.since.elapsed();
        let second = time.as_secs() as usize;
        for (way, seconds) in self.ways.iter().zip(&mut self.seconds) {
            let live = &self.script.live[*way as usize];
            for (seconds, count) in seconds.iter_mut().zip([&live.sent, &live.received]) {
                seconds.resize(second + 1, 0);
                let before: u64 = seconds[..second].iter().sum();
                seconds[second] = count.load(Ordering::Relaxed).saturating_sub(before);
            }
        }
        self.live.bar.set_position(time.as_millis() as u64);
        let (ways, all) = (&self.ways, &self.seconds);
        self.live.show(|| {
            let mut lines = Vec::new();
            for (way, seconds) in ways.iter().zip(all) {
                for (seconds, what) in seconds.iter().zip(["sent", "received"]) {
                    let name = format!("{} {what}", way.name());
                    lines.push(live::each_second(&name, seconds.iter().copied()));
                }
            }
            lines
        });
    }

    /// How many packets an end sent and received while flows were verified.
    fn note_verification(&mut self, half: &Half) {
        let Some(verified) = &mut self.verified else {
            return;
        };
        if let Some(sent) = half.sent.as_ref().filter(|sent| sent.trial.verifies())
            && let Some(way) = verified.ways.get_mut(sent.way.name())
        {
            way.sent = sent.sent.packets;
        }
        if let Some(came) = half.received.as_ref().filter(|came| came.trial.verifies())
            && let Some(way) = verified.ways.get_mut(came.way.name())
        {
            way.received = came.received.packets;
        }
    }

    /// An end says what it has.
    pub(super) fn half(&mut self, half: Half) {
        self.note_verification(&half);
        let number = self.begun;
        let Stage::Collecting {
            trial,
            generators,
            receivers,
        } = &mut self.stage
        else {
            // Of the verification.
            return;
        };
        generators.extend(half.sent.filter(|sent| sent.trial.number == number));
        receivers.extend(half.received.filter(|came| came.trial.number == number));
        let all = self.ways.len();
        if generators.len() < all || receivers.len() < all {
            return;
        }
        let worst = self.options.worst;
        let ways = self.ways.iter().filter_map(|way| {
            let sent = generators.iter().find(|one| one.way == *way)?;
            let received = receivers.iter().find(|one| one.way == *way)?;
            Some(WayReport::new(sent, received, worst))
        });
        self.reports.push(TrialReport {
            size: self.options.size[usize::from(number) - 1],
            rate: 1e9 / trial.schedule.interval,
            seconds: self.options.seconds.as_secs_f64(),
            ways: ways.collect(),
        });
        self.next_trial();
    }

    /// Nothing more is shown.
    pub(super) fn finish(&self) {
        self.live.bar.finish_and_clear();
    }
}
