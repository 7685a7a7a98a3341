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

use core::time::Duration;
use std::hint::black_box;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use turnpike_dataplane::api::{
    CallRef, Command, Encryption, Event, FrameBytes, Owners, Port, WorkerId,
};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channels};
use turnpike_dataplane::table::Table;
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::{CallId, Role};

#[path = "../../dataplane/tests/rig/mod.rs"]
mod rig;
mod turns;

use rig::{End, Pair, forward, from_linux, udp};
use turns::{BATCH, discard, processor_time, timed_turn};

/// Octets of inner packets, headers included.
const SIZES: [usize; 3] = [64, 576, 1400];

const ENCRYPTIONS: [(&str, Encryption); 2] =
    [("plain", Encryption::Plain), ("mppe", Encryption::Required)];

fn inject(end: &mut End, port: Port, frames: &[Vec<u8>]) {
    for frame in frames {
        assert!(end.worker.device_mut().inject(port, frame));
    }
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
    targets = decap, encap, table, rings
}
criterion_main!(packet_path);
