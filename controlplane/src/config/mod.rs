//! The configuration: one TOML file, read once into types that cannot be wrong.
//!
//! [`parse`] turns text into a [`Config`] or into *all* its faults at once, each with file, line and what to write
//! instead; [`load`] does the same for a file and the files of users that it names; [`machine`] warns of what only
//! this machine can tell. Nothing re-checks a [`Config`] later. A [`Roster`] reads the files of users again.

mod accounting;
mod auth;
mod finding;
mod inform;
mod ipv6;
mod limits;
mod load;
mod log;
mod login;
mod mppe;
mod network;
mod parse;
mod pools;
mod radius;
mod read;
mod roster;
mod users;

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Deref;
use core::time::Duration;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use turnpike_dataplane::api::SourceCheck;
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::mppe::{Allowed, Policy};

pub use accounting::DEFAULT_LEDGER;
pub(crate) use finding::Source;
pub use finding::{Faults, Finding};
pub use limits::DEFAULT_SETUP_TIME;
pub(crate) use load::without_ipv6;
pub use load::{load, machine};
pub use parse::{MTU, parse};
pub use roster::Roster;
pub(crate) use users::{Entry, Form, parse_users};

use crate::aaa::{Backend, Login, Names, PasswordRules, UnknownFilter, Users};
use crate::accounting::Stations;
use crate::inform::{Domain, Inform};
use crate::pool::{PoolConfig, Pools, Range, Rest};
use crate::radius::ServerSettings;
use crate::rivals::SameUser;

/// A configuration that can be run, and what an operator should look at all the same.
#[derive(Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings.
    pub warnings: Vec<Finding>,
}

/// Everything the server needs to know, checked.
#[derive(Clone)]
pub struct Config {
    /// The server as a whole.
    pub server: Server,
    /// The NIC where clients' GRE arrives.
    pub access: Access,
    /// The NIC that inner packets leave by; `None`: Linux routes them, by the host port.
    pub uplink: Option<Uplink>,
    /// The veth pair into Linux.
    pub host: Host,
    /// Inner addresses and what clients are told about them.
    pub network: Network,
    /// Tunnel packets.
    pub gre: Gre,
    /// Who may come in, and how.
    pub auth: Auth,
    /// The RADIUS servers, if there are any.
    pub radius: Option<Radius>,
    /// Users of the configuration file; [`load`] adds those of the files that it names.
    pub users: Users,
    /// Where users come from, to read them again.
    pub roster: Roster,
    /// Bounds.
    pub limits: Limits,
    /// Who had which address when; `None`: nothing is written.
    pub accounting: Option<Accounting>,
    /// The log.
    pub log: Log,
}

impl Config {
    /// The pools: all free, but for what belongs to certain users and our own address.
    pub fn pools(&self) -> Pools {
        let own = Range::single(self.network.server_address);
        Pools::new(
            &self.network.pools,
            self.network.rest,
            &self.network.client_choice,
            self.users.fixed().chain([own]),
        )
    }
}

/// `[server]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Host name in Start-Control-Connection-Reply and name in CHAP challenges; 1 to 63 octets of visible ASCII.
    pub name: String,
    /// The addresses that clients dial.
    pub listen: Listen,
    /// Directory of the control socket and the lock; absolute.
    pub run_dir: PathBuf,
    /// How many workers; `None`: as many as cores and the NIC's queues allow.
    pub workers: Option<u8>,
    /// The core of each worker; empty: not pinned by the configuration. When not empty, as many as `workers`.
    pub cpus: Vec<usize>,
    /// Frames that a worker takes from a NIC at a time by polling it; 0: none, the NIC interrupts.
    pub busy_poll: u16,
}

impl Server {
    /// The control socket that operator commands talk to.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join(crate::admin::SOCKET_NAME)
    }
}

/// Where to listen for control connections (TCP 1723), which are also the addresses whose GRE is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Every IPv4 address of the access NIC, followed as they change.
    EveryAddress,
    /// These, without doubles.
    Addresses(Vec<Ipv4Addr>),
}

/// The name of a network interface as Linux allows it: 1 to 15 octets, no slash, colon or white space.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Interface(String);

impl Interface {
    /// Checks a name; `None` when Linux would not take it. Whether such an interface exists is another question.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=15).contains(&name.len())
            && !matches!(name, "." | "..")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        fits.then(|| Self(name.to_owned()))
    }
}

impl Deref for Interface {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// Native where the driver has it, else generic.
    #[default]
    Auto,
    /// Native or not at all.
    Native,
    /// Generic.
    Generic,
}

/// `[access]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// The interface.
    pub interface: Interface,
    /// How the XDP program is attached to it.
    pub mode: XdpMode,
    /// From where GRE for a call is taken.
    pub source_check: SourceCheck,
}

/// `[uplink]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// The interface; may be the access NIC.
    pub interface: Interface,
    /// Where inner packets go; `None`: Linux' default route on this NIC, followed as it changes.
    pub next_hop: Option<Ipv4Addr>,
    /// How the XDP program is attached to it. The same as the access NIC's when it is the same NIC.
    pub mode: XdpMode,
}

/// `[host]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Linux' end of the veth pair.
    pub interface: Interface,
}

