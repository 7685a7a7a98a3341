//! What a worker knows of each call.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use turnpike_protocol::gre;
use turnpike_protocol::mppe::{Decryptor, Dialect, Encryptor, Mode, StartKey};
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_protocol::wire::ipv6;
use turnpike_protocol::wire::ppp::{Framing, Protocol};
use turnpike_protocol::{CallId, Time};

use crate::acks;
use crate::api::{CallCounters, CallRef, Direction, Encryption, Forward, Forward6, Mppe};
use crate::bucket::{Bucket, Limits};
use crate::ccp::Resets;
use crate::encap::OuterHeader;
use crate::next_hops::Hop;
use crate::to_us;

/// Control frames that one call may send up: a login needs about 20, and echoes come every few seconds.
pub(crate) const FRAME_LIMITS: Limits = Limits {
    burst: 128,
    interval_ns: 1_000_000_000 / 32,
};

/// The smallest tunnel MTU in octets: RFC 791 §3.2, every internet module must forward so much unfragmented.
const MIN_MTU: u16 = 68;

/// One call, wherever its parts lie.
pub(crate) struct Call<'a> {
    pub(crate) gre: &'a mut Gre,
    pub(crate) decap: &'a mut Decap,
    pub(crate) encap: &'a mut Encap,
    pub(crate) keys: &'a mut Keys,
    pub(crate) six: &'a mut Six,
    pub(crate) cold: &'a mut Cold,
}

/// What every packet of a call touches, and all that one of IPv4 in clear touches.
#[repr(C)]
pub(crate) struct Hot {
    pub(crate) gre: Gre,
    pub(crate) decap: Decap,
    pub(crate) encap: Encap,
}

/// What else a worker knows of a call.
#[repr(C)]
pub(crate) struct Rest {
    pub(crate) keys: Keys,
    pub(crate) six: Six,
    pub(crate) cold: Cold,
}

/// A call that has no slot: not yet, or no more.
///
/// Plain data: no pointers, nothing that only a thread's stack knows.
pub(crate) struct Parts {
    pub(crate) hot: Hot,
    pub(crate) rest: Rest,
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
    pub(crate) open: bool,
}

/// State of the direction from the peer: one cache line.
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
}

/// State of the direction to the peer, by cache lines: what says where packets go; what every packet to the peer touches.
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
    /// Packets from the peer that never came. Seldom; it is here that there is room for them.
    pub(crate) missing: u64,
    /// Packets from the peer that waited for earlier ones. Seldom, too.
    pub(crate) held: u64,
}

/// Running keys. Per packet.
#[repr(C, align(64))]
pub(crate) struct Keys {
    /// Of the direction to the peer.
    pub(crate) encryptor: Option<Encryptor>,
    /// Of the direction from the peer. Whether there are any of either lies where the two meet, in one line.
    pub(crate) decryptor: Option<Decryptor>,
}

/// Octets of a cache line.
pub(crate) const LINE: usize = 64;

// What packets touch lies in these lines, and in no others; see `touched`.
const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Gre>() == LINE && offset_of!(Hot, gre) == 0);
    assert!(size_of::<Decap>() == LINE && offset_of!(Hot, decap) == LINE);
    assert!(offset_of!(Hot, encap) == 2 * LINE && offset_of!(Encap, gre_sent) == LINE);
    assert!(size_of::<Hot>() == 4 * LINE);
    assert!(offset_of!(Rest, keys) == 0 && Encryptor::PER_PACKET <= 2 * LINE);
    assert!(offset_of!(Keys, decryptor) >= LINE && offset_of!(Keys, decryptor) < 2 * LINE);
    assert!(size_of::<Keys>() <= 4 * LINE);
    assert!(size_of::<Rest>() <= 8 * LINE);
};
/// What packets seldom touch.
pub(crate) struct Cold {
    /// With [`SourceCheck::Relaxed`](crate::api::SourceCheck::Relaxed): where its GRE comes from, once that is known.
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

impl Hot {
    /// The cache lines that a packet touches.
    #[inline]
    pub(crate) const fn touched(direction: Direction) -> [Range<usize>; 2] {
        match direction {
            Direction::Receive => [0..2, 0..0],
            Direction::Transmit => [0..1, 2..4],
        }
    }
}

impl Keys {
    /// The cache lines that an MPPE packet touches: the keys of its direction, and whether there are any of the other.
    #[inline]
    pub(crate) const fn touched(direction: Direction) -> Range<usize> {
        match direction {
            Direction::Receive => 1..4,
            Direction::Transmit => 0..2,
        }
    }
}

impl Parts {
    /// A call whose outer packets leave from `mac` towards `hop`; `dialect` is what resets do to its keys, if known.
    pub(crate) fn new(
        call: CallRef,
        peer_id: CallId,
        hop: Hop,
        mac: MacAddr,
        receiver: gre::Receiver,
        dialect: Option<Dialect>,
    ) -> Self {
        let hot = Hot {
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
                dropped: 0,
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
                missing: 0,
                held: 0,
            },
        };
        let rest = Rest {
            keys: Keys {
                encryptor: None,
                decryptor: None,
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
        };
        Self { hot, rest }
    }

    /// What stands in a slot that no call has.
    pub(crate) fn vacant() -> Self {
        let nobody = CallRef {
            local: Ipv4Addr::UNSPECIFIED,
            peer: Ipv4Addr::UNSPECIFIED,
            id: CallId(0),
        };
        let receiver = gre::Receiver::new(gre::AckSettings::default());
        let mut parts = Self::new(
            nobody,
            CallId(0),
            Hop::NONE,
            MacAddr::default(),
            receiver,
            None,
        );
        parts.hot.gre.open = false;
        parts
    }

    /// The call.
    pub(crate) fn call(&mut self) -> Call<'_> {
        Call::of(&mut self.hot, &mut self.rest)
    }
}

impl<'a> Call<'a> {
    #[inline]
    pub(crate) fn of(hot: &'a mut Hot, rest: &'a mut Rest) -> Self {
        Self {
            gre: &mut hot.gre,
            decap: &mut hot.decap,
            encap: &mut hot.encap,
            keys: &mut rest.keys,
            six: &mut rest.six,
            cold: &mut rest.cold,
        }
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
        *self.six = Six {
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
        *self.six = Six::CLOSED;
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
            missing: self.encap.missing,
            held: self.encap.held,
            dropped: self.decap.dropped + self.encap.dropped,
            mppe_key_changes: self.cold.key_changes
                + (self.keys.decryptor.as_ref()).map_or(0, Decryptor::changes_made),
            last_received_ns: self.decap.last_received.as_nanos(),
            mppe_receive: self.cold.mppe_receive,
            mppe_transmit: self.cold.mppe_transmit,
        }
    }
}
