//! What a packet costs between two memory devices: worker only, no kernel, no NIC.
//!
//! One element is one inner packet. Making packets, letting them arrive and taking them away is not part of a time;
//! receiving them from the device, a whole turn of the worker and giving them to the device are.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark's functions are made by macros, and it may stop at any fault"
)]

use core::net::Ipv4Addr;
use core::time::Duration;
use std::hint::black_box;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use turnpike_dataplane::api::{
    CallRef, Command, Direction, Encryption, Event, Forward, FrameBytes, Owners, Port, WorkerId,
};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::resident::Resident;
use turnpike_dataplane::rings::{RingSizes, channels};
use turnpike_dataplane::table::Table;
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::mppe::{Encryptor, Mode};
use turnpike_protocol::{CallId, Role};

#[path = "../../dataplane/tests/rig/mod.rs"]
mod rig;

use rig::{End, Pair, forward, from_linux, udp};

/// Packets that a turn finds.
const BATCH: usize = 64;

/// Calls that packets are for, each for another one.
const CROWDS: [usize; 5] = [1_000, 10_000, 70_000, 300_000, 1_000_000];

/// Octets of inner packets, headers included.
const SIZES: [usize; 3] = [64, 576, 1400];

const ENCRYPTIONS: [(&str, Encryption); 2] =
    [("plain", Encryption::Plain), ("mppe", Encryption::Required)];

fn inject(end: &mut End, port: Port, frames: &[Vec<u8>]) {
    for frame in frames {
        assert!(end.worker.device_mut().inject(port, frame));
    }
}

fn discard(end: &mut End, port: Port) -> usize {
    let mut frames = 0;
    end.worker.device_mut().take_each(port, |_| frames += 1);
    frames
}

/// Processor time of this thread: other work on the machine, also on a small one, does not count. Reading it takes some
/// 0.3 us, which is part of each turn's time.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Measures the processor time of something that needs no preparation.
fn measure(bencher: &mut Bencher<'_>, mut work: impl FnMut()) {
    bencher.iter_custom(|rounds| {
        let start = processor_time();
        for _ in 0..rounds {
            work();
        }
        processor_time() - start
    });
}

/// The time of one turn. The worker's clock goes on by what a turn may take, so that delayed acknowledgements come.
fn timed_turn(end: &mut End) -> Duration {
    end.now += Duration::from_micros(50);
    let start = processor_time();
    black_box(end.worker.turn(end.now));
    processor_time() - start
}

/// Client to server: GRE in on the access port, inner packets out on the host port.
fn decap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decap");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, encryption) in ENCRYPTIONS {
        for size in SIZES {
            let mut pair = Pair::up_reordering(encryption, Reordering::default());
            let packet = from_linux(&udp(rig::INNER, rig::INTERNET, size - 20));
            let packets = vec![packet; BATCH];
            group.bench_function(format!("{name}/{size}"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        // The client's worker makes what arrives; it is not timed.
                        inject(&mut pair.client, Port::Host, &packets);
                        pair.client.turn();
                        let server = &mut pair.server;
                        pair.client
                            .worker
                            .device_mut()
                            .take_each(Port::Access, |frame| {
                                assert!(server.worker.device_mut().inject(Port::Access, frame));
                            });
                        time += timed_turn(server);
                        assert_eq!(discard(server, Port::Host), BATCH);
                        discard(server, Port::Access);
                    }
                    time
                });
            });
            pair.server.assert_dropped(&[]);
        }
    }
}

/// Network to client: inner packets in on the host port, GRE out on the access port.
fn encap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encap");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, encryption) in ENCRYPTIONS {
        for size in SIZES {
            let mut pair = Pair::up(encryption);
            let packet = from_linux(&udp(rig::INTERNET, rig::INNER, size - 20));
            let packets = vec![packet; BATCH];
            group.bench_function(format!("{name}/{size}"), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        inject(&mut pair.server, Port::Host, &packets);
                        time += timed_turn(&mut pair.server);
                        assert_eq!(discard(&mut pair.server, Port::Access), BATCH);
                    }
                    time
                });
            });
            pair.server.assert_dropped(&[]);
        }
    }
}

