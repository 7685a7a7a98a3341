//! The operator's end of the control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Request, Response};
use crate::pcapng::{Blocks, NotACapture, Whole};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an operator command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server there.
    #[error("no server answers on {path}: {error}{hint}")]
    Unreachable {
        /// The socket.
        path: String,
        /// What the system said.
        error: io::Error,
        /// What to do about it; may be empty.
        hint: &'static str,
    },
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Broken(#[from] io::Error),
    /// The server did not understand, or could not do it.
    #[error("{0}")]
    Refused(String),
    /// The server said something else than what was asked.
    #[error("the server gave an answer to another question: are client and server of one version?")]
    Confused,
    /// See there.
    #[error(transparent)]
    NotACapture(#[from] NotACapture),
}

/// A connection to the server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the control socket.
    ///
    /// # Errors
    /// [`Error::Unreachable`], with what to do about it.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        let unreachable = |error: io::Error| Error::Unreachable {
            path: path.display().to_string(),
            hint: match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "; is it running? With another run_dir in its configuration, say --socket RUN_DIR/turnpike.sock"
                }
                io::ErrorKind::PermissionDenied => "; try it as root, or as the user it runs as",
                _ => "",
            },
            error,
        };
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Asks one thing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason; [`Error::Broken`].
    pub async fn ask(&mut self, request: &Request) -> Result<Response, Error> {
        let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.stream.write_all(&line).await?;
        let mut answer = Vec::new();
        timeout(PATIENCE, self.stream.read_until(b'\n', &mut answer))
            .await
            .map_err(io::Error::from)??;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_slice(&answer).map_err(|_| Error::Confused)? {
            Response::Error(why) => Err(Error::Refused(why)),
            response => Ok(response),
        }
    }

    /// After [`Response::Capturing`]: the next whole blocks of the capture; none when the server ended it. Losing this future loses nothing.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::NotACapture`].
    pub async fn blocks(&mut self, blocks: &mut Blocks) -> Result<Vec<Whole>, Error> {
        loop {
            let mut whole = Vec::new();
            while let Some(block) = blocks.pop()? {
                whole.push(block);
            }
            if !whole.is_empty() {
                return Ok(whole);
            }
            let mut chunk = vec![0; 64 << 10];
            match self.stream.read(&mut chunk).await? {
                0 => return Ok(Vec::new()),
                read => blocks.push(&chunk[..read]),
            }
        }
    }
}
