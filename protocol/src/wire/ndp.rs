//! The part of neighbour discovery (RFC 4861) that means something on a PPP link: a router says who it is and what
//! prefix the link has, and answers who asks for it. There are no link-layer addresses.

use core::net::Ipv6Addr;
use core::time::Duration;

use ipnet::Ipv6Net;

use crate::Error;
use crate::wire::{ipv6, write_u16};

/// All nodes on the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link (RFC 4291 §2.7.1).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// RFC 4861 §6.1.1: nobody beyond the link can send this.
const HOP_LIMIT: u8 = 255;

/// The most octets of an echo that come back.
const MAX_ECHO: usize = 1232;

/// What a node on the link asks its router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query<'a> {
    /// Router Solicitation (RFC 4861 §4.1).
    Router,
    /// Neighbor Solicitation for an address (RFC 4861 §4.3).
    Neighbor(Ipv6Addr),
    /// Echo Request (RFC 4443 §4.1): identifier, number and data.
    Echo(&'a [u8]),
}

impl<'a> Query<'a> {
    /// Reads an IPv6 packet; `None` when it is well formed and something else.
    ///
    /// # Errors
    /// When RFC 4861 §6.1.1 or §7.1.1 wants it discarded, or its checksum is wrong.
    pub fn parse(packet: &'a [u8]) -> Result<Option<Self>, Error> {
        let ip = ipv6::Packet::new_checked(packet)?;
        if ip.next_header() != ipv6::ICMPV6 {
            return Ok(None);
        }
        let message = &packet[ipv6::HEADER_LEN..ip.total_len()];
        let (source, destination) = (ip.source(), ip.destination());
        if message.len() < 8
            || ipv6::transport_checksum(source, destination, ipv6::ICMPV6, message) != 0
        {
            return Err(Error::Malformed("ICMPv6 message"));
        }
        let discovery = ip.hop_limit() == HOP_LIMIT && message[1] == 0;
        match message[0] {
            ROUTER_SOLICITATION if discovery && options_are_sound(&message[8..]) => {
                Ok(Some(Self::Router))
            }
            NEIGHBOR_SOLICITATION if discovery && message.len() >= 24 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&message[8..24]);
                let target = Ipv6Addr::from(octets);
                if target.is_multicast() || !options_are_sound(&message[24..]) {
                    return Err(Error::Malformed("Neighbor Solicitation"));
                }
                Ok(Some(Self::Neighbor(target)))
            }
            ROUTER_SOLICITATION | NEIGHBOR_SOLICITATION => {
                Err(Error::Malformed("neighbour discovery"))
            }
            ECHO_REQUEST => Ok(Some(Self::Echo(
                &message[4..message.len().min(8 + MAX_ECHO)],
            ))),
            _ => Ok(None),
        }
    }
}

/// RFC 4861 §6.1.1: all options have a length that is not zero and fits.
fn options_are_sound(mut options: &[u8]) -> bool {
    while let [_, length, ..] = *options {
        match options.get(usize::from(length) * 8..) {
            Some(rest) if length > 0 => options = rest,
            _ => return false,
        }
    }
    options.is_empty()
}

/// A Router Advertisement (RFC 4861 §4.2) with what a call's only node needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouterAdvertisement {
    /// M: addresses come by DHCPv6.
    pub managed: bool,
    /// O: other settings come by DHCPv6.
    pub other: bool,
    /// How long the sender is a default router; at most 9000 s (RFC 4861 §6.2.1), 0: it is none.
    pub lifetime: Duration,
    /// MTU option (RFC 4861 §4.6.4), in octets.
    pub mtu: Option<u16>,
    /// Prefix for addresses of the node's own making (RFC 4862), with its valid and preferred lifetimes. Not on link:
    /// nobody else is there.
    pub prefix: Option<(Ipv6Net, Duration, Duration)>,
    /// Name servers and how long they may be used (RFC 8106 §5.1).
    pub dns: (Vec<Ipv6Addr>, Duration),
}

impl RouterAdvertisement {
    /// The whole packet. It fits the minimum MTU with up to 60 name servers; more are left out.
    pub fn to_packet(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let lifetime = u16::try_from(self.lifetime.as_secs()).unwrap_or(9000);
        let flags = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, flags];
        message.extend(lifetime.min(9000).to_be_bytes());
        // Reachable and retransmission time: not ours to say.
        message.extend([0; 8]);
        if let Some(mtu) = self.mtu {
            message.extend([5, 1, 0, 0]);
            message.extend(u32::from(mtu).to_be_bytes());
        }
        if let Some((prefix, valid, preferred)) = self.prefix {
            // A, not L.
            message.extend([3, 4, prefix.prefix_len(), 0x40]);
            message.extend(seconds(valid).to_be_bytes());
            message.extend(seconds(preferred.min(valid)).to_be_bytes());
            message.extend([0; 4]);
            message.extend(prefix.network().octets());
        }
        let (servers, lifetime) = &self.dns;
        let servers = &servers[..servers.len().min(60)];
        if !servers.is_empty() {
            let length = u8::try_from(1 + 2 * servers.len()).unwrap_or(u8::MAX);
            message.extend([25, length, 0, 0]);
            message.extend(seconds(*lifetime).to_be_bytes());
            message.extend(servers.iter().flat_map(Ipv6Addr::octets));
        }
        packet(source, destination, HOP_LIMIT, message)
    }
}

/// The answer to a Neighbor Solicitation for one of a router's own addresses (RFC 4861 §4.4), without a link-layer
/// address, as there is none. `solicited`: the one who asked has an address.
pub fn neighbor_advertisement(target: Ipv6Addr, destination: Ipv6Addr, solicited: bool) -> Vec<u8> {
    let flags = 0x80 | u8::from(solicited) << 6 | 0x20;
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    packet(target, destination, HOP_LIMIT, message)
}

