//! The suite of a million calls in one process.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::results::{number, table};
use crate::console::Console;

/// Calls of the whole run, and of a machine or a run that cannot have so many.
const CALLS: [u32; 2] = [1_000_000, 20_000];

/// Kibibytes that the whole run needs, with some to spare.
const NEEDED: u64 = 11 << 20;

/// How many calls there are to be.
pub(super) fn calls(quick: bool, console: Console) -> Result<u32> {
    if quick {
        return Ok(CALLS[1]);
    }
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let available = available(&text).context("/proc/meminfo has no MemAvailable")?;
    if available < NEEDED {
        console.line(format!(
            "million: {} calls only, as there are {available} KiB of memory, and a million take some {NEEDED}",
            CALLS[1]
        ));
        return Ok(CALLS[1]);
    }
    Ok(CALLS[0])
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What was found.
pub(super) fn page(found: &Value) -> String {
    let float = |name: &str| found[name].as_f64().unwrap_or_default();
    let gib = |name: &str| number(&json!(float(name) / f64::from(1 << 30)));
    let calls = float("calls");
    let per_second = |name: &str| number(&json!((calls / float(name).max(1e-9)).round()));
    let packets = |name: &str| {
        let ns = &found[name];
        let millions = json!(1e3 / ns.as_f64().unwrap_or(f64::INFINITY));
        format!(
            "{} ns, {} million per second",
            number(ns),
            number(&millions)
        )
    };
    let rows = [
        ("calls", found["calls"].to_string()),
        ("resident, GiB", gib("memory_calls")),
        ("of it in huge pages, GiB", gib("in_huge_pages")),
        (
            "octets a call: the worker's tables",
            number(&found["tables_per_call"]),
        ),
        ("octets a call: all", number(&found["all_per_call"])),
        ("set up, s", number(&found["set_up_seconds"])),
        ("set up, calls per second", per_second("set_up_seconds")),
        ("all ended, s", number(&found["tear_down_seconds"])),
        ("a packet up, with its look-up", packets("up_ns_per_packet")),
        (
            "a packet down, with its look-up",
            packets("down_ns_per_packet"),
        ),
        (
            "packets that came out whole",
            format!(
                "{} of {}",
                found["verified"],
                2.0 * float("packets_each_way")
            ),
        ),
        ("resident at the end, GiB", gib("memory_after")),
    ];
    let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
    table(&["", ""].map(str::to_owned), rows.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_rates_are_shown() {
        assert_eq!(
            available("MemTotal:  5 kB\nMemAvailable:   23 kB\n"),
            Some(23)
        );
        let gib = 1_u64 << 30;
        let text = page(
            &json!({"calls": 1_000_000, "memory_calls": 8 * gib, "in_huge_pages": gib / 2,
            "tables_per_call": 959.1, "all_per_call": 8000.4, "set_up_seconds": 33.3, "tear_down_seconds": 3.9,
            "up_ns_per_packet": 800.0, "down_ns_per_packet": 690.0, "packets_each_way": 1_000_000,
            "verified": 1_999_999, "memory_after": gib}),
        );
        for part in [
            "| calls | 1000000 |",
            "| resident, GiB | 8.00 |",
            "| octets a call: all | 8000 |",
            "| set up, calls per second | 30030 |",
            "| a packet up, with its look-up | 800 ns, 1.25 million per second |",
            "| packets that came out whole | 1999999 of 2000000 |",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }
}
