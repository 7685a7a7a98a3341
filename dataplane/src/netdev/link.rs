//! Devices: finding, making, changing and deleting them.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
    XdpAttached as Attached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use turnpike_protocol::wire::ethernet::MacAddr;

use super::{Error, Make, Netlink};
use crate::xsk::sys;

/// The longest name of a device, in octets.
pub const MAX_NAME: usize = 15;

/// What Linux says of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address; zero when it has none.
    pub mac: MacAddr,
    /// The largest packet without the Ethernet header, in octets.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Receive queues that were made with it (a driver may use fewer: see [`Netlink::queues`]).
    pub rx_queues: u32,
    /// Transmit queues that were made with it.
    pub tx_queues: u32,
    /// What kind of virtual device it is, as `ip link add type` calls it; empty for others.
    pub kind: String,
    /// The alias that an operator, or turnpike, gave it; empty when there is none.
    pub alias: String,
    /// Which XDP program runs on it.
    pub xdp: XdpAttached,
    /// Linux' counters.
    pub statistics: Statistics,
}

/// Queues of a device that are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    /// How many receive: on each of them an AF_XDP socket can.
    pub receive: u32,
    /// How many send: a socket on a queue with a higher number sends nothing, without a word.
    pub transmit: u32,
}

/// Where an XDP program is attached to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpAttached {
    /// Nowhere.
    #[default]
    No,
    /// In the driver.
    Native,
    /// In the generic receive path.
    Generic,
    /// In the hardware, or in several places.
    Other,
}

/// Counters of a device since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Statistics {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets received and dropped, among them those that did not fit an AF_XDP socket's ring.
    pub rx_dropped: u64,
    /// Packets dropped instead of being sent.
    pub tx_dropped: u64,
}

/// A veth pair to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Veth {
    /// Name of one end.
    pub name: String,
    /// Its link-layer address; `None` lets Linux choose one.
    pub mac: Option<MacAddr>,
    /// Name of the other end.
    pub peer: String,
    /// Its link-layer address.
    pub peer_mac: Option<MacAddr>,
    /// Queues of each end and direction, at least 1.
    pub queues: u32,
    /// The largest packet, in octets, for both ends.
    pub mtu: u32,
}

