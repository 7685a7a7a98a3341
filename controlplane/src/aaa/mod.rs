//! Who may come in, and what is granted.

pub mod chap_secrets;
mod local;

use turnpike_protocol::mschap::{NtHash, Success};
use zeroize::Zeroizing;

pub use local::{Attempt, Users};

use crate::pool::Range;

/// One user.
#[derive(Clone)]
pub struct Account {
    /// The name, as octets: clients send them in any encoding.
    pub name: Vec<u8>,
    /// What is left of the password.
    pub secret: Secret,
    /// Which inner address the user gets.
    pub addresses: Addresses,
}

/// What is kept of a password: its NT hash, cleaned when dropped, never printed.
#[derive(Clone)]
pub struct Secret(NtHash);

impl Secret {
    /// From the password; `None` when it is empty or longer than 256 characters, the most that RFC 2759 §8.3 hashes.
    pub fn new(password: &Zeroizing<String>) -> Option<Self> {
        let fits = (1..=256).contains(&password.encode_utf16().count());
        fits.then(|| Self(NtHash::from_password(password)))
    }
}

/// Which inner address a user gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// The next free one of the pool.
    Pool,
    /// The first free one of these, in order; they need not be in the pool, and nobody else gets them.
    Fixed(Vec<Range>),
    /// None: the user may not come in.
    None,
}

/// What a right login gives.
#[derive(Clone)]
pub struct Admission {
    /// The user as the account names it, for logs and operators.
    pub user: String,
    /// What to answer, and the secrets that keys are made of.
    pub success: Success,
    /// Which address to take from the pool.
    pub addresses: Addresses,
}

/// A user name without the `DOMAIN\` that Windows puts in front of it.
pub fn without_domain(name: &str) -> &str {
    name.rsplit_once('\\').map_or(name, |(_, user)| user)
}
