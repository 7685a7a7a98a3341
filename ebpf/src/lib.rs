//! What the XDP program and its loader share: map names, keys and values, verdicts, and the built object.
//!
//! The program only sorts packets: GRE of PPTP calls and traffic for the pools go to the workers' AF_XDP sockets,
//! everything else to Linux. It holds no call state and no policy. Addresses are kept as the octets on the wire.
#![no_std]

/// The program as `cargo xtask ebpf` built it from `src/main.rs`; aligned for the ELF reader.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = {
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../pptp.bpf.o"));
    &ALIGNED.0
};

/// Name of the program in the object.
pub const PROGRAM: &str = "pptp";

/// The XSKMAP: [`Port::gre_sockets`] or [`Port::pool_sockets`] + receive queue -> AF_XDP socket.
pub const SOCKETS: &str = "SOCKETS";
/// Hash: interface index (host byte order) -> [`Port`].
pub const PORTS: &str = "PORTS";
/// Hash: our outer IPv4 addresses, as on the wire -> 1.
pub const LOCAL: &str = "LOCAL";
/// Prefix trie: inner IPv4 prefixes that belong to us, as on the wire -> 1.
pub const POOL: &str = "POOL";
/// Prefix trie: inner IPv6 prefixes that belong to us, as on the wire -> 1.
pub const POOL6: &str = "POOL6";
/// Per-CPU array: [`Verdict`] -> packets.
pub const VERDICTS: &str = "VERDICTS";

/// Interfaces at most.
pub const MAX_PORTS: u32 = 16;
/// Receive queues of one interface at most.
pub const MAX_QUEUES: u32 = 64;
/// Local addresses at most.
pub const MAX_LOCAL: u32 = 1024;
/// Pool prefixes at most, of each version.
pub const MAX_POOL: u32 = 65536;

/// [`Port::roles`]: clients' GRE arrives here.
pub const ROLE_ACCESS: u32 = 1;
/// [`Port::roles`]: traffic for the pools arrives here (an uplink, or the veth pair into Linux).
pub const ROLE_POOL: u32 = 2;

/// What the program knows about an interface.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Port {
    /// [`ROLE_ACCESS`] and [`ROLE_POOL`], or both for a NIC that is access and uplink.
    pub roles: u32,
    /// Index in [`SOCKETS`] of the socket for calls' GRE on queue 0; the other queues' follow.
    pub gre_sockets: u32,
    /// Index in [`SOCKETS`] of the socket for pool traffic on queue 0. A NIC that is access and uplink has two
    /// sockets on each queue, so that nobody has to sort its packets again.
    pub pool_sockets: u32,
    /// Our link-layer address there, then two octets of nothing. What is sent to another one (a bridge that floods)
    /// is not for us.
    pub mac: [u8; 8],
}

impl From<Port> for [u32; 5] {
    /// The octets of a map value are those of this array; loaders know arrays as plain data.
    fn from(port: Port) -> Self {
        let [a, b, c, d, e, f, g, h] = port.mac;
        [
            port.roles,
            port.gre_sockets,
            port.pool_sockets,
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
        ]
    }
}

macro_rules! verdicts {
    ($($name:ident = $text:literal, $help:literal;)+) => {
        /// What became of a packet. Everything but the three that go to sockets is passed to Linux.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Verdict {
            $(#[doc = $help] $name,)+
        }

        impl Verdict {
            /// All verdicts, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable name that `stats` prints.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// One line for people.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)+ }
            }
        }
    };
}

verdicts! {
    Gre = "gre", "whole GRE v1/PPP packets to us: to a socket";
    Pool = "pool", "IPv4 packets for the pools: to a socket";
    Pool6 = "pool6", "IPv6 packets for the pools: to a socket";
    NoSocket = "no_socket", "of those, packets on a queue without a socket: to Linux";
    Other = "other", "IPv4 that is none of ours: to Linux";
    Other6 = "other6", "IPv6 that is none of ours: to Linux";
    NotIp = "not_ip", "ARP and other link-layer types: to Linux";
    Vlan = "vlan", "one VLAN tag: to Linux";
    QinQ = "qinq", "two VLAN tags: to Linux";
    OtherMac = "other_mac", "IP to another link-layer address than the port's: to Linux, which drops it or not";
    ShortFrame = "short_frame", "too short for Ethernet and IP, or cut: to Linux";
    GreOptions = "gre_ip_options", "GRE to us behind IP options: to Linux and its raw socket";
    GreFragment = "gre_fragment", "GRE to us in fragments: to Linux, which reassembles";
    GreForeign = "gre_foreign", "GRE to an address that is not ours: to Linux";
    GreShort = "gre_short", "GRE to us with a header that is cut: to Linux";
    GreVersion = "gre_version", "GRE to us of another version than 1: to Linux";
    GreProtocol = "gre_protocol", "GRE v1 to us that carries no PPP: to Linux";
    GreFlags = "gre_flags", "GRE v1/PPP to us with flags that RFC 2637 forbids: to Linux";
    UnknownPort = "unknown_port", "an interface that is no port of ours: to Linux";
}
