//! What Linux on the client's machine is told: addresses, routes and rules on the host port; and what it is asked: next
//! hops and neighbours on the way to the server.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::HashSet;
use std::io;

use ipnet::Ipv4Net;
use turnpike_dataplane::api::Port;
use turnpike_dataplane::netdev::{Netlink, Route, SourceRule};
use turnpike_dataplane::ports::{self, NEXT_HOP, Ports};
use turnpike_protocol::wire::ethernet::MacAddr;
use turnpike_protocol::wire::{ipv6, ndp};

/// Rules of ours have this priority: before the main table's.
const PRIORITY: u32 = 17_230;

/// A table of its own for each host port: this and the index of its device.
const TABLES: u32 = 1_723_000_000;

/// Devices that can have a table.
const MAX_DEVICES: u32 = 1_000_000;

/// Why Linux could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port refused.
    #[error(transparent)]
    Ports(#[from] ports::Error),
    /// Netlink refused.
    #[error("could not {0}")]
    Netlink(#[from] turnpike_dataplane::netdev::Error),
    /// A file of /proc could not be read.
    #[error("cannot read {0}: {1}")]
    Proc(&'static str, #[source] io::Error),
}

/// The routes and rules of one host port. Dropped, it takes the rules back; routes go with the port's device.
pub struct Linux {
    netlink: Netlink,
    table: u32,
    host: u32,
    rules: HashSet<SourceRule>,
    /// Routes beside the host port's: those that keep the way to the server open.
    kept: Vec<Route>,
}

impl Linux {
    /// For the host port of `ports`: everything from addresses that come later goes into it.
    pub fn new(ports: &Ports) -> Result<Self, Error> {
        let mut netlink = Netlink::open()?;
        let host = ports.index(Port::Host).unwrap_or(0);
        for rule in netlink.rules()? {
            let device = rule.table.checked_sub(TABLES);
            if let Some(device) = device
                && rule.priority == PRIORITY
                && device < MAX_DEVICES
                && (device == host || netlink.link_at(device)?.is_none())
            {
                // An earlier run had no time to take it back.
                netlink.rule_delete(&rule)?;
            }
        }
        let table = TABLES + host;
        netlink.route_add_to(
            table,
            &Route {
                destination: Ipv4Net::default().into(),
                device: host,
                via: Some(NEXT_HOP.into()),
                source: None,
            },
        )?;
        Ok(Self {
            netlink,
            table,
            host,
            rules: HashSet::new(),
            kept: Vec::new(),
        })
    }

    /// A call's inner address is ours now, and what comes from it goes into the host port.
    pub fn address_add(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        self.netlink
            .address_add(self.host, Ipv4Net::from(address))?;
        let rule = self.rule(address);
        match self.netlink.rule_add(&rule) {
            Err(error) if !error.exists() => return Err(error.into()),
            _ => {}
        }
        self.rules.insert(rule);
        Ok(())
    }

    /// The call is over.
    pub fn address_remove(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        let rule = self.rule(address);
        if self.rules.remove(&rule) {
            match self.netlink.rule_delete(&rule) {
                Err(error) if !error.missing() => return Err(error.into()),
                _ => {}
            }
        }
        match self
            .netlink
            .address_delete(self.host, Ipv4Net::from(address))
        {
            Err(error) if !error.missing() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What goes to `prefix` from anywhere on this machine goes into the host port, from `source` if nothing else is
    /// said. The default route becomes two halves, so that a default route that is there stays and loses.
    pub fn route_add(&mut self, prefix: Ipv4Net, source: Ipv4Addr) -> Result<(), Error> {
        let halves = match prefix.prefix_len() {
            0 => prefix.subnets(1).map(Iterator::collect).unwrap_or_default(),
            _ => vec![prefix],
        };
        for destination in halves {
            self.netlink.route_add(&Route {
                destination: destination.into(),
                device: self.host,
                via: Some(NEXT_HOP.into()),
                source: Some(source.into()),
            })?;
        }
        Ok(())
    }

    /// The router on the other end of a call, and the groups that it is asked by. There are no link-layer addresses on its
    /// link, so Linux has to be told ours: frames to any other are not taken, nor those to Ethernet's multicast.
    pub fn router(&mut self, router: Ipv6Addr, ours: MacAddr) -> Result<(), Error> {
        for neighbour in [router, ndp::ALL_ROUTERS, ipv6::ALL_DHCP_SERVERS] {
            self.netlink.neighbour_set(self.host, neighbour, ours)?;
        }
        Ok(())
    }

    /// Keeps the way to the server as it is, whatever routes come later.
    pub fn keep_way(&mut self, server: Ipv4Addr, device: u32, via: Ipv4Addr) -> Result<(), Error> {
        if via == server {
            // On the link: more specific than anything that comes.
            return Ok(());
        }
        let route = Route {
            destination: IpAddr::from(server).into(),
            device,
            via: Some(via.into()),
            source: None,
        };
        if !self.kept.contains(&route) {
            self.netlink.route_add(&route)?;
            self.kept.push(route);
        }
        Ok(())
    }

    fn rule(&self, source: Ipv4Addr) -> SourceRule {
        SourceRule {
            source,
            table: self.table,
            priority: PRIORITY,
        }
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        for rule in core::mem::take(&mut self.rules) {
            if let Err(error) = self.netlink.rule_delete(&rule)
                && !error.missing()
            {
                tracing::warn!("could not {error}");
            }
        }
        for route in core::mem::take(&mut self.kept) {
            if let Err(error) = self.netlink.route_delete(&route)
                && !error.missing()
            {
                tracing::warn!("could not {error}");
            }
        }
    }
}

/// The interface identifier that Linux makes of a link-layer address (RFC 4291, appendix A).
pub fn identifier(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The next hop to `server` through `interface`: the server itself when it is on the link. `None` when the main table
/// has no route to it there.
pub fn next_hop(server: Ipv4Addr, interface: &str) -> Result<Option<Ipv4Addr>, Error> {
    const TABLE: &str = "/proc/self/net/route";
    let table = std::fs::read_to_string(TABLE).map_err(|e| Error::Proc(TABLE, e))?;
    Ok(next_hop_in(&table, server, interface))
}

fn next_hop_in(table: &str, server: Ipv4Addr, interface: &str) -> Option<Ipv4Addr> {
    // Numbers stand there as the machine holds them: network byte order, read in its own.
    let address = |text: &str| {
        u32::from_str_radix(text, 16)
            .ok()
            .map(|number| Ipv4Addr::from(number.to_ne_bytes()))
    };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [name, destination, gateway, _, _, _, metric, mask, ..] = columns[..] else {
                return None;
            };
            let (destination, gateway, mask) =
                (address(destination)?, address(gateway)?, address(mask)?);
            let metric: u32 = metric.parse().ok()?;
            let fits = name == interface && server & mask == destination;
            fits.then_some((
                u32::from(mask).count_ones(),
                core::cmp::Reverse(metric),
                gateway,
            ))
        })
        .max_by_key(|(length, metric, _)| (*length, *metric))
        .map(|(_, _, gateway)| {
            if gateway.is_unspecified() {
                server
            } else {
                gateway
            }
        })
}

/// The link-layer address of a neighbour, when Linux knows it.
pub fn neighbour(address: Ipv4Addr, interface: &str) -> Result<Option<MacAddr>, Error> {
    const TABLE: &str = "/proc/self/net/arp";
    let table = std::fs::read_to_string(TABLE).map_err(|e| Error::Proc(TABLE, e))?;
    Ok(neighbour_in(&table, address, interface))
}

fn neighbour_in(table: &str, address: Ipv4Addr, interface: &str) -> Option<MacAddr> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [ip, _, flags, mac, _, device] = columns[..] else {
            return None;
        };
        // Flag 2: complete (ATF_COM).
        let complete = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()? & 2 != 0;
        if ip.parse() != Ok(address) || device != interface || !complete {
            return None;
        }
        let mut octets = [0; 6];
        let mut parts = mac.split(':');
        for octet in &mut octets {
            *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        Some(MacAddr(octets))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(address: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(address))
    }

    #[test]
    fn the_longest_prefix_on_the_interface_wins() {
        let row = |device: &str, to: [u8; 4], via: [u8; 4], metric: u32, mask: [u8; 4]| {
            format!(
                "{device}\t{}\t{}\t0003\t0\t0\t{metric}\t{}\t0\t0\t0\n",
                hex(to),
                hex(via),
                hex(mask)
            )
        };
        let table = [
            "Iface\tDestination\tGateway\n".to_owned(),
            row("eth0", [0; 4], [10, 7, 0, 254], 100, [0; 4]),
            row("eth0", [0; 4], [10, 7, 0, 253], 50, [0; 4]),
            row("eth0", [10, 7, 0, 0], [0; 4], 0, [255, 255, 255, 0]),
            row("eth1", [10, 0, 0, 0], [10, 9, 0, 1], 0, [255, 0, 0, 0]),
        ]
        .concat();
        let hop = |server: [u8; 4], device| next_hop_in(&table, server.into(), device);
        let on_link = Ipv4Addr::new(10, 7, 0, 1);
        assert_eq!(hop([10, 7, 0, 1], "eth0"), Some(on_link));
        assert_eq!(hop([192, 0, 2, 1], "eth0"), Some([10, 7, 0, 253].into()));
        assert_eq!(hop([10, 7, 0, 1], "eth1"), Some([10, 9, 0, 1].into()));
        assert_eq!(hop([192, 0, 2, 1], "eth1"), None);
    }

    #[test]
    fn complete_neighbours_only() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.7.0.1         0x1         0x2         02:00:00:00:00:0a     *        eth0\n\
                     10.7.0.2         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        let known = MacAddr([2, 0, 0, 0, 0, 10]);
        let look = |address: [u8; 4], device| neighbour_in(table, address.into(), device);
        assert_eq!(look([10, 7, 0, 1], "eth0"), Some(known));
        assert_eq!(look([10, 7, 0, 1], "eth1"), None);
        assert_eq!(look([10, 7, 0, 2], "eth0"), None);
    }
}
