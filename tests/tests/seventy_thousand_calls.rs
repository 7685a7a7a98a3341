//! More calls on one local address than there are call ids: every one logs in at the real server cores, has a real
//! record at a worker, and carries packets both ways.
//!
//! Control connections, PPP, the book of ids, two workers and the hand-over between them are the real ones; TCP, the
//! network and the judge of logins are made up. Nothing waits: time is made up as well.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they saw"
)]

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use turnpike_controlplane::aaa::Login;
use turnpike_controlplane::calls::Calls;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::tunnel::{Action, Placement, Refusal, Settings, Tunnel};
use turnpike_dataplane::api::{
    CallRef, Command, Event, Owners, Port, PortInfo, SourceCheck, WorkerId,
};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{ControlEnd, RingSizes, channels};
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_protocol::gre::{AckSettings, Seq};
use turnpike_protocol::mppe::{Allowed, Policy};
use turnpike_protocol::mschap::NtHash;
use turnpike_protocol::ppp::{self, ClientLink, Grant, Link, Secret};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig};
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{gre, ipv4};
use turnpike_protocol::{CallId, Role, Time};

const CALLS: usize = 70_000;
/// Ids there are: 16 bits, and 0 is never chosen.
const IDS: usize = 65_535;
/// Clients behind each outer address.
const BEHIND_ONE_NAT: usize = 4;
const WORKERS: usize = 2;

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const INNER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The router that all clients are behind.
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const PASSWORD: &str = "correct horse";

const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// The outer address of client `n`.
fn peer(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x6440_0000 + (n / BEHIND_ONE_NAT) as u32)
}

/// The inner address of client `n`.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a40_0000 + n as u32)
}

struct Client {
    tunnel: Tunnel,
    caller: Caller,
    /// The id it chose.
    own: CallId,
    call: Option<CallRef>,
    seq: Seq,
    up: bool,
}

struct Node {
    worker: Worker<MemDevice>,
    control: ControlEnd,
}

struct World {
    now: Time,
    owners: Owners,
    nodes: Vec<Node>,
    calls: Calls,
    clients: Vec<Client>,
    secret: Secret,
    ended: usize,
}

impl World {
    fn new() -> Self {
        let owners = Owners::round_robin(WORKERS);
        let sizes = RingSizes {
            commands: 64,
            events: 64,
            datagrams: 1,
            captured: 1,
            handoff: 64,
        };
        let port = Some(PortInfo {
            mac: OURS,
            mtu: 1500,
        });
        let nodes = channels(WORKERS, &sizes)
            .unwrap()
            .into_iter()
            .zip(0_u8..)
            .map(|((control, end), id)| {
                let config = WorkerConfig {
                    id: WorkerId(id),
                    role: Role::Server,
                    owners: owners.clone(),
                    calls: CALLS,
                    routes: CALLS,
                    routes6: 0,
                    ports: [port, None, port],
                    host_peer_mac: THEIRS,
                    server_address: Some(INNER),
                    server_address6: None,
                    source_check: SourceCheck::Strict,
                    acks: AckSettings::default(),
                    reordering: Reordering::default(),
                };
                let device = MemDevice::new(256).without(Port::Uplink);
                Node {
                    worker: Worker::new(config, device, end),
                    control,
                }
            });
        let mut world = Self {
            now: Time::ZERO + Duration::from_secs(1),
            nodes: nodes.collect(),
            calls: Calls::new(owners.clone(), WORKERS, CALLS, 12_345, SourceCheck::Strict),
            owners,
            clients: Vec::new(),
            secret: NtHash::from_password(PASSWORD).into(),
            ended: 0,
        };
        for node in 0..WORKERS {
            world.tell(
                node,
                Command::Neighbour {
                    port: Port::Access,
                    address: ROUTER,
                    mac: Some(THEIRS),
                },
            );
        }
        world
    }

