//! Calls that have not logged in yet: how many one source may hold.
//!
//! A call costs an id, a place at a worker and PPP's state from the moment it is asked for, long before anybody has
//! proved to be a user. One control connection may ask for many of them and one source may have many connections, so
//! without this limit a stranger could keep every place of the box busy for the set-up time, again and again. Calls
//! that have logged in do not count: an office behind one address may have as many of these as it likes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

/// The limit that a box for this many calls has when none is configured: a quarter of them, but no fewer than 8.
pub const fn default_limit(calls: usize) -> usize {
    if calls / 4 > 8 { calls / 4 } else { 8 }
}

/// Who is being set up. One per server.
#[derive(Debug)]
pub struct Applicants {
    limit: usize,
    /// Bounded by the calls of the box: an entry goes with its last place.
    by_source: Mutex<HashMap<Ipv4Addr, usize>>,
}

/// The source has as many calls in set-up as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many calls from one source have not logged in yet")]
pub struct TooMany;

/// The place of one call that has not logged in; given back when dropped.
#[derive(Debug)]
pub struct Applicant {
    applicants: Arc<Applicants>,
    source: Ipv4Addr,
}

impl Applicants {
    /// Nobody yet; at most `limit` calls of one source at once.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            by_source: Mutex::default(),
        })
    }

    /// A place for one more call of `source`, to be dropped when the call has logged in or is over.
    ///
    /// # Errors
    /// [`TooMany`] at the limit.
    pub fn enter(self: &Arc<Self>, source: Ipv4Addr) -> Result<Applicant, TooMany> {
        let mut by_source = self.lock();
        let held = by_source.get(&source).copied().unwrap_or(0);
        if held >= self.limit {
            return Err(TooMany);
        }
        by_source.insert(source, held + 1);
        drop(by_source);
        Ok(Applicant {
            applicants: self.clone(),
            source,
        })
    }

    /// Whether no place is taken.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, usize>> {
        // The books are whole between any two statements.
        self.by_source.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Applicant {
    fn drop(&mut self) {
        let mut by_source = self.applicants.lock();
        if let Some(held) = by_source.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn places_are_counted_by_source_and_come_back() {
        let applicants = Applicants::new(2);
        let first = applicants.enter(ONE).unwrap();
        let second = applicants.enter(ONE).unwrap();
        assert_eq!(applicants.enter(ONE).unwrap_err(), TooMany);
        let other = applicants.enter(OTHER).unwrap();
        drop(first);
        let third = applicants.enter(ONE).unwrap();
        assert_eq!(applicants.enter(ONE).unwrap_err(), TooMany);
        drop((second, third, other));
        assert!(applicants.is_empty(), "sources that are gone cost nothing");
    }

    #[test]
    fn small_boxes_have_room_for_a_family() {
        assert_eq!([1, 36, 1000].map(default_limit), [8, 9, 250]);
    }
}
