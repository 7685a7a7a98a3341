//! Packets below PPP: Ethernet, IPv4, IPv6, GRE, and what we change or answer in them.

use std::net::Ipv4Addr;

use turnpike_protocol::Time;
use turnpike_protocol::gre::{
    AckSettings, Arrival, Held, MAX_HELD, MAX_JUMP, Queue, Receiver, Seq,
};
use turnpike_protocol::wire::icmp::{self, Message, OVERHEAD};
use turnpike_protocol::wire::tcp_mss::{Clamped, clamp};
use turnpike_protocol::wire::{ethernet, gre, ipv4, ipv6};

use super::{Input, Trace};

/// What a header says lies inside the packet, and writes again as it was.
pub fn gre_header(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    match gre::Packet::parse(octets) {
        Ok(packet) => {
            let payload = &octets[packet.payload_range()];
            trace.note((
                packet.seq.is_some(),
                packet.ack.is_some(),
                payload.is_empty(),
                payload.len() > 1500,
            ));
            let header = gre::Header {
                call_id: packet.call_id,
                seq: packet.seq,
                ack: packet.ack,
                payload_len: u16::try_from(packet.payload_len).expect("16 bits"),
            };
            let mut written = [0; gre::MAX_HEADER_LEN];
            let length = header.emit(&mut written).expect("room");
            assert_eq!(length, packet.header_len);
            let mut again = written[..length].to_vec();
            again.extend_from_slice(payload);
            assert_eq!(gre::Packet::parse(&again), Ok(packet));
        }
        Err(fault) => trace.note(fault as u8),
    }
    trace
}

/// Nothing is delivered twice or backwards, and what is missing is counted once.
pub fn gre_receiver(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let mut receiver = Receiver::new(AckSettings::default());
    let mut number = input.u32();
    let mut last: Option<Seq> = None;
    let mut doubted = None;
    let mut now = Time::ZERO;
    while !input.is_empty() {
        let step = input.octet();
        number = match step {
            0..=99 => number.wrapping_add(1),
            100..=149 => number.wrapping_add(u32::from(step - 100)),
            150..=199 => number.wrapping_sub(u32::from(step - 150)),
            200..=229 => number.wrapping_add(u32::from(input.u16())),
            _ => input.u32(),
        };
        let seq = Seq(number);
        let arrival = receiver.accept(seq);
        trace.note((
            arrival.is_delivered(),
            matches!(arrival, Arrival::Duplicate),
        ));
        let ahead = last.map(|last| seq.distance(last));
        let far = ahead.is_some_and(|ahead| ahead.unsigned_abs() > MAX_JUMP);
        // A far number is believed when it follows one that was not.
        let proven = doubted.is_some_and(|doubted: Seq| doubted.next() == seq);
        match arrival {
            Arrival::First => {
                assert!(last.is_none() || far && proven && ahead.is_some_and(|ahead| ahead < 0));
            }
            Arrival::InOrder => assert_eq!(ahead, Some(1)),
            Arrival::Ahead { missing } => {
                assert_eq!(ahead.map(i64::from), Some(i64::from(missing) + 1));
                assert!(missing > 0 && (!far || proven));
            }
            Arrival::Duplicate => assert!(ahead.is_some_and(|ahead| ahead <= 0)),
            Arrival::Late => assert!(far || ahead.is_some_and(|ahead| ahead < 0)),
            Arrival::Held | Arrival::Awaited { .. } | Arrival::Beyond => {
                panic!("{arrival:?} without a queue");
            }
        }
        doubted = (far && !arrival.is_delivered()).then_some(seq);
        if arrival.is_delivered() {
            last = Some(seq);
            receiver.note_received(now);
        }
        assert_eq!(receiver.last(), last);
        if receiver.ack_due().is_some_and(|due| due <= now) {
            assert_eq!(receiver.ack_to_send(), last);
            assert_eq!(receiver.ack_to_send(), None);
        }
        now += std::time::Duration::from_millis(1);
    }
    trace
}

