//! `turnpike-bench soak`: hours of calls that come and go, and what changes in the course of them.

use core::time::Duration;

use clap::Args;

use crate::dial::{Outcome, seconds};
use crate::fleet::Dialling;
use crate::hold::{Keeping, Plan, keep};
use crate::monkey::Chances;
use crate::report::{Origin, Printing};

/// Let calls come and go for hours, and see what changes
///
/// As monkey, but rarely for each call; and every --interval a line on standard error says how many calls were up, how long
/// set-ups and echoes took, and how much memory the server has if it runs on this machine (--watch). What is different in the
/// last third of the time is said at the end. Needs root (CAP_NET_RAW), and no other PPTP client on this machine.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench soak 10.7.0.1 --user 'user{}' --users 2000 --password secret --calls 2000 --rate 200 --seconds 28800
      a night with two thousand calls
  turnpike-bench soak 10.7.0.1 --user test --password secret --calls 100 --every 60 --watch $(pidof turnpike) --json
      an hour, with the server's memory

Exit status: 0 all calls were back at the end, and answered; 1 some were not (the reasons are printed); 2 nothing could be
dialled (wrong usage, no permission).")]
pub struct Soak {
    /// Whom, and as whom.
    #[command(flatten)]
    pub dialling: Dialling,
    /// How calls are kept up.
    #[command(flatten)]
    pub keeping: Keeping,
    /// How long, counted from when all have dialled once
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub seconds: Duration,
    /// How often a line is written
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub interval: Duration,
    /// Look at the memory of this process each time
    #[arg(long, value_name = "PROCESS ID")]
    pub watch: Option<u32>,
    /// The mean time from a call's coming up to what happens to it
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub every: Duration,
    /// What happens.
    #[command(flatten)]
    pub chances: Chances,
    /// How the report is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Runs to its end, or until SIGINT or SIGTERM.
///
/// # Errors
/// When nothing can be dialled at all.
pub fn run(options: &Soak, origin: Origin) -> anyhow::Result<Outcome> {
    anyhow::ensure!(
        options.interval >= Duration::from_secs(1),
        "--interval must be a second or more"
    );
    let (seed, mischief) = options.chances.mischief(options.every)?;
    keep(
        &Plan {
            dialling: &options.dialling,
            keeping: &options.keeping,
            seconds: Some(options.seconds),
            seed,
            mischief: Some(mischief),
            interval: Some(options.interval),
            watch: options.watch,
            printing: &options.printing,
        },
        origin,
    )
}
