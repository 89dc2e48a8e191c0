//! Vectors in plain Rust, for any processor. Without an instruction for it, a fused multiply-add is slow but correct.

use super::vector::{Number, Vector};

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Four<N>([N; 4]);

// SAFETY: it is four numbers, and uses no special instructions.
unsafe impl<N: Number> Vector for Four<N> {
    type Number = N;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Four([N::default(); 4])
    }

    #[inline(always)]
    unsafe fn splat(number: N) -> Self {
        Four([number; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const N) -> Self {
        // SAFETY: four numbers can be read at `from`.
        unsafe { Four(from.cast::<[N; 4]>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut N) {
        // SAFETY: four numbers can be written at `to`.
        unsafe { to.cast::<[N; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        Four(std::array::from_fn(|lane| a.0[lane].fused(b.0[lane], self.0[lane])))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Four(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Four(std::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }
}
