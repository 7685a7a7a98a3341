//! How turnpike ends: told to, with a hundred calls up, and killed outright.
//!
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig, End};
use turnpike_protocol::{CallId, Time};
use xtask::lab::dial::{Client, Plan};
use xtask::lab::inside::ping_from;
use xtask::lab::netns::Namespace;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::until;

const CALLS: u32 = 100;

fn dial(road: &Road, configuration: &Configuration, name: &str, calls: u32) -> Client {
    let plan = Plan {
        calls,
        ..Plan::new(configuration.user().unwrap())
    };
    Client::start(&road.client, name, &plan).unwrap()
}

/// Interfaces, addresses, routes, rules and neighbours, as Linux lists them.
fn network(namespace: &Namespace) -> Vec<String> {
    [
        "link show",
        "-4 addr show",
        "route show table all",
        "rule show",
        "neigh show nud permanent",
    ]
    .iter()
    .flat_map(|what| {
        let text = namespace.ip(&format!("-oneline {what}")).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

fn assert_nothing_left(namespace: &Namespace, before: &[String]) {
    assert!(!namespace.has_xdp(road::ACCESS_INTERFACE).unwrap());
    assert!(!namespace.has_xdp(road::UPLINK_INTERFACE).unwrap());
    assert_eq!(network(namespace), before);
}

fn told_to_end(example: &str, queues: u8) {
    let road = Road::with_queues(ClientSide::Namespace, queues).unwrap();
    let before = network(&road.concentrator);
    let configuration = Configuration::example(example, road.lab.directory()).unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    assert!(road.concentrator.has_xdp(road::ACCESS_INTERFACE).unwrap());
    assert_ne!(network(&road.concentrator), before);
    let mut client = dial(&road, &configuration, "dial", CALLS);
    client.wait_up(100, Duration::from_secs(60)).unwrap();
    assert_eq!(server.stats().unwrap().calls, u64::from(CALLS));

    let began = Instant::now();
    let status = server.stop().unwrap();
    let log = server.log();
    assert!(status.success(), "{status}\n{log}");
    println!(
        "{example}: {CALLS} calls ended in {:.2} s",
        began.elapsed().as_secs_f64()
    );
    let over = client.wait_over(100, Duration::from_secs(20)).unwrap();
    for line in &over {
        // Either PPP or the control connection told it; a client that was not told would see its connection end.
        let reason = line["reason"].as_str().unwrap();
        assert!(
            reason.contains("disconnected the call") || reason.contains("peer ended PPP"),
            "a client was not told: {line}"
        );
    }
    let words = ["counters", "received"];
    assert!(
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word))),
        "no counters in the log:\n{log}"
    );
    assert_nothing_left(&road.concentrator, &before);
}

/// What a client heard on its control connection: Call-Disconnect-Notify for its calls, and how the connection ended.
#[derive(Debug, Default)]
struct Heard {
    connected: usize,
    disconnected: usize,
    end: Option<End>,
}

/// Opens `calls` calls over one control connection and listens until the connection ends.
fn listen(calls: u16, connected: &AtomicUsize) -> std::io::Result<Heard> {
    let mut stream = TcpStream::connect((road::SERVER, 1723))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let began = Instant::now();
    let mut caller = Caller::new(CallerConfig::default(), Time::ZERO);
    for id in 0..calls {
        assert!(caller.call(CallId(id), Time::ZERO));
    }
    let mut heard = Heard::default();
    let mut buffer = [0; 4096];
    loop {
        while let Some(action) = caller.poll() {
            match action {
                CallerAction::Send(octets) => stream.write_all(&octets)?,
                CallerAction::Connected { .. } => {
                    heard.connected += 1;
                    connected.fetch_add(1, Ordering::Relaxed);
                }
                CallerAction::Disconnected {
                    result: Some(_), ..
                } => heard.disconnected += 1,
                CallerAction::Finished(end) => {
                    heard.end = Some(end);
                    return Ok(heard);
                }
                _ => {}
            }
        }
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(heard);
        }
        let now = Time::ZERO + began.elapsed();
        caller.receive(&buffer[..len], now).unwrap();
    }
}

/// What a hundred calls in 25 control connections hear, message by message.
#[test]
fn on_sigterm_every_call_and_every_control_connection_gets_its_message() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let connected = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..25)
        .map(|_| {
            let connected = connected.clone();
            road.client.enter(move || listen(4, &connected)).unwrap()
        })
        .collect();
    until("a hundred calls", Duration::from_secs(20), || {
        Ok((connected.load(Ordering::Relaxed) == 100).then_some(()))
    })
    .unwrap();
    assert!(server.stop().unwrap().success(), "{}", server.log());
    for client in clients {
        let heard = client.join().unwrap().unwrap();
        assert_eq!((heard.connected, heard.disconnected), (4, 4), "{heard:?}");
        assert!(matches!(heard.end, Some(End::Stopped(_))), "{heard:?}");
    }
}

#[test]
fn on_sigterm_a_hundred_clients_are_told_and_nothing_is_left_in_the_office() {
    told_to_end("office", 1);
}

#[test]
fn on_sigterm_a_hundred_clients_are_told_and_nothing_is_left_at_the_edge() {
    told_to_end("edge", 2);
}

/// Killed outright it can clean nothing; the next one does, and serves.
#[test]
fn after_a_kill_the_next_one_cleans_up_and_serves() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let before = network(&road.concentrator);
    let configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut first = dial(&road, &configuration, "first", 10);
    first.wait_up(10, Duration::from_secs(30)).unwrap();

    let mut server = server.kill_and_restart(&road.concentrator).unwrap();
    assert_eq!(server.stats().unwrap().calls, 0);
    // The old calls' clients notice in their own time; their TCP connections are gone.
    first.wait_over(10, Duration::from_secs(60)).unwrap();
    // With no call left it ends by itself, and takes its interface away.
    first.wait(Duration::from_secs(20)).unwrap();
    drop(first);
    until(
        "the first client's interface gone",
        Duration::from_secs(5),
        || Ok((road.client.interfaces()?.len() == 1).then_some(())),
    )
    .unwrap();

    let mut second = dial(&road, &configuration, "second", 1);
    second.wait_up(1, Duration::from_secs(30)).unwrap();
    let (answers, _) = ping_from(&road.client, &road::TARGET.to_string(), 3).unwrap();
    assert_eq!(answers, 3, "{}", server.log());
    let (status, _) = second.hang_up().unwrap();
    assert!(status.success(), "{}", second.text());
    assert!(server.stop().unwrap().success());
    assert_nothing_left(&road.concentrator, &before);
}

/// Two at once would take each other's interfaces: the second is refused, and says why.
#[test]
fn a_second_server_with_the_same_directory_is_refused() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let path = road.lab.directory().join("turnpike.toml");
    let mut command = road
        .concentrator
        .command(xtask::lab::binary("turnpike").unwrap());
    command.arg("run").arg("--config").arg(path);
    let mut second = road.concentrator.start("second", &command).unwrap();
    let status = second.wait(Duration::from_secs(10)).unwrap();
    assert!(!status.success());
    assert!(!second.errors().is_empty());
    assert!(server.stats().is_ok());
    assert!(server.stop().unwrap().success());
}
