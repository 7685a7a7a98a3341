#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use core::cell::Cell;

use rc4::{KeyInit, Rc4, StreamCipher};
use turnpike_protocol::mppe::{
    Changer, Cipher, Decryptor, Encryptor, Mode, Rc4State, SessionKey, StartKey, Strength,
};

use super::arena::Arena;
use super::batch::{self, Cost, Plan, Task, WINDOW};
use super::choice::{self, Choice};
use super::kernel::{self, Single, singles};
use super::sha1::{self, Digest, digests};
use super::{Engine, Link, Packet};

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

/// The choice for this processor, the portable one, and each kernel for several streams with each digest: preferred
/// wherever it can be, or as if it cost what two packets cost.
fn choices() -> Vec<&'static Choice> {
    let singles: Vec<&Single> = singles().collect();
    let mut all = vec![choice::best(), choice::portable()];
    for lanes in kernel::lanes() {
        for digest in digests() {
            for start in [0, 200] {
                let cost = |start| Cost {
                    start,
                    block: start / 15,
                };
                let single = singles[all.len() % singles.len()];
                all.push(Box::leak(Box::new(Choice {
                    plan: Plan {
                        single: (single, cost(100)),
                        lanes: vec![(lanes, cost(start))],
                    },
                    digest,
                    digests: digest,
                })));
            }
        }
    }
    all
}

fn engines() -> impl Iterator<Item = Engine> {
    choices().into_iter().map(Engine::with)
}

/// A session key of 8 or 16 octets that looks random, and the start key of its chain.
fn session(noise: &mut Noise) -> (StartKey, SessionKey) {
    let strength = STRENGTHS[noise.below(3)];
    let start = StartKey::new(twice(&noise.octets(16)), strength);
    let mut key = SessionKey::initial(&start);
    key.replace(&twice(&noise.octets(16)));
    (start, key)
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
    for kernel in singles() {
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
                    let name = kernel.name;
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
    for kernel in singles() {
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
            assert!(octets == crate_applied(&key, &clear), "{}", kernel.name);
        }
    }
}

#[test]
fn key_streams_of_rfc_6229() {
    let file = File::open("rc4");
    let vectors = file.pick(|vector| [8, 16].contains(&vector.bytes("key").len()));
    for kernel in singles() {
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

/// All of them at once, which are of different lengths.
#[test]
fn key_streams_of_rfc_6229_in_lanes() {
    let file = File::open("rc4");
    let vectors = file.pick(|vector| [8, 16].contains(&vector.bytes("key").len()));
    for choice in choices() {
        for vectors in vectors.chunks(WINDOW) {
            let keys: Vec<[u8; 16]> = vectors
                .iter()
                .map(|vector| twice(&vector.bytes("key")))
                .collect();
            let mut streams: Vec<Vec<u8>> = vectors
                .iter()
                .map(|vector| {
                    vec![0; vector.number("offset") as usize + vector.bytes("keystream").len()]
                })
                .collect();
            let mut tasks: Vec<Task> = keys
                .iter()
                .zip(&mut streams)
                .map(|(key, stream)| Task {
                    key,
                    data: stream.as_mut_ptr(),
                    len: stream.len(),
                })
                .collect();
            // SAFETY: keys and streams are there, each stream is in one task, and there are at most `WINDOW`.
            unsafe { batch::run(&choice.plan, &mut Arena::new(), &mut tasks) };
            for (vector, stream) in vectors.iter().zip(&streams) {
                assert_eq!(
                    stream[vector.number("offset") as usize..],
                    vector.bytes("keystream"),
                    "{}",
                    vector.text("name")
                );
            }
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
                    assert!(
                        octets == expected,
                        "{}, {strength:?}",
                        engine.name().together
                    );
                    let cipher = receiver.open_with(header, 0, &mut engine).unwrap();
                    engine.run(cipher, &mut octets);
                    assert!(octets == clear);
                    receiver.judge(true);
                }
            }
        }
    }
}

