//! Stateful MPPE over a path that loses packets, between our halves and in both dialects, the Linux one as the kernel's
//! `ppp_mppe` and pppd's `ccp` were seen to speak it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they measured"
)]

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use turnpike_protocol::Time;
use turnpike_protocol::mppe::{
    Decryptor, Dialect, Encryptor, Mode, Refusal, StartKey, Strength, plausible,
};

mod linux;

use linux::{LinuxReceiver, LinuxSender};

fn start() -> StartKey {
    StartKey::new([0x5a; 16], Strength::Bits128)
}

/// An IPv4 packet, its checksum right, that differs from all before.
fn clear(number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_be_bytes();
    let mut packet = vec![0x00, 0x21, 0x45, 0, 0, 40, a, b, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&[10, 0, c, d, 10, 0, 0, 2]);
    let sum = turnpike_protocol::wire::ipv4::checksum(&packet[2..]);
    packet[12..14].copy_from_slice(&sum.to_be_bytes());
    packet.resize(42, 0x70);
    packet
}

/// Packets a second.
const SECOND: u32 = 100;

/// Steps that a packet is under way.
const DELAY: u32 = 3;

/// The other way of a call, where only resets travel. Losses hit them, too.
#[derive(Default)]
struct Back(VecDeque<(u32, u8)>);

impl Back {
    fn send(&mut self, now: u32, identifier: u8, lost: bool) {
        if !lost {
            self.0.push_back((now + DELAY, identifier));
        }
    }

    fn arrived(&mut self, now: u32) -> Option<u8> {
        self.0.pop_front_if(|(at, _)| *at <= now).map(|(_, id)| id)
    }
}

struct Chance {
    random: ChaCha8Rng,
    loss: u32,
}

impl Chance {
    fn lost(&mut self) -> bool {
        self.random.next_u32() % 1000 < self.loss
    }
}

enum OnWire {
    Data([u8; 2], Vec<u8>, u32),
    Ack(u8),
}

/// Our receiver's Reset-Requests, as a worker sends them: at once, then once a second.
#[derive(Default)]
struct Requests {
    identifier: u8,
    last: Option<u32>,
}

impl Requests {
    fn wanted(&mut self, now: u32) -> Option<u8> {
        match self.last {
            Some(last) if now - last < SECOND => None,
            Some(_) => {
                self.last = Some(now);
                Some(self.identifier)
            }
            None => {
                self.last = Some(now);
                self.identifier = self.identifier.wrapping_add(1);
                Some(self.identifier)
            }
        }
    }
}

enum Sender {
    Ours(Box<Encryptor>),
    Linux(Box<LinuxSender>),
}

impl Sender {
    fn ours(dialect: Option<Dialect>) -> Self {
        let mut encryptor = Encryptor::new(&start(), Mode::Stateful);
        if let Some(dialect) = dialect {
            encryptor.set_dialect(dialect);
        }
        Self::Ours(Box::new(encryptor))
    }

    fn seal(&mut self, octets: &mut [u8]) -> [u8; 2] {
        match self {
            Self::Ours(encryptor) => {
                let sealing = encryptor.seal();
                let header = sealing.header;
                sealing.cipher.apply(octets);
                header
            }
            Self::Linux(sender) => sender.seal(octets),
        }
    }

    fn reset(&mut self, identifier: u8) {
        match self {
            Self::Ours(encryptor) => encryptor.reset(identifier),
            Self::Linux(sender) => sender.flush = true,
        }
    }
}

