//! Inner packets on their way into a tunnel: which call they are for, and what a router does to them.

use turnpike_protocol::wire::tcp_mss::{self, Clamped};
use turnpike_protocol::wire::{ethernet, icmp, icmpv6, ipv4, ipv6};
use turnpike_protocol::{Role, Time};

use crate::api::{CallRef, Port};
use crate::call::Gate;
use crate::counters::{Reason, Total};
use crate::device::{Device, Frame};
use crate::handoff::Origin;
use crate::path::{Arrival, Path};
use crate::refusal::Message;
use crate::routes::Target;
use crate::version::Version;

/// What routing needs to know of a packet.
struct Routed {
    len: usize,
    target: Target,
    /// It is for our own inner address.
    ours: bool,
}

impl<D: Device> Path<D> {
    /// An Ethernet frame with an inner packet: finds its call.
    #[inline]
    pub(crate) fn route_inner(&mut self, mut frame: Frame, arrival: Arrival, now: Time) {
        let bytes = self.device.bytes(&mut frame);
        let routed = match Version::of_frame(bytes) {
            Some(Version::Four) => self.look_up(&mut frame),
            Some(Version::Six) => self.look_up6(&mut frame),
            None => Err(Reason::NotIpv4),
        };
        let routed = match routed {
            Ok(routed) => routed,
            Err(reason) => return self.drop(frame, reason),
        };
        // Without the padding of the link.
        if !frame.set_len(ethernet::HEADER_LEN + routed.len) {
            return self.drop(frame, Reason::InnerHeader);
        }
        match routed.target {
            Target::Call { call, slot } => self.enter_call(frame, call, slot, arrival, now),
            _ if routed.ours && arrival.origin != Origin::Port(Port::Host) => {
                let mac = self.core.config.host_peer_mac;
                self.leave(Port::Host, frame, ethernet::HEADER_LEN, routed.len, mac);
            }
            Target::Unused => self.unused(frame, Reason::PoolWithoutCall, arrival, now),
            Target::Elsewhere => self.drop(frame, Reason::NoRoute),
        }
    }

    #[inline]
    fn look_up(&mut self, frame: &mut Frame) -> Result<Routed, Reason> {
        let packet = &self.device.bytes(frame)[ethernet::HEADER_LEN..];
        let ip = ipv4::Packet::new_checked(packet).map_err(|_| Reason::InnerHeader)?;
        if !ip.verify_checksum() {
            return Err(Reason::InnerChecksum);
        }
        let config = &self.core.config;
        let destination = ip.destination();
        // A server routes by whom a packet is for. A client has one tunnel per address of its own.
        let key = match config.role {
            Role::Server => destination,
            Role::Client => ip.source(),
        };
        Ok(Routed {
            len: ip.total_len(),
            target: self.core.routes.get(key),
            ours: config.server_address == Some(destination),
        })
    }

    #[inline]
    fn look_up6(&mut self, frame: &mut Frame) -> Result<Routed, Reason> {
        let packet = &self.device.bytes(frame)[ethernet::HEADER_LEN..];
        let ip = ipv6::Packet::new_checked(packet).map_err(|_| Reason::InnerHeader)?;
        let config = &self.core.config;
        let (source, destination) = (ip.source(), ip.destination());
        let key = match config.role {
            // RFC 4291 §2.5.6: never forwarded to another link. There is no multicast routing either.
            Role::Server
                if ipv6::is_link_local(source)
                    || ipv6::is_link_local(destination)
                    || destination.is_multicast() =>
            {
                return Err(Reason::LinkScope);
            }
            Role::Server => destination,
            Role::Client => source,
        };
        Ok(Routed {
            len: ip.total_len(),
            target: self.core.routes6.get(key),
            ours: config.server_address6 == Some(destination),
        })
    }

    /// An inner packet behind an Ethernet header, for a call of this worker or another one.
    #[inline]
    pub(crate) fn enter_call(
        &mut self,
        mut frame: Frame,
        call: CallRef,
        slot: u32,
        arrival: Arrival,
        now: Time,
    ) {
        let owner = self.core.config.owners.owner(call.id);
        if owner != self.core.config.id {
            if arrival.handed_over {
                return self.drop(frame, Reason::NoRoute);
            }
            return self.hand_over(frame, owner, arrival.origin);
        }
        let Some(slot) = self.core.calls.slot(&call, slot) else {
            return self.drop(frame, Reason::NoRoute);
        };
        let version = Version::of(&self.device.bytes(&mut frame)[ethernet::HEADER_LEN..]);
        let fitting = match version {
            Version::Four => self.fit(frame, slot, arrival, now),
            Version::Six => self.fit6(frame, slot, arrival, now),
        };
        let Some(mut frame) = fitting else {
            return;
        };
        if frame.cut_front(ethernet::HEADER_LEN) {
            self.encap(frame, slot, now);
        } else {
            self.drop(frame, Reason::NoHeadroom);
        }
    }

