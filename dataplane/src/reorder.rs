//! Packets that wait for earlier ones (RFC 2637 §4.3: out of order they may be reordered, never delivered).
//!
//! A packet is held as the frame it came in: its chunk stays out of the device's hands, for which the device has as
//! many more as may be held. Packets of all calls share that room; a call that finds none goes on as if it had no
//! queue. Calls without a gap never come here.

use core::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::gre::{self, Held, Seq};

use crate::api::Port;
use crate::counters::{Reason, Total};
use crate::decap::Segment;
use crate::device::{Device, Frame};
use crate::path::{Arrival, Core, Path};
use crate::wheel::{self, Wheel};

/// The longest that a packet may wait: longer than that, voice is better served by a loss.
pub const MAX_TIME: Duration = Duration::from_millis(100);

/// How workers put packets back in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reordering {
    /// Packets that one call may hold; 0: none, and what comes out of order is discarded. At most [`gre::MAX_HELD`].
    pub packets: u8,
    /// How long a packet waits for earlier ones; [`MAX_TIME`] at most.
    pub time: Duration,
    /// Packets that all calls of one worker may hold, 65,535 at most. Its device needs as many chunks on top.
    pub total: u32,
}

impl Default for Reordering {
    /// 32 packets, 50 ms; 2,048 packets (4 MiB) in all.
    fn default() -> Self {
        Self {
            packets: 32,
            time: Duration::from_millis(50),
            total: 2048,
        }
    }
}

impl Reordering {
    /// None.
    pub const OFF: Self = Self {
        packets: 0,
        time: Duration::ZERO,
        total: 0,
    };

    /// What one worker's device has to have room for.
    pub const fn chunks(&self) -> u32 {
        if self.packets == 0 { 0 } else { self.total }
    }

    /// Within the bounds.
    pub(crate) fn bounded(mut self) -> Self {
        self.time = self.time.min(MAX_TIME);
        self.total = self.chunks();
        if self.total == 0 {
            self.packets = 0;
        }
        self
    }
}

/// A packet that is held: its frame, and where in that the GRE payload lies.
pub(crate) struct Waiting {
    frame: Frame,
    segment: Segment,
}

/// What a worker holds.
pub(crate) struct Reorder {
    held: Held<Waiting>,
    /// When the first packet of a call has waited long enough, or earlier.
    wheel: Wheel,
    time: Duration,
    /// Until then most of what is missing was lost here.
    overrun_until: Time,
}

impl Reorder {
    pub(crate) fn new(settings: &Reordering, calls: usize) -> Self {
        let total = usize::try_from(settings.chunks()).unwrap_or(usize::MAX);
        let calls_with_queue = if total == 0 { 0 } else { calls };
        Self {
            held: Held::new(total),
            wheel: Wheel::new(calls_with_queue),
            time: settings.time,
            overrun_until: Time::ZERO,
        }
    }

    /// Frames have been lost at `now` that this worker had no room for. What is missing is hardly waited for while calls
    /// come that have gaps from that: others would be held up for nothing.
    pub(crate) fn overrun(&mut self, now: Time) {
        self.overrun_until = now + self.time;
    }

    /// How long packets wait for earlier ones.
    fn time(&self, now: Time) -> Duration {
        if now < self.overrun_until {
            Duration::ZERO
        } else {
            self.time
        }
    }

    /// Octets of memory that are there for calls.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        self.wheel.octets()
    }

    /// Packets that wait.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// When the next call is to be looked at.
    pub(crate) fn next(&self) -> Option<Time> {
        self.wheel.next()
    }

    /// The first packet that a call holds came at `since`. A tick late rather than a tick early: then it has waited long enough
    /// for sure.
    fn watch(&mut self, slot: u32, since: Time, now: Time) {
        self.wheel
            .insert(slot, since + self.time(now) + wheel::TICK);
    }
}

/// Packets released by time in one turn, about: so many that a transmit ring has room for them.
const RELEASED_AT_ONCE: u64 = 512;

impl Core {
    /// Counts a number that has come: it is to be acknowledged.
    #[inline]
    pub(crate) fn note_received(&mut self, slot: u32, now: Time) {
        let Some(call) = self.calls.get_mut(slot) else {
            return;
        };
        if let Some(due) = call.gre.receiver.note_received(now) {
            self.acks.watch(&mut call.gre.ack, slot, due, now);
        }
    }

    /// Counts numbers that never came.
    pub(crate) fn note_missing(&mut self, slot: u32, missing: u32) {
        if missing > 0
            && let Some(call) = self.calls.get_mut(slot)
        {
            call.decap.mppe_missing = call.decap.mppe_missing.saturating_add(missing);
            call.encap.missing += u64::from(missing);
            self.counters.add(Total::Missing, u64::from(missing));
        }
    }

    fn receiver(&mut self, slot: u32) -> Option<&mut gre::Receiver> {
        Some(&mut self.calls.get_mut(slot)?.gre.receiver)
    }
}

