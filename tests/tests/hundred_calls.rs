//! A hundred calls at once over a network that loses, doubles and reorders, with every packet accounted for.
//!
//! Needs root. The faults are a device of the client's worker; the datagrams are numbered UDP of Linux, echoed behind
//! the concentrator. The books are balanced at every step of the way, in frames, so that nothing can hide in a sum.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use xtask::lab::binary;
use xtask::lab::dial::{Client, Plan};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};

const CALLS: u32 = 100;
const SECONDS: u32 = 10;
/// Datagrams per second on each call.
const RATE: u32 = 40;
const FAULTS: &str = "loss=1%,duplicate=1%,reorder=1%,seed=11";

/// Drops that can befall a packet on its way out of a tunnel; the other reasons are about the way in.
const DECAP: [&str; 22] = [
    "outer-header",
    "outer-checksum",
    "unknown-call",
    "wrong-source",
    "gre-late",
    "gre-duplicate",
    "empty-payload",
    "ppp-short",
    "frame-rate",
    "event-ring-full",
    "mppe-no-keys",
    "mppe-late",
    "mppe-too-far-ahead",
    "mppe-garbage",
    "plain-refused",
    "not-yet-forwarding",
    "not-yet-encrypted",
    "inner-header",
    "inner-checksum",
    "spoofed",
    "wrong-inner-destination",
    "control-in-mppe",
];

/// What one worker counted.
struct Worker {
    access_received: u64,
    access_transmitted: u64,
    host_received: u64,
    host_transmitted: u64,
    /// Frames that the kernel dropped at its sockets.
    socket_drops: u64,
    drops: BTreeMap<String, u64>,
    totals: BTreeMap<String, u64>,
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

fn map(value: &Value) -> BTreeMap<String, u64> {
    let entries = value.as_object().unwrap().iter();
    entries
        .map(|(name, count)| (name.clone(), number(count)))
        .collect()
}

impl Worker {
    /// From the last line of `turnpike-bench dial --json`.
    fn of_client(report: &Value) -> Self {
        let ports = &report["worker"]["ports"];
        let frames = |port: &str, way: &str| number(&ports[port][way]["frames"]);
        let sockets = report["sockets"].as_array().unwrap().iter();
        Self {
            access_received: frames("access", "received"),
            access_transmitted: frames("access", "transmitted"),
            host_received: frames("host", "received"),
            host_transmitted: frames("host", "transmitted"),
            socket_drops: sockets
                .map(|socket| {
                    let counts = &socket["statistics"];
                    number(&counts["rx_dropped"]) + number(&counts["rx_ring_full"])
                })
                .sum(),
            drops: map(&report["worker"]["drops"]),
            totals: map(&report["worker"]["totals"]),
        }
    }

    fn of_server(server: &Server) -> Self {
        let stats = server.settled().unwrap();
        let mut totals = BTreeMap::new();
        for (name, count) in stats.workers.iter().flat_map(|worker| &worker.totals) {
            *totals.entry(name.clone()).or_default() += count;
        }
        Self {
            access_received: stats.port("access", |port| port.received),
            access_transmitted: stats.port("access", |port| port.transmitted),
            host_received: stats.port("host", |port| port.received),
            host_transmitted: stats.port("host", |port| port.transmitted),
            socket_drops: ["access", "host"]
                .iter()
                .map(|port| stats.port(port, |socket| socket.rx_dropped + socket.rx_ring_full))
                .sum(),
            drops: stats.drops(),
            totals,
        }
    }

    fn total(&self, name: &str) -> u64 {
        *self
            .totals
            .get(name)
            .unwrap_or_else(|| panic!("no total {name}: {:?}", self.totals))
    }

    fn decap_drops(&self) -> u64 {
        self.drops
            .iter()
            .filter(|(name, _)| DECAP.contains(&name.as_str()))
            .map(|(_, count)| count)
            .sum()
    }

    fn encap_drops(&self) -> u64 {
        self.drops.values().sum::<u64>() - self.decap_drops()
    }
}

/// The injector's book of one direction.
struct Injected {
    seen: u64,
    passed: u64,
    lost: u64,
    copies: u64,
    reordered: u64,
}

impl Injected {
    fn new(report: &Value, way: &str) -> Self {
        let tally = &report["faults"][way];
        let read = |name: &str| number(&tally[name]);
        assert_eq!(read("refused"), 0, "{tally}");
        let book = Self {
            seen: read("seen"),
            passed: read("passed"),
            lost: read("lost"),
            copies: read("copies"),
            reordered: read("reordered"),
        };
        assert_eq!(book.seen + book.copies, book.passed + book.lost, "{tally}");
        // Each kind of fault has really happened.
        for (kind, count) in [
            ("lost", book.lost),
            ("copies", book.copies),
            ("reordered", book.reordered),
        ] {
            assert!(count * 400 > book.seen, "{kind}: {count} of {}", book.seen);
        }
        book
    }
}

/// One direction of all calls: who gave what to whom.
struct Way<'a> {
    name: &'a str,
    /// The worker that puts packets into tunnels.
    from: &'a Worker,
    /// The worker that takes them out.
    to: &'a Worker,
    injected: Injected,
    /// Datagrams that the sending side gave to Linux, and that the receiving side got from Linux.
    datagrams: (u64, u64),
    /// Datagrams that Linux dropped at the receiving socket.
    undelivered: u64,
}

