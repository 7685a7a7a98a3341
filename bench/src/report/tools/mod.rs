//! What each tool prints, as far as it is shown: no more of it is asked for, so that reports of other versions can be read.

mod flow;
mod hold;

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::origin::Origin;
use super::sheet::{Better, Chart, Rate, Share, Sheet, Times, three};
use crate::spread::Spread;

/// From the report of any tool.
pub(super) fn sheet(value: Value) -> anyhow::Result<Sheet> {
    let tool = value.get("tool").and_then(Value::as_str).map(str::to_owned);
    match tool.as_deref() {
        Some("storm") => read("storm", value).map(storm),
        Some("flow") => read("flow", value).map(flow::sheet),
        Some(tool @ ("hold" | "monkey" | "soak")) => read(tool, value).map(hold::sheet),
        Some("figures") => read("figures", value).map(figures),
        Some(other) => {
            anyhow::bail!(
                "{other:?} is none of the tools known here: storm, flow, hold, monkey, soak"
            )
        }
        None => anyhow::bail!("it does not say what it is of (there is no \"tool\")"),
    }
}

fn read<T: DeserializeOwned>(tool: &str, value: Value) -> anyhow::Result<T> {
    serde_json::from_value(value)
        .with_context(|| format!("this does not have all that {tool} reports"))
}

fn share(name: impl Into<String>, part: u64, of: u64, better: Better) -> Share {
    Share {
        name: name.into(),
        part,
        of,
        better,
    }
}

fn times(name: impl Into<String>, ms: Spread, principal: bool) -> Times {
    Times {
        name: name.into(),
        ms,
        principal,
    }
}

fn entries(all: Vec<(&str, String)>) -> Vec<(String, String)> {
    let all = all.into_iter();
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What is begun of the last second says nothing about a whole one.
fn whole_seconds(counts: impl IntoIterator<Item = u64>, seconds: f64) -> Vec<f64> {
    let mut counts: Vec<f64> = counts.into_iter().map(|count| count as f64).collect();
    counts.resize(seconds as usize, 0.0);
    counts
}

#[derive(Deserialize)]
struct Storm {
    #[serde(flatten)]
    origin: Origin,
    server: String,
    begun: u64,
    up: u64,
    failed: u64,
    lost: u64,
    held_back: u64,
    refused: u64,
    seconds: f64,
    rate: f64,
    failures: BTreeMap<String, u64>,
    phases: Vec<StormPhase>,
    total_ms: Spread,
    each_second: Vec<u64>,
}

#[derive(Deserialize)]
struct StormPhase {
    phase: String,
    ms: Spread,
}

fn storm(report: Storm) -> Sheet {
    let ms = &report.total_ms;
    let mut summary = vec![
        ("calls set up per second", three(report.rate)),
        ("calls that came up", report.up.to_string()),
        ("did not", report.failed.to_string()),
        ("lost later", report.lost.to_string()),
        ("half took, ms", three(ms.p50)),
        ("99 of 100 took, ms", three(ms.p99)),
        ("seconds", three(report.seconds)),
    ];
    for (name, count) in [
        ("begun late: --outstanding", report.held_back),
        ("packets without room", report.refused),
    ] {
        if count > 0 {
            summary.push((name, count.to_string()));
        }
    }
    let phases = report.phases.into_iter();
    Sheet {
        title: format!("storm on {}", report.server),
        summary: entries(summary),
        rates: vec![Rate {
            name: "calls set up".to_owned(),
            each_second: whole_seconds(report.each_second, report.seconds),
            mean: report.rate,
        }],
        times: phases
            .map(|one| times(one.phase, one.ms, false))
            .chain([times("all", report.total_ms, true)])
            .collect(),
        shares: vec![
            share(
                "calls that did not come up",
                report.failed,
                report.begun,
                Better::Less,
            ),
            share("calls lost", report.lost, report.up, Better::Less),
        ],
        reasons: report.failures,
        origin: report.origin,
        ..Sheet::default()
    }
}

/// Figures that no tool of this program measured: those of `cargo xtask bench`.
#[derive(Deserialize)]
struct Figures {
    #[serde(flatten)]
    origin: Origin,
    title: String,
    charts: Vec<Chart>,
}

fn figures(report: Figures) -> Sheet {
    Sheet {
        origin: report.origin,
        title: report.title,
        charts: report.charts,
        ..Sheet::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sheet::tests::STORM;

    #[test]
    fn a_storm_is_read() {
        let sheet = Sheet::parse(STORM).unwrap();
        assert_eq!(sheet.title, "storm on 10.7.0.1");
        assert_eq!(sheet.origin.options["rate"], "100");
        let [rate] = &sheet.rates[..] else {
            panic!("{:?}", sheet.rates);
        };
        // 4.9 s: four whole seconds, in the last of which nothing came up.
        assert_eq!(rate.each_second, [90.0, 101.0, 99.0, 0.0]);
        let names: Vec<&str> = sheet.times.iter().map(|one| &*one.name).collect();
        assert_eq!(names, ["lcp", "authentication", "all"]);
        assert_eq!((sheet.shares[0].part, sheet.shares[0].of), (3, 293));
        assert_eq!(sheet.reasons.len(), 1);
    }

    #[test]
    fn figures_are_read() {
        let report = serde_json::json!({"tool": "figures", "title": "ciphers", "charts": [
            {"name": "RC4", "unit": "ns", "groups": ["64", "1400"], "bars": [["ours", [1.0, 2.0]]]}]});
        let sheet = sheet(report).unwrap();
        assert_eq!(sheet.charts[0].bars[0].1, [1.0, 2.0]);
        assert_eq!(sheet.charts[0].level, None);
    }
}
