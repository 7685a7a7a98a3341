//! Where frames live and how they come and go.
//!
//! A [`Device`] is everything one worker sends and receives on: all its ports and all their memory. AF_XDP is one
//! implementation ([`crate::xsk`]), vectors are the other ([`crate::mem`]); wrappers add faults.

use core::cell::Cell;
use core::time::Duration;

use arrayvec::ArrayVec;

use crate::api::Port;

/// Frames in a batch at most.
pub const BATCH: usize = 64;

/// Octets of one chunk of memory. A frame starts at [`HEADROOM`] when it was received or allocated.
pub const CHUNK: usize = 2048;

/// Octets free in front of every frame that was received or allocated: enough for outer Ethernet, IPv4, GRE, PPP and
/// MPPE headers. (AF_XDP leaves exactly this much.)
pub const HEADROOM: usize = 256;

/// Octets of the largest frame.
pub const MAX_LEN: usize = CHUNK - HEADROOM;

/// The right to one chunk of packet memory.
///
/// A linear token: it cannot be copied, so two mutable views of one chunk cannot be written down. It must end in
/// [`Device::transmit`] or [`Device::release`]; the worker's books are checked after every turn.
#[derive(Debug)]
#[must_use = "a frame that is dropped is a chunk that is lost"]
pub struct Frame {
    pub(crate) memory: u8,
    pub(crate) chunk: u32,
    pub(crate) start: u16,
    pub(crate) len: u16,
}

impl Frame {
    /// A token for a chunk that the device has just taken out of its own books.
    pub(crate) const fn new(memory: u8, chunk: u32, start: u16, len: u16) -> Self {
        Self {
            memory,
            chunk,
            start,
            len,
        }
    }

    /// Octets in use.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether no octet is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets free in front.
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Grows by `octets` at the front, into the headroom. False, and nothing done, when there is not that much.
    #[must_use]
    pub fn grow_front(&mut self, octets: usize) -> bool {
        match u16::try_from(octets) {
            Ok(octets) if octets <= self.start => {
                self.start -= octets;
                self.len += octets;
                true
            }
            _ => false,
        }
    }

    /// Cuts `octets` at the front. False, and nothing done, when there are not that many.
    #[must_use]
    pub fn cut_front(&mut self, octets: usize) -> bool {
        match u16::try_from(octets) {
            Ok(octets) if octets <= self.len => {
                self.start += octets;
                self.len -= octets;
                true
            }
            _ => false,
        }
    }

    /// Sets the length, cutting or growing at the end. False, and nothing done, when the chunk is too short.
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        match u16::try_from(len) {
            Ok(len) if usize::from(self.start) + usize::from(len) <= CHUNK => {
                self.len = len;
                true
            }
            _ => false,
        }
    }
}

/// Frames on their way through a worker.
pub type Batch = ArrayVec<Frame, BATCH>;

/// Why a frame could not be sent; it has been released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The transmit ring is full.
    Full,
    /// No free chunk in the memory of that port to copy the frame to.
    NoMemory,
    /// This device has no such port.
    NoPort,
}

/// A device's books: every chunk is somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accounts {
    /// All chunks of all memories.
    pub total: usize,
    /// Chunks in the device's hands: free, waiting to be filled, or being sent.
    pub held: usize,
}

/// All ports of one worker, and their memory.
pub trait Device {
    /// Whether there is such a port.
    fn has(&self, port: Port) -> bool;

    /// Moves received frames to the end of `batch`, as many as fit; returns how many.
    fn receive(&mut self, port: Port, batch: &mut Batch) -> usize;

    /// Whether there was no room for received frames of this port at some time since this was asked last: then some have
    /// been lost here, and will never come.
    fn overrun(&mut self, port: Port) -> bool {
        let _ = port;
        false
    }

    /// Queues a frame for sending. A frame that lies in another memory than the port's is copied. The frame is gone
    /// in every case.
    fn transmit(&mut self, port: Port, frame: Frame) -> Result<(), Refused>;

    /// A free chunk for a frame that starts here, empty, with [`HEADROOM`] in front; sent on `port` it is not copied.
    fn allocate(&mut self, port: Port) -> Option<Frame>;

    /// Gives a frame back.
    fn release(&mut self, frame: Frame);

    /// The octets of a frame.
    fn bytes<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8];

    /// The same octets as cells: those of many frames can be lent at a time.
    fn lend<'a>(&'a self, frame: &'a Frame) -> &'a [Cell<u8>];

    /// Ends a turn: one wake-up per ring that needs one; takes back what has been sent.
    fn flush(&mut self);

    /// The books, for the check after every turn.
    fn accounts(&self) -> Accounts;

    /// Sleeps until a frame arrives, `wake` is rung or the time is over. Devices without a kernel return at once.
    fn wait(&mut self, wake: &crate::wake::Wake, timeout: Duration) {
        let _ = (wake, timeout);
    }
}
