//! The suites that run in namespaces: turnpike on one side, turnpike-bench on the other, both on this machine.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use super::suites::Suite;
use crate::lab::binary;
use crate::lab::road::{self, ClientSide, Road};
use crate::lab::server::{Configuration, Server};

/// Runs of each kind: what varies from run to run is known from three on.
const RUNS: usize = 3;

/// Set-ups under way at a time, where as many as can be are to be answered.
const OUTSTANDING: u32 = 64;

/// Addresses that calls come from, besides the client's own: each has only so many TCP ports.
const MORE: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 7, 0, 101),
    Ipv4Addr::new(10, 7, 0, 102),
    Ipv4Addr::new(10, 7, 0, 103),
];

/// The far end of flows, and the internet's side of the way there.
const NETWORK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);
const BESIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 89);

/// A part of `cargo xtask bench` that runs as a process of its own, as root.
#[derive(clap::Args, Debug, Clone)]
pub struct Measure {
    /// storm, flow, workers, stock or road
    pub suite: Suite,
    /// Where reports go
    pub folder: PathBuf,
    /// Shorter times
    #[arg(long)]
    pub quick: bool,
}

pub(super) struct Stage {
    pub(super) road: Road,
    pub(super) server: Server,
    user: String,
    password: String,
}

/// What server, and on what.
pub(super) struct Shape {
    /// The configuration that it begins from.
    pub(super) example: &'static str,
    /// Queues of each device.
    pub(super) queues: u8,
    /// How many there are to be, if not the example's.
    pub(super) workers: Option<u8>,
    /// turnpike has a processor of its own, workers and control plane and all, and the tools have the others.
    pub(super) one_core: bool,
}

/// One worker, and what it cannot forward itself goes by way of Linux.
const OFFICE: Shape = Shape {
    example: "office",
    queues: 1,
    workers: None,
    one_core: false,
};

/// Runs a suite; its reports lie in the folder afterwards.
pub fn run(measure: &Measure) -> Result<()> {
    if measure.suite == Suite::Road {
        return super::road::run(&measure.folder, measure.quick);
    }
    if measure.suite == Suite::Stock {
        return super::stock::run(&measure.folder, measure.quick);
    }
    if measure.suite == Suite::Workers {
        return super::workers::run(&measure.folder, measure.quick);
    }
    let shape = Shape {
        one_core: measure.suite == Suite::Storm,
        ..OFFICE
    };
    let stage = Stage::build(&shape)?;
    match measure.suite {
        Suite::Storm => storms(&stage, &measure.folder, measure.quick),
        Suite::Flow => flows(&stage, &measure.folder, measure.quick),
        other => bail!("{} needs no namespaces", other.name()),
    }
    .with_context(|| {
        let log = stage.server.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        format!("turnpike's last words:\n{last}")
    })
}

/// The processors that this process may use: the first, and the others. `None` where there is only one.
fn processors() -> Result<Option<(CpuSet, CpuSet)>> {
    let all = sched_getaffinity(None).context("cannot ask for this process's processors")?;
    let mut mine = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
    let Some(first) = mine.next() else {
        return Ok(None);
    };
    let (mut one, mut others) = (CpuSet::new(), all);
    one.set(first);
    others.unset(first);
    Ok((others.count() > 0).then_some((one, others)))
}

/// What this thread starts from now on runs there.
fn confine(processors: &CpuSet) -> Result<()> {
    sched_setaffinity(None, processors).context("cannot choose processors")
}

