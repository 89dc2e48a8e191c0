//! Strided float32 matrices: the factors and the result of a product.

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
