//! The server's half of turnpike in one thread: real tunnels, links and a worker over memory, under made-up time. Clients
//! are whoever calls it: octets of TCP, GRE and Ethernet come in, and go out.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use turnpike_controlplane::aaa::Login;
use turnpike_controlplane::calls::Calls;
use turnpike_controlplane::cause::Cause;
use turnpike_controlplane::tunnel::{
    Action, Ended, Notice, Placement, Refusal, Settings, Snapshot, Tunnel,
};
use turnpike_dataplane::api::{CallRef, Command, Event, Owners, Port, SourceCheck, WorkerId};
use turnpike_dataplane::counters::Reason;
use turnpike_dataplane::rings::channel;
use turnpike_protocol::mppe::{Allowed, Policy};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{Credentials, Grant};
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::ipv4;
use turnpike_protocol::{Role, Time};

use crate::world::node::{Node, RINGS};

/// The address that clients dial.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The server's inner address.
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

/// The name server that clients are told of.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 53);

/// The only user.
pub const USER: &str = "alice";

/// The user's password: 13 characters of ASCII, so that it has an LM hash.
pub const PASSWORD: &str = "correct horse";

/// More rounds than any moment needs.
const MOST_ROUNDS: usize = 10_000;

/// The worker looks at its commands after so many at the latest: its ring holds more.
const MOST_COMMANDS: usize = 32;

/// What comes out, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Octets on a control connection.
    Tcp(usize, Vec<u8>),
    /// The server closed a control connection.
    Closed(usize),
    /// The payload of an IP packet of protocol 47.
    Gre {
        /// Where it goes.
        to: Ipv4Addr,
        /// From the first octet of the GRE header.
        packet: Vec<u8>,
    },
    /// An IP packet that came out of a tunnel.
    Inner(Vec<u8>),
}

/// A control connection.
struct Line {
    tunnel: Tunnel,
    /// Neither side has closed it.
    open: bool,
}

/// See the module's text.
pub struct Concentrator {
    now: Time,
    settings: Settings,
    node: Node,
    calls: Calls,
    lines: Vec<Line>,
    free: VecDeque<Ipv4Addr>,
    addresses: HashMap<CallRef, Ipv4Addr>,
    placed: u8,
    /// How many logins were judged.
    judged: u32,
    /// How many commands the worker got.
    told: usize,
    output: VecDeque<Output>,
    ended: Vec<Ended>,
    notices: Vec<Notice>,
}

/// The settings of a server that insists on encryption.
pub fn settings() -> Settings {
    Settings {
        name: "turnpike".to_owned(),
        mtu: 1400,
        mppe: Policy::Require,
        mppe_allowed: Allowed::default(),
        login: Login::default(),
        setup_time: Duration::from_secs(60),
        echo_interval: Duration::from_secs(30),
        calls: 8,
        inform: None,
        dhcp6: None,
    }
}

fn mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([2, 0xee, a, b, c, d])
}

