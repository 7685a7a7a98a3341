//! A worker's access port over AF_XDP on a network interface, and what has to be known of the way to the server.

use core::net::Ipv4Addr;

use anyhow::Context as _;
use turnpike_dataplane::api::{Port, PortInfo};
use turnpike_dataplane::ports::{HostConfig, Nic as Access, Ports, PortsConfig};
use turnpike_dataplane::xsk::{Sizes, Xsk};
use turnpike_protocol::wire::ethernet::MacAddr;

use super::Flow;
use crate::dial::linux;

/// MTU of the veth pair that comes with the ports. Nothing goes there: the worker's host port is the tester.
const HOST_MTU: u16 = 1500;

/// The interface.
pub(super) struct Nic {
    ports: Ports,
    interface: String,
    locals: Vec<Ipv4Addr>,
    via: Option<Ipv4Addr>,
}

impl Nic {
    /// Opens AF_XDP on an interface. From now on GRE to addresses that are named later goes there.
    pub(super) fn open(options: &Flow, interface: &str) -> anyhow::Result<(Self, Xsk)> {
        let mut sizes = Sizes::default();
        if options.fault.is_some() {
            // What is held back must not starve the worker.
            sizes.worker += 1024;
        }
        let (ports, xsks) = Ports::open(&PortsConfig {
            access: Access {
                interface: interface.to_owned(),
                mode: options.xdp.into(),
            },
            uplink: None,
            host: HostConfig {
                interface: options.host_interface.clone(),
                mtu: HOST_MTU,
                addresses: Vec::new(),
            },
            workers: 1,
            sizes,
        })?;
        let xsk = xsks
            .into_iter()
            .next()
            .with_context(|| format!("{interface} has no queue"))?;
        let nic = Self {
            ports,
            interface: interface.to_owned(),
            locals: Vec::new(),
            via: None,
        };
        Ok((nic, xsk))
    }

    pub(super) fn info(&self) -> Option<PortInfo> {
        self.ports.info(Port::Access)
    }

    /// Takes GRE for an address of ours, and says who the next hop to the server is.
    pub(super) fn reach(&mut self, local: Ipv4Addr, server: Ipv4Addr) -> anyhow::Result<Ipv4Addr> {
        if !self.locals.contains(&local) {
            self.ports.local_add(local)?;
            self.locals.push(local);
        }
        if let Some(via) = self.via {
            return Ok(via);
        }
        let via = linux::next_hop(server, &self.interface)?
            .with_context(|| format!("no route to {server} through {}", self.interface))?;
        self.via = Some(via);
        Ok(via)
    }

    /// The next hop and its link-layer address, when Linux knows it. Linux knew it when TCP connected; what it forgets it
    /// learns again.
    pub(super) fn neighbour(&self) -> Option<(Ipv4Addr, MacAddr)> {
        let via = self.via?;
        match linux::neighbour(via, &self.interface) {
            Ok(mac) => mac.map(|mac| (via, mac)),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Frames that came and found no room.
    pub(super) fn dropped(&self) -> u64 {
        let sockets = self.ports.statistics().unwrap_or_default();
        sockets
            .iter()
            .filter(|socket| socket.port == Port::Access)
            .map(|socket| socket.statistics.rx_dropped + socket.statistics.rx_ring_full)
            .sum()
    }
}
