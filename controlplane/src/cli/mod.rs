//! The command line.

mod args;
mod history;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::admin::{
    Client, Error, Request, Response, Selector, killed_text, sessions_text, stats_text,
};
use crate::config::{self, Finding};
use crate::pcapng::Blocks;

pub use args::{AskArgs, CaptureArgs, CheckArgs, ConfigArgs, HistoryArgs, KillArgs};
pub use history::history;

/// What the process answers to whoever started it.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// The operation failed, or there is no such call or session.
    pub const FAILED: u8 = 1;
    /// The command line makes no sense (clap's own number).
    pub const USAGE: u8 = 2;
    /// The configuration has faults.
    pub const CONFIG: u8 = 3;
    /// No server answers on the control socket.
    pub const UNREACHABLE: u8 = 4;
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the operation failed, or there is no such call or session
  2  the command line makes no sense
  3  the configuration has faults
  4  no server answers on the control socket";

/// A PPTP server whose packets go through AF_XDP.
///
/// PPTP is not private: whoever records a login can break it with one DES search. Use it to serve clients that speak
/// nothing else.
#[derive(Parser, Debug)]
#[command(name = "turnpike", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    #[command(after_help = "\
Every fault of the configuration is listed at once, with its line and what to write instead. On SIGTERM or SIGINT \
every client is told, and the XDP programs and the veth pair are removed. That takes five seconds at most.

Examples:
  turnpike run --config /etc/turnpike/turnpike.toml
  turnpike run --config examples/office.toml")]
    Run(ConfigArgs),

    /// Check a configuration without starting anything.
    #[command(after_help = "\
Prints all faults and warnings, one line each: FILE:LINE: what is wrong; what to write instead. Exit code 3 when \
there are faults; warnings alone are 0.

Examples:
  turnpike check --config /etc/turnpike/turnpike.toml
  turnpike check --config new.toml --json")]
    Check(CheckArgs),

    /// List the calls of a running server.
    #[command(after_help = "\
IN is from the client, OUT is to it; octets are those of inner packets. MPPE is given in bits for both directions, `f` \
behind it means that keys change every 256 packets instead of every packet. --json has everything that was \
negotiated and all counters.

Examples:
  turnpike sessions
  turnpike sessions --json | jq '.[] | select(.user == \"alice\") | .address'")]
    Sessions(AskArgs),

    /// Show counters: calls, packets and drops by reason for each worker, verdicts of the XDP program.
    #[command(after_help = "\
Counters run from the start of the server.

Examples:
  turnpike stats
  turnpike stats --json | jq '.workers[].drops'")]
    Stats(AskArgs),

    /// End calls.
    #[command(after_help = "\
The client is told that an operator ended the call. Exit code 1 when no call was meant.

Examples:
  turnpike kill --call 17
  turnpike kill --call 17@203.0.113.5
  turnpike kill --user alice
  turnpike kill --client 203.0.113.5
  turnpike kill --all")]
    Kill(KillArgs),

    /// Say who had which address when, from the accounting file.
    #[command(after_help = "\
Reads the file that the server writes where its configuration has an [accounting] section, whether the server runs or not. \
Everything that is given has to fit. Times are this machine's; TO is `up` for a call that goes on, and with `?` it is the last \
sign of life of a server that was killed and has not been started since. IN is from the client, OUT is to it, in octets of \
inner packets; END is the cause, which --json gives in words, too. Exit code 1 when no session fits.

Examples:
  turnpike history 10.20.3.4 --at 2026-11-03T14:05
  turnpike history 2001:db8:1:7::5 --since 2026-11-01
  turnpike history --user alice
  turnpike history --client 203.0.113.5 --failed --since 08:00
  turnpike history --since 2026-11-01 --until 2026-12-01 --limit 1000000 --json | jq '.[] | [.user, .seconds]'")]
    History(HistoryArgs),

    /// Record packets of calls into a pcapng file.
    #[command(after_help = "\
tcpdump does not see GRE that AF_XDP takes; this does. Interface `outer` of the file holds the frames as they came and \
went, interface `inner` the packets in clear. Calls that come up while the capture runs are included. End it with \
Ctrl-C: the file is whole at any time. Packets that the capture could not keep up with are counted in the file \
(frame.drop_count). Mind that the file holds what your users do in clear.

Examples:
  turnpike capture --call 17 -w call.pcapng
  turnpike capture --client 203.0.113.5 -w office.pcapng --seconds 60
  turnpike capture --client 10.20.0.10 -w - --packets 100 | tshark -r - -Y icmp")]
    Capture(CaptureArgs),
}

