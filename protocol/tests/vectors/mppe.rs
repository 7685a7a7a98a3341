use turnpike_protocol::Role;
use turnpike_protocol::mppe::keys::{SessionKey, asymmetric_start_key, master_key};
use turnpike_protocol::mppe::{
    Decryptor, Direction, Encryptor, Mode, Rc4State, Refusal, StartKey, Strength, plausible,
};
use turnpike_protocol::mschap::{MasterKeys, NtHash, Password};

use crate::file::{File, Vector};

fn strength(vector: &Vector) -> Strength {
    match vector.number("strength") {
        40 => Strength::Bits40,
        56 => Strength::Bits56,
        128 => Strength::Bits128,
        other => panic!("{other} bits"),
    }
}

fn start_key(vector: &Vector, strength: Strength) -> StartKey {
    let bytes = vector.bytes("start_key");
    assert_eq!(bytes.len(), strength.key_len());
    let mut padded = [0; 16];
    padded[..bytes.len()].copy_from_slice(&bytes);
    StartKey::new(padded, strength)
}

#[test]
fn start_and_session_keys() {
    let file = File::open("mppe-keys");
    let chains = file.pick(|v| v.has("session_key_1"));
    for vector in chains {
        let name = vector.text("name");
        let start = start_key(vector, strength(vector));
        let mut key = SessionKey::initial(&start);
        assert_eq!(key.bytes(), vector.bytes("session_key_0"), "{name}");
        if vector.has("sample_plain") {
            let mut sample = vector.bytes("sample_plain");
            Rc4State::new(&key).apply(&mut sample);
            assert_eq!(sample, vector.bytes("sample_cipher"), "{name}");
        }
        for change in 1..=4 {
            key.change(&start);
            assert_eq!(
                key.bytes(),
                vector.bytes(&format!("session_key_{change}")),
                "{name}, change {change}"
            );
        }
        // How a start key comes out of a password.
        if name.starts_with("v1-") {
            let password = Password::new(vector.text("password_text"));
            let challenge = if vector.has("challenge") {
                vector.array("challenge")
            } else {
                [0; 8]
            };
            let lm_hash = password.lm_hash();
            let hash = password.nt_hash();
            let keys = MasterKeys::from_mschap_v1(&hash, lm_hash.as_ref(), &challenge);
            for role in [Role::Server, Role::Client] {
                for direction in [Direction::Transmit, Direction::Receive] {
                    let made = keys.start_key(role, direction, strength(vector)).unwrap();
                    assert_eq!(made.bytes(), start.bytes(), "{name}");
                }
            }
            // Without an LM hash: no short keys, and not zero ones either.
            let keys = MasterKeys::from_mschap_v1(&hash, None, &challenge);
            let made = keys.start_key(Role::Server, Direction::Transmit, strength(vector));
            assert_eq!(
                made.is_some(),
                strength(vector) == Strength::Bits128,
                "{name}"
            );
        } else {
            let master = master_key(&vector.array("nt_hash_hash"), &vector.array("nt_response"));
            let keys = MasterKeys::from_mschap_v2(
                &NtHash::from_password("clientPass"),
                &vector.array("nt_response"),
            );
            let (server, client) = match name.rsplit('-').next().unwrap() {
                "send" => (Direction::Transmit, Direction::Receive),
                "recv" => (Direction::Receive, Direction::Transmit),
                other => panic!("{other}"),
            };
            for (role, direction) in [(Role::Server, server), (Role::Client, client)] {
                let made = asymmetric_start_key(&master, role, direction);
                assert!(made.starts_with(start.bytes()), "{name}");
                assert_eq!(
                    keys.start_key(role, direction, strength(vector))
                        .unwrap()
                        .bytes(),
                    start.bytes(),
                    "{name}"
                );
            }
        }
    }
    for vector in file.pick(|v| v.starts("rekey-step-")) {
        // The change is one step here; what it starts from and ends with is compared.
        let start = start_key(vector, strength(vector));
        let mut key = SessionKey::initial(&start);
        assert_eq!(key.bytes(), vector.bytes("session_key_before"));
        key.change(&start);
        assert_eq!(key.bytes(), vector.bytes("session_key_after"));
    }
    for vector in file.pick(|v| v.has("changes")) {
        let start = start_key(vector, Strength::Bits128);
        let mut key = SessionKey::initial(&start);
        for _ in 0..vector.number("changes") {
            key.change(&start);
        }
        assert_eq!(
            key.bytes(),
            vector.bytes("session_key"),
            "{}",
            vector.text("name")
        );
    }
    for vector in file.pick(|v| v.starts("eap-")) {
        // The session key; that EAP's own keys are cut or padded to a start key is for EAP to do.
        let start = start_key(vector, strength(vector));
        assert_eq!(
            SessionKey::initial(&start).bytes(),
            vector.bytes("session_key_0"),
            "{}",
            vector.text("name")
        );
    }
    file.nothing_left();
}

