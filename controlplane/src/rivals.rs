//! Calls of one user: who logs in again after a crash finds his old call in the way.
//!
//! A client that crashed and redials has a new control connection and a new call, while its old ones go on until echoes
//! stay unanswered. What becomes of them is the operator's choice; where the user has an address of his own, which only
//! one call can have, the newer call gets it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use turnpike_dataplane::api::CallRef;

use crate::cause::Cause;
use crate::post;
use crate::sessions::Order;

/// How long a call that makes way may take: its worker forgets it within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happens when a user who has a call logs in again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SameUser {
    /// Both calls go on.
    #[default]
    Allow,
    /// The older one ends.
    Replace,
    /// The newer one is refused.
    Refuse,
}

/// A call of a user.
struct Held {
    call: CallRef,
    tunnel: u64,
    orders: post::Sender<Order>,
}

/// The calls of all users who are logged in.
#[derive(Default)]
pub struct Rivals {
    accounts: Mutex<HashMap<String, Vec<Held>>>,
    left: Notify,
}

impl Rivals {
    /// `account` logs in with `call`, which is one of `tunnel`'s. To be called once for each login; a call that logs in
    /// anew leaves first.
    ///
    /// # Errors
    /// [`Cause::AlreadyLoggedIn`] with [`SameUser::Refuse`] when the user has another call.
    pub fn enter(
        &self,
        account: &str,
        call: CallRef,
        tunnel: u64,
        orders: &post::Sender<Order>,
        rule: SameUser,
    ) -> Result<(), Cause> {
        let mut accounts = lock(&self.accounts);
        let held = accounts.entry(account.to_owned()).or_default();
        if !held.is_empty() {
            match rule {
                SameUser::Allow => {}
                SameUser::Replace => tell(held.iter()),
                SameUser::Refuse => return Err(Cause::AlreadyLoggedIn),
            }
        }
        // Nearly always there is one.
        if held.is_empty() {
            held.reserve_exact(1);
        }
        held.push(Held {
            call,
            tunnel,
            orders: orders.clone(),
        });
        Ok(())
    }

    /// The call is over, or its login is.
    pub fn leave(&self, account: &str, call: CallRef) {
        let mut accounts = lock(&self.accounts);
        if let Some(held) = accounts.get_mut(account) {
            held.retain(|other| other.call != call);
            if held.is_empty() {
                accounts.remove(account);
            }
        }
        drop(accounts);
        self.left.notify_waiters();
    }

    /// Ends the oldest call of `account`, those of `tunnel` excepted, and waits until it has left; `try_again` is asked
    /// then, and at first, whether that was enough. Answers `None` when there was no such call, or it did not go.
    pub async fn displace<'a, T>(
        &self,
        account: &str,
        tunnel: u64,
        mut try_again: impl FnMut() -> BoxFuture<'a, Option<T>>,
    ) -> Option<T> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            // Registered before the look, so that nobody leaves between the two.
            let left = self.left.notified();
            if let Some(done) = try_again().await {
                return Some(done);
            }
            if !told {
                told = true;
                let accounts = lock(&self.accounts);
                let held = accounts.get(account).map_or(&[][..], Vec::as_slice);
                // One connection's own calls wait for it: it cannot wait for them.
                let oldest = held.iter().find(|other| other.tunnel != tunnel)?;
                tell([oldest]);
            }
            if tokio::time::timeout_at(deadline, left).await.is_err() {
                return try_again().await;
            }
        }
    }
}

/// Asks calls to make way. A tunnel that is gone has none.
fn tell<'a>(held: impl IntoIterator<Item = &'a Held>) {
    for other in held {
        let _ = other.orders.send(Order::Replace(other.call));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The map is whole between any two statements.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use futures_util::FutureExt;

    use turnpike_protocol::CallId;

    use super::*;

    fn call(id: u16) -> CallRef {
        CallRef {
            local: Ipv4Addr::new(10, 7, 0, 1),
            peer: Ipv4Addr::new(10, 7, 0, 2),
            id: CallId(id),
        }
    }

    fn orders(told: &mut post::Receiver<Order>) -> Vec<Order> {
        std::iter::from_fn(|| told.try_recv()).collect()
    }

    #[test]
    fn the_rule_decides() {
        let (send, mut told) = post::channel();
        let rivals = Rivals::default();
        let enter = |id, account, rule| rivals.enter(account, call(id), u64::from(id), &send, rule);
        enter(1, "alice", SameUser::Allow).unwrap();
        enter(2, "alice", SameUser::Allow).unwrap();
        enter(3, "bob", SameUser::Replace).unwrap();
        assert!(orders(&mut told).is_empty());
        assert_eq!(
            enter(4, "alice", SameUser::Refuse),
            Err(Cause::AlreadyLoggedIn)
        );
        assert!(orders(&mut told).is_empty());
        enter(5, "alice", SameUser::Replace).unwrap();
        assert_eq!(
            orders(&mut told),
            [Order::Replace(call(1)), Order::Replace(call(2))]
        );
        for id in [1, 2, 5] {
            rivals.leave("alice", call(id));
        }
        enter(6, "alice", SameUser::Refuse).unwrap();
        assert!(lock(&rivals.accounts)["bob"].len() == 1);
        rivals.leave("bob", call(3));
        assert!(!lock(&rivals.accounts).contains_key("bob"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_the_place_waits_until_it_is_free() {
        let (send, mut told) = post::channel();
        let rivals = Arc::new(Rivals::default());
        let free = Arc::new(Mutex::new(false));
        rivals
            .enter("alice", call(1), 1, &send, SameUser::Allow)
            .unwrap();
        let (other, address) = (rivals.clone(), free.clone());
        let leaving = tokio::spawn(async move {
            assert_eq!(told.recv().await, Order::Replace(call(1)));
            // Somebody else's leaving is not enough.
            other.leave("bob", call(9));
            tokio::time::sleep(Duration::from_millis(5)).await;
            *lock(&address) = true;
            other.leave("alice", call(1));
        });
        let got = rivals
            .displace("alice", 2, || {
                let done = lock(&free).then_some(7);
                core::future::ready(done).boxed()
            })
            .await;
        assert_eq!(got, Some(7));
        leaving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_is_not_waited_for_long() {
        let (send, mut told) = post::channel();
        let rivals = Rivals::default();
        let nothing = || core::future::ready(None::<()>).boxed();
        assert_eq!(rivals.displace("alice", 1, nothing).await, None);
        rivals
            .enter("alice", call(1), 1, &send, SameUser::Allow)
            .unwrap();
        let began = tokio::time::Instant::now();
        // A call of the same connection.
        assert_eq!(rivals.displace("alice", 1, nothing).await, None);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(orders(&mut told).is_empty());
        assert_eq!(rivals.displace("alice", 2, nothing).await, None);
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(orders(&mut told), [Order::Replace(call(1))]);
    }
}