    fn tell(&mut self, node: usize, command: Command) {
        let pushed = self.nodes[node].control.commands.push(command).is_ok();
        assert!(pushed, "a command ring is full");
    }

    fn dial(&mut self, n: usize) {
        self.now += Duration::from_millis(1);
        let settings = Settings {
            name: "crowd".to_owned(),
            mtu: 1400,
            mppe: Policy::Deny,
            mppe_allowed: Allowed::default(),
            login: Login::default(),
            setup_time: Duration::from_secs(30),
            echo_interval: Duration::from_secs(30),
            calls: 16,
            inform: None,
            dhcp6: None,
        };
        let own = CallId(n as u16);
        let mut caller = Caller::new(CallerConfig::default(), self.now);
        caller.call(own, self.now);
        self.clients.push(Client {
            tunnel: Tunnel::new(settings, SERVER, peer(n), self.now),
            caller,
            own,
            call: None,
            seq: Seq(0),
            up: false,
        });
        let mut link = None;
        self.settle(n, &mut link);
        assert!(self.clients[n].up, "client {n} did not come up");
    }

    /// Lets client `n` and everything that serves it work until nobody has anything to do.
    fn settle(&mut self, n: usize, link: &mut Option<Link>) {
        loop {
            let mut any = false;
            while let Some(action) = self.clients[n].tunnel.poll() {
                any = true;
                self.server_acts(n, action);
            }
            while let Some(action) = self.clients[n].caller.poll() {
                any = true;
                self.client_acts(n, action, link);
            }
            while let Some(action) = link.as_mut().and_then(Link::poll) {
                any = true;
                match action {
                    ppp::Action::Send(frame) => self.arrive(n, &frame),
                    ppp::Action::Up(terms) => {
                        assert_eq!(terms.address, address(n));
                        self.clients[n].up = true;
                    }
                    ppp::Action::Finished(end) => panic!("client {n}: {end:?}"),
                    _ => {}
                }
            }
            any |= self.work();
            for (destination, packet, payload) in self.sent() {
                // Acknowledgements that others were owed.
                if payload.is_empty() {
                    continue;
                }
                any = true;
                assert_eq!(destination, peer(n));
                assert_eq!(packet.call_id, self.clients[n].own);
                if let Some(link) = link {
                    link.handle_frame(&payload, self.now);
                }
            }
            for node in 0..WORKERS {
                while let Ok(event) = self.nodes[node].control.events.pop() {
                    any = true;
                    let call = match &event {
                        Event::Frame { call, .. } | Event::Closed { call, .. } => *call,
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(Some(call), self.clients[n].call);
                    self.clients[n].tunnel.event(event, self.now);
                }
            }
            if !any {
                return;
            }
        }
    }

    fn server_acts(&mut self, n: usize, action: Action) {
        match action {
            Action::Tcp(octets) => self.clients[n].caller.receive(&octets, self.now).unwrap(),
            Action::Place { peer_id } => {
                let (local, peer) = self.clients[n].tunnel.ends();
                let call = self.calls.lease(local, peer, self.now).unwrap();
                self.clients[n].call = Some(call);
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&n.to_le_bytes());
                let placement = Placement {
                    call,
                    via: ROUTER,
                    seed,
                };
                self.clients[n]
                    .tunnel
                    .placed(peer_id, Ok(placement), self.now);
            }
            Action::Data(command) => match *command {
                Command::Route { prefix, call } => {
                    for node in 0..WORKERS {
                        self.tell(node, Command::Route { prefix, call });
                    }
                }
                Command::Unroute { prefix } => {
                    for node in 0..WORKERS {
                        self.tell(node, Command::Unroute { prefix });
                    }
                }
                command => {
                    let owner = self.owners.owner(command.call().unwrap().id);
                    self.tell(usize::from(owner.0), command);
                }
            },
            Action::Authenticate {
                call, credentials, ..
            } => {
                let verdict = credentials
                    .verify(&self.secret)
                    .map(|proof| Grant {
                        proof,
                        address: address(n),
                        server_address: INNER,
                        dns: [None; 2],
                        nbns: [None; 2],
                        ipv6: None,
                    })
                    .map_err(|_| Refusal::new(Cause::AuthenticationFailed));
                self.clients[n].tunnel.verdict(call, verdict, self.now);
            }
            Action::Ended(ended) => {
                assert_eq!(Some(ended.call), self.clients[n].call);
                assert_eq!(ended.cause, Cause::HungUp);
                self.calls.free(ended.call, self.now);
                self.ended += 1;
            }
            Action::Bound { .. }
            | Action::Choose { .. }
            | Action::Release(_)
            | Action::Release6(_) => panic!("not here"),
            Action::Notice(_) | Action::Close => {}
        }
    }

