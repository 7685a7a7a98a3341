//! What a scripted client says to the server's options, and what it makes of the answers to its own.

use turnpike_protocol::Time;
use turnpike_protocol::ppp::packet::{Packet, code};
use turnpike_protocol::wire::ppp::Protocol;

use super::super::Outcome;
use super::super::profile::{Method, Mppe, octets};
use super::super::secrets::{self, Way};
use super::{ADDRESS, Link, MPPE, Request, Terms, emit, parse, request};

impl Link<'_> {
    /// Answers a Configure-Request of the server.
    pub(super) fn judge(&mut self, protocol: Protocol, packet: &Packet<'_>, now: Time) -> Outcome {
        let request = parse(packet.data)?;
        let unwanted = protocol == Protocol::CCP && self.wish.mppe == Mppe::Clear;
        let rejected: Request = request
            .iter()
            .filter(|(kind, _)| match protocol {
                Protocol::LCP => {
                    self.profile.lcp.rejects.contains(kind) || ![1, 2, 3, 5, 7, 8].contains(kind)
                }
                Protocol::CCP => unwanted || *kind != MPPE,
                Protocol::IPCP => *kind != ADDRESS,
                _ => *kind != 1,
            })
            .cloned()
            .collect();
        let mut naks = Request::new();
        for (kind, data) in &request {
            naks.extend(self.better(protocol, *kind, data).map(|data| (*kind, data)));
        }
        let (code, data) = if !rejected.is_empty() {
            (code::CONFIGURE_REJECT, emit(&rejected))
        } else if !naks.is_empty() {
            (code::CONFIGURE_NAK, emit(&naks))
        } else {
            (code::CONFIGURE_ACK, packet.data.to_vec())
        };
        self.send(protocol, code, packet.identifier, &data);
        if code != code::CONFIGURE_ACK {
            return Ok(());
        }
        self.layers.entry(protocol.0).or_default().agreeing = true;
        match protocol {
            Protocol::LCP => {
                self.terms = Terms {
                    omit_address: request.iter().any(|(kind, _)| *kind == 8),
                    compress_protocol: request.iter().any(|(kind, _)| *kind == 7),
                    method: request
                        .iter()
                        .find(|(kind, _)| *kind == 3)
                        .and_then(|(_, data)| Method::ALL.into_iter().find(|m| m.option() == data)),
                };
            }
            Protocol::CCP => {
                if let Some((_, bits)) = request.first() {
                    let bits = u32::from_be_bytes(bits[..].try_into().map_err(|_| "MPPE bits")?);
                    self.up_bits = Some(bits);
                    self.up = Some(self.cipher(Way::Up, bits)?);
                }
            }
            _ => {}
        }
        self.opened(protocol, now);
        Ok(())
    }

    /// What we would rather have than this option of the server's.
    fn better(&mut self, protocol: Protocol, kind: u8, data: &[u8]) -> Option<Vec<u8>> {
        match (protocol, kind) {
            (Protocol::LCP, 3) => {
                let wanted = self.wish.method.option();
                (data != wanted).then(|| wanted.to_vec())
            }
            (Protocol::CCP, MPPE) => {
                if self.naks < self.profile.ccp.naks {
                    self.naks += 1;
                    return Some(octets(&self.profile.ccp.nak, self.magic));
                }
                let bits = u32::from_be_bytes(data.try_into().ok()?);
                let known = self.takes(bits);
                (!known).then(|| self.first_choice().to_be_bytes().to_vec())
            }
            _ => None,
        }
    }

    /// Whether this is one strength and mode that the client can be brought to.
    fn takes(&self, bits: u32) -> bool {
        let ccp = &self.profile.ccp;
        Mppe::ALL.into_iter().any(|mppe| match mppe {
            Mppe::Keys {
                bits: strength,
                stateless,
            } => {
                mppe.option() == bits
                    && ccp.strengths.contains(&strength)
                    && (stateless || ccp.stateful)
            }
            Mppe::Clear => false,
        })
    }

    /// The bits of its own first request.
    fn first_choice(&self) -> u32 {
        let request = request(&self.profile.ccp.request, self.magic);
        request
            .iter()
            .find(|(kind, _)| *kind == MPPE)
            .and_then(|(_, data)| data[..].try_into().ok())
            .map_or(0, u32::from_be_bytes)
    }

    fn cipher(&self, way: Way, bits: u32) -> Outcome<secrets::Mppe> {
        let keys = self.keys.as_ref().ok_or("MPPE without keys")?;
        let terms = Mppe::ALL.into_iter().find(|mppe| mppe.option() == bits);
        match terms {
            Some(Mppe::Keys {
                bits: strength,
                stateless,
            }) if self.takes(bits) => Ok(secrets::Mppe::new(keys, way, strength, stateless)),
            _ => Err(format!("MPPE bits {bits:08x} were agreed")),
        }
    }

    /// Our request was answered.
    pub(super) fn answered(
        &mut self,
        protocol: Protocol,
        packet: &Packet<'_>,
        now: Time,
    ) -> Outcome {
        let takes: Vec<bool> = parse(packet.data)?
            .iter()
            .map(|(_, data)| data[..].try_into().ok().map(u32::from_be_bytes))
            .map(|bits| bits.is_some_and(|bits| self.takes(bits)))
            .collect();
        let layer = self.layers.entry(protocol.0).or_default();
        match packet.code {
            code::CONFIGURE_ACK => {
                if packet.data != emit(&layer.request) {
                    return Err(format!("{protocol:?}: an Ack of something else"));
                }
                layer.agreed = true;
                let bits = layer.request.iter().find(|(kind, _)| *kind == MPPE);
                if protocol == Protocol::CCP
                    && let Some((_, bits)) = bits
                {
                    let bits = u32::from_be_bytes(bits[..].try_into().map_err(|_| "MPPE bits")?);
                    if bits != 0 {
                        self.down_bits = Some(bits);
                        self.down = Some(self.cipher(Way::Down, bits)?);
                    }
                }
                self.opened(protocol, now);
                return Ok(());
            }
            code::CONFIGURE_REJECT => {
                let rejected = parse(packet.data)?;
                let before = layer.request.len();
                layer.request.retain(|option| !rejected.contains(option));
                if before - layer.request.len() != rejected.len() {
                    return Err(format!("{protocol:?}: a Reject of what was not asked for"));
                }
            }
            _ => {
                for ((kind, data), takes) in parse(packet.data)?.into_iter().zip(takes) {
                    let old = layer.request.iter_mut().find(|(asked, _)| *asked == kind);
                    let Some((_, old)) = old else {
                        continue;
                    };
                    if *old == data {
                        return Err(format!("{protocol:?}: a Nak of {kind} with what was asked"));
                    }
                    // A client that cannot have what it is told repeats what it wants.
                    if protocol != Protocol::CCP || takes {
                        *old = data;
                    }
                }
            }
        }
        self.ask(protocol, now);
        Ok(())
    }
}
