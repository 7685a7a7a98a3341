//! What RADIUS servers, and who pretends to be one, send.

use turnpike_protocol::mschap::MasterKeys;
use turnpike_protocol::radius::{
    Attribute, Builder, Code, Packet, Seal, Secret, microsoft, reveal_password, reveal_salted,
    reveal_tunnel_password, show,
};

use super::input::chunk;
use super::seeds::vectors;
use super::{Input, Trace};

fn secret(octets: &[u8]) -> Secret {
    Secret::new(octets).unwrap_or_else(|| Secret::new("testing123").expect("a secret"))
}

/// Any octets are a packet or none. What is a packet can be shown, and made again; nothing that was not made with the secret
/// is believed.
pub fn packet(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let secret = secret(b"testing123");
    let packet = match Packet::parse(octets) {
        Ok(packet) => packet,
        Err(error) => {
            trace.note(error.to_string());
            return trace;
        }
    };
    assert!(packet.octets().len() <= octets.len());
    trace.note(packet.code());
    let mut count = 0;
    for (attribute, value) in packet.attributes() {
        count += 1;
        assert!(value.len() <= 253);
        let shown = show(attribute, value);
        assert!(!shown.chars().any(char::is_control) && shown.len() < 1024);
        if attribute.name().is_some() {
            trace.note((attribute, shown.starts_with("0x"), value.len().min(20)));
        }
    }
    assert!(count <= octets.len() / 2);
    let authenticator = packet.authenticator();
    trace.note(
        packet
            .verify_request(&secret)
            .map_err(|error| error.to_string()),
    );
    trace.note(
        packet
            .verify_response(&[7; 16], &secret)
            .map_err(|error| error.to_string()),
    );
    trace.note(microsoft::encryption(&packet));
    trace.note(microsoft::success(&packet).is_some());
    trace.note(microsoft::error_text(&packet).is_some());
    trace.note(microsoft::asymmetric_keys(&packet, &[7; 16], &secret).err());
    trace.note(microsoft::symmetric_keys(&packet, &[7; 16], &secret, &[9; 8]).err());
    let credentials = microsoft::credentials(&packet, &secret);
    trace.note(credentials.as_ref().map(|credentials| credentials.method()));
    // Made again it says the same, and is believed.
    let seal = Seal::Random(*authenticator);
    let mut builder = Builder::new(Code::ACCESS_REQUEST, packet.identifier(), seal, &secret);
    for (attribute, value) in packet.attributes() {
        if attribute != Attribute::MESSAGE_AUTHENTICATOR {
            builder.push(attribute, value);
        }
    }
    let Ok(again) = builder.finish() else {
        return trace;
    };
    let made = Packet::parse(&again).expect("what was made");
    made.verify_request(&secret).expect("what was signed");
    let others = |packet: &Packet<'_>| {
        let all = packet.attributes();
        all.filter(|(attribute, _)| *attribute != Attribute::MESSAGE_AUTHENTICATOR)
            .map(|(attribute, value)| (attribute, value.to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(&made), others(&packet));
    trace
}

/// The vectors' packets.
pub fn packet_seeds() -> Vec<Vec<u8>> {
    vectors(
        "radius.toml",
        &["request", "response", "ack", "nak_session_not_found"],
    )
}

/// Whatever is hidden by any secret is read or not, without harm; what is hidden here comes back.
pub fn hidden(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mut authenticator = [0; 16];
    authenticator.fill_with(|| input.octet());
    let salt = input.u16();
    let secret = secret(input.chunk());
    let clear = input.chunk();
    let value = input.0;
    trace.note(reveal_password(&secret, &authenticator, value).map(|clear| clear.len()));
    trace.note(reveal_salted(&secret, &authenticator, value).map(|clear| clear.len()));
    trace.note(reveal_tunnel_password(&secret, &authenticator, value).map(|(tag, _)| tag));
    let answer = Builder::new(
        Code::ACCESS_ACCEPT,
        1,
        Seal::Response(&authenticator),
        &secret,
    )
    .hidden(Attribute::USER_PASSWORD, clear)
    .salted(Attribute::MS_MPPE_SEND_KEY, salt, clear)
    .finish();
    match answer {
        Err(_) => assert!(clear.len() > 128),
        Ok(answer) => {
            let packet = Packet::parse(&answer).expect("what was made");
            packet
                .verify_response(&authenticator, &secret)
                .expect("what was signed");
            let hidden = packet.find(Attribute::USER_PASSWORD).expect("a password");
            let back = reveal_password(&secret, &authenticator, hidden).expect("a password");
            assert_eq!(back[..clear.len()], *clear);
            let hidden = packet.find(Attribute::MS_MPPE_SEND_KEY).expect("a key");
            match reveal_salted(&secret, &authenticator, hidden) {
                Ok(back) => assert_eq!(*back, clear),
                Err(_) => assert!(clear.is_empty()),
            }
        }
    }
    let mut keys = [[0; 16]; 2];
    keys.iter_mut()
        .flatten()
        .for_each(|octet| *octet = input.octet());
    let keys = MasterKeys::new(keys[0], keys[1]);
    let answer = Builder::new(
        Code::ACCESS_ACCEPT,
        1,
        Seal::Response(&authenticator),
        &secret,
    );
    let answer = microsoft::add_asymmetric_keys(answer, &keys, salt)
        .finish()
        .expect("keys fit");
    let packet = Packet::parse(&answer).expect("what was made");
    match microsoft::asymmetric_keys(&packet, &authenticator, &secret) {
        Ok(back) => assert_eq!(microsoft::compare(&keys, &back), microsoft::Fit::Same),
        Err(fault) => assert!(matches!(fault, microsoft::KeyFault::Zeros(_))),
    }
    trace
}

/// A secret, a password and values that were hidden with it.
pub fn hidden_seeds() -> Vec<Vec<u8>> {
    let (secret, authenticator) = (b"testing123", [0x10; 16]);
    vectors("radius.toml", &["hidden", "value"])
        .iter()
        .map(|value| {
            [
                &authenticator[..],
                &[0x80, 1],
                &chunk(secret),
                &chunk(b"correct horse"),
                value,
            ]
            .concat()
        })
        .collect()
}
