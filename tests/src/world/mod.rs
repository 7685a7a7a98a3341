//! A whole system in one thread: clients, control connections, tunnels, workers and a network that misbehaves, with
//! made-up time and one seed for everything that is left to chance.
//!
//! The client's half is the one of the load generator, the server's half is the real [`Tunnel`]; both have real workers
//! over memory devices. Only the judge of logins and the network are made up. What must hold is said by the
//! [`model`]: who is online with which address, and which packets may come out where.

mod carry;
mod chance;
mod look;
mod model;
mod network;
pub(crate) mod node;
mod play;
mod sides;
mod story;
mod trial;

#[cfg(doc)]
use turnpike_controlplane::tunnel::Tunnel;

pub use chance::Chance;
pub use play::run;
pub use story::Story;
pub use trial::{Trouble, log_in};

use std::collections::BTreeMap;

use core::fmt;

/// How often things happened, by name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    /// One more.
    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// `n` more.
    pub fn add(&mut self, what: &'static str, n: u64) {
        *self.0.entry(what).or_default() += n;
    }

    /// How often this happened.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Adds up worlds.
    pub fn merge(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            self.add(what, *n);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, n) in &self.0 {
            writeln!(f, "{n:>10}  {what}")?;
        }
        Ok(())
    }
}
