//! What the keys of MPPE are made from.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{LmHash, NtHash};
use crate::Role;
use crate::mppe::{Direction, StartKey, Strength, keys};

/// What a call's keys are made from. Cleaned when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKeys(Origin);

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
enum Origin {
    /// MS-CHAPv2 and all that came after: a key for each direction, of which shorter ones are the beginning.
    EachWay {
        /// `MasterSendKey` of the server (RFC 3079 §3.3), 128 bits.
        server_send: [u8; 16],
        /// `MasterReceiveKey` of the server.
        server_receive: [u8; 16],
    },
    /// MS-CHAPv1: both directions have the same key.
    BothWays {
        /// For 40 and 56 bits (RFC 3079 §2.1, §2.2); `None`: the password has no LM hash.
        short: Option<[u8; 8]>,
        /// For 128 bits (RFC 3079 §2.3).
        long: [u8; 16],
    },
}

impl MasterKeys {
    /// From the two start keys for 128 bits as the server sees them, for example when RADIUS hands them out.
    pub const fn new(server_send: [u8; 16], server_receive: [u8; 16]) -> Self {
        Self(Origin::EachWay {
            server_send,
            server_receive,
        })
    }

    /// From MS-CHAPv1's start keys: `short` for 40 and 56 bits (the first 8 octets of the LM hash), `long` for 128.
    pub const fn symmetric(short: Option<[u8; 8]>, long: [u8; 16]) -> Self {
        Self(Origin::BothWays { short, long })
    }

    /// From the password's hashes and the challenge of the call's first authentication (RFC 3079 §2). Without an LM
    /// hash there are keys of 128 bits only.
    pub fn from_mschap_v1(hash: &NtHash, lm_hash: Option<&LmHash>, challenge: &[u8; 8]) -> Self {
        let short = lm_hash.map(|hash| {
            let mut key = [0; 8];
            key.copy_from_slice(&hash.bytes()[..8]);
            key
        });
        Self::symmetric(short, *keys::mschap_v1_start_key(&hash.hashed(), challenge))
    }

    /// From the password and the response that was accepted (RFC 3079 §3.3).
    pub fn from_mschap_v2(hash: &NtHash, nt_response: &[u8; 24]) -> Self {
        let master = keys::master_key(&hash.hashed(), nt_response);
        Self::new(
            *keys::asymmetric_start_key(&master, Role::Server, Direction::Transmit),
            *keys::asymmetric_start_key(&master, Role::Server, Direction::Receive),
        )
    }

    /// Whether there are keys of this strength: only MS-CHAPv1 with a password that has no LM hash lacks any.
    pub fn has(&self, strength: Strength) -> bool {
        match &self.0 {
            Origin::EachWay { .. } => true,
            Origin::BothWays { short, .. } => strength == Strength::Bits128 || short.is_some(),
        }
    }

    /// The start key of one direction as `role` sees it; `None` when [`Self::has`] says no.
    pub fn start_key(
        &self,
        role: Role,
        direction: Direction,
        strength: Strength,
    ) -> Option<StartKey> {
        let key = match (&self.0, role, direction) {
            (Origin::EachWay { server_send, .. }, Role::Server, Direction::Transmit)
            | (Origin::EachWay { server_send, .. }, Role::Client, Direction::Receive) => {
                *server_send
            }
            (Origin::EachWay { server_receive, .. }, Role::Server, Direction::Receive)
            | (Origin::EachWay { server_receive, .. }, Role::Client, Direction::Transmit) => {
                *server_receive
            }
            (Origin::BothWays { long, .. }, ..) if strength == Strength::Bits128 => *long,
            (Origin::BothWays { short, .. }, ..) => {
                let mut key = [0; 16];
                key[..8].copy_from_slice(short.as_ref()?);
                key
            }
        };
        Some(StartKey::new(key, strength))
    }
}
