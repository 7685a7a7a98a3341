//! What moves frames: a worker's state and its device, and the ways a packet takes between tunnels and ports.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use turnpike_protocol::mppe::Dialect;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{ipv4, ipv6};
use turnpike_protocol::{CallId, Time};

use crate::acks::Acks;
use crate::api::{CallRef, Direction, Port, PortInfo, WorkerId};
use crate::bucket::{Bucket, Limits};
use crate::burst::{Bursts, Packet};
use crate::calls::Calls;
use crate::ccp;
use crate::cipher::Engine;
use crate::counters::{Counters, Reason, Total};
use crate::decap::{UNKNOWN_SLOT, Verdict, may_be_inner};
use crate::device::{BATCH, Batch, Device, Frame, Refused};
use crate::handoff::{Origin, Peers};
use crate::locals::Locals;
use crate::next_hops::{Hop, NextHops};
use crate::reorder::Reorder;
use crate::rings::{CaptureSender, EventSender};
use crate::routes::{Routes, Target};
use crate::routes6::Routes6;
use crate::version::Version;
use crate::worker::WorkerConfig;

/// ICMP errors of one kind that one worker sends: as Linux does in all (`icmp_msgs_per_sec`). Those about packets that
/// are too big have a bucket of their own, so that nobody's scan of unused addresses keeps others from learning their
/// path's MTU.
pub(crate) const ICMP_LIMITS: Limits = Limits {
    burst: 50,
    interval_ns: 1_000_000,
};

/// With fewer calls than this, their hot parts stay in a core's own cache (some 300 octets each).
const CALLS_IN_CACHE: usize = 1024;

/// Packets that are not worth looking ahead for.
const FEW: usize = 4;

/// How many packets lie between the rounds of a look-up, and between the last one and its packet. Memory comes within
/// the time of some three packets; a processor waits for so many lines at once and no more, so nothing is fetched much
/// sooner.
const AHEAD: usize = 6;

/// Rounds of a look-up, each of which needs memory that the one before has had fetched.
const fn rounds(port: Port) -> usize {
    match port {
        // The index.
        Port::Access => 2,
        // The index and the route.
        Port::Uplink | Port::Host => 3,
    }
}

/// A worker's state, without its device: what packet functions work on.
pub(crate) struct Core {
    pub(crate) config: WorkerConfig,
    pub(crate) calls: Calls,
    pub(crate) routes: Routes,
    pub(crate) routes6: Routes6,
    pub(crate) hops: NextHops,
    /// Addresses of the machine.
    pub(crate) locals: Locals,
    /// Next hop of inner packets, on the uplink.
    pub(crate) uplink: Option<Hop>,
    /// Calls that owe an acknowledgement, and when.
    pub(crate) acks: Acks,
    pub(crate) reorder: Reorder,
    pub(crate) engine: Engine,
    /// What resets do to the keys of new calls, if that is known beforehand.
    pub(crate) dialect: Option<Dialect>,
    pub(crate) icmp: Bucket,
    pub(crate) icmp_too_big: Bucket,
    pub(crate) events: EventSender,
    pub(crate) captured: CaptureSender,
    pub(crate) counters: Arc<Counters>,
    /// Some call has, or had, keys.
    pub(crate) encrypts: bool,
}

