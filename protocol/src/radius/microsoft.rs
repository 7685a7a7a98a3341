//! What MS-CHAP and MPPE put into attributes (RFC 2548), and the other methods beside them.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::hidden::{HiddenFault, reveal_password, reveal_salted};
use super::{Attribute, Builder, Packet, Secret, integer};
use crate::Role;
use crate::mppe::{self, Direction, Policy, Strength, Strengths};
use crate::mschap::MasterKeys;
use crate::ppp::{ChangePassword, ChangeResponse, Credentials};

/// Octets of an encrypted password in one MS-CHAP-NT-Enc-PW (RFC 2548 §2.1.8): a value less code, identifier and number.
const PIECE: usize = 243;

/// Adds what a client gave to prove who it is, User-Name first: the octets as the client sent them, since MS-CHAPv2 hashes
/// them.
#[must_use]
pub fn add_credentials<'a>(builder: Builder<'a>, credentials: &Credentials) -> Builder<'a> {
    let builder = builder.octets(Attribute::USER_NAME, credentials.name());
    match credentials {
        Credentials::Pap { password, .. } => builder.hidden(Attribute::USER_PASSWORD, password),
        Credentials::ChapMd5 {
            identifier,
            challenge,
            response,
            ..
        } => builder
            .octets(
                Attribute::CHAP_PASSWORD,
                &[&[*identifier], &response[..]].concat(),
            )
            .octets(Attribute::CHAP_CHALLENGE, challenge),
        Credentials::MsChapV1 {
            identifier,
            challenge,
            lm_response,
            nt_response,
            ..
        } => {
            // Flags 1: the NT response counts.
            let value = [&[*identifier, 1], &lm_response[..], nt_response].concat();
            builder
                .octets(Attribute::MS_CHAP_CHALLENGE, challenge)
                .octets(Attribute::MS_CHAP_RESPONSE, &value)
        }
        Credentials::MsChapV2 {
            identifier,
            challenge,
            peer_challenge,
            nt_response,
            ..
        } => {
            let value = [&[*identifier, 0], &peer_challenge[..], &[0; 8], nt_response].concat();
            builder
                .octets(Attribute::MS_CHAP_CHALLENGE, challenge)
                .octets(Attribute::MS_CHAP2_RESPONSE, &value)
        }
        Credentials::ChangePassword(change) => add_change(builder, change),
    }
}

fn add_change<'a>(mut builder: Builder<'a>, change: &ChangePassword) -> Builder<'a> {
    let identifier = change.identifier;
    for (number, piece) in (1u16..).zip(change.encrypted_password.chunks(PIECE)) {
        let value = [&[6, identifier], &number.to_be_bytes()[..], piece].concat();
        builder.push(Attribute::MS_CHAP_NT_ENC_PW, &value);
    }
    let hash = &change.encrypted_hash[..];
    match &change.response {
        ChangeResponse::MsChapV1 {
            challenge,
            nt_response,
        } => {
            let (no_hash, no_response) = ([0; 16], [0; 24]);
            // Flags 1: the NT response counts, and no LM hash is there.
            let value = [
                &[6, identifier],
                hash,
                &no_hash,
                &no_response,
                nt_response,
                &[0, 1],
            ];
            builder
                .octets(Attribute::MS_CHAP_CHALLENGE, challenge)
                .octets(Attribute::MS_CHAP_CPW_2, &value.concat())
        }
        ChangeResponse::MsChapV2 {
            challenge,
            peer_challenge,
            nt_response,
        } => {
            let value = [
                &[7, identifier],
                hash,
                peer_challenge,
                &[0; 8],
                nt_response,
                &[0, 0],
            ];
            builder
                .octets(Attribute::MS_CHAP_CHALLENGE, challenge)
                .octets(Attribute::MS_CHAP2_CPW, &value.concat())
        }
    }
}

/// The server's side of [`add_credentials`]; `None` when the request holds nothing of the kind, or a change of a password,
/// which only clients make here.
pub fn credentials(request: &Packet<'_>, secret: &Secret) -> Option<Credentials> {
    let name = request.find(Attribute::USER_NAME)?.to_vec();
    if let Some(hidden) = request.find(Attribute::USER_PASSWORD) {
        let mut password = reveal_password(secret, request.authenticator(), hidden).ok()?;
        let length = password.iter().rposition(|octet| *octet != 0);
        password.truncate(length.map_or(0, |last| last + 1));
        return Some(Credentials::Pap { name, password });
    }
    if let Some(value) = request.find(Attribute::CHAP_PASSWORD) {
        let (&identifier, response) = value.split_first()?;
        // RFC 2865 §5.40: the challenge may be the request's authenticator.
        let challenge = request.find(Attribute::CHAP_CHALLENGE);
        return Some(Credentials::ChapMd5 {
            identifier,
            challenge: challenge.unwrap_or(request.authenticator()).to_vec(),
            response: response.try_into().ok()?,
            name,
        });
    }
    let challenge = request.find(Attribute::MS_CHAP_CHALLENGE)?;
    if let Some(value) = request.find(Attribute::MS_CHAP_RESPONSE) {
        let value: &[u8; 50] = value.try_into().ok()?;
        return Some(Credentials::MsChapV1 {
            identifier: value[0],
            challenge: challenge.try_into().ok()?,
            lm_response: part(value, 2),
            nt_response: part(value, 26),
            name,
        });
    }
    let value: &[u8; 50] = request
        .find(Attribute::MS_CHAP2_RESPONSE)?
        .try_into()
        .ok()?;
    Some(Credentials::MsChapV2 {
        identifier: value[0],
        challenge: challenge.try_into().ok()?,
        peer_challenge: part(value, 2),
        nt_response: part(value, 26),
        name,
    })
}

