//! The server end of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Backend, Request, Response};
use crate::cause::Cause;
use crate::pcapng;

/// The longest request, in octets.
const MAX_REQUEST: usize = 4096;

/// Operators at once; more wait for one to leave.
const MAX_CONNECTIONS: usize = 32;

/// Captures at once; each costs the workers a copy of every packet. Fewer than connections, so that captures
/// never keep `turnpike kill` out.
const MAX_CAPTURES: usize = 8;

/// How long an operator may take to send a request, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of a capture is gathered for one write, in octets.
const CHUNK: usize = 64 << 10;

/// The control socket, bound. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it was when we made it: a successor may have put its own in place.
    inode: u64,
}

impl Server {
    /// Binds `path`; the file's permissions are `mode` (0o600: only the same user and root). What a dead server left
    /// there is replaced. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when a live server answers there; whatever the system says otherwise.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        if BlockingStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another server answers on {}", path.display()),
            ));
        }
        // Made under another name, so that nobody can connect before its permissions are right; the rename then
        // replaces a stale socket without a moment in which there is none.
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        remove(&fresh)?;
        let listener = UnixListener::bind(&fresh)?;
        let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&fresh, path))
            .and_then(|()| fs::symlink_metadata(path));
        let inode = match placed {
            Ok(metadata) => metadata.ino(),
            Err(error) => {
                remove(&fresh)?;
                return Err(error);
            }
        };
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }

    /// Answers operators until dropped. No operator, however slow or many, holds up more than its own connection.
    pub async fn serve<B: Backend>(&self, backend: Arc<B>) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let captures = Arc::new(Semaphore::new(MAX_CAPTURES));
        // Dropped together with this future, and the tasks with it.
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = connections.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (backend, captures) = (backend.clone(), captures.clone());
                    tasks.spawn(async move {
                        // An operator who goes away or is too slow is no event for the log.
                        let _ = converse(stream, &*backend, &captures).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Answers one connection's requests, one after the other.
async fn converse<B: Backend>(
    mut stream: UnixStream,
    backend: &B,
    captures: &Semaphore,
) -> io::Result<()> {
    let mut pending = Vec::new();
    while let Some(line) = timeout(PATIENCE, line(&mut stream, &mut pending)).await?? {
        let response = match serde_json::from_slice(&line) {
            Ok(Request::Sessions) => Response::Sessions(backend.sessions().await),
            Ok(Request::Stats) => Response::Stats(Box::new(backend.stats().await)),
            Ok(Request::Kill { calls }) => {
                tracing::info!(?calls, "an operator ends calls");
                match backend.kill(calls, Cause::Killed).await {
                    Ok(killed) => Response::Killed(killed),
                    Err(why) => Response::Error(why),
                }
            }
            Ok(Request::Capture { calls }) => match captures.try_acquire() {
                Err(_) => Response::Error(format!("{MAX_CAPTURES} captures run already")),
                Ok(_permit) => match backend.capture(calls).await {
                    Err(why) => Response::Error(why),
                    Ok(packets) => return capture(stream, packets).await,
                },
            },
            Err(error) => Response::Error(format!("not a request: {error}")),
        };
        send(&mut stream, &response).await?;
    }
    Ok(())
}

/// Reads a line; `None` at the end of the stream.
async fn line(stream: &mut UnixStream, pending: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let rest = pending.split_off(end + 1);
            return Ok(Some(std::mem::replace(pending, rest)));
        }
        if pending.len() > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut chunk = [0; MAX_REQUEST];
        match stream.read(&mut chunk).await? {
            0 => return Ok(None),
            read => pending.extend(&chunk[..read]),
        }
    }
}

async fn send(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line)).await?
}

/// Streams a capture until the operator closes the connection. A slow reader makes the channel overflow, which is
/// counted in the file; it may take as long as it wants, since people pause what they look at.
async fn capture(
    mut stream: UnixStream,
    mut packets: tokio::sync::mpsc::Receiver<super::Packet>,
) -> io::Result<()> {
    send(&mut stream, &Response::Capturing).await?;
    let mut chunk = Vec::with_capacity(CHUNK + 4096);
    pcapng::header(&mut chunk);
    let (mut reader, mut writer) = stream.split();
    let closed = async {
        // Nothing more is expected from the operator, so whatever comes, first of all the end, ends the capture.
        let _ = reader.read(&mut [0]).await;
    };
    let copied = async {
        loop {
            writer.write_all(&chunk).await?;
            chunk.clear();
            let Some(packet) = packets.recv().await else {
                return Ok(());
            };
            pcapng::packet(&mut chunk, &packet);
            while chunk.len() < CHUNK
                && let Ok(packet) = packets.try_recv()
            {
                pcapng::packet(&mut chunk, &packet);
            }
        }
    };
    tokio::select! {
        () = closed => Ok(()),
        result = copied => result,
    }
}
