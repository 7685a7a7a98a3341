//! The control connections' TCP: each has tasks of its own, and the loop hears of them by messages.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// From a task to the loop, with the number of the set-up.
pub(super) enum Message {
    Connected(u32, TcpStream),
    Unreachable(u32, io::Error),
    Octets(u32, Vec<u8>),
    /// The connection was closed or broke.
    Gone(u32),
}

/// Dials, from an address or from Linux' choice.
pub(super) fn connect(
    number: u32,
    from: Option<Ipv4Addr>,
    server: SocketAddrV4,
    patience: Duration,
    messages: UnboundedSender<Message>,
) {
    tokio::spawn(async move {
        let connected = tokio::time::timeout(patience, connect_from(from, server)).await;
        // The loop outlives its tasks, or nobody cares.
        let _ = messages.send(match connected {
            Ok(Ok(stream)) => Message::Connected(number, stream),
            Ok(Err(error)) => Message::Unreachable(number, error),
            Err(_) => Message::Unreachable(number, io::ErrorKind::TimedOut.into()),
        });
    });
}

async fn connect_from(from: Option<Ipv4Addr>, server: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    }
    socket.connect(SocketAddr::V4(server)).await
}

/// Reads what comes, and gives back where to put what is to be sent; the connection is closed when that is dropped.
pub(super) fn attach(
    number: u32,
    stream: TcpStream,
    messages: UnboundedSender<Message>,
) -> io::Result<UnboundedSender<Vec<u8>>> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let (octets, mut outbox): (_, UnboundedReceiver<Vec<u8>>) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(octets) = outbox.recv().await {
            if writer.write_all(&octets).await.is_err() {
                // The reader notices, too.
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 1024];
        loop {
            let message = match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => Message::Gone(number),
                Ok(len) => Message::Octets(number, buffer[..len].to_vec()),
            };
            let last = matches!(message, Message::Gone(_));
            if messages.send(message).is_err() || last {
                return;
            }
        }
    });
    Ok(octets)
}
