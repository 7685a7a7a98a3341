//! A device over vectors: what goes in is said by the caller, what comes out waits to be taken.

use core::cell::Cell;
use core::time::Duration;
use std::collections::VecDeque;

use crate::api::Port;
use crate::device::{Accounts, Batch, CHUNK, Device, Frame, HEADROOM, MAX_LEN, Refused};

/// Number of the only memory.
const MEMORY: u8 = 0;

/// All ports of a worker in one memory, without a kernel. All memory is allocated by [`MemDevice::new`].
#[derive(Debug)]
pub struct MemDevice {
    chunks: Box<[Cell<[u8; CHUNK]>]>,
    free: Vec<u32>,
    received: [VecDeque<Frame>; Port::ALL.len()],
    transmitted: [VecDeque<Frame>; Port::ALL.len()],
    present: [bool; Port::ALL.len()],
    room: usize,
    overrun: bool,
}

impl MemDevice {
    /// A device with all three ports and this many chunks.
    pub fn new(chunks: usize) -> Self {
        let count = u32::try_from(chunks).unwrap_or(u32::MAX);
        let queue = || core::array::from_fn(|_| VecDeque::with_capacity(chunks));
        Self {
            chunks: (0..chunks).map(|_| Cell::new([0; CHUNK])).collect(),
            free: (0..count).rev().collect(),
            received: queue(),
            transmitted: queue(),
            present: [true; Port::ALL.len()],
            room: usize::MAX,
            overrun: false,
        }
    }

    /// The same without this port.
    #[must_use]
    pub fn without(mut self, port: Port) -> Self {
        self.present[port as usize] = false;
        self
    }

    /// The same with transmit queues that take this many frames until they are emptied.
    #[must_use]
    pub fn with_transmit_room(mut self, frames: usize) -> Self {
        self.room = frames;
        self
    }

    /// Lets an Ethernet frame arrive on a port. False when there is no free chunk or the frame fits none.
    pub fn inject(&mut self, port: Port, frame: &[u8]) -> bool {
        let Ok(len) = u16::try_from(frame.len()) else {
            return false;
        };
        if frame.len() > MAX_LEN {
            return false;
        }
        let Some(chunk) = self.free.pop() else {
            return false;
        };
        self.chunks[chunk as usize].get_mut()[HEADROOM..HEADROOM + frame.len()]
            .copy_from_slice(frame);
        self.received[port as usize].push_back(Frame::new(MEMORY, chunk, HEADROOM as u16, len));
        true
    }

    /// Says at the next turn that frames have found no room.
    pub fn overflow(&mut self) {
        self.overrun = true;
    }

    /// The frames sent on a port since the last time, oldest first.
    pub fn take(&mut self, port: Port) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.take_each(port, |frame| frames.push(frame.to_vec()));
        frames
    }

    /// Like [`take`](Self::take), without allocating.
    pub fn take_each(&mut self, port: Port, mut each: impl FnMut(&[u8])) {
        while let Some(mut frame) = self.transmitted[port as usize].pop_front() {
            each(self.bytes(&mut frame));
            self.release(frame);
        }
    }

    /// Frames that wait to be taken from a port.
    pub fn waiting(&self, port: Port) -> usize {
        self.transmitted[port as usize].len()
    }
}

impl Device for MemDevice {
    fn has(&self, port: Port) -> bool {
        self.present[port as usize]
    }

    fn receive(&mut self, port: Port, batch: &mut Batch) -> usize {
        let queue = &mut self.received[port as usize];
        let n = queue.len().min(batch.remaining_capacity());
        batch.extend(queue.drain(..n));
        n
    }

    fn overrun(&mut self, port: Port) -> bool {
        port == Port::Access && core::mem::take(&mut self.overrun)
    }

    fn transmit(&mut self, port: Port, frame: Frame) -> Result<(), Refused> {
        let queue = &mut self.transmitted[port as usize];
        let refused = if !self.present[port as usize] {
            Refused::NoPort
        } else if queue.len() >= self.room {
            Refused::Full
        } else {
            queue.push_back(frame);
            return Ok(());
        };
        self.release(frame);
        Err(refused)
    }

    fn allocate(&mut self, _port: Port) -> Option<Frame> {
        let chunk = self.free.pop()?;
        Some(Frame::new(MEMORY, chunk, HEADROOM as u16, 0))
    }

    fn release(&mut self, frame: Frame) {
        debug_assert_eq!(frame.memory, MEMORY, "a frame of another device");
        self.free.push(frame.chunk);
    }

    fn bytes<'a>(&'a mut self, frame: &'a mut Frame) -> &'a mut [u8] {
        let start = usize::from(frame.start);
        &mut self.chunks[frame.chunk as usize].get_mut()[start..start + usize::from(frame.len)]
    }

    fn lend<'a>(&'a self, frame: &'a Frame) -> &'a [Cell<u8>] {
        let start = usize::from(frame.start);
        let chunk: &Cell<[u8]> = &self.chunks[frame.chunk as usize];
        &chunk.as_slice_of_cells()[start..start + usize::from(frame.len)]
    }

    fn flush(&mut self) {}

    fn accounts(&self) -> Accounts {
        let queued = |queues: &[VecDeque<Frame>]| queues.iter().map(VecDeque::len).sum::<usize>();
        Accounts {
            total: self.chunks.len(),
            held: self.free.len() + queued(&self.received) + queued(&self.transmitted),
        }
    }

    fn wait(&mut self, wake: &crate::wake::Wake, timeout: Duration) {
        let mut fds = [rustix::event::PollFd::new(
            wake,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Interrupted or not: the caller looks again.
        let _ = rustix::event::poll(&mut fds, Some(&limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_through_and_the_books_balance() {
        let mut device = MemDevice::new(2);
        assert!(device.inject(Port::Access, b"one"));
        assert!(device.inject(Port::Access, b"two"));
        assert!(!device.inject(Port::Access, b"three"), "no chunk left");
        let mut batch = Batch::new();
        assert_eq!(device.receive(Port::Access, &mut batch), 2);
        assert_eq!(device.accounts(), Accounts { total: 2, held: 0 });
        for mut frame in batch.drain(..) {
            assert!(frame.grow_front(2));
            device.bytes(&mut frame)[..2].copy_from_slice(b"a ");
            device.transmit(Port::Uplink, frame).unwrap();
        }
        assert_eq!(
            device.take(Port::Uplink),
            [b"a one".to_vec(), b"a two".to_vec()]
        );
        assert_eq!(device.accounts(), Accounts { total: 2, held: 2 });
    }

    #[test]
    fn a_refused_frame_is_released() {
        let mut device = MemDevice::new(2)
            .without(Port::Uplink)
            .with_transmit_room(1);
        let frame = device.allocate(Port::Uplink).unwrap();
        assert_eq!(device.transmit(Port::Uplink, frame), Err(Refused::NoPort));
        for expected in [Ok(()), Err(Refused::Full)] {
            let frame = device.allocate(Port::Host).unwrap();
            assert_eq!(device.transmit(Port::Host, frame), expected);
        }
        assert_eq!(device.accounts(), Accounts { total: 2, held: 2 });
    }
}
