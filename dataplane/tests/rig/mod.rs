//! Workers over memory devices, with everything at hand that tests of them need.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod ccp;
pub mod uplink;

use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use turnpike_dataplane::api::{
    CallCounters, CallRef, Command, Direction, Encryption, Event, Forward, Forward6, FrameBytes,
    Owners, Port, PortInfo, SourceCheck, WorkerId,
};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{ControlEnd, RingSizes, WorkerEnd, channel};
use turnpike_dataplane::worker::{Reordering, Turn, Worker, WorkerConfig};
use turnpike_protocol::gre::{AckSettings, Seq};
use turnpike_protocol::mppe::{Dialect, Mode, StartKey, Strength};
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{gre, ipv4, ipv6};
use turnpike_protocol::{CallId, Role, Time};

pub use ccp::*;

pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
pub const SERVER_INNER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The prefix of the call's link, the client's interface identifier, and an address of its own making.
pub const PREFIX6: &str = "2001:db8:1:7::/64";
pub const IDENTIFIER: u64 = 0x0200_5eff_fe00_0007;
pub const INNER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 7, 0, 0, 0, 9);
/// What was delegated to the client.
pub const DELEGATED: &str = "2001:db8:d:700::/56";
pub const BEHIND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0x712, 0, 0, 0, 1);
pub const SERVER_INNER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub const INTERNET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 5);

pub const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub const UPLINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
pub const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 4]);
pub const LINUX_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 5]);
pub const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 6]);

/// The server's name for the call.
pub const AT_SERVER: CallRef = CallRef {
    local: SERVER,
    peer: CLIENT,
    id: CallId(700),
};

/// The client's name for the same call.
pub const AT_CLIENT: CallRef = CallRef {
    local: CLIENT,
    peer: SERVER,
    id: CallId(0),
};

/// A worker with its control end and a clock.
pub struct End {
    pub worker: Worker<MemDevice>,
    pub control: ControlEnd,
    pub now: Time,
    pub events: Vec<Event>,
    /// What keys are loaded for from now on.
    pub mode: Mode,
}

pub fn config(role: Role) -> WorkerConfig {
    let access = match role {
        Role::Server => SERVER_MAC,
        Role::Client => CLIENT_MAC,
    };
    let port = |mac| Some(PortInfo { mac, mtu: 1500 });
    WorkerConfig {
        id: WorkerId(0),
        role,
        owners: Owners::round_robin(1),
        source_check: SourceCheck::Strict,
        calls: 16,
        routes: 16,
        routes6: 16,
        ports: [port(access), port(UPLINK_MAC), port(HOST_MAC)],
        host_peer_mac: LINUX_MAC,
        server_address: (role == Role::Server).then_some(SERVER_INNER),
        server_address6: (role == Role::Server).then_some(SERVER_INNER6),
        acks: AckSettings::default(),
        // What comes out of order is discarded, but where it is what a test is about.
        reordering: Reordering::OFF,
    }
}

impl End {
    pub fn new(role: Role) -> Self {
        Self::reordering(role, Reordering::OFF)
    }

    pub fn reordering(role: Role, reordering: Reordering) -> Self {
        let (control, end) = channel(&RingSizes::default()).unwrap();
        let config = WorkerConfig {
            reordering,
            ..config(role)
        };
        Self::with(config, MemDevice::new(256), control, end)
    }

    pub fn with(
        config: WorkerConfig,
        device: MemDevice,
        control: ControlEnd,
        end: WorkerEnd,
    ) -> Self {
        Self {
            worker: Worker::new(config, device, end),
            control,
            now: Time::from_nanos(1_000_000_000),
            events: Vec::new(),
            mode: Mode::Stateless,
        }
    }

    /// Tells the worker, without a turn.
    pub fn tell(&mut self, command: Command) {
        self.control.commands.push(command).unwrap();
    }

    /// Tells a server of the client and its call, for which this window was announced.
    pub fn open(&mut self, window: u16) {
        self.tell(Command::Neighbour {
            port: Port::Access,
            address: CLIENT,
            mac: Some(CLIENT_MAC),
        });
        self.tell(Command::Open {
            call: AT_SERVER,
            peer_id: AT_CLIENT.id,
            via: CLIENT,
            window,
        });
    }

