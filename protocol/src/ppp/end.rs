//! Why a link ended, in words for an operator.

use core::fmt;

use super::auth::AuthProtocol;
use crate::mppe::Strengths;

/// The longest text of a peer that is kept, in octets.
const MAX_TEXT: usize = 253;

/// Why a [`Link`](super::Link) ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// We closed it.
    Closed(CloseReason),
    /// The peer sent a Terminate-Request (RFC 1661 §5.5).
    PeerTerminated {
        /// Its text, made printable; often empty. `Windows error 742` where it holds that number.
        text: String,
    },
    /// LCP never opened: our Configure-Requests ran out (RFC 1661 §4.6, Max-Configure).
    NoAnswer {
        /// Whether any frame of the peer came at all. None at all means that GRE does not pass.
        heard: bool,
    },
    /// LCP came to no agreement, or the peer rejected LCP itself.
    LcpFailed(&'static str),
    /// The call was not up within the set-up limit.
    SetUpTimeout {
        /// How far it came.
        phase: PhaseName,
    },
    /// The peer will not authenticate itself by any method we allow (server), or the server asked for none that we
    /// can answer (client).
    AuthenticationRefused {
        /// What the peer asked for in place of ours.
        suggested: Option<AuthProtocol>,
    },
    /// No Response came to our Challenges (server), or no Challenge or verdict came (client).
    AuthenticationTimeout,
    /// Wrong credentials, or an account that may not log in.
    AuthenticationFailed {
        /// Code of RFC 2759 §6: 646 restricted hours, 647 account disabled, 648 password expired, 649 no dial-in
        /// permission, 691 authentication failure.
        code: u32,
        /// Text that came with it, made printable; often empty.
        message: String,
        /// User name as it was on the wire, made printable.
        name: String,
    },
    /// A Response that cannot be judged; the client was told 691.
    ResponseUnusable {
        /// What is wrong with it.
        fault: ResponseFault,
        /// User name as it was on the wire, made printable.
        name: String,
    },
    /// The server could not prove that it knows the password (RFC 2759 §5; error 778 on Windows).
    ServerNotAuthentic,
    /// Encryption is required and cannot be had.
    MppeRefused(MppeRefusal),
    /// No agreement on addresses.
    IpcpFailed(IpcpFailure),
    /// Our own frames come back to us (RFC 1661 §6.4).
    LoopedBack,
    /// LCP echoes were not answered (RFC 1661 §5.8).
    EchoFailure {
        /// How many in a row.
        unanswered: u8,
    },
}

/// Why a side closes a link of its own will.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// The user hangs up.
    UserRequest,
    /// An operator ended the call.
    Administrative,
    /// The process stops.
    Shutdown,
    /// No data for too long.
    IdleTimeout,
    /// The session's time is used up.
    SessionTimeout,
    /// No address or other resource left, or a fault of our own.
    LocalFailure,
}

/// How far a link has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PhaseName {
    /// Not opened yet, or finished.
    Dead,
    /// LCP.
    Establish,
    /// LCP is open; authentication runs.
    Authenticate,
    /// CCP and IPCP.
    Network,
    /// Addresses are agreed; data may flow (once keys run, where encryption is required).
    Up,
    /// Closing.
    Terminate,
}

/// Why a Response cannot be judged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResponseFault {
    /// Its value has a length that the method does not know.
    Size,
    /// It names nobody.
    NoName,
    /// In mid-call it names somebody else than the first did.
    OtherName,
    /// MS-CHAPv1 with the LAN Manager response only (RFC 2433 §6, flag 0), which proves too little.
    LmOnly,
}

