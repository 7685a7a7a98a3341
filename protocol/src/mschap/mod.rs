//! MS-CHAPv1 (RFC 2433) and MS-CHAPv2 (RFC 2759): hashes, responses, changes of a password, and the session secrets
//! that come of them. Packets are CHAP's business.
//!
//! What stands here without a version in its path is MS-CHAPv2's; [`v1`] holds what MS-CHAPv1 does otherwise.

pub mod change;
mod keys;
mod password;
pub mod v1;
mod v2;

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

pub use keys::MasterKeys;
pub use password::{LmHash, NtHash, Password};
pub use v2::{
    Response, Success, authenticator_response, challenge_hash, nt_response, user_part, verify,
};

/// `ChallengeResponse` (RFC 2433 §A.7, RFC 2759 §8.5): the challenge under three DES keys cut from a hash of the
/// password.
pub fn challenge_response(challenge: &[u8; 8], hash: &[u8; 16]) -> [u8; 24] {
    let mut keys = Zeroizing::new([0; 21]);
    keys[..16].copy_from_slice(hash);
    let mut response = [0; 24];
    for (key, part) in keys
        .as_chunks::<7>()
        .0
        .iter()
        .zip(response.as_chunks_mut::<8>().0)
    {
        *part = des_encrypt(key, challenge);
    }
    response
}

/// `DesEncrypt` (RFC 2433 §A.4, RFC 2759 §8.6).
fn des_encrypt(key: &[u8; 7], clear: &[u8; 8]) -> [u8; 8] {
    let mut block = (*clear).into();
    Des::new(&(*expand_des_key(key)).into()).encrypt_block(&mut block);
    block.into()
}

/// Spreads 56 bits over eight octets, seven to each from the top. DES ignores the lowest (parity) bits, left clear.
fn expand_des_key(key: &[u8; 7]) -> Zeroizing<[u8; 8]> {
    let bits = key
        .iter()
        .fold(0, |bits: u64, &octet| bits << 8 | u64::from(octet));
    let mut expanded = Zeroizing::new([0; 8]);
    for (octet, shift) in expanded.iter_mut().zip((0..8).rev().map(|place| place * 7)) {
        *octet = ((bits >> shift) as u8) << 1;
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn des_keys_are_spread() {
        // RFC 2759 §9.3, and the third key of the same hash; the RFC sets the parity bits.
        for (key, spread) in [
            (0x00fc_156a_f7ed_cd6c_u64, 0xfd0b_5b5e_7f6e_34d9_u64),
            (0x000e_dde3_337d_427f, 0x0e6e_7967_37ea_08fe),
            (0x004e_ac00_0000_0000, 0x4f57_0101_0101_0101),
        ] {
            let key: [u8; 7] = key.to_be_bytes()[1..].try_into().unwrap();
            assert_eq!(
                *expand_des_key(&key),
                (spread & 0xfefe_fefe_fefe_fefe).to_be_bytes()
            );
        }
    }
}