impl<D: Device> Path<D> {
    /// A packet that does not simply follow the one before: `arrival` says what it is.
    #[cold]
    pub(crate) fn reorder(
        &mut self,
        frame: Frame,
        slot: u32,
        seq: Seq,
        arrival: gre::Arrival,
        segment: Segment,
        now: Time,
    ) {
        let mut arrival = arrival;
        if arrival == gre::Arrival::Beyond {
            self.core.counters.add(Total::ReorderFull, 1);
            self.release(slot, None, now);
            let Some(receiver) = self.core.receiver(slot) else {
                return self.drop(frame, Reason::UnknownCall);
            };
            arrival = receiver.accept(seq);
        }
        let missing = match arrival {
            gre::Arrival::First | gre::Arrival::InOrder => 0,
            gre::Arrival::Ahead { missing } | gre::Arrival::Awaited { missing } => missing,
            gre::Arrival::Held => {
                self.core.note_received(slot, now);
                return self.hold(frame, slot, seq, segment, now);
            }
            // Not after numbers were given up for it.
            gre::Arrival::Duplicate | gre::Arrival::Late | gre::Arrival::Beyond => {
                return self.drop(frame, Reason::GreLate);
            }
        };
        self.core.note_received(slot, now);
        self.core.note_missing(slot, missing);
        self.deliver(frame, segment, slot, now);
        self.release(slot, None, now);
    }

    fn hold(&mut self, frame: Frame, slot: u32, seq: Seq, segment: Segment, now: Time) {
        let Core {
            calls,
            reorder,
            counters,
            ..
        } = &mut self.core;
        let Some(call) = calls.get_mut(slot) else {
            return self.drop(frame, Reason::UnknownCall);
        };
        let first = call.decap.queue.is_empty();
        let waiting = Waiting { frame, segment };
        match reorder.held.hold(&mut call.decap.queue, seq, now, waiting) {
            Ok(()) => {
                counters.add(Total::Held, 1);
                call.encap.held += 1;
                if first {
                    reorder.watch(slot, now, now);
                }
                // There may be nothing to release; then this says that numbers are still waited for.
                self.release(slot, None, now);
            }
            Err(waiting) => {
                counters.add(Total::ReorderFull, 1);
                call.gre.receiver.give_up(seq);
                self.release(slot, Some((seq, waiting)), now);
            }
        }
    }

    /// Delivers what a call need not hold any longer, in order; returns how many. `in_hand` takes its turn among them.
    fn release(&mut self, slot: u32, mut in_hand: Option<(Seq, Waiting)>, now: Time) -> u64 {
        let mut count = 0;
        while let Some(call) = self.core.calls.get_mut(slot) {
            let Some(released) = call.gre.receiver.release() else {
                break;
            };
            let queue = &mut call.decap.queue;
            let was_held = in_hand.as_ref().is_none_or(|(seq, _)| *seq != released.seq);
            let waiting = if was_held {
                self.core.reorder.held.take(queue, released.seq)
            } else {
                in_hand.take().map(|(_, waiting)| waiting)
            };
            if queue.is_empty() && self.core.reorder.wheel.contains(slot) {
                self.core.reorder.wheel.remove(slot);
            }
            self.core.note_missing(slot, released.missing);
            let Some(waiting) = waiting else {
                debug_assert!(false, "a number that is held has a packet");
                continue;
            };
            if was_held {
                self.core.counters.add(Total::Released, 1);
            }
            count += 1;
            self.deliver(waiting.frame, waiting.segment, slot, now);
        }
        debug_assert!(in_hand.is_none(), "what has no room is delivered");
        if let Some((_, waiting)) = in_hand {
            self.drop(waiting.frame, Reason::NoMemory);
        }
        count
    }

    /// A packet whose turn it is.
    pub(crate) fn deliver(&mut self, mut frame: Frame, segment: Segment, slot: u32, now: Time) {
        let bytes = self.device.bytes(&mut frame);
        match self.core.deliver(bytes, segment, slot, now) {
            Ok(verdict) => self.carry_out(frame, verdict, Arrival::port(Port::Access), now),
            Err(reason) => self.refuse_received(frame, slot, reason),
        }
    }

    /// Releases what has waited long enough.
    pub(crate) fn release_overdue(&mut self, now: Time) {
        let mut released = 0;
        while released < RELEASED_AT_ONCE {
            let Some(slot) = self.core.reorder.wheel.expire(now) else {
                return;
            };
            let Some(call) = self.core.calls.get_mut(slot) else {
                continue;
            };
            let reorder = &mut self.core.reorder;
            let waited = Duration::from_nanos(now.as_nanos()).checked_sub(reorder.time(now));
            if let Some(limit) = waited
                && let Some(through) = reorder
                    .held
                    .waiting_since(call.decap.queue, Time::ZERO + limit)
            {
                call.gre.receiver.give_up(through);
                let count = self.release(slot, None, now);
                self.core.counters.add(Total::ReorderTimeouts, 1);
                released += count;
            }
            // What is left came later than what was watched for.
            if let Some(call) = self.core.calls.get_mut(slot)
                && let Some(since) = self.core.reorder.held.since(call.decap.queue)
            {
                self.core.reorder.watch(slot, since, now);
            }
        }
    }

    /// Delivers everything that a call holds: it ends.
    pub(crate) fn release_all(&mut self, slot: u32, now: Time) {
        let Some(call) = self.core.calls.get_mut(slot) else {
            return;
        };
        if let Some(last) = call.gre.receiver.last()
            && !call.decap.queue.is_empty()
        {
            call.gre.receiver.give_up(last);
            let count = self.release(slot, None, now);
            self.core.counters.add(Total::ReorderFlushed, count);
        }
        // Its keys may go now.
        self.flush(now);
    }

    /// The same for all calls: the worker ends, and every chunk must be the device's again.
    pub(crate) fn release_everything(&mut self, now: Time) {
        while let Some(slot) = self.core.reorder.wheel.expire(Time::MAX) {
            self.release_all(slot, now);
        }
    }
}
