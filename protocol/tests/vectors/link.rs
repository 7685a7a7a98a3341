use turnpike_protocol::Time;
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::mschap::{self, NtHash};
use turnpike_protocol::ppp::{Action, ClientLink, Grant, Link, ServerLink, Verdict};

use crate::file::File;

const PASSWORD: &str = "correct horse";

/// A server's link that has sent its first request.
fn fresh_server() -> Link {
    let config = ServerLink {
        mppe: Policy::Require,
        ..ServerLink::default()
    };
    let mut link = Link::server(config, [1; 32], Time::ZERO);
    link.open(Time::ZERO);
    link
}

/// A server whose LCP is open, or which has got as far as CCP and IPCP.
fn server(network: bool) -> Link {
    let mut link = fresh_server();
    let request = sent(&mut link).remove(0);
    feed(&mut link, &with_code(&request, 2));
    feed(
        &mut link,
        &[0xff, 3, 0xc0, 0x21, 1, 1, 0, 10, 5, 6, 1, 2, 3, 4],
    );
    let challenge = sent(&mut link).remove(1);
    if !network {
        return link;
    }
    let hash = NtHash::from_password(PASSWORD);
    let value = challenge[9..25].try_into().unwrap();
    let mut response = vec![0xff, 0x03, 0xc2, 0x23, 2, challenge[5], 0, 59, 49];
    response.extend([3; 16]);
    response.extend([0; 8]);
    response.extend(mschap::nt_response(&hash, value, &[3; 16], b"alice"));
    response.push(0);
    response.extend(b"alice");
    feed(&mut link, &response);
    let Some(Action::Authenticate(credentials)) = link.poll() else {
        panic!("no verdict is asked for");
    };
    let proof = credentials.verify(&hash.into()).unwrap();
    let grant = Grant {
        limits: Default::default(),
        proof,
        address: [10, 0, 0, 9].into(),
        server_address: [10, 0, 0, 1].into(),
        dns: [Some([10, 0, 0, 1].into()), Some([192, 0, 2, 53].into())],
        nbns: [None; 2],
        ipv6: None,
    };
    link.verdict(Verdict::Accept(grant), Time::ZERO);
    sent(&mut link);
    link
}

fn client() -> Link {
    let config = ClientLink::new(b"alice", NtHash::from_password(PASSWORD));
    let mut link = Link::client(config, [2; 32], Time::ZERO);
    link.open(Time::ZERO);
    sent(&mut link);
    link
}

pub fn feed(link: &mut Link, frame: &[u8]) {
    link.handle_frame(frame, Time::ZERO);
}

/// The frames that a link wants to send now.
pub fn sent(link: &mut Link) -> Vec<Vec<u8>> {
    core::iter::from_fn(|| link.poll())
        .filter_map(|action| match action {
            Action::Send(frame) => Some(frame),
            _ => None,
        })
        .collect()
}

/// The same packet with another code.
pub fn with_code(frame: &[u8], code: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[4] = code;
    frame
}

/// Feeds every frame of the file to a link that may expect it, and checks the answer.
#[test]
fn frames_get_their_answers() {
    let file = File::open("ppp");
    let frame = |name: &str| file.pick(|v| v.is(name))[0].bytes("frame");
    for vector in file.pick(|v| v.has("frame")) {
        let name = vector.text("name");
        let octets = vector.bytes("frame");
        let mut link = match name.as_str() {
            "lcp-confreq-windows"
            | "lcp-confreq-windows-2"
            | "lcp-confreq-pppd"
            | "lcp-confnak-auth"
            | "lcp-confrej-auth"
            | "lcp-confrej-windows"
            | "lcp-confack-windows-2" => fresh_server(),
            _ if name.starts_with("lcp-server-") => client(),
            _ if ["lcp-", "bad-", "trailing-"]
                .iter()
                .any(|prefix| name.starts_with(prefix)) =>
            {
                server(false)
            }
            _ => server(true),
        };
        sent(&mut link);
        let malformed = link.info().malformed;
        feed(&mut link, &octets);
        let mut answers = sent(&mut link);
        assert!(answers.len() <= 1, "{name}: {answers:02x?}");
        let answer = answers.pop();
        let expected = match name.as_str() {
            "lcp-confreq-windows" => Some(frame("lcp-confrej-windows")),
            "lcp-confreq-windows-2" => Some(frame("lcp-confack-windows-2")),
            "lcp-confreq-pppd"
            | "lcp-server-confreq-mschapv2"
            | "ccp-confreq-128-stateless"
            | "ipcp-confreq-windows-3" => Some(with_code(&octets, 2)),
            "lcp-server-confreq-pap"
            | "lcp-server-confreq-chap-md5"
            | "lcp-server-confreq-mschapv1"
            | "lcp-server-confreq-eap" => Some(frame("lcp-confnak-auth")),
            // A Nak that names what we asked for: asked again, with a new identifier.
            "lcp-confnak-auth" => {
                assert_eq!(answer.unwrap()[4..6], [1, 2], "{name}");
                continue;
            }
            "lcp-confrej-auth" => {
                assert_eq!(answer.unwrap()[4], 5, "{name}: Terminate-Request");
                continue;
            }
            // Our Echo-Reply has our own magic number.
            "lcp-echo-request" | "trailing-padding" => {
                let reply = answer.unwrap();
                assert_eq!(reply[4..8], [10, octets[5], 0, 8], "{name}");
                assert_ne!(reply[8..12], octets[8..12], "{name}");
                continue;
            }
            "lcp-terminate-request" => Some(frame("lcp-terminate-ack")),
            // Not asked for, on an open link: down, and up again (RFC 1661 §4.1).
            "lcp-terminate-ack" => {
                assert_eq!(answer.unwrap()[4], 1, "{name}: Configure-Request");
                continue;
            }
            "lcp-identification-xp" => {
                assert_eq!(link.info().identification, ["MSRASV5.10"]);
                None
            }
            "ccp-confreq-windows" | "ccp-confreq-windows-noD" => {
                Some(frame("ccp-confnak-128-stateless"))
            }
            "ipcp-confreq-windows" => Some(frame("ipcp-confrej-nbns")),
            "ipcp-confreq-windows-2" => Some(frame("ipcp-confnak")),
            "ccp-confreq-pppd-mixed" | "ipcp-vj-confreq" | "ipcp-old-addresses" => {
                Some(vector.bytes("reject"))
            }
            "ipv6cp-confreq-zero" | "ipv6cp-confreq" | "cbcp-request" => {
                let mut reject = vec![0xff, 0x03, 0xc0, 0x21, 8, 1];
                reject.extend(u16::try_from(octets.len() + 2).unwrap().to_be_bytes());
                reject.extend(&octets[2..]);
                Some(reject)
            }
            // Answers to nothing that we asked, and what needs no answer.
            "lcp-confrej-windows"
            | "lcp-confack-windows-2"
            | "lcp-echo-reply"
            | "lcp-protocol-reject"
            | "lcp-code-reject"
            | "ccp-confnak-128-stateless"
            | "ccp-reset-request"
            | "ccp-reset-ack"
            | "ipcp-confrej-nbns"
            | "ipcp-confnak"
            | "ipcp-confack" => None,
            "bad-option-length-0" | "bad-option-length-long" | "bad-lcp-length" => {
                assert_eq!(link.info().malformed, malformed + 1);
                None
            }
            other => panic!("new vector {other}"),
        };
        assert_eq!(answer, expected, "{name}");
    }
}
