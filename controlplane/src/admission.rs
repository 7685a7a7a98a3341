//! How many calls are set up at once, and who waits for a place among them.
//!
//! Setting up a call is most of the work that it ever makes: some twenty messages, a login and keys. When all clients of a
//! box dial at once (a power cut in town, a new start of this server) and all of them were served at once, each would wait
//! for all others: timers would run out on both sides, messages would be repeated, and echoes of calls that are up would lie
//! in the same queues. So only so many are set up at a time, which is enough to keep every processor busy. Others wait in
//! the order in which they came, and whoever would wait for too long is told so.
//!
//! A place is for calls that make work. One whose client says nothing makes none, and gives its place back after
//! [`STALL`], so that strangers who open calls and leave them keep nobody out; how many of these there may be is the matter
//! of [`applicants`](crate::applicants).

use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Calls set up at once where nothing is configured. On a path of 100 ms a set-up takes about 2 s, so 500 come up each
/// second; when the path is short, as many as the box can do.
pub const DEFAULT_LIMIT: usize = 1000;

/// How long a call waits for its place where nothing is configured. Clients give up later than that.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// How long a call holds its place at most.
pub const STALL: Duration = Duration::from_secs(5);

/// The places. One per server.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    limit: usize,
    wait: Duration,
}

/// The place of one call; given back when dropped.
#[derive(Debug)]
pub struct SettingUp(#[expect(dead_code, reason = "held to be dropped")] OwnedSemaphorePermit);

/// A call's turn in the queue: a place, or none within the time. It counts from when this is first awaited.
pub type Waiting = Pin<Box<dyn Future<Output = Option<SettingUp>> + Send + Sync>>;

impl Admission {
    /// At most `limit` calls at once; others wait for up to `wait`.
    pub fn new(limit: usize, wait: Duration) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(limit)),
            limit,
            wait,
        }
    }

    /// A place for one more call, if there is one and nobody else waits for it.
    ///
    /// # Errors
    /// The turn to be waited for.
    pub fn enter(&self) -> Result<SettingUp, Waiting> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(SettingUp(place));
        }
        let place = self.places.clone().acquire_owned();
        let until = Instant::now() + self.wait;
        Err(Box::pin(async move {
            let place = timeout_at(until, place).await.ok()?;
            place.ok().map(SettingUp)
        }))
    }

    /// Calls that hold places.
    pub fn len(&self) -> usize {
        self.limit - self.places.available_permits()
    }

    /// Whether all places are free.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_comes_in_in_turn_and_not_for_ever() {
        let admission = Admission::new(1, Duration::from_secs(3));
        let first = admission.enter().ok().unwrap();
        let mut second = admission.enter().err().unwrap();
        let mut third = admission.enter().err().unwrap();
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, &mut second).await.is_err());
        assert!(tokio::time::timeout(soon, &mut third).await.is_err());
        drop(first);
        assert!(admission.enter().is_err(), "others were first");
        let second = second.await.unwrap();
        assert_eq!(admission.len(), 1);
        assert!(third.await.is_none(), "three seconds are over");
        drop(second);
        assert!(admission.is_empty());
        assert!(admission.enter().is_ok());
    }
}
