//! Products of strided float32 matrices, by the `gemm` crate.

/// The left factor, `[rows, depth]`: rows `stride` apart, elements of a row side by side.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// The right factor, `[depth, cols]`.
#[derive(Debug, Clone, Copy)]
pub enum Right<'a> {
    /// Stored as it is: rows of `cols` elements.
    AsIs {
        /// The elements.
        data: &'a [f32],
        /// From one row to the next.
        stride: usize,
    },
    /// Stored transposed: `cols` rows of `depth` elements.
    Transposed {
        /// The elements.
        data: &'a [f32],
        /// From one row to the next.
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

/// `out = left · right`, all in float32, on the calling thread.
///
/// `shape`: rows, depth, cols. The order of sums depends on the shape only.
///
/// # Panics
/// If a slice is shorter than its shape and stride say.
pub fn multiply(shape: [usize; 3], left: Left<'_>, right: Right<'_>, out: Output<'_>) {
    let [rows, depth, cols] = shape;
    let fits = |len: usize, rows: usize, cols: usize, stride: usize| {
        rows == 0 || (cols <= stride && (rows - 1) * stride + cols <= len)
    };
    assert!(fits(left.data.len(), rows, depth, left.stride), "left factor too short");
    assert!(fits(out.data.len(), rows, cols, out.stride), "result too short");
    let (data, row_stride, col_stride) = match right {
        Right::AsIs { data, stride } => {
            assert!(fits(data.len(), depth, cols, stride), "right factor too short");
            (data, stride, 1)
        }
        Right::Transposed { data, stride } => {
            assert!(fits(data.len(), cols, depth, stride), "right factor too short");
            (data, 1, stride)
        }
    };
    // SAFETY: the three slices hold all elements of their shapes, as asserted.
    unsafe {
        product(
            shape,
            (left.data.as_ptr(), left.stride, 1),
            (data.as_ptr(), row_stride, col_stride),
            (out.data.as_mut_ptr(), out.stride),
            Sum::Set,
        );
    }
}

/// What becomes of what the result holds before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    /// It is replaced.
    Set,
    /// It is added to.
    Add,
}

/// `out = left · right` for matrices in memory; strides in elements.
///
/// # Safety
/// All elements of `left` and `right` can be read, all of `out` be written by this thread alone.
pub(crate) unsafe fn product(
    [rows, depth, cols]: [usize; 3],
    (left, left_row_stride, left_col_stride): (*const f32, usize, usize),
    (right, right_row_stride, right_col_stride): (*const f32, usize, usize),
    (out, out_stride): (*mut f32, usize),
    sum: Sum,
) {
    // SAFETY: as the caller says.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            depth,
            out,
            1,
            out_stride as isize,
            sum == Sum::Add,
            left,
            left_col_stride as isize,
            left_row_stride as isize,
            right,
            right_col_stride as isize,
            right_row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
