//! A prefix for the network behind the client: a stock DHCPv6 client asks for it inside the call, gives its own network a
//! part of it, and a host there reaches a host behind the concentrator; both ways, for as long as the call lasts.
//!
//! Needs root, and dhcpcd.
//!
//! ```text
//!  home                     client                                   concentrator            internet
//!  desk0 <delegated>::5 --- home0 <delegated>::1 | tpclient0 ===(call)=== turnpike0 | net0 --- inet0
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::Ipv6Net;
use serde_json::json;
use xtask::lab::dial::{Client, Plan, TUNNEL_INTERFACE};
use xtask::lab::netns::Namespace;
use xtask::lab::process::Process;
use xtask::lab::road::{ClientSide, Road, UPLINK_INTERFACE};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::transfer::{self, Direction, Hall};
use xtask::lab::{needs, until};

/// A host behind the concentrator.
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 5);
/// The concentrator's address on that host's link.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// What clients' prefixes come from.
const POOL: &str = "2001:db8:8000::/40";
/// The first one's.
const DELEGATED: &str = "2001:db8:8000::/56";
/// The part of it that the client gives its network.
const NETWORK: &str = "2001:db8:8000:7::/64";
/// The client on its own network, and a host there.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 7, 0, 0, 0, 1);
const DESK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 7, 0, 0, 0, 5);
/// In the prefix, where the client has no network.
const NOWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0x99, 0, 0, 0, 5);
/// In the pool, but another client's.
const FOREIGN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0x100, 0, 0, 0, 5);

const DNS: [&str; 2] = ["2001:db8::53", "2001:db8::54"];
const OCTETS: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells what dhcpcd was told, one event a line, instead of changing this machine's resolv.conf and the like.
const HOOK: &str = r#"#!/bin/sh
told=$(env | grep '^new_dhcp6_' | tr ' \n' ', ' | tr -d "'")
echo "interface=$interface reason=$reason $told" >> "$(dirname "$0")/dhcpcd.events"
"#;

/// dhcpcd on the client's side of the tunnel. Dropped: killed.
struct Dhcpcd {
    process: Process,
    events: PathBuf,
}

impl Dhcpcd {
    fn start(client: &Namespace) -> Result<Self> {
        let dhcpcd = needs::find("dhcpcd").context(
            "no dhcpcd (package dhcpcd-base; `cargo xtask test --only delegated` installs it)",
        )?;
        let directory = client.directory();
        let (configuration, hook) = (directory.join("dhcpcd.conf"), directory.join("dhcpcd.hook"));
        let network: Ipv6Net = NETWORK.parse()?;
        let part = network.network().segments()[3];
        std::fs::write(
            &configuration,
            format!(
                "duid\nnodev\nslaac hwaddr\noption dhcp6_name_servers, dhcp6_domain_search\n\
                 allowinterfaces {TUNNEL_INTERFACE} home0\nnoipv6rs\n\
                 interface {TUNNEL_INTERFACE}\nipv6rs\nia_pd 1 home0/{part}/64/1\n"
            ),
        )?;
        std::fs::write(&hook, HOOK)?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
        // Its state goes to fixed places: nothing of this machine's is there, and what it leaves goes with it.
        let mut command = client.command("sh");
        command
            .args([
                "-c",
                "mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd && exec \"$0\" \"$@\"",
            ])
            .arg(dhcpcd)
            .args(["-6", "--nobackground", "--debug", "--config"])
            .arg(&configuration)
            .arg("--script")
            .arg(&hook)
            .arg(TUNNEL_INTERFACE)
            .arg("home0");
        Ok(Self {
            process: client.start("dhcpcd", &command)?,
            events: directory.join("dhcpcd.events"),
        })
    }

