//! `cargo xtask bench`: every figure that the project shows, measured one after the other, and written down.

mod figures;
mod machine;
mod million;
mod results;
pub mod road;
mod stock;
pub mod storms;
mod suites;
mod workers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::console::Console;
use crate::lab::process::Process;
use crate::lab::{build, needs, target};
use machine::Machine;
use suites::Suite;

/// Options of `cargo xtask bench`.
#[derive(clap::Args, Debug, Clone)]
#[command(after_help = "\
Builds everything optimised, then measures, one after the other, so that nothing measures anything else:\n  \
    cipher        ratios to OpenSSL's low-level functions and to a loop as in Linux, contenders in turns\n  \
    packets       what a packet costs between two memory devices, over few and over many calls, and a set-up of PPP\n  \
    instructions  how many instructions a packet takes, by callgrind\n  \
    million       a million calls in one process: memory, set-up, packets through random calls, the end (some 10 GiB)\n  \
    road          packets forwarded by a worker beside a bare AF_XDP loop on the same ports, in namespaces (needs root)\n  \
    storm         call set-ups per second of turnpike on one core, in namespaces (needs root: sudo is asked for)\n  \
    flow          packets through calls, both ways, and what became of each, in namespaces\n  \
    workers       two workers beside one: packets handed over, none overtaken, in namespaces\n  \
    stock         storm, flow and monkey against pptpd, which is not ours, in a guest\n\n\
Writes RESULTS.md with tables, and results/ beside it with plots (SVG) and the reports (JSON), for `turnpike-bench compare`.\n\
Leave the machine alone meanwhile; the load at the beginning is written down, too.\n\n\
Examples:\n  \
    cargo xtask bench                      all of it, into bench/, in about a quarter of an hour after building\n  \
    cargo xtask bench --quick              in a few minutes, into target/xtask/bench/quick: shows that it works, and no more\n  \
    cargo xtask bench --only storm         one suite (repeat for more); the others are left out of RESULTS.md")]
pub struct Args {
    /// Shorter times, into another folder
    #[arg(long)]
    pub quick: bool,
    /// Where RESULTS.md and results/ go [default: bench, with --quick target/xtask/bench/quick]
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Measure only this (may be repeated)
    #[arg(long, value_enum, value_name = "SUITE")]
    pub only: Vec<Suite>,
}

/// What a suite found, or why it found nothing.
type Found = Result<serde_json::Value, String>;

/// Runs it; whether everything could be measured.
pub fn run(args: &Args, root: &Path) -> Result<bool> {
    let console = Console::new(false);
    let began = Instant::now();
    let machine = Machine::look(root);
    // Nobody should take figures for real that were measured in what time was left over.
    ensure!(
        args.quick || !machine.idle_class,
        "this runs in the scheduler's idle class (chrt --idle): what it measured would mean nothing; --quick is allowed to"
    );
    let suites: Vec<Suite> = Suite::ALL
        .into_iter()
        .filter(|suite| args.only.is_empty() || args.only.contains(suite))
        .collect();
    if suites.iter().any(|suite| suite.needs_root()) {
        let mut wanted = needs::NAMESPACES.to_vec();
        if suites.contains(&Suite::Stock) {
            wanted.extend([needs::GUESTS, needs::STOCK_SERVER].concat());
        }
        needs::install(&wanted, &mut |line| console.line(line))?;
        if !needs::is_root() {
            // Asked for now, in the foreground; later nothing can ask.
            let status = needs::as_root("true")?.status()?;
            ensure!(
                status.success(),
                "namespaces need root, and sudo refused; --only cipher --only packets needs neither"
            );
        }
    }
    if suites.contains(&Suite::Instructions) {
        needs::install(needs::COUNTING, &mut |line| console.line(line))?;
    }
    for warning in machine.warnings() {
        console.line(format!("warning: {warning}"));
    }
    console.line("building (release, and the benchmarks)");
    build(true)?;
    suites::build(root)?;
    let (suites, absent): (Vec<Suite>, Vec<Suite>) =
        suites.into_iter().partition(|suite| suite.exists());
    for suite in absent {
        ensure!(
            args.only.is_empty(),
            "this turnpike-bench has no {}",
            suite.name()
        );
        console.line(format!("{}: not in this turnpike-bench", suite.name()));
    }
    let scratch = root.join("target/xtask/bench");
    fs::create_dir_all(&scratch)?;
    let mut found: Vec<(Suite, Found)> = Vec::new();
    for (at, suite) in suites.iter().enumerate() {
        let name = format!("{} ({} of {})", suite.name(), at + 1, suites.len());
        let one = suite
            .measure(&name, args.quick, root, &scratch, console)
            .map_err(|error| format!("{error:#}"));
        if let Err(error) = &one {
            console.line(format!("{}: not measured: {error}", suite.name()));
        }
        found.push((*suite, one));
    }
    let output = match (&args.output, args.quick) {
        (Some(output), _) => output.clone(),
        (None, true) => scratch.join("quick"),
        (None, false) => root.join("bench"),
    };
    write(&machine, &found, args.quick, &scratch, &output)?;
    let seconds = began.elapsed().as_secs();
    console.line(format!(
        "{} min {} s in all; see {}",
        seconds / 60,
        seconds % 60,
        output.join("RESULTS.md").display()
    ));
    Ok(found.iter().all(|(_, found)| found.is_ok()))
}

/// The file and what it shows.
fn write(
    machine: &Machine,
    found: &[(Suite, Found)],
    quick: bool,
    scratch: &Path,
    output: &Path,
) -> Result<()> {
    let folder = output.join("results");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut plots = Vec::new();
    for (suite, found) in found {
        if let Ok(found) = found {
            plots.extend(figures::draw(*suite, found, machine, scratch, &folder)?);
        }
    }
    let text = results::page(machine, found, &plots, quick);
    let path = output.join("RESULTS.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs a program to its end under a bar that knows about how long it takes; what it printed.
fn watch(
    name: &str,
    command: &Command,
    scratch: &Path,
    expected: Duration,
    console: Console,
) -> Result<String> {
    let limit = 4 * expected + Duration::from_secs(20 * 60);
    let bar = console.seconds(name, expected.as_secs().max(1));
    let file = name.split(' ').next().unwrap_or(name);
    let mut process = Process::start(file, command, scratch)?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        if began.elapsed() > limit {
            bail!("not done within {limit:?}:\n{}", process.tail());
        }
        bar.set_position(began.elapsed().min(expected).as_secs());
        std::thread::sleep(Duration::from_millis(100));
    };
    bar.finish_and_clear();
    ensure!(
        status.success(),
        "it failed ({status}):\n{}",
        process.tail()
    );
    console.line(format!("{name:<24} {:>4} s", began.elapsed().as_secs()));
    Ok(process.output())
}

/// `turnpike-bench` of this build.
fn bench_program() -> Result<PathBuf> {
    Ok(target(true)?.join("turnpike-bench"))
}
