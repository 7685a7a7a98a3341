//! Addresses, neighbours and routes.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use turnpike_protocol::wire::ethernet::MacAddr;

use super::{Error, Make, Netlink};

/// A route of the main table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where packets go.
    pub destination: IpNet,
    /// The device they leave by.
    pub device: u32,
    /// The next hop. It is taken as being on the device's link, whatever addresses the device has. `None`: the
    /// destinations themselves are on the link.
    pub via: Option<IpAddr>,
    /// The source address of packets that Linux itself sends there.
    pub source: Option<IpAddr>,
}

impl Netlink {
    /// Gives a device an address; `net` holds the address and the length of the prefix that is on its link. An
    /// address that is there already stays. An IPv6 address can be used at once: nobody looks for another owner first.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn address_add(&mut self, device: u32, net: impl Into<IpNet>) -> Result<(), Error> {
        let net = net.into();
        self.make(
            RouteNetlinkMessage::NewAddress(address(device, net)),
            Make::Replace,
        )
        .map_err(|e| Error::new(format!("add address {net} to device {device}"), e))
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::missing`] when the device has no such address.
    pub fn address_delete(&mut self, device: u32, net: impl Into<IpNet>) -> Result<(), Error> {
        let net = net.into();
        self.change(RouteNetlinkMessage::DelAddress(address(device, net)), 0)
            .map_err(|e| Error::new(format!("delete address {net} of device {device}"), e))
    }

    /// The IPv4 addresses of a device, each with the length of the prefix on its link.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn addresses(&mut self, device: u32) -> Result<Vec<Ipv4Net>, Error> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let answers = self
            .dump(RouteNetlinkMessage::GetAddress(request))
            .map_err(|e| Error::new("list addresses", e))?;
        let mut found = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else {
                continue;
            };
            if message.header.index != device {
                continue;
            }
            // On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is always ours.
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                _ => None,
            });
            if let Some(net) =
                local.and_then(|local| Ipv4Net::new(local, message.header.prefix_len).ok())
            {
                found.push(net);
            }
        }
        Ok(found)
    }

    /// Fixes a neighbour's link-layer address for good.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn neighbour_set(
        &mut self,
        device: u32,
        neighbour: impl Into<IpAddr>,
        mac: MacAddr,
    ) -> Result<(), Error> {
        let neighbour = neighbour.into();
        let mut message = neighbour_message(device, neighbour);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.make(RouteNetlinkMessage::NewNeighbour(message), Make::Replace)
            .map_err(|e| {
                Error::new(
                    format!("set neighbour {neighbour} on device {device} to {mac}"),
                    e,
                )
            })
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::missing`] when it does not know the neighbour.
    pub fn neighbour_delete(
        &mut self,
        device: u32,
        neighbour: impl Into<IpAddr>,
    ) -> Result<(), Error> {
        let neighbour = neighbour.into();
        let message = neighbour_message(device, neighbour);
        self.change(RouteNetlinkMessage::DelNeighbour(message), 0)
            .map_err(|e| {
                Error::new(
                    format!("delete neighbour {neighbour} of device {device}"),
                    e,
                )
            })
    }

    /// Adds a route to the main table, or puts it in the place of one with the same destination.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn route_add(&mut self, route: &Route) -> Result<(), Error> {
        self.make(RouteNetlinkMessage::NewRoute(message(route)), Make::Replace)
            .map_err(|e| Error::new(format!("add a route to {}", route.destination), e))
    }

    /// Takes a route out of the main table.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::missing`] when there is no such route.
    pub fn route_delete(&mut self, route: &Route) -> Result<(), Error> {
        self.change(RouteNetlinkMessage::DelRoute(message(route)), 0)
            .map_err(|e| Error::new(format!("delete the route to {}", route.destination), e))
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address(device: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.index = device;
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => message
            .attributes
            .push(AddressAttribute::Broadcast(net.broadcast())),
        IpNet::V4(_) => {}
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

fn neighbour_message(device: u32, neighbour: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbour);
    message.header.ifindex = device;
    message.attributes = vec![NeighbourAttribute::Destination(match neighbour {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    })];
    message
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

pub(super) fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination.addr());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.via.is_some() {
        RouteScope::Universe
    } else {
        RouteScope::Link
    };
    message
        .attributes
        .push(RouteAttribute::Destination(route_address(
            route.destination.network(),
        )));
    message.attributes.push(RouteAttribute::Oif(route.device));
    if let Some(via) = route.via {
        message.header.flags |= RouteFlags::Onlink;
        message
            .attributes
            .push(RouteAttribute::Gateway(route_address(via)));
    }
    if let Some(source) = route.source {
        message
            .attributes
            .push(RouteAttribute::PrefSource(route_address(source)));
    }
    message
}
