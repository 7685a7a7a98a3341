//! Packets for addresses of the machine itself.

mod rig;

use core::net::Ipv4Addr;

use rig::uplink::with_uplink;
use rig::*;
use turnpike_dataplane::api::{Command, Encryption, Port};
use turnpike_dataplane::counters::Reason;

#[test]
fn the_machines_own_addresses_are_linuxs_whatever_the_uplink() {
    const ON_UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const IN_POOL: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 200);
    let mut pair = Pair::up(Encryption::Plain);
    with_uplink(&mut pair, Some(GATEWAY_MAC));
    let tell = |pair: &mut Pair, address, ours| {
        pair.server.tell(Command::Local { address, ours });
        pair.server.turn();
    };
    for address in [ON_UPLINK, SERVER, IN_POOL] {
        tell(&mut pair, address, true);
        let packet = udp(INNER, address, 10);
        // With its time to live: Linux is where it ends.
        assert_eq!(pair.client_sends(&packet, Port::Host), [packet]);
    }
    assert!(pair.server.sent(Port::Uplink).is_empty());
    let beside = udp(INNER, Ipv4Addr::new(192, 0, 2, 3), 10);
    assert_eq!(pair.client_sends(&beside, Port::Uplink).len(), 1);
    // The machine has lost it.
    tell(&mut pair, ON_UPLINK, false);
    let packet = udp(INNER, ON_UPLINK, 10);
    assert_eq!(pair.client_sends(&packet, Port::Uplink).len(), 1);
    pair.server.assert_dropped(&[]);
    for n in 0..1100 {
        let address = Ipv4Addr::from_bits(0x0b00_0000 + n);
        tell(&mut pair, address, true);
    }
    let full = pair.server.worker.counters().reason(Reason::LocalsFull);
    assert_eq!(full, 1100 + 2 - 1024);
}
