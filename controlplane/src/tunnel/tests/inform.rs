//! A client that asks by DHCP inside its call.

use core::net::SocketAddrV4;

use turnpike_protocol::wire::udp;

use super::*;

fn told() -> Settings {
    Settings {
        inform: Some(Arc::new(Inform {
            server: Ipv4Addr::new(10, 20, 0, 1),
            dns: [None; 2],
            nbns: [None; 2],
            domain: None,
            routes: vec!["10.0.0.0/8".parse().unwrap()],
        })),
        ..settings()
    }
}

/// A DHCP message of this type (RFC 2132 §9.6) with this `ciaddr`.
fn question(kind: u8, ciaddr: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[12..16].copy_from_slice(&ciaddr.octets());
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend_from_slice(&[53, 1, kind, 255]);
    let from = SocketAddrV4::new(ciaddr, 68);
    udp::ipv4_packet(from, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), &message).unwrap()
}

fn ask(world: &mut World, packet: &[u8]) {
    world.did.clear();
    let event = Event::Inner {
        call: world.call(100),
        packet: FrameBytes::new(packet).unwrap(),
    };
    world.tunnel.event(event, world.now);
    world.settle();
}

fn dialled(settings: Settings) -> World {
    let mut world = World::new(settings);
    world.caller.call(CallId(0), world.now);
    world.settle();
    world
}

#[test]
fn it_is_answered_inside_the_call() {
    let mut world = dialled(told());
    world.position("up alice 10.20.0.9 1400");
    ask(&mut world, &question(8, ADDRESS));
    assert_eq!(world.did, ["informed", "inner 328 octets"]);
    ask(&mut world, &question(1, ADDRESS));
    assert_eq!(world.did, ["not informed dhcp_not_inform"]);
    ask(&mut world, &question(8, Ipv4Addr::new(10, 20, 0, 10)));
    assert_eq!(world.did, ["not informed dhcp_other_address"]);
    ask(&mut world, &[0x45; 40]);
    assert_eq!(world.did, ["not informed dhcp_malformed"]);
}

#[test]
fn nobody_answers_before_there_is_an_address_or_after_the_end_or_without_being_told_to() {
    let mut world = World::new(told());
    world.gre = false;
    world.caller.call(CallId(0), world.now);
    world.settle();
    ask(&mut world, &question(8, ADDRESS));
    assert_eq!(world.did, [""; 0]);
    // A question that lay in the ring when the call ended.
    let mut world = dialled(told());
    world.worker = false;
    let call = world.call(100);
    world.tunnel.shut_down(Cause::Killed, world.now);
    world.settle();
    world.position("close");
    ask(&mut world, &question(8, ADDRESS));
    assert_eq!(world.did, [""; 0]);
    assert_eq!(world.closing, [call]);
    // Another server's business.
    let mut world = dialled(settings());
    ask(&mut world, &question(8, ADDRESS));
    assert_eq!(world.did, [""; 0]);
}
