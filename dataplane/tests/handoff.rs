//! Two workers of one server: packets find the owner of their call wherever they arrive.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use rig::*;
use turnpike_dataplane::api::{
    CallRef, CaptureSide, Command, Encryption, Forward, Owners, Port, WorkerId,
};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channels};
use turnpike_protocol::{CallId, Role};

/// Of worker 0.
const EVEN: CallRef = CallRef {
    local: SERVER,
    peer: CLIENT,
    id: CallId(700),
};
/// Of worker 1.
const ODD: CallRef = CallRef {
    local: SERVER,
    peer: CLIENT,
    id: CallId(701),
};
const ODD_INNER: core::net::Ipv4Addr = core::net::Ipv4Addr::new(10, 20, 0, 11);

fn server(sizes: &RingSizes) -> [End; 2] {
    let mut ends =
        channels(2, sizes)
            .unwrap()
            .into_iter()
            .zip(0_u8..)
            .map(|((control, end), id)| {
                let mut config = config(Role::Server);
                config.id = WorkerId(id);
                config.owners = Owners::round_robin(2);
                End::with(config, MemDevice::new(256), control, end)
            });
    let mut workers = [ends.next().unwrap(), ends.next().unwrap()];
    for (n, call, address) in [(0, EVEN, INNER), (1, ODD, ODD_INNER)] {
        workers[n].tell(Command::Open {
            call,
            peer_id: CallId(n as u16),
            via: CLIENT,
            window: 64,
        });
        workers[n].tell(Command::Forward {
            call,
            forward: Forward {
                address,
                ..forward(Encryption::Plain)
            },
        });
        for worker in &mut workers {
            worker.tell(Command::Route {
                prefix: address.into(),
                call,
            });
        }
    }
    for worker in &mut workers {
        worker.tell(Command::Pool {
            prefix: "10.20.0.0/24".parse().unwrap(),
        });
        worker.tell(Command::Neighbour {
            port: Port::Access,
            address: CLIENT,
            mac: Some(CLIENT_MAC),
        });
        worker.turn();
    }
    workers
}

fn turn(workers: &mut [End; 2]) {
    while workers[0].turn().busy | workers[1].turn().busy {}
}

fn data(id: CallId, packet: &[u8]) -> Vec<u8> {
    gre_to_server(id, Some(0), None, &[&[0x21][..], packet].concat())
}

#[test]
fn both_directions_find_the_owner() {
    for arrives in 0..2 {
        let mut workers = server(&RingSizes::default());
        for (owner, call, address) in [(0, EVEN, INNER), (1, ODD, ODD_INNER)] {
            let up = udp(address, INTERNET, 100);
            workers[arrives].receive(Port::Access, [data(call.id, &up)]);
            turn(&mut workers);
            assert_eq!(inner_of(workers[owner].sent(Port::Host)), [up]);
            let down = udp(INTERNET, address, 100);
            workers[arrives].receive(Port::Host, [from_linux(&down)]);
            turn(&mut workers);
            let frames = workers[owner].sent(Port::Access);
            let (gre, payload) = gre_of(&frames[0]);
            assert_eq!(gre.call_id, CallId(owner as u16));
            assert_eq!(payload[1..], down);
        }
        let other = 1 - arrives;
        assert_eq!(workers[arrives].total(Total::HandedOver), 2);
        assert_eq!(workers[other].total(Total::TakenOver), 2);
        for worker in &workers {
            worker.assert_dropped(&[]);
        }
    }
}

#[test]
fn from_tunnel_to_tunnel_across_workers_and_errors_back() {
    let mut workers = server(&RingSizes::default());
    let packet = udp(INNER, ODD_INNER, 100);
    // Worker 1 receives it, worker 0 owns the call it came from, worker 1 the one it goes to.
    workers[1].receive(Port::Access, [data(EVEN.id, &packet)]);
    turn(&mut workers);
    let frames = workers[1].sent(Port::Access);
    assert_eq!(gre_of(&frames[0]).1[1..], with_ttl(packet, 16));
    // Too big for that one: the error goes the whole way back.
    let large = with_df(udp(INNER, ODD_INNER, 1400));
    let frame = gre_to_server(EVEN.id, Some(1), None, &[&[0x21][..], &large].concat());
    workers[1].receive(Port::Access, [frame]);
    turn(&mut workers);
    let frames = workers[0].sent(Port::Access);
    let (gre, payload) = gre_of(&frames[0]);
    assert_eq!(gre.call_id, CallId(0));
    assert_eq!(payload[1 + 20..][..2], [3, 4]);
    workers[0].assert_dropped(&[]);
    workers[1].assert_dropped(&[(Reason::TooBig, 1)]);
}

