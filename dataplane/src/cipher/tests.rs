#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use rc4::{KeyInit, Rc4, StreamCipher};
use turnpike_protocol::mppe::{
    Changer, Cipher, Decryptor, Encryptor, Mode, Rc4State, SessionKey, StartKey, Strength,
};

use super::Engine;
use super::kernel::{Kernel, available};

#[expect(dead_code, reason = "shared with other tests")]
#[path = "../../../protocol/tests/vectors/file.rs"]
mod file;

use file::{File, Vector};

const STRENGTHS: [Strength; 3] = [Strength::Bits40, Strength::Bits56, Strength::Bits128];

/// Octets that look random and are the same in every run.
struct Noise(Rc4);

impl Noise {
    fn new(seed: &str) -> Self {
        Self(Rc4::new_from_slice(seed.as_bytes()).unwrap())
    }

    fn fill(&mut self, octets: &mut [u8]) {
        octets.fill(0);
        self.0.apply_keystream(octets);
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        self.fill(&mut octets);
        octets
    }

    fn below(&mut self, limit: usize) -> usize {
        let mut octets = [0; 4];
        self.fill(&mut octets);
        u32::from_le_bytes(octets) as usize % limit
    }
}

/// As kernels take keys.
fn twice(key: &[u8]) -> [u8; 16] {
    core::array::from_fn(|at| key[at % key.len()])
}

fn engines() -> impl Iterator<Item = Engine> {
    available().map(Engine::with)
}

fn crate_applied(key: &[u8], octets: &[u8]) -> Vec<u8> {
    let mut octets = octets.to_vec();
    Rc4::new_from_slice(key)
        .unwrap()
        .apply_keystream(&mut octets);
    octets
}

#[test]
fn kernels_agree_with_the_crate_at_every_length_and_alignment() {
    const EDGE: usize = 16;
    let mut noise = Noise::new("lengths");
    for kernel in available() {
        for key_len in [8, 16] {
            for len in 0..=2048 {
                let key = noise.octets(key_len);
                let clear = noise.octets(len);
                let expected = crate_applied(&key, &clear);
                for align in 0..16 {
                    let mut room = vec![0xa5; EDGE + align + len + EDGE];
                    let skew = room.as_ptr().align_offset(16) + align;
                    let (before, rest) = room.split_at_mut(skew);
                    let (octets, after) = rest.split_at_mut(len);
                    octets.copy_from_slice(&clear);
                    let mut rc4 = Rc4State::empty();
                    kernel.schedule(&mut rc4, &twice(&key));
                    kernel.stream(&mut rc4, octets);
                    let name = kernel.name();
                    assert!(
                        octets == expected,
                        "{name}: {key_len}-octet key, {len} octets at {align}"
                    );
                    assert!(
                        before.iter().chain(after.iter()).all(|&edge| edge == 0xa5),
                        "{name}: wrote beside {len} octets at {align}"
                    );
                }
            }
        }
    }
}

#[test]
fn streams_go_on_where_they_were() {
    fn state(rc4: &mut Rc4State) -> ([u8; 256], u8, u8) {
        let (table, i, j) = rc4.parts();
        (*table, *i, *j)
    }
    let mut noise = Noise::new("streams");
    for kernel in available() {
        for round in 0..300 {
            let key = noise.octets(16);
            let mut rc4 = Rc4State::empty();
            kernel.schedule(&mut rc4, &twice(&key));
            let mut reference = Rc4State::empty();
            reference.set_key(&key);
            assert!(state(&mut rc4) == state(&mut reference), "table of a key");
            let clear = noise.octets(4000);
            let mut octets = clear.clone();
            let mut left = &mut octets[..];
            while !left.is_empty() {
                let most = [4, 40, 400][round % 3];
                let (next, rest) = left.split_at_mut(noise.below(most).min(left.len()));
                let mut same = next.to_vec();
                kernel.stream(&mut rc4, next);
                reference.apply(&mut same);
                assert!(next == same && state(&mut rc4) == state(&mut reference));
                left = rest;
            }
            assert!(octets == crate_applied(&key, &clear), "{}", kernel.name());
        }
    }
}