/// Sends to our receiver over a path with losses; gives the share that was read, and the receiver.
fn to_us(mut sender: Sender, loss: u32, packets: u32, seed: u64) -> (f64, Decryptor) {
    let mut chance = Chance {
        random: ChaCha8Rng::seed_from_u64(seed),
        loss,
    };
    let mut receiver = Decryptor::new(&start(), Mode::Stateful);
    let mut requests = Requests::default();
    let mut back = Back::default();
    let mut wire = VecDeque::new();
    let (mut missing, mut read, mut since) = (0, 0, 0);
    for now in 0..packets {
        receiver.pass(Time::from_nanos(u64::from(now) * 10_000_000));
        while let Some(identifier) = back.arrived(now) {
            sender.reset(identifier);
        }
        let mut octets = clear(now);
        let header = sender.seal(&mut octets);
        wire.push_back((now + DELAY, chance.lost(), header, octets, now));
        let Some((_, lost, header, mut octets, number)) = wire.pop_front_if(|(at, ..)| *at <= now)
        else {
            continue;
        };
        if lost {
            missing += 1;
            continue;
        }
        let opened = match receiver.open(header, std::mem::take(&mut missing)) {
            Ok(cipher) => {
                cipher.apply(&mut octets);
                let good = plausible(&octets);
                receiver.judge(good);
                assert!(!good || octets == clear(number), "garbage that looks well");
                good
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::NeedReset);
                false
            }
        };
        if opened {
            read += 1;
            since = 0;
            requests.last = None;
        } else {
            since += 1;
            assert!(since < 30 * SECOND, "deaf for good, at {now}");
            if let Some(identifier) = requests.wanted(now) {
                receiver.requested();
                let lost = chance.lost();
                back.send(now, identifier, lost);
            }
        }
    }
    (f64::from(read) / f64::from(packets), receiver)
}

#[test]
fn our_receiver_keeps_up_with_either_dialect() {
    for seed in 0..20 {
        for (sender, dialect) in [
            (Sender::Linux(Box::new(LinuxSender::new())), Dialect::Linux),
            (Sender::ours(Some(Dialect::Linux)), Dialect::Linux),
            (Sender::ours(Some(Dialect::Rfc3078)), Dialect::Rfc3078),
            (Sender::ours(None), Dialect::Rfc3078),
        ] {
            let (share, receiver) = to_us(sender, 50, 20_000, seed);
            assert!(share > 0.5, "{dialect:?}, seed {seed}: {share}");
            assert_eq!(receiver.dialect(), Some(dialect), "seed {seed}");
        }
    }
}

#[test]
fn nothing_is_lost_where_nothing_is_lost() {
    for sender in [
        Sender::Linux(Box::new(LinuxSender::new())),
        Sender::ours(None),
    ] {
        let (share, receiver) = to_us(sender, 0, 10_000, 1);
        assert!(share > 0.999, "{share}");
        assert_eq!(receiver.dialect(), None, "nobody reset anything");
    }
}

/// Ours to Linux, with losses both ways. Gives how many packets were read, and how often garbage was.
fn to_linux(encryptor: Encryptor, loss: u32, packets: u32, seed: u64) -> (u32, u32, u32) {
    let mut chance = Chance {
        random: ChaCha8Rng::seed_from_u64(seed),
        loss,
    };
    let mut sender = encryptor;
    let mut receiver = LinuxReceiver::new();
    let mut back = Back::default();
    let mut rejects = Back::default();
    let mut wire: VecDeque<(u32, bool, OnWire)> = VecDeque::new();
    let (mut read, mut garbage, mut longest, mut since) = (0, 0, 0, 0_u32);
    let mut doubted = None;
    for now in 0..packets {
        while let Some(identifier) = back.arrived(now) {
            sender.reset(identifier);
            // The Reset-Ack goes before the flushed packet.
            wire.push_back((now + DELAY, chance.lost(), OnWire::Ack(identifier)));
        }
        while rejects.arrived(now).is_some() {
            if doubted.is_none_or(|at| now - at >= SECOND) {
                doubted = Some(now);
                sender.doubt();
            }
        }
        let mut octets = clear(now);
        let sealing = sender.seal();
        let header = sealing.header;
        sealing.cipher.apply(&mut octets);
        wire.push_back((
            now + DELAY,
            chance.lost(),
            OnWire::Data(header, octets, now),
        ));
        if let Some(identifier) = receiver.timeout(now) {
            let lost = chance.lost();
            back.send(now, identifier, lost);
        }
        while let Some((_, lost, what)) = wire.pop_front_if(|(at, ..)| *at <= now) {
            if lost {
                continue;
            }
            match what {
                OnWire::Ack(identifier) => receiver.acknowledged(identifier),
                OnWire::Data(header, octets, number) => match receiver.open(header, &octets) {
                    Ok(Some(octets)) if octets == clear(number) => {
                        read += 1;
                        longest = longest.max(std::mem::take(&mut since));
                    }
                    Ok(Some(_)) => {
                        garbage += 1;
                        since += 1;
                        let lost = chance.lost();
                        rejects.send(now, 0, lost);
                    }
                    // What cannot be decompressed goes to pppd as it is.
                    Ok(None) | Err(()) => {
                        since += 1;
                        if let Some(identifier) = receiver.failed(now) {
                            let lost = chance.lost();
                            back.send(now, identifier, lost);
                        }
                    }
                },
            }
        }
    }
    (read, garbage, longest.max(since))
}

