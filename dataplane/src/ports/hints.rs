//! What an operator should know about the machine.

use std::fs;

use super::{Mode, Opened, Port, Ports};
use crate::device::MAX_LEN;
use crate::xsk::sys::{self, Feature};

/// The largest IP packet that fits a chunk behind an Ethernet header, in octets.
const MAX_MTU: usize = MAX_LEN - 14;

/// All hints, each a sentence.
pub(super) fn find(ports: &Ports) -> Vec<String> {
    let mut hints = Vec::new();
    if fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "0") {
        hints.push(
            "net.ipv4.ip_forward is 0: Linux forwards nothing between clients and the network; \
             `sysctl net.ipv4.ip_forward=1` changes that"
                .to_owned(),
        );
    }
    for (port, opened) in ports.each().filter(|(port, _)| *port != Port::Host) {
        device(port, opened, &mut hints);
    }
    hints
}

fn device(port: Port, opened: &Opened, hints: &mut Vec<String>) {
    let name = &opened.interface;
    let on = |feature| sys::feature(name, feature).unwrap_or(false);
    if !opened.up {
        hints.push(format!(
            "{name} is down: nothing moves until `ip link set {name} up`"
        ));
    }
    if usize::from(opened.mtu) > MAX_MTU {
        hints.push(format!(
            "{name} has an MTU of {}, but AF_XDP here takes packets of {MAX_MTU} octets at most; larger ones are dropped",
            opened.mtu
        ));
    }
    // Of what arrives at the access port only GRE is ours, and that Linux does not merge.
    if port == Port::Uplink && opened.mode == Mode::Generic && on(Feature::GenericReceive) {
        hints.push(format!(
            "{name} merges received packets (gro), and merged ones are too large for generic XDP, which stalls TCP: \
             `ethtool -K {name} gro off`"
        ));
    }
    if on(Feature::LargeReceive) {
        hints.push(format!(
            "{name} merges received packets (lro), and merged ones are too large for AF_XDP: \
             `ethtool -K {name} lro off`"
        ));
    }
    if opened.physical && on(Feature::ReceiveVlan) {
        hints.push(format!(
            "{name} takes VLAN tags out of packets (rxvlan), so that XDP takes tagged packets for untagged ones: \
             where there are tags, `ethtool -K {name} rxvlan off`"
        ));
    }
}
