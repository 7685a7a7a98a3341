//! From text to [`Config`].

use core::net::Ipv4Addr;
use core::ops::{Range as Span, RangeInclusive};
use core::time::Duration;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use toml::de::DeTable;
use turnpike_dataplane::api::SourceCheck;
use turnpike_dataplane::ports::{MAX_HOST_NAME, peer_name};
use turnpike_dataplane::worker::{MAX_TIME, Reordering};
use turnpike_protocol::gre::MAX_HELD;

use super::accounting::accounting_of;
use super::auth::auth_of;
use super::finding::Faults;
use super::inform::outside_routes;
use super::limits::limits_of;
use super::log::log_of;
use super::network::{NetworkAt, host_address, network_of, outside_pool, with_fixed};
use super::radius::radius_of;
use super::read::{At, Reader, Section};
use super::users::{Claims, Place, users_of};
use super::{
    Access, Config, Gre, Host, Interface, Listen, Loaded, Roster, Server, Uplink, XdpMode,
};
use crate::aaa::Users;

/// The inner MTUs that work, in octets. 576 is what every IPv4 host must take (RFC 791 §3.1); 1456 is what is left of
/// 1500 after the outer IPv4 header (20), GRE with both numbers (16) and PPP with MPPE (8).
pub const MTU: RangeInclusive<u16> = 576..=1456;

/// The most addresses that all pools together may hold.
pub(super) const MAX_ADDRESSES: u64 = 1 << 20;

/// Longest path of a Unix socket (sun_path less its final zero).
const MAX_SOCKET_PATH: usize = 107;

/// Where `turnpike` keeps its socket when nobody says otherwise.
pub(super) const RUN_DIR: &str = "/run/turnpike";

/// Reads a configuration. `name` is what findings call the text. Nothing outside the text is looked at: files that it
/// names are [`super::load`]'s business.
///
/// # Errors
/// All faults at once, in the order of the text.
pub fn parse(text: &str, name: &str) -> Result<Loaded, Faults> {
    let mut reader = Reader::new(name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        reader.fault(&span, error.message(), "write it as TOML wants it");
    }
    // A document with broken syntax is read as far as it goes, but what seems to be missing may only be unreadable.
    let broken = !reader.faults.is_empty();
    let config = document_of(
        &mut reader,
        Section::new("", 0..0, document.into_inner()),
        broken,
    );
    let mut faults = reader.faults;
    match config {
        Some(config) if faults.is_empty() => Ok(Loaded {
            config,
            warnings: Vec::new(),
        }),
        _ => {
            faults.sort_by_key(|fault| fault.line);
            faults.dedup();
            Err(Faults(faults))
        }
    }
}

