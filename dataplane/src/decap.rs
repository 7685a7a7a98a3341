//! Out of the tunnel: outer checks, GRE, MPPE, PPP, and where the inner packet goes.

use core::net::Ipv4Addr;

use turnpike_protocol::gre::{Arrival, Seq};
use turnpike_protocol::mppe;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::gre;
use turnpike_protocol::wire::ipv4;
use turnpike_protocol::wire::ppp::{self, Protocol};
use turnpike_protocol::wire::tcp_mss::{self, Clamped};
use turnpike_protocol::{CallId, Role, Time};

use crate::api::{CallRef, CaptureSide, Direction, Port, SourceCheck, WorkerId};
use crate::call::{FRAME_LIMITS, Gate};
use crate::calls::NO_SLOT;
use crate::ccp::{self, Answer};
use crate::counters::{Reason, Total};
use crate::decrypt;
use crate::echo;
use crate::path::Core;
use crate::routes::Target;
use crate::to_us;

/// What becomes of a frame, or of the packet `at..at + len` in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It has done its work.
    Done,
    /// The whole frame belongs to a call of another worker.
    HandOver(WorkerId),
    /// An inner packet for Linux.
    Host { at: usize, len: usize },
    /// An inner packet for the uplink's next hop.
    Uplink { at: usize, len: usize, mac: MacAddr },
    /// An inner packet for another call; `slot` is where this worker may find it.
    Call {
        at: usize,
        len: usize,
        call: CallRef,
        slot: u32,
    },
    /// An inner packet for an address of ours that no call has, or none that it may be forwarded to.
    Unused {
        at: usize,
        len: usize,
        reason: Reason,
    },
    /// A GRE packet out of order: what its number is, and where its payload lies.
    Reorder {
        slot: u32,
        seq: Seq,
        arrival: Arrival,
        segment: Segment,
    },
    /// An MPPE packet: `at..end` is to be decrypted, after so many key changes.
    Decrypt {
        slot: u32,
        at: usize,
        end: usize,
        changes: u32,
    },
    /// A GRE payload that is to be looked at again when packets of its call have been done.
    Wait { slot: u32, segment: Segment },
    /// A PPP frame to be sent to the peer of the call it came from.
    Answer { at: usize, len: usize, slot: u32 },
    /// The frame is dropped for this reason, and a Reset-Request with this identifier goes to the peer of its call.
    Reset {
        reason: Reason,
        identifier: u8,
        slot: u32,
    },
}

/// Where in a frame a GRE payload lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    start: u16,
    end: u16,
}

/// Where in a frame the GRE packet lies, and who sent it.
struct Outer {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    at: usize,
    gre: gre::Packet,
}

/// Checks an Ethernet frame up to its GRE header.
#[inline]
fn outer(bytes: &[u8]) -> Result<Outer, Reason> {
    let Some((header, rest)) = bytes.split_at_checked(ethernet::HEADER_LEN) else {
        return Err(Reason::NotIpv4);
    };
    if header[12..] != ethernet::IPV4.to_be_bytes() {
        return Err(Reason::NotIpv4);
    }
    let ip = ipv4::Packet::new_checked(rest).map_err(|_| Reason::OuterHeader)?;
    if ip.is_fragment() {
        return Err(Reason::OuterFragment);
    }
    if ip.protocol() != ipv4::GRE {
        return Err(Reason::OuterProtocol);
    }
    if !ip.verify_checksum() {
        return Err(Reason::OuterChecksum);
    }
    let gre = gre::Packet::parse(ip.payload()).map_err(|fault| match fault {
        gre::Fault::Short => Reason::GreShort,
        gre::Fault::Version => Reason::GreVersion,
        gre::Fault::Protocol => Reason::GreProtocol,
        gre::Fault::Flags => Reason::GreFlags,
        gre::Fault::Truncated => Reason::GreTruncated,
    })?;
    Ok(Outer {
        source: ip.source(),
        destination: ip.destination(),
        at: ethernet::HEADER_LEN + ip.header_len(),
        gre,
    })
}

