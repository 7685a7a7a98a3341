//! What a tunnel tells of its sessions to accounting, where there is any.

use turnpike_dataplane::api::CallRef;

use super::Driver;
use crate::accounting::Begun;
use crate::tunnel::{Ended, Notice};

impl Driver {
    pub(super) async fn begin(&mut self, begun: &Begun) {
        let Some(books) = &self.shared.books else {
            return;
        };
        let now = self.shared.clock.now();
        let mut accounts = self.accounts.iter();
        let own = accounts
            .find(|account| account.call == begun.call)
            .and_then(|account| account.entitlements.clone());
        if let Err(cause) = books.begin_with(begun, own.as_deref(), now).await {
            self.tunnel.kill(begun.call, cause, self.shared.clock.now());
        }
    }

    /// The session is over while the call goes on: its worker is asked how much it moved.
    pub(super) async fn cease(&mut self, call: CallRef) {
        let Some(books) = &self.shared.books else {
            return;
        };
        let counters = self.shared.switchboard.query(call).await;
        books.cease(call, counters.as_ref(), self.shared.clock.now());
    }

    /// The call is over: so is its session, or it never had one.
    pub(super) fn account(&self, ended: &Ended) {
        if let Some(books) = &self.shared.books {
            let now = self.shared.clock.now();
            books.end(
                ended.call,
                ended.user.as_deref(),
                ended.cause,
                &ended.counters,
                now,
            );
        }
    }

    /// Keeps the names of those who were not let in until their calls are over.
    pub(super) fn attempted(&self, notice: &Notice) {
        if let Notice::LoginFailed { call, user, .. } = notice
            && let Some(books) = &self.shared.books
        {
            books.refused(*call, user);
        }
    }
}