#[test]
fn unknown_calls_end_at_the_owner() {
    let mut workers = server(&RingSizes::default());
    workers[0].receive(Port::Access, [data(CallId(703), &udp(INNER, INTERNET, 1))]);
    turn(&mut workers);
    workers[0].assert_dropped(&[]);
    workers[1].assert_dropped(&[(Reason::UnknownCall, 1)]);
    // A route whose call is gone does not make packets go round in circles.
    workers[1].tell(Command::Close { call: ODD });
    workers[0].receive(Port::Host, [from_linux(&udp(INTERNET, ODD_INNER, 1))]);
    turn(&mut workers);
    workers[1].assert_dropped(&[(Reason::UnknownCall, 1), (Reason::NoRoute, 1)]);
}

#[test]
fn a_full_ring_is_a_named_drop() {
    let sizes = RingSizes {
        handoff: 4,
        ..RingSizes::default()
    };
    let mut workers = server(&sizes);
    let down = from_linux(&udp(INTERNET, ODD_INNER, 1));
    workers[0].receive(Port::Host, (0..10).map(|_| &down));
    turn(&mut workers);
    assert_eq!(workers[1].sent(Port::Access).len(), 4);
    workers[0].assert_dropped(&[(Reason::HandoffFull, 6)]);
    // Buffers come back.
    workers[0].receive(Port::Host, (0..4).map(|_| &down));
    turn(&mut workers);
    assert_eq!(workers[1].sent(Port::Access).len(), 4);
}

#[test]
fn a_call_captures_what_was_handed_over() {
    let mut workers = server(&RingSizes::default());
    workers[1].tell(Command::Capture {
        call: ODD,
        on: true,
    });
    let up = udp(ODD_INNER, INTERNET, 100);
    let frame = data(ODD.id, &up);
    workers[0].receive(Port::Access, [&frame]);
    turn(&mut workers);
    let captured: Vec<_> = core::iter::from_fn(|| workers[1].control.captured.pop().ok()).collect();
    assert_eq!(captured.len(), 2);
    assert_eq!(captured[0].side, CaptureSide::Outer);
    assert_eq!(captured[0].bytes[..usize::from(captured[0].len)], frame);
    assert_eq!(captured[1].side, CaptureSide::Inner);
    assert_eq!(captured[1].bytes[..usize::from(captured[1].len)], up);
}

#[test]
fn threads_hand_over_too() {
    use std::time::Instant;
    use turnpike_dataplane::thread::{SpawnError, spawn};

    let mut workers = server(&RingSizes::default());
    let down = from_linux(&udp(INTERNET, ODD_INNER, 1));
    for _ in 0..50 {
        assert!(workers[0].worker.device_mut().inject(Port::Host, &down));
    }
    let origin = Instant::now();
    let [first, second] = workers;
    let (mut controls, mut threads) = (Vec::new(), Vec::new());
    // The second sleeps by the time the first starts.
    for end in [second, first] {
        controls.push(end.control);
        threads.push(spawn(end.worker, None, origin).unwrap());
        std::thread::sleep(core::time::Duration::from_millis(20));
    }
    let counters = controls[0].counters.clone();
    let start = Instant::now();
    while counters.total(Total::Encapsulated) < 50 {
        assert!(
            start.elapsed().as_secs() < 20,
            "{:?}",
            counters.reasons().collect::<Vec<_>>()
        );
        std::thread::yield_now();
    }
    assert!(counters.total(Total::Sleeps) > 0);
    for control in &mut controls {
        control.commands.push(Command::Stop).unwrap();
    }
    let mut device = threads.remove(0).join().unwrap();
    assert_eq!(device.take(Port::Access).len(), 50);
    threads.remove(0).join().unwrap();
    // A processor that does not exist.
    let [first, _] = server(&RingSizes::default());
    assert!(matches!(
        spawn(first.worker, Some(4095), origin),
        Err(SpawnError::NotPinned(4095))
    ));
    // One that does.
    let [mut first, _] = server(&RingSizes::default());
    first.tell(Command::Stop);
    spawn(first.worker, Some(0), origin)
        .unwrap()
        .join()
        .unwrap();
}
