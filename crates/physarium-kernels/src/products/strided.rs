/*!
Products of strided float32 matrices, on the calling thread.

In: two factors. Out: their product, with the sums of [`crate::blocked`].
*/

use crate::blocked::{Factor, Target, Update, product};
use crate::compute::Compute;

/// The left factor, `[rows, depth]`: rows `stride` apart, elements of a row contiguous.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between the first elements of two consecutive rows.
    pub stride: usize,
}

/// The right factor, `[depth, cols]`.
#[derive(Debug, Clone, Copy)]
pub enum Right<'a> {
    /// Stored as it is: `depth` rows of `cols` elements.
    AsIs {
        /// The elements.
        data: &'a [f32],
        /// Distance between the first elements of two consecutive rows.
        stride: usize,
    },
    /// Stored transposed: `cols` rows of `depth` elements.
    Transposed {
        /// The elements.
        data: &'a [f32],
        /// Distance between the first elements of two consecutive rows.
        stride: usize,
    },
}

/// The result, `[rows, cols]`: rows `stride` apart; elements between rows are left unchanged.
#[derive(Debug)]
pub struct Output<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Distance between the first elements of two consecutive rows.
    pub stride: usize,
}

impl Compute {
    /// `out = left · right`, in float32, on the calling thread.
    ///
    /// `shape`: rows, depth, cols.
    ///
    /// # Panics
    /// If a slice is shorter than its shape and stride need, or a stride shorter than a row.
    pub fn multiply(&self, shape: [usize; 3], left: Left<'_>, right: Right<'_>, out: Output<'_>) {
        let [rows, depth, cols] = shape;
        assert!(fits(left.data, [rows, depth], left.stride), "left factor too short");
        assert!(fits(out.data, [rows, cols], out.stride), "result too short");
        let right = match right {
            Right::AsIs { data, stride } => {
                assert!(fits(data, [depth, cols], stride), "right factor too short");
                Factor::rows(data.as_ptr(), stride)
            }
            Right::Transposed { data, stride } => {
                assert!(fits(data, [cols, depth], stride), "right factor too short");
                Factor::transposed(data.as_ptr(), stride)
            }
        };
        let left = Factor::rows(left.data.as_ptr(), left.stride);
        let update = Update::Replace;
        let out = Target { begin: out.data.as_mut_ptr(), stride: out.stride, update };
        // SAFETY: the three slices hold all elements of their shapes, as asserted.
        unsafe { product(self.vectors(), shape, [left, right], out) }
    }
}

/// Whether `data` holds `rows` rows of `cols` elements, `stride` apart.
fn fits(data: &[f32], [rows, cols]: [usize; 2], stride: usize) -> bool {
    let Some(before) = rows.checked_sub(1) else { return true };
    let needed = before.checked_mul(stride).and_then(|begin| begin.checked_add(cols));
    cols <= stride && needed.is_some_and(|needed| needed <= data.len())
}
