//! Keys of MPPE: start keys from MS-CHAPv1 (RFC 3079 §2) and MS-CHAPv2 (RFC 3079 §3), session keys and their change
//! (RFC 3078 §7.3).

use sha1::{Digest, Sha1};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Direction, Rc4State, StartKey, Strength};
use crate::Role;

/// `SHSpad1` of RFC 3079 §3.4.
const PAD_1: [u8; 40] = [0x00; 40];
/// `SHSpad2` of RFC 3079 §3.4.
const PAD_2: [u8; 40] = [0xf2; 40];

// RFC 3079 §3.4, Magic1 to Magic3.
const MASTER: &[u8] = b"This is the MPPE Master Key";
const CLIENT_TO_SERVER: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const SERVER_TO_CLIENT: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

/// `Get_Start_Key` (RFC 3079 §2.3): MS-CHAPv1's start key for 128 bits, the same both ways. `challenge` is the one of
/// the call's first authentication.
pub fn mschap_v1_start_key(nt_hash_hash: &[u8; 16], challenge: &[u8; 8]) -> Zeroizing<[u8; 16]> {
    let digest = Sha1::new()
        .chain_update(nt_hash_hash)
        .chain_update(nt_hash_hash)
        .chain_update(challenge);
    first_octets(digest)
}

/// `GetMasterKey` (RFC 3079 §3.4): the 16-octet key of which both directions' start keys are made.
pub fn master_key(nt_hash_hash: &[u8; 16], nt_response: &[u8; 24]) -> Zeroizing<[u8; 16]> {
    let digest = Sha1::new()
        .chain_update(nt_hash_hash)
        .chain_update(nt_response)
        .chain_update(MASTER);
    first_octets(digest)
}

/// `GetAsymmetricStartKey` (RFC 3079 §3.4) for 128 bits; the start keys of 40 and 56 bits are its first 8 octets.
///
/// `role` and `direction` say whose key and which: what the server sends with is what the client receives with.
pub fn asymmetric_start_key(
    master: &[u8; 16],
    role: Role,
    direction: Direction,
) -> Zeroizing<[u8; 16]> {
    let magic = match (role, direction) {
        (Role::Server, Direction::Receive) | (Role::Client, Direction::Transmit) => {
            CLIENT_TO_SERVER
        }
        (Role::Server, Direction::Transmit) | (Role::Client, Direction::Receive) => {
            SERVER_TO_CLIENT
        }
    };
    let digest = Sha1::new()
        .chain_update(master)
        .chain_update(PAD_1)
        .chain_update(magic)
        .chain_update(PAD_2);
    first_octets(digest)
}

/// `GetNewKeyFromSHA` (RFC 3079 §2.4, RFC 3078 §7.3). The first [`Strength::key_len`] octets of the result count.
fn new_key_from_sha(start: &StartKey, current: &[u8]) -> Zeroizing<[u8; 16]> {
    let digest = Sha1::new()
        .chain_update(start.bytes())
        .chain_update(PAD_1)
        .chain_update(current)
        .chain_update(PAD_2);
    first_octets(digest)
}

fn first_octets(digest: Sha1) -> Zeroizing<[u8; 16]> {
    let mut whole = digest.finalize();
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&whole[..16]);
    whole.as_mut_slice().zeroize();
    key
}

/// A session key (RFC 3079 §3.3): what RC4 is keyed with, already weakened to its strength.
/// Cleaned when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey {
    bytes: [u8; 16],
    #[zeroize(skip)]
    strength: Strength,
}

impl SessionKey {
    /// The key before the first change. A stateful direction starts with it; a stateless one never uses it.
    pub fn initial(start: &StartKey) -> Self {
        let mut key = Self {
            bytes: *new_key_from_sha(start, start.bytes()),
            strength: start.strength(),
        };
        key.weaken();
        key
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

    /// The first half of a key change (RFC 3078 §7.3): `GetNewKeyFromSHA` of this key and the start key that it came
    /// from. The first [`Strength::key_len`] octets count.
    pub fn interim(&self, start: &StartKey) -> Zeroizing<[u8; 16]> {
        new_key_from_sha(start, self.bytes())
    }

    /// The second half of a key change, done elsewhere: this becomes `octets`, which are the interim key encrypted with
    /// itself, of which the first [`Strength::key_len`] count. They are weakened to the strength here.
    #[inline]
    pub fn replace(&mut self, octets: &[u8; 16]) {
        self.bytes = *octets;
        self.weaken();
    }

    /// One key change (RFC 3078 §7.3); `start` is the start key that this key came from.
    pub fn change(&mut self, start: &StartKey) {
        let length = self.strength.key_len();
        let interim = self.interim(start);
        let mut rc4 = Rc4State::empty();
        rc4.set_key(&interim[..length]);
        self.bytes = *interim;
        rc4.apply(&mut self.bytes[..length]);
        self.weaken();
    }

    // RFC 3079 §3.3: 40-bit keys begin with D1 26 9E, 56-bit keys with D1.
    #[inline]
    fn weaken(&mut self) {
        match self.strength {
            Strength::Bits40 => self.bytes[..3].copy_from_slice(&[0xd1, 0x26, 0x9e]),
            Strength::Bits56 => self.bytes[0] = 0xd1,
            Strength::Bits128 => {}
        }
    }
}

/// Where a direction's keys are, for key changes that its caller makes: many chains can be gone along together.
#[derive(Clone, Copy)]
pub struct Chain<'a> {
    /// The start key.
    pub start: &'a StartKey,
    /// The last key so far.
    pub key: &'a SessionKey,
}

/// Who carries out key changes. They take half of the time of a short stateless packet, so a worker has a faster way
/// than the reference.
pub trait Changer {
    /// Does what [`SessionKey::change`] does.
    fn change(&mut self, start: &StartKey, key: &mut SessionKey);
}

/// [`SessionKey::change`] itself.
pub struct Reference;

impl Changer for Reference {
    fn change(&mut self, start: &StartKey, key: &mut SessionKey) {
        key.change(start);
    }
}

/// A place in a key chain.
#[derive(Clone)]
pub(super) struct Link {
    pub key: SessionKey,
    /// Key changes since [`SessionKey::initial`].
    pub changes: u64,
}

impl Link {
    pub fn first(start: &StartKey) -> Self {
        Self {
            key: SessionKey::initial(start),
            changes: 0,
        }
    }

    pub fn advance(&mut self, start: &StartKey, changes: u64, changer: &mut impl Changer) {
        for _ in 0..changes {
            changer.change(start, &mut self.key);
        }
        self.changes += changes;
    }
}
