//! The sockets on one queue of one device, with their rings.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::{Consumer, Producer};
use super::sys::{self, Mapping, RingKind};
use super::umem::Umem;
use super::{Error, Sizes};
use crate::device::{Batch, CHUNK, Frame};

/// How long a queue may stay taken by a socket that was closed: Linux takes sockets down some milliseconds after the
/// close, or after the end of the process that had them.
const BUSY: Duration = Duration::from_secs(2);

/// The pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// System calls in a row that may find nothing sent before a turn gives up; the next turn goes on.
const IDLE_KICKS: u32 = 8;

/// Octets that may wait in one socket's send buffer: more than a ring's worth of frames with Linux' overhead.
const SEND_BUFFER: i32 = 16 << 20;

/// A ring of the kernel's, seen from the end that writes.
type Writer<T> = Producer<T, Mapping>;
/// A ring of the kernel's, seen from the end that reads.
type Reader<T> = Consumer<T, Mapping>;

/// What AF_XDP lost on the way out, by our own count.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Troubles {
    /// Frames that the device refused; they are gone.
    pub(super) refused: u64,
    /// Kicks that failed for another reason than a full device.
    pub(super) failed: u64,
}

/// One queue: the rings that its sockets share, and the sockets.
///
/// The order of the fields is the order in which they are dropped: rings before sockets.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) device: u32,
    pub(super) number: u32,
    /// Which memory its frames lie in.
    pub(super) memory: u8,
    fill: Writer<u64>,
    completion: Reader<u64>,
    transmit: Option<Writer<libc::xdp_desc>>,
    /// One per port that receives here: the program tells them apart, so that frames need not be sorted again.
    receive: Vec<Reader<libc::xdp_desc>>,
    /// The socket of each of them.
    sockets: Vec<Arc<OwnedFd>>,
    /// Chunks that the kernel has for receiving: in the fill ring, in its own hands, in a receive ring.
    filled: u32,
    /// How many it should have.
    fill_target: u32,
    /// Chunks that are being sent: in the transmit ring, in Linux' hands, in the completion ring.
    sending: u32,
    ring: u32,
    /// Whether the driver is polled.
    busy_poll: bool,
    pub(super) zero_copy: bool,
    pub(super) troubles: Troubles,
}

impl Queue {
    /// Whether frames wait in the transmit ring.
    pub(super) fn has_unsent(&mut self) -> bool {
        self.transmit
            .as_mut()
            .is_some_and(|ring| ring.waiting() > 0)
    }

    /// Chunks that a queue can hold at most.
    pub(super) fn chunks(sizes: &Sizes, transmits: bool) -> u32 {
        // What waits to be filled or read: the fill ring, and what it gave to the receive ring. Then what is sent.
        sizes.fill() + if transmits { sizes.ring } else { 0 }
    }