/// Every loss of a Reset-Ack costs Linux a second, so much is not read; but it always hears again.
#[test]
fn linux_keeps_up_with_our_sender() {
    for seed in 0..40 {
        let mut sender = Encryptor::new(&start(), Mode::Stateful);
        sender.set_dialect(Dialect::Linux);
        let (read, garbage, longest) = to_linux(sender, 50, 20_000, seed);
        println!(
            "seed {seed}: {read} read, {garbage} garbage, {longest} steps at most without any"
        );
        assert!(read > 6_000, "seed {seed}: {read} of 20000");
        assert!(longest < 30 * SECOND, "seed {seed}: {longest}");
    }
}

/// A single loss heals without any garbage, wherever it falls, flag packets among them.
#[test]
fn one_loss_towards_linux_heals_without_garbage() {
    for at in 200..600 {
        let mut sender = Encryptor::new(&start(), Mode::Stateful);
        sender.set_dialect(Dialect::Linux);
        let mut receiver = LinuxReceiver::new();
        let mut lost = 0;
        for now in 0..700 {
            let mut octets = clear(now);
            let sealing = sender.seal();
            let header = sealing.header;
            sealing.cipher.apply(&mut octets);
            if now == at {
                continue;
            }
            match receiver.open(header, &octets) {
                Ok(Some(octets)) => assert_eq!(octets, clear(now), "lost {at}"),
                Ok(None) => lost += 1,
                Err(()) => {
                    lost += 1;
                    if let Some(identifier) = receiver.failed(now) {
                        // Said twice, as one whose first answer was lost: the key is the same again.
                        sender.reset(identifier);
                        if at % 2 == 0 {
                            sender.seal().cipher.apply(&mut clear(0));
                            sender.reset(identifier);
                        }
                        receiver.acknowledged(identifier);
                    }
                }
            }
        }
        assert_eq!(lost, 1, "lost {at}");
    }
}

/// The dialect comes to light late: resets were answered as the RFC has it, and Linux reads garbage since.
#[test]
fn a_dialect_that_comes_to_light_mends_what_was_guessed() {
    for (before, doubt) in [(1, false), (1, true), (2, false)] {
        let mut sender = Encryptor::new(&start(), Mode::Stateful);
        let mut receiver = LinuxReceiver::new();
        let mut number = 0;
        let mut pass = |sender: &mut Encryptor, receiver: &mut LinuxReceiver| {
            number += 1;
            let mut octets = clear(number);
            let sealing = sender.seal();
            let header = sealing.header;
            sealing.cipher.apply(&mut octets);
            match receiver.open(header, &octets) {
                Ok(Some(octets)) => octets == clear(number),
                Ok(None) | Err(()) => false,
            }
        };
        assert!(pass(&mut sender, &mut receiver));
        for identifier in 1..=before {
            sender.seal().cipher.apply(&mut [0; 30]);
            assert!(!pass(&mut sender, &mut receiver));
            receiver.discard = true;
            sender.reset(identifier);
            assert!(!pass(&mut sender, &mut receiver), "Linux reads garbage");
        }
        if doubt {
            sender.doubt();
        } else {
            sender.set_dialect(Dialect::Linux);
        }
        assert_eq!(sender.dialect(), Some(Dialect::Linux));
        for _ in 0..600 {
            assert!(pass(&mut sender, &mut receiver), "{before}");
        }
    }
}

