//! What a peer gives to prove who it is, what it is held against, and what comes of it.

use core::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::AuthProtocol;
use crate::mschap::change::{self, BLOCK_LEN};
use crate::mschap::{self, MasterKeys, NtHash, Password};
use crate::ppp::end::printable;

/// What is known of a user's password. Cleaned when dropped, never printed.
#[derive(Clone)]
pub enum Secret {
    /// The password itself: every method works.
    Password(Password),
    /// Its NT hash: no CHAP-MD5, and from MS-CHAPv1 no keys of 40 or 56 bits. PAP is checked by hashing what came.
    NtHash(NtHash),
}

impl Secret {
    /// The NT hash.
    pub fn nt_hash(&self) -> NtHash {
        match self {
            Self::Password(password) => password.nt_hash(),
            Self::NtHash(hash) => hash.clone(),
        }
    }

    /// The password, where it is known.
    pub const fn password(&self) -> Option<&Password> {
        match self {
            Self::Password(password) => Some(password),
            Self::NtHash(_) => None,
        }
    }

    /// Whether a client can answer by `method` with no more than this.
    pub const fn can_answer(&self, method: AuthProtocol) -> bool {
        match method {
            AuthProtocol::MsChapV1 | AuthProtocol::MsChapV2 => true,
            AuthProtocol::Pap | AuthProtocol::ChapMd5 => self.password().is_some(),
            AuthProtocol::Eap | AuthProtocol::Other(_) => false,
        }
    }
}

impl From<Password> for Secret {
    fn from(password: Password) -> Self {
        Self::Password(password)
    }
}

impl From<NtHash> for Secret {
    fn from(hash: NtHash) -> Self {
        Self::NtHash(hash)
    }
}

/// What a peer gave to prove who it is; answered by [`Link::verdict`](crate::ppp::Link::verdict). One variant per
/// method.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A PAP Authenticate-Request (RFC 1334 §2.2.1).
    Pap {
        /// The Peer-ID as it was on the wire.
        name: Vec<u8>,
        /// The password as it was on the wire, in the encoding of the client's machine.
        password: Zeroizing<Vec<u8>>,
    },
    /// A CHAP Response by MD5 (RFC 1994 §4.1).
    ChapMd5 {
        /// CHAP identifier; part of what is hashed.
        identifier: u8,
        /// What was asked; RFC 1994 §2.3 leaves its length open, ours has 16 octets.
        challenge: Vec<u8>,
        /// The answer.
        response: [u8; 16],
        /// The name as it was on the wire.
        name: Vec<u8>,
    },
    /// An MS-CHAPv1 Response (RFC 2433 §6) that holds the NT response.
    MsChapV1 {
        /// CHAP identifier.
        identifier: u8,
        /// What we asked.
        challenge: [u8; 8],
        /// The weaker half of the answer, for forwarding to RADIUS; never looked at here, often zero.
        lm_response: [u8; 24],
        /// The answer.
        nt_response: [u8; 24],
        /// The name as it was on the wire.
        name: Vec<u8>,
    },
    /// An MS-CHAPv2 Response (RFC 2759 §4).
    MsChapV2 {
        /// CHAP identifier.
        identifier: u8,
        /// What we asked.
        challenge: [u8; 16],
        /// What the peer added.
        peer_challenge: [u8; 16],
        /// The answer.
        nt_response: [u8; 24],
        /// The name as it was on the wire: any octets, perhaps with `DOMAIN\` in front.
        name: Vec<u8>,
    },
    /// A new password in place of one that has expired; follows a verdict with
    /// [`Remedy::ChangePassword`](super::Remedy::ChangePassword).
    ChangePassword(Box<ChangePassword>),
}

/// What a right login proves, and yields: one variant per method. Only those of MS-CHAP have room for keys, so that no
/// other can ever be encrypted.
#[derive(Clone)]
pub enum Proof {
    /// PAP.
    Pap,
    /// CHAP with MD5.
    ChapMd5,
    /// MS-CHAPv1.
    MsChapV1 {
        /// Keys for MPPE. Without keys MPPE is neither offered nor acknowledged.
        keys: Option<MasterKeys>,
    },
    /// MS-CHAPv2.
    MsChapV2 {
        /// `S=` and 40 upper-case hex digits (RFC 2759 §5), sent as it is.
        authenticator_response: [u8; 42],
        /// Keys for MPPE. Without keys MPPE is neither offered nor acknowledged.
        keys: Option<MasterKeys>,
    },
}

impl Proof {
    /// The method.
    pub const fn method(&self) -> AuthProtocol {
        match self {
            Self::Pap => AuthProtocol::Pap,
            Self::ChapMd5 => AuthProtocol::ChapMd5,
            Self::MsChapV1 { .. } => AuthProtocol::MsChapV1,
            Self::MsChapV2 { .. } => AuthProtocol::MsChapV2,
        }
    }

