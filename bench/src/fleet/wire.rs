//! GRE over a raw socket: whole packets in and out, for one local address.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::ops::Range;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::task::Poll;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use turnpike_protocol::wire::ipv4;

/// Octets that may wait in each direction; Linux may give less.
const BUFFER: usize = 8 << 20;

/// The longest packet that is read: the rest of a longer one holds nothing that a set-up needs.
pub(super) const MAX_PACKET: usize = 2048;

pub(super) struct Wire {
    socket: AsyncFd<Socket>,
    /// Packets that Linux had no room for.
    pub(super) refused: u64,
}

impl Wire {
    /// GRE between `local` and `server`.
    pub(super) fn open(local: Ipv4Addr, server: Ipv4Addr) -> anyhow::Result<Self> {
        let protocol = Protocol::from(i32::from(ipv4::GRE));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))
            .context("cannot open a raw socket (this needs root)")?;
        let _ = socket.set_send_buffer_size(BUFFER);
        let _ = socket.set_recv_buffer_size(BUFFER);
        socket.set_nonblocking(true)?;
        socket
            .bind(&SocketAddrV4::new(local, 0).into())
            .with_context(|| format!("{local} is no address of this machine"))?;
        socket
            .connect(&SocketAddrV4::new(server, 0).into())
            .with_context(|| format!("no way from {local} to {server}"))?;
        Ok(Self {
            socket: watch(socket)?,
            refused: 0,
        })
    }

    /// Sends a GRE packet. One that Linux has no room for is lost, as on any way.
    pub(super) fn send(&mut self, packet: &[u8]) {
        if self.socket.get_ref().send(packet).is_err() {
            self.refused += 1;
        }
    }

    /// Reads the next packet into `buffer`, and says where GRE stands in it; `None` when there is nothing for now.
    pub(super) fn receive(&self, buffer: &mut [u8; MAX_PACKET]) -> Option<Range<usize>> {
        loop {
            let len = match self.socket.get_ref().read(buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // An ICMP error about an earlier packet; the next call of this function reads on.
                Err(_) => continue,
            };
            // A raw socket gives the IP header, too.
            if let Ok(packet) = ipv4::Packet::new_checked(&buffer[..len])
                && packet.protocol() == ipv4::GRE
            {
                let from = packet.header_len();
                return Some(from..from + packet.payload().len());
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe because a descriptor might change under it; a socket's lives as long as it"
)]
fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::new(socket)
}

/// Waits until something has come for one of the addresses; it must be read until there is nothing more.
pub(super) async fn readable(wires: &HashMap<Ipv4Addr, Wire>) -> Ipv4Addr {
    poll_fn(|context| {
        for (local, wire) in wires {
            if let Poll::Ready(Ok(mut ready)) = wire.socket.poll_read_ready(context) {
                // What comes from now on is noticed anew.
                ready.clear_ready();
                return Poll::Ready(*local);
            }
        }
        Poll::Pending
    })
    .await
}
