//! `turnpike-bench road` over a worker, a bare loop, Linux and a tun device: all of them forward, what arrives is what should, and
//! what is measured is told. How fast they are is no part of it.
//!
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test says where it cannot go on")]

use serde_json::{Value, json};
use xtask::bench::road::Row;

/// A turn of each, on whatever processors there are.
const WORDS: [&str; 12] = [
    "--size",
    "64",
    "--rounds",
    "1",
    "--seconds",
    "0.1",
    "--loss-seconds",
    "0.1",
    "--latency-seconds",
    "0.1",
    "--calls",
    "20",
];

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

#[test]
fn all_contenders_forward_what_is_checked_octet_by_octet() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        // Who makes packets and who forwards them need one each.
        return;
    }
    let row = Row::build().unwrap();
    let report = row.measure(&WORDS).unwrap();
    let rows = list(&report["rows"]);
    assert_eq!(rows.len(), 11, "{report}");
    for row in rows {
        if row["contender"] == json!("cipher") {
            assert!(row["best"].as_f64().unwrap() > 0.0);
            continue;
        }
        let turn = &row["turns"][0];
        assert!(turn["arrived"].as_u64().unwrap() > 0, "{row}");
        // One in 256 is looked at.
        let enough = turn["arrived"].as_u64().unwrap() >= 512;
        assert!(!enough || turn["checked"].as_u64().unwrap() > 0, "{row}");
    }
    let names: Vec<&str> = list(&report["ratios"])
        .iter()
        .filter_map(|ratio| ratio["name"].as_str())
        .collect();
    assert_eq!(names.len(), 5);
    assert_eq!(list(&report["losses"]).len(), 3);
    assert_eq!(list(&report["mice"]).len(), 3);
    for one in list(&report["latencies"]) {
        let us = |name: &str| one["us"][name].as_f64().unwrap();
        assert!(us("p50") <= us("p99") && us("p99") <= us("max"), "{one}");
    }
}
