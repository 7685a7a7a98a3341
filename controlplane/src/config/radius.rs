//! `[radius]`: the servers that are asked whether a user may come in.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use turnpike_protocol::radius::Secret;

use super::Radius;
use super::network::host_address;
use super::parse::must;
use super::read::{Reader, Section};
use crate::aaa::UnknownFilter;
use crate::radius::ServerSettings;

/// The most servers: one request may go to each in turn.
const MAX_SERVERS: usize = 16;

/// The longest secret.
const MAX_SECRET: usize = 128;

const SERVER: &str = "[[radius.server]]";

pub(super) fn radius_of(
    reader: &mut Reader<'_>,
    mut section: Section<'_>,
    server_name: &str,
    broken: bool,
) -> Option<Radius> {
    let servers = section.tables(reader, "server", SERVER);
    let mut radius = Radius {
        servers: Vec::new(),
        nas_identifier: server_name.to_owned(),
        nas_ip_address: None,
        unknown_filter: UnknownFilter::default(),
        require_keys: false,
    };
    let identifier = section.text(
        reader,
        "nas_identifier",
        "write 1 to 253 visible ASCII characters by which the servers know this machine",
        |text| {
            let fits =
                (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| text.to_owned())
        },
    );
    if let Some(identifier) = identifier {
        radius.nas_identifier = identifier.value;
    }
    let address = section.text(
        reader,
        "nas_ip_address",
        "write an IPv4 address of this machine, or leave the key out for the one that the client dialled",
        host_address,
    );
    radius.nas_ip_address = address.map(|address: super::read::At<Ipv4Addr>| address.value);
    let filters = [
        ("refuse", UnknownFilter::Refuse),
        ("warn", UnknownFilter::Warn),
    ];
    if let Some(filter) = section.choice(reader, "unknown_filter", &filters) {
        radius.unknown_filter = filter.value;
    }
    radius.require_keys = section
        .flag(
            reader,
            "require_keys",
            "write true or false: whether an MS-CHAP login to which the server gives no MPPE keys is refused even where calls may go in clear",
        )
        .unwrap_or(false);
    let span = section.span().clone();
    section.finish(reader);
    if servers.is_empty() && !broken {
        reader.fault(
            &span,
            "[radius] has no server",
            format!("add {SERVER} with address = \"192.0.2.9\" and secret = \"...\""),
        );
    }
    if servers.len() > MAX_SERVERS {
        reader.fault(
            &span,
            format!("[radius] has {} servers", servers.len()),
            format!("write at most {MAX_SERVERS}"),
        );
    }
    for server in servers {
        let at = server.span().clone();
        let Some(server) = server_of(reader, server, broken) else {
            continue;
        };
        let same =
            |other: &ServerSettings| (other.address, other.port) == (server.address, server.port);
        if radius.servers.iter().any(same) {
            reader.fault(
                &at,
                format!(
                    "{SERVER} {} port {} stands there twice",
                    server.address, server.port
                ),
                "write each server once",
            );
        }
        if radius.servers.iter().any(|other| other.name == server.name) {
            reader.fault(
                &at,
                format!("two servers in [radius] are called \"{}\"", server.name),
                "give each a name of its own: name = \"radius2\"",
            );
        }
        radius.servers.push(server);
    }
    Some(radius).filter(|radius| !radius.servers.is_empty())
}

