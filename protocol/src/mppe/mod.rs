//! MPPE (RFC 3078, RFC 3079): key strengths, key chains and the coherency count.
//!
//! An [`Encryptor`] or [`Decryptor`] owns the key chain of one direction and decides, packet by packet, which key
//! applies; the octets themselves are worked on by a [`Cipher`], at once or later in a batch.
//!
//! A packet is the PPP protocol 00FD, then [`HEADER_LEN`] octets of header, then the RC4 of the inner PPP protocol
//! (one or two octets) and payload (RFC 3078 §3.1). There is no padding and no checksum: [`plausible`] is all that
//! tells a wrong key from a right one.

mod budget;
mod cipher;
mod decryptor;
mod encryptor;
pub mod keys;
mod likeness;
mod policy;
mod stateful;
mod stateless;
mod strengths;

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use cipher::{Cipher, Rc4State};
pub use decryptor::{Decryptor, Refusal};
pub use encryptor::{Encryptor, Sealing};
pub use keys::{Chain, Changer, SessionKey};
use likeness::Likeness;
pub use policy::{Allowed, Policy, Stateful};
pub use stateful::Search;
pub use strengths::Strengths;

/// Octets of the MPPE header: four bits, then the 12-bit coherency count, big-endian (RFC 3078 §3.1).
pub const HEADER_LEN: usize = 2;

/// Bit A of the first header octet: the RC4 state was initialised for this packet.
const FLUSHED: u8 = 0x80;
/// Bits B and C: only with MPPC compression, which is never negotiated.
const COMPRESSION: u8 = 0x60;
/// Bit D: the packet is encrypted.
const ENCRYPTED: u8 = 0x10;
/// The coherency count is taken modulo this.
const COUNTS: u64 = 4096;
/// Stateful keys change before the packets whose count is one less than a multiple of this (RFC 3078 §7.2).
const FLAG_INTERVAL: u64 = 256;

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
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.strength.key_len()]
    }
}

/// What a CCP Reset-Request does to the keys of the stateful direction that it asks to be reset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// RFC 3078 §8.2: the tables are initialised with the current key.
    Rfc3078,
    /// As Linux does it: every flushed packet changes the key, at both ends.
    Linux,
}

/// Whether `plain`, a decrypted packet from its inner protocol field on, can be what a peer sent.
///
/// RFC 3078 §3: only protocols 0021 to 00FA are encrypted. The protocol alone is a weak check, so IP headers are looked
/// at too. Of random octets about two in a thousand pass.
pub fn plausible(plain: &[u8]) -> bool {
    let head = &plain[..plain.len().min(Likeness::HEAD)];
    Likeness::of(head, plain.len()) > Likeness::No
}

/// Whether `plain`, from its inner protocol field on, is an IP packet beyond doubt. Of random octets one in a million is.
pub fn is_ip(plain: &[u8]) -> bool {
    let head = &plain[..plain.len().min(Likeness::HEAD)];
    Likeness::of(head, plain.len()) == Likeness::Sure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plausible_knows_ip_from_garbage() {
        let mut packet = vec![0x00, 0x21, 0x45, 0, 0, 20];
        packet.resize(22, 0);
        assert!(plausible(&packet), "IPv4, two-octet protocol");
        assert_eq!(Likeness::of(&packet, 22), Likeness::Perhaps);
        packet[12..14].copy_from_slice(&0xbaeb_u16.to_be_bytes());
        assert_eq!(Likeness::of(&packet, 22), Likeness::Sure);
        assert!(is_ip(&packet));
        assert_eq!(Likeness::of(&packet[1..], 21), Likeness::Sure);
        assert!(plausible(&packet[1..]), "IPv4, one-octet protocol");
        packet.push(0);
        assert!(plausible(&packet), "padding after the datagram");
        packet[5] = 22;
        assert!(!plausible(&packet), "longer than what came");
        packet[5] = 19;
        assert!(!plausible(&packet), "shorter than its header");
        packet[5] = 20;
        packet[2] = 0x65;
        assert!(!plausible(&packet), "IPv6 under IPv4's protocol");

        let mut packet = vec![0x00, 0x57, 0x60];
        packet.resize(42, 0);
        assert!(plausible(&packet) && plausible(&packet[1..]));
        assert!(!plausible(&packet[..41]));
        packet[7] = 1;
        assert!(!plausible(&packet));

        assert!(plausible(&[0x00, 0x2d, 1]), "compressed TCP");
        assert!(
            !plausible(&[0x2d, 1, 2]),
            "other protocols only with two octets"
        );
        assert!(!plausible(&[0xc0, 0x21, 1]), "LCP is never encrypted");
        assert!(
            !plausible(&[0x00, 0xfb])
                && !plausible(&[0x00, 0x22])
                && !plausible(&[0x00])
                && !plausible(&[])
        );
    }
}
