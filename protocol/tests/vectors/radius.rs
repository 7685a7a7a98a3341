use turnpike_protocol::mschap::{MasterKeys, NtHash, Password};
use turnpike_protocol::ppp::{ChangePassword, ChangeResponse, Credentials, chap_md5};
use turnpike_protocol::radius::{
    Attribute, Builder, Code, Forgery, HiddenFault, Packet, Seal, Secret, Signature, integer,
    microsoft, reveal_password, reveal_salted, reveal_tunnel_password,
};

use crate::file::{File, Vector};

fn secret(vector: &Vector) -> Secret {
    Secret::new(vector.bytes("secret")).unwrap()
}

/// The attribute that a builder makes, without the header.
fn attribute(builder: Builder<'_>) -> Vec<u8> {
    builder.finish().unwrap()[20..].to_vec()
}

/// Makes the packet again, attribute by attribute.
fn again(packet: &Packet<'_>, seal: Seal<'_>, secret: &Secret) -> Vec<u8> {
    let signed = packet.find(Attribute::MESSAGE_AUTHENTICATOR).is_some();
    let (code, identifier) = (packet.code(), packet.identifier());
    let mut builder = if signed {
        Builder::new(code, identifier, seal, secret)
    } else {
        Builder::unsigned(code, identifier, seal, secret)
    };
    for (attribute, value) in packet.attributes() {
        if attribute != Attribute::MESSAGE_AUTHENTICATOR {
            builder.push(attribute, value);
        }
    }
    builder.finish().unwrap()
}

/// Every octet that is turned must be noticed.
fn answer_is_safe(answer: &[u8], request: &[u8; 16], secret: &Secret) {
    for at in 0..answer.len() {
        let mut changed = answer.to_vec();
        changed[at] ^= 0x10;
        let verdict = Packet::parse(&changed).map(|packet| packet.verify_response(request, secret));
        assert!(!matches!(verdict, Ok(Ok(_))), "octet {at}");
    }
    let other = Secret::new("another secret").unwrap();
    let verdict = Packet::parse(answer)
        .unwrap()
        .verify_response(request, &other);
    assert_eq!(verdict, Err(Forgery::Authenticator));
}

#[test]
fn packets_of_the_rfcs() {
    let file = File::open("radius");
    for vector in file.pick(|v| v.has("request")) {
        let (name, secret) = (vector.text("name"), secret(vector));
        let octets = vector.bytes("request");
        let request = Packet::parse(&octets).unwrap();
        let signed = request.find(Attribute::MESSAGE_AUTHENTICATOR).is_some();
        let signature = [Signature::Unsigned, Signature::Signed][usize::from(signed)];
        assert_eq!(request.verify_request(&secret), Ok(signature), "{name}");
        let seal = if request.code().is_random() {
            Seal::Random(*request.authenticator())
        } else {
            Seal::Computed
        };
        assert_eq!(again(&request, seal, &secret), octets, "{name}");
        for field in ["response", "ack", "nak_session_not_found"] {
            if !vector.has(field) {
                continue;
            }
            let octets = vector.bytes(field);
            let answer = Packet::parse(&octets).unwrap();
            assert!(answer.code().answers(request.code()), "{name}");
            let authenticator = request.authenticator();
            answer.verify_response(authenticator, &secret).unwrap();
            answer_is_safe(&octets, authenticator, &secret);
            let seal = Seal::Response(authenticator);
            assert_eq!(again(&answer, seal, &secret), octets, "{name}");
        }
        if vector.has("password") {
            let Some(Credentials::Pap { password, .. }) = microsoft::credentials(&request, &secret)
            else {
                panic!("{name}");
            };
            // The user of RFC 2865 §7.3 types another word than this sample is named after.
            if vector.has("response") && answer_is(vector, Code::ACCESS_ACCEPT) {
                assert_eq!(*password, vector.bytes("password"), "{name}");
            }
        }
    }
    for vector in file.pick(|v| v.is("accounting-stop-gigawords")) {
        let octets = vector.bytes("request");
        let request = Packet::parse(&octets).unwrap();
        let number = |attribute| u64::from(request.find(attribute).and_then(integer).unwrap());
        assert_eq!(
            number(Attribute::ACCT_INPUT_GIGAWORDS) << 32 | number(Attribute::ACCT_INPUT_OCTETS),
            vector.number("input_octets")
        );
    }
}