    pub fn turn(&mut self) -> Turn {
        let turn = self.worker.turn(self.now);
        while let Ok(event) = self.control.events.pop() {
            self.events.push(event);
        }
        turn
    }

    pub fn pass(&mut self, time: Duration) -> Turn {
        self.now += time;
        self.turn()
    }

    /// Lets frames arrive, and works on them.
    pub fn receive<T: AsRef<[u8]>>(&mut self, port: Port, frames: impl IntoIterator<Item = T>) {
        for frame in frames {
            assert!(self.worker.device_mut().inject(port, frame.as_ref()));
        }
        while self.turn().busy {}
    }

    /// What was sent on a port since the last time.
    pub fn sent(&mut self, port: Port) -> Vec<Vec<u8>> {
        self.worker.device_mut().take(port)
    }

    /// Control frames that came up since the last time.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        let (frames, rest) = self
            .events
            .drain(..)
            .partition::<Vec<_>, _>(|event| matches!(event, Event::Frame { .. }));
        self.events = rest;
        frames
            .into_iter()
            .map(|event| match event {
                Event::Frame { frame, .. } => frame.to_vec(),
                Event::Inner { .. }
                | Event::Counters { .. }
                | Event::Closed { .. }
                | Event::Bound { .. }
                | Event::Garbled { .. }
                | Event::Lost { .. } => vec![],
            })
            .collect()
    }

    /// Packets for ourselves that came up since the last time.
    pub fn inner(&mut self) -> Vec<(CallRef, Vec<u8>)> {
        let (inner, rest) = self
            .events
            .drain(..)
            .partition::<Vec<_>, _>(|event| matches!(event, Event::Inner { .. }));
        self.events = rest;
        inner
            .into_iter()
            .filter_map(|event| match event {
                Event::Inner { call, packet } => Some((call, packet.to_vec())),
                _ => None,
            })
            .collect()
    }

    /// Sends a packet of ours inside a call.
    pub fn send_inner(&mut self, call: CallRef, packet: &[u8]) {
        self.tell(Command::SendInner {
            call,
            packet: FrameBytes::new(packet).unwrap(),
        });
        self.turn();
    }

    pub fn send_frame(&mut self, call: CallRef, frame: &[u8]) {
        self.tell(Command::Send {
            call,
            frame: FrameBytes::new(frame).unwrap(),
        });
        self.turn();
    }

    pub fn secure(&mut self, call: CallRef, direction: Direction, identifier: u8, key: StartKey) {
        self.tell(Command::Secure {
            call,
            direction,
            identifier,
            key,
            mode: self.mode,
        });
    }

    pub fn counters(&mut self, call: CallRef) -> CallCounters {
        self.tell(Command::Query { call });
        self.turn();
        match self.events.pop() {
            Some(Event::Counters { counters, .. }) => counters,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn assert_dropped(&self, expected: &[(Reason, u64)]) {
        let dropped: Vec<_> = self.worker.counters().reasons().collect();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(dropped, expected);
        let balance = self.worker.counters().balance();
        assert_eq!(balance.came, balance.went, "the books");
    }

    pub fn total(&self, total: Total) -> u64 {
        self.worker.counters().total(total)
    }
}

/// A server and a client with one call between them.
pub struct Pair {
    pub server: End,
    pub client: End,
}

pub fn key(n: u8) -> StartKey {
    StartKey::new([n; 16], Strength::Bits128)
}

pub fn forward(encryption: Encryption) -> Forward {
    Forward {
        address: INNER,
        compress_address: true,
        compress_protocol: true,
        mtu: 1400,
        encryption,
    }
}

/// Terms of IPv6: a server knows its client's prefixes, a client does not.
pub fn forward6(role: Role, encryption: Encryption) -> Forward6 {
    Forward6 {
        prefixes: match role {
            Role::Server => [PREFIX6.parse().ok(), DELEGATED.parse().ok()],
            Role::Client => ["::/0".parse().ok(), None],
        },
        identifier: IDENTIFIER,
        compress_address: true,
        compress_protocol: true,
        mtu: 1400,
        encryption,
    }
}

impl Pair {
    /// The call is open, neighbours are known; nothing is negotiated.
    pub fn open() -> Self {
        Self::open_assuming(Reordering::OFF, None)
    }

    /// The same with a queue, and with a client whose resets are known.
    pub fn open_assuming(reordering: Reordering, dialect: Option<Dialect>) -> Self {
        let server = End::reordering(Role::Server, reordering);
        let mut client = End::reordering(Role::Client, reordering);
        if let Some(dialect) = dialect {
            client.worker.assume(dialect);
        }
        Self::between(server, client)
    }

    /// The same between these two.
    pub fn between(mut server: End, mut client: End) -> Self {
        for (end, call, peer_id, mac) in [
            (&mut server, AT_SERVER, AT_CLIENT.id, CLIENT_MAC),
            (&mut client, AT_CLIENT, AT_SERVER.id, SERVER_MAC),
        ] {
            end.tell(Command::Neighbour {
                port: Port::Access,
                address: call.peer,
                mac: Some(mac),
            });
            end.tell(Command::Open {
                call,
                peer_id,
                via: call.peer,
                window: 64,
            });
            end.turn();
        }
        Self { server, client }
    }

    /// The call carries data.
    pub fn up(encryption: Encryption) -> Self {
        Self::up_reordering(encryption, Reordering::OFF)
    }

    pub fn up_reordering(encryption: Encryption, reordering: Reordering) -> Self {
        Self::open_assuming(reordering, None).carrying(encryption)
    }

    /// The call carries data now.
    pub fn carrying(mut self, encryption: Encryption) -> Self {
        if encryption == Encryption::Required {
            self.start_keys(1);
        }
        self.forward(encryption);
        self
    }

    /// The call carries data under stateful keys.
    pub fn stateful() -> Self {
        let mut pair = Self::open();
        pair.server.mode = Mode::Stateful;
        pair.client.mode = Mode::Stateful;
        pair.start_keys(1);
        pair.forward(Encryption::Required);
        pair
    }

    pub fn forward(&mut self, encryption: Encryption) {
        for (end, call) in [(&mut self.server, AT_SERVER), (&mut self.client, AT_CLIENT)] {
            end.tell(Command::Route {
                prefix: INNER.into(),
                call,
            });
            end.tell(Command::Forward {
                call,
                forward: forward(encryption),
            });
        }
        self.server.tell(Command::Pool {
            prefix: "10.20.0.0/24".parse().unwrap(),
        });
        self.server.turn();
        self.client.turn();
    }

    /// The call carries IPv6, too.
    pub fn up6(encryption: Encryption) -> Self {
        let mut pair = Self::up(encryption);
        pair.forward6(encryption);
        pair
    }

    pub fn forward6(&mut self, encryption: Encryption) {
        for (end, call, role, prefixes) in [
            (
                &mut self.server,
                AT_SERVER,
                Role::Server,
                &[PREFIX6, DELEGATED][..],
            ),
            (&mut self.client, AT_CLIENT, Role::Client, &["::/0"]),
        ] {
            for prefix in prefixes {
                end.tell(Command::Route6 {
                    prefix: prefix.parse().unwrap(),
                    call,
                });
            }
            end.tell(Command::Forward6 {
                call,
                forward: forward6(role, encryption),
            });
        }
        for pool in ["2001:db8:1::/48", "2001:db8:d::/48"] {
            self.server.tell(Command::Pool6 {
                prefix: pool.parse().unwrap(),
            });
        }
        self.server.turn();
        self.client.turn();
    }

    /// CCP as it should go, with this identifier in both directions.
    pub fn start_keys(&mut self, identifier: u8) {
        self.server
            .secure(AT_SERVER, Direction::Receive, identifier, key(1));
        self.server
            .send_frame(AT_SERVER, &configure_request(identifier));
        self.exchange();
        self.client
            .secure(AT_CLIENT, Direction::Receive, identifier, key(2));
        self.client
            .send_frame(AT_CLIENT, &configure_request(identifier));
        self.exchange();
        self.client
            .secure(AT_CLIENT, Direction::Transmit, identifier, key(1));
        self.client
            .send_frame(AT_CLIENT, &configure_ack(identifier));
        self.exchange();
        self.server
            .secure(AT_SERVER, Direction::Transmit, identifier, key(2));
        self.server
            .send_frame(AT_SERVER, &configure_ack(identifier));
        self.exchange();
    }

    /// Carries frames between both access ports until there are none.
    pub fn exchange(&mut self) {
        loop {
            let to_client = self.server.sent(Port::Access);
            let to_server = self.client.sent(Port::Access);
            if to_client.is_empty() && to_server.is_empty() {
                return;
            }
            self.client.receive(Port::Access, to_client);
            self.server.receive(Port::Access, to_server);
        }
    }

    /// A packet from the client's Linux through the tunnel; what the server sends on `port`, without Ethernet.
    pub fn client_sends(&mut self, packet: &[u8], port: Port) -> Vec<Vec<u8>> {
        self.client.receive(Port::Host, [from_linux(packet)]);
        self.exchange();
        inner_of(self.server.sent(port))
    }

    /// A packet from the server's Linux through the tunnel; what the client gives to its Linux.
    pub fn server_sends(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.server.receive(Port::Host, [from_linux(packet)]);
        self.exchange();
        inner_of(self.client.sent(Port::Host))
    }
}

pub fn ethernet(destination: MacAddr, source: MacAddr, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Header {
        destination,
        source,
        ethertype: match packet.first() {
            Some(octet) if octet >> 4 == 6 => ethernet::IPV6,
            _ => ethernet::IPV4,
        },
    };
    [&header.to_bytes()[..], packet].concat()
}

pub fn from_linux(packet: &[u8]) -> Vec<u8> {
    ethernet(HOST_MAC, LINUX_MAC, packet)
}

pub fn inner_of(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames
        .into_iter()
        .map(|frame| frame[14..].to_vec())
        .collect()
}

pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header {
        source,
        destination,
        protocol,
        ttl: 17,
        traffic_class: 0,
        ident: 0x1234,
        dont_fragment: false,
        payload_len: payload.len() as u16,
    };
    [&header.to_bytes()[..], payload].concat()
}

pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, octets: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..octets).map(|n| (n % 253) as u8).collect();
    ipv4(source, destination, ipv4::UDP, &payload)
}

pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header {
        source,
        destination,
        next_header: next,
        hop_limit: 17,
        payload_len: payload.len() as u16,
    };
    [&header.to_bytes()[..], payload].concat()
}

pub fn udp6(source: Ipv6Addr, destination: Ipv6Addr, octets: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..octets).map(|n| (n % 253) as u8).collect();
    ipv6(source, destination, ipv6::UDP, &payload)
}

pub fn with_hop_limit(mut packet: Vec<u8>, hop_limit: u8) -> Vec<u8> {
    packet[7] = hop_limit;
    packet
}

/// Changes something in an IPv4 header and mends its checksum.
pub fn changed(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut packet);
    ipv4::Packet::new_checked(&mut packet[..])
        .unwrap()
        .fill_checksum();
    packet
}

pub fn with_df(packet: Vec<u8>) -> Vec<u8> {
    changed(packet, |packet| packet[6] |= 0x40)
}

pub fn with_ttl(packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    changed(packet, |packet| packet[8] = ttl)
}

/// A GRE packet to the server, with an Ethernet header.
pub fn gre_to_server(id: CallId, seq: Option<u32>, ack: Option<u32>, payload: &[u8]) -> Vec<u8> {
    gre_from(CLIENT, id, seq, ack, payload)
}

