//! What client and server share.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A shared secret, as octets. Cleaned when dropped, never printed, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// `None` for an empty one: with that anybody could forge packets (RFC 2865 §3). The caller's own copies are the caller's
    /// to clean.
    pub fn new(secret: impl Into<Vec<u8>>) -> Option<Self> {
        Some(Self(secret.into())).filter(|secret| !secret.0.is_empty())
    }

    /// How many octets it has; RFC 2865 §3 wants 16 at least.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// MD5 over `parts`, then the secret.
    pub(super) fn md5_behind(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hash = Md5::new();
        for part in parts {
            hash.update(part);
        }
        hash.update(&self.0);
        hash.finalize().into()
    }

    /// MD5 over the secret, then `parts`.
    pub(super) fn md5_before(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hash = Md5::new_with_prefix(&self.0);
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// HMAC-MD5 over `parts` (RFC 3579 §3.2).
    pub(super) fn hmac(&self, parts: &[&[u8]]) -> [u8; 16] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Md5>::new_from_slice(&self.0) else {
            return [0; 16];
        };
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_is_none() {
        assert!(Secret::new("").is_none());
        assert!(Secret::new("a") == Secret::new("a"));
        assert!(Secret::new("a") != Secret::new("b"));
        assert_eq!(Secret::new("four").map(|secret| secret.length()), Some(4));
    }
}
