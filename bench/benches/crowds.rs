//! What a packet costs among few and among many calls, each packet for another one in no order that a cache could guess:
//! what look-ups and the memory of calls cost when they are in no cache.
//!
//! `cargo bench -p turnpike-bench --bench crowds` (`--json` for programs, `--rounds N` for fewer or more, `--most N` for
//! no larger crowds). All crowds are there at once and take turns, some thousand packets at a time, as memory that others
//! use, too, is not equally fast from one second to the next; so growth is that of crowds that met the same. Before its
//! turn is timed a crowd has a cache back that it fits. As in `packet_path`, receiving packets from the device, a whole
//! turn of the worker and giving them to the device count.
//!
//! Clocks stand still, so that acknowledgements come with half a window of packets of a call, however many calls there
//! are, and not with every packet where those of a call are rare. Calls have packets to be acknowledged before, some more
//! and some less, so that from the first round on as many acknowledgements are sent as there would be for ever.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may stop at any fault, and prints"
)]

use core::net::Ipv4Addr;
use core::time::Duration;
use std::hint::black_box;

use turnpike_dataplane::api::{CallRef, Command, Direction, Encryption, Forward, Port};
use turnpike_dataplane::counters::Total;
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::resident::Resident;
use turnpike_dataplane::rings::{RingSizes, channel};
use turnpike_dataplane::table::Table;
use turnpike_protocol::mppe::{Encryptor, Mode};
use turnpike_protocol::{CallId, Role};

#[path = "../../dataplane/tests/rig/mod.rs"]
mod rig;
mod turns;

use rig::{End, forward, from_linux, udp};
use turns::{BATCH, discard, processor_time, timed_turn};

/// Calls of each crowd. Beyond 65,535 ids repeat, once per peer.
const CROWDS: [usize; 5] = [1_000, 10_000, 70_000, 300_000, 1_000_000];

/// Rounds, if nothing else is said.
const ROUNDS: usize = 60;

/// Timed turns of a crowd in each round.
const TURNS: usize = 100;

/// More calls than so many fit no cache of a core's own.
const IN_CACHE: usize = 10_000;

/// Packets that are acknowledged together: half of the window that is announced.
const TOGETHER: u16 = 32;

const ENCRYPTIONS: [(&str, Encryption); 2] =
    [("plain", Encryption::Plain), ("mppe", Encryption::Required)];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, otherwise: usize| {
        let at = words.iter().position(|word| word == name);
        at.map_or(otherwise, |at| words[at + 1].parse().unwrap())
    };
    let json = words.iter().any(|word| word == "--json");
    let rounds = number("--rounds", ROUNDS).max(1);
    let most = number("--most", usize::MAX);
    let sizes = || CROWDS.into_iter().filter(|calls| *calls <= most);
    let mut found = Vec::new();
    for (name, encryption) in ENCRYPTIONS {
        let mut crowds: Vec<Crowd> = sizes().map(|calls| Crowd::new(calls, encryption)).collect();
        if !json && let Ok(resident) = Resident::now() {
            println!(
                "{name}: {} calls in {} MiB of memory, {} MiB of it in huge pages",
                sizes().sum::<usize>(),
                resident.octets >> 20,
                resident.huge >> 20
            );
        }
        found.extend(in_turns(
            &mut crowds,
            rounds,
            &format!("decap {name}/64"),
            Crowd::decap,
        ));
        found.extend(in_turns(
            &mut crowds,
            rounds,
            &format!("encap {name}/64"),
            Crowd::encap,
        ));
        for crowd in &mut crowds {
            crowd.server.assert_dropped(&[]);
        }
    }
    let mut indices: Vec<Index> = sizes().map(Index::new).collect();
    found.extend(in_turns(
        &mut indices,
        rounds,
        "look-up by peer and id",
        Index::look_up,
    ));
    if json {
        println!("{}", serde_json::Value::Array(found));
        return;
    }
    for one in found {
        println!(
            "{:<24} {:<18} {:>6.1} ns, best {:>6.1} ns: {:.2} and {:.2} times as long as among the fewest",
            one["function"].as_str().unwrap(),
            one["group"].as_str().unwrap(),
            one["ns"].as_f64().unwrap(),
            one["best"].as_f64().unwrap(),
            one["growth"].as_f64().unwrap(),
            one["best_growth"].as_f64().unwrap(),
        );
    }
}

/// Something over so many calls.
trait Over {
    fn calls(&self) -> usize;
}

