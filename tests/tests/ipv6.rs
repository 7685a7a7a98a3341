//! IPv6 through calls: Linux behind the client makes itself an address of the call's prefix, as the router in turnpike
//! tells it, and reaches a host behind the concentrator by it; both ways, with IPv4 beside it.
//!
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use xtask::lab::dial::{Client, Plan, TUNNEL_INTERFACE};
use xtask::lab::road::{ACCESS_INTERFACE, ClientSide, Road, TARGET, UPLINK_INTERFACE};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::until;

/// A host behind the concentrator.
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 5);
const PORT: u16 = 7000;
/// What each end sends.
const OCTETS: usize = 4 << 20;

/// The first call's prefix: the very first is the concentrator's own.
const PREFIX: &str = "2001:db8:1:1::/64";

/// Each end sends what it has, and then takes what comes.
fn exchange(mut stream: TcpStream, seed: u8) -> Vec<u8> {
    let octets: Vec<u8> = (0..OCTETS).map(|n| (n % 251) as u8 ^ seed).collect();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut reader = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        stream.write_all(&octets).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    got
}

fn is_from(got: &[u8], seed: u8) -> bool {
    got.len() == OCTETS
        && got
            .iter()
            .zip(0..)
            .all(|(octet, n)| *octet == (n % 251_usize) as u8 ^ seed)
}

fn ipv6_through_a_call(example: &str, no_mppe: bool) {
    let road = Road::with_queues(ClientSide::Namespace, 2).unwrap();
    for namespace in [&road.client, &road.concentrator, &road.internet] {
        namespace.enable_ipv6().unwrap();
    }
    let concentrator = &road.concentrator;
    concentrator
        .sysctl("net.ipv6.conf.all.forwarding", "1")
        .unwrap();
    concentrator
        .ip(&format!(
            "addr add 2001:db8:ffff::1/64 dev {UPLINK_INTERFACE} nodad"
        ))
        .unwrap();
    road.internet
        .ip(&format!("addr add {HOST}/64 dev inet0 nodad"))
        .unwrap();
    road.internet
        .ip("route add 2001:db8:1::/48 via 2001:db8:ffff::1")
        .unwrap();

    let mut configuration = Configuration::example(example, road.lab.directory()).unwrap();
    configuration
        .change("network.ipv6_pool", "2001:db8:1::/48")
        .unwrap();
    configuration
        .change(
            "network.dns6",
            toml::Value::Array(vec!["2001:db8::53".into()]),
        )
        .unwrap();
    if no_mppe {
        configuration.change("auth.mppe", "allow").unwrap();
    }
    let mut server = Server::start(concentrator, &configuration).unwrap();

    let mut plan = Plan::new(configuration.user().unwrap());
    plan.no_mppe = no_mppe;
    plan.more.push("--ipv6".into());
    // What the router says is seen from its first word.
    let mut watch = road
        .client
        .start(
            "tcpdump",
            road.client.command("tcpdump").args([
                "-i",
                "any",
                "--immediate-mode",
                "-l",
                "-n",
                "-v",
                "icmp6",
            ]),
        )
        .unwrap();
    watch
        .wait_for_line(Duration::from_secs(10), |line| line.contains("listening"))
        .unwrap();
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, Duration::from_secs(20)).unwrap();
    let begun = Instant::now();

    // Linux makes itself an address, and looks whether somebody has it (a second).
    // The first advertisement may come before Linux has its interface up. Then it asks, after a second and then every
    // four or more; what the router says unasked comes up to 16 s later.
    let address: Ipv6Addr = until("an address of the prefix", Duration::from_secs(12), || {
        let shown = road.client.ip(&format!(
            "-6 -oneline addr show dev {TUNNEL_INTERFACE} scope global -tentative"
        ))?;
        Ok(shown.split_whitespace().find_map(|word| {
            let (address, length) = word.split_once('/')?;
            (length == "64").then(|| address.parse().ok())?
        }))
    })
    .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    println!("{example}: {address} after {:?}", begun.elapsed());
    let prefix: ipnet::Ipv6Net = PREFIX.parse().unwrap();
    assert!(prefix.contains(&address), "{address}");
    let routes = road.client.ip("-6 route show default").unwrap();
    assert!(
        routes.contains("via fe80::1") && routes.contains("proto ra"),
        "{routes}"
    );
    watch
        .wait_for_line(Duration::from_secs(5), |line| {
            line.contains("rdnss option") && line.contains("addr: 2001:db8::53")
        })
        .unwrap();
    let sessions = server.sessions().unwrap();
    assert_eq!(sessions[0]["ipv6_prefix"], json!(PREFIX));
    assert_eq!(
        sessions[0]["mppe_receive"].is_null(),
        no_mppe,
        "{}",
        sessions[0]
    );

    // Both versions side by side, near and far.
    for line in [
        format!("ping -6 -c 3 -i 0.2 -W 3 {HOST}"),
        "ping -6 -c 3 -i 0.2 -W 3 2001:db8:1::1".to_owned(),
        format!("ping -6 -c 3 -i 0.2 -W 3 fe80::1%{TUNNEL_INTERFACE}"),
        format!("ping -c 3 -i 0.2 -W 3 {TARGET}"),
        // As large as the tunnel takes.
        format!("ping -6 -c 3 -i 0.2 -W 3 -M do -s 1352 {HOST}"),
    ] {
        road.client
            .run(&line)
            .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    }
    road.internet
        .run(&format!("ping -6 -c 3 -i 0.2 -W 3 {address}"))
        .unwrap();
    // Too large for it: the sender hears of it, and then sends in pieces.
    road.internet
        .run(&format!("ping -6 -c 5 -i 0.2 -W 3 -s 1440 {address}"))
        .unwrap();

    // TCP, from the client and to it.
    for inbound in [false, true] {
        let (listening, dialling) = match inbound {
            false => (&road.internet, &road.client),
            true => (&road.client, &road.internet),
        };
        let to = if inbound { address } else { HOST };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let there = listening
            .enter(move || {
                let listener = TcpListener::bind((to, PORT)).unwrap();
                ready.send(()).unwrap();
                let (stream, from) = listener.accept().unwrap();
                (exchange(stream, 1), from)
            })
            .unwrap();
        is_ready.recv().unwrap();
        let here = dialling
            .enter(move || exchange(TcpStream::connect((to, PORT)).unwrap(), 2))
            .unwrap();
        let here = here.join().unwrap();
        let (there, from) = there.join().unwrap();
        assert!(is_from(&here, 1) && is_from(&there, 2));
        let expected = if inbound { HOST } else { address };
        assert_eq!(from.ip(), expected);
    }

    // Somebody else's address is no use.
    road.client
        .ip(&format!(
            "addr add 2001:db8:1:77::1/128 dev {TUNNEL_INTERFACE} nodad"
        ))
        .unwrap();
    let spoofed = road.client.run(&format!(
        "ping -6 -c 2 -i 0.2 -W 1 -I 2001:db8:1:77::1 {HOST}"
    ));
    assert!(spoofed.is_err(), "{spoofed:?}");

    let drops = server.stats().unwrap().drops();
    assert!(drops.get("spoofed").is_some_and(|n| *n >= 2), "{drops:?}");
    let pool6 = server.ask(&["stats"]).unwrap()["xdp"]["pool6"].clone();
    assert!(pool6.as_u64().is_some_and(|n| n > 100), "{pool6}");
    client.hang_up().unwrap();
    until("no calls", Duration::from_secs(5), || {
        Ok((server.stats()?.calls == 0).then_some(()))
    })
    .unwrap();
    // Nobody has the prefix now: who asks for it is told so.
    let gone = road
        .internet
        .command("ping")
        .args(["-6", "-c", "1", "-W", "2", &address.to_string()])
        .output()
        .unwrap();
    let gone = String::from_utf8_lossy(&gone.stdout);
    assert!(gone.contains("Address unreachable"), "{gone}");
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

