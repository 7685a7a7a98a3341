//! Inner packets that are for the concentrator itself: they go to the control plane, which answers inside the call.
//!
//! There are few, and of few kinds; whatever else is for our inner address goes to Linux as always.

use core::net::Ipv4Addr;

use turnpike_protocol::Time;
use turnpike_protocol::wire::{ipv4, ipv6};

use crate::bucket::Limits;
use crate::counters::{Reason, Total};
use crate::decap::Verdict;
use crate::path::Core;

/// Packets of this kind that one call may send up: who configures itself asks a few times, and again when its network
/// changes.
pub(crate) const LIMITS: Limits = Limits {
    burst: 32,
    interval_ns: 1_000_000_000 / 8,
};

/// UDP port of DHCP servers (RFC 2131 §4.1).
const DHCP_SERVER: [u8; 2] = 67_u16.to_be_bytes();

/// UDP port of DHCPv6 servers and relays (RFC 8415 §7.2).
const DHCPV6_SERVER: [u8; 2] = 547_u16.to_be_bytes();

/// ICMPv6 that a router answers on its link: Echo Request (RFC 4443 §4.1), Router Solicitation and Neighbor
/// Solicitation (RFC 4861 §4.1, §4.3).
const QUESTIONS: [u8; 3] = [128, 133, 135];

/// Whether a packet with this destination can be for us at all: the question that every packet has to be asked.
#[inline]
pub(crate) fn may_be(destination: Ipv4Addr, server: Option<Ipv4Addr>) -> bool {
    destination == Ipv4Addr::BROADCAST || server == Some(destination)
}

/// Whether a packet, which is well formed, is a question for us: DHCP to everybody or to our inner address.
///
/// Its source is the call's address, or none where it goes to everybody. RFC 2131 §4.1 wants none of who has no address
/// yet, and some have not heard of theirs when they ask.
#[cold]
pub(crate) fn is<T: AsRef<[u8]>>(
    packet: &ipv4::Packet<T>,
    client: Ipv4Addr,
    server: Option<Ipv4Addr>,
) -> bool {
    let (source, destination) = (packet.source(), packet.destination());
    let nobody = source.is_unspecified() && destination == Ipv4Addr::BROADCAST;
    may_be(destination, server)
        && (source == client || nobody)
        && packet.protocol() == ipv4::UDP
        && !packet.is_fragment()
        && packet.payload().len() >= 8
        && packet.payload()[2..4] == DHCP_SERVER
}

/// Whether an IPv6 packet from a client that stays on its link is a question for us.
#[cold]
pub(crate) fn is6<T: AsRef<[u8]>>(packet: &ipv6::Packet<T>) -> bool {
    let payload = packet.payload();
    match packet.next_header() {
        ipv6::ICMPV6 => payload.len() >= 8 && QUESTIONS.contains(&payload[0]),
        ipv6::UDP => payload.len() >= 8 && payload[2..4] == DHCPV6_SERVER,
        _ => false,
    }
}

impl Core {
    /// Gives a packet of a call's to the control plane.
    #[cold]
    pub(crate) fn hand_up(
        &mut self,
        packet: &[u8],
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        if !call.cold.questions.take(LIMITS, now) {
            return Err(Reason::InnerRate);
        }
        self.events.inner(call.encap.call, packet)?;
        self.counters.add(Total::InnerReceived, 1);
        Ok(Verdict::Done)
    }
}
