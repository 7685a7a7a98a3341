//! `[network]`: pools, and the addresses that must keep out of them.

use core::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};

use super::Network;
use super::inform::{fits, told};
use super::ipv6::ipv6_of;
use super::parse::{MTU, must};
use super::pools::Found;
use super::read::{At, Reader, Section};
use crate::aaa::Users;
use crate::pool::Range;

/// The network and where its parts stood.
pub(super) struct NetworkAt {
    pub(super) network: Network,
    /// All addresses of all pools.
    pub(super) pool: Vec<At<Range>>,
    pub(super) routes: Vec<At<Ipv4Net>>,
}

pub(super) const ADDRESS: &str = "write an IPv4 address such as \"10.20.0.1\"";

pub(super) fn network_of(
    reader: &mut Reader<'_>,
    mut section: Section<'_>,
    named: Vec<Section<'_>>,
    broken: bool,
) -> Option<NetworkAt> {
    let has = section.has("server_address");
    let server_address = section.text(reader, "server_address", ADDRESS, host_address);
    let server_address = must(
        reader,
        server_address,
        has,
        broken,
        section.span(),
        "`server_address` in [network]",
        "write our own inner address: server_address = \"10.20.0.1\"",
    );
    let found = Found::read(reader, &mut section, named, broken);
    let servers = |reader: &mut Reader<'_>, section: &mut Section<'_>, key| {
        let list = section.texts(
            reader,
            key,
            "an IPv4 address such as \"10.20.0.1\"",
            host_address,
        );
        let mut servers = [None; 2];
        if let Some(list) = list {
            if list.value.len() > servers.len() {
                reader.fault(
                    &list.span,
                    format!(
                        "`{key}` in [network] has {} addresses, PPP carries two",
                        list.value.len()
                    ),
                    "write one or two",
                );
            }
            for (slot, address) in servers.iter_mut().zip(list.value) {
                *slot = Some(address.value);
            }
        }
        servers
    };
    let dns = servers(reader, &mut section, "dns");
    let nbns = servers(reader, &mut section, "nbns");
    let mtu = section.number(
        reader,
        "mtu",
        u64::from(*MTU.start())..=u64::from(*MTU.end()),
        "write 1400, which fits almost every path, or at most 1456: 1500 less the headers of the tunnel (IPv4 20, GRE 16, PPP and MPPE 8)",
    );
    let told = told(reader, &mut section);
    let mtu = mtu
        .and_then(|mtu| u16::try_from(mtu.value).ok())
        .unwrap_or(1400);
    let ipv6 = ipv6_of(reader, &mut section, mtu);
    section.finish(reader);

    let server_address = server_address?;
    let pools = found?.judge(reader, &server_address);
    let network = Network {
        server_address: server_address.value,
        pools: pools.pools,
        rest: pools.rest,
        client_choice: pools.choice,
        dns,
        nbns,
        domain: told.domain.clone(),
        routes: told.routes.iter().map(|route| route.value).collect(),
        mtu,
        prefixes: pools.prefixes,
        ipv6,
    };
    fits(reader, &network, &told);
    Some(NetworkAt {
        network,
        pool: pools.ranges,
        routes: told.routes,
    })
}

/// Notes a fault when `address` is one that a client could get.
pub(super) fn outside_pool(
    reader: &mut Reader<'_>,
    network: &NetworkAt,
    address: &At<Ipv4Addr>,
    role: &str,
) {
    if let Some(range) = network
        .pool
        .iter()
        .find(|range| range.value.contains(address.value))
    {
        reader.fault(
            &address.span,
            format!(
                "{} {role}, but the pool {} holds it",
                address.value, range.value
            ),
            "take it out of the pool, or write it in the pool's `exclude`",
        );
    }
}

/// `prefixes` and the fixed addresses of `users`.
pub(super) fn with_fixed(prefixes: &[Ipv4Net], users: &Users) -> Vec<Ipv4Net> {
    let mut all = prefixes.to_vec();
    for range in users.fixed() {
        all.extend(Ipv4Subnets::new(range.first(), range.last(), 0));
    }
    Ipv4Net::aggregate(&all)
}

/// An IPv4 address that a host can have.
pub(super) fn host_address(text: &str) -> Option<Ipv4Addr> {
    text.parse()
        .ok()
        .filter(|address| Range::single(*address).is_unicast())
}
