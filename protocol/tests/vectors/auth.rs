//! PAP, CHAP-MD5, MS-CHAPv1 and the change of a password.

use turnpike_protocol::Time;
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::mschap::change::{self, BLOCK_LEN};
use turnpike_protocol::mschap::{LmHash, NtHash, Password, challenge_response, v1};
use turnpike_protocol::ppp::packet::{frame, whole_frame};
use turnpike_protocol::ppp::{
    Action, AuthProtocol, ChangePassword, ChangeResponse, ClientLink, Credentials, End, Link,
    Proof, Remedy, Secret, ServerLink, Verdict, chap_md5,
};
use turnpike_protocol::wire::ppp::Protocol;

use crate::file::{File, Vector};
use crate::link::{feed, sent, with_code};

fn password(octets: Vec<u8>) -> Password {
    Password::new(String::from_utf8(octets).unwrap())
}

/// LCP's option for a method.
fn option(method: AuthProtocol) -> &'static [u8] {
    match method {
        AuthProtocol::Pap => &[3, 4, 0xc0, 0x23],
        AuthProtocol::ChapMd5 => &[3, 5, 0xc2, 0x23, 5],
        AuthProtocol::MsChapV1 => &[3, 5, 0xc2, 0x23, 0x80],
        AuthProtocol::MsChapV2 => &[3, 5, 0xc2, 0x23, 0x81],
        other => panic!("{other}"),
    }
}

/// A client whose LCP is open, and that has to authenticate itself by `method`; with what it has sent since then.
fn client(method: AuthProtocol, config: ClientLink) -> (Link, Vec<Vec<u8>>) {
    let config = ClientLink {
        methods: vec![method],
        mppe: Policy::Allow,
        ..config
    };
    let mut link = Link::client(config, [2; 32], Time::ZERO);
    link.open(Time::ZERO);
    let request = sent(&mut link).remove(0);
    feed(&mut link, &frame(Protocol::LCP, 1, 1, option(method)));
    assert_eq!(sent(&mut link)[0][4], 2, "Configure-Ack");
    feed(&mut link, &with_code(&request, 2));
    let sent = sent(&mut link);
    (link, sent)
}

/// A server whose LCP is open with a demand of `method`; with what it has sent since then.
fn server(method: AuthProtocol) -> (Link, Vec<Vec<u8>>) {
    let config = ServerLink {
        methods: vec![method],
        mppe: Policy::Allow,
        retries: 1,
        ..ServerLink::default()
    };
    let mut link = Link::server(config, [1; 32], Time::ZERO);
    link.open(Time::ZERO);
    let request = sent(&mut link).remove(0);
    feed(&mut link, &with_code(&request, 2));
    feed(&mut link, &frame(Protocol::LCP, 1, 1, &[]));
    let mut sent = sent(&mut link);
    assert_eq!(sent.remove(0)[4], 2, "Configure-Ack");
    (link, sent)
}

/// A packet of the vectors, from its code on, as a frame.
fn in_frame(protocol: Protocol, packet: &[u8]) -> Vec<u8> {
    frame(protocol, packet[0], packet[1], &packet[4..])
}

fn asked(link: &mut Link) -> Credentials {
    match link.poll() {
        Some(Action::Authenticate(credentials)) => credentials,
        other => panic!("no verdict is asked for: {other:?}"),
    }
}

