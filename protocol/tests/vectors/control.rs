use turnpike_protocol::pptp::{Decoder, Incoming, Message};

use crate::file::File;

#[test]
fn control_messages() {
    let file = File::open("pptp-control");
    for vector in file.pick(|v| v.has("type")) {
        let name = vector.text("name");
        let octets = vector.bytes("message");
        assert_eq!(
            octets.len(),
            usize::try_from(vector.number("length")).unwrap(),
            "{name}"
        );
        let message = Message::parse(&octets).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            u64::from(message.control_type()),
            vector.number("type"),
            "{name}"
        );
        assert_eq!(message.emit(), octets, "{name}");
    }
    for vector in file.pick(|v| v.has("expect_text")) {
        assert_eq!(vector.text("expect_text"), "close");
        let octets = vector.bytes("message");
        // Said no later than at the last octet, however they come.
        for size in 1..=octets.len() {
            let mut decoder = Decoder::new();
            let refused = octets.chunks(size).any(|mut piece| {
                let answer = decoder.next(&mut piece);
                assert!(!matches!(answer, Ok(Some(_))), "{}", vector.text("name"));
                answer.is_err()
            });
            assert!(refused, "{} in pieces of {size}", vector.text("name"));
        }
    }
    for vector in file.pick(|v| v.has("count")) {
        let octets = vector.bytes("message");
        let mut stream = &octets[..];
        let mut decoder = Decoder::new();
        let mut messages = Vec::new();
        while let Some(Incoming::Message(message)) = decoder.next(&mut stream).unwrap() {
            messages.push(message);
        }
        assert_eq!(
            messages,
            [
                Message::EchoRequest { identifier: 1 },
                Message::EchoRequest { identifier: 2 }
            ]
        );
        assert_eq!(vector.number("count"), 2);
    }
    file.nothing_left();
}

#[test]
fn messages_split_anywhere() {
    let file = File::open("pptp-control");
    let vectors = file.pick(|v| v.has("type"));
    let octets: Vec<u8> = vectors.iter().flat_map(|v| v.bytes("message")).collect();
    let expected: Vec<Vec<u8>> = vectors.iter().map(|v| v.bytes("message")).collect();
    for size in 1..=octets.len() {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for mut piece in octets.chunks(size) {
            while let Some(incoming) = decoder.next(&mut piece).unwrap() {
                match incoming {
                    Incoming::Message(message) => found.push(message.emit()),
                    Incoming::Unknown { control_type } => panic!("type {control_type}"),
                }
            }
            assert!(piece.is_empty());
        }
        assert_eq!(found, expected, "pieces of {size}");
        assert!(!decoder.is_inside_message());
    }
}
