//! Reads the files.

use core::net::Ipv4Addr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use zeroize::Zeroizing;

use super::finding::{Faults, Finding};
use super::{Config, Loaded, login, parse};
use crate::aaa::Backend;
use crate::pool::Range;

/// The largest file that is read, in octets.
const MAX_FILE: u64 = 16 << 20;

/// Reads the configuration file `path`, and the files of users that it names; relative names are looked up beside the
/// configuration. Where several have a user, the configuration file's holds, with a warning.
///
/// # Errors
/// All faults of the configuration at once, else all of the other files.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let name = path.display().to_string();
    let mut warnings = Vec::new();
    let text = read(path, &name, &mut warnings).map_err(|finding| Faults(vec![finding]))?;
    let text = text_of(&text, &name).map_err(|finding| Faults(vec![finding]))?;
    let mut loaded = parse(text, &name)?;
    // Whoever may read a configuration without passwords is no danger to it.
    if loaded.config.users.is_empty() && loaded.config.radius.is_none() {
        warnings.clear();
    }
    loaded.warnings.append(&mut warnings);
    let Loaded { config, warnings } = &mut loaded;
    let beside = |file: &Option<PathBuf>| {
        let file = file.as_deref()?;
        Some(
            path.parent()
                .map_or_else(|| file.to_owned(), |directory| directory.join(file)),
        )
    };
    config.auth.users_file = beside(&config.auth.users_file);
    config.auth.chap_secrets = beside(&config.auth.chap_secrets);
    if let Some(accounting) = &mut config.accounting {
        accounting.file = path.parent().map_or_else(
            || accounting.file.clone(),
            |directory| directory.join(&accounting.file),
        );
    }
    config.roster.users_file = config.auth.users_file.clone();
    config.roster.chap_secrets = config.auth.chap_secrets.clone();
    let (users, mut found) = config.roster.read()?;
    config.network.prefixes = config.roster.prefixes(&users);
    config.users = users;
    warnings.append(&mut found);
    warnings.extend(login::hash_only(&config.auth, &config.users, &name));
    let asks_radius = config.auth.backends.contains(&Backend::Radius);
    if config.users.is_empty() && !asks_radius {
        warnings.push(Finding {
            file: name,
            line: 0,
            what: "there are no users: nobody can come in".to_owned(),
            instead: "add a [[user]] with name and password, or name a file in `users_file` or `chap_secrets` in [auth]"
                .to_owned(),
        });
    }
    Ok(loaded)
}

/// A file as text.
pub(super) fn text_of<'t>(text: &'t [u8], name: &str) -> Result<&'t str, Finding> {
    core::str::from_utf8(text).map_err(|error| {
        let line = text[..error.valid_up_to()].split(|byte| *byte == b'\n');
        Finding {
            file: name.to_owned(),
            line: line.count(),
            what: "the file is not UTF-8 here".to_owned(),
            instead: "save it as UTF-8".to_owned(),
        }
    })
}

