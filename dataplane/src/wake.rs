//! Waking a thread that sleeps, from another thread, without a system call while it is awake.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd and the knowledge whether anybody sleeps on it.
///
/// The sleeper: [`prepare`](Self::prepare), look at the rings once more, sleep until the descriptor is readable only
/// when they are empty, [`finish`](Self::finish). The waker: put something into a ring, [`ring`](Self::ring). Both
/// sides have a sequentially consistent fence between what they write and what they read, so at least one of them sees
/// the other: either the sleeper finds the ring filled, or the waker finds the sleeper asleep.
#[derive(Debug)]
pub struct Wake {
    event: OwnedFd,
    asleep: AtomicBool,
    /// Times that it was rung, and not taken back yet: only then is there anything to read. The sleeper's own.
    owed: AtomicU64,
}

impl Wake {
    /// A new one; nobody sleeps. Fails when the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            asleep: AtomicBool::new(false),
            owed: AtomicU64::new(0),
        })
    }

    /// Says that the caller is about to sleep. What it looks at after this and finds empty will wake it.
    pub fn prepare(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the caller is awake again, and takes the ringing back.
    pub fn finish(&self) {
        let rung = !self.asleep.swap(false, Ordering::Relaxed);
        let owed = self.owed.load(Ordering::Relaxed) + u64::from(rung);
        if owed == 0 {
            return;
        }
        let mut count = [0; 8];
        // An error means that who rings has not come to write yet: the next sleep is a short one then.
        let taken = match rustix::io::read(&self.event, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        };
        self.owed
            .store(owed.saturating_sub(taken), Ordering::Relaxed);
    }

    /// Wakes the sleeper, if there is one. To be called after every change that it waits for.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // The only error is a counter at its limit, which is readable too.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(wake: &Wake) -> bool {
        let mut fds = [rustix::event::PollFd::new(
            wake,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
    }

    #[test]
    fn rings_only_for_a_sleeper_and_once() {
        let wake = Wake::new().unwrap();
        wake.ring();
        assert!(!readable(&wake));
        wake.prepare();
        wake.ring();
        wake.ring();
        assert!(readable(&wake));
        wake.finish();
        assert!(!readable(&wake));
    }

    #[test]
    fn a_late_ringing_is_taken_back_all_the_same() {
        let wake = Wake::new().unwrap();
        wake.prepare();
        // Between the two halves of ring().
        assert!(wake.asleep.swap(false, Ordering::Relaxed));
        wake.finish();
        rustix::io::write(&wake.event, &1_u64.to_ne_bytes()).unwrap();
        wake.prepare();
        assert!(readable(&wake), "a short sleep");
        wake.finish();
        assert!(!readable(&wake));
        wake.prepare();
        wake.ring();
        wake.finish();
        assert!(!readable(&wake));
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const ROUNDS: u64 = 20_000;
        let wake = std::sync::Arc::new(Wake::new().unwrap());
        let (mut ring, mut taken) = rtrb::RingBuffer::<u64>::new(4);
        let waker = wake.clone();
        let thread = std::thread::spawn(move || {
            for n in 0..ROUNDS {
                while ring.push(n).is_err() {
                    std::thread::yield_now();
                }
                waker.ring();
            }
        });
        let mut next = 0;
        while next < ROUNDS {
            while let Ok(n) = taken.pop() {
                assert_eq!(n, next);
                next += 1;
            }
            if next == ROUNDS {
                break;
            }
            wake.prepare();
            if taken.is_empty() {
                let mut fds = [rustix::event::PollFd::new(
                    &*wake,
                    rustix::event::PollFlags::IN,
                )];
                let limit = rustix::event::Timespec {
                    tv_sec: 20,
                    tv_nsec: 0,
                };
                assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
            }
            wake.finish();
        }
        thread.join().unwrap();
    }
}
