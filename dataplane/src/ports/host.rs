//! The host port: a veth pair, one end in Linux, the other on AF_XDP.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use turnpike_protocol::wire::ethernet::MacAddr;

use super::{Error, HostConfig};
use crate::netdev::{self, Link, MAX_NAME, Netlink, Offloads, Route, Veth, XdpAttached};

/// What both ends are marked with, for people and for the next start.
const ALIAS: &str = "turnpike host port";

/// Link-layer address of Linux' end. Locally administered; the pair is a network of its own, so it need not be unique.
/// Given when the pair is made, so that a pair without an alias (we ended in between) is known all the same.
const LINUX_MAC: MacAddr = MacAddr([0x02, 0x54, 0x50, 0x00, 0x00, 0x01]);
/// Link-layer address of our end.
const OUR_MAC: MacAddr = MacAddr([0x02, 0x54, 0x50, 0x00, 0x00, 0x02]);

/// The next hop of Linux' routes into the host port. Nobody has this address; a permanent neighbour entry stands for
/// it. So Linux needs one entry for any number of calls (on-link routes would need one for each).
pub const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 47, 1);

/// The same for IPv6.
pub const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x47, 1);

/// What is added to the name of Linux' end for ours.
const SUFFIX: &str = "-x";

/// The most octets that the name of Linux' end can have, so that ours still is a name.
pub const MAX_HOST_NAME: usize = MAX_NAME - SUFFIX.len();

/// The name of our end of the pair whose other end, in Linux, is `name`; `None` when one of them cannot be.
pub fn peer_name(name: &str) -> Option<String> {
    (1..=MAX_HOST_NAME)
        .contains(&name.len())
        .then(|| format!("{name}{SUFFIX}"))
}

/// How long an earlier process may take to let go of its program.
const BUSY: Duration = Duration::from_secs(2);

/// The pair; deleted when dropped, with every address and route on it.
#[derive(Debug)]
pub(super) struct HostPort {
    netlink: Netlink,
    /// Linux' end.
    pub(super) linux: Link,
    /// Our end.
    pub(super) ours: Link,
}

impl HostPort {
    /// Makes the pair, both ends down, in the place of one that an earlier process left.
    pub(super) fn make(config: &HostConfig, queues: u32) -> Result<Self, Error> {
        let name = &config.interface;
        let our_name = peer_name(name).ok_or_else(|| Error::Name {
            name: name.clone(),
            most: MAX_HOST_NAME,
        })?;
        let mut netlink = Netlink::open()?;
        for end in [name, &our_name] {
            remove_stale(&mut netlink, end)?;
        }
        netlink.veth_add(&Veth {
            name: name.clone(),
            mac: Some(LINUX_MAC),
            peer: our_name.clone(),
            peer_mac: Some(OUR_MAC),
            queues,
            mtu: config.mtu.into(),
        })?;
        let made = |netlink: &mut Netlink| -> Result<(Link, Link), Error> {
            let linux = netlink
                .link(name)?
                .ok_or(Error::NoInterface(name.clone()))?;
            let ours = netlink
                .link(&our_name)?
                .ok_or(Error::NoInterface(our_name.clone()))?;
            Ok((linux, ours))
        };
        let (linux, ours) = made(&mut netlink)?;
        // From here on a failure drops the pair.
        let mut host = Self {
            netlink,
            linux,
            ours,
        };
        host.prepare(config)?;
        Ok(host)
    }

    fn prepare(&mut self, config: &HostConfig) -> Result<(), Error> {
        for end in [&self.linux, &self.ours] {
            self.netlink.set_alias(end.index, ALIAS)?;
            // Checksums that Linux leaves to a device nobody would fill in.
            netdev::set_offloads(&end.name, Offloads::Transmit, false)?;
        }
        // Our end is for AF_XDP alone. What XDP leaves to Linux there must not be routed back: it would go round.
        setting(&format!("ipv4/conf/{}/forwarding", self.ours.name), "0");
        setting(&format!("ipv6/conf/{}/disable_ipv6", self.ours.name), "1");
        // Workers have checked the sources of what comes out here; a client's packets may have any.
        setting(&format!("ipv4/conf/{}/rp_filter", self.linux.name), "2");
        // ICMP errors of workers have our inner address as their source, which is this end's own: Linux would take them
        // for martians.
        setting(&format!("ipv4/conf/{}/accept_local", self.linux.name), "1");
        for &address in &config.addresses {
            self.netlink.address_add(self.linux.index, address)?;
        }
        Ok(())
    }

