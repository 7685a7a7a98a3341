//! A device that loses, doubles and reorders what passes its access port, and keeps exact books of it.

use core::cell::Cell;
use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;
use turnpike_dataplane::api::Port;
use turnpike_dataplane::device::{Accounts, Batch, Device, Frame, Refused};
use turnpike_dataplane::wake::Wake;
use turnpike_protocol::wire::ppp::Protocol;
use turnpike_protocol::wire::{ethernet, gre, ipv4, ppp};

/// Frames held back per direction at most; beyond that nothing more is reordered.
const HELD: usize = 64;

/// The longest that a frame is held back when nothing else passes.
const HOLD: Duration = Duration::from_millis(2);

/// A frame that is held back lets 1 to this many others pass, unless told otherwise.
const PLACES: u32 = 4;

/// How much of what passes meets which fate; each a share of 1. For each direction alike.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// Lost.
    pub loss: f64,
    /// Sent twice.
    pub duplicate: f64,
    /// Held back until others have passed.
    pub reorder: f64,
    /// How many others pass at most; 0 stands for 4.
    pub places: u32,
    /// Where chance begins.
    pub seed: u64,
}

impl Faults {
    /// Whether anything is to go wrong at all.
    pub fn any(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0
    }
}

/// What was wrong with a description of faults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadFaults(String);

impl fmt::Display for BadFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for BadFaults {}

/// `loss=1%,duplicate=0.5%,reorder=0.01,places=8,seed=7`, in any order.
impl FromStr for Faults {
    type Err = BadFaults;

    fn from_str(text: &str) -> Result<Self, BadFaults> {
        let mut faults = Self::default();
        for part in text.split(',') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(BadFaults(format!("{part:?} is not of the form name=value")));
            };
            let name = name.trim();
            let value = value.trim();
            if name == "seed" {
                faults.seed = value
                    .parse()
                    .map_err(|_| BadFaults(format!("seed {value:?} is not a whole number")))?;
                continue;
            }
            if name == "places" {
                faults.places = value
                    .parse()
                    .ok()
                    .filter(|places| (1..=HELD as u32).contains(places))
                    .ok_or_else(|| {
                        BadFaults(format!(
                            "places {value:?} is not a whole number from 1 to {HELD}"
                        ))
                    })?;
                continue;
            }
            let share = share(value).ok_or_else(|| {
                BadFaults(format!(
                    "{value:?} is not a share: write 1% or 0.01, at most 100%"
                ))
            })?;
            match name {
                "loss" => faults.loss = share,
                "duplicate" => faults.duplicate = share,
                "reorder" => faults.reorder = share,
                _ => {
                    return Err(BadFaults(format!(
                        "{name:?} is not a fault: there are loss, duplicate, reorder, places, and seed"
                    )));
                }
            }
        }
        Ok(faults)
    }
}

pub(crate) fn share(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// What happened to frames in one direction. Every frame that came in went out, was lost, or was refused by the
/// device: `seen + copies = passed + lost + refused`, once nothing is held back.
#[derive(Debug, Default)]
pub struct Book {
    seen: AtomicU64,
    passed: AtomicU64,
    lost: AtomicU64,
    copies: AtomicU64,
    reordered: AtomicU64,
    refused: AtomicU64,
    echoes: AtomicU64,
}

/// A [`Book`] as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Tally {
    /// Frames that came in.
    pub seen: u64,
    /// Frames that went out, copies among them.
    pub passed: u64,
    /// Frames lost.
    pub lost: u64,
    /// Copies made.
    pub copies: u64,
    /// Frames held back while others passed; they pass later.
    pub reordered: u64,
    /// Frames and copies that the device refused when they were to go out after having been held back or copied.
    pub refused: u64,
    /// LCP Echo-Requests and Echo-Replies among the frames lost in outages.
    pub echoes: u64,
}

impl Book {
    /// The figures now.
    pub fn tally(&self) -> Tally {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Tally {
            seen: read(&self.seen),
            passed: read(&self.passed),
            lost: read(&self.lost),
            copies: read(&self.copies),
            reordered: read(&self.reordered),
            refused: read(&self.refused),
            echoes: read(&self.echoes),
        }
    }
}

/// There is one writer: the worker's thread.
fn count(cell: &AtomicU64) {
    cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// The books of both directions.
#[derive(Debug, Default)]
pub struct Books {
    /// From the network to the worker.
    pub receive: Book,
    /// From the worker to the network.
    pub transmit: Book,
    outages: AtomicU64,
}

impl Books {
    /// Begins an outage: each way the next so many packets that have a GRE number are lost, and all others before the
    /// last of them. While one lasts, nothing begins.
    pub fn begin_outage(&self, packets: u32) {
        self.outages.store(u64::from(packets), Ordering::Release);
    }
}

/// A frame that waits for others to pass.
#[derive(Debug)]
struct Held {
    frame: Frame,
    /// How many more have to pass.
    overtakers: u32,
    /// When it goes anyway.
    until: Instant,
}

enum Fate {
    Pass,
    Lose,
    Double,
    HoldBack { overtakers: u32 },
}

/// Wraps a device. Ports other than access are left alone.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    faults: Faults,
    chance: ChaCha8Rng,
    books: Arc<Books>,
    received: VecDeque<Held>,
    /// On their way to the worker: more than a batch had room for.
    ready: VecDeque<Frame>,
    transmitted: VecDeque<Held>,
    arriving: Batch,
    /// Numbered packets that the outage takes yet: from the network, and from the worker.
    outage: [u64; 2],
}

