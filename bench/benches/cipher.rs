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
#[path = "cipher/openssl.rs"]
mod openssl;

use core::time::Duration;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group};
use serde::Serialize;
use turnpike_bench::report::processor;
use turnpike_dataplane::cipher::Engine;

use contenders::{Contender, Crates, KernelLoop, LONGEST, SESSIONS, Single, Theirs, Together};
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
}

impl Measure {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Change];
        all.extend(SIZES.map(Self::Crypt));
        all.extend(SIZES.map(Self::Whole));
        all.push(Self::Mixed);
        all
    }

    fn name(self) -> String {
        match self {
            Self::Change => "key change".to_owned(),
            Self::Crypt(len) => format!("fresh key, {len} octets"),
            Self::Whole(len) => format!("stateless packet of {len} octets"),
            Self::Mixed => "stateless packet of 64, 576 or 1400 octets, 7:4:1".to_owned(),
        }
    }

    /// What is done, and to packets of how many octets.
    fn kind(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Change => ("change", None),
            Self::Crypt(len) => ("crypt", Some(len)),
            Self::Whole(len) => ("whole", Some(len)),
            Self::Mixed => ("mixed", None),
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

fn measure(measure: Measure, contenders: &mut [Box<dyn Contender>], rounds: usize) -> Measured {
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
    let rows = times.iter().zip(&*contenders).map(|(own, contender)| Row {
        name: contender.name(),
        ns: shortest(own) / SESSIONS as f64,
        against: times[..2]
            .iter()
            .zip(&*contenders)
            .map(|(other, contender)| {
                let ratios = other.iter().zip(own).map(|(other, own)| other / own);
                Against {
                    name: contender.name(),
                    best: shortest(other) / shortest(own),
                    median: median(ratios.collect()),
                }
            })
            .collect(),
    });
    let (kind, octets) = measure.kind();
    Measured {
        name: measure.name(),
        kind,
        octets,
        contenders: rows.collect(),
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
    for what in Measure::all() {
        let measured = measure(what, &mut contenders, rounds);
        if !json {
            println!("{}", measured.name);
            for row in &measured.contenders {
                print!("  {:<54} {:>7.1} ns", row.name, row.ns);
                for other in &row.against {
                    print!("   x {:>5.2} ({:>5.2})", other.best, other.median);
                }
                println!();
            }
        }
        table.measures.push(measured);
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
