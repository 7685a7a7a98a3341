//! The sessions there are, as accounting sees them: when each began, when it is looked at next, and what is written of it.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use tracing::{error, info, warn};
use turnpike_dataplane::api::{CallCounters, CallRef};
use turnpike_protocol::Time;
use turnpike_protocol::ppp::Ipv6Grant;

use super::clerk::{Clerk, Health, Receipt};
use super::ledger::{Error, Ledger};
use super::record::{Authentic, Entry, Facts, Moment, SessionId, Traffic};
use super::station::Stations;
use crate::aaa::Entitlements;
use crate::cause::Cause;
use crate::config::Accounting;
use crate::driver::Clock;

/// How long a call waits for the disk before its client is told that it may send. Where accounting is not mandatory it
/// then goes on.
const PATIENCE: Duration = Duration::from_secs(1);
const LONG_PATIENCE: Duration = Duration::from_secs(10);

/// How long calls that are up outlive a ledger that takes nothing, where accounting is mandatory.
pub const GRACE: Duration = Duration::from_secs(30);

/// How often it is looked which sessions are due.
const ROUND: Duration = Duration::from_millis(500);

/// Sessions looked at in one round, and at the same time.
const DUE: usize = 8192;
const QUERIES: usize = 64;

/// A session that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begun {
    /// The call.
    pub call: CallRef,
    /// The user.
    pub user: String,
    /// The client's inner address.
    pub address: Ipv4Addr,
    /// The prefixes that it was given.
    pub ipv6: Option<Ipv6Grant>,
}

/// A session that is open. As small as can be: there is one for each call.
struct Open {
    id: SessionId,
    since: Time,
    /// When it is looked at next; also its place in [`State::due`].
    due: Time,
    checkpoint_at: Time,
    /// Seconds between Interim records, and when the next is due.
    interim: Option<(u32, Time)>,
    /// Where the call's counters stood when the session began, unless at 0.
    base: Option<Box<Traffic>>,
}

#[derive(Default)]
struct State {
    /// Sessions that this start of the server has numbered.
    count: u32,
    open: HashMap<CallRef, Open>,
    /// The sessions by when they are due: who is to be looked at stands in front.
    due: BTreeSet<(Time, CallRef)>,
    /// Counters of calls whose session is over while the call goes on.
    bases: HashMap<CallRef, Traffic>,
    /// Names that were refused, of calls that are not over yet.
    refused: HashMap<CallRef, String>,
}

/// What tunnels tell of their sessions goes through here to the ledger.
pub struct Books {
    clerk: Clerk,
    boot: u32,
    checkpoint: Duration,
    interim: Option<Duration>,
    failures: bool,
    mandatory: bool,
    stations: Stations,
    /// Our name.
    name: String,
    state: Mutex<State>,
}

impl Books {
    /// Opens the ledger, gives sessions that a crash left open their end, and starts to write. `spools`: somebody will
    /// fetch records and deliver them.
    ///
    /// # Errors
    /// When the file cannot be opened or made.
    pub fn open(config: &Accounting, name: &str, spools: bool) -> Result<Self, Error> {
        let now = Moment::now();
        let (mut ledger, broken) = Ledger::open_anew(&config.file, spools, now)?;
        if let Some(aside) = broken {
            error!(
                "accounting: {} was broken and is now {}; what is in it was not delivered, and `turnpike history` does \
                 not show it",
                config.file.display(),
                aside.display()
            );
        }
        // What cannot be written now is no reason not to serve: it is found again by the next start.
        match ledger.end_open(Cause::ServerCrashed, None) {
            Ok(0) => {}
            Ok(sessions) => warn!(
                sessions,
                "the server crashed or was killed: sessions that were up have their end now, with their last counters"
            ),
            Err(error) => error!("accounting: sessions of before cannot be ended: {error}"),
        }
        let boot = ledger.boot();
        let source = |source| Error::Open {
            path: config.file.clone(),
            source,
        };
        let clerk = Clerk::start(ledger, config.keep).map_err(source)?;
        drop(clerk.enter(Entry::On { at: now }));
        Ok(Self {
            clerk,
            boot,
            checkpoint: config.checkpoint,
            interim: config.interim,
            failures: config.failures,
            mandatory: config.mandatory,
            stations: config.stations.clone(),
            name: name.to_owned(),
            state: Mutex::default(),
        })
    }

    /// The thread that writes.
    pub fn clerk(&self) -> &Clerk {
        &self.clerk
    }

    /// Whether somebody may log in now.
    ///
    /// # Errors
    /// The cause to refuse with.
    pub fn admit(&self) -> Result<(), Cause> {
        match self.clerk.health() {
            Health::Failing(_) if self.mandatory => Err(Cause::AccountingFailed),
            _ => Ok(()),
        }
    }

