//! What a link asks for, and what it has agreed.

use core::fmt;
use core::net::Ipv4Addr;

use super::auth::{AuthProtocol, Credentials};
use super::end::{End, PhaseName};
use crate::mppe::{Direction, Mode, StartKey, Strength};

/// Something a [`Link`](super::Link) wants done. To be carried out in the order of
/// [`Link::poll`](super::Link::poll): the order is part of the meaning.
#[derive(Clone)]
pub enum Action {
    /// Send this PPP frame, FF 03 included.
    Send(Vec<u8>),
    /// Load MPPE keys that start at a CCP frame (RFC 1962 §2). Comes before the `Send` of the frame it belongs to, each
    /// time that frame is sent: for [`Direction::Receive`] our Configure-Request, whose acknowledgement by the peer
    /// starts the keys; for [`Direction::Transmit`] our Configure-Ack, which starts them itself.
    Load {
        /// Which way.
        direction: Direction,
        /// Identifier of the Configure-Request that they belong to: ours for receive, the peer's for transmit.
        identifier: u8,
        /// The key; its length is in it.
        key: StartKey,
        /// Stateless or stateful.
        mode: Mode,
    },
    /// Server role: decide. Answered by [`Link::verdict`](super::Link::verdict), once for each, in order.
    Authenticate(Credentials),
    /// Server role: the client asks for this address instead of the one it was granted. Answered by
    /// [`Link::chosen`](super::Link::chosen), once for each; its request waits until then.
    Choose(Ipv4Addr),
    /// Let data flow, or change how. Comes before the `Send` after which the peer may use the address.
    Up(Terms),
    /// Stop data: IPCP, LCP or a needed CCP went down. The link goes on, another `Up` may follow.
    Hold,
    /// Let IPv6 flow, or change how, whatever IPv4 does. Comes before the `Send` after which the peer may use it.
    Up6(Ipv6Terms),
    /// Stop IPv6: IPV6CP, LCP or a needed CCP went down, or IPV6CP was given up. The link goes on.
    Hold6,
    /// The link is over; nothing follows.
    Finished(End),
}

/// Keys are not printed, frames (they hold responses to challenges) by length only.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(frame) => write!(f, "Send({} octets)", frame.len()),
            Self::Load {
                direction,
                identifier,
                key,
                mode,
            } => write!(
                f,
                "Load({direction:?}, {identifier}, {:?}, {mode:?})",
                key.strength()
            ),
            Self::Authenticate(credentials) => write!(f, "Authenticate({credentials:?})"),
            Self::Choose(address) => write!(f, "Choose({address})"),
            Self::Up(terms) => write!(f, "Up({terms:?})"),
            Self::Hold => f.write_str("Hold"),
            Self::Up6(terms) => write!(f, "Up6({terms:?})"),
            Self::Hold6 => f.write_str("Hold6"),
            Self::Finished(end) => write!(f, "Finished({end:?})"),
        }
    }
}

/// How data may flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The client's inner address.
    pub address: Ipv4Addr,
    /// The server's; 0.0.0.0 when a server did not tell its client.
    pub server_address: Ipv4Addr,
    /// DNS servers.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers.
    pub nbns: [Option<Ipv4Addr>; 2],
    /// Frames to the peer may leave out FF 03 (it asked for that: RFC 1661 §6.6).
    pub compress_address: bool,
    /// Frames to the peer may have one-octet protocol numbers (RFC 1661 §6.5).
    pub compress_protocol: bool,
    /// The largest inner packet to the peer, in octets: the configured one, or what the peer's MRU leaves after the
    /// four octets of MPPE.
    pub mtu: u16,
    /// Whether data may be in clear.
    pub encryption: Encryption,
}

/// How IPv6 may flow (RFC 5072).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Terms {
    /// Our interface identifier: the end of our link-local address. Neither 0 nor the peer's.
    pub ours: u64,
    /// The peer's; not 0.
    pub theirs: u64,
    /// As in [`Terms`].
    pub compress_address: bool,
    /// As in [`Terms`].
    pub compress_protocol: bool,
    /// As in [`Terms`]; never less than 1280 (RFC 8200 §5).
    pub mtu: u16,
    /// As in [`Terms`].
    pub encryption: Encryption,
}

/// The outcome of policy and CCP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encryption {
    /// No MPPE.
    Plain,
    /// Nothing but MPPE, both ways.
    Required,
}

/// MPPE as agreed for one direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MppeTerms {
    /// Key length.
    pub strength: Strength,
    /// When keys change.
    pub mode: Mode,
}

/// LCP options that hold for frames *to* the side that asked for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LcpTerms {
    /// Largest information field that the side receives, in octets; 1500 when it did not say.
    pub mru: u16,
    /// Its magic number; `None` when it has none.
    pub magic: Option<u32>,
    /// One-octet protocol numbers allowed.
    pub compress_protocol: bool,
    /// FF 03 may be left out.
    pub compress_address: bool,
    /// Its ACCM, which means nothing in GRE; `None` when it did not say.
    pub accm: Option<u32>,
}

impl Default for LcpTerms {
    fn default() -> Self {
        Self {
            mru: 1500,
            magic: None,
            compress_protocol: false,
            compress_address: false,
            accm: None,
        }
    }
}

/// What a link has agreed so far, for people to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// How far it is.
    pub phase: PhaseName,
    /// LCP options that we asked for and the peer acknowledged; they hold for what we receive.
    pub lcp_receive: LcpTerms,
    /// LCP options that the peer asked for and we acknowledged; they hold for what we send.
    pub lcp_transmit: LcpTerms,
    /// How the client authenticates itself, once LCP has agreed on it.
    pub authentication: Option<AuthProtocol>,
    /// The client's name as it was on the wire, once it gave one.
    pub name: Option<Vec<u8>>,
    /// MPPE of frames that we receive, once both sides acknowledged it.
    pub mppe_receive: Option<MppeTerms>,
    /// MPPE of frames that we send.
    pub mppe_transmit: Option<MppeTerms>,
    /// The terms of the last [`Action::Up`], while it holds.
    pub terms: Option<Terms>,
    /// The terms of the last [`Action::Up6`], while it holds.
    pub ipv6: Option<Ipv6Terms>,
    /// Texts of the peer's LCP Identification packets (RFC 1570 §2.1), made printable; at most four.
    pub identification: Vec<String>,
    /// Frames that were dropped because they were malformed.
    pub malformed: u64,
}
