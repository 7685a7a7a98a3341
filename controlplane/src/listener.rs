//! Where clients knock: TCP 1723, and who is let in.
//!
//! A connection that has said nothing of use (no valid Start-Control-Connection-Request) is worth less than any
//! other: when its source or the whole box is at its limit, the oldest such connection makes room. So hundreds of
//! probes from one address neither hold much nor keep out a real client behind the same address. When there is
//! nobody to displace, the client is told in Start-Control-Connection-Reply.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};
use turnpike_protocol::pptp;

use crate::driver::{self, Guest, Shared};
use crate::post;
use crate::sessions::Order;

/// How many clients that are refused may be waited for at once, to be told so.
const REFUSING: usize = 64;

/// How long a client that is refused may take to say hello.
const REFUSAL_TIME: Duration = Duration::from_secs(3);

/// Connections the kernel holds for us while we are busy.
const BACKLOG: i32 = 1024;

/// How many connections there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From one source address.
    pub per_source: usize,
    /// On the whole box.
    pub total: usize,
}

/// Who is in.
pub struct Connections {
    limits: Limits,
    inside: Mutex<Inside>,
    number: AtomicU64,
}

#[derive(Default)]
struct Inside {
    by_source: HashMap<Ipv4Addr, usize>,
    total: usize,
    /// Connections that have said nothing of use, oldest first.
    unproven: BTreeMap<u64, (Ipv4Addr, post::Sender<Order>)>,
    /// Connections that are only held to be refused.
    refusing: usize,
}

/// How a connection is received.
enum Welcome {
    /// As a guest.
    In(Ticket),
    /// To be told that there is no room.
    Refuse(Ticket),
    /// Not at all.
    Close,
}

/// A connection's place; given back when dropped.
pub struct Ticket {
    connections: Arc<Connections>,
    source: Ipv4Addr,
    number: u64,
    refusing: bool,
}

impl Ticket {
    /// The number of the connection, as log lines name it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The client has spoken PPTP: it is not displaced any more.
    pub fn proven(&self) {
        self.connections.lock().unproven.remove(&self.number);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = self.connections.lock();
        if self.refusing {
            inside.refusing -= 1;
        } else {
            // Displaced connections have been taken off the books already.
            inside.unproven.remove(&self.number);
            inside.leave(self.source);
        }
    }
}

impl Inside {
    fn leave(&mut self, source: Ipv4Addr) {
        self.total -= 1;
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// The oldest connection that may be displaced, of one source or of all.
    fn displaceable(&self, source: Option<Ipv4Addr>) -> Option<u64> {
        self.unproven
            .iter()
            .find(|(_, (from, _))| source.is_none_or(|source| source == *from))
            .map(|(number, _)| *number)
    }
}

impl Connections {
    /// Nobody is in.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            inside: Mutex::default(),
            number: AtomicU64::new(1),
        })
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.lock().total
    }

    /// Whether nobody is in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn receive(
        self: &Arc<Self>,
        source: Ipv4Addr,
        orders: &post::Sender<Order>,
        shared: &Shared,
    ) -> Welcome {
        let mut inside = self.lock();
        let own = inside.by_source.get(&source).copied().unwrap_or(0);
        let scope = if own >= self.limits.per_source {
            Some(Some(source))
        } else if inside.total >= self.limits.total {
            Some(None)
        } else {
            None
        };
        let ticket = |refusing| Ticket {
            connections: self.clone(),
            source,
            number: self.number.fetch_add(1, Ordering::Relaxed),
            refusing,
        };
        if let Some(scope) = scope {
            let Some(victim) = inside.displaceable(scope) else {
                shared.counts.connections_refused.add();
                if inside.refusing >= REFUSING {
                    return Welcome::Close;
                }
                inside.refusing += 1;
                return Welcome::Refuse(ticket(true));
            };
            // It leaves the books when its task ends, which is at once: for that moment there is one more.
            if let Some((_, displaced)) = inside.unproven.remove(&victim) {
                shared.counts.connections_displaced.add();
                let _ = displaced.send(Order::Displace);
            }
        }
        let ticket = ticket(false);
        inside.total += 1;
        *inside.by_source.entry(source).or_default() += 1;
        inside
            .unproven
            .insert(ticket.number, (source, orders.clone()));
        Welcome::In(ticket)
    }
}

/// Opens the listening socket on one address.
///
/// # Errors
/// When the address is not ours or the port is taken.
pub fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((address, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The port of RFC 2637 §3.1.
pub const PORT: u16 = pptp::PORT;

/// Accepts clients until the server stops or the task is ended.
pub async fn run(listener: TcpListener, connections: Arc<Connections>, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            () = driver::stopped(&mut stopping) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, source)) => admit(stream, source, &connections, &shared),
            Err(error) => {
                // A client that gave up in the backlog, or no descriptor left: the next one may do better.
                warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    source: SocketAddr,
    connections: &Arc<Connections>,
    shared: &Arc<Shared>,
) {
    shared.counts.connections.add();
    let (Some(peer), Some(local)) = (v4(Ok(source)), v4(stream.local_addr())) else {
        return;
    };
    if let Err(error) = prepare(&stream) {
        debug!(%error, %peer, "connection gone before it was served");
        return;
    }
    let (orders, mail) = post::channel();
    let (ticket, refuse) = match connections.receive(peer, &orders, shared) {
        Welcome::In(ticket) => (ticket, false),
        Welcome::Refuse(ticket) => {
            warn!(client = %peer, "too many connections: client turned away");
            (ticket, true)
        }
        Welcome::Close => {
            debug!(client = %peer, "too many connections: closed without a word");
            return;
        }
    };
    let guest = Guest {
        stream,
        local,
        peer,
        ticket,
        orders,
        refuse: refuse.then_some(REFUSAL_TIME),
    };
    tokio::spawn(driver::run(guest, mail, shared.clone()));
}

/// Control messages are small and somebody waits for each; a client that vanished is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn v4(address: io::Result<SocketAddr>) -> Option<Ipv4Addr> {
    match address.ok()? {
        SocketAddr::V4(address) => Some(*SocketAddrV4::ip(&address)),
        SocketAddr::V6(_) => None,
    }
}
