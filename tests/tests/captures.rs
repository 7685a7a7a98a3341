//! Captured sessions of other implementations, replayed offline.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and print what they covered"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::Deserialize;
use sha1::{Digest, Sha1};
use turnpike_protocol::Role;
use turnpike_protocol::mppe::keys::{SessionKey, master_key};
use turnpike_protocol::mppe::{Direction, Mode};
use turnpike_protocol::mschap::{self, MasterKeys, NtHash, Password, v1};
use turnpike_protocol::ppp::packet::{ConfigOption, OptionList, Packet, code};
use turnpike_protocol::ppp::{
    AuthProtocol, Credentials, MppeBits, MppeTerms, Proof, Secret, chap_md5,
};
use turnpike_protocol::pptp::Message;
use turnpike_protocol::wire::{ipv4, ppp};
use turnpike_tests::captures::{Call, File, Side};

const PASSWORD: &str = "correct horse";

/// `expected.json`: what a decrypter must get out of each file with MPPE.
#[derive(Deserialize)]
struct ExpectedFile {
    password: String,
    calls: Vec<ExpectedCall>,
}

#[derive(Deserialize)]
struct ExpectedCall {
    user: String,
    bits: u8,
    client_to_server: String,
    server_to_client: String,
    /// None with MS-CHAPv1.
    master_key: Option<String>,
    start_key_client_to_server: String,
    start_key_server_to_client: String,
    initial_session_key_client_to_server: String,
    initial_session_key_server_to_client: String,
    client: ExpectedSide,
    server: ExpectedSide,
    packets: Vec<ExpectedPacket>,
}

#[derive(Deserialize)]
struct ExpectedSide {
    count: usize,
    sha1_of_all_plaintexts: String,
}

#[derive(Deserialize)]
struct ExpectedPacket {
    frame: usize,
    from: String,
    cc: u16,
    flushed: u8,
    plain: String,
}

