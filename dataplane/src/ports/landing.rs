//! Where a call's packets will arrive.

use core::net::Ipv4Addr;

use super::Ports;
use crate::api::{Port, WorkerId};
use crate::netdev::Rss;

/// Foretells which worker gets what a peer sends, where the device's driver tells how it spreads packets over queues.
///
/// A call whose owner is that worker need not be handed over on its way in. A wrong guess costs that, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Landing {
    rss: Rss,
    workers: u32,
}

impl Landing {
    /// Over queues of this device, which are dealt to so many workers; `None` where there is nothing to choose.
    pub fn new(rss: Rss, workers: u32) -> Option<Self> {
        (workers > 1).then_some(Self { rss, workers })
    }

    /// Who gets GRE from `peer` to `local`.
    pub fn worker(&self, peer: Ipv4Addr, local: Ipv4Addr) -> WorkerId {
        // Queues are dealt to workers in turn.
        let worker = self.rss.queue(peer, local) % self.workers;
        WorkerId(u8::try_from(worker).unwrap_or(0))
    }
}

impl Ports {
    /// Where packets to the access port arrive; `None` with one worker, and where the driver does not tell.
    pub fn landing(&self) -> Option<Landing> {
        let access = self.opened[Port::Access as usize].as_ref()?;
        Landing::new(Rss::of(&access.interface)?, self.workers)
    }
}
