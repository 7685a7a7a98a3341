//! Neighbour discovery on the link of a call.

use std::net::Ipv6Addr;
use std::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::router::{Advertised, Router};
use turnpike_protocol::wire::ipv6;

use super::{Input, Trace};

/// Our interface identifier on the link.
const OURS: u64 = 1;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// An ICMPv6 message in a packet whose header and checksum are right.
fn packet(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(checksum) = message.get_mut(2..4) {
        checksum.fill(0);
        let sum = ipv6::transport_checksum(source, destination, ipv6::ICMPV6, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(message.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[ipv6::ICMPV6, hop_limit]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend(message);
    packet
}

/// A script for a router: packets as they come, messages in sound packets, and time. What it says is bounded, sound, and
/// from itself.
pub fn router(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mut now = Time::ZERO;
    let advertised = Advertised {
        identifier: OURS,
        prefix: "2001:db8:1:1::/64".parse().expect("a prefix"),
        mtu: 1400,
        dns: vec!["2001:db8::53".parse().expect("an address")],
        dhcp: true,
    };
    let mut router = Router::new(advertised, 7, now);
    let us = ipv6::link_local(OURS);
    let sources = [ipv6::link_local(7), Ipv6Addr::UNSPECIFIED, us];
    let destinations = [us, ALL_ROUTERS, ALL_NODES, ipv6::link_local(7)];
    while !input.is_empty() {
        let kind = input.octet();
        match kind {
            0..=63 => {
                let outcome = router.receive(input.chunk(), now);
                trace.note(outcome.is_ok());
            }
            64..=207 => {
                let source = sources[usize::from(kind) % sources.len()];
                let destination = destinations[usize::from(kind) % destinations.len()];
                let hop_limit = if kind % 5 == 0 { 64 } else { 255 };
                let packet = packet(source, destination, hop_limit, input.chunk());
                trace.note((router.receive(&packet, now).ok(), kind % 12));
            }
            _ => {
                now += Duration::from_millis(u64::from(input.u16()));
                let mut fired = 0;
                while router.deadline() <= now {
                    router.handle_timeout(now);
                    fired += 1;
                    assert!(fired <= 64, "timers without end");
                }
            }
        }
        let mut said = 0;
        while let Some(packet) = router.poll() {
            said += 1;
            assert!(said <= 64, "too much for one input");
            let ip = ipv6::Packet::new_checked(&packet[..]).expect("a packet of ours");
            // RFC 4861 §6.1.2; an echo may come from anywhere.
            let is_echo = ip.payload().first() == Some(&129);
            assert_eq!(ip.source(), us);
            assert_eq!(ip.hop_limit(), if is_echo { 64 } else { 255 });
            assert!(packet.len() <= usize::from(ipv6::MIN_MTU));
            let (source, destination) = (ip.source(), ip.destination());
            let message = ip.payload();
            assert_eq!(
                ipv6::transport_checksum(source, destination, ipv6::ICMPV6, message),
                0
            );
            trace.note((message[0], destination == ALL_NODES));
        }
    }
    trace
}

/// Solicitations as Linux and Windows send them, and an echo.
pub fn seeds() -> Vec<Vec<u8>> {
    let script = |kind: u8, message: &[u8]| {
        [&[kind][..], &super::input::chunk(message), &[255, 0x10, 0]].concat()
    };
    let target = ipv6::link_local(OURS).octets();
    let neighbor = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
    vec![
        script(121, &[133, 0, 0, 0, 0, 0, 0, 0]),
        script(121, &[133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 7]),
        script(124, &neighbor),
        script(124, &[&neighbor[..], &[1, 1, 2, 0, 0, 0, 0, 7]].concat()),
        script(132, &[128, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]),
        vec![255, 0xff, 0xff, 255, 0xff, 0xff],
    ]
}