impl Stage {
    pub(super) fn build(shape: &Shape) -> Result<Self> {
        let road = Road::with_queues(ClientSide::Namespace, shape.queues)?;
        for address in MORE {
            road.client.ip(&format!(
                "addr add {address}/24 dev {}",
                road::CLIENT_INTERFACE
            ))?;
        }
        // Both ends of a flow have one clock: the client has a second way, to behind the server.
        road.internet.veth("n0", &road.client, "n1", 1)?;
        road.internet.ip(&format!("addr add {BESIDE}/30 dev n0"))?;
        road.internet.sysctl("net.ipv4.ip_forward", "1")?;
        road.client.ip(&format!("addr add {NETWORK}/30 dev n1"))?;
        for network in road::INNER {
            road.client
                .ip(&format!("route add {network} via {BESIDE}"))?;
        }
        let mut configuration = Configuration::example(shape.example, road.lab.directory())?;
        for (option, value) in [
            ("limits.connections_per_source", 1024),
            ("limits.unauthenticated_per_source", 1024),
        ] {
            configuration.change(option, value)?;
        }
        if let Some(workers) = shape.workers {
            configuration.change("server.workers", i64::from(workers))?;
            let cpus: Vec<i64> = (0..i64::from(workers)).rev().collect();
            configuration.change("server.cpus", cpus)?;
        }
        let apart = match shape.one_core {
            true => processors()?,
            false => None,
        };
        if let Some((one, _)) = &apart {
            confine(one)?;
        }
        let server = Server::start(&road.concentrator, &configuration)?;
        if let Some((_, others)) = &apart {
            confine(others)?;
        }
        let user = configuration.user()?;
        Ok(Self {
            road,
            server,
            user: user.name,
            password: user.password,
        })
    }

    /// Runs a tool; its report. That something was lost is part of it, and no fault of the run.
    fn tool(&self, words: &[&str]) -> Result<Value> {
        let mut command: Command = self.road.client.command(binary("turnpike-bench")?);
        command
            .args([words[0], &road::SERVER.to_string(), "--json"])
            .args(["--user", &self.user, "--password", &self.password])
            .args(&words[1..]);
        let output = command.output().context("cannot start turnpike-bench")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "turnpike-bench {} measured nothing ({}): {}",
            words[0],
            output.status,
            errors.trim()
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("turnpike-bench printed no report: {}", errors.trim()))
    }

    /// Packets through calls to the far end.
    pub(super) fn flow(&self, more: &[&str]) -> Result<Value> {
        let network = NETWORK.to_string();
        self.tool(&[&["flow", "--network", &network], more].concat())
    }

    fn storm(&self, calls: f64, more: &[&str]) -> Result<Value> {
        let calls = (calls.ceil() as u64).max(1).to_string();
        let from: Vec<String> = [road::CLIENT]
            .iter()
            .chain(&MORE)
            .map(Ipv4Addr::to_string)
            .collect();
        let words = ["storm", "--calls", &calls, "--from", &from.join(",")];
        self.tool(&[&words, more].concat())
    }
}

pub(super) fn save(folder: &Path, name: &str, report: &Value) -> Result<()> {
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, format!("{report}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// As fast as so many at a time are answered; then at half of that rate, where times are those of a server that is not full.
fn storms(stage: &Stage, folder: &Path, quick: bool) -> Result<()> {
    let (runs, seconds) = if quick { (1, 3.0) } else { (RUNS, 10.0) };
    let outstanding = OUTSTANDING.to_string();
    let at_most = ["--outstanding", &*outstanding];
    let rate = |report: &Value| -> Result<f64> {
        let rate = report["rate"].as_f64().filter(|rate| *rate > 0.0);
        rate.with_context(|| format!("no call came up: {}", report["failures"]))
    };
    // How many that is is not known before; the first run also fills caches.
    let mut fastest = rate(&stage.storm(500.0, &at_most)?)?;
    for run in 1..=runs {
        let report = stage.storm(fastest * seconds, &at_most)?;
        fastest = rate(&report)?;
        save(folder, &format!("fastest-{run}"), &report)?;
    }
    let half = format!("{:.0}", (fastest / 2.0).max(1.0));
    for run in 1..=runs {
        let report = stage.storm(fastest / 2.0 * seconds, &["--rate", &half])?;
        save(folder, &format!("half-{run}"), &report)?;
    }
    Ok(())
}

/// Packets of each size both ways, with MPPE-128 and without reordering in between.
fn flows(stage: &Stage, folder: &Path, quick: bool) -> Result<()> {
    let (rate, seconds) = if quick { ("1000", "2") } else { ("5000", "10") };
    let size = "64,576,1400,imix";
    let words = ["--calls", "50", "--rate", rate, "--size", size];
    let report = stage.flow(&[&words, &["--seconds", seconds][..]].concat())?;
    save(folder, "imix", &report)
}
