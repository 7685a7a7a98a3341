//! The uplink of a server.

use turnpike_dataplane::api::{Command, Port};
use turnpike_protocol::wire::ethernet::MacAddr;

use super::{GATEWAY, Pair};

/// The server's default route leads to the gateway, which is known or not.
pub fn with_uplink(pair: &mut Pair, mac: Option<MacAddr>) {
    pair.server
        .tell(Command::DefaultRoute { via: Some(GATEWAY) });
    pair.server.tell(Command::Neighbour {
        port: Port::Uplink,
        address: GATEWAY,
        mac,
    });
    pair.server.turn();
}
