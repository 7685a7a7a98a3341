//! The MPPE receiver against losses, late packets and forgeries.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they measured"
)]

use std::time::Instant;

use proptest::prelude::*;
use turnpike_protocol::mppe::{
    Chain, Cipher, Decryptor, Encryptor, Mode, Refusal, StartKey, Strength, plausible,
};

const STRENGTHS: [Strength; 3] = [Strength::Bits40, Strength::Bits56, Strength::Bits128];

fn start(strength: Strength) -> StartKey {
    StartKey::new([0x5a; 16], strength)
}

/// Both ends of one direction.
struct Pair {
    sender: Encryptor,
    receiver: Decryptor,
    sent: u32,
}

struct Packet {
    header: [u8; 2],
    octets: Vec<u8>,
    clear: Vec<u8>,
}

#[derive(PartialEq, Debug)]
enum Got {
    Clear,
    Garbage,
    Refused(Refusal),
}

impl Pair {
    fn new(mode: Mode, strength: Strength) -> Self {
        let start = start(strength);
        Self {
            sender: Encryptor::new(&start, mode),
            receiver: Decryptor::new(&start, mode),
            sent: 0,
        }
    }

    fn stateless() -> Self {
        Self::new(Mode::Stateless, Strength::Bits128)
    }

    /// An IPv4 packet that differs from all before.
    fn seal(&mut self) -> Packet {
        self.sent += 1;
        let mut clear = vec![0x00, 0x21, 0x45, 0, 0, 60];
        clear.extend_from_slice(&self.sent.to_be_bytes());
        clear.resize(62, 0x70);
        let sealing = self.sender.seal();
        let header = sealing.header;
        let mut octets = clear.clone();
        sealing.cipher.apply(&mut octets);
        Packet {
            header,
            octets,
            clear,
        }
    }

    fn lose(&mut self, packets: u32) {
        for _ in 0..packets {
            self.sender.seal();
        }
        self.sent += packets;
    }

    fn open(&mut self, packet: &Packet, missing: u32) -> Got {
        let mut octets = packet.octets.clone();
        match self.receiver.open(packet.header, missing) {
            Ok(cipher) => cipher.apply(&mut octets),
            Err(refusal) => return Got::Refused(refusal),
        }
        self.receiver.judge(plausible(&octets));
        if octets == packet.clear {
            Got::Clear
        } else {
            Got::Garbage
        }
    }

    fn pass(&mut self, missing: u32) -> Got {
        let packet = self.seal();
        self.open(&packet, missing)
    }
}

fn forged(count: u16) -> Packet {
    let [high, low] = count.to_be_bytes();
    Packet {
        header: [0x90 | high, low],
        octets: vec![0xa5; 62],
        clear: Vec::new(),
    }
}

#[test]
fn gre_gap_decides_however_long() {
    for lost in [1, 2047, 2048, 4072, 4095, 4096, 4097, 9000, 65_536, 150_001] {
        let mut pair = Pair::stateless();
        assert_eq!(pair.pass(0), Got::Clear);
        pair.lose(lost);
        let mut missing = lost;
        let mut refused = 0;
        // Not more key changes for one packet than the count has values, and a long gap is closed in a few packets.
        loop {
            match pair.pass(missing) {
                Got::Clear => break,
                Got::Refused(Refusal::TooFarAhead) => refused += 1,
                other => panic!("{lost} lost: {other:?} after {refused} refused"),
            }
            missing = 0;
        }
        let credit = 16 * 4096;
        let most = lost.min(credit) / 4096 + (lost.saturating_sub(credit)) / 7 + 1;
        assert!(
            refused <= most,
            "{lost} lost: {refused} refused, not at most {most}"
        );
        if lost < 4096 {
            assert_eq!(refused, 0, "{lost} lost");
        }
        assert_eq!(pair.pass(0), Got::Clear);
    }
}

#[test]
fn control_frames_lost_in_the_gap_do_no_harm() {
    let mut pair = Pair::stateless();
    assert_eq!(pair.pass(0), Got::Clear);
    pair.lose(5000);
    // Three of the missing numbers belonged to packets without a coherency count.
    assert_eq!(pair.pass(5003), Got::Refused(Refusal::TooFarAhead));
    assert_eq!(pair.pass(0), Got::Clear);
}