    /// Whether calls have to end because what they do cannot be written.
    pub fn is_overdue(&self) -> bool {
        let failing = match self.clerk.health() {
            Health::Failing(since) => since.elapsed() > GRACE,
            Health::Good => false,
        };
        self.mandatory && failing
    }

    /// A session begins: one user has one address from now on. Returns when that is on the disk, as long as that takes a
    /// moment only.
    ///
    /// # Errors
    /// The cause to end the call with, where it must not be without.
    pub async fn begin(&self, begun: &Begun, now: Time) -> Result<(), Cause> {
        self.begin_with(begun, None, now).await
    }

    /// The same of a user whom a RADIUS server let in, with what it said of the call.
    ///
    /// # Errors
    /// The cause to end the call with, where it must not be without.
    pub async fn begin_with(
        &self,
        begun: &Begun,
        own: Option<&Entitlements>,
        now: Time,
    ) -> Result<(), Cause> {
        let receipt = self.enter_begin(begun, own, now, Moment::now());
        let patience = match (self.mandatory, self.clerk.health()) {
            (true, _) => LONG_PATIENCE,
            (false, Health::Good) => PATIENCE,
            (false, Health::Failing(_)) => return Ok(()),
        };
        match tokio::time::timeout(patience, receipt).await {
            Ok(Ok(())) => Ok(()),
            _ if self.mandatory => Err(Cause::AccountingFailed),
            _ => Ok(()),
        }
    }

