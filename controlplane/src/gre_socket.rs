//! GRE that Linux keeps, on its way to the workers: fragments, which it reassembles, and whatever else the XDP
//! program passes.

use std::io;

use tokio::sync::watch;
use turnpike_dataplane::ports::raw::GreSocket;

use crate::async_fd::watch;
use crate::driver;
use crate::switchboard::Switchboard;

/// Hands datagrams to the owners of their calls until the server stops.
///
/// # Errors
/// When the socket cannot be watched.
pub async fn run(
    socket: GreSocket,
    switchboard: Switchboard,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let socket = watch(socket)?;
    // The largest IPv4 datagram, so that one that is too long is seen to be so.
    let mut buffer = vec![0; 65_535];
    loop {
        let read = socket.async_io(tokio::io::Interest::READABLE, |socket| {
            socket.receive(&mut buffer)
        });
        let result = tokio::select! {
            () = driver::stopped(&mut stopping) => return Ok(()),
            result = read => result,
        };
        match result {
            Ok(octets) => switchboard.datagram(&buffer[..octets]),
            // ICMP errors about packets that somebody sent: never a reason to end anything.
            Err(error) => tracing::debug!(%error, "raw GRE socket"),
        }
    }
}
