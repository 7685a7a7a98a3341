//! The end behind the server: a UDP socket in a thread of its own.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use turnpike_dataplane::device::{BATCH, CHUNK};

use super::packet::{FRONT, PORT};
use super::raw::Troubles;
use super::sending::{self, Outbox};
use super::side::Side;

/// The longest sleep: a new order does not ring.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);

/// The socket, and where calls are reached.
pub(super) struct Network {
    socket: UdpSocket,
    side: Side,
    outbox: Outbox,
    /// Where flows' packets come from, where that is not the call itself: a server that translates addresses.
    elsewhere: HashMap<u32, SocketAddr>,
    troubles: Arc<Troubles>,
    spin: bool,
}

impl Network {
    /// On an address of this machine; any port.
    pub(super) fn open(address: Ipv4Addr, side: Side, spin: bool) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        sending::prepare(&socket)?;
        socket
            .bind(&SocketAddrV4::new(address, 0).into())
            .with_context(|| format!("{address} is no address of this machine"))?;
        Ok(Self {
            socket: socket.into(),
            side,
            outbox: Outbox::new(),
            elsewhere: HashMap::new(),
            troubles: Arc::default(),
            spin,
        })
    }

    /// Where calls have to send to.
    pub(super) fn address(&self) -> io::Result<SocketAddrV4> {
        match self.socket.local_addr()? {
            SocketAddr::V4(address) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// What goes wrong.
    pub(super) fn troubles(&self) -> Arc<Troubles> {
        self.troubles.clone()
    }

    /// Runs until told to stop, in a thread of its own, on a processor of its own if that is wanted.
    pub(super) fn spawn(mut self, cpu: Option<usize>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                if let Some(cpu) = cpu
                    && !turnpike_dataplane::thread::pin(cpu)
                {
                    tracing::warn!("cannot pin the network side to cpu {cpu}");
                }
                sending::sleep_exactly();
                self.run();
            })
    }

    fn run(&mut self) {
        loop {
            self.side.follow();
            if self.side.is_stopped() {
                break;
            }
            let received = self.receive();
            let sent = self.send();
            if received || sent || self.spin {
                continue;
            }
            let now = self.side.now();
            let due = self.side.due().map_or(LONGEST_SLEEP, |due| {
                Duration::from_nanos(due.saturating_sub(now))
            });
            if !due.is_zero() {
                sending::wait(&[self.socket.as_fd()], due.min(LONGEST_SLEEP));
            }
        }
        self.count_drops();
    }

    /// Takes a batch of what has come.
    fn receive(&mut self) -> bool {
        let mut octets = [0; CHUNK];
        for n in 0..BATCH {
            let (len, from) = match self.socket.recv_from(&mut octets) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return n > 0,
                // An ICMP error about an earlier datagram.
                Err(_) => continue,
            };
            if let Some(stamp) = self.side.take(&octets[..len])
                && self.side.address(stamp.flow).is_some_and(|address| {
                    from != SocketAddr::from(SocketAddrV4::new(address, PORT))
                })
            {
                self.elsewhere.insert(stamp.flow, from);
            }
        }
        true
    }

    /// Sends a batch of what is due.
    fn send(&mut self) -> bool {
        let now = self.side.now();
        let mut any = false;
        while self.outbox.room() > 0 {
            let Some((stamp, address)) = self.side.next(now) else {
                break;
            };
            let to = match self.elsewhere.get(&stamp.flow) {
                Some(elsewhere) => *elsewhere,
                None => SocketAddrV4::new(address, PORT).into(),
            };
            let len = usize::from(stamp.size) - FRONT;
            self.outbox
                .push(len, to.into(), |octets| stamp.write(octets));
            any = true;
        }
        self.outbox.send(&self.socket);
        self.troubles
            .refused
            .store(self.outbox.refused, Ordering::Relaxed);
        any
    }

    fn count_drops(&self) {
        let Ok(socket) = self.socket.try_clone() else {
            return;
        };
        if let Ok(dropped) = sending::drops(&socket.into(), "udp") {
            self.troubles.dropped.store(dropped, Ordering::Relaxed);
        }
    }
}

/// What went wrong, as a figure.
pub(super) fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}
