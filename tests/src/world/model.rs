//! What must hold, without a byte of PPTP: who is online with which address, and which packets may come out where.

use core::net::Ipv4Addr;
use std::collections::HashMap;

use turnpike_dataplane::api::CallCounters;
use turnpike_protocol::wire::ipv4;

use super::Tally;

/// Somewhere on the internet.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// The server's inner address.
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

/// What begins every packet's payload.
const MAGIC: [u8; 4] = *b"wrld";

/// UDP header, magic, login, number, check.
const OVERHEAD: usize = 8 + 4 + 4 + 4 + 8;

/// One way through a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the network.
    Up,
    /// From the network to the client.
    Down,
}

/// What went one way.
#[derive(Clone, Default, Debug)]
struct Flow {
    sent: u32,
    sent_octets: u64,
    came: u64,
    came_octets: u64,
    last: Option<u32>,
}

/// A login: an address, from when it is given until both sides have forgotten it.
#[derive(Clone, Debug)]
struct Login {
    address: Ipv4Addr,
    up: Flow,
    down: Flow,
}

/// Who is online, and what they may see.
#[derive(Default)]
pub struct Model {
    logins: Vec<Login>,
    online: HashMap<Ipv4Addr, u32>,
    pub tally: Tally,
}

impl Model {
    /// An address is given to somebody who had none.
    pub fn login(&mut self, address: Ipv4Addr) -> Result<(), String> {
        let number = u32::try_from(self.logins.len()).unwrap_or(u32::MAX);
        if let Some(holder) = self.online.insert(address, number) {
            return Err(format!(
                "{address} is given to login {number} while login {holder} has it"
            ));
        }
        self.logins.push(Login {
            address,
            up: Flow::default(),
            down: Flow::default(),
        });
        self.tally.count("logins");
        Ok(())
    }

    /// The server has forgotten the call that had this address, and says what it moved.
    pub fn logout(&mut self, address: Ipv4Addr, said: &CallCounters) -> Result<(), String> {
        let number = self
            .online
            .remove(&address)
            .ok_or_else(|| format!("{address} is given back, and nobody has it"))?;
        let login = &self.logins[number as usize];
        let (up, down) = (&login.up, &login.down);
        if (said.received_packets, said.received_octets) != (up.came, up.came_octets) {
            return Err(format!(
                "login {number} ({address}): the server says {} packets and {} octets came from the client; {} and {} \
                 came out",
                said.received_packets, said.received_octets, up.came, up.came_octets
            ));
        }
        let possible = down.came..=u64::from(down.sent);
        let octets = down.came_octets..=down.sent_octets;
        if !possible.contains(&said.sent_packets) || !octets.contains(&said.sent_octets) {
            return Err(format!(
                "login {number} ({address}): the server says it sent {} packets and {} octets; {} and {} were given to \
                 it, {} and {} came out",
                said.sent_packets,
                said.sent_octets,
                down.sent,
                down.sent_octets,
                down.came,
                down.came_octets
            ));
        }
        self.tally.count("logouts");
        Ok(())
    }

    /// Who is online.
    pub fn online(&self) -> usize {
        self.online.len()
    }

