//! `turnpike-bench flow`: packets through many calls of any PPTP server, each with a number and the time at which it was to
//! be sent, so that loss, order, duplicates and latency are known of every flow.
//!
//! Packets have a planned time, and latency is measured from it: a generator that is held up cannot hide how long packets
//! would have waited (coordinated omission), and says itself how late it was. A worker of the data plane carries the
//! calls; its host port is memory ([`access`]). Behind the server there is a UDP socket of the same process ([`network`]),
//! so both ends have one clock and latency is one-way; or an echo responder anywhere, and then it is there and back.

mod access;
mod calls;
mod generator;
mod network;
mod nic;
mod packet;
mod plan;
mod raw;
mod receiver;
mod report;
mod run;
mod sending;
mod side;
mod trials;

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use clap::{Args, ValueEnum};
use turnpike_protocol::mppe::{Allowed, Stateful};

use crate::dial::{
    AuthChoice, MppeChoice, Outcome, StrengthChoice, XdpChoice, positive, resolve, seconds,
};
use crate::faults::{Faults, share};
use crate::fleet::Sources;
use crate::report::{Origin, Printing};

pub use plan::{Size, Way};
pub use report::Report;

/// Which ways packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WayChoice {
    /// From the calls through the server.
    Up,
    /// From behind the server to the calls.
    Down,
    /// Both at the same time.
    Both,
}

/// Send packets through many calls, and say what became of each
///
/// One flow of UDP packets in each call and direction. First every flow is verified: it must deliver a packet. Then
/// packets go at the rate that is asked for, at even distances, and are counted for each flow: lost, reordered, doubled, and
/// how long they took from the time at which they were to be sent, whether this machine was able to send them then or not
/// (how late it was is reported, too). Works against any PPTP server. Needs root (CAP_NET_RAW; with --interface CAP_NET_ADMIN
/// and CAP_BPF, too), and no other PPTP client on this machine.
///
/// Behind the server, packets are taken and sent by this same process, at an address of this machine that the server
/// reaches (--network), and that reaches the calls' inner addresses through the server: add a route for them. Where that
/// cannot be, --echo sends everything to a responder (`turnpike-bench echo`) and measures there and back.
#[derive(Args, Clone)]
#[command(
    group = clap::ArgGroup::new("far").required(true),
    after_help = "\
Examples:
  turnpike-bench flow 10.7.0.1 --user test --password secret --network 203.0.113.90 --calls 100 --rate 20000
      twenty thousand packets a second each way, 200 in each call
  turnpike-bench flow 10.7.0.1 --user 'user{}' --users 1000 --password secret --network 203.0.113.90 \\
      --calls 1000 --call-rate 50 --size 64,576,1400,imix --seconds 30 --json
      a thousand users; four trials one after the other, each of a size
  turnpike-bench flow 10.7.0.1 --user test --password secret --echo 203.0.113.80:7000 --mppe deny
      there and back, without encryption, by `turnpike-bench echo` behind the server

Exit status: 0 all calls came up and stayed, all flows were verified, everything was sent that was planned, and no more
was lost each way than --allow-loss; 1 something of that is not so (the report says what); 2 nothing could be measured
(wrong usage, no permission, packets that do not fit the calls)."
)]
pub struct Flow {
    /// The server: an IPv4 address, or a name that has one
    pub server: String,
    /// User name, perhaps with DOMAIN\ in front; {} stands for a number from 0 to --users less one
    #[arg(long)]
    pub user: String,
    /// How many users take turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// Password; other users of this machine can see it
    #[arg(long, required_unless_present = "password_file")]
    pub password: Option<String>,
    /// File whose first line is the password
    #[arg(long, conflicts_with = "password")]
    pub password_file: Option<std::path::PathBuf>,
    /// How many calls
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub calls: u16,
    /// How many of them share a control connection, and a user. Each connection takes a file descriptor on both sides
    #[arg(long, value_name = "CALLS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub calls_per_connection: u16,
    /// Calls begun per second
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    pub setup_rate: f64,
    /// Dial from these addresses and ranges (10.7.1.1-10.7.1.99) in turn [default: Linux' choice]
    #[arg(long, value_name = "ADDRESS[-ADDRESS],...")]
    pub from: Option<Sources>,
    /// TCP port of the server
    #[arg(long, default_value_t = turnpike_protocol::pptp::PORT)]
    pub port: u16,
    /// By what users may be asked to log in, the best first; several may be given
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ms-chap-v2")]
    pub auth: Vec<AuthChoice>,
    /// Whether calls are encrypted
    #[arg(long, value_enum, default_value = "require")]
    pub mppe: MppeChoice,
    /// Key lengths in bits; several may be given
    #[arg(long, value_enum, value_delimiter = ',', default_value = "128")]
    pub mppe_strength: Vec<StrengthChoice>,
    /// Give up a call that is not up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
    /// Carry GRE over AF_XDP on this interface, which leads to the server [default: a raw socket]
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    /// Where XDP runs on that interface
    #[arg(long, value_enum, default_value = "auto", requires = "interface")]
    pub xdp: XdpChoice,
    /// Name of the veth interface that comes with AF_XDP; nothing goes there
    #[arg(
        long,
        value_name = "NAME",
        default_value = "tpflow0",
        requires = "interface"
    )]
    pub host_interface: String,
    /// Address of this machine behind the server, where flows begin and end
    #[arg(long, value_name = "ADDRESS", group = "far")]
    pub network: Option<Ipv4Addr>,
    /// Send to this echo responder behind the server instead, and measure there and back
    #[arg(long, value_name = "ADDRESS:PORT", group = "far")]
    pub echo: Option<SocketAddrV4>,
    /// Which ways packets go; with --echo they always go both
    #[arg(long, value_enum, default_value = "both", conflicts_with = "echo")]
    pub way: WayChoice,
    /// Packets per second each way, over all calls together
    #[arg(long, value_name = "PPS", default_value_t = 1000.0, value_parser = positive)]
    pub rate: f64,
    /// Packets per second each way in each call, in place of --rate
    #[arg(long, value_name = "PPS", value_parser = positive, conflicts_with = "rate")]
    pub call_rate: Option<f64>,
    /// Octets of each inner IP packet, or imix: 7 of 64 octets to 4 of 576 and 1 of 1400. Of several, each is a trial of
    /// its own
    #[arg(
        long,
        value_name = "OCTETS|imix",
        value_delimiter = ',',
        default_value = "imix"
    )]
    pub size: Vec<Size>,
    /// How long each trial lasts
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// How long flows have to be verified
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub verify: Duration,
    /// What may be lost each way: 0.1% or 0.001
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = loss)]
    pub allow_loss: f64,
    /// GRE packets that may wait for an earlier one; 0 discards what comes out of order
    #[arg(long, value_name = "PACKETS", default_value_t = 32, value_parser = clap::value_parser!(u8).range(0..=64))]
    pub reorder: u8,
    /// Lose, double and reorder GRE both ways: loss=1%,duplicate=1%,reorder=1%,places=4,seed=1
    #[arg(long, value_name = "FAULTS")]
    pub fault: Option<Faults>,
    /// Look at the port more often than at the clock: never sleep. Times get finer; takes a processor for each end
    #[arg(long)]
    pub spin: bool,
    /// Pin the end where the calls are to this processor
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Pin the end behind the server to this processor
    #[arg(long)]
    pub network_cpu: Option<usize>,
    /// How many flows are named each way: those that lost most, then the slowest
    #[arg(long, value_name = "FLOWS", default_value_t = 10)]
    pub worst: usize,
    /// How the report is printed.
    #[command(flatten)]
    pub printing: Printing,
}

