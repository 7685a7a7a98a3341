//! The whole contract between a worker and whoever negotiates for it (the server's control plane, or the client).
//!
//! [`Command`]s go down one bounded single-producer ring per worker, [`Event`]s come up another. Order is the
//! correctness argument: a call is opened before the reply that names it is sent, receive keys are loaded before the
//! request that offers them, a route stands before the acknowledgement that lets the peer use it. Both enums hold
//! their frames inline, so the rings are the only allocation and it happens once.

use core::fmt;
use core::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use turnpike_protocol::CallId;
pub use turnpike_protocol::mppe::Direction;
use turnpike_protocol::mppe::{Mode, StartKey, Strength};
use turnpike_protocol::wire::ethernet::MacAddr;

/// The largest PPP frame or inner packet that travels in a [`Command`] or an [`Event`], in octets: RFC 2637 §4.1's limit for the
/// payload of a GRE packet (1532), which also covers an LCP packet of the default MRU with its header.
pub const MAX_FRAME: usize = 1532;

/// The largest IPv4 datagram that Linux may hand back reassembled, in octets; a bigger one cannot hold a frame that
/// fits [`MAX_FRAME`] and is dropped under a name.
pub const MAX_DATAGRAM: usize = MAX_FRAME + 60 + 16;

/// The largest packet that a capture keeps, in octets; longer ones are cut and keep their true length.
pub const MAX_CAPTURE: usize = 1792;

/// Packets in a row that decrypt to garbage before [`Event::Garbled`].
pub const GARBAGE_LIMIT: u8 = 100;

/// Index of a worker, counted from 0.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct WorkerId(pub u8);

/// Names one call on this machine: our address, the peer's address, and the call id that *we* chose, which is the
/// one in GRE packets that we receive (RFC 2637 §4.1). Ids are unique over the box while there are free ones, then
/// unique per peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallRef {
    /// Our outer address: the one the client dialled.
    pub local: Ipv4Addr,
    /// The peer's outer address.
    pub peer: Ipv4Addr,
    /// The call id we chose.
    pub id: CallId,
}

impl fmt::Display for CallRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.local, self.peer, self.id)
    }
}

/// From where a server takes GRE for a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SourceCheck {
    /// From the address that the control connection comes from.
    #[default]
    Strict,
    /// From wherever the first valid LCP frame with the call's id comes from: some carriers' NATs map TCP and GRE of one
    /// client to different addresses. The id is all that tells calls apart then, so it must be unique over the box.
    Relaxed,
}

/// Buckets of call ids, each given to one worker. Fixed while calls exist in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owners([WorkerId; Owners::BUCKETS]);

impl Owners {
    /// How many buckets there are: the low octet of the call id.
    pub const BUCKETS: usize = 256;

    /// Buckets dealt round robin to `workers` workers (at least 1, at most 256).
    pub fn round_robin(workers: usize) -> Self {
        let workers = workers.clamp(1, Self::BUCKETS);
        Self(core::array::from_fn(|bucket| {
            WorkerId(u8::try_from(bucket % workers).unwrap_or(0))
        }))
    }

    /// The worker that owns every call with this id.
    pub fn owner(&self, id: CallId) -> WorkerId {
        self.0[usize::from(id.0) % Self::BUCKETS]
    }
}

/// A PPP frame as it stands in a GRE payload, or an inner packet, held inline.
#[derive(Clone, PartialEq, Eq)]
pub struct FrameBytes {
    len: u16,
    bytes: [u8; MAX_FRAME],
}

impl FrameBytes {
    /// Copies `frame`; `None` when it is longer than [`MAX_FRAME`].
    pub fn new(frame: &[u8]) -> Option<Self> {
        let len = u16::try_from(frame.len()).ok()?;
        let mut bytes = [0; MAX_FRAME];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(Self { len, bytes })
    }
}

impl core::ops::Deref for FrameBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for FrameBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Frames hold responses to challenges: their length is all a log may say.
        write!(f, "FrameBytes({} octets)", self.len)
    }
}

