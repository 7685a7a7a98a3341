//! Streams of known content over TCP, hashed at both ends.
//!
//! A [`Hall`] listens; [`run`] connects to it, says in one line of JSON which way how many octets go, and moves them.
//! The content is pseudo-random, so that nothing can compress or guess it, except for a marker that stands at the start of each block
//! of [`BLOCK`] octets: whoever sees the stream in clear can find it. Both ends hash what passed their socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::netns::Namespace;

/// The marker stands at the start of every block of this many octets.
pub const BLOCK: usize = 64 * 1024;

/// A stream that stands still for so long has failed.
const STALL: Duration = Duration::from_secs(20);

/// Which way a stream goes, seen from who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From who connects.
    Up,
    /// To who connects.
    Down,
}

/// What one end saw of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Seen from who connected.
    pub direction: Direction,
    /// How many octets passed this end.
    pub bytes: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
    /// From the first to the last octet.
    pub seconds: f64,
}

impl Moved {
    /// Throughput in Mbit/s.
    pub fn megabits(&self) -> f64 {
        self.bytes as f64 * 8e-6 / self.seconds.max(1e-9)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    direction: Direction,
    bytes: u64,
    marker: String,
}

/// A listener inside a namespace that takes part in any number of streams. It ends when dropped.
#[derive(Debug)]
pub struct Hall {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Octets that passed, of all streams.
    passed: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<Result<Moved, String>>>>,
}

impl Hall {
    /// Listens on `address` at `port` (0: any) inside `namespace`.
    pub fn open(namespace: &Namespace, address: impl Into<IpAddr>, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address.into(), port);
        let listener = namespace
            .enter(move || TcpListener::bind(address))?
            .join()
            .map_err(|_| anyhow::anyhow!("listening panicked"))?
            .with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let hall = Self {
            address: listener.local_addr()?,
            stop: Arc::default(),
            passed: Arc::default(),
            seen: Arc::default(),
        };
        let (stop, passed, seen) = (hall.stop.clone(), hall.passed.clone(), hall.seen.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (passed, seen) = (passed.clone(), seen.clone());
                        std::thread::spawn(move || {
                            let result = serve(stream, &passed).map_err(|e| format!("{e:#}"));
                            seen.lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(result);
                        });
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(hall)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many octets passed so far, of all streams.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// What this end saw of stream `number`, counted from 0 in the order in which they ended; waits a little for it.
    pub fn moved(&self, number: usize) -> Result<Moved> {
        super::until("the listening end's account of a stream", STALL, || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match seen.get(number) {
                None => Ok(None),
                Some(Ok(moved)) => Ok(Some(moved.clone())),
                Some(Err(error)) => bail!("the listening end: {error}"),
            }
        })
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, passed: &AtomicU64) -> Result<Moved> {
    stream.set_nonblocking(false)?;
    prepare(&stream)?;
    let mut reader = BufReader::with_capacity(BLOCK, stream.try_clone()?);
    let mut line = String::new();
    (&mut reader).take(4096).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("not an order")?;
    let mut last = 0;
    let mut note = |bytes: u64| {
        passed.fetch_add(bytes - last, Ordering::Relaxed);
        last = bytes;
    };
    match order.direction {
        Direction::Up => {
            let moved = receive(&mut reader, &order, &mut note)?;
            writeln!(&stream, "{}", serde_json::to_string(&moved)?)?;
            Ok(moved)
        }
        Direction::Down => {
            let moved = send(&stream, &order, &mut note)?;
            // The other end closes when it has everything.
            let mut rest = [0];
            let _ = reader.read(&mut rest);
            Ok(moved)
        }
    }
}

/// Moves `bytes` octets of a stream that holds `marker` to or from the [`Hall`] at `to`; `note` hears how many so far.
pub fn run(
    to: SocketAddr,
    direction: Direction,
    bytes: u64,
    marker: &str,
    note: &mut dyn FnMut(u64),
) -> Result<Moved> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))
        .with_context(|| format!("cannot connect to {to}"))?;
    prepare(&stream)?;
    let order = Order {
        direction,
        bytes,
        marker: marker.to_owned(),
    };
    writeln!(&stream, "{}", serde_json::to_string(&order)?)?;
    let mut reader = BufReader::with_capacity(BLOCK, stream.try_clone()?);
    let moved = match direction {
        Direction::Up => {
            let moved = send(&stream, &order, note)?;
            let mut line = String::new();
            reader
                .read_line(&mut line)
                .context("the receiver's account did not come")?;
            let theirs: Moved = serde_json::from_str(&line).context("the receiver's account")?;
            ensure!(theirs.bytes == moved.bytes, "octets were lost: {theirs:?}");
            // The sender's last write ends in a buffer; the receiver knows when it arrived.
            Moved {
                seconds: moved.seconds.max(theirs.seconds),
                ..moved
            }
        }
        Direction::Down => receive(&mut reader, &order, note)?,
    };
    // Close from both ends now: a FIN that finds the tunnel gone is repeated for minutes.
    stream.shutdown(Shutdown::Write)?;
    while reader.read(&mut [0; 64])? > 0 {}
    Ok(moved)
}

