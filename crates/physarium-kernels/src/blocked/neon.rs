//! Vectors on Arm NEON.

use std::arch::aarch64::*;

use super::vector::Vector;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Four(float32x4_t);

// SAFETY: it is 4 numbers; the functions use only NEON.
unsafe impl Vector for Four {
    type Number = f32;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { Four(vdupq_n_f32(0.0)) }
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { Four(vdupq_n_f32(number)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: 4 numbers can be read at `from`.
        unsafe { Four(vld1q_f32(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: 4 numbers can be written at `to`.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { Four(vfmaq_f32(self.0, a.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { Four(vaddq_f32(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { Four(vsubq_f32(self.0, other.0)) }
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct TwoDouble(float64x2_t);

// SAFETY: it is 2 numbers; the functions use only NEON.
unsafe impl Vector for TwoDouble {
    type Number = f64;
    const LANES: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { TwoDouble(vdupq_n_f64(0.0)) }
    }

    #[inline(always)]
    unsafe fn splat(number: f64) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { TwoDouble(vdupq_n_f64(number)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        // SAFETY: 2 numbers can be read at `from`.
        unsafe { TwoDouble(vld1q_f64(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        // SAFETY: 2 numbers can be written at `to`.
        unsafe { vst1q_f64(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { TwoDouble(vfmaq_f64(self.0, a.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { TwoDouble(vaddq_f64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the processor supports NEON.
        unsafe { TwoDouble(vsubq_f64(self.0, other.0)) }
    }
}
