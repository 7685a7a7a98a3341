//! Whom to dial, as whom, and from where: options that all have who dial with raw sockets.

use core::net::Ipv4Addr;
use core::time::Duration;

use clap::Args;
use turnpike_protocol::mppe::{Allowed, Stateful};
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{ClientLink, Timing};
use turnpike_protocol::pptp::CallerConfig;

use super::Terms;
use crate::dial::{AuthChoice, MppeChoice, StrengthChoice, password, seconds};

/// Whom to dial, as whom, and from where.
#[derive(Args, Clone)]
pub struct Dialling {
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
}

impl Dialling {
    /// What clap cannot see.
    ///
    /// # Errors
    /// When there are many users and one name.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.users == 1 || self.user.contains("{}"),
            "--users {} needs a {{}} in --user, where the number goes",
            self.users
        );
        Ok(())
    }

    /// The name of the user with a number.
    pub(crate) fn user_of(&self, number: u32) -> String {
        self.user.replace("{}", &(number % self.users).to_string())
    }

    /// Where the caller with a number dials from; `None`: from Linux' choice.
    pub(crate) fn address_of(&self, number: u32) -> Option<Ipv4Addr> {
        match self.from.as_slice() {
            [] => None,
            from => Some(from[number as usize % from.len()]),
        }
    }

    /// The password, from wherever it was given.
    pub(crate) fn secret(&self) -> anyhow::Result<Password> {
        password(self.password.as_deref(), self.password_file.as_deref())
            .map(|text| Password::new(&*text))
    }

    /// How the caller with a number dials.
    pub(crate) fn terms(&self, number: u32, secret: &Password) -> Terms {
        let patience = self.patience;
        Terms {
            caller: CallerConfig {
                setup_time: patience,
                ..CallerConfig::default()
            },
            link: ClientLink {
                mppe: self.mppe.into(),
                mppe_allowed: Allowed {
                    strengths: (self.mppe_strength.iter())
                        .map(|&strength| strength.into())
                        .collect(),
                    stateful: Stateful::Accept,
                },
                methods: self.auth.iter().map(|auth| (*auth).into()).collect(),
                timing: Timing {
                    set_up: Some(patience),
                    ..Timing::default()
                },
                ..ClientLink::new(self.user_of(number).as_bytes(), secret.clone())
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        dialling: Dialling,
    }

    #[test]
    fn users_take_turns() {
        let words = ["x", "10.7.0.1", "--password", "secret"];
        let with = |more: &[&str]| Cli::parse_from(words.iter().chain(more)).dialling;
        let many = with(&["--user", r"LAN\user{}", "--users", "3"]);
        let names: Vec<String> = (0..4).map(|number| many.user_of(number)).collect();
        assert_eq!(
            names,
            [r"LAN\user0", r"LAN\user1", r"LAN\user2", r"LAN\user0"]
        );
        assert!(many.check().is_ok());
        let one = with(&["--user", "alice"]);
        assert_eq!(one.user_of(7), "alice");
        assert!(one.check().is_ok());
        assert!(with(&["--user", "alice", "--users", "3"]).check().is_err());
    }

    #[test]
    fn addresses_take_turns() {
        let words = ["x", "10.7.0.1", "--user", "a", "--password", "b"];
        let with = |more: &[&str]| Cli::parse_from(words.iter().chain(more)).dialling;
        assert_eq!(with(&[]).address_of(3), None);
        let two = with(&["--from", "10.7.1.1,10.7.1.2"]);
        let expected = [[10, 7, 1, 1], [10, 7, 1, 2], [10, 7, 1, 1]];
        for (number, address) in (0..).zip(expected) {
            assert_eq!(two.address_of(number), Some(address.into()));
        }
    }
}
