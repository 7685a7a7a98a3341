//! What clients ask, octet by octet, and what they must hear.

use turnpike_protocol::wire::ipv6;

use super::*;

const SERVER: Ipv6Addr = ipv6::link_local(1);
const CLIENT: Ipv6Addr = ipv6::link_local(0x77);
const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const OTHER: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 2];

// Message types (RFC 8415 §7.3).
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const REPLY: u8 = 7;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION_REQUEST: u8 = 11;

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn told() -> Dhcp6 {
    Dhcp6 {
        duid: Dhcp6::duid_of([2, 0, 0, 0, 0, 9]),
        dns: vec!["2001:db8::53".parse().unwrap()],
        domain: Domain::new("office.example"),
    }
}

fn link() -> Link {
    Link {
        server: SERVER,
        client: CLIENT,
        prefix: Some(net("2001:db8:1::/64")),
        delegated: Some(net("2001:db8:100::/56")),
        mtu: 1400,
    }
}

/// An option.
fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = value.len() as u16;
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

fn client_id() -> Vec<u8> {
    option(1, &DUID)
}

fn server_id() -> Vec<u8> {
    option(2, &told().duid)
}

/// IA_PD (25) with an IAID, T1 and T2 of 0, and prefixes of no lifetime.
fn ia_pd(id: u32, prefixes: &[&str]) -> Vec<u8> {
    let mut value = [&id.to_be_bytes()[..], &[0; 8]].concat();
    for prefix in prefixes {
        let prefix = net(prefix);
        let octets = prefix.network().octets();
        value.extend(option(
            26,
            &[&[0; 8][..], &[prefix.prefix_len()], &octets].concat(),
        ));
    }
    option(25, &value)
}

fn ia_na(id: u32, addresses: &[&str]) -> Vec<u8> {
    let mut value = [&id.to_be_bytes()[..], &[0; 8]].concat();
    for address in addresses {
        let address: Ipv6Addr = address.parse().unwrap();
        value.extend(option(5, &[&address.octets()[..], &[0; 8]].concat()));
    }
    option(3, &value)
}

/// What the client wants: DNS servers (23) and domains (24).
fn wants() -> Vec<u8> {
    option(6, &[0, 23, 0, 24])
}

fn packet_to(destination: Ipv6Addr, kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    let message = [&[kind, 0xab, 0xcd, 0xef][..], &options.concat()].concat();
    let from = SocketAddrV6::new(CLIENT, CLIENT_PORT, 0, 0);
    udp::ipv6_packet(
        from,
        SocketAddrV6::new(destination, SERVER_PORT, 0, 0),
        &message,
    )
    .unwrap()
}

fn packet(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    packet_to(ipv6::ALL_DHCP_SERVERS, kind, options)
}

/// An answer, read without the crate that wrote it: its type, and its options by code.
#[derive(Debug)]
struct Heard {
    kind: u8,
    options: Vec<(u16, Vec<u8>)>,
}

/// One IA of an answer: IAID, T1, T2, status, and prefixes with their preferred and valid lifetimes.
type Ia = (u32, u32, u32, Option<u16>, Vec<(Ipv6Net, u32, u32)>);

fn options(mut octets: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while let [a, b, c, d, rest @ ..] = octets {
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*c, *d])));
        options.push((u16::from_be_bytes([*a, *b]), value.to_vec()));
        octets = rest;
    }
    assert!(octets.is_empty());
    options
}

fn number(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().unwrap())
}

impl Heard {
    fn read(packet: &[u8]) -> Self {
        let ip = ipv6::Packet::new_checked(packet).unwrap();
        assert_eq!((ip.source(), ip.destination()), (SERVER, CLIENT));
        let datagram = udp::Datagram::in_ipv6(packet).unwrap();
        assert_eq!((datagram.source, datagram.destination), (547, 546));
        let [kind, 0xab, 0xcd, 0xef, rest @ ..] = datagram.payload else {
            panic!("another transaction: {:?}", datagram.payload);
        };
        let heard = Self {
            kind: *kind,
            options: options(rest),
        };
        assert_eq!(heard.option(2), Some(&told().duid[..]));
        heard
    }

