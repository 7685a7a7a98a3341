//! Packets whose cipher has yet to run. All of a turn go through it together, which takes less than half as long as one
//! after the other.
//!
//! Stateless keys only, as only they leave packets independent of each other. Everything else about such a packet has been
//! done when it comes here, or is done when it has been decrypted. Steps along chains of keys come first: round by round,
//! a step of each call and direction in each. What is not about data, and what has to be done at once, waits until the
//! packets of its call have been done ([`Path::flush`]); so a call's packets stay in order, and its keys stay as long as
//! they are needed. Nothing stays here beyond a turn.

use arrayvec::ArrayVec;
use turnpike_protocol::Time;
use turnpike_protocol::mppe::{Chain, Changer as _, SessionKey};

use crate::api::{Direction, Port};
use crate::call::Call;
use crate::calls::Calls;
use crate::cipher::{self, Engine, Link};
use crate::counters::Reason;
use crate::device::{Device, Frame};
use crate::path::{Arrival, Core, Path};

/// Room for packets in each direction.
const PACKETS: usize = 128;

/// Packets that wait at most in each direction; then they are done, and the turn goes on. Few where there are assertions, so
/// that it comes to that in tests.
const FULL: usize = if cfg!(debug_assertions) { 24 } else { PACKETS };

/// Key changes that wait at most.
const STEPS: usize = 2 * PACKETS;

/// Steps that are made together.
const TOGETHER: usize = 64;

/// A packet that waits.
pub(crate) struct Packet {
    pub(crate) frame: Frame,
    pub(crate) slot: u32,
    /// From the peer, or to it.
    pub(crate) direction: Direction,
    /// Where in the frame the inner protocol and the payload begin, which fill the rest up to `end`.
    pub(crate) at: usize,
    pub(crate) end: usize,
    /// To the peer: where the Ethernet frame begins.
    pub(crate) start: usize,
}

/// The same, and its key when that is known.
struct Waiting {
    packet: Packet,
    key: Option<SessionKey>,
}

/// A key change that waits.
struct Step {
    slot: u32,
    direction: Direction,
    /// How many of its chain come before it.
    round: u16,
    /// The packet that the key is for, if any.
    packet: Option<u16>,
}

/// Packets that wait, and the key changes they wait for.
#[derive(Default)]
pub(crate) struct Burst {
    received: ArrayVec<Waiting, PACKETS>,
    transmitted: ArrayVec<Waiting, PACKETS>,
    steps: ArrayVec<Step, STEPS>,
}

/// How many key changes of a call and direction wait.
#[inline]
fn due<'a>(call: &'a mut Call<'_>, direction: Direction) -> &'a mut u16 {
    match direction {
        Direction::Receive => &mut call.gre.due_received,
        Direction::Transmit => &mut call.gre.due_sent,
    }
}

impl Step {
    #[inline]
    fn chain<'a>(&self, calls: &'a Calls) -> Option<Chain<'a>> {
        let keys = calls.keys(self.slot)?;
        match self.direction {
            Direction::Receive => keys.decryptor.as_ref()?.chain(),
            Direction::Transmit => keys.encryptor.as_ref()?.chain(),
        }
    }

    /// This is the next key.
    #[inline]
    fn follow(&self, calls: &mut Calls, key: &SessionKey) {
        let Some(call) = calls.get_mut(self.slot) else {
            return;
        };
        match self.direction {
            Direction::Receive => {
                if let Some(decryptor) = &mut call.keys.decryptor {
                    decryptor.follow(key);
                }
            }
            Direction::Transmit => {
                if let Some(encryptor) = &mut call.keys.encryptor {
                    encryptor.follow(key);
                }
            }
        }
    }
}

impl Burst {
    #[inline]
    fn packets(&mut self, direction: Direction) -> &mut ArrayVec<Waiting, PACKETS> {
        match direction {
            Direction::Receive => &mut self.received,
            Direction::Transmit => &mut self.transmitted,
        }
    }

    /// Makes all key changes; then every packet has its key.
    fn change_keys(&mut self, calls: &mut Calls, engine: &mut Engine) {
        if !self.steps.is_sorted_by_key(|step| step.round) {
            self.steps.sort_unstable_by_key(|step| step.round);
        }
        let Self {
            received,
            transmitted,
            steps,
        } = self;
        let mut done = |calls: &mut Calls, step: &Step, key: SessionKey| {
            step.follow(calls, &key);
            if let Some(packet) = step.packet {
                let packets = match step.direction {
                    Direction::Receive => &mut *received,
                    Direction::Transmit => &mut *transmitted,
                };
                packets[usize::from(packet)].key = Some(key);
            }
        };
        for round in steps.chunk_by(|one, other| one.round == other.round) {
            // Most rounds are one step where most packets are one call's.
            if let [step] = round {
                let Some(Chain { start, key }) = step.chain(calls) else {
                    debug_assert!(false, "a key went while a packet waited for it");
                    return;
                };
                let mut key = key.clone();
                engine.change(start, &mut key);
                done(calls, step, key);
                continue;
            }
            for steps in round.chunks(TOGETHER) {
                let mut keys = ArrayVec::<SessionKey, TOGETHER>::new();
                for step in steps {
                    // Keys do not go while packets wait for them; then a packet would be without, and be dropped.
                    let Some(chain) = step.chain(calls) else {
                        debug_assert!(false, "a key went while a packet waited for it");
                        return;
                    };
                    keys.push(chain.key.clone());
                }
                {
                    let links = steps.iter().zip(&mut keys).filter_map(|(step, key)| {
                        let Chain { start, .. } = step.chain(calls)?;
                        Some(Link { start, key })
                    });
                    let mut links: ArrayVec<Link<'_>, TOGETHER> = links.collect();
                    engine.change_all(&mut links);
                }
                for (step, key) in steps.iter().zip(keys.drain(..)) {
                    done(calls, step, key);
                }
            }
        }
    }

