//! Delivery with outages and crashes that are made up, from one seed.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;

use super::super::ledger::Ledger;
use super::super::ledger::tests::facts;
use super::super::record::{Entry, Moment, SessionId, Traffic};
use super::*;
use crate::cause::Cause;

fn record(number: i64, kind: Kind, session: Option<u64>) -> Record {
    Record {
        number,
        kind,
        at: Moment(0),
        session: session.map(|id| (SessionId(id), *facts("alice"))),
        session_time: 0,
        traffic: Traffic::default(),
        termination: None,
    }
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

/// Numbers of all that may be sent now.
fn all(courier: &mut Courier, now: Time) -> Vec<i64> {
    std::iter::from_fn(|| courier.next(now).map(|record| record.number)).collect()
}

#[test]
fn sessions_keep_their_order_and_starts_of_the_server_theirs() {
    let mut courier = Courier::default();
    assert_eq!(courier.wants(), Some((0, HELD)));
    courier.take(vec![
        record(1, Kind::Start, Some(1)),
        record(2, Kind::Start, Some(2)),
        record(3, Kind::Stop, Some(1)),
        record(4, Kind::Off, None),
        record(5, Kind::On, None),
        record(6, Kind::Start, Some(3)),
    ]);
    assert_eq!(all(&mut courier, at(0)), [1, 2]);
    courier.landed(2, true, at(0));
    assert!(all(&mut courier, at(0)).is_empty());
    courier.landed(1, true, at(0));
    assert_eq!(all(&mut courier, at(0)), [3]);
    for (landed, next) in [(3, 4), (4, 5), (5, 6)] {
        courier.landed(landed, true, at(0));
        assert_eq!(all(&mut courier, at(0)), [next]);
    }
    courier.landed(6, true, at(0));
    assert!(courier.is_empty());
    assert_eq!(courier.wants(), Some((6, HELD)));
}

#[test]
fn who_is_away_is_asked_less_and_less_and_then_gets_all_at_once() {
    let mut courier = Courier::default();
    let starts = (1..=200).map(|id| record(id, Kind::Start, Some(id as u64)));
    courier.take(starts.collect());
    let first = all(&mut courier, at(0));
    assert_eq!(first.len(), TOGETHER);
    for number in first {
        courier.landed(number, false, at(10));
    }
    // An hour in which nothing arrives.
    let mut tries = 0;
    for second in 10..3610 {
        for number in all(&mut courier, at(second)) {
            tries += 1;
            courier.landed(number, false, at(second));
        }
        assert!(
            courier
                .deadline(at(second))
                .is_some_and(|next| next > at(second))
        );
    }
    assert!((50..=80).contains(&tries), "{tries}");
    // It is back.
    let mut second = 3610;
    let mut rounds = 0;
    while !courier.is_empty() {
        let sent = all(&mut courier, at(second));
        if sent.is_empty() {
            second += 1;
            assert!(second < 3800);
            continue;
        }
        rounds += 1;
        for number in sent {
            courier.landed(number, true, at(second));
        }
    }
    assert!(rounds < 40, "{rounds}");
}

#[test]
fn a_record_that_nobody_takes_holds_up_its_own_session_alone() {
    let mut courier = Courier::default();
    courier.take(
        (1..=100)
            .flat_map(|id| {
                let session = Some(id as u64);
                [
                    record(2 * id, Kind::Start, session),
                    record(2 * id + 1, Kind::Stop, session),
                ]
            })
            .collect(),
    );
    let mut arrived = Vec::new();
    for second in 0..400 {
        for number in all(&mut courier, at(second)) {
            courier.landed(number, number != 10, at(second));
            if number != 10 {
                arrived.push(number);
            }
        }
    }
    assert_eq!(arrived.len(), 198);
    assert!(!arrived.contains(&11));
}

#[test]
fn a_server_that_does_not_answer_to_starts_of_ours_gets_the_rest_all_the_same() {
    for ignored in [Kind::On, Kind::Failed] {
        let mut courier = Courier::default();
        courier.take(vec![
            record(1, Kind::Failed, Some(1)),
            record(2, Kind::On, None),
            record(3, Kind::Start, Some(2)),
            record(4, Kind::Stop, Some(2)),
            record(5, Kind::Start, Some(3)),
            record(6, Kind::Off, None),
            record(7, Kind::Start, Some(4)),
        ]);
        let mut arrived = Vec::new();
        for second in 0..7200 {
            for number in all(&mut courier, at(second)) {
                let kind = courier.held[&number].record.kind;
                courier.landed(number, kind != ignored, at(second));
                if kind != ignored {
                    arrived.push(number);
                }
            }
        }
        arrived.sort_unstable();
        let first = if ignored == Kind::On { 1 } else { 2 };
        assert_eq!(arrived, [first, 3, 4, 5, 6, 7], "{ignored:?}");
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Begin,
    Read(u8),
    End(u8),
    /// What was entered goes to the disk.
    Commit,
    /// Time passes.
    Wait(u16),
    /// The place of delivery goes away, or comes back.
    Outage(bool),
    /// One in so many acknowledgements is lost from now on.
    Lossy(u8),
    /// What is in memory is gone, and the server starts again.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Begin),
        8 => any::<u8>().prop_map(Step::Read),
        5 => any::<u8>().prop_map(Step::End),
        6 => Just(Step::Commit),
        6 => (0_u16..200).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Outage),
        1 => (0_u8..5).prop_map(Step::Lossy),
        1 => Just(Step::Crash),
    ]
}