    fn option(&self, code: u16) -> Option<&[u8]> {
        let mut all = self.options.iter().filter(|(other, _)| *other == code);
        let found = all.next().map(|(_, value)| &value[..]);
        assert!(all.next().is_none(), "{code} twice");
        found
    }

    fn status(&self) -> Option<u16> {
        self.option(13)
            .map(|value| u16::from_be_bytes([value[0], value[1]]))
    }

    fn delegations(&self) -> Vec<Ia> {
        let ias = self.options.iter().filter(|(code, _)| *code == 25);
        ias.map(|(_, value)| {
            let inner = options(&value[12..]);
            let status = inner.iter().find(|(code, _)| *code == 13);
            let prefixes = inner
                .iter()
                .filter(|(code, _)| *code == 26)
                .map(|(_, value)| {
                    let address: [u8; 16] = value[9..25].try_into().unwrap();
                    let prefix = Ipv6Net::new(address.into(), value[8]).unwrap();
                    (prefix, number(value), number(&value[4..]))
                });
            (
                number(value),
                number(&value[4..]),
                number(&value[8..]),
                status.map(|(_, value)| u16::from_be_bytes([value[0], value[1]])),
                prefixes.collect(),
            )
        })
        .collect()
    }
}

fn given(id: u32) -> Ia {
    let prefix = net("2001:db8:100::/56");
    (id, 1800, 2880, None, vec![(prefix, 3600, 7200)])
}

fn refused(id: u32, status: u16) -> Ia {
    (id, 0, 0, Some(status), vec![])
}

fn bound(id: u32) -> Option<Bound> {
    Some(Bound {
        duid: DUID.to_vec(),
        iaid: id,
    })
}

fn ask(state: &mut Option<Bound>, kind: u8, options: &[Vec<u8>]) -> Heard {
    Heard::read(
        &told()
            .answer(state, &link(), &packet(kind, options))
            .unwrap(),
    )
}

#[test]
fn four_messages_bring_a_prefix() {
    let mut state = None;
    let heard = ask(&mut state, SOLICIT, &[client_id(), wants(), ia_pd(7, &[])]);
    assert_eq!(
        (heard.kind, heard.delegations()),
        (ADVERTISE, vec![given(7)])
    );
    assert_eq!(heard.option(1), Some(&DUID[..]));
    assert_eq!(heard.option(7), Some(&[255][..]));
    assert_eq!(state, None, "advertised is not delegated");
    let request = [
        client_id(),
        server_id(),
        wants(),
        ia_pd(7, &["2001:db8:100::/56"]),
    ];
    let heard = ask(&mut state, REQUEST, &request);
    assert_eq!((heard.kind, heard.delegations()), (REPLY, vec![given(7)]));
    assert_eq!(state, bound(7));
    // RFC 3646: one server; one name of two labels.
    let dns: Ipv6Addr = "2001:db8::53".parse().unwrap();
    assert_eq!(heard.option(23), Some(&dns.octets()[..]));
    assert_eq!(heard.option(24), Some(&b"\x06office\x07example\x00"[..]));
    assert_eq!(heard.option(14), None);
    // Renewing and rebinding keep it, and nobody else's options are in the answers.
    for (kind, ids) in [
        (RENEW, vec![client_id(), server_id()]),
        (REBIND, vec![client_id()]),
    ] {
        let heard = ask(
            &mut state,
            kind,
            &[ids, vec![ia_pd(7, &["2001:db8:100::/56"])]].concat(),
        );
        assert_eq!((heard.kind, heard.delegations()), (REPLY, vec![given(7)]));
        assert_eq!((heard.option(23), heard.option(24)), (None, None));
        assert_eq!(state, bound(7));
    }
}

#[test]
fn rapid_commit_brings_it_in_two() {
    let mut state = None;
    let heard = ask(
        &mut state,
        SOLICIT,
        &[client_id(), option(14, &[]), ia_pd(9, &[])],
    );
    assert_eq!((heard.kind, heard.delegations()), (REPLY, vec![given(9)]));
    assert_eq!((heard.option(14), heard.option(7)), (Some(&[][..]), None));
    assert_eq!(state, bound(9));
}

