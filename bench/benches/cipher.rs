//! MPPE's cipher against others: OpenSSL's low-level functions, a loop as in Linux, and crates.
//!
//! Two parts. First a table of ratios: all contenders take turns in one run, with fresh keys for each time. The shortest
//! of many times counts, so that other work on the machine does not; the median of the ratios of single turns is there
//! beside it, because a clock that was fast for a moment helps only one of them. Then the same by criterion, which
//! compares with its last run. `cargo bench -p turnpike-bench --bench cipher`; `-- ratios` is the table alone,
//! and any other word what criterion is to measure. `-- ratios --json` is the table as one JSON object, and `--rounds N`
//! how many times the shortest is taken of.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark's functions are made by macros, it may stop at any fault, and it talks to people"
)]

#[path = "cipher/contenders.rs"]
mod contenders;
#[path = "cipher/linux.rs"]
mod linux;
#[path = "cipher/openssl.rs"]
mod openssl;

use core::time::Duration;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group};
use serde::Serialize;
use turnpike_bench::report::processor;
use turnpike_dataplane::cipher::Engine;

use contenders::{Contender, Crates, LONGEST, SESSIONS, Single, Theirs, Together};
use linux::KernelLoop;
use openssl::OpenSsl;

/// Octets of packets.
const SIZES: [usize; 4] = [64, 256, 576, LONGEST];

/// Times that the shortest is taken of.
const ROUNDS: usize = 2000;

/// OpenSSL, if it is here, and the loop of Linux come first: they are what others are compared with.
fn contenders(missing: &mut Vec<String>) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    match OpenSsl::load() {
        Ok(openssl) => all.push(Box::new(Theirs::new(openssl))),
        Err(error) => missing.push(format!("without OpenSSL: {error}")),
    }
    all.push(Box::new(Theirs::new(KernelLoop::new())));
    all.push(Box::new(Theirs::new(Crates)));
    for make in [Engine::portable, Engine::new] {
        all.push(Box::new(Single::new(make())));
        all.push(Box::new(Together::new(make())));
    }
    // The fastest here uses none, perhaps.
    let without = Together::new(Engine::without_sha());
    if all.iter().all(|one| one.name() != without.name()) {
        all.push(Box::new(without));
    }
    all
}

/// By the clock on the wall: the processor time of a thread is sometimes short by a third on a virtual machine, which is
/// worse for a minimum than what other work adds.
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// What is measured; lengths in octets.
#[derive(Clone, Copy)]
enum Measure {
    Change,
    Crypt(usize),
    Whole(usize),
    Mixed,
    OneCall(usize),
}

impl Measure {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Change];
        all.extend(SIZES.map(Self::Crypt));
        all.extend(SIZES.map(Self::Whole));
        all.push(Self::Mixed);
        all.extend(SIZES.map(Self::OneCall));
        all
    }

    fn name(self) -> String {
        match self {
            Self::Change => "key change, which is all that a lost packet takes".to_owned(),
            Self::Crypt(len) => format!("fresh key, {len} octets"),
            Self::Whole(len) => format!("stateless packet of {len} octets"),
            Self::Mixed => "stateless packet of 64, 576 or 1400 octets, 7:4:1".to_owned(),
            Self::OneCall(len) => format!("stateless packet of {len} octets, all of one call"),
        }
    }

    /// What is done, and to packets of how many octets.
    fn kind(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Change => ("change", None),
            Self::Crypt(len) => ("crypt", Some(len)),
            Self::Whole(len) => ("whole", Some(len)),
            Self::Mixed => ("mixed", None),
            Self::OneCall(len) => ("one call", Some(len)),
        }
    }

    fn run(self, contender: &mut dyn Contender) -> Duration {
        match self {
            Self::Change => timed(|| contender.change()),
            Self::Crypt(len) => {
                // A key schedule done twice with the same key is one that the processor has learnt.
                contender.change();
                timed(|| contender.crypt(&[len; SESSIONS]))
            }
            Self::Whole(len) => timed(|| contender.whole(&[len; SESSIONS])),
            Self::Mixed => {
                // As they come: the long ones are among the others.
                let lens = core::array::from_fn(|at| match at * 5 % 12 {
                    0..7 => 64,
                    7..11 => 576,
                    _ => LONGEST,
                });
                timed(|| contender.whole(&lens))
            }
            Self::OneCall(len) => timed(|| contender.one_call(&[len; SESSIONS])),
        }
    }
}

/// How often another takes as long.
#[derive(Serialize)]
struct Against {
    name: String,
    /// By the shortest times of both.
    best: f64,
    /// The median of the rounds' ratios.
    median: f64,
}

/// One contender's part of a measure.
#[derive(Serialize)]
struct Row {
    name: String,
    /// For each packet, at best.
    ns: f64,
    against: Vec<Against>,
}

#[derive(Serialize)]
struct Measured {
    name: String,
    kind: &'static str,
    octets: Option<usize>,
    contenders: Vec<Row>,
}