pub fn gre_from(
    source: Ipv4Addr,
    id: CallId,
    seq: Option<u32>,
    ack: Option<u32>,
    payload: &[u8],
) -> Vec<u8> {
    let header = gre::Header {
        call_id: id,
        seq: seq.map(Seq),
        ack: ack.map(Seq),
        payload_len: payload.len() as u16,
    };
    let mut bytes = vec![0; header.len()];
    header.emit(&mut bytes).unwrap();
    bytes.extend_from_slice(payload);
    ethernet(
        SERVER_MAC,
        CLIENT_MAC,
        &ipv4(source, SERVER, ipv4::GRE, &bytes),
    )
}

/// An IPv6 packet in clear in GRE from the client.
pub fn plain6(seq: u32, packet: &[u8]) -> Vec<u8> {
    gre_to_server(AT_SERVER.id, Some(seq), None, &[&[0x57], packet].concat())
}

/// The GRE header and payload of an Ethernet frame.
pub fn gre_of(frame: &[u8]) -> (gre::Packet, Vec<u8>) {
    let ip = ipv4::Packet::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!(ip.protocol(), ipv4::GRE);
    assert_eq!(ip.ttl(), 64);
    assert!(!ip.dont_fragment());
    let packet = gre::Packet::parse(ip.payload()).unwrap();
    (packet, ip.payload()[packet.payload_range()].to_vec())
}
