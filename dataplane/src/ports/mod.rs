//! The ports: devices, XDP program and sockets put together, and taken apart again.
//!
//! [`Ports::open`] makes everything that a server or a client needs between itself and Linux; dropping [`Ports`] leaves
//! nothing behind, and so does the end of the process: programs go with their links, sockets with their descriptors,
//! and the veth pair is deleted by the next start.

mod hints;
mod host;
mod landing;
pub mod raw;
mod report;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use turnpike_ebpf as shared;
use turnpike_protocol::wire::ethernet::MacAddr;

use self::host::HostPort;
pub use self::host::{MAX_HOST_NAME, NEXT_HOP, NEXT_HOP6, peer_name};
pub use self::landing::Landing;
pub use self::report::{DeviceReport, PortMode, SocketReport};
use crate::api::{Port, PortInfo, WorkerId};
use crate::netdev::{self, Link, Netlink};
use crate::xdp::{self, Program};
pub use crate::xdp::{Mode, ModeChoice};
use crate::xsk::{self, Binding, Sizes, SocketHandle, Xsk};

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortsConfig {
    /// Where clients' GRE arrives.
    pub access: Nic,
    /// Where inner packets leave straight to a next hop; may be the same device as `access`. `None`: all of them go to
    /// Linux by the host port.
    pub uplink: Option<Nic>,
    /// The veth pair into Linux.
    pub host: HostConfig,
    /// Workers, each with queues of its own: at most as many as the devices have ([`queues`]).
    pub workers: usize,
    /// Sizes of rings and memories of each worker.
    pub sizes: Sizes,
}

/// A device that is there already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Its name.
    pub interface: String,
    /// Where XDP is to run.
    pub mode: ModeChoice,
}

/// The veth pair to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// Name of Linux' end, 13 octets at most. Ours has `-x` behind it.
    pub interface: String,
    /// The largest packet, in octets.
    pub mtu: u16,
    /// Addresses of Linux' end, each with the length of the prefix on its link (32: none).
    pub addresses: Vec<Ipv4Net>,
}

