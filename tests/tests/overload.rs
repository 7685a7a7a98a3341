//! More clients dial than may be set up at once: those who would wait for too long are told so, those who wait come in,
//! and calls that are up stay up, with their echoes and their packets.
//!
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::{binary, until};

/// Where the storm comes from. Those who are up dial from the client's own address, so that each tool sees its own packets.
const FROM: &str = "10.7.0.101";

/// Calls that are up when the storm comes.
const UP: u64 = 40;

/// Callers in the storm.
const STORM: u64 = 600;

struct Stage {
    road: Road,
    server: Server,
    user: String,
    password: String,
}

fn stage(setting_up: i64, wait: &str) -> Stage {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    for (option, value) in [
        ("limits.connections_per_source", 2048),
        ("limits.unauthenticated_per_source", 2048),
        ("limits.setting_up", setting_up),
    ] {
        configuration.change(option, value).unwrap();
    }
    for (option, value) in [
        ("limits.setting_up_wait", wait),
        ("limits.echo_interval", "1s"),
    ] {
        configuration.change(option, value).unwrap();
    }
    road.client
        .ip(&format!(
            "addr add {FROM}/24 dev {}",
            road::CLIENT_INTERFACE
        ))
        .unwrap();
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
    fn command(&self, tool: &str, more: &[&str]) -> Command {
        let mut command = self.road.client.command(binary("turnpike-bench").unwrap());
        command
            .args([tool, &road::SERVER.to_string(), "--json"])
            .args(["--user", &self.user, "--password", &self.password])
            .args(more);
        command
    }

    fn storm(&self, calls: u64, outstanding: &str) -> Value {
        let calls = calls.to_string();
        let more = ["--calls", &*calls, "--outstanding", outstanding];
        let more = [&more[..], &["--from", FROM]].concat();
        let output = self.command("storm", &more).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {errors}\n{}", self.server.log()))
    }

    fn control(&self, name: &str) -> u64 {
        let stats = self.server.stats().unwrap();
        stats.control.get(name).copied().unwrap_or(0)
    }
}

#[test]
fn a_storm_is_told_to_come_again_and_calls_that_are_up_stay_up() {
    let stage = stage(4, "0s");
    // Each asks for an echo every second, and gives up after four in vain.
    let up = UP.to_string();
    let more = ["--calls", &*up, "--echo-interval", "1", "--outstanding"];
    let mut hold = stage.command("hold", &more);
    let mut hold = (stage.road.client)
        .start(
            "hold",
            hold.args(["1", "--retry", "0.2", "--from", &road::CLIENT.to_string()]),
        )
        .unwrap();
    until("calls to be up", Duration::from_secs(60), || {
        let sessions = stage.server.sessions()?;
        let count = sessions.iter().filter(|one| one["state"] == "up").count();
        Ok((count as u64 == UP).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.server.log()));

    let report = stage.storm(STORM, "300");
    let failed = report["failed"].as_u64().unwrap();
    assert!(failed > 0, "nobody was too many: {report}");
    assert!(report["up"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["lost"], json!(0), "{report}");
    // RFC 2637 §2.8: a general error, namely insufficient resources.
    let failures = report["failures"].as_object().unwrap();
    let reason = "call: the server refused the call: general error (no resource)";
    assert_eq!(failures[reason], json!(failed), "{report}");
    assert_eq!(failures.len(), 1, "{report}");
    println!("{failed} of {STORM} refused: {failures:?}");
    assert_eq!(stage.control("refused_too_many_setting_up"), failed);
    assert_eq!(stage.control("calls_refused"), failed);
    // A little later there is room.
    let report = stage.storm(20, "1");
    assert_eq!(report["up"], json!(20), "{report}\n{}", stage.server.log());

    hold.signal(Signal::INT).unwrap();
    let status = hold.wait(Duration::from_secs(60)).unwrap();
    let report: Value = serde_json::from_str(&hold.output())
        .unwrap_or_else(|error| panic!("{error}: {}", hold.errors()));
    assert_eq!(status.code(), Some(0), "{report}");
    for (name, expected) in [("back", UP), ("answered", UP), ("reconnects", 0)] {
        assert_eq!(report[name], json!(expected), "{name}: {report}");
    }
    assert_eq!(report["ended"], json!({}), "{report}");
}

#[test]
fn who_may_wait_comes_in() {
    let stage = stage(4, "60s");
    let report = stage.storm(STORM, "300");
    assert_eq!(
        (&report["up"], &report["failed"]),
        (&json!(STORM), &json!(0)),
        "{report}\n{}",
        stage.server.log()
    );
    let waited = stage.control("calls_waited");
    println!(
        "{waited} of {STORM} waited, {:?}",
        report["total_ms"]["p99"]
    );
    assert!(waited > 0, "nobody had to wait");
    assert_eq!(stage.control("calls_refused"), 0);
}