impl Core {
    pub(crate) fn new(
        config: WorkerConfig,
        events: EventSender,
        captured: CaptureSender,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            calls: Calls::new(config.calls, config.source_check),
            routes: Routes::new(config.routes),
            routes6: Routes6::new(config.routes6),
            // One for each call, a few for neighbours that no call uses.
            hops: NextHops::new(config.calls + 1024),
            locals: Locals::new(),
            uplink: None,
            acks: Acks::new(config.calls),
            dialect: None,
            reorder: Reorder::new(&config.reordering, config.calls),
            icmp: Bucket::new(ICMP_LIMITS),
            icmp_too_big: Bucket::new(ICMP_LIMITS),
            events,
            engine: Engine::new(),
            captured,
            counters,
            encrypts: false,
            config,
        }
    }

    /// What the call of a frame is found by, without checking anything. A server's calls only: a client seldom has many.
    #[inline]
    fn clue(port: Port, frame: &[u8]) -> Clue {
        let Some(header) = frame.first_chunk::<54>() else {
            return Clue::None;
        };
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        match (port, Version::of_frame(frame)) {
            (Port::Access, _) => {
                let id = CallId(u16::from_be_bytes([header[40], header[41]]));
                Clue::Call(address(26), id)
            }
            (Port::Uplink | Port::Host, Some(Version::Six)) => header[ethernet::HEADER_LEN + 24..]
                .first_chunk()
                .map_or(Clue::None, |octets| {
                    Clue::Six(Ipv6Addr::from_octets(*octets))
                }),
            (Port::Uplink | Port::Host, _) => Clue::Four(address(30)),
        }
    }

    /// The next round of a look-up: has memory fetched for the one after it, or for the packet.
    #[inline]
    fn follow(&self, clue: &mut Clue) {
        *clue = match *clue {
            Clue::Call(peer, id) => {
                self.calls.fetch_index(peer, id);
                Clue::CallFetched(peer, id)
            }
            Clue::CallFetched(peer, id) => {
                if let Some(slot) = self.calls.find(peer, id) {
                    self.calls.fetch(slot, Direction::Receive, self.encrypts);
                }
                Clue::None
            }
            Clue::Four(address) => {
                self.routes.fetch(address);
                Clue::FourFetched(address)
            }
            Clue::FourFetched(address) => self.routes.next(address).map_or(Clue::None, Clue::Route),
            Clue::Route(at) => {
                let slot = self.routes.slot(at);
                self.calls.fetch(slot, Direction::Transmit, self.encrypts);
                Clue::None
            }
            Clue::Six(address) => {
                self.routes6.fetch(address);
                Clue::SixFetched(address)
            }
            Clue::SixFetched(address) => {
                if let Target::Call { slot, .. } = self.routes6.get(address) {
                    self.calls.fetch(slot, Direction::Transmit, self.encrypts);
                }
                Clue::None
            }
            Clue::None => Clue::None,
        };
    }

    /// Octets of memory that are there for calls.
    #[cfg(test)]
    fn octets(&self) -> usize {
        let parts = [
            self.calls.octets(),
            self.routes.octets(),
            self.hops.octets(),
            self.acks.octets(),
            self.reorder.octets(),
        ];
        parts.into_iter().sum()
    }

    #[inline]
    pub(crate) fn port(&self, port: Port) -> Option<&PortInfo> {
        self.config.ports[port as usize].as_ref()
    }
}

/// How far the look-up of a frame's call has come.
#[derive(Clone, Copy)]
enum Clue {
    /// It is done, or there is none.
    None,
    Call(Ipv4Addr, CallId),
    /// Memory of the index is fetched.
    CallFetched(Ipv4Addr, CallId),
    Four(Ipv4Addr),
    FourFetched(Ipv4Addr),
    /// A place among routes, which is fetched.
    Route(u32),
    Six(Ipv6Addr),
    SixFetched(Ipv6Addr),
}

/// How a frame came to the worker that has it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    /// Where it came from in the first place.
    pub(crate) origin: Origin,
    /// Another worker gave it here: it must not be given on.
    pub(crate) handed_over: bool,
}

impl Arrival {
    pub(crate) const fn port(port: Port) -> Self {
        Self {
            origin: Origin::Port(port),
            handed_over: false,
        }
    }

    pub(crate) const TUNNEL: Self = Self {
        origin: Origin::Tunnel,
        handed_over: false,
    };
}

/// State and device.
pub(crate) struct Path<D> {
    pub(crate) core: Core,
    pub(crate) peers: Peers,
    pub(crate) bursts: Bursts,
    pub(crate) device: D,
}

impl<D: Device> Path<D> {
    /// Ends a frame under a name.
    pub(crate) fn drop(&mut self, frame: Frame, reason: Reason) {
        self.core.counters.dropped(reason);
        self.device.release(frame);
    }

    #[inline]
    pub(crate) fn transmit(&mut self, port: Port, frame: Frame) {
        let octets = frame.len() as u64;
        match self.device.transmit(port, frame) {
            Ok(()) => self.core.counters.add_transmitted(port, 1, octets),
            Err(refused) => self.core.counters.dropped(match refused {
                Refused::Full => Reason::TransmitFull,
                Refused::NoMemory => Reason::NoMemory,
                Refused::NoPort => Reason::NoPort,
            }),
        }
    }

