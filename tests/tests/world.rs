//! A thousand worlds: clients, server and workers over a network that misbehaves.
//!
//! `TURNPIKE_SEED=n` plays one world again and shows its control frames, `TURNPIKE_WORLDS=n` another number of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they saw"
)]

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use turnpike_tests::world::{Tally, run};

const WORLDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

fn play(seed: u64, trace: bool) -> Result<Tally, String> {
    // A panic anywhere in the system is a failure of this seed, too.
    catch_unwind(|| run(seed, trace)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Err(format!("panic: {text}"))
    })
}

#[test]
fn every_world_holds() {
    if let Some(seed) = number("TURNPIKE_SEED") {
        match play(seed, true) {
            Ok(tally) => println!("seed {seed} holds\n{tally}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
        return;
    }
    let worlds = number("TURNPIKE_WORLDS").unwrap_or(WORLDS);
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
                    match play(seed, false) {
                        Ok(tally) => total.lock().unwrap().merge(&tally),
                        Err(error) => failures.lock().unwrap().push((seed, error)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for (seed, error) in &failures {
        println!("seed {seed} fails (TURNPIKE_SEED={seed} plays it again): {error}\n");
    }
    let total = total.into_inner().unwrap();
    println!("{worlds} worlds:\n{total}");
    assert!(
        failures.is_empty(),
        "{} worlds fail, the first with TURNPIKE_SEED={}",
        failures.len(),
        failures[0].0
    );
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

#[test]
fn the_same_seed_is_the_same_world() {
    assert_eq!(play(7, false), play(7, false));
}
