//! What each tool prints, as far as it is shown: no more of it is asked for, so that reports of other versions can be read.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::origin::Origin;
use super::sheet::{Better, Chart, Rate, Series, Share, Sheet, Table, Times, three};
use crate::spread::Spread;

/// From the report of any tool.
pub(super) fn sheet(value: Value) -> anyhow::Result<Sheet> {
    match value.get("tool").and_then(Value::as_str) {
        Some("storm") => read("storm", value).map(storm),
        Some("flow") => read("flow", value).map(flow),
        Some("hold") => read("hold", value).map(hold),
        Some("monkey") => read("monkey", value).map(hold),
        Some("figures") => read("figures", value).map(figures),
        Some(other) => {
            anyhow::bail!("{other:?} is none of the tools known here: storm, flow, hold, monkey")
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

#[derive(Deserialize)]
struct Flow {
    #[serde(flatten)]
    origin: Origin,
    server: String,
    calls: FlowCalls,
    flows: Option<FlowVerified>,
    trials: Vec<FlowTrial>,
}

#[derive(Deserialize)]
struct FlowCalls {
    begun: u64,
    up: u64,
    lost: u64,
    failures: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct FlowVerified {
    flows: u64,
    all_ways: u64,
}

#[derive(Deserialize)]
struct FlowTrial {
    size: String,
    seconds: f64,
    ways: Vec<FlowWay>,
}

#[derive(Deserialize)]
struct FlowWay {
    way: String,
    sent: u64,
    unsent: u64,
    received: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    received_pps: f64,
    received_bps: f64,
    latency_ms: Spread,
    lateness_ms: Spread,
    each_second: Vec<FlowSecond>,
    #[serde(default)]
    worst_flows: Vec<FlowOne>,
}

#[derive(Deserialize)]
struct FlowSecond {
    received: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(Deserialize)]
struct FlowOne {
    address: String,
    sent: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

fn flow(report: Flow) -> Sheet {
    let mut summary = vec![("calls up", report.calls.up.to_string())];
    let mut shares = vec![
        share(
            "calls that did not come up",
            report.calls.begun.saturating_sub(report.calls.up),
            report.calls.begun,
            Better::Less,
        ),
        share(
            "calls lost",
            report.calls.lost,
            report.calls.up,
            Better::Less,
        ),
    ];
    if let Some(verified) = &report.flows {
        let value = format!("{} of {}", verified.all_ways, verified.flows);
        summary.push(("flows verified", value));
        shares.push(share(
            "flows verified",
            verified.all_ways,
            verified.flows,
            Better::More,
        ));
    }
    let mut sheet = Sheet {
        title: format!("flow through {}", report.server),
        shares,
        reasons: report.calls.failures,
        origin: report.origin,
        ..Sheet::default()
    };
    let (mut totals, mut worst) = (Vec::new(), Vec::new());
    let (mut lost, mut unsent) = (0, 0);
    for trial in report.trials {
        for way in trial.ways {
            let name = format!("{} {}", trial.size, way.way);
            lost += way.lost;
            unsent += way.unsent;
            totals.push(
                [
                    name.clone(),
                    way.sent.to_string(),
                    way.received.to_string(),
                    way.lost.to_string(),
                    way.reordered.to_string(),
                    way.duplicates.to_string(),
                    format!("{:.0}", way.received_pps),
                    three(way.received_bps / 1e6),
                    three(way.lateness_ms.p99),
                ]
                .to_vec(),
            );
            worst.extend(way.worst_flows.iter().map(|flow| {
                [
                    format!("{name} {}", flow.address),
                    flow.sent.to_string(),
                    flow.lost.to_string(),
                    flow.reordered.to_string(),
                    flow.duplicates.to_string(),
                    three(flow.p50_ms),
                    three(flow.p99_ms),
                    three(flow.max_ms),
                ]
                .to_vec()
            }));
            let line = |of: fn(&FlowSecond) -> f64| way.each_second.iter().map(of).collect();
            sheet.series.push(Series {
                name: format!("{name}: latency in each second"),
                unit: "milliseconds",
                logarithmic: true,
                lines: vec![
                    ("p50", line(|second| second.p50_ms)),
                    ("p99", line(|second| second.p99_ms)),
                    ("max", line(|second| second.max_ms)),
                ],
            });
            sheet.rates.push(Rate {
                name: format!("{name}: packets received"),
                each_second: whole_seconds(
                    way.each_second.iter().map(|second| second.received),
                    trial.seconds,
                ),
                mean: way.received_pps,
            });
            for (what, part, of) in [
                ("lost", way.lost, way.sent),
                ("reordered", way.reordered, way.received),
                ("doubled", way.duplicates, way.received),
            ] {
                let name = format!("{name}: packets {what}");
                sheet.shares.push(share(name, part, of, Better::Less));
            }
            sheet
                .times
                .push(times(format!("{name} latency"), way.latency_ms, true));
        }
    }
    summary.push(("packets lost", lost.to_string()));
    if unsent > 0 {
        summary.push(("too slow to send", unsent.to_string()));
    }
    sheet.summary = entries(summary);
    sheet.tables.push(Table {
        name: "Each way",
        heads: vec![
            "",
            "sent",
            "received",
            "lost",
            "reordered",
            "doubled",
            "packets/s",
            "Mbit/s",
            "sent late by, p99 ms",
        ],
        rows: totals,
    });
    sheet.tables.push(Table {
        name: "Flows that lost most, or were slowest",
        heads: vec![
            "",
            "sent",
            "lost",
            "reordered",
            "doubled",
            "p50 ms",
            "p99 ms",
            "max ms",
        ],
        rows: worst,
    });
    sheet
}

#[derive(Deserialize)]
struct Hold {
    #[serde(flatten)]
    origin: Origin,
    server: String,
    calls: u64,
    back: u64,
    fewest_up: u64,
    dials: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
    ended: BTreeMap<String, u64>,
    set_up_ms: Spread,
    back_ms: Spread,
    echoes_sent: u64,
    echoes_answered: u64,
    echo_ms: Spread,
    up_each_second: Vec<u32>,
    monkey: Option<Monkey>,
}

#[derive(Deserialize)]
struct Monkey {
    strikes: u64,
    kinds: Vec<MonkeyKind>,
}

#[derive(Deserialize)]
struct MonkeyKind {
    kind: String,
    count: u64,
    ended: u64,
    back_ms: Spread,
}

/// What `hold` prints, and `monkey`, which says more.
fn hold(report: Hold) -> Sheet {
    let ended: u64 = report.ended.values().sum();
    let mut summary = vec![
        ("calls", report.calls.to_string()),
        ("up at the end", report.back.to_string()),
        ("fewest up", report.fewest_up.to_string()),
        ("ended by themselves", ended.to_string()),
        ("set-ups that failed", report.failed.to_string()),
    ];
    let mut all = vec![
        times("set up", report.set_up_ms, true),
        times("back", report.back_ms, true),
        times("echo", report.echo_ms, false),
    ];
    let mut tables = Vec::new();
    if let Some(monkey) = report.monkey {
        summary.push(("strikes", monkey.strikes.to_string()));
        let row = |kind: &MonkeyKind| {
            vec![
                kind.kind.clone(),
                kind.count.to_string(),
                kind.ended.to_string(),
                three(kind.back_ms.p50),
                three(kind.back_ms.p99),
            ]
        };
        tables.push(Table {
            name: "What the monkey did",
            heads: vec!["", "times", "not survived", "back, p50 ms", "p99 ms"],
            rows: monkey.kinds.iter().map(row).collect(),
        });
        let kinds = monkey.kinds.into_iter();
        all.extend(kinds.map(|kind| {
            let name = format!("back after {}", kind.kind);
            times(name, kind.back_ms, false)
        }));
    }
    let mut reasons = report.failures;
    for (reason, count) in report.ended {
        *reasons.entry(format!("when up: {reason}")).or_default() += count;
    }
    let up = report.up_each_second.into_iter();
    Sheet {
        title: format!("{} on {}", report.origin.tool, report.server),
        summary: entries(summary),
        series: vec![Series {
            name: "calls that were up".to_owned(),
            unit: "calls",
            logarithmic: false,
            lines: vec![("up", up.map(f64::from).collect())],
        }],
        times: all,
        shares: vec![
            share(
                "set-ups that failed",
                report.failed,
                report.dials,
                Better::Less,
            ),
            share(
                "calls back at the end",
                report.back,
                report.calls,
                Better::More,
            ),
            share(
                "echoes answered",
                report.echoes_answered,
                report.echoes_sent,
                Better::More,
            ),
        ],
        tables,
        reasons,
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
    use super::super::sheet::tests::STORM;
    use super::*;

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
    fn a_flow_is_read() {
        let spread = serde_json::to_value(Spread::default()).unwrap();
        let second = serde_json::json!({"sent": 9, "received": 7, "bits": 1, "p50_ms": 0.5,
            "p99_ms": 1.0, "p999_ms": 2.0, "max_ms": 3.0});
        let way = serde_json::json!({"way": "up", "sent": 18, "unsent": 1, "received": 14,
            "lost": 4, "reordered": 1, "duplicates": 0, "received_pps": 7.0, "received_bps": 1e6,
            "latency_ms": spread, "lateness_ms": spread,
            "each_second": [second, second, second],
            "worst_flows": [{"flow": 0, "address": "10.20.0.1", "sent": 9, "received": 5,
                "lost": 4, "reordered": 0, "duplicates": 0, "p50_ms": 0.1, "p99_ms": 0.2,
                "max_ms": 0.3}]});
        let report = serde_json::json!({"tool": "flow", "version": "0", "server": "10.7.0.1",
            "calls": {"begun": 2, "up": 2, "lost": 0, "setup_seconds": 0.1, "failures": {}},
            "flows": {"flows": 2, "all_ways": 1, "ways": {}, "seconds": 0.1},
            "trials": [{"size": "imix", "rate": 9.0, "seconds": 2.0, "ways": [way]}]});
        let sheet = sheet(report).unwrap();
        assert_eq!(sheet.rates[0].name, "imix up: packets received");
        // What came after the last was sent is in no whole second.
        assert_eq!(sheet.rates[0].each_second, [7.0, 7.0]);
        assert_eq!(sheet.series[0].lines[2], ("max", vec![3.0; 3]));
        let lost = sheet
            .shares
            .iter()
            .find(|one| one.name.ends_with("lost") && one.part > 0);
        assert_eq!(lost.map(|one| (one.part, one.of)), Some((4, 18)));
        assert_eq!(sheet.tables[1].rows[0][0], "imix up 10.20.0.1");
        assert!(
            sheet
                .tables
                .iter()
                .all(|table| { table.rows.iter().all(|row| row.len() == table.heads.len()) })
        );
    }

    #[test]
    fn figures_are_read() {
        let report = serde_json::json!({"tool": "figures", "title": "ciphers", "charts": [
            {"name": "RC4", "unit": "ns", "groups": ["64", "1400"], "bars": [["ours", [1.0, 2.0]]]}]});
        let sheet = sheet(report).unwrap();
        assert_eq!(sheet.charts[0].bars[0].1, [1.0, 2.0]);
        assert_eq!(sheet.charts[0].level, None);
    }

    #[test]
    fn a_monkey_is_read() {
        let spread = serde_json::to_value(Spread::default()).unwrap();
        let report = serde_json::json!({"tool": "monkey", "server": "10.7.0.1", "calls": 20,
            "back": 19, "fewest_up": 3, "dials": 40, "failed": 1, "failures": {"lcp: silence": 1},
            "ended": {"silence": 2}, "set_up_ms": spread, "back_ms": spread, "echoes_sent": 20,
            "echoes_answered": 19, "echo_ms": spread, "up_each_second": [0, 20, 19],
            "monkey": {"seed": 7, "strikes": 9, "kinds": [{"kind": "reset", "count": 9, "ended": 0,
                "back_ms": spread}]}});
        let sheet = sheet(report).unwrap();
        assert_eq!(sheet.title, "monkey on 10.7.0.1");
        assert_eq!(sheet.series[0].lines[0].1, [0.0, 20.0, 19.0]);
        assert_eq!(sheet.reasons["when up: silence"], 2);
        assert_eq!(sheet.tables[0].rows[0][..2], ["reset", "9"]);
        assert_eq!(sheet.times.len(), 4);
    }
}
