//! TCP of a control connection: tasks that read and write, and what the loop hears of them.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes on a connection.
pub(crate) enum Heard {
    /// Octets, as they came.
    Octets(Vec<u8>),
    /// It was closed or broke; nothing follows.
    Gone,
}

/// Connects, from an address or from Linux' choice.
pub(crate) async fn connect(
    from: Option<Ipv4Addr>,
    server: SocketAddrV4,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    }
    tokio::time::timeout(patience, socket.connect(SocketAddr::V4(server)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Gives what comes to `hear`, until that says `false`. What is put into the channel is sent; when it is dropped, the rest
/// is sent and the connection closed.
pub(crate) fn attach(
    stream: TcpStream,
    mut hear: impl FnMut(Heard) -> bool + Send + 'static,
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
        let mut buffer = vec![0; 4096];
        loop {
            let heard = match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => Heard::Gone,
                Ok(len) => Heard::Octets(buffer[..len].to_vec()),
            };
            let last = matches!(heard, Heard::Gone);
            if !hear(heard) || last {
                return;
            }
        }
    });
    Ok(octets)
}
