//! Calls that may last, or carry nothing, for so long only.

use core::time::Duration;

use tokio::time::Instant;
use turnpike_dataplane::api::{CallCounters, CallRef};

use super::Driver;
use crate::aaa::Entitlements;
use crate::cause::Cause;

/// How often the worker is asked at most what an idle call has carried.
const LOOK: Duration = Duration::from_secs(1);

/// The limits of one call.
pub(super) struct Timeouts {
    call: CallRef,
    /// When it has lasted for long enough.
    end: Option<Instant>,
    idle: Option<Idle>,
}

struct Idle {
    limit: Duration,
    /// Inner packets carried both ways, as they were counted when that changed last.
    carried: u64,
    /// When it did, as far as we know.
    since: Instant,
    /// When the worker is asked next.
    look: Instant,
}

impl Idle {
    /// The worker is asked twenty times in the limit, but once in a second at most. Three of these may pass before a call that
    /// is idle for long enough ends: one until that is seen to begin, one more for the last answer, one until the next look.
    fn interval(&self) -> Duration {
        (self.limit / 20).max(LOOK.min(self.limit))
    }
}

impl Timeouts {
    /// When something has to be done about it.
    pub(super) fn due(&self) -> Instant {
        let look = self.idle.as_ref().map(|idle| idle.look);
        // One of them is there.
        self.end
            .into_iter()
            .chain(look)
            .min()
            .unwrap_or_else(Instant::now)
    }
}

impl Driver {
    /// A call that logs in has these limits from now on.
    pub(super) fn limit(&mut self, call: CallRef, own: &Entitlements) {
        let now = Instant::now();
        let idle = own.idle_timeout.map(|limit| {
            let mut idle = Idle {
                limit,
                carried: 0,
                since: now,
                look: now,
            };
            idle.look += idle.interval();
            idle
        });
        let end = own.session_timeout.map(|limit| now + limit);
        if end.is_some() || idle.is_some() {
            self.timeouts.reserve_exact(1);
            self.timeouts.push(Timeouts { call, end, idle });
        }
    }

    /// The call's login is over.
    pub(super) fn unlimit(&mut self, call: CallRef) {
        self.timeouts.retain(|timeouts| timeouts.call != call);
    }

    /// The worker says what a call has carried.
    pub(super) fn active(&mut self, call: CallRef, counters: &CallCounters) {
        let ours = self.timeouts.iter_mut().find(|other| other.call == call);
        if let Some(idle) = ours.and_then(|timeouts| timeouts.idle.as_mut()) {
            let carried = counters.received_packets + counters.sent_packets;
            if carried != idle.carried {
                idle.carried = carried;
                idle.since = Instant::now();
            }
        }
    }

    /// Ends the calls whose time is over, and has the worker asked about those that may be idle.
    pub(super) fn time_out(&mut self, now: Instant) {
        let mut over = Vec::new();
        for timeouts in &mut self.timeouts {
            let call = timeouts.call;
            if timeouts.end.is_some_and(|end| end <= now) {
                over.push((call, Cause::SessionTimeout));
                continue;
            }
            let Some(idle) = timeouts.idle.as_mut().filter(|idle| idle.look <= now) else {
                continue;
            };
            // Only what was asked after the limit can say that nothing came until then.
            if now >= idle.since + idle.limit + idle.interval() {
                over.push((call, Cause::IdleTimeout));
            } else {
                idle.look = now + idle.interval();
                self.tunnel.query(call);
            }
        }
        for (call, cause) in over {
            self.unlimit(call);
            self.tunnel.kill(call, cause, self.shared.clock.now());
        }
    }
}
