//! One raw socket, one system call for each packet: works everywhere, and is slow.

use std::io;
use std::net::SocketAddrV4;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use turnpike_protocol::wire::gre::MAX_HEADER_LEN;
use turnpike_protocol::wire::ipv4;

use super::{Flood, Numbers, Tally, Way, header};

/// Octets that may wait in the socket; Linux may give less.
const SEND_BUFFER: usize = 4 << 20;

pub(super) struct Sender {
    socket: Socket,
    packet: Vec<u8>,
    size: u16,
    tally: Tally,
}

impl Sender {
    pub(super) fn open(flood: &Flood) -> anyhow::Result<Self> {
        let protocol = Protocol::from(i32::from(ipv4::GRE));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))
            .context("cannot open a raw socket (this needs root)")?;
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket
            .connect(&SocketAddrV4::new(flood.target, 0).into())
            .with_context(|| format!("no way to {}", flood.target))?;
        Ok(Self {
            socket,
            packet: vec![0; MAX_HEADER_LEN + usize::from(flood.size)],
            size: flood.size,
            tally: Tally::default(),
        })
    }
}

impl Way for Sender {
    fn burst(&mut self, count: u64, numbers: &mut Numbers) -> anyhow::Result<u64> {
        for _ in 0..count {
            let header = header(numbers.take(), self.size);
            // The buffer has room for the longest header.
            let len = header.emit(&mut self.packet).unwrap_or(0) + usize::from(self.size);
            match self.socket.send(&self.packet[..len]) {
                Ok(_) => self.tally.sent += 1,
                Err(error) if refused(&error) => self.tally.refused += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    fn finish(&mut self) -> anyhow::Result<Tally> {
        Ok(self.tally)
    }
}

/// Errors that mean no more than one packet lost.
fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(
            error.raw_os_error(),
            // ICMP errors about earlier packets, too.
            Some(
                libc::ENOBUFS
                    | libc::ECONNREFUSED
                    | libc::ENOPROTOOPT
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EPERM
            )
        )
}