    /// Works on a batch from a port. Memory that look-ups of later packets and their calls need is fetched meanwhile, from
    /// the first round on: what is in no cache takes longer to come than a packet takes, and of all packets at once more
    /// would be asked for than a core can wait for. Not worth it while all calls fit a cache.
    #[inline]
    pub(crate) fn receive_all(&mut self, port: Port, batch: &mut Batch, now: Time) {
        let mut clues = ArrayVec::<Clue, BATCH>::new();
        let rounds = rounds(port);
        if batch.len() >= FEW && self.core.calls.len() >= CALLS_IN_CACHE {
            clues.extend(
                batch
                    .iter_mut()
                    .map(|frame| Core::clue(port, self.device.bytes(frame))),
            );
            for round in (1..=rounds).rev() {
                for clue in clues.iter_mut().take(round * AHEAD) {
                    self.core.follow(clue);
                }
            }
        }
        for (n, frame) in batch.drain(..).enumerate() {
            for round in (1..=rounds).rev() {
                if let Some(clue) = clues.get_mut(n + round * AHEAD) {
                    self.core.follow(clue);
                }
            }
            self.receive(frame, Arrival::port(port), now);
        }
    }

    /// Works on an Ethernet frame from anywhere.
    #[inline]
    pub(crate) fn receive(&mut self, frame: Frame, arrival: Arrival, now: Time) {
        match arrival.origin {
            Origin::Port(Port::Access) => self.receive_outer(frame, arrival, now),
            Origin::Port(Port::Uplink | Port::Host) | Origin::Tunnel => {
                self.route_inner(frame, arrival, now);
            }
        }
    }

    #[inline]
    fn receive_outer(&mut self, mut frame: Frame, arrival: Arrival, now: Time) {
        match self.core.decap(self.device.bytes(&mut frame), now) {
            Ok(verdict) => self.carry_out(frame, verdict, arrival, now),
            Err(reason) if may_be_inner(reason) && self.is_routed(&mut frame) => {
                self.route_inner(frame, arrival, now);
            }
            Err(reason) => self.drop(frame, reason),
        }
    }

    /// Whether a frame holds an inner packet for us.
    fn is_routed(&mut self, frame: &mut Frame) -> bool {
        let bytes = self.device.bytes(frame);
        let Some(version) = Version::of_frame(bytes) else {
            return false;
        };
        let packet = &bytes[ethernet::HEADER_LEN..];
        let target =
            match version {
                Version::Four => ipv4::Packet::new_checked(packet)
                    .map(|ip| self.core.routes.get(ip.destination())),
                Version::Six => ipv6::Packet::new_checked(packet)
                    .map(|ip| self.core.routes6.get(ip.destination())),
            };
        target.is_ok_and(|target| target != Target::Elsewhere)
    }

    #[inline]
    pub(crate) fn carry_out(
        &mut self,
        mut frame: Frame,
        verdict: Verdict,
        arrival: Arrival,
        now: Time,
    ) {
        match verdict {
            Verdict::Done => self.device.release(frame),
            Verdict::Host { at, len } => {
                let mac = self.core.config.host_peer_mac;
                self.leave(Port::Host, frame, at, len, mac);
            }
            Verdict::Uplink { at, len, mac } => self.leave(Port::Uplink, frame, at, len, mac),
            Verdict::HandOver(owner) => {
                // The octets have not been touched yet.
                if arrival.handed_over {
                    self.drop(frame, Reason::UnknownCall);
                } else {
                    self.hand_over(frame, owner, arrival.origin);
                }
            }
            Verdict::Call {
                at,
                len,
                call,
                slot,
            } => {
                if cut_to_inner(&mut frame, at, len) {
                    self.enter_call(frame, call, slot, Arrival::TUNNEL, now);
                } else {
                    self.drop(frame, Reason::NoHeadroom);
                }
            }
            Verdict::Unused { at, len, reason } => {
                if cut_to_inner(&mut frame, at, len) {
                    self.unused(frame, reason, Arrival::TUNNEL, now);
                } else {
                    self.drop(frame, Reason::NoHeadroom);
                }
            }
            Verdict::Decrypt {
                slot,
                at,
                end,
                changes,
            } => {
                let packet = Packet {
                    frame,
                    slot,
                    direction: Direction::Receive,
                    at,
                    end,
                    start: 0,
                };
                self.make_room(Direction::Receive, changes, now);
                self.defer(packet, changes);
            }
            Verdict::Wait { slot, segment } => {
                self.flush(now);
                self.deliver(frame, segment, slot, now);
            }
            Verdict::Reorder {
                slot,
                seq,
                arrival,
                segment,
            } => self.reorder(frame, slot, seq, arrival, segment, now),
            Verdict::Reset {
                reason,
                identifier,
                slot,
            } => {
                self.drop(frame, reason);
                self.core.counters.add(Total::ResetsRequested, 1);
                self.send_control(slot, &ccp::reset_request(identifier), now);
            }
            Verdict::Answer { at, len, slot } => {
                if frame.cut_front(at) && frame.set_len(len) {
                    self.send_ppp(frame, slot, now);
                } else {
                    self.drop(frame, Reason::NoHeadroom);
                }
            }
        }
    }