/// Prints to standard output. A reader who has gone (`| head`) is no failure.
fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints a line to standard error, as far as that is possible.
pub fn complain(text: impl core::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "turnpike: {text}");
}

fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    Ok(print(&(text + "\n"))?)
}

/// What `check --json` prints.
#[derive(serde::Serialize)]
struct Checked<'a> {
    faults: Vec<JsonFinding<'a>>,
    warnings: Vec<JsonFinding<'a>>,
}

#[derive(serde::Serialize)]
struct JsonFinding<'a> {
    file: &'a str,
    line: Option<usize>,
    what: &'a str,
    instead: &'a str,
}

fn json_findings(findings: &[Finding]) -> Vec<JsonFinding<'_>> {
    findings
        .iter()
        .map(|finding| JsonFinding {
            file: &finding.file,
            line: (finding.line > 0).then_some(finding.line),
            what: &finding.what,
            instead: &finding.instead,
        })
        .collect()
}

/// `turnpike check`.
pub fn check(args: &CheckArgs) -> ExitCode {
    let path = &args.file.config;
    let (faults, warnings) = match config::load(path) {
        Ok(loaded) => {
            let mut warnings = loaded.warnings;
            warnings.extend(config::machine(&loaded.config, &path.display().to_string()));
            (Vec::new(), warnings)
        }
        Err(config::Faults(faults)) => (faults, Vec::new()),
    };
    let printed = if args.json {
        print_json(&Checked {
            faults: json_findings(&faults),
            warnings: json_findings(&warnings),
        })
    } else {
        let mut lines: Vec<_> = faults.iter().map(|fault| format!("{fault}\n")).collect();
        lines.extend(
            warnings
                .iter()
                .map(|warning| format!("warning: {warning}\n")),
        );
        if faults.is_empty() {
            lines.push(format!("{}: good\n", path.display()));
        }
        print(&lines.concat()).map_err(Error::from)
    };
    match (printed, faults.is_empty()) {
        (Err(error), _) => {
            complain(error);
            ExitCode::from(exit::FAILED)
        }
        (Ok(()), true) => ExitCode::from(exit::OK),
        (Ok(()), false) => ExitCode::from(exit::CONFIG),
    }
}

/// `turnpike sessions`, `stats`, `kill` and `capture`. The others are not asked of a server: they
/// are done at once, with nothing.
pub async fn ask(command: &Command) -> ExitCode {
    let result = match command {
        Command::Sessions(args) => sessions(args).await,
        Command::Stats(args) => stats(args).await,
        Command::Kill(args) => kill(args).await,
        Command::Capture(args) => capture(args).await,
        Command::Run(_) | Command::Check(_) | Command::History(_) => Ok(exit::OK),
    };
    let code = result.unwrap_or_else(|error| {
        complain(&error);
        match error {
            Error::Unreachable { .. } => exit::UNREACHABLE,
            Error::Broken(_) | Error::Refused(_) | Error::Confused | Error::NotACapture(_) => {
                exit::FAILED
            }
        }
    });
    ExitCode::from(code)
}

async fn ask_one(socket: &Path, request: &Request) -> Result<Response, Error> {
    Client::connect(socket).await?.ask(request).await
}

async fn sessions(args: &AskArgs) -> Result<u8, Error> {
    let Response::Sessions(sessions) = ask_one(&args.socket, &Request::Sessions).await? else {
        return Err(Error::Confused);
    };
    if args.json {
        print_json(&sessions)?;
    } else {
        print(&sessions_text(&sessions))?;
    }
    Ok(exit::OK)
}

async fn stats(args: &AskArgs) -> Result<u8, Error> {
    let Response::Stats(stats) = ask_one(&args.socket, &Request::Stats).await? else {
        return Err(Error::Confused);
    };
    if args.json {
        print_json(&stats)?;
    } else {
        print(&stats_text(&stats))?;
    }
    Ok(exit::OK)
}

async fn kill(args: &KillArgs) -> Result<u8, Error> {
    let calls = args.calls.selector();
    let everything = calls == Selector::All;
    let Response::Killed(killed) = ask_one(&args.ask.socket, &Request::Kill { calls }).await?
    else {
        return Err(Error::Confused);
    };
    if args.ask.json {
        print_json(&killed)?;
    } else {
        print(&killed_text(&killed))?;
    }
    if killed.is_empty() && !everything {
        complain("there is no such call; `turnpike sessions` lists those there are");
        return Ok(exit::FAILED);
    }
    Ok(exit::OK)
}

/// What `capture --json` prints in the end.
#[derive(serde::Serialize)]
struct CaptureSummary {
    packets: u64,
    /// Packets between them that the capture could not keep up with.
    lost: u64,
    /// Size of what was written.
    octets: u64,
}