    fn enter_begin(
        &self,
        begun: &Begun,
        own: Option<&Entitlements>,
        now: Time,
        at: Moment,
    ) -> Receipt {
        let call = begun.call;
        let mut state = self.state();
        let id = self.number(&mut state);
        state.refused.remove(&call);
        let base = state.bases.remove(&call).map(Box::new);
        let checkpoint_at = now + self.checkpoint.mul_f64(0.1 + 0.9 * share(id.0, 0));
        let interim = own.and_then(|own| own.interim).or(self.interim);
        let interim = interim.map(|interval| {
            // Those who came together, as after a power cut, go apart at once.
            let first = interval.mul_f64(0.5 + 0.5 * share(id.0, 1));
            let seconds = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX);
            (seconds, now + first)
        });
        let open = Open {
            id,
            since: now,
            due: now,
            checkpoint_at,
            interim,
            base,
        };
        if let Some(before) = state.open.insert(call, open) {
            state.due.remove(&(before.due, call));
        }
        schedule(&mut state, call, now);
        let mut facts = self.facts(call, begun.user.clone(), Some(begun.address), begun.ipv6);
        if let Some(own) = own {
            facts.authentic = Authentic::Radius;
            facts.class.clone_from(&own.class);
        }
        // Under the lock, so that nothing about the session is written before it.
        self.clerk.enter(Entry::Begin { id, facts, at })
    }

    /// The call goes on without its user and address: its client begins anew. `counters` are the call's now.
    pub fn cease(&self, call: CallRef, counters: Option<&CallCounters>, now: Time) {
        let mut state = self.state();
        let Some(open) = close(&mut state, call) else {
            return;
        };
        let traffic = counters.map_or_else(Traffic::default, Traffic::from);
        state.bases.insert(call, traffic);
        drop(self.clerk.enter(end(&open, traffic, Cause::HungUp, now)));
    }

    /// A call is over; `counters` are its last.
    pub fn end(
        &self,
        call: CallRef,
        user: Option<&str>,
        cause: Cause,
        counters: &CallCounters,
        now: Time,
    ) {
        let mut state = self.state();
        let ceased = state.bases.remove(&call).is_some();
        let refused = state.refused.remove(&call);
        if let Some(open) = close(&mut state, call) {
            let traffic = Traffic::from(counters);
            drop(self.clerk.enter(end(&open, traffic, cause, now)));
        } else if self.failures && !ceased {
            let id = self.number(&mut state);
            let user = user.map(str::to_owned).or(refused).unwrap_or_default();
            let entry = Entry::Failed {
                id,
                facts: self.facts(call, user, None, None),
                at: Moment::now(),
                cause,
            };
            drop(self.clerk.enter(entry));
        }
    }

    /// A login was refused; its call is still there.
    pub fn refused(&self, call: CallRef, user: &str) {
        if self.failures {
            self.state().refused.insert(call, user.to_owned());
        }
    }

    /// The sessions that are to be looked at.
    pub fn due(&self, now: Time) -> Vec<CallRef> {
        let mut state = self.state();
        let mut calls = Vec::new();
        while calls.len() < DUE
            && state.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, call)) = state.due.pop_first()
        {
            if let Some(open) = state.open.get_mut(&call) {
                open.checkpoint_at = now + self.checkpoint;
            }
            // It is due again whether its worker answers or not.
            schedule(&mut state, call, now);
            calls.push(call);
        }
        calls
    }

    /// A session was looked at.
    pub fn reading(&self, call: CallRef, counters: &CallCounters, now: Time) {
        let mut state = self.state();
        let Some(open) = state.open.get_mut(&call) else {
            return;
        };
        let traffic =
            Traffic::from(counters).since(open.base.as_deref().copied().unwrap_or_default());
        let id = open.id;
        let session_time = seconds(open.since, now);
        let interim = match &mut open.interim {
            Some((interval, at)) if *at <= now => {
                let jitter = 0.95 + 0.1 * share(id.0, u64::from(session_time) + 2);
                *at = now + Duration::from_secs((*interval).into()).mul_f64(jitter);
                true
            }
            _ => false,
        };
        schedule(&mut state, call, now);
        drop(self.clerk.enter(Entry::Reading {
            id,
            at: Moment::now(),
            session_time,
            traffic,
            interim,
        }));
    }

    /// Looks at sessions when they are due, until dropped. `query` asks for a call's counters.
    pub async fn keep<F: Future<Output = Option<CallCounters>>>(
        &self,
        clock: Clock,
        query: impl Fn(CallRef) -> F,
    ) {
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            let calls = self.due(clock.now());
            futures_util::stream::iter(calls)
                .for_each_concurrent(QUERIES, async |call| {
                    if let Some(counters) = query(call).await {
                        self.reading(call, &counters, clock.now());
                    }
                })
                .await;
        }
    }

    /// The session of a call that has one.
    pub fn session(&self, call: CallRef) -> Option<SessionId> {
        self.state().open.get(&call).map(|open| open.id)
    }

    /// Writes everything down, and ends: sessions that are still open end now, with the counters that were written
    /// last. Blocks as long as the disk does.
    pub fn close(&self) {
        let Some(mut ledger) = self.clerk.close() else {
            return;
        };
        let now = Moment::now();
        let closed = ledger
            .end_open(Cause::ServerStopping, Some(now))
            .and_then(|sessions| {
                ledger.enter(&[Entry::Off { at: now }], now)?;
                Ok(sessions)
            });
        match closed {
            Ok(0) => {}
            Ok(sessions) => info!(
                sessions,
                "accounting: calls that did not end have their end now"
            ),
            Err(error) => error!("accounting: the end of the server cannot be written: {error}"),
        }
    }

    fn number(&self, state: &mut State) -> SessionId {
        state.count = state.count.wrapping_add(1);
        SessionId((u64::from(self.boot) << 32) | u64::from(state.count))
    }

    fn facts(
        &self,
        call: CallRef,
        user: String,
        address: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Grant>,
    ) -> Box<Facts> {
        let of = |template: &super::station::Template| template.of(call, &self.name);
        Box::new(Facts {
            user,
            client: call.peer,
            server: call.local,
            address,
            prefix: ipv6.map(|grant| grant.prefix),
            delegated: ipv6.and_then(|grant| grant.delegated),
            calling_station: of(&self.stations.calling),
            called_station: of(&self.stations.called),
            nas_port: self.stations.port(call),
            nas_port_id: of(&self.stations.nas_port_id),
            authentic: Authentic::Local,
            class: Vec::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole between any two statements.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Takes a session out.
fn close(state: &mut State, call: CallRef) -> Option<Open> {
    let open = state.open.remove(&call)?;
    state.due.remove(&(open.due, call));
    Some(open)
}

/// Puts a session where it belongs among those that are due. An Interim that is late waits for the next reading.
fn schedule(state: &mut State, call: CallRef, now: Time) {
    let State { open, due, .. } = state;
    let Some(open) = open.get_mut(&call) else {
        return;
    };
    due.remove(&(open.due, call));
    let interim = open.interim.map(|(_, at)| at).filter(|at| *at > now);
    open.due = interim.map_or(open.checkpoint_at, |at| at.min(open.checkpoint_at));
    due.insert((open.due, call));
}

fn end(open: &Open, traffic: Traffic, cause: Cause, now: Time) -> Entry {
    Entry::End {
        id: open.id,
        at: Moment::now(),
        session_time: seconds(open.since, now),
        traffic: traffic.since(open.base.as_deref().copied().unwrap_or_default()),
        cause,
    }
}

fn seconds(since: Time, now: Time) -> u32 {
    u32::try_from(now.since(since).as_secs()).unwrap_or(u32::MAX)
}

/// A number from 0 to 1 that differs from session to session and from one `turn` to the next (splitmix64).
fn share(id: u64, turn: u64) -> f64 {
    let mut mixed = id ^ turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// Accounting where there is any.
pub type Kept = Option<Arc<Books>>;

#[cfg(test)]
mod tests;
