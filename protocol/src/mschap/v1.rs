//! MS-CHAPv1 (RFC 2433).

use subtle::ConstantTimeEq;

use super::{LmHash, MasterKeys, NtHash, challenge_response};

/// The NT half of a Response (RFC 2433 §A.5): the challenge under the NT hash.
pub fn nt_response(hash: &NtHash, challenge: &[u8; 8]) -> [u8; 24] {
    challenge_response(challenge, hash.bytes())
}

/// The LM half (RFC 2433 §A.1). Made for tests of what is refused: it gives the password away, and nobody needs it.
pub fn lm_response(hash: &LmHash, challenge: &[u8; 8]) -> [u8; 24] {
    challenge_response(challenge, hash.bytes())
}

/// The server's side: compares the NT response in constant time. None: the client does not know the password.
///
/// `lm_hash` gives keys of 40 and 56 bits, where the password has one.
pub fn verify(
    hash: &NtHash,
    lm_hash: Option<&LmHash>,
    challenge: &[u8; 8],
    received: &[u8; 24],
) -> Option<MasterKeys> {
    bool::from(nt_response(hash, challenge).ct_eq(received))
        .then(|| MasterKeys::from_mschap_v1(hash, lm_hash, challenge))
}
