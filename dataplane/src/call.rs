//! What a worker knows of each call, and how it finds it.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use turnpike_protocol::gre;
use turnpike_protocol::mppe::{Decryptor, Dialect, Encryptor, Mode, StartKey};
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_protocol::wire::ipv6;
use turnpike_protocol::wire::ppp::{Framing, Protocol};
use turnpike_protocol::{CallId, Time};

use crate::acks;
use crate::api::{
    CallCounters, CallRef, Direction, Encryption, Forward, Forward6, Mppe, SourceCheck,
};
use crate::bucket::{Bucket, Limits};
use crate::ccp::Resets;
use crate::encap::OuterHeader;
use crate::next_hops::Hop;
use crate::table::Table;
use crate::to_us;
use crate::xsk::pages;

/// Control frames that one call may send up: a login needs about 20, and echoes come every few seconds.
pub(crate) const FRAME_LIMITS: Limits = Limits {
    burst: 128,
    interval_ns: 1_000_000_000 / 32,
};

/// The smallest tunnel MTU in octets: RFC 791 §3.2, every internet module must forward so much unfragmented.
const MIN_MTU: u16 = 68;

/// One call. What a received packet touches, what a sent packet touches, and the rest.
///
/// Plain data: no pointers, nothing that only a thread's stack knows.
#[repr(C)]
pub(crate) struct Call {
    pub(crate) gre: Gre,
    pub(crate) decap: Decap,
    pub(crate) encap: Encap,
    pub(crate) six: Six,
    pub(crate) cold: Cold,
}

/// What data may flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// None.
    Closed,
    /// Any.
    Plain,
    /// Encrypted only, and only while both directions are.
    Encrypted,
}

impl Gate {
    fn new(encryption: Encryption) -> Self {
        match encryption {
            Encryption::Plain => Self::Plain,
            Encryption::Required => Self::Encrypted,
        }
    }
}

/// A PPP header and its length.
type PppHeader = ([u8; 4], u8);

fn ppp_header(framing: Framing, protocol: Protocol) -> PppHeader {
    let (bytes, len) = framing.header(protocol);
    (bytes, len as u8)
}

/// Terms of IPv6. All fixed while they stay.
pub(crate) struct Six {
    /// Of both directions.
    pub(crate) gate: Gate,
    /// Largest inner packet in octets.
    pub(crate) mtu: u16,
    /// Largest TCP segment to be announced, in octets.
    pub(crate) mss: u16,
    /// PPP header in front of inner packets, in clear.
    pub(crate) plain_header: PppHeader,
    /// The client's interface identifier.
    identifier: u64,
    /// The client's prefixes: address and mask.
    prefixes: [(u128, u128); 2],
}

impl Six {
    /// No prefix: no address has a bit that the mask leaves out.
    const NO_PREFIX: (u128, u128) = (1, 0);

    const CLOSED: Self = Self {
        gate: Gate::Closed,
        mtu: 0,
        mss: 0,
        plain_header: ([0; 4], 0),
        identifier: 0,
        prefixes: [Self::NO_PREFIX; 2],
    };

    /// Whether an address is in one of the client's prefixes.
    #[inline]
    pub(crate) fn has(&self, address: Ipv6Addr) -> bool {
        let address = address.to_bits();
        let [first, second] = self.prefixes;
        address & first.1 == first.0 || address & second.1 == second.0
    }

    /// The client's address on the link itself.
    #[inline]
    pub(crate) fn link_local(&self) -> Ipv6Addr {
        ipv6::link_local(self.identifier)
    }
}

/// What packets of both directions touch: one cache line.
#[repr(C, align(64))]
pub(crate) struct Gre {
    /// Per packet.
    pub(crate) receiver: gre::Receiver,
    /// Per packet.
    pub(crate) sender: gre::Sender,
    /// Key changes that packets from the peer wait for in this turn.
    pub(crate) due_received: u16,
    /// The same of packets to the peer.
    pub(crate) due_sent: u16,
    /// Where it waits for its acknowledgement to be due.
    pub(crate) ack: acks::Place,
    /// Whether a call has this slot. Here, and not in an `Option` around it, which would look somewhere else.
    open: bool,
}