/// Packets between edges that must stay as they are, encrypted all at once.
fn agree(engine: &mut Engine, noise: &mut Noise, lens: &[usize]) {
    const EDGE: usize = 16;
    let keys: Vec<SessionKey> = lens.iter().map(|_| session(noise).1).collect();
    let mut rooms = Vec::new();
    let mut expected = Vec::new();
    for (key, &len) in keys.iter().zip(lens) {
        let clear = noise.octets(len);
        let align = noise.below(16);
        let mut room = vec![0xa5; EDGE + align + 16 + len + EDGE];
        let skew = room.as_ptr().align_offset(16) + align;
        room[skew..skew + len].copy_from_slice(&clear);
        let mut after = room.clone();
        after[skew..skew + len].copy_from_slice(&crate_applied(key.bytes(), &clear));
        rooms.push((skew, room));
        expected.push(after);
    }
    let packets = rooms.iter_mut().zip(&keys).zip(lens);
    let packets: Vec<Packet<'_>> = packets
        .map(|(((skew, room), key), len)| Packet {
            key,
            octets: Cell::from_mut(&mut room[*skew..*skew + len]).as_slice_of_cells(),
        })
        .collect();
    engine.run_all(&packets);
    for ((at, (_, room)), expected) in rooms.iter().enumerate().zip(&expected) {
        assert!(
            room == expected,
            "{}: packet {at} of {lens:?}",
            engine.name().together
        );
    }
}

#[test]
fn batches_agree_with_the_crate_at_every_length() {
    let mut noise = Noise::new("batches");
    for lanes in kernel::lanes() {
        let mut engine = Engine::with(Box::leak(Box::new(Choice {
            plan: Plan {
                single: (
                    &kernel::PORTABLE,
                    Cost {
                        start: 100,
                        block: 100,
                    },
                ),
                lanes: vec![(lanes, Cost { start: 0, block: 0 })],
            },
            digest: &sha1::PORTABLE,
            digests: &sha1::PORTABLE,
        })));
        for len in 0..=2048 {
            let other = noise.below(2048);
            let mut lens = vec![len; lanes.width];
            agree(&mut engine, &mut noise, &lens);
            lens[noise.below(lanes.width)] = other;
            agree(&mut engine, &mut noise, &lens);
        }
    }
}

#[test]
fn batches_of_any_number_and_mixed_lengths_agree_with_the_crate() {
    let mut noise = Noise::new("mixed");
    for mut engine in engines() {
        for count in (0..=17).chain([33, 64, 65, 150]) {
            for most in [1, 20, 70, 600, 2049] {
                let lens: Vec<usize> = (0..count).map(|_| noise.below(most)).collect();
                agree(&mut engine, &mut noise, &lens);
            }
        }
        // Longer than the dummy, and much longer than the rest.
        agree(
            &mut engine,
            &mut noise,
            &[9000, 5000, 0, 64, 64, 64, 64, 64, 1, 4096],
        );
    }
}

#[test]
fn key_chains_agree_with_the_reference() {
    let mut noise = Noise::new("chains");
    for mut engine in engines() {
        for count in (0..=17).chain([65]) {
            let mut chains: Vec<_> = (0..count).map(|_| session(&mut noise)).collect();
            let mut expected = chains.clone();
            for _ in 0..12 {
                let mut links: Vec<Link<'_>> = chains
                    .iter_mut()
                    .map(|(start, key)| Link { start, key })
                    .collect();
                engine.change_all(&mut links);
                for (at, (chain, expected)) in chains.iter().zip(&mut expected).enumerate() {
                    expected.1.change(&expected.0);
                    assert!(
                        chain.1.bytes() == expected.1.bytes(),
                        "{}: key {at} of {count}",
                        engine.name().together
                    );
                }
            }
        }
    }
}