fn document_of(reader: &mut Reader<'_>, mut document: Section<'_>, broken: bool) -> Option<Config> {
    let server = document.table(reader, "server", "[server]");
    let access = document.table(reader, "access", "[access]");
    let uplink = document.table(reader, "uplink", "[uplink]");
    let host = document.table(reader, "host", "[host]");
    let network = document.table(reader, "network", "[network]");
    let pools = document.tables(reader, "pool", "[[pool]]");
    let gre = document.table(reader, "gre", "[gre]");
    let auth = document.table(reader, "auth", "[auth]");
    let radius = document.table(reader, "radius", "[radius]");
    let users = document.tables(reader, "user", "[[user]]");
    let limits = document.table(reader, "limits", "[limits]");
    let accounting = document.table(reader, "accounting", "[accounting]");
    let log = document.table(reader, "log", "[log]");
    document.finish(reader);

    let (server, listen) = server_of(reader, server);
    let access = required(reader, access, broken, "[access]", "interface = \"eth0\"")
        .and_then(|section| access_of(reader, section, broken));
    let uplink = uplink.map(|section| uplink_of(reader, section, access.as_ref(), broken));
    let host = host_of(reader, host, access.as_ref(), uplink.as_ref());
    let network = required(
        reader,
        network,
        broken,
        "[network]",
        "server_address = \"10.20.0.1\" and pool = [\"10.20.0.10-10.20.0.250\"]",
    )
    .and_then(|section| network_of(reader, section, pools, broken));
    let gre = gre_of(reader, gre);
    let auth = auth_of(reader, auth, radius.is_some());
    let radius = radius.and_then(|section| radius_of(reader, section, &server.name, broken));
    let addresses = network.as_ref();
    let mut claims = Claims {
        server_address: addresses.map(|network| network.network.server_address),
        listen: listen.iter().map(|address| address.value).collect(),
        pools: addresses.map(|network| {
            let pools = network.network.pools.iter();
            pools.map(|pool| pool.name.clone()).collect()
        }),
        ..Claims::default()
    };
    let entries = users_of(
        reader,
        users,
        &mut claims,
        Place::Configuration,
        auth.names.case,
        broken,
    );
    let mut users = Users::new(auth.names);
    for entry in entries {
        users.add(entry.account);
    }
    let limits = limits_of(reader, limits, addresses, &users, access.as_ref());
    let accounting = accounting_of(reader, accounting);
    let log = log_of(reader, log);

    if let Some(network) = addresses {
        for address in &listen {
            outside_pool(reader, network, address, "is an address clients dial");
            outside_routes(reader, network, address);
        }
        if let Some(Some(next_hop)) = uplink.as_ref().map(|uplink| &uplink.next_hop) {
            outside_pool(reader, network, next_hop, "is the uplink's next hop");
        }
    }
    let NetworkAt { mut network, .. } = network?;
    let roster = Roster {
        own: users.clone(),
        server_name: server.name.clone(),
        claims,
        pools: network.prefixes.clone(),
        users_file: auth.users_file.clone(),
        chap_secrets: auth.chap_secrets.clone(),
    };
    network.prefixes = with_fixed(&network.prefixes, &users);
    Some(Config {
        roster,
        server,
        access: access?,
        uplink: match uplink {
            Some(uplink) => Some(uplink.uplink?),
            None => None,
        },
        host,
        network,
        gre,
        auth,
        radius,
        users,
        limits,
        accounting,
        log,
    })
}

/// A section that must be there.
fn required<'t>(
    reader: &mut Reader<'_>,
    section: Option<Section<'t>>,
    broken: bool,
    title: &str,
    example: &str,
) -> Option<Section<'t>> {
    if section.is_none() && !broken {
        reader.whole(
            format!("there is no {title} section"),
            format!("add {title} with {example}"),
        );
    }
    section
}

/// A key that must be there.
pub(super) fn must<T>(
    reader: &mut Reader<'_>,
    value: Option<T>,
    taken: bool,
    broken: bool,
    section: &Span<usize>,
    what: &str,
    instead: &str,
) -> Option<T> {
    // A key that was there but bad has its fault already.
    if value.is_none() && !taken && !broken {
        reader.fault(section, format!("{what} is missing"), instead);
    }
    value
}

fn server_of(reader: &mut Reader<'_>, section: Option<Section<'_>>) -> (Server, Vec<At<Ipv4Addr>>) {
    let mut server = Server {
        name: "turnpike".to_owned(),
        listen: Listen::EveryAddress,
        run_dir: PathBuf::from(RUN_DIR),
        workers: None,
        cpus: Vec::new(),
        busy_poll: 0,
    };
    let Some(mut section) = section else {
        return (server, Vec::new());
    };
    // RFC 2637 §2.2: the host name is 64 octets, padded with zeros.
    if let Some(name) = section.text(
        reader,
        "name",
        "write 1 to 63 visible ASCII characters",
        |text| {
            let fits =
                (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| text.to_owned())
        },
    ) {
        server.name = name.value;
    }
    let faults = reader.faults.len();
    let listen = section.texts(
        reader,
        "listen",
        "an IPv4 address of this machine, such as \"192.0.2.1\"",
        host_address,
    );
    let mut addresses = Vec::new();
    if let Some(listen) = listen {
        if listen.value.is_empty() && reader.faults.len() == faults {
            reader.fault(
                &listen.span,
                "`listen` in [server] is empty",
                "leave the key out to listen on every address of the access NIC",
            );
        }
        addresses = without_doubles(reader, listen.value, "`listen` in [server]");
        server.listen = Listen::Addresses(addresses.iter().map(|address| address.value).collect());
    }
    if let Some(run_dir) = section.text(
        reader,
        "run_dir",
        "write an absolute path such as \"/run/turnpike\", short enough for a socket in it (at most 93 characters)",
        |text| {
            let path = PathBuf::from(text);
            let socket = path.join(crate::admin::SOCKET_NAME);
            let fits = path.is_absolute()
                && !text.contains('\0')
                && socket.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH;
            fits.then_some(path)
        },
    ) {
        server.run_dir = run_dir.value;
    }
    let workers = section.number(
        reader,
        "workers",
        1..=128,
        "write a number from 1 to 128, or leave the key out",
    );
    server.workers = workers
        .as_ref()
        .and_then(|workers| u8::try_from(workers.value).ok());
    let cpus = section.numbers(
        reader,
        "cpus",
        "write the numbers of cores, one per worker: cpus = [1, 2]",
    );
    if let Some(cpus) = cpus {
        cpus_of(reader, &mut server, workers, cpus);
    }
    let busy_poll = section.number(
        reader,
        "busy_poll",
        0..=1024,
        "write how many frames a worker takes from a NIC at a time by polling it: 64 is a good start, 0 leaves it to interrupts",
    );
    if let Some(frames) = busy_poll.and_then(|frames| u16::try_from(frames.value).ok()) {
        server.busy_poll = frames;
    }
    section.finish(reader);
    (server, addresses)
}

