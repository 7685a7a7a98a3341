//! A worker's thread: pinned, spinning a little before it sleeps where another processor has the rest of the program.

use core::time::Duration;
use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle, available_parallelism};
use std::time::Instant;

use core_affinity::CoreId;
use turnpike_protocol::Time;

use crate::device::Device;
use crate::worker::Worker;

/// How long a worker that finds nothing looks again before it sleeps: about what falling asleep and waking up costs.
const SPIN: Duration = Duration::from_micros(20);

/// The longest sleep. Nothing depends on it: whatever happens wakes the worker.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Why a worker's thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The system has no thread for us.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// This processor does not exist, or this process may not use it.
    #[error("cannot pin a worker to cpu {0}: this process may not use it")]
    NotPinned(usize),
}

/// Runs a worker in a thread of its own until [`crate::api::Command::Stop`] comes; the thread then gives back the
/// device. With `cpu`, the thread is pinned to that processor before the first turn. Times are nanoseconds since
/// `origin`.
///
/// Where the calling thread may use one processor only, the worker does not spin: what it would wait for comes from
/// threads that it keeps from running.
pub fn spawn<D: Device + Send + 'static>(
    mut worker: Worker<D>,
    cpu: Option<usize>,
    origin: Instant,
) -> Result<JoinHandle<D>, SpawnError> {
    let spin = match available_parallelism() {
        Ok(processors) if processors.get() == 1 => Duration::ZERO,
        _ => SPIN,
    };
    let (report, pinned) = mpsc::sync_channel(1);
    let name = match cpu {
        Some(cpu) => format!("worker-cpu{cpu}"),
        None => "worker".to_owned(),
    };
    let thread = Builder::new().name(name).spawn(move || {
        let ready = cpu.is_none_or(pin);
        let _ = report.send(ready);
        if ready {
            run(&mut worker, origin, spin);
        }
        worker.into_device()
    })?;
    match (pinned.recv(), cpu) {
        (Ok(false), Some(cpu)) => {
            // The device is gone with the thread; the caller cannot go on without it anyway.
            let _ = thread.join();
            Err(SpawnError::NotPinned(cpu))
        }
        _ => Ok(thread),
    }
}

/// Pins the calling thread to a processor; false, and nothing done, when it may not use that one.
///
/// Reads the mask back: the call says less than it should, and panics for a processor beyond what a mask can name, so it
/// is asked only for one that the thread may use now.
pub fn pin(cpu: usize) -> bool {
    let mask = || core_affinity::get_core_ids().unwrap_or_default();
    mask().contains(&CoreId { id: cpu })
        && core_affinity::set_for_current(CoreId { id: cpu })
        && mask() == [CoreId { id: cpu }]
}

fn run<D: Device>(worker: &mut Worker<D>, origin: Instant, spin: Duration) {
    let mut idle_since: Option<Time> = None;
    loop {
        let now = elapsed(origin);
        let turn = worker.turn(now);
        if turn.stopped {
            return;
        }
        if turn.busy {
            idle_since = None;
            continue;
        }
        let since = *idle_since.get_or_insert(now);
        if now.since(since) < spin {
            core::hint::spin_loop();
            continue;
        }
        let sleep = turn
            .next
            .map_or(LONGEST_SLEEP, |next| next.since(now).min(LONGEST_SLEEP));
        if !sleep.is_zero() {
            worker.wait(sleep);
        }
        idle_since = None;
    }
}

fn elapsed(origin: Instant) -> Time {
    Time::ZERO + origin.elapsed()
}
