//! Who does MPPE with 128-bit keys, each for its own sessions with its own packets.

use core::cell::Cell;

use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};
use turnpike_dataplane::cipher::{Engine, Link, Packet};
use turnpike_protocol::mppe::{Changer, Cipher, SessionKey, StartKey, Strength};

use crate::linux::KernelLoop;
use crate::openssl::OpenSsl;

/// Sessions, each with one packet: as many as go through a worker's cipher together.
pub const SESSIONS: usize = 64;

/// Octets of the longest packet.
pub const LONGEST: usize = 1400;

/// Octets of each session's packet.
pub type Lens = [usize; SESSIONS];

const PAD_1: [u8; 40] = [0; 40];
const PAD_2: [u8; 40] = [0xf2; 40];

fn start_key(session: usize) -> [u8; 16] {
    core::array::from_fn(|at| (session * 31 + at * 7 + 1) as u8)
}

/// One of them.
pub trait Contender {
    fn name(&self) -> String;
    /// A key change for each session: digest, key schedule, 16 octets.
    fn change(&mut self);
    /// Encrypts the first octets of each session's packet in place with the key as it is: key schedule, octets.
    fn crypt(&mut self, lens: &Lens);
    /// A whole stateless packet for each session: key change, then the packet.
    fn whole(&mut self, lens: &Lens);
    /// Whole stateless packets, all of the first session: each key follows from the one before.
    fn one_call(&mut self, lens: &Lens);
    /// The packets.
    fn packets(&self) -> &[[u8; LONGEST]];
}

/// The product's own, one packet at a time.
pub struct Single(Ours);

/// The product's own, all packets at once.
pub struct Together(Ours);

struct Ours {
    engine: Engine,
    keys: Vec<(StartKey, SessionKey)>,
    packets: Vec<[u8; LONGEST]>,
}

impl Ours {
    fn new(engine: Engine) -> Self {
        let keys = (0..SESSIONS).map(|session| {
            let start = StartKey::new(start_key(session), Strength::Bits128);
            let key = SessionKey::initial(&start);
            (start, key)
        });
        Self {
            engine,
            keys: keys.collect(),
            packets: vec![[0; LONGEST]; SESSIONS],
        }
    }
}

impl Single {
    pub fn new(engine: Engine) -> Self {
        Self(Ours::new(engine))
    }
}

impl Contender for Single {
    fn name(&self) -> String {
        format!("turnpike, singly ({})", self.0.engine.name().single)
    }

    fn change(&mut self) {
        for (start, key) in &mut self.0.keys {
            self.0.engine.change(start, key);
        }
    }

    fn crypt(&mut self, lens: &Lens) {
        for (((_, key), packet), &len) in self.0.keys.iter().zip(&mut self.0.packets).zip(lens) {
            let key = Cipher::Fresh(key.clone());
            self.0.engine.run(key, &mut packet[..len]);
        }
    }

    fn whole(&mut self, lens: &Lens) {
        for (((start, key), packet), &len) in
            self.0.keys.iter_mut().zip(&mut self.0.packets).zip(lens)
        {
            self.0.engine.change(start, key);
            let key = Cipher::Fresh(key.clone());
            self.0.engine.run(key, &mut packet[..len]);
        }
    }

    fn one_call(&mut self, lens: &Lens) {
        let Ours {
            engine,
            keys,
            packets,
        } = &mut self.0;
        let (start, key) = &mut keys[0];
        for (packet, &len) in packets.iter_mut().zip(lens) {
            engine.change(start, key);
            engine.run(Cipher::Fresh(key.clone()), &mut packet[..len]);
        }
    }

    fn packets(&self) -> &[[u8; LONGEST]] {
        &self.0.packets
    }
}

impl Together {
    pub fn new(engine: Engine) -> Self {
        Self(Ours::new(engine))
    }
}

/// The first octets of each packet with its own key, together.
#[inline]
fn run_all<'a>(
    engine: &mut Engine,
    keys: impl Iterator<Item = &'a SessionKey>,
    packets: &mut [[u8; LONGEST]],
    lens: &Lens,
) {
    let mut packets = keys.zip(packets).zip(lens);
    let packets: [Packet<'_>; SESSIONS] = core::array::from_fn(|_| {
        let ((key, packet), &len) = packets.next().expect("as many as sessions");
        Packet {
            key,
            octets: Cell::from_mut(&mut packet[..len]).as_slice_of_cells(),
        }
    });
    engine.run_all(&packets);
}

impl Contender for Together {
    fn name(&self) -> String {
        format!("turnpike, together ({})", self.0.engine.name().together)
    }

