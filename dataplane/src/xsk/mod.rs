//! AF_XDP: all ports of one worker, on rings shared with the kernel.
//!
//! The only module besides the cipher kernels with `unsafe` code. [`sys`] holds the system calls, [`ring`] the rings,
//! generic over their memory so that both ends run in plain tests, [`umem`] the packet memory, [`socket`] the sockets
//! of one queue. Outside there is only [`Xsk`], a [`Device`] with safe methods; and [`pages`], which is about memory of
//! any kind and is here for being `unsafe`, too.
//!
//! A worker has two memories: one for all physical ports, so that a frame received on one is sent on another without
//! a copy, and one for the host port, because a veth cannot take part in zero-copy and would hold the others back.
#![allow(unsafe_code, reason = "rings and memory shared with the kernel")]

pub(crate) mod pages;
mod ring;
mod socket;
pub(crate) mod sys;
mod umem;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use self::socket::Queue;
use self::umem::Umem;
use crate::api::Port;
use crate::device::{Accounts, BATCH, Batch, CHUNK, Device, Frame, HEADROOM, Refused};
use crate::wake::Wake;
use crate::worker::Reordering;

/// Why a worker's sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The packet memory.
    #[error("cannot allocate {octets} octets of packet memory: {source}")]
    Memory {
        /// How much was asked for.
        octets: usize,
        /// Linux' answer.
        source: io::Error,
    },
    /// One of the sockets.
    #[error("cannot {step} the AF_XDP socket on queue {queue} of device {device}: {source}")]
    Socket {
        /// Index of the device.
        device: u32,
        /// The queue.
        queue: u32,
        /// What could not be done.
        step: &'static str,
        /// Linux' answer.
        source: io::Error,
    },
}

/// Sizes of rings and memories, and of what is taken from a driver at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Entries of the receive, transmit and completion rings, a power of two; fill rings have twice as many.
    pub ring: u32,
    /// Frames that the worker may hold between receiving and sending or releasing them.
    pub worker: u32,
    /// Frames that the worker may hold for longer, in the memory of the physical ports: those that wait for earlier ones
    /// ([`Reordering::chunks`](crate::worker::Reordering::chunks)).
    pub held: u32,
    /// Whether packet memory lies in huge pages, which must have been reserved.
    pub huge_pages: bool,
    /// Frames that the worker itself takes from a driver at a time, by a system call for each queue and turn; 0: none, drivers'
    /// interrupts bring them.
    pub busy_poll: u16,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            // What may wait while Linux lets another thread run on the worker's core, which takes it some milliseconds
            // at a time: half a million packets per second fill this ring in 8.
            ring: 4096,
            // A turn's batch of each port and as much again for what it allocates itself, with a margin of two.
            worker: (2 * 2 * Port::ALL.len() * BATCH) as u32,
            held: Reordering::default().chunks(),
            huge_pages: false,
            busy_poll: 0,
        }
    }
}

impl Sizes {
    /// Entries of a fill ring, and chunks that the kernel is given to receive into. A receive ring's worth waits in
    /// the receive ring when the worker is late; as many again are at hand for what arrives meanwhile.
    fn fill(&self) -> u32 {
        self.ring * 2
    }
}

/// One queue of one port that a worker serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The port.
    pub port: Port,
    /// Index of the device.
    pub device: u32,
    /// The queue.
    pub queue: u32,
}

/// A socket as the loader of the XDP program and the statistics see it.
#[derive(Clone, Debug)]
pub struct SocketHandle {
    /// Where it receives.
    pub binding: Binding,
    /// Whether the kernel copies no frame.
    pub zero_copy: bool,
    socket: Arc<OwnedFd>,
}

impl SocketHandle {
    /// The socket, to be put into the map of sockets.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The kernel's counters of this socket.
    ///
    /// # Errors
    /// When Linux refuses, which it does not do for an open socket.
    pub fn statistics(&self) -> io::Result<SocketStatistics> {
        let raw = sys::statistics(self.socket.as_fd())?;
        Ok(SocketStatistics {
            rx_dropped: raw.rx_dropped,
            rx_invalid_descs: raw.rx_invalid_descs,
            rx_ring_full: raw.rx_ring_full,
            rx_fill_ring_empty: raw.rx_fill_ring_empty_descs,
            tx_invalid_descs: raw.tx_invalid_descs,
            tx_ring_empty: raw.tx_ring_empty_descs,
        })
    }
}

/// The kernel's counters of one socket (`XDP_STATISTICS`), in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SocketStatistics {
    /// Dropped for want of memory, or too large for a chunk.
    pub rx_dropped: u64,
    /// Fill ring entries that made no sense.
    pub rx_invalid_descs: u64,
    /// Dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times the fill ring was empty when a chunk was needed.
    pub rx_fill_ring_empty: u64,
    /// Transmit ring entries that made no sense.
    pub tx_invalid_descs: u64,
    /// Times the kernel found nothing to send.
    pub tx_ring_empty: u64,
}