/// State of the direction from the peer: a cache line for every packet; keys, which a packet in clear does not touch;
/// and what is seldom counted.
#[repr(C, align(64))]
pub(crate) struct Decap {
    /// Per packet.
    pub(crate) last_received: Time,
    /// Per packet.
    pub(crate) gre_received: u64,
    /// Per packet.
    pub(crate) packets: u64,
    /// Per packet.
    pub(crate) octets: u64,
    /// Our outer address. Fixed.
    pub(crate) local: Ipv4Addr,
    /// The client's inner address. Fixed while the terms stay.
    pub(crate) address: Ipv4Addr,
    /// GRE numbers that never came since the last MPPE packet. Per packet.
    pub(crate) mppe_missing: u32,
    /// Packets that wait for earlier ones.
    pub(crate) queue: gre::Queue,
    /// Largest TCP segment to be announced, in octets. Fixed while the terms stay.
    pub(crate) mss: u16,
    /// Fixed while the terms stay.
    pub(crate) gate: Gate,
    /// Whether to copy packets to the capture ring.
    pub(crate) capture: bool,
    /// Packets in a row that decrypted to garbage.
    pub(crate) garbage: u8,
    /// Whether the running keys are stateful. Fixed while they run.
    pub(crate) stateful: bool,
    pub(crate) dropped: u64,
    /// Running keys. Per packet.
    pub(crate) decryptor: Option<Decryptor>,
    pub(crate) missing: u64,
    pub(crate) held: u64,
}

/// State of the direction to the peer, by cache lines: what says where packets go; what every packet to the peer touches,
/// and the keys.
#[repr(C, align(64))]
pub(crate) struct Encap {
    /// Ethernet and outer IPv4 header. Fixed while the next hop stays.
    pub(crate) outer: OuterHeader,
    /// Which call this is, to be told apart from one that had the slot before. Fixed.
    pub(crate) call: CallRef,
    /// Fixed.
    pub(crate) peer_id: CallId,
    /// Fixed while the route to the peer stays.
    pub(crate) hop: Hop,
    /// Largest inner packet in octets. Fixed while the terms stay.
    pub(crate) mtu: u16,
    /// Fixed while the terms stay.
    pub(crate) gate: Gate,
    /// Whether to copy packets to the capture ring.
    pub(crate) capture: bool,
    /// Per packet, as what follows: the first line stays as memory has it.
    pub(crate) gre_sent: u64,
    pub(crate) packets: u64,
    pub(crate) octets: u64,
    pub(crate) ident: u16,
    /// PPP header in front of inner packets, in clear. Fixed while the terms stay.
    pub(crate) plain_header: PppHeader,
    /// PPP header in front of MPPE packets. Fixed while the terms stay.
    pub(crate) mppe_header: PppHeader,
    pub(crate) dropped: u64,
    /// Running keys. Per packet.
    pub(crate) encryptor: Option<Encryptor>,
}

/// Octets of a cache line.
const LINE: usize = 64;

// What packets touch lies in these lines, and in no others; see `Call::touched`.
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Gre>() == LINE && offset_of!(Call, gre) == 0);
    assert!(offset_of!(Call, decap) == LINE);
    assert!(offset_of!(Decap, decryptor) == LINE);
    assert!(Decryptor::PER_PACKET <= 3 * LINE);
    assert!(offset_of!(Encap, gre_sent) == LINE);
    assert!(offset_of!(Encap, encryptor) < 2 * LINE);
    assert!(offset_of!(Encap, encryptor) + Encryptor::PER_PACKET <= 3 * LINE);
    assert!(size_of::<Call>() <= 12 * LINE);
};

