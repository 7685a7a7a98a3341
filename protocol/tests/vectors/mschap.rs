use turnpike_protocol::mppe::keys::master_key;
use turnpike_protocol::mschap::{self, NtHash, Response};

use crate::file::File;

fn password(octets: Vec<u8>) -> String {
    String::from_utf8(octets).unwrap()
}

#[test]
fn nt_hashes() {
    let file = File::open("nt-lm-hash");
    for vector in file.pick(|_| true) {
        let hash = NtHash::from_password(&password(vector.bytes("password_utf8")));
        assert_eq!(
            hash.bytes()[..],
            vector.bytes("nt_hash"),
            "{}",
            vector.text("name")
        );
        assert_eq!(
            hash.hashed()[..],
            vector.bytes("nt_hash_hash"),
            "{}",
            vector.text("name")
        );
    }
    file.nothing_left();
}

#[test]
fn mschap_v2() {
    let file = File::open("mschapv2");
    for vector in file.pick(|v| v.has("response_packet")) {
        let name = vector.text("name");
        let on_wire = vector.bytes("name_on_wire");
        let hash = NtHash::from_password(&password(vector.bytes("password_utf8")));
        let authenticator: [u8; 16] = vector.array("authenticator_challenge");
        let peer: [u8; 16] = vector.array("peer_challenge");
        let nt_response: [u8; 24] = vector.array("nt_response");
        let success = vector.text("authenticator_response_text");

        assert_eq!(hash.bytes()[..], vector.bytes("nt_hash"), "{name}");
        assert_eq!(hash.hashed()[..], vector.bytes("nt_hash_hash"), "{name}");
        assert_eq!(
            mschap::user_part(&on_wire),
            vector.bytes("hashed_user"),
            "{name}"
        );
        assert_eq!(
            mschap::challenge_hash(&peer, &authenticator, &on_wire)[..],
            vector.bytes("challenge_hash"),
            "{name}"
        );
        assert_eq!(
            mschap::nt_response(&hash, &authenticator, &peer, &on_wire),
            nt_response,
            "{name}"
        );

        let server =
            mschap::verify(&hash, &authenticator, &peer, &nt_response, &on_wire).expect(&name);
        assert_eq!(server.authenticator_response, success.as_bytes(), "{name}");
        let client = Response::new(&hash, &authenticator, &peer, &on_wire);
        assert_eq!(client.nt_response, nt_response, "{name}");
        assert!(client.verify_success(success.as_bytes()), "{name}");

        // The packets are CHAP's, but these values stand in them at fixed places.
        let value = vector.bytes("value");
        assert_eq!(
            (&value[..16], &value[24..48]),
            (&peer[..], &nt_response[..]),
            "{name}"
        );
        assert_eq!(vector.bytes("response_packet")[5..54], value, "{name}");
        assert_eq!(
            vector.bytes("challenge_packet")[5..21],
            authenticator,
            "{name}"
        );
        assert!(
            client.verify_success(&vector.bytes("success_packet")[4..]),
            "{name}"
        );

        for place in [0, 23] {
            let mut wrong = nt_response;
            wrong[place] ^= 1;
            assert!(
                mschap::verify(&hash, &authenticator, &peer, &wrong, &on_wire).is_none(),
                "{name}"
            );
        }
    }
    for vector in file.pick(|v| v.is("v2-password-utf16-erratum")) {
        assert_eq!(
            NtHash::from_password("MyPw").bytes()[..],
            vector.bytes("nt_hash")
        );
    }
    for vector in file.pick(|v| v.is("v2-change-password")) {
        // Of the change of a password only what it shares with logging in.
        let hash = NtHash::from_password(&vector.text("new_password_text"));
        assert_eq!(hash.bytes()[..], vector.bytes("new_nt_hash"));
        let server = mschap::verify(
            &hash,
            &vector.array("authenticator_challenge"),
            &vector.array("peer_challenge"),
            &vector.array("nt_response"),
            &vector.bytes("user"),
        );
        let expected = vector.text("authenticator_response_text");
        assert_eq!(server.unwrap().authenticator_response, expected.as_bytes());
    }
    file.skip("texts of CHAP Failure pass through links", |v| {
        v.starts("v2-failure-")
    });
    file.nothing_left();
}

#[test]
fn master_keys() {
    let file = File::open("mppe-keys");
    for vector in file.pick(|v| v.has("master_key")) {
        let master = master_key(&vector.array("nt_hash_hash"), &vector.array("nt_response"));
        assert_eq!(
            master[..],
            vector.bytes("master_key"),
            "{}",
            vector.text("name")
        );
    }
}
