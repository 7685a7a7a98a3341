//! The phases of a set-up.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use turnpike_protocol::Time;

/// The phases of a set-up, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// TCP connects.
    Tcp,
    /// Start-Control-Connection-Request and its reply.
    Control,
    /// Outgoing-Call-Request and its reply.
    Call,
    /// LCP, up to its being open at both ends.
    Lcp,
    /// The Challenge until the Success, or the like.
    Authentication,
    /// CCP and IPCP, until data may flow.
    Network,
}

impl Phase {
    pub(crate) const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Control,
        Self::Call,
        Self::Lcp,
        Self::Authentication,
        Self::Network,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Control => "control",
            Self::Call => "call",
            Self::Lcp => "lcp",
            Self::Authentication => "authentication",
            Self::Network => "network",
        }
    }
}

/// When the phases of one set-up ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) begun: Time,
    pub(crate) ends: [Option<Time>; Phase::ALL.len()],
}

impl Marks {
    pub(crate) fn new(begun: Time) -> Self {
        Self {
            begun,
            ends: [None; Phase::ALL.len()],
        }
    }

    /// A phase is over, and with it all before it. The first time counts.
    pub(crate) fn end(&mut self, phase: Phase, now: Time) {
        for end in &mut self.ends[..=phase as usize] {
            end.get_or_insert(now);
        }
    }

    /// How long all of it took, as far as it is over.
    pub(crate) fn total(&self) -> Duration {
        let end = self.ends.iter().rev().find_map(|end| *end);
        end.unwrap_or(self.begun).since(self.begun)
    }

    /// The phase in which a set-up is.
    pub(crate) fn current(&self) -> Phase {
        let open = self.ends.iter().position(Option::is_none);
        Phase::ALL[open.unwrap_or(Phase::Network as usize)]
    }
}