impl Concentrator {
    /// A server without clients.
    pub fn new(settings: Settings) -> Self {
        let owners = Owners::round_robin(1);
        let ends = channel(&RINGS).expect("a ring");
        let mut node = Node::new(Role::Server, WorkerId(0), &owners, Some(INNER), 32, ends);
        let prefix = "10.20.0.0/24".parse().expect("a prefix");
        node.tell(Command::Pool { prefix }).expect("room");
        Self {
            now: Time::ZERO,
            settings,
            node,
            calls: Calls::new(owners, 1, 64, 7_800, SourceCheck::Strict),
            lines: Vec::new(),
            free: (10..40)
                .map(|last| Ipv4Addr::new(10, 20, 0, last))
                .collect(),
            addresses: HashMap::new(),
            placed: 0,
            judged: 0,
            told: 0,
            output: VecDeque::new(),
            ended: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A client opens a control connection; its number.
    pub fn connect(&mut self, from: Ipv4Addr) -> usize {
        self.lines.push(Line {
            tunnel: Tunnel::new(self.settings.clone(), SERVER, from, self.now),
            open: true,
        });
        self.settle();
        self.lines.len() - 1
    }

    /// Octets of a client on its control connection; nothing when that is closed.
    pub fn tcp(&mut self, line: usize, octets: &[u8]) {
        let now = self.now;
        let line = &mut self.lines[line];
        if line.open {
            line.tunnel.receive(octets, now);
        }
        self.settle();
    }

    /// A client closes its control connection.
    pub fn hang_up(&mut self, line: usize) {
        let now = self.now;
        let line = &mut self.lines[line];
        if core::mem::take(&mut line.open) {
            line.tunnel.hung_up(now);
        }
        self.settle();
    }

    /// GRE from a client: `packet` is the payload of the IP packet.
    pub fn gre(&mut self, from: Ipv4Addr, packet: &[u8]) {
        let mut frame = ethernet::Header {
            destination: self.node.mac(),
            source: mac(from),
            ethertype: ethernet::IPV4,
        }
        .to_bytes()
        .to_vec();
        let header = ipv4::Header {
            source: from,
            destination: SERVER,
            protocol: ipv4::GRE,
            ttl: 64,
            traffic_class: 0,
            ident: 0,
            dont_fragment: false,
            payload_len: u16::try_from(packet.len()).expect("a short packet"),
        };
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(packet);
        self.ethernet(Port::Access, &frame);
    }

    /// An Ethernet frame, as it is.
    pub fn ethernet(&mut self, port: Port, frame: &[u8]) {
        self.node.arrive(port, frame).expect("a free chunk");
        self.settle();
    }

    /// An IP packet that Linux routes into the tunnels.
    pub fn from_linux(&mut self, packet: &[u8]) {
        self.node.arrive_from_linux(packet).expect("a free chunk");
        self.settle();
    }

    /// The next thing that came out.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Time> {
        let tunnels = self.lines.iter().filter_map(|line| line.tunnel.deadline());
        tunnels.chain(self.node.next()).min()
    }

    /// Time passes, as far as `time`, which is not beyond [`Self::deadline`].
    pub fn wake(&mut self, time: Time) {
        self.now = self.now.max(time);
        let now = self.now;
        for line in &mut self.lines {
            if line.tunnel.deadline().is_some_and(|due| due <= now) {
                line.tunnel.handle_timeout(now);
            }
        }
        self.settle();
    }

    /// Calls that are over.
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// What an operator was told.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// How many logins were judged.
    pub fn judged(&self) -> u32 {
        self.judged
    }

    /// The calls of a control connection.
    pub fn snapshots(&self, line: usize) -> Vec<Snapshot> {
        self.lines[line].tunnel.snapshots().collect()
    }

    /// The tunnel of a control connection, to be told something by its owner.
    pub fn with_tunnel(&mut self, line: usize, tell: impl FnOnce(&mut Tunnel, Time)) {
        tell(&mut self.lines[line].tunnel, self.now);
        self.settle();
    }

    /// How many packets were dropped, by reason, where any were.
    pub fn drops(&self) -> Vec<(Reason, u64)> {
        let counters = self.node.worker.counters();
        counters.reasons().filter(|(_, n)| *n > 0).collect()
    }

    /// Takes what another client would have taken before: randomness, and an address.
    pub fn skip(&mut self) {
        self.placed = self.placed.wrapping_add(1);
        self.free.pop_front();
    }

    /// How many packets came to the worker, and how many it is rid of.
    pub fn balance(&self) -> (u64, u64) {
        let balance = self.node.worker.counters().balance();
        (balance.came, balance.went)
    }

    /// Whether nothing is held for anybody.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.addresses.is_empty()
            && self
                .lines
                .iter()
                .all(|line| line.tunnel.is_finished() || line.tunnel.snapshots().next().is_none())
    }

