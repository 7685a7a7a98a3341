//! A worker's access port over a raw GRE socket: needs nothing of the kernel or the network card.

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::Context as _;
use rustix::net::SocketAddrAny;
use socket2::{Domain, Protocol, Socket, Type};
use turnpike_dataplane::api::{Port, PortInfo};
use turnpike_dataplane::device::{Accounts, Batch, Device, Frame, MAX_LEN, Refused};
use turnpike_dataplane::mem::MemDevice;
use turnpike_dataplane::wake::Wake;
use turnpike_protocol::wire::ethernet::{self, MacAddr};
use turnpike_protocol::wire::ipv4;

use super::access::Line;
use super::sending::{self, Outbox};

/// Link-layer address of the server, as the worker is told: a raw socket has none.
pub(super) const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Ours.
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// What the worker is told of the port.
pub(super) const PORT: PortInfo = PortInfo {
    mac: OURS,
    mtu: 1500,
};

/// Frames that the worker may have in hand, beside those that wait for earlier ones.
const CHUNKS: usize = 1024;

/// What went wrong, to be read while the worker runs.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Packets that Linux did not take.
    pub(super) refused: AtomicU64,
    /// Packets that came and found no room.
    pub(super) dropped: AtomicU64,
}

/// The access port, and nothing else.
pub(super) struct RawGre {
    socket: Socket,
    server: SocketAddrAny,
    memory: MemDevice,
    outbox: Outbox,
    troubles: Arc<Troubles>,
}

impl RawGre {
    /// GRE to and from `server`, with room for so many packets that wait for earlier ones.
    pub(super) fn open(server: Ipv4Addr, held: u32) -> anyhow::Result<Self> {
        let protocol = Protocol::from(i32::from(ipv4::GRE));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))
            .context("cannot open a raw socket (this needs root)")?;
        // The worker writes IP headers: one socket serves all our addresses.
        socket.set_header_included_v4(true)?;
        sending::prepare(&socket)?;
        // Not connected: that would bind it to one of our addresses. The worker looks where packets come from.
        Ok(Self {
            socket,
            server: SocketAddrV4::new(server, 0).into(),
            memory: MemDevice::new(CHUNKS + held as usize),
            outbox: Outbox::new(),
            troubles: Arc::default(),
        })
    }

    /// What goes wrong.
    pub(super) fn troubles(&self) -> Arc<Troubles> {
        self.troubles.clone()
    }

    /// Reads a packet into a frame. `None`: nothing for now.
    fn read(&mut self, frame: &mut Frame) -> Option<()> {
        if !frame.set_len(MAX_LEN) {
            return None;
        }
        let bytes = self.memory.bytes(frame);
        let (header, packet) = bytes.split_at_mut(ethernet::HEADER_LEN);
        let len = loop {
            match (&self.socket).read(packet) {
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // An ICMP error about an earlier packet; the next call reads on.
                Err(_) => {}
            }
        };
        ethernet::Header {
            destination: OURS,
            source: SERVER,
            ethertype: ethernet::IPV4,
        }
        .emit(header);
        frame.set_len(ethernet::HEADER_LEN + len).then_some(())
    }
}

impl Drop for RawGre {
    fn drop(&mut self) {
        self.count_drops();
    }
}

impl Line for RawGre {
    fn room(&self) -> usize {
        self.outbox.room()
    }

    fn count_drops(&mut self) {
        if let Ok(dropped) = sending::drops(&self.socket, "raw") {
            self.troubles.dropped.store(dropped, Ordering::Relaxed);
        }
    }
}

impl Device for RawGre {
    fn has(&self, port: Port) -> bool {
        port == Port::Access
    }

    fn receive(&mut self, port: Port, batch: &mut Batch) -> usize {
        let before = batch.len();
        while port == Port::Access && !batch.is_full() {
            let Some(mut frame) = self.memory.allocate(port) else {
                break;
            };
            if self.read(&mut frame).is_none() {
                self.memory.release(frame);
                break;
            }
            batch.push(frame);
        }
        batch.len() - before
    }

    fn transmit(&mut self, port: Port, mut frame: Frame) -> Result<(), Refused> {
        if port != Port::Access {
            self.memory.release(frame);
            return Err(Refused::NoPort);
        }
        if self.outbox.room() == 0 {
            self.outbox.send(&self.socket);
        }
        let packet = &self.memory.bytes(&mut frame)[ethernet::HEADER_LEN..];
        let taken = self
            .outbox
            .push(packet.len(), self.server.clone(), |octets| {
                octets.copy_from_slice(packet);
            });
        self.memory.release(frame);
        if taken { Ok(()) } else { Err(Refused::Full) }
    }

    fn allocate(&mut self, port: Port) -> Option<Frame> {
        self.memory.allocate(port)
    }

    fn release(&mut self, frame: Frame) {
        self.memory.release(frame);
    }

    fn bytes<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.memory.bytes(frame)
    }

    fn lend<'a>(&'a self, frame: &'a Frame) -> &'a [Cell<u8>] {
        self.memory.lend(frame)
    }

    fn flush(&mut self) {
        self.outbox.send(&self.socket);
        self.troubles
            .refused
            .store(self.outbox.refused, Ordering::Relaxed);
    }

    fn accounts(&self) -> Accounts {
        self.memory.accounts()
    }

    fn wait(&mut self, wake: &Wake, timeout: Duration) {
        sending::wait(&[self.socket.as_fd(), wake.as_fd()], timeout);
    }
}
