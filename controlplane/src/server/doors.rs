//! What follows Linux' tables: workers hear of neighbours, gateways and addresses, listeners open and close.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};
use turnpike_dataplane::ports::Ports;
use turnpike_dataplane::resident::Resident;

use crate::config::Listen;
use crate::driver::Shared;
use crate::listener::{self, Connections};
use crate::neighbours::Change;
use crate::switchboard::Stopped;

use super::{Error, lock, system};

/// Acts on changes of Linux' tables. Dropped: listens no more.
pub(super) struct Doors {
    every_address: bool,
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    ports: Arc<Mutex<Ports>>,
    routes: watch::Sender<u64>,
    open: HashMap<Ipv4Addr, AbortHandle>,
}

impl Doors {
    /// Nothing is open yet.
    pub(super) fn new(
        listen: &Listen,
        shared: Arc<Shared>,
        connections: Arc<Connections>,
        ports: Arc<Mutex<Ports>>,
        routes: watch::Sender<u64>,
    ) -> Self {
        Self {
            every_address: *listen == Listen::EveryAddress,
            shared,
            connections,
            ports,
            routes,
            open: HashMap::new(),
        }
    }

    pub(super) async fn change(&mut self, change: Change) -> Result<(), Stopped> {
        match change {
            Change::Gateway(Some(via)) => info!(%via, "next hop of the uplink"),
            Change::Gateway(None) => info!("no next hop on the uplink: Linux routes"),
            Change::AccessAdded(address) => {
                if self.every_address {
                    match self.open(address) {
                        Ok(()) => {
                            info!(%address, "listening on an address of the access interface")
                        }
                        Err(error) => warn!(%address, %error, "cannot listen"),
                    }
                }
            }
            Change::AccessRemoved(address) => {
                if self.every_address {
                    self.close(address);
                }
            }
            Change::Routes => self.routes.send_modify(|generation| *generation += 1),
            Change::Neighbour { .. } | Change::LocalAdded(_) | Change::LocalRemoved(_) => {}
        }
        match change.command() {
            Some(command) => self.shared.switchboard.send(command).await,
            None => Ok(()),
        }
    }

    /// Tells what is known already, and opens what is configured.
    pub(super) async fn open_all(
        &mut self,
        changed: &mut mpsc::UnboundedReceiver<Change>,
        listen: &Listen,
    ) -> Result<(), Error> {
        while let Ok(change) = changed.try_recv() {
            self.change(change).await?;
        }
        if let Listen::Addresses(addresses) = listen {
            for &address in addresses {
                self.open(address).map_err(system(format!(
                    "cannot listen on {address} port {}",
                    listener::PORT
                )))?;
            }
        }
        self.say_listening();
        Ok(())
    }

    fn open(&mut self, address: Ipv4Addr) -> io::Result<()> {
        if self.open.contains_key(&address) {
            return Ok(());
        }
        let listener = listener::bind(address, listener::PORT)?;
        // GRE of the first call may come right after its reply.
        lock(&self.ports)
            .local_add(address)
            .map_err(io::Error::other)?;
        let task = listener::run(listener, self.connections.clone(), self.shared.clone());
        self.open.insert(address, tokio::spawn(task).abort_handle());
        Ok(())
    }

    fn close(&mut self, address: Ipv4Addr) {
        if let Some(listener) = self.open.remove(&address) {
            listener.abort();
            info!(%address, "not listening any more: the access interface lost the address");
            if let Err(error) = lock(&self.ports).local_remove(address) {
                warn!(%address, %error, "GRE to the address is still taken");
            }
        }
    }

    fn say_listening(&self) {
        let mut addresses: Vec<_> = self.open.keys().collect();
        addresses.sort();
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let modes = lock(&self.ports).modes();
        let modes: Vec<_> = modes
            .iter()
            .map(|port| format!("{}={}({})", port.port, port.interface, port.mode))
            .collect();
        let (memory, huge) =
            Resident::now().map_or((0, 0), |all| (all.octets >> 20, all.huge >> 20));
        info!(
            addresses = addresses.join(" "),
            tcp = listener::PORT,
            xdp = modes.join(" "),
            workers = self.shared.switchboard.counters().len(),
            memory_mib = memory,
            in_huge_pages_mib = huge,
            "listening"
        );
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        for listener in self.open.values() {
            listener.abort();
        }
    }
}
