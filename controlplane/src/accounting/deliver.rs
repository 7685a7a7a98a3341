//! Brings records to where they belong, for as long as the server runs.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tracing::{info, warn};

use super::clerk::Clerk;
use super::courier::Courier;
use super::record::{Entry, Record};
use crate::driver::Clock;

/// Where records are delivered to.
pub trait Deliver: Send + Sync {
    /// Delivers one record, and returns when it has arrived. May take as long as its tries take.
    fn deliver(&self, record: &Record) -> impl Future<Output = Result<(), String>> + Send;
}

/// Delivers what waits in the ledger, and what comes, until dropped. What arrived is forgotten in the ledger after that: a
/// crash in between makes it arrive twice, with the same id, kind and figures.
pub async fn run<D: Deliver>(clerk: &Clerk, clock: Clock, place: &D) {
    let mut courier = Courier::default();
    let mut flights = FuturesUnordered::new();
    // Whether there may be records that were not taken in.
    let mut more = true;
    loop {
        if more
            && let Some((after, limit)) = courier.wants()
            && let Some(records) = clerk.waiting(after, limit).await
        {
            more = records.len() == limit;
            courier.take(records);
        }
        while let Some(record) = courier.next(clock.now()) {
            flights.push(fly(place, record));
        }
        let now = clock.now();
        let rest = courier.deadline(now).map(|at| at.since(now));
        tokio::select! {
            Some((number, arrived)) = flights.next(), if !flights.is_empty() => {
                let before = courier.failures();
                courier.landed(number, arrived.is_ok(), clock.now());
                match arrived {
                    Ok(()) => {
                        drop(clerk.enter(Entry::Delivered { number }));
                        if before > 0 {
                            info!("accounting records are delivered again");
                        }
                    }
                    Err(why) if before == 0 => warn!(
                        "accounting records cannot be delivered, and wait on the disk: {why}"
                    ),
                    Err(_) => {}
                }
            }
            () = sleep(rest) => {}
            () = clerk.written() => more = true,
        }
    }
}

async fn fly<D: Deliver>(place: &D, record: Arc<Record>) -> (i64, Result<(), String>) {
    (record.number, place.deliver(&record).await)
}

async fn sleep(rest: Option<core::time::Duration>) {
    match rest {
        Some(rest) => tokio::time::sleep(rest).await,
        None => core::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::Duration;

    use super::super::ledger::Ledger;
    use super::super::ledger::tests::facts;
    use super::super::record::{Kind, Moment, SessionId, Traffic};
    use super::*;
    use crate::cause::Cause;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A server that is away at times.
    #[derive(Default)]
    struct Place {
        away: AtomicBool,
        tries: AtomicU32,
        arrived: Mutex<Vec<(Kind, Option<SessionId>)>>,
    }

    impl Deliver for Place {
        async fn deliver(&self, record: &Record) -> Result<(), String> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            if self.away.load(Ordering::Relaxed) {
                return Err("nobody answers".to_owned());
            }
            let told = (record.kind, record.session_id());
            self.arrived.lock().unwrap().push(told);
            Ok(())
        }
    }

    fn session(id: u64) -> [Entry; 2] {
        let (id, at) = (SessionId(id), Moment::now());
        [
            Entry::Begin {
                id,
                facts: facts("alice"),
                at,
            },
            Entry::End {
                id,
                at,
                session_time: 0,
                traffic: Traffic::default(),
                cause: Cause::HungUp,
            },
        ]
    }

    #[tokio::test]
    async fn what_waits_is_delivered_when_somebody_is_there() {
        const SESSIONS: u64 = 1000;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        // Some of before.
        let mut ledger = Ledger::open(&path, true, Moment::now()).unwrap();
        for id in 0..SESSIONS {
            ledger.enter(&session(id), Moment::now()).unwrap();
        }
        let clerk = Arc::new(Clerk::start(ledger, None).unwrap());
        let place = Arc::new(Place::default());
        place.away.store(true, Ordering::Relaxed);
        let delivery = tokio::spawn({
            let (clerk, place) = (clerk.clone(), place.clone());
            async move { run(&clerk, Clock::start(), &*place).await }
        });
        while place.tries.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Some that come meanwhile.
        for id in SESSIONS..2 * SESSIONS {
            session(id)
                .into_iter()
                .for_each(|entry| drop(clerk.enter(entry)));
        }
        assert_eq!(clerk.backlog().await, Some(4 * SESSIONS));
        place.away.store(false, Ordering::Relaxed);
        let start = std::time::Instant::now();
        while clerk.backlog().await != Some(0) {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // And one that finds nothing before it.
        session(9999)
            .into_iter()
            .for_each(|entry| drop(clerk.enter(entry)));
        let count = || place.arrived.lock().unwrap().len();
        while count() < 4 * SESSIONS as usize + 2 {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        delivery.abort();
        let arrived = place.arrived.lock().unwrap();
        let of = |id: u64| -> Vec<Kind> {
            let mine = arrived
                .iter()
                .filter(|(_, other)| *other == Some(SessionId(id)));
            mine.map(|(kind, _)| *kind).collect()
        };
        for id in (0..2 * SESSIONS).chain([9999]) {
            assert_eq!(of(id), [Kind::Start, Kind::Stop], "{id}");
        }
    }
}
