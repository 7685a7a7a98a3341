//! Accounting of a real server: octets equal to those that the clients counted, what `turnpike history` says when the
//! server was killed, and what FreeRADIUS heard of it, away at times.
//!
//! Needs root. `cargo xtask test --full` has a thousand calls and three minutes of outage (`TURNPIKE_ACCOUNTED_CALLS`,
//! `TURNPIKE_ACCOUNTING_OUTAGE`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use xtask::lab::dial::{Client, Plan};
use xtask::lab::needs;
use xtask::lab::process::Process;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::{binary, until};

const CALLS: u32 = 10;

const PATIENCE: Duration = Duration::from_secs(60);

fn dial(road: &Road, configuration: &Configuration, name: &str, calls: u32, words: &str) -> Client {
    let plan = Plan {
        calls,
        more: words.split_whitespace().map(str::to_owned).collect(),
        ..Plan::new(configuration.user().unwrap())
    };
    let mut client = Client::start(&road.client, name, &plan).unwrap();
    client.wait_up(calls as usize, PATIENCE).unwrap();
    client
}

fn history(ledger: &Path, words: &[&str]) -> Vec<Value> {
    let mut command = Command::new(binary("turnpike").unwrap());
    command.arg("history").args(words).arg("--json");
    command.arg("--file").arg(ledger);
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// How many sessions stand how, and ended why.
fn ends(sessions: &[Value]) -> BTreeMap<String, u32> {
    let mut ends = BTreeMap::new();
    for session in sessions {
        let cause = session["cause"].as_str().unwrap_or("none");
        let state = session["state"].as_str().unwrap();
        *ends.entry(format!("{state}: {cause}")).or_default() += 1;
    }
    ends
}

fn expected<const N: usize>(ends: [(&str, u32); N]) -> BTreeMap<String, u32> {
    ends.map(|(end, count)| (end.to_owned(), count)).into()
}

#[test]
fn what_calls_moved_is_written_and_a_kill_loses_no_session() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let ledger = road.lab.directory().join("accounting.sqlite");
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let mut change = |key: &str, value: toml::Value| {
        let key = format!("accounting.{key}");
        configuration.change(&key, value).unwrap();
    };
    change("file", ledger.to_str().unwrap().into());
    change("checkpoint", "1s".into());
    change("failures", true.into());
    let mut command = road.internet.command(binary("turnpike-bench").unwrap());
    command.args(["echo", "--listen", &format!("{}:7000", road::TARGET)]);
    let mut echo = road.internet.start("echo", &command).unwrap();
    echo.wait_for_line(PATIENCE, |line| line.contains("listening"))
        .unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();

    // Calls that end by themselves: the server's count is the clients'.
    let traffic = format!(
        "--traffic 20 --size 200 --seconds 3 --target {}:7000",
        road::TARGET
    );
    let mut client = dial(&road, &configuration, "moving", CALLS, &traffic);
    let (status, report) = client.wait(PATIENCE).unwrap();
    assert!(status.success(), "{}", client.text());
    let report = report.unwrap();
    until("calls to be over", PATIENCE, || {
        Ok((server.stats()?.calls == 0).then_some(()))
    })
    .unwrap();
    let counted = |of: &Value, received: &str, sent: &str| {
        let count = |name: &str| of[name].as_u64().unwrap();
        (count(received), count(sent))
    };
    let mut clients: Vec<_> = report["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| counted(&call["counters"], "sent_octets", "received_octets"))
        .collect();
    let over = history(&ledger, &[]);
    let mut servers: Vec<_> = over
        .iter()
        .map(|session| counted(&session["traffic"], "received_octets", "sent_octets"))
        .collect();
    clients.sort_unstable();
    servers.sort_unstable();
    assert_eq!(servers, clients, "octets from clients, and to them");
    assert!(servers.iter().all(|(received, _)| *received > 200));
    println!("octets of {CALLS} calls, as both ends counted them: {servers:?}");
    assert_eq!(ends(&over), expected([("ended: hung_up", CALLS)]));

    // Calls that the server does not see the end of.
    let mut client = dial(&road, &configuration, "killed", CALLS, "");
    let up = history(&ledger, &["--at", "2999-01-01"]);
    assert_eq!(ends(&up), expected([("up: none", CALLS)]));
    let session = up[0].clone();
    let mut server = server.kill_and_restart(&road.concentrator).unwrap();
    server
        .wait_for_line(PATIENCE, |line| {
            line.contains("crashed or was killed") && line.contains("sessions=10")
        })
        .unwrap();
    client.wait_over(CALLS as usize, PATIENCE).unwrap();
    let all = history(&ledger, &[]);
    let both = [("ended: hung_up", CALLS), ("ended: server_crashed", CALLS)];
    assert_eq!(ends(&all), expected(both));

    // Who had the address is known while the server runs and when it does not.
    let mut last = dial(&road, &configuration, "last", CALLS, "");
    assert!(last.hang_up().unwrap().0.success());
    assert!(server.stop().unwrap().success(), "{}", server.log());
    let address = session["address"].as_str().unwrap();
    let from = session["from"].as_str().unwrap();
    let had = history(&ledger, &[address, "--at", from]);
    assert_eq!(had.len(), 1, "{had:?}");
    assert_eq!(had[0]["session"], session["session"]);
    assert_eq!(had[0]["cause"], "server_crashed");
    assert_eq!(had[0]["user"], configuration.user().unwrap().name);
    let mut sessions: Vec<_> = history(&ledger, &[])
        .iter()
        .map(|session| session["session"].as_str().unwrap().to_owned())
        .collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 3 * CALLS as usize, "no id comes twice");
}

