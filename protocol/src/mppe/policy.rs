//! What the operator wants of encryption.

use super::{Mode, Strengths};

/// Whether calls are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Policy {
    /// Never: MPPE is neither offered nor accepted.
    Deny,
    /// Only if the peer asks for it.
    Allow,
    /// Offered; a peer that refuses stays in clear.
    Prefer,
    /// Offered; a peer that refuses is disconnected, and nothing is carried in clear.
    Require,
}

/// Whether keys may be stateful (RFC 3078 §2.1, option bit H clear): cheaper, but every lost packet costs a round trip
/// in which nothing is heard, and peers differ in what a reset does to the keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Stateful {
    /// Never.
    #[default]
    Refuse,
    /// If the peer insists.
    Accept,
    /// Asked for; stateless if the peer insists.
    Ask,
}

impl Stateful {
    /// What is asked for.
    pub const fn preferred(self) -> Mode {
        match self {
            Self::Refuse | Self::Accept => Mode::Stateless,
            Self::Ask => Mode::Stateful,
        }
    }

    /// Whether a direction may be in this mode at all.
    pub const fn takes(self, mode: Mode) -> bool {
        !matches!((self, mode), (Self::Refuse, Mode::Stateful))
    }
}

/// What may be agreed where there is encryption.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Allowed {
    /// Key lengths; the strongest that both sides have is taken. None at all: no encryption.
    pub strengths: Strengths,
    /// Modes.
    pub stateful: Stateful,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            strengths: Strengths::STRONG,
            stateful: Stateful::Refuse,
        }
    }
}
