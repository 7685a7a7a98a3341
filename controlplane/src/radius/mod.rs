//! RADIUS servers as a client sees them: which one is asked, how often, and which answers are believed.
//!
//! Requests go out from as many sockets as it takes (256 each wait for answers on one), and again from the same socket with the
//! same identifier and authenticator until they are answered (RFC 5080 §2.2.1). An answer is believed that comes from the
//! server's address and port, to a request that waits, and whose authenticators are right; whatever else comes is counted by name
//! and thrown away, and the request waits on. A server that leaves a request unanswered, and from which nothing else has come
//! meanwhile, is dead: others are asked instead until it answers a Status-Server request (RFC 5997).

mod counts;
mod lane;
mod server;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use turnpike_protocol::radius::{Builder, Code, Packet};

pub use counts::Counts;
pub use settings::{Purpose, ServerSettings};

use lane::Noted;
use server::{Fault, Server};

/// Puts a request's attributes in. Called once for each server that is asked: what is hidden is hidden by its secret.
pub type Fill<'f> = dyn for<'a> Fn(Builder<'a>) -> Builder<'a> + Send + Sync + 'f;

/// An answer that was believed.
pub struct Answer {
    octets: Vec<u8>,
    authenticator: [u8; 16],
    server: ServerSettings,
}

impl Answer {
    /// The packet.
    pub fn packet(&self) -> Packet<'_> {
        // It was parsed before.
        Packet::parse(&self.octets).unwrap_or_else(|_| unreachable!("an answer that was parsed"))
    }

    /// The authenticator of the request that it answers, by which keys in it are hidden.
    pub fn request(&self) -> &[u8; 16] {
        &self.authenticator
    }

    /// Who answered.
    pub fn server(&self) -> &ServerSettings {
        &self.server
    }
}

/// Why nobody answered: what can be told from the last server that gave any sign at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// No server is configured.
    #[error("no RADIUS server is configured")]
    NoServer,
    /// Not one datagram came back.
    #[error("no RADIUS server answers")]
    Silent,
    /// Answers came, whose authenticators are wrong.
    #[error("what the RADIUS server {0} answers is not made with our secret")]
    WrongSecret(String),
    /// Answers came that lack a Message-Authenticator, which is required of that server.
    #[error(
        "the RADIUS server {0} sends no Message-Authenticator: update it, or write message_authenticator = \"accept_missing\" for it"
    )]
    Unsigned(String),
    /// Sockets or randomness failed; the log says why.
    #[error("this machine cannot send RADIUS requests")]
    Machine,
    /// What is to be asked does not fit a packet.
    #[error("the request is too long for RADIUS")]
    TooLong,
}

/// All servers for one purpose.
pub struct Client {
    servers: Vec<Arc<Server>>,
    counts: Arc<Counts>,
}

impl Client {
    /// A client of these servers. Sockets are opened when they are needed.
    pub fn new(servers: &[ServerSettings], purpose: Purpose) -> Self {
        let counts = Arc::new(Counts::default());
        Self {
            servers: servers
                .iter()
                .map(|settings| Server::new(settings.clone(), purpose, counts.clone()))
                .collect(),
            counts,
        }
    }

    /// What is counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The names of its servers, and whether each answers.
    pub fn servers(&self) -> impl Iterator<Item = (&str, bool)> {
        let servers = self.servers.iter();
        servers.map(|server| (server.settings().name.as_str(), !server.is_dead()))
    }

    /// Asks the servers until one answers: those that live, by priority and weight; when none does, all of them.
    ///
    /// # Errors
    /// [`Failure`], when none has answered as often as it was asked.
    pub async fn ask(&self, code: Code, fill: &Fill<'_>) -> Result<Answer, Failure> {
        let mut order = ordered(&self.servers, |server| {
            let settings = server.settings();
            (settings.priority, settings.weight)
        });
        let alive = order.iter().any(|server| !server.is_dead());
        order.retain(|server| !alive || !server.is_dead());
        let mut failure = Failure::NoServer;
        let mut noted = Noted::Nothing;
        for (index, server) in order.iter().enumerate() {
            let name = || server.settings().name.clone();
            // Those behind it in the row are of use only while they live.
            let others = order[index + 1..].iter().any(|other| !other.is_dead());
            match server.ask(code, fill, others).await {
                Ok(answer) => return Ok(answer),
                Err(Fault::TooLong) => return Err(Failure::TooLong),
                Err(Fault::Machine) => {
                    if matches!(failure, Failure::NoServer) {
                        failure = Failure::Machine;
                    }
                }
                Err(Fault::Died) => {
                    if noted == Noted::Nothing {
                        failure = Failure::Silent;
                    }
                }
                Err(Fault::Unanswered(what)) => {
                    if what > noted {
                        noted = what;
                        failure = match what {
                            Noted::Nothing | Noted::WrongCode => Failure::Silent,
                            Noted::Forged => Failure::WrongSecret(name()),
                            Noted::Unsigned => Failure::Unsigned(name()),
                        };
                    } else if noted == Noted::Nothing {
                        failure = Failure::Silent;
                    }
                }
            }
        }
        Err(failure)
    }
}

/// All of them, the lowest priority first; among equals chance decides by weight.
fn ordered<T: Clone>(all: &[T], rank: impl Fn(&T) -> (u8, u16)) -> Vec<T> {
    let mut order: Vec<_> = all
        .iter()
        .map(|one| {
            let (priority, weight) = rank(one);
            // The least of exponential chances comes first with a probability in proportion to its weight.
            let mut octets = [0; 4];
            let _ = getrandom::fill(&mut octets);
            let chance =
                (f64::from(u32::from_ne_bytes(octets)) + 1.0) / (f64::from(u32::MAX) + 2.0);
            (priority, -chance.ln() / f64::from(weight.max(1)), one)
        })
        .collect();
    order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    order.into_iter().map(|(.., one)| one.clone()).collect()
}