/// What Configure-Requests of LCP and CCP settled for frames that we send, and what the call may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// The client's inner address. The server accepts only this source from the tunnel; the client, only this
    /// destination.
    pub address: Ipv4Addr,
    /// Leave out FF 03 (the peer asked for it: RFC 1661 §6.6).
    pub compress_address: bool,
    /// One-octet protocol numbers (the peer asked for it: RFC 1661 §6.5).
    pub compress_protocol: bool,
    /// The largest inner packet sent into the tunnel, in octets.
    pub mtu: u16,
    /// Whether data may flow in clear. With [`Encryption::Required`] data is dropped under a name until both
    /// directions have keys running.
    pub encryption: Encryption,
}

/// The same for IPv6, which has terms of its own because IPV6CP is a protocol of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward6 {
    /// The prefix of the link, and one that was delegated to the client. The server accepts only these sources from
    /// the tunnel; the client, only these destinations (`::/0` before it has been told a prefix).
    pub prefixes: [Option<Ipv6Net>; 2],
    /// The client's interface identifier: the low half of its link-local address.
    pub identifier: u64,
    /// As in [`Forward`].
    pub compress_address: bool,
    /// As in [`Forward`].
    pub compress_protocol: bool,
    /// The largest inner packet sent into the tunnel, in octets. A link that carries less than 1280 carries no IPv6.
    pub mtu: u16,
    /// As in [`Forward`].
    pub encryption: Encryption,
}

/// The encryption policy of a call whose negotiation is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// No MPPE: data flows in clear.
    Plain,
    /// Only MPPE data flows, in both directions.
    Required,
}

/// What a worker is told. Executed in order; commands for calls that do not exist are counted and ignored.
///
/// Not `Debug` and not `Clone`: [`Command::Secure`] holds keys. The worker reads commands where they lie in the ring
/// and drops them there, so that the keys' zeroizing drop cleans the ring itself.
#[allow(
    clippy::large_enum_variant,
    reason = "rings hold frames inline so that nothing is allocated per frame"
)]
pub enum Command {
    /// Make a call known. From now on its GRE is accepted and its control frames come up as [`Event::Frame`].
    Open {
        /// The call.
        call: CallRef,
        /// The id the peer chose; put into every GRE packet that we send. 0 is valid.
        peer_id: CallId,
        /// The next hop for outer packets on the access port; the peer itself when it is on link.
        via: Ipv4Addr,
        /// The receive window that the peer was told, in packets (RFC 2637 §4.2): half of it is acknowledged at once.
        window: u16,
    },
    /// Change the next hop of a call's outer packets (routes changed).
    Via {
        /// The call.
        call: CallRef,
        /// The new next hop on the access port.
        via: Ipv4Addr,
    },
    /// Send a control frame, given as it stands in the GRE payload (with or without FF 03, as the sender decided).
    Send {
        /// The call.
        call: CallRef,
        /// The frame.
        frame: FrameBytes,
    },
    /// Send an IP packet of ours inside a call, as if it had come by a port: encrypted where the call is, and not at all
    /// where it would have to be and is not.
    SendInner {
        /// The call.
        call: CallRef,
        /// A whole packet, no longer than the call's MTU.
        packet: FrameBytes,
    },
    /// Load MPPE keys. They start at the CCP frame with this identifier: receive keys at the peer's Configure-Ack (or
    /// at the first MPPE packet, when the Ack was overtaken), transmit keys right after our own Configure-Ack has
    /// gone out (RFC 1962 §2; a request speaks of what its sender will receive).
    Secure {
        /// The call.
        call: CallRef,
        /// Which direction.
        direction: Direction,
        /// The identifier of the Configure-Request that the keys belong to.
        identifier: u8,
        /// Key length is in the key.
        key: StartKey,
        /// Stateless or stateful.
        mode: Mode,
    },
    /// Let data flow; again, to change the terms.
    Forward {
        /// The call.
        call: CallRef,
        /// The terms.
        forward: Forward,
    },
    /// Answer the peer's LCP Echo-Requests (RFC 1661 §5.8) from now on, until [`Command::Hold`]; before that they go to the
    /// control plane, as do those that came out of a loop.
    Echo {
        /// The call.
        call: CallRef,
        /// Our magic number.
        magic: u32,
    },
    /// Stop IPv4 at once (LCP, IPCP or a required CCP went down), and answer no more echoes; the call stays.
    Hold {
        /// The call.
        call: CallRef,
    },
    /// Let IPv6 flow; again, to change the terms.
    Forward6 {
        /// The call.
        call: CallRef,
        /// The terms.
        forward: Forward6,
    },
    /// Stop IPv6 at once (IPV6CP or a required CCP went down); the call stays.
    Hold6 {
        /// The call.
        call: CallRef,
    },
    /// Send packets for these inner addresses into a call. The owner is told by the call's id; goes to every worker.
    Route {
        /// Inner destinations (inner sources when the worker serves clients).
        prefix: Ipv4Net,
        /// The call.
        call: CallRef,
    },
    /// Take a route back.
    Unroute {
        /// As it was given.
        prefix: Ipv4Net,
    },
    /// Addresses that belong to us: a packet for one without a route is never given back to Linux.
    Pool {
        /// The prefix.
        prefix: Ipv4Net,
    },
    /// An address of the machine itself, or one no more: packets for it from clients go to Linux even where there is
    /// an uplink. [`Command::Route`] goes before it. Goes to every worker.
    Local {
        /// The address.
        address: Ipv4Addr,
        /// Whether it is the machine's now.
        ours: bool,
    },
    /// As [`Command::Route`], for IPv6. Links and delegations are 64 bits long or shorter; there are no routes to
    /// single addresses.
    Route6 {
        /// Inner destinations (inner sources when the worker serves clients).
        prefix: Ipv6Net,
        /// The call.
        call: CallRef,
    },
    /// Take a route back.
    Unroute6 {
        /// As it was given.
        prefix: Ipv6Net,
    },
    /// As [`Command::Pool`], for IPv6.
    Pool6 {
        /// The prefix.
        prefix: Ipv6Net,
    },
    /// What Linux knows of a neighbour on a port; `mac: None` takes it back.
    Neighbour {
        /// Where the neighbour is.
        port: Port,
        /// Its address.
        address: Ipv4Addr,
        /// Its link-layer address.
        mac: Option<MacAddr>,
    },
    /// The next hop for inner packets on the uplink; `None`: give them to Linux.
    DefaultRoute {
        /// Address of the gateway on the uplink.
        via: Option<Ipv4Addr>,
    },
    /// Asks for [`Event::Counters`].
    Query {
        /// The call.
        call: CallRef,
    },
    /// Copy a call's packets to the capture ring, or stop doing so.
    Capture {
        /// The call.
        call: CallRef,
        /// On or off.
        on: bool,
    },
    /// Forget a call; answered with [`Event::Closed`]. Its routes must have been taken back before.
    Close {
        /// The call.
        call: CallRef,
    },
    /// End the worker's thread after this turn.
    Stop,
}

