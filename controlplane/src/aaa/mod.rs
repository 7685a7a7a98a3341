//! Who may come in, and what is granted.

mod chain;
pub mod chap_secrets;
mod hours;
mod local;
mod names;
mod policy;
mod prove;
mod replace;
mod standing;
mod store;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::sync::Arc;

use jiff::Zoned;
use jiff::civil::DateTime;
use subtle::ConstantTimeEq;
use turnpike_protocol::mschap::{NtHash, Password};
use turnpike_protocol::ppp::{self, AuthProtocol, Limits, Proof};

pub use chain::{Backend, Chain, RadiusBackend, Step};
pub use hours::{HOURS, Hours};
pub use local::Users;
pub use names::{Case, Names, Part, encoding, printable};
pub use policy::{Rules, UnknownFilter};
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
    /// The next free one of the pool in `[network]`.
    Pool,
    /// The next free one of the pool with this name, or of those that are asked after it.
    Named(Arc<str>),
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
    /// What a RADIUS server said besides.
    pub entitlements: Option<Arc<Entitlements>>,
}

/// What a RADIUS server said of a call, besides who has it and which address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entitlements {
    /// The values of Class, in order, to be repeated in accounting as they are (RFC 2865 §5.25).
    pub class: Vec<Vec<u8>>,
    /// How long the call may last.
    pub session_timeout: Option<Duration>,
    /// How long nothing may be carried in either direction before it ends.
    pub idle_timeout: Option<Duration>,
    /// How often accounting is told of it.
    pub interim: Option<Duration>,
    /// DNS servers, each in place of the configured one.
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers, likewise.
    pub nbns: [Option<Ipv4Addr>; 2],
    /// Encryption and MTU.
    pub limits: Limits,
    /// The name of the server.
    pub server: String,
}

/// A user name without the `DOMAIN\` that Windows puts in front of it.
pub fn without_domain(name: &str) -> &str {
    name.rsplit_once('\\').map_or(name, |(_, user)| user)
}
