//! The rings between a worker and whoever commands it. All of them are single-producer, single-consumer and bounded;
//! their memory is all there is.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::io;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::api::{Captured, Command, Datagram, Event, FrameBytes};
use crate::counters::{Counters, Reason, Total};
use crate::handoff::{self, Peers};
use crate::wake::Wake;

/// How many entries each ring of a worker holds. An entry of the first four takes up to 1.8 KB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingSizes {
    /// Commands to the worker.
    pub commands: usize,
    /// Events from it; a quarter is kept for answers to commands, which are never dropped.
    pub events: usize,
    /// Datagrams that Linux reassembled.
    pub datagrams: usize,
    /// Captured packets.
    pub captured: usize,
    /// Packets to each other worker (entries of 2 KB).
    pub handoff: usize,
}

impl Default for RingSizes {
    fn default() -> Self {
        Self {
            commands: 1024,
            events: 4096,
            datagrams: 64,
            captured: 1024,
            handoff: 512,
        }
    }
}

/// The control plane's ends.
pub struct ControlEnd {
    /// Commands to the worker.
    pub commands: CommandSender,
    /// Events from the worker.
    pub events: Consumer<Event>,
    /// GRE datagrams that came back from Linux, for calls of this worker.
    pub datagrams: DatagramSender,
    /// Captured packets.
    pub captured: Consumer<Captured>,
    /// What the worker counts.
    pub counters: Arc<Counters>,
    /// Rung when there are events or captured packets, or room again for commands, while somebody sleeps on it: see
    /// [`Wake`] for the order of things.
    pub wake: Arc<Wake>,
}

/// The worker's ends; to be given to [`crate::worker::Worker::new`].
pub struct WorkerEnd {
    pub(crate) commands: Consumer<Command>,
    pub(crate) datagrams: Consumer<Datagram>,
    pub(crate) events: EventSender,
    pub(crate) captured: CaptureSender,
    pub(crate) counters: Arc<Counters>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) control: Arc<Wake>,
    pub(crate) starved: Arc<AtomicBool>,
    pub(crate) peers: Peers,
}

/// The rings of a worker that is alone. Fails when the process has no descriptors left.
pub fn channel(sizes: &RingSizes) -> io::Result<(ControlEnd, WorkerEnd)> {
    let starved = Arc::new(AtomicBool::new(false));
    let wake = Arc::new(Wake::new()?);
    let control = Arc::new(Wake::new()?);
    let counters = Arc::new(Counters::default());
    let (command_sender, commands) = RingBuffer::new(sizes.commands.max(1));
    let (event_sender, events) = RingBuffer::new(sizes.events.max(8));
    let (datagram_sender, datagrams) = RingBuffer::new(sizes.datagrams.max(1));
    let (capture_sender, captured) = RingBuffer::new(sizes.captured.max(1));
    let control_end = ControlEnd {
        commands: CommandSender {
            ring: command_sender,
            wake: wake.clone(),
            starved: starved.clone(),
        },
        events,
        datagrams: DatagramSender {
            ring: datagram_sender,
            wake: wake.clone(),
        },
        captured,
        counters: counters.clone(),
        wake: control.clone(),
    };
    let worker_end = WorkerEnd {
        commands,
        datagrams,
        events: EventSender {
            reserve: event_sender.buffer().capacity() / 4,
            ring: event_sender,
            lost: 0,
            rung: true,
        },
        captured: CaptureSender {
            ring: capture_sender,
            rung: true,
        },
        counters,
        wake,
        control,
        starved,
        peers: Peers::default(),
    };
    Ok((control_end, worker_end))
}

/// The rings of several workers, and those between them. Fails when the process has no descriptors left.
pub fn channels(workers: usize, sizes: &RingSizes) -> io::Result<Vec<(ControlEnd, WorkerEnd)>> {
    let mut ends = (0..workers)
        .map(|_| channel(sizes))
        .collect::<io::Result<Vec<_>>>()?;
    let wakes: Vec<_> = ends.iter().map(|(_, end)| end.wake.clone()).collect();
    for ((_, end), peers) in ends.iter_mut().zip(handoff::grid(&wakes, sizes.handoff)) {
        end.peers = peers;
    }
    Ok(ends)
}

/// A command that found the ring full.
pub struct Full(pub Command);

impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The command may hold keys.
        f.write_str("Full(..)")
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command ring full")
    }
}

impl core::error::Error for Full {}

/// Puts commands into a worker's ring.
pub struct CommandSender {
    ring: Producer<Command>,
    wake: Arc<Wake>,
    starved: Arc<AtomicBool>,
}

impl CommandSender {
    /// Queues a command and wakes the worker. When the ring is full the command comes back, and
    /// [`ControlEnd::wake`] will be rung when there is room again.
    #[allow(
        clippy::result_large_err,
        reason = "the command is given back where it was, not boxed"
    )]
    pub fn push(&mut self, command: Command) -> Result<(), Full> {
        self.queue(command)?;
        self.ring();
        Ok(())
    }

    /// As [`push`](Self::push), for one of several commands: the worker may sleep on until [`ring`](Self::ring).
    #[allow(
        clippy::result_large_err,
        reason = "the command is given back where it was, not boxed"
    )]
    pub fn queue(&mut self, command: Command) -> Result<(), Full> {
        let mut pushed = self.ring.push(command);
        if let Err(rtrb::PushError::Full(command)) = pushed {
            self.starved.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            // The worker may have made room before it could see the flag.
            pushed = self.ring.push(command);
        }
        pushed.map_err(|rtrb::PushError::Full(command)| Full(command))
    }

    /// Wakes the worker, if it sleeps.
    pub fn ring(&self) {
        self.wake.ring();
    }

    /// Commands that can be queued now without being given back.
    pub fn room(&self) -> usize {
        self.ring.slots()
    }
}

/// Puts reassembled datagrams into a worker's ring.
pub struct DatagramSender {
    ring: Producer<Datagram>,
    wake: Arc<Wake>,
}

impl DatagramSender {
    /// Queues a datagram and wakes the worker. False: the ring is full, the datagram is gone; the caller counts it.
    #[must_use]
    pub fn push(&mut self, datagram: Datagram) -> bool {
        let pushed = self.ring.push(datagram).is_ok();
        self.wake.ring();
        pushed
    }
}

/// The worker's side of the event ring.
pub(crate) struct EventSender {
    ring: Producer<Event>,
    reserve: usize,
    /// Frames dropped since the last [`Event::Lost`].
    lost: u64,
    /// Nothing was pushed since the reader was last rung.
    rung: bool,
}

impl EventSender {
    /// Whether an answer to a command has room. Commands are not carried out otherwise, so answers are never dropped.
    pub(crate) fn has_room_for_answer(&self) -> bool {
        self.ring.slots() > 0
    }

    /// An answer to a command, after [`has_room_for_answer`](Self::has_room_for_answer).
    pub(crate) fn answer(&mut self, event: Event) {
        let pushed = self.ring.push(event).is_ok();
        debug_assert!(pushed, "an answer without a slot");
        self.rung = false;
    }

    /// A control frame; dropped when only the slots for answers are left.
    pub(crate) fn frame(&mut self, call: crate::api::CallRef, frame: &[u8]) -> Result<(), Reason> {
        let frame = FrameBytes::new(frame).ok_or(Reason::FrameTooLong)?;
        let needed = self.reserve + 1 + usize::from(self.lost > 0);
        if self.ring.slots() < needed {
            self.lost += 1;
            return Err(Reason::EventRingFull);
        }
        self.report_lost();
        let _ = self.ring.push(Event::Frame { call, frame });
        self.rung = false;
        Ok(())
    }

    /// A packet for ourselves; dropped when the ring is half full: the slots that are left are for what calls need to
    /// live.
    pub(crate) fn inner(&mut self, call: crate::api::CallRef, packet: &[u8]) -> Result<(), Reason> {
        let packet = FrameBytes::new(packet).ok_or(Reason::FrameTooLong)?;
        if self.ring.slots() <= self.ring.buffer().capacity() / 2 {
            return Err(Reason::EventRingFull);
        }
        let _ = self.ring.push(Event::Inner { call, packet });
        self.rung = false;
        Ok(())
    }

    /// A call's GRE comes from here. Refused when there is no room for the frame that said so as well: it will be
    /// repeated.
    pub(crate) fn bound(
        &mut self,
        call: crate::api::CallRef,
        source: core::net::Ipv4Addr,
    ) -> Result<(), Reason> {
        if self.ring.slots() < self.reserve + 3 {
            return Err(Reason::EventRingFull);
        }
        let _ = self.ring.push(Event::Bound { call, source });
        self.rung = false;
        Ok(())
    }