/// The same over few and over many calls, each packet for another one: what look-ups and the memory of calls cost when
/// they are not in a cache. Beyond 65,535 calls ids repeat, once per peer.
fn many_calls(criterion: &mut Criterion) {
    for calls in CROWDS {
        for (name, encryption) in ENCRYPTIONS {
            let mut group = criterion.benchmark_group(format!("over {calls} calls"));
            group.throughput(Throughput::Elements(BATCH as u64));
            // Built when the first benchmark of the two runs, which a filter may have left out.
            let mut crowd = None;
            let inner = |n: usize| Ipv4Addr::from_bits(0x0a14_0000 + n as u32);
            let mut step = steps(calls);
            group.bench_function(format!("encap {name}/64"), |bencher| {
                let (server, _) = crowd.get_or_insert_with(|| crowded(calls, encryption));
                bencher.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        for _ in 0..BATCH {
                            let packet = from_linux(&udp(rig::INTERNET, inner(step()), 44));
                            assert!(server.worker.device_mut().inject(Port::Host, &packet));
                        }
                        time += timed_turn(server);
                        assert_eq!(discard(server, Port::Access), BATCH);
                    }
                    time
                });
            });
            let mut clients = Senders::new(calls, encryption);
            group.bench_function(format!("decap {name}/64"), |bencher| {
                let (server, book) = crowd.get_or_insert_with(|| crowded(calls, encryption));
                bencher.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        for _ in 0..BATCH {
                            let n = step();
                            let packet = udp(inner(n), rig::INTERNET, 44);
                            let frame = clients.frame(n, &book[n], &packet);
                            assert!(server.worker.device_mut().inject(Port::Access, &frame));
                        }
                        // The clock stands still, so that acknowledgements come with half a window of packets of a call,
                        // however many calls there are, and not with every one where packets of a call are rare.
                        let now = server.now;
                        time += timed_turn(server);
                        server.now = now;
                        assert_eq!(discard(server, Port::Host), BATCH);
                        discard(server, Port::Access);
                    }
                    time
                });
            });
            if let Some((server, _)) = crowd {
                server.assert_dropped(&[]);
            }
            group.finish();
        }
        look_up(criterion, calls);
    }
}

