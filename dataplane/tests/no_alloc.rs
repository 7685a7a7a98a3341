//! A worker allocates nothing once it stands, whatever comes, and frees nothing either.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of it is test, and says what it measured"
)]

mod rig;

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};

use core::net::Ipv4Addr;
use core::time::Duration;

use rig::*;
use turnpike_dataplane::api::{CallRef, Command, Encryption, Event, Forward, FrameBytes, Port};
use turnpike_dataplane::cipher::{Engine, Link, Packet};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{RingSizes, channel};
use turnpike_dataplane::worker::{Reordering, WorkerConfig};
use turnpike_protocol::mppe::{SessionKey, StartKey, Strength};
use turnpike_protocol::mschap::NtHash;
use turnpike_protocol::{CallId, Role, ppp};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
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
        FREED.with(|count| count.set(count.get() + 1));
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

/// Turns a worker until it has nothing to do; what that allocated and freed.
fn turns(end: &mut End) -> [u64; 2] {
    let before = [ALLOCATIONS.get(), FREED.get()];
    while end.worker.turn(end.now).busy {}
    [ALLOCATIONS.get() - before[0], FREED.get() - before[1]]
}

/// Set-ups under way while packets flow.
const SET_UPS: u16 = 1000;

/// Packets through both workers for each kind of encryption, both ways together.
const PACKETS: u64 = 500_000;

/// A call between the real state machines of both ends, with the worker between them.
struct SetUp {
    call: CallRef,
    server: ppp::Link,
    client: ppp::Link,
    seq: u32,
    up: bool,
}