    /// Opens a socket on a queue, with room to receive and, when it `transmits`, to send. `first` is a socket that
    /// registered the memory before, if there is one.
    pub(super) fn open(
        device: u32,
        number: u32,
        memory: u8,
        umem: &Umem,
        first: Option<&OwnedFd>,
        transmits: bool,
        sizes: &Sizes,
    ) -> Result<Self, Error> {
        let failed = |step: &'static str| {
            move |source: io::Error| Error::Socket {
                device,
                queue: number,
                step,
                source,
            }
        };
        let socket = sys::xdp_socket().map_err(failed("open"))?;
        let fd = socket.as_fd();
        if first.is_none() {
            umem.register(fd).map_err(failed("register memory with"))?;
        }
        let fill =
            writer(fd, RingKind::Fill, sizes.fill()).map_err(failed("make the fill ring of"))?;
        let completion = reader(fd, RingKind::Completion, sizes.ring)
            .map_err(failed("make the completion ring of"))?;
        let receive = reader(fd, RingKind::Receive, sizes.ring)
            .map_err(failed("make the receive ring of"))?;
        poll(fd, sizes).map_err(failed("turn busy polling on for"))?;
        let transmit = if transmits {
            sys::set_send_buffer(fd, SEND_BUFFER).map_err(failed("size the send buffer of"))?;
            let ring = writer(fd, RingKind::Transmit, sizes.ring)
                .map_err(failed("make the transmit ring of"))?;
            // An older kernel has no such option, and takes a kick for every 32 frames.
            let _ = sys::set_send_budget(fd, sizes.ring);
            Some(ring)
        } else {
            None
        };
        let flags = libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP;
        bind(&socket, device, number, flags, first).map_err(failed("bind"))?;
        let zero_copy = sys::zero_copy(fd).map_err(failed("ask about"))?;
        Ok(Self {
            device,
            number,
            memory,
            fill,
            completion,
            transmit,
            receive: vec![receive],
            sockets: vec![Arc::new(socket)],
            filled: 0,
            fill_target: sizes.fill(),
            sending: 0,
            ring: sizes.ring,
            busy_poll: sizes.busy_poll > 0,
            zero_copy,
            troubles: Troubles::default(),
        })
    }

    /// Opens one more socket on this queue, that only receives. It shares the queue's fill and completion rings.
    /// Returns its place among the queue's sockets.
    pub(super) fn open_another(&mut self, sizes: &Sizes) -> Result<usize, Error> {
        let failed = |step: &'static str| {
            let (device, queue) = (self.device, self.number);
            move |source: io::Error| Error::Socket {
                device,
                queue,
                step,
                source,
            }
        };
        let socket = sys::xdp_socket().map_err(failed("open"))?;
        let receive = reader(socket.as_fd(), RingKind::Receive, sizes.ring)
            .map_err(failed("make the receive ring of"))?;
        poll(socket.as_fd(), sizes).map_err(failed("turn busy polling on for"))?;
        bind(&socket, self.device, self.number, 0, Some(&self.sockets[0]))
            .map_err(failed("bind"))?;
        self.receive.push(receive);
        self.sockets.push(Arc::new(socket));
        Ok(self.sockets.len() - 1)
    }

    /// The socket at this place.
    pub(super) fn socket(&self, place: usize) -> &Arc<OwnedFd> {
        &self.sockets[place]
    }

    /// Chunks in this queue's rings or in the kernel's hands.
    pub(super) fn held(&self) -> usize {
        self.filled as usize + self.sending as usize
    }

    /// Whether the receive ring of the socket at `place` was found full since this was asked last.
    pub(super) fn was_full(&mut self, place: usize) -> bool {
        self.receive[place].was_full()
    }

    /// Moves frames that arrived at the socket at `place` to the end of `batch`, as many as fit; returns how many.
    pub(super) fn receive(&mut self, place: usize, batch: &mut Batch) -> usize {
        let ring = &mut self.receive[place];
        let before = batch.len();
        while !batch.is_full() {
            let Some(descriptor) = ring.pop() else {
                break;
            };
            let (chunk, start) = split(descriptor.addr);
            let len = u16::try_from(descriptor.len).unwrap_or(u16::MAX);
            debug_assert!(usize::from(start) + usize::from(len) <= CHUNK);
            batch.push(Frame::new(self.memory, chunk, start, len));
        }
        ring.release();
        let received = batch.len() - before;
        self.filled -= received as u32;
        received
    }

    /// Puts a frame into the transmit ring; the kernel sees it after [`Queue::flush`]. False, and nothing done, when
    /// it does not fit, or the queue does not send.
    pub(super) fn transmit(&mut self, frame: &Frame, umem: &mut Umem) -> bool {
        if self.sending >= self.ring {
            self.reap(umem);
        }
        let Some(ring) = &mut self.transmit else {
            return false;
        };
        // A chunk leaves `sending` only when it was taken back, so the completion ring never overflows and the
        // queue's chunks keep to their number.
        if self.sending >= self.ring {
            return false;
        }
        let pushed = ring.push(libc::xdp_desc {
            addr: frame.chunk as u64 * CHUNK as u64 + u64::from(frame.start),
            len: u32::from(frame.len),
            options: 0,
        });
        self.sending += u32::from(pushed);
        pushed
    }

    /// Sends what waits, takes back what was sent, and gives the kernel chunks to receive into.
    pub(super) fn flush(&mut self, umem: &mut Umem) {
        self.kick();
        self.reap(umem);
        let mut filled = self.filled;
        while filled < self.fill_target
            && self.fill.room(1) > 0
            && let Some(chunk) = umem.take()
        {
            // There is room, so it is always pushed.
            self.fill.push(u64::from(chunk) * CHUNK as u64);
            filled += 1;
        }
        self.filled = filled;
        let filled = self.fill.publish() > 0;
        if self.busy_poll || (filled && self.fill.needs_wakeup()) {
            // One of a queue's sockets polls for all of them.
            sys::kick_receive(self.sockets[0].as_fd());
        }
    }

    /// Makes the kernel send. In copy mode a call sends so many frames at most (32, or a ring's worth where Linux can be told:
    /// [`sys::set_send_budget`]) and says EAGAIN when there are more.
    fn kick(&mut self) {
        let Some(ring) = &mut self.transmit else {
            return;
        };
        ring.publish();
        if self.sending == 0 {
            return;
        }
        let mut waiting = ring.waiting();
        let mut idle = 0;
        while waiting > 0 && idle < IDLE_KICKS && ring.needs_wakeup() {
            let result = sys::kick_transmit(self.sockets[0].as_fd());
            let still = ring.waiting();
            match result.as_ref().err().and_then(io::Error::raw_os_error) {
                None | Some(libc::EAGAIN | libc::ENOBUFS) => {}
                // One frame was taken and the device dropped it.
                Some(libc::EBUSY) => self.troubles.refused += 1,
                // The device is down or gone. What waits stays; what does not fit any more is refused.
                Some(_) => {
                    self.troubles.failed += 1;
                    break;
                }
            }
            idle = if still == waiting { idle + 1 } else { 0 };
            waiting = still;
        }
    }

    /// Takes chunks back that were sent.
    fn reap(&mut self, umem: &mut Umem) {
        while self.sending > 0
            && let Some(address) = self.completion.pop()
        {
            umem.give(split(address).0);
            self.sending -= 1;
        }
        self.completion.release();
    }
}

