//! The Internet Protocol Control Protocol (RFC 1332) with the name servers of RFC 1877.

use core::net::Ipv4Addr;

use super::auth::Grant;
use super::end::IpcpFailure;
use super::options::{Judgement, Options};
use super::packet::{ConfigOption, OptionBuffer, OptionList, Packet, code};
use crate::wire::ppp::Protocol;

/// IP-Address (RFC 1332 §3.3).
const ADDRESS: u8 = 3;

/// Primary DNS, primary NBNS, secondary DNS, secondary NBNS (RFC 1877 §1.1 to §1.4).
const NAME_SERVERS: [u8; 4] = [129, 130, 131, 132];

/// Naks of our own address before we stop naming it.
const MAX_NAKS: u8 = 3;

/// Addresses that a client may ask for instead of its own before it is told ours like everybody else.
const MAX_CHOICES: u8 = 8;

/// What a client asks for, or has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// The client's.
    pub address: Ipv4Addr,
    /// The server's; 0.0.0.0 when it did not say.
    pub server_address: Ipv4Addr,
    /// DNS servers.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers.
    pub nbns: [Option<Ipv4Addr>; 2],
}

/// IPCP of one call, one variant per role.
#[derive(Clone, Debug)]
pub struct Ipcp {
    side: Side,
    failure: Option<IpcpFailure>,
}

#[derive(Clone, Debug)]
enum Side {
    Server {
        gives: Addresses,
        /// Whether our address is in our request.
        names_itself: bool,
        naks: u8,
        /// How often the client's choice may still be put to the one who decides.
        choices: u8,
        /// What was asked for last, and not given.
        declined: Option<Ipv4Addr>,
    },
    Client {
        asks: Ipv4Addr,
        /// By index of [`NAME_SERVERS`]; `None`: not asked for.
        asks_servers: [Option<Ipv4Addr>; 4],
        server_address: Ipv4Addr,
    },
}

impl Ipcp {
    /// The server's end: gives what was granted. With `choice` the client may ask for something else.
    pub fn server(grant: &Grant, choice: bool) -> Self {
        let gives = Addresses {
            address: grant.address,
            server_address: grant.server_address,
            dns: grant.dns,
            nbns: grant.nbns,
        };
        Self {
            side: Side::Server {
                gives,
                names_itself: true,
                naks: 0,
                choices: if choice { MAX_CHOICES } else { 0 },
                declined: None,
            },
            failure: None,
        }
    }

    /// The client's end: asks for `address` (0.0.0.0: any) and, perhaps, for two DNS servers.
    pub fn client(address: Ipv4Addr, ask_dns: bool) -> Self {
        let dns = ask_dns.then_some(Ipv4Addr::UNSPECIFIED);
        Self {
            side: Side::Client {
                asks: address,
                asks_servers: [dns, None, dns, None],
                server_address: Ipv4Addr::UNSPECIFIED,
            },
            failure: None,
        }
    }

    /// The addresses: on a server those granted; on a client those agreed so far.
    pub fn addresses(&self) -> Addresses {
        match &self.side {
            Side::Server { gives, .. } => *gives,
            Side::Client {
                asks,
                asks_servers,
                server_address,
            } => {
                let [dns, nbns, dns_2, nbns_2] =
                    asks_servers.map(|server| server.filter(|server| !server.is_unspecified()));
                Addresses {
                    address: *asks,
                    server_address: *server_address,
                    dns: [dns, dns_2],
                    nbns: [nbns, nbns_2],
                }
            }
        }
    }

    /// The address that a client asks for in this packet, if that is to be decided before the packet is judged.
    pub fn question(&mut self, packet: &Packet<'_>) -> Option<Ipv4Addr> {
        let Side::Server {
            gives,
            choices,
            declined,
            ..
        } = &mut self.side
        else {
            return None;
        };
        if packet.code != code::CONFIGURE_REQUEST || *choices == 0 {
            return None;
        }
        let options = OptionList::parse(packet.data).ok()?;
        let mut options = options.iter();
        let asked = options.find(|option| option.kind == ADDRESS)?.u32()?;
        let asked = Ipv4Addr::from_bits(asked);
        if asked.is_unspecified() || asked == gives.address || Some(asked) == *declined {
            return None;
        }
        *choices -= 1;
        Some(asked)
    }

    /// The answer to [`Ipcp::question`].
    pub fn chosen(&mut self, asked: Ipv4Addr, granted: bool) {
        if let Side::Server {
            gives, declined, ..
        } = &mut self.side
        {
            if granted {
                gives.address = asked;
            }
            *declined = (!granted).then_some(asked);
        }
    }

