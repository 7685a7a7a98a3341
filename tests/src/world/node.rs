//! A worker over memory, with both its ends in one hand.

use core::net::Ipv4Addr;

use turnpike_dataplane::api::{Command, Event, Owners, Port, PortInfo, SourceCheck, WorkerId};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::rings::{ControlEnd, RingSizes, WorkerEnd};
use turnpike_dataplane::worker::{Reordering, Worker, WorkerConfig};
use turnpike_protocol::gre::AckSettings;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::{Role, Time};

/// Linux' end of the host port.
const LINUX: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// Chunks of packet memory: more than are ever on their way at once.
const CHUNKS: usize = 256;

/// Rings: deeper than one moment fills them.
pub const RINGS: RingSizes = RingSizes {
    commands: 128,
    events: 128,
    datagrams: 1,
    captured: 1,
    handoff: 64,
};

/// A worker.
pub struct Node {
    pub worker: Worker<MemDevice>,
    control: ControlEnd,
    next: Option<Time>,
    mac: MacAddr,
}

impl Node {
    pub fn new(
        role: Role,
        id: WorkerId,
        owners: &Owners,
        server_address: Option<Ipv4Addr>,
        queue: u8,
        (control, end): (ControlEnd, WorkerEnd),
    ) -> Self {
        let mac = MacAddr([2, 0, 0, 0, u8::from(role == Role::Client), 1]);
        let port = Some(PortInfo { mac, mtu: 1500 });
        let config = WorkerConfig {
            id,
            role,
            owners: owners.clone(),
            calls: 32,
            routes: 32,
            routes6: 0,
            ports: [port, None, port],
            host_peer_mac: LINUX,
            server_address,
            server_address6: None,
            source_check: SourceCheck::Strict,
            acks: AckSettings::default(),
            reordering: Reordering {
                packets: queue,
                // Few enough to be full at times.
                total: 48,
                ..Reordering::default()
            },
        };
        let device = MemDevice::new(CHUNKS).without(Port::Uplink);
        Self {
            worker: Worker::new(config, device, end),
            control,
            next: None,
            mac,
        }
    }

    pub fn tell(&mut self, command: Command) -> Result<(), String> {
        self.control
            .commands
            .push(command)
            .map_err(|_| "a command ring is full".to_owned())
    }

    /// Works until there is nothing to do; says whether there was anything.
    pub fn work(&mut self, now: Time) -> bool {
        let mut any = false;
        loop {
            let turn = self.worker.turn(now);
            self.next = turn.next;
            if !turn.busy {
                return any;
            }
            any = true;
        }
    }

    /// Its address on both ports.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    pub fn next(&self) -> Option<Time> {
        self.next
    }

    pub fn event(&mut self) -> Option<Event> {
        self.control.events.pop().ok()
    }

    /// A frame that comes by Ethernet, as it is.
    pub fn arrive(&mut self, port: Port, frame: &[u8]) -> Result<(), String> {
        if self.worker.device_mut().inject(port, frame) {
            Ok(())
        } else {
            Err("a device has no memory left".to_owned())
        }
    }

    /// An IP packet that Linux routes into the host port.
    pub fn arrive_from_linux(&mut self, packet: &[u8]) -> Result<(), String> {
        let mut frame = ethernet::Header {
            destination: self.mac,
            source: LINUX,
            ethertype: ethernet::IPV4,
        }
        .to_bytes()
        .to_vec();
        frame.extend_from_slice(packet);
        self.arrive(Port::Host, &frame)
    }

    pub fn sent(&mut self, port: Port) -> Vec<Vec<u8>> {
        self.worker.device_mut().take(port)
    }
}
