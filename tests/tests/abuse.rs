//! What strangers may do to turnpike, and what it costs the others.
//!
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::Command;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use xtask::lab::dial::{Client, Plan};
use xtask::lab::inside::ping_from;
use xtask::lab::netns::Namespace;
use xtask::lab::process::run;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Port, Server, Stats, User};
use xtask::lab::{binary, until};

/// Held by tests that share the machine; the one that measures has it to itself.
static MACHINE: RwLock<()> = RwLock::new(());

fn office(road: &Road) -> Configuration {
    Configuration::example("office", road.lab.directory()).unwrap()
}

fn plan(configuration: &Configuration) -> Plan {
    Plan::new(configuration.user().unwrap())
}

/// Makes a call, pings through it, hangs up.
fn good_call(road: &Road, configuration: &Configuration, server: &Server, name: &str) {
    let mut client = Client::start(&road.client, name, &plan(configuration)).unwrap();
    client
        .wait_up(1, Duration::from_secs(20))
        .unwrap_or_else(|error| panic!("{error:#}\nturnpike:\n{}", server.log()));
    let (answers, _) = ping_from(&road.client, &road::TARGET.to_string(), 3).unwrap();
    assert_eq!(answers, 3);
    let (status, _) = client.hang_up().unwrap();
    assert!(status.success(), "{}", client.text());
}

#[test]
fn a_wrong_password_is_answered_with_691_and_the_next_call_works() {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let road = Road::build(ClientSide::Namespace).unwrap();
    let configuration = office(&road);
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let right = configuration.user().unwrap();
    for user in [
        User {
            password: format!("{}!", right.password),
            ..right.clone()
        },
        User {
            name: "mallory".into(),
            ..right.clone()
        },
    ] {
        let wrong = Plan {
            user: user.clone(),
            ..plan(&configuration)
        };
        let mut client = Client::start(&road.client, "wrong", &wrong).unwrap();
        let over = client.wait_over(1, Duration::from_secs(20)).unwrap();
        assert_eq!(over[0]["event"], "failed");
        assert_eq!(over[0]["error"], 691, "{over:?}");
        let (status, _) = client.wait(Duration::from_secs(20)).unwrap();
        assert_eq!(status.code(), Some(1));
        server
            .says(&["E=691", &user.name, &road::CLIENT.to_string()])
            .unwrap();
        let log = server.log();
        assert!(!log.contains(&user.password), "a password in the log");
    }
    good_call(&road, &configuration, &server, "right");
}

/// What a probe says before it falls silent.
#[derive(Clone, Copy, Debug)]
enum Probe {
    Nothing,
    /// The first octets of a Start-Control-Connection-Request: length, type, cookie.
    HalfAMessage,
    Garbage,
    /// A whole request, and nothing after it.
    StartOnly,
}

impl Probe {
    fn octets(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::HalfAMessage => vec![0, 156, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1],
            Self::Garbage => b"GET / HTTP/1.1\r\nHost: turnpike\r\n\r\n".repeat(8),
            Self::StartOnly => {
                // RFC 2637 §2.1: length, type, cookie, message, reserved, version 1.0, and the rest empty.
                let mut message = vec![0, 156, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 1, 0];
                message.resize(156, 0);
                message
            }
        }
    }
}

/// Connects from `source` inside the client's namespace, says what the probe says.
fn connect(client: &Namespace, source: Ipv4Addr, probe: Probe) -> std::io::Result<TcpStream> {
    client
        .enter(move || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            let to = SocketAddrV4::new(road::SERVER, 1723);
            socket.connect_timeout(&SocketAddr::V4(to).into(), Duration::from_secs(5))?;
            let mut stream = TcpStream::from(socket);
            // A server that hangs up at once is what some probes get.
            let _ = stream.write_all(&probe.octets());
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            Ok(stream)
        })
        .unwrap()
        .join()
        .unwrap()
}

/// Reads until the server closes.
fn until_closed(stream: &mut TcpStream) {
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the connection still stands: {error}"),
        }
    }
}

