//! What the control plane counts, by name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cause::Cause;
use crate::dhcp6;
use crate::inform;

/// A counter that many may raise.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted since start.
#[derive(Debug, Default)]
pub struct Counts {
    /// TCP connections accepted.
    pub connections: Count,
    /// Connections that a limit turned away, with or without an answer.
    pub connections_refused: Count,
    /// Connections closed to make room because they had said nothing of use.
    pub connections_displaced: Count,
    /// Control connections that came up.
    pub started: Count,
    /// Calls refused before they had an id.
    pub refused: Count,
    refused_for: PerCause,
    /// Calls that had to wait until they could be set up.
    pub waited: Count,
    /// Logins refused.
    pub login_failed: Count,
    /// Calls that came up.
    pub up: Count,
    /// Questions by DHCP inside calls that were answered.
    pub informed: Count,
    uninformed: [Count; inform::Fault::ALL.len()],
    /// Questions by DHCPv6 inside calls that were answered.
    pub dhcp6_answered: Count,
    dhcp6_unanswered: [Count; dhcp6::Fault::ALL.len()],
    /// Calls in which IPv6 came up.
    pub ipv6_up: Count,
    /// Logins that got no IPv6 because all prefixes were in use.
    pub ipv6_exhausted: Count,
    ended: PerCause,
}

#[derive(Debug)]
struct PerCause(Vec<Count>);

impl Default for PerCause {
    fn default() -> Self {
        Self(Cause::ALL.iter().map(|_| Count::default()).collect())
    }
}

impl PerCause {
    fn add(&self, cause: Cause) {
        let index = Cause::ALL.iter().position(|other| *other == cause);
        if let Some(count) = index.and_then(|index| self.0.get(index)) {
            count.add();
        }
    }
}

impl Counts {
    /// A call ended.
    pub fn ended(&self, cause: Cause) {
        self.ended.add(cause);
    }

    /// A call was refused before it had an id.
    pub fn refused(&self, cause: Cause) {
        self.refused.add();
        self.refused_for.add(cause);
    }

    /// A question by DHCPv6 inside a call was answered, or not.
    pub fn dhcp6(&self, fault: Option<dhcp6::Fault>) {
        let of = |fault| dhcp6::Fault::ALL.iter().position(|other| *other == fault);
        match fault {
            None => self.dhcp6_answered.add(),
            Some(fault) => {
                if let Some(count) = of(fault).and_then(|index| self.dhcp6_unanswered.get(index)) {
                    count.add();
                }
            }
        }
    }

    /// A question by DHCP inside a call was answered, or not.
    pub fn informed(&self, fault: Option<inform::Fault>) {
        let of = |fault| inform::Fault::ALL.iter().position(|other| *other == fault);
        match fault {
            None => self.informed.add(),
            Some(fault) => {
                if let Some(count) = of(fault).and_then(|index| self.uninformed.get(index)) {
                    count.add();
                }
            }
        }
    }

    /// All of them by name; causes of ends and refusals, and why DHCP got no answer, only where there were any.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = [
            ("connections", &self.connections),
            ("connections_refused", &self.connections_refused),
            ("connections_displaced", &self.connections_displaced),
            ("control_connections_up", &self.started),
            ("calls_refused", &self.refused),
            ("calls_waited", &self.waited),
            ("logins_failed", &self.login_failed),
            ("calls_up", &self.up),
            ("dhcp_informs_answered", &self.informed),
            ("dhcpv6_answered", &self.dhcp6_answered),
            ("ipv6_up", &self.ipv6_up),
            ("ipv6_prefixes_exhausted", &self.ipv6_exhausted),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.get()))
        .collect();
        for (fault, count) in dhcp6::Fault::ALL.iter().zip(&self.dhcp6_unanswered) {
            if count.get() > 0 {
                all.insert(fault.name().to_owned(), count.get());
            }
        }
        for (fault, count) in inform::Fault::ALL.iter().zip(&self.uninformed) {
            if count.get() > 0 {
                all.insert(fault.name().to_owned(), count.get());
            }
        }
        for (what, counts) in [("ended", &self.ended), ("refused", &self.refused_for)] {
            for (cause, count) in Cause::ALL.iter().zip(&counts.0) {
                if count.get() > 0 {
                    all.insert(format!("{what}_{}", cause.name()), count.get());
                }
            }
        }
        all
    }
}
