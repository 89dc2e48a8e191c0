/*!
Products with a left factor of which many elements are zero.

In: the rows of the left factor, and the right factor. Out: their product. Terms with a zero of the left factor are left out of
the sums that [`super`] defines; the order of the others is the same, and so is the result, unless the right
factor holds infinities or NaN there, or all terms of a sum vanish, which can change the sign of its zero.

The elements of a run of the depth that are not zero are listed, row by row. A row of the product, for a panel of columns, is then
the sum of the panel's terms, each times the element of the list: the panel's part that is used at a time stays in the first-level
cache, and the sums in registers.
*/

use std::cell::RefCell;

use super::DEPTH;
use super::operands::Factor;
use super::pack::{Part, pack};
use super::product::{Line, aligned};
use super::vector::Vector;
use crate::matvec::VectorKind;

/// Vectors of columns of a panel: as many sums as it takes to keep the units for fused multiply-adds busy.
const VECTORS: usize = 8;
/// Bytes of a panel that are used at a time: half of a first-level cache, which two threads may share.
const CACHED: usize = 16 << 10;
/// Fewest columns that are worth listing the elements for.
const COLUMNS: usize = 256;
/// Columns of a product that are computed together: many, so that the elements are listed seldom, but the sums of all are in memory.
pub(crate) const SPARSE_COLUMNS: usize = 1024;

/// An element of the left factor that is not zero.
#[derive(Debug, Clone, Copy, Default)]
struct Element {
    value: f32,
    /// Where its term begins in the part of the panel.
    offset: u32,
}

/// Where an element of the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Rows of the product are rows of the result.
    Rows,
    /// They are columns of the result.
    Columns,
}

/// The result, which the product replaces: rows `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) begin: *mut f32,
    pub(crate) stride: usize,
    pub(crate) layout: Layout,
}

/// Buffers, kept from product to product.
#[derive(Default)]
struct Memory {
    /// For each part of a run, the elements of all rows.
    elements: Vec<Element>,
    /// For each part of a run, where the elements of each row end.
    ends: Vec<usize>,
    panel: Vec<Line>,
    /// Sums of a run that is not complete, `[rows, width of a panel]`.
    begun: Vec<Line>,
    /// For each panel, `[rows, width of a panel]`.
    sums: Vec<Line>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Whether the zeros of a left factor are worth leaving out, of so many elements. They are counted only if there are enough columns.
pub(crate) fn is_sparse(cols: usize, elements: usize, zeros: impl FnOnce() -> usize) -> bool {
    cols >= COLUMNS && zeros() >= elements / 5 * 2
}

/// `out = left · right`; `shape`: rows, depth, cols. `left` writes terms of a row, from the given one on, into a slice.
///
/// # Safety
/// All elements of `right` can be read. All elements of `out` can be written, and no other thread accesses them.
pub(crate) unsafe fn sparse_product(
    kind: VectorKind,
    shape: [usize; 3],
    (left, right): (impl Fn([usize; 2], &mut [f32]), Factor),
    out: Placed,
) {
    assert!(shape.iter().all(|size| *size > 0), "an empty product");
    let all = Product { shape, left, right, out };
    MEMORY.with_borrow_mut(|memory| {
        // SAFETY: guaranteed by the caller; a `VectorKind` exists only where its instructions are supported.
        unsafe {
            match kind {
                VectorKind::Portable => all.run::<super::portable::Four<f32>>(memory),
                #[cfg(target_arch = "x86_64")]
                VectorKind::Avx2 => all.on_avx2(memory),
                #[cfg(target_arch = "x86_64")]
                VectorKind::Avx512 => all.on_avx512(memory),
                #[cfg(target_arch = "aarch64")]
                VectorKind::Neon => all.run::<super::neon::Four>(memory),
            }
        }
    });
}

/// The arguments of [`sparse_product`].
struct Product<L> {
    shape: [usize; 3],
    left: L,
    right: Factor,
    out: Placed,
}

impl<L: Fn([usize; 2], &mut [f32])> Product<L> {
    /// # Safety
    /// As [`Product::run`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn on_avx2(&self, memory: &mut Memory) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.run::<super::avx2::Eight>(memory) }
    }

