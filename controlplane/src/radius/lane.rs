//! One UDP socket, and the 256 requests that may wait for answers on it at once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use turnpike_protocol::radius::{Code, Forgery, MAX_LEN, Packet, Signature};

use super::server::Common;

/// Requests that one socket can tell apart: RFC 2865 §3 has one octet for it.
pub(super) const IDENTIFIERS: usize = 256;

/// What was wrong with answers that came and were not believed, the least telling first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Noted {
    /// None came.
    Nothing,
    /// Of another kind than the request.
    WrongCode,
    /// The authenticator was wrong.
    Forged,
    /// There was no Message-Authenticator, but all else was right.
    Unsigned,
}

/// A request that waits.
struct Waiting {
    code: Code,
    authenticator: [u8; 16],
    noted: Noted,
    answer: oneshot::Sender<Vec<u8>>,
}

enum Slot {
    Free,
    /// Somebody makes a request with this identifier.
    Leased,
    Waiting(Waiting),
}

struct Slots {
    slots: Vec<Slot>,
    used: usize,
    /// Where the search for a free one begins: after the last, so that a late answer to the one before finds nobody.
    next: u8,
}

/// The socket.
pub(super) struct Lane {
    socket: Arc<UdpSocket>,
    target: SocketAddr,
    slots: Arc<Mutex<Slots>>,
    reader: AbortHandle,
}

impl Lane {
    /// Opens a socket with a port of its own, and reads from it from now on.
    pub(super) fn open(common: Arc<Common>) -> io::Result<Self> {
        let target = common.target;
        let any = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = common.settings.source.unwrap_or(any);
        let socket = std::net::UdpSocket::bind((source, 0))?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let slots = Arc::new(Mutex::new(Slots {
            slots: (0..IDENTIFIERS).map(|_| Slot::Free).collect(),
            used: 0,
            next: 0,
        }));
        let reading = read(socket.clone(), slots.clone(), common);
        Ok(Self {
            socket,
            target,
            slots,
            reader: tokio::spawn(reading).abort_handle(),
        })
    }

    /// An identifier that nobody has; `None` when all are taken.
    pub(super) fn lease(self: &Arc<Self>) -> Option<Lease> {
        let mut slots = lock(&self.slots);
        if slots.used == IDENTIFIERS {
            return None;
        }
        let mut identifier = slots.next;
        while !matches!(slots.slots[usize::from(identifier)], Slot::Free) {
            identifier = identifier.wrapping_add(1);
        }
        slots.slots[usize::from(identifier)] = Slot::Leased;
        slots.used += 1;
        slots.next = identifier.wrapping_add(1);
        Some(Lease {
            lane: self.clone(),
            identifier,
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// An identifier in use; given back when dropped.
pub(super) struct Lease {
    lane: Arc<Lane>,
    pub(super) identifier: u8,
}

impl Lease {
    /// The request is made: answers to it are taken from now on.
    pub(super) fn wait(&self, code: Code, authenticator: [u8; 16]) -> oneshot::Receiver<Vec<u8>> {
        let (answer, receiver) = oneshot::channel();
        lock(&self.lane.slots).slots[usize::from(self.identifier)] = Slot::Waiting(Waiting {
            code,
            authenticator,
            noted: Noted::Nothing,
            answer,
        });
        receiver
    }

    /// Sends the request, for the first time or again: from the same port.
    pub(super) async fn send(&self, request: &[u8]) -> io::Result<()> {
        self.lane
            .socket
            .send_to(request, self.lane.target)
            .await
            .map(drop)
    }

    /// What came instead of an answer.
    pub(super) fn noted(&self) -> Noted {
        match &lock(&self.lane.slots).slots[usize::from(self.identifier)] {
            Slot::Waiting(waiting) => waiting.noted,
            Slot::Free | Slot::Leased => Noted::Nothing,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut slots = lock(&self.lane.slots);
        slots.slots[usize::from(self.identifier)] = Slot::Free;
        slots.used -= 1;
    }
}

async fn read(socket: Arc<UdpSocket>, slots: Arc<Mutex<Slots>>, common: Arc<Common>) {
    let mut buffer = vec![0; MAX_LEN];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => take(&slots, &common, from, &buffer[..length]),
            // Linux passes on what ICMP said about an earlier datagram; the timer finds out.
            Err(error) => {
                tracing::debug!(%error, "RADIUS socket");
                tokio::time::sleep(core::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// Gives a datagram to who waits for it, if it is believed; else counts why not.
fn take(slots: &Mutex<Slots>, common: &Common, from: SocketAddr, datagram: &[u8]) {
    let counts = &common.counts;
    let same = from.port() == common.target.port() && from.ip() == common.target.ip();
    if !same {
        return counts.other_source.add();
    }
    let Ok(packet) = Packet::parse(datagram) else {
        return counts.malformed.add();
    };
    let mut slots = lock(slots);
    let slot = &mut slots.slots[usize::from(packet.identifier())];
    let Slot::Waiting(waiting) = slot else {
        return counts.unexpected.add();
    };
    let secret = &common.settings.secret;
    let must_be_signed =
        waiting.code == Code::ACCESS_REQUEST && common.settings.require_message_authenticator;
    let noted = match packet.verify_response(&waiting.authenticator, secret) {
        Err(Forgery::Authenticator) => {
            counts.bad_authenticator.add();
            Noted::Forged
        }
        Err(Forgery::MessageAuthenticator) => {
            counts.bad_signature.add();
            Noted::Forged
        }
        Ok(Signature::Unsigned) if must_be_signed => {
            counts.unsigned.add();
            Noted::Unsigned
        }
        Ok(_) if !packet.code().answers(waiting.code) => {
            counts.wrong_code.add();
            Noted::WrongCode
        }
        Ok(_) => {
            counts.answers.add();
            if let Slot::Waiting(waiting) = core::mem::replace(slot, Slot::Leased) {
                // Who waited may have given up just now.
                let _ = waiting.answer.send(packet.octets().to_vec());
            }
            drop(slots);
            return common.heard();
        }
    };
    waiting.noted = waiting.noted.max(noted);
}

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    // They are whole between any two statements.
    slots
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
