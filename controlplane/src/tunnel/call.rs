//! One call of a tunnel: its place, its PPP, its end.

mod live;

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::VecDeque;

use ipnet::Ipv4Net;
use turnpike_dataplane::api::{
    CallCounters, CallRef, Command, Encryption, Forward, FrameBytes, Mppe,
};
use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::packet::is_echo_request;
use turnpike_protocol::ppp::{
    self, CloseReason, End, Grant, Link, MppeRefusal, PhaseName, ServerLink, Terms, Timing, Verdict,
};
use turnpike_protocol::{CallId, Time};

use super::action::{Action, Ended, Notice};
use super::ipv6::Link6;
use super::snapshot::{Snapshot, Stage};
use super::{Placement, Refusal, Settings};
use crate::aaa::printable;
use crate::cause::Cause;
use crate::dhcp6::Dhcp6;
use crate::inform::Inform;

use live::close_reason;
#[cfg(test)]
pub(super) use live::is_about_encryption;

/// How long the client may take to begin PPP before we do. It hears of its call by TCP and may not listen to GRE yet:
/// a first frame of ours that it misses would cost a whole Restart timer, and most clients begin at once anyway.
const COURTESY: Duration = Duration::from_millis(100);

/// How often a client may mend a wrong name or password in one call, where the verdict lets it at all.
const RETRIES: u8 = 3;

/// How long a call says nothing when another may have its client's id: as long as most logins take.
const HUSH: Duration = Duration::from_secs(10);

/// How long after that it is left alone: behind one address many may dial with the same id.
const HUSH_APART: Duration = Duration::from_secs(60);

/// How long the first GRE packet may take, where the whole set-up may take longer. Clients begin at once and repeat
/// themselves.
const HEAR_BY: Duration = Duration::from_secs(30);

pub(super) struct Call {
    peer_id: CallId,
    /// The receive window that the client is told, in packets.
    window: u16,
    state: State,
}

enum State {
    /// An id and a next hop are looked for.
    Placing,
    Live(Box<Live>),
    /// The worker has been told to forget the call.
    Closing {
        since: Time,
        ended: Box<Ended>,
    },
}

struct Live {
    call: CallRef,
    via: Ipv4Addr,
    /// Whether the client cannot have encryption.
    denies_mppe: bool,
    link: Link,
    since: Time,
    /// When we begin PPP if the client does not; `None` once PPP has begun.
    begin_at: Option<Time>,
    /// When the first frame of the client must have come; `None` once one has. After that PPP has its own limit.
    hear_by: Option<Time>,
    /// Until when nothing is said ([`Call::hush`]).
    hushed: Option<Time>,
    /// GRE packets of the client, as the worker counted them the last time.
    gre_received: u64,
    user: Option<String>,
    address: Option<Ipv4Addr>,
    /// The address that is routed into the call.
    route: Option<Ipv4Addr>,
    /// Octets of the largest packet that we may send into the call.
    mtu: u16,
    ipv6: Option<Box<Link6>>,
    /// Tells the times of its router from those of others.
    jitter: u64,
    up_since: Option<Time>,
    /// It has come up for the first time, and the control connection does not know it yet.
    tell_up: bool,
    /// The user as given with the credentials that are being judged.
    applicant: String,
    /// The first reason to end that is not the link's own.
    cause: Option<Cause>,
    /// Why the last login was refused; the link may still allow another.
    refused: Option<Cause>,
}

impl Call {
    pub(super) fn new(peer_id: CallId, window: u16) -> Self {
        Self {
            peer_id,
            window,
            state: State::Placing,
        }
    }

    pub(super) fn peer_id(&self) -> CallId {
        self.peer_id
    }

    pub(super) fn is_placing(&self) -> bool {
        matches!(self.state, State::Placing)
    }

    /// Whether it is neither being placed nor being forgotten.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// What workers call it; `None` before it was placed.
    pub(super) fn name(&self) -> Option<CallRef> {
        match &self.state {
            State::Placing => None,
            State::Live(live) => Some(live.call),
            State::Closing { ended, .. } => Some(ended.call),
        }
    }