/// FreeRADIUS with nothing but accounting into its detail file. In the concentrator's namespace, on its loopback.
struct Radius {
    directory: PathBuf,
    process: Option<Process>,
}

const SECRET: &str = "sixteen characters";

impl Radius {
    fn new(road: &Road) -> Self {
        let directory = road.lab.directory().join("freeradius");
        std::fs::create_dir(&directory).unwrap();
        let here = directory.display();
        let configuration = format!(
            "prefix = /usr\nexec_prefix = /usr\nlibdir = /usr/lib/freeradius\nlogdir = {here}\nraddbdir = {here}\n\
             pidfile = {here}/radiusd.pid\nmax_requests = 65536\n\
             security {{\nallow_core_dumps = no\nmax_attributes = 200\nreject_delay = 0\nstatus_server = yes\n}}\n\
             client all {{\nipaddr = 127.0.0.1\nsecret = \"{SECRET}\"\n}}\n\
             modules {{\ndetail {{\nfilename = {here}/detail\npermissions = 0600\n}}\n}}\n\
             server default {{\nlisten {{\ntype = acct\nipaddr = 127.0.0.1\nport = 1813\n}}\naccounting {{\ndetail\n}}\n}}\n"
        );
        std::fs::write(directory.join("radiusd.conf"), configuration).unwrap();
        let dictionary = "$INCLUDE /usr/share/freeradius/dictionary\n";
        std::fs::write(directory.join("dictionary"), dictionary).unwrap();
        Self {
            directory,
            process: None,
        }
    }

    fn start(&mut self, road: &Road) {
        let program = needs::find("freeradius").expect("freeradius is installed");
        let mut command = road.concentrator.command(program);
        command.arg("-d").arg(&self.directory);
        command.args(["-f", "-n", "radiusd", "-l", "stdout"]);
        let mut process = road.concentrator.start("freeradius", &command).unwrap();
        process
            .wait_for_line(PATIENCE, |line| line.contains("Ready to process requests"))
            .unwrap();
        self.process = Some(process);
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate(PATIENCE).unwrap();
        }
    }

    /// The records of its detail file, in their order.
    fn records(&self) -> Vec<BTreeMap<String, String>> {
        let text = std::fs::read_to_string(self.directory.join("detail")).unwrap_or_default();
        let records = text.split("\n\n").map(|record| {
            let lines = record
                .lines()
                .filter_map(|line| line.trim().split_once(" = "));
            lines
                .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
                .collect()
        });
        records
            .filter(|record: &BTreeMap<_, _>| !record.is_empty())
            .collect()
    }
}

