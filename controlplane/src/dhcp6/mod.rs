//! DHCPv6 inside a call (RFC 8415): a client asks for a prefix for the network behind it, and for DNS.
//!
//! A call is one link with one client, and has at most one prefix to delegate, its own from login to hang-up: nobody
//! else can get it meanwhile, whatever the client does with it. So there is little to remember, [`Bound`], and a client
//! that comes back with another DUID or IAID takes its binding over. Addresses are not given: the link's prefix is the
//! client's alone and is advertised for SLAAC.

mod read;

use core::net::{Ipv6Addr, SocketAddrV6};

use dhcproto::Encodable;
use dhcproto::v6::{
    DhcpOption, IANA, IAPD, IAPrefix, IATA, Message, MessageType, OptionCode, Status, StatusCode,
    UnknownOption,
};
use ipnet::Ipv6Net;
use turnpike_protocol::wire::udp;

use crate::inform::Domain;
use read::Question;

/// UDP port of servers (RFC 8415 §7.2).
pub const SERVER_PORT: u16 = 547;
/// UDP port of clients (RFC 8415 §7.2).
pub const CLIENT_PORT: u16 = 546;

/// How long a client may prefer its prefix, and how long use it without asking again, in seconds.
const PREFERRED: u32 = 3600;
const VALID: u32 = 7200;
/// When a client asks again: RFC 8415 §21.21 recommends 0.5 and 0.8 times the preferred lifetime.
const T1: u32 = PREFERRED / 2;
const T2: u32 = PREFERRED / 5 * 4;
/// How long what Information-Request got may be used, in seconds (RFC 8415 §7.6: IRT_DEFAULT).
const REFRESH: u32 = 86_400;
/// RFC 8415 §21.8: the client need not wait for other servers. There are none.
const ONLY_ONE: u8 = 255;

/// What all calls are told, and by whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dhcp6 {
    /// Who we are (RFC 8415 §11): always the same.
    pub duid: Vec<u8>,
    /// DNS servers (RFC 3646 §3).
    pub dns: Vec<Ipv6Addr>,
    /// The domain that names without one belong to (RFC 3646 §4).
    pub domain: Option<Domain>,
}

/// The call that a question came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Our link-local address.
    pub server: Ipv6Addr,
    /// The client's link-local address.
    pub client: Ipv6Addr,
    /// The prefix of the link.
    pub prefix: Option<Ipv6Net>,
    /// What the call has to delegate.
    pub delegated: Option<Ipv6Net>,
    /// Octets of the largest packet.
    pub mtu: u16,
}

/// Whom a call's prefix is delegated to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    duid: Vec<u8>,
    iaid: u32,
}

/// Why a DHCPv6 message got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("DHCPv6 message that cannot be read")]
    Malformed,
    /// It is none that a client sends, or it may not be sent to one server only (RFC 8415 §16).
    #[error("DHCPv6 message that a server discards")]
    NotForServers,
    /// It lacks an identifier that it must have, or has one that it must not have (RFC 8415 §16).
    #[error("DHCPv6 message with identifiers missing or out of place")]
    Identifiers,
    /// It is for another server.
    #[error("DHCPv6 message for another server")]
    OtherServer,
    /// It asks whether addresses are right, and names none (RFC 8415 §18.3.3).
    #[error("DHCPv6 Confirm without addresses")]
    NothingToConfirm,
    /// The answer would be larger than the call takes.
    #[error("DHCPv6 message whose answer is too large")]
    TooLarge,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::NotForServers,
        Self::Identifiers,
        Self::OtherServer,
        Self::NothingToConfirm,
        Self::TooLarge,
    ];

    /// The name that it is counted under.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "dhcpv6_malformed",
            Self::NotForServers => "dhcpv6_not_for_servers",
            Self::Identifiers => "dhcpv6_identifiers",
            Self::OtherServer => "dhcpv6_other_server",
            Self::NothingToConfirm => "dhcpv6_nothing_to_confirm",
            Self::TooLarge => "dhcpv6_too_large",
        }
    }
}

impl Dhcp6 {
    /// A DUID made of a link-layer address (RFC 8415 §11.4, hardware type Ethernet).
    pub fn duid_of(mac: [u8; 6]) -> Vec<u8> {
        [&[0, 3, 0, 1][..], &mac].concat()
    }

