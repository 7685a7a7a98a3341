//! MS-CHAPv2 (RFC 2759): hashes, responses and the session secrets that come of them. Packets are CHAP's business.
//!
//! MS-CHAPv1 (RFC 2433) would use [`NtHash`] and the same DES response over its 8-octet challenge.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::Md4;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Role;
use crate::mppe::{Direction, StartKey, Strength, keys};

// RFC 2759 §8.7, Magic1 and Magic2.
const SERVER_TO_CLIENT: &[u8] = b"Magic server to client signing constant";
const ITERATION: &[u8] = b"Pad to make it do more than one iteration";

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

/// What follows the last backslash of `name`, or all of it: `DOMAIN\user` is hashed as `user` (RFC 2759 §4).
/// A name like `user@realm` is hashed whole, and the octets are never re-encoded.
pub fn user_part(name: &[u8]) -> &[u8] {
    name.rsplit(|&octet| octet == b'\\').next().unwrap_or(name)
}

/// `ChallengeHash` (RFC 2759 §8.2). `name` may carry a domain.
pub fn challenge_hash(
    peer_challenge: &[u8; 16],
    authenticator_challenge: &[u8; 16],
    name: &[u8],
) -> [u8; 8] {
    let digest = Sha1::new()
        .chain_update(peer_challenge)
        .chain_update(authenticator_challenge)
        .chain_update(user_part(name))
        .finalize();
    let mut hash = [0; 8];
    hash.copy_from_slice(&digest[..8]);
    hash
}

/// `ChallengeResponse` (RFC 2759 §8.5): the challenge under three DES keys cut from the hash.
pub fn challenge_response(challenge: &[u8; 8], hash: &NtHash) -> [u8; 24] {
    let mut keys = Zeroizing::new([0; 21]);
    keys[..16].copy_from_slice(&hash.0);
    let mut response = [0; 24];
    for (key, part) in keys
        .as_chunks::<7>()
        .0
        .iter()
        .zip(response.as_chunks_mut::<8>().0)
    {
        let mut block = (*challenge).into();
        Des::new(&(*expand_des_key(key)).into()).encrypt_block(&mut block);
        *part = block.into();
    }
    response
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

/// `GenerateNTResponse` (RFC 2759 §8.1): what the client proves its password with.
pub fn nt_response(
    hash: &NtHash,
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    name: &[u8],
) -> [u8; 24] {
    challenge_response(
        &challenge_hash(peer_challenge, authenticator_challenge, name),
        hash,
    )
}

/// `GenerateAuthenticatorResponse` (RFC 2759 §8.7): `S=` and 40 upper-case hexadecimal digits, with which the server
/// proves that it knows the password too.
pub fn authenticator_response(
    hash: &NtHash,
    nt_response: &[u8; 24],
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    name: &[u8],
) -> [u8; 42] {
    let proof = Sha1::new()
        .chain_update(*hash.hashed())
        .chain_update(nt_response)
        .chain_update(SERVER_TO_CLIENT)
        .finalize();
    let digest = Sha1::new()
        .chain_update(proof)
        .chain_update(challenge_hash(
            peer_challenge,
            authenticator_challenge,
            name,
        ))
        .chain_update(ITERATION)
        .finalize();
    let mut text = [0; 42];
    text[..2].copy_from_slice(b"S=");
    for (digits, octet) in text[2..].as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 0x0f)];
        *digits = [digit(octet >> 4), digit(octet)];
    }
    text
}

/// What a call's keys are made from. Cleaned when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKeys {
    /// `MasterSendKey` of the server (RFC 3079 §3.3), 128 bits; shorter start keys are its beginning.
    server_send: [u8; 16],
    /// `MasterReceiveKey` of the server.
    server_receive: [u8; 16],
}

impl MasterKeys {
    /// From the two start keys for 128 bits as the server sees them, for example when RADIUS hands them out.
    pub const fn new(server_send: [u8; 16], server_receive: [u8; 16]) -> Self {
        Self {
            server_send,
            server_receive,
        }
    }

    /// From the password and the response that was accepted (RFC 3079 §3.3).
    pub fn from_mschap_v2(hash: &NtHash, nt_response: &[u8; 24]) -> Self {
        let master = keys::master_key(&hash.hashed(), nt_response);
        Self::new(
            *keys::asymmetric_start_key(&master, Role::Server, Direction::Transmit),
            *keys::asymmetric_start_key(&master, Role::Server, Direction::Receive),
        )
    }

