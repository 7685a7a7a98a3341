//! `cargo xtask demo`: a whole PPTP call through AF_XDP, in namespaces, with proofs.

mod account;
mod call;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

pub use account::{Account, Call};

use crate::console::Console;
use crate::lab::road::{self, ClientSide, Road};
use crate::lab::server::Configuration;
use crate::lab::{build, needs, target};

/// Options of `cargo xtask demo`.
#[derive(clap::Args, Debug, Clone)]
#[command(after_help = "\
Makes four network namespaces (client, access network with a bridge, concentrator, internet), starts turnpike in one \
of them, dials it twice (once without encryption, to prove that the search for plaintext finds something, then with \
MPPE-128), moves TCP through the tunnel both ways, checks the hashes at both ends, and counts every GRE packet on the \
bridge against the AF_XDP counters. Missing Debian packages are installed. Nothing is left behind, also after Ctrl-C.\n\n\
Examples:\n  \
    cargo xtask demo                   the built-in client, 1 GiB each way\n  \
    cargo xtask demo --client linux    stock pptp-linux and pppd in a User Mode Linux guest, 100 MB each way\n  \
    cargo xtask demo --json            the result as one JSON document on standard output")]
pub struct Args {
    /// Who dials
    #[arg(long, value_enum, default_value_t = ClientKind::Builtin)]
    pub client: ClientKind,
    /// Octets each way in the encrypted call, in MiB (default 1024; with --client linux 96, which is 100 MB)
    #[arg(long, value_name = "MIB")]
    pub size: Option<u64>,
    /// Print one JSON document on standard output; the steps go to standard error
    #[arg(long)]
    pub json: bool,
}

/// Who dials in a demo.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// turnpike-bench dial
    Builtin,
    /// pptp-linux and pppd in a guest
    Linux,
}

impl ClientKind {
    /// MiB each way when nothing is said; 96 MiB are a little more than 100 MB.
    fn size(self) -> u64 {
        match self {
            Self::Builtin => 1024,
            Self::Linux => 96,
        }
    }
}

/// What a demo showed.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Who dialled.
    pub client: ClientKind,
    /// How XDP is attached, port by port.
    pub xdp: Vec<String>,
    /// The call without encryption.
    pub clear: Call,
    /// The call with MPPE-128.
    pub encrypted: Call,
    /// From the first namespace to the last.
    pub seconds: f64,
}

/// Octets each way in the call without encryption.
const CLEAR: u64 = 16 << 20;

/// Runs `cargo xtask demo`.
pub fn run(args: &Args) -> Result<()> {
    let console = Console::new(args.json);
    let mut wanted = needs::NAMESPACES.to_vec();
    if args.client == ClientKind::Linux {
        wanted.extend(needs::GUESTS);
    }
    needs::install(&wanted, &mut |line| console.line(line))?;
    if std::env::var_os("TURNPIKE_BIN_DIR").is_none() {
        console.line("building turnpike and turnpike-bench (release)");
        build(true)?;
    }
    if !needs::is_root() {
        return again_as_root();
    }
    let outcome = show(args, console)?;
    report(&outcome, console);
    console.document(&outcome);
    Ok(())
}

/// Starts this program again behind sudo, with what has just been built.
fn again_as_root() -> Result<()> {
    let own = std::env::current_exe().context("path of this program")?;
    let directory = match std::env::var_os("TURNPIKE_BIN_DIR") {
        Some(directory) => directory,
        None => target(true)?.into_os_string(),
    };
    let status = needs::as_root("env")?
        .arg({
            let mut word = std::ffi::OsString::from("TURNPIKE_BIN_DIR=");
            word.push(directory);
            word
        })
        .arg(own)
        .args(std::env::args_os().skip(1))
        .status()?;
    ensure!(status.success(), "the demo failed");
    Ok(())
}

fn show(args: &Args, console: Console) -> Result<Outcome> {
    let began = Instant::now();
    let side = match args.client {
        ClientKind::Builtin => ClientSide::Namespace,
        ClientKind::Linux => ClientSide::Guest,
    };
    let road = Road::build(side)?;
    console.line(format!(
        "four namespaces: client {} - access network ({}) - concentrator {} | {} - internet {}",
        road::CLIENT,
        road::BRIDGE,
        road::SERVER,
        road::OUTSIDE,
        road::TARGET
    ));
    let encrypted = Configuration::example("office", road.lab.directory())?;
    let mut clear = encrypted.clone();
    clear.change("auth.mppe", "allow")?;
    let bytes = args.size.unwrap_or(args.client.size()) << 20;

    let stage = call::Stage {
        road: &road,
        kind: args.client,
        console,
    };
    console.line("a call without encryption, as a control: can the capture find plaintext at all?");
    let clear = stage.call(&clear, false, CLEAR.min(bytes))?;
    clear.check()?;
    console.line("a call with MPPE-128, with examples/office.toml as it stands");
    let encrypted = stage.call(&encrypted, true, bytes)?;
    encrypted.check()?;
    drop(road);
    Ok(Outcome {
        client: args.client,
        xdp: encrypted.xdp.clone(),
        clear,
        encrypted,
        seconds: Duration::as_secs_f64(&began.elapsed()),
    })
}

fn report(outcome: &Outcome, console: Console) {
    console.line("");
    console.line(format!("XDP            {}", outcome.xdp.join("; ")));
    let call = &outcome.encrypted;
    console.line(format!("negotiated     {}", call.negotiated));
    console.line(format!(
        "ping           {} of {} answered, {:.2} ms",
        call.ping.received, call.ping.sent, call.ping.average_ms
    ));
    for stream in &call.streams {
        console.line(format!(
            "{:<15}{} MiB in {:.1} s, {:.0} Mbit/s, SHA-256 {}... the same at both ends",
            stream.name(),
            stream.here.bytes >> 20,
            stream.here.seconds,
            stream.here.megabits(),
            &stream.here.sha256[..16],
        ));
    }
    for (name, call) in [("without MPPE", &outcome.clear), ("with MPPE", call)] {
        let account = &call.account;
        console.line(format!(
            "{name:<15}{} GRE packets to the server, {} from it on the bridge, as AF_XDP counts; marker found in {}",
            account.bridge_to_server, account.bridge_from_server, account.markers
        ));
    }
    let drops: Vec<String> = call
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    console.line(format!(
        "drops          {}",
        if drops.is_empty() {
            "none".to_owned()
        } else {
            drops.join(", ")
        }
    ));
    console.line(format!(
        "all shown in {:.0} s; nothing is left behind",
        outcome.seconds
    ));
}
