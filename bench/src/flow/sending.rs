//! Many datagrams by one system call, and sockets as they have to be for that.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::num::NonZeroU64;
use core::time::Duration;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sockopt};
use socket2::Socket;
use turnpike_dataplane::device::{BATCH, CHUNK};

/// Octets that may wait in each direction of a socket.
const BUFFER: usize = 32 << 20;

/// Makes a socket non-blocking, with buffers as large as this process may have.
pub(super) fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Beyond the system's limit where that is allowed; what does not fit is counted.
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER);
    }
    Ok(())
}

/// Lets the calling thread sleep for as long as it asks, and not some 50 µs longer.
pub(super) fn sleep_exactly() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Sleeps until something can be read from one of these, or the time is over.
pub(super) fn wait(descriptors: &[BorrowedFd<'_>], timeout: Duration) {
    let mut polled = descriptors
        .iter()
        .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN));
    let limit = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // Interrupted or not: the caller looks again.
    let _ = match (polled.next(), polled.next()) {
        (Some(one), Some(two)) => rustix::event::poll(&mut [one, two], Some(&limit)),
        (Some(one), None) => rustix::event::poll(&mut [one], Some(&limit)),
        _ => return,
    };
}

/// Datagrams of a socket that Linux dropped because nobody took them: the last column of its line in /proc.
pub(super) fn drops(socket: &Socket, table: &str) -> io::Result<u64> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    let name = name.to_string_lossy();
    let inode = name
        .trim_start_matches("socket:[")
        .trim_end_matches(']')
        .to_owned();
    let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
    Ok(drops_in(&table, &inode))
}

fn drops_in(table: &str, inode: &str) -> u64 {
    let line = table
        .lines()
        .skip(1)
        .find(|line| line.split_whitespace().nth(9) == Some(inode));
    line.and_then(|line| line.split_whitespace().next_back()?.parse().ok())
        .unwrap_or(0)
}

/// A datagram that waits.
struct Waiting {
    octets: [u8; CHUNK],
    len: usize,
    to: SocketAddrAny,
}

/// Datagrams that wait to be sent, in order.
pub(super) struct Outbox {
    waiting: Vec<Waiting>,
    /// The first that has not been sent, and one behind the last.
    first: usize,
    end: usize,
    /// Datagrams that Linux did not take.
    pub(super) refused: u64,
}

impl Outbox {
    pub(super) fn new() -> Self {
        let nowhere = SocketAddrAny::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let empty = || Waiting {
            octets: [0; CHUNK],
            len: 0,
            to: nowhere.clone(),
        };
        Self {
            waiting: (0..BATCH).map(|_| empty()).collect(),
            first: 0,
            end: 0,
            refused: 0,
        }
    }

    /// Datagrams that there is room for.
    pub(super) fn room(&self) -> usize {
        self.waiting.len() - self.end
    }

    /// Puts a datagram in, of at most [`CHUNK`] octets, which are written by `write`. False when there is no room.
    pub(super) fn push(
        &mut self,
        len: usize,
        to: SocketAddrAny,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let Some(waiting) = self.waiting.get_mut(self.end) else {
            return false;
        };
        let Some(octets) = waiting.octets.get_mut(..len) else {
            return false;
        };
        write(octets);
        waiting.len = len;
        waiting.to = to;
        self.end += 1;
        true
    }

    /// Sends what waits. What the socket has no room for goes on waiting.
    pub(super) fn send(&mut self, socket: impl AsFd) {
        let mut tried = false;
        while self.first < self.end {
            match send_some(socket.as_fd(), &self.waiting[self.first..self.end]) {
                Ok(sent) => {
                    self.first += sent;
                    tried = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error about an earlier datagram shows once, in place of sending.
                Err(_) if !tried => tried = true,
                Err(error) => {
                    tracing::debug!("a packet was refused: {error}");
                    self.refused += 1;
                    self.first += 1;
                    tried = false;
                }
            }
        }
        self.first = 0;
        self.end = 0;
    }
}

/// How many were sent.
fn send_some(socket: BorrowedFd<'_>, waiting: &[Waiting]) -> io::Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = waiting
        .iter()
        .map(|one| [IoSlice::new(&one.octets[..one.len])])
        .collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = waiting
        .iter()
        .map(|_| SendAncillaryBuffer::default())
        .collect();
    let mut messages: Vec<MMsgHdr<'_>> = waiting
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((one, slice), control)| MMsgHdr::new_with_addr(&one.to, slice, control))
        .collect();
    Ok(rustix::net::sendmmsg(
        socket,
        &mut messages,
        SendFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::*;

    #[test]
    fn everything_is_sent_in_order() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = Socket::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        prepare(&sender).unwrap();
        let to = receiver.local_addr().unwrap();
        let mut outbox = Outbox::new();
        for round in 0..3 {
            for n in 0..BATCH as u8 {
                assert!(outbox.push(2, to.into(), |octets| {
                    octets.copy_from_slice(&[round, n]);
                }));
            }
            assert_eq!(outbox.room(), 0);
            assert!(!outbox.push(2, to.into(), |_| {}));
            outbox.send(&sender);
            assert_eq!((outbox.room(), outbox.refused), (BATCH, 0));
            let mut octets = [0; 10];
            for n in 0..BATCH as u8 {
                assert_eq!(receiver.recv(&mut octets).unwrap(), 2);
                assert_eq!(octets[..2], [round, n]);
            }
        }
        assert_eq!(drops(&sender, "udp").unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_alone() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = Socket::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = receiver.local_addr().unwrap();
        let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
        let mut outbox = Outbox::new();
        for to in [to, nowhere, to] {
            outbox.push(1, to.into(), |octets| octets[0] = 7);
        }
        outbox.send(&sender);
        assert_eq!((outbox.refused, outbox.room()), (1, BATCH));
        let mut octets = [0; 10];
        for _ in 0..2 {
            assert_eq!(receiver.recv(&mut octets).unwrap(), 1);
        }
    }

    #[test]
    fn drops_are_those_of_the_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     12: 00000000:002F 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 17\n\
                     13: 00000000:002F 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 18\n";
        assert_eq!(drops_in(table, "4712"), 18);
        assert_eq!(drops_in(table, "4713"), 0);
    }
}