    /// The answer to a packet for UDP port 547 that came by a call: a whole IPv6 packet. `bound` becomes `Some` when the
    /// call's prefix has been delegated by it, and `None` when it was given back: routes follow before the answer goes.
    ///
    /// # Errors
    /// Why there is none; nothing is sent then, and nothing changes.
    pub fn answer(
        &self,
        bound: &mut Option<Bound>,
        link: &Link,
        packet: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let question = Question::read(packet, link.server)?;
        if question.source != link.client {
            return Err(Fault::Malformed);
        }
        self.check(&question)?;
        let before = bound.clone();
        let reply = self.reply(&question, bound, link)?;
        let packet = reply.to_vec().ok().and_then(|message| {
            let from = SocketAddrV6::new(link.server, SERVER_PORT, 0, 0);
            // RFC 8415 §18.3.10: to the source of the question.
            let to = SocketAddrV6::new(link.client, CLIENT_PORT, 0, 0);
            udp::ipv6_packet(from, to, &message)
        });
        match packet {
            Some(packet) if packet.len() <= usize::from(link.mtu) => Ok(packet),
            _ => {
                *bound = before;
                Err(Fault::TooLarge)
            }
        }
    }

    /// RFC 8415 §16: what is discarded.
    fn check(&self, question: &Question) -> Result<(), Fault> {
        use MessageType as Kind;
        let (client, server) = (&question.client, &question.server);
        let (must_be_multicast, needs) = match question.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => (true, (true, Some(false))),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => {
                (false, (true, Some(true)))
            }
            Kind::InformationRequest => (true, (false, None)),
            _ => return Err(Fault::NotForServers),
        };
        if must_be_multicast && !question.multicast {
            return Err(Fault::NotForServers);
        }
        let (needs_client, needs_server) = needs;
        if needs_client && client.is_none() || needs_server.is_some_and(|it| it != server.is_some())
        {
            return Err(Fault::Identifiers);
        }
        if question.kind == Kind::InformationRequest && question.has_ia() {
            return Err(Fault::Identifiers);
        }
        match server {
            Some(server) if *server != self.duid => Err(Fault::OtherServer),
            _ => Ok(()),
        }
    }

    fn reply(
        &self,
        question: &Question,
        bound: &mut Option<Bound>,
        link: &Link,
    ) -> Result<Message, Fault> {
        use MessageType as Kind;
        let rapid = question.kind == Kind::Solicit && question.rapid_commit;
        let kind = match question.kind {
            Kind::Solicit if !rapid => Kind::Advertise,
            _ => Kind::Reply,
        };
        let mut reply = Message::new_with_id(kind, question.transaction);
        let options = reply.opts_mut();
        options.insert(DhcpOption::ServerId(self.duid.clone()));
        if let Some(client) = &question.client {
            options.insert(DhcpOption::ClientId(client.clone()));
        }
        // RFC 8415 §18.4: only who was told to may speak to us alone.
        if !question.multicast {
            options.insert(status(Status::UseMulticast));
            return Ok(reply);
        }
        match question.kind {
            Kind::Confirm => {
                options.insert(status(confirm(question, link)?));
                return Ok(reply);
            }
            Kind::Release | Kind::Decline => {
                options.insert(status(Status::Success));
                let give_back = question.kind == Kind::Release;
                for option in unbind(question, bound, give_back) {
                    options.insert(option);
                }
                return Ok(reply);
            }
            Kind::InformationRequest => {
                if question.wants(OptionCode::InformationRefreshTime) {
                    options.insert(DhcpOption::InformationRefreshTime(REFRESH));
                }
            }
            _ => {
                if kind == Kind::Advertise {
                    options.insert(DhcpOption::Preference(ONLY_ONE));
                }
                if rapid {
                    options.insert(DhcpOption::RapidCommit);
                }
                // The codec puts the last one of a kind first.
                for option in bind(question, bound, link, kind == Kind::Reply)
                    .into_iter()
                    .rev()
                {
                    options.insert(option);
                }
            }
        }
        for option in self.told(question) {
            options.insert(option);
        }
        Ok(reply)
    }

    /// What the client asked for besides a prefix, and we have.
    fn told(&self, question: &Question) -> Vec<DhcpOption> {
        let mut options = Vec::new();
        if question.wants(OptionCode::DomainNameServers) && !self.dns.is_empty() {
            options.push(DhcpOption::DomainNameServers(self.dns.clone()));
        }
        if question.wants(OptionCode::DomainSearchList)
            && let Some(domain) = &self.domain
        {
            let name = UnknownOption::new(OptionCode::DomainSearchList, domain.to_wire());
            options.push(DhcpOption::Unknown(name));
        }
        options
    }
}