#[test]
fn a_first_packet_with_the_flushed_bit_is_taken() {
    let mut receiver = Decryptor::new(&start(), Mode::Stateful);
    let mut sender = Encryptor::new(&start(), Mode::Stateful);
    sender.reset(1);
    let mut octets = clear(0);
    let sealing = sender.seal();
    let header = sealing.header;
    assert_eq!(header, [0x90, 0]);
    sealing.cipher.apply(&mut octets);
    receiver.open(header, 0).unwrap().apply(&mut octets);
    assert_eq!(octets, clear(0));
    receiver.judge(true);
    assert!(!receiver.is_waiting());
}

/// Long outages: the flag packets that were lost are counted from the gap in the GRE numbers.
#[test]
fn stateful_outages_of_any_length() {
    for linux in [false, true] {
        for lost in [10, 300, 4000, 10_000, 100_000, 2_000_000] {
            let mut sender = if linux {
                Sender::Linux(Box::new(LinuxSender::new()))
            } else {
                Sender::ours(None)
            };
            let mut receiver = Decryptor::new(&start(), Mode::Stateful);
            for _ in 0..=lost {
                sender.seal(&mut clear(0));
            }
            let mut missing = lost + 1;
            let mut tries = 0;
            let mut now = Time::ZERO;
            loop {
                now = Time::from_nanos(now.as_nanos() + 1_000_000_000);
                receiver.pass(now);
                let mut octets = clear(7);
                let header = sender.seal(&mut octets);
                let opened = match receiver.open(header, std::mem::take(&mut missing)) {
                    Ok(cipher) => {
                        cipher.apply(&mut octets);
                        receiver.judge(plausible(&octets));
                        octets == clear(7)
                    }
                    Err(_) => false,
                };
                if opened {
                    break;
                }
                receiver.requested();
                sender.reset(tries);
                tries += 1;
                assert!(tries < 10, "{lost} lost");
            }
            for _ in 0..600 {
                let mut octets = clear(8);
                let header = sender.seal(&mut octets);
                receiver.open(header, 0).unwrap().apply(&mut octets);
                assert_eq!(octets, clear(8));
                receiver.judge(true);
            }
        }
    }
}

/// Forged packets cost one reset each, and move no keys.
#[test]
fn forged_flushes_move_nothing() {
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut receiver = Decryptor::new(&start(), Mode::Stateful);
    let mut sender = Encryptor::new(&start(), Mode::Stateful);
    for number in 0..2000_u32 {
        let mut forged = [0; 40];
        random.fill_bytes(&mut forged);
        let [high, low] = (random.next_u32() as u16 & 0x0fff).to_be_bytes();
        let bits = if number % 2 == 0 { 0x90 } else { 0x10 };
        let gap = random.next_u32() % 16_000;
        if let Ok(cipher) = receiver.open([high | bits, low], gap) {
            cipher.apply(&mut forged);
            receiver.judge(plausible(&forged));
        }
        receiver.requested();
        sender.reset(number as u8);
        let mut octets = clear(number);
        let sealing = sender.seal();
        let header = sealing.header;
        sealing.cipher.apply(&mut octets);
        if let Ok(cipher) = receiver.open(header, 0) {
            cipher.apply(&mut octets);
            receiver.judge(plausible(&octets));
        }
        if number % 100 == 99 {
            // Left alone, it hears again at once, or with the second reset where a forgery looked well.
            let mut heard = false;
            for _ in 0..4 {
                receiver.requested();
                sender.reset(number as u8);
                let mut octets = clear(number);
                let sealing = sender.seal();
                let header = sealing.header;
                sealing.cipher.apply(&mut octets);
                if let Ok(cipher) = receiver.open(header, 0) {
                    cipher.apply(&mut octets);
                    receiver.judge(plausible(&octets));
                    heard = octets == clear(number);
                }
            }
            assert!(heard, "after {number} forgeries");
        }
    }
    println!("{} key changes", receiver.changes_made());
}
