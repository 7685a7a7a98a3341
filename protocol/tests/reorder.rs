//! The reorder queue: what is delivered, in which order and when, against a model that keeps lists.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use turnpike_protocol::Time;
use turnpike_protocol::gre::{AckSettings, Arrival, Held, MAX_JUMP, Queue, Receiver, Seq};

/// The longest that a packet waits.
const TIME: Duration = Duration::from_millis(50);

/// Number and how many before it were given up.
type Delivery = (u32, u32);

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Delivered or held.
    Taken,
    Duplicate,
    Late,
}

/// One call, as a worker would do it.
struct Call {
    receiver: Receiver,
    queue: Queue,
    delivered: Vec<Delivery>,
}

impl Call {
    fn new(packets: u8) -> Self {
        Self {
            receiver: Receiver::new(AckSettings::default()).with_queue(packets),
            queue: Queue::EMPTY,
            delivered: Vec::new(),
        }
    }

    fn release(&mut self, held: &mut Held<u32>, in_hand: Option<u32>) {
        while let Some(released) = self.receiver.release() {
            match held.take(&mut self.queue, released.seq) {
                Some(seq) => assert_eq!(seq, released.seq.0),
                None => assert_eq!(in_hand, Some(released.seq.0)),
            }
            self.delivered.push((released.seq.0, released.missing));
        }
        assert_eq!(self.receiver.is_holding(), !self.queue.is_empty());
    }

    fn arrive(&mut self, held: &mut Held<u32>, seq: u32, now: Time) -> Fate {
        let mut arrival = self.receiver.accept(Seq(seq));
        if arrival == Arrival::Beyond {
            self.release(held, None);
            arrival = self.receiver.accept(Seq(seq));
        }
        match arrival {
            Arrival::First | Arrival::InOrder => self.delivered.push((seq, 0)),
            Arrival::Ahead { missing } => self.delivered.push((seq, missing)),
            Arrival::Awaited { missing } => {
                self.delivered.push((seq, missing));
                self.release(held, None);
            }
            Arrival::Held => match held.hold(&mut self.queue, Seq(seq), now, seq) {
                Ok(()) => self.release(held, None),
                Err(seq) => {
                    self.receiver.give_up(Seq(seq));
                    self.release(held, Some(seq));
                }
            },
            Arrival::Duplicate => return Fate::Duplicate,
            Arrival::Late => return Fate::Late,
            Arrival::Beyond => panic!("twice beyond"),
        }
        Fate::Taken
    }

    fn expire(&mut self, held: &mut Held<u32>, now: Time) {
        let Some(limit) = now.as_nanos().checked_sub(TIME.as_nanos() as u64) else {
            return;
        };
        if let Some(through) = held.waiting_since(self.queue, Time::from_nanos(limit)) {
            self.receiver.give_up(through);
            self.release(held, None);
        }
    }
}

/// The same with lists and without a wrap: numbers are those of the call, counted from `base`.
struct Model {
    base: u32,
    packets: i64,
    /// The last one delivered or given up.
    passed: Option<i64>,
    last: i64,
    held: BTreeMap<i64, Time>,
    came: BTreeSet<i64>,
    last_delivered: i64,
    delivered: Vec<Delivery>,
}

impl Model {
    fn new(base: u32, packets: u8) -> Self {
        Self {
            base,
            packets: packets.into(),
            passed: None,
            last: 0,
            held: BTreeMap::new(),
            came: BTreeSet::new(),
            last_delivered: 0,
            delivered: Vec::new(),
        }
    }

    fn deliver(&mut self, n: i64) {
        let missing = n - self.last_delivered - 1;
        self.delivered
            .push((self.base.wrapping_add(n as u32), missing as u32));
        self.last_delivered = n;
        self.passed = Some(n);
    }

    /// Delivers what is held up to `through`, and what follows without a gap.
    fn pass(&mut self, through: i64) {
        loop {
            let passed = self.passed.unwrap();
            match self.held.first_key_value() {
                Some((&n, _)) if n <= through || n == passed + 1 => {
                    self.held.remove(&n);
                    self.deliver(n);
                }
                // Nothing is waited for without something that waits.
                Some(_) if through > passed => self.passed = Some(through),
                _ => return,
            }
        }
    }