#[test]
fn probes_hold_nothing_longer_than_the_limit() {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = office(&road);
    // The example's limit is 30 s; waiting so long shows no more.
    configuration.change("limits.setup_time", "5s").unwrap();
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let began = Instant::now();
    let mut probes: Vec<(Probe, TcpStream)> = [
        Probe::Garbage,
        Probe::Nothing,
        Probe::HalfAMessage,
        Probe::StartOnly,
    ]
    .into_iter()
    .map(|probe| (probe, connect(&road.client, road::CLIENT, probe).unwrap()))
    .collect();
    for (probe, stream) in &mut probes {
        until_closed(stream);
        println!(
            "{probe:?}: closed after {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
    assert!(began.elapsed() < Duration::from_secs(8));
    until("nothing held", Duration::from_secs(2), || {
        let stats = server.stats()?;
        Ok((stats.tunnels == 0 && stats.calls == 0).then_some(()))
    })
    .unwrap();
    good_call(&road, &configuration, &server, "dial");
}

#[test]
fn five_hundred_probes_at_once_do_not_stop_a_good_call() {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    let road = Road::build(ClientSide::Namespace).unwrap();
    let configuration = office(&road);
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    // Ten sources with fifty probes each, below the limit of one source; then one source alone with fifty more than its
    // limit, which shuts out nobody but itself.
    let mut probes = Vec::new();
    let sources: Vec<Ipv4Addr> = (0..11).map(|n| Ipv4Addr::new(10, 7, 0, 100 + n)).collect();
    for source in &sources {
        road.client
            .ip(&format!(
                "addr add {source}/24 dev {}",
                road::CLIENT_INTERFACE
            ))
            .unwrap();
    }
    let kinds = [Probe::Nothing, Probe::HalfAMessage, Probe::StartOnly];
    for number in 0..500 {
        let source = sources[number % 10];
        probes.push(connect(&road.client, source, kinds[number % 3]).unwrap());
    }
    for number in 0..114 {
        // Refused ones may be refused while they connect.
        probes.extend(connect(&road.client, sources[10], kinds[number % 3]));
    }
    // Those over the limit are counted until they are closed.
    let held = until(
        "no more than the limit held",
        Duration::from_secs(10),
        || {
            let held = server.stats()?.tunnels;
            Ok((held <= 564).then_some(held))
        },
    )
    .unwrap();
    assert!(held >= 500, "{held} control connections");
    good_call(&road, &configuration, &server, "dial");
    println!("a good call beside {held} held control connections and 50 refused ones");
    drop(probes);
}

/// Octets of each flood packet's payload: 98 octets with everything in front of it.
const FLOOD_SIZE: u64 = 64;

/// What Linux counted between the flood and the worker's socket.
#[derive(Clone, Copy, Debug)]
struct Losses {
    /// What no CPU had room for in its backlog (`net.core.netdev_max_backlog`), of all namespaces.
    backlog: u64,
    /// Where frames enter the bridge.
    bridge_in: u64,
    /// Where they leave it: the other end's ring was full.
    bridge_out: u64,
    /// At turnpike's interface, full rings of the socket included.
    interface: u64,
}

impl Losses {
    fn read(road: &Road) -> Self {
        let dropped = |namespace: &Namespace, device: &str, direction: &str| {
            let text = namespace
                .ip(&format!("-statistics -json link show dev {device}"))
                .unwrap();
            let links: Value = serde_json::from_str(&text).unwrap();
            links[0]["stats64"][direction]["dropped"].as_u64().unwrap()
        };
        let softnet = std::fs::read_to_string("/proc/net/softnet_stat").unwrap();
        Self {
            // A line for each CPU; the second column, in hexadecimal, is what it dropped.
            backlog: softnet
                .lines()
                .map(|line| line.split_whitespace().nth(1).unwrap())
                .map(|column| u64::from_str_radix(column, 16).unwrap())
                .sum(),
            bridge_in: dropped(&road.access, "lan2", "rx"),
            bridge_out: dropped(&road.access, "lan1", "tx"),
            interface: dropped(&road.concentrator, road::ACCESS_INTERFACE, "rx"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            backlog: self.backlog - before.backlog,
            bridge_in: self.bridge_in - before.bridge_in,
            bridge_out: self.bridge_out - before.bridge_out,
            interface: self.interface - before.interface,
        }
    }

    fn sum(self) -> u64 {
        self.backlog + self.bridge_in + self.bridge_out + self.interface
    }
}

/// The first two processors that this process may use: one for the flood, one for turnpike. With one alone, Linux
/// shares it out.
fn processors() -> Option<(usize, usize)> {
    let usable = rustix::thread::sched_getaffinity(None).unwrap();
    let mut usable = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu));
    usable.next().zip(usable.next())
}

/// GRE to calls that nobody has, at a million packets a second or as fast as one core can send, against a witness call
/// of 1,000 packets a second.
#[test]
fn a_flood_to_unknown_calls_costs_a_witness_call_one_percent_at_most() {
    let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let road = Road::build(ClientSide::Namespace).unwrap();
    let mut configuration = office(&road);
    let processors = processors();
    if let Some((_, cpu)) = processors {
        let cpu = i64::try_from(cpu).unwrap();
        configuration.change("server.cpus", vec![cpu]).unwrap();
    }
    let server = Server::start(&road.concentrator, &configuration).unwrap();
    let bench = binary("turnpike-bench").unwrap();
    // Somebody else on the access network.
    let stranger = road.lab.namespace("stranger").unwrap();
    road.access.veth("lan2", &stranger, "s0", 1).unwrap();
    road.access
        .ip(&format!("link set lan2 master {}", road::BRIDGE))
        .unwrap();
    stranger.ip("addr add 10.7.0.66/24 dev s0").unwrap();
    // A switch has no firewall in it, which would slow the flood down. Some kernels cannot have one either.
    let _ = road
        .access
        .sysctl("net.bridge.bridge-nf-call-iptables", "0");

    let mut echo = road.internet.command(&bench);
    echo.args(["echo", "--listen", &format!("{}:7000", road::TARGET)]);
    let mut echo = road.internet.start("echo", &echo).unwrap();
    echo.wait_for_line(Duration::from_secs(5), |line| line.contains("listening"))
        .unwrap();

    let flood_seconds = 8.0;
    let mut losses = Vec::new();
    for flooded in [false, true] {
        let witness = Plan {
            more: [
                "--traffic",
                "1000",
                "--seconds",
                &flood_seconds.to_string(),
                "--target",
                &format!("{}:7000", road::TARGET),
            ]
            .map(str::to_owned)
            .to_vec(),
            ..plan(&configuration)
        };
        let name = if flooded { "flooded" } else { "calm" };
        let mut client = Client::start(&road.client, name, &witness).unwrap();
        client.wait_up(1, Duration::from_secs(20)).unwrap();
        let before = (server.stats().unwrap(), Losses::read(&road));
        let flood = flooded.then(|| {
            let mut flood: Command = stranger.command(&bench);
            flood.args(["flood", &road::SERVER.to_string(), "--interface", "s0"]);
            flood.args(["--rate", "1000000", "--size", &FLOOD_SIZE.to_string()]);
            flood.args(["--seconds", &flood_seconds.to_string()]);
            if let Some((cpu, _)) = processors {
                flood.args(["--cpu", &cpu.to_string()]);
            }
            let report: Value = serde_json::from_str(&run(&mut flood).unwrap()).unwrap();
            report
        });
        let (status, _) = client.wait(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "{}", client.text());
        let traffic = client
            .said()
            .iter()
            .find(|line| line["event"] == "traffic")
            .cloned()
            .unwrap();
        let count = |key: &str| traffic["total"][key].as_u64().unwrap();
        let (sent, received) = (count("sent"), count("received"));
        assert!(sent >= 7_900, "the witness sent {sent} packets only");
        let loss = 1.0 - received as f64 / sent as f64;
        losses.push(loss);
        println!(
            "witness {:.0} packets/s, {:.3} % lost there and back",
            sent as f64 / flood_seconds,
            loss * 100.0
        );
        if let Some(flood) = flood {
            account(
                &flood,
                &before,
                &(server.stats().unwrap(), Losses::read(&road)),
            );
        }
    }
    assert!(losses.iter().all(|loss| *loss <= 0.01), "{losses:?}");
}

/// Says where the flood went, and insists that it is known.
fn account(flood: &Value, before: &(Stats, Losses), after: &(Stats, Losses)) {
    let losses = after.1.since(before.1);
    let drops = |stats: &Stats| stats.drops().get("unknown-call").copied().unwrap_or(0);
    let unknown = drops(&after.0) - drops(&before.0);
    let grown = |counter: &dyn Fn(&Port) -> u64| {
        after.0.port("access", counter) - before.0.port("access", counter)
    };
    let arrived = grown(&|port| port.received);
    let (ring_full, no_memory) = (
        grown(&|port| port.rx_ring_full),
        grown(&|port| port.rx_dropped),
    );
    let number = |key: &str| flood[key].as_u64().unwrap();
    let (sent, refused) = (number("sent"), number("refused"));
    let seconds = flood["seconds"].as_f64().unwrap();
    println!(
        "flood {:.0} packets/s: {sent} sent, {refused} refused; {:.0} packets/s arrived at the worker",
        flood["rate"].as_f64().unwrap(),
        arrived as f64 / seconds,
    );
    println!("  {unknown} counted as unknown calls");
    println!(
        "  {losses:?}, of which the socket's ring was full for {ring_full} and no memory left for {no_memory}"
    );
    // A thousandth is for what was under way when the counters were read. Losses of the witness count there, too.
    let slack = sent / 1_000;
    let known = unknown + losses.sum();
    assert!(
        (sent - slack..=sent + slack).contains(&known),
        "{known} of {sent} packets are known of"
    );
    assert!(sent > 100_000, "no flood: {sent} packets");
    // Most of it must have come so far that turnpike had to look at it.
    assert!(unknown > sent / 2, "{unknown} of {sent} packets arrived");
}
