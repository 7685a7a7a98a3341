//! DHCPINFORM inside a call, as Windows asks after a dial-up: which networks are behind the tunnel.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;
use std::io;

use anyhow::{Context as _, bail, ensure};
use dhcproto::Encodable;
use dhcproto::v4::borrowed;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use ipnet::Ipv4Net;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedSender;
use turnpike_protocol::wire::udp;

use super::client;

/// How long each question waits for its answer, one after the other.
const PATIENCE: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Microsoft's number for [`OptionCode::ClasslessStaticRoute`].
const MICROSOFT_ROUTES: u8 = 249;

/// What Windows asks for, in its order.
const WANTED: [u8; 13] = [
    1,
    3,
    6,
    15,
    31,
    33,
    43,
    44,
    46,
    47,
    121,
    MICROSOFT_ROUTES,
    252,
];

/// A network behind the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Route {
    /// The network.
    pub prefix: Ipv4Net,
    /// Its router as the server named it. On a link without link-layer addresses it means the link.
    pub router: Ipv4Addr,
}

/// What the server told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Told {
    /// Who told.
    pub server: Ipv4Addr,
    /// The domain that names without one belong to.
    pub domain: Option<String>,
    /// DNS servers.
    pub dns: Vec<Ipv4Addr>,
    /// NetBIOS name servers.
    pub nbns: Vec<Ipv4Addr>,
    /// The option that held the routes.
    pub routes_option: Option<u8>,
    /// Networks behind the tunnel.
    pub routes: Vec<Route>,
}

/// The packet that asks: from the call's address to everybody.
pub fn question(address: Ipv4Addr, transaction: u32) -> anyhow::Result<Vec<u8>> {
    // Windows makes up a hardware address for its dial-up links.
    let hardware = [&[0x53, 0x45][..], &address.octets()].concat();
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(transaction, address, none, none, none, &hardware);
    message.set_opcode(Opcode::BootRequest);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(MessageType::Inform));
    options.insert(DhcpOption::ClassIdentifier(b"MSFT 5.0".to_vec()));
    let wanted = WANTED.map(OptionCode::from).to_vec();
    options.insert(DhcpOption::ParameterRequestList(wanted));
    let from = SocketAddrV4::new(address, CLIENT_PORT);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);
    udp::ipv4_packet(from, to, &message.to_vec()?).context("a question too long")
}

/// Reads the answer to the question of this transaction.
pub fn answer(octets: &[u8], transaction: u32) -> anyhow::Result<Told> {
    let message = borrowed::Message::new(octets)?;
    ensure!(message.opcode() == Opcode::BootReply, "not a reply");
    ensure!(
        message.xid() == transaction,
        "the reply to another question"
    );
    ensure!(
        message.yiaddr().is_unspecified(),
        "a reply that gives an address"
    );
    let (mut acknowledged, mut server) = (false, None);
    let mut told = Told {
        server: Ipv4Addr::UNSPECIFIED,
        domain: None,
        dns: Vec::new(),
        nbns: Vec::new(),
        routes_option: None,
        routes: Vec::new(),
    };
    for option in message.opts() {
        let code = u8::from(option.code());
        match option.code() {
            // Windows takes the standard's when both are there.
            OptionCode::ClasslessStaticRoute | OptionCode::Unknown(MICROSOFT_ROUTES)
                if told.routes_option != Some(OptionCode::ClasslessStaticRoute.into()) =>
            {
                told.routes = routes(option.data())?;
                told.routes_option = Some(code);
            }
            OptionCode::AddressLeaseTime => bail!("a reply with a lease"),
            OptionCode::MessageType
            | OptionCode::ServerIdentifier
            | OptionCode::DomainName
            | OptionCode::DomainNameServer
            | OptionCode::NetBiosNameServers => match option.into_option()? {
                DhcpOption::MessageType(kind) => acknowledged = kind == MessageType::Ack,
                DhcpOption::ServerIdentifier(address) => server = Some(address),
                DhcpOption::DomainName(domain) => told.domain = Some(domain),
                DhcpOption::DomainNameServer(servers) => told.dns = servers,
                DhcpOption::NetBiosNameServers(servers) => told.nbns = servers,
                _ => {}
            },
            _ => {}
        }
    }
    ensure!(acknowledged, "not an acknowledgement");
    told.server = server.context("a reply that does not say who replies")?;
    Ok(told)
}

/// RFC 3442: length of the prefix, its octets, the router.
fn routes(mut octets: &[u8]) -> anyhow::Result<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&len, rest)) = octets.split_first() {
        let significant = usize::from(len.div_ceil(8));
        ensure!(
            len <= 32 && rest.len() >= significant + 4,
            "a route cut short"
        );
        let mut network = [0; 4];
        network[..significant].copy_from_slice(&rest[..significant]);
        let mut router = [0; 4];
        router.copy_from_slice(&rest[significant..significant + 4]);
        routes.push(Route {
            prefix: Ipv4Net::new(network.into(), len)?.trunc(),
            router: router.into(),
        });
        octets = &rest[significant + 4..];
    }
    Ok(routes)
}

/// Asks until there is an answer: [`client::Message::Ask`] for each question, in the end [`client::Message::Told`].
pub(super) async fn run(id: u16, address: Ipv4Addr, messages: UnboundedSender<client::Message>) {
    let told = converse(id, address, &messages).await;
    // The loop is gone when nobody cares any more.
    let _ = messages.send(client::Message::Told(id, told));
}