#[test]
fn ipv6_goes_through_a_call_by_way_of_linux() {
    ipv6_through_a_call("office", false);
}

#[test]
fn ipv6_goes_through_a_call_beside_an_uplink_and_in_clear() {
    ipv6_through_a_call("edge", true);
}

#[test]
fn what_switches_ipv6_on_is_named_where_linux_has_it_off() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let concentrator = &road.concentrator;
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    configuration
        .change("network.ipv6_pool", "2001:db8:1::/48")
        .unwrap();
    let before = concentrator.interfaces().unwrap();
    let told = format!(
        "{:#}",
        Server::start(concentrator, &configuration).unwrap_err()
    );
    let instead = "sysctl -w net.ipv6.conf.all.disable_ipv6=0";
    assert!(told.contains("`ipv6_pool` in [network] needs"), "{told}");
    // As a warning, because other machines may have it, and then as what ends the start, with nothing left behind.
    for level in ["WARN", "ERROR"] {
        let said = |line: &str| line.contains(level) && line.contains(instead);
        assert!(told.lines().any(said), "{level}: {told}");
    }
    assert_eq!(concentrator.interfaces().unwrap(), before);
    assert!(!concentrator.has_xdp(ACCESS_INTERFACE).unwrap());

    // That is all it takes.
    concentrator.run(instead).unwrap();
    let mut server = Server::start(concentrator, &configuration).unwrap();
    assert!(!server.log().contains("disable_ipv6"), "{}", server.log());
    assert!(server.stop().unwrap().success(), "{}", server.log());
}
