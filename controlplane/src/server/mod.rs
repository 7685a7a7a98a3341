//! Start and end of a server.
//!
//! The order of the start: the right to the run directory, the raw GRE socket (Linux must not answer GRE with ICMP),
//! ports and XDP program, workers, switchboard, Linux' tables, the control socket, and only then TCP 1723. The end
//! goes the other way round: clients are told, workers finish, programs and the veth pair go.

mod doors;
mod keeping;
mod reload;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use ipnet::{Ipv4Net, Ipv6Net};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{error, info, warn};
use turnpike_dataplane::api::{Command, Owners, Port, WorkerId};
use turnpike_dataplane::ports::raw::GreSocket;
use turnpike_dataplane::ports::{self, HostConfig, ModeChoice, Nic, Ports, PortsConfig};
use turnpike_dataplane::rings::{self, RingSizes};
use turnpike_dataplane::thread::{self, SpawnError};
use turnpike_dataplane::worker::{Worker, WorkerConfig};
use turnpike_dataplane::xsk::{Sizes, Xsk};
use turnpike_protocol::gre::AckSettings;
use turnpike_protocol::{CallId, Role};

use crate::aaa::{Chain, RadiusBackend, Rules, Store};
use crate::admission::Admission;
use crate::applicants::Applicants;
use crate::backend::Operator;
use crate::calls::Calls;
use crate::config::{Config, XdpMode, without_ipv6};
use crate::counts::Counts;
use crate::dhcp6::Dhcp6;
use crate::driver::{Clock, Paths, Shared, Terms};
use crate::listener::{Connections, Limits};
use crate::lock::{self, Lock};
use crate::neighbours::{Follower, Interests, Lookups};
use crate::pool::{LocalPools, Range};
use crate::prefixes::Prefixes;
use crate::radius::{Client, Purpose};
use crate::rivals::Rivals;
use crate::sessions::Sessions;
use crate::switchboard::{Stopped, Switchboard};
use crate::tunnel::Settings;
use crate::{accounting, admin, gre_socket};

use doors::Doors;

/// How long clients may take to say goodbye when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a predecessor that was killed may take to be gone.
const SUCCESSION: Duration = Duration::from_secs(3);

/// Control connections beyond one per call: clients that dial, hang up, or are told that the server is full.
const SPARE_CONNECTIONS: usize = 1024;

/// Calls in one control connection. Clients have one each; a concentrator of another kind may have more.
const CALLS_PER_CONNECTION: u16 = 256;

/// The owner alone, who is root, may send operator commands.
const SOCKET_MODE: u32 = 0o600;

