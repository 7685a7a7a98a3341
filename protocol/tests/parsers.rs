//! Whatever comes from the network: no parser panics, and what it understands it writes back the same.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;
use turnpike_protocol::Time;
use turnpike_protocol::pptp::{
    Caller, CallerConfig, Decoder, Incoming, Message, Server, ServerConfig,
};
use turnpike_protocol::wire::{ethernet, gre, icmp, ipv4, ipv6, ppp, tcp_mss};

/// Octets that begin like a control message, so that the inner parts are reached.
fn control_message() -> impl Strategy<Value = Vec<u8>> {
    (0u16..=17, prop::collection::vec(any::<u8>(), 0..=230)).prop_map(|(control_type, body)| {
        let length = u16::try_from(12 + body.len()).unwrap();
        let mut octets = length.to_be_bytes().to_vec();
        octets.extend([0, 1, 0x1a, 0x2b, 0x3c, 0x4d]);
        octets.extend(control_type.to_be_bytes());
        octets.extend([0, 0]);
        octets.extend(body);
        octets
    })
}

/// Octets that begin like an IPv4 packet with options and a right length more often than chance would have it.
fn ipv4_packet() -> impl Strategy<Value = Vec<u8>> {
    (
        5u8..=15,
        any::<bool>(),
        prop::sample::select(vec![1u8, 6, 17, 47]),
        prop::collection::vec(any::<u8>(), 20..=1500),
    )
        .prop_map(|(ihl, fragment, protocol, mut octets)| {
            let length = u16::try_from(octets.len()).unwrap();
            octets[0] = 0x40 | ihl;
            octets[2..4].copy_from_slice(&length.to_be_bytes());
            if !fragment {
                octets[6..8].copy_from_slice(&[0x40, 0]);
            }
            octets[9] = protocol;
            octets
        })
}

fn gre_packet() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[bool; 2]>(),
        prop::collection::vec(any::<u8>(), 8..=100),
        0u16..=100,
    )
        .prop_map(|([seq, ack], mut octets, length)| {
            octets[0] = 0x20 | u8::from(seq) << 4;
            octets[1] = 0x01 | u8::from(ack) << 7;
            octets[2..4].copy_from_slice(&[0x88, 0x0b]);
            octets[4..6].copy_from_slice(&length.to_be_bytes());
            octets
        })
}

