//! The four namespaces of demo and tests.
//!
//! ```text
//!  client                access                    concentrator                     internet
//!  10.7.0.2  c0 ---- lan0 [ br0 ] lan1 ---- wan0  10.7.0.1 | 198.51.100.1  net0 ---- inet0  198.51.100.2
//!                                                                                    lo     203.0.113.80
//! ```
//!
//! The client has no route but to the access network. The internet knows the pools only by way of the concentrator.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::netns::{Lab, Namespace};

/// The concentrator's address on the access network: the one that clients dial.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
/// The client's address on the access network.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// Somebody on the internet, behind the next hop.
pub const TARGET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The next hop of the concentrator.
pub const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The concentrator's address towards the internet.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The networks that inner addresses come from, in the examples' pools.
pub const INNER: [&str; 2] = ["10.20.0.0/22", "10.64.0.0/15"];
/// The bridge of the access network.
pub const BRIDGE: &str = "br0";
/// The client's interface.
pub const CLIENT_INTERFACE: &str = "c0";
/// The concentrator's interface to the access network.
pub const ACCESS_INTERFACE: &str = "wan0";
/// The concentrator's interface to the internet.
pub const UPLINK_INTERFACE: &str = "net0";

/// The namespaces, wired up and addressed.
#[derive(Debug)]
pub struct Road {
    /// Where the client lives.
    pub client: Namespace,
    /// The bridge between client and concentrator.
    pub access: Namespace,
    /// Where turnpike runs.
    pub concentrator: Namespace,
    /// What the client wants to reach.
    pub internet: Namespace,
    /// The set they belong to; dropped last.
    pub lab: Lab,
}

/// Who will own the client's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSide {
    /// Linux in the client's namespace, which gets the address.
    Namespace,
    /// A guest on the raw interface.
    Guest,
}

impl Road {
    /// Builds it.
    pub fn build(client_side: ClientSide) -> Result<Self> {
        Self::with_queues(client_side, 1)
    }

    /// The same, with so many queues on the concentrator's interfaces.
    pub fn with_queues(client_side: ClientSide, queues: u8) -> Result<Self> {
        let lab = Lab::new()?;
        let road = Self {
            client: lab.namespace("client")?,
            access: lab.namespace("access")?,
            concentrator: lab.namespace("concentrator")?,
            internet: lab.namespace("internet")?,
            lab,
        };
        road.access.bridge(BRIDGE)?;
        road.access
            .veth("lan0", &road.client, CLIENT_INTERFACE, 1)?;
        road.access
            .veth("lan1", &road.concentrator, ACCESS_INTERFACE, queues)?;
        for port in ["lan0", "lan1"] {
            road.access
                .ip(&format!("link set {port} master {BRIDGE}"))?;
        }
        road.internet
            .veth("inet0", &road.concentrator, UPLINK_INTERFACE, queues)?;
        if client_side == ClientSide::Namespace {
            road.client
                .ip(&format!("addr add {CLIENT}/24 dev {CLIENT_INTERFACE}"))?;
        }
        let concentrator = &road.concentrator;
        concentrator.ip(&format!("addr add {SERVER}/24 dev {ACCESS_INTERFACE}"))?;
        concentrator.ip(&format!("addr add {OUTSIDE}/30 dev {UPLINK_INTERFACE}"))?;
        concentrator.ip(&format!("route add default via {NEXT_HOP}"))?;
        concentrator.sysctl("net.ipv4.ip_forward", "1")?;
        road.internet
            .ip(&format!("addr add {NEXT_HOP}/30 dev inet0"))?;
        road.internet.ip(&format!("addr add {TARGET}/32 dev lo"))?;
        for network in INNER {
            road.internet
                .ip(&format!("route add {network} via {OUTSIDE}"))?;
        }
        Ok(road)
    }
}
