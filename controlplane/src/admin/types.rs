//! What operators see. Text and JSON come from the same values.

use core::net::Ipv4Addr;
use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
pub use turnpike_dataplane::api::{CallCounters, Mppe, Port};

/// Which calls an operator means.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The call with this id of ours.
    Call {
        /// The id.
        id: u16,
        /// The client's outer address: beyond 65,535 calls ids repeat, once per client address.
        client: Option<Ipv4Addr>,
    },
    /// All calls of this user; the name as the client gave it or as it stands among the users.
    User(String),
    /// All calls of the client with this outer or inner address.
    Client(Ipv4Addr),
    /// Every call.
    All,
}

impl Selector {
    /// Whether a call with these facts is meant.
    pub fn matches(
        &self,
        call_id: u16,
        user: Option<&str>,
        outer: Ipv4Addr,
        inner: Option<Ipv4Addr>,
    ) -> bool {
        match self {
            Self::Call { id, client } => {
                *id == call_id && client.is_none_or(|client| client == outer)
            }
            Self::User(name) => {
                user.is_some_and(|user| user == name || crate::aaa::without_domain(user) == name)
            }
            Self::Client(address) => *address == outer || Some(*address) == inner,
            Self::All => true,
        }
    }
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The id we chose; in GRE packets from the client.
    pub call_id: u16,
    /// The id the client chose; in GRE packets to the client.
    pub peer_call_id: u16,
    /// The control connection, as log lines name it.
    pub tunnel: u64,
    /// What the call is doing: `establishing`, `authenticating`, `network`, `up`, `ending`.
    pub state: String,
    /// The user, once authenticated.
    pub user: Option<String>,
    /// The client's outer address.
    pub client: Ipv4Addr,
    /// Our outer address.
    pub local: Ipv4Addr,
    /// The client's inner address, once given.
    pub address: Option<Ipv4Addr>,
    /// The IPv6 prefix of the call's link, once IPv6 can flow.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// The IPv6 prefix that is kept for the client's own network.
    pub ipv6_delegated: Option<Ipv6Net>,
    /// The worker that owns the call.
    pub worker: u8,
    /// The interface of the access port.
    pub port: String,
    /// How XDP is attached there: `native` or `generic`.
    pub xdp_mode: String,
    /// Since the call was accepted.
    pub up_seconds: u64,
    /// MPPE as it runs from the client to us.
    pub mppe_receive: Option<Mppe>,
    /// MPPE as it runs from us to the client.
    pub mppe_transmit: Option<Mppe>,
    /// The largest inner packet, in octets, once the network phase is reached.
    pub mtu: Option<u16>,
    /// What LCP settled.
    pub lcp: Lcp,
    /// What the call did so far.
    pub counters: CallCounters,
}

/// What LCP settled, per direction.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lcp {
    /// For frames from the client: what we asked for and the client acknowledged.
    pub receive: LcpOptions,
    /// For frames to the client: what the client asked for and we acknowledged.
    pub transmit: LcpOptions,
}

/// LCP options of one direction (RFC 1661 §6).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LcpOptions {
    /// Maximum-Receive-Unit in octets.
    pub mru: u16,
    /// Asynchronous control character map, when it was negotiated (it means nothing in GRE).
    pub accm: Option<u32>,
    /// A magic number was negotiated.
    pub magic: bool,
    /// Protocol-Field-Compression.
    pub compress_protocol: bool,
    /// Address-and-Control-Field-Compression.
    pub compress_address: bool,
}

impl Default for LcpOptions {
    /// RFC 1661 §6: what holds when nothing was negotiated.
    fn default() -> Self {
        Self {
            mru: 1500,
            accm: None,
            magic: false,
            compress_protocol: false,
            compress_address: false,
        }
    }
}

/// Counters of everything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the server.
    pub version: String,
    /// Since the server started.
    pub uptime_seconds: u64,
    /// Calls there are now.
    pub calls: u64,
    /// Control connections there are now.
    pub tunnels: u64,
    /// What the control plane counted since start (connections, refusals, logins...), by name.
    pub control: BTreeMap<String, u64>,
    /// The workers.
    pub workers: Vec<WorkerStats>,
    /// Verdicts of the XDP program, by name, summed over interfaces and cores.
    pub xdp: BTreeMap<String, u64>,
}

/// Counters of one worker.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Its number, from 0.
    pub worker: u8,
    /// The core it is pinned to.
    pub cpu: Option<usize>,
    /// Its sockets.
    pub ports: Vec<PortStats>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Its other totals, by name.
    pub totals: BTreeMap<String, u64>,
}

/// Counters of one socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortStats {
    /// Access, uplink or host.
    pub port: Port,
    /// The interface.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// How XDP is attached: `native` or `generic`.
    pub mode: String,
    /// The driver writes into our memory itself.
    pub zero_copy: bool,
    /// Frames the worker took from the socket.
    pub received: u64,
    /// Frames the worker gave to the socket.
    pub transmitted: u64,
    /// Frames the kernel dropped because they did not fit a buffer or were malformed.
    pub rx_dropped: u64,
    /// Frames the kernel dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Everything else that is known of the socket, by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, u64>,
}

/// A call that was told to end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Killed {
    /// The id we chose.
    pub call_id: u16,
    /// The user, once authenticated.
    pub user: Option<String>,
    /// The client's outer address.
    pub client: Ipv4Addr,
    /// The client's inner address, once given.
    pub address: Option<Ipv4Addr>,
}

/// One captured packet on its way to a capture file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The id we chose for its call.
    pub call_id: u16,
    /// When, in nanoseconds since 1970 (UTC).
    pub unix_nanos: u64,
    /// Outer frame or inner packet.
    pub side: Side,
    /// From the client.
    pub inbound: bool,
    /// True length in octets, at least that of `bytes`.
    pub original_len: u32,
    /// What was kept of it.
    pub bytes: Vec<u8>,
    /// Packets of this side lost since the last one that came through.
    pub lost: u64,
}

/// Which interface of the capture file a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The Ethernet frame with GRE as it came or went.
    Outer,
    /// The inner IP packet in clear.
    Inner,
}
