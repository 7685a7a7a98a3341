//! Passwords, and the two hashes that stand for them.

use md4::{Digest, Md4};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::des_encrypt;

/// The most characters of a password that has an LM hash.
const LM_CHARACTERS: usize = 14;

/// What an LM hash encrypts (RFC 2433 §A.3).
const LM_CLEAR: &[u8; 8] = b"KGS!@#$%";

/// A password in clear. Cleaned when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

impl Password {
    /// Takes a password over; the caller's other copies are the caller's to clean.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `NtPasswordHash`.
    pub fn nt_hash(&self) -> NtHash {
        NtHash::from_password(&self.0)
    }

    /// `LmPasswordHash`; `None` for a password that has none.
    pub fn lm_hash(&self) -> Option<LmHash> {
        LmHash::from_password(&self.0)
    }
}

/// `NtPasswordHash` (RFC 2759 §8.3). As good as the password itself: cleaned when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NtHash([u8; 16]);

impl NtHash {
    /// MD4 of the password in UTF-16LE. The empty password has a hash like any other.
    pub fn from_password(password: &str) -> Self {
        let mut hash = Md4::new();
        for unit in password.encode_utf16() {
            hash.update(unit.to_le_bytes());
        }
        Self(finish(hash))
    }

    /// A hash that was stored.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The hash, to be stored as carefully as the password.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// `HashNtPasswordHash` (RFC 2759 §8.4), of which the keys of RFC 3079 are made.
    pub fn hashed(&self) -> Zeroizing<[u8; 16]> {
        let mut hash = Md4::new();
        hash.update(self.0);
        Zeroizing::new(finish(hash))
    }
}

fn finish(hash: Md4) -> [u8; 16] {
    let mut whole = hash.finalize();
    let mut octets = [0; 16];
    octets.copy_from_slice(&whole);
    whole.as_mut_slice().zeroize();
    octets
}

/// `LmPasswordHash` (RFC 2433 §A.2), of which MS-CHAPv1's keys of 40 and 56 bits are made. Weaker than the password
/// itself, and as good: cleaned when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LmHash([u8; 16]);

impl LmHash {
    /// DES under the two halves of the upper-case password. `None` for more than 14 characters, and for any outside
    /// ASCII: which octets those are depends on the OEM code page of the client's machine.
    pub fn from_password(password: &str) -> Option<Self> {
        if password.len() > LM_CHARACTERS || !password.is_ascii() {
            return None;
        }
        let mut key = Zeroizing::new([0; LM_CHARACTERS]);
        key[..password.len()].copy_from_slice(password.as_bytes());
        key.make_ascii_uppercase();
        let mut hash = [0; 16];
        for (half, part) in key
            .as_chunks::<7>()
            .0
            .iter()
            .zip(hash.as_chunks_mut::<8>().0)
        {
            *part = des_encrypt(half, LM_CLEAR);
        }
        Some(Self(hash))
    }

    /// The hash.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