/// The answer to an Echo Request with this `content` ([`Query::Echo`]).
pub fn echo_reply(source: Ipv6Addr, destination: Ipv6Addr, content: &[u8]) -> Vec<u8> {
    let mut message = vec![ECHO_REPLY, 0, 0, 0];
    message.extend(content);
    packet(source, destination, 64, message)
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    let sum = ipv6::transport_checksum(source, destination, ipv6::ICMPV6, &message);
    write_u16(&mut message, 2, sum);
    let header = ipv6::Header {
        source,
        destination,
        next_header: ipv6::ICMPV6,
        hop_limit,
        payload_len: u16::try_from(message.len()).unwrap_or(u16::MAX),
    };
    [&header.to_bytes()[..], &message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Ipv6Addr = ipv6::link_local(7);

    fn solicitation(hop_limit: u8, message: &[u8]) -> Vec<u8> {
        packet(NODE, ALL_ROUTERS, hop_limit, message.to_vec())
    }

    #[test]
    fn an_advertisement_octet_by_octet() {
        let prefix = "2001:db8:1:7::/64".parse().expect("a prefix");
        let advertisement = RouterAdvertisement {
            managed: false,
            other: true,
            lifetime: Duration::from_secs(1800),
            mtu: Some(1400),
            prefix: Some((prefix, Duration::from_secs(7200), Duration::from_secs(3600))),
            dns: (
                vec!["2001:db8::53".parse().expect("an address")],
                Duration::from_secs(1800),
            ),
        };
        let bytes = advertisement.to_packet(ipv6::link_local(1), ALL_NODES);
        let ip = ipv6::Packet::new_checked(&bytes[..]).expect("well formed");
        assert_eq!((ip.hop_limit(), ip.next_header()), (255, 58));
        assert_eq!(
            (ip.source(), ip.destination()),
            (ipv6::link_local(1), ALL_NODES)
        );
        let message = ip.payload();
        let sum = ipv6::transport_checksum(ip.source(), ip.destination(), 58, message);
        assert_eq!(sum, 0);
        assert_eq!(message[..2], [134, 0]);
        assert_eq!(message[4..16], [64, 0x40, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[16..24], [5, 1, 0, 0, 0, 0, 5, 0x78]);
        assert_eq!(message[24..28], [3, 4, 64, 0x40]);
        assert_eq!(
            message[28..40],
            [0, 0, 0x1c, 0x20, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]
        );
        assert_eq!(message[40..48], [0x20, 1, 0xd, 0xb8, 0, 1, 0, 7]);
        assert_eq!(message[48..56], [0; 8]);
        assert_eq!(message[56..64], [25, 3, 0, 0, 0, 0, 7, 8]);
        assert_eq!(message[64..68], [0x20, 1, 0xd, 0xb8]);
        assert_eq!(message.len(), 80);
    }

    #[test]
    fn what_a_node_may_ask() {
        let parse = |bytes: &[u8]| Query::parse(bytes).map(|query| query == Some(Query::Router));
        let plain = [133, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&solicitation(255, &plain)).ok(), Some(true));
        assert!(parse(&solicitation(254, &plain)).is_err(), "from afar");
        assert!(parse(&solicitation(255, &plain[..7])).is_err(), "short");
        let mut code = plain;
        code[1] = 1;
        assert!(parse(&solicitation(255, &code)).is_err(), "code");
        let option = [&plain[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(parse(&solicitation(255, &option)).is_err(), "option of 0");
        let option = [&plain[..], &[1, 2, 0, 0, 0, 0, 0, 0]].concat();
        assert!(parse(&solicitation(255, &option)).is_err(), "option cut");
        let option = [&plain[..], &[1, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(parse(&solicitation(255, &option)).ok(), Some(true));
        let mut wrong = solicitation(255, &plain);
        wrong[42] ^= 1;
        assert!(parse(&wrong).is_err(), "checksum");
        // MLD, an answer, and what is no ICMPv6 at all.
        for kind in [131, 143, 129, 134, 136] {
            let message = [kind, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(Query::parse(&solicitation(1, &message)), Ok(None));
        }
        let mut udp = solicitation(255, &plain);
        udp[6] = ipv6::UDP;
        assert_eq!(Query::parse(&udp), Ok(None));
    }

    #[test]
    fn neighbours_and_echoes_get_answers() {
        let us = ipv6::link_local(1);
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(us.octets());
        let bytes = packet(NODE, us, 255, message.clone());
        assert_eq!(Query::parse(&bytes), Ok(Some(Query::Neighbor(us))));
        message.truncate(20);
        assert!(Query::parse(&packet(NODE, us, 255, message)).is_err());
        let answer = neighbor_advertisement(us, NODE, true);
        assert_eq!(answer[40..42], [136, 0]);
        assert_eq!(answer[44], 0xe0);
        assert_eq!(answer[48..64], us.octets());
        let echo = packet(NODE, us, 64, vec![128, 0, 0, 0, 1, 2, 0, 3, 9, 9]);
        let Ok(Some(Query::Echo(content))) = Query::parse(&echo) else {
            panic!("an echo");
        };
        let reply = echo_reply(us, NODE, content);
        assert_eq!(reply[40..42], [129, 0]);
        assert_eq!(reply[44..], [1, 2, 0, 3, 9, 9]);
        let sum = ipv6::transport_checksum(us, NODE, 58, &reply[40..]);
        assert_eq!(sum, 0);
    }
}