fn cpus_of(
    reader: &mut Reader<'_>,
    server: &mut Server,
    workers: Option<At<u64>>,
    cpus: At<Vec<At<u64>>>,
) {
    for (index, cpu) in cpus.value.iter().enumerate() {
        if cpus.value[..index]
            .iter()
            .any(|other| other.value == cpu.value)
        {
            reader.fault(
                &cpu.span,
                format!("core {} stands in `cpus` twice", cpu.value),
                "give each worker a core of its own",
            );
        }
    }
    let count = cpus.value.len();
    match workers {
        Some(workers) if workers.value != count as u64 => reader.fault(
            &cpus.span,
            format!(
                "`cpus` in [server] names {count} cores for {} workers",
                workers.value
            ),
            "name one core per worker",
        ),
        Some(_) => {}
        None => match u8::try_from(count) {
            Ok(count @ 1..=128) => server.workers = Some(count),
            _ => reader.fault(
                &cpus.span,
                format!("`cpus` in [server] names {count} cores"),
                "name 1 to 128 cores, or leave the key out",
            ),
        },
    }
    server.cpus = cpus
        .value
        .iter()
        .map(|cpu| usize::try_from(cpu.value).unwrap_or(usize::MAX))
        .collect();
}

const INTERFACE: &str = "write the name of a network interface, as `ip link` shows it";
const MODES: &[(&str, XdpMode)] = &[
    ("auto", XdpMode::Auto),
    ("native", XdpMode::Native),
    ("generic", XdpMode::Generic),
];

fn access_of(reader: &mut Reader<'_>, mut section: Section<'_>, broken: bool) -> Option<Access> {
    let has = section.has("interface");
    let interface = section.text(reader, "interface", INTERFACE, Interface::new);
    let interface = must(
        reader,
        interface,
        has,
        broken,
        section.span(),
        "`interface` in [access]",
        "write the NIC where clients arrive: interface = \"eth0\"",
    );
    let mode = section.choice(reader, "mode", MODES);
    let source_check = section.choice(
        reader,
        "source_check",
        &[
            ("strict", SourceCheck::Strict),
            ("relaxed", SourceCheck::Relaxed),
        ],
    );
    section.finish(reader);
    Some(Access {
        interface: interface?.value,
        mode: mode.map_or_else(XdpMode::default, |mode| mode.value),
        source_check: source_check.map_or_else(SourceCheck::default, |check| check.value),
    })
}

struct UplinkAt {
    uplink: Option<Uplink>,
    next_hop: Option<At<Ipv4Addr>>,
}