    /// # Safety
    /// As [`Product::run`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn on_avx512(&self, memory: &mut Memory) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.run::<super::avx512::Sixteen>(memory) }
    }

    /// # Safety
    /// As [`sparse_product`]; the processor supports the instructions.
    #[inline(always)]
    unsafe fn run<V: Vector<Number = f32>>(&self, memory: &mut Memory) {
        let [rows, depth, cols] = self.shape;
        let width = VECTORS * V::LANES;
        let part = (CACHED / size_of::<f32>() / width).min(DEPTH);
        let of_panel = rows * width;
        let Memory { elements, ends, panel, begun, sums } = memory;
        let panel: *mut f32 = aligned(panel, DEPTH * width);
        let begun: *mut f32 = aligned(begun, of_panel);
        let sums: *mut f32 = aligned(sums, of_panel * cols.div_ceil(width));
        for term in (0..depth).step_by(DEPTH) {
            let terms = DEPTH.min(depth - term);
            self.list([term, terms], [part, width], (elements, ends));
            for (index, col) in (0..cols).step_by(width).enumerate() {
                let count = width.min(cols - col);
                // SAFETY: the panel is within the right factor, and each pointer has room for what is said above.
                unsafe {
                    pack::<V>(
                        Part::of_right(self.right, [term, col], [count, terms]),
                        width,
                        panel,
                    );
                    let run = Run { rows, parts: terms.div_ceil(part), part, is_first: term == 0 };
                    let sums = sums.add(index * of_panel);
                    run.add::<V>((elements, ends), panel, [begun, sums]);
                }
            }
        }
        for (index, col) in (0..cols).step_by(width).enumerate() {
            let size = [rows, width.min(cols - col)];
            // SAFETY: guaranteed by the caller; the panel's sums are complete.
            unsafe { self.place::<V>(sums.add(index * of_panel), size, col) };
        }
    }

    /// Lists the elements of a run.
    #[inline(always)]
    fn list(
        &self,
        [term, terms]: [usize; 2],
        [part, width]: [usize; 2],
        (elements, ends): (&mut Vec<Element>, &mut Vec<usize>),
    ) {
        let (rows, parts) = (self.shape[0], terms.div_ceil(part));
        if elements.len() < parts * part * rows {
            elements.resize(parts * part * rows, Element::default());
        }
        ends.clear();
        ends.resize(parts * rows, 0);
        let mut values = [0.0; DEPTH];
        let values = &mut values[..terms];
        for row in 0..rows {
            (self.left)([row, term], values);
            for (index, values) in values.chunks(part).enumerate() {
                let elements = &mut elements[index * part * rows..];
                let begin = if row == 0 { 0 } else { ends[index * rows + row - 1] };
                let to = &mut elements[begin..begin + values.len()];
                let mut count = 0;
                for (at, value) in values.iter().enumerate() {
                    // Without a branch, that would be predicted wrongly.
                    to[count] = Element { value: *value, offset: (at * width) as u32 };
                    count += usize::from(*value != 0.0);
                }
                ends[index * rows + row] = begin + count;
            }
        }
    }

    /// Writes the sums of a panel, `[rows, width]`, that begins at column `col` of the product, to the result.
    ///
    /// # Safety
    /// As [`Product::run`]; `size`: rows, columns of the panel that are columns of the product.
    #[inline(always)]
    unsafe fn place<V: Vector<Number = f32>>(
        &self,
        sums: *const f32,
        [rows, count]: [usize; 2],
        col: usize,
    ) {
        let (width, Placed { begin, stride, layout }) = (VECTORS * V::LANES, self.out);
        // SAFETY: guaranteed by the caller.
        unsafe {
            match layout {
                Layout::Rows => {
                    for row in 0..rows {
                        let to = begin.add(row * stride + col);
                        std::ptr::copy_nonoverlapping(sums.add(row * width), to, count);
                    }
                }
                Layout::Columns => {
                    let to = begin.add(col * stride);
                    let (whole_rows, whole) = (rows / 4 * 4, count / 4 * 4);
                    for lane in (0..whole).step_by(4) {
                        for row in (0..whole_rows).step_by(4) {
                            let from = sums.add(row * width + lane);
                            V::transpose(from, width, to.add(lane * stride + row), stride);
                        }
                    }
                    for lane in 0..count {
                        let first = if lane < whole { whole_rows } else { 0 };
                        for row in first..rows {
                            *to.add(lane * stride + row) = *sums.add(row * width + lane);
                        }
                    }
                }
            }
        }
    }
}

/// A run of the depth, of which the elements are listed and a panel is packed.
struct Run {
    rows: usize,
    /// Number of parts, and terms of each but the last.
    parts: usize,
    part: usize,
    is_first: bool,
}

impl Run {
    /// Adds the run's sums to `sums`, or replaces what it holds by those of the first run; `begun` has room for as many.
    ///
    /// # Safety
    /// The processor supports the instructions. The panel has all terms of the run; `begun` and `sums` have room for
    /// `[rows, width]`.
    #[inline(always)]
    unsafe fn add<V: Vector<Number = f32>>(
        &self,
        (elements, ends): (&[Element], &[usize]),
        panel: *const f32,
        [begun, sums]: [*mut f32; 2],
    ) {
        let width = VECTORS * V::LANES;
        for index in 0..self.parts {
            let (is_begin, is_end) = (index == 0, index + 1 == self.parts);
            let elements = &elements[index * self.part * self.rows..];
            let mut begin = 0;
            for (row, end) in ends[index * self.rows..][..self.rows].iter().enumerate() {
                // SAFETY: guaranteed by the caller; offsets are of terms of this part.
                unsafe {
                    let terms = panel.add(index * self.part * width);
                    let (begun, sums) = (begun.add(row * width), sums.add(row * width));
                    let mut chain = [V::zero(); VECTORS];
                    if !is_begin {
                        load(&mut chain, begun);
                    }
                    for element in &elements[begin..*end] {
                        let (value, term) =
                            (V::splat(element.value), terms.add(element.offset as usize));
                        // Not closures: they would be compiled without the instructions of the caller.
                        for (at, sum) in chain.iter_mut().enumerate() {
                            *sum = sum.fused(value, V::load(term.add(at * V::LANES)));
                        }
                    }
                    if is_end && !self.is_first {
                        for (at, sum) in chain.iter_mut().enumerate() {
                            *sum = V::load(sums.add(at * V::LANES)).add(*sum);
                        }
                    }
                    let to = if is_end { sums } else { begun };
                    for (at, sum) in chain.iter().enumerate() {
                        sum.store(to.add(at * V::LANES));
                    }
                }
                begin = *end;
            }
        }
    }
}

/// # Safety
/// The processor supports the instructions; as many vectors can be read.
#[inline(always)]
unsafe fn load<V: Vector<Number = f32>>(vectors: &mut [V; VECTORS], from: *const f32) {
    for (at, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        *vector = unsafe { V::load(from.add(at * V::LANES)) };
    }
}
