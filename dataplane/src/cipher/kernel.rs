//! Who can do RC4 for one packet, and which of them suits this processor.

use turnpike_protocol::mppe::Rc4State;

/// Two functions for one stream.
pub(super) struct Kernel {
    name: &'static str,
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

/// The reference.
pub(super) static PORTABLE: Kernel = Kernel {
    name: "portable",
    runs: || true,
    schedule: |rc4, key| rc4.set_key(key),
    stream: Rc4State::apply,
};

#[cfg(target_arch = "x86_64")]
static TIED: Kernel = Kernel {
    name: "one stream, tied",
    runs: super::tied::runs,
    schedule: super::tied::schedule,
    stream: super::tied::stream,
};

/// From the fastest to the slowest.
const ALL: &[&Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    &TIED,
    &PORTABLE,
];

/// Those that this processor can run, the fastest first; the last is the reference.
pub(super) fn available() -> impl Iterator<Item = &'static Kernel> {
    ALL.iter().copied().filter(|kernel| (kernel.runs)())
}

/// The fastest.
pub(super) fn best() -> &'static Kernel {
    available().next().unwrap_or(&PORTABLE)
}

impl Kernel {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Goes to the start of the key stream of `key`; 8 octets stand twice in it.
    #[inline]
    pub(super) fn schedule(&self, rc4: &mut Rc4State, key: &[u8; 16]) {
        // SAFETY: kernels are got from `available` only, or are the reference, so `runs` has said yes.
        unsafe { (self.schedule)(rc4, key) }
    }

    /// Encrypts or decrypts `octets` in place with the next of the key stream.
    #[inline]
    pub(super) fn stream(&self, rc4: &mut Rc4State, octets: &mut [u8]) {
        // SAFETY: as above.
        unsafe { (self.stream)(rc4, octets) }
    }
}