impl Command {
    /// The call whose owner it is for; `None`: it goes to every worker.
    pub fn call(&self) -> Option<CallRef> {
        match self {
            Self::Open { call, .. }
            | Self::Via { call, .. }
            | Self::Send { call, .. }
            | Self::SendInner { call, .. }
            | Self::Secure { call, .. }
            | Self::Forward { call, .. }
            | Self::Echo { call, .. }
            | Self::Hold { call }
            | Self::Forward6 { call, .. }
            | Self::Hold6 { call }
            | Self::Query { call }
            | Self::Capture { call, .. }
            | Self::Close { call } => Some(*call),
            Self::Route { .. }
            | Self::Unroute { .. }
            | Self::Pool { .. }
            | Self::Route6 { .. }
            | Self::Unroute6 { .. }
            | Self::Pool6 { .. }
            | Self::Neighbour { .. }
            | Self::DefaultRoute { .. }
            | Self::Local { .. }
            | Self::Stop => None,
        }
    }
}

/// What a worker reports.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "rings hold frames inline so that nothing is allocated per frame"
)]
pub enum Event {
    /// A PPP control frame from the peer, as it stood in the GRE payload, FF 03 included where it was there.
    Frame {
        /// The call.
        call: CallRef,
        /// The frame.
        frame: FrameBytes,
    },
    /// A packet that the client sent inside its call for us to answer: DHCP to our inner address or to everybody; on
    /// the link of IPv6 alone, echo, router and neighbour solicitations and DHCPv6. Its header is sound, and its source
    /// is one of the call's addresses or, where it goes to many, none.
    Inner {
        /// The call.
        call: CallRef,
        /// The packet.
        packet: FrameBytes,
    },
    /// Answer to [`Command::Query`].
    Counters {
        /// The call.
        call: CallRef,
        /// Its counters now.
        counters: CallCounters,
    },
    /// Answer to [`Command::Close`]: the call is forgotten, these are its last counters.
    Closed {
        /// The call.
        call: CallRef,
        /// Its last counters.
        counters: CallCounters,
    },
    /// The call's GRE comes from, and from now on goes to, another address than the control connection's
    /// ([`SourceCheck::Relaxed`]). Comes before the frame that says so, and once for each call.
    Bound {
        /// The call.
        call: CallRef,
        /// Where its GRE comes from.
        source: Ipv4Addr,
    },
    /// [`GARBAGE_LIMIT`] packets of the peer in a row decrypted to nothing that makes sense: its key is another than ours.
    Garbled {
        /// The call.
        call: CallRef,
    },
    /// Frames that did not fit the ring since the last event of this kind (PPP repeats them).
    Lost {
        /// How many.
        frames: u64,
    },
}

