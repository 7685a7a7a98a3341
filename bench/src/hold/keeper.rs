//! The loop that keeps calls up, and in which the monkey strikes.

use core::net::SocketAddrV4;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, Write as _};

use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use turnpike_protocol::CallId;
use turnpike_protocol::wire::ppp::Protocol;

use super::Plan;
use super::intervals::{Interval, memory_of};
use super::report::{Books, Report};
use crate::dial::Outcome;
use crate::fleet::{Fleet, Leave, News, Roster, until};
use crate::live::Live;
use crate::monkey::{Dice, Kind};
use crate::report::Origin;
use crate::tcp;

/// How long everybody may take to end after having been asked to.
const HANG_UP_LIMIT: Duration = Duration::from_secs(17);

/// How long answers to the last echoes may take, and how often those that owe one are asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// For this share of the time that a client is away after a power cut, nothing answers in its place; then Linux does, and
/// knows nothing of the connection.
const POWER_OFF: f64 = 0.9;

/// How often what is shown is renewed.
const TICK: Duration = Duration::from_millis(200);

/// Points in time count from the beginning.
type At = Duration;

/// Where one of the calls stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Dials when its timer is due.
    Away,
    /// Would dial, but as many as may are setting up.
    Waiting,
    /// Setting up.
    Dialling,
    Up,
    /// Something is negotiated anew.
    Held,
    /// Its call is over; the control connection is not.
    Leaving,
}

/// Why a call is not up that was, or would be.
#[derive(Clone, Copy)]
struct Down {
    /// The time that its caller was told to stay away does not count.
    since: At,
    by: Option<Kind>,
}

/// One of the calls, through all that happens to it.
struct Seat {
    place: Place,
    /// Its caller in the fleet.
    caller: Option<u32>,
    id: Option<CallId>,
    /// To be used again.
    keep_id: bool,
    timer: Option<At>,
    down: Option<Down>,
    /// How long to stay away after the goodbye, instead of what is usual after a loss.
    away: Option<Duration>,
    /// Times in a row that its call did not come up, or did not stay.
    failures: u32,
    tried: bool,
    answered: bool,
    dice: Dice,
}

/// How far a run has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until all have dialled once.
    Dialling,
    /// Until this time, or until told to stop.
    Working(Option<At>),
    /// Those who are not up are waited for until then.
    Returning(At),
    /// Everybody is asked for an echo until then, the next time at the second.
    Asking(At, At),
    HangingUp(At),
}

struct Keeper<'a> {
    plan: &'a Plan<'a>,
    roster: Roster,
    fleet: Fleet,
    books: Books,
    seats: Vec<Seat>,
    by_caller: HashMap<u32, usize>,
    timers: BTreeSet<(At, usize)>,
    waiting: VecDeque<usize>,
    outstanding: u32,
    up: u32,
    tried: u32,
    stage: Stage,
    /// When the piece of the run ends that is under way.
    piece_until: Option<At>,
    /// Told to end by a signal.
    stopped: bool,
    live: Live,
}

pub(super) async fn run(
    plan: &Plan<'_>,
    origin: Origin,
    server: SocketAddrV4,
) -> anyhow::Result<Outcome> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let printer = plan.printing.open()?;
    let mut keeper = Keeper::new(plan, server)?;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while keeper.step() {
        let due = keeper.due();
        tokio::select! {
            _ = interrupt.recv() => if keeper.stop() { break },
            _ = terminate.recv() => if keeper.stop() { break },
            done = keeper.fleet.turn() => done?,
            () = until(due) => {}
            _ = ticks.tick() => keeper.show(),
        }
    }
    keeper.live.bar.finish_and_clear();
    let report = keeper
        .books
        .report(origin, *server.ip(), plan, &keeper.fleet);
    printer.print(&report, Report::text)?;
    let all = plan.keeping.calls;
    Ok(if report.back == all && report.answered == all {
        Outcome::AllGood
    } else {
        Outcome::SomeFailed
    })
}

