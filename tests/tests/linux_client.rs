//! A client that nobody here wrote: pptp-linux and pppd in a guest, through turnpike, to somebody on the internet.
//!
//! Needs root and the packages that `cargo xtask test` installs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::time::Duration;

use serde_json::{Value, json};
use xtask::lab::capture::{Seen, Witness};
use xtask::lab::inside::{End, Login, Move, StockCall};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server, Stats};
use xtask::lab::stock::{self, Mppe, Report, StockClient};
use xtask::lab::transfer::{self, Direction, Hall};
use xtask::lab::until;

const STRONG: Mppe = Mppe {
    bits: 128,
    stateless: true,
};

/// A call to make, and how.
struct Case {
    example: &'static str,
    /// `auth.mppe`, where it is not to be the example's.
    mppe: Option<&'static str>,
    /// pppd's options.
    options: &'static [&'static str],
    /// MTU of the access network at the guest.
    mtu: u16,
    queues: u8,
    /// Octets each way.
    bytes: u64,
    end: End,
}

/// What came of it.
struct Outcome {
    report: Report,
    log: String,
    session: Value,
    stats: Stats,
    seen: Seen,
}

fn make(case: &Case) -> Outcome {
    let road = Road::with_queues(ClientSide::Guest, case.queues).unwrap();
    let mut configuration = Configuration::example(case.example, road.lab.directory()).unwrap();
    if let Some(mppe) = case.mppe {
        configuration.change("auth.mppe", mppe).unwrap();
    }
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let marker = transfer::fresh_marker();
    let witness = Witness::start(&road.access, road::BRIDGE, &marker).unwrap();
    let hall = Hall::open(&road.internet, road::TARGET, 0).unwrap();
    let user = configuration.user().unwrap();
    let call = StockCall {
        server: road::SERVER.to_string(),
        user: user.name.clone(),
        password: user.password,
        login: Login::default(),
        options: case.options.iter().map(|&option| option.into()).collect(),
        route: Some("default".into()),
        ping: Some(road::TARGET.to_string()),
        pings: 5,
        ping_before: true,
        moves: [Direction::Up, Direction::Down]
            .map(|direction| Move {
                to: hall.address(),
                direction,
                bytes: case.bytes,
                marker: marker.clone(),
            })
            .to_vec(),
        end: case.end,
    };
    let limit = Duration::from_secs(240);
    let mut client = StockClient::start(&road.client, "guest", case.mtu, &call, limit).unwrap();
    client
        .wait_until("pings", |_| (), |report| report.pinged.is_some())
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    let sessions = server.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    if case.end == End::Server {
        client
            .wait_until("both streams", |_| (), |report| report.moved.len() == 2)
            .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
        let killed = server.ask(&["kill", "--all"]).unwrap();
        assert_eq!(killed[0]["user"], json!(user.name), "{killed}");
    }
    let report = client
        .finish(|_| ())
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    until(
        "no calls and no control connections",
        Duration::from_secs(5),
        || {
            let stats = server.stats()?;
            Ok((stats.calls == 0 && stats.tunnels == 0).then_some(()))
        },
    )
    .unwrap();
    let stats = server.settled().unwrap();
    assert!(server.stop().unwrap().success(), "{}", server.log());
    let seen = witness.stop().unwrap();

    // What has to hold of every call.
    assert_eq!(report.reached_before, Some(false));
    let up = report.up.clone().unwrap();
    assert_eq!(sessions[0]["address"], json!(up.address));
    assert_eq!(sessions[0]["client"], json!(road::CLIENT.to_string()));
    assert_eq!(up.server_address, "10.20.0.1");
    let (sent, received, _) = report.pinged.unwrap();
    assert_eq!((sent, received), (5, 5));
    assert_eq!(report.moved.len(), 2);
    for (number, here) in report.moved.iter().enumerate() {
        let there = hall.moved(number).unwrap();
        assert_eq!((here.bytes, &here.sha256), (there.bytes, &there.sha256));
        assert_eq!(here.bytes, case.bytes);
        println!(
            "{} {:?}: {:.0} Mbit/s",
            case.options.join(" "),
            here.direction,
            here.megabits()
        );
    }
    Outcome {
        report,
        log: client.log(),
        session: sessions[0].clone(),
        stats,
        seen,
    }
}

/// The mode of each direction, as both ends tell it.
fn assert_modes(outcome: &Outcome, wanted: Option<Mppe>) {
    let json = wanted.map_or(
        Value::Null,
        |mode| json!({"bits": mode.bits, "stateless": mode.stateless}),
    );
    assert_eq!(outcome.session["mppe_receive"], json);
    assert_eq!(outcome.session["mppe_transmit"], json);
    assert_eq!(
        stock::negotiated(&outcome.log),
        (wanted, wanted),
        "{}",
        outcome.log
    );
}

