//! Octets as a source of decisions, and what came of them.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Octets, taken from the front. When there are none left, everything reads as zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether all is taken.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One octet.
    pub fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Two octets, big-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// Four octets, big-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// Two octets of length, then so many octets, or as many as there are.
    pub fn chunk(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16()).min(self.0.len());
        let (chunk, rest) = self.0.split_at(length);
        self.0 = rest;
        chunk
    }
}

/// The counterpart of [`Input::chunk`].
pub fn chunk(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    let mut chunk = length.to_be_bytes().to_vec();
    chunk.extend_from_slice(&octets[..usize::from(length)]);
    chunk
}

/// A digest of what happened. Equal digests: nothing new.
#[derive(Clone, Default)]
pub struct Trace(DefaultHasher);

impl Trace {
    /// Something happened.
    pub fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.0);
    }

    /// The digest.
    pub fn digest(&self) -> u64 {
        self.0.finish()
    }
}
