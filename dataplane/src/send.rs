//! Into tunnels: data, what the control plane says, and acknowledgements.

use arrayvec::ArrayVec;
use turnpike_protocol::Time;

use crate::acks::Entry;
use crate::api::{CaptureSide, Direction, Port};
use crate::burst::Packet;
use crate::call::Gate;
use crate::ccp;
use crate::counters::{Reason, Total};
use crate::device::{Device, Frame};
use crate::encap::{self, ROOM, Tunnelled};
use crate::path::Path;
use crate::version::Version;
use crate::wheel;

/// Acknowledgements sent in one turn, so that they never fill a transmit ring by themselves; the rest is due at once.
const ACKS_AT_ONCE: usize = 256;

/// Of so many the calls are fetched before the first is looked at.
const ACKS_AHEAD: usize = 16;

impl<D: Device> Path<D> {
    /// Puts an inner packet, which fills the frame and fits the tunnel, into its call.
    #[inline]
    pub(crate) fn encap(&mut self, mut frame: Frame, slot: u32, now: Time) {
        if !frame.grow_front(ROOM) {
            return self.drop(frame, Reason::NoHeadroom);
        }
        self.make_room(Direction::Transmit, 1, now);
        let Some(mut call) = self.core.calls.get_mut(slot) else {
            return self.drop(frame, Reason::NoRoute);
        };
        let bytes = self.device.bytes(&mut frame);
        if call.encap.capture {
            self.core.captured.push(
                &self.core.counters,
                call.encap.call,
                now,
                CaptureSide::Inner,
                Direction::Transmit,
                &bytes[ROOM..],
            );
        }
        let result = match self.core.hops.mac(call.encap.hop) {
            Some(mac) => encap::inner(&mut call, &mut self.core.engine, bytes, ROOM, mac),
            None => Err(Reason::NoNeighbour),
        };
        match result {
            Ok(Tunnelled { start, encrypt }) => {
                self.core.counters.add(Total::Encapsulated, 1);
                match encrypt {
                    Some(at) => {
                        let packet = Packet {
                            slot,
                            direction: Direction::Transmit,
                            at,
                            end: frame.len(),
                            start,
                            frame,
                        };
                        self.defer(packet, 1);
                    }
                    None => self.send_outer(frame, start, slot, now),
                }
            }
            Err(reason) => {
                call.encap.dropped += 1;
                self.drop(frame, reason);
            }
        }
    }

    /// Sends a GRE packet of a call: an Ethernet frame that begins at `start`.
    #[inline]
    pub(crate) fn send_outer(&mut self, mut frame: Frame, start: usize, slot: u32, now: Time) {
        if !frame.cut_front(start) {
            return self.drop(frame, Reason::NoHeadroom);
        }
        if let Some(call) = self.core.calls.get_mut(slot)
            && call.encap.capture
        {
            self.core.captured.push(
                &self.core.counters,
                call.encap.call,
                now,
                CaptureSide::Outer,
                Direction::Transmit,
                self.device.bytes(&mut frame),
            );
        }
        self.transmit(Port::Access, frame);
    }

    /// Sends a PPP frame, which fills the frame, to the peer of a call.
    pub(crate) fn send_ppp(&mut self, mut frame: Frame, slot: u32, now: Time) {
        if !frame.grow_front(ROOM) {
            return self.drop(frame, Reason::NoHeadroom);
        }
        let Some(mut call) = self.core.calls.get_mut(slot) else {
            return self.drop(frame, Reason::UnknownCall);
        };
        let bytes = self.device.bytes(&mut frame);
        let result = match self.core.hops.mac(call.encap.hop) {
            Some(mac) => encap::wrap(&mut call, bytes, ROOM, mac),
            None => Err(Reason::NoNeighbour),
        };
        match result {
            Ok(start) => {
                // Packets with earlier numbers, and with keys that may go with this frame.
                if call.gre.due_sent > 0 {
                    self.flush(now);
                }
                self.send_outer(frame, start, slot, now);
            }
            Err(reason) => {
                call.encap.dropped += 1;
                self.drop(frame, reason);
            }
        }
    }