/// Answers each IA of Solicit, Request, Renew and Rebind (RFC 8415 §18.3.1, §18.3.2, §18.3.4, §18.3.5); with `commit`
/// the call's prefix is delegated from now on.
///
/// Renew and Rebind of a binding that is not known make one, as §18.3.4 and §18.3.5 allow: the call was dialled anew, and
/// the client keeps its network up. What it had before is told to be over.
fn bind(
    question: &Question,
    bound: &mut Option<Bound>,
    link: &Link,
    commit: bool,
) -> Vec<DhcpOption> {
    let client = question.client.as_deref().unwrap_or_default();
    // The one that has it already, or the first: there is one prefix.
    let known = bound.as_ref().filter(|bound| bound.duid == client);
    let chosen = question
        .delegations
        .iter()
        .position(|ia| known.is_some_and(|bound| bound.iaid == ia.id))
        .unwrap_or(0);
    let mut options = Vec::new();
    for (index, ia) in question.delegations.iter().enumerate() {
        let mut answer = IAPD {
            id: ia.id,
            t1: 0,
            t2: 0,
            opts: Default::default(),
        };
        match link.delegated.filter(|_| index == chosen) {
            Some(prefix) => {
                (answer.t1, answer.t2) = (T1, T2);
                for other in ia.prefixes.iter().filter(|other| **other != prefix) {
                    // A hint in the client's first question (RFC 8415 §18.2.1), else a prefix that it uses.
                    if matches!(question.kind, MessageType::Renew | MessageType::Rebind) {
                        answer.opts.insert(prefix_option(*other, 0, 0));
                    }
                }
                // The codec puts the last one of a kind first, and there are clients that look at the first prefix only.
                answer.opts.insert(prefix_option(prefix, PREFERRED, VALID));
                if commit {
                    *bound = Some(Bound {
                        duid: client.to_vec(),
                        iaid: ia.id,
                    });
                }
            }
            None => answer.opts.insert(status(Status::NoPrefixAvail)),
        }
        options.push(DhcpOption::IAPD(answer));
    }
    // RFC 8415 §18.3.2: no addresses, in every IA that wants some.
    options.extend(without_addresses(question, Status::NoAddrsAvail));
    options
}

/// Answers each IA of Release and Decline (RFC 8415 §18.3.7, §18.3.8): those that are not known are named.
fn unbind(question: &Question, bound: &mut Option<Bound>, give_back: bool) -> Vec<DhcpOption> {
    let client = question.client.as_deref().unwrap_or_default();
    let mut options = Vec::new();
    for ia in &question.delegations {
        let known = bound
            .as_ref()
            .is_some_and(|bound| bound.duid == client && bound.iaid == ia.id);
        if !known {
            let mut answer = IAPD {
                id: ia.id,
                t1: 0,
                t2: 0,
                opts: Default::default(),
            };
            answer.opts.insert(status(Status::NoBinding));
            options.push(DhcpOption::IAPD(answer));
        } else if give_back {
            *bound = None;
        }
    }
    options.extend(without_addresses(question, Status::NoBinding));
    options
}

/// An answer with this status to every IA for addresses.
fn without_addresses(question: &Question, because: Status) -> Vec<DhcpOption> {
    let permanent = question.addresses.iter().map(|ia| {
        let mut opts = dhcproto::v6::DhcpOptions::new();
        opts.insert(status(because));
        DhcpOption::IANA(IANA {
            id: ia.id,
            t1: 0,
            t2: 0,
            opts,
        })
    });
    let temporary = question.temporary.iter().map(|id| {
        let mut opts = dhcproto::v6::DhcpOptions::new();
        opts.insert(status(because));
        DhcpOption::IATA(IATA { id: *id, opts })
    });
    permanent.chain(temporary).collect()
}

/// RFC 8415 §18.3.3: whether the client's addresses fit the link.
fn confirm(question: &Question, link: &Link) -> Result<Status, Fault> {
    let mut addresses = question
        .addresses
        .iter()
        .flat_map(|ia| &ia.addresses)
        .peekable();
    if addresses.peek().is_none() {
        return Err(Fault::NothingToConfirm);
    }
    let on_link =
        addresses.all(|address| link.prefix.is_some_and(|prefix| prefix.contains(address)));
    Ok(match on_link {
        true => Status::Success,
        false => Status::NotOnLink,
    })
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode {
        status,
        msg: String::new(),
    })
}

fn prefix_option(prefix: Ipv6Net, preferred_lifetime: u32, valid_lifetime: u32) -> DhcpOption {
    DhcpOption::IAPrefix(IAPrefix {
        preferred_lifetime,
        valid_lifetime,
        prefix_len: prefix.prefix_len(),
        prefix_ip: prefix.network(),
        opts: Default::default(),
    })
}

#[cfg(test)]
mod tests;
