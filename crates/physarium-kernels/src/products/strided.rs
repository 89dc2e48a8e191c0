/*!
Products of strided float32 matrices, by the `gemm` crate, on the calling thread.

In: two factors. Out: their product, or the sum of it and what the result holds. The order of sums depends on
the shape only.
*/

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

/// `out = left · right`, in float32, on the calling thread.
///
/// `shape`: rows, depth, cols. The order of sums depends on the shape only.
///
/// # Panics
/// If a slice is shorter than its shape and stride need.
pub fn multiply(shape: [usize; 3], left: Left<'_>, right: Right<'_>, out: Output<'_>) {
    let [rows, depth, cols] = shape;
    let fits = |len: usize, rows: usize, cols: usize, stride: usize| {
        rows == 0 || (cols <= stride && (rows - 1) * stride + cols <= len)
    };
    assert!(fits(left.data.len(), rows, depth, left.stride), "left factor too short");
    assert!(fits(out.data.len(), rows, cols, out.stride), "result too short");
    let right = match right {
        Right::AsIs { data, stride } => {
            assert!(fits(data.len(), depth, cols, stride), "right factor too short");
            Factor::rows(data.as_ptr(), stride)
        }
        Right::Transposed { data, stride } => {
            assert!(fits(data.len(), cols, depth, stride), "right factor too short");
            Factor::transposed(data.as_ptr(), stride)
        }
    };
    let left = Factor::rows(left.data.as_ptr(), left.stride);
    let out = Target { begin: out.data.as_mut_ptr(), stride: out.stride, update: Update::Replace };
    // SAFETY: the three slices hold all elements of their shapes, as asserted.
    unsafe { product(shape, left, right, out) }
}

/// How a product changes the result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    /// The product replaces it.
    Replace,
    /// The product is added to it.
    Add,
}

/// A factor in memory; strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    begin: *const f32,
    row_stride: usize,
    col_stride: usize,
}

impl Factor {
    /// A factor stored as it is, its rows `stride` apart.
    pub(super) fn rows(begin: *const f32, stride: usize) -> Factor {
        Factor { begin, row_stride: stride, col_stride: 1 }
    }

    /// A factor stored transposed, its columns `stride` apart.
    pub(super) fn transposed(begin: *const f32, stride: usize) -> Factor {
        Factor { begin, row_stride: 1, col_stride: stride }
    }
}

/// The result in memory: rows `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) begin: *mut f32,
    pub(super) stride: usize,
    pub(super) update: Update,
}

/// `out = left · right`, or `out += left · right`; `shape`: rows, depth, cols.
///
/// # Safety
/// All elements of `left` and `right` can be read. All elements of `out` can be read and written, and no other
/// thread accesses them.
pub(super) unsafe fn product(
    [rows, depth, cols]: [usize; 3],
    left: Factor,
    right: Factor,
    out: Target,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            depth,
            out.begin,
            1,
            out.stride as isize,
            out.update == Update::Add,
            left.begin,
            left.col_stride as isize,
            left.row_stride as isize,
            right.begin,
            right.col_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
