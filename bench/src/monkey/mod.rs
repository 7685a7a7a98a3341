//! `turnpike-bench monkey`: calls end in every way that there is, again and again, and all must be back at the end.

mod mischief;

use core::time::Duration;

use clap::Args;

pub(crate) use mischief::{Dice, Mischief};
pub use mischief::{Kind, Weighted};

use crate::dial::{Outcome, seconds};
use crate::fleet::Dialling;
use crate::hold::{Keeping, Plan, keep};
use crate::report::{Origin, Printing};

/// What happens to calls.
#[derive(Args, Clone)]
pub struct Chances {
    /// What happens, perhaps with a weight, such as power-cut=3 [default: everything, each as often]
    #[arg(long, value_name = "KIND[=WEIGHT]", value_delimiter = ',')]
    pub ends: Vec<Weighted>,
    /// The mean time that a client stays away whose call has ended; nine tenths of it the power is off, if it was cut
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub away: Duration,
    /// The share of clients that dial again with the same call id when the server was not told that the call is over
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    pub same_id: f64,
    /// What all chances follow from [default: another each time; it is printed]
    #[arg(long)]
    pub seed: Option<u64>,
}

/// End calls in every way that there is, and see whether all come back
///
/// Dials --calls times, and then something happens to each call at random moments: its client loses power and dials anew
/// without ever having said goodbye, perhaps with the same call id; TCP is reset; the call ends by LCP or by the control
/// connection alone; or IPCP, or LCP with the login and all, is negotiated anew while the call goes on. When the time is over
/// everybody is waited for, asked for an LCP echo, and hangs up properly. What the server has left of all this is to be looked
/// at there. Needs root (CAP_NET_RAW), and no other PPTP client on this machine.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  turnpike-bench monkey 10.7.0.1 --user 'user{}' --users 2000 --password secret --calls 2000 --rate 200 --seconds 600
      ten minutes, two thousand calls, something happens to each once a minute or so
  turnpike-bench monkey 10.7.0.1 --user test --password secret --calls 50 --every 5 --ends power-cut=3,tcp-reset --seed 7
      power cuts, three times as many as resets, in the order of the last time

Kinds of ends: power-cut, tcp-reset, lcp-terminate, call-clear; and what a call must survive: ncp-flap, lcp-flap.

Exit status: 0 all calls were back at the end, and answered; 1 some were not (the reasons are printed); 2 nothing could be
dialled (wrong usage, no permission).")]
pub struct Monkey {
    /// Whom, and as whom.
    #[command(flatten)]
    pub dialling: Dialling,
    /// How calls are kept up.
    #[command(flatten)]
    pub keeping: Keeping,
    /// How long, counted from when all have dialled once
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub seconds: Duration,
    /// The mean time from a call's coming up to what happens to it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub every: Duration,
    /// What happens.
    #[command(flatten)]
    pub chances: Chances,
    /// How the report is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Runs a monkey to its end.
///
/// # Errors
/// When nothing can be dialled at all.
pub fn run(options: &Monkey, origin: Origin) -> anyhow::Result<Outcome> {
    let (seed, mischief) = options.chances.mischief(options.every)?;
    keep(
        &Plan {
            dialling: &options.dialling,
            keeping: &options.keeping,
            seconds: Some(options.seconds),
            seed,
            mischief: Some(mischief),
            interval: None,
            watch: None,
            printing: &options.printing,
        },
        origin,
    )
}

impl Chances {
    /// The seed, and what follows from it when something happens to each call once in so long.
    pub(crate) fn mischief(&self, every: Duration) -> anyhow::Result<(u64, Mischief)> {
        anyhow::ensure!(
            !every.is_zero(),
            "--every 0 leaves no call up: give a time above 0"
        );
        let seed = match self.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?,
        };
        let ends = match self.ends.as_slice() {
            [] => Kind::ALL
                .map(|kind| Weighted { kind, weight: 1.0 })
                .to_vec(),
            ends => ends.to_vec(),
        };
        let mischief = Mischief {
            every,
            away: self.away,
            same_id: self.same_id,
            ends,
        };
        Ok((seed, mischief))
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be from 0 to 1".to_owned()),
    }
}
