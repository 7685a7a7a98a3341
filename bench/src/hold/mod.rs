//! `turnpike-bench hold`: many calls stay up, and those that end are dialled again.

mod intervals;
mod keeper;
mod report;

use core::net::SocketAddrV4;
use core::time::Duration;

use clap::Args;

use crate::dial::{Outcome, positive, resolve, seconds};
use crate::fleet::Dialling;
use crate::monkey::Mischief;
use crate::report::{Origin, Printing};

pub use intervals::{Drift, Interval};
pub use report::{KindReport, MonkeyReport, Report};

/// How calls are kept up.
#[derive(Args, Clone)]
pub struct Keeping {
    /// How many calls
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub calls: u32,
    /// Set-ups begun per second, until all have dialled once
    #[arg(long, default_value = "100", value_parser = positive)]
    pub rate: f64,
    /// Most set-ups under way at a time
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub outstanding: u32,
    /// Send an LCP echo this often; a call ends when four in a row are not answered
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub echo_interval: Duration,
    /// How long to wait before dialling again after a call that ended, or never came up; half as much or as much again by
    /// chance, and twice as long after each time that failed
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub retry: Duration,
    /// The longest of these waits
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub retry_max: Duration,
    /// How long to wait at the end for those who are not up
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub grace: Duration,
}

/// Keep calls up for a time, and dial again those that end
///
/// Each call has a control connection of its own, as Windows does it, and answers the server's echoes as it sends its own.
/// When the time is over those who are not up are waited for (--grace), each call is asked for an LCP echo, and everybody hangs
/// up. The first SIGINT ends the time, the second the waiting. Needs root (CAP_NET_RAW), and no other PPTP client on this
/// machine.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench hold 10.7.0.1 --user 'user{}' --users 5000 --password secret --calls 5000 --rate 200 --seconds 600
      five thousand calls for ten minutes
  turnpike-bench hold 10.7.0.1 --user test --password secret --calls 20 --echo-interval 5 --json
      twenty calls until SIGINT, asked every five seconds whether they live

Exit status: 0 all calls were up at the end, and answered; 1 some were not (the reasons are printed); 2 nothing could be
dialled (wrong usage, no permission).")]
pub struct Hold {
    /// Whom, and as whom.
    #[command(flatten)]
    pub dialling: Dialling,
    /// How calls are kept up.
    #[command(flatten)]
    pub keeping: Keeping,
    /// How long, counted from when all have dialled once [default: until SIGINT]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// How the report is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// What calls are kept up for.
pub(crate) struct Plan<'a> {
    pub(crate) dialling: &'a Dialling,
    pub(crate) keeping: &'a Keeping,
    /// `None`: until told.
    pub(crate) seconds: Option<Duration>,
    /// What all chances follow from.
    pub(crate) seed: u64,
    pub(crate) mischief: Option<Mischief>,
    /// Of so long pieces the run is made, in what is said of it.
    pub(crate) interval: Option<Duration>,
    /// A process whose memory is looked at.
    pub(crate) watch: Option<u32>,
    pub(crate) printing: &'a Printing,
}

/// Holds calls to the end of the time, or until SIGINT or SIGTERM.
///
/// # Errors
/// When nothing can be dialled at all.
pub fn run(options: &Hold, origin: Origin) -> anyhow::Result<Outcome> {
    let plan = Plan {
        dialling: &options.dialling,
        keeping: &options.keeping,
        seconds: options.seconds,
        seed: getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?,
        mischief: None,
        interval: None,
        watch: None,
        printing: &options.printing,
    };
    keep(&plan, origin)
}

/// Carries out a plan and prints what came of it.
pub(crate) fn keep(plan: &Plan<'_>, origin: Origin) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let Dialling { server, port, .. } = plan.dialling;
            let server = SocketAddrV4::new(resolve(server, *port).await?, *port);
            keeper::run(plan, origin, server).await
        })
}
