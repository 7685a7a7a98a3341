//! Sequence and acknowledgement numbers of enhanced GRE (RFC 2637 §4.2 to §4.4), one half for each direction.

mod held;
mod receiver;
mod sender;

pub use held::{Held, Queue};
pub use receiver::{AckSettings, Arrival, MAX_HELD, MAX_JUMP, Receiver, Released};
pub use sender::Sender;

/// A GRE sequence number; compared modulo 2³².
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Seq(pub u32);

impl Seq {
    /// How far this number is ahead of `other`; negative when it is behind. Right for distances below 2³¹.
    #[inline]
    pub const fn distance(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// The number after this one.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}