fn expected() -> BTreeMap<String, ExpectedFile> {
    let text = std::fs::read_to_string(File::directory().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Everything about one call that decides whether its encryption is checked.
#[derive(PartialEq, Eq, Debug)]
enum Kind {
    /// No MPPE in either direction.
    Plain,
    /// MPPE: both directions.
    Encrypted([MppeTerms; 2]),
}

fn kind(call: &Call) -> Kind {
    match Side::BOTH.map(|side| call.mppe(side).unwrap()) {
        [None, None] => Kind::Plain,
        [Some(up), Some(down)] => Kind::Encrypted([up, down]),
        _ => panic!("MPPE in one direction only"),
    }
}

fn mode(mppe: MppeTerms) -> &'static str {
    match mppe.mode {
        Mode::Stateless => "stateless",
        Mode::Stateful => "stateful",
    }
}

/// An option as our own readers understand it. None: of a type that we would reject.
fn decode(protocol: ppp::Protocol, option: ConfigOption<'_>) -> Option<String> {
    let address = || Ipv4Addr::from(option.u32().unwrap());
    Some(match (protocol, option.kind) {
        (ppp::Protocol::LCP, 1) => format!("MRU {}", option.u16().unwrap()),
        (ppp::Protocol::LCP, 2) => format!("ACCM {:08x}", option.u32().unwrap()),
        (ppp::Protocol::LCP, 3) => match AuthProtocol::parse(option.data).unwrap() {
            AuthProtocol::Other(other) => panic!("authentication by {other:04x}"),
            known => format!("authentication {known}"),
        },
        (ppp::Protocol::LCP, 5) => format!("magic {:08x}", option.u32().unwrap()),
        (ppp::Protocol::LCP, 7) => "PFC".to_owned(),
        (ppp::Protocol::LCP, 8) => "ACFC".to_owned(),
        (ppp::Protocol::CCP, 18) => {
            let bits = MppeBits(option.u32().unwrap());
            match bits.terms() {
                Some(terms) => format!("MPPE of {} bits, {:?}", terms.strength.bits(), terms.mode),
                None => format!("MPPE {:08x}", bits.0),
            }
        }
        (ppp::Protocol::IPCP, 3) => format!("address {}", address()),
        (ppp::Protocol::IPCP, 129 | 131) => format!("DNS {}", address()),
        (ppp::Protocol::IPCP, 130 | 132) => format!("NBNS {}", address()),
        (ppp::Protocol::IPV6CP, 1) => format!("interface {}", hex(option.data)),
        _ => return None,
    })
}

/// Decodes all negotiation of a call; gives how many packets and options that were, and the types of options we don't know.
fn decode_negotiation(call: &Call) -> (usize, usize, BTreeSet<(u16, u8)>) {
    let (mut packets, mut options, mut foreign) = (0, 0, BTreeSet::new());
    for protocol in [
        ppp::Protocol::LCP,
        ppp::Protocol::CCP,
        ppp::Protocol::IPCP,
        ppp::Protocol::IPV6CP,
    ] {
        for (_, packet) in call.control(protocol).unwrap() {
            packets += 1;
            match packet.code {
                code::CONFIGURE_REQUEST
                | code::CONFIGURE_ACK
                | code::CONFIGURE_NAK
                | code::CONFIGURE_REJECT => {
                    for option in OptionList::parse(packet.data).unwrap().iter() {
                        options += 1;
                        if decode(protocol, option).is_none() {
                            foreign.insert((protocol.0, option.kind));
                        }
                    }
                }
                code::TERMINATE_REQUEST | code::TERMINATE_ACK => {}
                code::CODE_REJECT => {
                    Packet::parse(packet.data).unwrap();
                }
                code::PROTOCOL_REJECT => assert_eq!(protocol, ppp::Protocol::LCP),
                code::ECHO_REQUEST | code::ECHO_REPLY => {
                    assert!(packet.data.len() >= 4, "magic number")
                }
                code::RESET_REQUEST | code::RESET_ACK => assert_eq!(protocol, ppp::Protocol::CCP),
                other => panic!("{protocol}: code {other}"),
            }
        }
    }
    for protocol in [ppp::Protocol::CHAP, ppp::Protocol::PAP, ppp::Protocol::EAP] {
        packets += call.control(protocol).unwrap().len();
    }
    (packets, options, foreign)
}

/// The control connection must look the same however TCP cuts it, and come out again as it went in.
fn control_messages(file: &File) -> usize {
    let messages = file.messages(usize::MAX).unwrap();
    for segment in [1, 7, 157] {
        assert_eq!(file.messages(segment).unwrap(), messages, "{}", file.name);
    }
    let (_, streams) = file.control().unwrap();
    for (side, list) in &messages {
        assert_eq!(
            list.iter()
                .map(|message| message.emit().len())
                .sum::<usize>(),
            streams[side].len()
        );
    }
    assert!(matches!(
        messages[&Side::Client][..],
        [
            Message::StartRequest(_),
            Message::OutgoingCallRequest(_),
            ..
        ]
    ));
    assert!(matches!(
        messages[&Side::Server][..],
        [Message::StartReply(_), Message::OutgoingCallReply(_), ..]
    ));
    messages.values().map(Vec::len).sum()
}

/// What our own end would have answered to the challenge of a login.
fn answered_by_us(credentials: &Credentials, password: &str) {
    let hash = NtHash::from_password(password);
    match credentials {
        Credentials::Pap { password: sent, .. } => assert_eq!(&sent[..], password.as_bytes()),
        Credentials::ChapMd5 {
            identifier,
            challenge,
            response,
            ..
        } => {
            let own = chap_md5(*identifier, &Password::new(password), challenge);
            assert_eq!(own, *response);
        }
        Credentials::MsChapV1 {
            challenge,
            nt_response,
            ..
        } => assert_eq!(v1::nt_response(&hash, challenge), *nt_response),
        Credentials::MsChapV2 {
            challenge,
            peer_challenge,
            nt_response,
            name,
            ..
        } => {
            let own = mschap::nt_response(&hash, challenge, peer_challenge, name);
            assert_eq!(own, *nt_response);
        }
        Credentials::ChangePassword(_) => panic!("nobody changed a password"),
    }
}

/// Every login of a call, by whichever method, and the keys of the first that succeeded: later ones don't change them.
fn authenticate(file: &File, call: &Call) -> Option<(Vec<u8>, Option<MasterKeys>)> {
    let file = &file.name;
    let [right, wrong] = [PASSWORD, "wrong horse"].map(Password::new);
    let [right, wrong] = [right, wrong].map(Secret::from);
    let mut keys = None;
    for login in call.logins().unwrap() {
        let credentials = &login.credentials;
        match &login.answer {
            Ok(message) => {
                answered_by_us(credentials, PASSWORD);
                let proof = credentials.verify(&right).expect(file);
                assert!(credentials.verify(&wrong).is_err(), "{file}");
                if let Proof::MsChapV2 {
                    authenticator_response,
                    ..
                } = &proof
                {
                    assert!(message.starts_with(authenticator_response), "{file}");
                }
                keys.get_or_insert((credentials.name().to_vec(), proof.into_keys()));
            }
            Err(message) if file.contains("unknown-user") => {
                assert_eq!(credentials.name(), b"mallory");
                assert!(message.is_empty());
            }
            Err(message) => {
                answered_by_us(credentials, "wrong horse");
                assert!(credentials.verify(&right).is_err(), "{file}");
                assert!(credentials.verify(&wrong).is_ok(), "{file}");
                let microsoft = matches!(
                    credentials.method(),
                    AuthProtocol::MsChapV1 | AuthProtocol::MsChapV2
                );
                assert_eq!(message.starts_with(b"E=691 "), microsoft, "{file}");
            }
        }
    }
    keys
}

/// Decrypts both directions and compares with what is expected. Gives the plaintexts.
fn check_encrypted(
    name: &str,
    call: &Call,
    keys: &MasterKeys,
    expected: &ExpectedCall,
) -> BTreeMap<Side, Vec<Vec<u8>>> {
    let mut plaintexts = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let strength = call.mppe(Side::Client).unwrap().unwrap().strength;
    for (side, role, totals, start_key, session_key) in [
        (
            Side::Client,
            Role::Server,
            &expected.client,
            &expected.start_key_client_to_server,
            &expected.initial_session_key_client_to_server,
        ),
        (
            Side::Server,
            Role::Client,
            &expected.server,
            &expected.start_key_server_to_client,
            &expected.initial_session_key_server_to_client,
        ),
    ] {
        let start = keys.start_key(role, Direction::Receive, strength).unwrap();
        assert_eq!(hex(start.bytes()), *start_key, "{name}");
        assert_eq!(
            hex(SessionKey::initial(&start).bytes()),
            *session_key,
            "{name}"
        );
        let clear = call
            .decrypt(side, keys)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(clear.len(), totals.count, "{name}, {side:?}");
        let mut sha1 = Sha1::new();
        for packet in &clear {
            sha1.update(&packet.plain);
            listed.insert(packet.frame, (side, packet.header, hex(&packet.plain)));
        }
        assert_eq!(
            hex(&sha1.finalize()),
            totals.sha1_of_all_plaintexts,
            "{name}, {side:?}"
        );
        plaintexts.insert(side, clear.into_iter().map(|packet| packet.plain).collect());
    }
    for packet in &expected.packets {
        let (side, header, plain) = &listed[&packet.frame];
        let from = if *side == Side::Client {
            "client"
        } else {
            "server"
        };
        let count = u16::from_be_bytes([header[0] & 0x0f, header[1]]);
        assert_eq!(
            (from, plain),
            (packet.from.as_str(), &packet.plain),
            "{name}, frame {}",
            packet.frame
        );
        assert_eq!(
            (count, header[0] >> 7),
            (packet.cc, packet.flushed),
            "{name}, frame {}",
            packet.frame
        );
    }
    plaintexts
}

/// Checks the IPv4 packets among `frames` (from the PPP protocol on) and gives the echo requests and replies:
/// identifier, number and data.
fn echoes(name: &str, frames: &[Vec<u8>]) -> (usize, [Vec<Vec<u8>>; 2]) {
    let (mut packets, mut echoes) = (0, [Vec::new(), Vec::new()]);
    for frame in frames {
        let header = ppp::Frame::parse_protocol(frame).unwrap();
        if header.protocol != ppp::Protocol::IPV4 {
            continue;
        }
        let ip = ipv4::Packet::new_checked(&frame[header.header_len..]).unwrap();
        assert!(ip.verify_checksum(), "{name}");
        packets += 1;
        if ip.protocol() == ipv4::ICMP {
            let icmp = ip.payload();
            assert_eq!(ipv4::checksum(icmp), 0, "{name}");
            match icmp[0] {
                8 => echoes[0].push(icmp[4..].to_vec()),
                0 => echoes[1].push(icmp[4..].to_vec()),
                _ => {}
            }
        }
    }
    (packets, echoes)
}

/// Data that went in clear.
fn clear_frames(call: &Call, side: Side) -> Vec<Vec<u8>> {
    let data = call
        .from(side)
        .iter()
        .filter(|wire| wire.protocol.is_data() && wire.protocol != ppp::Protocol::COMPRESSED);
    data.map(|wire| [&wire.protocol.0.to_be_bytes(), &wire.information[..]].concat())
        .collect()
}

#[test]
fn captures_replay() {
    let mut expected = expected();
    let (mut encrypted_files, mut plain_files) = (0, 0);
    let mut logins = BTreeMap::new();
    let (mut stateless_128, mut without_data) = (0, 0);
    println!(
        "{:<36} {:>7} {:>5} {:>7} {:>7} {:>6}  what",
        "capture", "control", "calls", "packets", "options", "IPv4"
    );
    for file in File::all().unwrap() {
        let name = file.name.clone();
        let messages = control_messages(&file);
        let calls = file
            .calls()
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let mut of_file = expected.remove(&name);
        let expected_calls = of_file.as_ref().map_or(0, |file| file.calls.len());
        let (mut packets, mut options, mut foreign, mut ip) = (0, 0, BTreeSet::new(), 0);
        let mut what = Vec::new();
        let mut encrypted_calls = 0;
        for call in &calls {
            let (more_packets, more_options, more_foreign) = decode_negotiation(call);
            packets += more_packets;
            options += more_options;
            foreign.extend(more_foreign);
            let authentication = call.authentication().unwrap();
            let keys = authenticate(&file, call);
            if let (Some(method), Some((_, keys))) = (authentication, &keys) {
                *logins.entry(method.to_string()).or_insert(0) += 1;
                assert_eq!(keys.is_some(), method.gives_keys(), "{name}");
            }
            let method =
                authentication.map_or("nothing agreed".to_owned(), |method| method.to_string());
            let kind = kind(call);
            let frames = match kind {
                Kind::Plain => {
                    what.push(format!("{method}, plain"));
                    Side::BOTH.map(|side| clear_frames(call, side))
                }
                Kind::Encrypted(agreed) => {
                    let [bits, other] = agreed.map(|mppe| mppe.strength.bits());
                    assert_eq!(bits, other, "{name}");
                    let [up, down] = agreed.map(mode);
                    what.push(if up == down {
                        format!("{method}, MPPE-{bits} {up}")
                    } else {
                        format!("{method}, MPPE-{bits} {up} up, {down} down")
                    });
                    stateless_128 +=
                        usize::from((bits, up, down) == (128, "stateless", "stateless"));
                    encrypted_calls += 1;
                    for side in Side::BOTH {
                        assert!(clear_frames(call, side).is_empty(), "{name}: data in clear");
                    }
                    let (user, keys) = keys.expect(&name);
                    let keys = keys.expect(&name);
                    let carried = call
                        .from(Side::Client)
                        .iter()
                        .chain(call.from(Side::Server));
                    let carried = carried
                        .filter(|wire| wire.protocol == ppp::Protocol::COMPRESSED)
                        .count();
                    if carried == 0 {
                        // Such a call has nothing to decrypt, and is not among the expected ones.
                        what.push("no data".to_owned());
                        encrypted_calls -= 1;
                        without_data += 1;
                        continue;
                    }
                    // Calls of a file stand in an order of their own: they are told apart by their keys.
                    let start = keys
                        .start_key(Role::Server, Direction::Receive, agreed[0].strength)
                        .unwrap();
                    let of_file = of_file
                        .as_mut()
                        .unwrap_or_else(|| panic!("{name} is not expected to be encrypted"));
                    assert_eq!(of_file.password, PASSWORD);
                    let position = of_file
                        .calls
                        .iter()
                        .position(|call| call.start_key_client_to_server == hex(start.bytes()));
                    let expected = of_file
                        .calls
                        .remove(position.unwrap_or_else(|| panic!("{name}: keys differ")));
                    assert_eq!(expected.user.as_bytes(), user);
                    assert_eq!(
                        (
                            expected.bits,
                            &expected.client_to_server[..],
                            &expected.server_to_client[..]
                        ),
                        (bits, up, down)
                    );
                    let master = match &call.logins().unwrap()[0].credentials {
                        Credentials::MsChapV2 { nt_response, .. } => {
                            let hash = NtHash::from_password(PASSWORD).hashed();
                            Some(hex(&master_key(&hash, nt_response)[..]))
                        }
                        _ => None,
                    };
                    assert_eq!(master, expected.master_key, "{name}");
                    let mut plaintexts = check_encrypted(&name, call, &keys, &expected);
                    Side::BOTH.map(|side| plaintexts.remove(&side).unwrap())
                }
            };
            // What one end asked, the other answered, octet for octet.
            let [
                (up, [asked_up, replied_up]),
                (down, [asked_down, replied_down]),
            ] = frames.map(|frames| echoes(&name, &frames));
            ip += up + down;
            for (asked, replied) in [(asked_up, replied_down), (asked_down, replied_up)] {
                for reply in replied {
                    assert!(
                        asked.contains(&reply) || name.contains("loss"),
                        "{name}: reply to nothing"
                    );
                }
            }
        }
        match encrypted_calls {
            0 => {
                assert_eq!(expected_calls, 0, "{name}: encrypted, says expected.json");
                plain_files += 1;
            }
            calls => {
                assert_eq!(expected_calls, calls, "{name}: calls in expected.json");
                encrypted_files += 1;
                let left = of_file.map_or(0, |file| file.calls.len());
                assert_eq!(left, 0, "{name}: calls not decrypted");
            }
        }
        let foreign: Vec<String> = foreign
            .iter()
            .map(|(protocol, kind)| format!("{protocol:04x}/{kind}"))
            .collect();
        if !foreign.is_empty() {
            what.push(format!("foreign options {}", foreign.join(" ")));
        }
        println!(
            "{name:<36} {messages:>7} {:>5} {packets:>7} {options:>7} {ip:>6}  {}",
            calls.len(),
            what.join("; ")
        );
        assert!(packets > 0 && options > 0, "{name}: nothing negotiated");
    }
    println!(
        "{encrypted_files} files decrypted, {plain_files} without MPPE packets; {stateless_128} calls with MPPE-128 stateless; logins {logins:?}"
    );
    let described = self::expected();
    let described = described.values().flat_map(|file| &file.calls);
    let described = described.filter(|call| {
        let stateless =
            [&call.client_to_server, &call.server_to_client].map(|mode| mode == "stateless");
        call.bits == 128 && stateless == [true, true]
    });
    assert_eq!(
        stateless_128,
        described.count() + without_data,
        "calls with MPPE-128 stateless"
    );
    assert!(
        expected.is_empty(),
        "captures missing: {:?}",
        expected.keys()
    );
    assert_eq!(encrypted_files, self::expected().len());
    assert_eq!(logins.len(), 4, "every method: {logins:?}");
}

/// The special captures are as special as their names say, so that a replay of them proves something.
#[test]
fn special_captures_are_special() {
    let file = |name: &str| File::read(&File::directory().join(name)).unwrap();

    let fragments = file("fragments.pcap").datagrams().unwrap();
    assert_eq!(
        fragments
            .iter()
            .filter(|datagram| datagram.fragments == 2)
            .count(),
        4
    );

    for (name, side) in [
        ("mppe128-reorder-up.pcap", Side::Client),
        ("mppe128-reorder-down.pcap", Side::Server),
    ] {
        let calls = file(name).calls().unwrap();
        let overtaken = |side| {
            calls[0]
                .from(side)
                .windows(2)
                .filter(|pair| pair[0].frame > pair[1].frame)
                .count()
        };
        assert!(overtaken(side) > 0, "{name}");
        assert_eq!(overtaken(side.other()), 0, "{name}");
    }

    let calls = file("mppe128-stateless-wrap.pcap").calls().unwrap();
    for side in Side::BOTH {
        assert!(
            calls[0].from(side).iter().any(|wire| wire.missing == 4072),
            "{side:?}"
        );
    }

    let calls = file("mppe128-stateless-loss.pcap").calls().unwrap();
    assert!(
        calls[0]
            .from(Side::Client)
            .iter()
            .filter(|wire| wire.missing > 0)
            .count()
            > 3
    );
}
