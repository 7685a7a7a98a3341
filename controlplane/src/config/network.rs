//! `[network]`: pools, and the addresses that must keep out of them.

use core::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};

use super::Network;
use super::inform::{fits, told};
use super::ipv6::ipv6_of;
use super::parse::{MAX_ADDRESSES, MTU, must};
use super::read::{At, Reader, Section};
use crate::aaa::Users;
use crate::pool::Range;

/// The network and where its parts stood.
pub(super) struct NetworkAt {
    pub(super) network: Network,
    pub(super) pool: Vec<At<Range>>,
    pub(super) routes: Vec<At<Ipv4Net>>,
}

pub(super) const ADDRESS: &str = "write an IPv4 address such as \"10.20.0.1\"";

pub(super) fn network_of(
    reader: &mut Reader<'_>,
    mut section: Section<'_>,
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
    let has = section.has("pool");
    let pool = section.texts(
        reader,
        "pool",
        "a range \"10.20.0.10-10.20.3.250\" or a prefix \"10.21.0.0/24\"",
        block,
    );
    let pool = must(
        reader,
        pool,
        has,
        broken,
        section.span(),
        "`pool` in [network]",
        "write what clients get addresses from: pool = [\"10.20.0.10-10.20.0.250\"]",
    );
    let choice = section.texts(
        reader,
        "client_choice",
        "a range \"10.20.3.1-10.20.3.99\" or a prefix \"10.21.0.0/24\" of the pool",
        block,
    );
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

    let (pool, prefixes) = pool_of(reader, pool?);
    let server_address = server_address?;
    for range in &pool {
        if range.value.contains(server_address.value) {
            reader.fault(
                &range.span,
                format!(
                    "the pool {} holds server_address {}",
                    range.value, server_address.value
                ),
                format!(
                    "leave it out: {}",
                    without(range.value, server_address.value)
                ),
            );
        }
    }
    let client_choice = choice
        .map(|choice| choice_of(reader, choice, &pool))
        .unwrap_or_default();
    let network = Network {
        server_address: server_address.value,
        pool: pool.iter().map(|range| range.value).collect(),
        client_choice,
        dns,
        nbns,
        domain: told.domain.clone(),
        routes: told.routes.iter().map(|route| route.value).collect(),
        mtu,
        prefixes,
        ipv6,
    };
    fits(reader, &network, &told);
    Some(NetworkAt {
        network,
        pool,
        routes: told.routes,
    })
}

/// What stands in a pool: a prefix, of which hosts are used, or a range.
enum Block {
    Prefix(Ipv4Net),
    Range(Range),
    /// Names addresses that no host can have, or a prefix with host bits; holds what to write instead.
    Unusable(String),
}

fn block(text: &str) -> Option<Block> {
    if let Some((first, last)) = text.split_once('-') {
        let first: Ipv4Addr = first.trim().parse().ok()?;
        let last: Ipv4Addr = last.trim().parse().ok()?;
        return Some(match Range::new(first, last) {
            None => Block::Unusable(format!(
                "the lower address stands first: \"{last}-{first}\""
            )),
            Some(range) if !range.is_unicast() => Block::Unusable(NOT_UNICAST.to_owned()),
            Some(range) => Block::Range(range),
        });
    }
    if text.contains('/') {
        let prefix: Ipv4Net = text.trim().parse().ok()?;
        return Some(if prefix.trunc() != prefix {
            Block::Unusable(format!(
                "the prefix is \"{}\"; a range is written \"first-last\"",
                prefix.trunc()
            ))
        } else if !Range::hosts(prefix).is_unicast() {
            Block::Unusable(NOT_UNICAST.to_owned())
        } else {
            Block::Prefix(prefix)
        });
    }
    let address = host_address(text.trim())?;
    Some(Block::Range(Range::single(address)))
}

const NOT_UNICAST: &str = "use addresses that hosts can have: not 0.x, 127.x or 224.x and above; private ones are 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16";

/// What clients may ask for: parts of the pool.
fn choice_of(
    reader: &mut Reader<'_>,
    choice: At<Vec<At<Block>>>,
    pool: &[At<Range>],
) -> Vec<Range> {
    let mut ranges = Vec::new();
    for At { value, span } in choice.value {
        let range = match value {
            Block::Prefix(prefix) => Range::hosts(prefix),
            Block::Range(range) => range,
            Block::Unusable(instead) => {
                reader.fault(
                    &span,
                    "`client_choice` in [network] cannot be this",
                    instead,
                );
                continue;
            }
        };
        let held = pool
            .iter()
            .any(|part| part.value.contains(range.first()) && part.value.contains(range.last()));
        if held {
            ranges.push(range);
        } else {
            reader.fault(
                &span,
                format!("`client_choice` in [network] names {range}, which is not in one part of the pool"),
                "name what `pool` has: clients may only ask for addresses that could be theirs anyway",
            );
        }
    }
    ranges
}

/// The ranges of a pool, sorted, and the prefixes that cover them.
fn pool_of(reader: &mut Reader<'_>, pool: At<Vec<At<Block>>>) -> (Vec<At<Range>>, Vec<Ipv4Net>) {
    let mut ranges: Vec<At<Range>> = Vec::new();
    let mut prefixes = Vec::new();
    let faults = reader.faults.len();
    for At { value, span } in pool.value {
        match value {
            Block::Prefix(prefix) => {
                prefixes.push(prefix);
                ranges.push(At {
                    value: Range::hosts(prefix),
                    span,
                });
            }
            Block::Range(range) => {
                prefixes.extend(Ipv4Subnets::new(range.first(), range.last(), 0));
                ranges.push(At { value: range, span });
            }
            Block::Unusable(instead) => {
                reader.fault(&span, "`pool` in [network] cannot be this", instead);
            }
        }
    }
    ranges.sort_by_key(|range| range.value);
    let mut highest: Option<Range> = None;
    for range in &ranges {
        if let Some(before) = highest
            && before.overlaps(range.value)
        {
            reader.fault(
                &range.span,
                format!("the pools {before} and {} overlap", range.value),
                "write each address once",
            );
        }
        if highest.is_none_or(|before| before.last() < range.value.last()) {
            highest = Some(range.value);
        }
    }
    let size: u64 = ranges.iter().map(|range| range.value.size()).sum();
    if size > MAX_ADDRESSES {
        reader.fault(
            &pool.span,
            format!("`pool` in [network] has {size} addresses"),
            format!("write at most {MAX_ADDRESSES}: each one costs memory at start"),
        );
    } else if size == 0 && reader.faults.len() == faults {
        reader.fault(
            &pool.span,
            "`pool` in [network] is empty",
            "write a range \"10.20.0.10-10.20.0.250\" or a prefix \"10.21.0.0/24\"",
        );
    }
    (ranges, Ipv4Net::aggregate(&prefixes))
}

/// How to write `range` without `address`, which is in it.
fn without(range: Range, address: Ipv4Addr) -> String {
    let address = u32::from(address);
    let below = address
        .checked_sub(1)
        .and_then(|last| Range::new(range.first(), last.into()));
    let above = address
        .checked_add(1)
        .and_then(|first| Range::new(first.into(), range.last()));
    let parts: Vec<_> = [below, above]
        .into_iter()
        .flatten()
        .map(|part| format!("\"{part}\""))
        .collect();
    match parts.is_empty() {
        true => "write another range".to_owned(),
        false => parts.join(", "),
    }
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
            "take it out of `pool` in [network]",
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
