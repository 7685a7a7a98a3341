//! The suite of `turnpike-bench road`: three namespaces in a row, the device under test in the middle.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::results::{list, number, table, words};
use super::storms::save;
use crate::lab::binary;
use crate::lab::netns::{Lab, Namespace};

/// The namespaces; addresses are those that `turnpike-bench road` uses.
pub struct Row {
    clients: Namespace,
    middle: Namespace,
    network: Namespace,
    _lab: Lab,
}

impl Row {
    /// Builds it.
    pub fn build() -> Result<Self> {
        let lab = Lab::new()?;
        let row = Self {
            clients: lab.namespace("clients")?,
            middle: lab.namespace("middle")?,
            network: lab.namespace("network")?,
            _lab: lab,
        };
        row.clients.veth("c0", &row.middle, "wan0", 1)?;
        row.network.veth("n0", &row.middle, "net0", 1)?;
        row.middle.ip("addr add 10.7.0.1/24 dev wan0")?;
        row.middle.ip("addr add 198.51.100.1/30 dev net0")?;
        row.middle.ip("route add default via 198.51.100.2")?;
        row.middle.sysctl("net.ipv4.ip_forward", "1")?;
        Ok(row)
    }

    /// Runs the tool with more words; its report. That a target was missed is part of it.
    pub fn measure(&self, more: &[&str]) -> Result<Value> {
        let clients = format!("{}/c0", self.clients.name());
        let network = format!("{}/n0", self.network.name());
        let output = self
            .middle
            .command(binary("turnpike-bench")?)
            .args(["road", "--clients", &clients, "--network", &network])
            .args(["--access", "wan0", "--uplink", "net0", "--json"])
            .args(more)
            .output()
            .context("cannot start turnpike-bench")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "turnpike-bench road measured nothing ({}): {}",
            output.status,
            errors.trim()
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("turnpike-bench printed no report: {}", errors.trim()))
    }
}

/// Runs the suite; its report lies in the folder afterwards.
pub(super) fn run(folder: &Path, quick: bool) -> Result<()> {
    let row = Row::build()?;
    let more: &[&str] = if quick {
        &["--rounds", "1", "--seconds", "0.2"]
    } else {
        &[]
    };
    save(folder, "forwarding", &row.measure(more)?)
}

/// Rates of every contender, and what they are compared with.
pub(super) fn page(found: &Value) -> String {
    let mut text = String::new();
    let million = |value: &Value| number(&json!(value.as_f64().unwrap_or_default() / 1e6));
    for (_, report) in found.as_object().into_iter().flatten() {
        let heads = ["", "octets", "best", "median", "lost"].map(str::to_owned);
        let rows = list(&report["rows"]).map(|row| {
            vec![
                words(&row["contender"]),
                row["size"].to_string(),
                million(&row["best"]),
                million(&row["median"]),
                row["lost"].to_string(),
            ]
        });
        text.push_str(&table(&heads, rows.collect()));
        text.push('\n');
        let heads = ["ratio", "octets", "by the best", "median", "wanted"].map(str::to_owned);
        let rows = list(&report["ratios"]).map(|ratio| {
            let missed = ratio["met"] == json!(false);
            vec![
                words(&ratio["name"]),
                ratio["size"].to_string(),
                number(&ratio["best"]),
                number(&ratio["median"]),
                format!(
                    "{}{}",
                    number(&ratio["target"]),
                    if missed { ", missed" } else { "" }
                ),
            ]
        });
        text.push_str(&table(&heads, rows.collect()));
        text.push_str(&later(report));
    }
    text
}

