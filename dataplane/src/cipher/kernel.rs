//! Who can do RC4: for one stream, and for several at once.

use turnpike_protocol::mppe::Rc4State;

use super::arena::Arena;

/// Two functions for one stream.
pub(super) struct Single {
    pub(super) name: &'static str,
    /// Whether this processor has the instructions.
    runs: fn() -> bool,
    /// Goes to the start of the key stream.
    ///
    /// # Safety
    /// `runs` must have said yes.
    schedule: unsafe fn(&mut Rc4State, &[u8; 16]),
    /// Encrypts or decrypts with the next of the key stream.
    ///
    /// # Safety
    /// `runs` must have said yes.
    stream: unsafe fn(&mut Rc4State, &mut [u8]),
}

/// Two functions for several streams in lockstep.
pub(super) struct Lanes {
    pub(super) name: &'static str,
    /// Whether this processor has the instructions.
    runs: fn() -> bool,
    /// Streams: not more than [`WIDEST`](super::arena::WIDEST).
    pub(super) width: usize,
    /// Goes to the start of the key streams of `arena.keys`.
    ///
    /// # Safety
    /// `runs` must have said yes.
    pub(super) schedule: unsafe fn(&mut Arena),
    /// Encrypts or decrypts `arena.left` blocks of each stream, not 0, when so many have been done since `schedule`.
    ///
    /// # Safety
    /// `runs` must have said yes, nothing else than `schedule` and this may have touched the arena's tables, and for each
    /// lane `arena.data + arena.offset` must be valid for loads and stores of so many blocks. Lanes whose octets nobody
    /// wants may have the same. They may be the arena's own bounce buffers and dummy, which is why it is no reference.
    pub(super) stream: unsafe fn(*mut Arena, usize),
}

/// The reference.
pub(super) static PORTABLE: Single = Single {
    name: "portable",
    runs: || true,
    schedule: |rc4, key| rc4.set_key(key),
    stream: Rc4State::apply,
};

#[cfg(target_arch = "x86_64")]
static TIED: Single = Single {
    name: "tied",
    runs: super::tied::runs,
    schedule: super::tied::schedule,
    stream: super::tied::stream,
};

/// From the fastest to the slowest.
const SINGLES: &[&Single] = &[
    #[cfg(target_arch = "x86_64")]
    &TIED,
    &PORTABLE,
];

/// What there is without assembly.
pub(super) static LOCKSTEP: Lanes = Lanes {
    name: "4 in lockstep",
    runs: || true,
    width: super::lockstep::WIDTH,
    schedule: |arena| super::lockstep::schedule(arena),
    stream: super::lockstep::stream,
};

#[cfg(target_arch = "x86_64")]
static ROWS_8: Lanes = Lanes {
    name: "8 in rows",
    runs: super::rows::runs,
    width: 8,
    schedule: super::rows::schedule_8,
    stream: super::rows::stream_8,
};

#[cfg(target_arch = "x86_64")]
static ROWS_4: Lanes = Lanes {
    name: "4 in rows",
    runs: super::rows::runs,
    width: 4,
    schedule: super::rows::schedule_4,
    stream: super::rows::stream_4,
};

#[cfg(target_arch = "x86_64")]
static TABLES_8: Lanes = Lanes {
    name: "8 tables",
    runs: super::tables::runs_8,
    width: 8,
    schedule: super::tables::schedule_8,
    stream: super::tables::stream_8,
};

#[cfg(target_arch = "x86_64")]
static TABLES_2: Lanes = Lanes {
    name: "2 tables, tied",
    runs: super::tables::runs_2,
    width: 2,
    schedule: super::tables::schedule_2,
    stream: super::tables::stream_2,
};

const LANES: &[&Lanes] = &[
    #[cfg(target_arch = "x86_64")]
    &ROWS_8,
    #[cfg(target_arch = "x86_64")]
    &TABLES_8,
    #[cfg(target_arch = "x86_64")]
    &ROWS_4,
    #[cfg(target_arch = "x86_64")]
    &TABLES_2,
    &LOCKSTEP,
];

/// Those for one stream that this processor can run, the fastest first; the last is the reference.
pub(super) fn singles() -> impl Iterator<Item = &'static Single> {
    SINGLES.iter().copied().filter(|single| (single.runs)())
}

/// Those for several streams that this processor can run.
pub(super) fn lanes() -> impl Iterator<Item = &'static Lanes> {
    LANES.iter().copied().filter(|lanes| (lanes.runs)())
}

impl Single {
    /// Goes to the start of the key stream of `key`; 8 octets stand twice in it.
    #[inline]
    pub(super) fn schedule(&self, rc4: &mut Rc4State, key: &[u8; 16]) {
        // SAFETY: kernels are got from `singles` only, or are the reference, so `runs` has said yes.
        unsafe { (self.schedule)(rc4, key) }
    }

    /// Encrypts or decrypts `octets` in place with the next of the key stream.
    #[inline]
    pub(super) fn stream(&self, rc4: &mut Rc4State, octets: &mut [u8]) {
        // SAFETY: as above.
        unsafe { (self.stream)(rc4, octets) }
    }
}