/// What packets seldom touch.
pub(crate) struct Cold {
    /// With [`SourceCheck::Relaxed`]: where its GRE comes from, once that is known.
    pub(crate) source: Option<Ipv4Addr>,
    /// Our magic number, while echoes are answered here.
    pub(crate) echo: Option<u32>,
    /// Of control frames.
    pub(crate) bucket: Bucket,
    /// Of packets for ourselves.
    pub(crate) questions: Bucket,
    pub(crate) resets: Resets,
    /// Of receive keys that run no more.
    pub(crate) key_changes: u64,
    /// Keys for the peer's next Configure-Ack.
    pub(crate) receive: Option<Loaded>,
    /// Keys for our next Configure-Ack.
    pub(crate) transmit: Option<Loaded>,
    pub(crate) mppe_receive: Option<Mppe>,
    pub(crate) mppe_transmit: Option<Mppe>,
}

/// Keys that wait for the frame they start at.
pub(crate) struct Loaded {
    /// Identifier of the Configure-Request they belong to.
    pub(crate) identifier: u8,
    pub(crate) key: StartKey,
    pub(crate) mode: Mode,
    /// Receive keys: our Configure-Requests with this identifier that have not been acknowledged.
    pub(crate) requests: u8,
    /// Receive keys: one of them has.
    pub(crate) acknowledged: bool,
    /// Receive keys: key changes that packets may still cost which claim that the Ack was overtaken.
    pub(crate) credit: u32,
}

impl Call {
    /// The cache lines of a call that a packet touches.
    #[inline]
    const fn touched(direction: Direction, encrypted: bool) -> [Range<usize>; 2] {
        const ENCAP: usize = core::mem::offset_of!(Call, encap) / LINE;
        match (direction, encrypted) {
            (Direction::Receive, false) => [0..2, 0..0],
            // One look at whether there are keys for the other direction.
            (Direction::Receive, true) => [0..5, ENCAP + 2..ENCAP + 3],
            (Direction::Transmit, false) => [0..1, ENCAP..ENCAP + 2],
            (Direction::Transmit, true) => [0..3, ENCAP..ENCAP + 3],
        }
    }

    /// A call whose outer packets leave from `mac` towards `hop`; `dialect` is what resets do to its keys, if known.
    pub(crate) fn new(
        call: CallRef,
        peer_id: CallId,
        hop: Hop,
        mac: MacAddr,
        receiver: gre::Receiver,
        dialect: Option<Dialect>,
    ) -> Self {
        Self {
            gre: Gre {
                receiver,
                sender: gre::Sender::default(),
                due_received: 0,
                due_sent: 0,
                ack: acks::Place::NONE,
                open: true,
            },
            decap: Decap {
                local: call.local,
                address: Ipv4Addr::UNSPECIFIED,
                gate: Gate::Closed,
                capture: false,
                garbage: 0,
                mss: u16::MAX,
                queue: gre::Queue::EMPTY,
                mppe_missing: 0,
                last_received: Time::ZERO,
                gre_received: 0,
                packets: 0,
                octets: 0,
                missing: 0,
                held: 0,
                dropped: 0,
                decryptor: None,
                stateful: false,
            },
            encap: Encap {
                outer: OuterHeader::new(mac, call.local, call.peer),
                call,
                hop,
                peer_id,
                ident: 0,
                gate: Gate::Closed,
                capture: false,
                mtu: MIN_MTU,
                plain_header: ([0; 4], 0),
                mppe_header: ([0; 4], 0),
                gre_sent: 0,
                packets: 0,
                octets: 0,
                dropped: 0,
                encryptor: None,
            },
            six: Six::CLOSED,
            cold: Cold {
                source: None,
                echo: None,
                bucket: Bucket::new(FRAME_LIMITS),
                questions: Bucket::new(to_us::LIMITS),
                resets: Resets::new(dialect),
                key_changes: 0,
                receive: None,
                transmit: None,
                mppe_receive: None,
                mppe_transmit: None,
            },
        }
    }

    /// What stands in a slot that no call has.
    fn vacant() -> Self {
        let nobody = CallRef {
            local: Ipv4Addr::UNSPECIFIED,
            peer: Ipv4Addr::UNSPECIFIED,
            id: CallId(0),
        };
        let receiver = gre::Receiver::new(gre::AckSettings::default());
        let mut call = Self::new(
            nobody,
            CallId(0),
            Hop::NONE,
            MacAddr::default(),
            receiver,
            None,
        );
        call.gre.open = false;
        call
    }

