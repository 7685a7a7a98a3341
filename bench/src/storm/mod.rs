//! `turnpike-bench storm`: how many calls a second a server sets up, and how long each phase of it takes.
//!
//! A call is measured from its TCP connection's first packet, so a server that is slow to accept cannot hide it; set-ups begin
//! when the rate says so, not when the server is done with the ones before, unless `--outstanding` holds them back, which is
//! then said.

pub(crate) mod report;
mod run;

use core::net::SocketAddrV4;

use clap::Args;

use crate::dial::{Outcome, positive, resolve};
use crate::fleet::Dialling;
use crate::report::{Origin, Printing};

/// Set up calls at a rate, and measure each phase of it
///
/// Each set-up is a control connection with one call, as Windows does it. Once it is up it is hung up again, or kept until
/// all have been tried (--keep). Needs root (CAP_NET_RAW), and no other PPTP client on this machine.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench storm 10.7.0.1 --user test --password secret --calls 5000 --rate 500
      five thousand set-ups, ten seconds of them
  turnpike-bench storm 10.7.0.1 --user 'user{}' --users 1000 --password secret --calls 1000 --rate 200 --keep
      a thousand users who dial after a power cut, and stay
  turnpike-bench storm 10.7.0.1 --user test --password secret --from 10.7.1.1,10.7.1.2 --outstanding 64 --json
      as fast as sixty-four at a time can be answered, from two addresses

Exit status: 0 every call came up; 1 some did not (the reasons are printed); 2 nothing could be dialled (wrong usage, no
permission).")]
pub struct Storm {
    /// Whom, and as whom.
    #[command(flatten)]
    pub dialling: Dialling,
    /// How many set-ups in all
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// Set-ups begun per second [default: as many as --outstanding allows]
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// Most set-ups under way at a time
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub outstanding: u32,
    /// Hang up nobody before all set-ups have been tried
    #[arg(long)]
    pub keep: bool,
    /// How the report is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Runs a storm to its end, or until SIGINT or SIGTERM. `origin` becomes part of the report.
///
/// # Errors
/// When nothing can be dialled at all.
pub fn run(options: &Storm, origin: Origin) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let Dialling { server, port, .. } = &options.dialling;
            let server = SocketAddrV4::new(resolve(server, *port).await?, *port);
            run::run(options, origin, server).await
        })
}
