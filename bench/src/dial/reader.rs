//! The task that reads a control connection.

use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc::UnboundedSender;

use super::client::Message;

/// Hands what comes on connection `at` to the loop, until it ends.
pub(super) async fn read(at: usize, mut reader: OwnedReadHalf, messages: UnboundedSender<Message>) {
    let mut buffer = vec![0; 4096];
    loop {
        let message = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => Message::Gone(at),
            Ok(len) => Message::Octets(at, buffer[..len].to_vec()),
        };
        let last = matches!(message, Message::Gone(_));
        if messages.send(message).is_err() || last {
            return;
        }
    }
}