    /// Encrypts and decrypts.
    fn crypt<D: Device>(&self, engine: &mut Engine, device: &D) {
        let packets: ArrayVec<cipher::Packet<'_>, { 2 * PACKETS }> = self
            .received
            .iter()
            .chain(&self.transmitted)
            .filter_map(|Waiting { packet, key }| {
                Some(cipher::Packet {
                    key: key.as_ref()?,
                    octets: &device.lend(&packet.frame)[packet.at..packet.end],
                })
            })
            .collect();
        engine.run_all(&packets);
    }
}

/// Bursts in turn: packets of one go on their way while another is filled.
pub(crate) struct Bursts {
    filling: Box<Burst>,
    /// Decrypted packets may fill one after the other on their way into other calls; from there they leave.
    idle: Vec<Box<Burst>>,
}

impl Bursts {
    pub(crate) fn new() -> Self {
        Self {
            filling: Box::default(),
            idle: vec![Box::default(), Box::default()],
        }
    }
}

impl<D: Device> Path<D> {
    /// Makes room for a packet. One that is to leave needs it before it gets its number, as what is done now may follow
    /// into the same call.
    #[inline]
    pub(crate) fn make_room(&mut self, direction: Direction, changes: u32, now: Time) {
        loop {
            let burst = &mut self.bursts.filling;
            let full = burst.packets(direction).len() >= FULL;
            if !full && burst.steps.remaining_capacity() >= changes as usize {
                return;
            }
            self.flush_once(now);
        }
    }

    /// A packet waits for its cipher, and before that for so many key changes, the last of which leads to its key. There must
    /// be room for it.
    #[inline]
    pub(crate) fn defer(&mut self, packet: Packet, changes: u32) {
        let burst = &mut *self.bursts.filling;
        let Some(mut call) = self.core.calls.get_mut(packet.slot) else {
            return self.drop(packet.frame, Reason::UnknownCall);
        };
        let due = due(&mut call, packet.direction);
        // There are never more than `PACKETS`.
        let number = burst.packets(packet.direction).len() as u16;
        for left in (0..changes).rev() {
            burst.steps.push(Step {
                slot: packet.slot,
                direction: packet.direction,
                round: *due,
                packet: (left == 0).then_some(number),
            });
            *due += 1;
        }
        let packets = burst.packets(packet.direction);
        packets.push(Waiting { packet, key: None });
    }

    /// Does all packets that wait.
    #[inline]
    pub(crate) fn flush(&mut self, now: Time) {
        // Those that were decrypted may have to be encrypted for another call.
        while !self.bursts.filling.steps.is_empty() {
            self.flush_once(now);
        }
    }

    fn flush_once(&mut self, now: Time) {
        debug_assert!(
            !self.bursts.idle.is_empty(),
            "packets that were encrypted leave"
        );
        let empty = self.bursts.idle.pop().unwrap_or_default();
        let mut burst = core::mem::replace(&mut self.bursts.filling, empty);
        let Core { calls, engine, .. } = &mut self.core;
        burst.change_keys(calls, engine);
        burst.crypt(engine, &self.device);
        for step in burst.steps.drain(..) {
            if let Some(mut call) = calls.get_mut(step.slot) {
                *due(&mut call, step.direction) = 0;
            }
        }
        // What leaves goes first: what comes may follow it into the same call, with the next number.
        for Waiting { packet, key } in burst.transmitted.drain(..) {
            let Packet {
                frame, slot, start, ..
            } = packet;
            match key {
                Some(_) => self.send_outer(frame, start, slot, now),
                None => self.drop(frame, Reason::NotYetEncrypted),
            }
        }
        for Waiting { packet, key } in burst.received.drain(..) {
            match key {
                Some(_) => self.opened(packet, now),
                None => self.drop(packet.frame, Reason::MppeNoKeys),
            }
        }
        self.bursts.idle.push(burst);
    }

    /// A packet that has been decrypted.
    #[inline]
    fn opened(&mut self, packet: Packet, now: Time) {
        let Packet {
            mut frame,
            slot,
            at,
            end,
            ..
        } = packet;
        let bytes = self.device.bytes(&mut frame);
        match self.core.opened(bytes, at, end, slot, now) {
            Ok(verdict) => self.carry_out(frame, verdict, Arrival::port(Port::Access), now),
            Err(reason) => self.refuse_received(frame, slot, reason),
        }
    }

    /// Ends a frame from the peer of a call under a name.
    #[cold]
    pub(crate) fn refuse_received(&mut self, frame: Frame, slot: u32, reason: Reason) {
        if let Some(call) = self.core.calls.get_mut(slot) {
            call.decap.dropped += 1;
        }
        self.drop(frame, reason);
    }
}
