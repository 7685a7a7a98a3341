//! The crates of hashes and ciphers, as they are built here.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::{Digest, Md4};
use rc4::{Rc4, StreamCipher};
use sha1::Sha1;

use crate::file::File;

#[test]
fn hashes() {
    let file = File::open("hash");
    for vector in file.pick(|v| !v.has("key") && v.text("alg_text") == "md4") {
        assert_eq!(
            Md4::digest(vector.bytes("message"))[..],
            vector.bytes("digest"),
            "{}",
            vector.text("name")
        );
    }
    for vector in file.pick(|v| !v.has("key") && v.text("alg_text") == "sha1") {
        assert_eq!(
            Sha1::digest(vector.bytes("message"))[..],
            vector.bytes("digest"),
            "{}",
            vector.text("name")
        );
    }
    file.skip("not used by MS-CHAP and MPPE", |v| {
        v.has("key") || !["md4", "sha1"].contains(&v.text("alg_text").as_str())
    });
    file.nothing_left();
}

#[test]
fn rc4() {
    let file = File::open("rc4");
    for vector in file.pick(|_| true) {
        let expected = vector.bytes("keystream");
        let offset = vector.number("offset") as usize;
        let mut octets = vec![0; offset + expected.len()];
        Rc4::new_from_slice(&vector.bytes("key"))
            .unwrap()
            .apply_keystream(&mut octets);
        assert_eq!(octets[offset..], expected, "{}", vector.text("name"));
    }
    file.nothing_left();
}

#[test]
fn des() {
    let file = File::open("des");
    for vector in file.pick(|v| v.has("cipher")) {
        let mut block = vector.array::<8>("plain").into();
        Des::new(&vector.array::<8>("key8").into()).encrypt_block(&mut block);
        assert_eq!(block[..], vector.bytes("cipher"), "{}", vector.text("name"));
    }
    file.skip(
        "checked beside the private function that spreads keys",
        |v| v.has("raw7"),
    );
    file.nothing_left();
}