#[test]
fn sender_may_lose_between_mppe_and_gre() {
    let mut pair = Pair::stateless();
    assert_eq!(pair.pass(0), Got::Clear);
    pair.lose(2047);
    assert_eq!(pair.pass(0), Got::Clear, "a guess");
    assert_eq!(pair.pass(0), Got::Clear, "and its confirmation");
    pair.lose(2048);
    assert_eq!(
        pair.pass(0),
        Got::Refused(Refusal::Late),
        "without a gap this is a late packet"
    );
}

#[test]
fn late_never_moves_keys() {
    let mut pair = Pair::stateless();
    let early: Vec<Packet> = (0..100).map(|_| pair.seal()).collect();
    assert_eq!(pair.pass(100), Got::Clear);
    for packet in &early {
        assert_eq!(pair.open(packet, 0), Got::Refused(Refusal::Late));
    }
    assert_eq!(pair.pass(0), Got::Clear);
}

#[test]
fn forgeries_are_rolled_back() {
    let mut pair = Pair::stateless();
    assert_eq!(pair.pass(0), Got::Clear);
    for count in [2, 3, 700, 2047] {
        assert_ne!(pair.open(&forged(count), 0), Got::Clear);
        assert_eq!(pair.pass(0), Got::Clear, "after {count}");
        // A forgery that carried a GRE number far ahead; the genuine ones up to that number do not come through.
        assert_ne!(pair.open(&forged(count), 9000), Got::Clear);
        pair.lose(9001);
        while pair.pass(0) != Got::Clear {}
        assert_eq!(pair.pass(0), Got::Clear);
    }
}

#[test]
fn forgery_flood_costs_no_more_than_genuine_packets() {
    let mut pair = Pair::stateless();
    assert_eq!(pair.pass(0), Got::Clear);
    let (mut refused, mut clear) = (0, 0);
    let began = Instant::now();
    for round in 0..20_000_u32 {
        // Each tries to cost as much as possible: far ahead, and never twice from the same place.
        let count = (round + 2 + if round % 2 == 0 { 2000 } else { 1000 }) % 4096;
        match pair.open(&forged(count as u16), 0) {
            Got::Garbage => {}
            Got::Refused(Refusal::TooFarAhead) => refused += 1,
            Got::Refused(Refusal::Late) => {}
            Got::Clear => panic!("a forgery cannot be decrypted"),
            Got::Refused(other) => panic!("{other:?}"),
        }
        clear += u32::from(pair.pass(0) == Got::Clear);
    }
    println!(
        "20,000 forgeries: {:?}, {refused} refused, {clear} genuine packets passed",
        began.elapsed()
    );
    assert!(refused > 10_000, "{refused} refused");
    assert_eq!(clear, 20_000, "no genuine packet was harmed");
}

#[test]
fn wrong_guess_at_a_long_gap_is_taken_back() {
    let mut pair = Pair::stateless();
    assert_eq!(pair.pass(0), Got::Clear);
    // The gap says 8192 more, but the peer did not send them: its numbers jumped for another reason.
    assert_eq!(pair.pass(8192), Got::Refused(Refusal::TooFarAhead));
    assert_eq!(pair.pass(0), Got::Refused(Refusal::TooFarAhead));
    // The guess fails, the next nearest one is as good, the third is right.
    let mut tries = 0;
    while pair.pass(0) != Got::Clear {
        tries += 1;
        assert!(tries < 10);
    }
    assert_eq!(pair.pass(0), Got::Clear);
}

