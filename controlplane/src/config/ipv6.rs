//! What `[network]` says of IPv6.

use core::net::Ipv6Addr;

use ipnet::Ipv6Net;
use turnpike_protocol::wire::ipv6;

use super::read::{At, Reader, Section};
use super::{Delegated, Ipv6};
use crate::prefixes::LINK_LENGTH;

/// The shortest pool: nobody has a longer one to give away.
const SHORTEST: u8 = 16;

/// How long delegated prefixes are where nothing is said (RFC 6177 §2: sites get something between /48 and /64).
const DELEGATED_LENGTH: u8 = 56;

const POOL: &str = "write a prefix such as \"2001:db8:1::/48\": each call gets a /64 of it";
const DELEGATED: &str = "write a prefix such as \"2001:db8:8000::/40\"";

/// A prefix that can be a pool, or what to write instead.
enum Pool {
    Prefix(Ipv6Net),
    Unusable(String),
}

fn pool(text: &str) -> Option<Pool> {
    let prefix: Ipv6Net = text.trim().parse().ok()?;
    Some(if prefix.trunc() != prefix {
        Pool::Unusable(format!("the prefix is \"{}\"", prefix.trunc()))
    } else if prefix.prefix_len() < SHORTEST {
        Pool::Unusable(format!("write at least {SHORTEST} bits"))
    } else if !is_unicast(prefix.network()) {
        Pool::Unusable(NOT_UNICAST.to_owned())
    } else {
        Pool::Prefix(prefix)
    })
}

const NOT_UNICAST: &str =
    "use addresses that are routed: in 2000::/3, or in fd00::/8 for a private network";

/// Whether packets for an address can be routed to somebody: global addresses and unique local ones (RFC 4193).
fn is_unicast(address: Ipv6Addr) -> bool {
    address.octets()[0] >> 5 == 1 || address.is_unique_local()
}

fn server(text: &str) -> Option<Ipv6Addr> {
    text.trim()
        .parse()
        .ok()
        .filter(|address| is_unicast(*address))
}

/// Reads a pool and notes what is wrong with it.
fn pool_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    key: &'static str,
    instead: &str,
) -> Option<At<Ipv6Net>> {
    let At { value, span } = section.text(reader, key, instead, pool)?;
    match value {
        Pool::Prefix(value) => Some(At { value, span }),
        Pool::Unusable(instead) => {
            let what = format!("`{key}` in [network] cannot be this");
            reader.fault(&span, what, instead);
            None
        }
    }
}

/// The keys of IPv6 in `[network]`, whose `mtu` is given.
pub(super) fn ipv6_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    mtu: u16,
) -> Option<Ipv6> {
    let wanted = section.has("ipv6_pool");
    let pool = pool_of(reader, section, "ipv6_pool", POOL);
    let delegated = pool_of(reader, section, "delegated_pool", DELEGATED);
    let length = section.number(
        reader,
        "delegated_length",
        u64::from(SHORTEST)..=u64::from(LINK_LENGTH),
        "write how many bits a delegated prefix has: 56, or at most 64",
    );
    let dns = section.texts(
        reader,
        "dns6",
        "an IPv6 address such as \"2001:db8::53\"",
        server,
    );
    if !wanted {
        let keys = [
            ("delegated_pool", delegated.map(|at| at.span)),
            ("delegated_length", length.map(|at| at.span)),
            ("dns6", dns.map(|at| at.span)),
        ];
        for (key, span) in keys {
            if let Some(span) = span {
                reader.fault(
                    &span,
                    format!("`{key}` in [network] means nothing without `ipv6_pool`"),
                    "add what calls get their own prefixes from: ipv6_pool = \"2001:db8:1::/48\"",
                );
            }
        }
        return None;
    }
    let pool = pool?;
    // One link is ours, so there must be two.
    if pool.value.prefix_len() >= LINK_LENGTH {
        reader.fault(
            &pool.span,
            format!("`ipv6_pool` {} has no room for calls", pool.value),
            format!(
                "write a prefix of at most {} bits: each call gets a /{LINK_LENGTH} of it, and we keep the first",
                LINK_LENGTH - 1
            ),
        );
    }
    if mtu < ipv6::MIN_MTU {
        reader.fault(
            &pool.span,
            format!(
                "IPv6 needs an `mtu` of at least {}, this one is {mtu}",
                ipv6::MIN_MTU
            ),
            "leave `ipv6_pool` out, or write mtu = 1400",
        );
    }
    if let Some(delegated) = &delegated
        && (delegated.value.contains(&pool.value) || pool.value.contains(&delegated.value))
    {
        reader.fault(
            &delegated.span,
            format!("the pools {} and {} overlap", pool.value, delegated.value),
            "write each address once",
        );
    }
    if let (None, Some(length)) = (&delegated, &length) {
        reader.fault(
            &length.span,
            "`delegated_length` in [network] means nothing without `delegated_pool`",
            "leave it out, or write delegated_pool = \"2001:db8:8000::/40\"",
        );
    }
    let delegated = delegated.map(|At { value: pool, span }| {
        let given = length.as_ref().and_then(|at| u8::try_from(at.value).ok());
        let length_bits = given.unwrap_or(DELEGATED_LENGTH);
        if length_bits < pool.prefix_len() {
            reader.fault(
                length.as_ref().map_or(&span, |at| &at.span),
                format!("`delegated_pool` {pool} holds no prefix of {length_bits} bits"),
                format!(
                    "write delegated_length = {} or more, at most {LINK_LENGTH}",
                    pool.prefix_len()
                ),
            );
        }
        Delegated {
            pool,
            length: length_bits,
        }
    });
    let mut servers = [None; 2];
    if let Some(dns) = dns {
        if dns.value.len() > servers.len() {
            reader.fault(
                &dns.span,
                format!("`dns6` in [network] has {} addresses", dns.value.len()),
                "write one or two",
            );
        }
        for (slot, address) in servers.iter_mut().zip(dns.value) {
            *slot = Some(address.value);
        }
    }
    Some(Ipv6 {
        pool: pool.value,
        delegated,
        dns: servers,
    })
}
