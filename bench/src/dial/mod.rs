//! `turnpike-bench dial`: calls to a PPTP server, carried by a worker of our own over AF_XDP.

mod client;
mod inform;
pub(crate) mod linux;
mod report;
mod run;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::path::Path;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use turnpike_dataplane::ports::ModeChoice;
use turnpike_protocol::mppe::{Allowed, Dialect, Policy, Stateful, Strength};
use turnpike_protocol::ppp::AuthProtocol;

use crate::faults::Faults;
use crate::traffic::MIN_SIZE;

pub use report::{FaultReport, WorkerReport};
pub use run::Outcome;

/// Whether calls are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MppeChoice {
    /// Never.
    Deny,
    /// Only if the server asks for it.
    Allow,
    /// If the server takes it.
    Prefer,
    /// Always; a server that refuses is left.
    Require,
}

impl From<MppeChoice> for Policy {
    fn from(choice: MppeChoice) -> Self {
        match choice {
            MppeChoice::Deny => Self::Deny,
            MppeChoice::Allow => Self::Allow,
            MppeChoice::Prefer => Self::Prefer,
            MppeChoice::Require => Self::Require,
        }
    }
}

/// Bits of an MPPE key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum StrengthChoice {
    /// 128 bits.
    #[value(name = "128")]
    Bits128,
    /// 56 bits.
    #[value(name = "56")]
    Bits56,
    /// 40 bits.
    #[value(name = "40")]
    Bits40,
}

impl From<StrengthChoice> for Strength {
    fn from(choice: StrengthChoice) -> Self {
        match choice {
            StrengthChoice::Bits128 => Self::Bits128,
            StrengthChoice::Bits56 => Self::Bits56,
            StrengthChoice::Bits40 => Self::Bits40,
        }
    }
}

/// Whether MPPE keys may be stateful.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum StatefulChoice {
    /// Never.
    Refuse,
    /// If the server insists.
    Accept,
    /// Asked for; stateless if the server insists.
    Ask,
}

impl From<StatefulChoice> for Stateful {
    fn from(choice: StatefulChoice) -> Self {
        match choice {
            StatefulChoice::Refuse => Self::Refuse,
            StatefulChoice::Accept => Self::Accept,
            StatefulChoice::Ask => Self::Ask,
        }
    }
}

/// What a CCP Reset-Request does to stateful keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DialectChoice {
    /// Nothing: the tables are initialised with the current key.
    Rfc3078,
    /// Every flushed packet changes the key.
    Linux,
}

impl From<DialectChoice> for Dialect {
    fn from(choice: DialectChoice) -> Self {
        match choice {
            DialectChoice::Rfc3078 => Self::Rfc3078,
            DialectChoice::Linux => Self::Linux,
        }
    }
}

/// Where XDP runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum XdpChoice {
    /// In the driver, or in the generic receive path when the driver cannot.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic receive path.
    Generic,
}

impl From<XdpChoice> for ModeChoice {
    fn from(choice: XdpChoice) -> Self {
        match choice {
            XdpChoice::Auto => Self::Auto,
            XdpChoice::Native => Self::Native,
            XdpChoice::Generic => Self::Generic,
        }
    }
}

/// How the user logs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AuthChoice {
    /// MS-CHAPv2
    #[value(name = "ms-chap-v2")]
    MsChapV2,
    /// MS-CHAPv1
    #[value(name = "ms-chap-v1")]
    MsChapV1,
    /// CHAP with MD5: no encryption
    #[value(name = "chap-md5")]
    ChapMd5,
    /// The password in clear: no encryption
    Pap,
}

impl From<AuthChoice> for AuthProtocol {
    fn from(choice: AuthChoice) -> Self {
        match choice {
            AuthChoice::MsChapV2 => Self::MsChapV2,
            AuthChoice::MsChapV1 => Self::MsChapV1,
            AuthChoice::ChapMd5 => Self::ChapMd5,
            AuthChoice::Pap => Self::Pap,
        }
    }
}

