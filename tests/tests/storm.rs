//! `turnpike-bench storm` against turnpike: every call comes up, is measured, and leaves nothing behind; what does not come
//! up is counted under its cause.
//!
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::{binary, until};

const CALLS: u64 = 300;

struct Stage {
    road: Road,
    server: Server,
    user: String,
    password: String,
}

fn stage() -> Stage {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    for (option, value) in [
        ("limits.connections_per_source", 512),
        ("limits.unauthenticated_per_source", 512),
    ] {
        configuration.change(option, value).unwrap();
    }
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let user = configuration.user().unwrap();
    Stage {
        server,
        road,
        user: user.name,
        password: user.password,
    }
}

impl Stage {
    /// Runs a storm; its exit status and report.
    fn storm(&self, password: &str, more: &[&str]) -> (Option<i32>, Value) {
        let mut command: Command = self.road.client.command(binary("turnpike-bench").unwrap());
        command
            .args(["storm", &road::SERVER.to_string(), "--json"])
            .args(["--user", &self.user, "--password", password])
            .args(more);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {errors}\n{}", self.server.log()));
        (output.status.code(), report)
    }

    fn wait_until_empty(&self) {
        until("every call to be over", Duration::from_secs(20), || {
            Ok(self.server.sessions()?.is_empty().then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.server.log()));
    }
}

#[test]
fn every_call_comes_up_and_every_phase_is_measured() {
    let stage = stage();
    let calls = CALLS.to_string();
    let page = stage.road.lab.directory().join("storm.html");
    let html = page.to_str().unwrap();
    let mut files = Vec::new();
    for more in [
        &["--calls", &calls, "--rate", "100", "--html", html][..],
        // As many as can be answered, and all of them stay until the last is up.
        &["--calls", &calls, "--outstanding", "20", "--keep"],
    ] {
        let (status, report) = stage.storm(&stage.password, more);
        assert_eq!(status, Some(0), "{report}\n{}", stage.server.log());
        for (name, expected) in [("begun", CALLS), ("up", CALLS), ("failed", 0), ("lost", 0)] {
            assert_eq!(report[name], json!(expected), "{name}: {report}");
        }
        assert_eq!(report["failures"], json!({}));
        assert_eq!(report["tool"], json!("storm"));
        assert_eq!(report["options"]["calls"], json!(calls));
        for field in ["version", "started", "cpu", "kernel"] {
            assert_ne!(report[field], json!(""), "{field}: {report}");
        }
        // Neither in the options nor anywhere else.
        assert!(!report.to_string().contains(&stage.password), "{report}");
        let names: Vec<&str> = report["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|phase| {
                assert_eq!(phase["ms"]["count"], json!(CALLS), "{report}");
                let buckets = phase["ms"]["buckets"].as_array().unwrap();
                let counted: u64 = buckets.iter().map(|b| b[1].as_u64().unwrap()).sum();
                assert_eq!(counted, CALLS, "{report}");
                phase["phase"].as_str().unwrap()
            })
            .collect();
        assert_eq!(
            names,
            ["tcp", "control", "call", "lcp", "authentication", "network"]
        );
        let number = |value: &Value| value.as_f64().unwrap();
        let sum: f64 = report["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|phase| number(&phase["ms"]["min"]))
            .sum();
        assert!(sum <= number(&report["total_ms"]["p50"]) + 1.0, "{report}");
        let each_second: u64 = report["each_second"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap())
            .sum();
        assert_eq!(each_second, CALLS);
        if more.contains(&"--rate") {
            // No more than asked for: the first is begun at once, and 299 take 2.99 s.
            assert!(number(&report["seconds"]) >= 2.9, "{report}");
            let page = std::fs::read_to_string(&page).unwrap();
            assert!(page.contains("<svg") && page.ends_with("</html>"), "{page}");
            assert!(!page.contains(&stage.password), "{page}");
        }
        println!(
            "{:.0} per second, p50 {} ms, p99 {} ms",
            number(&report["rate"]),
            report["total_ms"]["p50"],
            report["total_ms"]["p99"]
        );
        let file = stage
            .road
            .lab
            .directory()
            .join(format!("{}.json", files.len()));
        std::fs::write(&file, report.to_string()).unwrap();
        files.push(file);
        stage.wait_until_empty();
    }
    compare(&files);
}

/// Two storms of other kinds are compared; so says the comparison, and how much it is sure of.
fn compare(files: &[PathBuf]) {
    let compare = |more: &[&str]| {
        let mut command = Command::new(binary("turnpike-bench").unwrap());
        command.arg("compare").args(files).args(more);
        command.output().unwrap()
    };
    let output = compare(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = comparison["figures"].as_array().unwrap();
    let named = |name: &str| {
        figures
            .iter()
            .find(|figure| figure["name"] == name)
            .unwrap()
    };
    // Three hundred are enough for the middle.
    assert_ne!(named("all p50, ms")["bounds"], Value::Null, "{comparison}");
    assert_eq!(named("calls lost, %")["verdict"], "within_noise");
    let notes = comparison["notes"].to_string();
    assert!(notes.contains("--rate: 100, then nothing"), "{notes}");
    let text = String::from_utf8(compare(&[]).stdout).unwrap();
    assert!(text.contains("all p50, ms"), "{text}");
}

#[test]
fn what_does_not_come_up_is_counted_under_its_cause() {
    let mut stage = stage();
    let (status, report) = stage.storm("a guess", &["--calls", "10", "--rate", "50"]);
    assert_eq!(status, Some(1), "{report}");
    assert_eq!((&report["up"], &report["failed"]), (&json!(0), &json!(10)));
    let failures = report["failures"].as_object().unwrap();
    assert!(
        failures.len() == 1
            && failures.iter().all(|(cause, count)| {
                cause.starts_with("authentication: ")
                    && cause.contains("691")
                    && *count == json!(10)
            }),
        "{report}"
    );
    stage.server.stop().unwrap();
    let (status, report) = stage.storm(&stage.password, &["--calls", "3"]);
    assert_eq!(status, Some(1), "{report}");
    let failures = report["failures"].as_object().unwrap();
    assert!(
        failures
            .iter()
            .all(|(cause, _)| cause.starts_with("tcp: cannot connect: ")),
        "{report}"
    );
}
