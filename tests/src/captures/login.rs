//! Who a client said that it was, and by what it proved that.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use turnpike_protocol::ppp::{AuthProtocol, Credentials};
use turnpike_protocol::wire::ppp;

use super::{Call, Side};

/// An exchange of PAP or CHAP that came to an end.
pub struct Login {
    /// What the client gave, with what it was an answer to.
    pub credentials: Credentials,
    /// The message of the Success or Ack, or of the Failure or Nak, that answered it.
    pub answer: std::result::Result<Vec<u8>, Vec<u8>>,
}

/// Splits a field with its length in front: value and name of CHAP (RFC 1994 §4.1), all fields of PAP (RFC 1334 §2.2).
fn field(data: &[u8]) -> Result<(&[u8], &[u8])> {
    data.split_first()
        .and_then(|(size, rest)| rest.split_at_checked(usize::from(*size)))
        .context("field of an authentication packet")
}

impl Call {
    /// The exchanges of this call in order, by whichever method.
    pub fn logins(&self) -> Result<Vec<Login>> {
        match self.authentication()? {
            Some(AuthProtocol::Pap) => self.pap(),
            Some(
                method @ (AuthProtocol::ChapMd5 | AuthProtocol::MsChapV1 | AuthProtocol::MsChapV2),
            ) => self.chap(method),
            _ => Ok(Vec::new()),
        }
    }

    fn pap(&self) -> Result<Vec<Login>> {
        let mut logins = Vec::new();
        let mut requests = BTreeMap::new();
        for (side, packet) in self.control(ppp::Protocol::PAP)? {
            match (side, packet.code) {
                (Side::Client, 1) => {
                    let (name, rest) = field(packet.data)?;
                    let (password, _) = field(rest)?;
                    requests.insert(packet.identifier, (name, password));
                }
                (Side::Server, 2 | 3) => {
                    let Some((name, password)) = requests.remove(&packet.identifier) else {
                        continue;
                    };
                    let message = field(packet.data)?.0.to_vec();
                    logins.push(Login {
                        credentials: Credentials::Pap {
                            name: name.to_vec(),
                            password: password.to_vec().into(),
                        },
                        answer: answer(packet.code == 2, message),
                    });
                }
                other => bail!("PAP {other:?}"),
            }
        }
        Ok(logins)
    }

    fn chap(&self, method: AuthProtocol) -> Result<Vec<Login>> {
        let mut logins = Vec::new();
        let mut challenges = BTreeMap::new();
        let mut responses = BTreeMap::new();
        for (side, packet) in self.control(ppp::Protocol::CHAP)? {
            let identifier = packet.identifier;
            match (side, packet.code) {
                (Side::Server, 1) => {
                    challenges.insert(identifier, field(packet.data)?.0);
                }
                (Side::Client, 2) => {
                    responses.insert(identifier, field(packet.data)?);
                }
                (Side::Server, 3 | 4) => {
                    // An answer is repeated when its first copy was lost.
                    let Some((value, name)) = responses.remove(&identifier) else {
                        continue;
                    };
                    let challenge = *challenges.get(&identifier).context("no challenge")?;
                    logins.push(Login {
                        credentials: credentials(method, identifier, challenge, value, name)?,
                        answer: answer(packet.code == 3, packet.data.to_vec()),
                    });
                }
                other => bail!("CHAP {other:?}"),
            }
        }
        Ok(logins)
    }
}

fn answer(good: bool, message: Vec<u8>) -> std::result::Result<Vec<u8>, Vec<u8>> {
    if good { Ok(message) } else { Err(message) }
}

fn credentials(
    method: AuthProtocol,
    identifier: u8,
    challenge: &[u8],
    value: &[u8],
    name: &[u8],
) -> Result<Credentials> {
    let name = name.to_vec();
    if method == AuthProtocol::ChapMd5 {
        return Ok(Credentials::ChapMd5 {
            identifier,
            challenge: challenge.to_vec(),
            response: value.try_into()?,
            name,
        });
    }
    // RFC 2433 §6: LM response, NT response, flag. RFC 2759 §4: peer challenge, 8 reserved octets, response, flags.
    ensure!(value.len() == 49, "response of {} octets", value.len());
    Ok(match method {
        AuthProtocol::MsChapV1 => Credentials::MsChapV1 {
            identifier,
            challenge: challenge.try_into()?,
            lm_response: value[..24].try_into()?,
            nt_response: value[24..48].try_into()?,
            name,
        },
        AuthProtocol::MsChapV2 => Credentials::MsChapV2 {
            identifier,
            challenge: challenge.try_into()?,
            peer_challenge: value[..16].try_into()?,
            nt_response: value[24..48].try_into()?,
            name,
        },
        other => bail!("{other} is not CHAP"),
    })
}
