//! Outages and loss over veth, with real workers at both ends: data flows again by itself, each time.
//!
//! Needs root. The client's device loses; the server knows nothing of it. Traffic goes both ways: numbered datagrams and
//! their echoes. `TURNPIKE_LOSS_SECONDS` says how long a stateful call lives with loss (`cargo xtask test --full`: ten
//! minutes).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::binary;
use xtask::lab::dial::{Client, Plan};
use xtask::lab::process::Process;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};

struct Bench {
    road: Road,
    configuration: Configuration,
    _echo: Process,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Configuration)) -> Self {
        let road = Road::build(ClientSide::Namespace).unwrap();
        let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
        configuration.change("limits.echo_interval", "1s").unwrap();
        change(&mut configuration);
        let mut command = road.internet.command(binary("turnpike-bench").unwrap());
        command.args(["echo", "--listen", &format!("{}:7000", road::TARGET)]);
        let mut echo = road.internet.start("echo", &command).unwrap();
        echo.wait_for_line(Duration::from_secs(5), |line| line.contains("listening"))
            .unwrap();
        Self {
            road,
            configuration,
            _echo: echo,
        }
    }

    fn dial(&self, name: &str, words: &str) -> Client {
        let words = format!("{words} --size 200 --target {}:7000", road::TARGET);
        let plan = Plan {
            more: words.split(' ').map(str::to_owned).collect(),
            ..Plan::new(self.configuration.user().unwrap())
        };
        let mut client = Client::start(&self.road.client, name, &plan).unwrap();
        client.wait_up(1, Duration::from_secs(40)).unwrap();
        client
    }
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no count"))
}

/// The line about the traffic, and the last one, of a client whose call lived to its end.
fn ended(client: &mut Client, limit: Duration) -> (Value, Value) {
    let (status, report) = client.wait(limit).unwrap();
    assert!(status.success(), "{}", client.text());
    let traffic = client
        .said()
        .iter()
        .find(|line| line["event"] == "traffic")
        .unwrap()
        .clone();
    (traffic["total"].clone(), report.unwrap())
}

/// What the server says of its only call.
fn session(server: &Server, stateless: bool) -> Value {
    let sessions = server.sessions().unwrap();
    let session = sessions
        .first()
        .unwrap_or_else(|| panic!("the call is over:\n{}", server.log()))
        .clone();
    for direction in ["mppe_receive", "mppe_transmit"] {
        assert_eq!(session[direction]["bits"], 128);
        assert_eq!(session[direction]["stateless"], stateless);
    }
    session
}

#[test]
fn outages_of_any_length_heal_by_themselves() {
    let bench = Bench::new(|_| ());
    let mut server = Server::start(&bench.road.concentrator, &bench.configuration).unwrap();
    // So many packets a second that each way is out for more than a second: echoes are due in that time.
    for (packets, rate) in [(10, 7), (300, 200), (4_000, 2_700), (10_000, 5_000)] {
        let out = 2.0 * f64::from(packets) / f64::from(rate);
        let seconds = (1.0 + out + 3.0).ceil();
        let mut client = bench.dial(
            &format!("outage-{packets}"),
            &format!("--outage {packets} --echo-interval 2 --traffic {rate} --seconds {seconds}"),
        );
        std::thread::sleep(Duration::from_secs(1));
        client.signal(Signal::USR1).unwrap();
        std::thread::sleep(Duration::from_secs_f64(out + 2.0));
        let session = session(&server, true);
        let (traffic, report) = ended(&mut client, Duration::from_secs(40));

        let [lost_down, lost_up] =
            ["receive", "transmit"].map(|way| number(&report["faults"][way]["lost"]));
        let [echoes_down, echoes_up] =
            ["receive", "transmit"].map(|way| number(&report["faults"][way]["echoes"]));
        let changes_up = number(&session["counters"]["mppe_key_changes"]);
        let changes_down = number(&report["calls"][0]["counters"]["mppe_key_changes"]);
        let silence = number(&traffic["longest_silence_ms"]);
        let (sent, received) = (number(&traffic["sent"]), number(&traffic["received"]));
        println!(
            "{packets} packets lost each way at {rate} a second (with acknowledgements {lost_up} up, {lost_down} down; \
             LCP echoes {echoes_up} up, {echoes_down} down): silent for {silence} ms, of which the outages were \
             {:.0}; {changes_up} key changes at the server, {changes_down} at the client; {} of {sent} echoes lost",
            1000.0 * out,
            sent - received,
        );
        let packets = packets as u64;
        assert!(lost_up >= packets && lost_down >= packets);
        assert!(echoes_up > 0 && echoes_down > 0, "no LCP echo was lost");
        // What was lost, and what went into finding the key again: a few packets each way.
        assert!(sent - received <= 2 * packets + 50, "{traffic}");
        assert!(silence as f64 <= 1000.0 * out + 1500.0);
        // A change for every packet that came or did not, and not many more for nothing.
        for changes in [changes_up, changes_down] {
            assert!(changes >= packets, "{changes}");
            assert!(changes <= 2 * (sent + packets), "{changes}");
        }
    }
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

fn lives_with_loss(dialect: &str) {
    let seconds = std::env::var("TURNPIKE_LOSS_SECONDS").map_or(20, |text| text.parse().unwrap());
    let bench = Bench::new(|configuration| {
        configuration.change("auth.mppe_stateful", "ask").unwrap();
    });
    let mut server = Server::start(&bench.road.concentrator, &bench.configuration).unwrap();
    let mut client = bench.dial(
        dialect,
        &format!(
            "--mppe-stateful accept --resets {dialect} --fault loss=5%,seed=7 --traffic 100 --seconds {seconds}"
        ),
    );
    std::thread::sleep(Duration::from_secs(seconds - 2));
    let session = session(&server, false);
    let stats = server.stats().unwrap();
    let (traffic, report) = ended(&mut client, Duration::from_secs(60));
    let at_server = |total: &str| -> u64 {
        stats
            .workers
            .iter()
            .filter_map(|worker| worker.totals.get(total))
            .sum()
    };
    let at_client = |total: &str| number(&report["worker"]["totals"][total]);
    let silence = number(&traffic["longest_silence_ms"]);
    let (sent, received) = (number(&traffic["sent"]), number(&traffic["received"]));
    println!(
        "5 % of packets lost each way for {seconds} s, stateful, {dialect}: {received} of {sent} came back, the longest \
         silence was {silence} ms; resets {} from the server, {} from the client; key changes {} at the server, {} at \
         the client",
        at_server("resets-requested"),
        at_client("resets-requested"),
        session["counters"]["mppe_key_changes"],
        report["calls"][0]["counters"]["mppe_key_changes"],
    );
    for count in [
        at_server("resets-requested"),
        at_server("resets-answered"),
        at_client("resets-requested"),
        at_client("resets-answered"),
    ] {
        assert!(count > seconds / 4, "nothing was reset");
    }
    // A lost Reset-Request, or a lost flushed packet, costs a second.
    assert!(received > sent / 10, "{traffic}");
    assert!(silence < 10_000, "{traffic}");
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

#[test]
fn a_stateful_call_lives_with_loss_as_the_rfc_resets() {
    lives_with_loss("rfc3078");
}

#[test]
fn a_stateful_call_lives_with_loss_as_linux_resets() {
    lives_with_loss("linux");
}
