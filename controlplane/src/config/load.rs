//! Reads the files.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use super::finding::{Faults, Finding};
use super::network::with_fixed;
use super::{Config, Loaded, parse};
use crate::aaa::{Account, Addresses, chap_secrets};
use crate::pool::Range;

/// The largest file that is read, in octets.
const MAX_FILE: u64 = 16 << 20;

/// Reads the configuration file `path`, and the `chap-secrets` file that it names; a relative name is looked up beside
/// the configuration. Where both have a user, the configuration file's holds, with a warning.
///
/// # Errors
/// All faults of both files at once.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let name = path.display().to_string();
    let mut warnings = Vec::new();
    let text = read(path, &name, &mut warnings).map_err(|finding| Faults(vec![finding]))?;
    let text = match core::str::from_utf8(&text) {
        Ok(text) => text,
        Err(error) => {
            let line = text[..error.valid_up_to()].split(|byte| *byte == b'\n');
            return Err(Faults(vec![Finding {
                file: name,
                line: line.count(),
                what: "the file is not UTF-8 here".to_owned(),
                instead: "save it as UTF-8".to_owned(),
            }]));
        }
    };
    let mut loaded = parse(text, &name)?;
    // Whoever may read a configuration without passwords is no danger to it.
    if loaded.config.users.is_empty() {
        warnings.clear();
    }
    loaded.warnings.append(&mut warnings);
    if let Some(secrets) = loaded.config.auth.chap_secrets.clone() {
        let secrets = path
            .parent()
            .map_or_else(|| secrets.clone(), |directory| directory.join(&secrets));
        add_secrets(&mut loaded, &secrets)?;
    }
    if loaded.config.users.is_empty() {
        loaded.warnings.push(Finding {
            file: name,
            line: 0,
            what: "there are no users: nobody can come in".to_owned(),
            instead:
                "add a [[user]] with name and password, or name a file in `chap_secrets` in [auth]"
                    .to_owned(),
        });
    }
    Ok(loaded)
}

/// Reads a file that may hold secrets; warns when everybody may read it.
fn read(
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

/// Adds the users of a `chap-secrets` file.
fn add_secrets(loaded: &mut Loaded, path: &Path) -> Result<(), Faults> {
    let Loaded { config, warnings } = loaded;
    let name = path.display().to_string();
    let mut text = read(path, &name, warnings).map_err(|finding| Faults(vec![finding]))?;
    let entries = chap_secrets::parse(&text, &name, &config.server.name);
    text.zeroize();
    // A line that names this server goes before one for any server, as in pppd; else the first one holds.
    let mut entries = entries.map_err(Faults)?;
    entries.sort_by_key(|entry| (entry.server.is_none(), entry.line));
    let own: HashSet<Range> = config.users.fixed().collect();
    let mut faults = Vec::new();
    for entry in entries {
        let finding = |what: String, instead: &str| Finding {
            file: name.clone(),
            line: entry.line,
            what,
            instead: instead.to_owned(),
        };
        if let Addresses::Fixed(ranges) = &entry.addresses {
            if let Some(range) = ranges
                .iter()
                .find(|range| range.contains(config.network.server_address))
            {
                faults.push(finding(
                    format!(
                        "{range} holds server_address {}",
                        config.network.server_address
                    ),
                    "write addresses without it",
                ));
            }
            if let Some(range) = ranges
                .iter()
                .find(|range| own.iter().any(|own| own.overlaps(**range)))
            {
                warnings.push(finding(
                    format!("{range} is also the `address` of a [[user]]"),
                    "give each user an address of its own: whoever comes second stays out",
                ));
            }
        }
        let added = match entry.client.clone() {
            Some(client) => config.users.add(Account {
                name: client,
                secret: entry.secret.clone(),
                addresses: entry.addresses.clone(),
            }),
            None => config
                .users
                .add_anybody(entry.secret.clone(), entry.addresses.clone()),
        };
        if !added {
            let client = entry
                .client
                .as_deref()
                .map_or("*".into(), String::from_utf8_lossy);
            warnings.push(finding(
                format!("{client:?} has an account already, which holds"),
                "leave one of them out",
            ));
        }
    }
    if !faults.is_empty() {
        faults.sort_by_key(|fault| fault.line);
        return Err(Faults(faults));
    }
    config.network.prefixes = with_fixed(&config.network.prefixes, &config.users);
    Ok(())
}

/// Warns of what does not fit this machine as it is now: interfaces and cores that are not there. A configuration
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
    warnings
}
