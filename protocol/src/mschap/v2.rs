//! MS-CHAPv2 (RFC 2759).

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::{MasterKeys, NtHash, challenge_response};

// RFC 2759 §8.7, Magic1 and Magic2.
const SERVER_TO_CLIENT: &[u8] = b"Magic server to client signing constant";
const ITERATION: &[u8] = b"Pad to make it do more than one iteration";

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

/// `GenerateNTResponse` (RFC 2759 §8.1): what the client proves its password with.
pub fn nt_response(
    hash: &NtHash,
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    name: &[u8],
) -> [u8; 24] {
    challenge_response(
        &challenge_hash(peer_challenge, authenticator_challenge, name),
        hash.bytes(),
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
    use crate::Role;
    use crate::mppe::{Direction, Strength};

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
                    .unwrap()
                    .bytes(),
                response
                    .keys
                    .start_key(Role::Client, other, Strength::Bits128)
                    .unwrap()
                    .bytes()
            );
        }
        let wrong = NtHash::from_password("Pass");
        assert!(verify(&wrong, &CHALLENGE, &PEER, &response.nt_response, b"alice").is_none());
        assert!(verify(&hash, &CHALLENGE, &PEER, &response.nt_response, b"Alice").is_none());
        assert!(verify(&hash, &PEER, &CHALLENGE, &response.nt_response, b"alice").is_none());
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