/// How a required MPPE failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MppeRefusal {
    /// Authentication gave no keys.
    NoKeys,
    /// Only keys of 40 or 56 bits would do, and MS-CHAPv1 makes them of the LM hash, which a password of more than
    /// 14 characters, or with any outside ASCII, does not have.
    NoLmHash,
    /// The peer rejected the MPPE option.
    Rejected,
    /// The peer rejected CCP as a whole (RFC 1661 §5.7).
    ProtocolRejected,
    /// The peer insists on bits that are no encryption, or on none that we know (RFC 3078 §2.1).
    Bits(u32),
    /// The peer has other key lengths only.
    Strength {
        /// The peer's.
        peer: Strengths,
        /// Ours, as allowed.
        ours: Strengths,
    },
    /// The peer insists on stateful keys, which are refused here.
    Stateful,
    /// The peer's own requests never held the MPPE option.
    NotRequested,
    /// The peer closed CCP.
    Terminated,
    /// No agreement, or no answer.
    NoAgreement,
}

/// How IPCP failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpcpFailure {
    /// The peer rejected IPCP as a whole (RFC 1661 §5.7).
    ProtocolRejected,
    /// No answer to our requests.
    NoAnswer,
    /// The two sides go round in circles.
    NotConverging,
    /// The server gave us no address.
    NoAddress,
    /// The peer closed IPCP.
    Terminated,
}

impl End {
    /// Text for the Terminate-Request that goes with this end: short, ASCII, nothing secret.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Closed(reason) => reason.text(),
            Self::PeerTerminated { .. } => "",
            Self::NoAnswer { .. } | Self::SetUpTimeout { .. } => "Set-up took too long",
            Self::LcpFailed(_) => "LCP came to no agreement",
            Self::AuthenticationRefused { .. } => "Peer refused to authenticate",
            Self::AuthenticationTimeout => "No answer to authentication",
            Self::AuthenticationFailed { .. } | Self::ResponseUnusable { .. } => {
                "Authentication failed"
            }
            Self::ServerNotAuthentic => "Server could not be authenticated",
            Self::MppeRefused(MppeRefusal::NoKeys) => "MPPE required but there are no keys",
            Self::MppeRefused(MppeRefusal::Strength { .. }) => "MPPE key length not allowed",
            Self::MppeRefused(MppeRefusal::Stateful) => "Stateful MPPE not allowed",
            Self::MppeRefused(MppeRefusal::NoLmHash) => "Password too long for weak MPPE keys",
            Self::MppeRefused(_) => "MPPE required but peer refused",
            Self::IpcpFailed(_) => "Could not agree on IP addresses",
            Self::LoopedBack => "Link is looped back",
            Self::EchoFailure { .. } => "Peer not responding",
        }
    }
}

impl CloseReason {
    /// Text for the Terminate-Request.
    pub const fn text(self) -> &'static str {
        match self {
            Self::UserRequest => "User request",
            Self::Administrative => "Closed by the administrator",
            Self::Shutdown => "Server is shutting down",
            Self::IdleTimeout => "Idle for too long",
            Self::SessionTimeout => "Session time is used up",
            Self::LocalFailure => "Out of resources",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserRequest => "closed by the user",
            Self::Administrative => "closed by the operator",
            Self::Shutdown => "closed because turnpike stops",
            Self::IdleTimeout => "closed because it was idle",
            Self::SessionTimeout => "closed because its time was used up",
            Self::LocalFailure => "closed because a resource was missing",
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(reason) => reason.fmt(f),
            Self::PeerTerminated { text } if text.is_empty() => f.write_str("peer ended PPP"),
            Self::PeerTerminated { text } => write!(f, "peer ended PPP: {text}"),
            Self::NoAnswer { heard: false } => f.write_str(
                "no PPP frame came from the peer: GRE (IP protocol 47) does not pass, a firewall or NAT may block it",
            ),
            Self::NoAnswer { heard: true } => f.write_str("peer stopped answering while LCP was negotiated"),
            Self::LcpFailed(why) => write!(f, "LCP failed: {why}"),
            Self::SetUpTimeout { phase } => write!(f, "set-up limit reached {phase}"),
            Self::AuthenticationRefused { suggested: None } => {
                f.write_str("no authentication method in common: peer refused all that are allowed")
            }
            Self::AuthenticationRefused { suggested: Some(other) } => {
                write!(f, "no authentication method in common: peer wants {other}, which is not allowed")
            }
            Self::AuthenticationTimeout => f.write_str("peer did not answer authentication"),
            Self::AuthenticationFailed { code, message, name } => {
                write!(f, "authentication of \"{name}\" failed: E={code}")?;
                if message.is_empty() { Ok(()) } else { write!(f, " ({message})") }
            }
            Self::ResponseUnusable { fault, name } => {
                write!(f, "authentication of \"{name}\" failed: E=691 ({fault})")
            }
            Self::ServerNotAuthentic => f.write_str("server could not prove that it knows the password"),
            Self::MppeRefused(refusal) => write!(f, "MPPE is required, but {refusal}"),
            Self::IpcpFailed(failure) => write!(f, "IPCP failed: {failure}"),
            Self::LoopedBack => f.write_str("our own PPP frames come back to us"),
            Self::EchoFailure { unanswered } => write!(f, "{unanswered} LCP echoes in a row were not answered"),
        }
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dead => "before PPP started",
            Self::Establish => "in LCP",
            Self::Authenticate => "in authentication",
            Self::Network => "in CCP and IPCP",
            Self::Up => "with data flowing",
            Self::Terminate => "while closing",
        })
    }
}

