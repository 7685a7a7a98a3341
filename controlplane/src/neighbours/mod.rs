//! What Linux knows of the networks around us: neighbours, routes and our own addresses, by netlink.
//!
//! Linux stays the one place where an operator sets up routes and addresses; turnpike follows. A [`Follower`] turns
//! changes into [`Change`]s; [`Lookups`] answers where a client's GRE must go.

mod gateway;
mod lookups;
mod netlink;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::sync::mpsc;
use tokio::time::Instant;
use turnpike_dataplane::api::{Command, Port};
use turnpike_protocol::wire::ethernet::MacAddr;

use netlink::{GROUP_ADDRESS, GROUP_NEIGHBOUR, GROUP_ROUTE, Requests};

pub use lookups::Lookups;
pub use netlink::NextHop;

/// How long routes must be quiet before they are read again: a routing daemon changes many at once.
const SETTLE: Duration = Duration::from_millis(100);

/// How long an answer of Linux is waited for, and how long until it is asked again after it failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often neighbours that somebody waits for, or whose upkeep is ours, are asked for again.
const PROBE: Duration = Duration::from_secs(5);

/// Something in Linux' tables changed (or is told for the first time).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A neighbour on a port; without an address when it is gone.
    Neighbour {
        /// The port.
        port: Port,
        /// Where.
        address: Ipv4Addr,
        /// Its link-layer address.
        mac: Option<MacAddr>,
    },
    /// The gateway of inner packets on the uplink.
    Gateway(Option<Ipv4Addr>),
    /// The machine got an address, on whichever interface.
    LocalAdded(Ipv4Addr),
    /// The machine lost an address.
    LocalRemoved(Ipv4Addr),
    /// The access NIC got an address: clients may dial it. After [`Change::LocalAdded`].
    AccessAdded(Ipv4Addr),
    /// The access NIC lost an address.
    AccessRemoved(Ipv4Addr),
    /// Routes changed: next hops of clients should be looked up again.
    Routes,
}

impl Change {
    /// What the workers are to be told of it, if anything.
    pub fn command(&self) -> Option<Command> {
        match *self {
            Self::Neighbour { port, address, mac } => {
                Some(Command::Neighbour { port, address, mac })
            }
            Self::Gateway(via) => Some(Command::DefaultRoute { via }),
            Self::LocalAdded(address) => Some(Command::Local {
                address,
                ours: true,
            }),
            Self::LocalRemoved(address) => Some(Command::Local {
                address,
                ours: false,
            }),
            Self::AccessAdded(_) | Self::AccessRemoved(_) | Self::Routes => None,
        }
    }
}

/// What to follow.
#[derive(Clone, Debug)]
pub struct Interests {
    /// Index of the access NIC.
    pub access: u32,
    /// Index of the uplink NIC; may be the same.
    pub uplink: Option<u32>,
    /// The configured gateway; without one, Linux' default route on the uplink is followed.
    pub gateway: Option<Ipv4Addr>,
}

/// Follows Linux' tables and reports what changed.
pub struct Follower {
    interests: Interests,
    socket: TokioSocket,
    requests: Requests,
    changes: mpsc::UnboundedSender<Change>,
    neighbours: BTreeMap<(u32, Ipv4Addr), MacAddr>,
    /// Those that an administrator set. Linux keeps them by itself; asking for one would throw its address away.
    permanent: BTreeSet<(u32, Ipv4Addr)>,
    /// Those that the kernel keeps resolved (`NTF_EXT_MANAGED`), whoever said so.
    kept: BTreeSet<(u32, Ipv4Addr)>,
    /// All addresses of the machine, by interface: one address may stand on several.
    locals: BTreeSet<(u32, Ipv4Addr)>,
    gateway: Option<Ipv4Addr>,
    /// The kernel keeps the gateway resolved; without this we ask again and again.
    managed: bool,
    /// The entry that the kernel keeps because we said so: taken back when the gateway changes, and at the end.
    ours: Option<(u32, Ipv4Addr)>,
}