/// Dial a PPTP server and carry the calls until told to stop.
///
/// Needs root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF). GRE goes over AF_XDP on the access interface; inner packets go to
/// and come from a veth pair that is made for it, so every program on this machine can use the calls: give it a call's
/// inner address as its source, or name the destinations with --route. SIGINT or SIGTERM hangs up properly.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench dial 10.7.0.1 --user alice --password secret --interface eth0
      one call; everything this machine sends goes through it
  turnpike-bench dial 10.7.0.1 --user alice --password secret --interface eth0 --calls 100 \\
      --traffic 50 --seconds 10 --target 192.0.2.1:7000 --fault loss=1%,duplicate=1%,reorder=1%,seed=3 --json
      a hundred calls with numbered datagrams on each, through a network that misbehaves

  turnpike-bench dial 10.7.0.1 --user alice --password secret --interface eth0 --auth chap-md5,pap --mppe allow
      what a router without MS-CHAP does: no encryption

Exit status: 0 all calls came up and were hung up by us; 1 some call failed (the reason is printed); 2 nothing could
be dialled (wrong usage, no such interface, no permission).")]
pub struct Dial {
    /// The server: an IPv4 address, or a name that has one
    pub server: String,
    /// User name, perhaps with DOMAIN\ in front
    #[arg(long)]
    pub user: String,
    /// Password; other users of this machine can see it
    #[arg(long, required_unless_present = "password_file")]
    pub password: Option<String>,
    /// File whose first line is the password
    #[arg(long, conflicts_with = "password")]
    pub password_file: Option<std::path::PathBuf>,
    /// What to change the password to if the server says that it has expired
    #[arg(long, value_name = "PASSWORD")]
    pub new_password: Option<String>,
    /// Network interface that leads to the server
    #[arg(long)]
    pub interface: String,
    /// Send GRE from this address, and the control connection from Linux' choice: what a server sees of clients whose
    /// carrier translates the two apart. Linux must answer ARP requests for it
    #[arg(long, value_name = "ADDRESS")]
    pub gre_source: Option<core::net::Ipv4Addr>,
    /// Where XDP runs on that interface
    #[arg(long, value_enum, default_value = "auto")]
    pub xdp: XdpChoice,
    /// Name of the veth interface that Linux gets
    #[arg(long, default_value = "tpclient0")]
    pub host_interface: String,
    /// TCP port of the server
    #[arg(long, default_value_t = turnpike_protocol::pptp::PORT)]
    pub port: u16,
    /// How many calls
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub calls: u16,
    /// Calls in each control connection [default: as many as keep it to 32 connections, at most 64]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub calls_per_connection: Option<u16>,
    /// Control connections started per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    pub rate: f64,
    /// By what the user may be asked to log in, the best first; several may be given
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ms-chap-v2")]
    pub auth: Vec<AuthChoice>,
    /// Whether calls are encrypted
    #[arg(long, value_enum, default_value = "require")]
    pub mppe: MppeChoice,
    /// The same as --mppe deny
    #[arg(long, conflicts_with = "mppe")]
    pub no_mppe: bool,
    /// Key lengths in bits; several may be given
    #[arg(long, value_enum, value_delimiter = ',', default_value = "128")]
    pub mppe_strength: Vec<StrengthChoice>,
    /// Whether keys may be stateful: changed every 256 packets in place of every packet
    #[arg(long, value_enum, default_value = "refuse")]
    pub mppe_stateful: StatefulChoice,
    /// Ask for IPv6 as well: Linux makes itself an address on the veth interface as the server's router tells it, and
    /// sends all its IPv6 through the call. A DHCPv6 client on that interface gets a prefix for the network behind this
    /// machine, where the server delegates. One call only
    #[arg(long)]
    pub ipv6: bool,
    /// Largest inner packet in octets
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u16).range(576..=1500))]
    pub mtu: u16,
    /// Destinations that this machine reaches through the first call; may be given several times
    /// [default: 0.0.0.0/0 with one call, none with several or with --inform]
    #[arg(long = "route", value_name = "PREFIX")]
    pub routes: Vec<Ipv4Net>,
    /// Install no routes
    #[arg(long, conflicts_with = "routes")]
    pub no_route: bool,
    /// Ask by DHCPINFORM inside the first call what is behind it, as Windows does, and install those routes instead of
    /// the default one
    #[arg(long, conflicts_with = "no_route")]
    pub inform: bool,
    /// Hang up after so many seconds, counted from when all calls are up [default: at SIGINT]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub hold: Option<Duration>,
    /// Packets that may wait for an earlier one; 0 discards what comes out of order
    #[arg(long, value_name = "PACKETS", default_value_t = 32, value_parser = clap::value_parser!(u8).range(0..=64))]
    pub reorder: u8,
    /// Lose, double and reorder GRE both ways: loss=1%,duplicate=1%,reorder=1%,places=4,seed=1
    #[arg(long, value_name = "FAULTS")]
    pub fault: Option<Faults>,
    /// Lose so many packets in a row, each way, whenever SIGUSR1 comes
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(1..))]
    pub outage: Option<u32>,
    /// What resets do to stateful keys: as in RFC 3078, or as Linux does it [default: as the server does]
    #[arg(long, value_enum)]
    pub resets: Option<DialectChoice>,
    /// Send an LCP echo this often
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub echo_interval: Duration,
    /// Send so many numbered UDP datagrams per second on each call to an echo responder
    /// (`turnpike-bench echo`), and count what comes back; then hang up
    #[arg(long, value_name = "PPS", requires = "target", value_parser = positive)]
    pub traffic: Option<f64>,
    /// How long the traffic lasts
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// Octets of each inner IP packet of the traffic
    #[arg(long, default_value_t = 200, value_parser = size)]
    pub size: usize,
    /// The echo responder
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub target: Option<SocketAddrV4>,
    /// Pin the worker to this processor
    #[arg(long)]
    pub cpu: Option<usize>,
    /// One JSON object a line instead of text
    #[arg(long)]
    pub json: bool,
}