/// A server, its disk, and where its records go.
struct World<'a> {
    path: &'a Path,
    ledger: Ledger,
    courier: Courier,
    now: Time,
    /// Not on the disk yet.
    entered: Vec<Entry>,
    open: Vec<(SessionId, u64)>,
    numbered: u64,
    /// What was made and is on the disk, by session.
    made: HashMap<SessionId, Vec<(Kind, u64)>>,
    /// What arrived, repeated or not.
    arrived: Vec<Record>,
    away: bool,
    lossy: u8,
    sent: u32,
}

impl<'a> World<'a> {
    fn new(path: &'a Path) -> Self {
        let mut world = Self {
            path,
            ledger: Ledger::open(path, true, Moment(0)).unwrap(),
            courier: Courier::default(),
            now: Time::ZERO,
            entered: Vec::new(),
            open: Vec::new(),
            numbered: 0,
            made: HashMap::new(),
            arrived: Vec::new(),
            away: false,
            lossy: 0,
            sent: 0,
        };
        world.start();
        world
    }

    fn moment(&self) -> Moment {
        Moment((self.now.as_nanos() / 1_000_000) as i64)
    }

    fn start(&mut self) {
        self.ledger.end_open(Cause::ServerCrashed, None).unwrap();
        for (_, made) in self.made.iter_mut() {
            if let Some((kind, octets)) = made.last().copied()
                && kind != Kind::Stop
            {
                made.push((Kind::Stop, octets));
            }
        }
        self.entered.push(Entry::On { at: self.moment() });
        self.commit();
    }

    fn commit(&mut self) {
        self.ledger.enter(&self.entered, self.moment()).unwrap();
        for entry in self.entered.drain(..) {
            match entry {
                Entry::Begin { id, .. } => self.made.entry(id).or_default().push((Kind::Start, 0)),
                Entry::Reading { id, traffic, .. } => {
                    let made = self.made.get_mut(&id).unwrap();
                    made.push((Kind::Interim, traffic.received_octets));
                }
                Entry::End { id, traffic, .. } => {
                    let made = self.made.get_mut(&id).unwrap();
                    made.push((Kind::Stop, traffic.received_octets));
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, step: &Step) {
        let moment = self.moment();
        match step {
            Step::Begin => {
                self.numbered += 1;
                let id = SessionId((u64::from(self.ledger.boot()) << 32) | self.numbered);
                self.open.push((id, 0));
                self.entered.push(Entry::Begin {
                    id,
                    facts: facts("alice"),
                    at: moment,
                });
            }
            Step::Read(which) | Step::End(which) if !self.open.is_empty() => {
                let index = usize::from(*which) % self.open.len();
                let (id, octets) = &mut self.open[index];
                *octets += 1 + u64::from(*which);
                let traffic = Traffic {
                    received_octets: *octets,
                    ..Traffic::default()
                };
                let id = *id;
                self.entered.push(match step {
                    Step::End(_) => {
                        self.open.swap_remove(index);
                        Entry::End {
                            id,
                            at: moment,
                            session_time: 1,
                            traffic,
                            cause: Cause::HungUp,
                        }
                    }
                    _ => Entry::Reading {
                        id,
                        at: moment,
                        session_time: 1,
                        traffic,
                        interim: true,
                    },
                });
            }
            Step::Read(_) | Step::End(_) => {}
            Step::Commit => self.commit(),
            Step::Wait(seconds) => {
                for _ in 0..*seconds {
                    self.now += Duration::from_secs(1);
                    self.deliver();
                }
            }
            Step::Outage(away) => self.away = *away,
            Step::Lossy(lossy) => self.lossy = *lossy,
            Step::Crash => {
                self.entered.clear();
                self.open.clear();
                self.courier = Courier::default();
                let moment = self.moment();
                self.ledger = Ledger::open(self.path, true, moment).unwrap();
                self.start();
            }
        }
    }

    fn deliver(&mut self) {
        if let Some((after, limit)) = self.courier.wants() {
            self.courier
                .take(self.ledger.waiting(after, limit).unwrap());
        }
        let mut flights = Vec::new();
        while let Some(record) = self.courier.next(self.now) {
            flights.push(record);
        }
        for record in flights {
            self.sent += 1;
            let number = record.number;
            if !self.away {
                self.arrived.push(Record::clone(&record));
            }
            let lost = self.lossy > 0 && self.sent.is_multiple_of(u32::from(self.lossy));
            let acknowledged = !self.away && !lost;
            self.courier.landed(number, acknowledged, self.now);
            if acknowledged {
                self.entered.push(Entry::Delivered { number });
            }
        }
    }

    /// Everything is well again, for as long as it takes.
    fn settle(&mut self) {
        (self.away, self.lossy) = (false, 0);
        for _ in 0..100_000 {
            self.commit();
            if self.ledger.backlog().unwrap() == 0 {
                return;
            }
            self.now += Duration::from_secs(1);
            self.deliver();
        }
        panic!("{} records never arrive", self.ledger.backlog().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_arrives_is_what_was_made(steps in proptest::collection::vec(step(), 1..150)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut world = World::new(&path);
        for step in &steps {
            world.take(step);
        }
        world.settle();

        let mut seen = HashMap::new();
        let mut arrived: HashMap<_, Vec<_>> = HashMap::new();
        let mut last_start = 0;
        for record in &world.arrived {
            // What is repeated is the same to the last octet.
            if let Some(before) = seen.insert(record.number, record.clone()) {
                prop_assert_eq!(&before, record);
                continue;
            }
            match record.session_id() {
                Some(id) => arrived
                    .entry(id)
                    .or_default()
                    .push((record.kind, record.traffic.received_octets)),
                // Nothing of an earlier start comes behind this.
                None => last_start = record.number,
            }
            prop_assert!(record.number >= last_start);
        }
        prop_assert_eq!(arrived, world.made);
    }
}
