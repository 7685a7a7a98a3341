//! A Windows-like client that is told by DHCPINFORM what to send through the tunnel, and sends nothing else.
//!
//! Needs root. Behind the concentrator stands an office with a host of its own; the client has an internet of its own
//! beside the tunnel. Nothing is configured at the client.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use xtask::lab::dial::{Client, Plan, TUNNEL_INTERFACE};
use xtask::lab::netns::Namespace;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::transfer::{self, Direction, Hall};

/// The host in the office.
const OFFICE: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 80);
/// The concentrator's address in the office.
const OFFICE_ROUTER: Ipv4Addr = Ipv4Addr::new(172, 16, 9, 1);
/// Somebody on the client's own internet.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// The client's own router.
const HOME_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 254);

const PATIENCE: Duration = Duration::from_secs(30);

/// The way from the client to `address`: device and, where there is one, router.
fn way(client: &Namespace, address: Ipv4Addr) -> Value {
    let text = client.ip(&format!("-json route get {address}")).unwrap();
    let routes: Vec<Value> = serde_json::from_str(&text).unwrap();
    routes[0]["dev"].clone()
}

/// The office behind the concentrator, and the client's internet beside it.
fn surroundings(road: &Road) -> Namespace {
    let office = road.lab.namespace("office").unwrap();
    office
        .veth("desk0", &road.concentrator, "office0", 1)
        .unwrap();
    office
        .ip(&format!("addr add {OFFICE}/24 dev desk0"))
        .unwrap();
    road.concentrator
        .ip(&format!("addr add {OFFICE_ROUTER}/24 dev office0"))
        .unwrap();
    for network in road::INNER {
        office
            .ip(&format!("route add {network} via {OFFICE_ROUTER}"))
            .unwrap();
    }
    let access = &road.access;
    access
        .ip(&format!("addr add {HOME_ROUTER}/24 dev {}", road::BRIDGE))
        .unwrap();
    access.ip(&format!("addr add {OUTSIDE}/32 dev lo")).unwrap();
    road.client
        .ip(&format!("route add default via {HOME_ROUTER}"))
        .unwrap();
    office
}

#[test]
fn only_what_the_server_names_goes_through_the_tunnel() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let office = surroundings(&road);
    // Machines that check where packets come from are clients, too.
    for which in ["all", "default"] {
        road.client
            .sysctl(&format!("net.ipv4.conf.{which}.rp_filter"), "1")
            .unwrap();
    }
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    let routes = vec!["172.16.9.0/24".to_owned(), "10.20.0.0/22".to_owned()];
    configuration.change("network.routes", routes).unwrap();
    configuration
        .change("network.domain", "corp.example")
        .unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();

    // Before the call the office is nowhere to be found.
    assert_eq!(way(&road.client, OFFICE), road::CLIENT_INTERFACE);
    let unheard = road.client.run(&format!("ping -n -c 1 -W 1 {OFFICE}"));
    assert!(unheard.is_err(), "{unheard:?}");

    let plan = Plan {
        more: vec!["--inform".to_owned()],
        ..Plan::new(configuration.user().unwrap())
    };
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    let up = client.wait_up(1, PATIENCE).unwrap().remove(0);
    let told = client
        .wait_for("informed", PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    let told = &told["told"];
    assert_eq!(told["server"], "10.20.0.1");
    assert_eq!(told["domain"], "corp.example");
    assert_eq!(told["dns"], json!(["9.9.9.9"]));
    let expected: Vec<_> = ["172.16.9.0/24", "10.20.0.0/22"]
        .iter()
        .map(|prefix| json!({"prefix": prefix, "router": "10.20.0.1"}))
        .collect();
    assert_eq!(told["routes"], Value::Array(expected));

    // What was named goes through the tunnel, and nothing else.
    assert_eq!(way(&road.client, OFFICE), TUNNEL_INTERFACE);
    assert_eq!(way(&road.client, OUTSIDE), road::CLIENT_INTERFACE);
    assert_eq!(way(&road.client, road::SERVER), road::CLIENT_INTERFACE);
    let moved = |namespace: &Namespace, to: Ipv4Addr| {
        let hall = Hall::open(namespace, to, 0).unwrap();
        let marker = transfer::fresh_marker();
        for (number, direction) in [Direction::Up, Direction::Down].into_iter().enumerate() {
            let bytes = 4 << 20;
            let here = transfer::run_inside(
                &road.client,
                hall.address(),
                direction,
                bytes,
                &marker,
                &mut |_| {},
            )
            .unwrap_or_else(|error| panic!("{direction:?} {to}: {error:#}\n{}", server.log()));
            let there = hall.moved(number).unwrap();
            assert_eq!((here.bytes, &here.sha256), (bytes, &there.sha256));
        }
    };
    let inner = |server: &Server| {
        let session = server.sessions().unwrap().remove(0);
        session["counters"]["received_packets"].as_u64().unwrap()
    };
    for (namespace, host, inside) in [(&office, OFFICE, true), (&road.access, OUTSIDE, false)] {
        let before = inner(&server);
        let pinged = road
            .client
            .run(&format!("ping -n -c 3 -i 0.2 -W 5 {host}"))
            .unwrap();
        assert!(pinged.contains("3 received"), "{pinged}");
        moved(namespace, host);
        let packets = inner(&server) - before;
        println!("{host}: {packets} packets of the client's in the call");
        assert_eq!(packets > 1000, inside, "{packets}");
        assert_eq!(packets == 0, !inside, "{packets}");
    }
    let address = up["address"].as_str().unwrap().to_owned();
    assert_eq!(server.sessions().unwrap()[0]["address"], address);

    let stats = server.stats().unwrap();
    assert_eq!(
        stats.control["dhcp_informs_answered"], 1,
        "{:?}",
        stats.control
    );
    let total = |name| {
        stats
            .workers
            .iter()
            .map(|worker| worker.totals[name])
            .sum::<u64>()
    };
    assert_eq!((total("inner-received"), total("inner-sent")), (1, 1));
    let (status, _) = client.hang_up().unwrap();
    assert!(status.success(), "{}", client.text());
    // Hung up, the client is as it was.
    assert_eq!(way(&road.client, OFFICE), road::CLIENT_INTERFACE);
    assert!(server.stop().unwrap().success());
}