impl<'a> Keeper<'a> {
    fn new(plan: &'a Plan<'a>, server: SocketAddrV4) -> anyhow::Result<Self> {
        let (dialling, keeping) = (plan.dialling, plan.keeping);
        tcp::allow(keeping.calls);
        let mut keeper = Self {
            plan,
            roster: Roster::new(dialling)?,
            fleet: Fleet::new(server, dialling.addresses(), dialling.patience)?,
            books: Books::new()?,
            seats: Vec::new(),
            by_caller: HashMap::new(),
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
            outstanding: 0,
            up: 0,
            tried: 0,
            stage: Stage::Dialling,
            piece_until: None,
            stopped: false,
            live: live(plan.seconds),
        };
        for at in 0..keeping.calls {
            keeper.seats.push(Seat {
                place: Place::Away,
                caller: None,
                id: None,
                keep_id: false,
                timer: None,
                down: None,
                away: None,
                failures: 0,
                tried: false,
                answered: false,
                dice: Dice::new(plan.seed, at.into()),
            });
            let due = Duration::from_secs_f64(f64::from(at) / keeping.rate);
            keeper.set_timer(at as usize, Some(due));
        }
        Ok(keeper)
    }

    fn now(&self) -> At {
        self.fleet.elapsed()
    }

    /// When [`Self::step`] has something to do though nothing has come.
    fn due(&self) -> Option<tokio::time::Instant> {
        let stage = match self.stage {
            Stage::Dialling => None,
            Stage::Working(at) => at,
            Stage::Returning(at) | Stage::HangingUp(at) => Some(at),
            Stage::Asking(at, next) => Some(at.min(next)),
        };
        let timer = self.timers.first().map(|(at, _)| *at);
        let at = stage.into_iter().chain(timer).min()?;
        Some(self.fleet.instant(at))
    }

    /// Does everything that is due; false when it is all over.
    fn step(&mut self) -> bool {
        self.take_news();
        let now = self.now();
        while let Some((at, seat)) = self.timers.first().copied()
            && at <= now
        {
            self.set_timer(seat, None);
            match self.seats[seat].place {
                Place::Away => {
                    self.seats[seat].place = Place::Waiting;
                    self.waiting.push_back(seat);
                }
                Place::Up => self.strike(seat, now),
                _ => {}
            }
        }
        self.dial_who_waits();
        // What was begun here may have come to something at once.
        self.take_news();
        self.advance(self.now())
    }

    fn advance(&mut self, now: At) -> bool {
        let all = self.plan.keeping.calls;
        match self.stage {
            Stage::Dialling if self.tried == all => {
                self.books.begin(self.up, now);
                self.stage = Stage::Working(self.plan.seconds.map(|time| now + time));
                self.piece_until = self.plan.interval.map(|interval| now + interval);
                for seat in 0..self.seats.len() {
                    self.plan_strike(seat, now);
                }
            }
            Stage::Working(end) if self.stopped || end.is_some_and(|end| end <= now) => {
                self.close_piece(now, true);
                self.books.end(now);
                self.stage = Stage::Returning(now + self.plan.keeping.grace);
                for seat in 0..self.seats.len() {
                    if self.seats[seat].place == Place::Up {
                        self.set_timer(seat, None);
                    }
                }
            }
            Stage::Returning(end) if self.up == all || end <= now => {
                self.stage = Stage::Asking(now + ANSWER_LIMIT, now);
            }
            Stage::Asking(end, next) => {
                let owing = |seat: &Seat| seat.place == Place::Up && !seat.answered;
                let answered = self.seats.iter().filter(|seat| seat.answered).count();
                if next <= now {
                    let asked: Vec<u32> = (self.seats.iter())
                        .filter(|seat| owing(seat))
                        .filter_map(|seat| seat.caller)
                        .collect();
                    for caller in asked {
                        self.fleet.probe(caller);
                    }
                    self.stage = Stage::Asking(end, now + ASK_AGAIN);
                } else if end <= now || !self.seats.iter().any(owing) {
                    self.books.settled(self.up, answered as u32);
                    self.hang_up(now);
                }
            }
            Stage::HangingUp(end) => return !self.fleet.is_empty() && now < end,
            _ => {}
        }
        true
    }

    fn hang_up(&mut self, now: At) {
        self.stage = Stage::HangingUp(now + HANG_UP_LIMIT);
        self.timers.clear();
        self.waiting.clear();
        self.fleet.hang_up_all();
    }

    /// A signal: the first ends the time, the second the waiting. True the third time: leave at once.
    fn stop(&mut self) -> bool {
        let now = self.now();
        match self.stage {
            Stage::HangingUp(_) => return true,
            Stage::Working(_) => self.stopped = true,
            Stage::Dialling | Stage::Returning(_) | Stage::Asking(..) => {
                let answered = self.seats.iter().filter(|seat| seat.answered).count();
                self.books.settled(self.up, answered as u32);
                self.hang_up(now);
            }
        }
        false
    }

