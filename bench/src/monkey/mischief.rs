//! What the monkey does to a call, and when: all of it drawn from a seed.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

/// One thing that happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The client is gone without a word, and answers nothing while its power is off.
    PowerCut,
    /// The control connection is reset, and nothing is said in PPP.
    TcpReset,
    /// LCP Terminate-Request; clearing the call is left to the server.
    LcpTerminate,
    /// Call-Clear-Request, and no word of PPP.
    CallClear,
    /// IPCP is negotiated anew within the call.
    NcpFlap,
    /// LCP is negotiated anew within the call, and with it the login and all that follows.
    LcpFlap,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PowerCut,
        Self::TcpReset,
        Self::LcpTerminate,
        Self::CallClear,
        Self::NcpFlap,
        Self::LcpFlap,
    ];

    /// As it stands on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerCut => "power-cut",
            Self::TcpReset => "tcp-reset",
            Self::LcpTerminate => "lcp-terminate",
            Self::CallClear => "call-clear",
            Self::NcpFlap => "ncp-flap",
            Self::LcpFlap => "lcp-flap",
        }
    }

    /// Whether the call goes on afterwards.
    pub const fn is_survived(self) -> bool {
        matches!(self, Self::NcpFlap | Self::LcpFlap)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A kind and how often it is chosen in relation to others.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Weighted {
    /// What happens.
    pub kind: Kind,
    /// Above 0.
    pub weight: f64,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = match text.split_once('=') {
            Some((name, weight)) => (name, weight.parse().unwrap_or(-1.0)),
            None => (text, 1.0),
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let Some(kind) = kind else {
            let names = Kind::ALL.map(Kind::name).join(", ");
            return Err(format!("{name} is none of {names}"));
        };
        if weight > 0.0 && f64::is_finite(weight) {
            Ok(Self { kind, weight })
        } else {
            Err(format!(
                "what stands after {name}= must be a number above 0"
            ))
        }
    }
}

/// How the monkey goes about it.
#[derive(Clone, Debug)]
pub(crate) struct Mischief {
    /// The mean time from a call's coming up to what happens to it.
    pub(crate) every: Duration,
    /// The mean time that somebody whose call ended stays away.
    pub(crate) away: Duration,
    /// The share of those without a goodbye who dial again with the same call id.
    pub(crate) same_id: f64,
    pub(crate) ends: Vec<Weighted>,
}

impl Mischief {
    pub(crate) fn kind(&self, dice: &mut Dice) -> Kind {
        let sum: f64 = self.ends.iter().map(|one| one.weight).sum();
        let mut point = dice.share() * sum;
        for one in &self.ends {
            point -= one.weight;
            if point < 0.0 {
                return one.kind;
            }
        }
        // Rounding may leave a trace of the sum.
        self.ends.last().map_or(Kind::PowerCut, |one| one.kind)
    }
}

/// One call's chances.
#[derive(Clone)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// Those of the call with this number.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        Self(random)
    }

    /// From 0 to less than 1.
    pub(crate) fn share(&mut self) -> f64 {
        // As many bits as a double has room for.
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A time until something happens that is as likely at one moment as at any other, at most ten times its mean.
    pub(crate) fn wait(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.share()).ln()).min(10.0))
    }

    /// From half the time to one and a half times.
    pub(crate) fn about(&mut self, time: Duration) -> Duration {
        time.mul_f64(0.5 + self.share())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn weights_are_read_and_kept_to() {
        assert_eq!(
            "ncp-flap".parse(),
            Ok(Weighted {
                kind: Kind::NcpFlap,
                weight: 1.0
            })
        );
        for (text, word) in [
            ("flap", "none of power-cut, "),
            ("power-cut=0", "above 0"),
            ("power-cut=often", "above 0"),
            ("power-cut=inf", "above 0"),
        ] {
            let error = text.parse::<Weighted>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let mischief = Mischief {
            every: Duration::ZERO,
            away: Duration::ZERO,
            same_id: 0.0,
            ends: vec![
                "power-cut=3".parse().unwrap(),
                "call-clear".parse().unwrap(),
            ],
        };
        let mut dice = Dice::new(7, 0);
        let mut counts: BTreeMap<Kind, u32> = BTreeMap::new();
        for _ in 0..4_000 {
            *counts.entry(mischief.kind(&mut dice)).or_default() += 1;
        }
        assert_eq!(counts.len(), 2);
        assert!(
            (2_900..3_100).contains(&counts[&Kind::PowerCut]),
            "{counts:?}"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_chances_to_the_same_call() {
        let draw = |seed, number| {
            let mut dice = Dice::new(seed, number);
            core::array::from_fn::<Duration, 4, _>(|_| dice.wait(Duration::from_secs(10)))
        };
        assert_eq!(draw(1, 5), draw(1, 5));
        assert_ne!(draw(1, 5), draw(1, 6));
        assert_ne!(draw(1, 5), draw(2, 5));
        let mut dice = Dice::new(3, 0);
        let sum: Duration = (0..10_000)
            .map(|_| dice.wait(Duration::from_secs(10)))
            .sum();
        assert!(
            (9.5..10.5).contains(&(sum / 10_000).as_secs_f64()),
            "{sum:?}"
        );
    }
}
