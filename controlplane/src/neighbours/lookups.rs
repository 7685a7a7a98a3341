//! Where a client's GRE must go, as Linux' routes say.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use super::PATIENCE;
use super::netlink::Requests;

/// Looks up next hops. Cheap to share; requests queue.
pub struct Lookups {
    requests: tokio::sync::Mutex<Requests>,
    /// Next hops in use and by how many calls, so that their neighbours are kept.
    wanted: Mutex<BTreeMap<Ipv4Addr, usize>>,
    access: u32,
}

impl Lookups {
    /// Opens a socket of its own. `access` is the index of the access NIC.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn new(access: u32) -> io::Result<Self> {
        Ok(Self::over(Requests::new()?, access))
    }

    pub(super) fn over(requests: Requests, access: u32) -> Self {
        Self {
            requests: tokio::sync::Mutex::new(requests),
            wanted: Mutex::new(BTreeMap::new()),
            access,
        }
    }

    /// The next hop of GRE from `local` to `peer`.
    ///
    /// # Errors
    /// When Linux has no route, or one that does not leave by the access NIC.
    pub async fn next_hop(&self, peer: Ipv4Addr, local: Ipv4Addr) -> io::Result<Ipv4Addr> {
        // Every set-up waits here: an answer that never comes must not stop them all. A late one is skipped by its
        // sequence number.
        let hop = tokio::time::timeout(PATIENCE, async {
            self.requests.lock().await.next_hop(peer, local).await
        })
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if hop.interface != self.access {
            return Err(io::Error::other(format!(
                "Linux' route to {peer} does not leave by the access interface"
            )));
        }
        Ok(hop.via)
    }

    /// Says that a call sends by `via`; its neighbour is kept until [`Lookups::unwant`] was called as often.
    pub fn want(&self, via: Ipv4Addr) {
        let mut wanted = self.wanted.lock().unwrap_or_else(|e| e.into_inner());
        *wanted.entry(via).or_default() += 1;
    }

    /// Takes a [`Lookups::want`] back.
    pub fn unwant(&self, via: Ipv4Addr) {
        let mut wanted = self.wanted.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(count) = wanted.get_mut(&via) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&via);
            }
        }
    }

    /// The index of the access NIC.
    pub fn access(&self) -> u32 {
        self.access
    }

    pub(super) fn wanted(&self) -> Vec<Ipv4Addr> {
        let wanted = self.wanted.lock().unwrap_or_else(|e| e.into_inner());
        wanted.keys().copied().collect()
    }
}
