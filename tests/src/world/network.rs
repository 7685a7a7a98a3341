//! The network: GRE frames that are lost, doubled, overtaken and changed, and TCP, which is slow and cuts as it likes.

use core::time::Duration;

use turnpike_protocol::Time;
use turnpike_protocol::wire::{ethernet, gre, ipv4, ppp};

use super::story::Weather;
use super::{Chance, Tally};

/// What a frame carries, as far as anybody on the way can see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An acknowledgement alone.
    Ack,
    /// Data that MPPE hides.
    Encrypted,
    /// Data that anybody can read.
    Clear,
    /// A CCP Configure-Ack.
    CcpAck,
    /// Another control frame.
    Control,
}

/// Looks into a frame from a worker's access port.
pub fn kind(frame: &[u8]) -> Result<Kind, String> {
    let (_, payload) = payload(frame)?;
    let Some(payload) = payload else {
        return Ok(Kind::Ack);
    };
    let header = ppp::Frame::parse(payload).map_err(|error| error.to_string())?;
    Ok(match header.protocol {
        ppp::Protocol::COMPRESSED => Kind::Encrypted,
        ppp::Protocol::CCP if payload.get(header.header_len) == Some(&2) => Kind::CcpAck,
        protocol if protocol.is_data() => Kind::Clear,
        _ => Kind::Control,
    })
}

/// The PPP frame that a frame from a worker's access port carries, if any, where its packet begins, and its protocol.
pub fn carried(frame: &[u8]) -> Option<(&[u8], usize, ppp::Protocol)> {
    let (_, payload) = payload(frame).ok()?;
    let payload = payload?;
    let header = ppp::Frame::parse(payload).ok()?;
    Some((payload, header.header_len, header.protocol))
}

/// A control frame in words.
pub fn describe(frame: &[u8]) -> Option<String> {
    let (payload, at, protocol) = carried(frame)?;
    let [code, identifier, _, _, options @ ..] = &payload[at..] else {
        return None;
    };
    Some(format!(
        "{protocol} code {code} identifier {identifier} {options:02x?}"
    ))
}

/// Where the GRE payload begins, and the payload if there is one.
fn payload(frame: &[u8]) -> Result<(usize, Option<&[u8]>), String> {
    let outer = ethernet::Packet::new_checked(frame).map_err(|error| error.to_string())?;
    if outer.ethertype() != ethernet::IPV4 {
        return Err(format!("a worker sent EtherType {:04x}", outer.ethertype()));
    }
    let ip = ipv4::Packet::new_checked(outer.payload()).map_err(|error| error.to_string())?;
    if !ip.verify_checksum() {
        return Err("a worker sent a wrong IP checksum".to_owned());
    }
    if ip.protocol() != ipv4::GRE {
        return Err(format!("a worker sent IP protocol {}", ip.protocol()));
    }
    let packet = gre::Packet::parse(ip.payload())
        .map_err(|fault| format!("a worker sent bad GRE: {fault:?}"))?;
    let at = ethernet::HEADER_LEN + ip.header_len() + packet.header_len;
    let range = at..at + packet.payload_len;
    Ok((at, packet.seq.map(|_| &frame[range])))
}

/// What the network is like now.
#[derive(Clone, Copy, Debug)]
pub struct Sky<'a> {
    pub weather: &'a Weather,
    /// Whether it misbehaves.
    pub bad: bool,
    pub now: Time,
}

/// One direction between the access ports.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// When the last frame that keeps its place arrives.
    last: Time,
}

impl Wire {
    /// When copies of `frame` arrive, each as it arrives; none when it is lost.
    pub fn carry(
        &mut self,
        frame: Vec<u8>,
        kind: Kind,
        sky: Sky<'_>,
        chance: &mut Chance,
        tally: &mut Tally,
    ) -> Vec<(Time, Vec<u8>)> {
        let Sky { weather, bad, now } = sky;
        let delay = weather.delay;
        let in_order = |wire: &mut Self, after: Duration| {
            let at = (now + after).max(wire.last + Duration::from_nanos(1));
            wire.last = at;
            at
        };
        if !bad {
            return vec![(in_order(self, delay), frame)];
        }
        let out = weather
            .outage
            .is_some_and(|(from, to)| (Time::ZERO + from..Time::ZERO + to).contains(&now));
        if out {
            tally.count("frames lost in an outage");
        } else if kind == Kind::CcpAck && chance.percent(weather.lost_acks) {
            tally.count("CCP Acks lost");
        } else if chance.percent(weather.loss) {
            tally.count(if kind == Kind::CcpAck {
                "CCP Acks lost"
            } else {
                "frames lost"
            });
        } else {
            let mut arrivals = Vec::with_capacity(2);
            let late = delay + chance.up_to(delay * 2 + Duration::from_millis(20));
            if kind == Kind::CcpAck && chance.percent(weather.doubled_acks) {
                tally.count("CCP Acks doubled");
                arrivals.push((now + late, frame.clone()));
            } else if chance.percent(weather.duplicate) {
                tally.count(if kind == Kind::CcpAck {
                    "CCP Acks doubled"
                } else {
                    "frames doubled"
                });
                arrivals.push((now + late, frame.clone()));
            }
            if chance.percent(weather.reorder) {
                tally.count("frames held back");
                arrivals.push((now + late, frame));
                return arrivals;
            }
            let jitter = chance.up_to(Duration::from_millis(2));
            let mut frame = frame;
            if chance.percent(weather.corrupt) && corrupt(&mut frame, kind, chance) {
                tally.count("frames changed");
            }
            arrivals.push((in_order(self, delay + jitter), frame));
            return arrivals;
        }
        Vec::new()
    }
}

/// Changes an octet: of the outer header, which its checksum shows, or of what MPPE hides. (Nothing protects the rest:
/// a control frame that says something else is another frame, and a GRE number that jumps ahead ends a call.)
fn corrupt(frame: &mut [u8], kind: Kind, chance: &mut Chance) -> bool {
    let bit = 1 << chance.below(8);
    let hidden = match payload(frame) {
        Ok((at, Some(payload))) if kind == Kind::Encrypted => {
            let header = ppp::Frame::parse(payload).map_or(2, |header| header.header_len);
            // Behind the count.
            Some((at + header + 2, at + payload.len()))
        }
        _ => None,
    };
    let at = match hidden {
        Some((from, to)) if from < to && chance.percent(50) => {
            from + chance.below((to - from) as u32) as usize
        }
        _ => ethernet::HEADER_LEN + 8 + chance.below(12) as usize,
    };
    match frame.get_mut(at) {
        Some(octet) => {
            *octet ^= bit;
            true
        }
        None => false,
    }
}

/// One direction of a control connection: everything arrives, in order, late, and cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    last: Time,
}

impl Stream {
    /// When which piece arrives.
    pub fn carry(
        &mut self,
        octets: &[u8],
        delay: Duration,
        now: Time,
        chance: &mut Chance,
    ) -> Vec<(Time, Vec<u8>)> {
        let mut pieces = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            let len = if chance.percent(70) {
                rest.len()
            } else {
                1 + chance.below(rest.len() as u32) as usize
            };
            let (piece, after) = rest.split_at(len);
            rest = after;
            pieces.push((self.arrival(delay, now, chance), piece.to_vec()));
        }
        pieces
    }

    /// When something sent now arrives.
    pub fn arrival(&mut self, delay: Duration, now: Time, chance: &mut Chance) -> Time {
        let jitter = chance.up_to(Duration::from_millis(5));
        self.last = (now + delay + jitter).max(self.last + Duration::from_nanos(1));
        self.last
    }
}
