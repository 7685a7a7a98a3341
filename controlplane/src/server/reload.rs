//! What SIGHUP does.

use tracing::{error, info, warn};
use turnpike_dataplane::api::Command;

use super::{Running, lock};
use crate::config::Faults;

impl Running {
    /// Reads the files of users again. Calls that are up stay up, whatever became of their users.
    pub(super) async fn reload(&mut self) {
        if !self.shared.users.roster().has_files() {
            info!(
                "SIGHUP: there is no file of users to be read again; the configuration is read at start"
            );
            return;
        }
        let users = self.shared.users.clone();
        match tokio::task::spawn_blocking(move || users.reload()).await {
            Ok(Ok(warnings)) => {
                for warning in warnings {
                    warn!("{warning}");
                }
            }
            Ok(Err(Faults(faults))) => {
                for fault in faults {
                    error!("{fault}");
                }
                error!("SIGHUP: the users stay as they were");
                return;
            }
            Err(error) => {
                error!(%error, "SIGHUP: the users stay as they were");
                return;
            }
        }
        let roster = self.shared.users.roster();
        let (count, fixed, prefixes) = self.shared.users.with(|users| {
            let fixed: Vec<_> = users.fixed().chain([self.own]).collect();
            (users.len(), fixed, roster.prefixes(users))
        });
        let now = self.shared.clock.now();
        self.shared.pools.reserve(fixed, now);
        for prefix in prefixes {
            if self.prefixes.contains(&prefix) {
                continue;
            }
            let sent = self.shared.switchboard.send(Command::Pool { prefix }).await;
            let added = lock(&self.ports).pool_add(prefix);
            match (sent, added) {
                (Ok(()), Ok(())) => drop(self.prefixes.insert(prefix)),
                (Err(error), _) => error!(%error, "{prefix} cannot be used"),
                (_, Err(error)) => error!(%error, "{prefix} cannot be used"),
            }
        }
        info!(users = count, "SIGHUP: users read again");
    }
}
