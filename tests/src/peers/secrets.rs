//! What a client proves its password with, and the ciphers that come of it, straight from RFC 1994, 2433, 2759, 3078 and
//! 3079: nothing of this is shared with the server that it is tried on.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::Md4;
use md5::Md5;
use sha1::{Digest, Sha1};

/// RFC 1994 §4.1.
pub fn chap_md5(identifier: u8, password: &str, challenge: &[u8]) -> [u8; 16] {
    Md5::new()
        .chain_update([identifier])
        .chain_update(password)
        .chain_update(challenge)
        .finalize()
        .into()
}

/// `NtPasswordHash` (RFC 2759 §8.3).
pub fn nt_hash(password: &str) -> [u8; 16] {
    let units: Vec<u8> = password
        .encode_utf16()
        .flat_map(|unit| unit.to_le_bytes())
        .collect();
    Md4::digest(units).into()
}

/// `LmPasswordHash` (RFC 2433 §A.3); the password must be ASCII and have at most 14 characters.
pub fn lm_hash(password: &str) -> [u8; 16] {
    assert!(password.is_ascii() && password.len() <= 14);
    let mut keys = [0; 14];
    let upper = password.to_ascii_uppercase();
    keys[..upper.len()].copy_from_slice(upper.as_bytes());
    let mut hash = [0; 16];
    hash[..8].copy_from_slice(&des(&keys[..7], b"KGS!@#$%"));
    hash[8..].copy_from_slice(&des(&keys[7..], b"KGS!@#$%"));
    hash
}

/// `ChallengeResponse` (RFC 2433 §A.5).
pub fn challenge_response(challenge: &[u8; 8], hash: &[u8; 16]) -> [u8; 24] {
    let mut keys = [0; 21];
    keys[..16].copy_from_slice(hash);
    let mut response = [0; 24];
    for (n, key) in keys.chunks(7).enumerate() {
        response[8 * n..8 * n + 8].copy_from_slice(&des(key, challenge));
    }
    response
}

/// One block under 56 bits of key, a bit of parity put behind every seven of them.
fn des(key: &[u8], block: &[u8; 8]) -> [u8; 8] {
    let mut spread = [0_u8; 8];
    for bit in 0..56 {
        let set = key[bit / 8] >> (7 - bit % 8) & 1;
        spread[bit / 7] |= set << (7 - bit % 7);
    }
    let mut block = (*block).into();
    Des::new(&spread.into()).encrypt_block(&mut block);
    block.into()
}

/// `ChallengeHash` (RFC 2759 §8.2). `name` without a domain.
pub fn challenge_hash(peer: &[u8; 16], server: &[u8; 16], name: &[u8]) -> [u8; 8] {
    let digest = Sha1::new()
        .chain_update(peer)
        .chain_update(server)
        .chain_update(name)
        .finalize();
    first(&digest)
}

/// `GenerateAuthenticatorResponse` (RFC 2759 §8.7).
pub fn authenticator_response(
    nt_hash: &[u8; 16],
    nt_response: &[u8; 24],
    challenge_hash: &[u8; 8],
) -> String {
    let inner = Sha1::new()
        .chain_update(Md4::digest(nt_hash))
        .chain_update(nt_response)
        .chain_update("Magic server to client signing constant")
        .finalize();
    let digest = Sha1::new()
        .chain_update(inner)
        .chain_update(challenge_hash)
        .chain_update("Pad to make it do more than one iteration")
        .finalize();
    let digits: String = digest.iter().map(|octet| format!("{octet:02X}")).collect();
    format!("S={digits}")
}

