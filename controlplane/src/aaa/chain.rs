//! Back ends in order, and when the next one is asked.
//!
//! The users of files answer first or last, as the order says, and only for names that they know (one for everybody is known by
//! any name): what they say of those is final. A RADIUS server's Accept or Reject is final, too. The next back end is asked when
//! the files do not know the name, or no RADIUS server answered with something that can be believed; never after a refusal.

use std::sync::Arc;

use tracing::warn;
use turnpike_dataplane::api::CallRef;
use turnpike_protocol::ppp::Credentials;
use turnpike_protocol::radius::{Attribute, Builder, Code, microsoft};

use super::policy::{Rules, judge};
use super::{Admission, Store, local_time, printable};
use crate::cause::Cause;
use crate::radius::{Client, Failure};
use crate::tunnel::Refusal;

/// Somebody who can judge a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Users of the configuration and of files.
    Local,
    /// RADIUS servers.
    Radius,
}

/// What RADIUS servers are asked with.
pub struct RadiusBackend {
    /// The way to the servers.
    pub client: Client,
    /// What their answers are held against.
    pub rules: Rules,
    /// NAS-Identifier.
    pub identifier: String,
    /// NAS-IP-Address; `None`: the address that the client dialled.
    pub address: Option<core::net::Ipv4Addr>,
}

/// Back ends in their order.
pub struct Chain {
    order: Vec<Backend>,
    users: Arc<Store>,
    radius: Option<RadiusBackend>,
}

/// How far a login came without waiting for anybody.
pub enum Step {
    /// Judged by the files.
    Local,
    /// To be asked for with [`Chain::ask`], beginning with this place in the order.
    Ask(usize),
}

impl Chain {
    /// Users of files alone.
    pub fn local(users: Arc<Store>) -> Self {
        Self {
            order: vec![Backend::Local],
            users,
            radius: None,
        }
    }

    /// Back ends in this order; those that are not there are left out.
    pub fn new(order: Vec<Backend>, users: Arc<Store>, radius: Option<RadiusBackend>) -> Self {
        Self {
            order,
            users,
            radius,
        }
    }

    /// The RADIUS servers, if there are any.
    pub fn radius(&self) -> Option<&RadiusBackend> {
        self.radius.as_ref()
    }

    /// Who judges these credentials first.
    pub fn first(&self, credentials: &Credentials) -> Step {
        let last = self.order.len().saturating_sub(1);
        for (index, backend) in self.order.iter().enumerate() {
            match backend {
                // The last to be asked says no for all, and takes as long for an unknown name as for a wrong password.
                Backend::Local if index == last || self.users.knows(credentials.name()) => {
                    return Step::Local;
                }
                Backend::Radius if self.radius.is_some() => return Step::Ask(index),
                Backend::Local | Backend::Radius => {}
            }
        }
        Step::Local
    }

    /// Asks the back ends from place `from` in the order on, for as long as they take.
    ///
    /// # Errors
    /// Why the client does not get in.
    pub async fn ask(
        &self,
        from: usize,
        call: CallRef,
        credentials: Credentials,
    ) -> Result<Admission, Refusal> {
        let mut refusal = Refusal::new(Cause::AuthenticationFailed);
        for backend in self.order.iter().skip(from) {
            match (backend, &self.radius) {
                (Backend::Radius, Some(radius)) => match radius.ask(call, &credentials).await {
                    Ok(answer) => return judge(&answer, &credentials, &radius.rules),
                    Err(failure) => {
                        let user = printable(credentials.name());
                        warn!(call = call.id.0, user, "{failure}");
                        refusal = Refusal::new(cause_of(&failure));
                    }
                },
                (Backend::Local, _) if self.users.knows(credentials.name()) => {
                    return self.judge_locally(credentials).await.map_err(Refusal::new);
                }
                (Backend::Local | Backend::Radius, _) => {}
            }
        }
        Err(refusal)
    }

    /// Has the users of files judge; a new password is written, which takes as long as the disk takes.
    ///
    /// # Errors
    /// As [`Store::authenticate`] and [`Store::change`] have it.
    pub async fn judge_locally(&self, credentials: Credentials) -> Result<Admission, Cause> {
        let Credentials::ChangePassword(change) = credentials else {
            return self.users.authenticate(&credentials, local_time());
        };
        let users = self.users.clone();
        let writing = tokio::task::spawn_blocking(move || users.change(&change, local_time()));
        writing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a changed password cannot be written");
            Err(Cause::PasswordNotWritten)
        })
    }
}

impl RadiusBackend {
    async fn ask(
        &self,
        call: CallRef,
        credentials: &Credentials,
    ) -> Result<crate::radius::Answer, Failure> {
        self.client
            .ask(Code::ACCESS_REQUEST, &|builder| {
                self.describe(builder, call, credentials)
            })
            .await
    }

    /// Who asks, for whom, and what the client gave.
    fn describe<'a>(
        &self,
        builder: Builder<'a>,
        call: CallRef,
        credentials: &Credentials,
    ) -> Builder<'a> {
        let (local, peer) = (call.local.to_string(), call.peer.to_string());
        microsoft::add_credentials(builder, credentials)
            .address(
                Attribute::NAS_IP_ADDRESS,
                self.address.unwrap_or(call.local),
            )
            .text(Attribute::NAS_IDENTIFIER, &self.identifier)
            .integer(Attribute::NAS_PORT, call.id.0.into())
            .text(Attribute::NAS_PORT_ID, &format!("pptp{}", call.id.0))
            // Virtual, Framed, PPP; PPTP over IPv4.
            .integer(Attribute::NAS_PORT_TYPE, 5)
            .integer(Attribute::SERVICE_TYPE, 2)
            .integer(Attribute::FRAMED_PROTOCOL, 1)
            .integer(Attribute::TUNNEL_TYPE, 1)
            .integer(Attribute::TUNNEL_MEDIUM_TYPE, 1)
            .text(Attribute::TUNNEL_CLIENT_ENDPOINT, &peer)
            .text(Attribute::TUNNEL_SERVER_ENDPOINT, &local)
            .text(Attribute::CALLED_STATION_ID, &local)
            .text(Attribute::CALLING_STATION_ID, &peer)
    }
}

/// What a call ends with when no server answered.
fn cause_of(failure: &Failure) -> Cause {
    match failure {
        Failure::Silent | Failure::NoServer => Cause::RadiusSilent,
        Failure::WrongSecret(_) => Cause::RadiusWrongSecret,
        Failure::Unsigned(_) => Cause::RadiusUnsigned,
        Failure::Machine => Cause::ServerFault,
        // Only a name or a password can be that long, and none of those is anybody's.
        Failure::TooLong => Cause::AuthenticationFailed,
    }
}
