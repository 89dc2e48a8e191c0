//! Packing a part of a factor into panels, in the order that register tiles read it.

use super::operands::Factor;
use super::vector::Vector;

/// A part of a factor: `count` of its rows or columns, over `depth` terms.
#[derive(Clone, Copy)]
pub(super) struct Part<N> {
    /// The first element.
    begin: *const N,
    /// Distance between two rows, or columns.
    stride: usize,
    /// Distance between two terms.
    term_stride: usize,
    count: usize,
    depth: usize,
}

impl<N> Part<N> {
    /// Rows of the left factor from `[row, term]` on; `size`: rows, terms.
    ///
    /// # Safety
    /// The factor has these rows and terms.
    pub(super) unsafe fn of_left(
        left: Factor<N>,
        [row, term]: [usize; 2],
        [count, depth]: [usize; 2],
    ) -> Part<N> {
        // SAFETY: guaranteed by the caller.
        let begin = unsafe { left.begin.add(row * left.row_stride + term * left.col_stride) };
        Part { begin, stride: left.row_stride, term_stride: left.col_stride, count, depth }
    }

    /// Columns of the right factor from `[term, col]` on; `size`: columns, terms.
    ///
    /// # Safety
    /// The factor has these columns and terms.
    pub(super) unsafe fn of_right(
        right: Factor<N>,
        [term, col]: [usize; 2],
        [count, depth]: [usize; 2],
    ) -> Part<N> {
        // SAFETY: guaranteed by the caller.
        let begin = unsafe { right.begin.add(term * right.row_stride + col * right.col_stride) };
        Part { begin, stride: right.col_stride, term_stride: right.row_stride, count, depth }
    }
}

/// Writes the part to `to` as panels of `WIDTH` rows or columns, each `[depth, WIDTH]`; those missing in the last
/// panel are zero.
///
/// # Safety
/// The processor supports the instructions. The part can be read; all panels can be written at `to`.
#[inline(always)]
pub(super) unsafe fn pack<V: Vector>(part: Part<V::Number>, width: usize, to: *mut V::Number) {
    let Part { count, depth, .. } = part;
    let mut first = 0;
    while first < count {
        let panel = Part { count: width.min(count - first), ..part };
        // SAFETY: the rows or columns of the panel are among those of the part, and it is the `first / width`-th.
        unsafe {
            let panel = Part { begin: part.begin.add(first * part.stride), ..panel };
            let to = to.add(first * depth);
            if panel.count < width {
                std::slice::from_raw_parts_mut(to, depth * width).fill(V::Number::default());
            }
            if panel.stride == 1 {
                copy_panel(panel, width, to);
            } else if panel.term_stride == 1 {
                transpose_panel::<V>(panel, width, to);
            } else {
                gather(panel, [0, 0], width, to);
            }
        }
        first += width;
    }
}

/// # Safety
/// As [`pack`], for one panel whose rows or columns are side by side.
#[inline(always)]
unsafe fn copy_panel<N: Copy>(panel: Part<N>, width: usize, to: *mut N) {
    for term in 0..panel.depth {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let from = panel.begin.add(term * panel.term_stride);
            std::ptr::copy_nonoverlapping(from, to.add(term * width), panel.count);
        }
    }
}

/// # Safety
/// As [`pack`], for one panel whose terms are side by side.
#[inline(always)]
unsafe fn transpose_panel<V: Vector>(panel: Part<V::Number>, width: usize, to: *mut V::Number) {
    let (lanes, terms) = (panel.count / 4 * 4, panel.depth / 4 * 4);
    // SAFETY: guaranteed by the caller.
    unsafe {
        for lane in (0..lanes).step_by(4) {
            let from = panel.begin.add(lane * panel.stride);
            for term in (0..terms).step_by(4) {
                let to = to.add(term * width + lane);
                V::transpose(from.add(term), panel.stride, to, width);
            }
        }
        gather(panel, [lanes, 0], width, to);
        gather(Part { count: lanes, ..panel }, [0, terms], width, to);
    }
}

/// Writes the rows or columns from `lane` on and their terms from `term` on, one by one.
///
/// # Safety
/// As [`pack`], for one panel.
#[inline(always)]
unsafe fn gather<N: Copy>(panel: Part<N>, [lane, term]: [usize; 2], width: usize, to: *mut N) {
    for lane in lane..panel.count {
        for term in term..panel.depth {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let from = panel.begin.add(lane * panel.stride + term * panel.term_stride);
                *to.add(term * width + lane) = *from;
            }
        }
    }
}
