//! What `flow` prints.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{entries, share, times, whole_seconds};
use crate::report::origin::Origin;
use crate::report::sheet::{Better, Rate, Series, Sheet, Table, three};
use crate::spread::Spread;

#[derive(Deserialize)]
pub(super) struct Flow {
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

/// One rate, series and time for each way of each trial.
pub(super) fn sheet(report: Flow) -> Sheet {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let sheet = super::super::sheet(report).unwrap();
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
}