/// `N` octets from `at` on, which are there.
fn part<const N: usize>(value: &[u8; 50], at: usize) -> [u8; N] {
    let mut octets = [0; N];
    octets.copy_from_slice(&value[at..at + N]);
    octets
}

/// The server's proof for an MS-CHAPv2 client, to be passed on as it is: `S=` and 40 hex digits (RFC 2548 §2.3.3). The
/// identifier in front is not compared: some servers get it wrong, and CHAP has its own. What may follow the digits is left out:
/// some clients take it for an error.
pub fn success(answer: &Packet<'_>) -> Option<[u8; 42]> {
    let value = answer.find(Attribute::MS_CHAP2_SUCCESS)?;
    let text: &[u8; 42] = value.get(1..)?.first_chunk()?;
    let digits = text.strip_prefix(b"S=")?;
    digits
        .iter()
        .all(u8::is_ascii_hexdigit)
        .then(|| text.to_ascii_uppercase().try_into().ok())
        .flatten()
}

/// What MS-CHAP-Error says in an Access-Reject (RFC 2548 §2.1.5), without the identifier in front: `E=691 R=1 ...`.
pub fn error_text<'a>(answer: &Packet<'a>) -> Option<&'a [u8]> {
    answer.find(Attribute::MS_CHAP_ERROR)?.get(1..)
}

/// What a server says of encryption; obeyed only where it also gave keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Encryption {
    /// MS-MPPE-Encryption-Policy (RFC 2548 §2.4.4): 1 allows it, 2 requires it.
    pub policy: Option<Policy>,
    /// MS-MPPE-Encryption-Types (RFC 2548 §2.4.5): which key lengths.
    pub strengths: Option<Strengths>,
}

/// Bits of MS-MPPE-Encryption-Types; 56 bits have one in practice.
const TYPES: [(u32, Strength); 3] = [
    (0x02, Strength::Bits40),
    (0x04, Strength::Bits128),
    (0x08, Strength::Bits56),
];

/// Reads what an Access-Accept says of encryption. Types without any bit that means something say nothing.
pub fn encryption(answer: &Packet<'_>) -> Encryption {
    let number = |attribute| answer.find(attribute).and_then(integer);
    let types = number(Attribute::MS_MPPE_ENCRYPTION_TYPES).unwrap_or_default();
    let strengths: Strengths = TYPES
        .into_iter()
        .filter(|(bit, _)| types & bit != 0)
        .map(|(_, strength)| strength)
        .collect();
    Encryption {
        policy: match number(Attribute::MS_MPPE_ENCRYPTION_POLICY) {
            Some(1) => Some(Policy::Allow),
            Some(2) => Some(Policy::Require),
            _ => None,
        },
        strengths: Some(strengths).filter(|strengths| !strengths.is_empty()),
    }
}

/// Why an Access-Accept gives no keys for MPPE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum KeyFault {
    /// There is none of these attributes.
    #[error("{0} is missing")]
    Missing(Attribute),
    /// It is there, but cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(Attribute, HiddenFault),
    /// It holds fewer than 16 octets.
    #[error("{0} is shorter than 16 octets")]
    Short(Attribute),
    /// It is all zeros, which is the key of nobody.
    #[error("{0} is all zeros")]
    Zeros(Attribute),
}

