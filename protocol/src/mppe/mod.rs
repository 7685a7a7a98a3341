//! MPPE (RFC 3078, RFC 3079): key strengths, key chains and the coherency count.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of the session keys (RFC 3078 §2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Strength {
    /// Option bit L; 8-octet keys of which 40 bits are secret.
    Bits40,
    /// Option bit M; 8-octet keys of which 56 bits are secret.
    Bits56,
    /// Option bit S; 16-octet keys.
    Bits128,
}

impl Strength {
    /// The strength in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Bits40 => 40,
            Self::Bits56 => 56,
            Self::Bits128 => 128,
        }
    }

    /// Octets of a key of this strength in every SHA-1 and RC4 step.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Bits40 | Self::Bits56 => 8,
            Self::Bits128 => 16,
        }
    }
}

/// When keys change (RFC 3078 §2.1, option bit H).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Before every packet.
    Stateless,
    /// Every 256 packets; the RC4 state runs on in between.
    Stateful,
}

/// One direction of a call, seen from this side.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the peer to us.
    Receive,
    /// From us to the peer.
    Transmit,
}

/// The start key of one direction (RFC 3079 §3.3: `MasterSendKey` or `MasterReceiveKey`), before it is weakened.
/// Cleaned when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StartKey {
    bytes: [u8; 16],
    #[zeroize(skip)]
    strength: Strength,
}

impl StartKey {
    /// A key for `strength`; of `bytes` the first [`Strength::key_len`] are used.
    pub const fn new(bytes: [u8; 16], strength: Strength) -> Self {
        Self { bytes, strength }
    }

    /// The strength.
    pub const fn strength(&self) -> Strength {
        self.strength
    }

    /// The octets in use.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.strength.key_len()]
    }
}
