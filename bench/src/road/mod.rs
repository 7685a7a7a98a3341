//! `turnpike-bench road`: how fast turnpike's worker forwards, beside others on the same ports in the same run.
//!
//! ```text
//!  clients' namespace          this one: the device under test             network's namespace
//!  made and counted here  ---- access    l2fwd, turnpike, Linux    uplink ----  made and counted here
//! ```
//!
//! Packets are made in the kernel ([`meter`]), on a processor of their own, faster than anybody here forwards them; who
//! forwards them has another one for itself. What arrives is counted at the other end, by no one of them, and one in 256 packets is
//! compared octet by octet with what it should be. Contenders take turns, so that what else the machine does hits all of them.

mod cipher;
mod device;
mod meter;
mod packets;
mod peers;
pub mod places;
mod report;
mod stage;

use core::time::Duration;

use clap::Args;

use self::places::Elsewhere;
use self::report::{Contender, Report};
use self::stage::Stage;
use crate::dial::Outcome;
use crate::report::Origin;

/// Measure how fast turnpike's worker forwards, beside a bare AF_XDP loop on the same ports
///
/// Runs in the namespace of the device under test, with its two interfaces, and makes and counts packets at their other ends, in two
/// more namespaces. `cargo xtask bench --only road` builds all three.
#[derive(Args, Clone)]
#[command(after_help = "\
Sizes are octets of the inner IP packet: what a client's programs send. The frame on the way is 14 octets longer (Ethernet), in a
tunnel 47 (Ethernet 14, IPv4 20, GRE 12, PPP 1), with MPPE 51.

Contenders (up: from clients to the network, out of tunnels; down: into them):
  l2fwd        a loop that receives from one AF_XDP socket and sends to the other: what the kernel allows
  l2fwd+copy   the same, with each frame copied, as between ports that share no memory
  l2fwd+header l2fwd with a header in front, as long as a tunnel's
  clear, mppe  turnpike's worker, up and down, over --calls calls
  cipher       MPPE's cipher alone, without packets coming or going
  linux        Linux' own forwarding, of the same packets as l2fwd, on the same processor
  tun          a server in user space: raw GRE socket (recvmmsg, sendmmsg) and a tun device, clear, up and down

After the rates: what l2fwd and turnpike lose at 0.4 of l2fwd's rate; how long packets take at 10, 50 and 90 % of the most that
turnpike forwards, from when they were due, beside l2fwd at the same rates; and how long those of 1,000 calls take beside one that sends
nine times as much as all of them.

Examples:
  ip netns exec dut turnpike-bench road --clients left/c0 --network right/n0 --access wan0 --uplink net0
      all of them with packets of 64 and of 1400 octets
  ip netns exec dut turnpike-bench road --clients left/c0 --network right/n0 --access wan0 --uplink net0 \\
      --size 576 --rounds 3 --only l2fwd,mppe-down --json
      two of them, as JSON

Exit status: 0 measured; 1 measured, and a target was missed; 2 not measured.")]
pub struct Road {
    /// Namespace and interface at the other end of the access interface
    #[arg(long, value_name = "NAMESPACE/INTERFACE")]
    pub clients: Elsewhere,
    /// Namespace and interface at the other end of the uplink
    #[arg(long, value_name = "NAMESPACE/INTERFACE")]
    pub network: Elsewhere,
    /// The interface that tunnels come by
    #[arg(long, value_name = "INTERFACE")]
    pub access: String,
    /// The interface towards the network
    #[arg(long, value_name = "INTERFACE")]
    pub uplink: String,
    /// Octets of inner packets
    #[arg(long, value_name = "OCTETS", value_delimiter = ',', default_value = "64,1400",
          value_parser = clap::value_parser!(u16).range(40..=1400))]
    pub size: Vec<u16>,
    /// Calls that packets belong to, one after the other
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub calls: u16,
    /// How often each contender has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// How long a turn is
    #[arg(long, default_value_t = 0.5)]
    pub seconds: f64,
    /// Processor that makes packets
    #[arg(long, default_value_t = 0)]
    pub generator_cpu: usize,
    /// Processor that forwards them
    #[arg(long, default_value_t = 1)]
    pub cpu: usize,
    /// How long to look for losses; 0: not at all
    #[arg(long, default_value_t = 10.0)]
    pub loss_seconds: f64,
    /// How long to look how long packets take, at each rate; 0: not at all
    #[arg(long, default_value_t = 1.0)]
    pub latency_seconds: f64,
    /// Only these contenders
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Contender>,
    /// One JSON object at the end instead of text
    #[arg(long)]
    pub json: bool,
}

/// Measures everything that is asked for. `origin` becomes part of the report.
///
/// # Errors
/// When something cannot be measured, or when what arrives is not what should.
pub fn run(options: &Road, origin: Origin) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        options.cpu != options.generator_cpu,
        "who makes packets and who forwards them need a processor each"
    );
    let time = Duration::try_from_secs_f64(options.seconds)?;
    anyhow::ensure!(
        (Duration::from_millis(100)..=Duration::from_secs(60)).contains(&time),
        "a turn takes 0.1 to 60 seconds"
    );
    let later = [options.loss_seconds, options.latency_seconds];
    let [loss, latency] = later.map(Duration::try_from_secs_f64);
    let (loss, latency) = (loss?, latency?);
    let stage = Stage::open(options, time)?;
    let mut report = Report::new(options, origin);
    for &size in &options.size {
        stage.rates(size, &mut report)?;
    }
    for &size in &options.size {
        if !loss.is_zero() {
            stage.losses(size, loss, &mut report)?;
        }
        if !latency.is_zero() {
            stage.latencies(size, latency, &mut report)?;
        }
    }
    if !latency.is_zero()
        && let Some(&size) = options.size.first()
    {
        stage.mice(size, latency, &mut report)?;
    }
    report.judge();
    if options.json {
        report.print_json()?;
    } else {
        report.print()?;
    }
    Ok(report.outcome())
}