#[test]
fn key_streams_of_rfc_6229() {
    let file = File::open("rc4");
    let vectors = file.pick(|vector| [8, 16].contains(&vector.bytes("key").len()));
    for kernel in available() {
        for vector in &vectors {
            let expected = vector.bytes("keystream");
            let offset = vector.number("offset") as usize;
            let mut octets = vec![0; offset + expected.len()];
            let mut rc4 = Rc4State::empty();
            kernel.schedule(&mut rc4, &twice(&vector.bytes("key")));
            kernel.stream(&mut rc4, &mut octets);
            assert_eq!(octets[offset..], expected, "{}", vector.text("name"));
        }
    }
}

fn start_key(vector: &Vector) -> StartKey {
    let strength = STRENGTHS
        .into_iter()
        .find(|strength| u64::from(strength.bits()) == vector.number("strength"))
        .unwrap();
    StartKey::new(twice(&vector.bytes("start_key")), strength)
}

#[test]
fn keys_and_samples_of_rfc_3079() {
    let file = File::open("mppe-keys");
    let chains = file.pick(|vector| vector.has("session_key_1"));
    for mut engine in engines() {
        let mut samples = 0;
        for vector in &chains {
            let start = start_key(vector);
            let mut key = SessionKey::initial(&start);
            if vector.has("sample_plain") {
                let mut sample = vector.bytes("sample_plain");
                engine.run(Cipher::Fresh(key.clone()), &mut sample);
                assert_eq!(sample, vector.bytes("sample_cipher"));
                samples += 1;
            }
            for change in 1..=4 {
                engine.change(&start, &mut key);
                assert_eq!(
                    key.bytes(),
                    vector.bytes(&format!("session_key_{change}")),
                    "{}, change {change}",
                    vector.text("name")
                );
            }
        }
        assert!(samples >= 3, "one of each strength");
    }
}

/// A chain, a packet with a fresh key and packets of a stream, against the reference.
#[test]
fn engines_seal_and_open_like_the_reference() {
    let mut noise = Noise::new("engines");
    for mut engine in engines() {
        for strength in STRENGTHS {
            for mode in [Mode::Stateless, Mode::Stateful] {
                let start = StartKey::new(twice(&noise.octets(16)), strength);
                let mut sender = Encryptor::new(&start, mode);
                let mut reference = Encryptor::new(&start, mode);
                let mut receiver = Decryptor::new(&start, mode);
                for _ in 0..600 {
                    let len = noise.below(1500);
                    // A protocol that may be encrypted and is not looked into.
                    let clear = [&[0x00, 0x2d][..], &noise.octets(len)].concat();
                    let mut octets = clear.clone();
                    let sealing = sender.seal_with(&mut engine);
                    let header = sealing.header;
                    engine.run(sealing.cipher, &mut octets);
                    let mut expected = clear.clone();
                    let sealing = reference.seal();
                    assert_eq!(sealing.header, header);
                    sealing.cipher.apply(&mut expected);
                    assert!(octets == expected, "{}, {strength:?}", engine.name());
                    let cipher = receiver.open_with(header, 0, &mut engine).unwrap();
                    engine.run(cipher, &mut octets);
                    assert!(octets == clear);
                    receiver.judge(true);
                }
            }
        }
    }
}

#[test]
fn nothing_secret_stays_in_the_room() {
    for mut engine in engines() {
        let start = StartKey::new([7; 16], Strength::Bits128);
        let mut key = SessionKey::initial(&start);
        engine.change(&start, &mut key);
        let clean = |engine: &mut Engine| {
            let (table, i, j) = engine.room.rc4.parts();
            table.iter().all(|&octet| octet == 0)
                && (*i, *j) == (0, 0)
                && engine.room.key == [0; 16]
        };
        assert!(clean(&mut engine), "after a key change");
        engine.run(Cipher::Fresh(key), &mut [0; 99]);
        assert!(clean(&mut engine), "after a packet");
    }
}

#[test]
fn the_reference_is_always_there_and_comes_last() {
    let names: Vec<&str> = available().map(Kernel::name).collect();
    assert_eq!(names.last(), Some(&"portable"));
    assert_eq!(Engine::new().name(), names[0]);
    assert_eq!(Engine::portable().name(), "portable");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        assert_eq!(
            names.len(),
            2,
            "every processor with AVX2 has the rest, too"
        );
    }
}