    /// The call has an id: the worker hears of it first.
    pub(super) fn place(
        &mut self,
        placement: Placement,
        settings: &Settings,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        let Placement { call, via, seed } = placement;
        actions.push_back(Action::data(Command::Open {
            call,
            peer_id: self.peer_id,
            via,
            window: self.window,
        }));
        let config = ServerLink {
            name: settings.name.clone().into_bytes(),
            mtu: settings.mtu,
            mppe: settings.mppe,
            methods: settings.login.methods.clone(),
            retries: RETRIES,
            rechallenge: settings.login.rechallenge,
            mppe_allowed: settings.mppe_allowed,
            choice: true,
            timing: Timing {
                echo_interval: Some(settings.echo_interval),
                set_up: Some(settings.setup_time),
                ..Timing::default()
            },
        };
        self.state = State::Live(Box::new(Live {
            call,
            via,
            denies_mppe: settings.mppe == Policy::Deny,
            link: Link::server(config, seed, now),
            since: now,
            begin_at: None,
            hear_by: Some(now + settings.setup_time.min(HEAR_BY)),
            hushed: None,
            gre_received: 0,
            user: None,
            address: None,
            route: None,
            mtu: 0,
            ipv6: None,
            jitter: seed.iter().fold(0, |jitter: u64, octet| {
                jitter.rotate_left(8) ^ u64::from(*octet)
            }),
            up_since: None,
            tell_up: false,
            applicant: String::new(),
            cause: None,
            refused: None,
        }));
    }

    /// The client has been told its id: PPP may begin, by its first frame or soon by ours.
    pub(super) fn start(&mut self, now: Time) {
        if let State::Live(live) = &mut self.state {
            live.begin_at = Some(now + COURTESY);
        }
    }

    pub(super) fn frame(&mut self, frame: &[u8], now: Time) {
        if let State::Live(live) = &mut self.state {
            live.hear_by = None;
            live.begin(now);
            live.link.handle_frame(frame, now);
        }
    }

    /// What the worker has counted.
    pub(super) fn counted(&mut self, counters: &CallCounters) {
        if let State::Live(live) = &mut self.state
            && counters.gre_received > live.gre_received
        {
            live.gre_received = counters.gre_received;
            live.link.heard();
        }
    }

    /// What goes out for this call may reach a newer one of its client: nothing does for a moment.
    pub(super) fn hush(&mut self, now: Time) {
        if let State::Live(live) = &mut self.state
            && live.up_since.is_some()
            && live.hushed.is_none_or(|until| until + HUSH_APART <= now)
        {
            let until = now + HUSH;
            live.hushed = Some(until);
            live.link.postpone_echo(until);
        }
    }

    /// Sends an echo beside those that come by the clock.
    pub(super) fn probe(&mut self, actions: &mut VecDeque<Action>) {
        if let State::Live(live) = &mut self.state
            && let Some(frame) = live.link.probe()
            && let Some(frame) = FrameBytes::new(&frame)
        {
            let call = live.call;
            actions.push_back(Action::data(Command::Send { call, frame }));
        }
    }

    /// The client asks us something inside the call.
    pub(super) fn inner(&mut self, packet: &[u8], inform: &Inform, actions: &mut VecDeque<Action>) {
        let State::Live(live) = &self.state else {
            return;
        };
        let Some(address) = live.route else { return };
        let call = live.call;
        let answer = inform.answer(packet, address, live.mtu);
        actions.push_back(Action::Notice(Notice::Informed {
            call,
            fault: answer.as_ref().err().copied(),
        }));
        // An answer is no longer than the call's MTU, so it fits.
        if let Some(packet) = answer.ok().and_then(|answer| FrameBytes::new(&answer)) {
            actions.push_back(Action::data(Command::SendInner { call, packet }));
        }
    }

    /// The same by IPv6.
    pub(super) fn inner6(
        &mut self,
        packet: &[u8],
        dhcp6: Option<&Dhcp6>,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) {
        if let State::Live(live) = &mut self.state
            && let Some(ipv6) = &mut live.ipv6
        {
            ipv6.receive(live.call, packet, dhcp6, now, actions);
        }
    }

