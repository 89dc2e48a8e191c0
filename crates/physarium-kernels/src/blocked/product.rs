//! A product of two factors on the calling thread, block by block.

use std::cell::RefCell;

use super::DEPTH;
use super::each_kind::Vectors;
use super::operands::{Factor, Target, Update};
use super::pack::{Part, pack};
use super::tile::{sums, update};
use super::vector::Vector;
use crate::matvec::VectorKind;

/// Number of rows of the left factor that are packed at once; a multiple of the rows of every tile.
const ROWS: usize = 192;
/// Number of columns of the right factor that are packed at once; a multiple of the columns of every tile.
const COLS: usize = 768;

/// Memory for packed parts, aligned to cache lines.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// A pointer to room for `count` numbers in whole cache lines, which are appended if they are missing.
pub(super) fn aligned<N>(lines: &mut Vec<Line>, count: usize) -> *mut N {
    let count = count.div_ceil(size_of::<Line>() / size_of::<N>());
    if lines.len() < count {
        lines.resize(count, Line([0; 64]));
    }
    lines.as_mut_ptr().cast()
}

thread_local! {
    /// Kept from product to product: new pages cost more time than a small product.
    static PACKED: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// `out = left · right`, `out += left · right` or `out −= left · right`; `shape`: rows, depth, cols.
///
/// # Safety
/// All elements of `left` and `right` can be read. All elements of `out` can be read and written, and no other
/// thread accesses them.
pub(crate) unsafe fn product<N: Vectors>(
    kind: VectorKind,
    shape: [usize; 3],
    [left, right]: [Factor<N>; 2],
    out: Target<N>,
) {
    let [rows, depth, cols] = shape;
    if rows == 0 || cols == 0 {
        return;
    }
    if depth == 0 {
        if out.update == Update::Replace {
            for row in 0..rows {
                // SAFETY: guaranteed by the caller.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(out.begin.add(row * out.stride), cols)
                };
                row.fill(N::default());
            }
        }
        return;
    }
    let all = Product { shape, left, right, out };
    PACKED.with_borrow_mut(|packed| {
        // SAFETY: guaranteed by the caller; a `VectorKind` exists only where its instructions are supported.
        unsafe {
            match kind {
                VectorKind::Portable => all.run::<N::Portable, 4, 2, 1>(packed),
                #[cfg(target_arch = "x86_64")]
                VectorKind::Avx2 => all.on_avx2(packed),
                #[cfg(target_arch = "x86_64")]
                VectorKind::Avx512 => all.on_avx512(packed),
                #[cfg(target_arch = "aarch64")]
                VectorKind::Neon => all.run::<N::Neon, 8, 4, 3>(packed),
            }
        }
    });
}

/// The arguments of [`product`].
struct Product<N> {
    shape: [usize; 3],
    left: Factor<N>,
    right: Factor<N>,
    out: Target<N>,
}

