//! A thousand worlds: clients, server and workers over a network that misbehaves.
//!
//! `TURNPIKE_SEED=n` plays one world again and shows its control frames, `TURNPIKE_WORLDS=n` another number of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they saw"
)]

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use turnpike_tests::world::{Tally, Trouble, log_in, run};

const WORLDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Plays one world; the error says what did not hold.
type Play<'a> = &'a (dyn Fn(u64, bool) -> Result<Tally, String> + Sync);

fn play(run: Play<'_>, seed: u64, trace: bool) -> Result<Tally, String> {
    // A panic anywhere in the system is a failure of this seed, too.
    catch_unwind(AssertUnwindSafe(|| run(seed, trace))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Err(format!("panic: {text}"))
    })
}

/// How many worlds are played.
fn worlds() -> u64 {
    number("TURNPIKE_WORLDS").unwrap_or(WORLDS)
}

/// Plays as many worlds as are asked for, and says what happened in all of them; or the one that is asked for.
fn in_many_worlds(what: &str, run: Play<'_>) -> Option<Tally> {
    if let Some(seed) = number("TURNPIKE_SEED") {
        match play(run, seed, true) {
            Ok(tally) => println!("{what}: seed {seed} holds\n{tally}"),
            Err(error) => panic!("{what}: seed {seed}: {error}"),
        }
        return None;
    }
    let worlds = worlds();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= worlds || failures.lock().unwrap().len() >= 5 {
                        return;
                    }
                    match play(run, seed, false) {
                        Ok(tally) => total.lock().unwrap().merge(&tally),
                        Err(error) => failures.lock().unwrap().push((seed, error)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for (seed, error) in &failures {
        println!("{what}: seed {seed} fails (TURNPIKE_SEED={seed} plays it again): {error}\n");
    }
    assert!(
        failures.is_empty(),
        "{what}: {} worlds fail, the first with TURNPIKE_SEED={}",
        failures.len(),
        failures[0].0
    );
    Some(total.into_inner().unwrap())
}

#[test]
fn every_world_holds() {
    let Some(total) = in_many_worlds("a day", &run) else {
        return;
    };
    let worlds = worlds();
    println!("{worlds} worlds:\n{total}");
    if worlds >= WORLDS {
        // What never happened was not tested.
        for what in [
            "frames lost",
            "frames doubled",
            "frames held back",
            "frames changed",
            "frames lost in an outage",
            "CCP Acks lost",
            "CCP Acks doubled",
            "gre-late",
            "gre-duplicate",
            "reorder-held",
            "reorder-timeouts",
            "reorder-full",
            "reorder-flushed",
            "outer-checksum",
            "inner-checksum",
            "pool-without-call",
            "wrong passwords refused",
            "ended by the client",
            "ended by the server's shutdown",
            "ended by an operator",
            "ended by a broken connection",
            "calls proved",
            "packets up",
            "packets down",
        ] {
            assert!(total.of(what) > 0, "never happened: {what}");
        }
    }
}

/// On bad paths the right password gets in whatever happens to its login; on very bad ones it gets in or is out for a cause
/// of the path. The wrong one never gets in.
#[test]
fn logins_survive_their_timing() {
    let mut table = String::new();
    let mut ends = Tally::default();
    for (longest, least) in [(1, 0.99), (10, 0.0)] {
        for trouble in Trouble::ALL {
            let what = format!("{}, delay up to {longest} s", trouble.name());
            let longest = Duration::from_secs(longest);
            let played =
                in_many_worlds(&what, &|seed, trace| log_in(seed, trouble, longest, trace));
            let Some(total) = played else {
                continue;
            };
            let share = total.of("right password: in") as f64 / worlds() as f64;
            let _ = writeln!(table, "{:>6.2} % of {} in: {what}", 100.0 * share, worlds());
            // Chance has too large a share in fewer.
            assert!(share >= least || worlds() < WORLDS, "{table}{total}");
            ends.merge(&total);
        }
    }
    println!("{table}\n{ends}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    assert_eq!(play(&run, 7, false), play(&run, 7, false));
}