    /// Keys for MPPE, if there are any.
    pub fn into_keys(self) -> Option<MasterKeys> {
        match self {
            Self::Pap | Self::ChapMd5 => None,
            Self::MsChapV1 { keys } | Self::MsChapV2 { keys, .. } => keys,
        }
    }

    /// The same without keys, as a RADIUS server may leave it.
    #[must_use]
    pub fn without_keys(self) -> Self {
        match self {
            Self::MsChapV1 { .. } => Self::MsChapV1 { keys: None },
            Self::MsChapV2 {
                authenticator_response,
                ..
            } => Self::MsChapV2 {
                authenticator_response,
                keys: None,
            },
            Self::Pap | Self::ChapMd5 => self,
        }
    }
}

/// Why credentials prove nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Unproved {
    /// They were made with another password.
    #[error("the password is another")]
    WrongPassword,
    /// The method needs the password, and only its NT hash is stored.
    #[error("the method needs the password, of which only the NT hash is stored")]
    PasswordNotStored,
    /// The new password is no text.
    #[error("the new password is no text")]
    NewPasswordNotText,
    /// These are a change of the password: [`ChangePassword::open`] judges them.
    #[error("this changes the password, and is not proved without storing the new one")]
    IsChange,
}

impl Credentials {
    /// The method.
    pub const fn method(&self) -> AuthProtocol {
        match self {
            Self::Pap { .. } => AuthProtocol::Pap,
            Self::ChapMd5 { .. } => AuthProtocol::ChapMd5,
            Self::MsChapV1 { .. } => AuthProtocol::MsChapV1,
            Self::MsChapV2 { .. } => AuthProtocol::MsChapV2,
            Self::ChangePassword(change) => match change.response {
                ChangeResponse::MsChapV1 { .. } => AuthProtocol::MsChapV1,
                ChangeResponse::MsChapV2 { .. } => AuthProtocol::MsChapV2,
            },
        }
    }

    /// The name as it was on the wire.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Pap { name, .. }
            | Self::ChapMd5 { name, .. }
            | Self::MsChapV1 { name, .. }
            | Self::MsChapV2 { name, .. } => name,
            Self::ChangePassword(change) => &change.name,
        }
    }

    /// The name after the last backslash: what MS-CHAPv2 hashes (RFC 2759 §8.2) and what is looked up. Never re-encoded.
    pub fn user_part(&self) -> &[u8] {
        mschap::user_part(self.name())
    }

    /// Holds them against what is known of the user's password, in constant time.
    ///
    /// # Errors
    /// Says why nothing is proved. A user who does not exist should cost the same: verify against any secret.
    pub fn verify(&self, secret: &Secret) -> Result<Proof, Unproved> {
        let proof = match self {
            Self::Pap { password, .. } => {
                let right = match secret {
                    Secret::Password(own) => own.as_str().as_bytes().ct_eq(password).into(),
                    Secret::NtHash(hash) => core::str::from_utf8(password)
                        .map(|password| NtHash::from_password(password).bytes().ct_eq(hash.bytes()))
                        .is_ok_and(bool::from),
                };
                right.then_some(Proof::Pap)
            }
            Self::ChapMd5 {
                identifier,
                challenge,
                response,
                ..
            } => {
                let password = secret.password().ok_or(Unproved::PasswordNotStored)?;
                let expected = chap_md5(*identifier, password, challenge);
                bool::from(expected.ct_eq(response)).then_some(Proof::ChapMd5)
            }
            Self::MsChapV1 {
                challenge,
                nt_response,
                ..
            } => {
                let lm_hash = secret.password().and_then(Password::lm_hash);
                mschap::v1::verify(&secret.nt_hash(), lm_hash.as_ref(), challenge, nt_response)
                    .map(|keys| Proof::MsChapV1 { keys: Some(keys) })
            }
            Self::MsChapV2 {
                challenge,
                peer_challenge,
                nt_response,
                name,
                ..
            } => mschap::verify(
                &secret.nt_hash(),
                challenge,
                peer_challenge,
                nt_response,
                name,
            )
            .map(Proof::from),
            Self::ChangePassword(_) => return Err(Unproved::IsChange),
        };
        proof.ok_or(Unproved::WrongPassword)
    }

    /// The same for a client that has the password as octets in an encoding of its own. PAP sends them and CHAP-MD5
    /// hashes them as they are; MS-CHAP, where a client does not convert them, makes UTF-16 by a zero octet after each,
    /// as pppd does.
    ///
    /// # Errors
    /// As [`Self::verify`] has it.
    pub fn verify_octets(&self, password: &[u8]) -> Result<Proof, Unproved> {
        let right = match self {
            Self::Pap { password: sent, .. } => sent.ct_eq(password).into(),
            Self::ChapMd5 {
                identifier,
                challenge,
                response,
                ..
            } => md5_of(*identifier, password, challenge)
                .ct_eq(response)
                .into(),
            Self::MsChapV1 { .. } | Self::MsChapV2 { .. } => {
                // Two octets of UTF-8 at most for each.
                let mut wide = Zeroizing::new(String::with_capacity(password.len() * 2));
                wide.extend(password.iter().map(|octet| char::from(*octet)));
                return self.verify(&NtHash::from_password(&wide).into());
            }
            Self::ChangePassword(_) => return Err(Unproved::IsChange),
        };
        let proof = match self {
            Self::Pap { .. } => Proof::Pap,
            _ => Proof::ChapMd5,
        };
        if right {
            Ok(proof)
        } else {
            Err(Unproved::WrongPassword)
        }
    }
}

