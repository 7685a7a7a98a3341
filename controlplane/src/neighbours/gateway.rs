//! The uplink's gateway, and the upkeep of next hops in Linux' neighbour table.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Change, Follower, Lookups, PATIENCE, destination, is_managed, mac_of, usable};

impl Follower {
    /// Finds the uplink's gateway and makes the kernel keep its neighbour entry.
    pub(super) async fn read_gateway(&mut self) -> io::Result<()> {
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
            self.let_go().await;
            self.gateway = gateway;
            self.report(Change::Gateway(gateway));
            if let Some(gateway) = gateway {
                self.keep(uplink, gateway).await;
            }
        }
        Ok(())
    }

    /// AF_XDP traffic never confirms a neighbour, so it would go stale: the kernel keeps a managed one (since 5.16);
    /// older ones are asked again every few seconds.
    async fn keep(&mut self, uplink: u32, gateway: Ipv4Addr) {
        let key = (uplink, gateway);
        self.managed = self.kept.contains(&key);
        // An administrator's own entry stays as it is, now and at the end.
        if self.managed || self.permanent.contains(&key) {
            return;
        }
        self.managed = self.requests.resolve(uplink, gateway, true).await.is_ok();
        if self.managed {
            self.ours = Some(key);
        } else {
            self.ask(uplink, gateway).await;
        }
    }

    /// Takes back what [`Follower::keep`] has done: an entry that the kernel keeps for us becomes an ordinary one. To
    /// be called when the follower is not going to run any more; [`Follower::run`] does so at its end.
    pub async fn let_go(&mut self) {
        self.managed = false;
        let Some(key) = self.ours.take() else {
            return;
        };
        self.kept.remove(&key);
        let released = tokio::time::timeout(PATIENCE, self.release(key)).await;
        let released = released.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = released {
            tracing::warn!(gateway = %key.1, %error, "Linux goes on keeping the gateway's neighbour entry");
        }
    }

    async fn release(&mut self, (interface, address): (u32, Ipv4Addr)) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        // As it is now: an administrator may have put an entry in its place, and changes may still be on their way.
        let answers = self
            .requests
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .await?;
        let entry = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(entry)
                if entry.header.ifindex == interface && destination(entry) == Some(address) =>
            {
                Some(entry)
            }
            _ => None,
        });
        match entry {
            Some(entry) if is_managed(entry) => {
                let mac = mac_of(entry).filter(|_| usable(entry.header.state));
                self.requests.release(interface, address, mac).await
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn probe(&mut self, lookups: &Lookups) {
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
