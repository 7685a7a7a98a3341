//! `turnpike-bench hold` and `monkey` against turnpike: whatever happens to calls, all come back, and the server keeps nothing
//! of those that were.
//!
//! Needs root. `cargo xtask test --full` lets the monkey at more calls, for longer (`TURNPIKE_MONKEY_CALLS` and
//! `TURNPIKE_MONKEY_SECONDS`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::net::Ipv4Addr;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::{binary, until};

const CALLS: u64 = 60;

/// Addresses in the pool for each of the calls, and so calls that the server has room for.
const ROOM: u64 = 2;

/// Drops by which turnpike would show that it had lost track of its calls.
const FAULTS: [&str; 8] = [
    "no-such-port",
    "no-such-call",
    "call-exists",
    "calls-full",
    "routes-full",
    "event-ring-full",
    "no-memory",
    "handoff-full",
];

struct Stage {
    server: Server,
    road: Road,
    /// Calls that there is room for.
    room: u64,
    user: String,
    password: String,
}

/// What the environment asks for.
fn wanted(name: &str, or: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(or)
}

/// A server that sends echoes this often; who is gone without a word is noticed within five times that.
fn stage(echo_interval: &str) -> Stage {
    stage_for(CALLS, echo_interval)
}

/// The same with room for twice so many calls.
fn stage_for(calls: u64, echo_interval: &str) -> Stage {
    let room = ROOM * calls;
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    // Those who go are there for a while beside those who come.
    let connections = i64::try_from(4 * room).unwrap();
    for option in [
        "limits.connections_per_source",
        "limits.unauthenticated_per_source",
    ] {
        configuration.change(option, connections).unwrap();
    }
    configuration
        .change("limits.echo_interval", echo_interval)
        .unwrap();
    let first = Ipv4Addr::new(10, 20, 0, 10);
    let last = Ipv4Addr::from_bits(first.to_bits() + room as u32 - 1);
    let pool = vec![format!("{first}-{last}")];
    configuration.change("network.pool", pool).unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let user = configuration.user().unwrap();
    Stage {
        server,
        road,
        room,
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

    /// The exit status and report of a tool.
    fn judge(&self, output: &Output) -> (Option<i32>, Value) {
        let errors = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {errors}\n{}", self.server.log()));
        (output.status.code(), report)
    }

    fn wait_until_empty(&self) {
        until("every call to be over", Duration::from_secs(60), || {
            let stats = self.server.stats()?;
            let sessions = self.server.sessions()?.len() as u64;
            Ok((stats.calls + stats.tunnels + sessions == 0).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.server.log()));
    }

    /// Every address of the pool, and every place for a call, is there to be given: as many calls at a time as there are.
    fn room_is_whole(&self) {
        let room = self.room.to_string();
        let more = ["--calls", &room, "--outstanding", "40", "--keep"];
        let (status, report) = self.judge(&self.command("storm", &more).output().unwrap());
        assert_eq!(status, Some(0), "{report}\n{}", self.server.log());
        self.wait_until_empty();
    }

    /// KiB that the server has in memory.
    fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.server.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap()
    }
}

#[test]
fn all_calls_come_back_whatever_happens_to_them() {
    let number = wanted("TURNPIKE_MONKEY_CALLS", CALLS);
    let seconds = wanted("TURNPIKE_MONKEY_SECONDS", 6);
    // A machine that is busy with thousands may be late.
    let (interval, every) = if number > CALLS { (5, 30) } else { (1, 2) };
    let stage = stage_for(number, &format!("{interval}s"));
    // What the server takes at its fullest it has had before.
    stage.room_is_whole();
    let before = stage.memory();
    let [calls, interval, every, seconds] =
        [number, interval, every, seconds].map(|number| number.to_string());
    let calls = ["--calls", &calls, "--echo-interval", &interval];
    let chances = ["--every", &every, "--away", "0.3", "--seed", "7"];
    let more = ["--seconds", &seconds, "--retry", "0.2"];
    let mut command = stage.command("monkey", &calls);
    let output = command.args(chances).args(more).output().unwrap();
    let (status, report) = stage.judge(&output);
    assert_eq!(status, Some(0), "{report}\n{}", stage.server.log());
    for name in ["calls", "back", "answered"] {
        assert_eq!(report[name], json!(number), "{name}: {report}");
    }
    println!("{} strikes", report["monkey"]["strikes"]);
    assert_eq!(report["unfinished"], json!(0), "{report}");
    assert_eq!(report["monkey"]["seed"], json!(7));
    let kinds = report["monkey"]["kinds"].as_array().unwrap();
    let names: Vec<&str> = kinds
        .iter()
        .map(|kind| {
            println!(
                "{}: {} times, back in {} ms (p50), {} ms at most",
                kind["kind"], kind["count"], kind["back_ms"]["p50"], kind["back_ms"]["max"]
            );
            // A negotiation ends no call.
            assert_eq!(kind["ended"], json!(0), "{report}");
            kind["kind"].as_str().unwrap()
        })
        .collect();
    let all = [
        "power-cut",
        "tcp-reset",
        "lcp-terminate",
        "call-clear",
        "ncp-flap",
        "lcp-flap",
    ];
    assert_eq!(names, all, "{report}");
    stage.wait_until_empty();
    let drops = stage.server.stats().unwrap().drops();
    println!("drops: {drops:?}");
    for name in FAULTS {
        assert_eq!(drops.get(name), None, "{drops:?}");
    }
    // An allocator's memory comes and goes by some hundredths; what is lost stays lost.
    let limit = before + 8 * 1024 + number;
    let mut after = Vec::new();
    while after.len() < 8 && after.last().is_none_or(|after| *after >= limit) {
        stage.room_is_whole();
        after.push(stage.memory());
    }
    println!("memory: {before} KiB before, {after:?} KiB after");
    assert!(
        after.last().is_some_and(|after| *after < limit),
        "{before} KiB before, {after:?} after"
    );
}

#[test]
fn calls_that_end_are_dialled_again_and_the_rest_is_held() {
    let stage = stage("1s");
    let calls = CALLS.to_string();
    let more = ["--calls", &calls, "--echo-interval", "1", "--retry", "0.2"];
    let command = stage.command("hold", &more);
    let mut hold = stage.road.client.start("hold", &command).unwrap();
    // As many calls up as there are to be, and none of those that were killed.
    let all_up = |killed: &[Value]| {
        until("all calls to be up", Duration::from_secs(60), || {
            let sessions = stage.server.sessions()?;
            let new = |one: &&Value| {
                let is = |other: &Value| other["call_id"] == one["call_id"];
                one["state"] == "up" && !killed.iter().any(is)
            };
            Ok((sessions.iter().filter(new).count() as u64 == CALLS).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.server.log()));
    };
    all_up(&[]);
    let killed = stage.server.ask(&["kill", "--all"]).unwrap();
    let killed = killed.as_array().unwrap();
    assert_eq!(killed.len() as u64, CALLS);
    all_up(killed);
    // How many are up is written down once a second.
    std::thread::sleep(Duration::from_millis(1500));
    hold.signal(Signal::INT).unwrap();
    let status = hold.wait(Duration::from_secs(60)).unwrap();
    let report: Value = serde_json::from_str(&hold.output())
        .unwrap_or_else(|error| panic!("{error}: {}", hold.errors()));
    assert_eq!(status.code(), Some(0), "{report}");
    for (name, expected) in [
        ("back", CALLS),
        ("answered", CALLS),
        ("reconnects", CALLS),
        ("came_up", 2 * CALLS),
        ("failed", 0),
        ("unfinished", 0),
    ] {
        assert_eq!(report[name], json!(expected), "{name}: {report}");
    }
    assert_eq!(report["back_ms"]["count"], json!(CALLS), "{report}");
    let ended = report["ended"].as_object().unwrap();
    let count: u64 = ended.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(count, CALLS, "{report}");
    println!("ended: {ended:?}");
    assert!(report["echoes_answered"].as_u64().unwrap() >= CALLS);
    let series = report["up_each_second"].as_array().unwrap();
    assert!(series.contains(&json!(CALLS)), "{report}");
    assert!(report["monkey"].is_null(), "{report}");
    stage.wait_until_empty();
}

#[test]
fn a_power_cut_says_nothing() {
    let stage = stage("60s");
    let more = ["--ends", "power-cut", "--same-id", "0", "--seed", "3"];
    let mut command = stage.command("monkey", &["--calls", "10", "--seconds", "3"]);
    let page = stage.road.lab.directory().join("monkey.html");
    let output = (command.args(["--every", "2", "--away", "0.5"]).args(more))
        .arg("--html")
        .arg(&page)
        .output()
        .unwrap();
    let (status, report) = stage.judge(&output);
    assert_eq!(status, Some(0), "{report}\n{}", stage.server.log());
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("<svg") && page.ends_with("</html>"), "{page}");
    let cuts = report["monkey"]["strikes"].as_u64().unwrap();
    assert!(cuts > 0, "{report}");
    // Their clients dialled anew, hung up and are gone; of the calls before the server has heard nothing yet.
    until("the last calls to be over", Duration::from_secs(20), || {
        Ok((stage.server.sessions()?.len() as u64 <= cuts).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.server.log()));
    assert_eq!(stage.server.sessions().unwrap().len() as u64, cuts);
    assert_eq!(stage.server.stats().unwrap().tunnels, cuts);
    // What the server says to them is answered by a machine that knows nothing of it.
    stage.server.ask(&["kill", "--all"]).unwrap();
    stage.wait_until_empty();
}

#[test]
fn a_scenario_mixes_callers() {
    let stage = stage("60s");
    let Stage { user, password, .. } = &stage;
    let scenario = format!(
        "[[group]]\nname = 'users'\nweight = 2\nuser = '{user}'\npassword = '{password}'\n\
         [[group]]\nname = 'guessers'\nuser = 'guess{{}}'\nusers = 3\npassword = 'a guess'\n"
    );
    let path = stage.road.lab.directory().join("scenario.toml");
    std::fs::write(&path, scenario).unwrap();
    let output = (stage.road.client)
        .command(binary("turnpike-bench").unwrap())
        .args(["storm", &road::SERVER.to_string(), "--json"])
        .args(["--calls", "9", "--scenario"])
        .arg(&path)
        .output()
        .unwrap();
    let (status, report) = stage.judge(&output);
    assert_eq!(status, Some(1), "{report}");
    assert_eq!((&report["up"], &report["failed"]), (&json!(6), &json!(3)));
    let failures = report["failures"].as_object().unwrap();
    assert!(
        failures.len() == 1
            && (failures.iter()).all(|(cause, count)| {
                cause.starts_with("guessers: authentication: ") && *count == json!(3)
            }),
        "{report}"
    );
}

#[test]
fn a_long_run_is_told_in_pieces() {
    let stage = stage("1s");
    let server = stage.server.id().to_string();
    let output = stage
        .command("soak", &["--calls", "20", "--echo-interval", "1"])
        .args(["--seconds", "6", "--interval", "2", "--every", "2"])
        .args(["--away", "0.2", "--watch", &server])
        .output()
        .unwrap();
    let (status, report) = stage.judge(&output);
    assert_eq!(status, Some(0), "{report}\n{}", stage.server.log());
    let intervals = report["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 3, "{report}");
    for interval in intervals {
        assert!(interval["memory_kib"].as_u64().unwrap() > 1024, "{report}");
        assert!(interval["echo_ms"]["count"].as_u64().unwrap() > 0);
    }
    let strikes: u64 = intervals
        .iter()
        .map(|interval| interval["strikes"].as_u64().unwrap())
        .sum();
    assert_eq!(json!(strikes), report["monkey"]["strikes"], "{report}");
    for name in ["echo", "memory_kib"] {
        assert!(report["drift"][name].is_number(), "{name}: {report}");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().count(), 4, "{said}");
    println!("{said}");
}