fn answer_is(vector: &Vector, code: Code) -> bool {
    vector.bytes("response").first() == Some(&code.0)
}

#[test]
fn hidden_values() {
    let file = File::open("radius");
    for vector in file.pick(|v| v.starts("user-password-")) {
        let (secret, authenticator) = (secret(vector), vector.array("request_authenticator"));
        let (hidden, clear) = (vector.bytes("hidden"), vector.bytes("password"));
        let request = Builder::unsigned(
            Code::ACCESS_REQUEST,
            1,
            Seal::Random(authenticator),
            &secret,
        );
        let made = attribute(request.hidden(Attribute::USER_PASSWORD, &clear));
        assert_eq!(made[2..], hidden, "{}", vector.text("name"));
        let revealed = reveal_password(&secret, &authenticator, &hidden).unwrap();
        assert_eq!(revealed[..clear.len()], clear);
    }
    for vector in file.pick(|v| v.starts("ms-mppe-")) {
        let (secret, authenticator) = (secret(vector), vector.array("request_authenticator"));
        let (value, key) = (vector.bytes("value"), vector.bytes("key"));
        assert_eq!(
            *reveal_salted(&secret, &authenticator, &value).unwrap(),
            key
        );
        let salt = u16::from_be_bytes(vector.array("salt"));
        let kind = [Attribute::MS_MPPE_SEND_KEY, Attribute::MS_MPPE_RECV_KEY]
            [usize::from(vector.starts("ms-mppe-recv"))];
        let answer = Builder::unsigned(
            Code::ACCESS_ACCEPT,
            1,
            Seal::Response(&authenticator),
            &secret,
        );
        assert_eq!(
            attribute(answer.salted(kind, salt, &key)),
            vector.bytes("attribute")
        );
    }
    for vector in file.pick(|v| v.is("tunnel-password")) {
        let (secret, authenticator) = (secret(vector), vector.array("request_authenticator"));
        let value = &vector.bytes("attribute")[2..];
        let (tag, password) = reveal_tunnel_password(&secret, &authenticator, value).unwrap();
        assert_eq!(u64::from(tag), vector.number("tag"));
        assert_eq!(*password, vector.bytes("password"));
    }
    for vector in file.pick(|v| v.is("ms-chap-mppe-keys")) {
        let (secret, authenticator) = (secret(vector), vector.array("request_authenticator"));
        let (lm, nt) = (vector.array("lm_key"), vector.array("nt_key"));
        let answer = Builder::unsigned(
            Code::ACCESS_ACCEPT,
            1,
            Seal::Response(&authenticator),
            &secret,
        );
        let octets = microsoft::add_symmetric_keys(answer, Some(&lm), &nt)
            .finish()
            .unwrap();
        assert_eq!(octets[20..], vector.bytes("attribute"));
        // The password is that of RFC 2759 §9.2, whose keys are known.
        let challenge = [0x10, 0x2d, 0xb5, 0xdf, 0x08, 0x5d, 0x30, 0x41];
        let password = Password::new("clientPass");
        let expected = MasterKeys::from_mschap_v1(
            &password.nt_hash(),
            password.lm_hash().as_ref(),
            &challenge,
        );
        let answer = Packet::parse(&octets).unwrap();
        let received =
            microsoft::symmetric_keys(&answer, &authenticator, &secret, &challenge).unwrap();
        assert_eq!(
            microsoft::compare(&expected, &received),
            microsoft::Fit::Same
        );
        let other = Secret::new("another").unwrap();
        let wrong = microsoft::symmetric_keys(&answer, &authenticator, &other, &challenge);
        assert_eq!(
            wrong.err(),
            Some(microsoft::KeyFault::Unreadable(
                Attribute::MS_CHAP_MPPE_KEYS,
                HiddenFault::Garbled
            ))
        );
    }
}