#[test]
fn batches_are_judged_after_they_were_opened() {
    for lost in [0, 5, 3000, 4090] {
        for bad in [None, Some(0), Some(1), Some(2), Some(3)] {
            let mut pair = Pair::stateless();
            assert_eq!(pair.pass(0), Got::Clear);
            pair.lose(lost);
            let mut batch: Vec<Packet> = (0..4).map(|_| pair.seal()).collect();
            if let Some(bad) = bad {
                batch[bad].octets.fill(0xa5);
            }
            let mut missing = lost;
            let mut ciphers = Vec::new();
            for packet in &batch {
                let Cipher::Fresh(key) = pair.receiver.open(packet.header, missing).unwrap() else {
                    panic!("stateless keys are fresh")
                };
                ciphers.push(key);
                missing = 0;
            }
            for (place, (packet, key)) in batch.iter_mut().zip(ciphers).enumerate() {
                Cipher::Fresh(key).apply(&mut packet.octets);
                assert_eq!(packet.octets == packet.clear, bad != Some(place));
                pair.receiver.judge(plausible(&packet.octets));
            }
            assert_eq!(pair.pass(0), Got::Clear, "{lost} lost, number {bad:?} bad");
            pair.lose(4095);
            assert_eq!(
                pair.pass(4095),
                Got::Clear,
                "{lost} lost, number {bad:?} bad"
            );
        }
    }
}

/// Two forged packets in a row may claim one place in the chain.
#[test]
fn a_packet_that_needs_no_key_change_does_not_wait_for_one() {
    let mut pair = Pair::stateless();
    assert_eq!(pair.pass(0), Got::Clear);
    let forged = forged(1);
    assert_eq!(pair.open(&forged, 0), Got::Garbage);
    assert_eq!(pair.receiver.open_later(forged.header, 0), None);
    assert_eq!(pair.open(&forged, 0), Got::Garbage);
}

#[test]
fn key_changes_may_be_made_by_others_afterwards() {
    for strength in STRENGTHS {
        for lost in [0, 1, 7, 8, 4000] {
            let mut pair = Pair::new(Mode::Stateless, strength);
            assert_eq!(pair.pass(0), Got::Clear);
            pair.lose(lost);
            let mut batch: Vec<Packet> = (0..4).map(|_| pair.seal()).collect();
            let mut missing = lost;
            // Neither one of these moves anything.
            for header in [[0x10, 0], [0xd0, 9], [0x90 | 0xf, 0xff]] {
                assert_eq!(pair.receiver.open_later(header, missing), None);
            }
            if lost > 7 {
                let first = batch.remove(0);
                assert_eq!(pair.receiver.open_later(first.header, missing), None);
                assert_eq!(pair.open(&first, missing), Got::Clear);
                missing = 0;
            }
            let made = pair.receiver.changes_made();
            let changes: Vec<u32> = batch
                .iter()
                .map(|packet| {
                    let missing = core::mem::take(&mut missing);
                    pair.receiver.open_later(packet.header, missing).unwrap()
                })
                .collect();
            let first = if lost > 7 { 1 } else { lost + 1 };
            assert_eq!((changes[0], &changes[1..3]), (first, &[1, 1][..]));
            let made = pair.receiver.changes_made() - made;
            assert_eq!(made, u64::from(changes.iter().sum::<u32>()));
            let mut keys = Vec::new();
            for changes in changes {
                for _ in 0..changes {
                    let Chain { start, key } = pair.receiver.chain().unwrap();
                    let mut key = key.clone();
                    key.change(start);
                    pair.receiver.follow(&key);
                }
                keys.push(pair.receiver.chain().unwrap().key.clone());
            }
            for (mut packet, key) in batch.into_iter().zip(keys) {
                Cipher::Fresh(key).apply(&mut packet.octets);
                assert_eq!(packet.octets, packet.clear, "{lost} lost");
                pair.receiver.judge(true);
            }
            assert_eq!(pair.pass(0), Got::Clear, "{lost} lost");
            pair.lose(4095);
            assert_eq!(pair.pass(4095), Got::Clear, "{lost} lost");
        }
        let start = start(strength);
        let mut one = Encryptor::new(&start, Mode::Stateless);
        let mut other = Encryptor::new(&start, Mode::Stateless);
        let headers: Vec<_> = (0..5000).map(|_| other.seal_later().unwrap()).collect();
        for header in headers {
            let sealing = one.seal();
            assert_eq!(sealing.header, header);
            let Cipher::Fresh(expected) = sealing.cipher else {
                panic!("stateless keys are fresh")
            };
            let Chain { start, key } = other.chain().unwrap();
            let mut key = key.clone();
            key.change(start);
            assert_eq!(key.bytes(), expected.bytes());
            other.follow(&key);
        }
        let mut stateful = Pair::new(Mode::Stateful, strength);
        assert!(stateful.sender.seal_later().is_none() && stateful.sender.chain().is_none());
        let packet = stateful.seal();
        assert_eq!(stateful.receiver.open_later(packet.header, 0), None);
        assert!(stateful.receiver.chain().is_none());
        assert_eq!(stateful.open(&packet, 0), Got::Clear);
    }
}