    pub(super) fn verdict(
        &mut self,
        verdict: Result<Grant, Refusal>,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> bool {
        let State::Live(live) = &mut self.state else {
            return false;
        };
        match verdict {
            Ok(grant) => {
                let (address, ipv6) = (grant.address, grant.ipv6);
                if !live.link.verdict(Verdict::Accept(grant), now) {
                    return false;
                }
                live.refused = None;
                live.user = Some(std::mem::take(&mut live.applicant));
                live.address = Some(address);
                // None with a login that is only repeated in mid-call.
                if let Some(grant) = ipv6 {
                    live.ipv6 = Some(Box::new(Link6::new(grant, live.jitter)));
                }
            }
            Err(Refusal {
                code,
                cause,
                remedy,
            }) => {
                let message = cause.text().to_owned();
                match code {
                    Some(code) => {
                        let verdict = Verdict::Reject {
                            code,
                            message,
                            remedy,
                        };
                        if !live.link.verdict(verdict, now) {
                            return false;
                        }
                        live.refused = Some(cause);
                    }
                    None => {
                        live.cause.get_or_insert(cause);
                        live.link.close(close_reason(cause), now);
                    }
                }
                actions.push_back(Action::Notice(Notice::LoginFailed {
                    call: live.call,
                    user: std::mem::take(&mut live.applicant),
                    code,
                    cause,
                }));
            }
        }
        true
    }

    /// The client has this address instead of the one that it held; `None`: it stays with that.
    pub(super) fn chosen(&mut self, address: Option<Ipv4Addr>, now: Time) {
        if let State::Live(live) = &mut self.state {
            live.address = address.or(live.address);
            live.link.chosen(address.is_some(), now);
        }
    }

    /// PPP says goodbye; [`Call::pump`] answers when it has.
    pub(super) fn close(&mut self, cause: Cause, now: Time) {
        if let State::Live(live) = &mut self.state {
            live.cause.get_or_insert(cause);
            live.begin(now);
            live.link.close(close_reason(cause), now);
        }
    }

    pub(super) fn reroute(&mut self, via: Ipv4Addr, actions: &mut VecDeque<Action>) {
        if let State::Live(live) = &mut self.state
            && live.via != via
        {
            live.via = via;
            let call = live.call;
            actions.push_back(Action::data(Command::Via { call, via }));
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Live(live) => {
                let link = live.begin_at.or_else(|| live.link.deadline());
                let ipv6 = live.ipv6.as_deref().and_then(Link6::deadline);
                link.into_iter().chain(live.hear_by).chain(ipv6).min()
            }
            State::Placing | State::Closing { .. } => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        let State::Live(live) = &mut self.state else {
            return;
        };
        if live.begin_at.is_some_and(|at| at <= now) {
            live.begin(now);
        }
        if live.link.deadline().is_some_and(|at| at <= now) {
            live.link.handle_timeout(now);
        }
        if let Some(ipv6) = &mut live.ipv6 {
            ipv6.handle_timeout(now);
        }
    }

    /// Turns what PPP wants into actions; answers with the cause when PPP is over.
    pub(super) fn pump(&mut self, now: Time, actions: &mut VecDeque<Action>) -> Option<Cause> {
        let State::Live(live) = &mut self.state else {
            return None;
        };
        let call = live.call;
        // Nobody is there to say goodbye to.
        if live.hear_by.is_some_and(|at| at <= now) {
            return Some(Cause::NoGre);
        }
        while let Some(action) = live.link.poll() {
            match action {
                ppp::Action::Send(frame) => {
                    // Lost like any other frame: what matters is said again.
                    if live.hushed.is_some_and(|until| now < until) {
                        continue;
                    }
                    // The link keeps to the peer's MRU, so every frame fits.
                    if let Some(frame) = FrameBytes::new(&frame) {
                        // On a busy path echoes may be the first to be lost. Whether anything else has come since the
                        // last one is known to the worker.
                        if is_echo_request(&frame) {
                            actions.push_back(Action::data(Command::Query { call }));
                        }
                        actions.push_back(Action::data(Command::Send { call, frame }));
                    }
                }
                ppp::Action::Load {
                    direction,
                    identifier,
                    key,
                    mode,
                } => actions.push_back(Action::data(Command::Secure {
                    call,
                    direction,
                    identifier,
                    key,
                    mode,
                })),
                ppp::Action::Authenticate(credentials) if live.link.is_authenticated() => {
                    live.applicant = printable(credentials.name());
                    actions.push_back(Action::Authenticate {
                        call,
                        credentials,
                        holds: live.address,
                    });
                }
                ppp::Action::Authenticate(credentials) => {
                    // LCP was negotiated anew: what the last login got goes back first, or a fixed address would be
                    // in use by this very call.
                    if let Some(route) = live.route.take() {
                        actions.push_back(Action::Cease(call));
                        let prefix = Ipv4Net::from(route);
                        actions.push_back(Action::data(Command::Unroute { prefix }));
                    }
                    if let Some(address) = live.address.take() {
                        actions.push_back(Action::Release { call, address });
                    }
                    if let Some(mut ipv6) = live.ipv6.take() {
                        ipv6.unroute(actions);
                        actions.push_back(Action::Release6(ipv6.grant()));
                    }
                    live.user = None;
                    live.refused = None;
                    live.applicant = printable(credentials.name());
                    actions.push_back(Action::Authenticate {
                        call,
                        credentials,
                        holds: None,
                    });
                }
                ppp::Action::Choose(asked) => match live.address {
                    Some(held) => actions.push_back(Action::Choose { call, held, asked }),
                    None => live.link.chosen(false, now),
                },
                ppp::Action::Up(terms) => live.up(&terms, now, actions),
                ppp::Action::Hold => actions.push_back(Action::data(Command::Hold { call })),
                ppp::Action::Up6(terms) => {
                    if let Some(ipv6) = &mut live.ipv6 {
                        ipv6.up(call, &terms, now, actions);
                    }
                }
                ppp::Action::Hold6 => {
                    if let Some(ipv6) = &mut live.ipv6 {
                        ipv6.hold(call, actions);
                    }
                }
                ppp::Action::Finished(end) => return Some(live.cause_of(&end)),
            }
        }
        if let Some(ipv6) = &mut live.ipv6 {
            ipv6.pump(call, actions);
        }
        None
    }

    /// Our id of the call when data could flow for the first time since the last time this was asked.
    pub(super) fn take_up(&mut self) -> Option<CallId> {
        match &mut self.state {
            State::Live(live) => core::mem::take(&mut live.tell_up).then_some(live.call.id),
            State::Placing | State::Closing { .. } => None,
        }
    }

    /// Takes the routes back and tells the worker to forget the call. Answers with the cause that stands; `None`
    /// when this has been done before.
    pub(super) fn end(
        &mut self,
        cause: Cause,
        now: Time,
        actions: &mut VecDeque<Action>,
    ) -> Option<Cause> {
        let State::Live(live) = &mut self.state else {
            return None;
        };
        let cause = live.final_cause(cause);
        if let Some(address) = live.route.take() {
            actions.push_back(Action::data(Command::Unroute {
                prefix: Ipv4Net::from(address),
            }));
        }
        if let Some(ipv6) = &mut live.ipv6 {
            ipv6.unroute(actions);
        }
        let call = live.call;
        actions.push_back(Action::data(Command::Close { call }));
        let ended = Ended {
            call,
            cause,
            counters: CallCounters::default(),
            user: live.user.take(),
            address: live.address,
            ipv6: live.ipv6.as_deref().map(Link6::grant),
            up: live.up_since.map(|since| now.since(since)),
        };
        let since = live.since;
        self.state = State::Closing {
            since,
            ended: Box::new(ended),
        };
        Some(cause)
    }

    /// The worker has forgotten the call.
    pub(super) fn ended(self, counters: CallCounters) -> Option<Ended> {
        match self.state {
            State::Closing { ended, .. } => Some(Ended { counters, ..*ended }),
            State::Placing | State::Live(_) => None,
        }
    }

    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let peer_id = self.peer_id;
        match &self.state {
            State::Placing => None,
            State::Live(live) => {
                let link = live.link.info();
                Some(Snapshot {
                    call: live.call,
                    peer_id,
                    stage: match link.phase {
                        PhaseName::Dead | PhaseName::Establish => Stage::Establishing,
                        PhaseName::Authenticate => Stage::Authenticating,
                        PhaseName::Network => Stage::Network,
                        PhaseName::Up => Stage::Up,
                        PhaseName::Terminate => Stage::Ending,
                    },
                    since: live.since,
                    user: live.user.clone(),
                    address: live.address,
                    ipv6: live
                        .ipv6
                        .as_deref()
                        .filter(|_| link.ipv6.is_some())
                        .map(Link6::grant),
                    link: Some(link),
                })
            }
            State::Closing { since, ended } => Some(Snapshot {
                call: ended.call,
                peer_id,
                stage: Stage::Ending,
                since: *since,
                user: ended.user.clone(),
                address: ended.address,
                ipv6: None,
                link: None,
            }),
        }
    }
}