/// Turns busy polling on where it is wanted.
fn poll(socket: BorrowedFd<'_>, sizes: &Sizes) -> io::Result<()> {
    match sizes.busy_poll {
        0 => Ok(()),
        frames => sys::set_busy_poll(socket, frames),
    }
}

/// Binds, waiting for a queue that a socket closed a moment ago still has.
fn bind(
    socket: &OwnedFd,
    device: u32,
    queue: u32,
    flags: u16,
    shares: Option<&OwnedFd>,
) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match sys::bind(
            socket.as_fd(),
            device,
            queue,
            flags,
            shares.map(AsFd::as_fd),
        ) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < BUSY => {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

/// The chunk and the octet in it that an address of the kernel's names.
fn split(address: u64) -> (u32, u16) {
    let chunk = address / CHUNK as u64;
    let start = address % CHUNK as u64;
    (chunk as u32, start as u16)
}

fn writer<T: super::ring::Item>(
    fd: BorrowedFd<'_>,
    kind: RingKind,
    entries: u32,
) -> io::Result<Writer<T>> {
    let (mapping, layout) = sys::make_ring(fd, kind, entries, size_of::<T>())?;
    // SAFETY: the socket is new and each of its rings is made once, so this is the only writing end; the kernel is the
    // other side and keeps the protocol of AF_XDP rings.
    unsafe { Producer::new(mapping, layout, entries) }
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn reader<T: super::ring::Item>(
    fd: BorrowedFd<'_>,
    kind: RingKind,
    entries: u32,
) -> io::Result<Reader<T>> {
    let (mapping, layout) = sys::make_ring(fd, kind, entries, size_of::<T>())?;
    // SAFETY: as for the writing end.
    unsafe { Consumer::new(mapping, layout, entries) }
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
