//! What clients ask inside their calls.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use turnpike_controlplane::dhcp6::{self, Dhcp6, Link};
use turnpike_controlplane::inform::{CLIENT_PORT, Domain, Inform, SERVER_PORT};
use turnpike_protocol::wire::{ipv4, ipv6, udp};

use super::{Input, Trace};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);

/// Two octets of MTU, then a DHCP message: an answer that fits the call and gives no address, or a named reason.
pub fn dhcp_inform(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mtu = 576 + input.u16() % 881;
    let inform = Inform {
        server: SERVER,
        dns: [Some(SERVER), None],
        nbns: [Some(SERVER), Some(CLIENT)],
        domain: Domain::new("office.example"),
        routes: ["10.0.0.0/8", "192.168.128.0/17"]
            .map(|route| route.parse().expect("a prefix"))
            .to_vec(),
    };
    let from = SocketAddrV4::new(CLIENT, CLIENT_PORT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
    let Some(packet) = udp::ipv4_packet(from, to, input.0) else {
        return trace;
    };
    match inform.answer(&packet, CLIENT, mtu) {
        Ok(answer) => {
            let ip = ipv4::Packet::new_checked(&answer[..]).expect("an IPv4 packet");
            assert!(ip.verify_checksum() && answer.len() <= usize::from(mtu));
            assert_eq!((ip.source(), ip.destination()), (SERVER, CLIENT));
            let datagram = udp::Datagram::in_ipv4(&answer).expect("a datagram");
            let message = datagram.payload;
            // A reply to this question, which gives no address.
            assert_eq!((message[0], &message[4..8]), (2, &input.0[4..8]));
            assert_eq!(message[16..28], [0; 12]);
            let mut rest = &message[240..];
            while let &[code, len, ref tail @ ..] = rest
                && code != 255
            {
                assert!([6, 15, 44, 53, 54, 121, 249].contains(&code), "{code}");
                trace.note((code, len));
                rest = &tail[usize::from(len)..];
            }
            assert_eq!(rest.first(), Some(&255));
        }
        Err(fault) => trace.note(fault.name()),
    }
    // As it came, without a header that fits.
    trace.note(inform.answer(octets, CLIENT, mtu).is_ok());
    trace
}

/// A DHCPINFORM as Windows sends it, and what else DHCP clients say.
pub fn dhcp_seeds() -> Vec<Vec<u8>> {
    let message = |ciaddr: [u8; 4], options: &[u8]| {
        let mut octets = vec![2, 200, 1, 1, 6, 0, 1, 2, 3, 4];
        octets.resize(2 + 12, 0);
        octets.extend_from_slice(&ciaddr);
        octets.resize(2 + 236, 0);
        octets.extend_from_slice(&[99, 130, 83, 99]);
        octets.extend_from_slice(options);
        octets.push(255);
        octets
    };
    let client = CLIENT.octets();
    vec![
        message(
            client,
            b"\x35\x01\x08\x3d\x07\x01abcdef\x0c\x03ws1\x3c\x08MSFT 5.0\x37\x0d\x01\x03\x06\x0f\x1f\x21\x2b\x2c\x2e\x2f\x79\xf9\xfc",
        ),
        message(client, &[53, 1, 8, 55, 1, 249, 57, 2, 5, 220]),
        message([0; 4], &[53, 1, 8, 54, 4, 10, 20, 0, 1]),
        message(
            [0; 4],
            b"\x35\x01\x01\x51\x08\x05\x00\x00\x03ws1\x00\x52\x04\x01\x02ab\x77\x09\x06office\xc0\x00",
        ),
        // One option in two parts (RFC 3396), and one cut short.
        message(client, &[55, 1, 6, 55, 1, 15, 53, 1, 8, 121, 200, 32]),
    ]
}

const OURS: Ipv6Addr = ipv6::link_local(1);
const THEIRS: Ipv6Addr = ipv6::link_local(2);

/// DHCPv6 messages of one call, each behind two octets of length: answers that fit the call, go to who asked and delegate
/// the call's prefix and no other, or a named reason that changes nothing.
pub fn dhcpv6(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let server = Dhcp6 {
        duid: Dhcp6::duid_of([2, 0, 0, 0, 0, 9]),
        dns: vec![OURS],
        domain: Domain::new("office.example"),
    };
    let prefix = |text: &str| text.parse().expect("a prefix");
    let link = Link {
        server: OURS,
        client: THEIRS,
        prefix: Some(prefix("2001:db8:1::/64")),
        delegated: Some(prefix("2001:db8:100::/56")).filter(|_| octets.first() != Some(&0xff)),
        mtu: 1400,
    };
    let mut bound = None;
    while !input.is_empty() {
        let everybody = input.octet() % 4 != 3;
        let message = input.chunk();
        let from = SocketAddrV6::new(THEIRS, dhcp6::CLIENT_PORT, 0, 0);
        let to = if everybody {
            ipv6::ALL_DHCP_SERVERS
        } else {
            OURS
        };
        let to = SocketAddrV6::new(to, dhcp6::SERVER_PORT, 0, 0);
        let Some(packet) = udp::ipv6_packet(from, to, message) else {
            return trace;
        };
        let before = bound.clone();
        match server.answer(&mut bound, &link, &packet) {
            Ok(answer) => {
                assert!(answer.len() <= usize::from(link.mtu));
                let ip = ipv6::Packet::new_checked(&answer[..]).expect("an IPv6 packet");
                assert_eq!((ip.source(), ip.destination()), (OURS, THEIRS));
                let said = udp::Datagram::in_ipv6(&answer).expect("a datagram").payload;
                assert_eq!(said[1..4], message[1..4], "another transaction");
                // Advertise or Reply; only a Reply binds, and only where there is something to bind.
                assert!([2, 7].contains(&said[0]));
                assert!(said[0] == 7 || bound == before);
                assert!(bound.is_none() || link.delegated.is_some());
                trace.note((message[0], said[0], said.len(), bound.is_some()));
            }
            Err(fault) => {
                assert_eq!(bound, before);
                trace.note(fault.name());
            }
        }
    }
    // As it came, without headers that fit.
    trace.note(server.answer(&mut bound, &link, octets).is_ok());
    trace
}

/// A whole life of a delegated prefix, and what else clients say.
pub fn dhcpv6_seeds() -> Vec<Vec<u8>> {
    let option = |code: u8, value: &[u8]| [&[0, code, 0, value.len() as u8][..], value].concat();
    let client = option(1, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
    let server = option(2, &Dhcp6::duid_of([2, 0, 0, 0, 0, 9]));
    let wanted = option(6, &[0, 23, 0, 24, 0, 32]);
    let mut hint = vec![0; 25];
    hint[8..12].copy_from_slice(&[56, 0x20, 0x01, 0x0d]);
    let delegation = |id: u8| {
        option(
            25,
            &[&[0, 0, 0, id][..], &[0; 8], &option(26, &hint)].concat(),
        )
    };
    let address = option(3, &[&[0; 12][..], &option(5, &[0x20; 24])].concat());
    let message = |kind: u8, options: &[&[u8]]| {
        let message = [&[kind, 1, 2, 3][..], &options.concat()].concat();
        [&[0][..], &super::input::chunk(&message)].concat()
    };
    let (ia, other) = (delegation(1), delegation(2));
    vec![
        [
            message(1, &[&client, &wanted, &option(8, &[0, 0]), &ia]),
            message(3, &[&client, &server, &wanted, &ia]),
            message(5, &[&client, &server, &ia]),
            message(6, &[&client, &ia]),
            message(8, &[&client, &server, &ia]),
        ]
        .concat(),
        message(1, &[&client, &option(14, &[]), &ia, &other, &address]),
        [
            message(4, &[&client, &address]),
            message(9, &[&client, &server, &address, &ia]),
            message(11, &[&wanted]),
        ]
        .concat(),
    ]
}
