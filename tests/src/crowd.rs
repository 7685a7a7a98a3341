//! A crowd of clients in one box: control connections, PPP, the book of ids, workers and the hand-over between them are
//! the real ones; TCP, the network and the judge of logins are made up. Nothing waits: time is made up as well.
#![allow(
    clippy::unwrap_used,
    reason = "what is not as it should be ends the test"
)]

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
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
use turnpike_protocol::mppe::{Allowed, Decryptor, Direction, Encryptor, Mode, Policy, StartKey};
use turnpike_protocol::mschap::NtHash;
use turnpike_protocol::ppp::{self, ClientLink, Grant, Link, Secret};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig};
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{gre, ipv4};
use turnpike_protocol::{CallId, Role, Time};

/// The server's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const INNER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The router that all clients are behind.
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const UDP: u8 = 17;
const PASSWORD: &str = "correct horse";
/// Packets that a worker's device has room for.
const CHUNKS: usize = 256;

const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Where clients dial from.
#[derive(Clone, Copy, Debug)]
pub enum Peers {
    /// From one address after the other, so many from each, with ids that count up.
    Behind(usize),
    /// From anywhere, with any id.
    Random,
}

/// What a crowd is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Clients that there may be.
    pub calls: usize,
    /// Workers.
    pub workers: usize,
    /// Whether data is encrypted, and must be.
    pub mppe: Policy,
    /// Where they dial from.
    pub peers: Peers,
    /// What each dial moves the clock on by.
    pub step: Duration,
}

/// The inner address of client `n`.
pub fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a40_0000 + n as u32)
}

/// A client, and what serves it in the control plane.
pub struct Client {
    tunnel: Tunnel,
    /// `None`: it has been forgotten; the server does not know.
    caller: Option<Box<Caller>>,
    /// The id it chose.
    own: CallId,
    call: Option<CallRef>,
    seq: Seq,
    up: bool,
    /// What it sends and receives with.
    transmit: Option<Box<StartKey>>,
    receive: Option<Box<StartKey>>,
}

impl Client {
    /// The name of its call.
    ///
    /// # Panics
    /// When it has none yet.
    pub fn call(&self) -> CallRef {
        self.call.unwrap()
    }
}

/// A worker, and its end at the control plane.
pub struct Node {
    /// The worker.
    pub worker: Worker<MemDevice>,
    control: ControlEnd,
}

/// A server and its clients.
pub struct Crowd {
    options: Options,
    now: Time,
    /// Who has which ids.
    pub owners: Owners,
    /// The workers.
    pub nodes: Vec<Node>,
    /// The book of ids.
    pub calls: Calls,
    /// All that have dialled.
    pub clients: Vec<Client>,
    secret: Secret,
    hash: NtHash,
    chance: ChaCha8Rng,
    /// Key chains of clients that packets flow for.
    encryptors: HashMap<usize, Encryptor>,
    decryptors: HashMap<usize, Decryptor>,
    /// Calls that are over, by why.
    pub ended: HashMap<Cause, usize>,
}

impl Crowd {
    /// A server without clients.
    ///
    /// # Panics
    /// When there are too many workers.
    pub fn new(options: Options) -> Self {
        let Options { calls, workers, .. } = options;
        let owners = Owners::round_robin(workers);
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
        let nodes = channels(workers, &sizes)
            .unwrap()
            .into_iter()
            .zip(0_u8..)
            .map(|((control, end), id)| {
                let config = WorkerConfig {
                    id: WorkerId(id),
                    role: Role::Server,
                    owners: owners.clone(),
                    calls,
                    routes: calls,
                    routes6: 0,
                    ports: [port, None, port],
                    host_peer_mac: THEIRS,
                    server_address: Some(INNER),
                    server_address6: None,
                    source_check: SourceCheck::Strict,
                    acks: AckSettings::default(),
                    reordering: Reordering::default(),
                };
                let device = MemDevice::new(CHUNKS).without(Port::Uplink);
                Node {
                    worker: Worker::new(config, device, end),
                    control,
                }
            });
        let hash = NtHash::from_password(PASSWORD);
        let mut crowd = Self {
            options,
            now: Time::ZERO + Duration::from_secs(1),
            nodes: nodes.collect(),
            calls: Calls::new(owners.clone(), workers, calls, 12_345, SourceCheck::Strict),
            owners,
            clients: Vec::with_capacity(calls),
            secret: hash.clone().into(),
            hash,
            chance: ChaCha8Rng::seed_from_u64(1),
            encryptors: HashMap::new(),
            decryptors: HashMap::new(),
            ended: HashMap::new(),
        };
        for node in 0..workers {
            let (port, address, mac) = (Port::Access, ROUTER, Some(THEIRS));
            crowd.tell(node, Command::Neighbour { port, address, mac });
        }
        crowd
    }