/// [`run`], from inside `namespace`, while `watch` is called ten times a second with the number of octets so far.
pub fn run_inside(
    namespace: &Namespace,
    to: SocketAddr,
    direction: Direction,
    bytes: u64,
    marker: &str,
    watch: &mut dyn FnMut(u64),
) -> Result<Moved> {
    let so_far = Arc::new(AtomicU64::new(0));
    let marker = marker.to_owned();
    let written = so_far.clone();
    let thread = namespace.enter(move || {
        run(to, direction, bytes, &marker, &mut |bytes| {
            written.store(bytes, Ordering::Relaxed);
        })
    })?;
    while !thread.is_finished() {
        watch(so_far.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(100));
    }
    watch(so_far.load(Ordering::Relaxed));
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("moving data panicked"))?
}

fn prepare(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    Ok(())
}

fn send(mut stream: &TcpStream, order: &Order, note: &mut dyn FnMut(u64)) -> Result<Moved> {
    let mut content = Content::new(order);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    let began = Instant::now();
    let mut sent = 0;
    while sent < order.bytes {
        content.fill(&mut buffer);
        let len = usize::try_from(order.bytes - sent).map_or(BLOCK, |left| left.min(BLOCK));
        let part = &buffer[..len];
        hash.update(part);
        stream
            .write_all(part)
            .with_context(|| format!("sending stands still after {sent} octets"))?;
        sent += len as u64;
        note(sent);
    }
    Ok(moved(order.direction, sent, hash, began))
}

fn receive(reader: &mut impl Read, order: &Order, note: &mut dyn FnMut(u64)) -> Result<Moved> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    let began = Instant::now();
    let mut received = 0;
    while received < order.bytes {
        let want = usize::try_from(order.bytes - received).map_or(BLOCK, |left| left.min(BLOCK));
        let len = reader
            .read(&mut buffer[..want])
            .with_context(|| format!("receiving stands still after {received} octets"))?;
        ensure!(len > 0, "the stream ended after {received} octets");
        hash.update(&buffer[..len]);
        received += len as u64;
        note(received);
    }
    Ok(moved(order.direction, received, hash, began))
}

fn moved(direction: Direction, bytes: u64, hash: Sha256, began: Instant) -> Moved {
    let sha256 = hash
        .finalize()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    Moved {
        direction,
        bytes,
        sha256,
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// The content of a stream, block after block.
struct Content {
    state: u64,
    marker: Vec<u8>,
}

impl Content {
    fn new(order: &Order) -> Self {
        // Different markers give different streams, and so do the two directions. The state must not be 0.
        let digest = Sha256::digest(format!("{:?} {}", order.direction, order.marker));
        let state = digest
            .iter()
            .take(8)
            .fold(0, |state: u64, octet| state << 8 | u64::from(*octet));
        Self {
            state: state | 1,
            marker: order.marker.as_bytes().to_vec(),
        }
    }

    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            // Marsaglia's xorshift64.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes()[..word.len()]);
        }
        let len = self.marker.len().min(block.len());
        block[..len].copy_from_slice(&self.marker[..len]);
    }
}

/// A marker that no other stream holds.
pub fn fresh_marker() -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("turnpike-marker-{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_arrives_either_way_and_a_changed_octet_shows() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        for direction in [Direction::Up, Direction::Down] {
            let passed = AtomicU64::new(0);
            let (here, there) = std::thread::scope(|scope| {
                let there = scope.spawn(|| serve(listener.accept().unwrap().0, &passed).unwrap());
                let here = run(to, direction, 300_001, "a marker", &mut |_| ()).unwrap();
                (here, there.join().unwrap())
            });
            assert_eq!((here.bytes, there.bytes), (300_001, 300_001));
            assert_eq!(here.sha256, there.sha256);
            assert_eq!(passed.into_inner(), 300_001);
        }
        let order = Order {
            direction: Direction::Down,
            bytes: 10,
            marker: String::new(),
        };
        let a = receive(&mut &b"0123456789"[..], &order, &mut |_| ()).unwrap();
        let b = receive(&mut &b"0123456780"[..], &order, &mut |_| ()).unwrap();
        assert_ne!(a.sha256, b.sha256);
        assert!(receive(&mut &b"012345678"[..], &order, &mut |_| ()).is_err());
    }

    #[test]
    fn the_marker_stands_in_every_block() {
        let order = |direction| Order {
            direction,
            bytes: 0,
            marker: "marker".to_owned(),
        };
        let mut content = Content::new(&order(Direction::Up));
        let mut other = Content::new(&order(Direction::Down));
        let mut others = vec![0; BLOCK];
        other.fill(&mut others);
        let mut block = vec![0; BLOCK];
        for _ in 0..3 {
            content.fill(&mut block);
            assert!(block.starts_with(b"marker"));
            assert_ne!(block, others);
            assert!(memchr::memmem::find(&block[6..], b"marker").is_none());
        }
    }
}
