//! When a link wants to be called again, and what it does then: a closed list of timers.

use super::{Action, End, Link, Phase, PhaseName};
use crate::Time;
use crate::ppp::lcp::Due;

/// Every timer of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timer {
    /// From the start to data flowing.
    SetUp,
    /// Restart and Echo of LCP.
    Lcp,
    /// Repetition of Challenge, Response, Success or Authenticate-Request; the delay after a Failure; the next Challenge in
    /// mid-call.
    Authentication,
    /// Restart of CCP.
    Ccp,
    /// Restart of IPCP.
    Ipcp,
    /// Restart of IPV6CP.
    Ipv6cp,
    /// After the peer's Terminate-Request.
    Linger,
}

impl Timer {
    const ALL: [Self; 7] = [
        Self::SetUp,
        Self::Lcp,
        Self::Authentication,
        Self::Ccp,
        Self::Ipcp,
        Self::Ipv6cp,
        Self::Linger,
    ];
}

impl Link {
    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Time> {
        Timer::ALL
            .into_iter()
            .filter_map(|timer| self.due(timer))
            .min()
    }

    /// Fires every timer that is due.
    pub fn handle_timeout(&mut self, now: Time) {
        for timer in Timer::ALL {
            if self.due(timer).is_some_and(|due| due <= now) {
                self.fire(timer, now);
                self.settle(now);
            }
        }
    }

    fn due(&self, timer: Timer) -> Option<Time> {
        let auth = match &self.phase {
            Phase::Authenticate(auth) | Phase::Network { auth, .. } => Some(auth),
            _ => None,
        };
        let network = match &self.phase {
            Phase::Network { network, .. } => Some(network),
            _ => None,
        };
        match timer {
            Timer::SetUp => self.set_up_at,
            Timer::Lcp => match &self.phase {
                Phase::Dead | Phase::Finished => None,
                Phase::Terminate {
                    linger: Some(_), ..
                } => None,
                _ => self.lcp.deadline(),
            },
            Timer::Authentication => auth?.deadline(),
            Timer::Ccp => network?.ccp_deadline(),
            Timer::Ipcp => network?.ipcp_deadline(),
            Timer::Ipv6cp => network?.ipv6cp_deadline(),
            Timer::Linger => match self.phase {
                Phase::Terminate { linger, .. } => linger,
                _ => None,
            },
        }
    }

    fn fire(&mut self, timer: Timer, now: Time) {
        match timer {
            Timer::SetUp => {
                self.set_up_at = None;
                let phase = self.phase_name();
                self.terminate(
                    match phase {
                        PhaseName::Establish => End::NoAnswer {
                            heard: self.lcp.heard_ever(),
                        },
                        _ => End::SetUpTimeout { phase },
                    },
                    now,
                );
            }
            Timer::Lcp => match self.lcp.handle_timeout(now) {
                Due::Nothing => {}
                Due::Echo(frame) => self.actions.push_back(Action::Send(frame)),
                // Nobody is there to answer a Terminate-Request, but one is sent: perhaps only our side is deaf.
                Due::Silent(end) => {
                    self.terminate(end, now);
                    self.settle(now);
                    self.finish();
                }
            },
            Timer::Authentication => {
                let (Phase::Authenticate(auth) | Phase::Network { auth, .. }) = &mut self.phase
                else {
                    return;
                };
                let end = auth.handle_timeout(&mut self.random, now, &mut self.actions);
                if let Some(end) = end {
                    self.terminate(end, now);
                }
            }
            Timer::Ccp | Timer::Ipcp | Timer::Ipv6cp => {
                if let Phase::Network { network, .. } = &mut self.phase {
                    network.handle_timeout(now);
                }
            }
            Timer::Linger => self.finish(),
        }
    }
}
