//! What a scripted client sends besides what its profile says: packets, and what tests make up.

use core::net::Ipv4Addr;
use core::time::Duration;

use turnpike_protocol::wire::{ipv4, ppp};

use super::super::Outcome;
use super::{Lost, PATIENCE, Player, REMOTE};

impl Player<'_> {
    /// Sends this PPP frame, whatever it is.
    ///
    /// # Errors
    /// Says what the server answered that it may not.
    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        self.gre(Some(frame));
        self.settle()
    }

    /// A PPP frame with this inside MPPE, by the next key.
    pub fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        self.link.sealed(plain)
    }

    /// Begins LCP, or what comes after it, anew, and waits until data can flow again.
    ///
    /// # Errors
    /// Says what the server did that it may not do, or that it cannot.
    pub fn renegotiate(&mut self, protocol: ppp::Protocol) -> Outcome {
        self.link.renegotiate(protocol, self.server.now());
        let limit = self.server.now() + PATIENCE;
        self.until(limit, |player| player.link.is_up() || player.is_over())?;
        if self.link.is_up() {
            Ok(())
        } else {
            Err(format!("{protocol:?} does not come up again"))
        }
    }

    /// Logs in as somebody else.
    pub fn pretend(&mut self, user: &str, password: &str) {
        self.link.user = user.to_owned();
        self.link.password = password.to_owned();
    }

    /// What the server said in a Failure.
    pub fn failure(&self) -> Option<&str> {
        self.link.failure.as_deref()
    }

    /// The inner address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.link.address().map(Ipv4Addr::from)
    }

    /// So many packets each way, all of which arrive as they are.
    ///
    /// # Errors
    /// Says which do not.
    pub fn move_data(&mut self, packets: u16) -> Outcome {
        let address = self.link.address().map(Ipv4Addr::from).ok_or("nowhere")?;
        self.upward.clear();
        self.downward.clear();
        self.moving = true;
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for n in 0..packets {
            let packet = udp(address, REMOTE, n);
            self.link.carry(&packet);
            up.push(packet);
            let packet = udp(REMOTE, address, n);
            self.server.from_linux(&packet);
            down.push(packet);
            self.until(self.server.now() + Duration::from_millis(7), |_| false)?;
        }
        self.until(self.server.now() + Duration::from_secs(1), |_| false)?;
        self.moving = false;
        for (what, sent, came) in [("up", up, &self.upward), ("down", down, &self.downward)] {
            // A packet that was lost is not sent again.
            let missing = sent.len().saturating_sub(came.len());
            let whole = match self.lost {
                Lost::Nothing => sent == *came,
                _ => missing <= 1 && came.iter().all(|packet| sent.contains(packet)),
            };
            if !whole {
                let right = sent.iter().zip(came).filter(|(a, b)| a == b).count();
                return Err(format!(
                    "of {} packets {what} {} came, {right} of them right; drops: {:?}",
                    sent.len(),
                    came.len(),
                    self.server.drops()
                ));
            }
        }
        Ok(())
    }
}

/// A packet that knows its number.
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, number: u16) -> Vec<u8> {
    let text = format!("packet {number:05} of those that must arrive as they are");
    let length = 8 + text.len() as u16;
    let mut packet = ipv4::Header {
        source,
        destination,
        protocol: ipv4::UDP,
        ttl: 64,
        traffic_class: 0,
        ident: number,
        dont_fragment: true,
        payload_len: length,
    }
    .to_bytes()
    .to_vec();
    packet.extend([0x1b, 0x58, 0x1b, 0x59]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(text.as_bytes());
    packet
}