fn packets(outcome: &Outcome, port: &str) -> (u64, u64) {
    (
        outcome.stats.port(port, |port| port.received),
        outcome.stats.port(port, |port| port.transmitted),
    )
}

#[test]
fn mppe_128_carries_100_megabytes_each_way_and_the_client_hangs_up() {
    let outcome = make(&Case {
        example: "office",
        mppe: None,
        options: &["require-mppe-128", "mtu 1400", "mru 1400"],
        mtu: 1500,
        queues: 1,
        bytes: 100_000_000,
        end: End::Client,
    });
    assert_modes(&outcome, Some(STRONG));
    assert_eq!(outcome.seen.markers, 0);
    assert_eq!(outcome.seen.later_fragments, 0);
    // 5: told to hang up. It is pppd's habit to wait 5 s for its helper to end.
    let (status, after_ms) = outcome.report.down.unwrap();
    assert_eq!(status, Some(5), "{}", outcome.log);
    assert!(after_ms < 12_000, "hanging up took {after_ms} ms");
    assert!(outcome.log.contains("rcvd [LCP TermAck"), "{}", outcome.log);
}

#[test]
fn a_call_in_clear_carries_100_megabytes_each_way_and_the_server_hangs_up() {
    let outcome = make(&Case {
        example: "office",
        mppe: Some("allow"),
        options: &["nomppe", "mtu 1400", "mru 1400"],
        mtu: 1500,
        queues: 1,
        bytes: 100_000_000,
        end: End::Server,
    });
    assert_modes(&outcome, None);
    assert!(outcome.seen.markers > 1000, "{:?}", outcome.seen);
    assert!(
        outcome.log.contains("rcvd [LCP TermReq") || outcome.log.contains("Modem hangup"),
        "{}",
        outcome.log
    );
    let (_, after_ms) = outcome.report.down.unwrap();
    assert!(after_ms < 20_000, "the client noticed after {after_ms} ms");
}

/// The client's link to the access network is narrower than its packets: all big ones leave in two fragments, and reach
/// their call by way of Linux.
#[test]
fn a_call_whose_packets_come_in_fragments_works() {
    let outcome = make(&Case {
        example: "office",
        mppe: None,
        options: &["require-mppe-128", "mtu 1400", "mru 1400"],
        mtu: 1000,
        queues: 1,
        bytes: 10_000_000,
        end: End::Client,
    });
    assert_modes(&outcome, Some(STRONG));
    // 10 MB in packets of at most 1,360 octets of data.
    assert!(outcome.seen.later_fragments >= 7_000, "{:?}", outcome.seen);
}

/// Access and uplink: what the client sends leaves for the next hop past Linux, and comes back past it.
#[test]
fn at_the_edge_packets_go_past_linux() {
    let outcome = make(&Case {
        example: "edge",
        mppe: None,
        options: &["require-mppe-128", "mtu 1400", "mru 1400"],
        mtu: 1500,
        queues: 2,
        bytes: 50_000_000,
        end: End::Client,
    });
    assert_modes(&outcome, Some(STRONG));
    let segments = 50_000_000 / 1400;
    let (back, out) = packets(&outcome, "uplink");
    assert!(
        back > segments && out > segments,
        "uplink: {back} back, {out} out"
    );
    let (to_us, to_linux) = packets(&outcome, "host");
    assert!(
        to_us + to_linux < segments / 10,
        "host: {to_us}, {to_linux}"
    );
}

/// The stock client with a wrong password: it is told why, and the server's log says who and from where.
#[test]
fn a_wrong_password_is_refused_with_691() {
    let road = Road::build(ClientSide::Guest).unwrap();
    let configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let call = StockCall {
        server: road::SERVER.to_string(),
        user: configuration.user().unwrap().name,
        password: "not this one".into(),
        login: Login::default(),
        options: vec!["require-mppe-128".into()],
        route: None,
        ping: None,
        pings: 0,
        ping_before: false,
        moves: Vec::new(),
        end: End::Client,
    };
    let limit = Duration::from_secs(60);
    let mut client = StockClient::start(&road.client, "guest", 1500, &call, limit).unwrap();
    let report = client
        .wait_until("the refusal", |_| (), |report| report.failed.is_some())
        .unwrap()
        .clone();
    // 19: we failed to authenticate ourselves to the peer.
    assert_eq!(report.failed, Some(Some(19)), "{}", client.log());
    assert!(client.log().contains("E=691"), "{}", client.log());
    server
        .says(&["E=691", &call.user, &road::CLIENT.to_string()])
        .unwrap();
}