#[test]
fn a_call_has_one_prefix() {
    let mut state = None;
    let ids = [client_id(), server_id()];
    // The first of several, and the same one when they come in another order.
    let two = [&ids[..], &[ia_pd(1, &[]), ia_pd(2, &[])]].concat();
    let heard = ask(&mut state, REQUEST, &two);
    assert_eq!(heard.delegations(), [given(1), refused(2, 6)]);
    let two = [&ids[..], &[ia_pd(2, &[]), ia_pd(1, &[])]].concat();
    let heard = ask(&mut state, REQUEST, &two);
    assert_eq!(heard.delegations(), [refused(2, 6), given(1)]);
    assert_eq!(state, bound(1));
    // A client that has forgotten who it was takes it over; what it used before is over.
    let anew = [
        ids[0].clone(),
        ids[1].clone(),
        ia_pd(5, &["2001:db8:200::/56"]),
    ];
    let heard = ask(&mut state, RENEW, &anew);
    let (id, t1, t2, status, prefixes) = heard.delegations().remove(0);
    assert_eq!((id, t1, t2, status), (5, 1800, 2880, None));
    // The one to use first, for who looks at one only.
    assert_eq!(
        prefixes,
        [
            (net("2001:db8:100::/56"), 3600, 7200),
            (net("2001:db8:200::/56"), 0, 0),
        ]
    );
    assert_eq!(state, bound(5));
    // A hint is no prefix that it uses.
    let heard = ask(
        &mut state,
        SOLICIT,
        &[client_id(), ia_pd(5, &["2001:db8:200::/56"])],
    );
    assert_eq!(heard.delegations(), [given(5)]);
    let mut state = None;
    let other = [option(1, &OTHER), option(14, &[]), ia_pd(1, &[])];
    assert_eq!(ask(&mut state, SOLICIT, &other).delegations(), [given(1)]);
    assert_ne!(state, bound(1));
}

#[test]
fn without_a_prefix_there_is_none() {
    let bare = Link {
        delegated: None,
        ..link()
    };
    let mut state = None;
    let ask = |state: &mut _, kind, options: &[Vec<u8>]| {
        Heard::read(&told().answer(state, &bare, &packet(kind, options)).unwrap())
    };
    let heard = ask(&mut state, SOLICIT, &[client_id(), ia_pd(7, &[])]);
    assert_eq!(
        (heard.kind, heard.delegations()),
        (ADVERTISE, vec![refused(7, 6)])
    );
    let heard = ask(
        &mut state,
        REQUEST,
        &[client_id(), server_id(), ia_pd(7, &[])],
    );
    assert_eq!(
        (heard.kind, heard.delegations()),
        (REPLY, vec![refused(7, 6)])
    );
    assert_eq!(state, None);
}