/// What one call did. Octets are those of inner IP packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct CallCounters {
    /// Inner packets from the peer that were forwarded.
    pub received_packets: u64,
    /// Their octets.
    pub received_octets: u64,
    /// Inner packets sent to the peer.
    pub sent_packets: u64,
    /// Their octets.
    pub sent_octets: u64,
    /// Whole GRE packets from the peer that reached the call, acks and control frames included.
    pub gre_received: u64,
    /// GRE packets sent to the peer, acks and control frames included.
    pub gre_sent: u64,
    /// GRE sequence numbers that never came.
    pub missing: u64,
    /// GRE packets that waited for earlier ones (reordering).
    pub held: u64,
    /// Packets of this call dropped under any name.
    pub dropped: u64,
    /// Changes of the key for what comes from the peer, also those for packets that turned out to be forged.
    pub mppe_key_changes: u64,
    /// Nanoseconds on the worker's clock of the last GRE packet from the peer; 0 when there was none.
    pub last_received_ns: u64,
    /// MPPE as it runs now from the peer to us.
    pub mppe_receive: Option<Mppe>,
    /// MPPE as it runs now from us to the peer.
    pub mppe_transmit: Option<Mppe>,
}

/// A running MPPE direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Mppe {
    /// Key strength in bits: 40, 56 or 128.
    pub bits: u8,
    /// Re-keyed for every packet.
    pub stateless: bool,
}

impl Mppe {
    /// From the negotiated terms.
    pub fn new(strength: Strength, mode: Mode) -> Self {
        Self {
            bits: strength.bits(),
            stateless: mode == Mode::Stateless,
        }
    }
}

/// Where a packet comes from or goes to.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Port {
    /// The NIC where clients' GRE arrives.
    Access = 0,
    /// The NIC that inner packets leave by, straight to a next hop.
    Uplink = 1,
    /// The veth pair into Linux.
    Host = 2,
}

impl Port {
    /// All ports, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Access, Self::Uplink, Self::Host];
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Access => "access",
            Self::Uplink => "uplink",
            Self::Host => "host",
        })
    }
}

/// What a worker must know of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Our link-layer address there.
    pub mac: MacAddr,
    /// The largest IP packet that may be sent there, in octets.
    pub mtu: u16,
}

/// A whole IPv4 datagram of protocol 47 that Linux reassembled, or that XDP left to Linux, on its way to the owner.
pub struct Datagram {
    /// Octets in use.
    pub len: u16,
    /// The datagram from the first octet of its IPv4 header, as a raw socket gives it.
    pub bytes: [u8; MAX_DATAGRAM],
}

/// Which of a capture's interfaces a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CaptureSide {
    /// The Ethernet frame with GRE, as it came or went.
    Outer,
    /// The inner IP packet in clear.
    Inner,
}

/// One captured packet.
pub struct Captured {
    /// The call.
    pub call: CallRef,
    /// When, on the worker's clock.
    pub at: turnpike_protocol::Time,
    /// Outer or inner.
    pub side: CaptureSide,
    /// From the peer or to it.
    pub direction: Direction,
    /// True length of the packet in octets.
    pub original_len: u16,
    /// Octets kept.
    pub len: u16,
    /// The octets.
    pub bytes: [u8; MAX_CAPTURE],
}
