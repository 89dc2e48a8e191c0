/*!
Sums over tokens of products of activations with activations.

In: rows of activations `[tokens, width]`, one window after another. Out: Gram matrices `[width, width]`, and
products of two kinds of activations, summed in float32. In `bf16` and `bf16x2` each activation is rounded to BF16, 8 bits; in `f32`
it is a float32.
*/

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::on_tiles::gram as on_tiles;
use crate::blocked::{Factor, Target, Update, product};
use crate::compute::Compute;
use crate::mirror::{Half, mirror};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use crate::tiles::Terms;

/// Number of rows of a result that one task computes.
const ROWS: usize = 192;

/// The sum of xᵀx over tokens, of which only half of the symmetric matrix is computed.
#[derive(Debug, Clone)]
pub struct Gram {
    width: usize,
    /// `[width, width]`; what is below the diagonal is meaningless.
    sums: Vec<f32>,
}

impl Gram {
    /// A sum of zero, for activations of `width` features.
    ///
    /// # Panics
    /// If no memory can hold `width` squared elements.
    pub fn new(width: usize) -> Gram {
        let elements = width.checked_mul(width).expect("a matrix that memory can hold");
        Gram { width, sums: vec![0.0; elements] }
    }

    /// Adds the rows of `x` `[tokens, width]`, on all threads. The order of sums depends on the shape only.
    ///
    /// # Panics
    /// If `x` is not whole rows.
    pub fn add(&mut self, compute: &Compute, x: &[f32]) {
        let width = self.width;
        assert!(x.len().is_multiple_of(width), "activations are not whole rows");
        if x.is_empty() {
            return;
        }
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(kind) = compute.tiles_of(Terms::One) {
            return on_tiles::add_upper((compute, kind), (x, width), &mut self.sums);
        }
        compute.each_chunk(&mut self.sums, ROWS * width, |block, sums| {
            let first = block * ROWS;
            let rows = sums.len() / width;
            // SAFETY: the left factor is `rows` columns of `x` from column `first` on, the right
            // factor all columns from there on; `sums` holds `rows` rows, of which the columns from
            // `first` on are accessed.
            unsafe {
                let begin = sums.as_mut_ptr().add(first);
                product(
                    compute.vectors(),
                    [rows, x.len() / width, width - first],
                    [
                        Factor::transposed(x.as_ptr().add(first), width),
                        Factor::rows(x.as_ptr().add(first), width),
                    ],
                    Target { begin, stride: width, update: Update::Add },
                );
            }
        });
    }

    /// Adds the sums of other tokens, on all threads.
    ///
    /// # Panics
    /// If `other` has another width.
    pub fn merge(&mut self, compute: &Compute, other: &Gram) {
        assert_eq!(self.width, other.width, "features");
        let width = self.width;
        compute.each_chunk(&mut self.sums, width.max(1), |row, sums| {
            let others = &other.sums[row * width + row..(row + 1) * width];
            sums[row..].iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        });
    }

    /// The half that is computed: of each row, the elements from the diagonal on. `[width · (width + 1) / 2]`.
    pub fn upper(&self) -> Vec<f32> {
        let rows = self.sums.chunks_exact(self.width.max(1)).enumerate();
        rows.flat_map(|(row, sums)| &sums[row..]).copied().collect()
    }

    /// The sum with this half, as [`Gram::upper`] gives it; `None` if that has not the elements of `width` features.
    pub fn from_upper(width: usize, upper: &[f32]) -> Option<Gram> {
        let elements = width.checked_mul(width.checked_add(1)?)? / 2;
        if upper.len() != elements {
            return None;
        }
        let mut gram = Gram::new(width);
        let mut rest = upper;
        for row in 0..width {
            let (sums, after) = rest.split_at(width - row);
            gram.sums[row * width + row..(row + 1) * width].copy_from_slice(sums);
            rest = after;
        }
        Some(gram)
    }

    /// The whole matrix times `factor`: `[width, width]`, symmetric to the last bit.
    pub fn finish(self, compute: &Compute, factor: f32) -> Vec<f32> {
        let (width, mut sums) = (self.width, self.sums);
        compute.each_chunk(&mut sums, width.max(1), |row, sums| {
            sums[row..].iter_mut().for_each(|sum| *sum *= factor);
        });
        mirror(compute, &mut sums, width, Half::Upper);
        sums
    }
}

/// Adds aᵀb to `out` `[width of a, width of b]`, on all threads; `a` and `b` hold one row for each of `tokens`. The
/// order of sums depends on the shape only.
///
/// # Panics
/// If `a` and `b` are not as many whole rows, or `out` has another shape.
pub fn add_cross(compute: &Compute, [a, b]: [&[f32]; 2], tokens: usize, out: &mut [f32]) {
    if tokens == 0 {
        assert!(a.is_empty() && b.is_empty(), "rows of no tokens");
        return;
    }
    assert!(a.len().is_multiple_of(tokens) && b.len().is_multiple_of(tokens), "whole rows");
    let widths = [a, b].map(|rows| rows.len() / tokens);
    let elements = widths[0].checked_mul(widths[1]);
    assert!(Some(out.len()) == elements, "a result of {widths:?}");
    if out.is_empty() {
        return;
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if let Some(kind) = compute.tiles_of(Terms::One) {
        return on_tiles::add_cross((compute, kind), [a, b], widths, out);
    }
    compute.each_chunk(out, ROWS * widths[1], |block, out| {
        // SAFETY: the left factor is as many columns of `a` as `out` has rows, from column
        // `block * ROWS` on, the right factor is all of `b`; their lengths were asserted above.
        unsafe {
            product(
                compute.vectors(),
                [out.len() / widths[1], tokens, widths[1]],
                [
                    Factor::transposed(a.as_ptr().add(block * ROWS), widths[0]),
                    Factor::rows(b.as_ptr(), widths[1]),
                ],
                Target { begin: out.as_mut_ptr(), stride: widths[1], update: Update::Add },
            );
        }
    });
}