fn strength_of(stream: &str) -> Strength {
    if stream.contains("-40") {
        Strength::Bits40
    } else if stream.contains("-56") {
        Strength::Bits56
    } else {
        assert!(stream.contains("-128"), "{stream}");
        Strength::Bits128
    }
}

/// A sender that leaves out packets up to the given ones.
#[test]
fn packets_sealed() {
    let file = File::open("mppe-packets");
    for stream in streams(&file) {
        let vectors = file.pick(|v| v.text("stream_text") == stream);
        let mode = if stream.starts_with("stateful") {
            Mode::Stateful
        } else {
            Mode::Stateless
        };
        let mut encryptor = Encryptor::new(&start_key(vectors[0], strength_of(&stream)), mode);
        let mut index = 0;
        for vector in vectors {
            let name = vector.text("name");
            let target = if vector.has("packet_index") {
                vector.number("packet_index")
            } else {
                vector.number("coherency")
            };
            while index < target {
                encryptor.seal().cipher.apply(&mut inner(index));
                index += 1;
            }
            if ["stateful-128-resync", "stateful-128-lost-flag"].contains(&name.as_str()) {
                encryptor.reset(1);
                encryptor.reset(1);
            }
            let mut octets = if vector.has("inner") {
                vector.bytes("inner")
            } else {
                inner(index)
            };
            let sealing = encryptor.seal();
            let header = sealing.header;
            sealing.cipher.apply(&mut octets);
            index += 1;
            let mut packet = header.to_vec();
            packet.extend_from_slice(&octets);
            let mut expected = vector.bytes("packet");
            if name == "stateful-128-000" {
                // That sender flushes on its first packet; ours, like Linux, does not (stateful-128-first-noflush).
                expected[0] &= 0x7f;
            }
            assert_eq!(packet, expected, "{name}");
        }
    }
    file.nothing_left();
}

fn streams(file: &File) -> Vec<String> {
    let mut streams: Vec<String> = file
        .pick(|_| true)
        .iter()
        .map(|vector| vector.text("stream_text"))
        .collect();
    streams.dedup();
    streams
}

/// The packet that the vectors' README gives to number `index` of a stream.
fn inner(index: u64) -> Vec<u8> {
    let [high, low] = (index as u16).to_be_bytes();
    let mut octets = vec![
        0x00, 0x21, 0x45, 0, 0, 0x1c, high, low, 0, 0, 0x40, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    octets.extend_from_slice(&[8, 0, 0, 0, 0, 0, high, low]);
    octets
}

#[test]
fn packets_opened() {
    let file = File::open("mppe-packets");
    for stream in streams(&file) {
        let vectors = file.pick(|v| v.text("stream_text") == stream);
        let mode = if stream.starts_with("stateful") {
            Mode::Stateful
        } else {
            Mode::Stateless
        };
        let start = start_key(vectors[0], strength_of(&stream));
        let mut decryptor = Decryptor::new(&start, mode);
        // The packets between the listed ones come from our own sender, unless the stream says that they were lost.
        let mut between = Encryptor::new(&start, mode);
        let mut index = 0;
        for vector in vectors {
            let name = vector.text("name");
            let target = if vector.has("packet_index") {
                vector.number("packet_index")
            } else {
                vector.number("coherency")
            };
            let lost = [
                "stateless-128-gap",
                "stateless-56-gap",
                "stateless-40-gap",
                "stateful-128-after-loss",
                "stateful-128-lost-flag",
            ]
            .contains(&name.as_str())
                || stream == "stateless-128-wrap";
            let missing = if lost { target - index } else { 0 };
            while index < target {
                let mut octets = inner(index);
                let sealing = between.seal();
                let header = sealing.header;
                sealing.cipher.apply(&mut octets);
                if !lost {
                    decryptor
                        .open(header, 0)
                        .unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
                        .apply(&mut octets);
                    assert_eq!(octets, inner(index));
                    decryptor.judge(plausible(&octets));
                }
                index += 1;
            }
            if ["stateful-128-resync", "stateful-128-lost-flag"].contains(&name.as_str()) {
                between.reset(1);
            }
            between.seal().cipher.apply(&mut inner(index));
            index += 1;
            let packet = vector.bytes("packet");
            let header = [packet[0], packet[1]];
            let mut octets = packet[2..].to_vec();
            if vector.has("expect_text") {
                assert_eq!(
                    decryptor.open(header, missing as u32).err(),
                    Some(Refusal::NeedReset),
                    "{name}"
                );
                continue;
            }
            let opened = decryptor.open(header, missing as u32);
            opened
                .unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
                .apply(&mut octets);
            assert_eq!(octets, vector.bytes("inner"), "{name}");
            assert!(plausible(&octets), "{name}");
            decryptor.judge(true);
        }
    }
    file.nothing_left();
}