async fn capture(args: &CaptureArgs) -> Result<u8, Error> {
    let mut client = Client::connect(&args.ask.socket).await?;
    let request = Request::Capture {
        calls: args.calls.selector(),
    };
    // The server is asked first: no file is made, or emptied, for a capture that cannot be.
    let Response::Capturing = client.ask(&request).await? else {
        return Err(Error::Confused);
    };
    let standard_output = args.write.as_os_str() == "-";
    // Written without waiting for anything else: there is nothing else to do here but to look for a signal, and a
    // block that was begun is finished first.
    let mut file: Box<dyn std::io::Write> = if standard_output {
        Box::new(std::io::stdout())
    } else {
        Box::new(create(&args.write)?)
    };
    let mut summary = CaptureSummary {
        packets: 0,
        lost: 0,
        octets: 0,
    };
    let stop = stop_signal(args.seconds)?;
    tokio::pin!(stop);
    let mut blocks = Blocks::default();
    'capture: loop {
        let whole = tokio::select! {
            () = &mut stop => break,
            whole = client.blocks(&mut blocks) => whole?,
        };
        if whole.is_empty() {
            complain("the server ended the capture");
            break;
        }
        for block in whole {
            match file.write_all(&block.octets) {
                Err(error) if standard_output && error.kind() == std::io::ErrorKind::BrokenPipe => {
                    break 'capture;
                }
                result => result?,
            }
            summary.octets += block.octets.len() as u64;
            summary.lost += block.lost;
            summary.packets += u64::from(block.is_packet);
            if args.packets == Some(summary.packets) {
                break 'capture;
            }
        }
        // Whoever looks at the file while it grows sees all that came.
        let _ = file.flush();
    }
    let _ = file.flush();
    let CaptureSummary {
        packets,
        lost,
        octets,
    } = summary;
    let mut text = format!("{packets} packets");
    if lost > 0 {
        text += &format!(" ({lost} more were lost)");
    }
    match (standard_output, args.ask.json) {
        (true, _) => complain(text),
        (false, true) => print_json(&summary)?,
        (false, false) => print(&format!(
            "{text}, {octets} octets in {}\n",
            args.write.display()
        ))?,
    }
    Ok(exit::OK)
}

/// Makes the file; only its owner may read what users do in clear.
fn create(path: &Path) -> Result<std::fs::File, Error> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", path.display())).into()
    })
}

/// Ends at SIGINT, at SIGTERM or when the time is up.
fn stop_signal(seconds: Option<u64>) -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let time = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(core::time::Duration::from_secs(seconds)).await,
                None => core::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = time => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use std::net::Ipv4Addr;

    use crate::admin::Selector;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let mut examples = 0;
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            assert!(
                help.contains("Examples:"),
                "{} has none",
                command.get_name()
            );
            for line in help.lines().map(str::trim) {
                if let Some((line, _)) = line
                    .strip_prefix("turnpike ")
                    .map(|rest| rest.split_once(" |").unwrap_or((rest, "")))
                {
                    examples += 1;
                    if let Err(error) = parse(&format!("turnpike {line}")) {
                        panic!("{line}: {error}");
                    }
                }
            }
        }
        assert!(examples >= 12, "{examples}");
    }

    #[test]
    fn calls_are_named_in_one_way() {
        for line in [
            "turnpike kill",
            "turnpike kill --call 1 --user alice",
            "turnpike kill --call 65536",
            "turnpike kill --call 17@",
            "turnpike kill --call 17@nowhere",
            "turnpike kill --call @10.0.0.1",
            "turnpike kill --client nowhere",
            "turnpike capture --call 1",
            "turnpike capture -w file",
            "turnpike capture --call 1 --client 10.0.0.1 -w file",
            "turnpike capture --call 1 -w file --packets 0",
            "turnpike",
        ] {
            let error = parse(line).err().unwrap();
            assert_eq!(error.exit_code(), i32::from(exit::USAGE), "{line}");
        }
        for (name, client) in [
            ("17", None),
            ("17@10.0.0.1", Some(Ipv4Addr::new(10, 0, 0, 1))),
        ] {
            let line = format!("turnpike kill --call {name}");
            let Command::Kill(args) = parse(&line).unwrap().command else {
                panic!("not kill");
            };
            assert_eq!(args.calls.selector(), Selector::Call { id: 17, client });
        }
        let Command::Kill(args) = parse("turnpike kill --client 10.0.0.1").unwrap().command else {
            panic!("not kill");
        };
        assert_eq!(
            args.calls.selector(),
            Selector::Client(Ipv4Addr::new(10, 0, 0, 1))
        );
    }
}
