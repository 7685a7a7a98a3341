//! Plots and reports, as files: drawn by `turnpike-bench report`, so that they look alike everywhere.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Found;
use super::bench_program;
use super::machine::Machine;
use super::suites::Suite;
use crate::lab::process::run;

/// A plot that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// Of which suite.
    pub suite: Suite,
    /// What it shows.
    pub title: String,
    /// Its file's name.
    pub file: String,
}

/// Which plots of a report are kept: those that end in one of these.
const KEPT: [&str; 5] = [
    "calls-set-up.svg",
    "percentiles.svg",
    "storm-all.svg",
    "imix-up-latency-in-each-second.svg",
    "imix-down-latency-in-each-second.svg",
];

/// Draws what a suite found into `folder`, and leaves its reports there.
pub fn draw(
    suite: Suite,
    found: &Value,
    machine: &Machine,
    scratch: &Path,
    folder: &Path,
) -> Result<Vec<Plot>> {
    match suite {
        Suite::Cipher | Suite::Packets => {
            let name = suite.name();
            save(folder, name, found)?;
            let charts = match suite {
                Suite::Cipher => cipher(found),
                _ => packets(found),
            };
            let mut report = serde_json::to_value(machine)?;
            report["tool"] = json!("figures");
            report["title"] = json!(name);
            report["charts"] = charts;
            draw_one(suite, &report, name, scratch, folder, &|_| true)
        }
        Suite::Instructions | Suite::Million => {
            save(folder, suite.name(), found)?;
            Ok(Vec::new())
        }
        Suite::Workers => {
            for (name, report) in found.as_object().into_iter().flatten() {
                save(folder, &format!("workers-{name}"), report)?;
            }
            Ok(Vec::new())
        }
        Suite::Road => {
            let mut plots = Vec::new();
            for (name, report) in found.as_object().into_iter().flatten() {
                save(folder, &format!("road-{name}"), report)?;
                let mut sheet = serde_json::to_value(machine)?;
                sheet["tool"] = json!("figures");
                sheet["title"] = json!("road");
                sheet["charts"] = super::road::charts(report);
                plots.extend(draw_one(suite, &sheet, "road", scratch, folder, &|_| true)?);
            }
            Ok(plots)
        }
        Suite::Storm | Suite::Flow | Suite::Stock => {
            let mut plots = Vec::new();
            for (name, report) in found.as_object().into_iter().flatten() {
                let name = format!("{}-{name}", suite.name());
                save(folder, &name, report)?;
                // Of runs that are alike the first is drawn.
                if name.ends_with(|last: char| last.is_ascii_digit()) && !name.ends_with("-1") {
                    continue;
                }
                let kept = |file: &str| KEPT.iter().any(|end| file.ends_with(end));
                plots.extend(draw_one(suite, report, &name, scratch, folder, &kept)?);
            }
            Ok(plots)
        }
    }
}

fn save(folder: &Path, name: &str, report: &Value) -> Result<()> {
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, format!("{report}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The plots of one report, named after it.
fn draw_one(
    suite: Suite,
    report: &Value,
    name: &str,
    scratch: &Path,
    folder: &Path,
    kept: &dyn Fn(&str) -> bool,
) -> Result<Vec<Plot>> {
    let drawn = scratch.join(format!("drawn-{name}"));
    if drawn.exists() {
        fs::remove_dir_all(&drawn)?;
    }
    let json = scratch.join(format!("{name}.json"));
    fs::write(&json, report.to_string())?;
    run(Command::new(bench_program()?)
        .arg("report")
        .arg(&json)
        .arg("--svg")
        .arg(&drawn))?;
    let mut names: Vec<String> = fs::read_dir(&drawn)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|file| kept(file))
        .collect();
    names.sort();
    let tool = report["tool"].as_str().unwrap_or_default();
    names
        .into_iter()
        .map(|from| {
            let what = from.trim_end_matches(".svg");
            let what = what.strip_prefix(tool).unwrap_or(what);
            let file = format!("{name}{what}.svg");
            fs::copy(drawn.join(&from), folder.join(&file))
                .with_context(|| format!("cannot write {file}"))?;
            Ok(Plot {
                suite,
                title: file.trim_end_matches(".svg").replace('-', " "),
                file,
            })
        })
        .collect()
}

/// How many times as fast as each of those that all are compared with.
fn cipher(table: &Value) -> Value {
    let empty = Vec::new();
    let measures: Vec<&Value> = table["measures"]
        .as_array()
        .unwrap_or(&empty)
        .iter()
        .filter(|measure| matches!(measure["kind"].as_str(), Some("whole" | "mixed")))
        .collect();
    let Some(rows) = measures
        .first()
        .and_then(|first| first["contenders"].as_array())
    else {
        return json!([]);
    };
    let groups: Vec<String> = measures
        .iter()
        .map(|measure| match measure["octets"].as_u64() {
            Some(octets) => format!("{octets} octets"),
            None => "7:4:1 mix".to_owned(),
        })
        .collect();
    let references = rows.first().and_then(|row| row["against"].as_array());
    let charts = references
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(other, reference)| {
            // Who all are compared with stands at 1, and others of theirs beside: ours are what is shown.
            let bars: Vec<Value> = rows
                .iter()
                .enumerate()
                .filter(|(_, row)| is_ours(row))
                .map(|(at, row)| {
                    let heights: Vec<f64> = measures
                        .iter()
                        .map(|measure| {
                            measure["contenders"][at]["against"][other]["best"]
                                .as_f64()
                                .unwrap_or_default()
                        })
                        .collect();
                    json!([row["name"], heights])
                })
                .collect();
            json!({
                "name": format!("stateless MPPE packets, times as fast as {}",
                    reference["name"].as_str().unwrap_or_default()),
                "unit": "times as fast",
                "groups": groups,
                "bars": bars,
                "level": 1.0,
            })
        });
    Value::Array(charts.collect())
}

