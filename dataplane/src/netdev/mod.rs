//! Linux' view of network devices, by synchronous netlink: what the ports need at start and at the end, and what the
//! load generator and the tests need to build a network.
//!
//! Everything acts in the network namespace that the calling thread was in when [`Netlink::open`] was called.

mod address;
mod link;
mod rss;
mod rule;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub use self::address::Route;
pub use self::link::{
    Link, MAX_NAME, Offloads, Queues, Statistics, Veth, XdpAttached, set_offloads,
};
pub use self::rss::Rss;
pub use self::rule::SourceRule;

/// A request that Linux refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct Error {
    /// What was asked for, to stand after "could not" in a sentence.
    pub doing: String,
    /// Linux' answer.
    pub source: io::Error,
}

impl Error {
    pub(crate) fn new(doing: impl Into<String>, source: io::Error) -> Self {
        Self {
            doing: doing.into(),
            source,
        }
    }

    /// Whether the thing to make was there already.
    pub fn exists(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }

    /// Whether the thing asked about is not there.
    pub fn missing(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }
}

/// What a request does when the thing is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Make {
    /// Refuse.
    Exclusive,
    /// Put the new one in its place.
    Replace,
}

/// A connection to Linux' routing netlink.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a connection in the thread's network namespace.
    ///
    /// # Errors
    /// When Linux gives no socket.
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Without it Linux repeats the whole request in its refusal.
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        open()
            .map(|socket| Self {
                socket,
                sequence: 0,
            })
            .map_err(|e| Error::new("open a netlink socket", e))
    }

    /// Sends a request that changes something and waits for Linux' word on it.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(|_| ()).map(drop)
    }

    /// Sends a request that makes something.
    fn make(&mut self, message: RouteNetlinkMessage, how: Make) -> io::Result<()> {
        let flags = match how {
            Make::Exclusive => NLM_F_CREATE | NLM_F_EXCL,
            Make::Replace => NLM_F_CREATE | NLM_F_REPLACE,
        };
        self.change(message, flags)
    }

    /// Asks for one thing.
    fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.collect()
    }

    /// Asks for everything of a kind.
    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.collect()
    }

    fn collect(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut all = Vec::new();
        self.answers(|message| all.push(message))?;
        Ok(all)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Takes answers to the last request until Linux says that there are no more.
    fn answers(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
                // Messages are padded to four octets (NLMSG_ALIGN).
                let len = usize::try_from(message.header.length)
                    .unwrap_or(usize::MAX)
                    .next_multiple_of(4)
                    .min(rest.len());
                rest = rest.get(len.max(1)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Error(answer) => {
                        return match answer.code {
                            None => Ok(()),
                            Some(_) => Err(answer.to_io()),
                        };
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
                    }
                    _ => {}
                }
            }
        }
    }
}
