//! What a call holds from being asked for to its end: a turn, an id, a way for its GRE, an address, prefixes.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use tokio::time::Instant;
use tracing::{debug, info, warn};
use turnpike_dataplane::api::CallRef;
use turnpike_protocol::CallId;
use turnpike_protocol::ppp::Ipv6Grant;

use super::{Driver, Way, diary, lock};
use crate::admission::{STALL, SettingUp, Waiting};
use crate::applicants::Applicant;
use crate::cause::Cause;
use crate::tunnel::{Ended, Placement};

impl Driver {
    /// A call is asked for: it is set up now or in its turn, unless there are too many of its source.
    pub(super) async fn admit(&mut self, peer_id: CallId) {
        let (_, peer) = self.tunnel.ends();
        let Ok(applicant) = self.shared.applicants.enter(peer) else {
            let now = self.shared.clock.now();
            let refusal = Err(Cause::TooManyUnauthenticated);
            return self.tunnel.placed(peer_id, refusal, now);
        };
        // Those who came first come first.
        match self.shared.admission.enter() {
            Ok(place) if self.queue.is_empty() => {
                self.let_in(peer_id, applicant, Some(place)).await;
            }
            Ok(place) => {
                let turn = Box::pin(core::future::ready(Some(place)));
                self.queue.push_back((peer_id, applicant, turn));
            }
            Err(turn) => {
                self.shared.counts.waited.add();
                self.queue.push_back((peer_id, applicant, turn));
            }
        }
    }

    /// A call's turn has come, or has not come in time.
    pub(super) async fn let_in(
        &mut self,
        peer_id: CallId,
        applicant: Applicant,
        place: Option<SettingUp>,
    ) {
        let placement = match place {
            Some(place) => self.place(peer_id, applicant, place).await,
            None => Err(Cause::TooManySettingUp),
        };
        let now = self.shared.clock.now();
        self.tunnel.placed(peer_id, placement, now);
    }

    async fn place(
        &mut self,
        peer_id: CallId,
        applicant: Applicant,
        place: SettingUp,
    ) -> Result<Placement, Cause> {
        let (local, peer) = self.tunnel.ends();
        let via = self
            .shared
            .paths
            .next_hop(peer, local)
            .await
            .map_err(|error| {
                warn!(%error, "no way back to the client");
                Cause::ServerFault
            })?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| {
            warn!(%error, "no randomness");
            Cause::ServerFault
        })?;
        let call = lock(&self.shared.calls)
            .lease(local, peer, self.shared.clock.now())
            .map_err(|_| Cause::TooManyCalls)?;
        self.shared.paths.want(via);
        let twins = &self.shared.twins;
        self.ways.reserve_exact(1);
        self.ways.push(Way {
            call,
            to: peer,
            via,
            twin: twins.enter(peer, peer_id, self.ticket.number(), &self.orders),
        });
        self.applicants.push((call, applicant));
        self.setting_up.push((call, place, Instant::now() + STALL));
        Ok(Placement { call, via, seed })
    }

    /// The prefixes of one more call. One that gets none does without IPv6.
    pub(super) fn prefixes(&self) -> Option<Ipv6Grant> {
        let prefixes = self.shared.prefixes.as_ref()?;
        let grant = lock(prefixes).grant();
        if grant.is_none() {
            self.shared.counts.ipv6_exhausted.add();
        }
        grant
    }

    /// Gives back the address of a call whose user is still known.
    pub(super) fn release(&self, call: CallRef, address: Ipv4Addr) {
        let account = self.accounts.iter().find(|account| account.call == call);
        let user = account.map_or("", |account| &account.user);
        let now = self.shared.clock.now();
        self.shared.pools.release(user, address, now);
    }

    pub(super) fn release6(&self, grant: &Ipv6Grant) {
        if let Some(prefixes) = &self.shared.prefixes {
            lock(prefixes).release(grant);
        }
    }

    pub(super) fn free(&mut self, ended: &Ended) {
        self.ways.retain(|way| {
            let ours = way.call == ended.call;
            if ours {
                self.shared.paths.unwant(way.via);
            }
            !ours
        });
        self.applicants.retain(|(call, _)| *call != ended.call);
        self.judging.retain(|judging| !judging.is_of(ended.call));
        self.setting_up.retain(|(call, ..)| *call != ended.call);
        if let Some(address) = ended.address {
            self.release(ended.call, address);
        }
        if let Some(grant) = &ended.ipv6 {
            self.release6(grant);
        }
        // After its address is back: somebody may wait for that.
        self.withdraw(ended.call);
        self.account(ended);
        lock(&self.shared.calls).free(ended.call, self.shared.clock.now());
        self.shared.counts.ended(ended.cause);
        diary::ended(ended);
    }

    /// A call's GRE comes from somewhere else than its control connection.
    pub(super) async fn bound(&mut self, call: CallRef, source: Ipv4Addr) {
        info!(call = call.id.0, %source, "GRE comes from another address than the control connection");
        if let Some(way) = self.ways.iter_mut().find(|way| way.call == call) {
            way.to = source;
        }
        self.reroute().await;
    }

    pub(super) async fn reroute(&mut self) {
        let (local, _) = self.tunnel.ends();
        for way in &mut self.ways {
            match self.shared.paths.next_hop(way.to, local).await {
                Ok(via) => {
                    if way.via != via {
                        self.shared.paths.want(via);
                        self.shared.paths.unwant(way.via);
                        way.via = via;
                    }
                    self.tunnel.reroute(way.call, via);
                }
                // Routes come and go while a routing daemon works: the old way is kept.
                Err(error) => debug!(%error, "no way to the client just now"),
            }
        }
    }
}

/// Waits for the turn of the first in the queue.
pub(super) async fn turn(queue: &mut VecDeque<(CallId, Applicant, Waiting)>) -> Option<SettingUp> {
    match queue.front_mut() {
        Some((.., turn)) => turn.await,
        None => std::future::pending().await,
    }
}