async fn converse(
    id: u16,
    address: Ipv4Addr,
    messages: &UnboundedSender<client::Message>,
) -> anyhow::Result<Told> {
    let socket = UdpSocket::bind(SocketAddrV4::new(address, CLIENT_PORT))
        .await
        .with_context(|| format!("cannot listen on {address}, UDP port {CLIENT_PORT}"))?;
    let mut transaction = [0; 4];
    getrandom::fill(&mut transaction).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let transaction = u32::from_ne_bytes(transaction);
    let question = question(address, transaction)?;
    let mut buffer = vec![0; 1500];
    for wait in PATIENCE {
        if messages
            .send(client::Message::Ask(id, question.clone()))
            .is_err()
        {
            bail!("hung up");
        }
        let heard = tokio::time::timeout(wait, async {
            loop {
                let (len, _) = socket.recv_from(&mut buffer).await?;
                match answer(&buffer[..len], transaction) {
                    Ok(told) => return io::Result::Ok(told),
                    Err(error) => tracing::debug!("DHCP: {error}"),
                }
            }
        });
        match heard.await {
            Ok(told) => return Ok(told?),
            Err(_) => continue,
        }
    }
    bail!("the server does not answer DHCPINFORM")
}

#[cfg(test)]
mod tests {
    use turnpike_protocol::wire::ipv4;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 9);

    /// A reply of this transaction with these options.
    fn reply(options: &[&[u8]]) -> Vec<u8> {
        let mut octets = vec![0; 240];
        octets[..3].copy_from_slice(&[2, 8, 6]);
        octets[7] = 5;
        octets[236..].copy_from_slice(&[99, 130, 83, 99]);
        octets.extend(options.concat());
        octets.push(255);
        octets
    }

    const ACK: &[u8] = &[53, 1, 5, 54, 4, 10, 20, 0, 1];

    #[test]
    fn asks_as_windows_does() {
        let packet = question(ADDRESS, 0x0102_0304).unwrap();
        let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert_eq!(
            (ip.source(), ip.destination()),
            (ADDRESS, Ipv4Addr::BROADCAST)
        );
        let datagram = udp::Datagram::in_ipv4(&packet).unwrap();
        assert_eq!((datagram.source, datagram.destination), (68, 67));
        let message = datagram.payload;
        assert_eq!(message[..8], [1, 1, 6, 0, 1, 2, 3, 4]);
        assert_eq!(message[12..16], ADDRESS.octets());
        assert!(message[240..].windows(3).any(|option| option == [53, 1, 8]));
    }

    #[test]
    fn reads_what_it_is_told() {
        let octets = reply(&[
            ACK,
            b"\x0f\x06office",
            &[6, 4, 9, 9, 9, 9],
            &[44, 4, 10, 20, 0, 2],
            &[249, 6, 8, 10, 10, 20, 0, 1],
        ]);
        let told = answer(&octets, 5).unwrap();
        let routes = |told: &Told| -> Vec<_> {
            told.routes
                .iter()
                .map(|route| route.prefix.to_string())
                .collect()
        };
        assert_eq!(told.server, Ipv4Addr::new(10, 20, 0, 1));
        assert_eq!(told.domain.as_deref(), Some("office"));
        assert_eq!(told.dns, [Ipv4Addr::new(9, 9, 9, 9)]);
        assert_eq!(told.nbns, [Ipv4Addr::new(10, 20, 0, 2)]);
        assert_eq!(
            (told.routes_option, &*routes(&told)),
            (Some(249), &["10.0.0.0/8".to_owned()][..])
        );
        assert_eq!(told.routes[0].router, told.server);
        // The standard's option first, wherever it stands.
        let both = reply(&[
            ACK,
            &[121, 7, 17, 10, 1, 128, 0, 0, 0, 0][..9],
            &[249, 5, 0, 1, 1, 1, 1],
        ]);
        assert!(answer(&both, 5).is_err(), "cut short");
        let both = reply(&[
            ACK,
            &[121, 8, 17, 10, 1, 128, 0, 0, 0, 0],
            &[249, 5, 0, 1, 1, 1, 1],
        ]);
        let told = answer(&both, 5).unwrap();
        assert_eq!(
            (told.routes_option, &*routes(&told)),
            (Some(121), &["10.1.128.0/17".to_owned()][..])
        );
    }

    #[test]
    fn believes_only_answers_to_its_question() {
        assert!(answer(&reply(&[ACK]), 5).is_ok());
        assert!(answer(&reply(&[ACK]), 6).is_err());
        assert!(answer(&reply(&[&[53, 1, 6, 54, 4, 1, 2, 3, 4]]), 5).is_err());
        assert!(answer(&reply(&[&[53, 1, 5]]), 5).is_err());
        assert!(answer(&reply(&[ACK, &[51, 4, 0, 0, 0, 9]]), 5).is_err());
        let mut question = reply(&[ACK]);
        question[0] = 1;
        assert!(answer(&question, 5).is_err());
        let mut address = reply(&[ACK]);
        address[19] = 9;
        assert!(answer(&address, 5).is_err());
        assert!(answer(&reply(&[ACK])[..239], 5).is_err());
    }
}