    /// Whether this address is somebody's.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.online.contains_key(&address)
    }

    /// The next packet for or from the holder of `address`; `None` when nobody has it.
    pub fn packet(&mut self, address: Ipv4Addr, way: Way, filler: usize) -> Option<Vec<u8>> {
        let number = *self.online.get(&address)?;
        let login = &mut self.logins[number as usize];
        let flow = match way {
            Way::Up => &mut login.up,
            Way::Down => &mut login.down,
        };
        let packet = compose(address, way, number, flow.sent, filler);
        flow.sent += 1;
        flow.sent_octets += packet.len() as u64;
        Some(packet)
    }

    /// A packet came out of a host port: at the server on its way up, at the client on its way down.
    pub fn came(&mut self, packet: &[u8], way: Way) -> Result<(), String> {
        let ip = ipv4::Packet::new_checked(packet).map_err(|error| error.to_string())?;
        if !ip.verify_checksum() {
            return Err("a packet came out with a wrong IP checksum".to_owned());
        }
        let address = match way {
            Way::Up => ip.source(),
            Way::Down => ip.destination(),
        };
        if way == Way::Up && ip.protocol() == ipv4::ICMP && ip.source() == INNER {
            // The server's own word to somebody who sent a packet to nobody.
            self.tally.count("ICMP errors from the server");
            return Ok(());
        }
        let Some((number, count)) = read(ip.payload()) else {
            // Only what was changed on its way may be unreadable.
            self.tally.count("packets that came out changed");
            return if self.tally.of("frames changed") > 0 {
                if let (Some(login), Way::Up) = (self.holder(address), way) {
                    login.up.came += 1;
                    login.up.came_octets += packet.len() as u64;
                }
                Ok(())
            } else {
                Err(format!("{way:?}: a packet of {address} came out changed"))
            };
        };
        let Some(login) = self.logins.get_mut(number as usize) else {
            return Err(format!(
                "a packet of login {number} came out, who never was"
            ));
        };
        // On its way down a packet may still come out at a client that the server has just forgotten.
        let gone = way == Way::Up && self.online.get(&address) != Some(&number);
        if login.address != address || gone {
            return Err(format!(
                "{way:?}: a packet of login {number} ({}) came out for {address}, which login {:?} has",
                login.address,
                self.online.get(&address)
            ));
        }
        let flow = match way {
            Way::Up => &mut login.up,
            Way::Down => &mut login.down,
        };
        if count >= flow.sent {
            return Err(format!("packet {count} came out and was never sent"));
        }
        if flow.last.is_some_and(|last| count <= last) {
            return Err(format!(
                "{way:?}: packet {count} of login {number} came out after packet {:?}",
                flow.last
            ));
        }
        flow.last = Some(count);
        flow.came += 1;
        flow.came_octets += packet.len() as u64;
        self.tally.count(match way {
            Way::Up => "packets up",
            Way::Down => "packets down",
        });
        Ok(())
    }

    fn holder(&mut self, address: Ipv4Addr) -> Option<&mut Login> {
        let number = *self.online.get(&address)?;
        self.logins.get_mut(number as usize)
    }

    /// How many packets of the holder of `address` were sent and came, up and down.
    pub fn figures(&self, address: Ipv4Addr) -> Option<[u64; 4]> {
        let login = &self.logins[*self.online.get(&address)? as usize];
        Some([
            login.up.sent.into(),
            login.up.came,
            login.down.sent.into(),
            login.down.came,
        ])
    }
}

fn compose(address: Ipv4Addr, way: Way, login: u32, count: u32, filler: usize) -> Vec<u8> {
    let (source, destination) = match way {
        Way::Up => (address, REMOTE),
        Way::Down => (REMOTE, address),
    };
    let len = OVERHEAD + filler;
    let mut payload = Vec::with_capacity(len);
    // Ports, length, and no checksum.
    payload.extend_from_slice(&[0x1b, 0x58, 0x1b, 0x58]);
    payload.extend_from_slice(&(len as u16).to_be_bytes());
    payload.extend_from_slice(&[0, 0]);
    payload.extend_from_slice(&MAGIC);
    payload.extend_from_slice(&login.to_be_bytes());
    payload.extend_from_slice(&count.to_be_bytes());
    payload.extend((0..filler).map(|at| (at as u8) ^ (count as u8)));
    let check = check(&payload);
    payload.extend_from_slice(&check.to_be_bytes());
    let mut packet = ipv4::Header {
        source,
        destination,
        protocol: ipv4::UDP,
        ttl: 64,
        traffic_class: 0,
        ident: count as u16,
        dont_fragment: true,
        payload_len: len as u16,
    }
    .to_bytes()
    .to_vec();
    packet.extend(payload);
    packet
}

/// Login and number; `None` when an octet is not what was sent.
fn read(payload: &[u8]) -> Option<(u32, u32)> {
    let (body, sum) = payload.split_last_chunk::<8>()?;
    if payload.len() < OVERHEAD || u64::from_be_bytes(*sum) != check(body) || body[8..12] != MAGIC {
        return None;
    }
    let number = |at: usize| {
        body.get(at..at + 4)
            .and_then(|octets| octets.try_into().ok())
            .map(u32::from_be_bytes)
    };
    Some((number(12)?, number(16)?))
}

/// FNV-1a: a change shows.
fn check(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}
