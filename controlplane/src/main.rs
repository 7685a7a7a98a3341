//! `turnpike`: the server and the commands that operate it.

use std::process::ExitCode;

use clap::Parser as _;
use turnpike_controlplane::cli::{self, Cli, Command, ConfigArgs, exit};
use turnpike_controlplane::{config, log, server};

/// The control plane allocates small things for every call; the workers allocate nothing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match &command {
        Command::Run(args) => run(args),
        Command::Check(args) => cli::check(args),
        Command::History(args) => cli::history(args),
        Command::Sessions(_) | Command::Stats(_) | Command::Kill(_) | Command::Capture(_) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(cli::ask(&command)),
                Err(error) => {
                    cli::complain(error);
                    ExitCode::from(exit::FAILED)
                }
            }
        }
    }
}

fn run(args: &ConfigArgs) -> ExitCode {
    let config::Loaded { config, warnings } = match config::load(&args.config) {
        Ok(loaded) => loaded,
        Err(faults) => {
            // As they are, so that editors and terminals find FILE:LINE.
            cli::complain(format_args!("the configuration has faults\n{faults}"));
            return ExitCode::from(exit::CONFIG);
        }
    };
    if let Err(error) = log::start(&config.log) {
        cli::complain(format_args!("cannot start the log: {error}"));
        return ExitCode::from(exit::FAILED);
    }
    let file = args.config.display().to_string();
    for warning in warnings.iter().chain(&config::machine(&config, &file)) {
        tracing::warn!("{warning}");
    }
    match server::run(&config) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(exit::FAILED)
        }
    }
}