/// Lets all of `over` do something for so many packets, again and again; what it took for one.
fn in_turns<T: Over>(
    over: &mut [T],
    rounds: usize,
    function: &str,
    mut work: impl FnMut(&mut T, usize) -> Duration,
) -> Vec<serde_json::Value> {
    let mut times = vec![Vec::with_capacity(rounds); over.len()];
    for _ in 0..rounds {
        for (one, times) in over.iter_mut().zip(&mut times) {
            work(one, one.calls().min(IN_CACHE).div_ceil(BATCH));
            let took = work(one, TURNS);
            times.push(took.as_nanos() as f64 / (TURNS * BATCH) as f64);
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let median = |times: &[f64]| times[times.len() / 2];
    // A median lies between these with 95 %.
    let off = (0.98 * (rounds as f64).sqrt()) as usize;
    (over.iter().zip(&times))
        .map(|(one, all)| {
            let at = |at: usize| all[at.min(all.len() - 1)];
            serde_json::json!({
                "group": format!("over {} calls", one.calls()),
                "function": function,
                "ns": median(all),
                "low": at((rounds / 2).saturating_sub(off)),
                "high": at(rounds / 2 + off),
                "best": all[0],
                "growth": median(all) / median(&times[0]),
                "best_growth": all[0] / times[0][0],
            })
        })
        .collect()
}

/// All calls once, in no order that a cache could guess: `calls` has no prime factors but 2, 3, 5 and 7.
struct Steps {
    calls: usize,
    next: usize,
}

impl Steps {
    fn next(&mut self) -> usize {
        self.next = (self.next * (420 * 4871 + 1) + 7919) % self.calls;
        self.next
    }
}

/// A server with many calls, and what their clients send.
struct Crowd {
    server: End,
    book: Vec<CallRef>,
    clients: Senders,
    steps: Steps,
}

impl Over for Crowd {
    fn calls(&self) -> usize {
        self.book.len()
    }
}

impl Crowd {
    fn new(calls: usize, encryption: Encryption) -> Self {
        let (server, book) = crowded(calls, encryption);
        let mut crowd = Self {
            server,
            book,
            clients: Senders::new(calls, encryption),
            steps: Steps { calls, next: 0 },
        };
        for sent in 1..usize::from(TOGETHER) {
            let rest = (0..calls).filter(|n| n % usize::from(TOGETHER) >= sent);
            let rest: Vec<usize> = rest.collect();
            for some in rest.chunks(BATCH) {
                crowd.decap_of(some.iter().copied());
            }
        }
        crowd
    }

    /// Client to server: GRE in on the access port, inner packets out on the host port. Acknowledgements go back.
    fn decap(&mut self, turns: usize) -> Duration {
        let sent = |server: &End| server.worker.counters().total(Total::AcksSent);
        let before = sent(&self.server);
        let mut time = Duration::ZERO;
        for _ in 0..turns {
            let numbers: [usize; BATCH] = core::array::from_fn(|_| self.steps.next());
            time += self.decap_of(numbers.into_iter());
        }
        let packets = (turns * BATCH) as u64;
        // Of few calls all may be due in the same thousands of packets.
        assert!(
            self.calls() < IN_CACHE
                || sent(&self.server) - before > packets / u64::from(2 * TOGETHER),
            "packets are acknowledged"
        );
        time
    }

    fn decap_of(&mut self, numbers: impl ExactSizeIterator<Item = usize>) -> Duration {
        let packets = numbers.len();
        for n in numbers {
            let packet = udp(inner(n), rig::INTERNET, 44);
            let frame = self.clients.frame(n, &self.book[n], &packet);
            assert!(self.server.worker.device_mut().inject(Port::Access, &frame));
        }
        let time = turn(&mut self.server);
        assert_eq!(discard(&mut self.server, Port::Host), packets);
        discard(&mut self.server, Port::Access);
        time
    }

    /// Network to client: inner packets in on the host port, GRE out on the access port.
    fn encap(&mut self, turns: usize) -> Duration {
        let mut time = Duration::ZERO;
        for _ in 0..turns {
            for _ in 0..BATCH {
                let packet = from_linux(&udp(rig::INTERNET, inner(self.steps.next()), 44));
                assert!(self.server.worker.device_mut().inject(Port::Host, &packet));
            }
            time += turn(&mut self.server);
            assert_eq!(discard(&mut self.server, Port::Access), BATCH);
        }
        time
    }
}

/// A turn at the time of the one before.
fn turn(server: &mut End) -> Duration {
    let now = server.now;
    let time = timed_turn(server);
    server.now = now;
    time
}

/// The inner address of one of many calls.
fn inner(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a14_0000 + n as u32)
}

/// The clients' sending halves. All have the same keys, so that a packet's key stream is made once for all of them: a
/// million key chains beside the server's would take the caches from it.
struct Senders {
    encryptor: Option<Encryptor>,
    /// MPPE headers and key streams by a packet's number in its call.
    streams: Vec<([u8; 2], Vec<u8>)>,
    /// Packets sent, by call.
    sent: Vec<u32>,
}

impl Senders {
    fn new(calls: usize, encryption: Encryption) -> Self {
        let encrypted = encryption == Encryption::Required;
        Self {
            encryptor: encrypted.then(|| Encryptor::new(&rig::key(1), Mode::Stateless)),
            streams: Vec::new(),
            sent: vec![0; calls],
        }
    }

    fn frame(&mut self, n: usize, call: &CallRef, packet: &[u8]) -> Vec<u8> {
        let number = self.sent[n] as usize;
        self.sent[n] += 1;
        let payload = match &mut self.encryptor {
            None => [&[0x21][..], packet].concat(),
            Some(encryptor) => {
                while self.streams.len() <= number {
                    let mut stream = vec![0; 2 + packet.len()];
                    let sealing = encryptor.seal();
                    sealing.cipher.apply(&mut stream);
                    self.streams.push((sealing.header, stream));
                }
                let (header, stream) = &self.streams[number];
                let mut data = [&[0x00, 0x21][..], packet].concat();
                for (octet, key) in data.iter_mut().zip(stream) {
                    *octet ^= key;
                }
                [&[0xfd][..], header, &data].concat()
            }
        };
        rig::gre_from(call.peer, call.id, Some(self.sent[n]), None, &payload)
    }
}

/// What of it is the look-up of (peer, id) alone.
struct Index {
    book: Vec<CallRef>,
    table: Table<u64>,
    steps: Steps,
}

impl Over for Index {
    fn calls(&self) -> usize {
        self.book.len()
    }
}

impl Index {
    fn new(calls: usize) -> Self {
        let book: Vec<CallRef> = (0..calls).map(name).collect();
        let mut table = Table::new(calls);
        for (at, call) in (0..).zip(&book) {
            assert!(table.insert(key(call), at));
        }
        let steps = Steps { calls, next: 0 };
        Self { book, table, steps }
    }

    fn look_up(&mut self, turns: usize) -> Duration {
        let start = processor_time();
        for _ in 0..turns * BATCH {
            let call = &self.book[self.steps.next()];
            black_box(self.table.get(black_box(key(call))));
        }
        processor_time() - start
    }
}

fn key(call: &CallRef) -> u64 {
    u64::from(call.peer.to_bits()) << 16 | u64::from(call.id.0)
}

/// One of many calls on one local address, four of each peer.
fn name(n: usize) -> CallRef {
    CallRef {
        peer: Ipv4Addr::from_bits(0x6440_0000 + (n / 4) as u32),
        id: CallId((1 + n % 65_535) as u16),
        ..rig::AT_SERVER
    }
}

/// A server with this many calls on one local address.
fn crowded(calls: usize, encryption: Encryption) -> (End, Vec<CallRef>) {
    let (control, end) = channel(&RingSizes::default()).unwrap();
    let mut config = rig::config(Role::Server);
    config.calls = calls;
    config.routes = calls;
    let mut server = End::with(config, MemDevice::new(1024), control, end);
    server.tell(Command::Neighbour {
        port: Port::Access,
        address: rig::CLIENT,
        mac: Some(rig::CLIENT_MAC),
    });
    let book: Vec<CallRef> = (0..calls).map(name).collect();
    for (n, &call) in book.iter().enumerate() {
        let address = inner(n);
        for command in [
            Command::Open {
                call,
                peer_id: CallId(1),
                via: rig::CLIENT,
                window: 2 * TOGETHER,
            },
            Command::Route {
                prefix: address.into(),
                call,
            },
            Command::Forward {
                call,
                forward: Forward {
                    address,
                    ..forward(encryption)
                },
            },
        ] {
            server.tell(command);
        }
        if encryption == Encryption::Required {
            server.secure(call, Direction::Receive, 1, rig::key(1));
            server.send_frame(call, &rig::configure_request(1));
            let ack = rig::gre_from(call.peer, call.id, Some(0), None, &rig::configure_ack(1));
            server.receive(Port::Access, [ack]);
            server.secure(call, Direction::Transmit, 1, rig::key(2));
            server.send_frame(call, &rig::configure_ack(1));
            server.events.clear();
            discard(&mut server, Port::Access);
        }
        server.turn();
    }
    (server, book)
}
