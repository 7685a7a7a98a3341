//! Packet memory: chunks that the kernel fills and sends from, and the list of those that are free.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use super::pages::{self, HUGE_PAGE};
use super::sys::{self, Mapping};
use crate::device::{CHUNK, Frame};

/// Octets of a frame that a worker is sure to read, about: outer and inner headers.
const HEADERS: usize = 128;

/// One packet memory. All of it is allocated here, once.
///
/// Each chunk is in one place: in `free`, in a ring or otherwise in the kernel's hands, or named by a [`Frame`]. Who
/// holds the `Frame` holds the chunk.
#[derive(Debug)]
pub(super) struct Umem {
    mapping: Mapping,
    chunks: u32,
    /// Last in, first out: a chunk used a moment ago is still in the cache.
    free: Vec<u32>,
}

impl Umem {
    /// Allocates `chunks` chunks, all free.
    pub(super) fn new(chunks: u32, huge_pages: bool) -> io::Result<Self> {
        let mut len = chunks as usize * CHUNK;
        if huge_pages {
            len = len.next_multiple_of(HUGE_PAGE);
        }
        let file = sys::memory_file(len, huge_pages)?;
        let mapping = Mapping::shared(file.as_fd(), len, 0)?;
        Ok(Self {
            mapping,
            chunks,
            free: (0..chunks).rev().collect(),
        })
    }

    /// Registers this memory with a socket.
    pub(super) fn register(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        sys::register_memory(socket, &self.mapping, CHUNK as u32)
    }

    /// All chunks.
    pub(super) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Chunks that are free.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free chunk.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives a chunk back. One that is not ours, or that would be there twice, is an error of the caller's books:
    /// refused.
    pub(super) fn give(&mut self, chunk: u32) -> bool {
        debug_assert!(
            chunk < self.chunks && self.free.len() < self.chunks as usize,
            "chunk {chunk} is not of this memory, or was free already"
        );
        // The list was allocated with room for all: it never grows.
        if chunk < self.chunks && self.free.len() < self.chunks as usize {
            self.free.push(chunk);
            true
        } else {
            false
        }
    }

    /// The octets of a frame.
    pub(super) fn bytes(&mut self, frame: &Frame) -> &mut [u8] {
        let (start, len) = self.range(frame);
        // SAFETY: the range lies inside the mapping. The kernel neither reads nor writes the chunk: it is named by a
        // `Frame`, so it is in no ring. No other slice of it exists: this one borrows the whole memory.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// The octets of a frame as cells, so that those of many frames can be lent at a time.
    pub(super) fn lend(&self, frame: &Frame) -> &[Cell<u8>] {
        let (start, len) = self.range(frame);
        // SAFETY: as above, but that there may be other slices of these octets: of cells too, as what is not cells
        // borrows the whole memory exclusively. This memory is used by one thread: a `Mapping` cannot be shared.
        unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), len) }
    }

    /// Has a frame's headers fetched into the cache: they were written by another processor, and are far away.
    #[inline]
    pub(super) fn fetch(&self, frame: &Frame) {
        if let Some(first) = self.lend(frame).first() {
            pages::fetch(first, 0..HEADERS.min(frame.len()));
        }
    }

    /// Where the octets of a frame are: inside the mapping.
    fn range(&self, frame: &Frame) -> (NonNull<u8>, usize) {
        let start = usize::from(frame.start);
        let len = usize::from(frame.len);
        assert!(
            frame.chunk < self.chunks && start + len <= CHUNK,
            "a frame of another memory"
        );
        // SAFETY: just checked, and `chunks * CHUNK <= mapping.len()`.
        let start = unsafe {
            self.mapping
                .start()
                .add(frame.chunk as usize * CHUNK + start)
        };
        (start, len)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::device::HEADROOM;

    #[test]
    fn chunks_are_apart_and_all_counted() {
        let mut memory = Umem::new(4, false).unwrap();
        assert_eq!((memory.chunks(), memory.free()), (4, 4));
        let mut frames: Vec<_> = std::iter::from_fn(|| memory.take())
            .map(|chunk| Frame::new(0, chunk, HEADROOM as u16, (CHUNK - HEADROOM) as u16))
            .collect();
        assert_eq!((frames.len(), memory.free()), (4, 0));
        for (n, frame) in frames.iter().enumerate() {
            memory.bytes(frame).fill(n as u8);
        }
        for (n, frame) in frames.iter().enumerate() {
            assert!(memory.bytes(frame).iter().all(|&octet| octet == n as u8));
        }
        // Into the headroom, up to the chunk's first octet and no further.
        let frame = &mut frames[2];
        assert!(frame.grow_front(HEADROOM));
        assert!(!frame.grow_front(1));
        memory.bytes(frame).fill(9);
        assert!(memory.bytes(&frames[1]).iter().all(|&octet| octet == 1));
        assert!(memory.bytes(&frames[3]).iter().all(|&octet| octet == 3));
        for frame in frames {
            assert!(memory.give(frame.chunk));
        }
        assert_eq!(memory.free(), 4);
    }

    #[test]
    #[should_panic(expected = "another memory")]
    fn a_frame_of_another_memory_is_refused() {
        let mut memory = Umem::new(2, false).unwrap();
        let _ = memory.bytes(&Frame::new(0, 2, 0, 1));
    }
}
