//! A server on loopback TCP whose workers run over memory, and clients that speak to both.
#![allow(clippy::unwrap_used, reason = "all of it is test")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use turnpike_controlplane::aaa::{Account, Chain, Login, Secret, Store, Users};
use turnpike_controlplane::accounting::Kept;
use turnpike_controlplane::admission::Admission;
use turnpike_controlplane::applicants::Applicants;
use turnpike_controlplane::calls::Calls;
use turnpike_controlplane::counts::Counts;
use turnpike_controlplane::driver::{Clock, Paths, Shared, Terms};
use turnpike_controlplane::listener::{self, Connections, Limits};
use turnpike_controlplane::pool::{DEFAULT, LocalPools, PoolConfig, Pools, Range, Rest};
use turnpike_controlplane::rivals::{Rivals, SameUser};
use turnpike_controlplane::sessions::Sessions;
use turnpike_controlplane::switchboard::Switchboard;
use turnpike_controlplane::tunnel::Settings;
use turnpike_dataplane::api::{Command, Owners, Port, PortInfo, SourceCheck, WorkerId};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{self, RingSizes};
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_protocol::gre::{AckSettings, Seq};
use turnpike_protocol::mppe::{Allowed, Policy};
use turnpike_protocol::mschap::NtHash;
use turnpike_protocol::ppp::{self, ClientLink, Link};
use turnpike_protocol::pptp::{Caller, CallerAction, CallerConfig};
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_protocol::wire::{ethernet, gre, ipv4};
use turnpike_protocol::{CallId, Role};

pub const LOCAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
pub const PASSWORD: &str = "correct horse";
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Longer than anything takes on a busy machine; nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls of one source that may be logging in at once.
pub const UNAUTHENTICATED: usize = 20;

/// GRE that the worker sent, by the client it is for.
type Mailboxes = Arc<Mutex<HashMap<(Ipv4Addr, CallId), mpsc::UnboundedSender<Vec<u8>>>>>;

pub struct Rig {
    pub shared: Arc<Shared>,
    pub connections: Arc<Connections>,
    pub stopping: watch::Sender<bool>,
    address: SocketAddr,
    /// Ethernet frames to the worker's access port.
    wire: mpsc::UnboundedSender<Vec<u8>>,
    mailboxes: Mailboxes,
    _routes: watch::Sender<u64>,
}

impl Rig {
    pub async fn start(limits: Limits, calls: usize, setup_time: Duration) -> Self {
        Self::with_rings(limits, calls, setup_time, RingSizes::default()).await
    }

    pub async fn with_rings(
        limits: Limits,
        calls: usize,
        setup_time: Duration,
        sizes: RingSizes,
    ) -> Self {
        let mut users = Users::default();
        let secret = Secret::new(PASSWORD).unwrap();
        users.add(Account::new("alice", secret));
        Self::with_users(limits, calls, setup_time, sizes, users.into()).await
    }

    pub async fn with_users(
        limits: Limits,
        calls: usize,
        setup_time: Duration,
        sizes: RingSizes,
        users: Store,
    ) -> Self {
        Self::with_rule(limits, calls, setup_time, sizes, users, SameUser::Allow).await
    }

    pub async fn with_rule(
        limits: Limits,
        calls: usize,
        setup_time: Duration,
        sizes: RingSizes,
        users: Store,
        same_user: SameUser,
    ) -> Self {
        let admission = Admission::new(256, Duration::ZERO);
        Self::admitting(
            limits, calls, setup_time, sizes, users, same_user, admission,
        )
        .await
    }

    pub async fn admitting(
        limits: Limits,
        calls: usize,
        setup_time: Duration,
        sizes: RingSizes,
        users: Store,
        same_user: SameUser,
        admission: Admission,
    ) -> Self {
        Self::changed(
            limits,
            calls,
            setup_time,
            sizes,
            users,
            same_user,
            admission,
            |_| {},
        )
        .await
    }

