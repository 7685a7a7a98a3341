//! MPPE with a client that nobody here wrote, pppd in a guest: key lengths, modes, and what heals when packets are lost or
//! come with an old count.
//!
//! Needs root and the packages that `cargo xtask test` installs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use turnpike_protocol::wire::ppp::{self, Frame};
use turnpike_protocol::wire::{ethernet, gre, ipv4};
use turnpike_tests::street;
use xtask::lab::inside::{End, Login, Move, StockCall};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server, Stats};
use xtask::lab::stock::{self, Mppe, StockClient};
use xtask::lab::transfer::{self, Direction, Hall};

/// Octets each way.
const BYTES: u64 = 12_000_000;

/// What is done to the packets on their way while data flows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mischief {
    /// One packet of each direction is lost.
    Lose,
    /// A packet that pppd has had comes again, under a GRE number that is new.
    OldCount,
}

fn totals(stats: &Stats, name: &str) -> u64 {
    stats
        .workers
        .iter()
        .filter_map(|worker| worker.totals.get(name))
        .sum()
}

/// Loses one big packet of this direction.
fn lose_one(road: &Road, direction: Direction) {
    let way = match direction {
        Direction::Up => format!("ip saddr {}", road::CLIENT),
        Direction::Down => format!("ip daddr {}", road::CLIENT),
    };
    let name = format!("lose_{direction:?}").to_lowercase();
    // The quota holds for one packet of this size.
    for command in [
        format!("add table bridge {name}"),
        format!("add chain bridge {name} forward {{ type filter hook forward priority 0; }}"),
        format!(
            "add rule bridge {name} forward {way} ip protocol gre meta length 800-1600 quota until 1600 bytes counter drop"
        ),
    ] {
        let mut nft = road.access.command("nft");
        nft.arg(command);
        xtask::lab::process::run(&mut nft).unwrap();
    }
}

fn is_lost(road: &Road, direction: Direction) -> bool {
    let name = format!("lose_{direction:?}").to_lowercase();
    let mut nft = road.access.command("nft");
    nft.args(["list", "table", "bridge", &name]);
    let text = xtask::lab::process::run(&mut nft).unwrap();
    text.contains("counter packets 1 ")
}

/// Replays packets that went to the client 500 packets ago, under a new GRE number.
struct Replay {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Replay {
    fn start(road: &Road) -> Self {
        road.access
            .ip(&format!("link set {} promisc on", road::BRIDGE))
            .unwrap();
        road.access
            .ip(&format!("addr add 10.7.0.3/24 dev {}", road::BRIDGE))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = road.access.enter(move || replay(&told)).unwrap();
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// A GRE packet with MPPE to the client: the IPv4 packet, and its GRE number.
fn to_client(frame: &[u8]) -> Option<(Vec<u8>, u32)> {
    let packet = frame.get(ethernet::HEADER_LEN..)?;
    let ip = ipv4::Packet::new_checked(packet).ok()?;
    if ip.destination() != road::CLIENT || ip.protocol() != ipv4::GRE {
        return None;
    }
    let gre = gre::Packet::parse(ip.payload()).ok()?;
    let payload = &ip.payload()[gre.payload_range()];
    let header = Frame::parse(payload).ok()?;
    let seq = gre.seq?;
    (header.protocol == ppp::Protocol::COMPRESSED)
        .then(|| (packet[..ip.total_len()].to_vec(), seq.0))
}

fn replay(stop: &AtomicBool) -> u64 {
    let protocol = Protocol::from(i32::from(0x0800_u16.to_be()));
    let mut tap = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    tap.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let sender = street::sender();
    let mut buffer = [0; 2048];
    let mut old: Option<Vec<u8>> = None;
    let mut seen = 0_u64;
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some((packet, seq)) = tap
            .read(&mut buffer)
            .ok()
            .and_then(|len| to_client(&buffer[..len]))
        else {
            continue;
        };
        seen += 1;
        // Old enough to be no duplicate, and not so old that the count has gone half around since.
        if seen % 2000 == 1500 {
            old = Some(packet);
        } else if seen.is_multiple_of(2000)
            && let Some(mut packet) = old.take()
        {
            // GRE (RFC 2637 §4.1): flags, protocol, length, call id, then the number.
            let number = ipv4::HEADER_LEN + 8;
            packet[number..number + 4].copy_from_slice(&(seq + 3).to_be_bytes());
            packet[4..6].copy_from_slice(&(seen as u16).to_be_bytes());
            street::send(&sender, &with_checksum(packet), road::CLIENT);
            sent += 1;
        }
    }
    sent
}

fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let sum = ipv4::checksum(&packet[..ipv4::HEADER_LEN]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A call of pppd under `options`; both streams arrive whole in spite of the mischief.
fn call(mppe: Mppe, options: &[&str], mischief: Mischief) {
    let road = Road::build(ClientSide::Guest).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    configuration
        .change("auth.mppe_strengths", vec![128_i64, 56, 40])
        .unwrap();
    if !mppe.stateless {
        configuration.change("auth.mppe_stateful", "ask").unwrap();
    }
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();
    let hall = Hall::open(&road.internet, road::TARGET, 0).unwrap();
    let user = configuration.user().unwrap();
    let call = StockCall {
        server: road::SERVER.to_string(),
        user: user.name,
        password: user.password,
        login: Login::default(),
        options: options.iter().map(|&option| option.into()).collect(),
        route: Some("default".into()),
        ping: Some(road::TARGET.to_string()),
        pings: 5,
        ping_before: false,
        moves: [Direction::Up, Direction::Down]
            .map(|direction| Move {
                to: hall.address(),
                direction,
                bytes: BYTES,
                marker: transfer::fresh_marker(),
            })
            .to_vec(),
        end: End::Client,
    };
    let limit = Duration::from_secs(240);
    let mut client = StockClient::start(&road.client, "guest", 1500, &call, limit).unwrap();
    client
        .wait_until("pings", |_| (), |report| report.pinged.is_some())
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    let session = server.sessions().unwrap().remove(0);
    let replay = match mischief {
        Mischief::Lose => {
            for way in [Direction::Up, Direction::Down] {
                lose_one(&road, way);
            }
            None
        }
        Mischief::OldCount => Some(Replay::start(&road)),
    };
    client
        .wait_until("both streams", |_| (), |report| report.moved.len() == 2)
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    let stats = server.stats().unwrap();
    let replayed = replay.map(Replay::stop);
    let report = client
        .finish(|_| ())
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));