/// The table.
#[derive(Serialize)]
struct Ratios {
    cpu: String,
    rounds: usize,
    missing: Vec<String>,
    measures: Vec<Measured>,
}

/// Times of all contenders, in nanoseconds for all packets.
struct Times {
    /// The shortest of each.
    best: Vec<f64>,
    /// Each one's, round by round.
    rounds: Vec<Vec<f64>>,
}

impl Times {
    fn of(measure: Measure, contenders: &mut [Box<dyn Contender>], rounds: usize) -> Self {
        let mut times = vec![Vec::new(); contenders.len()];
        for _ in 0..rounds {
            for (times, contender) in times.iter_mut().zip(&mut *contenders) {
                times.push(measure.run(contender.as_mut()).as_nanos() as f64);
            }
        }
        // They have all done the same work, so they must have the same packets now.
        for contender in &*contenders {
            assert!(
                contender.packets() == contenders[0].packets(),
                "{} encrypts wrongly",
                contender.name()
            );
        }
        Self {
            best: times.iter().map(|times| shortest(times)).collect(),
            rounds: times,
        }
    }

    /// What these take more than those.
    fn over(&self, less: &Self) -> Self {
        let over = |more: &[f64], less: &[f64]| -> Vec<f64> {
            more.iter()
                .zip(less)
                .map(|(more, less)| more - less)
                .collect()
        };
        let rounds = self.rounds.iter().zip(&less.rounds);
        Self {
            best: over(&self.best, &less.best),
            rounds: rounds.map(|(more, less)| over(more, less)).collect(),
        }
    }

    fn rows(&self, contenders: &[Box<dyn Contender>]) -> Vec<Row> {
        let against = |own: usize, other: usize| Against {
            name: contenders[other].name(),
            best: self.best[other] / self.best[own],
            median: median(
                self.rounds[other]
                    .iter()
                    .zip(&self.rounds[own])
                    .map(|(other, own)| other / own)
                    .collect(),
            ),
        };
        let row = |own: usize| Row {
            name: contenders[own].name(),
            ns: self.best[own] / SESSIONS as f64,
            against: (0..2).map(|other| against(own, other)).collect(),
        };
        (0..contenders.len()).map(row).collect()
    }
}

fn show(measured: &Measured) {
    println!("{}", measured.name);
    for row in &measured.contenders {
        print!("  {:<54} {:>7.1} ns", row.name, row.ns);
        for other in &row.against {
            print!("   x {:>5.2} ({:>5.2})", other.best, other.median);
        }
        println!();
    }
}

fn ratios(rounds: usize, json: bool) {
    let mut missing = Vec::new();
    let mut contenders = contenders(&mut missing);
    let mut table = Ratios {
        cpu: processor(),
        rounds,
        missing,
        measures: Vec::new(),
    };
    if !json {
        for line in table.missing.iter().chain([&table.cpu]) {
            println!("{line}");
        }
        println!(
            "ns per packet, best of {rounds} rounds; times as fast as each of the first two, and median of the rounds' ratios\n"
        );
    }
    let mut add = |measured: Measured| {
        if !json {
            show(&measured);
        }
        table.measures.push(measured);
    };
    // Key streams alone: what a long packet takes more than a short one, as both have a key schedule.
    let mut short = None;
    for what in Measure::all() {
        let times = Times::of(what, &mut contenders, rounds);
        let (kind, octets) = what.kind();
        add(Measured {
            name: what.name(),
            kind,
            octets,
            contenders: times.rows(&contenders),
        });
        match (what, &short) {
            (Measure::Crypt(len), None) => short = Some((len, times)),
            (Measure::Crypt(LONGEST), Some((len, short))) => add(Measured {
                name: format!("{} octets without the key schedule", LONGEST - len),
                kind: "octets",
                octets: Some(LONGEST - len),
                contenders: times.over(short).rows(&contenders),
            }),
            _ => {}
        }
    }
    if json {
        println!("{}", serde_json::to_string(&table).unwrap());
    }
}

fn shortest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn packets(criterion: &mut Criterion) {
    for measure in Measure::all() {
        let mut group = criterion.benchmark_group(measure.name());
        group.throughput(Throughput::Elements(SESSIONS as u64));
        for mut contender in contenders(&mut Vec::new()) {
            group.bench_function(contender.name(), |bencher| {
                bencher.iter_custom(|rounds| {
                    (0..rounds)
                        .map(|_| measure.run(contender.as_mut()))
                        .sum::<Duration>()
                });
            });
        }
    }
}

criterion_group! {
    name = cipher;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = packets
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments
        .iter()
        .position(|argument| argument == "--rounds")
        .and_then(|at| arguments.get(at + 1)?.parse().ok());
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let table_alone = filter.is_some_and(|filter| filter == "ratios");
    if table_alone || filter.is_none() {
        let json = arguments.iter().any(|argument| argument == "--json");
        ratios(rounds.unwrap_or(ROUNDS), json);
    }
    if !table_alone {
        cipher();
        Criterion::default().configure_from_args().final_summary();
    }
}