fn first<const N: usize>(octets: &[u8]) -> [u8; N] {
    octets[..N].try_into().expect("a digest is longer")
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What a login gave, of which start keys are made.
pub enum Keys {
    /// RFC 3079 §2.
    MsChapV1 {
        nt_hash: [u8; 16],
        lm_hash: [u8; 16],
        challenge: [u8; 8],
    },
    /// RFC 3079 §3.
    MsChapV2 {
        nt_hash: [u8; 16],
        nt_response: [u8; 24],
    },
}

impl Keys {
    /// The start key of a direction; its first 8 octets for 40 and 56 bits.
    fn start(&self, way: Way, bits: u8) -> [u8; 16] {
        match self {
            Self::MsChapV1 { lm_hash, .. } if bits != 128 => *lm_hash,
            Self::MsChapV1 {
                nt_hash, challenge, ..
            } => {
                let twice = Md4::digest(nt_hash);
                let digest = Sha1::new()
                    .chain_update(twice)
                    .chain_update(twice)
                    .chain_update(challenge);
                first(&digest.finalize())
            }
            Self::MsChapV2 {
                nt_hash,
                nt_response,
            } => {
                let master = Sha1::new()
                    .chain_update(Md4::digest(nt_hash))
                    .chain_update(nt_response)
                    .chain_update("This is the MPPE Master Key")
                    .finalize();
                let magic = match way {
                    Way::Up => {
                        "On the client side, this is the send key; on the server side, it is the receive key."
                    }
                    Way::Down => {
                        "On the client side, this is the receive key; on the server side, it is the send key."
                    }
                };
                let digest = Sha1::new()
                    .chain_update(&master[..16])
                    .chain_update([0; 40])
                    .chain_update(magic)
                    .chain_update([0xf2; 40]);
                first(&digest.finalize())
            }
        }
    }
}

struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    fn new(key: &[u8]) -> Self {
        let mut state: [u8; 256] = core::array::from_fn(|n| n as u8);
        let mut j = 0_u8;
        for i in 0..256 {
            j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
            state.swap(i, usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    fn apply(&mut self, octets: &mut [u8]) {
        for octet in octets {
            self.i = self.i.wrapping_add(1);
            let a = self.state[usize::from(self.i)];
            self.j = self.j.wrapping_add(a);
            let b = self.state[usize::from(self.j)];
            self.state.swap(usize::from(self.i), usize::from(self.j));
            *octet ^= self.state[usize::from(a.wrapping_add(b))];
        }
    }
}

/// MPPE of one direction, for whoever loses nothing: counts must come in order, but gaps are bridged where a key change
/// per packet allows that.
pub struct Mppe {
    start: [u8; 16],
    bits: u8,
    stateless: bool,
    key: [u8; 16],
    rc4: Rc4,
    /// The count of the next packet.
    count: u16,
    /// Packets so far.
    pub packets: u64,
}

const FLUSHED: u16 = 0x8000;
const ENCRYPTED: u16 = 0x1000;

impl Mppe {
    pub fn new(keys: &Keys, way: Way, bits: u8, stateless: bool) -> Self {
        let start = keys.start(way, bits);
        let mut mppe = Self {
            start,
            bits,
            stateless,
            key: start,
            rc4: Rc4::new(&start),
            count: 0,
            packets: 0,
        };
        mppe.key = mppe.key_of_sha();
        mppe.weaken();
        mppe.rc4 = Rc4::new(&mppe.key[..mppe.length()]);
        mppe
    }

    fn length(&self) -> usize {
        if self.bits == 128 { 16 } else { 8 }
    }

    /// `GetNewKeyFromSHA` (RFC 3078 §7.3).
    fn key_of_sha(&self) -> [u8; 16] {
        let length = self.length();
        let digest = Sha1::new()
            .chain_update(&self.start[..length])
            .chain_update([0; 40])
            .chain_update(&self.key[..length])
            .chain_update([0xf2; 40])
            .finalize();
        first(&digest)
    }

    fn weaken(&mut self) {
        match self.bits {
            40 => self.key[..3].copy_from_slice(&[0xd1, 0x26, 0x9e]),
            56 => self.key[0] = 0xd1,
            _ => {}
        }
    }

    fn change(&mut self) {
        let length = self.length();
        let mut interim = self.key_of_sha();
        let mut rc4 = Rc4::new(&interim[..length]);
        rc4.apply(&mut interim[..length]);
        self.key = interim;
        self.weaken();
        self.rc4 = Rc4::new(&self.key[..length]);
    }

    /// Whether the key changes before the packet with the next count.
    fn changes(&self) -> bool {
        self.stateless || self.count & 0xff == 0xff
    }

    /// Header and ciphertext of `plain`, which begins with the inner protocol.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut header = ENCRYPTED | self.count;
        if self.changes() {
            self.change();
            header |= FLUSHED;
        }
        self.step();
        let mut packet = header.to_be_bytes().to_vec();
        let mut cipher = plain.to_vec();
        self.rc4.apply(&mut cipher);
        packet.extend(cipher);
        packet
    }

    /// The plaintext of what follows the PPP protocol 00FD.
    pub fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, String> {
        let (header, cipher) = packet
            .split_first_chunk::<2>()
            .ok_or("an MPPE packet without a header")?;
        let header = u16::from_be_bytes(*header);
        let (flags, count) = (header & 0xf000, header & 0x0fff);
        if self.stateless {
            let ahead = count.wrapping_sub(self.count) & 0x0fff;
            if ahead >= 0x0800 {
                return Err(format!("count {count:03x} is late: {:03x}", self.count));
            }
            for _ in 0..ahead {
                self.change();
                self.count = (self.count + 1) & 0x0fff;
            }
        } else if count != self.count {
            return Err(format!("count {count:03x}, not {:03x}", self.count));
        }
        let changes = self.changes();
        // RFC 3078 §3.1 has A on the first stateful packet as well; Linux and npppd leave it clear.
        let first = !self.stateless && self.packets == 0;
        if flags & !FLUSHED != ENCRYPTED || (flags & FLUSHED != 0) != changes && !first {
            return Err(format!("MPPE header {header:04x}"));
        }
        if changes {
            self.change();
        }
        self.step();
        let mut plain = cipher.to_vec();
        self.rc4.apply(&mut plain);
        Ok(plain)
    }

    fn step(&mut self) {
        self.count = (self.count + 1) & 0x0fff;
        self.packets += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(text: &str) -> [u8; N] {
        core::array::from_fn(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap())
    }

    /// RFC 2759 §9.2.
    #[test]
    fn the_sample_of_rfc_2759_comes_out() {
        let server = octets("5B5D7C7D7B3F2F3E3C2C602132262628");
        let peer = octets("21402324255E262A28295F2B3A337C7E");
        let hash = challenge_hash(&peer, &server, b"User");
        assert_eq!(hash, octets("D02E4386BCE91226"));
        let nt_hash = nt_hash("clientPass");
        let response = challenge_response(&hash, &nt_hash);
        assert_eq!(
            response,
            octets("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")
        );
        assert_eq!(
            authenticator_response(&nt_hash, &response, &hash),
            "S=407A5589115FD0D6209F510FE9C04566932CDA56"
        );
        let keys = Keys::MsChapV2 {
            nt_hash,
            nt_response: response,
        };
        // RFC 3079 §3.5.3.
        assert_eq!(
            keys.start(Way::Down, 128),
            octets("8B7CDC149B993A1BA118CB153F56DCCB")
        );
    }

    /// RFC 3079 §3.5.1 and §3.5.3: the sample packets.
    #[test]
    fn the_session_keys_of_rfc_3079_come_out() {
        let response = octets("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");
        let keys = Keys::MsChapV2 {
            nt_hash: nt_hash("clientPass"),
            nt_response: response,
        };
        let key = |bits| Mppe::new(&keys, Way::Down, bits, false).key;
        assert_eq!(key(40)[..8], octets::<8>("D1269EC49FA62E3E"));
        assert_eq!(key(56)[..8], octets::<8>("D15C00C49FA62E3E"));
        assert_eq!(key(128), octets("405CB2247A7956E6E211007AE27B22D4"));
    }

    /// RFC 3079 §2.5, with the octet of §2.5.3 that an erratum corrects.
    #[test]
    fn the_keys_of_ms_chap_v1_come_out() {
        let keys = Keys::MsChapV1 {
            nt_hash: nt_hash("clientPass"),
            lm_hash: lm_hash("clientPass"),
            challenge: octets("102DB5DF085D3041"),
        };
        assert_eq!(
            lm_hash("clientPass"),
            octets("76A152936096D7830E2390227404AFD2")
        );
        for way in [Way::Up, Way::Down] {
            let key = |bits| Mppe::new(&keys, way, bits, false).key;
            assert_eq!(key(40)[..8], octets::<8>("D1269E538CEC4A08"));
            assert_eq!(key(56)[..8], octets::<8>("D10801538CEC4A08"));
            assert_eq!(key(128), octets("59D159BC09F76F1DA2A86A28FFEC0B1E"));
            let mut changed = Mppe::new(&keys, way, 40, true);
            changed.change();
            assert_eq!(changed.key[..8], octets::<8>("D1269E90012B8D2A"));
        }
    }

    #[test]
    fn what_is_sealed_opens_across_key_changes() {
        let keys = Keys::MsChapV2 {
            nt_hash: nt_hash("x"),
            nt_response: [3; 24],
        };
        for (bits, stateless) in [(40, true), (56, false), (128, true), (128, false)] {
            let mut ours = Mppe::new(&keys, Way::Up, bits, stateless);
            let mut theirs = Mppe::new(&keys, Way::Up, bits, stateless);
            for n in 0..600_u32 {
                let sealed = ours.seal(&n.to_be_bytes());
                assert_eq!(theirs.open(&sealed).unwrap(), n.to_be_bytes());
            }
        }
    }
}
