//! GRE that comes by way of Linux: reassembled fragments, and packets with IP options or tags that XDP left alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A raw socket for IP protocol 47. Linux gives it a copy of each whole GRE datagram that reaches one of the machine's
/// addresses through the stack; what AF_XDP takes never gets there. While it is open Linux does not answer such a
/// datagram with "protocol unreachable".
#[derive(Debug)]
pub struct GreSocket {
    socket: Socket,
}

/// Octets that may wait: a few thousand datagrams with Linux' overhead.
const BUFFER: usize = 8 << 20;

impl GreSocket {
    /// Opens the socket, non-blocking, in the thread's network namespace.
    ///
    /// # Errors
    /// When Linux refuses (CAP_NET_RAW).
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW.nonblocking(),
            Some(Protocol::from(libc::IPPROTO_GRE)),
        )?;
        // As much as Linux allows.
        socket.set_recv_buffer_size(BUFFER)?;
        Ok(Self { socket })
    }

    /// Takes one datagram, from the first octet of its IPv4 header; returns its length, or that of `buffer` when it was
    /// longer and was cut.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when none waits.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        use io::Read;
        (&self.socket).read(buffer)
    }

    /// Datagrams that Linux dropped because the socket was full are not counted here but in its own statistics
    /// (`/proc/net/raw`); this is how much may wait, in octets.
    ///
    /// # Errors
    /// When Linux refuses.
    pub fn capacity(&self) -> io::Result<usize> {
        SockRef::from(&self.socket).recv_buffer_size()
    }
}

impl AsFd for GreSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::os::fd::AsRawFd for GreSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}