#[test]
fn chap_md5_and_pap() {
    let file = File::open("chap-md5");
    for vector in file.pick(|v| v.starts("chap-md5-")) {
        let name = vector.text("name");
        let secret = password(vector.bytes("secret"));
        let identifier = u8::try_from(vector.number("identifier")).unwrap();
        let challenge = vector.bytes("challenge");
        let response: [u8; 16] = vector.array("response");
        assert_eq!(chap_md5(identifier, &secret, &challenge), response);

        // Our client to that challenge, octet for octet.
        let (mut link, nothing) = client(
            AuthProtocol::ChapMd5,
            ClientLink::new(b"user", secret.clone()),
        );
        assert!(nothing.is_empty(), "{name}");
        feed(
            &mut link,
            &in_frame(Protocol::CHAP, &vector.bytes("challenge_packet")),
        );
        let expected = in_frame(Protocol::CHAP, &vector.bytes("response_packet"));
        assert_eq!(sent(&mut link), [expected], "{name}");

        let credentials = |response| Credentials::ChapMd5 {
            identifier,
            challenge: challenge.clone(),
            response,
            name: b"user".to_vec(),
        };
        let proof = credentials(response).verify(&secret.clone().into());
        assert!(matches!(proof, Ok(Proof::ChapMd5)), "{name}");
        for place in [0, 15] {
            let mut wrong = response;
            wrong[place] ^= 1;
            assert!(credentials(wrong).verify(&secret.clone().into()).is_err());
        }
    }
    for vector in file.pick(|v| v.is("pap")) {
        let user = vector.bytes("user");
        let secret = password(vector.bytes("password"));
        let request = in_frame(Protocol::PAP, &vector.bytes("request_packet"));
        let (_, first) = client(AuthProtocol::Pap, ClientLink::new(&user, secret.clone()));
        let mut expected = request.clone();
        expected[5] = first[0][5];
        assert_eq!(first, [expected], "all but the identifier");

        let (mut link, nothing) = server(AuthProtocol::Pap);
        assert!(nothing.is_empty(), "the client speaks first");
        feed(&mut link, &request);
        let credentials = asked(&mut link);
        assert_eq!(credentials.name(), user);
        let proof = credentials.verify(&secret.into());
        assert!(matches!(proof, Ok(Proof::Pap)));
        link.verdict(refused(691, Remedy::None), Time::ZERO);
        let nak = sent(&mut link);
        // Ours has a text in it.
        assert_eq!(nak[0][2..6], [0xc0, 0x23, vector.bytes("nak_packet")[0], 1]);
    }
    file.nothing_left();
}

fn refused(code: u32, remedy: Remedy) -> Verdict {
    Verdict::Reject {
        code,
        message: String::new(),
        remedy,
    }
}

#[test]
fn mschap_v1() {
    let file = File::open("mschapv1");
    for vector in file.pick(|v| v.is("v1-MyPw-NT")) {
        let hash = NtHash::from_bytes(vector.array("nt_hash"));
        let response = v1::nt_response(&hash, &vector.array("challenge"));
        assert_eq!(response[..], vector.bytes("nt_response"));
    }
    for vector in file.pick(|v| v.starts("v1-full-")) {
        let name = vector.text("name");
        let password = Password::new(vector.text("password_text"));
        let challenge: [u8; 8] = vector.array("challenge");
        let lm_hash = password.lm_hash().unwrap();
        assert_eq!(lm_hash.bytes()[..], vector.bytes("lm_hash"), "{name}");
        assert_eq!(
            password.nt_hash().bytes()[..],
            vector.bytes("nt_hash"),
            "{name}"
        );
        let lm_response = challenge_response(&challenge, lm_hash.bytes());
        assert_eq!(lm_response[..], vector.bytes("lm_response"), "{name}");
        let nt_response: [u8; 24] = vector.array("nt_response");
        assert_eq!(
            v1::nt_response(&password.nt_hash(), &challenge),
            nt_response
        );

        // Our client leaves the LM response out, and gives everything else alike.
        let (mut link, _) = client(
            AuthProtocol::MsChapV1,
            ClientLink::new(b"User", password.clone()),
        );
        feed(
            &mut link,
            &in_frame(Protocol::CHAP, &vector.bytes("challenge_packet")),
        );
        let mut expected = in_frame(Protocol::CHAP, &vector.bytes("response_packet"));
        expected[9..33].fill(0);
        assert_eq!(sent(&mut link), [expected], "{name}");

        let credentials = |nt_response| Credentials::MsChapV1 {
            identifier: 7,
            challenge,
            lm_response,
            nt_response,
            name: b"User".to_vec(),
        };
        for secret in [password.clone().into(), password.nt_hash().into()] {
            let proof = credentials(nt_response).verify(&secret);
            assert!(matches!(proof, Ok(Proof::MsChapV1 { keys: Some(_) })));
            for place in [0, 23] {
                let mut wrong = nt_response;
                wrong[place] ^= 1;
                assert!(credentials(wrong).verify(&secret).is_err(), "{name}");
            }
        }
    }
    for vector in file.pick(|v| v.is("v1-failure-message")) {
        failure_text(AuthProtocol::MsChapV1, vector, b"C=102DB5DF085D3041");
    }
    for vector in file.pick(|v| v.is("v1-change-password-v2")) {
        let credentials = ChangePassword {
            identifier: 8,
            encrypted_password: vector.array("encrypted_password"),
            encrypted_hash: vector.array("encrypted_hash"),
            response: ChangeResponse::MsChapV1 {
                challenge: vector.array("challenge"),
                nt_response: vector.array("nt_response"),
            },
            name: b"User".to_vec(),
        };
        let proof = changed(vector, &credentials);
        assert!(matches!(proof, Proof::MsChapV1 { keys: Some(_) }));
        // Where the fields stand in the packet (RFC 2433 §10).
        let packet = vector.bytes("packet");
        assert_eq!(packet[4..520], credentials.encrypted_password);
        assert_eq!(packet[520..536], credentials.encrypted_hash);
        assert_eq!(packet[1092..1116], vector.bytes("nt_response"));
        read_by_the_server(AuthProtocol::MsChapV1, &packet, &credentials);
    }
    file.nothing_left();
}

