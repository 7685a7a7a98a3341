//! DHCPINFORM inside a call (RFC 2131 §4.3.5): a client that has its address from IPCP asks for the rest.
//!
//! Windows asks so after every dial-up and takes the routes that it is told, so that only what belongs to the network
//! behind goes through the tunnel, without a setting on the client. The answer holds what the configuration has and the
//! client asked for, and never an address or a lease: those are IPCP's. It comes from our inner address, which is also
//! the next hop of all routes: clients without a gateway on the link replace it by the link itself.

mod domain;

use core::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::Encodable;
use dhcproto::v4::borrowed::Message as Received;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode, UnknownOption};
use ipnet::Ipv4Net;
use turnpike_protocol::wire::{ipv4, udp};

pub use domain::Domain;

/// UDP port of servers (RFC 2131 §4.1).
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients (RFC 2131 §4.1).
pub const CLIENT_PORT: u16 = 68;

/// Octets of a message before its options, magic cookie included (RFC 2131 §2).
const FIXED_LEN: usize = 240;
/// The first octets of the options field (RFC 2131 §3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// The longest message that every client takes, in octets with its IPv4 header (RFC 2131 §2, RFC 2132 §9.10).
const EVERYBODY_TAKES: u16 = 576;
/// Octets of the IPv4 and the UDP header.
const HEADERS_LEN: usize = ipv4::HEADER_LEN + udp::HEADER_LEN;
/// The shortest message that relays and old clients take (RFC 1542 §2.1), in octets.
const MIN_LEN: usize = 300;

/// Microsoft's number for what RFC 3442 numbers 121; the same octets. Windows XP reads this one only, macOS the other.
const MICROSOFT_ROUTES: u8 = 249;

/// What clients are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inform {
    /// Our inner address.
    pub server: Ipv4Addr,
    /// DNS servers.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers.
    pub nbns: [Option<Ipv4Addr>; 2],
    /// The domain that names without one belong to.
    pub domain: Option<Domain>,
    /// What goes through the tunnel.
    pub routes: Vec<Ipv4Net>,
}

/// Why a DHCP message got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("DHCP message that cannot be read")]
    Malformed,
    /// It asks for an address, or gives one back: inside a call IPCP gives addresses.
    #[error("DHCP message that is no DHCPINFORM")]
    NotInform,
    /// It speaks of another address than the call's.
    #[error("DHCPINFORM about another address than the call's")]
    OtherAddress,
    /// It is for another server, or comes from a relay agent.
    #[error("DHCPINFORM for another server")]
    OtherServer,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Malformed,
        Self::NotInform,
        Self::OtherAddress,
        Self::OtherServer,
    ];

    /// The name that it is counted under.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "dhcp_malformed",
            Self::NotInform => "dhcp_not_inform",
            Self::OtherAddress => "dhcp_other_address",
            Self::OtherServer => "dhcp_other_server",
        }
    }
}

impl Inform {
    /// The answer to a packet for UDP port 67 that the client with this inner address sent inside its call: a whole
    /// IPv4 packet of at most `mtu` octets.
    ///
    /// # Errors
    /// Why there is none; nothing is sent then.
    pub fn answer(&self, packet: &[u8], client: Ipv4Addr, mtu: u16) -> Result<Vec<u8>, Fault> {
        let datagram = udp::Datagram::in_ipv4(packet).map_err(|_| Fault::Malformed)?;
        let (request, asked) = read(datagram.payload)?;
        if asked.kind != Some(MessageType::Inform) {
            return Err(Fault::NotInform);
        }
        let relayed = !request.giaddr().is_unspecified();
        if relayed || asked.server.is_some_and(|server| server != self.server) {
            return Err(Fault::OtherServer);
        }
        // RFC 2131 §4.4.3: the client puts its address there. One that leaves it out is known all the same.
        if !request.ciaddr().is_unspecified() && request.ciaddr() != client {
            return Err(Fault::OtherAddress);
        }
        let message = self.reply(&request, &asked, mtu)?;
        // RFC 2131 §4.3.5: unicast to the client's address, whatever the broadcast flag says.
        let from = SocketAddrV4::new(self.server, SERVER_PORT);
        let to = SocketAddrV4::new(client, CLIENT_PORT);
        udp::ipv4_packet(from, to, &message).ok_or(Fault::Malformed)
    }

