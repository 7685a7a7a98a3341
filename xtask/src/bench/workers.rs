//! Two workers beside one, on devices with two queues: what handing packets over costs, and whether any is overtaken.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::storms::{Shape, Stage, save};
use crate::lab::road;
use crate::lab::server::Stats;

const CALLS: &str = "100";

/// Addresses that calls come from where they come from many.
const MANY: u8 = 50;

/// Packets per second each way: less than one worker forwards beside everything else here, and more than anybody does.
const RATES: [(&str, &str); 2] = [("steady", "10000"), ("most", "400000")];

/// Runs it; reports lie in the folder afterwards.
pub fn run(folder: &Path, quick: bool) -> Result<()> {
    let seconds = if quick { "2" } else { "5" };
    for workers in [1, 2] {
        let stage = Stage::build(&Shape {
            example: "edge",
            queues: 2,
            workers: Some(workers),
            one_core: false,
        })?;
        let many: Vec<String> = (0..MANY)
            .map(|last| Ipv4Addr::new(10, 7, 0, 100 + last).to_string())
            .collect();
        for address in &many {
            let interface = road::CLIENT_INTERFACE;
            // Some are there already.
            stage
                .road
                .client
                .ip(&format!("addr replace {address}/24 dev {interface}"))?;
        }
        for (from, addresses) in [("one", road::CLIENT.to_string()), ("many", many.join(","))] {
            for (name, rate) in RATES {
                let (stats, ticks) = (stage.server.settled()?, stage.ticks()?);
                let report = stage.flow(&[
                    "--calls",
                    CALLS,
                    "--from",
                    &addresses,
                    "--rate",
                    rate,
                    "--size",
                    "64",
                    "--seconds",
                    seconds,
                ])?;
                let packets = packets(&stage.server.settled()?, &stats);
                let ticks: Vec<u64> = (stage.ticks()?.iter().zip(ticks))
                    .map(|(after, before)| after - before)
                    .collect();
                let report = json!({
                    "workers": workers,
                    "addresses": from,
                    "rate": name,
                    "ticks_per_second": rustix::param::clock_ticks_per_second(),
                    "worker_ticks": ticks,
                    "packets": packets,
                    "flow": report,
                });
                save(folder, &format!("{workers}-{from}-{name}"), &report)?;
            }
        }
    }
    Ok(())
}

/// How many packets workers forwarded, and how many of them were handed over, between two looks.
fn packets(after: &Stats, before: &Stats) -> Value {
    let total = |stats: &Stats, name: &str| -> u64 {
        let totals = stats.workers.iter().map(|worker| worker.totals[name]);
        totals.sum()
    };
    let since = |name| total(after, name) - total(before, name);
    json!({
        "forwarded": since("decapsulated") + since("encapsulated"),
        "handed_over": since("handed-over"),
    })
}

impl Stage {
    /// Processor time of each worker so far, in clock ticks.
    fn ticks(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.server.id()))? {
            let stat = fs::read_to_string(task?.path().join("stat"))?;
            // The name stands in brackets and may hold anything; user time is the 12th word after it, system time the 13th.
            let (name, words) = stat.rsplit_once(") ").context("no name")?;
            if !name.contains("(worker") {
                continue;
            }
            let mut words = words.split(' ').skip(11).map(str::parse::<u64>);
            let mut next = || words.next().context("a short line")?.context("no number");
            all.push(next()? + next()?);
        }
        Ok(all)
    }
}
