//! Outer addresses: several of the concentrator's own, and clients whose GRE comes from elsewhere.
//!
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test says where it cannot go on")]

use std::net::Ipv4Addr;
use std::time::Duration;

use xtask::lab::capture::Witness;
use xtask::lab::dial::{Client, Plan};
use xtask::lab::inside::ping_from;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::transfer;

/// Another address of the concentrator on its access interface.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 9);
/// Where a carrier's NAT sends the client's GRE from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 3);

fn office(road: &Road) -> Configuration {
    Configuration::example("office", road.lab.directory()).unwrap()
}

#[test]
fn replies_come_from_the_address_that_was_dialled() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = office(&road);
    // Every address of the access interface, then.
    configuration.remove("server.listen").unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let plan = Plan {
        server: SECOND,
        ..Plan::new(configuration.user().unwrap())
    };
    // It comes while the server runs.
    let address = format!("addr add {SECOND}/24 dev {}", road::ACCESS_INTERFACE);
    road.concentrator.ip(&address).unwrap();
    server.says(&["listening on", &SECOND.to_string()]).unwrap();

    let witness = Witness::start(&road.access, road::BRIDGE, &transfer::fresh_marker()).unwrap();
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, Duration::from_secs(40)).unwrap();
    let session = server.sessions().unwrap().remove(0);
    assert_eq!(session["local"], SECOND.to_string());
    let (answers, _) = ping_from(&road.client, &road::TARGET.to_string(), 20).unwrap();
    assert_eq!(answers, 20);
    client.hang_up().unwrap();
    let seen = witness.stop().unwrap();
    assert!(seen.to(SECOND) > 20, "{seen:?}");
    assert!(seen.from(SECOND) > 20, "{seen:?}");
    assert_eq!(
        seen.to(road::SERVER) + seen.from(road::SERVER),
        0,
        "{seen:?}"
    );
}

/// A client whose GRE comes from elsewhere than its control connection.
fn translated(road: &Road, configuration: &Configuration) -> Client {
    let address = format!("addr add {ELSEWHERE}/24 dev {}", road::CLIENT_INTERFACE);
    road.client.ip(&address).unwrap();
    let plan = Plan {
        more: vec!["--gre-source".into(), ELSEWHERE.to_string()],
        ..Plan::new(configuration.user().unwrap())
    };
    Client::start(&road.client, "dial", &plan).unwrap()
}

#[test]
fn gre_from_elsewhere_is_taken_where_that_is_allowed() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = office(&road);
    configuration
        .change("access.source_check", "relaxed")
        .unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let witness = Witness::start(&road.access, road::BRIDGE, &transfer::fresh_marker()).unwrap();
    let mut client = translated(&road, &configuration);
    client.wait_up(1, Duration::from_secs(40)).unwrap();
    let (answers, _) = ping_from(&road.client, &road::TARGET.to_string(), 20).unwrap();
    assert_eq!(answers, 20);
    client.hang_up().unwrap();
    let seen = witness.stop().unwrap();
    assert!(seen.to(ELSEWHERE) > 20, "{seen:?}");
    server
        .says(&["GRE comes from another address", "10.7.0.3"])
        .unwrap();
}

#[test]
fn gre_from_elsewhere_is_refused_by_name_where_it_is_not() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = office(&road);
    configuration.change("limits.setup_time", "6s").unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut client = translated(&road, &configuration);
    let over = client.wait_over(1, Duration::from_secs(40)).unwrap();
    assert_eq!(over.len(), 1);
    server.says(&["no_gre", "806"]).unwrap();
    let drops = server.stats().unwrap().drops();
    assert!(drops["wrong-source"] > 0, "{drops:?}");
}