    /// Waits until it has been delegated `prefix`; the options of the answer, by name.
    fn bound(&mut self, prefix: Ipv6Net) -> Result<BTreeMap<String, String>> {
        until("a delegated prefix", PATIENCE, || {
            let ended = self.process.ended()?;
            anyhow::ensure!(ended.is_none(), "dhcpcd ended: {ended:?}");
            let events = std::fs::read_to_string(&self.events).unwrap_or_default();
            let mut events = events.lines().map(|line| -> BTreeMap<String, String> {
                line.split(' ')
                    .filter_map(|word| word.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect()
            });
            Ok(events.find(|event| {
                let says = |name: &str| event.get(name).map_or("", String::as_str);
                ["BOUND6", "REBIND6"].contains(&says("reason"))
                    && says("new_dhcp6_ia_pd1_prefix1") == prefix.network().to_string()
            }))
        })
        .with_context(|| format!("dhcpcd said:\n{}", self.process.tail()))
    }
}

/// The client's network and everybody's addresses; what is behind the concentrator knows the pools by way of it.
fn surroundings() -> (Road, Namespace) {
    let road = Road::with_queues(ClientSide::Namespace, 2).unwrap();
    let home = road.lab.namespace("home").unwrap();
    for namespace in [&home, &road.client, &road.concentrator, &road.internet] {
        namespace.enable_ipv6().unwrap();
    }
    for router in [&road.client, &road.concentrator] {
        router.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    }
    home.veth("desk0", &road.client, "home0", 1).unwrap();
    home.ip(&format!("addr add {DESK}/64 dev desk0 nodad"))
        .unwrap();
    home.ip(&format!("route add default via {GATEWAY}"))
        .unwrap();
    road.concentrator
        .ip(&format!(
            "addr add {ROUTER}/64 dev {UPLINK_INTERFACE} nodad"
        ))
        .unwrap();
    road.internet
        .ip(&format!("addr add {HOST}/64 dev inet0 nodad"))
        .unwrap();
    for pool in ["2001:db8:1::/48", POOL] {
        road.internet
            .ip(&format!("route add {pool} via {ROUTER}"))
            .unwrap();
    }
    (road, home)
}

fn configuration(example: &str, road: &Road) -> Configuration {
    let mut configuration = Configuration::example(example, road.lab.directory()).unwrap();
    for (key, value) in [
        ("ipv6_pool", "2001:db8:1::/48"),
        ("delegated_pool", POOL),
        ("domain", "corp.example"),
    ] {
        configuration
            .change(&format!("network.{key}"), value)
            .unwrap();
    }
    configuration
        .change("network.dns6", DNS.map(toml::Value::from).to_vec())
        .unwrap();
    configuration
}

/// Packets that were dropped for this reason so far.
fn dropped(server: &Server, reason: &str) -> u64 {
    let drops = server.stats().unwrap().drops();
    drops.get(reason).copied().unwrap_or(0)
}

/// Three pings that nobody answers; how many packets were dropped for each of `reasons` meanwhile, and what ping said.
fn lost<const N: usize>(
    server: &Server,
    from: &Namespace,
    to: Ipv6Addr,
    options: &str,
    reasons: [&str; N],
) -> ([u64; N], String) {
    let before = reasons.map(|reason| dropped(server, reason));
    let line = format!("-6 -n -c 3 -i 0.1 -W 1 {options} {to}");
    let output = from
        .command("ping")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(" 0 received"), "{said}");
    assert!(!said.contains("Time exceeded"), "{said}");
    let mut counts = reasons.map(|reason| dropped(server, reason));
    for (count, before) in counts.iter_mut().zip(before) {
        *count -= before;
    }
    (counts, said)
}

/// Waits until the client has this address, and this one alone, on its network.
fn wait_for_gateway(client: &Namespace, gateway: Ipv6Addr) {
    until("the client's address on its network", PATIENCE, || {
        let shown = client.ip("-6 -oneline addr show dev home0 scope global -tentative")?;
        let only = shown.lines().count() == 1;
        Ok((only && shown.contains(&format!("{gateway}/64"))).then_some(()))
    })
    .unwrap();
}