/// Reads a file that may hold secrets; warns when everybody may read it.
pub(super) fn read(
    path: &Path,
    name: &str,
    warnings: &mut Vec<Finding>,
) -> Result<Zeroizing<Vec<u8>>, Finding> {
    let whole = |what: String, instead: &str| Finding {
        file: name.to_owned(),
        line: 0,
        what,
        instead: instead.to_owned(),
    };
    let unreadable = |error: std::io::Error| {
        whole(
            format!("cannot be read: {error}"),
            "name a file that exists and that this user may read",
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(whole("is not a file".to_owned(), "name a file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(whole(
            format!("has {} octets", metadata.len()),
            "name a file of at most 16 MiB",
        ));
    }
    if metadata.mode() & 0o004 != 0 {
        warnings.push(whole(
            "holds passwords and every user of this machine may read it".to_owned(),
            &format!("chmod o= {name}"),
        ));
    }
    // All room at once: growing would leave copies of passwords behind.
    let size = usize::try_from(metadata.len()).unwrap_or(0);
    let mut text = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(MAX_FILE)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    Ok(text)
}

/// Warns of what does not fit this machine as it is now: interfaces, cores and IPv6 that are not there. A configuration
/// may be written elsewhere, so these are no faults; starting with it would fail, though.
pub fn machine(config: &Config, file: &str) -> Vec<Finding> {
    let mut warnings = Vec::new();
    let mut warn = |what: String, instead: &str| {
        warnings.push(Finding {
            file: file.to_owned(),
            line: 0,
            what,
            instead: instead.to_owned(),
        });
    };
    let nics = [
        ("[access]", Some(&config.access.interface)),
        (
            "[uplink]",
            config.uplink.as_ref().map(|uplink| &uplink.interface),
        ),
    ];
    for (section, interface) in nics {
        if let Some(interface) = interface
            && !Path::new("/sys/class/net").join(&**interface).exists()
        {
            warn(
                format!(
                    "`interface` in {section} is {interface}, which this machine does not have now"
                ),
                "name one that `ip link` shows",
            );
        }
    }
    for cpu in &config.server.cpus {
        if !Path::new("/sys/devices/system/cpu")
            .join(format!("cpu{cpu}"))
            .exists()
        {
            warn(
                format!("`cpus` in [server] names core {cpu}, which this machine does not have"),
                "name cores that `lscpu -e` shows",
            );
        }
    }
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    for (interface, network) in connected(&routes) {
        // Linux routes the pools themselves to the host interface.
        if *interface == *config.host.interface {
            continue;
        }
        let lan = Range::new(network.network(), network.broadcast());
        let pools = config.network.pools.iter().map(|pool| &pool.ranges);
        if let Some(range) = pools
            .flatten()
            .find(|range| lan.is_some_and(|lan| lan.overlaps(**range)))
        {
            warn(
                format!("the pool {range} lies in {network}, which {interface} is connected to"),
                "take another pool: machines there look for clients in their own network, and nobody answers for these; \
                 or have the router there send it here",
            );
        }
    }
    if config.network.ipv6.is_some()
        && let Some((what, instead)) = without_ipv6()
    {
        warn(what.to_owned(), instead);
    }
    warnings
}

/// The networks that interfaces are in, as `/proc/net/route` lists them: hexadecimal, in the order of this machine's memory.
fn connected(routes: &str) -> Vec<(&str, Ipv4Net)> {
    let number = |word: &str| {
        let number = u32::from_str_radix(word, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    let lines = routes.lines().skip(1);
    let networks = lines.filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [interface, destination, gateway, _, _, _, _, mask, ..] = words[..] else {
            return None;
        };
        let network = Ipv4Net::with_netmask(number(destination)?, number(mask)?).ok()?;
        let direct = number(gateway)?.is_unspecified();
        (direct && network.prefix_len() > 0).then_some((interface, network))
    });
    networks.collect()
}

/// Why Linux could not give the host interface IPv6 now, which `ipv6_pool` needs, and what to do about it; `None` when
/// it could.
pub(crate) fn without_ipv6() -> Option<(&'static str, &'static str)> {
    // What interfaces begin with that are made from now on; `all` sets it, too.
    let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    match setting {
        Ok(setting) if setting.trim() == "0" => None,
        Ok(_) => Some((
            "`ipv6_pool` in [network] needs IPv6, which Linux has switched off here",
            "switch it on: sysctl -w net.ipv6.conf.all.disable_ipv6=0, and the same in /etc/sysctl.d for the next start \
             of the machine; or take `ipv6_pool` out",
        )),
        Err(_) => Some((
            "`ipv6_pool` in [network] needs IPv6, which this Linux does not have",
            "start the machine without ipv6.disable=1 on the kernel's command line, or take `ipv6_pool` out",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_are_reached_by_a_gateway_are_not_connected() {
        let octets = |text: &str| {
            let address: Ipv4Addr = text.parse().unwrap();
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let line = |interface: &str, to: &str, by: &str, mask: &str| {
            let [to, by, mask] = [to, by, mask].map(octets);
            format!("{interface}\t{to}\t{by}\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n")
        };
        let routes = [
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
                .to_owned(),
            line("eth0", "0.0.0.0", "192.0.2.1", "0.0.0.0"),
            line("eth0", "192.0.2.0", "0.0.0.0", "255.255.255.0"),
            line("eth1", "10.9.0.0", "192.0.2.7", "255.255.0.0"),
            line("eth1", "10.20.0.0", "0.0.0.0", "255.255.252.0"),
            "torn".to_owned(),
        ]
        .concat();
        let found: Vec<_> = connected(&routes)
            .into_iter()
            .map(|(interface, network)| format!("{interface} {network}"))
            .collect();
        assert_eq!(found, ["eth0 192.0.2.0/24", "eth1 10.20.0.0/22"]);
    }
}