impl Netlink {
    /// The device with this name, if there is one.
    ///
    /// # Errors
    /// When Linux refuses for another reason than that.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.link_of(request, || format!("find device {name}"))
    }

    /// The device with this index, if there is one.
    ///
    /// # Errors
    /// When Linux refuses for another reason than that.
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.link_of(request, || format!("find device {index}"))
    }

    fn link_of(
        &mut self,
        request: LinkMessage,
        doing: impl FnOnce() -> String,
    ) -> Result<Option<Link>, Error> {
        match self.get(RouteNetlinkMessage::GetLink(request)) {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
                _ => None,
            })),
            Err(e) => {
                let e = Error::new(doing(), e);
                if e.missing() { Ok(None) } else { Err(e) }
            }
        }
    }

    /// All devices.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let answers = self
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .map_err(|e| Error::new("list devices", e))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
                _ => None,
            })
            .collect())
    }

    /// Queues of a device that are in use.
    pub fn queues(&self, link: &Link) -> Queues {
        // A driver that does not say uses all.
        let (receive, transmit) =
            sys::channels(&link.name).unwrap_or((link.rx_queues, link.tx_queues));
        Queues {
            receive: receive.clamp(1, link.rx_queues.max(1)),
            transmit: transmit.clamp(1, link.tx_queues.max(1)),
        }
    }

    /// Makes a veth pair, both ends down.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::exists`] when one of the names is taken.
    pub fn veth_add(&mut self, veth: &Veth) -> Result<(), Error> {
        let end = |name: &str, mac: Option<MacAddr>| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Mtu(veth.mtu),
                LinkAttribute::NumRxQueues(veth.queues.max(1)),
                LinkAttribute::NumTxQueues(veth.queues.max(1)),
            ];
            // An address given here also keeps udev from choosing another.
            message
                .attributes
                .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
            message
        };
        let peer = end(&veth.peer, veth.peer_mac);
        let mut message = end(&veth.name, veth.mac);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.make(RouteNetlinkMessage::NewLink(message), Make::Exclusive)
            .map_err(|e| {
                Error::new(
                    format!("make the veth pair {} and {}", veth.name, veth.peer),
                    e,
                )
            })
    }

    /// Deletes a device (of a veth pair, both ends).
    ///
    /// # Errors
    /// When Linux refuses; [`Error::missing`] when it is not there.
    pub fn link_delete(&mut self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|e| Error::new(format!("delete device {index}"), e))
    }

    /// Sets a device up or down.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        let word = if up { "up" } else { "down" };
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|e| Error::new(format!("set device {index} {word}"), e))
    }

    /// Gives a device another link-layer address.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), Error> {
        self.set(index, LinkAttribute::Address(mac.0.to_vec()), || {
            format!("give device {index} the address {mac}")
        })
    }

    /// Sets a device's MTU, in octets.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), Error> {
        self.set(index, LinkAttribute::Mtu(mtu), || {
            format!("give device {index} an MTU of {mtu}")
        })
    }

    /// Sets a device's alias: a text for people.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), Error> {
        self.set(index, LinkAttribute::IfAlias(alias.to_owned()), || {
            format!("give device {index} the alias {alias:?}")
        })
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// When Linux refuses; [`Error::exists`] when the name is taken.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Error> {
        self.set(index, LinkAttribute::IfName(name.to_owned()), || {
            format!("rename device {index} to {name}")
        })
    }

    /// Moves a device to another network namespace, where it keeps its name but neither addresses nor state.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn move_to(&mut self, index: u32, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        self.set(index, LinkAttribute::NetNsFd(namespace.as_raw_fd()), || {
            format!("move device {index} to another network namespace")
        })
    }

    /// Makes a device a port of a bridge; `None` takes it out.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn set_controller(&mut self, index: u32, bridge: Option<u32>) -> Result<(), Error> {
        self.set(
            index,
            LinkAttribute::Controller(bridge.unwrap_or(0)),
            || format!("put device {index} into a bridge"),
        )
    }

    pub(crate) fn set(
        &mut self,
        index: u32,
        attribute: LinkAttribute,
        doing: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Unspec;
        message.header.index = index;
        message.attributes.push(attribute);
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|e| Error::new(doing(), e))
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: MacAddr::default(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            rx_queues: 1,
            tx_queues: 1,
            kind: String::new(),
            alias: String::new(),
            xdp: XdpAttached::No,
            statistics: Statistics::default(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => {
                    link.mac = MacAddr(mac.try_into().unwrap_or_default());
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = queues,
                LinkAttribute::NumTxQueues(queues) => link.tx_queues = queues,
                LinkAttribute::IfAlias(alias) => link.alias = alias,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind.to_string();
                        }
                    }
                }
                LinkAttribute::Xdp(facts) => {
                    for fact in facts {
                        if let LinkXdp::Attached(attached) = fact {
                            link.xdp = match attached {
                                Attached::None => XdpAttached::No,
                                Attached::Driver => XdpAttached::Native,
                                Attached::SocketBuffer => XdpAttached::Generic,
                                _ => XdpAttached::Other,
                            };
                        }
                    }
                }
                LinkAttribute::Stats64(stats) => {
                    link.statistics = Statistics {
                        rx_packets: stats.rx_packets,
                        tx_packets: stats.tx_packets,
                        rx_dropped: stats.rx_dropped,
                        tx_dropped: stats.tx_dropped,
                    };
                }
                _ => {}
            }
        }
        link
    }
}

/// Work that Linux leaves to the device, or puts off. What AF_XDP receives must be whole: a checksum that Linux left
/// open would travel into the tunnel as it is, and merged packets are larger than a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offloads {
    /// Checksums of packets to send, and with them segmentation (TSO, GSO).
    Transmit,
    /// Merging of received packets (GRO, LRO).
    Merge,
}

/// Turns an offload of a device on or off (as `ethtool -K`).
///
/// # Errors
/// When Linux refuses; a device that cannot do it at all is no error when it is to be off.
pub fn set_offloads(name: &str, offloads: Offloads, on: bool) -> Result<(), Error> {
    let features: &[sys::Feature] = match offloads {
        Offloads::Transmit => &[
            sys::Feature::TransmitChecksum,
            sys::Feature::Segmentation,
            sys::Feature::GenericSegmentation,
        ],
        // LRO is never turned on: few devices have it, and it may not be used where packets are forwarded.
        Offloads::Merge if on => &[sys::Feature::GenericReceive],
        Offloads::Merge => &[sys::Feature::GenericReceive, sys::Feature::LargeReceive],
    };
    for &feature in features {
        match sys::set_feature(name, feature, on) {
            Err(e) if !on && e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(e) => {
                let word = if on { "on" } else { "off" };
                return Err(Error::new(
                    format!("turn {feature} {word} on device {name}"),
                    e,
                ));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