/// With a queue, too, nothing is delivered twice or backwards, numbers and packets stay together, each number that was
/// passed over is counted once, nothing is held longer than it may be, and the store keeps its books.
pub fn gre_reorder(octets: &[u8]) -> Trace {
    const TIME: u64 = 50_000_000;
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let packets = input.octet();
    let mut receiver = Receiver::new(AckSettings::default()).with_queue(packets);
    let mut store = Held::new(1 + usize::from(input.octet() % 80));
    let mut queue = Queue::EMPTY;
    let mut number = input.u32();
    let mut last: Option<Seq> = None;
    let mut now = Time::from_nanos(1 << 40);
    let mut deliver = |seq: Seq, missing: u32, anew: bool| {
        if let Some(last) = last.replace(seq)
            && !anew
        {
            assert_eq!(
                seq.distance(last).unsigned_abs(),
                missing + 1,
                "{last:?} {seq:?}"
            );
            assert!(seq.distance(last) > 0);
        }
    };
    while !input.is_empty() {
        let step = input.octet();
        number = match step {
            0..=79 => number.wrapping_add(1),
            80..=149 => number.wrapping_add(u32::from(step - 80)),
            150..=209 => number.wrapping_sub(u32::from(step - 150)),
            210..=219 => number.wrapping_add(u32::from(input.u16())),
            220..=224 => input.u32(),
            _ => {
                now += std::time::Duration::from_millis(u64::from(step - 225));
                let since = Time::from_nanos(now.as_nanos() - TIME);
                if let Some(through) = store.waiting_since(queue, since) {
                    receiver.give_up(through);
                }
                while let Some(released) = receiver.release() {
                    assert_eq!(store.take(&mut queue, released.seq), Some(released.seq));
                    deliver(released.seq, released.missing, false);
                }
                assert!(store.since(queue).is_none_or(|first| first > since));
                continue;
            }
        };
        let seq = Seq(number);
        let mut arrival = receiver.accept(seq);
        let beyond = arrival == Arrival::Beyond;
        if beyond {
            while let Some(released) = receiver.release() {
                assert_eq!(store.take(&mut queue, released.seq), Some(released.seq));
                deliver(released.seq, released.missing, false);
            }
            arrival = receiver.accept(seq);
        }
        trace.note((beyond, core::mem::discriminant(&arrival)));
        let mut in_hand = None;
        match arrival {
            Arrival::First => deliver(seq, 0, true),
            Arrival::InOrder => deliver(seq, 0, false),
            Arrival::Ahead { missing } | Arrival::Awaited { missing } => {
                deliver(seq, missing, false);
            }
            Arrival::Held => {
                if let Err(seq) = store.hold(&mut queue, seq, now, seq) {
                    assert_ne!(packets, 0);
                    in_hand = Some(seq);
                    receiver.give_up(seq);
                }
            }
            Arrival::Duplicate | Arrival::Late => continue,
            Arrival::Beyond => panic!("twice beyond"),
        }
        while let Some(released) = receiver.release() {
            let taken = store
                .take(&mut queue, released.seq)
                .or_else(|| in_hand.take());
            assert_eq!(taken, Some(released.seq));
            deliver(released.seq, released.missing, false);
        }
        assert_eq!(in_hand, None);
        assert!(store.len() <= usize::from(packets.min(MAX_HELD)));
        assert_eq!(receiver.is_holding(), !queue.is_empty());
        assert_eq!(store.is_empty(), queue.is_empty());
    }
    trace
}