    fn tell(&mut self, node: usize, command: Command) {
        let pushed = self.nodes[node].control.commands.push(command).is_ok();
        assert!(pushed, "a command ring is full");
    }

    /// The next client dials, from its control connection to IPCP, and comes up.
    ///
    /// # Panics
    /// When it does not.
    pub fn dial(&mut self) {
        let n = self.clients.len();
        self.now += self.options.step;
        let settings = Settings {
            name: "crowd".to_owned(),
            mtu: 1400,
            mppe: self.options.mppe,
            mppe_allowed: Allowed::default(),
            login: Login::default(),
            setup_time: Duration::from_secs(30),
            echo_interval: Duration::from_secs(30),
            calls: 16,
            inform: None,
            dhcp6: None,
        };
        let (peer, own) = match self.options.peers {
            Peers::Behind(one) => (
                Ipv4Addr::from_bits(0x6440_0000 + (n / one) as u32),
                n as u16,
            ),
            Peers::Random => (self.anybody(), self.chance.next_u32() as u16),
        };
        let own = CallId(own);
        let mut caller = Caller::new(CallerConfig::default(), self.now);
        caller.call(own, self.now);
        self.clients.push(Client {
            tunnel: Tunnel::new(settings, SERVER, peer, self.now),
            caller: Some(Box::new(caller)),
            own,
            call: None,
            seq: Seq(0),
            up: false,
            transmit: None,
            receive: None,
        });
        let mut link = None;
        self.settle(n, &mut link);
        assert!(self.clients[n].up, "client {n} did not come up");
    }

    /// An address that may be a host's.
    fn anybody(&mut self) -> Ipv4Addr {
        loop {
            let address = Ipv4Addr::from_bits(self.chance.next_u32());
            let first = address.octets()[0];
            if (1..224).contains(&first) && first != 127 {
                return address;
            }
        }
    }

