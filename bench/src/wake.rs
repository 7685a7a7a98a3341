//! A worker's wake-ups, for tokio.

use std::io;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use turnpike_dataplane::wake::Wake;

/// A descriptor for tokio.
pub(crate) struct WakeFd(Arc<Wake>);

impl std::os::fd::AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// Lets tokio wait for a wake.
///
/// # Errors
/// Those of epoll.
#[allow(
    deprecated,
    reason = "its successor is unsafe because a descriptor might change under it; a wake's lives as long as it"
)]
pub(crate) fn watch(wake: Arc<Wake>) -> io::Result<AsyncFd<WakeFd>> {
    AsyncFd::new(WakeFd(wake))
}