    /// One that writes down who had which address when.
    pub async fn accounting(limits: Limits, calls: usize, books: Kept) -> Self {
        let mut users = Users::default();
        users.add(Account::new("alice", Secret::new(PASSWORD).unwrap()));
        Self::changed(
            limits,
            calls,
            Duration::from_secs(60),
            RingSizes::default(),
            users.into(),
            SameUser::Allow,
            Admission::new(256, Duration::ZERO),
            |shared| shared.books = books,
        )
        .await
    }

    /// The same with whatever else is to be other than usual.
    #[allow(
        clippy::too_many_arguments,
        reason = "those before it have their own names"
    )]
    pub async fn changed(
        limits: Limits,
        calls: usize,
        setup_time: Duration,
        sizes: RingSizes,
        users: Store,
        same_user: SameUser,
        admission: Admission,
        change: impl FnOnce(&mut Shared),
    ) -> Self {
        let owners = Owners::round_robin(1);
        let (control_end, worker_end) = rings::channel(&sizes).unwrap();
        let port = PortInfo {
            mac: OURS,
            mtu: 1500,
        };
        let config = WorkerConfig {
            id: WorkerId(0),
            role: Role::Server,
            owners: owners.clone(),
            calls: 1024,
            routes: 1024,
            routes6: 0,
            ports: [Some(port), None, Some(port)],
            host_peer_mac: THEIRS,
            server_address: Some(Ipv4Addr::new(10, 20, 0, 1)),
            server_address6: None,
            source_check: SourceCheck::Strict,
            acks: AckSettings::default(),
            reordering: Reordering::default(),
        };
        let device = MemDevice::new(1024).without(Port::Uplink);
        let worker = Worker::new(config, device, worker_end);
        let (switchboard, _) = Switchboard::start(vec![control_end], owners.clone()).unwrap();
        let clock = Clock::start();
        let (wire, frames) = mpsc::unbounded_channel();
        let mailboxes = Mailboxes::default();
        tokio::spawn(network(worker, clock, frames, mailboxes.clone()));
        for last in 1..=9 {
            switchboard
                .send(Command::Neighbour {
                    port: Port::Access,
                    address: Ipv4Addr::new(127, 0, 0, last),
                    mac: Some(THEIRS),
                })
                .await
                .unwrap();
        }
        let pool = |name: &str, networks: &[&str]| PoolConfig {
            name: name.into(),
            ranges: networks
                .iter()
                .map(|network| Range::hosts(network.parse().unwrap()))
                .collect(),
            next: None,
        };
        let pools = [
            pool(DEFAULT, &["10.20.1.0/24", "10.21.0.0/22"]),
            pool("business", &["10.22.0.0/30"]),
        ];
        let (routes, routes_changed) = watch::channel(0);
        let (stopping, stop) = watch::channel(false);
        let users = Arc::new(users);
        let mut shared = Shared {
            backends: Chain::local(users.clone()),
            settings: Arc::new(Settings {
                name: "turnpike".to_owned(),
                mtu: 1400,
                mppe: Policy::Require,
                mppe_allowed: Allowed::default(),
                login: Login::default(),
                setup_time,
                echo_interval: Duration::from_secs(30),
                calls: 8,
                inform: None,
                dhcp6: None,
            }),
            terms: Terms {
                server_address: Ipv4Addr::new(10, 20, 0, 1),
                dns: [None; 2],
                nbns: [None; 2],
            },
            clock,
            calls: Mutex::new(Calls::new(owners, 1, calls, 100, SourceCheck::Strict)),
            users,
            retry: true,
            applicants: Applicants::new(UNAUTHENTICATED),
            admission,
            prefixes: None,
            pools: Box::new(LocalPools::new(Pools::new(
                &pools,
                Rest::default(),
                &[],
                [],
            ))),
            switchboard,
            paths: Paths::OnLink,
            sessions: Sessions::default(),
            rivals: Rivals::default(),
            twins: Arc::default(),
            same_user,
            counts: Counts::default(),
            books: None,
            routes: routes_changed,
            stopping: stop,
        };
        change(&mut shared);
        let shared = Arc::new(shared);
        let connections = Connections::new(limits);
        let listener = listener::bind(LOCAL, 0).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(listener::run(listener, connections.clone(), shared.clone()));
        Self {
            shared,
            connections,
            stopping,
            address,
            wire,
            mailboxes,
            _routes: routes,
        }
    }

    /// A TCP connection from an address of this machine.
    pub async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        timeout(PATIENCE, socket.connect(self.address))
            .await
            .unwrap()
            .unwrap()
    }

    /// A client that dials one call.
    pub async fn dial(&self, from: Ipv4Addr, id: u16, password: &str) -> Client {
        let config = ClientLink::new(b"alice", NtHash::from_password(password));
        self.dial_as(from, id, config).await
    }

    /// The same with everything that a client can be.
    pub async fn dial_as(&self, from: Ipv4Addr, id: u16, config: ClientLink) -> Client {
        let tcp = self.connect(from).await;
        let now = self.shared.clock.now();
        let mut caller = Caller::new(CallerConfig::default(), now);
        caller.call(CallId(id), now);
        let (mailbox, gre) = mpsc::unbounded_channel();
        self.mailboxes
            .lock()
            .unwrap()
            .insert((from, CallId(id)), mailbox);
        Client {
            clock: self.shared.clock,
            tcp: Some(tcp),
            caller,
            link: None,
            config,
            from,
            id: CallId(id),
            peer_id: CallId(0),
            seq: Seq(0),
            gre,
            wire: self.wire.clone(),
        }
    }

    /// Takes everything from a client but its connection.
    pub fn forget(&self, mut client: Client) -> std::net::TcpStream {
        let key = (client.from, client.id);
        self.mailboxes.lock().unwrap().remove(&key);
        client.tcp.take().unwrap().into_std().unwrap()
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: not in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Nothing is held for anybody.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
            && self.shared.sessions.is_empty()
            && self.shared.calls.lock().unwrap().is_empty()
            && self.shared.applicants.is_empty()
            && self.shared.admission.is_empty()
            && self.shared.pools.in_use() == 0
    }
}