    /// Lets IPv4 flow on these terms. `room` is the largest inner packet that fits the access port unfragmented.
    pub(crate) fn forward(&mut self, forward: &Forward, room: u16) {
        let gate = Gate::new(forward.encryption);
        let mtu = forward.mtu.min(room).max(MIN_MTU);
        let framing = Framing {
            compress_address: forward.compress_address,
            compress_protocol: forward.compress_protocol,
        };
        self.decap.address = forward.address;
        self.decap.gate = gate;
        // RFC 9293 §3.7.1: the size of a segment without IPv4 and TCP header.
        self.decap.mss = mtu - 40;
        self.encap.gate = gate;
        self.encap.mtu = mtu;
        self.encap.plain_header = ppp_header(framing, Protocol::IPV4);
        self.encap.mppe_header = ppp_header(framing, Protocol::COMPRESSED);
    }

    /// The same for IPv6.
    pub(crate) fn forward6(&mut self, forward: &Forward6, room: u16) {
        let mtu = forward.mtu.min(room);
        // RFC 8200 §5: every link has so much.
        if mtu < ipv6::MIN_MTU {
            return self.hold6();
        }
        let framing = Framing {
            compress_address: forward.compress_address,
            compress_protocol: forward.compress_protocol,
        };
        self.encap.mppe_header = ppp_header(framing, Protocol::COMPRESSED);
        self.six = Six {
            gate: Gate::new(forward.encryption),
            mtu,
            // Without IPv6 and TCP header.
            mss: mtu - 60,
            plain_header: ppp_header(framing, Protocol::IPV6),
            identifier: forward.identifier,
            prefixes: forward.prefixes.map(|prefix| match prefix {
                Some(prefix) => (prefix.network().to_bits(), prefix.netmask().to_bits()),
                None => Six::NO_PREFIX,
            }),
        };
    }

    /// Stops IPv6.
    pub(crate) fn hold6(&mut self) {
        self.six = Six::CLOSED;
    }

    /// Stops IPv4.
    pub(crate) fn hold(&mut self) {
        self.decap.gate = Gate::Closed;
        self.encap.gate = Gate::Closed;
        self.cold.echo = None;
    }

    /// From now on the call's GRE comes from, and goes to, this address.
    pub(crate) fn bind(&mut self, source: Ipv4Addr, mac: MacAddr) {
        self.cold.source = Some(source);
        self.encap.outer = OuterHeader::new(mac, self.decap.local, source);
    }

    /// Whether packets of it wait for their cipher.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.gre.due_received > 0 || self.gre.due_sent > 0
    }

    /// Copies packets to the capture ring, or stops doing so.
    pub(crate) fn capture(&mut self, on: bool) {
        self.decap.capture = on;
        self.encap.capture = on;
    }

    pub(crate) fn counters(&self) -> CallCounters {
        CallCounters {
            received_packets: self.decap.packets,
            received_octets: self.decap.octets,
            sent_packets: self.encap.packets,
            sent_octets: self.encap.octets,
            gre_received: self.decap.gre_received,
            gre_sent: self.encap.gre_sent,
            missing: self.decap.missing,
            held: self.decap.held,
            dropped: self.decap.dropped + self.encap.dropped,
            mppe_key_changes: self.cold.key_changes
                + (self.decap.decryptor.as_ref()).map_or(0, Decryptor::changes_made),
            last_received_ns: self.decap.last_received.as_nanos(),
            mppe_receive: self.cold.mppe_receive,
            mppe_transmit: self.cold.mppe_transmit,
        }
    }
}

/// The calls of one worker. Its memory is allocated at start.
pub(crate) struct Calls {
    slots: Box<[Call]>,
    free: Vec<u32>,
    index: Table<u64>,
    source_check: SourceCheck,
    /// How many calls have each id, to tell a stranger's packet from one for nobody.
    ids: Box<[u16]>,
}

