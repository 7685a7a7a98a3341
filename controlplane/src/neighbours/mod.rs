//! What Linux knows of the networks around us: neighbours, routes and our own addresses, by netlink.
//!
//! Linux stays the one place where an operator sets up routes and addresses; turnpike follows. A [`Follower`] turns
//! changes into [`Change`]s; [`Lookups`] answers where a client's GRE must go.

mod netlink;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::sync::mpsc;
use tokio::time::Instant;
use turnpike_dataplane::api::Port;
use turnpike_protocol::wire::ethernet::MacAddr;

use netlink::{GROUP_ADDRESS, GROUP_NEIGHBOUR, GROUP_ROUTE, Requests};

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
    /// The access NIC got an address.
    LocalAdded(Ipv4Addr),
    /// The access NIC lost an address.
    LocalRemoved(Ipv4Addr),
    /// Routes changed: next hops of clients should be looked up again.
    Routes,
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

/// Looks up next hops. Cheap to share; requests queue.
pub struct Lookups {
    requests: tokio::sync::Mutex<Requests>,
    /// Next hops in use and by how many calls, so that their neighbours are kept.
    wanted: Mutex<BTreeMap<Ipv4Addr, usize>>,
    access: u32,
}

impl Lookups {
    /// Opens a socket of its own. `access` is the index of the access NIC.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn new(access: u32) -> io::Result<Self> {
        Ok(Self {
            requests: tokio::sync::Mutex::new(Requests::new()?),
            wanted: Mutex::new(BTreeMap::new()),
            access,
        })
    }

    /// The next hop of GRE from `local` to `peer`.
    ///
    /// # Errors
    /// When Linux has no route, or one that does not leave by the access NIC.
    pub async fn next_hop(&self, peer: Ipv4Addr, local: Ipv4Addr) -> io::Result<Ipv4Addr> {
        // Every set-up waits here: an answer that never comes must not stop them all. A late one is skipped by its
        // sequence number.
        let hop = tokio::time::timeout(PATIENCE, async {
            self.requests.lock().await.next_hop(peer, local).await
        })
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if hop.interface != self.access {
            return Err(io::Error::other(format!(
                "Linux' route to {peer} does not leave by the access interface"
            )));
        }
        Ok(hop.via)
    }

    /// Says that a call sends by `via`; its neighbour is kept until [`Lookups::unwant`] was called as often.
    pub fn want(&self, via: Ipv4Addr) {
        let mut wanted = self.wanted.lock().unwrap_or_else(|e| e.into_inner());
        *wanted.entry(via).or_default() += 1;
    }

    /// Takes a [`Lookups::want`] back.
    pub fn unwant(&self, via: Ipv4Addr) {
        let mut wanted = self.wanted.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(count) = wanted.get_mut(&via) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&via);
            }
        }
    }

    /// The index of the access NIC.
    pub fn access(&self) -> u32 {
        self.access
    }

    fn wanted(&self) -> Vec<Ipv4Addr> {
        let wanted = self.wanted.lock().unwrap_or_else(|e| e.into_inner());
        wanted.keys().copied().collect()
    }
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
    locals: BTreeSet<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    /// The kernel keeps the gateway resolved (`NTF_EXT_MANAGED`); without this we ask again and again.
    managed: bool,
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
        let mut follower = Self {
            interests,
            socket,
            requests: Requests::new()?,
            changes,
            neighbours: BTreeMap::new(),
            permanent: BTreeSet::new(),
            locals: BTreeSet::new(),
            gateway: None,
            managed: false,
        };
        follower.resynchronize().await?;
        Ok(follower)
    }

    /// The addresses of the access NIC now.
    pub fn locals(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.locals.iter().copied()
    }

    /// Follows until the receiver of changes is gone.
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
                () = self.changes.closed() => return Ok(()),
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
                    if let Some(address) = self.local(&address)
                        && self.locals.insert(address)
                    {
                        self.report(Change::LocalAdded(address));
                    }
                    routes = true;
                }
                RouteNetlinkMessage::DelAddress(address) => {
                    if let Some(address) = self.local(&address)
                        && self.locals.remove(&address)
                    {
                        self.report(Change::LocalRemoved(address));
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
                locals.extend(self.local(&address));
            }
        }
        let before = std::mem::replace(&mut self.locals, locals);
        for &gone in before.difference(&self.locals) {
            self.report(Change::LocalRemoved(gone));
        }
        for &new in self.locals.difference(&before) {
            self.report(Change::LocalAdded(new));
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
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(destination)) => {
                    address = Some(*destination);
                }
                NeighbourAttribute::LinkLayerAddress(octets) => {
                    mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr);
                }
                _ => {}
            }
        }
        let key = (interface, address?);
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

    /// The address of the access NIC that this message is about.
    fn local(&self, message: &AddressMessage) -> Option<Ipv4Addr> {
        if message.header.index != self.interests.access {
            return None;
        }
        let mut found = None;
        for attribute in &message.attributes {
            match attribute {
                // On point-to-point links "address" is the other end; "local" is always ours.
                AddressAttribute::Local(std::net::IpAddr::V4(address)) => return Some(*address),
                AddressAttribute::Address(std::net::IpAddr::V4(address)) => found = Some(*address),
                _ => {}
            }
        }
        found
    }

    /// Finds the uplink's gateway and makes the kernel keep its neighbour entry.
    async fn read_gateway(&mut self) -> io::Result<()> {
        let Some(uplink) = self.interests.uplink else {
            return Ok(());
        };
        let gateway = match self.interests.gateway {
            Some(configured) => Some(configured),
            None => {
                let mut message = RouteMessage::default();
                message.header.address_family = AddressFamily::Inet;
                default_gateway(
                    &self
                        .requests
                        .dump(RouteNetlinkMessage::GetRoute(message))
                        .await?,
                    uplink,
                )
            }
        };
        if gateway != self.gateway {
            self.gateway = gateway;
            self.report(Change::Gateway(gateway));
            if let Some(gateway) = gateway
                && !self.permanent.contains(&(uplink, gateway))
            {
                // AF_XDP traffic never confirms a neighbour, so it would go stale: the kernel keeps a managed one
                // (since 5.16); older ones are asked again every few seconds.
                self.managed = self.requests.resolve(uplink, gateway, true).await.is_ok();
                if !self.managed {
                    self.ask(uplink, gateway).await;
                }
            }
        }
        Ok(())
    }

    async fn probe(&mut self, lookups: &Lookups) {
        if let (Some(uplink), Some(gateway)) = (self.interests.uplink, self.gateway)
            && !self.permanent.contains(&(uplink, gateway))
            && (!self.managed || !self.neighbours.contains_key(&(uplink, gateway)))
        {
            self.ask(uplink, gateway).await;
        }
        // A client's TCP keeps its next hop alive in Linux; only what got lost is asked for.
        for via in lookups.wanted() {
            if !self.neighbours.contains_key(&(self.interests.access, via)) {
                self.ask(self.interests.access, via).await;
            }
        }
    }

    async fn ask(&mut self, interface: u32, address: Ipv4Addr) {
        if let Err(error) = self.requests.resolve(interface, address, false).await {
            tracing::debug!(%address, %error, "could not ask for a neighbour");
        }
    }
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

/// The gateway of the best default route of the main table that leaves by `interface`.
fn default_gateway(routes: &[RouteNetlinkMessage], interface: u32) -> Option<Ipv4Addr> {
    let mut best: Option<(u32, Ipv4Addr)> = None;
    for message in routes {
        let RouteNetlinkMessage::NewRoute(route) = message else {
            continue;
        };
        if route.header.table != RouteHeader::RT_TABLE_MAIN
            || route.header.destination_prefix_length != 0
        {
            continue;
        }
        let mut metric = 0;
        let mut leaves = None;
        let mut via = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::Oif(index) => leaves = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = Some(*gateway),
                RouteAttribute::MultiPath(hops) => {
                    let hop = hops.iter().find(|hop| hop.interface_index == interface);
                    for attribute in hop.into_iter().flat_map(|hop| &hop.attributes) {
                        if let RouteAttribute::Gateway(RouteAddress::Inet(gateway)) = attribute {
                            leaves = Some(interface);
                            via = Some(*gateway);
                        }
                    }
                }
                _ => {}
            }
        }
        if leaves == Some(interface)
            && let Some(via) = via
            && best.is_none_or(|(other, _)| metric < other)
        {
            best = Some((metric, via));
        }
    }
    best.map(|(_, via)| via)
}
