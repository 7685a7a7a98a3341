//! What a [`Tunnel`](super::Tunnel) wants done, as values.

use core::net::Ipv4Addr;
use core::time::Duration;

use ipnet::Ipv6Net;
use turnpike_dataplane::api::{CallCounters, CallRef, Command, Encryption, Mppe};
use turnpike_protocol::CallId;
use turnpike_protocol::ppp::{Credentials, Ipv6Grant};
use turnpike_protocol::pptp::PeerInfo;

use crate::accounting::Begun;
use crate::cause::Cause;
use crate::dhcp6;
use crate::inform;

/// One thing to do. Actions are done in the order in which they come: the order is the correctness argument.
pub enum Action {
    /// Send these octets on the control connection.
    Tcp(Vec<u8>),
    /// Find an id and a next hop for a call that the client asks for; answer with
    /// [`Tunnel::placed`](super::Tunnel::placed).
    Place {
        /// The id the client chose.
        peer_id: CallId,
    },
    /// Tell the workers. [`Command::Route`], [`Command::Unroute`] and those of IPv6 go to every worker, all others to
    /// the owner of the call. Boxed: there is a queue of actions for each control connection, and a command holds its frame
    /// inline.
    Data(Box<Command>),
    /// Judge a login; answer with [`Tunnel::verdict`](super::Tunnel::verdict).
    Authenticate {
        /// The call.
        call: CallRef,
        /// What the client sent.
        credentials: Credentials,
        /// The address that the call has and keeps: it was challenged again in mid-call.
        holds: Option<Ipv4Addr>,
    },
    /// The client asks for another address than the one that it was granted; answer with
    /// [`Tunnel::chosen`](super::Tunnel::chosen).
    Choose {
        /// The call.
        call: CallRef,
        /// What it was granted.
        held: Ipv4Addr,
        /// What it asks for.
        asked: Ipv4Addr,
    },
    /// The call's GRE comes from another address than its control connection: say by which next hop it goes there, with
    /// [`Tunnel::reroute`](super::Tunnel::reroute).
    Bound {
        /// The call.
        call: CallRef,
        /// Where its GRE comes from and goes to.
        source: Ipv4Addr,
    },
    /// A session begins: from now on this user has this address. Comes before the route and all that lets the client send.
    Begin(Box<Begun>),
    /// The call's session is over, though the call is not: its client logs in anew, or has another address.
    Cease(CallRef),
    /// The call goes on without this inner address: LCP was negotiated anew, and the next login gets one of its own.
    Release {
        /// The call.
        call: CallRef,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Likewise without these prefixes.
    Release6(Ipv6Grant),
    /// Something an operator wants to know.
    Notice(Notice),
    /// A call that was placed is over, and the workers have forgotten it: its id and its address are free. Comes
    /// exactly once for every call that was placed.
    Ended(Ended),
    /// Close the control connection once everything before has been sent.
    Close,
}

impl Action {
    /// [`Action::Data`].
    pub(super) fn data(command: Command) -> Self {
        Self::Data(Box::new(command))
    }
}

/// The end of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The call.
    pub call: CallRef,
    /// Why; the first reason counts.
    pub cause: Cause,
    /// Its last counters.
    pub counters: CallCounters,
    /// The user, when one had been accepted.
    pub user: Option<String>,
    /// The client's inner address, when it had been given one.
    pub address: Option<Ipv4Addr>,
    /// The prefixes that it had been given.
    pub ipv6: Option<Ipv6Grant>,
    /// How long data could flow since it first could.
    pub up: Option<Duration>,
}

/// Something an operator wants to know. Never holds a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The control connection stands.
    Started(PeerInfo),
    /// A call was refused before it was placed.
    Refused {
        /// The id the client chose.
        peer_id: CallId,
        /// Why.
        cause: Cause,
    },
    /// A login was refused.
    LoginFailed {
        /// The call.
        call: CallRef,
        /// The name as the client gave it.
        user: String,
        /// The error code that the client was told (RFC 2759 §6: `E=`); `None` when it was only sent away.
        code: Option<u32>,
        /// Why.
        cause: Cause,
    },
    /// Data can flow.
    Up {
        /// The call.
        call: CallRef,
        /// The user.
        user: String,
        /// The client's inner address.
        address: Ipv4Addr,
        /// Largest inner packet, in octets.
        mtu: u16,
        /// Whether data has to be encrypted.
        encryption: Encryption,
        /// How, from us to the client, when that is settled already.
        mppe: Option<Mppe>,
    },
    /// The client asked by DHCPv6 inside its call.
    Dhcp6 {
        /// The call.
        call: CallRef,
        /// Why it got no answer, if so.
        fault: Option<dhcp6::Fault>,
        /// Whether the call's delegated prefix is in use now.
        bound: bool,
    },
    /// The client asked by DHCP inside its call.
    Informed {
        /// The call.
        call: CallRef,
        /// Why it got no answer, if so.
        fault: Option<inform::Fault>,
    },
    /// IPv6 can flow.
    Ipv6Up {
        /// The call.
        call: CallRef,
        /// The prefix of its link.
        prefix: Ipv6Net,
        /// What is kept for the client's own network.
        delegated: Option<Ipv6Net>,
    },
    /// The control connection is over, and why.
    Over(Cause),
}
