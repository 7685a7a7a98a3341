//! The users of all files, to be read at start and again later.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use zeroize::Zeroize;

use super::finding::{Faults, Finding};
use super::load::{read, text_of};
use super::network::with_fixed;
use super::users::{Claims, users_file};
use crate::aaa::{Account, Addresses, Users, chap_secrets};
use crate::pool::Range;

/// Where users come from. Those of the configuration itself are not read again.
#[derive(Clone, Default)]
pub struct Roster {
    /// Users of the configuration.
    pub(super) own: Users,
    /// What the second column of `chap-secrets` is compared with.
    pub(super) server_name: String,
    /// Addresses that users of the other files cannot have.
    pub(super) claims: Claims,
    /// The pools, without anybody's fixed address.
    pub(super) pools: Vec<Ipv4Net>,
    pub(super) users_file: Option<PathBuf>,
    pub(super) chap_secrets: Option<PathBuf>,
}

impl Roster {
    /// The file that changed passwords are written to.
    pub fn users_file(&self) -> Option<&Path> {
        self.users_file.as_deref()
    }

    /// Whether there is a file that could be read again.
    pub fn has_files(&self) -> bool {
        self.users_file.is_some() || self.chap_secrets.is_some()
    }

    /// The prefixes that hold all addresses of `users` and of the pools, as few as cover exactly these.
    pub fn prefixes(&self, users: &Users) -> Vec<Ipv4Net> {
        with_fixed(&self.pools, users)
    }

    /// Reads the files. Where several have a user, the configuration holds, then the file of `auth.users_file`, with a
    /// warning.
    ///
    /// # Errors
    /// All faults of all files at once.
    pub fn read(&self) -> Result<(Users, Vec<Finding>), Faults> {
        let mut users = self.own.clone();
        let mut warnings = Vec::new();
        let mut faults = Vec::new();
        if let Some(path) = &self.users_file
            && let Err(Faults(found)) = self.add_users_file(path, &mut users, &mut warnings)
        {
            faults.extend(found);
        }
        if let Some(path) = &self.chap_secrets
            && let Err(Faults(found)) = self.add_secrets(path, &mut users, &mut warnings)
        {
            faults.extend(found);
        }
        if faults.is_empty() {
            Ok((users, warnings))
        } else {
            Err(Faults(faults))
        }
    }

    fn add_users_file(
        &self,
        path: &Path,
        users: &mut Users,
        warnings: &mut Vec<Finding>,
    ) -> Result<(), Faults> {
        let name = path.display().to_string();
        let text = read(path, &name, warnings).map_err(|finding| Faults(vec![finding]))?;
        let text = text_of(&text, &name).map_err(|finding| Faults(vec![finding]))?;
        let case = users.names().case;
        for entry in users_file(text, &name, case, self.claims.clone())? {
            let line = entry.line;
            let user = String::from_utf8_lossy(&entry.account.name).into_owned();
            if !users.add(entry.account) {
                warnings.push(holds_already(&name, line, &user));
            }
        }
        Ok(())
    }

    fn add_secrets(
        &self,
        path: &Path,
        users: &mut Users,
        warnings: &mut Vec<Finding>,
    ) -> Result<(), Faults> {
        let name = path.display().to_string();
        let mut text = read(path, &name, warnings).map_err(|finding| Faults(vec![finding]))?;
        let entries = chap_secrets::parse(&text, &name, &self.server_name);
        text.zeroize();
        // A line that names this server goes before one for any server, as in pppd; else the first one holds.
        let mut entries = entries.map_err(Faults)?;
        entries.sort_by_key(|entry| (entry.server.is_none(), entry.line));
        let own: HashSet<Range> = users.fixed().collect();
        let mut faults = Vec::new();
        for entry in entries {
            let finding = |what: String, instead: &str| Finding {
                file: name.clone(),
                line: entry.line,
                what,
                instead: instead.to_owned(),
            };
            if let Addresses::Fixed(ranges) = &entry.addresses {
                if let Some(server_address) = self.claims.server_address
                    && let Some(range) = ranges.iter().find(|range| range.contains(server_address))
                {
                    faults.push(finding(
                        format!("{range} holds server_address {server_address}"),
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
                Some(client) => users.add(Account {
                    addresses: entry.addresses.clone(),
                    ..Account::new(client, entry.secret.clone())
                }),
                None => users.add_anybody(entry.secret.clone(), entry.addresses.clone()),
            };
            if !added {
                let client = entry
                    .client
                    .as_deref()
                    .map_or("*".into(), String::from_utf8_lossy);
                warnings.push(holds_already(&name, entry.line, &client));
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by_key(|fault| fault.line);
        Err(Faults(faults))
    }
}

fn holds_already(file: &str, line: usize, user: &str) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        what: format!("{user:?} has an account already, which holds"),
        instead: "leave one of them out".to_owned(),
    }
}
