//! A million calls in one process: every one is set up by the real state machines of both ends, from control connection
//! to IPCP, into the tables of a real worker; then packets go through random ones, and all end.
//!
//! `cargo bench -p turnpike-tests --bench million` (`--calls 20000` for a short look, `--json` for programs).
#![allow(clippy::print_stdout, reason = "it prints what it found")]

use core::time::Duration;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::BATCH;
use turnpike_dataplane::resident::Resident;
use turnpike_protocol::mppe::Policy;
use turnpike_tests::crowd::{Crowd, Options, Peers};

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sets up many calls in one process, sends packets through random ones, and ends them all
///
/// Everything a server holds for a call is there: its record at a worker, its place in the tables, and the state
/// machines of its control connection and PPP. Not there: TCP in the kernel, and the tasks and timers of the async
/// shell (`controlplane/tests/memory.rs` counts those). A million calls take some 4 GiB of memory.
#[derive(Parser)]
struct Arguments {
    /// How many
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    calls: u32,
    /// Without MPPE
    #[arg(long)]
    clear: bool,
    /// Packets sent each way, of 64 octets inside the tunnel
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// For programs
    #[arg(long)]
    json: bool,
    /// What cargo says
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Report {
    calls: u32,
    mppe: bool,
    /// Octets of the process before there is anything, with empty tables, with all calls, and when they are over.
    memory_before: u64,
    memory_tables: u64,
    memory_calls: u64,
    memory_after: u64,
    /// Of `memory_calls`.
    in_huge_pages: u64,
    /// Octets per call: tables of the worker; everything.
    tables_per_call: f64,
    all_per_call: f64,
    /// Processor time of both ends together.
    tables_seconds: f64,
    set_up_seconds: f64,
    tear_down_seconds: f64,
    /// Of a worker's turn over 64 packets, each for another random call.
    up_ns_per_packet: f64,
    down_ns_per_packet: f64,
    packets_each_way: u32,
    /// Packets that came out whole.
    verified: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let report = run(&arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// Processor time of this thread, which is the only one.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn bar(what: &'static str, total: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(
        "{msg:<12} {bar:40} {human_pos}/{human_len} {per_sec} {eta} left",
    )?;
    Ok(ProgressBar::new(total).with_style(style).with_message(what))
}

fn resident() -> Result<Resident> {
    Resident::now().context("cannot read how much memory the process has")
}

fn run(arguments: &Arguments) -> Result<Report> {
    let calls = usize::try_from(arguments.calls)?;
    let before = resident()?;
    let start = processor_time();
    let mut crowd = Crowd::new(Options {
        calls,
        workers: 1,
        mppe: if arguments.clear {
            Policy::Deny
        } else {
            Policy::Require
        },
        peers: Peers::Random,
        step: Duration::from_micros(20),
    });
    let tables_seconds = (processor_time() - start).as_secs_f64();
    let tables = resident()?;

    let progress = bar("set up", u64::from(arguments.calls))?;
    let wall = Instant::now();
    let start = processor_time();
    for n in 0..calls {
        crowd.dial();
        // What a client knows is none of the server's memory.
        crowd.forget(n);
        progress.inc(1);
    }
    let set_up_seconds = (processor_time() - start).as_secs_f64();
    progress.finish_and_clear();
    let up = resident()?;
    eprint(&format!(
        "{calls} calls up after {:.0} s",
        wall.elapsed().as_secs_f64()
    ));

    let mut chance = ChaCha8Rng::seed_from_u64(2);
    let mut verified = 0;
    let mut traffic = |what, way: Way| -> Result<f64> {
        let progress = bar(what, u64::from(arguments.packets))?;
        let mut time = Duration::ZERO;
        let mut sent = 0;
        while sent < arguments.packets {
            let chosen: Vec<usize> = (0..BATCH)
                .map(|_| chance.next_u32() as usize % calls)
                .collect();
            let (spent, whole) = turn(&mut crowd, &chosen, way);
            ensure!(
                whole == chosen.len(),
                "{whole} of {} packets came out whole",
                chosen.len()
            );
            time += spent;
            verified += whole as u64;
            sent += BATCH as u32;
            progress.inc(BATCH as u64);
        }
        progress.finish_and_clear();
        Ok(time.as_nanos() as f64 / f64::from(sent))
    };
    let up_ns_per_packet = traffic("packets up", Way::Up)?;
    let down_ns_per_packet = traffic("packets down", Way::Down)?;

    let progress = bar("tear down", u64::from(arguments.calls))?;
    let start = processor_time();
    for n in 0..calls {
        crowd.lose(n);
        progress.inc(1);
    }
    let tear_down_seconds = (processor_time() - start).as_secs_f64();
    progress.finish_and_clear();
    ensure!(
        crowd.calls.is_empty() && crowd.ended.values().sum::<usize>() == calls,
        "calls are left over"
    );
    let per_call = |octets: u64| octets.saturating_sub(before.octets) as f64 / calls as f64;
    Ok(Report {
        calls: arguments.calls,
        mppe: !arguments.clear,
        memory_before: before.octets,
        memory_tables: tables.octets,
        memory_calls: up.octets,
        memory_after: resident()?.octets,
        in_huge_pages: up.huge,
        tables_per_call: per_call(tables.octets),
        all_per_call: per_call(up.octets),
        tables_seconds,
        set_up_seconds,
        tear_down_seconds,
        up_ns_per_packet,
        down_ns_per_packet,
        packets_each_way: arguments.packets,
        verified,
    })
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// A packet on each of these calls: how long the worker's turn took, and how many came out whole.
fn turn(crowd: &mut Crowd, chosen: &[usize], way: Way) -> (Duration, usize) {
    let mut expected = Vec::new();
    for (at, &n) in chosen.iter().enumerate() {
        let payload = [at as u8; 44];
        let (port, frame) = match way {
            Way::Up => {
                let (frame, packet) = crowd.up(n, &payload);
                expected.push(packet);
                (Port::Access, frame)
            }
            Way::Down => (Port::Host, crowd.down(n, &payload)),
        };
        assert!(
            crowd.nodes[0].worker.device_mut().inject(port, &frame),
            "the device is full"
        );
    }
    let start = processor_time();
    crowd.turn(0);
    let time = processor_time() - start;
    let device = crowd.nodes[0].worker.device_mut();
    let (host, access) = (device.take(Port::Host), device.take(Port::Access));
    let whole = match way {
        Way::Up => host
            .iter()
            .filter(|frame| expected.iter().any(|packet| frame.ends_with(packet)))
            .count(),
        // They leave in the order in which they came.
        Way::Down => access
            .iter()
            .zip(chosen)
            .zip(0_u8..)
            .filter(|((frame, n), at)| {
                (crowd.opened(**n, frame)).is_some_and(|packet| packet.ends_with(&[*at; 44]))
            })
            .count(),
    };
    (time, whole)
}

fn eprint(text: &str) {
    use std::io::Write as _;
    // Nothing to be done about a stderr that is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(report: &Report) {
    let gib = |octets: u64| octets as f64 / f64::from(1 << 30);
    let Report { calls, .. } = report;
    let how = if report.mppe { "MPPE-128" } else { "in clear" };
    println!("{calls} calls, {how}, one worker, one process");
    println!(
        "memory        {:.2} GiB, {:.2} GiB of it in huge pages; {:.2} GiB when all are over",
        gib(report.memory_calls),
        gib(report.in_huge_pages),
        gib(report.memory_after)
    );
    println!(
        "  per call    {:.0} octets in the worker's tables, {:.0} in all",
        report.tables_per_call, report.all_per_call
    );
    let rate = |seconds: f64| f64::from(*calls) / seconds;
    println!("tables        {:.1} s to make", report.tables_seconds);
    println!(
        "set up        {:.1} s of processor time, both ends: {:.0} calls a second",
        report.set_up_seconds,
        rate(report.set_up_seconds)
    );
    println!(
        "tear down     {:.1} s: {:.0} calls a second",
        report.tear_down_seconds,
        rate(report.tear_down_seconds)
    );
    for (way, ns) in [
        ("up", report.up_ns_per_packet),
        ("down", report.down_ns_per_packet),
    ] {
        println!(
            "packets {way:<5} {:.0} ns each, {:.2} million look-ups and packets a second, on random calls",
            ns,
            1e3 / ns
        );
    }
    println!(
        "verified      {} packets of {}",
        report.verified,
        2 * u64::from(report.packets_each_way)
    );
}