impl KeyFault {
    /// Whether the server sent no keys at all, which an operator may have wanted.
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

/// The keys of an MS-CHAPv2 login (RFC 2548 §2.4.2, §2.4.3), or of EAP. Of longer keys the front counts. `request` is the
/// authenticator of the request that was accepted.
///
/// # Errors
/// Says why there are none. Keys that stand in each other's place cannot be told by looking at them: see [`compare`].
pub fn asymmetric_keys(
    answer: &Packet<'_>,
    request: &[u8; 16],
    secret: &Secret,
) -> Result<MasterKeys, KeyFault> {
    let key = |attribute| {
        let value = answer.find(attribute).ok_or(KeyFault::Missing(attribute))?;
        let key = reveal_salted(secret, request, value)
            .map_err(|fault| KeyFault::Unreadable(attribute, fault))?;
        let key: &[u8; 16] = key.first_chunk().ok_or(KeyFault::Short(attribute))?;
        if bool::from(key.ct_eq(&[0; 16])) {
            return Err(KeyFault::Zeros(attribute));
        }
        Ok(Zeroizing::new(*key))
    };
    let send = key(Attribute::MS_MPPE_SEND_KEY)?;
    let receive = key(Attribute::MS_MPPE_RECV_KEY)?;
    Ok(MasterKeys::new(*send, *receive))
}

/// The keys of an MS-CHAPv1 login (RFC 2548 §2.4.1) to this challenge. The second of its keys is the hash of the NT hash: the
/// text of the RFC says otherwise, but all servers send that, as RFC 3079 §2.3 needs it.
///
/// # Errors
/// Says why there are none.
pub fn symmetric_keys(
    answer: &Packet<'_>,
    request: &[u8; 16],
    secret: &Secret,
    challenge: &[u8; 8],
) -> Result<MasterKeys, KeyFault> {
    const KEYS: Attribute = Attribute::MS_CHAP_MPPE_KEYS;
    let hidden = answer.find(KEYS).ok_or(KeyFault::Missing(KEYS))?;
    let clear = reveal_password(secret, request, hidden)
        .map_err(|fault| KeyFault::Unreadable(KEYS, fault))?;
    let (Some(lm), Some(nt)) = (
        clear.get(..8).and_then(<[u8]>::first_chunk::<8>),
        clear.get(8..).and_then(<[u8]>::first_chunk::<16>),
    ) else {
        return Err(KeyFault::Short(KEYS));
    };
    // Eight zeros fill it up; anything else came from another secret.
    if clear[24..].iter().any(|octet| *octet != 0) {
        return Err(KeyFault::Unreadable(KEYS, HiddenFault::Garbled));
    }
    if bool::from(nt.ct_eq(&[0; 16])) {
        return Err(KeyFault::Zeros(KEYS));
    }
    // Passwords without an LM hash.
    let short = Some(*lm).filter(|lm| !bool::from(lm.ct_eq(&[0; 8])));
    let long = mppe::keys::mschap_v1_start_key(nt, challenge);
    Ok(MasterKeys::symmetric(short, *long))
}

/// Adds an MS-CHAPv2 client's keys, as a server does; the salts are two that follow each other.
#[must_use]
pub fn add_asymmetric_keys<'a>(builder: Builder<'a>, keys: &MasterKeys, salt: u16) -> Builder<'a> {
    let key = |direction| keys.start_key(Role::Server, direction, Strength::Bits128);
    let (send, receive) = (key(Direction::Transmit), key(Direction::Receive));
    let octets = |key: &Option<mppe::StartKey>| {
        Zeroizing::new(key.as_ref().map_or(Vec::new(), |key| key.bytes().to_vec()))
    };
    builder
        .salted(Attribute::MS_MPPE_SEND_KEY, salt, &octets(&send))
        .salted(
            Attribute::MS_MPPE_RECV_KEY,
            salt.wrapping_add(1),
            &octets(&receive),
        )
}

/// Adds an MS-CHAPv1 client's keys, as a server does: the beginning of the LM hash, and the hash of the NT hash.
#[must_use]
pub fn add_symmetric_keys<'a>(
    builder: Builder<'a>,
    lm: Option<&[u8; 8]>,
    hashed: &[u8; 16],
) -> Builder<'a> {
    let mut clear = Zeroizing::new([0; 32]);
    clear[..8].copy_from_slice(lm.unwrap_or(&[0; 8]));
    clear[8..24].copy_from_slice(hashed);
    builder.hidden(Attribute::MS_CHAP_MPPE_KEYS, &clear[..])
}

/// How the keys that a server sent fit those that the password gives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fit {
    /// They are the same.
    Same,
    /// Each stands in the other's place.
    Swapped,
    /// They are others.
    Different,
}

/// Compares the keys that a server sent with those that the password gives, in constant time.
pub fn compare(expected: &MasterKeys, received: &MasterKeys) -> Fit {
    let key = |keys: &MasterKeys, direction| {
        let key = keys.start_key(Role::Server, direction, Strength::Bits128);
        Zeroizing::new(key.map_or(Vec::new(), |key| key.bytes().to_vec()))
    };
    let same = |own: Direction, other: Direction| {
        bool::from(key(expected, own).ct_eq(&*key(received, other)))
    };
    let (transmit, receive) = (Direction::Transmit, Direction::Receive);
    if same(transmit, transmit) && same(receive, receive) {
        Fit::Same
    } else if same(transmit, receive) && same(receive, transmit) {
        Fit::Swapped
    } else {
        Fit::Different
    }
}
