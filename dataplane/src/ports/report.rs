//! What the kernel counted, for operators.

use std::io;

use super::{Error, Mode, Ports};
use crate::api::{Port, WorkerId};
use crate::netdev;
use crate::xsk::SocketStatistics;

/// The mode of a port.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct PortMode {
    /// The port.
    pub port: Port,
    /// Its device; of the host port, Linux' end.
    pub interface: String,
    /// Where XDP runs.
    pub mode: Mode,
}

/// What the kernel counted at one socket.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SocketReport {
    /// Whose socket.
    pub worker: WorkerId,
    /// Where it receives.
    pub port: Port,
    /// The device; of the host port, Linux' end.
    pub interface: String,
    /// The queue.
    pub queue: u32,
    /// Where XDP runs.
    pub mode: Mode,
    /// Whether frames are not copied by the kernel.
    pub zero_copy: bool,
    /// The counters.
    pub statistics: SocketStatistics,
}

/// What Linux counted at one port's device.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct DeviceReport {
    /// The port.
    pub port: Port,
    /// The device; of the host port, our end.
    pub interface: String,
    /// The counters.
    pub statistics: netdev::Statistics,
}

impl Ports {
    /// Packets by the XDP program's verdict, over all devices and CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn verdicts(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        let counts = self.program.verdicts()?;
        Ok(counts.into_iter().map(|(v, n)| (v.name(), n)).collect())
    }

    /// Where XDP runs on each port.
    pub fn modes(&self) -> Vec<PortMode> {
        self.each()
            .map(|(port, opened)| PortMode {
                port,
                interface: self.name(port, opened),
                mode: opened.mode,
            })
            .collect()
    }

    /// What the kernel counted at each socket.
    ///
    /// # Errors
    /// When Linux refuses, which it does not do for open sockets.
    pub fn statistics(&self) -> io::Result<Vec<SocketReport>> {
        let mut reports = Vec::new();
        for (worker, handle) in &self.sockets {
            let port = handle.binding.port;
            let Some(opened) = &self.opened[port as usize] else {
                continue;
            };
            reports.push(SocketReport {
                worker: *worker,
                port,
                interface: self.name(port, opened),
                queue: handle.binding.queue,
                mode: opened.mode,
                zero_copy: handle.zero_copy,
                statistics: handle.statistics()?,
            });
        }
        Ok(reports)
    }

    /// What Linux counted at the ports' devices. Frames that fit no socket's ring count as dropped there.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn devices(&mut self) -> Result<Vec<DeviceReport>, Error> {
        let ports: Vec<_> = self.each().map(|(port, o)| (port, o.index)).collect();
        let mut reports = Vec::new();
        for (port, index) in ports {
            // A device may be gone since.
            if let Some(link) = self.netlink.link_at(index)? {
                reports.push(DeviceReport {
                    port,
                    interface: link.name,
                    statistics: link.statistics,
                });
            }
        }
        Ok(reports)
    }
}