    /// A call's packets make no sense. Refused when the ring is half full: what is in it matters more.
    pub(crate) fn garbled(&mut self, call: crate::api::CallRef) -> Result<(), Reason> {
        if self.ring.slots() <= self.ring.buffer().capacity() / 2 {
            return Err(Reason::EventRingFull);
        }
        let _ = self.ring.push(Event::Garbled { call });
        self.rung = false;
        Ok(())
    }

    /// Tells the reader how many frames were lost, as soon as there is room for it.
    pub(crate) fn report_lost(&mut self) {
        if self.lost > 0 && self.ring.slots() > self.reserve {
            let frames = core::mem::take(&mut self.lost);
            let _ = self.ring.push(Event::Lost { frames });
            self.rung = false;
        }
    }

    /// Whether the reader should be woken; asked once per turn.
    pub(crate) fn needs_ring(&mut self) -> bool {
        !core::mem::replace(&mut self.rung, true)
    }
}

/// The worker's side of the capture ring.
pub(crate) struct CaptureSender {
    ring: Producer<Captured>,
    rung: bool,
}

impl CaptureSender {
    /// Copies a packet; counts it when there is no room.
    pub(crate) fn push(
        &mut self,
        counters: &Counters,
        call: crate::api::CallRef,
        at: turnpike_protocol::Time,
        side: crate::api::CaptureSide,
        direction: crate::api::Direction,
        packet: &[u8],
    ) {
        let kept = packet.len().min(crate::api::MAX_CAPTURE);
        let mut bytes = [0; crate::api::MAX_CAPTURE];
        bytes[..kept].copy_from_slice(&packet[..kept]);
        let captured = Captured {
            call,
            at,
            side,
            direction,
            original_len: u16::try_from(packet.len()).unwrap_or(u16::MAX),
            len: kept as u16,
            bytes,
        };
        if self.ring.push(captured).is_ok() {
            counters.add(Total::Captured, 1);
            self.rung = false;
        } else {
            counters.dropped(Reason::CaptureRingFull);
        }
    }

    /// Whether the reader should be woken; asked once per turn.
    pub(crate) fn needs_ring(&mut self) -> bool {
        !core::mem::replace(&mut self.rung, true)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use turnpike_protocol::CallId;

    use super::*;
    use crate::api::{CallCounters, CallRef};

    const CALL: CallRef = CallRef {
        local: Ipv4Addr::LOCALHOST,
        peer: Ipv4Addr::LOCALHOST,
        id: CallId(1),
    };

    #[test]
    fn frames_never_take_the_slots_of_answers() {
        let sizes = RingSizes {
            events: 8,
            ..RingSizes::default()
        };
        let (mut control, mut worker) = channel(&sizes).unwrap();
        let mut sent = 0;
        while worker.events.frame(CALL, b"x").is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 6);
        assert_eq!(worker.events.frame(CALL, b"x"), Err(Reason::EventRingFull));
        for _ in 0..2 {
            assert!(worker.events.has_room_for_answer());
            worker.events.answer(Event::Counters {
                call: CALL,
                counters: CallCounters::default(),
            });
        }
        assert!(!worker.events.has_room_for_answer());
        for _ in 0..4 {
            control.events.pop().unwrap();
        }
        worker.events.report_lost();
        assert!(worker.events.frame(CALL, b"y").is_ok());
        let rest: Vec<_> = core::iter::from_fn(|| control.events.pop().ok()).collect();
        assert!(matches!(rest[4], Event::Lost { frames: 2 }));
        assert!(matches!(&rest[5], Event::Frame { frame, .. } if **frame == *b"y"));
    }

    #[test]
    fn a_full_command_ring_gives_the_command_back() {
        let sizes = RingSizes {
            commands: 1,
            ..RingSizes::default()
        };
        let (mut control, worker) = channel(&sizes).unwrap();
        assert!(control.commands.push(Command::Stop).is_ok());
        let Err(Full(command)) = control.commands.push(Command::Stop) else {
            panic!("the ring holds one");
        };
        assert!(matches!(command, Command::Stop));
        assert!(worker.starved.load(Ordering::Relaxed));
    }
}