    fn set_timer(&mut self, seat: usize, at: Option<At>) {
        let before = core::mem::replace(&mut self.seats[seat].timer, at);
        if let Some(before) = before {
            self.timers.remove(&(before, seat));
        }
        if let Some(at) = at {
            self.timers.insert((at, seat));
        }
    }

    fn dial_who_waits(&mut self) {
        let (dialling, keeping) = (self.plan.dialling, self.plan.keeping);
        while self.outstanding < keeping.outstanding
            && let Some(at) = self.waiting.front().copied()
        {
            let seat = &mut self.seats[at];
            let kept = seat
                .id
                .filter(|id| core::mem::take(&mut seat.keep_id) && self.fleet.is_free(*id));
            // Where every id is a call's, some have to end first.
            let Some(id) = kept.or_else(|| self.fleet.free_id()) else {
                return;
            };
            self.waiting.pop_front();
            // No more than 60,000.
            let number = at as u32;
            let mut terms = self.roster.terms(number);
            terms.link.timing.echo_interval = Some(keeping.echo_interval);
            let caller = self.fleet.dial(id, dialling.address_of(number), terms);
            self.by_caller.insert(caller, at);
            seat.place = Place::Dialling;
            seat.caller = Some(caller);
            seat.id = Some(id);
            self.outstanding += 1;
            self.books.dials += 1;
        }
    }

    fn take_news(&mut self) {
        while let Some(news) = self.fleet.news() {
            let now = self.now();
            match news {
                News::Up(caller, marks) => {
                    let Some(at) = self.settled(caller) else {
                        continue;
                    };
                    self.books.came_up(marks.total());
                    self.comes_up(at, now);
                }
                News::UpAgain(caller) => {
                    if let Some(at) = self.by_caller.get(&caller).copied()
                        && self.seats[at].place == Place::Held
                    {
                        self.comes_up(at, now);
                    }
                }
                News::Held(caller) => {
                    if let Some(at) = self.by_caller.get(&caller).copied() {
                        self.goes_down(at, now, Place::Held);
                    }
                }
                News::Answered(caller, time) => {
                    self.books.answered(time);
                    if let Some(at) = self.by_caller.get(&caller).copied() {
                        self.seats[at].answered = matches!(self.stage, Stage::Asking(..));
                    }
                }
                News::Failed(caller, phase, reason) => {
                    if let Some(at) = self.settled(caller) {
                        self.seats[at].place = Place::Leaving;
                        self.seats[at].failures += 1;
                        let reason = format!("{}: {reason}", phase.name());
                        // No more than 60,000.
                        self.books.failed(self.roster.label(at as u32, reason));
                    }
                }
                News::Lost(caller, reason) => {
                    if let Some(at) = self.by_caller.get(&caller).copied() {
                        let by = self.seats[at].down.and_then(|down| down.by);
                        self.books.lost(by, self.roster.label(at as u32, reason));
                        self.goes_down(at, now, Place::Leaving);
                        self.seats[at].failures += 1;
                    }
                }
                News::Gone(caller) => {
                    if let Some(at) = self.by_caller.remove(&caller) {
                        self.gone(at, now);
                    }
                }
            }
        }
    }

    /// A set-up is over, one way or the other: whose it was.
    fn settled(&mut self, caller: u32) -> Option<usize> {
        let at = self.by_caller.get(&caller).copied()?;
        self.outstanding -= 1;
        if !core::mem::replace(&mut self.seats[at].tried, true) {
            self.tried += 1;
        }
        Some(at)
    }

    fn comes_up(&mut self, at: usize, now: At) {
        let seat = &mut self.seats[at];
        seat.place = Place::Up;
        seat.failures = 0;
        self.up += 1;
        if let Some(down) = seat.down.take() {
            self.books.back(down.by, now.saturating_sub(down.since));
        }
        self.plan_strike(at, now);
    }

    /// A call that was up is not any more, or is being negotiated.
    fn goes_down(&mut self, at: usize, now: At, place: Place) {
        let seat = &mut self.seats[at];
        if seat.place == Place::Up {
            self.up -= 1;
            self.books.down_to(self.up);
        }
        seat.place = place;
        seat.down.get_or_insert(Down {
            since: now,
            by: None,
        });
        self.set_timer(at, None);
    }

