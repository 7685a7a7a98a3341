//! [`eight`](super::eight) with what AVX-512 brings for registers of 256 bits: rotations, functions of three words, and
//! twice as many registers.

use core::arch::x86_64::{__m256i, _mm256_rol_epi32, _mm256_ternarylogic_epi32, _mm256_xor_si256};

use super::eight::eight_keys;

eight_keys!("avx2,avx512f,avx512vl");

/// Whether this processor has the instructions.
pub(super) fn runs() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl")]
fn rotated<const LEFT: i32, const RIGHT: i32>(words: __m256i) -> __m256i {
    const { assert!(LEFT + RIGHT == 32) };
    _mm256_rol_epi32::<LEFT>(words)
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl")]
fn choice(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    // The octet is the truth table.
    _mm256_ternarylogic_epi32::<0xca>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl")]
fn parity(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_ternarylogic_epi32::<0x96>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl")]
fn majority(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    _mm256_ternarylogic_epi32::<0xe8>(b, c, d)
}
