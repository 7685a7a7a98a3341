//! Turns of a worker over memory devices, and what they take.

use core::time::Duration;
use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};
use turnpike_dataplane::api::Port;

use crate::rig::End;

/// Packets that a turn finds.
pub const BATCH: usize = 64;

/// Takes away what was sent on a port: how many frames.
pub fn discard(end: &mut End, port: Port) -> usize {
    let mut frames = 0;
    end.worker.device_mut().take_each(port, |_| frames += 1);
    frames
}

/// Processor time of this thread: other work on the machine, also on a small one, does not count. Reading it takes some
/// 0.3 us, which is part of each turn's time.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The time of one turn. The worker's clock goes on by what a turn may take, so that delayed acknowledgements come.
pub fn timed_turn(end: &mut End) -> Duration {
    end.now += Duration::from_micros(50);
    let start = processor_time();
    black_box(end.worker.turn(end.now));
    processor_time() - start
}
