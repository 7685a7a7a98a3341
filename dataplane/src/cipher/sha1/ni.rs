//! By the processor's instructions for SHA-1, up to four keys at once: each of these instructions waits six cycles for the
//! one before, and those of other keys fill the time. More than four would not fit the registers.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_loadl_epi64, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_set1_epi8, _mm_setzero_si128, _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32,
    _mm_sha1rnds4_epu32, _mm_shuffle_epi8, _mm_storeu_si128, _mm_unpackhi_epi64,
    _mm_unpacklo_epi64, _mm_xor_si128,
};

use super::{Link, PAD};

/// Whether this processor has the instructions.
pub(super) fn runs() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}

/// # Safety
/// [`runs`] must have said yes.
pub(super) unsafe fn interim(links: &[Link<'_>], interim: &mut [[u8; 16]]) {
    for (links, interim) in links.chunks(4).zip(interim.chunks_mut(4)) {
        // SAFETY: by contract.
        unsafe {
            match (links, interim) {
                ([a, b, c, d], [w, x, y, z]) => [*w, *x, *y, *z] = lanes([a, b, c, d]),
                ([a, b, c], [x, y, z]) => [*x, *y, *z] = lanes([a, b, c]),
                ([a, b], [x, y]) => [*x, *y] = lanes([a, b]),
                ([a], [x]) => [*x] = lanes([a]),
                _ => {}
            }
        }
    }
}

/// Four rounds of each lane. `$abcd` and `$e` are the state, `$w` the next 16 words of the message.
macro_rules! four_rounds {
    ($abcd:ident, $e:ident, $w:ident, $last:ident, $four:literal, $function:literal) => {
        for lane in 0..N {
            let before = $abcd[lane];
            $abcd[lane] = _mm_sha1rnds4_epu32::<$function>(before, $e[lane]);
            let w = &mut $w[lane];
            if $four < 16 {
                let sum = _mm_sha1msg1_epu32(w[$four % 4], w[($four + 1) % 4]);
                let sum = _mm_xor_si128(sum, w[($four + 2) % 4]);
                w[$four % 4] = _mm_sha1msg2_epu32(sum, w[($four + 3) % 4]);
            }
            let next = if $four < 19 {
                w[($four + 1) % 4]
            } else {
                $last[lane]
            };
            $e[lane] = _mm_sha1nexte_epu32(before, next);
        }
    };
}

/// One block of each lane. The message is cleaned, as keys are part of it; what a compiler may keep of it elsewhere for
/// a moment is beyond reach.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn block<const N: usize>(
    state: &mut [__m128i; N],
    last: &mut [__m128i; N],
    message: &mut [[__m128i; 4]; N],
) {
    let mut w = *message;
    *message = [[_mm_setzero_si128(); 4]; N];
    zeroize::optimization_barrier(message);
    let mut abcd = *state;
    let mut e = *last;
    for lane in 0..N {
        e[lane] = _mm_add_epi32(e[lane], w[lane][0]);
    }
    four_rounds!(abcd, e, w, last, 0, 0);
    four_rounds!(abcd, e, w, last, 1, 0);
    four_rounds!(abcd, e, w, last, 2, 0);
    four_rounds!(abcd, e, w, last, 3, 0);
    four_rounds!(abcd, e, w, last, 4, 0);
    four_rounds!(abcd, e, w, last, 5, 1);
    four_rounds!(abcd, e, w, last, 6, 1);
    four_rounds!(abcd, e, w, last, 7, 1);
    four_rounds!(abcd, e, w, last, 8, 1);
    four_rounds!(abcd, e, w, last, 9, 1);
    four_rounds!(abcd, e, w, last, 10, 2);
    four_rounds!(abcd, e, w, last, 11, 2);
    four_rounds!(abcd, e, w, last, 12, 2);
    four_rounds!(abcd, e, w, last, 13, 2);
    four_rounds!(abcd, e, w, last, 14, 2);
    four_rounds!(abcd, e, w, last, 15, 3);
    four_rounds!(abcd, e, w, last, 16, 3);
    four_rounds!(abcd, e, w, last, 17, 3);
    four_rounds!(abcd, e, w, last, 18, 3);
    four_rounds!(abcd, e, w, last, 19, 3);
    for lane in 0..N {
        state[lane] = _mm_add_epi32(abcd[lane], state[lane]);
        last[lane] = e[lane];
    }
}

/// The digests' first 16 octets.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn lanes<const N: usize>(links: [&Link<'_>; N]) -> [[u8; 16]; N] {
    // The first word of a message is the highest of a register.
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let zero = _mm_setzero_si128();
    let pad = _mm_set1_epi8(PAD.cast_signed());
    let end = 0x8000_0000_u32.cast_signed();
    let mut first = [[zero; 4]; N];
    let mut second = [[zero; 4]; N];
    for lane in 0..N {
        let Link { start, key } = links[lane];
        match (start.bytes().as_array(), key.bytes().as_array()) {
            (Some(start), Some(key)) => {
                let (start, key) = (whole(start), _mm_shuffle_epi8(whole(key), order));
                first[lane] = [
                    _mm_shuffle_epi8(start, order),
                    zero,
                    zero,
                    _mm_unpackhi_epi64(key, zero),
                ];
                // 16 octets of start key, 40 of zeros, 16 of key, 40 of pad: 896 bits.
                second[lane] = [
                    _mm_unpacklo_epi64(pad, key),
                    pad,
                    pad,
                    _mm_set_epi32(end, 0, 0, 896),
                ];
            }
            _ => {
                let (start, key) = (half(start.bytes()), half(key.bytes()));
                first[lane] = [
                    _mm_shuffle_epi8(start, order),
                    zero,
                    zero,
                    _mm_unpackhi_epi64(pad, _mm_shuffle_epi8(key, order)),
                ];
                // 8 octets of start key, 40 of zeros, 8 of key, 40 of pad: 768 bits.
                second[lane] = [
                    pad,
                    pad,
                    _mm_set_epi32(end, 0, 0, 0),
                    _mm_set_epi32(0, 0, 0, 768),
                ];
            }
        }
    }
    let words = |a: u32, b: u32, c: u32, d: u32| {
        _mm_set_epi32(
            a.cast_signed(),
            b.cast_signed(),
            c.cast_signed(),
            d.cast_signed(),
        )
    };
    // FIPS 180-4 §5.3.1.
    let mut abcd = [words(0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476); N];
    let mut e = [words(0xc3d2_e1f0, 0, 0, 0); N];
    block(&mut abcd, &mut e, &mut first);
    block(&mut abcd, &mut e, &mut second);
    abcd.map(|abcd| {
        let mut digest = [0; 16];
        // SAFETY: it has 16 octets.
        unsafe { _mm_storeu_si128(digest.as_mut_ptr().cast(), _mm_shuffle_epi8(abcd, order)) };
        digest
    })
}

#[inline]
#[target_feature(enable = "sse2")]
fn whole(octets: &[u8; 16]) -> __m128i {
    // SAFETY: there are 16 octets.
    unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
}

/// Eight octets, and zeros.
#[inline]
#[target_feature(enable = "sse2")]
fn half(octets: &[u8]) -> __m128i {
    let mut room = [0; 8];
    room.copy_from_slice(octets);
    // SAFETY: there are 8 octets.
    unsafe { _mm_loadl_epi64(room.as_ptr().cast()) }
}