impl<N: Vectors> Product<N> {
    /// # Safety
    /// As [`Product::run`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn on_avx2(&self, packed: &mut Vec<Line>) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.run::<N::Avx2, 6, 2, 2>(packed) }
    }

    /// # Safety
    /// As [`Product::run`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn on_avx512(&self, packed: &mut Vec<Line>) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.run::<N::Avx512, 12, 4, 2>(packed) }
    }

    /// Computes the product with tiles of `R` rows, or `S` where no more are left, and `C` vectors.
    ///
    /// # Safety
    /// As [`product`]; the processor supports the instructions.
    #[inline(always)]
    unsafe fn run<V, const R: usize, const S: usize, const C: usize>(&self, packed: &mut Vec<Line>)
    where
        V: Vector<Number = N>,
    {
        const { assert!(ROWS.is_multiple_of(R) && COLS.is_multiple_of(C * V::LANES) && S <= R) };
        let [rows, depth, cols] = self.shape;
        let width = C * V::LANES;
        let for_right = COLS.min(cols.next_multiple_of(width)) * DEPTH.min(depth);
        let for_left = ROWS.min(rows.next_multiple_of(R)) * DEPTH.min(depth);
        let line = size_of::<Line>() / size_of::<N>();
        let for_right = for_right.next_multiple_of(line);
        let right: *mut N = aligned(packed, for_right + for_left);
        // SAFETY: there is room for both, each from the begin of a line on.
        let left = unsafe { right.add(for_right) };
        // A right factor that is used for one tile of rows only is not worth packing, if its rows can be read as they are.
        let unpacked =
            if rows <= R && self.right.col_stride == 1 { cols / width * width } else { 0 };
        // SAFETY: parts and blocks are within the shape; the panels are within `packed`.
        unsafe {
            for term in (0..if unpacked > 0 { depth } else { 0 }).step_by(DEPTH) {
                let terms = DEPTH.min(depth - term);
                pack::<V>(Part::of_left(self.left, [0, term], [rows, terms]), R, left);
                let right = Panels {
                    begin: self.right.begin.add(term * self.right.row_stride),
                    next: width,
                    step: self.right.row_stride,
                };
                let out = self.target(term, [0, 0]);
                tiles::<V, R, S, C>([rows, terms, unpacked], (left, right), out);
            }
            for col in (unpacked..cols).step_by(COLS) {
                for term in (0..depth).step_by(DEPTH) {
                    let (count, terms) = (COLS.min(cols - col), DEPTH.min(depth - term));
                    pack::<V>(
                        Part::of_right(self.right, [term, col], [count, terms]),
                        width,
                        right,
                    );
                    for row in (0..rows).step_by(ROWS) {
                        let height = ROWS.min(rows - row);
                        pack::<V>(Part::of_left(self.left, [row, term], [height, terms]), R, left);
                        let out = self.target(term, [row, col]);
                        let right = Panels { begin: right, next: width * terms, step: width };
                        tiles::<V, R, S, C>([height, terms, count], (left, right), out);
                    }
                }
            }
        }
    }

    /// Where the products over the terms from `term` on go.
    ///
    /// # Safety
    /// The result has this row and column.
    #[inline(always)]
    unsafe fn target(&self, term: usize, [row, col]: [usize; 2]) -> Target<N> {
        let update = match self.out.update {
            Update::Replace if term > 0 => Update::Add,
            update => update,
        };
        // SAFETY: guaranteed by the caller.
        let begin = unsafe { self.out.begin.add(row * self.out.stride + col) };
        Target { begin, update, ..self.out }
    }
}

/// Columns of the right factor, in panels of as many as a tile has.
#[derive(Clone, Copy)]
struct Panels<N> {
    begin: *const N,
    /// Distance between two panels.
    next: usize,
    /// Distance between two terms.
    step: usize,
}

/// All tiles of a block of the result; `shape`: rows, terms, columns.
///
/// # Safety
/// As [`product`]; the panels are packed, and the processor supports the instructions.
#[inline(always)]
unsafe fn tiles<V: Vector, const R: usize, const S: usize, const C: usize>(
    [rows, depth, cols]: [usize; 3],
    (left, right): (*const V::Number, Panels<V::Number>),
    out: Target<V::Number>,
) {
    let width = C * V::LANES;
    // The panel of columns stays in the first-level cache while all rows pass.
    for (panel, col) in (0..cols).step_by(width).enumerate() {
        for row in (0..rows).step_by(R) {
            let size = [R.min(rows - row), width.min(cols - col)];
            // SAFETY: guaranteed by the caller.
            unsafe {
                let left = left.add(row * depth);
                let right = (right.begin.add(panel * right.next), right.step);
                let out = Target { begin: out.begin.add(row * out.stride + col), ..out };
                if size[0] > S {
                    update(&sums::<V, R, C>(depth, (left, R), right), size, out);
                } else {
                    update(&sums::<V, S, C>(depth, (left, R), right), size, out);
                }
            }
        }
    }
}
