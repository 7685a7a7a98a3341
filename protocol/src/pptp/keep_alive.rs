//! Echo-Request when nothing came for a while (RFC 2637 §3.1.4).

use core::time::Duration;

use crate::time::Time;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Send an Echo-Request with this identifier.
    Ask(u32),
    /// The last one was not answered in time.
    Dead,
}

/// Timers of one side. Plain data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    deadline: Time,
    asked: bool,
    identifier: u32,
}

impl KeepAlive {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Time) -> Self {
        Self {
            interval,
            timeout,
            deadline: now + interval,
            asked: false,
            identifier: 0,
        }
    }

    /// Any message proves that the path works.
    pub(super) fn heard(&mut self, now: Time) {
        self.asked = false;
        self.deadline = now + self.interval;
    }

    pub(super) const fn deadline(&self) -> Time {
        self.deadline
    }

    /// Asks at once, and gives the peer no longer than `patience`: identifier of the Echo-Request to send. Also while one is on
    /// its way: a machine that has acknowledged that and then lost its power says nothing to it any more, and only
    /// to the next one that it does not know the connection.
    pub(super) fn prove(&mut self, patience: Duration, now: Time) -> u32 {
        let by = now + patience;
        self.deadline = if self.asked {
            self.deadline.min(by)
        } else {
            by
        };
        self.asked = true;
        self.identifier = self.identifier.wrapping_add(1);
        self.identifier
    }

    /// The peer lives, as was seen elsewhere: what was asked has its usual time again.
    pub(super) fn trust(&mut self, now: Time) {
        if self.asked {
            self.deadline = self.deadline.max(now + self.timeout);
        }
    }

    pub(super) fn poll(&mut self, now: Time) -> Due {
        if now < self.deadline {
            return Due::Nothing;
        }
        if self.asked {
            return Due::Dead;
        }
        self.asked = true;
        self.deadline = now + self.timeout;
        self.identifier = self.identifier.wrapping_add(1);
        Due::Ask(self.identifier)
    }
}
