//! The verdict on a login.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::Poll;

use futures_util::FutureExt;
use turnpike_dataplane::api::CallRef;
use turnpike_protocol::ppp::{Credentials, Grant, Remedy};

use super::{Driver, LoggedIn, Shared, Terms};
use crate::aaa::{Admission, Step, local_time};
use crate::cause::Cause;
use crate::tunnel::Refusal;

/// A login that somebody else judges, while the control connection and its other calls go on.
pub(super) struct Judging {
    call: CallRef,
    /// The address that the call keeps, having been challenged again.
    holds: Option<Ipv4Addr>,
    verdict: Pin<Box<dyn Future<Output = Result<Admission, Refusal>> + Send>>,
}

impl Judging {
    pub(super) fn is_of(&self, call: CallRef) -> bool {
        self.call == call
    }
}

/// A verdict that has come: the call, what it keeps, and the verdict itself.
pub(super) type Judged = (CallRef, Option<Ipv4Addr>, Result<Admission, Refusal>);

/// Waits for the first of them. Boxed: every idle task has room for what it waits for.
pub(super) async fn judged(judging: &mut Vec<Judging>) -> Box<Judged> {
    std::future::poll_fn(|context| {
        for index in 0..judging.len() {
            if let Poll::Ready(verdict) = judging[index].verdict.as_mut().poll(context) {
                let Judging { call, holds, .. } = judging.swap_remove(index);
                // Idle tunnels keep no room for it.
                judging.shrink_to_fit();
                return Poll::Ready(Box::new((call, holds, verdict)));
            }
        }
        Poll::Pending
    })
    .await
}

impl Driver {
    /// Has a login judged: at once where the users of files can, else when the verdict comes.
    pub(super) async fn authenticate(
        &mut self,
        call: CallRef,
        credentials: Credentials,
        holds: Option<Ipv4Addr>,
    ) {
        // Challenged again in mid-call: the login goes on.
        if holds.is_none() {
            self.withdraw(call);
        }
        self.forsake(call);
        let changes = matches!(credentials, Credentials::ChangePassword(_));
        let retry = self.shared.retry && !changes;
        let refusal = move |cause| {
            let remedy = match cause {
                Cause::AuthenticationFailed if retry => Remedy::Retry,
                // Only accounts whose passwords can be written have some that expire.
                Cause::PasswordExpired if !changes => Remedy::ChangePassword,
                _ => Remedy::None,
            };
            Refusal::new(cause).with(remedy)
        };
        if let Some(books) = &self.shared.books
            && let Err(cause) = books.admit()
        {
            return self.judged((call, holds, Err(Refusal::new(cause)))).await;
        }
        let shared = self.shared.clone();
        let step = shared.backends.first(&credentials);
        let verdict: Pin<Box<dyn Future<Output = _> + Send>> = match step {
            Step::Local if !changes => {
                let users = &self.shared.users;
                let verdict = users.authenticate(&credentials, local_time());
                return self.judged((call, holds, verdict.map_err(refusal))).await;
            }
            // A new password takes as long as the disk takes.
            Step::Local => Box::pin(async move {
                let verdict = shared.backends.judge_locally(credentials).await;
                verdict.map_err(refusal)
            }),
            Step::Ask(from) => Box::pin(async move {
                let verdict = shared.backends.ask(from, call, credentials).await;
                verdict.map_err(|refused| match refused.remedy {
                    Remedy::Retry if !retry => refused.with(Remedy::None),
                    Remedy::ChangePassword if changes => refused.with(Remedy::None),
                    _ => refused,
                })
            }),
        };
        self.judging.push(Judging {
            call,
            holds,
            verdict,
        });
    }

    /// LCP began anew while a login was judged: that verdict is not waited for any more, but PPP counts it.
    fn forsake(&mut self, call: CallRef) {
        let before = self.judging.len();
        self.judging.retain(|judging| judging.call != call);
        for _ in self.judging.len()..before {
            let void = Err(Refusal::new(Cause::AuthenticationFailed));
            self.tunnel.verdict(call, void, self.shared.clock.now());
        }
    }