/// `[network]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Our inner address, told to every client in IPCP. In no pool.
    pub server_address: Ipv4Addr,
    /// What clients get addresses from, that of `[network]` in front: in all at least one range, apart from each other;
    /// network and broadcast addresses of prefixes and what is excluded are already left out.
    pub pools: Vec<PoolConfig>,
    /// What holds for addresses that are given back.
    pub rest: Rest,
    /// Parts of the first pool that clients may ask for and get when they are free; else they get the next address.
    pub client_choice: Vec<Range>,
    /// DNS servers told to clients (RFC 1877), first and second; the second is set only when the first is.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers (WINS), as `dns`.
    pub nbns: [Option<Ipv4Addr>; 2],
    /// The domain that clients are told by DHCP.
    pub domain: Option<Domain>,
    /// What clients are told by DHCP to send through the tunnel; none holds another or an address of `listen`, and all
    /// fit a DHCP answer.
    pub routes: Vec<Ipv4Net>,
    /// The largest inner packet, in octets, in [`MTU`].
    pub mtu: u16,
    /// The prefixes that hold the pools and all fixed addresses of the configuration file, as few as cover exactly
    /// these: for XDP, for Linux' routes, and for `Command::Pool`.
    pub prefixes: Vec<Ipv4Net>,
    /// IPv6 inside the tunnel, if there is any.
    pub ipv6: Option<Ipv6>,
}

/// IPv6 inside the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6 {
    /// What each call's link gets 64 bits of. The first 64 bits are ours.
    pub pool: Ipv6Net,
    /// What clients are delegated prefixes from; apart from `pool`.
    pub delegated: Option<Delegated>,
    /// Name servers that clients are told; the second is set only when the first is.
    pub dns: [Option<Ipv6Addr>; 2],
}

impl Ipv6 {
    /// Our inner address, which Linux has: errors about inner packets come from it.
    pub fn server_address(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.pool.network().to_bits() | 1)
    }

    /// All prefixes that clients may have: for XDP, for Linux' routes, and for `Command::Pool6`.
    pub fn prefixes(&self) -> impl Iterator<Item = Ipv6Net> + use<> {
        let delegated = self.delegated.map(|delegated| delegated.pool);
        [Some(self.pool), delegated].into_iter().flatten()
    }
}

/// What clients are delegated prefixes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delegated {
    /// All of it.
    pub pool: Ipv6Net,
    /// Length of each client's prefix, in bits: at least the pool's, at most 64.
    pub length: u8,
}

impl Network {
    /// What clients are told by DHCP.
    pub fn inform(&self) -> Inform {
        Inform {
            server: self.server_address,
            dns: self.dns,
            nbns: self.nbns,
            domain: self.domain.clone(),
            routes: self.routes.clone(),
        }
    }
}

/// `[gre]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gre {
    /// How packets that overtook each other are put back in order.
    pub reordering: Reordering,
}

/// `[auth]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// MPPE policy.
    pub mppe: Policy,
    /// Methods.
    pub login: Login,
    /// Key lengths and modes of MPPE.
    pub mppe_allowed: Allowed,
    /// The `chap-secrets` file; as written, after [`load`] as it is opened.
    pub chap_secrets: Option<PathBuf>,
    /// The file of users that is written back, likewise.
    pub users_file: Option<PathBuf>,
    /// Whether a client with a wrong name or password may try again in the same call.
    pub retry: bool,
    /// How names are looked up.
    pub names: Names,
    /// What new passwords must be like.
    pub passwords: PasswordRules,
    /// Who judges logins, in order: each once.
    pub backends: Vec<Backend>,
}

/// `[radius]`. Holds secrets: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Radius {
    /// `[[radius.server]]`, one at least.
    pub servers: Vec<ServerSettings>,
    /// NAS-Identifier; the server's name where nothing is said.
    pub nas_identifier: String,
    /// NAS-IP-Address; `None`: the address that the client dialled.
    pub nas_ip_address: Option<Ipv4Addr>,
    /// What becomes of calls with a filter that there is not.
    pub unknown_filter: UnknownFilter,
    /// Whether MS-CHAP logins without keys are refused even where calls may go in clear.
    pub require_keys: bool,
}

/// `[limits]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Calls on the whole box; tables are sized by it at start. Default: one for every address clients may get.
    pub calls: usize,
    /// Control connections from one source address.
    pub connections_per_source: usize,
    /// Calls from one source address that have not logged in yet. Default:
    /// [`default_limit`](crate::applicants::default_limit).
    pub unauthenticated_per_source: usize,
    /// Calls that may be set up at once.
    pub setting_up: usize,
    /// How long a call may wait for a place among these before it is refused.
    pub setting_up_wait: Duration,
    /// What happens when a user who has a call logs in again.
    pub same_user: SameUser,
    /// From TCP accept to the call being up; a connection that has no call after it is closed.
    pub setup_time: Duration,
    /// Of LCP echoes and of control connection echoes.
    pub echo_interval: Duration,
}

/// `[accounting]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accounting {
    /// The ledger; as written, after [`load`] as it is opened.
    pub file: PathBuf,
    /// How long sessions are kept after their end; `None`: for ever.
    pub keep: Option<Duration>,
    /// How often the counters of calls that are up are written down.
    pub checkpoint: Duration,
    /// How often an Interim record is made of a call that is up; `None`: never.
    pub interim: Option<Duration>,
    /// Whether calls that never came up are written down.
    pub failures: bool,
    /// Whether there must be no call that cannot be written down.
    pub mandatory: bool,
    /// Whether records are delivered to the RADIUS servers, if there are any.
    pub radius: bool,
    /// How calls are named.
    pub stations: Stations,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// One line per event, for people or for machines.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: tracing::Level,
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Text.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests;