/// How a port uses queues.
#[derive(Debug)]
struct PortQueues {
    memory: u8,
    /// Queue and place of the socket on it.
    receive: Vec<(usize, usize)>,
    /// The queue that sends: always the same, which keeps packets of one call in order.
    transmit: usize,
    /// Which one to ask first next time.
    turn: usize,
}

/// All ports of one worker, over AF_XDP.
#[derive(Debug)]
pub struct Xsk {
    // Dropped before the memories that their sockets use.
    queues: Vec<Queue>,
    memories: [Umem; 2],
    ports: [Option<PortQueues>; Port::ALL.len()],
    poll: Vec<libc::pollfd>,
}

/// Which memory a port's frames lie in.
fn memory_of(port: Port) -> u8 {
    match port {
        Port::Access | Port::Uplink => PHYSICAL,
        Port::Host => HOST,
    }
}

/// How soon frames are offered again that the driver would not take.
const RETRY: Duration = Duration::from_millis(1);

/// The memory of the physical ports.
const PHYSICAL: u8 = 0;
/// The memory of the host port.
const HOST: u8 = 1;

/// Whether the queue of this binding sends: it is the first one of a port.
fn transmits(bindings: &[Binding], binding: &Binding) -> bool {
    Port::ALL.into_iter().any(|port| {
        let first = bindings.iter().find(|b| b.port == port);
        first.is_some_and(|b| (b.device, b.queue) == (binding.device, binding.queue))
    })
}

impl Xsk {
    /// Opens the sockets of one worker, in the thread's network namespace, and allocates all their memory.
    ///
    /// The first binding of a port sends as well. Two ports on one queue of one device get a receive ring each; the
    /// XDP program sorts what goes where.
    ///
    /// # Errors
    /// When Linux refuses; a queue that another process has is waited for two seconds.
    pub fn open(bindings: &[Binding], sizes: &Sizes) -> Result<Self, Error> {
        let memory = |memory| {
            let chunks = chunks(bindings, memory, sizes);
            Umem::new(chunks, sizes.huge_pages).map_err(|source| Error::Memory {
                octets: chunks as usize * CHUNK,
                source,
            })
        };
        let memories = [memory(PHYSICAL)?, memory(HOST)?];
        let mut xsk = Self {
            queues: Vec::new(),
            memories,
            ports: [const { None }; Port::ALL.len()],
            poll: Vec::new(),
        };
        for binding in bindings {
            xsk.bind(binding, transmits(bindings, binding), sizes)?;
        }
        for queue in &mut xsk.queues {
            queue.flush(&mut xsk.memories[usize::from(queue.memory)]);
        }
        xsk.poll = xsk
            .handles()
            .map(|handle| handle.socket.as_raw_fd())
            // The last place is for the worker's own alarm.
            .chain([-1])
            .map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        Ok(xsk)
    }

    fn bind(&mut self, binding: &Binding, transmits: bool, sizes: &Sizes) -> Result<(), Error> {
        let memory = memory_of(binding.port);
        let known = self
            .queues
            .iter()
            .position(|q| (q.device, q.number) == (binding.device, binding.queue));
        let (queue, place) = if let Some(queue) = known {
            (queue, self.queues[queue].open_another(sizes)?)
        } else {
            let first = self.queues.iter().find(|q| q.memory == memory);
            let queue = Queue::open(
                binding.device,
                binding.queue,
                memory,
                &self.memories[usize::from(memory)],
                first.map(|q| &**q.socket(0)),
                transmits,
                sizes,
            )?;
            self.queues.push(queue);
            (self.queues.len() - 1, 0)
        };
        self.ports[binding.port as usize]
            .get_or_insert_with(|| PortQueues {
                memory,
                receive: Vec::new(),
                transmit: queue,
                turn: 0,
            })
            .receive
            .push((queue, place));
        Ok(())
    }

    /// All sockets, for the loader of the XDP program and the statistics. A handle may outlive the device.
    pub fn handles(&self) -> impl Iterator<Item = SocketHandle> {
        Port::ALL.into_iter().flat_map(move |port| {
            let uses = self.ports[port as usize].iter();
            uses.flat_map(|uses| &uses.receive)
                .map(move |&(queue, place)| {
                    let queue = &self.queues[queue];
                    SocketHandle {
                        binding: Binding {
                            port,
                            device: queue.device,
                            queue: queue.number,
                        },
                        zero_copy: queue.zero_copy,
                        socket: Arc::clone(queue.socket(place)),
                    }
                })
        })
    }

    /// Frames that the device of a port dropped instead of sending them, and kicks that failed (the device was down).
    pub fn troubles(&self, port: Port) -> (u64, u64) {
        self.ports[port as usize].as_ref().map_or((0, 0), |uses| {
            let troubles = self.queues[uses.transmit].troubles;
            (troubles.refused, troubles.failed)
        })
    }