    /// Sends a control frame of the control plane's.
    pub(crate) fn send_control(&mut self, slot: u32, octets: &[u8], now: Time) {
        self.core.counters.add(Total::FramesSent, 1);
        let Some(mut frame) = self.device.allocate(Port::Access) else {
            return self.core.counters.dropped(Reason::NoMemory);
        };
        if !frame.set_len(octets.len()) {
            return self.drop(frame, Reason::FrameTooLong);
        }
        self.device.bytes(&mut frame).copy_from_slice(octets);
        self.send_ppp(frame, slot, now);
        // Keys start after the frame that they start with; one that got no further is like one that the network lost.
        if let Some(mut call) = self.core.calls.get_mut(slot) {
            ccp::sent_frame(&mut call, octets);
        }
    }

    /// Sends an inner packet of the control plane's.
    pub(crate) fn send_inner(&mut self, slot: u32, packet: &[u8], now: Time) {
        self.core.counters.add(Total::InnerSent, 1);
        let Some(mut frame) = self.device.allocate(Port::Access) else {
            return self.core.counters.dropped(Reason::NoMemory);
        };
        let Some(call) = self.core.calls.get_mut(slot) else {
            return self.drop(frame, Reason::UnknownCall);
        };
        // A call that may not carry data has no MTU either.
        let (gate, mtu) = match Version::of(packet) {
            Version::Four => (call.encap.gate, call.encap.mtu),
            Version::Six => (call.six.gate, call.six.mtu),
        };
        let refused = match gate {
            Gate::Closed => Some(Reason::NotYetForwarding),
            _ if packet.len() > usize::from(mtu) => Some(Reason::TooBig),
            _ => None,
        };
        if let Some(reason) = refused {
            call.encap.dropped += 1;
            return self.drop(frame, reason);
        }
        if packet.is_empty() || !frame.set_len(packet.len()) {
            return self.drop(frame, Reason::InnerHeader);
        }
        self.device.bytes(&mut frame).copy_from_slice(packet);
        self.encap(frame, slot, now);
    }

    /// Sends what calls are owed.
    pub(crate) fn send_acks(&mut self, now: Time) {
        for _ in 0..ACKS_AT_ONCE / ACKS_AHEAD {
            let mut entries = ArrayVec::<Entry, ACKS_AHEAD>::new();
            while !entries.is_full()
                && let Some(entry) = self.core.acks.expire(now)
            {
                // It has been waiting for a while, and its call is in no cache if there are many.
                self.core
                    .calls
                    .fetch(entry.slot, Direction::Transmit, false);
                entries.push(entry);
            }
            if entries.is_empty() {
                return;
            }
            for entry in entries {
                self.send_ack(entry, now);
            }
        }
    }

    /// Sends what one call is owed, if it still is.
    fn send_ack(&mut self, entry: Entry, now: Time) {
        let slot = entry.slot;
        let Some(mut call) = self.core.calls.get_mut(slot) else {
            return;
        };
        if !entry.take(&mut call.gre.ack) {
            return;
        }
        // Data may have carried it meanwhile, and more may have come since.
        match call.gre.receiver.ack_due() {
            None => return,
            Some(due) if wheel::is_later(due, now) && !entry.is_at_once() => {
                let place = &mut call.gre.ack;
                return self.core.acks.watch(place, slot, due, now);
            }
            Some(_) => {}
        }
        self.core.counters.add(Total::AcksSent, 1);
        let Some(mac) = self.core.hops.mac(call.encap.hop) else {
            // The next packet from the peer asks again.
            let _ = call.gre.receiver.ack_to_send();
            return self.core.counters.dropped(Reason::NoNeighbour);
        };
        let Some(mut frame) = self.device.allocate(Port::Access) else {
            let _ = call.gre.receiver.ack_to_send();
            return self.core.counters.dropped(Reason::NoMemory);
        };
        let grown = frame.grow_front(ROOM);
        match encap::acknowledge(&mut call, self.device.bytes(&mut frame), mac) {
            Some(Ok(start)) if grown => self.send_outer(frame, start, slot, now),
            _ => self.drop(frame, Reason::NoHeadroom),
        }
    }
}