    fn reply(&self, request: &Received<'_>, asked: &Asked, mtu: u16) -> Result<Vec<u8>, Fault> {
        let mut reply = Message::new_with_id(
            request.xid(),
            request.ciaddr(),
            // RFC 2131 §4.3.5: no 'yiaddr' and no lease time.
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            request.chaddr(),
        );
        reply.set_opcode(Opcode::BootReply);
        reply.set_htype(request.htype());
        reply.set_flags(request.flags());
        let options = reply.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Ack));
        options.insert(DhcpOption::ServerIdentifier(self.server));
        let mut room = asked.room(mtu).saturating_sub(FIXED_LEN + 3 + 6 + 1);
        for option in self.options(asked.list.as_deref()) {
            let len = option
                .to_vec()
                .map_err(|_| Fault::Malformed)
                .map(|octets| octets.len())?;
            if len <= room {
                room -= len;
                options.insert(option);
            }
        }
        let mut octets = reply.to_vec().map_err(|_| Fault::Malformed)?;
        octets.resize(octets.len().max(MIN_LEN), 0);
        Ok(octets)
    }

    /// What the client asked for and we have, the most important first. A client without a list gets everything.
    fn options(&self, list: Option<&[OptionCode]>) -> Vec<DhcpOption> {
        let wanted = |code: OptionCode| list.is_none_or(|list| list.contains(&code));
        let given = |servers: [Option<Ipv4Addr>; 2]| {
            let servers: Vec<_> = servers.into_iter().flatten().collect();
            (!servers.is_empty()).then_some(servers)
        };
        let mut options = Vec::new();
        if wanted(OptionCode::DomainNameServer)
            && let Some(servers) = given(self.dns)
        {
            options.push(DhcpOption::DomainNameServer(servers));
        }
        if wanted(OptionCode::DomainName)
            && let Some(domain) = &self.domain
        {
            options.push(DhcpOption::DomainName(domain.to_string()));
        }
        let microsoft = OptionCode::Unknown(MICROSOFT_ROUTES);
        if !self.routes.is_empty() {
            // Who asks for both understands both, and one of them is enough where there is room for one.
            if wanted(microsoft) {
                let routes = routes(&self.routes, self.server);
                options.push(DhcpOption::Unknown(UnknownOption::new(microsoft, routes)));
            }
            if wanted(OptionCode::ClasslessStaticRoute) {
                let hops = self.routes.iter().map(|route| (*route, self.server));
                options.push(DhcpOption::ClasslessStaticRoute(hops.collect()));
            }
        }
        if wanted(OptionCode::NetBiosNameServers)
            && let Some(servers) = given(self.nbns)
        {
            options.push(DhcpOption::NetBiosNameServers(servers));
        }
        options
    }

    /// Octets that the longest answer needs with one copy of the routes; what is configured must fit
    /// [`Inform::ROOM`].
    pub fn octets(&self) -> usize {
        let domain = self.domain.as_ref().map_or(0, |domain| 2 + domain.len());
        let servers = |servers: [Option<Ipv4Addr>; 2]| match servers.iter().flatten().count() {
            0 => 0,
            n => 2 + 4 * n,
        };
        let routes = match self.routes.is_empty() {
            true => 0,
            false => 2 + routes(&self.routes, self.server).len(),
        };
        domain + servers(self.dns) + servers(self.nbns) + routes
    }

    /// Octets of options that every client has room for.
    pub const ROOM: usize = EVERYBODY_TAKES as usize - HEADERS_LEN - FIXED_LEN - 3 - 6 - 1;

    /// The most octets that routes may take: one option's. RFC 3396 splits longer ones, which Windows does not read.
    pub const ROUTES: usize = u8::MAX as usize;
}

/// Octets of routes by one router as RFC 3442 writes them: length of the prefix, its octets that are not all zero by
/// their length, the router.
pub fn routes(routes: &[Ipv4Net], router: Ipv4Addr) -> Vec<u8> {
    let mut octets = Vec::new();
    for route in routes {
        let len = route.prefix_len();
        octets.push(len);
        octets.extend_from_slice(&route.network().octets()[..usize::from(len.div_ceil(8))]);
        octets.extend_from_slice(&router.octets());
    }
    octets
}

/// The options of a question that matter.
#[derive(Default)]
struct Asked {
    kind: Option<MessageType>,
    server: Option<Ipv4Addr>,
    list: Option<Vec<OptionCode>>,
    max_size: Option<u16>,
}

impl Asked {
    /// Octets that the answer may have: what the client says that it takes (RFC 2132 §9.10), and no more than goes
    /// through the call whole.
    fn room(&self, mtu: u16) -> usize {
        let takes = self.max_size.unwrap_or(0).max(EVERYBODY_TAKES);
        usize::from(takes.min(mtu)).saturating_sub(HEADERS_LEN)
    }
}

/// Reads a DHCP message of a client. Options that do not matter are not looked into: there are many, and not all that
/// clients put there is sound.
fn read(octets: &[u8]) -> Result<(Received<'_>, Asked), Fault> {
    let message = Received::new(octets).map_err(|_| Fault::Malformed)?;
    // `chaddr` has room for 16 octets (RFC 2131 §2), whatever the length says.
    let sound = octets[FIXED_LEN - MAGIC.len()..FIXED_LEN] == MAGIC && message.hlen() <= 16;
    if !sound || message.opcode() != Opcode::BootRequest {
        return Err(Fault::Malformed);
    }
    let mut asked = Asked::default();
    for option in message.opts() {
        if !matches!(
            option.code(),
            OptionCode::MessageType
                | OptionCode::ServerIdentifier
                | OptionCode::ParameterRequestList
                | OptionCode::MaxMessageSize
        ) {
            continue;
        }
        match option.into_option().map_err(|_| Fault::Malformed)? {
            DhcpOption::MessageType(kind) => asked.kind = Some(kind),
            DhcpOption::ServerIdentifier(server) => asked.server = Some(server),
            DhcpOption::ParameterRequestList(list) => asked.list = Some(list),
            DhcpOption::MaxMessageSize(size) => asked.max_size = Some(size),
            _ => {}
        }
    }
    Ok((message, asked))
}

#[cfg(test)]
mod tests;
