//! A worker allocates nothing once it stands, whatever comes.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

mod rig;

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};

use rig::*;
use turnpike_dataplane::api::{Command, Encryption, Event, FrameBytes, Port};
use turnpike_dataplane::cipher::{Engine, Link, Packet};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::CallId;
use turnpike_protocol::mppe::{SessionKey, StartKey, Strength};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is done by the system's allocator; counting touches no memory of its callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1]))), 1);
}

#[test]
fn a_worker_allocates_nothing() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let mut pair = Pair::up_reordering(encryption, Reordering::default());
        pair.forward6(encryption);
        pair.server.tell(Command::Capture {
            call: AT_SERVER,
            on: true,
        });
        // Data both ways, made before.
        let mut up = Vec::new();
        for size in [0, 100, 1300] {
            pair.client
                .receive(Port::Host, [from_linux(&udp(INNER, INTERNET, size))]);
            pair.client
                .receive(Port::Host, [from_linux(&udp6(INNER6, INTERNET6, size))]);
            up.extend(pair.client.sent(Port::Access));
        }
        let down = [
            from_linux(&udp(INTERNET, INNER, 100)),
            // In pieces; refused with an error; for nobody.
            from_linux(&udp(INTERNET, INNER, 1450)),
            from_linux(&with_df(udp(INTERNET, INNER, 1450))),
            from_linux(&udp(INTERNET, core::net::Ipv4Addr::new(10, 20, 0, 99), 9)),
            from_linux(&udp6(INTERNET6, INNER6, 100)),
            from_linux(&udp6(INTERNET6, INNER6, 1450)),
            from_linux(&udp6(INTERNET6, SERVER_INNER6, 9)),
        ];
        let echo = [0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 4];
        let bad = [
            gre_to_server(AT_SERVER.id, Some(9000), None, &echo),
            gre_to_server(AT_SERVER.id, Some(9000), None, &echo),
            gre_to_server(CallId(3), Some(1), None, &echo),
            gre_to_server(AT_SERVER.id, Some(9001), None, &[0x21; 40]),
            gre_to_server(AT_SERVER.id, Some(9002), None, &reset_request(1, &[])),
            gre_to_server(AT_SERVER.id, Some(9003), None, &configure_request(9)),
            // Held, released by what they wait for, held until time is over.
            gre_to_server(AT_SERVER.id, Some(9006), None, &echo),
            gre_to_server(AT_SERVER.id, Some(9005), None, &echo),
            gre_to_server(AT_SERVER.id, Some(9004), None, &echo),
            gre_to_server(AT_SERVER.id, Some(9009), None, &echo),
        ];
        let server = &mut pair.server;
        let mut events = 0;
        let mut octets = 0;
        let n = allocations(|| {
            for (port, frames) in [
                (Port::Access, &up[..]),
                (Port::Host, &down[..]),
                (Port::Access, &bad[..]),
            ] {
                for frame in frames {
                    assert!(server.worker.device_mut().inject(port, frame));
                }
                server.worker.turn(server.now);
            }
            server.now += core::time::Duration::from_millis(100);
            server
                .control
                .commands
                .push(Command::Send {
                    call: AT_SERVER,
                    frame: FrameBytes::new(&echo).unwrap(),
                })
                .unwrap();
            for n in 0..10 {
                let call = turnpike_dataplane::api::CallRef {
                    id: CallId(n),
                    ..AT_SERVER
                };
                for command in [
                    Command::Open {
                        call,
                        peer_id: CallId(n),
                        via: GATEWAY,
                    },
                    Command::Route {
                        prefix: core::net::Ipv4Addr::from_bits(n.into()).into(),
                        call,
                    },
                    Command::Route6 {
                        prefix: PREFIX6.parse().unwrap(),
                        call,
                    },
                    Command::Query { call },
                    Command::Unroute6 {
                        prefix: PREFIX6.parse().unwrap(),
                    },
                    Command::Unroute {
                        prefix: core::net::Ipv4Addr::from_bits(n.into()).into(),
                    },
                    Command::Close { call },
                ] {
                    server.control.commands.push(command).unwrap();
                }
            }
            server.worker.turn(server.now);
            for port in Port::ALL {
                server
                    .worker
                    .device_mut()
                    .take_each(port, |frame| octets += frame.len());
            }
            while let Ok(event) = server.control.events.pop() {
                events += usize::from(matches!(event, Event::Frame { .. } | Event::Closed { .. }));
            }
        });
        assert_eq!(n, 0);
        // All of that did happen.
        assert!(events >= 12 && octets > 3000, "{events} {octets}");
        assert_eq!(pair.server.total(Total::FragmentsMade), 2);
        assert_eq!(pair.server.total(Total::IcmpSent), 4);
        assert_eq!(pair.server.total(Total::Released), 3);
        assert_eq!(pair.server.total(Total::ReorderTimeouts), 1);
        assert_eq!(pair.server.worker.counters().reason(Reason::UnknownCall), 1);
        assert!(pair.server.total(Total::Captured) > 5);
        assert!(pair.server.total(Total::Decapsulated) >= 6);
    }
}

#[test]
fn bursts_are_encrypted_without_allocations() {
    let start = StartKey::new([1; 16], Strength::Bits128);
    let mut engine = Engine::new();
    let mut keys: [SessionKey; 70] = core::array::from_fn(|_| SessionKey::initial(&start));
    let mut packets: [[u8; 300]; 70] = [[0; 300]; 70];
    let n = allocations(|| {
        let mut next = keys.iter_mut();
        let mut links: [Link<'_>; 70] = core::array::from_fn(|_| Link {
            start: &start,
            key: next.next().unwrap(),
        });
        engine.change_all(&mut links);
        let mut next = packets.iter_mut().zip(&keys).zip(0..);
        let burst: [Packet<'_>; 70] = core::array::from_fn(|_| {
            let ((packet, key), at) = next.next().unwrap();
            Packet {
                key,
                octets: Cell::from_mut(&mut packet[..at * 97 % 300]).as_slice_of_cells(),
            }
        });
        engine.run_all(&burst);
    });
    assert_eq!(n, 0);
    assert_ne!(packets[69], [0; 300], "something was done");
}