#[test]
fn mschap_v2_failures_and_changes() {
    let file = File::open("mschapv2");
    for vector in file.pick(|v| v.starts("v2-failure-")) {
        let challenge = b"C=5B5D7C7D7B3F2F3E3C2C602132262628";
        failure_text(AuthProtocol::MsChapV2, vector, challenge);
    }
    for vector in file.pick(|v| v.is("v2-change-password")) {
        let credentials = ChangePassword {
            identifier: 2,
            encrypted_password: vector.array("encrypted_password"),
            encrypted_hash: vector.array("encrypted_hash"),
            response: ChangeResponse::MsChapV2 {
                challenge: vector.array("authenticator_challenge"),
                peer_challenge: vector.array("peer_challenge"),
                nt_response: vector.array("nt_response"),
            },
            name: vector.bytes("user"),
        };
        let Proof::MsChapV2 {
            authenticator_response,
            keys: Some(_),
        } = changed(vector, &credentials)
        else {
            panic!("no keys");
        };
        assert_eq!(
            authenticator_response,
            vector.text("authenticator_response_text").as_bytes()
        );
        let packet = vector.bytes("packet");
        assert_eq!(packet.len(), 586);
        read_by_the_server(AuthProtocol::MsChapV2, &packet, &credentials);
    }
}

/// Encrypts and decrypts as the vector says, and checks that only who knows the old password gets anywhere.
fn changed(vector: &Vector, credentials: &ChangePassword) -> Proof {
    let old = Password::new(vector.text("old_password_text"));
    let new = Password::new(vector.text("new_password_text"));
    let clear: [u8; BLOCK_LEN] = vector.array("clear_block");
    let block = change::encrypt_password(&new, &old.nt_hash(), clear).unwrap();
    assert_eq!(block, credentials.encrypted_password);
    let hash = change::encrypt_hash(&old.nt_hash(), &new.nt_hash());
    assert_eq!(hash, credentials.encrypted_hash);

    for place in [0, BLOCK_LEN - 6, BLOCK_LEN - 1] {
        let mut wrong = credentials.clone();
        wrong.encrypted_password[place] ^= 1;
        // Octets before the password are filling.
        assert_eq!(wrong.open(&old.clone().into()).is_ok(), place == 0);
    }
    let mut wrong = credentials.clone();
    wrong.encrypted_hash[15] ^= 1;
    assert!(wrong.open(&old.clone().into()).is_err());
    let mut wrong = credentials.clone();
    match &mut wrong.response {
        ChangeResponse::MsChapV1 { nt_response, .. }
        | ChangeResponse::MsChapV2 { nt_response, .. } => nt_response[0] ^= 1,
    }
    assert!(wrong.open(&old.clone().into()).is_err());
    assert!(credentials.open(&new.clone().into()).is_err());
    let by_hash = credentials.open(&Secret::NtHash(old.nt_hash())).unwrap();
    assert_eq!(by_hash.password.as_str(), new.as_str());
    let changed = credentials.open(&old.into()).unwrap();
    assert_eq!(changed.password.as_str(), new.as_str());
    assert_eq!(changed.nt_hash.bytes(), new.nt_hash().bytes());
    changed.proof
}

/// A server that has asked for a new password reads the packet as the vector has it.
fn read_by_the_server(method: AuthProtocol, packet: &[u8], expected: &ChangePassword) {
    let (mut link, challenge) = server(method);
    let identifier = challenge[0][5];
    let mut response = vec![49];
    response.extend([1; 49]);
    response.extend(&expected.name);
    feed(&mut link, &frame(Protocol::CHAP, 2, identifier, &response));
    asked(&mut link);
    link.verdict(refused(648, Remedy::ChangePassword), Time::ZERO);
    let failure = sent(&mut link);
    assert!(failure[0][8..].starts_with(b"E=648 R=0 C="));
    let change = whole_frame(
        Protocol::CHAP,
        packet[0],
        identifier.wrapping_add(1),
        &packet[4..],
    );
    feed(&mut link, &change);
    let Credentials::ChangePassword(read) = asked(&mut link) else {
        panic!("a change");
    };
    assert_eq!(read.encrypted_password, expected.encrypted_password);
    assert_eq!(read.encrypted_hash, expected.encrypted_hash);
    assert_eq!(read.name, expected.name);
    match (&read.response, &expected.response) {
        (
            ChangeResponse::MsChapV1 { nt_response, .. },
            ChangeResponse::MsChapV1 {
                nt_response: own, ..
            },
        ) => assert_eq!(nt_response, own),
        (
            ChangeResponse::MsChapV2 {
                peer_challenge,
                nt_response,
                ..
            },
            ChangeResponse::MsChapV2 {
                peer_challenge: own_peer,
                nt_response: own,
                ..
            },
        ) => assert_eq!((peer_challenge, nt_response), (own_peer, own)),
        _ => panic!("another method"),
    }
}