fn is_ours(row: &Value) -> bool {
    row["name"]
        .as_str()
        .is_some_and(|name| name.starts_with("turnpike"))
}

/// Those that differ in the size of packets side by side, and those that differ in how many calls there are.
fn packets(found: &Value) -> Value {
    let empty = Vec::new();
    let all = found.as_array().unwrap_or(&empty);
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let mut by_size = Bars::default();
    let mut by_calls = Bars::default();
    for one in all {
        let (group, function) = (text(one, "group"), text(one, "function"));
        let ns = one["ns"].as_f64().unwrap_or_default();
        if let Some(calls) = group
            .strip_prefix("over ")
            .and_then(|rest| rest.strip_suffix(" calls"))
        {
            by_calls.add(calls, &function, ns);
        } else if let Some((how, size)) = function.rsplit_once('/') {
            by_size.add(size, &format!("{group} {how}"), ns);
        }
    }
    json!([
        by_size.chart("what a packet costs, by its octets"),
        by_calls.chart("what a packet costs, by how many calls there are"),
    ])
}

/// Bars of groups that are numbers, in any order.
#[derive(Default)]
struct Bars {
    all: std::collections::BTreeMap<String, std::collections::BTreeMap<u64, f64>>,
}

impl Bars {
    fn add(&mut self, group: &str, bar: &str, height: f64) {
        if let Ok(group) = group.parse() {
            self.all
                .entry(bar.to_owned())
                .or_default()
                .insert(group, height);
        }
    }

    fn chart(&self, name: &str) -> Value {
        let groups: std::collections::BTreeSet<u64> = self
            .all
            .values()
            .flat_map(|bar| bar.keys().copied())
            .collect();
        let bars: Vec<Value> = self
            .all
            .iter()
            .map(|(bar, heights)| {
                let heights: Vec<f64> = groups
                    .iter()
                    .map(|group| heights.get(group).copied().unwrap_or_default())
                    .collect();
                json!([bar, heights])
            })
            .collect();
        let groups: Vec<String> = groups.iter().map(u64::to_string).collect();
        json!({"name": name, "unit": "ns", "groups": groups, "bars": bars})
    }
}

/// What a suite found, for `results`.
pub fn of(found: &[(Suite, Found)], suite: Suite) -> Option<&Found> {
    let mut all = found.iter();
    all.find(|(one, _)| *one == suite).map(|(_, found)| found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn table() -> Value {
        let row = |name: &str, ns: f64, best: [f64; 2]| {
            json!({"name": name, "ns": ns, "against": [
                {"name": "OpenSSL, low level", "best": best[0], "median": best[0]},
                {"name": "loop as in Linux", "best": best[1], "median": best[1]}]})
        };
        let measure = |kind: &str, octets: Option<u64>| {
            json!({"name": format!("{kind} {octets:?}"), "kind": kind, "octets": octets,
                "contenders": [row("OpenSSL, low level", 900.0, [1.0, 0.9]),
                    row("loop as in Linux", 800.0, [1.1, 1.0]),
                    row("turnpike, together (rows)", 225.0, [4.0, 3.6])]})
        };
        json!({"cpu": "a processor", "rounds": 50, "missing": [], "measures": [
            measure("change", None), measure("crypt", Some(64)), measure("whole", Some(64)),
            measure("mixed", None)]})
    }

    pub(crate) fn costs() -> Value {
        let one = |group: &str, function: &str, ns: f64| {
            json!({"group": group, "function": function, "ns": ns, "low": ns - 1.0,
                "high": ns + 1.0})
        };
        json!([
            one("decap", "plain/64", 30.0),
            one("decap", "plain/1400", 50.0),
            one("over 70000 calls", "encap plain/64", 90.0),
            one("over 1000 calls", "encap plain/64", 40.0),
            one("table", "found", 9.0),
        ])
    }

    #[test]
    fn ciphers_are_drawn_against_each_of_the_others() {
        let charts = cipher(&table());
        assert_eq!(charts.as_array().map(Vec::len), Some(2));
        assert_eq!(
            charts[1]["name"],
            "stateless MPPE packets, times as fast as loop as in Linux"
        );
        assert_eq!(charts[1]["groups"], json!(["64 octets", "7:4:1 mix"]));
        assert_eq!(
            charts[1]["bars"],
            json!([["turnpike, together (rows)", [3.6, 3.6]]])
        );
        assert_eq!(cipher(&json!({"measures": []})), json!([]));
    }

    #[test]
    fn packets_are_drawn_by_size_and_by_calls() {
        let charts = packets(&costs());
        assert_eq!(charts[0]["groups"], json!(["64", "1400"]));
        assert_eq!(charts[0]["bars"], json!([["decap plain", [30.0, 50.0]]]));
        assert_eq!(charts[1]["groups"], json!(["1000", "70000"]));
        assert_eq!(charts[1]["bars"], json!([["encap plain/64", [40.0, 90.0]]]));
    }
}