impl<D: Device> Faulty<D> {
    /// Wraps `inner`. All memory is allocated here.
    pub fn new(inner: D, faults: Faults) -> Self {
        Self {
            inner,
            faults,
            chance: ChaCha8Rng::seed_from_u64(faults.seed),
            books: Arc::default(),
            received: VecDeque::with_capacity(HELD),
            ready: VecDeque::with_capacity(4 * HELD),
            transmitted: VecDeque::with_capacity(HELD),
            arriving: Batch::new(),
            outage: [0; 2],
        }
    }

    /// The books, to be read while the worker runs.
    pub fn books(&self) -> Arc<Books> {
        self.books.clone()
    }

    /// The wrapped device.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The wrapped device, for tests that let frames arrive.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    fn fate(&mut self, room: bool) -> Fate {
        let mut happens = |share: f64| share > 0.0 && self.chance.next_u32() < to_u32(share);
        if happens(self.faults.loss) {
            Fate::Lose
        } else if happens(self.faults.duplicate) {
            Fate::Double
        } else if room && happens(self.faults.reorder) {
            let places = match self.faults.places {
                0 => PLACES,
                places => places,
            };
            Fate::HoldBack {
                overtakers: 1 + self.chance.next_u32() % places,
            }
        } else {
            Fate::Pass
        }
    }

    /// Whether an outage takes this frame, on its way from (0) or to (1) the network.
    fn is_out(&mut self, frame: &mut Frame, way: usize) -> bool {
        if self.outage == [0; 2] && self.books.outages.load(Ordering::Relaxed) > 0 {
            self.outage = [self.books.outages.swap(0, Ordering::Acquire); 2];
        }
        if self.outage[way] == 0 {
            return false;
        }
        let (numbered, echo) = look(self.inner.bytes(frame));
        self.outage[way] -= u64::from(numbered);
        let book = if way == 0 {
            &self.books.receive
        } else {
            &self.books.transmit
        };
        count(&book.lost);
        if echo {
            count(&book.echoes);
        }
        true
    }

    fn copy(&mut self, frame: &mut Frame) -> Option<Frame> {
        let mut copy = self.inner.allocate(Port::Access)?;
        if !copy.set_len(frame.len()) {
            self.inner.release(copy);
            return None;
        }
        // Two views of one device cannot stand side by side, so the octets take a way round.
        let mut octets = [0; turnpike_dataplane::device::CHUNK];
        let len = frame.len();
        octets[..len].copy_from_slice(self.inner.bytes(frame));
        self.inner.bytes(&mut copy).copy_from_slice(&octets[..len]);
        Some(copy)
    }

    fn arrive(&mut self, mut frame: Frame) {
        count(&self.books.receive.seen);
        if self.is_out(&mut frame, 0) {
            self.inner.release(frame);
            return;
        }
        // The one that is held back now does not let itself pass.
        let waiting = self.received.len();
        match self.fate(waiting < HELD) {
            Fate::Lose => {
                count(&self.books.receive.lost);
                self.inner.release(frame);
                return;
            }
            Fate::Double => {
                if let Some(copy) = self.copy(&mut frame) {
                    count(&self.books.receive.copies);
                    count(&self.books.receive.passed);
                    self.ready.push_back(copy);
                }
            }
            Fate::HoldBack { overtakers } => {
                count(&self.books.receive.reordered);
                self.received.push_back(held(frame, overtakers));
                return;
            }
            Fate::Pass => {}
        }
        count(&self.books.receive.passed);
        self.ready.push_back(frame);
        overtake(&mut self.received, waiting);
        while let Some(held) = pop_overtaken(&mut self.received) {
            count(&self.books.receive.passed);
            self.ready.push_back(held.frame);
        }
    }

    fn send(&mut self, frame: Frame) -> Result<(), Refused> {
        let sent = self.inner.transmit(Port::Access, frame);
        count(match sent {
            Ok(()) => &self.books.transmit.passed,
            Err(_) => &self.books.transmit.refused,
        });
        sent
    }

    /// Lets go of what has waited long enough.
    fn expire(&mut self) {
        if self.received.is_empty() && self.transmitted.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(held) = pop_expired(&mut self.received, now) {
            count(&self.books.receive.passed);
            self.ready.push_back(held.frame);
        }
        while let Some(held) = pop_expired(&mut self.transmitted, now) {
            // Refusals are in the book.
            let _ = self.send(held.frame);
        }
    }
}