/// A Failure of the vector at our client: code, message, and another answer over its challenge when it allows one. What
/// our server says with the same code has the same form.
fn failure_text(method: AuthProtocol, vector: &Vector, challenge: &[u8]) {
    let text = vector.text("message_text");
    let [right, wrong] = ["right", "wrong"].map(Password::new);
    let config = ClientLink {
        other_secrets: vec![right.clone().into()],
        ..ClientLink::new(b"User", wrong)
    };
    let (mut link, _) = client(method, config);
    let size = if method == AuthProtocol::MsChapV1 {
        8
    } else {
        16
    };
    let mut data = vec![size];
    data.extend(vec![0x77; usize::from(size)]);
    feed(&mut link, &frame(Protocol::CHAP, 1, 3, &data));
    assert_eq!(sent(&mut link).len(), 1);
    feed(&mut link, &frame(Protocol::CHAP, 4, 3, text.as_bytes()));
    if vector.number("retry") == 1 {
        let second = sent(&mut link).remove(0);
        assert_eq!(second[2..6], [0xc2, 0x23, 2, 4], "the next identifier");
        let nt_response: [u8; 24] = second[33..57].try_into().unwrap();
        let hash = right.nt_hash();
        let expected = if method == AuthProtocol::MsChapV1 {
            v1::nt_response(&hash, &[0x10, 0x2d, 0xb5, 0xdf, 0x08, 0x5d, 0x30, 0x41])
        } else {
            let peer = second[9..25].try_into().unwrap();
            let asked = vector.array("new_challenge");
            turnpike_protocol::mschap::nt_response(&hash, &asked, peer, b"User")
        };
        assert_eq!(nt_response, expected);
    } else {
        let ended = sent(&mut link);
        assert_eq!(ended[0][2..5], [0xc0, 0x21, 5], "Terminate-Request");
        feed(&mut link, &frame(Protocol::LCP, 6, ended[0][5], &[]));
        let Some(Action::Finished(End::AuthenticationFailed { code, message, .. })) = link.poll()
        else {
            panic!("not ended");
        };
        assert_eq!(u64::from(code), vector.number("error_code"));
        assert_eq!(message, "No dial-in permission");
    }

    let (mut link, asked_with) = server(method);
    let mut response = vec![49];
    response.extend([1; 49]);
    response.extend(b"User");
    feed(
        &mut link,
        &frame(Protocol::CHAP, 2, asked_with[0][5], &response),
    );
    asked(&mut link);
    let remedy = if vector.number("retry") == 1 {
        Remedy::Retry
    } else {
        Remedy::None
    };
    let code = u32::try_from(vector.number("error_code")).unwrap();
    link.verdict(refused(code, remedy), Time::ZERO);
    let failure = sent(&mut link).remove(0);
    let said = String::from_utf8(failure[8..].to_vec()).unwrap();
    // The same fields in the same places; only the challenge is another, and there is no message.
    let at = text.find("C=").unwrap();
    assert_eq!(said[..at], text[..at]);
    assert_eq!(&text.as_bytes()[at..at + challenge.len()], challenge);
    assert_eq!(
        said[at + challenge.len()..],
        text[at + challenge.len()..][..4]
    );
    assert_eq!(said.len(), at + challenge.len() + 4);
}

#[test]
fn lm_hashes() {
    let file = File::open("nt-lm-hash");
    for vector in file.pick(|_| true) {
        let password = password(vector.bytes("password_utf8"));
        let made = password.lm_hash();
        assert_eq!(
            made.is_some(),
            vector.has("lm_hash"),
            "{}",
            vector.text("name")
        );
        if let Some(hash) = made {
            assert_eq!(hash.bytes()[..], vector.bytes("lm_hash"));
        }
    }
    assert!(LmHash::from_password("Fifteen-chars-x").is_none());
}
