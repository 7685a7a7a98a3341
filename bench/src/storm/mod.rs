//! `turnpike-bench storm`: how many calls a second a server sets up, and how long each phase of it takes.
//!
//! Works against any PPTP server, from any Linux: GRE goes over raw sockets, and only PPP's control frames are looked at. A
//! call is measured from its TCP connection's first packet, so a server that is slow to accept cannot hide it; set-ups begin
//! when the rate says so, not when the server is done with the ones before, unless `--outstanding` holds them back, which is
//! then said.

mod calls;
pub(crate) mod report;
mod run;
mod wire;

use core::net::Ipv4Addr;
use core::time::Duration;

use clap::Args;
use turnpike_protocol::mppe::{Allowed, Stateful};

use crate::dial::{AuthChoice, MppeChoice, Outcome, StrengthChoice, positive, resolve, seconds};
use crate::report::Origin;

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
    /// Dial from these addresses in turn [default: Linux' choice]. One address has some 28,000 TCP ports, and each is
    /// taken for a minute after its connection
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub from: Vec<Ipv4Addr>,
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
    /// Give up a set-up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
    /// One JSON object at the end instead of text
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots, too, as `turnpike-bench report` makes it of the JSON
    #[arg(long, value_name = "FILE")]
    pub html: Option<std::path::PathBuf>,
}

impl Storm {
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

    /// The name of the user of a set-up.
    fn user_of(&self, number: u32) -> String {
        self.user.replace("{}", &(number % self.users).to_string())
    }
}

/// Runs a storm to its end, or until SIGINT or SIGTERM. `origin` becomes part of the report.
///
/// # Errors
/// When nothing can be dialled at all.
pub fn run(options: &Storm, origin: Origin) -> anyhow::Result<Outcome> {
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
        storm: Storm,
    }

    #[test]
    fn users_take_turns() {
        let words = ["x", "10.7.0.1", "--password", "secret"];
        let with = |more: &[&str]| Cli::parse_from(words.iter().chain(more)).storm;
        let many = with(&["--user", r"LAN\user{}", "--users", "3"]);
        let names: Vec<String> = (0..4).map(|number| many.user_of(number)).collect();
        assert_eq!(
            names,
            [r"LAN\user0", r"LAN\user1", r"LAN\user2", r"LAN\user0"]
        );
        let one = with(&["--user", "alice"]);
        assert_eq!(one.user_of(7), "alice");
        let many = with(&["--user", "alice", "--users", "3"]);
        assert!(run(&many, Origin::default()).is_err());
    }
}