#[test]
fn methods() {
    let file = File::open("radius");
    for vector in file.pick(|v| v.is("chap-password")) {
        let secret = secret(vector);
        let challenge = vector.bytes("chap_challenge");
        let identifier = vector.number("chap_identifier") as u8;
        let password = Password::new(String::from_utf8(vector.bytes("password")).unwrap());
        let credentials = Credentials::ChapMd5 {
            identifier,
            response: chap_md5(identifier, &password, &challenge),
            challenge,
            name: b"u".to_vec(),
        };
        let request = Builder::unsigned(Code::ACCESS_REQUEST, 1, Seal::Random([0; 16]), &secret);
        let made = attribute(microsoft::add_credentials(request, &credentials));
        let expected = [
            vector.bytes("attribute"),
            vector.bytes("challenge_attribute"),
        ]
        .concat();
        assert_eq!(made[3..], expected);
    }
    for vector in file.pick(|v| v.is("mschapv2-accept")) {
        let secret = secret(vector);
        let (request, answer) = (vector.bytes("request"), vector.bytes("response"));
        let (request, answer) = (
            Packet::parse(&request).unwrap(),
            Packet::parse(&answer).unwrap(),
        );
        let credentials = microsoft::credentials(&request, &secret).unwrap();
        assert_eq!(credentials.name(), b"User");
        assert!(
            credentials
                .verify(&Password::new("clientPass").into())
                .is_ok()
        );
        let Credentials::MsChapV2 { nt_response, .. } = &credentials else {
            panic!("another method");
        };
        let authenticator = request.authenticator();
        let keys = microsoft::asymmetric_keys(&answer, authenticator, &secret).unwrap();
        let own = MasterKeys::from_mschap_v2(&NtHash::from_password("clientPass"), nt_response);
        assert_eq!(microsoft::compare(&own, &keys), microsoft::Fit::Same);
        let success = microsoft::success(&answer).unwrap();
        assert_eq!(&success, b"S=407A5589115FD0D6209F510FE9C04566932CDA56");
        let said = microsoft::encryption(&answer);
        println!("{said:?}");
        assert!(said.policy.is_some() && said.strengths.is_some());
    }
    for vector in file.pick(|v| v.is("mschapv2-reject")) {
        let octets = vector.bytes("response");
        let answer = Packet::parse(&octets).unwrap();
        let authenticator = vector.array("request_authenticator");
        let verdict = answer.verify_response(&authenticator, &secret(vector));
        assert_eq!(verdict, Ok(Signature::Signed));
        let text = microsoft::error_text(&answer).unwrap();
        assert_eq!(text, vector.text("error_text").as_bytes());
    }
    for vector in file.pick(|v| v.is("mschap-nt-enc-pw")) {
        let value = vector.bytes("cpw2_attribute")[8..].to_vec();
        let change = ChangePassword {
            identifier: value[1],
            encrypted_password: vector.array("encrypted_password"),
            encrypted_hash: value[2..18].try_into().unwrap(),
            response: ChangeResponse::MsChapV2 {
                challenge: [5; 16],
                peer_challenge: value[18..34].try_into().unwrap(),
                nt_response: value[42..66].try_into().unwrap(),
            },
            name: b"User".to_vec(),
        };
        let secret = Secret::new("x").unwrap();
        let request = Builder::unsigned(Code::ACCESS_REQUEST, 1, Seal::Random([0; 16]), &secret);
        let credentials = Credentials::ChangePassword(Box::new(change));
        let octets = microsoft::add_credentials(request, &credentials)
            .finish()
            .unwrap();
        let made = Packet::parse(&octets).unwrap();
        let pieces: Vec<u8> = made
            .all(Attribute::MS_CHAP_NT_ENC_PW)
            .flat_map(|value| {
                let inner = [&[6, value.len() as u8 + 2], value].concat();
                [&[26, inner.len() as u8 + 6, 0, 0, 1, 55], &inner[..]].concat()
            })
            .collect();
        assert_eq!(pieces, vector.bytes("attributes"));
        assert_eq!(made.find(Attribute::MS_CHAP2_CPW).unwrap(), value);
    }
}

#[test]
fn every_vector_is_used() {
    let file = File::open("radius");
    file.pick(|v| v.has("request"));
    for prefix in [
        "user-password-",
        "ms-mppe-",
        "tunnel-password",
        "ms-chap-mppe-keys",
    ] {
        file.pick(|v| v.starts(prefix));
    }
    for name in ["chap-password", "mschapv2-reject", "mschap-nt-enc-pw"] {
        file.pick(|v| v.is(name));
    }
    file.nothing_left();
}