/// Waits until all that was written has been delivered.
fn delivered(server: &Server) {
    until("records to be delivered", PATIENCE, || {
        let waiting = server.stats()?.control["accounting_records_waiting"];
        Ok((waiting == 0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
}

/// Octets from clients and to them, of each call, sorted.
fn octets(report: &Value) -> Vec<(u64, u64)> {
    let calls = report["calls"].as_array().unwrap().iter().map(|call| {
        let count = |name: &str| call["counters"][name].as_u64().unwrap();
        (count("sent_octets"), count("received_octets"))
    });
    let mut octets: Vec<_> = calls.collect();
    octets.sort_unstable();
    octets
}

#[test]
fn an_outage_of_the_accounting_server_and_a_kill_lose_no_record() {
    let calls =
        std::env::var("TURNPIKE_ACCOUNTED_CALLS").map_or(CALLS, |text| text.parse().unwrap());
    let outage =
        std::env::var("TURNPIKE_ACCOUNTING_OUTAGE").map_or(0, |text| text.parse().unwrap());
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let mut change = |key: &str, value: toml::Value| configuration.change(key, value).unwrap();
    let ledger = road.lab.directory().join("accounting.sqlite");
    change("accounting.file", ledger.to_str().unwrap().into());
    change("accounting.checkpoint", "1s".into());
    let mut radius = toml::Table::new();
    for (key, value) in [
        ("address", "127.0.0.1"),
        ("secret", SECRET),
        ("timeout", "200ms"),
    ] {
        radius.insert(key.to_owned(), value.into());
    }
    radius.insert("tries".to_owned(), 2.into());
    radius.insert("dead_time".to_owned(), "1s".into());
    change("radius.server", vec![toml::Value::Table(radius)].into());
    change("auth.backends", vec![toml::Value::from("local")].into());
    change("limits.connections_per_source", 30_000.into());
    let traffic = format!(
        "--traffic {} --size 200 --seconds 5 --target {}:7000",
        (200 / calls).max(1),
        road::TARGET
    );
    let dial = |name: &str, words: &str| dial(&road, &configuration, name, calls, words);
    let mut command = road.internet.command(binary("turnpike-bench").unwrap());
    command.args(["echo", "--listen", &format!("{}:7000", road::TARGET)]);
    let mut echo = road.internet.start("echo", &command).unwrap();
    echo.wait_for_line(PATIENCE, |line| line.contains("listening"))
        .unwrap();

    let mut freeradius = Radius::new(&road);
    freeradius.start(&road);
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut moving = dial("moving", &traffic);
    delivered(&server);
    // Nobody is there while these end, and others begin.
    freeradius.stop();
    let (status, report) = moving.wait(PATIENCE).unwrap();
    assert!(status.success(), "{}", moving.text());
    let moved = octets(&report.unwrap());
    let mut killed = dial("killed", "");
    std::thread::sleep(Duration::from_secs(outage));
    assert_eq!(
        server.stats().unwrap().calls,
        u64::from(calls),
        "no live call drops"
    );
    let waiting = server.stats().unwrap().control["accounting_records_waiting"];
    assert!(waiting >= u64::from(2 * calls), "{waiting} wait");
    let mut server = server.kill_and_restart(&road.concentrator).unwrap();
    killed.wait_over(calls as usize, PATIENCE).unwrap();
    freeradius.start(&road);
    let mut last = dial("last", "");
    assert!(last.hang_up().unwrap().0.success());
    until("calls to be over", PATIENCE, || {
        Ok((server.stats()?.calls == 0).then_some(()))
    })
    .unwrap();
    delivered(&server);
    assert!(server.stop().unwrap().success(), "{}", server.log());
    freeradius.stop();

    let mut seen = std::collections::BTreeSet::new();
    let mut sessions: BTreeMap<String, Vec<BTreeMap<String, String>>> = BTreeMap::new();
    let mut doubles = 0;
    let mut starts = 0;
    for record in freeradius.records() {
        let kind = record["Acct-Status-Type"].clone();
        let id = record["Acct-Session-Id"].clone();
        if !seen.insert((id.clone(), kind.clone())) {
            doubles += 1;
            continue;
        }
        match kind.as_str() {
            "Accounting-On" => starts += 1,
            "Start" | "Stop" => sessions.entry(id).or_default().push(record),
            other => panic!("{other}"),
        }
    }
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    let mut counted = Vec::new();
    for (id, records) in &sessions {
        let kinds: Vec<_> = records
            .iter()
            .map(|record| record["Acct-Status-Type"].as_str())
            .collect();
        assert_eq!(kinds, ["Start", "Stop"], "{id}");
        let stop = &records[1];
        *ends
            .entry(stop["Acct-Terminate-Cause"].clone())
            .or_default() += 1;
        let number = |name: &str| stop[name].parse::<u64>().unwrap();
        assert_eq!(number("Acct-Input-Gigawords"), 0);
        counted.push((number("Acct-Input-Octets"), number("Acct-Output-Octets")));
    }
    counted.retain(|(from, _)| *from > 200);
    counted.sort_unstable();
    println!(
        "{} sessions, {ends:?}, {doubles} records doubled; octets {}",
        sessions.len(),
        moved.iter().map(|(from, to)| from + to).sum::<u64>(),
    );
    let expected = [("NAS-Reboot", calls), ("User-Request", 2 * calls)];
    assert_eq!(
        ends,
        expected.map(|(end, count)| (end.to_owned(), count)).into()
    );
    assert_eq!(counted, moved, "octets, as the clients counted them");
    assert_eq!(starts, 2);
    // Only what was under way when the server died, or FreeRADIUS did, may come twice.
    assert!(doubles <= 2 * 64, "{doubles}");
}