    /// Passes a verdict on, and gives back what was taken for it if nobody waits for it any more.
    pub(super) async fn judged(&mut self, (call, holds, verdict): Judged) {
        let verdict = match verdict {
            Ok(admission) => self.grant(call, admission, holds).await,
            Err(refusal) => Err(refusal),
        };
        if verdict.is_ok() {
            self.applicants.retain(|(other, _)| *other != call);
            self.applicants.shrink_to_fit();
            if let Some(way) = self.ways.iter().find(|way| way.call == call)
                && holds.is_none()
            {
                way.twin.doubt_older();
            }
        }
        // What it keeps from before is not given by this verdict.
        let given = verdict.as_ref().ok().filter(|_| holds.is_none());
        let given = given.map(|grant| (grant.address, grant.ipv6));
        let now = self.shared.clock.now();
        if !self.tunnel.verdict(call, verdict, now)
            && let Some((address, ipv6)) = given
        {
            self.release(call, address);
            if let Some(ipv6) = &ipv6 {
                self.release6(ipv6);
            }
            self.withdraw(call);
        }
    }

    /// Takes an address for whoever is let in and `holds` none yet.
    async fn grant(
        &mut self,
        call: CallRef,
        admission: Admission,
        holds: Option<Ipv4Addr>,
    ) -> Result<Grant, Refusal> {
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
        let own = admission.entitlements.as_deref();
        let either = |own: Option<[Option<Ipv4Addr>; 2]>, all: [Option<Ipv4Addr>; 2]| {
            // Servers of a user's own take the place of all, not of one of two.
            own.filter(|own| own.iter().any(Option::is_some))
                .unwrap_or(all)
        };
        Ok(Grant {
            proof: admission.proof,
            address,
            server_address,
            dns: either(own.map(|own| own.dns), dns),
            nbns: either(own.map(|own| own.nbns), nbns),
            ipv6: holds.is_none().then(|| self.prefixes()).flatten(),
            limits: own.map(|own| own.limits).unwrap_or_default(),
        })
    }

    /// Takes an address for a user who has proven who he is, from another call of his if need be.
    async fn address(&mut self, call: CallRef, admission: &Admission) -> Result<Ipv4Addr, Cause> {
        let shared = self.shared.clone();
        let (user, tunnel) = (&admission.user, self.ticket.number());
        let Shared {
            rivals,
            pools,
            clock,
            same_user,
            ..
        } = &*shared;
        rivals.enter(user, call, tunnel, &self.orders, *same_user)?;
        self.accounts.reserve_exact(1);
        self.accounts.push(LoggedIn {
            call,
            user: user.clone(),
            addresses: admission.addresses.clone(),
            entitlements: admission.entitlements.clone(),
        });
        if let Some(own) = &admission.entitlements {
            self.limit(call, own);
        }
        let allocate = || pools.allocate(user, &admission.addresses, clock.now());
        match allocate().await {
            Err(Cause::AddressInUse) => rivals
                .displace(user, tunnel, || allocate().map(Result::ok).boxed())
                .await
                .ok_or(Cause::AddressInUse),
            allocated => allocated,
        }
    }

    /// The address that the client asks for, if its user may have it and it is free; the one that it held is free then.
    pub(super) async fn choose(
        &mut self,
        call: CallRef,
        held: Ipv4Addr,
        asked: Ipv4Addr,
    ) -> Option<Ipv4Addr> {
        let Shared { pools, clock, .. } = &*self.shared;
        let mut accounts = self.accounts.iter();
        let account = accounts.find(|account| account.call == call)?;
        let exchanged = pools.exchange(&account.user, held, asked, &account.addresses, clock.now());
        exchanged.await.then_some(asked)
    }

    /// The call's login is over.
    pub(super) fn withdraw(&mut self, call: CallRef) {
        let rivals = &self.shared.rivals;
        self.accounts.retain(|account| {
            let ours = account.call == call;
            if ours {
                rivals.leave(&account.user, call);
            }
            !ours
        });
        self.unlimit(call);
    }
}