    // The mode of each direction, as both ends tell it.
    let wanted = json!({"bits": mppe.bits, "stateless": mppe.stateless});
    for direction in ["mppe_receive", "mppe_transmit"] {
        assert_eq!(session[direction], wanted, "{}", client.log());
    }
    assert_eq!(
        stock::negotiated(&client.log()),
        (Some(mppe), Some(mppe)),
        "{}",
        client.log()
    );
    assert_ne!(session["user"], Value::Null);
    for (number, here) in report.moved.iter().enumerate() {
        let there = hall.moved(number).unwrap();
        assert_eq!((here.bytes, &here.sha256), (there.bytes, &there.sha256));
        assert_eq!(here.bytes, BYTES);
    }
    let (asked, answered) = (
        totals(&stats, "resets-requested"),
        totals(&stats, "resets-answered"),
    );
    println!(
        "{} bits, {}: {:.0} up, {:.0} down Mbit/s; {asked} resets asked for by us, {answered} by pppd; {}",
        mppe.bits,
        if mppe.stateless {
            "stateless"
        } else {
            "stateful"
        },
        report.moved[0].megabits(),
        report.moved[1].megabits(),
        match replayed {
            Some(count) => format!("{count} old counts"),
            None => "one packet lost each way".to_owned(),
        }
    );
    match replayed {
        Some(count) => {
            assert!(count > 0);
            // Linux is deaf until it has seen a Reset-Ack.
            assert!(answered > 0, "pppd did not notice");
        }
        None => {
            for way in [Direction::Up, Direction::Down] {
                assert!(is_lost(&road, way), "{way:?}");
            }
            assert_eq!(asked > 0 && answered > 0, !mppe.stateless);
        }
    }
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

#[test]
fn a_40_bit_call_stateless_outlives_old_counts() {
    let mppe = Mppe {
        bits: 40,
        stateless: true,
    };
    call(mppe, &["require-mppe-40"], Mischief::OldCount);
}

#[test]
fn a_128_bit_call_stateless_outlives_old_counts() {
    let mppe = Mppe {
        bits: 128,
        stateless: true,
    };
    call(mppe, &["require-mppe-128"], Mischief::OldCount);
}

#[test]
fn a_40_bit_call_stateful_outlives_losses() {
    let mppe = Mppe {
        bits: 40,
        stateless: false,
    };
    call(mppe, &["require-mppe-40", "mppe-stateful"], Mischief::Lose);
}

#[test]
fn a_128_bit_call_stateful_outlives_losses() {
    let mppe = Mppe {
        bits: 128,
        stateless: false,
    };
    call(mppe, &["require-mppe-128", "mppe-stateful"], Mischief::Lose);
}

/// What pppd does with `mppe-stateful` on our side alone: it hangs up, and the log says what it was about.
#[test]
fn pppd_without_mppe_stateful_says_no() {
    let road = Road::build(ClientSide::Guest).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    configuration.change("auth.mppe_stateful", "ask").unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let user = configuration.user().unwrap();
    let call = StockCall {
        server: road::SERVER.to_string(),
        user: user.name,
        password: user.password,
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
        .wait_until(
            "the call, or its end",
            |_| (),
            |report| report.failed.is_some() || report.up.is_some(),
        )
        .unwrap()
        .clone();
    println!("{report:?}\n{}", client.log());
    assert!(report.failed.is_some(), "{}", client.log());
    server.says(&["encryption_mismatch"]).unwrap();
}