    /// Sends an inner packet out of a port.
    #[inline]
    pub(crate) fn leave(
        &mut self,
        port: Port,
        mut frame: Frame,
        at: usize,
        len: usize,
        mac: MacAddr,
    ) {
        let Some(info) = self.core.port(port) else {
            return self.drop(frame, Reason::NoPort);
        };
        if !cut_to_inner(&mut frame, at, len) {
            return self.drop(frame, Reason::NoHeadroom);
        }
        let bytes = self.device.bytes(&mut frame);
        ethernet::Header {
            destination: mac,
            source: info.mac,
            ethertype: Version::of(&bytes[ethernet::HEADER_LEN..]).ethertype(),
        }
        .emit(bytes);
        self.transmit(port, frame);
    }

    pub(crate) fn hand_over(&mut self, mut frame: Frame, owner: WorkerId, origin: Origin) {
        let bytes = self.device.bytes(&mut frame);
        if origin == Origin::Tunnel {
            set_ethertype(bytes);
        }
        if self.peers.hand_over(owner, origin, bytes) {
            self.core.counters.add(Total::HandedOver, 1);
            self.device.release(frame);
        } else {
            self.drop(frame, Reason::HandoffFull);
        }
    }

    /// An Ethernet frame or IPv4 datagram that comes from another worker or back from Linux.
    pub(crate) fn receive_copy(
        &mut self,
        octets: &[u8],
        header: bool,
        arrival: Arrival,
        now: Time,
    ) {
        let front = if header { 0 } else { ethernet::HEADER_LEN };
        let Some(mut frame) = self.device.allocate(Port::Access) else {
            return self.core.counters.dropped(Reason::NoMemory);
        };
        if !frame.set_len(front + octets.len()) {
            return self.drop(frame, Reason::DatagramTooLong);
        }
        let bytes = self.device.bytes(&mut frame);
        if !header {
            ethernet::Header {
                destination: self.core.config.ports[Port::Access as usize]
                    .map_or(MacAddr::default(), |port| port.mac),
                source: MacAddr::default(),
                ethertype: ethernet::IPV4,
            }
            .emit(bytes);
        }
        bytes[front..].copy_from_slice(octets);
        self.receive(frame, arrival, now);
    }

    /// Adds a route; its call may be this worker's.
    pub(crate) fn add_route(&mut self, prefix: ipnet::Ipv4Net, call: CallRef) -> bool {
        let slot = self
            .core
            .calls
            .slot(&call, UNKNOWN_SLOT)
            .unwrap_or(UNKNOWN_SLOT);
        self.core.routes.add(prefix, call, slot)
    }
}

/// Cuts a frame to an inner packet and room for an Ethernet header, which is not written yet.
#[inline]
fn cut_to_inner(frame: &mut Frame, at: usize, len: usize) -> bool {
    at >= ethernet::HEADER_LEN
        && frame.cut_front(at - ethernet::HEADER_LEN)
        && frame.set_len(ethernet::HEADER_LEN + len)
}

/// Makes the octets in front of an inner packet, left over from outer headers, say that it is one.
pub(crate) fn set_ethertype(bytes: &mut [u8]) {
    if let Some((header, packet)) = bytes.split_at_mut_checked(ethernet::HEADER_LEN) {
        header[12..].copy_from_slice(&Version::of(packet).ethertype().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use turnpike_protocol::Role;
    use turnpike_protocol::gre::AckSettings;

    use super::*;
    use crate::api::{Owners, SourceCheck};
    use crate::rings::{RingSizes, channel};
    use crate::worker::Reordering;

    /// Whatever a worker's tables are sized for.
    #[test]
    fn an_idle_call_takes_less_than_a_kibibyte() {
        for calls in [10_000, 65_000, 70_000, 90_000, 131_072] {
            let config = WorkerConfig {
                id: WorkerId(0),
                role: Role::Server,
                owners: Owners::round_robin(1),
                source_check: SourceCheck::Strict,
                calls,
                routes: calls,
                routes6: 0,
                ports: [None; 3],
                host_peer_mac: MacAddr::default(),
                server_address: None,
                server_address6: None,
                acks: AckSettings::default(),
                reordering: Reordering::default(),
            };
            let (_, end) = channel(&RingSizes::default()).unwrap();
            let core = Core::new(config, end.events, end.captured, end.counters);
            let each = core.octets() / calls;
            assert!(each < 1024, "{each} octets for one of {calls} calls");
        }
    }
}