    fn client_acts(&mut self, n: usize, action: CallerAction, link: &mut Option<Link>) {
        match action {
            CallerAction::Send(octets) => self.clients[n].tunnel.receive(&octets, self.now),
            CallerAction::Connected { peer_id, .. } => {
                assert_eq!(peer_id, self.clients[n].call.unwrap().id);
                let config = ClientLink {
                    mppe: Policy::Deny,
                    ..ClientLink::new(b"alice", NtHash::from_password(PASSWORD))
                };
                let mut seed = [1; 32];
                seed[..8].copy_from_slice(&n.to_le_bytes());
                let mut new = Link::client(config, seed, self.now);
                new.open(self.now);
                *link = Some(new);
            }
            CallerAction::Refused { .. } => panic!("client {n} is refused"),
            _ => {}
        }
    }

    /// Client `n` sends a PPP frame; it comes to whichever worker.
    fn arrive(&mut self, n: usize, frame: &[u8]) {
        let client = &mut self.clients[n];
        let header = gre::Header {
            call_id: client.call.unwrap().id,
            seq: Some(client.seq),
            ack: None,
            payload_len: frame.len() as u16,
        };
        client.seq = client.seq.next();
        let mut octets = vec![0; header.len()];
        header.emit(&mut octets).unwrap();
        octets.extend(frame);
        let packet = ip(peer(n), SERVER, ipv4::GRE, &octets);
        let worker = &mut self.nodes[n % WORKERS].worker;
        assert!(
            worker
                .device_mut()
                .inject(Port::Access, &ethernet_frame(&packet))
        );
    }

    fn work(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut busy = false;
            for node in &mut self.nodes {
                busy |= node.worker.turn(self.now).busy;
            }
            if !busy {
                return any;
            }
            any = true;
        }
    }

    /// GRE that left: where to, and what.
    fn sent(&mut self) -> Vec<(Ipv4Addr, gre::Packet, Vec<u8>)> {
        let mut sent = Vec::new();
        for node in &mut self.nodes {
            for frame in node.worker.device_mut().take(Port::Access) {
                let packet = ipv4::Packet::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
                assert_eq!(packet.source(), SERVER);
                let gre = gre::Packet::parse(packet.payload()).unwrap();
                let payload = packet.payload()[gre.payload_range()].to_vec();
                sent.push((packet.destination(), gre, payload));
            }
        }
        sent
    }

    /// A packet up and one down on call `n`; each comes out whole where it should, and nowhere else.
    fn flow(&mut self, n: usize) {
        let text = n.to_be_bytes();
        let up = ip(address(n), REMOTE, 200, &text);
        self.arrive(n, &[&[0x21][..], &up].concat());
        self.work();
        let mut out = Vec::new();
        for node in &mut self.nodes {
            out.extend(node.worker.device_mut().take(Port::Host));
        }
        assert_eq!(out.len(), 1, "client {n} up");
        assert_eq!(out[0][ethernet::HEADER_LEN..], up);

        let down = ip(REMOTE, address(n), 200, &text);
        let worker = &mut self.nodes[(n / 3) % WORKERS].worker;
        assert!(
            worker
                .device_mut()
                .inject(Port::Host, &ethernet_frame(&down))
        );
        self.work();
        let data: Vec<_> = self
            .sent()
            .into_iter()
            .filter(|(_, _, payload)| !payload.is_empty())
            .collect();
        assert_eq!(data.len(), 1, "client {n} down");
        let (destination, gre, payload) = &data[0];
        assert_eq!((*destination, gre.call_id), (peer(n), self.clients[n].own));
        assert!(payload.ends_with(&down));
    }

    fn hang_up(&mut self, n: usize) {
        self.now += Duration::from_millis(1);
        let own = self.clients[n].own;
        self.clients[n].caller.clear(own, self.now);
        self.settle(n, &mut None);
    }
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header {
        source,
        destination,
        protocol,
        ttl: 64,
        traffic_class: 0,
        ident: 0,
        dont_fragment: false,
        payload_len: payload.len() as u16,
    };
    [&header.to_bytes()[..], payload].concat()
}