/// What is measured at rates that are known by then: losses, latency, and one call with most packets beside many others.
fn later(report: &Value) -> String {
    let million = |value: &Value| number(&json!(value.as_f64().unwrap_or_default() / 1e6));
    let percent = |value: &Value| format!("{:.0} %", 100.0 * value.as_f64().unwrap_or_default());
    let times = |us: &Value| ["p50", "p99", "p999", "max"].map(|of| number(&us[of]));
    let mut text = String::new();
    if list(&report["losses"]).next().is_some() {
        text.push_str("\nAt 0.4 of what l2fwd forwards:\n\n");
        let heads = ["", "octets", "millions per second", "sent", "lost"].map(str::to_owned);
        let rows = list(&report["losses"]).map(|loss| {
            vec![
                words(&loss["contender"]),
                loss["size"].to_string(),
                million(&loss["rate"]),
                loss["sent"].to_string(),
                loss["lost"].to_string(),
            ]
        });
        text.push_str(&table(&heads, rows.collect()));
    }
    if list(&report["latencies"]).next().is_some() {
        text.push_str(
            "\nMicroseconds from when a packet was due until it came out, at shares of the most that the one forwards that is \
             named, and for l2fwd at the same rate:\n\n",
        );
        let heads =
            ["rate", "octets", "", "p50", "p99", "p99.9", "most", "lost"].map(str::to_owned);
        let rows = list(&report["latencies"]).map(|one| {
            let rate = format!("{} of {}", percent(&one["share"]), words(&one["of"]));
            let mut cells = vec![rate, one["size"].to_string(), words(&one["contender"])];
            cells.extend(times(&one["us"]));
            cells.push(one["lost"].to_string());
            cells
        });
        text.push_str(&table(&heads, rows.collect()));
    }
    if list(&report["mice"]).next().is_some() {
        text.push_str(
            "\nOne call with nine of ten packets beside a thousand others, at 0.9 of the most, 64 octets, in microseconds:\n\n",
        );
        let heads = ["", "whose", "p50", "p99", "p99.9", "most", "lost by all"].map(str::to_owned);
        let mut rows = Vec::new();
        for one in list(&report["mice"]) {
            for (whose, us) in [("the one", "elephant_us"), ("the thousand", "mice_us")] {
                let mut cells = vec![words(&one["contender"]), whose.to_owned()];
                cells.extend(times(&one[us]));
                cells.push(one["lost"].to_string());
                rows.push(cells);
            }
        }
        text.push_str(&table(&heads, rows));
    }
    text
}

/// The same as bars.
pub(super) fn charts(report: &Value) -> Value {
    let mut sizes: Vec<u64> = list(&report["rows"])
        .filter_map(|row| row["size"].as_u64())
        .collect();
    sizes.dedup();
    let mut names: Vec<String> = Vec::new();
    for row in list(&report["rows"]) {
        let name = words(&row["contender"]);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let best = |name: &str, size: u64| {
        list(&report["rows"])
            .find(|row| row["contender"] == json!(name) && row["size"] == json!(size))
            .and_then(|row| row["best"].as_f64())
            .unwrap_or_default()
            / 1e6
    };
    let bars: Vec<Value> = names
        .iter()
        .map(|name| {
            let heights: Vec<f64> = sizes.iter().map(|size| best(name, *size)).collect();
            json!([name, heights])
        })
        .collect();
    let groups: Vec<String> = sizes.iter().map(|size| format!("{size} octets")).collect();
    json!([{
        "name": "packets forwarded by one worker",
        "unit": "M/s",
        "groups": groups,
        "bars": bars,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_ratios_are_shown() {
        let row = |contender: &str, size: u64, best: f64| json!({"contender": contender, "size": size, "best": best, "median": best - 1e4, "lost": 0});
        let report = json!({"rows": [row("l2fwd", 64, 1.2e6), row("clear-up", 64, 1.1e6),
                row("l2fwd", 1400, 0.9e6)],
            "ratios": [{"name": "clear up / l2fwd", "size": 64, "best": 0.917, "median": 0.91,
                "target": 0.95, "met": false}],
            "losses": [{"contender": "clear-up", "size": 64, "rate": 5e5, "sent": 1000, "lost": 3}],
            "latencies": [{"contender": "l2fwd", "of": "clear-up", "size": 64, "share": 0.9, "rate": 1e6,
                "lost": 7, "us": {"p50": 2.25, "p99": 30.0, "p999": 400.0, "max": 5000.0}}],
            "mice": [{"contender": "clear-up", "lost": 9,
                "elephant_us": {"p50": 5.0, "p99": 6.0, "p999": 7.0, "max": 8.0},
                "mice_us": {"p50": 1.5, "p99": 2.5, "p999": 3.5, "max": 4.5}}]});
        let text = page(&json!({ "forwarding": report }));
        assert!(text.contains("| l2fwd | 64 | 1.20 | 1.19 | 0 |"), "{text}");
        assert!(
            text.contains("| clear up / l2fwd | 64 | 0.917 | 0.910 | 0.950, missed |"),
            "{text}"
        );
        for part in [
            "| clear-up | 64 | 0.500 | 1000 | 3 |",
            "| 90 % of clear-up | 64 | l2fwd | 2.25 | 30.0 | 400 | 5000 | 7 |",
            "| clear-up | the one | 5.00 | 6.00 | 7.00 | 8.00 | 9 |",
            "| clear-up | the thousand | 1.50 | 2.50 | 3.50 | 4.50 | 9 |",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        let charts = charts(&report);
        assert_eq!(charts[0]["groups"], json!(["64 octets", "1400 octets"]));
        assert_eq!(charts[0]["bars"][0], json!(["l2fwd", [1.2, 0.9]]));
        assert_eq!(charts[0]["bars"][1], json!(["clear-up", [1.1, 0.0]]));
    }
}
