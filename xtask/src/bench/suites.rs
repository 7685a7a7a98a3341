//! What there is to measure, and how each is run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{bench_program, watch};
use crate::console::Console;
use crate::lab::process::run;
use crate::lab::{needs, target};

/// One of the things that are measured.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// MPPE's cipher against others
    Cipher,
    /// What a packet costs over memory
    Packets,
    /// How many instructions a packet takes
    Instructions,
    /// A million calls in one process
    Million,
    /// Call set-ups per second
    Storm,
    /// Packets through calls
    Flow,
    /// Two workers beside one
    Workers,
    /// The tools against a server that is not ours
    Stock,
    /// Packets forwarded, beside others
    Road,
}

impl Suite {
    /// In their order: what needs a quiet machine most comes first.
    pub const ALL: [Self; 9] = [
        Self::Cipher,
        Self::Packets,
        Self::Instructions,
        Self::Million,
        Self::Road,
        Self::Storm,
        Self::Flow,
        Self::Workers,
        Self::Stock,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cipher => "cipher",
            Self::Packets => "packets",
            Self::Instructions => "instructions",
            Self::Million => "million",
            Self::Storm => "storm",
            Self::Flow => "flow",
            Self::Workers => "workers",
            Self::Stock => "stock",
            Self::Road => "road",
        }
    }

    /// Whether it runs in namespaces.
    pub fn needs_root(self) -> bool {
        matches!(
            self,
            Self::Storm | Self::Flow | Self::Workers | Self::Stock | Self::Road
        )
    }

    /// Whether this build has it.
    pub fn exists(self) -> bool {
        !matches!(self, Self::Storm | Self::Flow)
            || bench_program()
                .and_then(|program| run(Command::new(program).args([self.name(), "--help"])))
                .is_ok()
    }

    /// About how long it takes once it is built, in seconds.
    fn expected(self, quick: bool) -> Duration {
        Duration::from_secs(match (self, quick) {
            (Self::Cipher, false) => 50,
            (Self::Cipher, true) => 3,
            (Self::Packets, false) => 95,
            (Self::Packets, true) => 40,
            (Self::Instructions, _) => 10,
            (Self::Million, false) => 135,
            (Self::Million, true) => 5,
            (Self::Storm, false) => 60,
            (Self::Storm, true) => 20,
            (Self::Flow, false) => 45,
            (Self::Flow, true) => 15,
            (Self::Workers, false) => 70,
            (Self::Workers, true) => 50,
            (Self::Stock, false) => 115,
            (Self::Stock, true) => 60,
            (Self::Road, false) => 300,
            (Self::Road, true) => 20,
        })
    }

    /// Measures; what was found, as `figures` and `results` take it.
    pub(super) fn measure(
        self,
        name: &str,
        quick: bool,
        root: &Path,
        scratch: &Path,
        console: Console,
    ) -> Result<Value> {
        let watch =
            |command: &Command| watch(name, command, scratch, self.expected(quick), console);
        match self {
            Self::Cipher => {
                let rounds = if quick { "50" } else { "1500" };
                let words = ["ratios", "--json", "--rounds", rounds];
                let text = watch(cargo_bench(root, "cipher").args(words))?;
                let table = json_line(&text, '{')?;
                for missing in table["missing"].as_array().into_iter().flatten() {
                    // Debian: apt install libssl3, or libssl3t64.
                    console.line(format!(
                        "{}; ratios to it need the package libssl3",
                        missing.as_str().unwrap_or_default()
                    ));
                }
                Ok(table)
            }
            Self::Packets => {
                // Of this run alone: what lies there from others may be of benchmarks that are gone.
                let home = scratch.join("criterion");
                if home.exists() {
                    fs::remove_dir_all(&home)?;
                }
                for benchmark in ["packet_path", "set_up"] {
                    let mut command = cargo_bench(root, benchmark);
                    command.args(["--noplot"]).env("CRITERION_HOME", &home);
                    let words = if quick {
                        [
                            "--warm-up-time",
                            "0.1",
                            "--measurement-time",
                            "0.2",
                            "--sample-size",
                            "10",
                        ]
                    } else {
                        [
                            "--warm-up-time",
                            "0.3",
                            "--measurement-time",
                            "1",
                            "--sample-size",
                            "30",
                        ]
                    };
                    command.args(words);
                    watch(&command)?;
                }
                let mut groups = criterion(&home)?;
                ensure!(!groups.is_empty(), "criterion left no results");
                let mut crowds = cargo_bench(root, "crowds");
                crowds.arg("--json");
                if quick {
                    crowds.args(["--rounds", "3", "--most", "70000"]);
                }
                let Value::Array(crowds) = json_line(&watch(&crowds)?, '[')? else {
                    bail!("crowds left no list");
                };
                groups.extend(crowds);
                Ok(Value::Array(groups))
            }
            Self::Instructions => {
                let text = watch(cargo_bench(root, "instructions").arg("--json"))?;
                json_line(&text, '[')
            }
            Self::Million => {
                let calls = super::million::calls(quick, console)?.to_string();
                let words = ["--json", "--calls", &calls];
                let text = watch(cargo_bench_of(root, "turnpike-tests", "million").args(words))?;
                json_line(&text, '{')
            }
            Self::Storm | Self::Flow | Self::Workers | Self::Stock | Self::Road => {
                let folder = scratch.join(self.name());
                if folder.exists() {
                    fs::remove_dir_all(&folder)?;
                }
                fs::create_dir_all(&folder)?;
                let mut command = needs::as_root(std::env::current_exe()?)?;
                command
                    .args(["lab", "measure", self.name()])
                    .arg(&folder)
                    .env("TURNPIKE_BIN_DIR", target(true)?);
                if quick {
                    command.arg("--quick");
                }
                watch(&command)?;
                reports(&folder)
            }
        }
    }
}