fn ethernet_frame(packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Header {
        destination: OURS,
        source: THEIRS,
        ethertype: ethernet::IPV4,
    };
    [&header.to_bytes()[..], packet].concat()
}

#[test]
fn seventy_thousand_calls_live_on_one_local_address() {
    let start = Instant::now();
    let mut world = World::new();
    for n in 0..IDS {
        world.dial(n);
    }
    // Unique over the box as long as there are ids.
    let id = |client: &Client| client.call.unwrap().id;
    let unique: HashSet<CallId> = world.clients.iter().map(id).collect();
    assert_eq!(unique.len(), IDS);
    for n in (0..IDS).step_by(97) {
        world.flow(n);
    }
    for n in IDS..CALLS {
        world.dial(n);
    }
    println!("{CALLS} calls up after {:.1?}", start.elapsed());
    assert_eq!(world.calls.len(), CALLS);
    // Then unique per peer.
    let mut by_id = HashMap::<CallId, HashSet<Ipv4Addr>>::new();
    for (n, client) in world.clients.iter().enumerate() {
        assert!(by_id.entry(id(client)).or_default().insert(peer(n)));
    }
    assert!(!by_id.contains_key(&CallId(0)));
    let shared = by_id.values().filter(|peers| peers.len() > 1).count();
    assert_eq!(shared, CALLS - IDS);
    let held: Vec<usize> = (0..WORKERS)
        .map(|worker| {
            let own = |client: &&Client| usize::from(world.owners.owner(id(client)).0) == worker;
            world.clients.iter().filter(own).count()
        })
        .collect();
    println!("{shared} ids are used by two peers; calls of each worker: {held:?}");
    assert!(held.iter().all(|calls| *calls > CALLS * 2 / 5));

    // Old calls and new ones, those that share an id among them.
    for n in 0..CALLS {
        world.flow(n);
    }
    println!(
        "packets flowed on all of them after {:.1?}",
        start.elapsed()
    );
    // Nothing was lost or taken for another call's.
    for node in &world.nodes {
        let drops: Vec<_> = node
            .worker
            .counters()
            .reasons()
            .filter(|(_, n)| *n > 0)
            .collect();
        assert!(drops.is_empty(), "{drops:?}");
    }

    // One of two calls with the same id ends; the other one stays, and so do its packets.
    let last = CALLS - 1;
    let twin = world
        .clients
        .iter()
        .position(|client| id(client) == id(&world.clients[last]));
    let twin = twin.unwrap();
    assert_ne!(twin, last);
    world.hang_up(last);
    world.flow(twin);
    for n in 0..last {
        world.hang_up(n);
    }
    assert_eq!(world.ended, CALLS);
    assert!(world.calls.is_empty());
    println!("all over after {:.1?}", start.elapsed());
}
