//! The verdict on a login.

use std::net::Ipv4Addr;

use turnpike_dataplane::api::CallRef;
use turnpike_protocol::ppp::{Credentials, Grant, Remedy};

use super::{Driver, Shared, Terms, lock};
use crate::aaa::{Admission, local_time};
use crate::cause::Cause;
use crate::tunnel::Refusal;

impl Driver {
    /// Asks the users once, and takes an address for whoever is let in and `holds` none yet.
    pub(super) async fn judge(
        &mut self,
        call: CallRef,
        credentials: Credentials,
        holds: Option<Ipv4Addr>,
    ) -> Result<Grant, Refusal> {
        let refusal = |cause| {
            let remedy = match cause {
                Cause::AuthenticationFailed if self.shared.retry => Remedy::Retry,
                // Only accounts whose passwords can be written have some that expire.
                Cause::PasswordExpired => Remedy::ChangePassword,
                _ => Remedy::None,
            };
            Refusal::new(cause).with(remedy)
        };
        if let Some(books) = &self.shared.books {
            books.admit().map_err(Refusal::new)?;
        }
        let admission = match credentials {
            // Nothing but a Response can be tried again.
            Credentials::ChangePassword(_) => {
                self.change(credentials).await.map_err(Refusal::new)?
            }
            _ => self
                .shared
                .users
                .authenticate(&credentials, local_time())
                .map_err(refusal)?,
        };
        // Challenged again in mid-call: what was given stays.
        let address = match holds {
            Some(address) => address,
            None => self.address(call, &admission).await.map_err(Refusal::new)?,
        };
        let Terms {
            server_address,
            dns,
            nbns,
        } = self.shared.terms;
        Ok(Grant {
            proof: admission.proof,
            address,
            server_address,
            dns,
            nbns,
            ipv6: holds.is_none().then(|| self.prefixes()).flatten(),
        })
    }

    /// Takes an address for a user who has proven who he is, from another call of his if need be.
    async fn address(&mut self, call: CallRef, admission: &Admission) -> Result<Ipv4Addr, Cause> {
        let (user, tunnel) = (&admission.user, self.ticket.number());
        let Shared {
            rivals,
            pool,
            same_user,
            ..
        } = &*self.shared;
        rivals.enter(user, call, tunnel, &self.orders, *same_user)?;
        self.accounts.reserve_exact(1);
        self.accounts
            .push((call, user.clone(), admission.addresses.clone()));
        let allocate = || lock(pool).allocate(&admission.addresses);
        match allocate() {
            Err(Cause::AddressInUse) => rivals
                .displace(user, tunnel, || allocate().ok())
                .await
                .ok_or(Cause::AddressInUse),
            allocated => allocated,
        }
    }

    /// The address that the client asks for, if its user may have it and it is free; the one that it held is free then.
    pub(super) fn choose(
        &self,
        call: CallRef,
        held: Ipv4Addr,
        asked: Ipv4Addr,
    ) -> Option<Ipv4Addr> {
        let Shared { pool, choices, .. } = &*self.shared;
        let mut accounts = self.accounts.iter();
        let (.., addresses) = accounts.find(|(other, ..)| *other == call)?;
        lock(pool)
            .exchange(held, asked, addresses, choices)
            .then_some(asked)
    }

    /// The call's login is over.
    pub(super) fn withdraw(&mut self, call: CallRef) {
        let rivals = &self.shared.rivals;
        self.accounts.retain(|(other, user, _)| {
            let ours = *other == call;
            if ours {
                rivals.leave(user, call);
            }
            !ours
        });
    }

    /// Has a new password written, which takes as long as the disk takes.
    async fn change(&self, credentials: Credentials) -> Result<Admission, Cause> {
        let users = self.shared.users.clone();
        let writing = tokio::task::spawn_blocking(move || match credentials {
            Credentials::ChangePassword(change) => users.change(&change, local_time()),
            _ => Err(Cause::ServerFault),
        });
        writing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a changed password cannot be written");
            Err(Cause::PasswordNotWritten)
        })
    }
}