/// Builds the benchmarks; what cargo says is shown.
pub(super) fn build(root: &Path) -> Result<()> {
    let status = cargo(root)
        .args(["bench", "--quiet", "--locked", "-p", "turnpike-bench"])
        .args(["-p", "turnpike-tests", "--benches", "--no-run"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the benchmarks do not build");
    Ok(())
}

/// The last line of what a program printed that begins like this, as JSON.
fn json_line(text: &str, first: char) -> Result<Value> {
    let line = text.lines().rfind(|line| line.starts_with(first));
    Ok(serde_json::from_str(line.context("it printed no table")?)?)
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

fn cargo_bench(root: &Path, name: &str) -> Command {
    cargo_bench_of(root, "turnpike-bench", name)
}

fn cargo_bench_of(root: &Path, package: &str, name: &str) -> Command {
    let mut command = cargo(root);
    command
        .args(["bench", "--quiet", "--locked", "-p", package])
        .args(["--bench", name, "--"]);
    command
}

/// Every report in a folder, by its name without `.json`.
fn reports(folder: &Path) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            let text = fs::read_to_string(&path)?;
            let report = serde_json::from_str(&text)
                .with_context(|| format!("{} is no report", path.display()))?;
            all.insert(name.to_owned(), report);
        }
    }
    ensure!(!all.is_empty(), "it left no reports");
    Ok(Value::Object(all))
}

/// What criterion measured, by name and size: group, function, and nanoseconds for each element with their bounds.
fn criterion(home: &Path) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut folders = vec![home.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("new") && folder.join("estimates.json").is_file() {
            let read = |name: &str| -> Result<Value> {
                let path = folder.join(name);
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_str(&text).with_context(|| path.display().to_string())
            };
            found.push(element(&read("benchmark.json")?, &read("estimates.json")?)?);
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort_by_key(|one| (one["group"].to_string(), one["function"].to_string()));
    Ok(found)
}

/// One benchmark, by the element.
fn element(benchmark: &Value, estimates: &Value) -> Result<Value> {
    let elements = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
    let mean = &estimates["mean"];
    let ns = |value: &Value| {
        value
            .as_f64()
            .map(|ns| ns / elements)
            .context("criterion's estimates have another form")
    };
    let bounds = &mean["confidence_interval"];
    Ok(json!({
        "group": benchmark["group_id"],
        "function": benchmark["function_id"],
        "ns": ns(&mean["point_estimate"])?,
        "low": ns(&bounds["lower_bound"])?,
        "high": ns(&bounds["upper_bound"])?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criterion_is_read_by_the_element() {
        let home = tempfile::tempdir().unwrap();
        for (folder, ns) in [("decap/plain_64", 6400.0), ("encap/mppe_64", 64_000.0)] {
            let new = home.path().join(folder).join("new");
            fs::create_dir_all(&new).unwrap();
            fs::create_dir_all(home.path().join(folder).join("base")).unwrap();
            let (group, function) = folder.split_once('/').unwrap();
            let benchmark = json!({"group_id": group, "function_id": function.replace('_', "/"),
                "throughput": {"Elements": 64}});
            fs::write(new.join("benchmark.json"), benchmark.to_string()).unwrap();
            let estimates = json!({"mean": {"point_estimate": ns,
                "confidence_interval": {"confidence_level": 0.95, "lower_bound": ns - 64.0,
                    "upper_bound": ns + 64.0}}});
            fs::write(new.join("estimates.json"), estimates.to_string()).unwrap();
        }
        let found = criterion(home.path()).unwrap();
        assert_eq!(
            found[0],
            json!({"group": "decap", "function": "plain/64", "ns": 100.0, "low": 99.0, "high": 101.0})
        );
        assert_eq!(found[1]["ns"], json!(1000.0));
        assert!(element(&json!({}), &json!({})).is_err());
    }

    #[test]
    fn reports_have_the_names_of_their_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(reports(folder.path()).is_err());
        fs::write(folder.path().join("fastest-1.json"), r#"{"up": 3}"#).unwrap();
        fs::write(folder.path().join("turnpike.out"), "words").unwrap();
        assert_eq!(
            reports(folder.path()).unwrap(),
            json!({"fastest-1": {"up": 3}})
        );
        fs::write(folder.path().join("half.json"), "{").unwrap();
        assert!(reports(folder.path()).is_err());
    }
}
