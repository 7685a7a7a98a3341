//! `turnpike-bench flow` against turnpike: what it says was sent, received, lost, doubled and overtaken is what was.
//!
//! Needs root. The tester is in the client's namespace, which has a second way, to the internet: there is its other end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use xtask::lab::binary;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};

/// The tester's other end, and the internet's side of the way there.
const NETWORK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);
const BESIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 89);

/// A second address to dial from.
const ANOTHER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 3);

const CALLS: u64 = 10;

struct Stage {
    road: Road,
    server: Server,
    user: String,
    password: String,
}

fn stage(example: &str) -> Stage {
    // As many as the example that has an uplink has workers.
    let road = Road::with_queues(ClientSide::Namespace, 2).unwrap();
    road.internet.veth("n0", &road.client, "n1", 1).unwrap();
    road.internet
        .ip(&format!("addr add {BESIDE}/30 dev n0"))
        .unwrap();
    road.internet.sysctl("net.ipv4.ip_forward", "1").unwrap();
    road.client
        .ip(&format!("addr add {NETWORK}/30 dev n1"))
        .unwrap();
    road.client
        .ip(&format!(
            "addr add {ANOTHER}/24 dev {}",
            road::CLIENT_INTERFACE
        ))
        .unwrap();
    for network in road::INNER {
        road.client
            .ip(&format!("route add {network} via {BESIDE}"))
            .unwrap();
    }
    let mut configuration = Configuration::example(example, road.lab.directory()).unwrap();
    configuration.change("auth.mppe", "allow").unwrap();
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
    /// Runs it; its exit status and report.
    fn flow(&self, more: &[&str]) -> (Option<i32>, Value) {
        let mut command: Command = self.road.client.command(binary("turnpike-bench").unwrap());
        command
            .args(["flow", &road::SERVER.to_string(), "--json"])
            .args(["--user", &self.user, "--password", &self.password])
            .args(["--calls", &CALLS.to_string(), "--seconds", "2"])
            .args(["--from", &format!("{},{ANOTHER}", road::CLIENT)])
            .args(more);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {errors}\n{}", self.server.log()));
        assert_eq!(report["calls"]["up"], json!(CALLS), "{report}");
        (output.status.code(), report)
    }

    fn total(&self, name: &str) -> u64 {
        let stats = self.server.settled().unwrap();
        let totals = stats.workers.iter().map(|worker| worker.totals[name]);
        totals.sum()
    }
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// The way of a trial with this name.
fn way<'a>(trial: &'a Value, name: &str) -> &'a Value {
    let ways = trial["ways"].as_array().unwrap();
    ways.iter().find(|way| way["way"] == name).unwrap()
}

/// Sum over all trials, and the verification.
fn in_all(report: &Value, name: &str, what: &str) -> u64 {
    let trials = report["trials"].as_array().unwrap();
    let verification = number(&report["flows"]["ways"][name][what]);
    verification
        + trials
            .iter()
            .map(|trial| number(&way(trial, name)[what]))
            .sum::<u64>()
}

/// What both ends say fits what both workers say: nothing came into being or was lost but in between.
fn balance(stage: &Stage, report: &Value, before: (u64, u64)) {
    let client = |name: &str| number(&report["worker"]["totals"][name]);
    let (decapsulated, encapsulated) = (
        stage.total("decapsulated") - before.0,
        stage.total("encapsulated") - before.1,
    );
    assert_eq!(in_all(report, "up", "sent"), client("encapsulated"));
    assert_eq!(in_all(report, "up", "received"), decapsulated, "{report}");
    // A client may be up a moment before its server, which then has nobody to send to: that is for the verification to
    // find out, and over when the trials begin.
    let sent = in_all(report, "down", "sent");
    let verification = &report["flows"]["ways"]["down"];
    let early = number(&verification["sent"]) - number(&verification["received"]);
    assert!(
        (sent - early..=sent).contains(&encapsulated),
        "{encapsulated} of {sent}: {report}"
    );
    assert_eq!(in_all(report, "down", "received"), client("decapsulated"));
    for end in ["access", "network"] {
        assert_eq!(report[end], json!({"refused": 0, "dropped": 0}));
    }
}

#[test]
fn everything_arrives_both_ways_with_and_without_mppe() {
    let stage = stage("office");
    everything_arrives(&stage, "64,imix", &["--mppe", "require"]);
    everything_arrives(&stage, "1400", &["--mppe", "deny"]);
}

#[test]
fn everything_arrives_over_af_xdp() {
    let words = ["--interface", road::CLIENT_INTERFACE];
    everything_arrives(&stage("edge"), "imix", &words);
}

