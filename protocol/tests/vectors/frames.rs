use turnpike_protocol::ppp::MppeBits;
use turnpike_protocol::wire::ppp::{Frame, Framing, Protocol};

use crate::file::File;

#[test]
fn ppp_headers() {
    let file = File::open("ppp");
    for vector in file.pick(|v| v.has("header")) {
        let name = vector.text("name");
        let octets = vector.bytes("header");
        let frame = Frame::parse(&octets).unwrap();
        assert_eq!(
            u64::from(frame.protocol.0),
            vector.number("protocol"),
            "{name}"
        );
        assert_eq!(
            frame.header_len,
            usize::try_from(vector.number("header_len")).unwrap(),
            "{name}"
        );
        let framing = Framing {
            compress_address: octets[0] != 0xff,
            compress_protocol: frame.header_len % 2 == 1,
        };
        let (header, len) = framing.header(frame.protocol);
        assert_eq!(header[..len], octets, "{name}");
    }
    for vector in file.pick(|v| v.has("frame")) {
        let name = vector.text("name");
        let octets = vector.bytes("frame");
        let frame = Frame::parse(&octets).unwrap();
        assert_eq!(frame.header_len, 4, "{name}");
        let expected = match name.split('-').next().unwrap() {
            "lcp" | "bad" | "trailing" => Protocol::LCP,
            "ccp" => Protocol::CCP,
            "ipcp" => Protocol::IPCP,
            "ipv6cp" => Protocol::IPV6CP,
            "cbcp" => Protocol::CBCP,
            other => panic!("new vector {other}"),
        };
        assert_eq!(frame.protocol, expected, "{name}");
        let (header, len) = Framing::default().header(frame.protocol);
        assert_eq!(header[..len], octets[..4], "{name}");
    }
    for vector in file.pick(|v| v.starts("mppe-bit-")) {
        let bits = u32::try_from(vector.number("bits")).unwrap();
        assert_eq!(bits.to_be_bytes(), vector.array("octets"));
        let expected = match vector.text("name").as_str() {
            "mppe-bit-stateless" => MppeBits::STATELESS,
            "mppe-bit-56" => MppeBits::BITS_56,
            "mppe-bit-128" => MppeBits::BITS_128,
            "mppe-bit-40" => MppeBits::BITS_40,
            // Never used by us: a request with one of them is no single strength.
            "mppe-bit-obsolete-D" | "mppe-bit-mppc" => {
                assert_eq!(MppeBits(bits | MppeBits::BITS_128).terms(), None);
                continue;
            }
            other => panic!("new vector {other}"),
        };
        assert_eq!(bits, expected);
    }
    file.skip("there is no check sequence inside GRE", |v| v.is("fcs16"));
    file.nothing_left();
}
