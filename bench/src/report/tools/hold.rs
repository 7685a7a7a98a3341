//! What `hold`, `monkey` and `soak` print.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{entries, share, times};
use crate::report::origin::Origin;
use crate::report::sheet::{Better, Series, Sheet, Table, three};
use crate::spread::Spread;

#[derive(Deserialize)]
pub(super) struct Hold {
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
    #[serde(default)]
    intervals: Vec<Interval>,
}

#[derive(Deserialize)]
struct Interval {
    until: f64,
    up: u64,
    fewest_up: u64,
    failed: u64,
    ended: u64,
    set_up_ms: Spread,
    echo_ms: Spread,
    memory_kib: Option<u64>,
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

/// What became of calls that were to stay up.
pub(super) fn sheet(report: Hold) -> Sheet {
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
    let row = |piece: &Interval| {
        vec![
            three(piece.until),
            piece.up.to_string(),
            piece.fewest_up.to_string(),
            piece.ended.to_string(),
            piece.failed.to_string(),
            three(piece.set_up_ms.p50),
            three(piece.echo_ms.p50),
            piece
                .memory_kib
                .map_or_else(|| "-".to_owned(), |kib| kib.to_string()),
        ]
    };
    tables.push(Table {
        name: "Piece by piece",
        heads: vec![
            "until second",
            "up",
            "fewest up",
            "ended",
            "failed",
            "set up, p50 ms",
            "echo, p50 ms",
            "memory, KiB",
        ],
        rows: report.intervals.iter().map(row).collect(),
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monkey_is_read() {
        let spread = serde_json::to_value(Spread::default()).unwrap();
        let report = serde_json::json!({"tool": "monkey", "server": "10.7.0.1", "calls": 20,
            "back": 19, "fewest_up": 3, "dials": 40, "failed": 1, "failures": {"lcp: silence": 1},
            "ended": {"silence": 2}, "set_up_ms": spread, "back_ms": spread, "echoes_sent": 20,
            "echoes_answered": 19, "echo_ms": spread, "up_each_second": [0, 20, 19],
            "intervals": [{"until": 60.0, "up": 20, "fewest_up": 3, "failed": 1, "ended": 2, "strikes": 9,
                "set_up_ms": spread, "back_ms": spread, "echo_ms": spread, "memory_kib": 900}],
            "monkey": {"seed": 7, "strikes": 9, "kinds": [{"kind": "reset", "count": 9, "ended": 0,
                "back_ms": spread}]}});
        let sheet = super::super::sheet(report).unwrap();
        assert_eq!(sheet.title, "monkey on 10.7.0.1");
        assert_eq!(sheet.series[0].lines[0].1, [0.0, 20.0, 19.0]);
        assert_eq!(sheet.reasons["when up: silence"], 2);
        assert_eq!(sheet.tables[0].rows[0][..2], ["reset", "9"]);
        assert_eq!(sheet.times.len(), 4);
        assert_eq!(sheet.tables[1].rows[0].last().unwrap(), "900");
        assert!(
            sheet
                .tables
                .iter()
                .all(|table| { table.rows.iter().all(|row| row.len() == table.heads.len()) })
        );
    }
}