#[test]
fn header_bits() {
    for mode in [Mode::Stateless, Mode::Stateful] {
        let mut pair = Pair::new(mode, Strength::Bits128);
        assert_eq!(
            pair.receiver.open([0x80, 0], 0).err(),
            Some(Refusal::NotEncrypted)
        );
        assert_eq!(
            pair.receiver.open([0xb0, 0], 0).err(),
            Some(Refusal::Compressed)
        );
        assert_eq!(
            pair.receiver.open([0xd0, 0], 0).err(),
            Some(Refusal::Compressed)
        );
        pair.receiver.judge(true);
        assert_eq!(pair.pass(0), Got::Clear);
    }
    assert_eq!(
        Pair::stateless().receiver.open([0x10, 0], 0).err(),
        Some(Refusal::NotFlushed)
    );
}

#[test]
fn stateful_recovers_by_reset() {
    for strength in STRENGTHS {
        for lost in [1, 100, 256, 600, 4096, 5000] {
            let mut pair = Pair::new(Mode::Stateful, strength);
            for _ in 0..300 {
                assert_eq!(pair.pass(0), Got::Clear);
            }
            pair.lose(lost);
            let mut missing = lost;
            while pair.sent % 256 == 255 {
                pair.lose(1);
                missing += 1;
            }
            assert_eq!(
                pair.pass(missing),
                Got::Refused(Refusal::NeedReset),
                "{lost}"
            );
            pair.sender.reset(1);
            for _ in 0..300 {
                assert_eq!(pair.pass(0), Got::Clear, "{lost}");
            }
        }
    }
}

#[test]
fn stateful_garbage_asks_for_a_reset() {
    let mut pair = Pair::new(Mode::Stateful, Strength::Bits128);
    assert_eq!(pair.pass(0), Got::Clear);
    let garbage = Packet {
        header: [0x10, 1],
        ..forged(0)
    };
    assert_eq!(pair.open(&garbage, 0), Got::Garbage);
    assert_eq!(pair.pass(0), Got::Refused(Refusal::NeedReset));
    pair.sender.reset(1);
    assert_eq!(pair.pass(0), Got::Clear);
    // A forged flush, three key changes ahead, is taken back as well.
    assert_eq!(pair.open(&forged(800), 0), Got::Garbage);
    assert_eq!(pair.pass(0), Got::Refused(Refusal::NeedReset));
    pair.sender.reset(1);
    assert_eq!(pair.pass(0), Got::Clear);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost or forged, what comes out in clear is right and the keys never go astray for good.
    #[test]
    fn keeps_up_with_anything(
        strength in prop::sample::select(&STRENGTHS[..]),
        steps in prop::collection::vec((0_u32..4, 0_u32..6000, 0_u16..4096), 1..40),
    ) {
        let mut pair = Pair::new(Mode::Stateless, strength);
        let mut missing = 0;
        for (kind, lost, count) in steps {
            match kind {
                0 => {
                    pair.lose(lost);
                    missing += lost;
                }
                1 => {
                    // Takes the GRE number of a genuine packet, which is then a duplicate.
                    let _ = pair.open(&forged(count), missing);
                    pair.lose(1);
                    missing = 0;
                }
                _ => {
                    let got = pair.pass(missing);
                    prop_assert!(matches!(
                        got,
                        Got::Clear | Got::Garbage | Got::Refused(Refusal::TooFarAhead | Refusal::Late)
                    ));
                    missing = 0;
                }
            }
        }
        let mut tries = 0;
        while pair.pass(missing) != Got::Clear {
            missing = 0;
            tries += 1;
            prop_assert!(tries < 100_000);
        }
        prop_assert_eq!(pair.pass(0), Got::Clear);
    }
}