    /// Lets client `n` and everything that serves it work until nobody has anything to do.
    fn settle(&mut self, n: usize, link: &mut Option<Link>) {
        loop {
            let mut any = false;
            while let Some(action) = self.clients[n].tunnel.poll() {
                any = true;
                self.server_acts(n, action);
            }
            let caller = |crowd: &mut Self| crowd.clients[n].caller.as_mut()?.poll();
            while let Some(action) = caller(self) {
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
                    ppp::Action::Load { direction, key, .. } => match direction {
                        Direction::Receive => self.clients[n].receive = Some(Box::new(key)),
                        Direction::Transmit => self.clients[n].transmit = Some(Box::new(key)),
                    },
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
                assert_eq!(destination, self.peer(n));
                assert_eq!(packet.call_id, self.clients[n].own);
                if let Some(link) = link {
                    link.handle_frame(&payload, self.now);
                }
            }
            for node in 0..self.nodes.len() {
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
            Action::Tcp(octets) => {
                if let Some(caller) = &mut self.clients[n].caller {
                    caller.receive(&octets, self.now).unwrap();
                }
            }
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
                    for node in 0..self.nodes.len() {
                        self.tell(node, Command::Route { prefix, call });
                    }
                }
                Command::Unroute { prefix } => {
                    for node in 0..self.nodes.len() {
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
                        limits: Default::default(),
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
                self.calls.free(ended.call, self.now);
                *self.ended.entry(ended.cause).or_default() += 1;
            }
            Action::Bound { .. }
            | Action::Choose { .. }
            | Action::Release { .. }
            | Action::Release6(_) => panic!("not here"),
            Action::Notice(_) | Action::Begin(_) | Action::Cease(_) | Action::Close => {}
        }
    }

    fn client_acts(&mut self, n: usize, action: CallerAction, link: &mut Option<Link>) {
        match action {
            CallerAction::Send(octets) => self.clients[n].tunnel.receive(&octets, self.now),
            CallerAction::Connected { peer_id, .. } => {
                assert_eq!(peer_id, self.clients[n].call.unwrap().id);
                let config = ClientLink {
                    mppe: self.options.mppe,
                    ..ClientLink::new(b"alice", self.hash.clone())
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

    fn peer(&self, n: usize) -> Ipv4Addr {
        self.clients[n].tunnel.ends().1
    }

    /// Client `n` sends a PPP frame; it comes to whichever worker.
    fn arrive(&mut self, n: usize, frame: &[u8]) {
        let octets = self.gre(n, frame);
        let worker = n % self.nodes.len();
        let device = self.nodes[worker].worker.device_mut();
        assert!(device.inject(Port::Access, &octets));
    }

    /// The Ethernet frame in which a PPP frame of client `n` comes.
    fn gre(&mut self, n: usize, frame: &[u8]) -> Vec<u8> {
        let peer = self.peer(n);
        let client = &mut self.clients[n];
        let header = gre::Header {
            call_id: client.call().id,
            seq: Some(client.seq),
            ack: None,
            payload_len: frame.len() as u16,
        };
        client.seq = client.seq.next();
        let mut octets = vec![0; header.len()];
        header.emit(&mut octets).unwrap();
        octets.extend(frame);
        ethernet_frame(&ip(peer, SERVER, ipv4::GRE, &octets))
    }

    /// A packet from client `n` to the internet: as it comes to the server, and as it is to leave it.
    ///
    /// # Panics
    /// When the client has no keys, and needs them.
    pub fn up(&mut self, n: usize, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let packet = ip(address(n), REMOTE, UDP, payload);
        let frame = if self.options.mppe == Policy::Deny {
            [&[0x21][..], &packet].concat()
        } else {
            let key = self.clients[n].transmit.as_ref();
            let encryptor = (self.encryptors.entry(n))
                .or_insert_with(|| Encryptor::new(key.unwrap(), Mode::Stateless));
            let mut data = [&[0x00, 0x21][..], &packet].concat();
            let sealing = encryptor.seal();
            sealing.cipher.apply(&mut data);
            [&[0xfd][..], &sealing.header, &data].concat()
        };
        (self.gre(n, &frame), packet)
    }

    /// A packet from the internet to client `n`, as it comes to the server.
    pub fn down(&self, n: usize, payload: &[u8]) -> Vec<u8> {
        ethernet_frame(&ip(REMOTE, address(n), UDP, payload))
    }

    /// The inner packet of what the server sent to client `n`: decrypted, if it is to be. None: it is none, or not whole.
    pub fn opened(&mut self, n: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let outer = ipv4::Packet::new_checked(&frame[ethernet::HEADER_LEN..]).ok()?;
        let gre = gre::Packet::parse(outer.payload()).ok()?;
        if (outer.destination(), gre.call_id) != (self.peer(n), self.clients[n].own) {
            return None;
        }
        let payload = &outer.payload()[gre.payload_range()];
        let start = payload
            .iter()
            .position(|octet| !matches!(octet, 0xff | 0x03 | 0x00))?;
        let payload = &payload[start..];
        if self.options.mppe == Policy::Deny {
            return payload.strip_prefix(&[0x21]).map(<[u8]>::to_vec);
        }
        let [0xfd, first, second, data @ ..] = payload else {
            return None;
        };
        let key = self.clients[n].receive.as_ref()?;
        let decryptor =
            (self.decryptors.entry(n)).or_insert_with(|| Decryptor::new(key, Mode::Stateless));
        let mut data = data.to_vec();
        decryptor.open([*first, *second], 0).ok()?.apply(&mut data);
        decryptor.judge(true);
        data.strip_prefix(&[0x00, 0x21]).map(<[u8]>::to_vec)
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
    ///
    /// # Panics
    /// When it does not.
    pub fn flow(&mut self, n: usize) {
        let text = n.to_be_bytes();
        let workers = self.nodes.len();
        let (frame, packet) = self.up(n, &text);
        let device = self.nodes[n % workers].worker.device_mut();
        assert!(device.inject(Port::Access, &frame));
        self.work();
        let mut out = Vec::new();
        for node in &mut self.nodes {
            out.extend(node.worker.device_mut().take(Port::Host));
        }
        assert_eq!(out.len(), 1, "client {n} up");
        assert_eq!(out[0][ethernet::HEADER_LEN..], packet);

        let down = self.down(n, &text);
        let device = self.nodes[(n / 3) % workers].worker.device_mut();
        assert!(device.inject(Port::Host, &down));
        self.work();
        let mut data = Vec::new();
        for node in &mut self.nodes {
            data.extend(node.worker.device_mut().take(Port::Access));
        }
        // Acknowledgements that are owed may leave meanwhile.
        let data: Vec<_> = data
            .iter()
            .filter_map(|frame| self.opened(n, frame))
            .collect();
        assert_eq!(data, [&down[ethernet::HEADER_LEN..]], "client {n} down");
    }

    /// Client `n` ends its call as it should.
    ///
    /// # Panics
    /// When it has been forgotten.
    pub fn hang_up(&mut self, n: usize) {
        self.now += self.options.step;
        let own = self.clients[n].own;
        let caller = self.clients[n].caller.as_mut().unwrap();
        caller.clear(own, self.now);
        self.settle(n, &mut None);
    }

    /// Client `n` goes without a word; the server knows no more of it than before.
    pub fn forget(&mut self, n: usize) {
        self.clients[n].caller = None;
    }

    /// The control connection of client `n` breaks.
    pub fn lose(&mut self, n: usize) {
        self.now += self.options.step;
        self.clients[n].tunnel.hung_up(self.now);
        self.settle(n, &mut None);
    }

    /// One turn of a worker, at the crowd's time.
    pub fn turn(&mut self, node: usize) {
        self.nodes[node].worker.turn(self.now);
    }
}

/// An IPv4 packet without options.
pub fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
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