/// Whether a frame that was refused for this reason may still be an inner packet, because access and uplink are the
/// same NIC.
pub(crate) fn may_be_inner(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotIpv4
            | Reason::OuterFragment
            | Reason::OuterProtocol
            | Reason::GreShort
            | Reason::GreVersion
            | Reason::GreProtocol
            | Reason::GreFlags
            | Reason::GreTruncated
            | Reason::UnknownCall
            | Reason::WrongSource
    )
}

/// Whether a packet that came in clear passes.
#[inline]
fn in_clear(gate: Gate) -> Result<(), Reason> {
    match gate {
        Gate::Plain => Ok(()),
        Gate::Closed => Err(Reason::NotYetForwarding),
        Gate::Encrypted => Err(Reason::PlainRefused),
    }
}

impl Core {
    /// Judges a frame from the access port. Its call's state moves on; the inner packet is in clear afterwards.
    #[inline]
    pub(crate) fn decap(&mut self, bytes: &mut [u8], now: Time) -> Result<Verdict, Reason> {
        let outer = outer(bytes)?;
        let id = outer.gre.call_id;
        let owner = self.config.owners.owner(id);
        if owner != self.config.id {
            return Ok(Verdict::HandOver(owner));
        }
        let Some(slot) = self.calls.find(outer.source, id) else {
            return Err(self.stranger(id));
        };
        let result = self.call_packet(bytes, &outer, slot, now);
        if result.is_err()
            && let Some(call) = self.calls.get_mut(slot)
        {
            call.decap.dropped += 1;
        }
        result
    }

    #[cold]
    fn stranger(&self, id: CallId) -> Reason {
        if self.calls.has_id(id) {
            Reason::WrongSource
        } else {
            Reason::UnknownCall
        }
    }

    /// A packet with the id of a call: it comes from the call's source, or this is the frame that shows where that is,
    /// or it is a stranger's.
    fn bind(&mut self, bytes: &[u8], outer: &Outer, slot: u32) -> Result<(), Reason> {
        let mac = self.port(Port::Access).ok_or(Reason::NoPort)?.mac;
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        match call.cold.source {
            Some(source) if source == outer.source => return Ok(()),
            Some(_) => return Err(Reason::WrongSource),
            None => {}
        }
        let payload = outer.gre.payload_range();
        let frame = &bytes[outer.at + payload.start..outer.at + payload.end];
        if outer.gre.seq.is_none() || !is_configure_request(frame) || !is_global(outer.source) {
            return Err(Reason::SourceUnknown);
        }
        if outer.source != call.encap.call.peer {
            self.events.bound(call.encap.call, outer.source)?;
        }
        call.bind(outer.source, mac);
        Ok(())
    }

    #[inline]
    fn call_packet(
        &mut self,
        bytes: &mut [u8],
        outer: &Outer,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        if call.decap.local != outer.destination {
            return Err(Reason::WrongDestination);
        }
        // Where sources are checked strictly, the call was found by this one.
        if self.config.source_check == SourceCheck::Relaxed {
            self.bind(bytes, outer, slot)?;
            call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        }
        call.decap.gre_received += 1;
        call.decap.last_received = now;
        if call.decap.capture {
            self.captured.push(
                &self.counters,
                call.encap.call,
                now,
                CaptureSide::Outer,
                Direction::Receive,
                bytes,
            );
        }
        if let Some(ack) = outer.gre.ack {
            call.gre.sender.acknowledged(ack);
        }
        let Some(seq) = outer.gre.seq else {
            self.counters.add(Total::AcksReceived, 1);
            return Ok(Verdict::Done);
        };
        let payload = outer.gre.payload_range();
        // A frame is much shorter than 65,536 octets.
        let segment = Segment {
            start: (outer.at + payload.start) as u16,
            end: (outer.at + payload.end) as u16,
        };
        match call.gre.receiver.accept(seq) {
            Arrival::First | Arrival::InOrder => {}
            Arrival::Ahead { missing } => self.note_missing(slot, missing),
            // RFC 2637 §4.3: never out of order.
            Arrival::Duplicate => return Err(Reason::GreDuplicate),
            Arrival::Late => return Err(Reason::GreLate),
            arrival @ (Arrival::Held | Arrival::Awaited { .. } | Arrival::Beyond) => {
                return Ok(Verdict::Reorder {
                    slot,
                    seq,
                    arrival,
                    segment,
                });
            }
        }
        self.note_received(slot, now);
        self.deliver(bytes, segment, slot, now)
    }