/// Views stay inside their packets.
pub fn ethernet_ip(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let Ok(frame) = ethernet::Packet::new_checked(octets) else {
        return trace;
    };
    trace.note(matches!(
        frame.ethertype(),
        ethernet::IPV4 | ethernet::IPV6 | ethernet::ARP
    ));
    let payload = frame.payload().to_vec();
    if let Ok(packet) = ipv4::Packet::new_checked(&payload[..]) {
        let range = packet.payload_range();
        assert_eq!(
            (range.start, range.end),
            (packet.header_len(), packet.total_len())
        );
        assert_eq!(packet.payload().len(), range.len());
        assert!((20..=60).contains(&packet.header_len()) && packet.total_len() <= payload.len());
        assert_eq!(
            packet.is_fragment(),
            packet.more_fragments() || packet.fragment_offset() > 0
        );
        let good = packet.verify_checksum();
        trace.note((
            good,
            packet.is_fragment(),
            packet.dont_fragment(),
            packet.protocol() == ipv4::GRE,
        ));
        let ttl = packet.ttl();
        let mut changed = payload.clone();
        let mut packet = ipv4::Packet::new_checked(&mut changed[..]).expect("the same packet");
        if packet.decrement_ttl() {
            assert_eq!(packet.ttl(), ttl - 1);
            assert_eq!(
                packet.verify_checksum(),
                good,
                "a checksum stays as right as it was"
            );
        } else {
            assert!(ttl <= 1);
        }
        packet.fill_checksum();
        assert!(packet.verify_checksum());
    }
    if let Ok(packet) = ipv6::Packet::new_checked(&payload[..]) {
        trace.note(packet.next_header());
        assert!(packet.total_len() <= payload.len());
    }
    trace
}

/// The checksum of a TCP segment over its pseudo-header; 0 when it is right.
fn tcp_checksum(packet: &[u8]) -> Option<u16> {
    let ip = ipv4::Packet::new_checked(packet).ok()?;
    if ip.protocol() != ipv4::TCP || ip.is_fragment() {
        return None;
    }
    Some(ipv4::transport_checksum(
        ip.source(),
        ip.destination(),
        ipv4::TCP,
        ip.payload(),
    ))
}

/// The clamp keeps length, checksum and everything that is not the option.
pub fn tcp_mss(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let max_mss = input.u16();
    let before = input.0.to_vec();
    let mut after = before.clone();
    match clamp(&mut after, max_mss) {
        Clamped::No => {
            trace.note(0);
            assert_eq!(before, after);
        }
        Clamped::Yes => {
            trace.note(1);
            let changed = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| before != after)
                .count();
            assert!(
                changed <= 4,
                "two octets of option, two of checksum: {changed}"
            );
            if tcp_checksum(&before) == Some(0) {
                assert_eq!(tcp_checksum(&after), Some(0));
            }
            assert_eq!(clamp(&mut after, max_mss), Clamped::No, "once is enough");
        }
    }
    trace
}

/// Both ways to write an error give the same, and never one about an error.
pub fn icmp(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let mut input = Input(octets);
    let message = match input.octet() % 5 {
        0 => Message::NetworkUnreachable,
        1 => Message::HostUnreachable,
        2 => Message::FragmentationNeeded { mtu: input.u16() },
        3 => Message::Prohibited,
        _ => Message::TimeExceeded,
    };
    let source = Ipv4Addr::new(10, 20, 0, 1);
    let original = input.0;
    let mut apart = [0; icmp::MAX_LEN];
    let written = icmp::emit(message, source, original, &mut apart);
    let mut in_front = vec![0; OVERHEAD];
    in_front.extend_from_slice(original);
    let length = icmp::emit_in_front(message, source, &mut in_front);
    assert_eq!(written, length);
    assert_eq!(
        written,
        icmp::quoted_len(original).map(|quoted| quoted + OVERHEAD)
    );
    trace.note(written);
    if let Some(length) = written {
        assert_eq!(apart[..length], in_front[..length]);
        let packet = ipv4::Packet::new_checked(&apart[..length]).expect("a packet");
        assert!(packet.verify_checksum());
        assert_eq!(packet.total_len(), length);
        assert_eq!(ipv4::checksum(packet.payload()), 0);
        assert_eq!(packet.source(), source);
        assert_eq!(
            icmp::quoted_len(&apart[..length]),
            None,
            "no error about an error"
        );
    }
    trace
}