fn hang_up(client: &mut Client, server: &Server) {
    let (status, _) = client.hang_up().unwrap();
    assert!(status.success(), "{}", client.text());
    until("no calls", Duration::from_secs(5), || {
        Ok((server.stats()?.calls == 0).then_some(()))
    })
    .unwrap();
}

fn a_network_behind_a_client(example: &str) {
    let (road, home) = surroundings();
    let configuration = configuration(example, &road);
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut plan = Plan::new(configuration.user().unwrap());
    plan.more.push("--ipv6".into());
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, PATIENCE).unwrap();
    let mut dhcpcd = Dhcpcd::start(&road.client).unwrap();
    let delegated: Ipv6Net = DELEGATED.parse().unwrap();
    let told = dhcpcd
        .bound(delegated)
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));

    // What it heard, in its own words.
    for (name, value) in [
        ("interface", TUNNEL_INTERFACE.to_owned()),
        ("new_dhcp6_ia_pd1_prefix1", delegated.network().to_string()),
        (
            "new_dhcp6_ia_pd1_prefix1_length",
            delegated.prefix_len().to_string(),
        ),
        ("new_dhcp6_ia_pd1_prefix1_pltime", "3600".to_owned()),
        ("new_dhcp6_ia_pd1_prefix1_vltime", "7200".to_owned()),
        ("new_dhcp6_name_servers", DNS.join(",")),
        ("new_dhcp6_domain_search", "corp.example".to_owned()),
    ] {
        assert_eq!(told.get(name), Some(&value), "{name}: {told:?}");
    }
    let session = server.sessions().unwrap().remove(0);
    assert_eq!(session["ipv6_delegated"], json!(DELEGATED));
    for direction in ["mppe_receive", "mppe_transmit"] {
        assert_eq!(session[direction]["bits"], 128, "{session}");
    }
    wait_for_gateway(&road.client, GATEWAY);

    // As large as the tunnel takes; larger, in pieces, once the sender has heard of it.
    for (from, to) in [(&home, HOST), (&home, ROUTER), (&road.internet, DESK)] {
        for size in [56, 1352, 1440] {
            let line = format!("ping -6 -n -c 4 -i 0.1 -W 3 -s {size} {to}");
            let pinged = from
                .run(&line)
                .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
            let last = pinged.lines().last().unwrap_or_default();
            println!("{example}: {size} octets to {to}: {last}");
        }
    }
    for (at, listening, dialling) in [(HOST, &road.internet, &home), (DESK, &home, &road.internet)]
    {
        let hall = Hall::open(listening, at, 0).unwrap();
        let marker = transfer::fresh_marker();
        for (number, direction) in [Direction::Up, Direction::Down].into_iter().enumerate() {
            let to = hall.address();
            let here = transfer::run_inside(dialling, to, direction, OCTETS, &marker, &mut |_| ())
                .unwrap_or_else(|error| panic!("{to} {direction:?}: {error:#}"));
            let there = hall.moved(number).unwrap();
            assert_eq!((here.bytes, &here.sha256), (OCTETS, &there.sha256));
            println!(
                "{example}: {direction:?} with {at}: {:.0} Mbit/s",
                here.megabits()
            );
        }
    }

    // Who has a prefix may use that, and nothing else: not another client's, not one from elsewhere.
    for source in [FOREIGN, Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5)] {
        home.ip(&format!("addr add {source}/128 dev desk0 nodad"))
            .unwrap();
        let (drops, said) = lost(&server, &home, HOST, &format!("-I {source}"), ["spoofed"]);
        assert_eq!(drops, [3], "{said}");
    }

    // RFC 9096 §3.1: the client throws away what is for no network of its prefix, so that nothing goes to and fro. Some
    // do not, and all the same nothing does.
    let gone = road
        .client
        .ip(&format!("-6 route del unreachable {DELEGATED}"));
    assert!(gone.is_ok(), "{gone:?}");
    let (drops, said) = lost(&server, &home, NOWHERE, "", ["same-link", "spoofed"]);
    assert_eq!(drops, [3, 0], "{said}");
    let (drops, said) = lost(
        &server,
        &road.internet,
        NOWHERE,
        "",
        ["same-link", "spoofed"],
    );
    assert_eq!(drops, [0, 3], "{said}");
    let control = server.stats().unwrap().control;
    assert!(control["dhcpv6_answered"] >= 1, "{control:?}");

    hang_up(&mut client, &server);
    // Nobody has the prefix now. Whoever asks for it is told so, and each packet ends where it came.
    for to in [DESK, NOWHERE] {
        let (drops, said) = lost(&server, &road.internet, to, "", ["pool-without-call"]);
        assert_eq!(drops, [3], "{said}");
        assert!(said.contains("Address unreachable"), "{said}");
    }
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

