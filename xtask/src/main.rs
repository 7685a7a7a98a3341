//! Chores of the project.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Watch a PPTP call come up through AF_XDP and carry data, in namespaces of this machine
    Demo(xtask::demo::Args),
    /// Run everything that has to hold: demo, lints, house rules, all tests; ends with a summary
    Test(xtask::testing::Args),
    /// What .ci/run calls: the same as test
    Ci(xtask::testing::Args),
    /// Check the house rules: arrows between crates, unsafe, file length, licences, the XDP object
    Tidy,
    /// Install binaries, XDP object, configuration and systemd unit under a folder
    Deploy(xtask::deploy::Args),
    /// Give every parser, and whole calls, broken input for as long as you like
    Fuzz(xtask::fuzz::Args),
    /// Measure everything that is measured, and write RESULTS.md with tables and plots
    Bench(xtask::bench::Args),
    /// Play all scripted clients and write the README's table of them
    Table,
    /// Build the XDP program and replace the committed object (needs bpf-linker and rust-src)
    Ebpf(xtask::ebpf::Args),
    /// Parts of the laboratory that run as processes of their own
    #[command(subcommand, hide = true)]
    Lab(Part),
}

#[derive(Subcommand)]
enum Part {
    /// One call of the stock client, inside a guest
    Call { orders: PathBuf },
    /// The stock server, inside a guest
    Serve { orders: PathBuf },
    /// One suite of bench, in namespaces
    Measure(xtask::bench::storms::Measure),
}

fn main() -> ExitCode {
    if std::process::id() == 1
        && let Some(orders) = std::env::var_os(xtask::lab::guest::ORDERS)
    {
        xtask::lab::inside::init(orders.as_ref());
    }
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let result = match arguments.chore {
        Chore::Demo(args) => xtask::demo::run(&args),
        Chore::Test(args) | Chore::Ci(args) => match xtask::testing::run(&args, root) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Chore::Tidy => xtask::tidy::run(root).map(|found| say(&found)),
        Chore::Deploy(args) => xtask::deploy::run(&args, root).map(|files| {
            for file in files {
                let note = if file.kept_old {
                    " (yours was left alone)"
                } else {
                    ""
                };
                say(&format!("installed {}{note}", file.path.display()));
            }
        }),
        Chore::Fuzz(args) => match xtask::fuzz::run(&args, root) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Chore::Bench(args) => match xtask::bench::run(&args, root) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Chore::Table => xtask::table::run(root).map(|()| say("README.md has what was found")),
        Chore::Ebpf(args) => xtask::ebpf::run(&args, root),
        Chore::Lab(Part::Call { orders }) => xtask::lab::inside::call(&orders),
        Chore::Lab(Part::Serve { orders }) => xtask::lab::stock_server::serve(&orders),
        Chore::Lab(Part::Measure(measure)) => xtask::bench::storms::run(&measure),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            if error.is::<xtask::ebpf::Missing>() {
                return ExitCode::from(xtask::ebpf::MISSING_TOOL);
            }
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "what a chore has to say")]
fn say(line: &str) {
    println!("{line}");
}