    /// Sets both ends up; from now on packets flow.
    pub(super) fn up(&mut self) -> Result<(), Error> {
        self.netlink.set_up(self.ours.index, true)?;
        self.netlink.set_up(self.linux.index, true)?;
        self.netlink
            .neighbour_set(self.linux.index, NEXT_HOP, self.ours.mac)?;
        Ok(())
    }

    /// The next hop of Linux' IPv6 routes. Only asked for where there are any: a machine may have no IPv6.
    fn next_hop6(&mut self) -> Result<IpAddr, netdev::Error> {
        self.netlink
            .neighbour_set(self.linux.index, NEXT_HOP6, self.ours.mac)?;
        Ok(NEXT_HOP6.into())
    }

    /// A route of Linux' into the host port.
    fn route(&self, net: IpNet, via: IpAddr, source: Option<IpAddr>) -> Route {
        Route {
            destination: net,
            device: self.linux.index,
            via: Some(via),
            source,
        }
    }

    pub(super) fn route_add(
        &mut self,
        net: IpNet,
        source: Option<IpAddr>,
    ) -> Result<(), netdev::Error> {
        let via = match net {
            IpNet::V4(_) => NEXT_HOP.into(),
            IpNet::V6(_) => self.next_hop6()?,
        };
        let route = self.route(net, via, source);
        self.netlink.route_add(&route)
    }

    pub(super) fn route_remove(&mut self, net: IpNet) -> Result<(), netdev::Error> {
        let via = match net {
            IpNet::V4(_) => NEXT_HOP.into(),
            IpNet::V6(_) => NEXT_HOP6.into(),
        };
        let route = self.route(net, via, None);
        match self.netlink.route_delete(&route) {
            Err(e) if e.missing() => Ok(()),
            result => result,
        }
    }

    pub(super) fn address_add(&mut self, address: IpNet) -> Result<(), netdev::Error> {
        self.netlink.address_add(self.linux.index, address)
    }

    pub(super) fn address_remove(&mut self, address: IpNet) -> Result<(), netdev::Error> {
        match self.netlink.address_delete(self.linux.index, address) {
            Err(e) if e.missing() => Ok(()),
            result => result,
        }
    }
}

impl Drop for HostPort {
    fn drop(&mut self) {
        match self.netlink.link_delete(self.linux.index) {
            Err(e) if !e.missing() => tracing::warn!("{e}"),
            _ => {}
        }
    }
}

/// Deletes a pair that an earlier process left behind. Another one's device, or one in use, is refused.
fn remove_stale(netlink: &mut Netlink, name: &str) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        let Some(link) = netlink.link(name)? else {
            return Ok(());
        };
        let ours = link.kind == "veth"
            && (link.alias == ALIAS || link.mac == LINUX_MAC || link.mac == OUR_MAC);
        if !ours {
            return Err(Error::Foreign(name.to_owned()));
        }
        // A program on our end belongs to a process that lives, or that ended a moment ago.
        // The name may be either end's.
        let mut used = link.xdp != XdpAttached::No;
        let partners = [
            Some(format!("{name}{SUFFIX}")),
            name.strip_suffix(SUFFIX).map(str::to_owned),
        ];
        for end in partners.into_iter().flatten() {
            used |= netlink
                .link(&end)?
                .is_some_and(|end| end.xdp != XdpAttached::No);
        }
        if used && start.elapsed() < BUSY {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        if used {
            return Err(Error::InUse(name.to_owned()));
        }
        tracing::info!(
            interface = name,
            "deleting a host port that an earlier run left"
        );
        match netlink.link_delete(link.index) {
            Err(e) if !e.missing() => return Err(e.into()),
            _ => return Ok(()),
        }
    }
}

/// Changes one of Linux' network settings, in the thread's network namespace. A machine that does not let us (or has
/// no IPv6) is left as it is.
fn setting(path: &str, value: &str) {
    if let Err(e) = fs::write(format!("/proc/sys/net/{path}"), value) {
        tracing::debug!("net.{path} = {value}: {e}");
    }
}
