//! Packets larger than the tunnel, and TCP that learns of it.

mod rig;

use rig::*;
use turnpike_dataplane::api::{Command, Encryption, Forward, Port};
use turnpike_dataplane::counters::{Reason, Total};
use turnpike_protocol::wire::{icmp, ipv4};

fn syn(mss: u16, source: core::net::Ipv4Addr, destination: core::net::Ipv4Addr) -> Vec<u8> {
    let mut tcp = vec![0; 24];
    tcp[12] = 0x60;
    tcp[13] = 0x02;
    tcp[20..22].copy_from_slice(&[2, 4]);
    tcp[22..].copy_from_slice(&mss.to_be_bytes());
    let sum = ipv4::transport_checksum(source, destination, ipv4::TCP, &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(source, destination, ipv4::TCP, &tcp)
}

#[test]
fn tcp_learns_the_size_in_both_directions() {
    let mut pair = Pair::up(Encryption::Required);
    for (mss, clamped) in [(1460, 1360), (1360, 1360), (536, 536)] {
        let up = pair.client_sends(&syn(mss, INNER, INTERNET), Port::Host);
        assert_eq!(up, [syn(clamped, INNER, INTERNET)]);
        let down = pair.server_sends(&syn(mss, INTERNET, INNER));
        assert_eq!(down, [syn(clamped, INTERNET, INNER)]);
    }
    // Whoever sees it first lowers it.
    assert_eq!(pair.client.total(Total::MssClamped), 1);
    assert_eq!(pair.server.total(Total::MssClamped), 1);
}

#[test]
fn what_the_peer_did_not_clamp_is_clamped_on_the_way_out() {
    let mut pair = Pair::up(Encryption::Plain);
    let payload = [&[0x21][..], &syn(1460, INNER, INTERNET)].concat();
    pair.server.receive(
        Port::Access,
        [gre_to_server(AT_SERVER.id, Some(1), None, &payload)],
    );
    assert_eq!(
        inner_of(pair.server.sent(Port::Host)),
        [syn(1360, INNER, INTERNET)]
    );
}

#[test]
fn too_big_with_df_is_answered() {
    let mut pair = Pair::up(Encryption::Required);
    let fits = with_df(udp(INTERNET, INNER, 1400 - 20));
    assert_eq!(pair.server_sends(&fits), [fits]);
    let large = with_df(udp(INTERNET, INNER, 1401 - 20));
    let check = |error: &[u8], source| {
        let ip = ipv4::Packet::new_checked(error).unwrap();
        assert_eq!((ip.source(), ip.destination()), (source, INTERNET));
        assert_eq!(ip.payload()[..8][..2], [3, 4]);
        assert_eq!(ip.payload()[6..8], 1400_u16.to_be_bytes());
        assert_eq!(ip.payload()[8..], large[..icmp::MAX_LEN - icmp::OVERHEAD]);
        assert_eq!(ipv4::checksum(ip.payload()), 0);
    };
    for (port, ours, theirs) in [
        (Port::Host, HOST_MAC, LINUX_MAC),
        (Port::Uplink, UPLINK_MAC, GATEWAY_MAC),
    ] {
        pair.server.receive(port, [ethernet(ours, theirs, &large)]);
        let errors = pair.server.sent(port);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0][..12], [theirs.0, ours.0].concat());
        check(&errors[0][14..], SERVER_INNER);
    }
    pair.server.assert_dropped(&[(Reason::TooBig, 2)]);
    assert_eq!(pair.server.counters(AT_SERVER).dropped, 2);
    // A client has no router's address to answer from.
    let large = with_df(udp(INNER, INTERNET, 1401 - 20));
    pair.client.receive(Port::Host, [from_linux(&large)]);
    let errors = inner_of(pair.client.sent(Port::Host));
    let ip = ipv4::Packet::new_checked(&errors[0][..]).unwrap();
    assert_eq!((ip.source(), ip.destination()), (INTERNET, INNER));
    pair.client.assert_dropped(&[(Reason::TooBig, 1)]);
}

#[test]
fn too_big_without_df_goes_in_pieces() {
    let mut pair = Pair::up(Encryption::Required);
    let large = udp(INTERNET, INNER, 1480);
    let pieces = pair.server_sends(&large);
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1396, 124]);
    let mut whole = large.clone();
    for piece in &pieces {
        let ip = ipv4::Packet::new_checked(&piece[..]).unwrap();
        assert!(ip.verify_checksum());
        assert!(ip.is_fragment());
        assert_eq!(ip.ident(), 0x1234);
        let at = 20 + ip.fragment_offset();
        whole[at..at + ip.payload().len()].copy_from_slice(ip.payload());
    }
    assert_eq!(whole, large);
    assert_eq!(pair.server.total(Total::FragmentsMade), 2);
    // A hop less, and still whole pieces, when it came from the uplink.
    pair.server
        .receive(Port::Uplink, [ethernet(UPLINK_MAC, GATEWAY_MAC, &large)]);
    pair.exchange();
    let pieces = inner_of(pair.client.sent(Port::Host));
    assert!(pieces.iter().all(|piece| piece[8] == 16));
    assert_eq!(pieces.len(), 2);
    pair.server.assert_dropped(&[]);
}

#[test]
fn the_access_ports_mtu_bounds_the_tunnels() {
    let mut pair = Pair::up(Encryption::Plain);
    pair.server.tell(Command::Forward {
        call: AT_SERVER,
        forward: Forward {
            mtu: 1500,
            ..forward(Encryption::Plain)
        },
    });
    let large = with_df(udp(INTERNET, INNER, 1480));
    pair.server.receive(Port::Host, [from_linux(&large)]);
    let errors = inner_of(pair.server.sent(Port::Host));
    let ip = ipv4::Packet::new_checked(&errors[0][..]).unwrap();
    assert_eq!(ip.payload()[6..8], 1456_u16.to_be_bytes());
    let fits = with_df(udp(INTERNET, INNER, 1456 - 20));
    pair.server.receive(Port::Host, [from_linux(&fits)]);
    assert!(pair.server.sent(Port::Access)[0].len() <= 1514);
}

#[test]
fn what_the_uplink_cannot_carry_goes_to_linux() {
    let mut config = config(turnpike_protocol::Role::Server);
    config.ports[Port::Uplink as usize].as_mut().unwrap().mtu = 1280;
    let (control, end) = turnpike_dataplane::rings::channel(&Default::default()).unwrap();
    let device = turnpike_dataplane::mem::MemDevice::new(64);
    let mut pair = Pair::open();
    pair.server = End::with(config, device, control, end);
    for command in [
        Command::Open {
            call: AT_SERVER,
            peer_id: AT_CLIENT.id,
            via: CLIENT,
            window: 64,
        },
        Command::DefaultRoute { via: Some(GATEWAY) },
        Command::Neighbour {
            port: Port::Uplink,
            address: GATEWAY,
            mac: Some(GATEWAY_MAC),
        },
    ] {
        pair.server.tell(command);
    }
    pair.forward(Encryption::Plain);
    for (octets, port) in [(1280, Port::Uplink), (1281, Port::Host)] {
        let packet = udp(INNER, INTERNET, octets - 20);
        assert_eq!(pair.client_sends(&packet, port).len(), 1);
    }
}