fn server_of(
    reader: &mut Reader<'_>,
    mut section: Section<'_>,
    broken: bool,
) -> Option<ServerSettings> {
    let has = section.has("address");
    let address = section.text(
        reader,
        "address",
        "write the IPv4 or IPv6 address of a RADIUS server, without its port: address = \"192.0.2.9\"",
        |text| {
            let address: IpAddr = text.parse().ok()?;
            (!address.is_unspecified() && !address.is_multicast()).then_some(address)
        },
    );
    let address = must(
        reader,
        address,
        has,
        broken,
        section.span(),
        &format!("`address` in {SERVER}"),
        "write the server's address: address = \"192.0.2.9\"",
    );
    let has = section.has("secret");
    // Taken whatever it is, so that no fault ever shows it.
    let secret = section.text(reader, "secret", "write secret = \"...\"", |text| {
        Some(
            Some(text)
                .filter(|text| text.len() <= MAX_SECRET)
                .and_then(Secret::new),
        )
    });
    if let Some(secret) = &secret
        && secret.value.is_none()
    {
        reader.fault(
            &secret.span,
            format!("`secret` in {SERVER} is empty or longer than {MAX_SECRET} octets"),
            "write what the server has for this client, 16 characters or more",
        );
    }
    let secret = must(
        reader,
        secret,
        has,
        broken,
        section.span(),
        &format!("`secret` in {SERVER}"),
        "write what the server has for this client: secret = \"...\"",
    );
    let name = section.text(
        reader,
        "name",
        "write 1 to 63 visible ASCII characters",
        |text| {
            let fits =
                (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| text.to_owned())
        },
    );
    let port = |reader: &mut Reader<'_>, section: &mut Section<'_>, key, instead| {
        let port = section.number(reader, key, 1..=65_535, instead);
        port.and_then(|port| u16::try_from(port.value).ok())
    };
    let auth = port(
        reader,
        &mut section,
        "port",
        "write the UDP port for authentication: 1812, or 1645 of old",
    );
    let accounting = port(
        reader,
        &mut section,
        "accounting_port",
        "write the UDP port for accounting: 1813, or 1646 of old",
    );
    let source = section.text(
        reader,
        "source",
        "write an address of this machine that the server knows as a client, of the same family as `address`",
        |text| text.parse::<IpAddr>().ok().filter(|source| !source.is_multicast()),
    );
    let seconds = Duration::from_secs;
    let timeout = section.duration(
        reader,
        "timeout",
        Duration::from_millis(100)..=seconds(30),
        "2s",
    );
    let tries = section.number(
        reader,
        "tries",
        1..=10,
        "write how often a request is sent before the next server is asked: 3",
    );
    let priority = section.number(
        reader,
        "priority",
        1..=255,
        "write 1 for servers that are asked first, 2 for those that are asked when these do not answer",
    );
    let weight = section.number(
        reader,
        "weight",
        1..=1000,
        "write this server's part of the requests among those of the same priority: 1",
    );
    let required = [("require", true), ("accept_missing", false)];
    let required = section.choice(reader, "message_authenticator", &required);
    let status_server = section.flag(
        reader,
        "status_server",
        "write true or false: whether the server answers Status-Server (RFC 5997)",
    );
    let dead_time = section.duration(reader, "dead_time", seconds(1)..=seconds(3600), "10s");
    section.finish(reader);
    let (address, secret) = (address?, secret?.value?);
    if let Some(source) = &source
        && source.value.is_ipv4() != address.value.is_ipv4()
    {
        reader.fault(
            &source.span,
            format!(
                "`source` in {SERVER} is {}, and `address` is {}: one is IPv4, the other IPv6",
                source.value, address.value
            ),
            "write an address of the same family, or leave `source` out",
        );
    }
    let byte = |found: Option<super::read::At<u64>>, or: u8| {
        found
            .and_then(|found| u8::try_from(found.value).ok())
            .unwrap_or(or)
    };
    let settings = ServerSettings::new(address.value, secret);
    Some(ServerSettings {
        name: name.map_or(settings.name, |name| name.value),
        port: auth.unwrap_or(settings.port),
        accounting_port: accounting.unwrap_or(settings.accounting_port),
        source: source.map(|source| source.value),
        timeout: timeout.map_or(settings.timeout, |timeout| timeout.value),
        tries: byte(tries, settings.tries),
        priority: byte(priority, settings.priority),
        weight: weight
            .and_then(|weight| u16::try_from(weight.value).ok())
            .unwrap_or(settings.weight),
        require_message_authenticator: required.is_none_or(|required| required.value),
        status_server: status_server.unwrap_or(settings.status_server),
        dead_time: dead_time.map_or(settings.dead_time, |time| time.value),
        ..ServerSettings::new(address.value, settings.secret)
    })
}