/// A Change-Password packet: of MS-CHAPv2 (RFC 2759 §7) or version 2 of MS-CHAPv1's (RFC 2433 §10).
#[derive(Clone, PartialEq, Eq)]
pub struct ChangePassword {
    /// CHAP identifier.
    pub identifier: u8,
    /// The new password under the hash of the old one.
    pub encrypted_password: [u8; BLOCK_LEN],
    /// The hash of the old password under that of the new one.
    pub encrypted_hash: [u8; 16],
    /// The answer, made with the new password.
    pub response: ChangeResponse,
    /// The name as it was on the wire, in the Response that this follows.
    pub name: Vec<u8>,
}

/// The answer in a Change-Password packet to the challenge of the Failure before it.
#[derive(Clone, PartialEq, Eq)]
pub enum ChangeResponse {
    /// MS-CHAPv1's.
    MsChapV1 {
        /// What we asked.
        challenge: [u8; 8],
        /// The answer.
        nt_response: [u8; 24],
    },
    /// MS-CHAPv2's.
    MsChapV2 {
        /// What we asked.
        challenge: [u8; 16],
        /// What the peer added.
        peer_challenge: [u8; 16],
        /// The answer.
        nt_response: [u8; 24],
    },
}

/// What a right [`ChangePassword`] yields.
#[derive(Clone)]
pub struct Changed {
    /// The new password, to be stored before the user is let in. May be empty: whether it is good enough is for the
    /// store to say, with code 709.
    pub password: Password,
    /// Its hash, for stores that keep no more.
    pub nt_hash: NtHash,
    /// What the new password proves; the call's keys come of it.
    pub proof: Proof,
}

impl ChangePassword {
    /// Decrypts the new password with the old one, and checks that the client knows both.
    ///
    /// # Errors
    /// Says why nothing is proved.
    pub fn open(&self, old: &Secret) -> Result<Changed, Unproved> {
        let old = old.nt_hash();
        let clear = change::decrypt_password(&self.encrypted_password, &old)
            .ok_or(Unproved::WrongPassword)?;
        let nt_hash = clear.nt_hash();
        let knows_old = change::encrypt_hash(&old, &nt_hash).ct_eq(&self.encrypted_hash);
        if !bool::from(knows_old) {
            return Err(Unproved::WrongPassword);
        }
        let password = clear.password().ok_or(Unproved::NewPasswordNotText)?;
        let proof = match &self.response {
            ChangeResponse::MsChapV1 {
                challenge,
                nt_response,
            } => {
                let lm_hash = password.lm_hash();
                mschap::v1::verify(&nt_hash, lm_hash.as_ref(), challenge, nt_response)
                    .map(|keys| Proof::MsChapV1 { keys: Some(keys) })
            }
            ChangeResponse::MsChapV2 {
                challenge,
                peer_challenge,
                nt_response,
            } => mschap::verify(&nt_hash, challenge, peer_challenge, nt_response, &self.name)
                .map(Proof::from),
        };
        Ok(Changed {
            password,
            nt_hash,
            proof: proof.ok_or(Unproved::WrongPassword)?,
        })
    }
}

impl From<mschap::Success> for Proof {
    fn from(success: mschap::Success) -> Self {
        Self::MsChapV2 {
            authenticator_response: success.authenticator_response,
            keys: Some(success.keys),
        }
    }
}

/// The Response value of CHAP with MD5 (RFC 1994 §4.1): MD5 over the identifier, the secret and the challenge.
pub fn chap_md5(identifier: u8, password: &Password, challenge: &[u8]) -> [u8; 16] {
    md5_of(identifier, password.as_str().as_bytes(), challenge)
}

fn md5_of(identifier: u8, password: &[u8], challenge: &[u8]) -> [u8; 16] {
    Md5::new()
        .chain_update([identifier])
        .chain_update(password)
        .chain_update(challenge)
        .finalize()
        .into()
}

/// Responses to challenges can be searched for the password: only method and name are printed.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::ChangePassword(_) => "ChangePassword",
            _ => "Credentials",
        };
        f.debug_struct(kind)
            .field("method", &self.method())
            .field("name", &printable(self.name()))
            .finish_non_exhaustive()
    }
}
