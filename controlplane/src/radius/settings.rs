//! What is known of the servers.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use turnpike_protocol::radius::Secret;

/// One server. Never printed whole: it holds the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// As the operator calls it, in logs.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// UDP port for authentication.
    pub port: u16,
    /// UDP port for accounting.
    pub accounting_port: u16,
    /// Our address towards it; `None`: as Linux chooses.
    pub source: Option<IpAddr>,
    /// What it shares with us.
    pub secret: Secret,
    /// How long the first try waits for an answer; each next one waits twice as long as the one before (RFC 5080 §2.2.1).
    pub timeout: Duration,
    /// How often a request is sent, 1 to 10.
    pub tries: u8,
    /// Servers with a lower one are asked first.
    pub priority: u8,
    /// Its part of the requests among those of the same priority.
    pub weight: u16,
    /// Whether its answers to logins must hold a Message-Authenticator.
    pub require_message_authenticator: bool,
    /// Whether it answers Status-Server (RFC 5997), by which a dead one is asked whether it lives; without it, a request after
    /// `dead_time` finds out.
    pub status_server: bool,
    /// How often a dead one is asked, or how long it is left alone.
    pub dead_time: Duration,
}

impl ServerSettings {
    /// What holds where nothing else is said.
    pub fn new(address: IpAddr, secret: Secret) -> Self {
        Self {
            name: address.to_string(),
            address,
            port: 1812,
            accounting_port: 1813,
            source: None,
            secret,
            timeout: Duration::from_secs(2),
            tries: 3,
            priority: 1,
            weight: 1,
            require_message_authenticator: true,
            status_server: true,
            dead_time: Duration::from_secs(10),
        }
    }

    /// Where it listens.
    pub(super) fn target(&self, purpose: Purpose) -> SocketAddr {
        let port = match purpose {
            Purpose::Authentication => self.port,
            Purpose::Accounting => self.accounting_port,
        };
        SocketAddr::new(self.address, port)
    }
}

/// What servers are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Whether a user may come in.
    Authentication,
    /// To write down what a user did.
    Accounting,
}
