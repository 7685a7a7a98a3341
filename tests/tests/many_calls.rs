//! Many calls at once, each with packets both ways all the time: none is lost, and nothing is left of them.
//!
//! Needs root. `cargo xtask test --full` holds 20,000 for ten minutes (`TURNPIKE_HOLD_CALLS`, `TURNPIKE_HOLD_SECONDS`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::{binary, until};

/// The far end of the flows, and the internet's side of the way there.
const NETWORK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);
const BESIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 89);

/// Packets per second each way over all calls. A few only: this is about calls.
const RATE: &str = "2000";

fn wanted(name: &str, or: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(or)
}

#[test]
fn many_calls_are_held_with_packets_in_all_of_them() {
    let calls = wanted("TURNPIKE_HOLD_CALLS", 300);
    let seconds = wanted("TURNPIKE_HOLD_SECONDS", 3);
    let road = Road::build(ClientSide::Namespace).unwrap();
    // Both ends of a flow have one clock: the client has a second way, to behind the server.
    road.internet.veth("n0", &road.client, "n1", 1).unwrap();
    road.internet
        .ip(&format!("addr add {BESIDE}/30 dev n0"))
        .unwrap();
    road.internet.sysctl("net.ipv4.ip_forward", "1").unwrap();
    road.client
        .ip(&format!("addr add {NETWORK}/30 dev n1"))
        .unwrap();
    for network in road::INNER {
        road.client
            .ip(&format!("route add {network} via {BESIDE}"))
            .unwrap();
    }
    let mut configuration = Configuration::example("edge", road.lab.directory()).unwrap();
    for option in ["server.workers", "server.cpus"] {
        configuration.remove(option).unwrap();
    }
    configuration
        .change("limits.connections_per_source", 30_000)
        .unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let user = configuration.user().unwrap();
    let memory = || -> u64 {
        let path = format!("/proc/{}/status", server.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse().ok()).unwrap()
    };
    let before = memory();

    // Two calls to a connection: machines that allow a process 20,000 files are not rare.
    let [number, time] = [calls, seconds].map(|number| number.to_string());
    let mut command = road.client.command(binary("turnpike-bench").unwrap());
    command
        .args(["flow", &road::SERVER.to_string(), "--json"])
        .args(["--user", &user.name, "--password", &user.password])
        .args(["--network", &NETWORK.to_string(), "--calls", &number])
        .args(["--calls-per-connection", "2", "--setup-rate", "300"])
        .args(["--rate", RATE, "--size", "64", "--seconds", &time])
        // How many packets a busy machine loses is not what this is about.
        .args(["--verify", "60", "--allow-loss", "50%"]);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {errors}\n{}", server.log()));
    for (name, expected) in [("begun", calls), ("up", calls), ("lost", 0), ("held", 0)] {
        assert_eq!(report["calls"][name], json!(expected), "{name}: {report}");
    }
    assert_eq!(report["calls"]["failures"], json!({}), "{report}");
    assert_eq!(output.status.code(), Some(0), "{report}");
    println!(
        "{calls} calls up in {} s and held for {seconds} s: {} KiB before, {} KiB at most; {}",
        report["calls"]["setup_seconds"],
        before,
        memory(),
        report["flows"]
    );
    for trial in report["trials"].as_array().unwrap() {
        for (way, counts) in trial["ways"].as_object().into_iter().flatten() {
            println!(
                "{way}: {} sent, {} received",
                counts["sent"], counts["received"]
            );
        }
    }
    let stats = server.stats().unwrap();
    assert_eq!(stats.control["calls_up"], calls);
    assert_eq!(stats.control["calls_refused"], 0);
    until("every call to be over", Duration::from_secs(60), || {
        let stats = server.stats()?;
        Ok((stats.calls + stats.tunnels == 0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", server.log()));
}
