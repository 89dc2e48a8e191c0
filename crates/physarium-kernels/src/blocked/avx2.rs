//! Vectors on AVX2 with FMA.

use std::arch::x86_64::*;

use super::vector::Vector;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Eight(__m256);

// SAFETY: it is 8 numbers; the functions use only AVX and FMA.
unsafe impl Vector for Eight {
    type Number = f32;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { Eight(_mm256_setzero_ps()) }
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { Eight(_mm256_set1_ps(number)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 8 numbers can be read at `from`.
        unsafe { Eight(_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 8 numbers can be written at `to`.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { Eight(_mm256_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { Eight(_mm256_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { Eight(_mm256_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: four rows of four numbers can be read and written.
        unsafe { transpose(from, stride, to, to_stride) }
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct FourDouble(__m256d);

// SAFETY: it is 4 numbers; the functions use only AVX and FMA.
unsafe impl Vector for FourDouble {
    type Number = f64;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { FourDouble(_mm256_setzero_pd()) }
    }

    #[inline(always)]
    unsafe fn splat(number: f64) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { FourDouble(_mm256_set1_pd(number)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: 4 numbers can be read at `from`.
        unsafe { FourDouble(_mm256_loadu_pd(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: 4 numbers can be written at `to`.
        unsafe { _mm256_storeu_pd(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { FourDouble(_mm256_fmadd_pd(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { FourDouble(_mm256_add_pd(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX and FMA.
        unsafe { FourDouble(_mm256_sub_pd(self.0, other.0)) }
    }
}

/// Transposes a square of four numbers: `to[i][j] = from[j][i]`.
///
/// # Safety
/// Four rows of four numbers can be read at `from`, `stride` apart, and written at `to`, `to_stride` apart.
#[inline(always)]
pub(super) unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: guaranteed by the caller; every x86-64 processor has SSE.
    unsafe {
        let mut rows = [_mm_setzero_ps(); 4];
        for (index, row) in rows.iter_mut().enumerate() {
            *row = _mm_loadu_ps(from.add(index * stride));
        }
        let [a, b, c, d] = rows;
        let (ab, ab_high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let (cd, cd_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(to, _mm_movelh_ps(ab, cd));
        _mm_storeu_ps(to.add(to_stride), _mm_movehl_ps(cd, ab));
        _mm_storeu_ps(to.add(2 * to_stride), _mm_movelh_ps(ab_high, cd_high));
        _mm_storeu_ps(to.add(3 * to_stride), _mm_movehl_ps(cd_high, ab_high));
    }
}
