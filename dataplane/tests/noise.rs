//! Whatever arrives, nothing panics, nothing is lost from the books, and no call disturbs another.

mod rig;

use proptest::prelude::*;
use rig::*;
use turnpike_dataplane::api::{CallRef, Command, Encryption, Forward, Port};
use turnpike_dataplane::counters::Total;
use turnpike_dataplane::worker::Reordering;
use turnpike_protocol::CallId;

/// Somebody else's call on the same server.
const WITNESS: CallRef = CallRef {
    local: SERVER,
    peer: GATEWAY,
    id: CallId(3),
};
const WITNESS_INNER: core::net::Ipv4Addr = core::net::Ipv4Addr::new(10, 20, 0, 33);

fn with_witness(encryption: Encryption, reordering: Reordering) -> Pair {
    let mut pair = Pair::up_reordering(encryption, reordering);
    pair.forward6(encryption);
    for command in [
        Command::Open {
            call: WITNESS,
            peer_id: CallId(4),
            via: CLIENT,
            window: 64,
        },
        Command::Route {
            prefix: WITNESS_INNER.into(),
            call: WITNESS,
        },
        Command::Forward {
            call: WITNESS,
            forward: Forward {
                address: WITNESS_INNER,
                ..forward(Encryption::Plain)
            },
        },
    ] {
        pair.server.tell(command);
    }
    pair.server.turn();
    pair
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 3000 }))]

    #[test]
    fn noise_on_every_port(
        encrypted in any::<bool>(),
        queue in 0_u8..5,
        packets in prop::collection::vec((0_u8..10, edits(), 0_usize..1500, any::<u16>()), 1..40),
    ) {
        let encryption = if encrypted { Encryption::Required } else { Encryption::Plain };
        // Also one that is full at times.
        let reordering = Reordering { packets: 4 * queue, total: 5, ..Reordering::default() };
        let mut pair = with_witness(encryption, reordering);
        let mut seq = 0;
        for (kind, edits, size, number) in packets {
            let up = udp(INNER, INTERNET, size.min(1380));
            let up6 = udp6(INNER6, INTERNET6, size.min(1360));
            let (port, mut frame) = match kind {
                0 => (Port::Access, gre_to_server(AT_SERVER.id, Some(number.into()), Some(number.into()), &[&[0x21][..], &up].concat())),
                1 => (Port::Access, gre_to_server(AT_SERVER.id, Some(number.into()), None, &configure_request(number as u8))),
                2 => (Port::Access, gre_to_server(AT_SERVER.id, Some(number.into()), None, &[&[0xfd, 0x90 | (number >> 8) as u8 & 0xf, number as u8][..], &up].concat())),
                3 => (Port::Host, from_linux(&udp(INTERNET, INNER, size))),
                4 => (Port::Uplink, ethernet(UPLINK_MAC, GATEWAY_MAC, &with_df(udp(INTERNET, INNER, size)))),
                5 => (Port::Host, from_linux(&udp6(INTERNET6, INNER6, size))),
                6 => (Port::Uplink, ethernet(UPLINK_MAC, GATEWAY_MAC, &udp6(INTERNET6, BEHIND, size))),
                7 => (Port::Access, gre_to_server(AT_SERVER.id, Some(number.into()), None, &[&[0x57][..], &up6].concat())),
                kind => {
                    pair.client.receive(Port::Host, [from_linux(if kind == 8 { &up } else { &up6 })]);
                    let Some(frame) = pair.client.sent(Port::Access).pop() else { continue };
                    (Port::Access, frame)
                }
            };
            for (at, value) in edits {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if number % 5 == 0 {
                frame.truncate(usize::from(number) % frame.len());
            }
            pair.server.receive(port, [frame]);
            pair.server.sent(Port::Access);
            pair.server.sent(Port::Uplink);
            pair.server.sent(Port::Host);
            // The witness never notices.
            let packet = udp(WITNESS_INNER, INTERNET, 20);
            pair.server.receive(Port::Access, [gre_from(GATEWAY, WITNESS.id, Some(seq), None, &[&[0x21][..], &packet].concat())]);
            prop_assert_eq!(inner_of(pair.server.sent(Port::Host)), [packet]);
            seq += 1;
        }
        pair.server.pass(core::time::Duration::from_millis(200));
        let counters = pair.server.worker.counters();
        prop_assert_eq!(counters.total(Total::Held), counters.total(Total::Released));
        // Every packet that came or was made has gone out, ended somewhere, or was dropped under a name.
        let balance = counters.balance();
        prop_assert_eq!(balance.came, balance.went);
        let witness = pair.server.counters(WITNESS);
        prop_assert_eq!((witness.dropped, witness.missing, witness.received_packets), (0, 0, u64::from(seq)));
    }

    #[test]
    fn noise_alone(port in 0_usize..3, frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut pair = with_witness(Encryption::Plain, Reordering::default());
        pair.server.receive(Port::ALL[port], [&frame]);
        pair.client.receive(Port::ALL[port], [&frame]);
        prop_assert!(pair.server.worker.counters().reasons().count() > 0);
    }
}
