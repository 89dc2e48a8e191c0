//! Vectors on AVX-512.

use std::arch::x86_64::*;

use super::avx2::transpose;
use super::vector::Vector;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Sixteen(__m512);

// SAFETY: it is 16 numbers; the functions use only AVX-512F.
unsafe impl Vector for Sixteen {
    type Number = f32;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { Sixteen(_mm512_setzero_ps()) }
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { Sixteen(_mm512_set1_ps(number)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 16 numbers can be read at `from`.
        unsafe { Sixteen(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 16 numbers can be written at `to`.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { Sixteen(_mm512_fmadd_ps(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { Sixteen(_mm512_add_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { Sixteen(_mm512_sub_ps(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: four rows of four numbers can be read and written.
        unsafe { transpose(from, stride, to, to_stride) }
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct EightDouble(__m512d);

// SAFETY: it is 8 numbers; the functions use only AVX-512F.
unsafe impl Vector for EightDouble {
    type Number = f64;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { EightDouble(_mm512_setzero_pd()) }
    }

    #[inline(always)]
    unsafe fn splat(number: f64) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { EightDouble(_mm512_set1_pd(number)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: 8 numbers can be read at `from`.
        unsafe { EightDouble(_mm512_loadu_pd(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: 8 numbers can be written at `to`.
        unsafe { _mm512_storeu_pd(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { EightDouble(_mm512_fmadd_pd(a.0, b.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { EightDouble(_mm512_add_pd(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor supports AVX-512.
        unsafe { EightDouble(_mm512_sub_pd(self.0, other.0)) }
    }
}