impl Flow {
    fn allowed(&self) -> Allowed {
        Allowed {
            strengths: self
                .mppe_strength
                .iter()
                .map(|&strength| strength.into())
                .collect(),
            stateful: Stateful::Accept,
        }
    }

    /// The name of the user of a control connection.
    fn user_of(&self, number: usize) -> String {
        let number = number as u64 % u64::from(self.users);
        self.user.replace("{}", &number.to_string())
    }

    fn ways(&self) -> Vec<Way> {
        match (self.echo, self.way) {
            (Some(_), _) => vec![Way::Echo],
            (None, WayChoice::Up) => vec![Way::Up],
            (None, WayChoice::Down) => vec![Way::Down],
            (None, WayChoice::Both) => vec![Way::Up, Way::Down],
        }
    }

    /// Packets per second each way through so many calls.
    fn rate_of(&self, calls: usize) -> f64 {
        self.call_rate.map_or(self.rate, |rate| rate * calls as f64)
    }
}

fn loss(text: &str) -> Result<f64, String> {
    share(text).ok_or_else(|| "must be a share: 0.1% or 0.001, at most 100%".to_owned())
}

/// Runs to the end, or until SIGINT or SIGTERM.
///
/// # Errors
/// When nothing can be measured at all.
pub fn run(options: &Flow, origin: Origin) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        options.users == 1 || options.user.contains("{}"),
        "--users {} needs a {{}} in --user, where the number goes",
        options.users
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let server = resolve(&options.server, options.port).await?;
            run::run(options, origin, server).await
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flow: Flow,
    }

    fn with(more: &[&str]) -> Result<Flow, clap::Error> {
        let words = ["x", "10.7.0.1", "--user", "u", "--password", "secret"];
        Cli::try_parse_from(words.iter().chain(more)).map(|cli| cli.flow)
    }

    #[test]
    fn there_is_one_far_end() {
        assert!(with(&[]).is_err());
        assert!(with(&["--network", "203.0.113.90", "--echo", "203.0.113.80:7"]).is_err());
        assert!(with(&["--echo", "203.0.113.80:7", "--way", "up"]).is_err());
        let echo = with(&["--echo", "203.0.113.80:7"]).unwrap();
        assert_eq!(echo.ways(), [Way::Echo]);
        let network = with(&["--network", "203.0.113.90"]).unwrap();
        assert_eq!(network.ways(), [Way::Up, Way::Down]);
        assert_eq!(network.size, [Size::Imix]);
    }

    #[test]
    fn rates_are_for_all_calls_or_for_each() {
        let far = ["--network", "203.0.113.90"];
        let with = |more: &[&str]| with(&[&far, more].concat());
        assert_eq!(with(&["--rate", "500"]).unwrap().rate_of(10), 500.0);
        assert_eq!(with(&["--call-rate", "500"]).unwrap().rate_of(10), 5000.0);
        assert!(with(&["--call-rate", "500", "--rate", "1"]).is_err());
        assert!(with(&["--rate", "0"]).is_err());
        let sizes = with(&["--size", "64,imix"]).unwrap().size;
        assert_eq!(sizes, [Size::Fixed(64), Size::Imix]);
        assert_eq!(with(&["--allow-loss", "0.1%"]).unwrap().allow_loss, 0.001);
        assert!(with(&["--allow-loss", "2"]).is_err());
    }

    #[test]
    fn users_take_turns() {
        let mut flow = with(&["--network", "203.0.113.90", "--users", "3"]).unwrap();
        assert!(run(&flow, Origin::default()).is_err());
        flow.user = "u{}".to_owned();
        assert_eq!(flow.user_of(4), "u1");
    }
}
