//! Runs what `protocol::mppe` planned.
//!
//! One packet at a time by the reference implementation for now. Kernels that work on the fresh keys of a whole batch
//! belong here and nowhere else: a packet is not looked at before its cipher has run, and verdicts on plaintexts may
//! be given after several packets were opened.

use turnpike_protocol::mppe::Cipher;

/// Encrypts or decrypts the octets in place.
#[inline]
pub(crate) fn run(cipher: Cipher<'_>, octets: &mut [u8]) {
    cipher.apply(octets);
}
