//! Where kernels work.

use turnpike_protocol::mppe::Rc4State;

/// Lanes of the widest kernel.
pub(super) const WIDEST: usize = 8;

/// Octets of key stream that kernels make at a time.
pub(super) const BLOCK: usize = 16;

/// Blocks that fit the dummy.
pub(super) const DUMMY_BLOCKS: usize = 128;

/// All that kernels load and store besides packets, on pages of its own: a processor compares the lower twelve bits of
/// addresses first, and waits for, or guesses wrongly about, a store to another page that ends in the same ones. All but
/// the dummy lies within one page, where nothing can be at the same place.
///
/// Tables and keys are cleaned when the packets of a call are done, which costs a few wide stores: a worker
/// that has nothing to do, or whose call has ended, holds nothing of it.
#[repr(C, align(4096))]
pub(super) struct Arena {
    /// The tables of several streams, laid out as the kernel likes it.
    pub(super) tables: [u8; 2048],
    /// Keys of the lanes, transposed: the first octets of all, then the second octets.
    pub(super) key_rows: [u64; BLOCK],
    /// `j` of each lane; less than 256.
    pub(super) j: [u64; WIDEST],
    /// Where each lane's octets are, less `offset`.
    pub(super) data: [*mut u8; WIDEST],
    /// What has been done of them.
    pub(super) offset: usize,
    /// Blocks left to do in this call of a kernel.
    pub(super) left: usize,
    /// Keys of the lanes; those of 8 octets stand twice in them.
    pub(super) keys: [[u8; BLOCK]; WIDEST],
    /// Ends of packets that fill no block.
    pub(super) bounce: [[u8; BLOCK]; WIDEST],
    /// One stream.
    pub(super) rc4: Rc4State,
    pad: [u8; 2048],
    /// What lanes work on that have nothing to do; rubbish.
    pub(super) dummy: [u8; DUMMY_BLOCKS * BLOCK],
}

// Assembly takes the arena's address for the tables'.
const _: () = assert!(core::mem::offset_of!(Arena, tables) == 0);
const _: () = assert!(core::mem::offset_of!(Arena, pad) <= USED);

/// How much of a page the arena uses at most, in octets; what lies behind that in other pages is not in its way.
pub(super) const USED: usize = 2944;

// SAFETY: the pointers are used only during the call that has set them, and are nothing to anybody afterwards.
unsafe impl Send for Arena {}

impl Arena {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            tables: [0; 2048],
            key_rows: [0; BLOCK],
            j: [0; WIDEST],
            data: [core::ptr::null_mut(); WIDEST],
            offset: 0,
            left: 0,
            keys: [[0; BLOCK]; WIDEST],
            bounce: [[0; BLOCK]; WIDEST],
            rc4: Rc4State::empty(),
            pad: [0; 2048],
            dummy: [0; DUMMY_BLOCKS * BLOCK],
        })
    }

    /// Forgets what one stream has left behind.
    #[inline]
    pub(super) fn clean_one(&mut self) {
        self.rc4.clean();
        self.keys[0] = [0; BLOCK];
        zeroize::optimization_barrier(&self.keys);
    }

    /// Forgets what lanes have left behind. The dummy is no secret: what is in it are key streams beyond the ends of
    /// packets, which encrypt nothing.
    pub(super) fn clean_lanes(&mut self) {
        self.tables = [0; 2048];
        self.key_rows = [0; BLOCK];
        self.j = [0; WIDEST];
        self.keys = [[0; BLOCK]; WIDEST];
        self.bounce = [[0; BLOCK]; WIDEST];
        zeroize::optimization_barrier(self);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Between calls it is clean anyway, and the one stream cleans itself.
        self.clean_lanes();
    }
}

/// RC4 repeats a key until it fills the table, so 8 octets are the same key as 16 in which they stand twice.
#[inline]
pub(super) fn twice(key: &[u8]) -> [u8; BLOCK] {
    if let Ok(key) = key.try_into() {
        return key;
    }
    let mut both = [0; BLOCK];
    let (first, second) = both.split_at_mut(BLOCK / 2);
    first.copy_from_slice(key);
    second.copy_from_slice(key);
    both
}
