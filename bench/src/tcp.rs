//! TCP of a control connection: the task that reads and writes, and what the loop hears of it.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockFilter, SockRef};
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

/// Lets this process have so many connections, and what else it opens. Says so when the system does not allow it: a dial
/// fails then.
pub(crate) fn allow(connections: u32) {
    let wanted = u64::from(connections) + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || current < wanted {
        tracing::warn!("only {current} files may be open, and {wanted} are wanted: ulimit -n");
    }
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

/// Our end of a connection. When it is dropped, what was sent before leaves, and the connection is closed properly.
pub(crate) struct Writer(UnboundedSender<Word>);

enum Word {
    Octets(Vec<u8>),
    Reset,
    Vanish(Duration),
}

impl Writer {
    /// Sends octets. On a connection that is gone they are lost; it shows as [`Heard::Gone`].
    pub(crate) fn send(&self, octets: Vec<u8>) {
        let _ = self.0.send(Word::Octets(octets));
    }

    /// Ends the connection by a TCP reset. Nothing is heard any more.
    pub(crate) fn reset(self) {
        let _ = self.0.send(Word::Reset);
    }

    /// Ends the connection as a power cut does: not a word goes out, and nothing is answered while the power is off; then
    /// Linux knows nothing of the connection, and answers with resets. Nothing is heard any more.
    pub(crate) fn vanish(self, off: Duration) {
        let _ = self.0.send(Word::Vanish(off));
    }
}

/// How we leave a connection.
enum Leave {
    Closed,
    Reset,
    Vanish(Duration),
}

/// Gives what comes to `hear`, until that says `false`.
pub(crate) fn attach(
    stream: TcpStream,
    hear: impl FnMut(Heard) -> bool + Send + 'static,
) -> io::Result<Writer> {
    stream.set_nodelay(true)?;
    let (words, outbox) = unbounded_channel();
    tokio::spawn(carry(stream, outbox, hear));
    Ok(Writer(words))
}

async fn carry(
    mut stream: TcpStream,
    mut outbox: UnboundedReceiver<Word>,
    mut hear: impl FnMut(Heard) -> bool,
) {
    let leave = {
        let (mut reader, mut writer) = stream.split();
        let mut reading = core::pin::pin!(async {
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
        let mut writing = core::pin::pin!(async {
            while let Some(word) = outbox.recv().await {
                match word {
                    // One that is broken is noticed by who reads.
                    Word::Octets(octets) => drop(writer.write_all(&octets).await),
                    Word::Reset => return Leave::Reset,
                    Word::Vanish(off) => return Leave::Vanish(off),
                }
            }
            let _ = writer.shutdown().await;
            Leave::Closed
        });
        tokio::select! {
            // What was said last is said before what has come is looked at: who has left hears nothing.
            biased;
            leave = &mut writing => {
                if let Leave::Closed = leave {
                    reading.await;
                }
                leave
            }
            () = &mut reading => writing.await,
        }
    };
    let done = match leave {
        Leave::Closed => Ok(()),
        Leave::Reset => stream.set_zero_linger(),
        Leave::Vanish(off) => vanish(&stream, off).await,
    };
    if let Err(error) = done {
        tracing::warn!(%error, "a connection could not be ended as it should");
    }
}

/// Leaves a connection in such a way that dropping the stream says nothing.
async fn vanish(stream: &TcpStream, off: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    // A program for classic BPF of one instruction: keep 0 octets of whatever comes. So Linux drops it unseen.
    const RETURN: u16 = 6;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    tokio::time::sleep(off).await;
    // Bound to the loopback interface, it is none of the connection's business any more what comes from the server, which
    // hears a reset from Linux; and its own last word, a reset, gets no farther than that interface.
    socket.bind_device(Some(b"lo"))?;
    stream.set_zero_linger()
}