    /// Whether it is for us to lower a packet's time to live: Linux did it for what comes from the host port, and decap
    /// for what comes out of a tunnel.
    #[inline]
    fn lowers_ttl(&self, arrival: Arrival) -> bool {
        match arrival.origin {
            Origin::Port(Port::Access | Port::Uplink) => self.core.config.role == Role::Server,
            Origin::Port(Port::Host) | Origin::Tunnel => false,
        }
    }

    /// A packet that may live no longer: Linux answers.
    #[cold]
    fn expire(&mut self, frame: Frame) {
        if !self.device.has(Port::Host) {
            return self.drop(frame, Reason::TtlExpired);
        }
        let len = frame.len() - ethernet::HEADER_LEN;
        let mac = self.core.config.host_peer_mac;
        self.leave(Port::Host, frame, ethernet::HEADER_LEN, len, mac);
    }

    /// Makes an IPv4 packet one that its call takes. None when it has gone another way.
    #[inline]
    fn fit(&mut self, mut frame: Frame, slot: u32, arrival: Arrival, now: Time) -> Option<Frame> {
        let lowers_ttl = self.lowers_ttl(arrival);
        let Some(known) = self.core.calls.get_mut(slot) else {
            self.drop(frame, Reason::NoRoute);
            return None;
        };
        let packet = &mut self.device.bytes(&mut frame)[ethernet::HEADER_LEN..];
        let len = packet.len();
        let Ok(mut ip) = ipv4::Packet::new_checked(&mut *packet) else {
            self.drop(frame, Reason::InnerHeader);
            return None;
        };
        if lowers_ttl && ip.ttl() <= 1 {
            self.expire(frame);
            return None;
        }
        let mtu = known.encap.mtu;
        if len > usize::from(mtu) {
            if ip.dont_fragment() {
                known.encap.dropped += 1;
                let message = Message::Four(icmp::Message::FragmentationNeeded { mtu });
                self.refuse(frame, message, Reason::TooBig, arrival, now);
                return None;
            }
            if lowers_ttl {
                let _ = ip.decrement_ttl();
            }
            self.fragment(frame, slot, usize::from(mtu), now);
            return None;
        }
        if lowers_ttl {
            let _ = ip.decrement_ttl();
        }
        if ip.protocol() == ipv4::TCP && tcp_mss::clamp(packet, known.decap.mss) == Clamped::Yes {
            self.core.counters.add(Total::MssClamped, 1);
        }
        Some(frame)
    }

    /// The same for IPv6, which no router fragments (RFC 8200 §5).
    #[inline]
    fn fit6(&mut self, mut frame: Frame, slot: u32, arrival: Arrival, now: Time) -> Option<Frame> {
        let lowers_ttl = self.lowers_ttl(arrival);
        let Some(known) = self.core.calls.get_mut(slot) else {
            self.drop(frame, Reason::NoRoute);
            return None;
        };
        // Its MTU is not known yet.
        if known.six.gate == Gate::Closed {
            known.encap.dropped += 1;
            self.drop(frame, Reason::NotYetForwarding);
            return None;
        }
        let packet = &mut self.device.bytes(&mut frame)[ethernet::HEADER_LEN..];
        let len = packet.len();
        let Ok(mut ip) = ipv6::Packet::new_checked(&mut *packet) else {
            self.drop(frame, Reason::InnerHeader);
            return None;
        };
        if lowers_ttl && !ip.decrement_hop_limit() {
            self.expire(frame);
            return None;
        }
        let mtu = known.six.mtu;
        if len > usize::from(mtu) {
            known.encap.dropped += 1;
            let message = Message::Six(icmpv6::Message::PacketTooBig { mtu });
            self.refuse(frame, message, Reason::TooBig, arrival, now);
            return None;
        }
        if ip.next_header() == ipv6::TCP
            && tcp_mss::clamp_ipv6(packet, known.six.mss) == Clamped::Yes
        {
            self.core.counters.add(Total::MssClamped, 1);
        }
        Some(frame)
    }
}
