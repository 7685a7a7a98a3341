//! Eight keys at once, a word of each in a register of 256 bits. (Registers of 512 bits would lower the clock of some
//! processors for everything that comes after.)
//!
//! A macro, as functions for some instructions are inlined only into functions for the same ones. Around it stand what
//! differs: `runs`, `rotated`, and the functions of FIPS 180-4 §4.1.1, `choice`, `parity` and `majority`.

macro_rules! eight_keys {
    ($features:literal) => {
        use core::arch::x86_64::{
            _mm256_add_epi32, _mm256_blendv_epi8, _mm256_set1_epi32, _mm256_setr_epi32,
            _mm256_setzero_si256, _mm256_storeu_si256,
        };

        use super::eight::twenty_rounds;
        use super::{Link, PAD};

        const LANES: usize = 8;

        /// # Safety
        /// [`runs`] must have said yes.
        pub(super) unsafe fn interim(links: &[Link<'_>], interim: &mut [[u8; 16]]) {
            for (links, interim) in links.chunks(LANES).zip(interim.chunks_mut(LANES)) {
                // SAFETY: by contract.
                let words = unsafe { lanes(links) };
                for (lane, interim) in interim.iter_mut().enumerate() {
                    for (octets, word) in interim.as_chunks_mut().0.iter_mut().zip(&words) {
                        *octets = word[lane].to_be_bytes();
                    }
                }
            }
        }

        /// Word `at` of a key; 0 beyond its end.
        #[inline]
        fn word(octets: &[u8], at: usize) -> i32 {
            let word = octets.get(4 * at..).and_then(<[u8]>::first_chunk);
            word.map_or(0, |octets| i32::from_be_bytes(*octets))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn all(word: u32) -> __m256i {
            _mm256_set1_epi32(word.cast_signed())
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn each(words: impl Fn(usize) -> i32) -> __m256i {
            _mm256_setr_epi32(
                words(0),
                words(1),
                words(2),
                words(3),
                words(4),
                words(5),
                words(6),
                words(7),
            )
        }

        /// The message is cleaned, as in [`ni`](super::ni).
        #[inline]
        #[target_feature(enable = $features)]
        fn block(state: &mut [__m256i; 5], w: &mut [__m256i; 16]) {
            let mut new = *state;
            twenty_rounds!(0, 0x5a82_7999, w, new, choice);
            twenty_rounds!(20, 0x6ed9_eba1, w, new, parity);
            twenty_rounds!(40, 0x8f1b_bcdc, w, new, majority);
            twenty_rounds!(60, 0xca62_c1d6, w, new, parity);
            for (old, new) in state.iter_mut().zip(new) {
                *old = _mm256_add_epi32(*old, new);
            }
            *w = [_mm256_setzero_si256(); 16];
            zeroize::optimization_barrier(w);
        }

        /// The first four words of the digests of up to eight links.
        #[target_feature(enable = $features)]
        fn lanes(links: &[Link<'_>]) -> [[u32; LANES]; 4] {
            // Lanes without a link do the last one's work again.
            let link = |lane: usize| &links[lane.min(links.len() - 1)];
            let start = |at| each(|lane| word(link(lane).start.bytes(), at));
            let key = |at| each(|lane| word(link(lane).key.bytes(), at));
            let short = each(|lane| -i32::from(link(lane).key.bytes().len() == 8));
            let choose = |long, if_short| _mm256_blendv_epi8(long, if_short, short);
            let zero = _mm256_setzero_si256();
            let pad = _mm256_set1_epi32(i32::from_ne_bytes([PAD; 4]));
            let end = all(0x8000_0000);
            let [k0, k1] = [key(0), key(1)];
            // 16 or 8 octets of start key, 40 of zeros, 16 or 8 of key, 40 of pad.
            let mut first = [zero; 16];
            first[..4].copy_from_slice(&[start(0), start(1), start(2), start(3)]);
            first[12] = choose(zero, k0);
            first[13] = choose(zero, k1);
            first[14] = choose(k0, pad);
            first[15] = choose(k1, pad);
            let mut second = [pad; 16];
            second[0] = choose(key(2), pad);
            second[1] = choose(key(3), pad);
            second[8] = choose(pad, end);
            for word in &mut second[9..12] {
                *word = choose(pad, zero);
            }
            second[12] = choose(end, zero);
            second[13] = zero;
            second[14] = zero;
            second[15] = choose(all(896), all(768));
            // FIPS 180-4 §5.3.1.
            let mut state = [
                0x6745_2301,
                0xefcd_ab89,
                0x98ba_dcfe,
                0x1032_5476,
                0xc3d2_e1f0,
            ]
            .map(|h| all(h));
            block(&mut state, &mut first);
            block(&mut state, &mut second);
            let mut words = [[0; LANES]; 4];
            for (words, state) in words.iter_mut().zip(state) {
                // SAFETY: they are eight words.
                unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), state) };
            }
            words
        }
    };
}

/// Twenty rounds with one function and constant. `$w` holds 16 words of the message.
macro_rules! twenty_rounds {
    ($from:literal, $k:literal, $w:ident, $state:ident, $f:ident) => {
        for t in $from..$from + 20 {
            if t >= 16 {
                let sum = parity($w[(t + 13) % 16], $w[(t + 8) % 16], $w[(t + 2) % 16]);
                $w[t % 16] = rotated::<1, 31>(_mm256_xor_si256(sum, $w[t % 16]));
            }
            let [a, b, c, d, e] = $state;
            let sum = _mm256_add_epi32(
                _mm256_add_epi32($f(b, c, d), e),
                _mm256_add_epi32(all($k), $w[t % 16]),
            );
            let sum = _mm256_add_epi32(sum, rotated::<5, 27>(a));
            $state = [sum, a, rotated::<30, 2>(b), c, d];
        }
    };
}

pub(super) use {eight_keys, twenty_rounds};
