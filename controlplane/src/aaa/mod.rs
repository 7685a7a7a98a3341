//! Who may come in, and what is granted.

pub mod chap_secrets;
mod hours;
mod local;
mod names;
mod prove;
mod replace;
mod standing;
mod store;

use core::time::Duration;

use jiff::Zoned;
use jiff::civil::DateTime;
use subtle::ConstantTimeEq;
use turnpike_protocol::mschap::{NtHash, Password};
use turnpike_protocol::ppp::{self, AuthProtocol, Proof};

pub use hours::{HOURS, Hours};
pub use local::Users;
pub use names::{Case, Names, Part, encoding, printable};
pub use standing::{Expiry, Standing};
pub use store::{PasswordRules, Store};

use crate::pool::Range;

/// How clients log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The methods in the order in which they are asked for. Those that yield no keys are passed over where encryption is
    /// required.
    pub methods: Vec<AuthProtocol>,
    /// How often a call is challenged again; `None`: never.
    pub rechallenge: Option<Duration>,
}

impl Default for Login {
    fn default() -> Self {
        Self {
            methods: vec![AuthProtocol::MsChapV2],
            rechallenge: None,
        }
    }
}

/// One user.
#[derive(Clone)]
pub struct Account {
    /// The name, as octets: clients send them in any encoding.
    pub name: Vec<u8>,
    /// What is left of the password.
    pub secret: Secret,
    /// Which inner address the user gets.
    pub addresses: Addresses,
    /// Whether the user may come in now.
    pub standing: Standing,
    /// Where the account stands.
    pub home: Home,
}

impl Account {
    /// An account without restrictions that gets an address of the pool.
    pub fn new(name: impl Into<Vec<u8>>, secret: Secret) -> Self {
        Self {
            name: name.into(),
            secret,
            addresses: Addresses::Pool,
            standing: Standing::default(),
            home: Home::default(),
        }
    }
}

/// Where an account stands, and with that, whether its password can be changed by its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Home {
    /// In a file that is only read: the configuration, or `chap-secrets`.
    #[default]
    ReadOnly,
    /// In the file of `auth.users_file`, which is written back.
    UsersFile,
}

/// A password, cleaned when dropped, never printed.
#[derive(Clone)]
pub struct Secret(ppp::Secret);

impl Secret {
    /// From the password; `None` when it is empty or longer than 256 characters, the most that RFC 2759 §8.3 hashes.
    pub fn new(password: &str) -> Option<Self> {
        let fits = (1..=256).contains(&password.encode_utf16().count());
        fits.then(|| Self(Password::new(password).into()))
    }

    /// From a stored NT hash.
    pub fn from_nt_hash(hash: [u8; 16]) -> Self {
        Self(NtHash::from_bytes(hash).into())
    }

    /// Whether both are of the same password, in constant time.
    pub fn is(&self, other: &Self) -> bool {
        let [own, other] = [self, other].map(|secret| secret.0.nt_hash());
        own.bytes().ct_eq(other.bytes()).into()
    }
}

/// The time of the machine's clock, in its time zone: what hours and days of accounts are compared with.
pub fn local_time() -> DateTime {
    Zoned::now().datetime()
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
    pub proof: Proof,
    /// Which address to take from the pool.
    pub addresses: Addresses,
}

/// A user name without the `DOMAIN\` that Windows puts in front of it.
pub fn without_domain(name: &str) -> &str {
    name.rsplit_once('\\').map_or(name, |(_, user)| user)
}
