/*!
Subtracting products with the same few columns from many rows, as an elimination does.

In: columns `[width, depth]`, and rows `[count, depth]`. Out: what the result holds, less rows · columnsᵀ.
*/

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::strided::TransposedTiles;
use crate::arithmetic::Arithmetic;
use crate::blocked::{Factor, Target, Update, product};
use crate::compute::Compute;

/// Columns whose products are subtracted.
pub(crate) struct Columns<'a> {
    /// `[width, depth]`.
    columns: &'a [f32],
    depth: usize,
    /// The same with 16 bits, where that is faster.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    tiles: Option<TransposedTiles>,
}

impl<'a> Columns<'a> {
    /// Prepares `columns` `[width, depth]`.
    pub(crate) fn new(compute: &Compute, columns: &'a [f32], depth: usize) -> Columns<'a> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        {
            let on_tiles = compute.arithmetic() == Arithmetic::Bf16x2;
            let tiles = on_tiles.then(|| TransposedTiles::new(compute, columns, depth));
            Columns { columns, depth, tiles }
        }
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        Columns { columns, depth }
    }

    /// Subtracts the products of `rows` `[count, depth]` with the first `cols` columns, on the calling thread, from rows
    /// that begin `stride` apart at `begin`.
    ///
    /// # Safety
    /// As many rows and columns of the result are there, and no other thread accesses them.
    pub(crate) unsafe fn subtract(
        &self,
        compute: &Compute,
        rows: &[f32],
        cols: usize,
        (begin, stride): (*mut f32, usize),
    ) {
        let depth = self.depth;
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(tiles) = &self.tiles {
            // Tiles only add.
            let negative: Vec<f32> = rows.iter().map(|value| -value).collect();
            let out = Target { begin, stride, update: Update::Add };
            // SAFETY: guaranteed by the caller.
            return unsafe { tiles.multiply(compute, &negative, cols, out) };
        }
        let out = Target { begin, stride, update: Update::Subtract };
        let factors =
            [Factor::rows(rows.as_ptr(), depth), Factor::transposed(self.columns.as_ptr(), depth)];
        // SAFETY: the factors are whole slices of `[rows, depth]` and `[cols, depth]`; the rest is guaranteed by the caller.
        unsafe { product(compute.vectors(), [rows.len() / depth, depth, cols], factors, out) };
    }
}