    fn change(&mut self) {
        let mut links = self.0.keys.iter_mut();
        let mut links: [Link<'_>; SESSIONS] = core::array::from_fn(|_| {
            let (start, key) = links.next().expect("as many as sessions");
            Link { start, key }
        });
        self.0.engine.change_all(&mut links);
    }

    fn crypt(&mut self, lens: &Lens) {
        let keys = self.0.keys.iter().map(|(_, key)| key);
        run_all(&mut self.0.engine, keys, &mut self.0.packets, lens);
    }

    fn whole(&mut self, lens: &Lens) {
        self.change();
        self.crypt(lens);
    }

    fn one_call(&mut self, lens: &Lens) {
        let Ours {
            engine,
            keys,
            packets,
        } = &mut self.0;
        let (start, key) = &mut keys[0];
        let chain: [SessionKey; SESSIONS] = core::array::from_fn(|_| {
            engine.change(start, key);
            key.clone()
        });
        run_all(engine, chain.iter(), packets, lens);
    }

    fn packets(&self) -> &[[u8; LONGEST]] {
        &self.0.packets
    }
}

/// RC4 and SHA-1 of others, with the rest around it.
pub trait Primitives {
    fn name(&self) -> String;
    fn rc4(&mut self, key: &[u8; 16], octets: &mut [u8]);
    fn sha1(&mut self, parts: [&[u8]; 4]) -> [u8; 20];
}

/// MPPE by them.
pub struct Theirs<P> {
    primitives: P,
    keys: Vec<([u8; 16], [u8; 16])>,
    packets: Vec<[u8; LONGEST]>,
}

impl<P: Primitives> Theirs<P> {
    pub fn new(primitives: P) -> Self {
        let keys = (0..SESSIONS).map(|session| {
            let start = start_key(session);
            let key = SessionKey::initial(&StartKey::new(start, Strength::Bits128));
            let mut octets = [0; 16];
            octets.copy_from_slice(key.bytes());
            (start, octets)
        });
        Self {
            primitives,
            keys: keys.collect(),
            packets: vec![[0; LONGEST]; SESSIONS],
        }
    }
}

/// RFC 3078 §7.3.
#[inline]
fn change(primitives: &mut impl Primitives, start: &[u8; 16], key: &mut [u8; 16]) {
    let digest = primitives.sha1([start, &PAD_1, &*key, &PAD_2]);
    key.copy_from_slice(&digest[..16]);
    let interim = *key;
    primitives.rc4(&interim, key);
}

impl<P: Primitives> Contender for Theirs<P> {
    fn name(&self) -> String {
        self.primitives.name()
    }

    fn change(&mut self) {
        for (start, key) in &mut self.keys {
            change(&mut self.primitives, start, key);
        }
    }

    fn crypt(&mut self, lens: &Lens) {
        for (((_, key), packet), &len) in self.keys.iter().zip(&mut self.packets).zip(lens) {
            self.primitives.rc4(key, &mut packet[..len]);
        }
    }

    fn whole(&mut self, lens: &Lens) {
        for (((start, key), packet), &len) in self.keys.iter_mut().zip(&mut self.packets).zip(lens)
        {
            change(&mut self.primitives, start, key);
            self.primitives.rc4(key, &mut packet[..len]);
        }
    }

    fn one_call(&mut self, lens: &Lens) {
        let (start, key) = &mut self.keys[0];
        for (packet, &len) in self.packets.iter_mut().zip(lens) {
            change(&mut self.primitives, start, key);
            self.primitives.rc4(key, &mut packet[..len]);
        }
    }

    fn packets(&self) -> &[[u8; LONGEST]] {
        &self.packets
    }
}

fn sha1_of_crate(parts: [&[u8]; 4]) -> [u8; 20] {
    let mut digest = Sha1::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

/// The crates `rc4` and `sha1`.
pub struct Crates;

impl Primitives for Crates {
    fn name(&self) -> String {
        "crates rc4 and sha1".to_owned()
    }

    fn rc4(&mut self, key: &[u8; 16], octets: &mut [u8]) {
        if let Ok(mut rc4) = Rc4::new_from_slice(key) {
            rc4.apply_keystream(octets);
        }
    }

    fn sha1(&mut self, parts: [&[u8]; 4]) -> [u8; 20] {
        sha1_of_crate(parts)
    }
}

impl Primitives for OpenSsl {
    fn name(&self) -> String {
        "OpenSSL, low level".to_owned()
    }

    fn rc4(&mut self, key: &[u8; 16], octets: &mut [u8]) {
        self.rc4(key, octets);
    }

    fn sha1(&mut self, parts: [&[u8]; 4]) -> [u8; 20] {
        self.sha1(parts)
    }
}

/// SHA-1 by the processor's instructions where there are any, as Linux does it.
impl Primitives for KernelLoop {
    fn name(&self) -> String {
        "loop as in Linux".to_owned()
    }

    fn rc4(&mut self, key: &[u8; 16], octets: &mut [u8]) {
        self.rc4(key, octets);
    }

    fn sha1(&mut self, parts: [&[u8]; 4]) -> [u8; 20] {
        sha1_of_crate(parts)
    }
}