impl fmt::Display for ResponseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "a response of the wrong length",
            Self::NoName => "no user name",
            Self::OtherName => "another user name than at first",
            Self::LmOnly => "the LAN Manager response only, which is not accepted",
        })
    }
}

impl fmt::Display for MppeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys => f.write_str("authentication gave no keys"),
            Self::NoLmHash => f.write_str(
                "MS-CHAPv1 has no keys of 40 or 56 bits for a password of more than 14 characters or with any outside ASCII",
            ),
            Self::Rejected => f.write_str("the peer rejected it"),
            Self::ProtocolRejected => f.write_str("the peer does not speak CCP"),
            Self::Bits(bits) => write!(f, "the peer insists on the bits {bits:08x}"),
            Self::Strength { peer, ours } => write!(
                f,
                "the peer wants keys of {peer} bits, and {ours} bits are allowed"
            ),
            Self::Stateful => f.write_str("the peer insists on stateful keys, which are refused"),
            Self::NotRequested => f.write_str("the peer does not ask for it in its own direction"),
            Self::Terminated => f.write_str("the peer closed CCP"),
            Self::NoAgreement => f.write_str("CCP came to no agreement"),
        }
    }
}

impl fmt::Display for IpcpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProtocolRejected => "the peer does not speak IPCP",
            Self::NoAnswer => "the peer did not answer",
            Self::NotConverging => "the two sides go round in circles",
            Self::NoAddress => "the server gave no address",
            Self::Terminated => "the peer closed IPCP",
        })
    }
}

/// The text of a Terminate-Request fit for a log. Windows gives its magic number, four octets that never change, and the
/// error number that it shows its user, or 0.
pub(crate) fn farewell(text: &[u8]) -> String {
    match *text {
        [_, _, _, _, 0x00, 0x3c, 0xcd, 0x74, a, b, c, d, ..] => {
            match u32::from_be_bytes([a, b, c, d]) {
                0 => String::new(),
                error => format!("Windows error {error}"),
            }
        }
        _ => printable(text),
    }
}

/// A peer's text fit for a log: cut, and everything but printable ASCII replaced by `.`.
pub(crate) fn printable(text: &[u8]) -> String {
    text.iter()
        .take(MAX_TEXT)
        .map(|&octet| {
            if octet == b' ' || octet.is_ascii_graphic() {
                char::from(octet)
            } else {
                '.'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_says_goodbye_by_number() {
        let goodbye = |error: u32| {
            let mut text = vec![0x5a, 0x3b, 0x1c, 0x02, 0x00, 0x3c, 0xcd, 0x74];
            text.extend(error.to_be_bytes());
            farewell(&text)
        };
        assert_eq!(goodbye(0), "");
        assert_eq!(goodbye(742), "Windows error 742");
        assert_eq!(farewell(b"\x01bye"), ".bye");
        assert_eq!(
            farewell(&[0x5a, 0x3b, 0x1c, 0x02, 0x00, 0x3c, 0xcd, 0x74]),
            "Z;...<.t"
        );
    }
}
