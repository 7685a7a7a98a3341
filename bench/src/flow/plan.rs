//! What is to be sent when, and how those who send are told.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};

use super::packet::MIN_SIZE;

/// Octets of the largest inner packet.
const MAX_SIZE: u16 = 1500;

/// Sizes of a simple Internet mix, as they follow each other: 7 of 64 octets, 4 of 576, 1 of 1400.
const IMIX: [u16; 12] = [64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 64, 576];

/// Octets of the inner IP packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// All the same.
    Fixed(u16),
    /// A simple Internet mix: 7 of 64 octets to 4 of 576 and 1 of 1400.
    Imix,
}

impl Size {
    /// The sizes of packets that follow each other in a flow, over and over.
    pub(super) fn pattern(self) -> Arc<[u16]> {
        match self {
            Self::Fixed(size) => [size].into(),
            Self::Imix => IMIX.into(),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "imix" => Ok(Self::Imix),
            Ok(size) if (MIN_SIZE as u16..=MAX_SIZE).contains(&size) => Ok(Self::Fixed(size)),
            _ => Err(format!("must be imix, or from {MIN_SIZE} to {MAX_SIZE}")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Way {
    /// From calls through the server.
    Up,
    /// From behind the server to calls.
    Down,
    /// From calls to an echo responder behind the server, and back.
    Echo,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Echo];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Echo => "echo",
        }
    }
}

/// When packets are to be sent: at even distances, one flow after the other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Schedule {
    /// When the first one is: nanoseconds on the tester's clock.
    pub(super) start: u64,
    /// Nanoseconds from one to the next.
    pub(super) interval: f64,
    /// How many there are.
    pub(super) count: u64,
    /// Flows that take turns; not 0.
    pub(super) flows: u32,
}

impl Schedule {
    /// When a packet is to be sent.
    pub(super) fn at(&self, place: u64) -> u64 {
        // Nanoseconds of weeks are whole numbers in an f64.
        self.start
            .saturating_add((place as f64 * self.interval) as u64)
    }

    /// Whose it is, and its number there.
    pub(super) fn whose(&self, place: u64) -> (u32, u64) {
        let flows = u64::from(self.flows);
        // A remainder is smaller than what was divided by.
        ((place % flows) as u32, place / flows)
    }

    /// When the last one has been sent, and its interval is over.
    pub(super) fn end(&self) -> u64 {
        self.at(self.count)
    }

    /// How many of the first `places` are a flow's.
    pub(super) fn share(&self, flow: u32, places: u64) -> u64 {
        let flows = u64::from(self.flows);
        places / flows + u64::from(u64::from(flow) < places % flows)
    }
}

/// One part of a run.
#[derive(Debug)]
pub(super) struct Trial {
    /// 0: flows are verified; what is counted is thrown away.
    pub(super) number: u8,
    pub(super) schedule: Schedule,
    pub(super) pattern: Arc<[u16]>,
    /// Inner addresses of the flows' calls.
    pub(super) flows: Arc<[Ipv4Addr]>,
    /// Which ways are used.
    pub(super) ways: Vec<Way>,
    /// Numbers of a flow that are told apart back from the highest.
    pub(super) window: usize,
}

impl Trial {
    /// Whether it is only about who hears whom.
    pub(super) fn verifies(&self) -> bool {
        self.number == 0
    }
}

/// What those who send and receive are to do.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// Nothing.
    Rest,
    /// This.
    Go(Arc<Trial>),
    /// The run is over.
    Stop,
}

/// Figures of one way, to be looked at while it runs. Each has one writer.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Live {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) octets: AtomicU64,
}

/// What the loop and the two sides share.
#[derive(Debug)]
pub(super) struct Script {
    /// Counts orders.
    turn: AtomicU64,
    order: Mutex<Order>,
    pub(super) run: u32,
    pub(super) live: [Live; Way::ALL.len()],
    /// Flows that have delivered a packet, each way.
    verified: [Box<[AtomicBool]>; Way::ALL.len()],
}

impl Script {
    /// For so many flows at most.
    pub(super) fn new(run: u32, flows: usize) -> Self {
        Self {
            turn: AtomicU64::new(0),
            order: Mutex::new(Order::Rest),
            run,
            live: Default::default(),
            verified: core::array::from_fn(|_| (0..flows).map(|_| false.into()).collect()),
        }
    }

    pub(super) fn order(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        self.turn.fetch_add(1, Ordering::Release);
    }

    /// The order, when there is another than the one numbered `seen`.
    pub(super) fn look(&self, seen: &mut u64) -> Option<Order> {
        let turn = self.turn.load(Ordering::Acquire);
        if core::mem::replace(seen, turn) == turn {
            return None;
        }
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        Some(order.clone())
    }

    pub(super) fn verify(&self, way: Way, flow: u32) {
        if let Some(flow) = self.verified[way as usize].get(flow as usize) {
            flow.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_verified(&self, way: Way, flow: u32) -> bool {
        let flows = &self.verified[way as usize];
        let flow = flows.get(flow as usize);
        flow.is_some_and(|flow| flow.load(Ordering::Relaxed))
    }

    /// How many of the first `flows` are verified one way.
    pub(super) fn count(&self, way: Way, flows: u32) -> u32 {
        // There are no more than 2³² flows.
        (0..flows)
            .filter(|flow| self.is_verified(way, *flow))
            .count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!("imix".parse(), Ok(Size::Imix));
        assert_eq!("64".parse(), Ok(Size::Fixed(64)));
        for wrong in ["59", "1501", "", "imax"] {
            assert!(wrong.parse::<Size>().is_err());
        }
        let pattern = Size::Imix.pattern();
        let count = |size| pattern.iter().filter(|one| **one == size).count();
        assert_eq!((count(64), count(576), count(1400)), (7, 4, 1));
    }

    #[test]
    fn flows_take_turns_at_even_distances() {
        let schedule = Schedule {
            start: 5_000,
            interval: 1e9 / 3.0,
            count: 8,
            flows: 3,
        };
        assert_eq!(schedule.at(0), 5_000);
        assert_eq!(schedule.at(3), 1_000_005_000);
        assert_eq!(schedule.whose(0), (0, 0));
        assert_eq!(schedule.whose(7), (1, 2));
        let shares: Vec<u64> = (0..3).map(|flow| schedule.share(flow, 8)).collect();
        assert_eq!(shares, [3, 3, 2]);
        // After weeks the distance is still what it was.
        let week = 3 * 7 * 86_400;
        assert_eq!(schedule.at(week + 3) - schedule.at(week), 1_000_000_000);
    }

    #[test]
    fn an_order_is_seen_once() {
        let script = Script::new(1, 2);
        let mut seen = 0;
        assert!(script.look(&mut seen).is_none());
        script.order(Order::Stop);
        assert!(matches!(script.look(&mut seen), Some(Order::Stop)));
        assert!(script.look(&mut seen).is_none());
    }

    #[test]
    fn verified_flows_are_counted_each_way() {
        let script = Script::new(1, 3);
        script.verify(Way::Up, 2);
        script.verify(Way::Up, 2);
        script.verify(Way::Up, 9);
        assert_eq!(script.count(Way::Up, 3), 1);
        assert_eq!(script.count(Way::Up, 2), 0);
        assert_eq!(script.count(Way::Down, 3), 0);
    }
}
