//! Descriptors that tokio waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// Lets tokio wait for a descriptor, in a tokio runtime.
///
/// # Errors
/// When the descriptor cannot be watched.
pub(crate) fn watch<T: AsFd + AsRawFd>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // tokio calls its safe constructors deprecated, because a type may lie about a raw descriptor. Here the bound
    // `AsFd` says that the value owns one for as long as it lives, and the other way is `unsafe`, which this crate
    // forbids.
    #[allow(deprecated, reason = "see above")]
    AsyncFd::new(descriptor)
}