/// A slot that no call has.
pub(crate) const NO_SLOT: u32 = u32::MAX;

impl Calls {
    /// Room for this many calls.
    pub(crate) fn new(limit: usize, source_check: SourceCheck) -> Self {
        let count = u32::try_from(limit).unwrap_or(NO_SLOT);
        Self {
            slots: pages::slice(limit, Call::vacant),
            free: (0..count).rev().collect(),
            index: Table::new(limit),
            source_check,
            ids: vec![0; 1 << 16].into_boxed_slice(),
        }
    }

    /// What calls are found by.
    #[inline]
    fn key(&self, peer: Ipv4Addr, id: CallId) -> u64 {
        let peer = match self.source_check {
            SourceCheck::Strict => peer.to_bits(),
            SourceCheck::Relaxed => 0,
        };
        u64::from(peer) << 16 | u64::from(id.0)
    }

    /// The slot of the call that this peer's packets with this id belong to. With [`SourceCheck::Relaxed`] of the call
    /// with this id: whether they come from where they should is for the caller to see.
    #[inline]
    pub(crate) fn find(&self, peer: Ipv4Addr, id: CallId) -> Option<u32> {
        self.index.get(self.key(peer, id))
    }

    /// The slot of a call. `hint` is where it may be.
    #[inline]
    pub(crate) fn slot(&self, call: &CallRef, hint: u32) -> Option<u32> {
        if self.is(hint, call) {
            return Some(hint);
        }
        let slot = self.find(call.peer, call.id)?;
        self.is(slot, call).then_some(slot)
    }

    fn is(&self, slot: u32, call: &CallRef) -> bool {
        self.get(slot)
            .is_some_and(|known| known.encap.call == *call)
    }

    /// Whether any peer's call has this id.
    pub(crate) fn has_id(&self, id: CallId) -> bool {
        self.ids[usize::from(id.0)] > 0
    }

    /// Has memory fetched for [`find`](Self::find).
    #[inline]
    pub(crate) fn fetch_index(&self, peer: Ipv4Addr, id: CallId) {
        self.index.fetch(self.key(peer, id));
    }

    /// Has memory fetched that a packet of a call will need, with its keys where `encrypted`.
    #[inline]
    pub(crate) fn fetch(&self, slot: u32, direction: Direction, encrypted: bool) {
        let Some(place) = self.slots.get(slot as usize) else {
            return;
        };
        for lines in Call::touched(direction, encrypted) {
            pages::fetch(place, lines.start * LINE..lines.end * LINE);
        }
    }

    /// Octets of memory, but for what is there once.
    #[cfg(test)]
    pub(crate) fn octets(&self) -> usize {
        size_of_val(&*self.slots) + size_of::<u32>() * self.free.capacity() + self.index.octets()
    }

    /// Calls that are open.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is room for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Call> {
        self.slots.get(slot as usize).filter(|call| call.gre.open)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Call> {
        self.slots
            .get_mut(slot as usize)
            .filter(|call| call.gre.open)
    }

    /// Opens a call. None when there is no room, or one with this peer and id (with [`SourceCheck::Relaxed`]: with
    /// this id).
    pub(crate) fn open(&mut self, call: Call) -> Option<u32> {
        let CallRef { peer, id, .. } = call.encap.call;
        if self.find(peer, id).is_some() {
            return None;
        }
        let slot = self.free.pop()?;
        let inserted = self.index.insert(self.key(peer, id), slot);
        debug_assert!(inserted, "the table has as much room as there are slots");
        self.ids[usize::from(id.0)] += 1;
        self.slots[slot as usize] = call;
        Some(slot)
    }

    pub(crate) fn close(&mut self, slot: u32) -> Option<Call> {
        let call = core::mem::replace(self.get_mut(slot)?, Call::vacant());
        let CallRef { peer, id, .. } = call.encap.call;
        self.index.remove(self.key(peer, id));
        self.ids[usize::from(id.0)] -= 1;
        self.free.push(slot);
        Some(call)
    }
}