#[test]
fn the_cheapest_groups_are_found() {
    let single = (
        &kernel::PORTABLE,
        Cost {
            start: 10,
            block: 1,
        },
    );
    let four = (
        &kernel::LOCKSTEP,
        Cost {
            start: 20,
            block: 2,
        },
    );
    let plan = Plan {
        single,
        lanes: vec![four],
    };
    let groups = |lens: &[usize]| -> Vec<bool> {
        let task = |&len| Task {
            len,
            ..Task::NOTHING
        };
        let tasks: Vec<Task> = lens.iter().map(task).collect();
        let mut groups = [None; WINDOW];
        plan.group(&tasks, &mut groups);
        groups[..lens.len()].iter().map(Option::is_some).collect()
    };
    let (one, all) = (false, true);
    assert_eq!(groups(&[]), []);
    assert_eq!(groups(&[64]), [one]);
    assert_eq!(groups(&[64; 2])[..1], [one], "two are as cheap alone");
    assert_eq!(groups(&[64; 3])[..1], [all]);
    assert_eq!(groups(&[64; 4])[..1], [all]);
    let mixed = groups(&[6400, 64, 64, 64]);
    assert_eq!(
        mixed[..2],
        [one, all],
        "the long one would hold up the rest"
    );
    let mixed = groups(&[6400, 6400, 6400, 64, 64, 64, 64]);
    assert!(mixed[0] && mixed[4], "a short one that costs nothing more");
}

#[test]
fn nothing_secret_stays_in_the_room() {
    fn clean(engine: &mut Engine) -> bool {
        let arena = &mut *engine.arena;
        let (table, i, j) = arena.rc4.parts();
        let clean = |octets: &[u8]| octets.iter().all(|&octet| octet == 0);
        clean(table)
            && (*i, *j) == (0, 0)
            && clean(&arena.tables)
            && clean(arena.keys.as_flattened())
            && clean(arena.bounce.as_flattened())
            && arena.key_rows == [0; 16]
            && arena.j == [0; 8]
            && clean(engine.keys.keys.as_flattened())
    }
    let mut noise = Noise::new("room");
    for mut engine in engines() {
        let (start, mut key) = session(&mut noise);
        engine.change(&start, &mut key);
        assert!(clean(&mut engine), "after a key change");
        engine.run(Cipher::Fresh(key.clone()), &mut [0; 99]);
        assert!(clean(&mut engine), "after a packet");
        let mut keys = vec![key; 15];
        let links = keys.iter_mut().map(|key| Link { start: &start, key });
        engine.change_all(&mut links.collect::<Vec<_>>());
        assert!(clean(&mut engine), "after key changes");
        agree(&mut engine, &mut noise, &[99; 11]);
        assert!(clean(&mut engine), "after packets");
    }
}

#[test]
fn a_trial_finds_that_longer_packets_take_longer() {
    let plan = &choice::best().plan;
    let lanes = plan.lanes.iter().map(|(lanes, cost)| (lanes.name, cost));
    for (name, cost) in lanes.chain([(plan.single.0.name, &plan.single.1)]) {
        assert!(cost.start > 0 && cost.block > 0, "{name}: {cost:?}");
    }
}

#[test]
fn the_reference_is_always_there_and_comes_last() {
    let names: Vec<&str> = singles().map(|single: &Single| single.name).collect();
    assert_eq!(names.last(), Some(&"portable"));
    let hashes: Vec<&str> = digests().map(|digest: &Digest| digest.name).collect();
    assert_eq!(hashes.last(), Some(&"portable"));
    assert_eq!(
        kernel::lanes().last().map(|lanes| lanes.name),
        Some("4 in lockstep")
    );
    assert!(Engine::new().name().single.contains(names[0]));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        assert_eq!(
            names.len(),
            2,
            "every processor with AVX2 has the rest, too"
        );
        assert!(hashes.contains(&"AVX2"));
        let name = Engine::without_sha().name();
        for name in [name.single, name.together] {
            assert!(name.contains("AVX"), "{name}");
        }
        assert!(kernel::lanes().count() >= 4);
    }
}