impl SetUp {
    /// The client's id is `n`, ours another.
    fn begin(n: u16, server: &mut End) -> Self {
        let call = CallRef {
            id: CallId(1000 + n),
            ..AT_SERVER
        };
        server.tell(Command::Open {
            call,
            peer_id: CallId(n),
            via: CLIENT,
            window: 64,
        });
        let mut seed = [3; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        let config = ppp::ClientLink::new(b"alice", NtHash::from_password("secret"));
        let mut client = ppp::Link::client(config, seed, server.now);
        seed[31] = 4;
        let mut link = ppp::Link::server(ppp::ServerLink::default(), seed, server.now);
        link.open(server.now);
        client.open(server.now);
        Self {
            call,
            server: link,
            client,
            seq: 0,
            up: false,
        }
    }

    /// Both ends say what they have to say.
    fn speak(&mut self, server: &mut End) {
        let (call, now) = (self.call, server.now);
        while let Some(action) = self.server.poll() {
            match action {
                ppp::Action::Send(frame) => {
                    let frame = FrameBytes::new(&frame).unwrap();
                    server.tell(Command::Send { call, frame });
                }
                ppp::Action::Load {
                    direction,
                    identifier,
                    key,
                    mode,
                } => server.tell(Command::Secure {
                    call,
                    direction,
                    identifier,
                    key,
                    mode,
                }),
                ppp::Action::Authenticate(credentials) => {
                    let secret = NtHash::from_password("secret").into();
                    let grant = ppp::Grant {
                        limits: Default::default(),
                        proof: credentials.verify(&secret).ok().unwrap(),
                        address: Ipv4Addr::from_bits(0x0a15_0000 + u32::from(call.id.0)),
                        server_address: SERVER_INNER,
                        dns: [None; 2],
                        nbns: [None; 2],
                        ipv6: None,
                    };
                    assert!(self.server.verdict(ppp::Verdict::Accept(grant), now));
                }
                ppp::Action::Up(terms) => {
                    server.tell(Command::Route {
                        prefix: terms.address.into(),
                        call,
                    });
                    server.tell(Command::Forward {
                        call,
                        forward: Forward {
                            address: terms.address,
                            ..forward(Encryption::Required)
                        },
                    });
                }
                other => assert!(!matches!(other, ppp::Action::Finished(_)), "{other:?}"),
            }
        }
        while let Some(action) = self.client.poll() {
            match action {
                ppp::Action::Send(frame) => {
                    let frame = gre_to_server(call.id, Some(self.seq), None, &frame);
                    self.seq += 1;
                    let device = server.worker.device_mut();
                    assert!(device.inject(Port::Access, &frame));
                }
                ppp::Action::Up(_) => self.up = true,
                other => assert!(!matches!(other, ppp::Action::Finished(_)), "{other:?}"),
            }
        }
    }
}

/// Loses one in fifty, and lets every seventh overtake the one before.
fn on_the_way(frames: &mut Vec<Vec<u8>>, count: &mut u64) {
    frames.retain(|_| {
        *count += 1;
        !count.is_multiple_of(50)
    });
    for at in (1..frames.len()).step_by(7) {
        frames.swap(at - 1, at);
    }
}

#[test]
fn a_million_packets_and_a_thousand_set_ups_allocate_nothing() {
    for encryption in [Encryption::Plain, Encryption::Required] {
        let calls = usize::from(SET_UPS) + 16;
        let end = |role| {
            let (control, end) = channel(&RingSizes {
                commands: 4096,
                events: 4096,
                ..RingSizes::default()
            })
            .unwrap();
            let config = WorkerConfig {
                calls,
                routes: calls,
                reordering: Reordering::default(),
                ..config(role)
            };
            End::with(config, MemDevice::new(2048), control, end)
        };
        let pair = Pair::between(end(Role::Server), end(Role::Client));
        let Pair {
            mut server,
            mut client,
        } = pair.carrying(encryption);
        let mut set_ups: Vec<SetUp> = (1..=SET_UPS)
            .map(|n| SetUp::begin(n, &mut server))
            .collect();
        let up: Vec<Vec<u8>> = (0..32)
            .map(|n| from_linux(&udp(INNER, INTERNET, n * 40)))
            .collect();
        let down: Vec<Vec<u8>> = (0..32)
            .map(|n| from_linux(&udp(INTERNET, INNER, n * 40)))
            .collect();
        let mut allocated = [0, 0];
        let mut turn = |end: &mut End| {
            let new = turns(end);
            allocated = [allocated[0] + new[0], allocated[1] + new[1]];
        };
        let (mut sent, mut delivered, mut on_way) = (0, 0, 0);
        while sent < PACKETS {
            let at = (sent / 64) as usize;
            for n in 0..8 {
                // Each has its turn again and again, so that all are under way together.
                let n = (at * 8 + n) % set_ups.len();
                set_ups[n].speak(&mut server);
            }
            for frame in &up {
                assert!(client.worker.device_mut().inject(Port::Host, frame));
            }
            for frame in &down {
                assert!(server.worker.device_mut().inject(Port::Host, frame));
            }
            sent += 64;
            turn(&mut client);
            turn(&mut server);
            let mut to_server = client.sent(Port::Access);
            let (mut to_client, control): (Vec<_>, Vec<_>) = (server.sent(Port::Access))
                .into_iter()
                .partition(|frame| gre_of(frame).0.call_id == AT_CLIENT.id);
            on_the_way(&mut to_server, &mut on_way);
            on_the_way(&mut to_client, &mut on_way);
            for frame in &to_server {
                assert!(server.worker.device_mut().inject(Port::Access, frame));
            }
            for frame in &to_client {
                assert!(client.worker.device_mut().inject(Port::Access, frame));
            }
            turn(&mut client);
            turn(&mut server);
            delivered += server.sent(Port::Host).len() + server.sent(Port::Uplink).len();
            delivered += client.sent(Port::Host).len();
            for frame in control {
                let (header, payload) = gre_of(&frame);
                let set_up = &mut set_ups[usize::from(header.call_id.0) - 1];
                if !payload.is_empty() {
                    set_up.client.handle_frame(&payload, server.now);
                }
            }
            while let Ok(event) = server.control.events.pop() {
                if let Event::Frame { call, frame } = event
                    && let Some(n) = call.id.0.checked_sub(1001)
                {
                    (set_ups[usize::from(n)].server).handle_frame(&frame, server.now);
                }
            }
            while client.control.events.pop().is_ok() {}
            for end in [&mut server, &mut client] {
                end.now += Duration::from_micros(100);
            }
        }
        let came_up = set_ups.iter().filter(|set_up| set_up.up).count();
        println!(
            "{encryption:?}: {sent} packets, {delivered} delivered, {} held for earlier ones, {came_up} set-ups: \
             {} allocations, {} freed",
            server.total(Total::Released),
            allocated[0],
            allocated[1]
        );
        assert_eq!(allocated, [0, 0]);
        // All of that did happen.
        assert_eq!(came_up, usize::from(SET_UPS));
        assert!(delivered as u64 > sent / 100 * 95, "{delivered} of {sent}");
        assert!(server.total(Total::Released) > 1000);
    }
}

#[test]
fn the_allocator_counts() {
    let freed = FREED.get();
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1]))), 1);
    assert_eq!(FREED.get(), freed + 1);
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
                        window: 64,
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