#[test]
fn addresses_are_not_given() {
    let mut state = None;
    for (kind, ids, status) in [
        (SOLICIT, vec![client_id()], 2),
        (REQUEST, vec![client_id(), server_id()], 2),
        (RENEW, vec![client_id(), server_id()], 2),
        (RELEASE, vec![client_id(), server_id()], 3),
        (DECLINE, vec![client_id(), server_id()], 3),
    ] {
        let asked = [
            ids,
            vec![ia_na(4, &["2001:db8:1::9"]), option(4, &[0, 0, 0, 5])],
        ]
        .concat();
        let heard = ask(&mut state, kind, &asked);
        let permanent = options(&heard.option(3).unwrap()[12..]);
        assert_eq!(
            heard.option(3).unwrap()[..12],
            [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(permanent, [(13, vec![0, status])], "{kind}");
        let temporary = options(&heard.option(4).unwrap()[4..]);
        assert_eq!(temporary, [(13, vec![0, status])], "{kind}");
    }
}

#[test]
fn what_is_given_back_is_gone() {
    let ids = || vec![client_id(), server_id()];
    let mut state = bound(7);
    // Not by another, not for another IA, and not by declining, which is about addresses.
    let heard = ask(&mut state, RELEASE, &[ids(), vec![ia_pd(8, &[])]].concat());
    assert_eq!(
        (heard.status(), heard.delegations()),
        (Some(0), vec![refused(8, 3)])
    );
    let other = [option(1, &OTHER), server_id(), ia_pd(7, &[])];
    assert_eq!(
        ask(&mut state, RELEASE, &other).delegations(),
        [refused(7, 3)]
    );
    let heard = ask(&mut state, DECLINE, &[ids(), vec![ia_pd(7, &[])]].concat());
    assert_eq!((heard.status(), heard.delegations()), (Some(0), vec![]));
    assert_eq!(state, bound(7));
    let heard = ask(
        &mut state,
        RELEASE,
        &[ids(), vec![ia_pd(7, &["2001:db8:100::/56"])]].concat(),
    );
    assert_eq!(
        (heard.kind, heard.status(), heard.delegations()),
        (REPLY, Some(0), vec![])
    );
    assert_eq!(state, None);
    // And can be had again.
    let heard = ask(&mut state, REQUEST, &[ids(), vec![ia_pd(7, &[])]].concat());
    assert_eq!(heard.delegations(), [given(7)]);
}

#[test]
fn addresses_are_confirmed_on_their_link_only() {
    let mut state = None;
    let confirm = |state: &mut _, addresses: &[&str]| {
        ask(state, CONFIRM, &[client_id(), ia_na(1, addresses)]).status()
    };
    assert_eq!(
        confirm(&mut state, &["2001:db8:1::9", "2001:db8:1::a"]),
        Some(0)
    );
    assert_eq!(
        confirm(&mut state, &["2001:db8:1::9", "2001:db8:2::a"]),
        Some(4)
    );
    let nothing = packet(CONFIRM, &[client_id(), ia_pd(1, &["2001:db8:100::/56"])]);
    assert_eq!(
        told().answer(&mut state, &link(), &nothing),
        Err(Fault::NothingToConfirm)
    );
}

#[test]
fn information_is_for_everybody() {
    let mut state = bound(1);
    let heard = ask(
        &mut state,
        INFORMATION_REQUEST,
        &[option(6, &[0, 23, 0, 32])],
    );
    assert_eq!(
        (heard.kind, heard.option(1), heard.option(24)),
        (REPLY, None, None)
    );
    assert!(heard.option(23).is_some());
    assert_eq!(heard.option(32).map(number), Some(86_400));
    let heard = ask(
        &mut state,
        INFORMATION_REQUEST,
        &[client_id(), server_id(), wants()],
    );
    assert_eq!((heard.option(1), heard.option(32)), (Some(&DUID[..]), None));
    assert_eq!(state, bound(1));
}

#[test]
fn what_servers_discard() {
    let mut state = bound(7);
    let mut fault = |packet: &[u8]| {
        let answer = told().answer(&mut state, &link(), packet);
        assert_eq!(state, bound(7));
        answer.unwrap_err()
    };
    let ia = || ia_pd(7, &[]);
    // Advertise, Reply, Reconfigure, both of relays, and what there is not.
    for kind in [0, 2, 7, 10, 12, 13, 36, 255] {
        assert_eq!(
            fault(&packet(kind, &[client_id(), ia()])),
            Fault::NotForServers,
            "{kind}"
        );
    }
    // RFC 8415 §16.2 to §16.12.
    for kind in [SOLICIT, CONFIRM, REBIND] {
        assert_eq!(fault(&packet(kind, &[ia()])), Fault::Identifiers);
        assert_eq!(
            fault(&packet(kind, &[client_id(), server_id(), ia()])),
            Fault::Identifiers
        );
        let alone = packet_to(SERVER, kind, &[client_id(), ia()]);
        assert_eq!(fault(&alone), Fault::NotForServers);
    }
    for kind in [REQUEST, RENEW, RELEASE, DECLINE] {
        assert_eq!(
            fault(&packet(kind, &[client_id(), ia()])),
            Fault::Identifiers
        );
        assert_eq!(
            fault(&packet(kind, &[server_id(), ia()])),
            Fault::Identifiers
        );
        let other = packet(kind, &[client_id(), option(2, &OTHER), ia()]);
        assert_eq!(fault(&other), Fault::OtherServer);
    }
    let other = packet(INFORMATION_REQUEST, &[option(2, &OTHER)]);
    assert_eq!(fault(&other), Fault::OtherServer);
    assert_eq!(
        fault(&packet(INFORMATION_REQUEST, &[ia()])),
        Fault::Identifiers
    );
    assert_eq!(
        fault(&packet_to(SERVER, INFORMATION_REQUEST, &[])),
        Fault::NotForServers
    );
}

#[test]
fn who_speaks_to_us_alone_is_told_to_speak_to_all() {
    let mut state = bound(7);
    for kind in [REQUEST, RENEW, RELEASE, DECLINE] {
        let packet = packet_to(SERVER, kind, &[client_id(), server_id(), ia_pd(7, &[])]);
        let heard = Heard::read(&told().answer(&mut state, &link(), &packet).unwrap());
        assert_eq!((heard.kind, heard.status()), (REPLY, Some(5)));
        assert_eq!(heard.delegations(), []);
        assert_eq!(state, bound(7));
    }
}

#[test]
fn what_cannot_be_read() {
    let mut state = None;
    let mut fault = |packet: &[u8]| told().answer(&mut state, &link(), packet).unwrap_err();
    let bad = [
        // DUIDs of two octets and of 131; two of them.
        vec![option(1, &[0, 1])],
        vec![option(1, &[0; 131])],
        vec![client_id(), client_id()],
        // Half a code; a flag with a value; IAs, a prefix and an address cut short.
        vec![client_id(), option(6, &[0])],
        vec![client_id(), option(14, &[0])],
        vec![client_id(), option(25, &[0; 11])],
        vec![client_id(), option(3, &[0; 11])],
        vec![client_id(), option(4, &[0; 3])],
        vec![
            client_id(),
            option(25, &[&[0; 12][..], &option(26, &[0; 24])].concat()),
        ],
        vec![
            client_id(),
            option(3, &[&[0; 12][..], &option(5, &[0; 23])].concat()),
        ],
        vec![
            client_id(),
            option(25, &[&[0; 12][..], &[0, 26, 0]].concat()),
        ],
        // Lengths that reach too far, and what is left over.
        vec![client_id(), vec![0, 8, 0, 3, 0, 0]],
        vec![client_id(), vec![0, 8, 0]],
        // More than anybody has.
        [vec![client_id()], vec![ia_pd(1, &[]); 17]].concat(),
    ];
    for options in bad {
        assert_eq!(
            fault(&packet(SOLICIT, &options)),
            Fault::Malformed,
            "{options:?}"
        );
    }
    let good = packet(SOLICIT, &[client_id()]);
    for len in 0..good.len() {
        assert_eq!(fault(&good[..len]), Fault::Malformed);
    }
    // From another address than the call's, and to another port.
    let from = |source, port| {
        let from = SocketAddrV6::new(source, CLIENT_PORT, 0, 0);
        let to = SocketAddrV6::new(ipv6::ALL_DHCP_SERVERS, port, 0, 0);
        udp::ipv6_packet(from, to, &good[48..]).unwrap()
    };
    assert_eq!(
        fault(&from(ipv6::link_local(0x78), SERVER_PORT)),
        Fault::Malformed
    );
    assert_eq!(fault(&from(CLIENT, 548)), Fault::Malformed);
    assert_eq!(
        fault(&packet_to(ipv6::link_local(2), SOLICIT, &[client_id()])),
        Fault::Malformed
    );
}

#[test]
fn options_that_do_not_matter_may_be_anything() {
    let mut state = None;
    // Elapsed time of one octet, a status of none, vendor options without their number, a relayed message, others that
    // stand where they mean nothing.
    let odd = [
        (8, &[1][..]),
        (13, &[]),
        (16, &[0]),
        (17, &[]),
        (9, &[12]),
        (11, &[1]),
        (56, &[0, 3, 0, 9]),
        (26, &[]),
        (65_535, &[]),
    ];
    let odd = odd.map(|(code, value)| option(code, value)).concat();
    let ia = option(
        25,
        &[&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0][..], &odd[..5]].concat(),
    );
    let heard = ask(&mut state, SOLICIT, &[odd, client_id(), ia]);
    assert_eq!(heard.delegations(), [given(7)]);
}

#[test]
fn an_answer_that_does_not_fit_changes_nothing() {
    let narrow = Link { mtu: 100, ..link() };
    let mut state = None;
    let rapid = packet(SOLICIT, &[client_id(), option(14, &[]), ia_pd(9, &[])]);
    assert_eq!(
        told().answer(&mut state, &narrow, &rapid),
        Err(Fault::TooLarge)
    );
    assert_eq!(state, None);
}

#[test]
fn what_is_counted_has_names_of_its_own() {
    let names: std::collections::HashSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    assert_eq!(names.len(), Fault::ALL.len());
}
