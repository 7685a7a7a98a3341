//! Who is where, and the packets that go between them.

use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::{ipv4, ipv6};
pub use turnpike_tests::crowd::ip;

pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 9);
/// The server's inner addresses.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The client's.
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);
pub const INNER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 7, 0, 0, 0, 9);
/// Those of another call.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 77);
pub const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 8, 0, 0, 0, 9);
/// Somebody behind the server.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 5);
/// All routers of a link.
pub const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Interface identifiers.
pub const SERVER_ID: u64 = 1;
pub const CLIENT_ID: u64 = 9;

pub const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const THEIRS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// The prefix of the client's link.
pub fn prefix() -> Ipv6Net {
    Ipv6Net::new_assert(INNER6, 64).trunc()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    Four,
    Six,
}

impl Version {
    pub const BOTH: [Self; 2] = [Self::Four, Self::Six];

    /// PPP's protocol number, whose first octet is 0.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Four => 0x21,
            Self::Six => 0x57,
        }
    }

    /// A packet of the client to somebody behind the server.
    pub fn up(self) -> Vec<u8> {
        match self {
            Self::Four => from(INNER),
            Self::Six => from6(INNER6),
        }
    }

    /// A packet of somebody behind the server to the client.
    pub fn down(self) -> Vec<u8> {
        match self {
            Self::Four => four(REMOTE, INNER),
            Self::Six => six(REMOTE6, INNER6),
        }
    }

    /// A packet with its protocol number in front, as PPP has it without its own compression.
    pub fn ppp(self, packet: &[u8]) -> Vec<u8> {
        [&[0, self.protocol()][..], packet].concat()
    }
}

/// A packet to somebody behind the server.
pub fn from(source: Ipv4Addr) -> Vec<u8> {
    four(source, REMOTE)
}

/// The same by IPv6.
pub fn from6(source: Ipv6Addr) -> Vec<u8> {
    six(source, REMOTE6)
}

pub fn four(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    ip(source, destination, ipv4::UDP, &[0; 40])
}

pub fn six(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let header = ipv6::Header {
        source,
        destination,
        next_header: ipv6::UDP,
        hop_limit: 64,
        payload_len: 40,
    };
    [&header.to_bytes()[..], &[0; 40]].concat()
}

/// What a host asks the routers of its link.
pub fn solicitation() -> Vec<u8> {
    let source = ipv6::link_local(CLIENT_ID);
    let mut message = [133, 0, 0, 0, 0, 0, 0, 0];
    let sum = ipv6::transport_checksum(source, ROUTERS, ipv6::ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ipv6::Header {
        source,
        destination: ROUTERS,
        next_header: ipv6::ICMPV6,
        hop_limit: 255,
        payload_len: 8,
    };
    [&header.to_bytes()[..], &message].concat()
}

/// Whether a packet comes from the server itself: an ICMP error, or what its router says on the link.
pub fn is_servers(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => ipv4::Packet::new_checked(packet).unwrap().source() == GATEWAY,
        6 => {
            let source = ipv6::Packet::new_checked(packet).unwrap().source();
            [GATEWAY6, ipv6::link_local(SERVER_ID)].contains(&source)
        }
        version => panic!("version {version}"),
    }
}

pub fn ethernet_frame(packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Header {
        destination: OURS,
        source: THEIRS,
        ethertype: match packet[0] >> 4 {
            6 => ethernet::IPV6,
            _ => ethernet::IPV4,
        },
    };
    let mut frame = vec![0; ethernet::HEADER_LEN];
    header.emit(&mut frame).unwrap();
    frame.extend(packet);
    frame
}
