//! The way to one tunnel's task: a queue that takes no memory while nothing is in it.
//!
//! Every control connection has two of these, and nearly all of them are empty nearly always. A channel of tokio's sets
//! aside a block of 32 messages and lines of the cache for those who hold its ends, some 1.5 KiB for each, which would be
//! a third of what an idle call takes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// What is on its way, and who waits for it.
struct Queue<T> {
    waiting: VecDeque<T>,
    reader: Option<Waker>,
    /// Nobody will read any more.
    closed: bool,
}

/// Where messages are put in. Cheap to clone.
pub struct Sender<T>(Arc<Mutex<Queue<T>>>);

/// Where they come out, in their order.
pub struct Receiver<T>(Arc<Mutex<Queue<T>>>);

/// The task that would have read it is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("nobody reads this any more")]
pub struct Gone;

/// Both ends of a queue without a bound: who sends keeps count.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(Mutex::new(Queue {
        waiting: VecDeque::new(),
        reader: None,
        closed: false,
    }));
    (Sender(queue.clone()), Receiver(queue))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Puts a message in; never waits.
    ///
    /// # Errors
    /// [`Gone`]; the message is dropped.
    pub fn send(&self, message: T) -> Result<(), Gone> {
        let mut queue = lock(&self.0);
        if queue.closed {
            return Err(Gone);
        }
        queue.waiting.push_back(message);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// The next message, waited for for ever: that nobody can send any more is not noticed.
    pub async fn recv(&mut self) -> T {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// The next message, if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        take(&mut lock(&self.0))
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<T> {
        let mut queue = lock(&self.0);
        if let Some(message) = take(&mut queue) {
            return Poll::Ready(message);
        }
        match &mut queue.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.closed = true;
        queue.reader = None;
        let unread = std::mem::take(&mut queue.waiting);
        drop(queue);
        // Outside the lock: what is in them may send on its way out.
        drop(unread);
    }
}

fn take<T>(queue: &mut Queue<T>) -> Option<T> {
    let message = queue.waiting.pop_front();
    if queue.waiting.is_empty() {
        queue.waiting = VecDeque::new();
    }
    message
}

fn lock<T>(queue: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    // It is whole between any two statements.
    queue
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_in_order_and_wake_who_waits() {
        let (sender, mut receiver) = channel();
        sender.send(1).unwrap();
        sender.clone().send(2).unwrap();
        assert_eq!((receiver.recv().await, receiver.try_recv()), (1, Some(2)));
        assert_eq!(receiver.try_recv(), None);
        assert_eq!(lock(&receiver.0).waiting.capacity(), 0, "nothing is kept");

        let later = tokio::spawn(async move { (receiver.recv().await, receiver) });
        tokio::task::yield_now().await;
        sender.send(3).unwrap();
        let (message, receiver) = later.await.unwrap();
        assert_eq!(message, 3);

        sender.send(4).unwrap();
        drop(receiver);
        assert_eq!(sender.send(5), Err(Gone));
        assert!(lock(&sender.0).waiting.is_empty());
    }
}
