//! Inner IPv6 packets out of the tunnel: whose they may be, and where they go.

use core::net::Ipv6Addr;

use turnpike_protocol::wire::ipv6;
use turnpike_protocol::wire::tcp_mss::{self, Clamped};
use turnpike_protocol::{Role, Time};

use crate::api::{CaptureSide, Direction};
use crate::call::Six;
use crate::counters::{Reason, Total};
use crate::decap::Verdict;
use crate::path::Core;
use crate::routes::Target;
use crate::to_us;

/// Whether a packet for this address stays on the link: there is no multicast routing.
fn is_for_link(destination: Ipv6Addr) -> bool {
    ipv6::is_link_local(destination) || destination.is_multicast()
}

/// Whether a server takes a packet from its client. True when it stays on the link.
#[inline]
fn judge_source(six: &Six, source: Ipv6Addr, destination: Ipv6Addr) -> Result<bool, Reason> {
    let stays = is_for_link(destination);
    if six.has(source) {
        return Ok(stays);
    }
    let link_local = source == six.link_local();
    // RFC 4291 §2.5.2: a node that has no address yet has the unspecified one.
    if stays && (link_local || source.is_unspecified()) {
        return Ok(true);
    }
    // RFC 4291 §2.5.6: a router forwards no packet with a link-local source.
    Err(if link_local {
        Reason::LinkScope
    } else {
        Reason::Spoofed
    })
}

/// Whether a client takes a packet from its server.
#[inline]
fn judge_destination(six: &Six, destination: Ipv6Addr) -> Result<(), Reason> {
    if six.has(destination) || destination == six.link_local() || destination.is_multicast() {
        Ok(())
    } else {
        Err(Reason::WrongInnerDestination)
    }
}

impl Core {
    /// An inner IPv6 packet in clear.
    #[inline]
    pub(crate) fn inner6(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        end: usize,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        let packet = &mut bytes[at..end];
        let ip = ipv6::Packet::new_checked(&*packet).map_err(|_| Reason::InnerHeader)?;
        let (len, protocol) = (ip.total_len(), ip.next_header());
        let (source, destination) = (ip.source(), ip.destination());
        let ours = match self.config.role {
            Role::Server => {
                let stays = judge_source(call.six, source, destination)?;
                if stays && !to_us::is6(&ip) {
                    return Err(Reason::LinkScope);
                }
                stays
            }
            Role::Client => {
                judge_destination(call.six, destination)?;
                false
            }
        };
        let packet = &mut packet[..len];
        call.decap.packets += 1;
        call.decap.octets += len as u64;
        if call.decap.capture {
            self.captured.push(
                &self.counters,
                call.encap.call,
                now,
                CaptureSide::Inner,
                Direction::Receive,
                packet,
            );
        }
        if ours {
            return self.hand_up(packet, slot, now);
        }
        self.counters.add(Total::Decapsulated, 1);
        if protocol == ipv6::TCP && tcp_mss::clamp_ipv6(packet, call.six.mss) == Clamped::Yes {
            self.counters.add(Total::MssClamped, 1);
        }
        let host = Verdict::Host { at, len };
        if self.config.role == Role::Client {
            return Ok(host);
        }
        let unused = |reason| Verdict::Unused { at, len, reason };
        // Linux lowers the hop limit of what it forwards, and answers what expires.
        match self.routes6.get(destination) {
            // RFC 4443 §3.1: a packet from a point-to-point link for an address within that link's own subnet must not
            // go back there. It would come again, until its hop limit has run out.
            Target::Call { call: target, .. } if target == call.encap.call => {
                Ok(unused(Reason::SameLink))
            }
            Target::Call { call, slot } => {
                let mut ip = ipv6::Packet::new_checked(packet).map_err(|_| Reason::InnerHeader)?;
                if !ip.decrement_hop_limit() {
                    return Ok(host);
                }
                Ok(Verdict::Call {
                    at,
                    len,
                    call,
                    slot,
                })
            }
            _ if self.config.server_address6 == Some(destination) => Ok(host),
            Target::Unused => Ok(unused(Reason::PoolWithoutCall)),
            Target::Elsewhere => Ok(host),
        }
    }
}