impl Way<'_> {
    /// Balances every step, and prints the sum.
    fn balance(&self) {
        let name = self.name;
        let (from, to) = (self.from, self.to);
        let (sent, delivered) = self.datagrams;
        // Linux gave the worker what was sent, and nothing else (no other program speaks there).
        assert_eq!(
            sent, from.host_received,
            "{name}: datagrams into the host port"
        );
        assert_eq!(from.encap_drops(), 0, "{name}: {:?}", from.drops);
        assert_eq!(
            sent,
            from.total("encapsulated"),
            "{name}: datagrams into tunnels"
        );
        // What goes out of the access port is data, acknowledgements and control frames.
        let answered = from.total("resets-answered") + from.total("echoes-answered");
        let own = from.total("acks-sent") + from.total("frames-sent") + answered;
        assert_eq!(
            sent + own,
            from.access_transmitted,
            "{name}: GRE packets sent"
        );
        // The network: the client's injector is at one end of it, whichever way it goes.
        let sum = from.access_transmitted + self.injected.copies;
        assert_eq!(
            sum,
            to.access_received + self.injected.lost + to.socket_drops,
            "{name}: the network"
        );
        // What came out of the access port was data, acknowledgements, control frames, or was dropped under a name.
        let answered = to.total("resets-answered") + to.total("echoes-answered");
        let control = to.total("acks-received") + to.total("frames-received") + answered;
        let data = to.total("decapsulated");
        let dropped = to.decap_drops();
        assert_eq!(
            to.access_received,
            data + control + dropped,
            "{name}: {:?}",
            to.drops
        );
        // And all data reached whom it was for.
        assert_eq!(data, to.host_transmitted, "{name}: packets to Linux");
        assert_eq!(
            data,
            delivered + self.undelivered,
            "{name}: datagrams out of the host port"
        );
        println!(
            "{name}: {} GRE packets sent ({sent} data, {own} control and acks) + {} copies = {} delivered \
             ({delivered} data, {control} control and acks) + {dropped} dropped by name + {} dropped by AF_XDP \
             + {} dropped at the last socket + {} lost by the injector ({} reordered)",
            from.access_transmitted,
            self.injected.copies,
            delivered + control,
            to.socket_drops,
            self.undelivered,
            self.injected.lost,
            self.injected.reordered,
        );
        println!("{name}: drops by name: {:?}", to.drops);
    }
}

#[test]
fn a_hundred_calls_through_faults_lose_nothing_that_is_not_accounted_for() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut command = road.internet.command(binary("turnpike-bench").unwrap());
    command.args(["echo", "--listen", &format!("{}:7000", road::TARGET)]);
    let mut echo = road.internet.start("echo", &command).unwrap();
    echo.wait_for_line(Duration::from_secs(5), |line| line.contains("listening"))
        .unwrap();

    let words = format!(
        "--fault {FAULTS} --traffic {RATE} --seconds {SECONDS} --size 300 --target {}:7000",
        road::TARGET
    );
    let plan = Plan {
        calls: CALLS,
        more: words.split(' ').map(str::to_owned).collect(),
        ..Plan::new(configuration.user().unwrap())
    };
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client
        .wait_up(CALLS as usize, Duration::from_secs(90))
        .unwrap();
    assert_eq!(server.stats().unwrap().calls, u64::from(CALLS));
    let (status, report) = client.wait(Duration::from_secs(90)).unwrap();
    let report = report.unwrap();
    assert!(
        status.success(),
        "{}\nturnpike:\n{}",
        client.text(),
        server.log()
    );
    // No call was lost.
    assert_eq!(number(&report["came_up"]), u64::from(CALLS));
    assert_eq!(number(&report["failed"]), 0, "{report}");

    let server_worker = Worker::of_server(&server);
    let client_worker = Worker::of_client(&report);
    assert!(echo.terminate(Duration::from_secs(5)).unwrap().success());
    let echoed: Value = serde_json::from_str(&echo.output()).unwrap();
    let there = &echoed["total"];
    let traffic = client
        .said()
        .iter()
        .find(|line| line["event"] == "traffic")
        .unwrap()
        .clone();
    let here = &traffic["total"];

    // No packet was delivered twice, none went astray, and every call carried some.
    for side in [here, there] {
        assert_eq!(number(&side["duplicates"]), 0, "{side}");
        assert_eq!(number(&side["foreign"]), 0, "{side}");
        assert_eq!(number(&side["out_of_order"]), 0, "{side}");
        assert_eq!(number(&side["send_errors"]), 0, "{side}");
    }
    let calls = traffic["calls"].as_object().unwrap();
    assert_eq!(calls.len(), CALLS as usize);
    let least = u64::from(RATE * SECONDS / 2);
    for (call, count) in calls {
        assert!(number(&count["received"]) > least, "call {call}: {count}");
    }
    assert_eq!(echoed["calls"].as_object().unwrap().len(), CALLS as usize);

    Way {
        name: "to the server",
        from: &client_worker,
        to: &server_worker,
        injected: Injected::new(&report, "transmit"),
        datagrams: (number(&here["sent"]), number(&there["received"])),
        undelivered: number(&echoed["socket_drops"]),
    }
    .balance();
    Way {
        name: "to the clients",
        from: &server_worker,
        to: &client_worker,
        injected: Injected::new(&report, "receive"),
        datagrams: (number(&there["sent"]), number(&here["received"])),
        undelivered: 0,
    }
    .balance();
    assert!(server.stop().unwrap().success());
}
