//! Accounting from the start of the server to its end.

use std::sync::Arc;

use tracing::{error, warn};

use super::Error;
use crate::accounting::{Books, Kept};
use crate::admin::Selector;
use crate::cause::Cause;
use crate::config::Config;
use crate::driver::Shared;

pub(super) fn open(config: &Config) -> Result<Kept, Error> {
    let Some(accounting) = &config.accounting else {
        return Ok(None);
    };
    let books = Books::open(accounting, &config.server.name, false)?;
    Ok(Some(Arc::new(books)))
}

/// Looks at the calls that are up, and ends them where they must not be without accounting.
pub(super) async fn keep(shared: Arc<Shared>) {
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