    /// Everybody works until nobody has anything to do at this moment.
    fn settle(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let mut any = self.node.work(self.now);
            for frame in self.node.sent(Port::Access) {
                any = true;
                let ip = ipv4::Packet::new_checked(&frame[ethernet::HEADER_LEN..])
                    .expect("a worker sends IPv4");
                assert!(ip.verify_checksum() && ip.source() == SERVER && ip.ttl() > 0);
                self.output.push_back(Output::Gre {
                    to: ip.destination(),
                    packet: ip.payload().to_vec(),
                });
            }
            for frame in self.node.sent(Port::Host) {
                any = true;
                let inner = frame[ethernet::HEADER_LEN..].to_vec();
                self.output.push_back(Output::Inner(inner));
            }
            while let Some(event) = self.node.event() {
                any = true;
                self.event(event);
            }
            for line in 0..self.lines.len() {
                while let Some(action) = self.lines[line].tunnel.poll() {
                    any = true;
                    self.act(line, action);
                }
            }
            if !any {
                return;
            }
        }
        panic!("this moment never ends");
    }

    fn event(&mut self, event: Event) {
        let (Event::Frame { call, .. }
        | Event::Inner { call, .. }
        | Event::Bound { call, .. }
        | Event::Counters { call, .. }
        | Event::Closed { call, .. }) = &event
        else {
            return;
        };
        let call = *call;
        let now = self.now;
        let owner = self.lines.iter_mut().find(|line| {
            line.tunnel
                .snapshots()
                .any(|snapshot| snapshot.call == call)
        });
        if let Some(line) = owner {
            line.tunnel.event(event, now);
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Tcp(octets) => {
                if self.lines[at].open {
                    self.output.push_back(Output::Tcp(at, octets));
                }
            }
            Action::Place { peer_id } => self.place(at, peer_id),
            Action::Data(command) => {
                self.node.tell(*command).expect("room for a command");
                self.told += 1;
                if self.told.is_multiple_of(MOST_COMMANDS) {
                    self.node.work(self.now);
                }
            }
            Action::Authenticate {
                call, credentials, ..
            } => {
                self.judged += 1;
                let verdict = self.judge(&credentials);
                if let Ok(grant) = &verdict {
                    self.addresses.insert(call, grant.address);
                }
                self.lines[at].tunnel.verdict(call, verdict, self.now);
            }
            Action::Choose { call, .. } => self.lines[at].tunnel.chosen(call, None, self.now),
            Action::Release6(_) => panic!("no login was given IPv6"),
            Action::Begin(_) | Action::Cease(_) => {}
            Action::Release { address, .. } => {
                self.addresses.retain(|_, held| *held != address);
                self.free.push_back(address);
            }
            Action::Ended(ended) => {
                self.calls.free(ended.call, self.now);
                self.free.extend(self.addresses.remove(&ended.call));
                self.ended.push(ended);
            }
            Action::Notice(notice) => self.notices.push(notice),
            Action::Bound { .. } => panic!("a source was bound where sources are checked"),
            Action::Close => {
                if core::mem::take(&mut self.lines[at].open) {
                    self.output.push_back(Output::Closed(at));
                }
            }
        }
    }

    fn place(&mut self, at: usize, peer_id: turnpike_protocol::CallId) {
        let (local, peer) = self.lines[at].tunnel.ends();
        let placement = match self.calls.lease(local, peer, self.now) {
            Ok(call) => {
                let neighbour = Command::Neighbour {
                    port: Port::Access,
                    address: peer,
                    mac: Some(mac(peer)),
                };
                self.node.tell(neighbour).expect("room for a command");
                self.placed = self.placed.wrapping_add(1);
                Ok(Placement {
                    call,
                    via: peer,
                    seed: [self.placed; 32],
                })
            }
            Err(_) => Err(Cause::TooManyCalls),
        };
        self.lines[at].tunnel.placed(peer_id, placement, self.now);
    }

    fn judge(&mut self, credentials: &Credentials) -> Result<Grant, Refusal> {
        let known = credentials.user_part() == USER.as_bytes();
        let proof = credentials
            .verify(&Password::new(PASSWORD).into())
            .ok()
            .filter(|_| known)
            .ok_or_else(|| Refusal::new(Cause::AuthenticationFailed))?;
        let address = self
            .free
            .pop_front()
            .ok_or_else(|| Refusal::new(Cause::PoolExhausted))?;
        Ok(Grant {
            limits: Default::default(),
            proof,
            address,
            server_address: INNER,
            dns: [Some(DNS), None],
            nbns: [None; 2],
            ipv6: None,
        })
    }
}