/// Turns the worker and carries its packets.
async fn network(
    mut worker: Worker<MemDevice>,
    clock: Clock,
    mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
    mailboxes: Mailboxes,
) {
    loop {
        while let Ok(frame) = frames.try_recv() {
            assert!(worker.device_mut().inject(Port::Access, &frame));
        }
        let turn = worker.turn(clock.now());
        if turn.stopped {
            return;
        }
        for frame in worker.device_mut().take(Port::Access) {
            let packet = ipv4::Packet::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
            let header = gre::Packet::parse(packet.payload()).unwrap();
            let payload = packet.payload()[header.payload_range()].to_vec();
            let key = (packet.destination(), header.call_id);
            if let Some(mailbox) = mailboxes.lock().unwrap().get(&key)
                && !payload.is_empty()
            {
                let _ = mailbox.send(payload);
            }
        }
        worker.device_mut().take(Port::Host);
        if !turn.busy {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// What a client saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Saw {
    Up(Ipv4Addr),
    LinkOver(ppp::End),
    Disconnected,
    Refused,
    Finished(turnpike_protocol::pptp::End),
    TcpClosed,
}

pub struct Client {
    clock: Clock,
    tcp: Option<TcpStream>,
    caller: Caller,
    link: Option<Link>,
    config: ClientLink,
    from: Ipv4Addr,
    id: CallId,
    peer_id: CallId,
    seq: Seq,
    gre: mpsc::UnboundedReceiver<Vec<u8>>,
    wire: mpsc::UnboundedSender<Vec<u8>>,
}

impl Client {
    /// Goes on until something is seen.
    pub async fn next(&mut self) -> Saw {
        let start = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            assert!(start.elapsed() < PATIENCE, "nothing happens");
            if let Some(saw) = self.act().await {
                return saw;
            }
            let now = self.clock.now();
            tokio::select! {
                Some(frame) = self.gre.recv() => {
                    if let Some(link) = &mut self.link {
                        link.handle_frame(&frame, now);
                    }
                }
                read = read(&mut self.tcp, &mut buffer) => match read {
                    Ok(octets) if octets > 0 => self.caller.receive(&buffer[..octets], now).unwrap(),
                    _ => {
                        self.tcp = None;
                        return Saw::TcpClosed;
                    }
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    let now = self.clock.now();
                    self.caller.handle_timeout(now);
                    if let Some(link) = &mut self.link {
                        link.handle_timeout(now);
                    }
                }
            }
        }
    }

    /// Goes on until this is seen, past everything else.
    pub async fn until(&mut self, what: impl Fn(&Saw) -> bool) -> Saw {
        let mut all = Vec::new();
        loop {
            assert_ne!(all.last(), Some(&Saw::TcpClosed), "{all:?}");
            let saw = self.next().await;
            if what(&saw) {
                return saw;
            }
            all.push(saw);
        }
    }

    /// Asks the server for an echo.
    pub fn ask(&mut self) {
        if let Some(frame) = self.link.as_mut().and_then(Link::probe) {
            self.send(&frame);
        }
    }

    /// Hangs up as a client does.
    pub fn clear(&mut self) {
        let now = self.clock.now();
        self.caller.clear(self.id, now);
    }

    async fn act(&mut self) -> Option<Saw> {
        let now = self.clock.now();
        while let Some(action) = self.caller.poll() {
            match action {
                CallerAction::Send(octets) => {
                    if let Some(tcp) = &mut self.tcp {
                        // The server may have closed already; the next read says so.
                        let _ = tcp.write_all(&octets).await;
                    }
                }
                CallerAction::Connected { peer_id, .. } => {
                    self.peer_id = peer_id;
                    let mut link = Link::client(self.config.clone(), [self.id.0 as u8; 32], now);
                    link.open(now);
                    self.link = Some(link);
                }
                CallerAction::Refused { .. } => return Some(Saw::Refused),
                CallerAction::Disconnected { .. } => return Some(Saw::Disconnected),
                CallerAction::Finished(end) => return Some(Saw::Finished(end)),
                CallerAction::Started(_)
                | CallerAction::WanError { .. }
                | CallerAction::Ignored { .. } => {}
            }
        }
        while let Some(action) = self.link.as_mut().and_then(Link::poll) {
            match action {
                ppp::Action::Send(frame) => self.send(&frame),
                ppp::Action::Up(terms) => return Some(Saw::Up(terms.address)),
                ppp::Action::Finished(end) => return Some(Saw::LinkOver(end)),
                _ => {}
            }
        }
        None
    }

    fn send(&mut self, frame: &[u8]) {
        let header = gre::Header {
            call_id: self.peer_id,
            seq: Some(self.seq),
            ack: None,
            payload_len: frame.len() as u16,
        };
        self.seq = self.seq.next();
        let mut packet = ethernet::Header {
            destination: OURS,
            source: THEIRS,
            ethertype: ethernet::IPV4,
        }
        .to_bytes()
        .to_vec();
        packet.extend(
            ipv4::Header {
                source: self.from,
                destination: LOCAL,
                protocol: ipv4::GRE,
                ttl: 64,
                traffic_class: 0,
                ident: 0,
                dont_fragment: false,
                payload_len: (header.len() + frame.len()) as u16,
            }
            .to_bytes(),
        );
        let mut octets = vec![0; header.len()];
        header.emit(&mut octets).unwrap();
        packet.extend(octets);
        packet.extend(frame);
        let _ = self.wire.send(packet);
    }
}

async fn read(tcp: &mut Option<TcpStream>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match tcp {
        Some(tcp) => tcp.read(buffer).await,
        None => std::future::pending().await,
    }
}
