//! Accounting from the start of the server to its end.

use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{error, warn};

use super::Error;
use crate::accounting::{self, Books, Kept, Servers};
use crate::admin::Selector;
use crate::cause::Cause;
use crate::config::Config;
use crate::driver::Shared;

/// How long the end of the server waits for accounting servers.
const DELIVERY: core::time::Duration = core::time::Duration::from_secs(3);

pub(super) fn open(config: &Config) -> Result<Kept, Error> {
    let Some(accounting) = &config.accounting else {
        return Ok(None);
    };
    let spools = accounting.radius && config.radius.is_some();
    let books = Books::open(accounting, &config.server.name, spools)?;
    Ok(Some(Arc::new(books)))
}

/// Delivers records to the servers of `[radius]`, where there are any.
fn deliver(config: &Config, shared: &Shared) -> Option<impl Future<Output = ()> + Send + use<>> {
    let books = shared.books.clone()?;
    let radius = config.radius.as_ref();
    let radius = radius.filter(|_| config.accounting.as_ref().is_some_and(|to| to.radius))?;
    let servers = Servers::new(radius);
    let clock = shared.clock;
    Some(async move { accounting::deliver(books.clerk(), clock, &servers).await })
}

/// Gives the ends of calls that the end of the server brought some time to be delivered. What is not is when the server
/// starts again.
pub(super) async fn delivered(shared: &Shared) {
    let Some(books) = &shared.books else { return };
    let arrived = async {
        while books
            .clerk()
            .backlog()
            .await
            .is_some_and(|waiting| waiting > 0)
        {
            tokio::time::sleep(core::time::Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(DELIVERY, arrived).await;
}

/// Does everything that goes on while the server runs.
pub(super) fn start(tasks: &mut JoinSet<()>, config: &Config, shared: &Arc<Shared>) {
    tasks.spawn(keep(shared.clone()));
    if let Some(delivery) = deliver(config, shared) {
        tasks.spawn(delivery);
    }
}

/// Looks at the calls that are up, and ends them where they must not be without accounting.
async fn keep(shared: Arc<Shared>) {
    let Some(books) = shared.books.clone() else {
        return;
    };
    let readings = books.keep(shared.clock, |call| shared.switchboard.query(call));
    let watch = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            if !books.is_overdue() || shared.sessions.is_empty() {
                continue;
            }
            match shared
                .sessions
                .kill(&Selector::All, Cause::AccountingFailed)
            {
                Ok(calls) => warn!(
                    calls = calls.len(),
                    "accounting is mandatory and cannot be written: calls end"
                ),
                Err(error) => error!("{error}"),
            }
        }
    };
    tokio::join!(readings, watch);
}

/// Has everything written down. A disk that takes nothing has the time that other things have.
pub(super) async fn close(shared: &Shared) {
    let Some(books) = shared.books.clone() else {
        return;
    };
    let closed = tokio::task::spawn_blocking(move || books.close());
    if tokio::time::timeout(super::FAREWELL, closed).await.is_err() {
        error!(
            "accounting: the disk did not take everything in time; what is missing is made up for at the next start"
        );
    }
}