/// All calls once, in no order that a cache could guess: `calls` has no prime factors but 2, 3, 5 and 7.
fn steps(calls: usize) -> impl FnMut() -> usize {
    let mut next = 0;
    move || {
        next = (next * (420 * 4871 + 1) + 7919) % calls;
        next
    }
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
fn look_up(criterion: &mut Criterion, calls: usize) {
    let mut group = criterion.benchmark_group(format!("look-up among {calls} calls"));
    group.throughput(Throughput::Elements(1));
    let book: Vec<CallRef> = (0..calls).map(name).collect();
    let mut table = Table::<u64>::new(calls);
    let key = |call: &CallRef| u64::from(call.peer.to_bits()) << 16 | u64::from(call.id.0);
    for (at, call) in (0..).zip(&book) {
        assert!(table.insert(key(call), at));
    }
    let mut step = steps(calls);
    group.bench_function("by peer and id", |bencher| {
        measure(bencher, || {
            black_box(table.get(black_box(key(&book[step()]))));
        });
    });
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
    let (control, end) = turnpike_dataplane::rings::channel(&RingSizes::default()).unwrap();
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
        let address = Ipv4Addr::from_bits(0x0a14_0000 + n as u32);
        for command in [
            Command::Open {
                call,
                peer_id: CallId(1),
                via: rig::CLIENT,
                window: 64,
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
    if let Ok(resident) = Resident::now() {
        let mib = |octets: u64| octets >> 20;
        println!(
            "{calls} calls: {} MiB of memory, {} MiB of it in huge pages",
            mib(resident.octets),
            mib(resident.huge)
        );
    }
    (server, book)
}

/// One look-up in a table of 65,536 entries, keys in no order.
fn table(criterion: &mut Criterion) {
    const ENTRIES: u64 = 65_536;
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(1));
    let mut table = Table::<u64>::new(ENTRIES as usize);
    let key = |n: u64| ((0xc633_6400 + n / 16) << 16) | (n % 16);
    for n in 0..ENTRIES {
        assert!(table.insert(key(n), n as u32));
    }
    for (name, step) in [("found", 0), ("not found", 1 << 40)] {
        let mut next = 0;
        group.bench_function(name, |bencher| {
            measure(bencher, || {
                next = (next + 40_503) % ENTRIES;
                black_box(table.get(black_box(key(next) + step)));
            });
        });
    }
}

/// Through the rings: a command down and an event up; and a packet from one worker to another.
fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rings");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut pair = Pair::open();
    group.bench_function("command and event", |bencher| {
        measure(bencher, || {
            let server = &mut pair.server;
            for _ in 0..BATCH {
                let call = rig::AT_SERVER;
                server
                    .control
                    .commands
                    .push(Command::Query { call })
                    .unwrap();
            }
            server.worker.turn(server.now);
            for _ in 0..BATCH {
                assert!(matches!(
                    server.control.events.pop(),
                    Ok(Event::Counters { .. })
                ));
            }
        });
    });
    let echo = FrameBytes::new(&[0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0]).unwrap();
    group.bench_function("control frame sent", |bencher| {
        measure(bencher, || {
            let server = &mut pair.server;
            for _ in 0..BATCH {
                let command = Command::Send {
                    call: rig::AT_SERVER,
                    frame: echo.clone(),
                };
                server.control.commands.push(command).unwrap();
            }
            server.worker.turn(server.now);
            assert_eq!(discard(server, Port::Access), BATCH);
        });
    });
    for size in SIZES {
        let [mut first, mut second] = two_workers();
        let packet = from_linux(&udp(rig::INTERNET, rig::INNER, size - 20));
        let packets = vec![packet; BATCH];
        group.bench_function(format!("handed over and encapsulated/{size}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    inject(&mut first, Port::Host, &packets);
                    time += timed_turn(&mut first);
                    time += timed_turn(&mut second);
                    assert_eq!(discard(&mut second, Port::Access), BATCH);
                }
                time
            });
        });
        second.assert_dropped(&[]);
    }
}

/// Packets arrive at the first, the call is the second's.
fn two_workers() -> [End; 2] {
    let call = CallRef {
        id: CallId(1),
        ..rig::AT_SERVER
    };
    let mut ends = channels(2, &RingSizes::default()).unwrap();
    let mut next = || {
        let id = 2 - ends.len() as u8;
        let (control, end) = ends.remove(0);
        let mut config = rig::config(Role::Server);
        config.id = WorkerId(id);
        config.owners = Owners::round_robin(2);
        let mut worker = End::with(config, MemDevice::new(256), control, end);
        if id == 1 {
            worker.tell(Command::Neighbour {
                port: Port::Access,
                address: rig::CLIENT,
                mac: Some(rig::CLIENT_MAC),
            });
            worker.tell(Command::Open {
                call,
                peer_id: CallId(1),
                via: rig::CLIENT,
                window: 64,
            });
            worker.tell(Command::Forward {
                call,
                forward: forward(Encryption::Plain),
            });
        }
        worker.tell(Command::Route {
            prefix: rig::INNER.into(),
            call,
        });
        worker.turn();
        worker
    };
    [next(), next()]
}

criterion_group! {
    name = packet_path;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = decap, encap, many_calls, table, rings
}
criterion_main!(packet_path);
