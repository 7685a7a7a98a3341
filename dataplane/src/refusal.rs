//! Inner packets that cannot be delivered, and ICMP errors to their sources.

use turnpike_protocol::Time;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{icmp, icmpv6, ipv4, ipv6};

use crate::counters::{Reason, Total};
use crate::device::{Device, Frame};
use crate::handoff::Origin;
use crate::path::{Arrival, ICMP_LIMITS, Path, set_ethertype};
use crate::version::Version;

/// What the source of a packet is told, in its own protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Four(icmp::Message),
    Six(icmpv6::Message),
}

impl Message {
    /// Whether somebody learns the MTU of a path from it.
    fn is_too_big(self) -> bool {
        matches!(
            self,
            Self::Four(icmp::Message::FragmentationNeeded { .. })
                | Self::Six(icmpv6::Message::PacketTooBig { .. })
        )
    }

    /// Octets in front of the packet that it is about.
    fn overhead(self) -> usize {
        match self {
            Self::Four(_) => icmp::OVERHEAD,
            Self::Six(_) => icmpv6::OVERHEAD,
        }
    }
}

impl<D: Device> Path<D> {
    /// A packet for an address of ours that no call has.
    #[cold]
    pub(crate) fn unused(&mut self, mut frame: Frame, reason: Reason, arrival: Arrival, now: Time) {
        let packet = &self.device.bytes(&mut frame)[ethernet::HEADER_LEN..];
        let message = match Version::of(packet) {
            Version::Four => Message::Four(icmp::Message::HostUnreachable),
            Version::Six => Message::Six(icmpv6::Message::AddressUnreachable),
        };
        self.refuse(frame, message, reason, arrival, now);
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
        let bucket = if message.is_too_big() {
            &mut self.core.icmp_too_big
        } else {
            &mut self.core.icmp
        };
        if !bucket.take(ICMP_LIMITS, now) {
            self.core.counters.add(Total::IcmpSuppressed, 1);
            return self.device.release(frame);
        }
        let sender = sender(self.device.bytes(&mut frame));
        let len = (frame.cut_front(ethernet::HEADER_LEN) && frame.grow_front(message.overhead()))
            .then(|| self.write(message, &mut frame))
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
                set_ethertype(self.device.bytes(&mut frame));
                self.route_inner(frame, Arrival::TUNNEL, now);
            }
        }
    }

    /// Writes an ICMP error in front of the packet that it is about; returns its length. None when that cannot be read
    /// or there must be no error about it.
    ///
    /// Its source is our inner address, or as a client that has none yet the packet's own destination, which its sender
    /// surely has a route to.
    fn write(&mut self, message: Message, frame: &mut Frame) -> Option<usize> {
        let config = &self.core.config;
        let bytes = self.device.bytes(frame);
        let packet = bytes.get(message.overhead()..)?;
        match message {
            Message::Four(message) => {
                let destination = ipv4::Packet::new_checked(packet).ok()?.destination();
                let source = config.server_address.unwrap_or(destination);
                icmp::emit_in_front(message, source, bytes)
            }
            Message::Six(message) => {
                let destination = ipv6::Packet::new_checked(packet).ok()?.destination();
                let source = config.server_address6.unwrap_or(destination);
                icmpv6::emit_in_front(message, source, bytes)
            }
        }
    }
}

/// Who sent an Ethernet frame.
fn sender(bytes: &[u8]) -> MacAddr {
    ethernet::Packet::new_checked(bytes).map_or(MacAddr::default(), |frame| frame.source())
}