    /// A GRE payload whose turn it is: PPP, and what is in it.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        bytes: &mut [u8],
        segment: Segment,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        let (start, end) = (usize::from(segment.start), usize::from(segment.end));
        if start == end {
            return Err(Reason::EmptyPayload);
        }
        let frame = ppp::Frame::parse(&bytes[start..end]).map_err(|_| Reason::PppShort)?;
        let at = start + frame.header_len;
        if frame.protocol == Protocol::COMPRESSED
            && let Some(changes) = decrypt::open_later(&mut call, &bytes[at..end], now)
        {
            let at = at + mppe::HEADER_LEN;
            return Ok(Verdict::Decrypt {
                slot,
                at,
                end,
                changes,
            });
        }
        if call.is_waiting() {
            return Ok(Verdict::Wait { slot, segment });
        }
        match frame.protocol {
            Protocol::IPV4 => {
                in_clear(call.decap.gate)?;
                self.inner(bytes, at, end, slot, now)
            }
            Protocol::IPV6 => {
                in_clear(call.six.gate)?;
                self.inner6(bytes, at, end, slot, now)
            }
            Protocol::COMPRESSED => self.decrypt(bytes, at, end, slot, now),
            protocol => self.control(bytes, (start, at, end), protocol, slot, now),
        }
    }

    /// A control frame: up to the control plane. Resets of MPPE end here, as they are about the cipher.
    #[cold]
    fn control(
        &mut self,
        bytes: &mut [u8],
        (start, at, end): (usize, usize, usize),
        protocol: Protocol,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let mut call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        if !call.cold.bucket.take(FRAME_LIMITS, now) {
            return Err(Reason::FrameRate);
        }
        if protocol == Protocol::LCP {
            ccp::protocol_rejected(&mut call, &bytes[at..end], now);
            if let Some(magic) = call.cold.echo
                && let Some(len) = echo::answer(&mut bytes[start..end], magic)
            {
                self.counters.add(Total::EchoesAnswered, 1);
                return Ok(Verdict::Answer {
                    at: start,
                    len,
                    slot,
                });
            }
        }
        if protocol == Protocol::CCP {
            match ccp::judge_received(&mut call, &bytes[at..end])? {
                Answer::Forward => {}
                Answer::Reset => {
                    let len = at - start + ccp::make_reset_ack(&mut bytes[at..end]);
                    self.counters.add(Total::ResetsAnswered, 1);
                    return Ok(Verdict::Answer {
                        at: start,
                        len,
                        slot,
                    });
                }
            }
        }
        self.events.frame(call.encap.call, &bytes[start..end])?;
        self.counters.add(Total::FramesReceived, 1);
        if protocol == Protocol::CCP {
            ccp::received(&mut call, &bytes[at..end]);
        }
        Ok(Verdict::Done)
    }

    /// An inner packet in clear.
    #[inline]
    pub(crate) fn inner(
        &mut self,
        bytes: &mut [u8],
        at: usize,
        end: usize,
        slot: u32,
        now: Time,
    ) -> Result<Verdict, Reason> {
        let call = self.calls.get_mut(slot).ok_or(Reason::UnknownCall)?;
        let mut ip =
            ipv4::Packet::new_checked(&mut bytes[at..end]).map_err(|_| Reason::InnerHeader)?;
        let len = ip.total_len();
        let plain_header = ip.header_len() == ipv4::HEADER_LEN;
        // RFC 1812 §5.2.2: a router must verify it.
        if !ip.verify_checksum() {
            return Err(Reason::InnerChecksum);
        }
        let destination = ip.destination();
        let server = self.config.role == Role::Server;
        let mut ours = false;
        if server {
            let us = self.config.server_address;
            ours = to_us::may_be(destination, us) && to_us::is(&ip, call.decap.address, us);
            if ip.source() != call.decap.address && !ours {
                return Err(Reason::Spoofed);
            }
        } else if destination != call.decap.address {
            return Err(Reason::WrongInnerDestination);
        }
        call.decap.packets += 1;
        call.decap.octets += len as u64;
        if call.decap.capture {
            self.captured.push(
                &self.counters,
                call.encap.call,
                now,
                CaptureSide::Inner,
                Direction::Receive,
                &bytes[at..at + len],
            );
        }
        if ours {
            return self.hand_up(&bytes[at..at + len], slot, now);
        }
        self.counters.add(Total::Decapsulated, 1);
        if ip_protocol(&bytes[at..]) == ipv4::TCP
            && tcp_mss::clamp(&mut bytes[at..at + len], call.decap.mss) == Clamped::Yes
        {
            self.counters.add(Total::MssClamped, 1);
        }
        let host = Verdict::Host { at, len };
        if !server {
            return Ok(host);
        }
        // Linux lowers the time to live of what it forwards, so only what bypasses it is lowered here; what would
        // expire goes to Linux, which answers.
        match self.routes.get(destination) {
            Target::Call { call, slot } => {
                ip = ipv4::Packet::new_checked(&mut bytes[at..end])
                    .map_err(|_| Reason::InnerHeader)?;
                if !ip.decrement_ttl() {
                    return Ok(host);
                }
                Ok(Verdict::Call {
                    at,
                    len,
                    call,
                    slot,
                })
            }
            _ if self.config.server_address == Some(destination) => Ok(host),
            Target::Unused if self.locals.contains(destination) => Ok(host),
            Target::Unused => Ok(Verdict::Unused {
                at,
                len,
                reason: Reason::PoolWithoutCall,
            }),
            Target::Elsewhere => {
                let Some(mac) = self.uplink.and_then(|hop| self.hops.mac(hop)) else {
                    return Ok(host);
                };
                let fits = self
                    .port(Port::Uplink)
                    .is_some_and(|port| len <= usize::from(port.mtu));
                let local = self.locals.contains(destination);
                if local || !fits || !plain_header || !is_global(destination) {
                    return Ok(host);
                }
                ip = ipv4::Packet::new_checked(&mut bytes[at..end])
                    .map_err(|_| Reason::InnerHeader)?;
                if !ip.decrement_ttl() {
                    return Ok(host);
                }
                Ok(Verdict::Uplink { at, len, mac })
            }
        }
    }
}

/// Whether a PPP frame is a whole LCP Configure-Request (RFC 1661 §5.1) with options as they must be (§6).
fn is_configure_request(frame: &[u8]) -> bool {
    let Ok(header) = ppp::Frame::parse(frame) else {
        return false;
    };
    let packet = &frame[header.header_len..];
    let &[code, _, high, low, ..] = packet else {
        return false;
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let Some(mut options) = packet.get(4..len) else {
        return false;
    };
    while let &[_, length, ..] = options {
        match options.get(usize::from(length)..) {
            Some(rest) if length >= 2 => options = rest,
            _ => return false,
        }
    }
    header.protocol == Protocol::LCP && code == 1 && options.is_empty()
}

/// Protocol of a checked IPv4 packet.
fn ip_protocol(packet: &[u8]) -> u8 {
    packet[9]
}

/// Whether a router may send packets for this address onwards: what is not goes to Linux, which knows what to do.
fn is_global(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
}

/// No slot is known for the call.
pub(crate) const UNKNOWN_SLOT: u32 = NO_SLOT;
