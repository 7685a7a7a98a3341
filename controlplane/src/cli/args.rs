//! What each command takes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::accounting::{Moment, Question};
use crate::admin::Selector;
use crate::config::DEFAULT_LEDGER;

/// Where the configuration is.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The configuration file (see examples/office.toml, which explains every key)
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/turnpike/turnpike.toml"
    )]
    pub config: PathBuf,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub file: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of every command that asks a server.
#[derive(Args, Debug)]
pub struct AskArgs {
    /// The server's control socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/turnpike/turnpike.sock"
    )]
    pub socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `kill`.
#[derive(Args, Debug)]
pub struct KillArgs {
    /// Which calls.
    #[command(flatten)]
    pub calls: KillSelector,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// A call as operators name it: its id, and where ids repeat its client's outer address behind an `@`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallName {
    /// The id we chose.
    pub id: u16,
    /// The client's outer address.
    pub client: Option<Ipv4Addr>,
}

impl core::str::FromStr for CallName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, client) = match text.split_once('@') {
            Some((id, client)) => (id, Some(client)),
            None => (text, None),
        };
        let id = id
            .parse()
            .map_err(|_| "write an id from 1 to 65535, such as 17")?;
        let client = client.map(str::parse).transpose();
        let client = client.map_err(|_| "write the client's IPv4 address behind the @")?;
        Ok(Self { id, client })
    }
}

impl From<CallName> for Selector {
    fn from(CallName { id, client }: CallName) -> Self {
        Self::Call { id, client }
    }
}

/// Which calls to end.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct KillSelector {
    /// The call with this id (first column of `turnpike sessions`); where ids repeat, of this client
    #[arg(long, value_name = "ID[@CLIENT]")]
    pub call: Option<CallName>,
    /// All calls of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// All calls of the client with this outer or inner address
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<Ipv4Addr>,
    /// Every call
    #[arg(long)]
    pub all: bool,
}

impl KillSelector {
    pub(super) fn selector(&self) -> Selector {
        // The group sees to it that exactly one is given.
        match (self.call, &self.user, self.client) {
            (Some(call), ..) => call.into(),
            (_, Some(name), _) => Selector::User(name.clone()),
            (.., Some(address)) => Selector::Client(address),
            (None, None, None) => Selector::All,
        }
    }
}

/// Arguments of `capture`.
#[derive(Args, Debug)]
pub struct CaptureArgs {
    /// Which calls.
    #[command(flatten)]
    pub calls: CaptureSelector,
    /// The file to write; `-` for standard output
    #[arg(long, short, value_name = "FILE")]
    pub write: PathBuf,
    /// Stop after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// Stop after so many packets; outer and inner ones count each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub packets: Option<u64>,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Which calls to record.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct CaptureSelector {
    /// The call with this id (first column of `turnpike sessions`); where ids repeat, of this client
    #[arg(long, value_name = "ID[@CLIENT]")]
    pub call: Option<CallName>,
    /// All calls of the client with this outer or inner address
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<Ipv4Addr>,
}

impl CaptureSelector {
    pub(super) fn selector(&self) -> Selector {
        match (self.call, self.client) {
            (Some(call), _) => call.into(),
            (None, Some(address)) => Selector::Client(address),
            (None, None) => Selector::All,
        }
    }
}

/// Arguments of `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Sessions that had this inner address; of IPv6, in one of their prefixes
    #[arg(value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// Sessions of this user, as `turnpike sessions` shows it
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Sessions of the client with this outer address
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<Ipv4Addr>,
    /// Sessions that were up at this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<Moment>,
    /// Sessions that were not over before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Moment>,
    /// Sessions that had begun by this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<Moment>,
    /// Show failed attempts, too (kept where `failures` in [accounting] is true)
    #[arg(long)]
    pub failed: bool,
    /// Show the latest so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// The server's accounting file (`file` in [accounting])
    #[arg(long, value_name = "FILE", default_value = DEFAULT_LEDGER)]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl HistoryArgs {
    pub(super) fn question(&self) -> Question {
        Question {
            address: self.address,
            user: self.user.clone(),
            client: self.client,
            at: self.at,
            since: self.since,
            until: self.until,
            failed: self.failed,
            limit: self.limit,
        }
    }
}

/// A time: with its distance from UTC, or by this machine's clock, where the day may be left out.
fn time(text: &str) -> Result<Moment, &'static str> {
    let local = |civil: civil::DateTime| civil.to_zoned(TimeZone::system()).ok();
    let read = || {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Some(at);
        }
        let zoned = match (text.parse::<civil::DateTime>(), text.parse::<civil::Time>()) {
            (Ok(at), _) => local(at),
            (_, Ok(at)) => local(jiff::Zoned::now().date().to_datetime(at)),
            (Err(_), Err(_)) => None,
        };
        zoned.map(|zoned| zoned.timestamp())
    };
    read()
        .map(|at| Moment(at.as_millisecond()))
        .ok_or("write a time such as \"2026-11-03 14:05\", \"14:05\" (today), 2026-11-03 (its first moment) or 2026-11-03T14:05:00Z")
}