impl Follower {
    /// Subscribes and reads all tables once; the first state is reported as changes.
    ///
    /// # Errors
    /// When netlink refuses.
    pub async fn start(
        interests: Interests,
        changes: mpsc::UnboundedSender<Change>,
    ) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        // Subscribed first and read after, so that no change falls between.
        for group in [GROUP_NEIGHBOUR, GROUP_ADDRESS, GROUP_ROUTE] {
            socket.socket_mut().add_membership(group)?;
        }
        Self::over(socket, Requests::new()?, interests, changes).await
    }

    /// Changes come by `socket`, tables by `requests`.
    async fn over(
        socket: TokioSocket,
        requests: Requests,
        interests: Interests,
        changes: mpsc::UnboundedSender<Change>,
    ) -> io::Result<Self> {
        let mut follower = Self {
            interests,
            socket,
            requests,
            changes,
            neighbours: BTreeMap::new(),
            permanent: BTreeSet::new(),
            kept: BTreeSet::new(),
            locals: BTreeSet::new(),
            gateway: None,
            managed: false,
            ours: None,
        };
        follower.resynchronize().await?;
        Ok(follower)
    }

    /// Follows until the receiver of changes is gone, and leaves Linux' tables as they would be without us then.
    ///
    /// # Errors
    /// When netlink fails for good.
    pub async fn run(mut self, lookups: &Lookups) -> io::Result<()> {
        let mut routes_at: Option<Instant> = None;
        // Something was missed, so that everything has to be read again.
        let mut stale = false;
        let mut probe = tokio::time::interval(PROBE);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let settled = async {
                match routes_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changes.closed() => {
                    self.let_go().await;
                    return Ok(());
                }
                received = self.socket.recv_from_full() => match received {
                    Ok((datagram, _)) => {
                        if self.take(&datagram) {
                            routes_at = Some(Instant::now() + SETTLE);
                        }
                    }
                    // The socket's buffer ran over: something was missed, so everything is read again.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        tracing::info!("netlink lost messages; reading Linux' tables again");
                        stale = true;
                        routes_at = Some(Instant::now() + SETTLE);
                    }
                    Err(error) => return Err(error),
                },
                () = settled => {
                    routes_at = None;
                    let read = if stale { self.resynchronize().await } else { self.read_gateway().await };
                    match read {
                        Ok(()) => {
                            stale = false;
                            self.report(Change::Routes);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot read Linux' tables; trying again");
                            stale = true;
                            routes_at = Some(Instant::now() + PATIENCE);
                        }
                    }
                }
                _ = probe.tick() => self.probe(lookups).await,
            }
        }
    }

    fn report(&self, change: Change) {
        // Nobody listens any more: the loop sees that by itself.
        let _ = self.changes.send(change);
    }

    /// True when routes changed.
    fn take(&mut self, datagram: &[u8]) -> bool {
        let mut routes = false;
        for message in netlink::messages(datagram) {
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                continue;
            };
            match message {
                RouteNetlinkMessage::NewNeighbour(neighbour) => {
                    self.neighbour(&neighbour, false);
                }
                RouteNetlinkMessage::DelNeighbour(neighbour) => {
                    self.neighbour(&neighbour, true);
                }
                RouteNetlinkMessage::NewAddress(address) => {
                    if let Some(local) = local(&address) {
                        self.add_local(local);
                    }
                    routes = true;
                }
                RouteNetlinkMessage::DelAddress(address) => {
                    if let Some(local) = local(&address) {
                        self.remove_local(local);
                    }
                    routes = true;
                }
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => {
                    routes = true;
                }
                _ => {}
            }
        }
        routes
    }

    async fn resynchronize(&mut self) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let mut locals = BTreeSet::new();
        for answer in self
            .requests
            .dump(RouteNetlinkMessage::GetAddress(message))
            .await?
        {
            if let RouteNetlinkMessage::NewAddress(address) = answer {
                locals.extend(local(&address));
            }
        }
        let gone: Vec<_> = self.locals.difference(&locals).copied().collect();
        for local in gone {
            self.remove_local(local);
        }
        for local in locals {
            self.add_local(local);
        }

        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        let mut seen = BTreeSet::new();
        for answer in self
            .requests
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .await?
        {
            if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer
                && let Some(key) = self.neighbour(&neighbour, false)
            {
                seen.insert(key);
            }
        }
        let gone: Vec<_> = self
            .neighbours
            .keys()
            .filter(|key| !seen.contains(key))
            .copied()
            .collect();
        for key in gone {
            self.forget(key);
        }
        // Only now is it known whether an administrator set the gateway's neighbour.
        self.read_gateway().await
    }

    /// Takes one entry of Linux' table; answers whose it is when it can be used.
    fn neighbour(&mut self, message: &NeighbourMessage, deleted: bool) -> Option<(u32, Ipv4Addr)> {
        let interface = message.header.ifindex;
        if interface != self.interests.access && Some(interface) != self.interests.uplink {
            return None;
        }
        let key = (interface, destination(message)?);
        if !deleted && is_managed(message) {
            self.kept.insert(key);
        } else {
            self.kept.remove(&key);
        }
        let mac = mac_of(message);
        match mac {
            Some(mac) if !deleted && usable(message.header.state) => {
                if message.header.state == NeighbourState::Permanent {
                    self.permanent.insert(key);
                } else {
                    self.permanent.remove(&key);
                }
                if self.neighbours.insert(key, mac) != Some(mac) {
                    self.tell(key, Some(mac));
                }
                Some(key)
            }
            // Being asked for again: what was known holds until Linux gives up.
            _ if !deleted && message.header.state == NeighbourState::Incomplete => {
                self.neighbours.contains_key(&key).then_some(key)
            }
            _ => {
                self.forget(key);
                None
            }
        }
    }

    fn forget(&mut self, key: (u32, Ipv4Addr)) {
        self.permanent.remove(&key);
        if self.neighbours.remove(&key).is_some() {
            self.tell(key, None);
        }
    }

    fn tell(&self, (interface, address): (u32, Ipv4Addr), mac: Option<MacAddr>) {
        if interface == self.interests.access {
            let port = Port::Access;
            self.report(Change::Neighbour { port, address, mac });
        }
        if Some(interface) == self.interests.uplink {
            let port = Port::Uplink;
            self.report(Change::Neighbour { port, address, mac });
        }
    }

    fn has_local(&self, address: Ipv4Addr) -> bool {
        self.locals.iter().any(|(_, local)| *local == address)
    }

    fn add_local(&mut self, (interface, address): (u32, Ipv4Addr)) {
        let known = self.has_local(address);
        if !self.locals.insert((interface, address)) {
            return;
        }
        if !known {
            self.report(Change::LocalAdded(address));
        }
        if interface == self.interests.access {
            self.report(Change::AccessAdded(address));
        }
    }

    fn remove_local(&mut self, (interface, address): (u32, Ipv4Addr)) {
        if !self.locals.remove(&(interface, address)) {
            return;
        }
        if interface == self.interests.access {
            self.report(Change::AccessRemoved(address));
        }
        if !self.has_local(address) {
            self.report(Change::LocalRemoved(address));
        }
    }
}

/// The interface and the address of ours that a message is about.
fn local(message: &AddressMessage) -> Option<(u32, Ipv4Addr)> {
    let interface = message.header.index;
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links "address" is the other end; "local" is always ours.
            AddressAttribute::Local(std::net::IpAddr::V4(address)) => {
                return Some((interface, *address));
            }
            AddressAttribute::Address(std::net::IpAddr::V4(address)) => {
                found = Some((interface, *address));
            }
            _ => {}
        }
    }
    found
}

/// The address of the neighbour that a message is about.
fn destination(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            _ => None,
        })
}

/// Its link-layer address.
fn mac_of(message: &NeighbourMessage) -> Option<MacAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => {
                <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr)
            }
            _ => None,
        })
}

/// Whether the kernel keeps it resolved.
fn is_managed(message: &NeighbourMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    })
}

/// Whether an entry in this state has a link-layer address that Linux itself would use.
fn usable(state: NeighbourState) -> bool {
    match state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => true,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None => false,
        _ => false,
    }
}
