//! Settings of a link.

use core::net::Ipv4Addr;
use core::time::Duration;

use super::auth::{AuthProtocol, Secret};
use crate::mppe;
use crate::mschap::Password;

/// Times and counts of RFC 1661 §4.6 and of the phases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// The Restart timer: how long to wait for an answer before a request is repeated.
    pub restart: Duration,
    /// The Restart timer until the first frame of the peer: it is often not ready when our first request comes.
    pub first_restart: Duration,
    /// Configure-Requests, and Challenges, without an answer before giving up.
    pub max_configure: u8,
    /// Terminate-Requests without an answer before the link ends anyway.
    pub max_terminate: u8,
    /// Configure-Naks sent in a row before they become Configure-Rejects.
    pub max_failure: u8,
    /// LCP Echo-Request this often; `None`: never.
    pub echo_interval: Option<Duration>,
    /// Echoes without an answer, and with nothing else heard, before the link ends.
    pub echo_failures: u8,
    /// From the start to data flowing; `None`: no limit.
    pub set_up: Option<Duration>,
    /// Between a Failure and our Terminate-Request, so that the client shows "wrong password" rather than "hung up".
    pub failure_delay: Duration,
    /// After a Failure that lets the client try again or change its password: somebody has to type. The limit on
    /// setting up moves back by as much.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            restart: Duration::from_secs(3),
            first_restart: Duration::from_secs(1),
            max_configure: 10,
            max_terminate: 2,
            max_failure: 5,
            echo_interval: Some(Duration::from_secs(30)),
            echo_failures: 4,
            set_up: Some(Duration::from_secs(60)),
            failure_delay: Duration::from_secs(1),
            patience: Duration::from_secs(60),
        }
    }
}

/// Settings of the server's end of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerLink {
    /// Our name in CHAP Challenges, at most 64 octets are sent; may be empty.
    pub name: Vec<u8>,
    /// How clients may authenticate themselves, strongest first. Methods that yield no keys are passed over where
    /// encryption is required. With none left no client gets in: it is never left out.
    pub methods: Vec<AuthProtocol>,
    /// How often a client whose Response was wrong may try again in one call when the verdict says so (`R=1`), at most
    /// 3. Only MS-CHAP has words for it.
    pub retries: u8,
    /// Challenge the client again this often in mid-call; not with PAP. Some routers do not bear it.
    pub rechallenge: Option<Duration>,
    /// The largest inner packet, in octets (576 to 1500). We ask for an MRU of this and 4 for MPPE.
    pub mtu: u16,
    /// Encryption.
    pub mppe: mppe::Policy,
    /// Key lengths and modes that may be agreed.
    pub mppe_allowed: mppe::Allowed,
    /// Whether a client that asks for another address than the one it was granted may get it: somebody is asked then
    /// ([`Action::Choose`](super::Action::Choose)).
    pub choice: bool,
    /// Times and counts.
    pub timing: Timing,
}

impl Default for ServerLink {
    fn default() -> Self {
        Self {
            name: b"turnpike".to_vec(),
            methods: vec![AuthProtocol::MsChapV2],
            retries: 0,
            rechallenge: None,
            mtu: 1400,
            mppe: mppe::Policy::Require,
            mppe_allowed: mppe::Allowed::default(),
            choice: false,
            timing: Timing::default(),
        }
    }
}

/// Settings of the client's end of a call. Not `Debug`: it holds a secret.
#[derive(Clone)]
pub struct ClientLink {
    /// Our name as it goes over the wire, perhaps with `DOMAIN\` in front; at most 253 octets.
    pub name: Vec<u8>,
    /// Our password, or its hash.
    pub secret: Secret,
    /// What to try in turn when the server allows another try in the same call (`R=1`).
    pub other_secrets: Vec<Secret>,
    /// What to change the password to when it has expired (`E=648`). `None`: the call ends then.
    pub new_password: Option<Password>,
    /// The methods by which we let ourselves be asked, the one that we would rather have first. Those for which the
    /// secret is not enough are passed over, and those that yield no keys where encryption is required.
    pub methods: Vec<AuthProtocol>,
    /// The largest inner packet, in octets (576 to 1500).
    pub mtu: u16,
    /// Encryption.
    pub mppe: mppe::Policy,
    /// Key lengths and modes that may be agreed.
    pub mppe_allowed: mppe::Allowed,
    /// The inner address to ask for; 0.0.0.0: whatever the server gives.
    pub address: Ipv4Addr,
    /// Ask for two DNS servers.
    pub ask_dns: bool,
    /// Ask for IPv6 with this interface identifier (0: one of the server's choice); `None`: IPV6CP is not spoken.
    pub ipv6: Option<u64>,
    /// Times and counts.
    pub timing: Timing,
}

impl ClientLink {
    /// The usual settings for a user.
    pub fn new(name: &[u8], secret: impl Into<Secret>) -> Self {
        Self {
            name: name.to_vec(),
            secret: secret.into(),
            other_secrets: Vec::new(),
            new_password: None,
            methods: vec![AuthProtocol::MsChapV2],
            mtu: 1400,
            mppe: mppe::Policy::Require,
            mppe_allowed: mppe::Allowed::default(),
            address: Ipv4Addr::UNSPECIFIED,
            ask_dns: true,
            ipv6: None,
            timing: Timing::default(),
        }
    }
}

/// Who a client says that it is, and by what it proves that.
#[derive(Clone)]
pub(super) struct Applicant {
    /// Our name.
    pub name: Vec<u8>,
    /// Our password, or its hash.
    pub secret: Secret,
    /// As [`ClientLink::other_secrets`].
    pub others: Vec<Secret>,
    /// As [`ClientLink::new_password`].
    pub new_password: Option<Password>,
}

impl ClientLink {
    pub(super) fn applicant(&self) -> Applicant {
        Applicant {
            name: self.name.clone(),
            secret: self.secret.clone(),
            others: self.other_secrets.clone(),
            new_password: self.new_password.clone(),
        }
    }

    /// The methods of which we can carry out each one.
    pub(super) fn usable_methods(&self) -> Vec<AuthProtocol> {
        let mut methods = AuthProtocol::usable(&self.methods, self.mppe);
        methods.retain(|method| self.secret.can_answer(*method));
        methods
    }
}