/// A thousand packets each way of each of these sizes.
fn everything_arrives(stage: &Stage, sizes: &str, more: &[&str]) {
    let network = NETWORK.to_string();
    let before = (stage.total("decapsulated"), stage.total("encapsulated"));
    let page = stage.road.lab.directory().join("flow.html");
    let words = [
        "--network",
        &network,
        "--rate",
        "500",
        "--size",
        sizes,
        "--html",
        page.to_str().unwrap(),
    ];
    let (status, report) = stage.flow(&[&words, more].concat());
    assert_eq!(status, Some(0), "{report}\n{}", stage.server.log());
    assert_eq!(report["tool"], "flow");
    assert_eq!(report["options"]["size"], json!(sizes));
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("<svg") && page.ends_with("</html>"), "{page}");
    assert_eq!(report["flows"]["flows"], json!(CALLS));
    assert_eq!(report["flows"]["all_ways"], json!(CALLS));
    let trials = report["trials"].as_array().unwrap();
    let ran: Vec<&str> = trials
        .iter()
        .map(|trial| trial["size"].as_str().unwrap())
        .collect();
    assert_eq!(ran.join(","), sizes);
    for trial in trials {
        for name in ["up", "down"] {
            let way = way(trial, name);
            for (what, expected) in [
                ("planned", 1000),
                ("sent", 1000),
                ("received", 1000),
                ("lost", 0),
                ("duplicates", 0),
                ("stale", 0),
                ("foreign", 0),
            ] {
                assert_eq!(way[what], json!(expected), "{name} {what}: {report}");
            }
            assert_eq!(way["latency_ms"]["count"], json!(1000));
            let of_seconds = |what: &str| -> u64 {
                let seconds = way["each_second"].as_array().unwrap().iter();
                seconds.map(|second| number(&second[what])).sum()
            };
            assert_eq!((of_seconds("sent"), of_seconds("received")), (1000, 1000));
            assert_eq!(way["worst_flows"].as_array().unwrap().len(), 10);
            println!(
                "{more:?}, size {}, {name}: p50 {} ms, p99 {} ms, late p99 {} ms",
                trial["size"],
                way["latency_ms"]["p50"],
                way["latency_ms"]["p99"],
                way["lateness_ms"]["p99"]
            );
        }
    }
    balance(stage, &report, before);
}

#[test]
fn what_the_way_to_the_server_loses_is_lost_to_a_packet() {
    let stage = stage("edge");
    let network = NETWORK.to_string();
    let before = (stage.total("decapsulated"), stage.total("encapsulated"));
    let (status, report) = stage.flow(&[
        "--network",
        &network,
        "--rate",
        "1500",
        "--size",
        "200",
        "--fault",
        "loss=2%,duplicate=2%,reorder=2%,seed=4",
    ]);
    // Nothing may be lost, if nothing else is said.
    assert_eq!(status, Some(1), "{report}");
    assert_eq!(report["flows"]["all_ways"], json!(CALLS), "{report}");
    for name in ["up", "down"] {
        let way = way(&report["trials"][0], name);
        let (sent, received, lost) = (
            number(&way["sent"]),
            number(&way["received"]),
            number(&way["lost"]),
        );
        assert_eq!(sent, 3000);
        assert_eq!(sent, received + lost);
        assert!(lost > 20, "{report}");
        // RFC 2637 §4.3: what is behind GRE sees nothing twice.
        assert_eq!(way["duplicates"], json!(0), "{report}");
        let of_flows: u64 = way["worst_flows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flow| number(&flow["lost"]))
            .sum();
        assert_eq!(of_flows, lost);
    }
    balance(&stage, &report, before);
}

/// Echoes, but of each flow loses every tenth packet, doubles every tenth, and lets every tenth be overtaken by the next.
fn bad_echo(socket: &UdpSocket, stop: &AtomicBool) {
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut held: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut octets = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut octets) else {
            continue;
        };
        let datagram = &octets[..len];
        // Magic, flow, number, time, run, trial: the trial 0 is the verification, and spared.
        let (flow, trial) = (datagram[4..8].to_vec(), datagram[28]);
        let place = u64::from_be_bytes(datagram[8..16].try_into().unwrap()) % 10;
        let send = |datagram: &[u8]| {
            socket.send_to(datagram, from).unwrap();
        };
        match place {
            3 if trial > 0 => {}
            5 if trial > 0 => {
                send(datagram);
                send(datagram);
            }
            7 if trial > 0 => {
                held.insert(flow, datagram.to_vec());
            }
            _ => {
                send(datagram);
                if let Some(held) = held.remove(&flow) {
                    // Long enough that nothing but this decides about the order.
                    std::thread::sleep(Duration::from_millis(2));
                    send(&held);
                }
            }
        }
    }
}

#[test]
fn loss_order_and_duplicates_are_told_apart() {
    let stage = stage("office");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let (say, hear) = std::sync::mpsc::channel();
    let echo = stage
        .road
        .internet
        .enter(move || {
            let socket = UdpSocket::bind((road::TARGET, 7000)).unwrap();
            say.send(()).unwrap();
            bad_echo(&socket, &stopped);
        })
        .unwrap();
    hear.recv().unwrap();
    let target = format!("{}:7000", road::TARGET);
    // 40 packets in each flow.
    let words = ["--echo", &target, "--rate", "200"];
    let (status, report) = stage.flow(&[&words[..], &["--allow-loss", "10%"]].concat());
    let way = way(&report["trials"][0], "echo");
    for (what, expected) in [
        ("sent", 400),
        ("received", 360),
        ("lost", 40),
        ("duplicates", 40),
        ("reordered", 40),
        ("foreign", 0),
    ] {
        assert_eq!(way[what], json!(expected), "{what}: {report}");
    }
    assert_eq!(status, Some(0), "{report}");
    for flow in way["worst_flows"].as_array().unwrap() {
        let counts = ["sent", "received", "lost", "duplicates", "reordered"];
        let counts = counts.map(|what| number(&flow[what]));
        assert_eq!(counts, [40, 36, 4, 4, 4], "{report}");
    }
    stop.store(true, Ordering::Relaxed);
    echo.join().unwrap();
    // Nobody echoes any more, so no flow is verified, and everything is lost.
    let (status, report) = stage.flow(&[&words[..], &["--verify", "0.5"]].concat());
    assert_eq!(status, Some(1), "{report}");
    assert_eq!(report["flows"]["all_ways"], json!(0), "{report}");
    assert_eq!(report["trials"][0]["ways"][0]["lost"], json!(400));
}