/// Why the ports do not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such device.
    #[error("there is no network interface {0}")]
    NoInterface(String),
    /// Not a name that Linux takes.
    #[error("the host interface's name {name:?} must have 1 to {most} characters")]
    Name {
        /// The name.
        name: String,
        /// How many characters it may have.
        most: usize,
    },
    /// The name of the veth pair is taken by something that turnpike did not make.
    #[error(
        "the interface {0} exists and is not turnpike's: choose another name for the host interface, or delete it"
    )]
    Foreign(String),
    /// The veth pair belongs to a process that runs.
    #[error(
        "the interface {0} is in use by another turnpike: choose another name for the host interface, or stop it"
    )]
    InUse(String),
    /// More workers than queues.
    #[error(
        "{workers} workers need as many queues to receive and to send, but {interface} has {queues}"
    )]
    TooManyWorkers {
        /// Workers asked for.
        workers: usize,
        /// The device.
        interface: String,
        /// Its queues.
        queues: u32,
    },
    /// More queues than the XDP program has room for.
    #[error(
        "{interface} has {queues} receive queues, more than {most}: reduce them with `ethtool -L {interface}`"
    )]
    TooManyQueues {
        /// The device.
        interface: String,
        /// Its queues.
        queues: u32,
        /// What there is room for.
        most: u32,
    },
    /// Linux refused something about a device.
    #[error("could not {0}")]
    Device(#[from] netdev::Error),
    /// The XDP program.
    #[error(transparent)]
    Program(#[from] xdp::Error),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] xsk::Error),
}

/// One port, opened.
#[derive(Clone, Debug)]
struct Opened {
    interface: String,
    index: u32,
    mac: MacAddr,
    mtu: u16,
    queues: u32,
    mode: Mode,
    up: bool,
    /// A device that can be touched, not one that Linux makes up.
    physical: bool,
}

/// All ports of a process. To be dropped after the workers have ended: what they still hold would have nowhere to go.
#[derive(Debug)]
pub struct Ports {
    // Dropped in this order: first nothing is redirected any more, then the veth pair goes.
    program: Program,
    sockets: Vec<(WorkerId, SocketHandle)>,
    workers: u32,
    host: HostPort,
    netlink: Netlink,
    opened: [Option<Opened>; Port::ALL.len()],
    hints: Vec<String>,
}

/// Queues of a device that both receive and send: how many workers it can serve.
///
/// # Errors
/// When there is no such device.
pub fn queues(interface: &str) -> Result<u32, Error> {
    let mut netlink = Netlink::open()?;
    let link = find(&mut netlink, interface)?;
    let queues = netlink.queues(&link);
    Ok(queues.receive.min(queues.transmit))
}

fn find(netlink: &mut Netlink, interface: &str) -> Result<Link, Error> {
    netlink
        .link(interface)?
        .ok_or_else(|| Error::NoInterface(interface.to_owned()))
}

/// An MTU as packets know it.
fn mtu(link: &Link) -> u16 {
    u16::try_from(link.mtu).unwrap_or(u16::MAX)
}

impl Ports {
    /// Opens all ports in the thread's network namespace. The sockets are those of worker 0, 1 and so on. Nothing is
    /// redirected before [`Ports::local_add`] and [`Ports::pool_add`] say what.
    ///
    /// # Errors
    /// When something is missing or refused; then nothing is left of what was made before.
    pub fn open(config: &PortsConfig) -> Result<(Self, Vec<Xsk>), Error> {
        let mut netlink = Netlink::open()?;
        let workers = u32::try_from(config.workers).unwrap_or(u32::MAX).max(1);
        let mut nics = vec![(Port::Access, &config.access)];
        nics.extend(config.uplink.iter().map(|nic| (Port::Uplink, nic)));
        let mut devices = Vec::new();
        for (port, nic) in nics {
            let link = find(&mut netlink, &nic.interface)?;
            let netdev::Queues { receive, transmit } = netlink.queues(&link);
            // A worker sends on the first of its queues.
            if receive.min(transmit) < workers {
                return Err(Error::TooManyWorkers {
                    workers: config.workers,
                    interface: link.name,
                    queues: receive.min(transmit),
                });
            }
            devices.push((port, link, receive, nic.mode));
        }
        let mut program = Program::load()?;
        let mut host = HostPort::make(&config.host, workers)?;
        devices.push((Port::Host, host.ours.clone(), workers, ModeChoice::Auto));
        if let Some((_, link, queues, _)) = devices.iter().find(|d| d.2 > shared::MAX_QUEUES) {
            return Err(Error::TooManyQueues {
                interface: link.name.clone(),
                queues: *queues,
                most: shared::MAX_QUEUES,
            });
        }

        let mut xsks = Vec::new();
        let mut sockets = Vec::new();
        for worker in 0..workers {
            let bindings: Vec<Binding> = devices
                .iter()
                .flat_map(|(port, link, queues, _)| {
                    let own = (worker..*queues).step_by(workers as usize);
                    own.map(|queue| Binding {
                        port: *port,
                        device: link.index,
                        queue,
                    })
                })
                .collect();
            let xsk = Xsk::open(&bindings, &config.sizes)?;
            for handle in xsk.handles() {
                let slot = first_slot(handle.binding.port) + handle.binding.queue;
                program.set_socket(slot, handle.socket())?;
                sockets.push((WorkerId(u8::try_from(worker).unwrap_or(u8::MAX)), handle));
            }
            xsks.push(xsk);
        }

        for (_, link, ..) in &devices {
            let on_it = devices.iter().filter(|d| d.1.index == link.index);
            program.set_port(link.index, entry(link, on_it.map(|d| d.0)))?;
        }
        let mut opened: [Option<Opened>; Port::ALL.len()] = [const { None }; Port::ALL.len()];
        for (port, link, queues, choice) in &devices {
            // One program serves two ports on one device.
            let attached = opened.iter().flatten().find(|o| o.index == link.index);
            let mode = match attached {
                Some(other) => other.mode,
                None => program.attach(&mut netlink, link.index, &link.name, *choice)?,
            };
            opened[*port as usize] = Some(Opened {
                interface: link.name.clone(),
                index: link.index,
                mac: link.mac,
                mtu: mtu(link),
                queues: *queues,
                mode,
                up: link.up,
                physical: link.kind.is_empty(),
            });
        }
        host.up()?;
        let mut ports = Self {
            program,
            sockets,
            workers,
            host,
            netlink,
            opened,
            hints: Vec::new(),
        };
        ports.hints = hints::find(&ports);
        for port in ports.opened.iter().flatten() {
            tracing::info!(
                interface = port.interface,
                mode = %port.mode,
                queues = port.queues,
                "XDP program attached"
            );
        }
        for hint in &ports.hints {
            tracing::warn!("{hint}");
        }
        Ok((ports, xsks))
    }

    /// Takes calls' GRE to one of the machine's addresses from now on.
    ///
    /// # Errors
    /// When there are too many.
    pub fn local_add(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        Ok(self.program.local_add(address)?)
    }

    /// Leaves GRE to this address to Linux again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn local_remove(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        Ok(self.program.local_remove(address)?)
    }

    /// Takes packets to inner addresses: XDP steers them to the workers, and Linux routes its own and what it forwards
    /// into the host port. The same as [`Ports::steer_add`] and [`Ports::route_add`].
    ///
    /// # Errors
    /// When there are too many prefixes, or Linux refuses the route.
    pub fn pool_add(&mut self, net: impl Into<IpNet>) -> Result<(), Error> {
        let net = net.into();
        self.steer_add(net)?;
        self.route_add(net, None)
    }

    /// Leaves them to Linux again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pool_remove(&mut self, net: impl Into<IpNet>) -> Result<(), Error> {
        let net = net.into();
        self.route_remove(net)?;
        self.steer_remove(net)
    }

    /// Takes packets to inner addresses on the uplink and host ports; Linux' routes stay as they are.
    ///
    /// # Errors
    /// When there are too many prefixes.
    pub fn steer_add(&mut self, net: impl Into<IpNet>) -> Result<(), Error> {
        Ok(self.program.pool_add(net.into())?)
    }

    /// Leaves them to Linux again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn steer_remove(&mut self, net: impl Into<IpNet>) -> Result<(), Error> {
        Ok(self.program.pool_remove(net.into())?)
    }

    /// Makes Linux route these destinations into the host port, its own packets with this source address.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn route_add(
        &mut self,
        net: impl Into<IpNet>,
        source: Option<IpAddr>,
    ) -> Result<(), Error> {
        Ok(self.host.route_add(net.into(), source)?)
    }

    /// Takes such a route back.
    ///
    /// # Errors
    /// When Linux refuses; a route that is gone is none.
    pub fn route_remove(&mut self, net: impl Into<IpNet>) -> Result<(), Error> {
        Ok(self.host.route_remove(net.into())?)
    }

    /// Gives Linux' end of the host port an address (with the length of the prefix on its link; 32 or 128: none).
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn address_add(&mut self, address: impl Into<IpNet>) -> Result<(), Error> {
        Ok(self.host.address_add(address.into())?)
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When Linux refuses; an address that is gone is none.
    pub fn address_remove(&mut self, address: impl Into<IpNet>) -> Result<(), Error> {
        Ok(self.host.address_remove(address.into())?)
    }

    /// Sets the MTU of Linux' end of the host port, in octets: no larger packet comes from there.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn set_host_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        Ok(self.netlink.set_mtu(self.host.linux.index, mtu.into())?)
    }

    /// What workers must know of a port; `None` when there is no such port.
    pub fn info(&self, port: Port) -> Option<PortInfo> {
        self.opened[port as usize].as_ref().map(|o| PortInfo {
            mac: o.mac,
            mtu: o.mtu,
        })
    }

    /// Index of a port's device; of the host port, Linux' end.
    pub fn index(&self, port: Port) -> Option<u32> {
        match port {
            Port::Host => Some(self.host.linux.index),
            Port::Access | Port::Uplink => self.opened[port as usize].as_ref().map(|o| o.index),
        }
    }

    /// Link-layer address of Linux' end of the host port.
    pub fn host_peer_mac(&self) -> MacAddr {
        self.host.linux.mac
    }

    /// Things about the machine that an operator should know, each a sentence. They were logged at the start.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    fn each(&self) -> impl Iterator<Item = (Port, &Opened)> {
        Port::ALL
            .into_iter()
            .filter_map(|port| Some((port, self.opened[port as usize].as_ref()?)))
    }

    /// The name that an operator knows a port by.
    fn name(&self, port: Port, opened: &Opened) -> String {
        match port {
            Port::Host => self.host.linux.name.clone(),
            Port::Access | Port::Uplink => opened.interface.clone(),
        }
    }
}

/// Where a port's sockets begin in the XDP program's map.
fn first_slot(port: Port) -> u32 {
    port as u32 * shared::MAX_QUEUES
}

/// What the XDP program must know of a device with these ports.
fn entry(link: &Link, ports: impl Iterator<Item = Port>) -> shared::Port {
    let [a, b, c, d, e, f] = link.mac.0;
    let mut entry = shared::Port {
        roles: 0,
        gre_sockets: 0,
        pool_sockets: 0,
        mac: [a, b, c, d, e, f, 0, 0],
    };
    for port in ports {
        match port {
            Port::Access => {
                entry.roles |= shared::ROLE_ACCESS;
                entry.gre_sockets = first_slot(port);
            }
            Port::Uplink | Port::Host => {
                entry.roles |= shared::ROLE_POOL;
                entry.pool_sockets = first_slot(port);
            }
        }
    }
    entry
}