proptest! {
    #[test]
    fn messages_round_trip(octets in control_message()) {
        if let Ok(message) = Message::parse(&octets) {
            let emitted = message.emit();
            prop_assert!(emitted.len() <= octets.len());
            prop_assert_eq!(Message::parse(&emitted).unwrap(), message);
        }
    }

    #[test]
    fn the_stream_gives_the_same_messages_in_any_pieces(
        messages in prop::collection::vec(control_message(), 1..6),
        cuts in prop::collection::vec(1usize..300, 1..40),
    ) {
        let octets: Vec<u8> = messages.concat();
        let run = |mut sizes: Box<dyn Iterator<Item = usize>>| {
            let mut decoder = Decoder::new();
            let mut rest = &octets[..];
            let mut found: Vec<Incoming> = Vec::new();
            while !rest.is_empty() {
                let (mut piece, after) = rest.split_at(sizes.next().unwrap().min(rest.len()));
                rest = after;
                loop {
                    match decoder.next(&mut piece) {
                        Ok(Some(incoming)) => found.push(incoming),
                        Ok(None) => break,
                        Err(_) => return (found, false),
                    }
                }
            }
            (found, true)
        };
        let whole = run(Box::new(std::iter::repeat(usize::MAX)));
        let cut = run(Box::new(cuts.into_iter().cycle()));
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn both_ends_take_anything(
        messages in prop::collection::vec(control_message(), 1..8),
        garbage in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut server = Server::new(ServerConfig::default(), Time::ZERO);
        let mut caller = Caller::new(CallerConfig::default(), Time::ZERO);
        for octets in messages.iter().chain([&garbage]) {
            let _ = server.receive(octets, Time::ZERO);
            let _ = caller.receive(octets, Time::ZERO);
        }
        prop_assert_eq!(server.is_finished(), server.deadline().is_none());
        prop_assert_eq!(caller.is_finished(), caller.deadline().is_none());
        while server.poll().is_some() {}
        while caller.poll().is_some() {}
    }

    #[test]
    fn gre_round_trips(octets in prop_oneof![gre_packet(), prop::collection::vec(any::<u8>(), 0..40)]) {
        if let Ok(packet) = gre::Packet::parse(&octets) {
            prop_assert!(packet.payload_range().end <= octets.len());
            let mut header = [0; gre::MAX_HEADER_LEN];
            let len = gre::Header {
                call_id: packet.call_id,
                seq: packet.seq,
                ack: packet.ack,
                payload_len: u16::try_from(packet.payload_len).unwrap(),
            }
            .emit(&mut header)
            .unwrap();
            if packet.seq.is_some() {
                prop_assert_eq!(&header[..len], &octets[..len]);
            }
            let mut whole = header[..len].to_vec();
            whole.extend(&octets[packet.payload_range()]);
            prop_assert_eq!(gre::Packet::parse(&whole), Ok(packet));
        }
    }

    #[test]
    fn ip_and_what_is_built_on_it(octets in prop_oneof![ipv4_packet(), prop::collection::vec(any::<u8>(), 0..100)], mss in any::<u16>()) {
        if let Ok(packet) = ipv4::Packet::new_checked(&octets) {
            prop_assert!(packet.payload_range().end <= octets.len());
            let _ = (packet.payload(), packet.verify_checksum(), packet.is_fragment());
            let mut copy = octets.clone();
            let mut mutable = ipv4::Packet::new_checked(&mut copy[..]).unwrap();
            mutable.fill_checksum();
            prop_assert!(mutable.verify_checksum());
            let _ = mutable.decrement_ttl();
            prop_assert!(mutable.verify_checksum());
        }
        let mut clamped = octets.clone();
        if tcp_mss::clamp(&mut clamped, mss) == tcp_mss::Clamped::No {
            prop_assert_eq!(&clamped, &octets);
        } else {
            prop_assert_eq!(tcp_mss::clamp(&mut clamped, mss), tcp_mss::Clamped::No);
        }
        let mut error = [0; icmp::MAX_LEN];
        if let Some(len) = icmp::emit(icmp::Message::TimeExceeded, [10, 0, 0, 1].into(), &octets, &mut error) {
            let packet = ipv4::Packet::new_checked(&error[..len]).unwrap();
            prop_assert_eq!(packet.total_len(), len);
            prop_assert_eq!(ipv4::checksum(packet.payload()), 0);
            prop_assert_eq!(icmp::quoted_len(&error[..len]), None);
        }
        let _ = ipv6::Packet::new_checked(&octets).map(|packet| packet.source());
        let _ = ethernet::Packet::new_checked(&octets).map(|packet| packet.ethertype());
    }

    #[test]
    fn ppp_headers_round_trip(octets in prop::collection::vec(any::<u8>(), 0..8)) {
        if let Ok(frame) = ppp::Frame::parse(&octets) {
            prop_assert!(frame.header_len <= octets.len());
            let framing = ppp::Framing {
                compress_address: !octets.starts_with(&ppp::ADDRESS_CONTROL),
                compress_protocol: frame.header_len % 2 == 1,
            };
            // LCP is the one that we never shorten.
            if frame.protocol != ppp::Protocol::LCP {
                let (header, len) = framing.header(frame.protocol);
                if frame.protocol.is_well_formed() || len == 4 || frame.header_len % 2 == 0 {
                    prop_assert_eq!(&header[..len], &octets[..frame.header_len]);
                }
            }
        }
    }
}