    /// Copies a frame to another memory. `None`, and the frame stays, when that has no free chunk.
    fn copy(&mut self, frame: &Frame, memory: u8) -> Option<Frame> {
        let chunk = self.memories[usize::from(memory)].take()?;
        let [physical, host] = &mut self.memories;
        let (from, to) = if memory == PHYSICAL {
            (host, physical)
        } else {
            (physical, host)
        };
        // Not behind the place where it would lie as a received frame, so there is room for the longest.
        let start = frame.start.min(HEADROOM as u16);
        let copy = Frame::new(memory, chunk, start, frame.len);
        to.bytes(&copy).copy_from_slice(from.bytes(frame));
        Some(copy)
    }
}

/// Chunks of one memory: the sum of what each holder can have at most, so that none ever waits for another.
fn chunks(bindings: &[Binding], memory: u8, sizes: &Sizes) -> u32 {
    let mut seen = Vec::new();
    let held = if memory == PHYSICAL { sizes.held } else { 0 };
    let mut chunks = sizes.worker + held;
    for binding in bindings.iter().filter(|b| memory_of(b.port) == memory) {
        let queue = (binding.device, binding.queue);
        if !seen.contains(&queue) {
            seen.push(queue);
            chunks += Queue::chunks(sizes, transmits(bindings, binding));
        }
    }
    chunks
}

impl Device for Xsk {
    fn has(&self, port: Port) -> bool {
        self.ports[port as usize].is_some()
    }

    fn receive(&mut self, port: Port, batch: &mut Batch) -> usize {
        let Some(uses) = &mut self.ports[port as usize] else {
            return 0;
        };
        let memory = &self.memories[usize::from(uses.memory)];
        let before = batch.len();
        for n in 0..uses.receive.len() {
            // Each queue comes first in its turn, so that a flood on one cannot starve the others.
            let (queue, place) = uses.receive[(uses.turn + n) % uses.receive.len()];
            self.queues[queue].receive(place, batch);
        }
        uses.turn = (uses.turn + 1) % uses.receive.len();
        for frame in &batch[before..] {
            memory.fetch(frame);
        }
        batch.len() - before
    }

    fn overrun(&mut self, port: Port) -> bool {
        let Some(uses) = &self.ports[port as usize] else {
            return false;
        };
        let mut any = false;
        for &(queue, place) in &uses.receive {
            any |= self.queues[queue].was_full(place);
        }
        any
    }

    fn transmit(&mut self, port: Port, frame: Frame) -> Result<(), Refused> {
        let Some((memory, queue)) = self.ports[port as usize]
            .as_ref()
            .map(|uses| (uses.memory, uses.transmit))
        else {
            self.release(frame);
            return Err(Refused::NoPort);
        };
        let frame = if frame.memory == memory {
            frame
        } else {
            let copy = self.copy(&frame, memory);
            self.release(frame);
            copy.ok_or(Refused::NoMemory)?
        };
        if self.queues[queue].transmit(&frame, &mut self.memories[usize::from(memory)]) {
            Ok(())
        } else {
            self.release(frame);
            Err(Refused::Full)
        }
    }

    fn allocate(&mut self, port: Port) -> Option<Frame> {
        let memory = self.ports[port as usize].as_ref()?.memory;
        let chunk = self.memories[usize::from(memory)].take()?;
        Some(Frame::new(memory, chunk, HEADROOM as u16, 0))
    }

    fn release(&mut self, frame: Frame) {
        self.memories[usize::from(frame.memory)].give(frame.chunk);
    }

    fn bytes<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.memories[usize::from(frame.memory)].bytes(frame)
    }

    fn lend<'a>(&'a self, frame: &'a Frame) -> &'a [Cell<u8>] {
        self.memories[usize::from(frame.memory)].lend(frame)
    }

    fn flush(&mut self) {
        for queue in &mut self.queues {
            queue.flush(&mut self.memories[usize::from(queue.memory)]);
        }
    }

    fn accounts(&self) -> Accounts {
        Accounts {
            total: self.memories.iter().map(|m| m.chunks() as usize).sum(),
            held: self.memories.iter().map(Umem::free).sum::<usize>()
                + self.queues.iter().map(Queue::held).sum::<usize>(),
        }
    }

    fn wait(&mut self, wake: &Wake, timeout: Duration) {
        // What the driver would not take yet is offered again soon; no descriptor says when it would.
        let unsent = self.queues.iter_mut().any(Queue::has_unsent);
        let timeout = if unsent { timeout.min(RETRY) } else { timeout };
        if let Some(last) = self.poll.last_mut() {
            last.fd = wake.as_fd().as_raw_fd();
        }
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        sys::poll(&mut self.poll, &timeout);
    }
}