    fn arrive(&mut self, n: i64, room: bool, now: Time) -> Fate {
        let Some(passed) = self.passed else {
            self.came.insert(n);
            self.last_delivered = n - 1;
            self.last = n;
            self.deliver(n);
            return Fate::Taken;
        };
        if n <= passed || self.came.contains(&n) {
            // Only so many are remembered.
            let known = self.last - n <= 64;
            return if !self.came.insert(n) && known {
                Fate::Duplicate
            } else {
                Fate::Late
            };
        }
        self.came.insert(n);
        if n - passed > self.packets + 1 {
            self.pass(n - self.packets - 1);
        }
        self.last = self.last.max(n);
        let passed = self.passed.unwrap();
        if n == passed + 1 || (n - passed > self.packets + 1) {
            self.deliver(n);
            self.pass(n);
        } else {
            self.held.insert(n, now);
            self.pass(if room { passed } else { n });
        }
        Fate::Taken
    }

    fn expire(&mut self, now: Time) {
        let through = self
            .held
            .iter()
            .filter(|(_, since)| **since + TIME <= now)
            .map(|(n, _)| *n)
            .max();
        if let Some(through) = through {
            self.pass(through);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet so far from the last one sent in order.
    Packet(i64),
    /// Milliseconds.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Packet(1)),
        6 => (-10_i64..10).prop_map(Step::Packet),
        3 => (-80_i64..80).prop_map(Step::Packet),
        1 => (-2_000_i64..2_000).prop_map(Step::Packet),
        3 => (0_u64..30).prop_map(Step::Wait),
        1 => Just(Step::Wait(60)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Everything that the lists say: what is delivered in which order and when, what was given up, what is a
    /// duplicate and what late, for every length of the queue, across the wrap, and with a store that is full at times.
    #[test]
    fn does_what_lists_do(
        base in prop_oneof![Just(0), Just(u32::MAX - 100), any::<u32>()],
        packets in prop_oneof![0_u8..10, 0_u8..=64],
        room in prop_oneof![Just(64_usize), 1_usize..8],
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut held = Held::new(room);
        let mut call = Call::new(packets);
        let mut model = Model::new(base, packets);
        let mut now = Time::from_nanos(1_000_000_000);
        let mut number = 0;
        for step in steps {
            match step {
                Step::Packet(by) => {
                    let n = number + by;
                    // The far ones are another rule's.
                    if model.passed.is_some() && (n - model.last).unsigned_abs() > u64::from(MAX_JUMP) {
                        continue;
                    }
                    number = number.max(n);
                    let seq = base.wrapping_add(n as u32);
                    let fits = {
                        // What is delivered to make room leaves the store before.
                        let mut copy = Model { held: model.held.clone(), came: model.came.clone(), delivered: Vec::new(), ..model };
                        copy.arrive(n, true, now);
                        copy.held.len() <= room || !copy.held.contains_key(&n)
                    };
                    let fate = model.arrive(n, fits, now);
                    prop_assert_eq!(call.arrive(&mut held, seq, now), fate, "{}", n);
                    prop_assert_eq!(call.receiver.last(), Some(Seq(base.wrapping_add(model.last as u32))));
                }
                Step::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    call.expire(&mut held, now);
                    model.expire(now);
                }
            }
            prop_assert_eq!(&call.delivered, &model.delivered);
            prop_assert_eq!(held.len(), model.held.len());
            prop_assert!(held.len() <= usize::from(packets));
            prop_assert_eq!(held.since(call.queue), model.held.values().min().copied());
        }
    }

    /// No packet that comes late by at most as many places as the queue is long is lost, whatever the order.
    #[test]
    fn loses_nothing_that_is_late_by_as_many_places_as_there_are(
        packets in 1_u8..=64,
        late in proptest::collection::vec((0_usize..1_000, 1_usize..=64), 0..100),
    ) {
        // Who is late is overtaken by so many that are not.
        let mut places: BTreeMap<usize, usize> = late
            .into_iter()
            .map(|(n, by)| (n, by.min(packets.into())))
            .collect();
        places.remove(&0);
        let mut order: Vec<(usize, bool, usize)> = (0..1_100)
            .map(|n| (n + places.get(&n).copied().unwrap_or(0), places.contains_key(&n), n))
            .collect();
        order.sort();
        let mut held = Held::new(64);
        let mut call = Call::new(packets);
        for (_, _, n) in order {
            prop_assert_eq!(call.arrive(&mut held, n as u32, Time::ZERO), Fate::Taken);
        }
        let all: Vec<Delivery> = (0..1_100).map(|n| (n, 0)).collect();
        prop_assert_eq!(call.delivered, all);
    }
}

/// The example of RFC 2637 §4.3, with a queue.
#[test]
fn packet_4_before_packet_3() {
    let mut held = Held::new(4);
    let mut call = Call::new(4);
    for n in [0, 1, 2, 4] {
        call.arrive(&mut held, n, Time::ZERO);
        call.receiver.note_received(Time::ZERO);
    }
    assert_eq!(call.delivered, [(0, 0), (1, 0), (2, 0)]);
    // "The PAC acknowledges packet 4": the highest received, though it waits.
    assert_eq!(call.receiver.ack_to_send(), Some(Seq(4)));
    assert_eq!(call.arrive(&mut held, 4, Time::ZERO), Fate::Duplicate);
    call.arrive(&mut held, 3, Time::ZERO);
    assert_eq!(call.arrive(&mut held, 4, Time::ZERO), Fate::Duplicate);
    call.arrive(&mut held, 5, Time::ZERO);
    assert_eq!(call.delivered[3..], [(3, 0), (4, 0), (5, 0)]);
    assert!(held.is_empty());
}

#[test]
fn nobody_waits_longer_than_the_time() {
    let mut held = Held::new(64);
    let mut call = Call::new(32);
    let at = |ms| Time::ZERO + Duration::from_millis(ms);
    for (n, ms) in [(0, 0), (7, 0), (5, 20), (9, 40)] {
        call.arrive(&mut held, n, at(ms));
    }
    call.expire(&mut held, at(49));
    assert_eq!(call.delivered.len(), 1);
    // 7 has waited long enough, and 5 goes before it, although it came later.
    call.expire(&mut held, at(50));
    assert_eq!(call.delivered[1..], [(5, 4), (7, 1)]);
    assert_eq!(call.arrive(&mut held, 6, at(51)), Fate::Late);
    assert_eq!(held.since(call.queue), Some(at(40)));
    call.arrive(&mut held, 8, at(60));
    assert_eq!(call.delivered[3..], [(8, 0), (9, 0)]);
}

#[test]
fn an_outage_is_not_waited_for() {
    let mut held = Held::new(64);
    let mut call = Call::new(8);
    for n in [0, 2, 300, 301, 303, 302] {
        call.arrive(&mut held, n, Time::ZERO);
    }
    // What was held goes first; nothing was to be expected between 2 and 300 any more.
    let expected = [(0, 0), (2, 1), (300, 297), (301, 0), (302, 0), (303, 0)];
    assert_eq!(call.delivered, expected);
}

/// A forged packet that seems to prove a far one lets what is held go, in order.
#[test]
fn what_is_held_goes_before_a_far_number() {
    const FAR: u32 = 1 << 20;
    for far in [FAR, 0_u32.wrapping_sub(FAR)] {
        let mut held = Held::new(64);
        let mut call = Call::new(8);
        for n in [0, 2, 4] {
            call.arrive(&mut held, n, Time::ZERO);
        }
        assert_eq!(call.arrive(&mut held, far, Time::ZERO), Fate::Late);
        assert_eq!(held.len(), 2, "one is not believed");
        assert_eq!(
            call.arrive(&mut held, far.wrapping_add(1), Time::ZERO),
            Fate::Taken
        );
        let numbers: Vec<u32> = call.delivered.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [0, 2, 4, far.wrapping_add(1)]);
        assert!(held.is_empty());
        call.arrive(&mut held, far.wrapping_add(2), Time::ZERO);
        assert_eq!(call.delivered.last(), Some(&(far.wrapping_add(2), 0)));
    }
}

#[test]
fn queues_of_many_calls_share_one_store() {
    let mut held = Held::new(6);
    let mut calls: Vec<Call> = (0..3).map(|_| Call::new(8)).collect();
    for call in &mut calls {
        for n in [0, 2, 3] {
            call.arrive(&mut held, n, Time::ZERO);
        }
    }
    assert_eq!(held.len(), 6);
    // The store is full: this call goes on as if it had no queue, and makes room.
    calls[0].arrive(&mut held, 4, Time::ZERO);
    assert_eq!(calls[0].delivered, [(0, 0), (2, 1), (3, 0), (4, 0)]);
    assert_eq!(held.len(), 4);
    for call in &mut calls[1..] {
        call.arrive(&mut held, 1, Time::ZERO);
        assert_eq!(call.delivered, [(0, 0), (1, 0), (2, 0), (3, 0)]);
    }
    assert!(held.is_empty());
}