#[test]
fn a_network_behind_a_client_is_reached_by_way_of_linux() {
    a_network_behind_a_client("office");
}

#[test]
fn a_network_behind_a_client_is_reached_beside_an_uplink() {
    a_network_behind_a_client("edge");
}

#[test]
fn who_dials_again_gets_another_prefix_and_the_old_one_leads_nowhere() {
    let (road, home) = surroundings();
    let configuration = configuration("office", &road);
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut plan = Plan::new(configuration.user().unwrap());
    plan.more.push("--ipv6".into());
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, PATIENCE).unwrap();
    let mut dhcpcd = Dhcpcd::start(&road.client).unwrap();
    dhcpcd.bound(DELEGATED.parse().unwrap()).unwrap();
    wait_for_gateway(&road.client, GATEWAY);
    home.run(&format!("ping -6 -n -c 2 -i 0.1 -W 3 {HOST}"))
        .unwrap();
    hang_up(&mut client, &server);

    // The first prefix rests. dhcpcd asks for it all the same: it remembers it.
    let (prefix, gateway, desk) = (
        "2001:db8:8000:100::/56",
        "2001:db8:8000:107::1",
        "2001:db8:8000:107::5",
    );
    let mut client = Client::start(&road.client, "dial-again", &plan).unwrap();
    client.wait_up(1, PATIENCE).unwrap();
    let told = dhcpcd
        .bound(prefix.parse().unwrap())
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    // RFC 8415 §18.3.5: what it had before is over, and it hears so.
    for (name, value) in [
        ("reason", "REBIND6"),
        ("new_dhcp6_ia_pd1_prefix2", "2001:db8:8000::"),
        ("new_dhcp6_ia_pd1_prefix2_pltime", "0"),
        ("new_dhcp6_ia_pd1_prefix2_vltime", "0"),
    ] {
        assert_eq!(
            told.get(name).map(String::as_str),
            Some(value),
            "{name}: {told:?}"
        );
    }
    assert_eq!(
        server.sessions().unwrap()[0]["ipv6_delegated"],
        json!(prefix)
    );
    wait_for_gateway(&road.client, gateway.parse().unwrap());
    home.ip(&format!("addr add {desk}/64 dev desk0 nodad"))
        .unwrap();
    home.ip(&format!("route replace default via {gateway} src {desk}"))
        .unwrap();
    home.run(&format!("ping -6 -n -c 2 -i 0.1 -W 3 {HOST}"))
        .unwrap();
    road.internet
        .run(&format!("ping -6 -n -c 2 -i 0.1 -W 3 {desk}"))
        .unwrap();
    let (drops, said) = lost(&server, &road.internet, DESK, "", ["pool-without-call"]);
    assert_eq!(drops, [3], "{said}");
    // Whoever goes on with the old prefix is held to the new one.
    let (drops, said) = lost(&server, &home, HOST, &format!("-I {DESK}"), ["spoofed"]);
    assert_eq!(drops, [3], "{said}");
    hang_up(&mut client, &server);
    assert!(server.stop().unwrap().success(), "{}", server.log());
}