fn uplink_of(
    reader: &mut Reader<'_>,
    mut section: Section<'_>,
    access: Option<&Access>,
    broken: bool,
) -> UplinkAt {
    let has = section.has("interface");
    let interface = section.text(reader, "interface", INTERFACE, Interface::new);
    let interface = must(
        reader,
        interface,
        has,
        broken,
        section.span(),
        "`interface` in [uplink]",
        "write the NIC that inner packets leave by: interface = \"eth1\"",
    );
    let next_hop = section.text(
        reader,
        "next_hop",
        "write the IPv4 address of a router on that NIC, or leave the key out to follow Linux' default route",
        host_address,
    );
    let mode = section.choice(reader, "mode", MODES);
    section.finish(reader);
    let same = access.filter(|access| {
        interface
            .as_ref()
            .is_some_and(|uplink| uplink.value == access.interface)
    });
    if let (Some(access), Some(mode)) = (same, &mode)
        && access.mode != mode.value
    {
        reader.fault(
            &mode.span,
            "`mode` in [uplink] differs from [access], but it is the same NIC",
            "write the same mode, or leave it out here",
        );
    }
    let mode = match (mode, same) {
        (Some(mode), _) => mode.value,
        (None, Some(access)) => access.mode,
        (None, None) => XdpMode::default(),
    };
    UplinkAt {
        uplink: interface.map(|interface| Uplink {
            interface: interface.value,
            next_hop: next_hop.as_ref().map(|next_hop| next_hop.value),
            mode,
        }),
        next_hop,
    }
}

fn host_of(
    reader: &mut Reader<'_>,
    section: Option<Section<'_>>,
    access: Option<&Access>,
    uplink: Option<&UplinkAt>,
) -> Host {
    let mut interface = At {
        value: Interface("turnpike0".to_owned()),
        span: 0..0,
    };
    if let Some(mut section) = section {
        if let Some(name) = section.text(
            reader,
            "interface",
            &format!(
                "write a name of at most {MAX_HOST_NAME} characters for the interface that turnpike makes"
            ),
            |name| peer_name(name).and(Interface::new(name)),
        ) {
            interface = name;
        }
        section.finish(reader);
    }
    // The pair's other end has a name, too.
    let peer = peer_name(&interface.value);
    let nics = [
        access.map(|access| &access.interface),
        uplink
            .and_then(|uplink| uplink.uplink.as_ref())
            .map(|uplink| &uplink.interface),
    ];
    let taken = nics
        .into_iter()
        .flatten()
        .any(|nic| *nic == interface.value || Some(&**nic) == peer.as_deref());
    if taken {
        reader.fault(
            &interface.span,
            format!(
                "`interface` in [host] is {}, which is a NIC",
                interface.value
            ),
            "write a new name: turnpike makes this interface itself",
        );
    }
    Host {
        interface: interface.value,
    }
}

fn gre_of(reader: &mut Reader<'_>, section: Option<Section<'_>>) -> Gre {
    let mut reordering = Reordering::default();
    if let Some(mut section) = section {
        let packets = section.number(
            reader,
            "reorder_packets",
            0..=u64::from(MAX_HELD),
            "write how many packets of a call may wait for an earlier one: 32 suits most paths, 64 is the most, 0 discards what comes out of order",
        );
        if let Some(packets) = packets.and_then(|packets| u8::try_from(packets.value).ok()) {
            reordering.packets = packets;
        }
        if let Some(time) = section.duration(
            reader,
            "reorder_time",
            Duration::from_millis(1)..=MAX_TIME,
            "50ms",
        ) {
            reordering.time = time.value;
        }
        let total = section.number(
            reader,
            "reorder_total",
            1..=65_535,
            "write how many packets all calls of a worker may hold: 2048, which takes 4 MiB; to turn reordering off, write reorder_packets = 0",
        );
        if let Some(total) = total.and_then(|total| u32::try_from(total.value).ok()) {
            reordering.total = total;
        }
        section.finish(reader);
    }
    Gre { reordering }
}

/// Drops repeated addresses, with a fault for each.
fn without_doubles(
    reader: &mut Reader<'_>,
    list: Vec<At<Ipv4Addr>>,
    path: &str,
) -> Vec<At<Ipv4Addr>> {
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    for address in list {
        if seen.insert(address.value) {
            kept.push(address);
        } else {
            reader.fault(
                &address.span,
                format!("{path} has {} twice", address.value),
                "write it once",
            );
        }
    }
    kept
}
