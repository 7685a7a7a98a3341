//! The loop of a storm: set-ups begin when it is their time, and every phase is noted.

use core::net::SocketAddrV4;
use core::time::Duration;

use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};

use super::Storm;
use super::report::{Books, Report};
use crate::dial::Outcome;
use crate::fleet::{Fleet, News, Roster, until};
use crate::live::Live;
use crate::report::Origin;
use crate::tcp;

/// How long everybody may take to end after having been asked to.
const HANG_UP_LIMIT: Duration = Duration::from_secs(12);

/// How often new set-ups are begun, where a rate is asked for.
const TICK: Duration = Duration::from_millis(1);

struct Front<'a> {
    options: &'a Storm,
    roster: Roster,
    fleet: Fleet,
    books: Books,
    /// Begun and not settled.
    outstanding: u32,
    /// Set-ups that the rate wanted earlier; those with smaller numbers than `late_before` are among them.
    held_back: u64,
    late_before: u32,
    begun: u32,
    /// Nobody is dialled any more.
    stopping: bool,
    live: Live,
}

pub(super) async fn run(
    options: &Storm,
    origin: Origin,
    server: SocketAddrV4,
) -> anyhow::Result<Outcome> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let printer = options.printing.open()?;
    let mut front = Front::new(options, server)?;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut give_up: Option<tokio::time::Instant> = None;
    loop {
        front.begin_what_is_due();
        front.take_news();
        front.show();
        if front.is_settled() && give_up.is_none() {
            front.live.bar.finish_and_clear();
            front.fleet.hang_up_all();
            give_up = Some(tokio::time::Instant::now() + HANG_UP_LIMIT);
        }
        if front.is_settled() && front.fleet.is_empty() {
            break;
        }
        tokio::select! {
            _ = interrupt.recv() => if front.stop() { break },
            _ = terminate.recv() => if front.stop() { break },
            done = front.fleet.turn() => done?,
            () = until(give_up) => break,
            _ = ticks.tick(), if front.more_to_begin() => {}
        }
    }
    let (held_back, refused) = (front.held_back, front.fleet.refused());
    let report = front.books.report(origin, *server.ip(), held_back, refused);
    printer.print(&report, Report::text)?;
    Ok(if report.failed == 0 && report.lost == 0 && report.up > 0 {
        Outcome::AllGood
    } else {
        Outcome::SomeFailed
    })
}

impl<'a> Front<'a> {
    fn new(options: &'a Storm, server: SocketAddrV4) -> anyhow::Result<Self> {
        let dialling = &options.dialling;
        // Those who end are there for a while beside those who begin.
        let at_once = if options.keep {
            options.calls
        } else {
            options.calls.min(2 * options.outstanding)
        };
        tcp::allow(at_once);
        Ok(Self {
            options,
            roster: Roster::new(dialling)?,
            fleet: Fleet::new(server, dialling.addresses(), dialling.patience)?,
            books: Books::new()?,
            outstanding: 0,
            held_back: 0,
            late_before: 0,
            begun: 0,
            stopping: false,
            live: Live::new(
                ProgressBar::new(options.calls.into()),
                "{bar:40} {pos}/{len} calls, {per_sec} {elapsed}",
            ),
        })
    }

    fn more_to_begin(&self) -> bool {
        !self.stopping && self.begun < self.options.calls
    }

    /// Everybody has been tried, and has come up or not.
    fn is_settled(&self) -> bool {
        !self.more_to_begin() && self.outstanding == 0
    }

    /// Begins the set-ups whose time has come.
    fn begin_what_is_due(&mut self) {
        if !self.more_to_begin() {
            return;
        }
        let due = match self.options.rate {
            // The first one is due at once.
            Some(rate) => (self.fleet.elapsed().as_secs_f64() * rate) as u64 + 1,
            None => u64::MAX,
        };
        let due = u32::try_from(due)
            .unwrap_or(u32::MAX)
            .min(self.options.calls);
        while self.begun < due {
            if self.outstanding >= self.options.outstanding {
                self.late_before = match self.options.rate {
                    Some(_) => due,
                    None => 0,
                };
                break;
            }
            // Where every id is a call's, some have to end first.
            let Some(id) = self.fleet.free_id() else {
                break;
            };
            let number = self.begun;
            self.held_back += u64::from(number < self.late_before);
            self.begun += 1;
            self.books.begun += 1;
            self.outstanding += 1;
            let dialling = &self.options.dialling;
            let terms = self.roster.terms(number);
            self.fleet.dial(id, dialling.address_of(number), terms);
        }
    }

    fn take_news(&mut self) {
        while let Some(news) = self.fleet.news() {
            let at = self.fleet.elapsed();
            match news {
                News::Up(number, marks) => {
                    self.settled();
                    self.books.up(&marks, at);
                    if !self.options.keep {
                        self.fleet.hang_up(number);
                    }
                }
                News::Failed(number, phase, reason) => {
                    self.settled();
                    let reason = format!("{}: {reason}", phase.name());
                    self.books.failed(self.roster.label(number, reason), at);
                }
                News::Lost(number, reason) => {
                    let reason = format!("when up: {reason}");
                    self.books.lost(self.roster.label(number, reason));
                }
                News::Held(_) | News::UpAgain(_) | News::Answered(..) | News::Gone(_) => {}
            }
        }
    }

    fn show(&mut self) {
        let (books, outstanding) = (&self.books, self.outstanding);
        self.live.show(|| books.so_far(outstanding));
    }

    fn settled(&mut self) {
        self.outstanding -= 1;
        self.live.bar.inc(1);
    }

    /// Nobody new, and everybody who is there goes. True the second time: leave at once.
    fn stop(&mut self) -> bool {
        if core::mem::replace(&mut self.stopping, true) {
            return true;
        }
        self.live.bar.finish_and_clear();
        self.fleet.hang_up_all();
        false
    }
}