    /// Why IPCP cannot succeed, if so.
    pub fn failure(&self) -> Option<IpcpFailure> {
        self.failure
    }
}

impl Addresses {
    /// The name server that an option of RFC 1877 means.
    fn name_server(&self, kind: u8) -> Option<Ipv4Addr> {
        let [dns, dns_2] = self.dns;
        let [nbns, nbns_2] = self.nbns;
        NAME_SERVERS
            .iter()
            .zip([dns, nbns, dns_2, nbns_2])
            .find(|(known, _)| **known == kind)
            .and_then(|(_, server)| server)
    }
}

impl Options for Ipcp {
    const PROTOCOL: Protocol = Protocol::IPCP;

    fn request(&mut self) -> OptionBuffer {
        let mut request = OptionBuffer::default();
        match &self.side {
            Side::Server {
                gives,
                names_itself,
                ..
            } => {
                if *names_itself {
                    request.push(ADDRESS, &gives.server_address.octets());
                }
            }
            Side::Client {
                asks, asks_servers, ..
            } => {
                request.push(ADDRESS, &asks.octets());
                for (kind, server) in NAME_SERVERS.iter().zip(asks_servers) {
                    if let Some(server) = server {
                        request.push(*kind, &server.octets());
                    }
                }
            }
        }
        request
    }

    fn judge(&mut self, option: ConfigOption<'_>) -> Judgement {
        let Some(asked) = option.u32().map(Ipv4Addr::from_bits) else {
            // Option 2, compression, has no use here: VJ breaks on the first packet that is lost or overtaken.
            return Judgement::Reject;
        };
        let proper = match &self.side {
            Side::Server { gives, .. } if option.kind == ADDRESS => Some(gives.address),
            // One that is not set is rejected: 0.0.0.0 in a Nak confuses some clients.
            Side::Server { gives, .. } => gives.name_server(option.kind),
            Side::Client { .. } if option.kind == ADDRESS && !asked.is_unspecified() => Some(asked),
            // A server that wants an address from us, or name servers, asks in vain.
            Side::Client { .. } => None,
        };
        match proper {
            Some(proper) if proper == asked => Judgement::Ack,
            Some(proper) => Judgement::Nak(proper.octets().to_vec()),
            None => Judgement::Reject,
        }
    }

    fn absent(&mut self, request: OptionList<'_>) -> OptionBuffer {
        let mut absent = OptionBuffer::default();
        // RFC 1332 §3.3: a server may name the address to a client that does not ask.
        if let Side::Server { gives, .. } = &self.side
            && !request.has(ADDRESS)
        {
            absent.push(ADDRESS, &gives.address.octets());
        }
        absent
    }

    fn acknowledging(&mut self, request: OptionList<'_>) {
        if let Side::Client { server_address, .. } = &mut self.side {
            *server_address = request
                .iter()
                .find(|option| option.kind == ADDRESS)
                .and_then(|option| option.u32())
                .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from_bits);
        }
    }

    fn acknowledged(&mut self) {
        if let Side::Client { asks, .. } = &self.side
            && asks.is_unspecified()
        {
            self.failure = Some(IpcpFailure::NoAddress);
        }
    }

    fn naked(&mut self, option: ConfigOption<'_>) {
        let Some(given) = option.u32().map(Ipv4Addr::from_bits) else {
            return;
        };
        match &mut self.side {
            Side::Server {
                names_itself, naks, ..
            } => {
                // Some routers have other ideas of our address: insist for a while, then leave it out.
                *naks = naks.saturating_add(1);
                *names_itself = *naks < MAX_NAKS;
            }
            Side::Client {
                asks, asks_servers, ..
            } => {
                if option.kind == ADDRESS {
                    *asks = given;
                }
                for (kind, server) in NAME_SERVERS.iter().zip(asks_servers) {
                    if *kind == option.kind && server.is_some() {
                        *server = Some(given);
                    }
                }
            }
        }
    }

    fn rejected(&mut self, option: ConfigOption<'_>) {
        match &mut self.side {
            Side::Server { names_itself, .. } => *names_itself = false,
            Side::Client { asks_servers, .. } => {
                if option.kind == ADDRESS {
                    self.failure = Some(IpcpFailure::NoAddress);
                }
                for (kind, server) in NAME_SERVERS.iter().zip(asks_servers) {
                    if *kind == option.kind {
                        *server = None;
                    }
                }
            }
        }
    }

    fn diverged(&mut self) {
        self.failure = Some(IpcpFailure::NotConverging);
    }

    fn has_failed(&self) -> bool {
        self.failure.is_some()
    }
}
