//! TCP through a tunnel over a path that reorders, with and without a queue that puts packets back in order.
//!
//! Needs root. One packet in twenty is overtaken by up to eight others, in both directions, in the client's device; the
//! calls are encrypted with stateless MPPE-128. All rates are those of one run, taken in turns, so that whatever else
//! the machine does befalls all of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::time::Duration;

use xtask::lab::dial::{Client, Plan};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::transfer::{self, Direction, Hall};

const FAULTS: &str = "reorder=5%,places=8,seed=5";
const PORT: u16 = 8080;
/// How often each case is measured at least.
const ROUNDS: usize = 3;
/// And at most, where a busy machine makes the figures differ more than the cases do.
const MOST_ROUNDS: usize = 9;
/// The share of the rate in order that must be left.
const SHARE: f64 = 0.8;
/// Octets of each stream.
const BYTES: u64 = 48 << 20;

/// A path and what is done about it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    faults: bool,
    queue: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "in order",
        faults: false,
        queue: true,
    },
    Case {
        name: "reordered, queue",
        faults: true,
        queue: true,
    },
    Case {
        name: "reordered, no queue",
        faults: true,
        queue: false,
    },
];

/// Mbit/s up and down, and how many packets waited at the server.
fn measure(road: &Road, hall: &Hall, case: Case) -> ([f64; 2], u64) {
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    if !case.queue {
        configuration.change("gre.reorder_packets", 0).unwrap();
    }
    let user = configuration.user().unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let mut plan = Plan::new(user);
    if case.faults {
        plan.more.extend(["--fault".into(), FAULTS.into()]);
    }
    if !case.queue {
        plan.more.extend(["--reorder".into(), "0".into()]);
    }
    let mut client = Client::start(&road.client, "dial", &plan).unwrap();
    client.wait_up(1, Duration::from_secs(40)).unwrap();
    let session = server.sessions().unwrap().remove(0);
    for direction in ["mppe_receive", "mppe_transmit"] {
        assert_eq!(session[direction]["bits"], 128);
        assert_eq!(session[direction]["stateless"], true);
    }
    let marker = transfer::fresh_marker();
    let rates = [Direction::Up, Direction::Down].map(|direction| {
        transfer::run_inside(
            &road.client,
            hall.address(),
            direction,
            BYTES,
            &marker,
            &mut |_| (),
        )
        .unwrap()
        .megabits()
    });
    let stats = server.settled().unwrap();
    let held = stats
        .workers
        .iter()
        .filter_map(|worker| worker.totals.get("reorder-held"))
        .sum();
    let drops = stats.drops();
    let late = drops.get("gre-late").copied().unwrap_or(0);
    println!(
        "{:>20}: {:7.1} up, {:7.1} down Mbit/s; {held} waited, {late} late",
        case.name, rates[0], rates[1]
    );
    // What the queue is for, whatever the rates are: nothing comes too late.
    assert_eq!(late > 100, case.faults && !case.queue, "{}", case.name);
    client.hang_up().unwrap();
    server.stop().unwrap();
    (rates, held)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Up and down, by case.
fn medians(rates: &[(Vec<f64>, Vec<f64>); CASES.len()]) -> [[f64; 2]; CASES.len()] {
    rates
        .each_ref()
        .map(|(up, down)| [median(up), median(down)])
}

#[test]
fn tcp_keeps_its_rate_over_a_path_that_reorders() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let hall = Hall::open(&road.internet, road::TARGET, PORT).unwrap();
    let mut rates = [const { (Vec::new(), Vec::new()) }; CASES.len()];
    for round in 1..=MOST_ROUNDS {
        for (case, (up, down)) in CASES.into_iter().zip(&mut rates) {
            let ([u, d], held) = measure(&road, &hall, case);
            up.push(u);
            down.push(d);
            // The case is what it says.
            assert_eq!(held > 100, case.faults && case.queue, "{}", case.name);
        }
        let [in_order, queue, _] = medians(&rates);
        if round >= ROUNDS && (0..2).all(|at| queue[at] >= SHARE * in_order[at]) {
            break;
        }
    }
    let [in_order, queue, without] = medians(&rates);
    println!("TCP through MPPE-128 stateless, 5% of packets late by up to 8 places, Mbit/s:");
    for (at, way) in ["up", "down"].into_iter().enumerate() {
        println!(
            "{way:>5}: in order {:.1}, reordered with queue {:.1} ({:.0}%), without {:.1} ({:.0}%)",
            in_order[at],
            queue[at],
            100.0 * queue[at] / in_order[at],
            without[at],
            100.0 * without[at] / in_order[at],
        );
    }
    for at in 0..2 {
        assert!(
            queue[at] >= SHARE * in_order[at],
            "less than 80 % of the rate is left"
        );
    }
}
