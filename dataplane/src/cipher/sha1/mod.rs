//! The first half of key changes, `GetNewKeyFromSHA` (RFC 3079 §2.4), for several keys at once.
//!
//! SHA-1 of one message is a chain of steps that each wait for the one before; messages of different keys do not wait
//! for each other. Each is two blocks, of which only start key and key differ from call to call.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod eight;
#[cfg(target_arch = "x86_64")]
mod ni;

use super::Link;

/// What `SHSpad2` of RFC 3079 §3.4 is made of.
#[cfg(target_arch = "x86_64")]
const PAD: u8 = 0xf2;

/// Who can do it.
pub(super) struct Digest {
    pub(super) name: &'static str,
    /// Whether it takes SHA instructions where there are any.
    sha_instructions: bool,
    /// Whether this processor has the instructions.
    runs: fn() -> bool,
    /// The interim key of each link. Of 16 octets the first as many count as the key has.
    ///
    /// # Safety
    /// `runs` must have said yes.
    interim: unsafe fn(&[Link<'_>], &mut [[u8; 16]]),
}

/// The reference.
pub(super) static PORTABLE: Digest = Digest {
    name: "portable",
    // Its crate asks the processor itself.
    sha_instructions: true,
    runs: || true,
    interim: |links, interim| {
        for (link, interim) in links.iter().zip(interim) {
            *interim = *link.key.interim(link.start);
        }
    },
};

#[cfg(target_arch = "x86_64")]
static NI: Digest = Digest {
    name: "SHA-NI",
    sha_instructions: true,
    runs: ni::runs,
    interim: ni::interim,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Digest = Digest {
    name: "AVX2",
    sha_instructions: false,
    runs: avx2::runs,
    interim: avx2::interim,
};

#[cfg(target_arch = "x86_64")]
static AVX512: Digest = Digest {
    name: "AVX-512",
    sha_instructions: false,
    runs: avx512::runs,
    interim: avx512::interim,
};

const DIGESTS: &[&Digest] = &[
    #[cfg(target_arch = "x86_64")]
    &NI,
    #[cfg(target_arch = "x86_64")]
    &AVX512,
    #[cfg(target_arch = "x86_64")]
    &AVX2,
    &PORTABLE,
];

/// Those that this processor can run; the last is the reference.
pub(super) fn digests() -> impl Iterator<Item = &'static Digest> {
    DIGESTS.iter().copied().filter(|digest| (digest.runs)())
}

/// Those of them that are not made of SHA instructions.
pub(super) fn without_sha() -> impl Iterator<Item = &'static Digest> {
    digests().filter(|digest| !digest.sha_instructions)
}

impl Digest {
    /// The interim key of each link. Of 16 octets the first as many count as the key has.
    #[inline]
    pub(super) fn interim(&self, links: &[Link<'_>], interim: &mut [[u8; 16]]) {
        // SAFETY: digests are got from `digests` only, or are the reference, so that `runs` has said yes.
        unsafe { (self.interim)(links, interim) }
    }
}
