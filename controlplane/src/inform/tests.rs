//! What clients are known to ask, and what they must hear.

use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn inform() -> Inform {
    Inform {
        server: SERVER,
        dns: [
            Some(Ipv4Addr::new(10, 20, 0, 53)),
            Some(Ipv4Addr::new(9, 9, 9, 9)),
        ],
        nbns: [Some(Ipv4Addr::new(10, 20, 0, 42)), None],
        domain: Domain::new("office.example"),
        routes: vec![
            net("10.0.0.0/8"),
            net("192.168.128.0/17"),
            net("172.16.5.9/32"),
        ],
    }
}

/// What Windows asks for, in its order: mask, router, DNS, domain, ..., NBNS, ..., routes.
const WINDOWS: [u8; 13] = [1, 3, 6, 15, 31, 33, 43, 44, 46, 47, 121, 249, 252];

/// A DHCPINFORM's octets: fixed fields and these options.
fn message(ciaddr: Ipv4Addr, options: &[&[u8]]) -> Vec<u8> {
    let mut octets = vec![0; FIXED_LEN];
    octets[..3].copy_from_slice(&[1, 8, 6]);
    octets[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    octets[12..16].copy_from_slice(&ciaddr.octets());
    octets[28..34].copy_from_slice(&[0x53, 0x45, 0, 0, 0, 1]);
    octets[236..240].copy_from_slice(&MAGIC);
    for option in options {
        octets.push(option[0]);
        octets.push((option.len() - 1) as u8);
        octets.extend_from_slice(&option[1..]);
    }
    octets.push(255);
    octets
}

const INFORM: &[u8] = &[53, 8];

fn list(codes: &[u8]) -> Vec<u8> {
    [&[55], codes].concat()
}

fn packet(message: &[u8]) -> Vec<u8> {
    packet_from(CLIENT, message)
}

fn packet_from(source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let from = SocketAddrV4::new(source, CLIENT_PORT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
    udp::ipv4_packet(from, to, message).unwrap()
}

/// Options of an answer by code, in their order.
type Options = Vec<(u8, Vec<u8>)>;

/// The fixed fields and the options of an answer, read without the crate that wrote it.
fn read_answer(packet: &[u8]) -> (Vec<u8>, Options) {
    let ip = ipv4::Packet::new_checked(packet).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!((ip.source(), ip.destination()), (SERVER, CLIENT));
    let datagram = udp::Datagram::in_ipv4(packet).unwrap();
    assert_eq!((datagram.source, datagram.destination), (67, 68));
    assert!(datagram.payload.len() >= 300);
    let (fixed, mut rest) = datagram.payload.split_at(FIXED_LEN);
    assert_eq!(fixed[236..], MAGIC);
    let mut options = Vec::new();
    while let [code, len, tail @ ..] = rest
        && *code != 255
    {
        let (value, tail) = tail.split_at(usize::from(*len));
        options.push((*code, value.to_vec()));
        rest = tail;
    }
    assert_eq!(rest[0], 255);
    assert!(rest[1..].iter().all(|octet| *octet == 0));
    (fixed.to_vec(), options)
}

fn ask(inform: &Inform, message: &[u8]) -> Options {
    read_answer(&inform.answer(&packet(message), CLIENT, 1400).unwrap()).1
}

fn codes(options: &Options) -> Vec<u8> {
    options.iter().map(|(code, _)| *code).collect()
}

/// 10/8, 192.168.128/17 and 172.16.5.9/32 by 10.20.0.1, by hand.
const ROUTES: [u8; 23] = [
    8, 10, 10, 20, 0, 1, 17, 192, 168, 128, 10, 20, 0, 1, 32, 172, 16, 5, 9, 10, 20, 0, 1,
];

#[test]
fn windows_gets_what_it_asks_for() {
    let asked = message(
        CLIENT,
        &[INFORM, &[61, 1, 9, 9], &[60, b'M'], &list(&WINDOWS)],
    );
    let answer = inform().answer(&packet(&asked), CLIENT, 1400).unwrap();
    let (fixed, options) = read_answer(&answer);
    // BOOTREPLY, hardware as it was, no hops, the same transaction.
    assert_eq!(fixed[..4], [2, 8, 6, 0]);
    assert_eq!(fixed[4..8], asked[4..8]);
    // ciaddr; no yiaddr, siaddr or giaddr; chaddr as it was; no names.
    assert_eq!(fixed[12..16], CLIENT.octets());
    assert_eq!(fixed[16..28], [0; 12]);
    assert_eq!(fixed[28..44], asked[28..44]);
    assert!(fixed[44..236].iter().all(|octet| *octet == 0));
    let expected: Options = vec![
        (6, vec![10, 20, 0, 53, 9, 9, 9, 9]),
        (15, b"office.example".to_vec()),
        (44, vec![10, 20, 0, 42]),
        (53, vec![5]),
        (54, vec![10, 20, 0, 1]),
        (121, ROUTES.to_vec()),
        (249, ROUTES.to_vec()),
    ];
    assert_eq!(options, expected);
}

#[test]
fn only_what_is_asked_for_and_known() {
    let known = inform();
    assert_eq!(
        codes(&ask(&known, &message(CLIENT, &[INFORM]))),
        [6, 15, 44, 53, 54, 121, 249]
    );
    // macOS and Linux ask for one of both; Windows XP for the other.
    let asked = message(CLIENT, &[INFORM, &list(&[1, 3, 121])]);
    assert_eq!(codes(&ask(&known, &asked)), [53, 54, 121]);
    let asked = message(CLIENT, &[INFORM, &list(&[249, 15])]);
    assert_eq!(codes(&ask(&known, &asked)), [15, 53, 54, 249]);
    // Never an address, a mask, a router, a lease.
    let asked = message(CLIENT, &[INFORM, &list(&[1, 3, 50, 51, 58, 59])]);
    assert_eq!(codes(&ask(&known, &asked)), [53, 54]);
    let bare = Inform {
        dns: [None; 2],
        nbns: [None; 2],
        domain: None,
        routes: vec![],
        ..known
    };
    assert_eq!(
        codes(&ask(&bare, &message(CLIENT, &[INFORM, &list(&WINDOWS)]))),
        [53, 54]
    );
}

#[test]
fn answers_go_to_the_call_whatever_the_question_says() {
    let known = inform();
    // The broadcast flag, no source, no ciaddr: RFC 2131 has the answer sent to the address, which is known.
    let mut asked = message(Ipv4Addr::UNSPECIFIED, &[INFORM, &list(&[6])]);
    asked[10] = 0x80;
    let packet = packet_from(Ipv4Addr::UNSPECIFIED, &asked);
    let (fixed, _) = read_answer(&known.answer(&packet, CLIENT, 1400).unwrap());
    assert_eq!(fixed[10..12], [0x80, 0]);
    assert_eq!(fixed[12..20], [0; 8]);
}

#[test]
fn what_gets_no_answer_has_a_name() {
    let known = inform();
    let fault = |message: &[u8]| known.answer(&packet(message), CLIENT, 1400).unwrap_err();
    let good = message(CLIENT, &[INFORM]);
    let with = |at: usize, octets: &[u8]| {
        let mut message = good.clone();
        message[at..at + octets.len()].copy_from_slice(octets);
        message
    };
    // DISCOVER, REQUEST, DECLINE, RELEASE, and what only servers say.
    for kind in [1, 2, 3, 4, 5, 6, 7, 9, 0, 255] {
        assert_eq!(
            fault(&message(CLIENT, &[&[53, kind]])),
            Fault::NotInform,
            "{kind}"
        );
    }
    assert_eq!(fault(&message(CLIENT, &[])), Fault::NotInform);
    assert_eq!(
        fault(&message(Ipv4Addr::new(10, 20, 0, 11), &[INFORM])),
        Fault::OtherAddress
    );
    assert_eq!(
        fault(&message(CLIENT, &[INFORM, &[54, 10, 20, 0, 2]])),
        Fault::OtherServer
    );
    assert!(
        known
            .answer(
                &packet(&message(CLIENT, &[INFORM, &[54, 10, 20, 0, 1]])),
                CLIENT,
                1400
            )
            .is_ok()
    );
    assert_eq!(fault(&with(24, &[10, 20, 0, 9])), Fault::OtherServer);
    // A reply, another cookie, more hardware address than there is room for, cut short.
    assert_eq!(fault(&with(0, &[2])), Fault::Malformed);
    assert_eq!(fault(&with(239, &[98])), Fault::Malformed);
    for len in [17, 255] {
        assert_eq!(fault(&with(2, &[len])), Fault::Malformed);
    }
    for len in 0..FIXED_LEN {
        assert_eq!(fault(&good[..len]), Fault::Malformed, "{len}");
    }
    // Options that matter, too short.
    assert_eq!(fault(&message(CLIENT, &[&[53]])), Fault::Malformed);
    for option in [&[54, 1, 2, 3][..], &[57, 1]] {
        assert_eq!(
            fault(&message(CLIENT, &[INFORM, option])),
            Fault::Malformed,
            "{option:?}"
        );
    }
    let mut broken = packet(&good);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(known.answer(&broken, CLIENT, 1400), Err(Fault::Malformed));
}

#[test]
fn options_that_do_not_matter_may_be_anything() {
    let known = inform();
    // Client FQDN (RFC 4702) without its flags, a name in no encoding, a search list that points nowhere, one twice.
    let odd: [&[u8]; 5] = [
        &[81, 0],
        &[12, 0xff, 0xfe],
        &[119, 0xc0],
        &[12, 1],
        &[82, 1, 200],
    ];
    let asked = message(
        CLIENT,
        &[odd[0], odd[1], INFORM, odd[2], odd[3], &list(&[6]), odd[4]],
    );
    assert_eq!(codes(&ask(&known, &asked)), [6, 53, 54]);
    // One list in two parts (RFC 3396).
    let asked = message(CLIENT, &[INFORM, &list(&[6]), &list(&[15])]);
    assert_eq!(codes(&ask(&known, &asked)), [6, 15, 53, 54]);
}

#[test]
fn answers_fit_what_everybody_takes() {
    let known = Inform {
        routes: (0..28).map(|n| net(&format!("10.{n}.0.0/32"))).collect(),
        ..inform()
    };
    assert!(known.octets() <= Inform::ROOM);
    let octets = |options: &[&[u8]], mtu| {
        known
            .answer(&packet(&message(CLIENT, options)), CLIENT, mtu)
            .unwrap()
    };
    // Both copies of the routes are 508 octets: one is enough, and the one that Windows XP reads is it.
    let answer = octets(&[INFORM, &list(&WINDOWS)], 1400);
    assert!(answer.len() <= 576);
    assert_eq!(codes(&read_answer(&answer).1), [6, 15, 44, 53, 54, 249]);
    // Who takes more gets both.
    let large = [57, 5, 220];
    let answer = octets(&[INFORM, &list(&WINDOWS), &large], 1400);
    assert_eq!(
        codes(&read_answer(&answer).1),
        [6, 15, 44, 53, 54, 121, 249]
    );
    // But nothing that would not pass the call whole, and nobody takes less than 576.
    let answer = octets(&[INFORM, &list(&WINDOWS), &large], 700);
    assert_eq!(codes(&read_answer(&answer).1), [6, 15, 44, 53, 54, 249]);
    let answer = octets(&[INFORM, &list(&WINDOWS), &[57, 0, 1]], 1400);
    assert_eq!(codes(&read_answer(&answer).1), [6, 15, 44, 53, 54, 249]);
}

#[test]
fn routes_as_rfc_3442_writes_them() {
    // Its own examples, with a router of their own.
    let examples: [(&str, &[u8]); 7] = [
        ("0.0.0.0/0", &[0]),
        ("10.0.0.0/8", &[8, 10]),
        ("10.0.0.0/24", &[24, 10, 0, 0]),
        ("10.17.0.0/16", &[16, 10, 17]),
        ("10.27.129.0/24", &[24, 10, 27, 129]),
        ("10.229.0.128/25", &[25, 10, 229, 0, 128]),
        ("10.198.122.47/32", &[32, 10, 198, 122, 47]),
    ];
    for (route, expected) in examples {
        let octets = routes(&[net(route)], SERVER);
        assert_eq!(octets, [expected, &SERVER.octets()].concat());
    }
}

#[test]
fn what_is_counted_has_names_of_its_own() {
    let names: std::collections::HashSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    assert_eq!(names.len(), Fault::ALL.len());
}
