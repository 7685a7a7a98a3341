//! How a scripted client logs in.

use turnpike_protocol::Time;
use turnpike_protocol::ppp::packet::Packet;
use turnpike_protocol::wire::ppp::Protocol;

use super::super::Outcome;
use super::super::profile::Method;
use super::super::secrets::{self, Keys};
use super::Link;

impl Link<'_> {
    pub(super) fn login_protocol(&self) -> Protocol {
        match self.terms.method {
            Some(Method::Pap) => Protocol::PAP,
            _ => Protocol::CHAP,
        }
    }

    fn name(&self) -> Vec<u8> {
        match self.profile.login.domain.as_str() {
            "" => self.user.as_bytes().to_vec(),
            domain => format!("{domain}\\{}", self.user).into_bytes(),
        }
    }

    /// Sends a PAP Request or a CHAP Response, and goes on sending it until there is a verdict.
    fn log_in(&mut self, code: u8, identifier: u8, data: &[u8], now: Time) {
        let length = u16::try_from(data.len() + 4).expect("a short packet");
        let mut packet = vec![code, identifier];
        packet.extend(length.to_be_bytes());
        packet.extend(data);
        let protocol = self.login_protocol();
        self.push(protocol, &packet);
        self.login = Some((identifier, packet));
        self.login_due = Some(now + core::time::Duration::from_secs(self.profile.lcp.restart));
    }

    pub(super) fn ask_by_pap(&mut self, now: Time) {
        let name = self.name();
        let mut data = vec![u8::try_from(name.len()).expect("a short name")];
        data.extend(name);
        data.push(u8::try_from(self.password.len()).expect("a short password"));
        data.extend(self.password.as_bytes());
        let identifier = self.next_identifier(Protocol::PAP);
        self.log_in(1, identifier, &data, now);
    }

    pub(super) fn hear_login(
        &mut self,
        protocol: Protocol,
        packet: &Packet<'_>,
        now: Time,
    ) -> Outcome {
        if protocol != self.login_protocol() || self.terms.method.is_none() {
            return Err(format!("{protocol:?} was not agreed"));
        }
        let asked = self.login.as_ref().map(|(identifier, _)| *identifier);
        let known = asked == Some(packet.identifier) || self.logged_in;
        match (protocol, packet.code) {
            (Protocol::CHAP, 1) => return self.respond(packet, now),
            (_, 2..=4) if !known => return Err("a verdict on nothing".to_owned()),
            (Protocol::PAP, 2) => {}
            (Protocol::CHAP, 3) => {
                if let Some(expected) = &self.expected
                    && packet.data != expected.as_bytes()
                {
                    let text = String::from_utf8_lossy(packet.data);
                    return Err(format!("Success says {text:?}, not {expected:?}"));
                }
            }
            (Protocol::PAP, 3) | (Protocol::CHAP, 4) => {
                self.failure = Some(String::from_utf8_lossy(packet.data).into_owned());
                self.login_due = None;
                return Ok(());
            }
            (_, code) => return Err(format!("{protocol:?}: code {code}")),
        }
        self.begin_network_phase(now);
        Ok(())
    }

    fn respond(&mut self, packet: &Packet<'_>, now: Time) -> Outcome {
        let (length, rest) = packet.data.split_first().ok_or("an empty Challenge")?;
        let value = rest.get(..usize::from(*length)).ok_or("half a Challenge")?;
        let nt_hash = secrets::nt_hash(&self.password);
        let mut data = Vec::new();
        match self.terms.method {
            Some(Method::ChapMd5) => {
                data.extend(secrets::chap_md5(packet.identifier, &self.password, value));
            }
            Some(Method::MsChapV1) => {
                let challenge = value.try_into().map_err(|_| "not eight octets")?;
                let lm_hash = secrets::lm_hash(&self.password);
                data.extend(secrets::challenge_response(&challenge, &lm_hash));
                data.extend(secrets::challenge_response(&challenge, &nt_hash));
                data.push(1);
                self.keys = Some(Keys::MsChapV1 {
                    nt_hash,
                    lm_hash,
                    challenge,
                });
            }
            _ => {
                let challenge = value.try_into().map_err(|_| "not sixteen octets")?;
                let peer = *b"the peer's part.";
                let hash = secrets::challenge_hash(&peer, &challenge, self.user.as_bytes());
                let nt_response = secrets::challenge_response(&hash, &nt_hash);
                data.extend(peer);
                data.extend([0; 8]);
                data.extend(nt_response);
                data.push(0);
                let expected = secrets::authenticator_response(&nt_hash, &nt_response, &hash);
                self.expected = Some(expected);
                self.keys = Some(Keys::MsChapV2 {
                    nt_hash,
                    nt_response,
                });
            }
        }
        data.insert(0, u8::try_from(data.len()).expect("a short value"));
        data.extend(self.name());
        self.log_in(2, packet.identifier, &data, now);
        Ok(())
    }
}