    /// Nothing is left of a seat's caller: when it will dial again.
    fn gone(&mut self, at: usize, now: At) {
        let keeping = self.plan.keeping;
        let seat = &mut self.seats[at];
        seat.caller = None;
        if matches!(self.stage, Stage::HangingUp(_)) {
            return;
        }
        seat.place = Place::Away;
        let wait = match seat.away.take() {
            Some(away) => {
                if let Some(down) = &mut seat.down {
                    down.since = now + away;
                }
                away
            }
            None => {
                let doublings = seat.failures.saturating_sub(1).min(16);
                let wait = keeping.retry.saturating_mul(1 << doublings);
                seat.dice.about(wait.min(keeping.retry_max))
            }
        };
        self.set_timer(at, Some(now + wait));
    }

    /// Draws when the next thing will happen to a call that is up.
    fn plan_strike(&mut self, at: usize, now: At) {
        let (Some(mischief), Stage::Working(_)) = (&self.plan.mischief, self.stage) else {
            return;
        };
        let seat = &mut self.seats[at];
        if seat.place == Place::Up {
            let due = now + seat.dice.wait(mischief.every);
            self.set_timer(at, Some(due));
        }
    }

    /// Something happens to a call.
    fn strike(&mut self, at: usize, now: At) {
        let seat = &mut self.seats[at];
        let (Some(mischief), Some(caller)) = (&self.plan.mischief, seat.caller) else {
            return;
        };
        let kind = mischief.kind(&mut seat.dice);
        let away = seat.dice.wait(mischief.away);
        let keep_id = seat.dice.share() < mischief.same_id;
        seat.down = Some(Down {
            since: now,
            by: Some(kind),
        });
        self.books.struck(kind);
        if !kind.is_survived() {
            seat.away = Some(away);
            self.goes_down(at, now, Place::Leaving);
        }
        let silent = matches!(kind, Kind::PowerCut | Kind::TcpReset);
        self.seats[at].keep_id = silent && keep_id;
        match kind {
            // A machine has started before it dials.
            Kind::PowerCut => {
                let off = away.mul_f64(POWER_OFF);
                self.fleet.leave(caller, Leave::PowerCut(off));
            }
            Kind::TcpReset => self.fleet.leave(caller, Leave::Reset),
            Kind::LcpTerminate => self.fleet.leave(caller, Leave::Terminate),
            Kind::CallClear => self.fleet.leave(caller, Leave::Clear),
            Kind::NcpFlap => self.fleet.renegotiate(caller, Protocol::IPCP),
            Kind::LcpFlap => self.fleet.renegotiate(caller, Protocol::LCP),
        }
    }

    /// Says what a piece of a long run was like, once it is over: there is something to read then, even if no end comes. The
    /// last one is over with the time, and left out when it is too short to say much.
    fn close_piece(&mut self, now: At, is_last: bool) {
        let (Some(until), Some(interval)) = (self.piece_until, self.plan.interval) else {
            return;
        };
        let least = if is_last { until - interval / 2 } else { until };
        self.piece_until = (!is_last).then_some(until);
        if now < least {
            return;
        }
        self.piece_until = (!is_last).then(|| until + interval);
        let memory = self.plan.watch.and_then(memory_of);
        let is_first = self.books.has_no_interval();
        let line = self.books.interval(self.up, now, memory).line();
        self.live.bar.suspend(|| {
            // Nothing to be done about a stderr that is gone.
            let mut stderr = io::stderr().lock();
            if is_first {
                let _ = writeln!(stderr, "{}", Interval::HEADS);
            }
            let _ = writeln!(stderr, "{line}");
        });
    }

    fn show(&mut self) {
        let now = self.now();
        self.books.sample(self.up, now);
        self.close_piece(now, false);
        let words = match self.stage {
            Stage::Dialling | Stage::Working(_) => "",
            Stage::Returning(_) => ", waiting for the rest",
            Stage::Asking(..) => ", asking for echoes",
            Stage::HangingUp(_) => ", hanging up",
        };
        if let (Stage::Working(Some(end)), Some(time)) = (self.stage, self.plan.seconds) {
            let left = end.saturating_sub(now);
            self.live
                .bar
                .set_position(time.saturating_sub(left).as_secs());
        }
        let all = self.plan.keeping.calls;
        let (books, up, outstanding) = (&self.books, self.up, self.outstanding);
        self.live.show(|| {
            let state = format!("{up} of {all} up, {outstanding} setting up{words}");
            [vec![state], books.so_far()].concat()
        });
    }
}

fn live(time: Option<Duration>) -> Live {
    match time {
        Some(time) => Live::new(ProgressBar::new(time.as_secs()), "{bar:40} {pos}/{len} s"),
        None => Live::new(ProgressBar::new_spinner(), "{spinner} {elapsed}"),
    }
}