/// Why a server did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another server runs, or the run directory cannot be used.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// Ports, XDP or sockets.
    #[error(transparent)]
    Ports(#[from] ports::Error),
    /// The accounting file.
    #[error(transparent)]
    Accounting(#[from] accounting::Error),
    /// A worker's thread.
    #[error(transparent)]
    Worker(#[from] SpawnError),
    /// One of the workers ended by itself; calls of its ids would get no answer.
    #[error("a worker ended by itself, which is a fault of this program")]
    WorkerEnded,
    /// The workers ended by themselves.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The machine lacks what the configuration needs.
    #[error("{what}; {instead}")]
    Machine {
        /// What it lacks.
        what: &'static str,
        /// What to do about it.
        instead: &'static str,
    },
    /// Something else of the system.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    |source| Error::System { doing, source }
}

/// Runs a server until SIGTERM or SIGINT; SIGHUP has it read the files of users again.
///
/// # Errors
/// When it does not start. What was made until then is taken back.
pub fn run(config: &Config) -> Result<(), Error> {
    let _lock = Lock::take(&config.server.run_dir, SUCCESSION)?;
    // Workers have cores of their own; the control plane is content with little.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(system("cannot start the runtime"))?;
    let result = runtime.block_on(serve(config));
    // Whoever hangs has had its time: a worker that does not end must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config) -> Result<(), Error> {
    allow_descriptors(config.limits.calls);
    let mut terminate =
        signal(SignalKind::terminate()).map_err(system("cannot wait for SIGTERM"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(system("cannot wait for SIGINT"))?;

    let mut hangup = signal(SignalKind::hangup()).map_err(system("cannot wait for SIGHUP"))?;

    let mut running = Running::start(config).await?;
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => {
                info!("SIGTERM: stopping");
                break Ok(());
            }
            _ = interrupt.recv() => {
                info!("SIGINT: stopping");
                break Ok(());
            }
            _ = hangup.recv() => running.reload().await,
            _ = look.tick() => if running.workers.iter().any(|worker| worker.is_finished()) {
                error!("a worker ended by itself: stopping");
                break Err(Error::WorkerEnded);
            },
        }
    };
    running.stop().await;
    result
}

/// Everything that lives between start and end.
struct Running {
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    ports: Arc<Mutex<Ports>>,
    workers: Vec<std::thread::JoinHandle<Xsk>>,
    /// Our inner address, which no client gets.
    own: Range,
    /// What ports and workers know of inner addresses.
    prefixes: HashSet<Ipv4Net>,
    /// Ends clients when it turns true.
    stopping: watch::Sender<bool>,
    /// Acts on what the follower says.
    doors: AbortHandle,
    /// Follows Linux' tables, and ends when nobody listens.
    follower: JoinHandle<()>,
    /// Listeners, netlink, raw socket, operators: dropped with this.
    tasks: JoinSet<()>,
}

impl Running {
    async fn start(config: &Config) -> Result<Self, Error> {
        if config.network.ipv6.is_some()
            && let Some((what, instead)) = without_ipv6()
        {
            return Err(Error::Machine { what, instead });
        }
        // First of all: without it nothing else is of use, and what a crash left open is over before anybody dials.
        let books = keeping::open(config)?;
        let clock = Clock::start();
        let origin_unix_nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
        let raw = GreSocket::open().map_err(system("cannot open a raw socket for GRE"))?;
        let count = workers(config)?;
        let (ports, devices) = Ports::open(&ports_config(config, count))?;
        let ports = Arc::new(Mutex::new(ports));
        let owners = Owners::round_robin(count);
        let ends = rings::channels(count, &RingSizes::default())
            .map_err(system("cannot make the rings of the workers"))?;
        let mut threads = Vec::new();
        let mut control_ends = Vec::new();
        for ((index, device), (control_end, worker_end)) in (0..).zip(devices).zip(ends) {
            let settings = worker_config(config, WorkerId(index), &owners, &lock(&ports));
            let worker = Worker::new(settings, device, worker_end);
            let cpu = config.server.cpus.get(usize::from(index)).copied();
            threads.push(thread::spawn(worker, cpu, clock.origin())?);
            control_ends.push(control_end);
        }
        // The tasks end by themselves when the last switchboard is gone.
        let (switchboard, _) = Switchboard::start(control_ends, owners.clone())
            .map_err(system("cannot watch the rings of the workers"))?;

        for &prefix in &config.network.prefixes {
            switchboard.send(Command::Pool { prefix }).await?;
            lock(&ports).pool_add(prefix)?;
        }
        if let Some(ipv6) = &config.network.ipv6 {
            for prefix in ipv6.prefixes() {
                switchboard.send(Command::Pool6 { prefix }).await?;
                lock(&ports).pool_add(prefix)?;
            }
            lock(&ports).address_add(Ipv6Net::from(ipv6.server_address()))?;
            forwarding_hint();
        }

        let index = |port| lock(&ports).index(port);
        let access = index(Port::Access).unwrap_or_default();
        let interests = Interests {
            access,
            uplink: index(Port::Uplink),
            gateway: config.uplink.as_ref().and_then(|uplink| uplink.next_hop),
        };
        let (routes, routes_changed) = watch::channel(0);
        let (stopping, stop) = watch::channel(false);
        let mut start = [0; 2];
        getrandom::fill(&mut start)
            .map_err(|error| system("no randomness")(io::Error::other(error.to_string())))?;
        let calls = Calls::new(
            owners.clone(),
            count,
            config.limits.calls,
            u16::from_ne_bytes(start),
            config.access.source_check,
        )
        .placed_by(lock(&ports).landing());
        let netlink = || system("cannot ask Linux for routes and neighbours (netlink)");
        let users = Arc::new(Store::new(
            config.users.clone(),
            config.roster.clone(),
            config.auth.passwords,
        ));
        let shared = Arc::new(Shared {
            settings: settings(config, &lock(&ports)).into(),
            terms: Terms {
                server_address: config.network.server_address,
                dns: config.network.dns,
                nbns: config.network.nbns,
            },
            clock,
            calls: Mutex::new(calls),
            backends: Chain::new(config.auth.backends.clone(), users.clone(), radius(config)),
            users,
            retry: config.auth.retry,
            applicants: Applicants::new(config.limits.unauthenticated_per_source),
            admission: Admission::new(config.limits.setting_up, config.limits.setting_up_wait),
            pools: Box::new(LocalPools::new(config.pools())),
            prefixes: config
                .network
                .ipv6
                .as_ref()
                .map(|ipv6| Mutex::new(Prefixes::new(ipv6))),
            switchboard: switchboard.clone(),
            paths: Paths::Linux(Lookups::new(access).map_err(netlink())?),
            sessions: Sessions::default(),
            rivals: Rivals::default(),
            twins: Arc::default(),
            same_user: config.limits.same_user,
            counts: Counts::default(),
            books,
            routes: routes_changed,
            stopping: stop.clone(),
        });
        let connections = Connections::new(Limits {
            per_source: config.limits.connections_per_source,
            total: config.limits.calls + SPARE_CONNECTIONS,
        });

        let mut tasks = JoinSet::new();
        let raw_switchboard = switchboard.clone();
        tasks.spawn(async move {
            if let Err(error) = gre_socket::run(raw, raw_switchboard, stop).await {
                warn!(%error, "fragmented GRE cannot be received");
            }
        });

        keeping::start(&mut tasks, config, &shared);

        let path = config.server.socket();
        let operators = admin::Server::bind(&path, SOCKET_MODE).map_err(system(format!(
            "cannot make the control socket {}",
            path.display()
        )))?;
        let operator = Arc::new(Operator {
            shared: shared.clone(),
            connections: connections.clone(),
            ports: ports.clone(),
            owners,
            cpus: (0..count)
                .map(|worker| config.server.cpus.get(worker).copied())
                .collect(),
            origin_unix_nanos,
        });
        tasks.spawn(async move { operators.serve(operator).await });

        let (changes, mut changed) = mpsc::unbounded_channel();
        let mut follower = Follower::start(interests, changes)
            .await
            .map_err(netlink())?;
        let mut doors = Doors::new(
            &config.server.listen,
            shared.clone(),
            connections.clone(),
            ports.clone(),
            routes,
        );
        // What is known already stands before the first client comes.
        if let Err(error) = doors.open_all(&mut changed, &config.server.listen).await {
            follower.let_go().await;
            return Err(error);
        }
        let followed = shared.clone();
        let follower = tokio::spawn(async move {
            let Paths::Linux(lookups) = &followed.paths else {
                return;
            };
            if let Err(error) = follower.run(lookups).await {
                warn!(%error, "netlink failed: changes of routes and neighbours are not followed any more");
            }
        });
        let doors = tasks.spawn(async move {
            while let Some(change) = changed.recv().await {
                if doors.change(change).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            shared,
            connections,
            ports,
            workers: threads,
            own: Range::single(config.network.server_address),
            prefixes: config.network.prefixes.iter().copied().collect(),
            stopping,
            doors,
            follower,
            tasks,
        })
    }

    async fn stop(mut self) {
        let calls = self.shared.sessions.len();
        info!(
            calls,
            connections = self.connections.len(),
            "telling clients"
        );
        self.stopping.send_replace(true);
        let deadline = tokio::time::Instant::now() + FAREWELL;
        while !(self.connections.is_empty() && self.shared.sessions.is_empty())
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (calls, connections) = (self.shared.sessions.len(), self.connections.len());
        if calls + connections > 0 {
            warn!(calls, connections, "not all clients answered in time");
        }
        // With nobody left to tell, the follower leaves Linux' tables as it found them, and ends.
        self.doors.abort();
        if tokio::time::timeout(FAREWELL, &mut self.follower)
            .await
            .is_err()
        {
            warn!("netlink did not answer in time");
            self.follower.abort();
        }
        keeping::delivered(&self.shared).await;
        self.tasks.shutdown().await;
        keeping::close(&self.shared).await;

        // A worker that hangs leaves its ring full.
        let stop = self.shared.switchboard.send(Command::Stop);
        let stopped = tokio::time::timeout(FAREWELL, stop).await;
        if matches!(stopped, Ok(Ok(()))) {
            let workers = std::mem::take(&mut self.workers);
            let joined = tokio::task::spawn_blocking(move || {
                // Devices are dropped here: sockets close before the programs that feed them go.
                workers.into_iter().all(|worker| worker.join().is_ok())
            });
            match tokio::time::timeout(FAREWELL, joined).await {
                Ok(Ok(true)) => {}
                _ => warn!("a worker did not end well"),
            }
        }
        self.report();
    }

    /// The last word: what was counted.
    fn report(&self) {
        for (worker, counters) in self.shared.switchboard.counters().iter().enumerate() {
            let totals = counters.totals().filter(|(_, n)| *n > 0);
            let drops = counters.reasons();
            info!(
                worker,
                totals = list(totals.map(|(total, n)| (total.name(), n))),
                drops = list(drops.map(|(reason, n)| (reason.name(), n))),
                "worker's counters"
            );
        }
        match lock(&self.ports).verdicts() {
            Ok(verdicts) => {
                let verdicts = verdicts.into_iter().filter(|(_, n)| *n > 0);
                info!(verdicts = list(verdicts), "XDP program's counters");
            }
            Err(error) => warn!(%error, "counters of the XDP program"),
        }
        let counts: BTreeMap<_, _> = self.shared.counts.by_name();
        let counts = counts.iter().filter(|(_, n)| **n > 0);
        info!(
            counts = list(counts.map(|(name, n)| (name.as_str(), *n))),
            "control plane's counters"
        );
    }
}

/// `name=count` with blanks between.
fn list<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    counts
        .map(|(name, count)| format!("{name}={count}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// As many workers as configured, or as cores and queues allow.
fn workers(config: &Config) -> Result<usize, Error> {
    if let Some(workers) = config.server.workers {
        return Ok(usize::from(workers).max(1));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut count = cores.min(64);
    let uplink = config.uplink.as_ref().map(|uplink| &uplink.interface);
    for interface in [Some(&config.access.interface), uplink]
        .into_iter()
        .flatten()
    {
        count = count.min(ports::queues(interface)? as usize);
    }
    Ok(count.max(1))
}

fn ports_config(config: &Config, workers: usize) -> PortsConfig {
    let mode = |mode| match mode {
        XdpMode::Auto => ModeChoice::Auto,
        XdpMode::Native => ModeChoice::Native,
        XdpMode::Generic => ModeChoice::Generic,
    };
    PortsConfig {
        access: Nic {
            interface: config.access.interface.to_string(),
            mode: mode(config.access.mode),
        },
        uplink: config.uplink.as_ref().map(|uplink| Nic {
            interface: uplink.interface.to_string(),
            mode: mode(uplink.mode),
        }),
        host: HostConfig {
            interface: config.host.interface.to_string(),
            mtu: config.network.mtu,
            addresses: vec![config.network.server_address.into()],
        },
        workers,
        sizes: Sizes {
            held: config.gre.reordering.chunks(),
            busy_poll: config.server.busy_poll,
            ..Sizes::default()
        },
    }
}

fn worker_config(config: &Config, id: WorkerId, owners: &Owners, ports: &Ports) -> WorkerConfig {
    let calls = config.limits.calls;
    // Ids are unique over the box up to this many calls, so a worker has at most as many as it owns ids.
    let own = if calls <= usize::from(u16::MAX) {
        let ids = (0..=u16::MAX).filter(|&number| owners.owner(CallId(number)) == id);
        calls.min(ids.count())
    } else {
        calls
    };
    WorkerConfig {
        id,
        role: Role::Server,
        owners: owners.clone(),
        calls: own,
        routes: calls,
        // A link and a delegated prefix for each.
        routes6: config.network.ipv6.map_or(0, |_| 2 * calls),
        ports: Port::ALL.map(|port| ports.info(port)),
        host_peer_mac: ports.host_peer_mac(),
        server_address: Some(config.network.server_address),
        server_address6: config.network.ipv6.map(|ipv6| ipv6.server_address()),
        source_check: config.access.source_check,
        acks: AckSettings::default(),
        reordering: config.gre.reordering,
    }
}

fn settings(config: &Config, ports: &Ports) -> Settings {
    let dhcp6 = config.network.ipv6.map(|ipv6| Dhcp6 {
        duid: Dhcp6::duid_of(ports.info(Port::Access).map_or([0; 6], |port| port.mac.0)),
        dns: ipv6.dns.into_iter().flatten().collect(),
        domain: config.network.domain.clone(),
    });
    Settings {
        name: config.server.name.clone(),
        mtu: config.network.mtu,
        mppe: config.auth.mppe,
        mppe_allowed: config.auth.mppe_allowed,
        login: config.auth.login.clone(),
        setup_time: config.limits.setup_time,
        echo_interval: config.limits.echo_interval,
        calls: CALLS_PER_CONNECTION,
        inform: Some(Arc::new(config.network.inform())),
        dhcp6: dhcp6.map(Arc::new),
    }
}

/// Linux forwards the versions of IP one by one.
fn forwarding_hint() {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
    if setting.is_ok_and(|text| text.trim() == "0") {
        warn!(
            "net.ipv6.conf.all.forwarding is 0: Linux forwards no IPv6 between clients and the network; \
             `sysctl net.ipv6.conf.all.forwarding=1` changes that"
        );
    }
}

/// The RADIUS servers that judge logins.
fn radius(config: &Config) -> Option<RadiusBackend> {
    let radius = config.radius.as_ref()?;
    Some(RadiusBackend {
        client: Client::new(&radius.servers, Purpose::Authentication),
        rules: Rules {
            mppe: config.auth.mppe,
            strengths: config.auth.mppe_allowed.strengths,
            prefixes: config.network.prefixes.clone(),
            server_address: config.network.server_address,
            unknown_filter: radius.unknown_filter,
            require_keys: radius.require_keys,
        },
        identifier: radius.nas_identifier.clone(),
        address: radius.nas_ip_address,
    })
}

/// One descriptor for each control connection, and some for everything else.
fn allow_descriptors(calls: usize) {
    let wanted = (calls + 2 * SPARE_CONNECTIONS) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || current < wanted {
        warn!(
            have = current,
            wanted, "few file descriptors: start with `ulimit -n {wanted}` or LimitNOFILE={wanted}"
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
