//! Captures: every packet of a call, as it went outside and in clear.

mod rig;

use rig::*;
use turnpike_dataplane::api::CaptureSide::{Inner, Outer};
use turnpike_dataplane::api::Direction::{Receive, Transmit};
use turnpike_dataplane::api::{Captured, Command, Encryption, Port};
use turnpike_dataplane::counters::{Reason, Total};

fn captured(pair: &mut Pair) -> Vec<Captured> {
    core::iter::from_fn(|| pair.server.control.captured.pop().ok()).collect()
}

#[test]
fn both_sides_of_both_directions() {
    let mut pair = Pair::up(Encryption::Required);
    pair.server.tell(Command::Capture {
        call: AT_SERVER,
        on: true,
    });
    pair.server.turn();
    let up = udp(INNER, INTERNET, 300);
    let down = udp(INTERNET, INNER, 200);
    pair.client.receive(Port::Host, [from_linux(&up)]);
    let outer_up = pair.client.sent(Port::Access);
    pair.server.receive(Port::Access, &outer_up);
    pair.server.receive(Port::Host, [from_linux(&down)]);
    let outer_down = pair.server.sent(Port::Access);
    let echo = [0xff, 0x03, 0xc0, 0x21, 9, 1, 0, 4];
    pair.server.send_frame(AT_SERVER, &echo);
    let outer_echo = pair.server.sent(Port::Access);
    let got: Vec<_> = captured(&mut pair)
        .into_iter()
        .map(|packet| {
            assert_eq!(packet.call, AT_SERVER);
            assert_eq!(packet.at, pair.server.now);
            assert_eq!(packet.len, packet.original_len);
            let bytes = packet.bytes[..usize::from(packet.len)].to_vec();
            (packet.side, packet.direction, bytes)
        })
        .collect();
    assert_eq!(
        got,
        [
            (Outer, Receive, outer_up[0].clone()),
            (Inner, Receive, up),
            (Inner, Transmit, down.clone()),
            (Outer, Transmit, outer_down[0].clone()),
            (Outer, Transmit, outer_echo[0].clone()),
        ]
    );
    pair.server.tell(Command::Capture {
        call: AT_SERVER,
        on: false,
    });
    pair.server_sends(&down);
    assert!(captured(&mut pair).is_empty());
    assert_eq!(pair.server.total(Total::Captured), 5);
}

#[test]
fn a_full_ring_is_counted_and_costs_no_packet() {
    use turnpike_dataplane::mem::MemDevice;
    use turnpike_dataplane::rings::{RingSizes, channel};
    use turnpike_protocol::Role;

    let sizes = RingSizes {
        captured: 3,
        ..RingSizes::default()
    };
    let (control, end) = channel(&sizes).unwrap();
    let mut pair = Pair::open();
    pair.server = End::with(config(Role::Server), MemDevice::new(64), control, end);
    pair.server.open(64);
    pair.server.tell(Command::Capture {
        call: AT_SERVER,
        on: true,
    });
    pair.forward(Encryption::Plain);
    let down = udp(INTERNET, INNER, 200);
    for _ in 0..3 {
        assert_eq!(pair.server_sends(&down), core::slice::from_ref(&down));
    }
    assert_eq!(captured(&mut pair).len(), 3);
    pair.server.assert_dropped(&[(Reason::CaptureRingFull, 3)]);
}
