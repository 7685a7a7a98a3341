//! Whom to dial, as whom, and from where: options that all have who dial with raw sockets.

use core::net::Ipv4Addr;
use core::time::Duration;

use clap::Args;

use super::Sources;
use crate::dial::{AuthChoice, MppeChoice, StatefulChoice, StrengthChoice, seconds};

/// Whom to dial, as whom, and from where.
#[derive(Args, Clone)]
pub struct Dialling {
    /// The server: an IPv4 address, or a name that has one
    pub server: String,
    /// User name, perhaps with DOMAIN\ in front; {} stands for a number from 0 to --users less one
    #[arg(long, required_unless_present = "scenario")]
    pub user: Option<String>,
    /// How many users take turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// Password; other users of this machine can see it
    #[arg(long, required_unless_present_any = ["password_file", "scenario"])]
    pub password: Option<String>,
    /// File whose first line is the password
    #[arg(long, conflicts_with = "password")]
    pub password_file: Option<std::path::PathBuf>,
    /// A TOML file with groups of callers, each with what is different from these options: [[group]] with name, weight, user,
    /// users, password or password_file, auth, mppe, mppe_strength, mppe_stateful; bench/scenario.toml shows one
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<std::path::PathBuf>,
    /// Dial from these addresses and ranges (10.7.1.1-10.7.1.99) in turn [default: Linux' choice]. One address has some
    /// 28,000 TCP ports, and each is taken for a minute after its connection
    #[arg(long, value_name = "ADDRESS[-ADDRESS],...")]
    pub from: Option<Sources>,
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
    /// Whether keys may be stateful: changed every 256 packets in place of every packet
    #[arg(long, value_enum, default_value = "accept")]
    pub mppe_stateful: StatefulChoice,
    /// Give up a set-up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
}

impl Dialling {
    /// Where the caller with a number dials from; `None`: from Linux' choice.
    pub(crate) fn address_of(&self, number: u32) -> Option<Ipv4Addr> {
        self.from.as_ref()?.of(number.into())
    }

    /// All that are dialled from; none: Linux chooses.
    pub(crate) fn addresses(&self) -> &[Ipv4Addr] {
        self.from.as_ref().map_or(&[], Sources::all)
    }
}
