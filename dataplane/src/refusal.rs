//! Inner packets that cannot be delivered, and ICMP errors to their sources.

use turnpike_protocol::Time;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::icmp::{self, Message};
use turnpike_protocol::wire::ipv4;

use crate::counters::{Reason, Total};
use crate::device::{Device, Frame};
use crate::handoff::Origin;
use crate::path::{Arrival, Path, set_ipv4};

impl<D: Device> Path<D> {
    /// A packet for an address of ours that no call has.
    #[cold]
    pub(crate) fn unused(&mut self, frame: Frame, arrival: Arrival, now: Time) {
        let message = Message::HostUnreachable;
        self.refuse(frame, message, Reason::PoolWithoutCall, arrival, now);
    }

    /// Drops an inner packet behind an Ethernet header and tells its source, in the same frame, where it came from.
    #[cold]
    pub(crate) fn refuse(
        &mut self,
        mut frame: Frame,
        message: Message,
        reason: Reason,
        arrival: Arrival,
        now: Time,
    ) {
        self.core.counters.dropped(reason);
        let Some(source) = self.icmp_source(&mut frame) else {
            self.core.counters.add(Total::IcmpSuppressed, 1);
            return self.device.release(frame);
        };
        let bucket = match message {
            Message::FragmentationNeeded { .. } => &mut self.core.icmp_too_big,
            _ => &mut self.core.icmp,
        };
        if !bucket.take(now) {
            self.core.counters.add(Total::IcmpSuppressed, 1);
            return self.device.release(frame);
        }
        let sender = sender(self.device.bytes(&mut frame));
        let len = (frame.cut_front(ethernet::HEADER_LEN) && frame.grow_front(icmp::OVERHEAD))
            .then(|| icmp::emit_in_front(message, source, self.device.bytes(&mut frame)))
            .flatten();
        let Some(len) = len else {
            self.core.counters.add(Total::IcmpSuppressed, 1);
            return self.device.release(frame);
        };
        if !frame.set_len(len) || !frame.grow_front(ethernet::HEADER_LEN) {
            self.core.counters.add(Total::IcmpSuppressed, 1);
            return self.device.release(frame);
        }
        self.core.counters.add(Total::IcmpSent, 1);
        match arrival.origin {
            Origin::Port(port) => self.leave(port, frame, ethernet::HEADER_LEN, len, sender),
            Origin::Tunnel => {
                set_ipv4(self.device.bytes(&mut frame));
                self.route_inner(frame, Arrival::TUNNEL, now);
            }
        }
    }

    /// The source of ICMP errors about a packet: our inner address, or as a client that has none yet the packet's own
    /// destination, which its sender surely has a route to. None when the packet cannot be read.
    fn icmp_source(&mut self, frame: &mut Frame) -> Option<core::net::Ipv4Addr> {
        let packet = self.device.bytes(frame).get(ethernet::HEADER_LEN..)?;
        let destination = ipv4::Packet::new_checked(packet).ok()?.destination();
        Some(self.core.config.server_address.unwrap_or(destination))
    }
}

/// Who sent an Ethernet frame.
fn sender(bytes: &[u8]) -> MacAddr {
    ethernet::Packet::new_checked(bytes).map_or(MacAddr::default(), |frame| frame.source())
}