impl Dial {
    fn policy(&self) -> Policy {
        if self.no_mppe {
            Policy::Deny
        } else {
            self.mppe.into()
        }
    }

    fn allowed(&self) -> Allowed {
        Allowed {
            strengths: self
                .mppe_strength
                .iter()
                .map(|&strength| strength.into())
                .collect(),
            stateful: self.mppe_stateful.into(),
        }
    }

    fn per_connection(&self) -> u16 {
        self.calls_per_connection
            .unwrap_or_else(|| self.calls.div_ceil(32).clamp(1, 64))
    }

    fn prefixes(&self) -> Vec<Ipv4Net> {
        if self.no_route {
            Vec::new()
        } else if self.routes.is_empty() && self.calls == 1 && !self.inform {
            vec![Ipv4Net::default()]
        } else {
            self.routes.clone()
        }
    }
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "must be a number of seconds".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (MIN_SIZE..=1500).contains(&size) => Ok(size),
        _ => Err(format!("must be from {MIN_SIZE} to 1500")),
    }
}

/// Runs until hung up.
///
/// # Errors
/// When nothing can be dialled at all: no such interface, no permission, no address of the server.
pub fn run(options: &Dial) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run::run(options))
}

/// The server's IPv4 address.
/// A password from the command line, or the first line of a file.
pub(crate) fn password(given: Option<&str>, file: Option<&Path>) -> anyhow::Result<String> {
    match (given, file) {
        (Some(password), _) => Ok(password.to_owned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        }
        (None, None) => Ok(String::new()),
    }
}

pub(crate) async fn resolve(server: &str, port: u16) -> anyhow::Result<Ipv4Addr> {
    if let Ok(address) = server.parse() {
        return Ok(address);
    }
    let found = tokio::net::lookup_host((server, port))
        .await
        .map_err(|error| anyhow::anyhow!("cannot find {server}: {error}"))?;
    found
        .into_iter()
        .find_map(|address| match address {
            core::net::SocketAddr::V4(address) => Some(*address.ip()),
            core::net::SocketAddr::V6(_) => None,
        })
        .ok_or_else(|| anyhow::anyhow!("{server} has no IPv4 address, and PPTP knows no other"))
}
