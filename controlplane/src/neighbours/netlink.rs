//! A netlink socket that asks and waits for the whole answer.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use turnpike_protocol::wire::ethernet::MacAddr;

/// Multicast groups (`RTNLGRP_*` of `linux/rtnetlink.h`).
pub(super) const GROUP_NEIGHBOUR: u32 = 3;
pub(super) const GROUP_ADDRESS: u32 = 5;
pub(super) const GROUP_ROUTE: u32 = 7;

/// Where Linux would send a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The gateway, or the destination itself when it is on link.
    pub via: Ipv4Addr,
    /// Index of the interface.
    pub interface: u32,
}

/// One socket to the kernel; one request at a time.
pub(super) struct Requests {
    socket: TokioSocket,
    sequence: u32,
}

impl Requests {
    /// A socket without group memberships.
    pub(super) fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().connect(&SocketAddr::new(0, 0))?;
        Ok(Self::over(socket))
    }

    /// A connected socket.
    pub(super) fn over(socket: TokioSocket) -> Self {
        Self {
            socket,
            sequence: 0,
        }
    }

    /// `ip route get DESTINATION from SOURCE`.
    pub(super) async fn next_hop(
        &mut self,
        destination: Ipv4Addr,
        source: Ipv4Addr,
    ) -> io::Result<NextHop> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: 32,
            source_prefix_length: 32,
            ..RouteHeader::default()
        };
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(destination)),
            RouteAttribute::Source(RouteAddress::Inet(source)),
        ];
        let answers = self
            .request(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST)
            .await?;
        let mut via = destination;
        let mut interface = None;
        for answer in answers {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                for attribute in &route.attributes {
                    match attribute {
                        RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = *gateway,
                        RouteAttribute::Oif(index) => interface = Some(*index),
                        _ => {}
                    }
                }
            }
        }
        let interface = interface.ok_or_else(|| io::Error::other("route without an interface"))?;
        Ok(NextHop { via, interface })
    }

    /// Makes Linux resolve a neighbour, and, with `managed`, keep it resolved for as long as the entry stands.
    pub(super) async fn resolve(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        managed: bool,
    ) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = interface;
        message.header.state = NeighbourState::None;
        message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(
            address,
        ))];
        if managed {
            message
                .attributes
                .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        } else {
            message.header.flags = NeighbourFlags::Use;
        }
        self.request(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK,
        )
        .await
        .map(drop)
    }

    /// Makes a neighbour that Linux keeps resolved an ordinary one: with its link-layer address, which Linux confirms
    /// when it needs it; without one it is deleted.
    pub(super) async fn release(
        &mut self,
        interface: u32,
        address: Ipv4Addr,
        mac: Option<MacAddr>,
    ) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = interface;
        message.header.state = NeighbourState::Stale;
        message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(
            address,
        ))];
        let (message, flags) = match mac {
            Some(MacAddr(octets)) => {
                let octets = octets.to_vec();
                let attributes = &mut message.attributes;
                attributes.push(NeighbourAttribute::LinkLayerAddress(octets));
                (RouteNetlinkMessage::NewNeighbour(message), NLM_F_REPLACE)
            }
            None => (RouteNetlinkMessage::DelNeighbour(message), 0),
        };
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .await
            .map(drop)
    }

    /// Everything that answers a dump request.
    pub(super) async fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.request(message, NLM_F_REQUEST | NLM_F_DUMP).await
    }

    async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer).await?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().await?;
            for packet in messages(&datagram) {
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                match packet.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            Some(_) => Err(error.to_io()),
                            None => Ok(answers),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => {
                        answers.push(inner);
                        // Only dumps come in parts.
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(answers);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram. What cannot be parsed is skipped: a newer kernel may say more than we know.
pub(super) fn messages(datagram: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(length) = rest
        .first_chunk::<4>()
        .and_then(|length| usize::try_from(u32::from_ne_bytes(*length)).ok())
        .filter(|length| (16..=rest.len()).contains(length))
    {
        if let Ok(message) = NetlinkMessage::deserialize(&rest[..length]) {
            found.push(message);
        }
        // Messages start at multiples of four octets.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}
