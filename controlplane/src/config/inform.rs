//! What `[network]` says for DHCPINFORM: a domain, and what goes through the tunnel.

use core::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Network;
use super::network::NetworkAt;
use super::read::{At, Reader, Section};
use crate::inform::{self, Domain, Inform};
use crate::pool::Range;

const DOMAIN: &str =
    "write a domain such as \"office.example\": letters, digits and hyphens between dots";

/// The keys as they stand there.
pub(super) struct Told {
    pub(super) domain: Option<Domain>,
    pub(super) routes: Vec<At<Ipv4Net>>,
}

/// What stands in `routes`.
enum Route {
    Prefix(Ipv4Net),
    /// Nothing that can be routed; holds what to write instead.
    Unusable(String),
}

fn route(text: &str) -> Option<Route> {
    let text = text.trim();
    let prefix: Ipv4Net = match text.contains('/') {
        true => text.parse().ok()?,
        false => text.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(if prefix.trunc() != prefix {
        Route::Unusable(format!("the prefix is \"{}\"", prefix.trunc()))
    } else if prefix.prefix_len() == 0 {
        Route::Unusable(
            "leave it out: whether everything goes through the tunnel is a setting of the client"
                .to_owned(),
        )
    } else if !Range::hosts(prefix).is_unicast() {
        Route::Unusable(
            "use networks that hosts can be in: not 0.x, 127.x or 224.x and above".to_owned(),
        )
    } else {
        Route::Prefix(prefix)
    })
}

pub(super) fn told(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Told {
    let domain = section.text(reader, "domain", DOMAIN, Domain::new);
    let list = section.texts(reader, "routes", "a network such as \"10.0.0.0/8\"", route);
    let mut routes: Vec<At<Ipv4Net>> = Vec::new();
    for At { value, span } in list.into_iter().flat_map(|list| list.value) {
        match value {
            Route::Unusable(instead) => {
                reader.fault(&span, "`routes` in [network] cannot be this", instead);
            }
            Route::Prefix(prefix) => {
                match routes.iter().find(|route| route.value.contains(&prefix)) {
                    Some(At { value: before, .. }) => reader.fault(
                        &span,
                        format!("`routes` in [network] holds {prefix} in {before} already"),
                        "write each network once",
                    ),
                    None => routes.push(At {
                        value: prefix,
                        span,
                    }),
                }
            }
        }
    }
    Told {
        domain: domain.map(|domain| domain.value),
        routes,
    }
}

/// Notes a fault when what clients are told does not fit a DHCP message.
pub(super) fn fits(reader: &mut Reader<'_>, network: &Network, told: &Told) {
    let Some(last) = told.routes.last() else {
        return;
    };
    let octets = inform::routes(&network.routes, network.server_address).len();
    if octets > Inform::ROUTES {
        reader.fault(
            &last.span,
            format!(
                "`routes` in [network] takes {octets} octets, a DHCP option has {}",
                Inform::ROUTES
            ),
            "write fewer or shorter prefixes: each takes 5 octets and one for every 8 bits",
        );
        return;
    }
    let octets = network.inform().octets();
    if octets > Inform::ROOM {
        reader.fault(
            &last.span,
            format!(
                "`routes`, `domain`, `dns` and `nbns` in [network] take {octets} octets, a DHCP answer has {}",
                Inform::ROOM
            ),
            "write fewer routes or a shorter domain",
        );
    }
}

/// Notes a fault when what carries the tunnel would be sent into it.
pub(super) fn outside_routes(reader: &mut Reader<'_>, network: &NetworkAt, address: &At<Ipv4Addr>) {
    if let Some(route) = network
        .routes
        .iter()
        .find(|route| route.value.contains(&address.value))
    {
        reader.fault(
            &route.span,
            format!(
                "`routes` in [network] holds {}, which clients dial: the tunnel would be sent into itself",
                address.value
            ),
            format!("leave it out: {}", without(route.value, address.value)),
        );
    }
}

/// How to write `prefix` without `address`, which is in it.
fn without(prefix: Ipv4Net, address: Ipv4Addr) -> String {
    let mut rest = Vec::new();
    let mut part = prefix;
    while part.prefix_len() < 32
        && let Ok(halves) = part.subnets(part.prefix_len() + 1)
    {
        for half in halves {
            match half.contains(&address) {
                true => part = half,
                false => rest.push(half),
            }
        }
    }
    rest.sort();
    let parts: Vec<_> = rest.iter().map(|part| format!("\"{part}\"")).collect();
    match parts.is_empty() {
        true => "write other networks".to_owned(),
        false => parts.join(", "),
    }
}
