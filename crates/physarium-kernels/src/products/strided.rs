/*!
Products of strided float32 matrices, on the calling thread.

In: two factors. Out: their product, with the sums of [`crate::blocked`].
*/

use super::factors::{Left, Output, Right};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::strided as on_tiles;
use crate::arithmetic::{Arithmetic, Precision};
use crate::blocked::{Factor, Target, Update, product};
use crate::compute::Compute;

impl Compute {
    /// `out = left · right`, in float32, on the calling thread. A [coarse](Compute::coarse) product takes both factors with
    /// 16 bits where that is faster.
    ///
    /// `shape`: rows, depth, cols.
    ///
    /// # Panics
    /// If a slice is shorter than its shape and stride need, or a stride shorter than a row.
    pub fn multiply(&self, shape: [usize; 3], left: Left<'_>, right: Right<'_>, out: Output<'_>) {
        let [rows, depth, cols] = shape;
        assert!(fits(left.data, [rows, depth], left.stride), "left factor too short");
        assert!(fits(out.data, [rows, cols], out.stride), "result too short");
        let fits_right = match right {
            Right::AsIs { data, stride } => fits(data, [depth, cols], stride),
            Right::Transposed { data, stride } => fits(data, [cols, depth], stride),
        };
        assert!(fits_right, "right factor too short");
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.multiplies_on_tiles() && !shape.contains(&0) {
            // SAFETY: the three slices hold all elements of their shapes, as asserted.
            return unsafe { on_tiles::multiply(self, shape, (left, right), out) };
        }
        let right = match right {
            Right::AsIs { data, stride } => Factor::rows(data.as_ptr(), stride),
            Right::Transposed { data, stride } => Factor::transposed(data.as_ptr(), stride),
        };
        let left = Factor::rows(left.data.as_ptr(), left.stride);
        let update = Update::Replace;
        let out = Target { begin: out.data.as_mut_ptr(), stride: out.stride, update };
        // SAFETY: the three slices hold all elements of their shapes, as asserted.
        unsafe { product(self.vectors(), shape, [left, right], out) }
    }

    fn multiplies_on_tiles(&self) -> bool {
        self.arithmetic() == Arithmetic::Bf16x2 && self.activations() == Precision::Coarse
    }
}

/// Whether `data` holds `rows` rows of `cols` elements, `stride` apart.
fn fits(data: &[f32], [rows, cols]: [usize; 2], stride: usize) -> bool {
    let Some(before) = rows.checked_sub(1) else { return true };
    let needed = before.checked_mul(stride).and_then(|begin| begin.checked_add(cols));
    cols <= stride && needed.is_some_and(|needed| needed <= data.len())
}