/// Whether an Ethernet frame holds a GRE packet with a number, and whether that is an LCP echo.
fn look(bytes: &[u8]) -> (bool, bool) {
    let packet = bytes.get(ethernet::HEADER_LEN..).unwrap_or_default();
    let Ok(ip) = ipv4::Packet::new_checked(packet) else {
        return (false, false);
    };
    let Ok(gre) = gre::Packet::parse(ip.payload()) else {
        return (false, false);
    };
    let payload = &ip.payload()[gre.payload_range()];
    // RFC 1661 §5: codes 9 and 10.
    let echo = ppp::Frame::parse(payload).is_ok_and(|frame| {
        frame.protocol == Protocol::LCP && matches!(payload.get(frame.header_len), Some(9 | 10))
    });
    (gre.seq.is_some(), echo)
}

fn held(frame: Frame, overtakers: u32) -> Held {
    Held {
        frame,
        overtakers,
        until: Instant::now() + HOLD,
    }
}

/// A frame has passed the first `waiting` of the queue.
fn overtake(queue: &mut VecDeque<Held>, waiting: usize) {
    for held in queue.range_mut(..waiting) {
        held.overtakers = held.overtakers.saturating_sub(1);
    }
}

/// Takes out the first that enough have overtaken. It passes those that came before it in turn.
fn pop_overtaken(queue: &mut VecDeque<Held>) -> Option<Held> {
    let at = queue.iter().position(|held| held.overtakers == 0)?;
    overtake(queue, at);
    queue.remove(at)
}

fn pop_expired(queue: &mut VecDeque<Held>, now: Instant) -> Option<Held> {
    let at = queue.iter().position(|held| held.until <= now)?;
    queue.remove(at)
}

/// A share of 1 as a threshold for 32 random bits.
fn to_u32(share: f64) -> u32 {
    (share * f64::from(u32::MAX)) as u32
}

impl<D: Device> Device for Faulty<D> {
    fn lend<'a>(&'a self, frame: &'a Frame) -> &'a [Cell<u8>] {
        self.inner.lend(frame)
    }

    fn has(&self, port: Port) -> bool {
        self.inner.has(port)
    }

    fn receive(&mut self, port: Port, batch: &mut Batch) -> usize {
        if port != Port::Access {
            return self.inner.receive(port, batch);
        }
        self.expire();
        if self.ready.len() < HELD {
            let mut arriving = core::mem::take(&mut self.arriving);
            self.inner.receive(port, &mut arriving);
            for frame in arriving.drain(..) {
                self.arrive(frame);
            }
            self.arriving = arriving;
        }
        let n = self.ready.len().min(batch.remaining_capacity());
        batch.extend(self.ready.drain(..n));
        n
    }

    fn overrun(&mut self, port: Port) -> bool {
        self.inner.overrun(port)
    }

    fn transmit(&mut self, port: Port, mut frame: Frame) -> Result<(), Refused> {
        if port != Port::Access {
            return self.inner.transmit(port, frame);
        }
        count(&self.books.transmit.seen);
        if self.is_out(&mut frame, 1) {
            self.inner.release(frame);
            return Ok(());
        }
        let waiting = self.transmitted.len();
        let copy = match self.fate(waiting < HELD) {
            Fate::Lose => {
                count(&self.books.transmit.lost);
                self.inner.release(frame);
                return Ok(());
            }
            Fate::HoldBack { overtakers } => {
                count(&self.books.transmit.reordered);
                self.transmitted.push_back(held(frame, overtakers));
                return Ok(());
            }
            Fate::Double => self.copy(&mut frame),
            Fate::Pass => None,
        };
        // What the device refuses is the worker's to count, as without us; the book has it too.
        let sent = self.send(frame);
        if let Some(copy) = copy {
            count(&self.books.transmit.copies);
            let _ = self.send(copy);
        }
        overtake(&mut self.transmitted, waiting);
        while let Some(held) = pop_overtaken(&mut self.transmitted) {
            let _ = self.send(held.frame);
        }
        sent
    }

    fn allocate(&mut self, port: Port) -> Option<Frame> {
        self.inner.allocate(port)
    }

    fn release(&mut self, frame: Frame) {
        self.inner.release(frame);
    }

    fn bytes<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.inner.bytes(frame)
    }

    fn flush(&mut self) {
        self.expire();
        self.inner.flush();
    }

    fn accounts(&self) -> Accounts {
        let inner = self.inner.accounts();
        Accounts {
            total: inner.total,
            held: inner.held + self.received.len() + self.ready.len() + self.transmitted.len(),
        }
    }

    fn wait(&mut self, wake: &Wake, timeout: Duration) {
        if !self.ready.is_empty() {
            return;
        }
        let waiting = !self.received.is_empty() || !self.transmitted.is_empty();
        self.inner
            .wait(wake, if waiting { timeout.min(HOLD) } else { timeout });
    }
}

#[cfg(test)]
mod tests;
