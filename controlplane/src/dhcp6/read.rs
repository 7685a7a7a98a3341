//! What a client asks.
//!
//! The lengths of options are checked here, down to the prefixes, and only what matters goes to the codec, which trusts
//! them and stops silently at what it cannot read.

use core::net::Ipv6Addr;

use dhcproto::v6::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder};
use ipnet::Ipv6Net;
use turnpike_protocol::wire::{ipv6, udp};

use super::{Fault, SERVER_PORT};

/// Octets of a message before its options (RFC 8415 §8).
const HEADER_LEN: usize = 4;

/// Octets of a DUID (RFC 8415 §11.1): two of type, and at most 128 more.
const DUID: core::ops::RangeInclusive<usize> = 3..=130;

/// Options of one kind in one message at most: nobody has more networks than this, and every one is answered.
const MAX_IAS: usize = 16;

/// An IA of one client (RFC 8415 §12).
pub(super) struct Ia {
    pub(super) id: u32,
    pub(super) addresses: Vec<Ipv6Addr>,
    pub(super) prefixes: Vec<Ipv6Net>,
}

/// A client's message.
pub(super) struct Question {
    pub(super) source: Ipv6Addr,
    /// It was sent to all servers.
    pub(super) multicast: bool,
    pub(super) kind: MessageType,
    pub(super) transaction: [u8; 3],
    pub(super) client: Option<Vec<u8>>,
    pub(super) server: Option<Vec<u8>>,
    pub(super) rapid_commit: bool,
    wanted: Vec<OptionCode>,
    pub(super) delegations: Vec<Ia>,
    pub(super) addresses: Vec<Ia>,
    /// IAIDs for temporary addresses.
    pub(super) temporary: Vec<u32>,
}

impl Question {
    /// Reads an IPv6 packet to all servers or to `us`.
    pub(super) fn read(packet: &[u8], us: Ipv6Addr) -> Result<Self, Fault> {
        let ip = ipv6::Packet::new_checked(packet).map_err(|_| Fault::Malformed)?;
        let datagram = udp::Datagram::in_ipv6(packet).map_err(|_| Fault::Malformed)?;
        let multicast = ip.destination() == ipv6::ALL_DHCP_SERVERS;
        let to_us = multicast || ip.destination() == us;
        if !to_us || datagram.destination != SERVER_PORT || datagram.payload.len() < HEADER_LEN {
            return Err(Fault::Malformed);
        }
        let (header, options) = datagram.payload.split_at(HEADER_LEN);
        let mut sound = header.to_vec();
        check(options, Place::Message, &mut sound)?;
        let message = Message::decode(&mut Decoder::new(&sound)).map_err(|_| Fault::Malformed)?;
        let mut question = Self {
            source: ip.source(),
            multicast,
            kind: message.msg_type(),
            transaction: message.xid(),
            client: None,
            server: None,
            rapid_commit: false,
            wanted: Vec::new(),
            delegations: Vec::new(),
            addresses: Vec::new(),
            temporary: Vec::new(),
        };
        for option in message.opts().iter() {
            question.take(option)?;
        }
        let many = |ias: usize| ias > MAX_IAS;
        if many(question.delegations.len())
            || many(question.addresses.len())
            || many(question.temporary.len())
        {
            return Err(Fault::Malformed);
        }
        Ok(question)
    }

    fn take(&mut self, option: &DhcpOption) -> Result<(), Fault> {
        match option {
            DhcpOption::ClientId(duid) => put(&mut self.client, duid)?,
            DhcpOption::ServerId(duid) => put(&mut self.server, duid)?,
            DhcpOption::RapidCommit => self.rapid_commit = true,
            DhcpOption::ORO(wanted) => self.wanted.extend_from_slice(&wanted.opts),
            DhcpOption::IAPD(ia) => self.delegations.push(Ia {
                id: ia.id,
                addresses: Vec::new(),
                prefixes: ia
                    .opts
                    .iter()
                    .filter_map(|option| match option {
                        DhcpOption::IAPrefix(prefix) => {
                            Ipv6Net::new(prefix.prefix_ip, prefix.prefix_len).ok()
                        }
                        _ => None,
                    })
                    .collect(),
            }),
            DhcpOption::IANA(ia) => self.addresses.push(Ia {
                id: ia.id,
                addresses: ia
                    .opts
                    .iter()
                    .filter_map(|option| match option {
                        DhcpOption::IAAddr(address) => Some(address.addr),
                        _ => None,
                    })
                    .collect(),
                prefixes: Vec::new(),
            }),
            DhcpOption::IATA(ia) => self.temporary.push(ia.id),
            _ => {}
        }
        Ok(())
    }

    /// Whether the client asked for an option (RFC 8415 §21.7).
    pub(super) fn wants(&self, code: OptionCode) -> bool {
        self.wanted.contains(&code)
    }

    /// Whether it asks for addresses or prefixes.
    pub(super) fn has_ia(&self) -> bool {
        !(self.delegations.is_empty() && self.addresses.is_empty() && self.temporary.is_empty())
    }
}

/// Takes an identifier, of which there may be one.
fn put(place: &mut Option<Vec<u8>>, duid: &[u8]) -> Result<(), Fault> {
    match place.replace(duid.to_vec()) {
        None => Ok(()),
        Some(_) => Err(Fault::Malformed),
    }
}

/// Where options stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Delegation,
    Addresses,
}

/// Copies the options that matter, in their places and with lengths as RFC 8415 §21 gives them.
fn check(mut options: &[u8], place: Place, to: &mut Vec<u8>) -> Result<(), Fault> {
    while !options.is_empty() {
        let &[a, b, c, d, ref rest @ ..] = options else {
            return Err(Fault::Malformed);
        };
        let len = usize::from(u16::from_be_bytes([c, d]));
        let (value, rest) = rest.split_at_checked(len).ok_or(Fault::Malformed)?;
        options = rest;
        let code = OptionCode::from(u16::from_be_bytes([a, b]));
        // Octets that the option begins with, and what stands behind them.
        let (fixed, inside) = match (place, code) {
            (Place::Message, OptionCode::ClientId | OptionCode::ServerId) => {
                if !DUID.contains(&len) {
                    return Err(Fault::Malformed);
                }
                (len, None)
            }
            (Place::Message, OptionCode::ORO) if len % 2 == 0 => (len, None),
            (Place::Message, OptionCode::RapidCommit) if len == 0 => (0, None),
            (Place::Message, OptionCode::ORO | OptionCode::RapidCommit) => {
                return Err(Fault::Malformed);
            }
            (Place::Message, OptionCode::IAPD) => (12, Some(Place::Delegation)),
            (Place::Message, OptionCode::IANA) => (12, Some(Place::Addresses)),
            (Place::Message, OptionCode::IATA) => (4, None),
            (Place::Delegation, OptionCode::IAPrefix) => (25, None),
            (Place::Addresses, OptionCode::IAAddr) => (24, None),
            _ => continue,
        };
        let (head, tail) = value.split_at_checked(fixed).ok_or(Fault::Malformed)?;
        let mut kept = head.to_vec();
        if let Some(place) = inside {
            check(tail, place, &mut kept)?;
        }
        to.extend_from_slice(&[a, b]);
        // No longer than it was.
        to.extend_from_slice(&(kept.len() as u16).to_be_bytes());
        to.extend_from_slice(&kept);
    }
    Ok(())
}
