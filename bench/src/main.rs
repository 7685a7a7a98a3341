//! The load generator's command line.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use turnpike_bench::compare::{self, Compare};
use turnpike_bench::dial::{self, Dial, Outcome};
use turnpike_bench::flood::{self, Flood};
use turnpike_bench::flow::{self, Flow};
use turnpike_bench::hold::{self, Hold};
use turnpike_bench::monkey::{self, Monkey};
use turnpike_bench::report::{self, Origin, ReportFile};
use turnpike_bench::road::{self, Road};
use turnpike_bench::soak::{self, Soak};
use turnpike_bench::storm::{self, Storm};
use turnpike_bench::traffic;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Built-in PPTP client and load generator of turnpike.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    Dial(Box<Dial>),
    Storm(Box<Storm>),
    Hold(Box<Hold>),
    Monkey(Box<Monkey>),
    Soak(Box<Soak>),
    Flow(Box<Flow>),
    Road(Box<Road>),
    Report(ReportFile),
    Compare(Compare),
    /// Send every numbered datagram of `dial --traffic` back to where it came from
    ///
    /// Runs until SIGINT or SIGTERM, then prints what it saw as JSON.
    Echo {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7000")]
        listen: SocketAddrV4,
    },
    /// Send GRE for calls that nobody has, as fast as asked
    ///
    /// With --interface whole frames leave over AF_XDP, more than by way of a raw socket, which is what
    /// it takes otherwise. Needs root. Prints what was sent and what was refused as JSON.
    Flood {
        /// The server
        target: Ipv4Addr,
        /// Network interface that leads to the server, to send over AF_XDP [default: a raw socket]
        #[arg(long)]
        interface: Option<String>,
        /// Packets per second [default: as many as one core can]
        #[arg(long)]
        rate: Option<u64>,
        /// How long
        #[arg(long, default_value = "5")]
        seconds: f64,
        /// Octets of each GRE payload
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=1400))]
        size: u16,
        /// First call id; choose a range that no call has
        #[arg(long, default_value_t = 60_000)]
        first_id: u16,
        /// Last call id
        #[arg(long, default_value_t = 65_535)]
        last_id: u16,
        /// Send from this processor [default: the system decides]
        #[arg(long)]
        cpu: Option<usize>,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("TURNPIKE_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .init();
    let (mode, origin) = parse();
    match run(mode, origin) {
        Ok(Outcome::AllGood) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Err(error) => {
            // Nothing to be done about a stderr that is gone.
            let _ = writeln!(std::io::stderr(), "turnpike-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What is asked for, and what a report says of where it comes from.
fn parse() -> (Mode, Origin) {
    let command = Cli::command();
    let matches = command.clone().get_matches();
    let origin = matches
        .subcommand()
        .and_then(|(name, matches)| Some(Origin::now(command.find_subcommand(name)?, matches)))
        .unwrap_or_default();
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => (cli.mode, origin),
        Err(error) => error.exit(),
    }
}

fn run(mode: Mode, origin: Origin) -> anyhow::Result<Outcome> {
    match mode {
        Mode::Dial(options) => dial::run(&options),
        Mode::Flow(options) => flow::run(&options, origin),
        Mode::Road(options) => road::run(&options, origin),
        Mode::Storm(options) => storm::run(&options, origin),
        Mode::Hold(options) => hold::run(&options, origin),
        Mode::Monkey(options) => monkey::run(&options, origin),
        Mode::Compare(options) => compare::run(&options),
        Mode::Report(options) => report::run(&options).map(|()| Outcome::AllGood),
        Mode::Soak(options) => soak::run(&options, origin),
        Mode::Echo { listen } => {
            let report = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(async {
                    let mut interrupt = signal(SignalKind::interrupt())?;
                    let mut terminate = signal(SignalKind::terminate())?;
                    let ready = || {
                        let _ = writeln!(std::io::stderr(), "listening on {listen}");
                    };
                    traffic::echo(listen, ready, async {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                        }
                    })
                    .await
                })?;
            print(&report)
        }
        Mode::Flood {
            target,
            interface,
            rate,
            seconds,
            size,
            first_id,
            last_id,
            cpu,
        } => {
            anyhow::ensure!(
                first_id <= last_id,
                "--first-id must not be above --last-id"
            );
            let report = flood::run(&Flood {
                target,
                interface,
                rate,
                time: Duration::try_from_secs_f64(seconds)?,
                size,
                ids: (first_id, last_id),
                cpu,
            })?;
            print(&report)
        }
    }
}

fn print(report: &impl serde::Serialize) -> anyhow::Result<Outcome> {
    let text = serde_json::to_string(report)?;
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(Outcome::AllGood)
}
