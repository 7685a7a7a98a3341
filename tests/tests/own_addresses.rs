//! The machine's own addresses and its gateway at the edge, where inner packets go past Linux.
//!
//! Needs root. A client reaches every address of the concentrator, though all else that it sends takes the uplink; and
//! the gateway's neighbour entry, which Linux keeps resolved while the server runs, is an ordinary one afterwards.
#![allow(clippy::unwrap_used, reason = "a test says where it cannot go on")]

use std::time::Duration;

use xtask::lab::dial::{Client, Plan};
use xtask::lab::inside::ping_from;
use xtask::lab::netns::Namespace;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::until;

/// An address of the concentrator that nobody else has a route to.
const OWN: &str = "192.0.2.77";

/// Linux' entry of the gateway, if there is one.
fn gateway(concentrator: &Namespace) -> Option<String> {
    let entries = concentrator.ip("-oneline neigh show").unwrap();
    let next_hop = road::NEXT_HOP.to_string();
    let mut lines = entries.lines().map(str::to_owned);
    lines.find(|line| line.split(' ').next() == Some(&next_hop))
}

fn is_kept(concentrator: &Namespace) -> bool {
    gateway(concentrator).is_some_and(|entry| entry.contains("managed"))
}

fn pings(client: &Namespace, target: &str) -> u32 {
    ping_from(client, target, 5).unwrap().0
}

#[test]
fn clients_reach_the_machine_and_linux_gets_its_gateway_back() {
    let road = Road::with_queues(ClientSide::Namespace, 2).unwrap();
    let configuration = Configuration::example("edge", road.lab.directory()).unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let plan = Plan::new(configuration.user().unwrap());
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, Duration::from_secs(40)).unwrap();
    assert!(is_kept(&road.concentrator));

    assert_eq!(pings(&road.client, &road::TARGET.to_string()), 5);
    // It was there before the server started.
    assert_eq!(pings(&road.client, &road::OUTSIDE.to_string()), 5);
    // This one comes and goes while the call is up.
    assert_eq!(pings(&road.client, OWN), 0);
    road.concentrator
        .ip(&format!("addr add {OWN}/32 dev lo"))
        .unwrap();
    until("the new address", Duration::from_secs(5), || {
        Ok((pings(&road.client, OWN) == 5).then_some(()))
    })
    .unwrap();
    road.concentrator
        .ip(&format!("addr del {OWN}/32 dev lo"))
        .unwrap();
    until("the address to go", Duration::from_secs(10), || {
        Ok((pings(&road.client, OWN) == 0).then_some(()))
    })
    .unwrap();
    let drops = server.stats().unwrap().drops();
    assert!(!drops.contains_key("locals-full"), "{drops:?}");

    client.hang_up().unwrap();
    assert!(server.stop().unwrap().success());
    // Still known, and nobody's business but Linux' own.
    let entry = gateway(&road.concentrator).unwrap();
    assert!(!entry.contains("managed"), "{entry}");
    assert!(entry.contains("lladdr"), "{entry}");
}

#[test]
fn an_entry_that_the_administrator_made_stays() {
    let road = Road::with_queues(ClientSide::Namespace, 2).unwrap();
    let configuration = Configuration::example("edge", road.lab.directory()).unwrap();
    let links = road.internet.ip("-oneline link show inet0").unwrap();
    let mut words = links.split_whitespace();
    words.find(|word| *word == "link/ether").unwrap();
    let mac = words.next().unwrap();
    let permanent = format!(
        "neigh replace {} lladdr {mac} dev {} nud permanent",
        road::NEXT_HOP,
        road::UPLINK_INTERFACE
    );
    road.concentrator.ip(&permanent).unwrap();
    let before = gateway(&road.concentrator).unwrap();
    assert!(before.contains("PERMANENT"), "{before}");

    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let plan = Plan::new(configuration.user().unwrap());
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, Duration::from_secs(40)).unwrap();
    assert_eq!(pings(&road.client, &road::TARGET.to_string()), 5);
    assert_eq!(gateway(&road.concentrator).unwrap(), before);
    client.hang_up().unwrap();
    assert!(server.stop().unwrap().success());
    assert_eq!(gateway(&road.concentrator).unwrap(), before);
}