    /// The start key of one direction as `role` sees it.
    pub fn start_key(&self, role: Role, direction: Direction, strength: Strength) -> StartKey {
        let key = match (role, direction) {
            (Role::Server, Direction::Transmit) | (Role::Client, Direction::Receive) => {
                &self.server_send
            }
            (Role::Server, Direction::Receive) | (Role::Client, Direction::Transmit) => {
                &self.server_receive
            }
        };
        StartKey::new(*key, strength)
    }
}

/// What the server gets from a right response.
#[derive(Clone)]
pub struct Success {
    /// To be sent in CHAP Success, as it is: some clients take anything after it for an error.
    pub authenticator_response: [u8; 42],
    /// For MPPE.
    pub keys: MasterKeys,
}

/// The server's side: compares the response in constant time. None: the client does not know the password.
pub fn verify(
    hash: &NtHash,
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    received: &[u8; 24],
    name: &[u8],
) -> Option<Success> {
    let expected = nt_response(hash, authenticator_challenge, peer_challenge, name);
    if !bool::from(expected.ct_eq(received)) {
        return None;
    }
    Some(Success {
        authenticator_response: authenticator_response(
            hash,
            received,
            authenticator_challenge,
            peer_challenge,
            name,
        ),
        keys: MasterKeys::from_mschap_v2(hash, received),
    })
}

/// The client's side: the response to a challenge and what must come back.
#[derive(Clone)]
pub struct Response {
    /// The 24 octets that prove the password.
    pub nt_response: [u8; 24],
    /// For MPPE, once the server has proved itself.
    pub keys: MasterKeys,
    expected: [u8; 42],
}

impl Response {
    /// Answers `authenticator_challenge`; `peer_challenge` must be random.
    pub fn new(
        hash: &NtHash,
        authenticator_challenge: &[u8; 16],
        peer_challenge: &[u8; 16],
        name: &[u8],
    ) -> Self {
        let nt_response = nt_response(hash, authenticator_challenge, peer_challenge, name);
        Self {
            nt_response,
            keys: MasterKeys::from_mschap_v2(hash, &nt_response),
            expected: authenticator_response(
                hash,
                &nt_response,
                authenticator_challenge,
                peer_challenge,
                name,
            ),
        }
    }

    /// Whether the message of a CHAP Success proves that the server knows the password. Text after the proof
    /// (`M=...`, by some servers without a space before it) is ignored.
    pub fn verify_success(&self, message: &[u8]) -> bool {
        message
            .get(..self.expected.len())
            .is_some_and(|proof| bool::from(proof.ct_eq(&self.expected)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: [u8; 16] = [7; 16];
    const PEER: [u8; 16] = [9; 16];

    #[test]
    fn both_sides_agree_and_a_wrong_password_fails() {
        let hash = NtHash::from_password("pass");
        let response = Response::new(&hash, &CHALLENGE, &PEER, b"CORP\\alice");
        let success = verify(&hash, &CHALLENGE, &PEER, &response.nt_response, b"alice").unwrap();
        assert!(response.verify_success(&success.authenticator_response));
        for direction in [Direction::Receive, Direction::Transmit] {
            let other = match direction {
                Direction::Receive => Direction::Transmit,
                Direction::Transmit => Direction::Receive,
            };
            assert_eq!(
                success
                    .keys
                    .start_key(Role::Server, direction, Strength::Bits128)
                    .bytes(),
                response
                    .keys
                    .start_key(Role::Client, other, Strength::Bits128)
                    .bytes()
            );
        }
        let wrong = NtHash::from_password("Pass");
        assert!(verify(&wrong, &CHALLENGE, &PEER, &response.nt_response, b"alice").is_none());
        assert!(verify(&hash, &CHALLENGE, &PEER, &response.nt_response, b"Alice").is_none());
        assert!(verify(&hash, &PEER, &CHALLENGE, &response.nt_response, b"alice").is_none());
    }

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

    #[test]
    fn success_message_forms() {
        let hash = NtHash::from_password("pass");
        let response = Response::new(&hash, &CHALLENGE, &PEER, b"alice");
        let mut message = response.expected.to_vec();
        assert!(response.verify_success(&message));
        message.extend_from_slice(b" M=Welcome");
        assert!(response.verify_success(&message));
        assert!(!response.verify_success(&message[..41]));
        assert!(!response.verify_success(b""));
        message[41] ^= 1;
        assert!(!response.verify_success(&message));
    }

    #[test]
    fn domain_is_not_hashed() {
        assert_eq!(user_part(b"alice"), b"alice");
        assert_eq!(user_part(b"CORP\\alice"), b"alice");
        assert_eq!(user_part(b"A\\B\\alice"), b"alice");
        assert_eq!(user_part(b"alice@corp"), b"alice@corp");
        assert_eq!(user_part(b"CORP\\"), b"");
        assert_eq!(user_part(b""), b"");
    }
}
