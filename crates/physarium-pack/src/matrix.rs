//! A tensor as a matrix of rows, and elements of one size.

use physarium_checkpoint::{Dtype, Named, TensorInfo};

/// Elements that a word of mask stands for.
pub(crate) const WORD: u64 = 32;
/// Bytes of dense rows that are worked on at once, where a row is not longer.
const BAND_BYTES: u64 = 1 << 20;
/// Longest row that is packed, in bytes: at least one row is in memory.
const MAX_ROW_BYTES: u64 = 64 << 20;
/// Largest tensor that is packed, in bytes; sizes of its parts cannot overflow then.
const MAX_BYTES: u64 = 1 << 56;

/// A tensor `[…, cols]` as rows of `cols` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub rows: u64,
    pub cols: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub width: u64,
}

impl Matrix {
    /// The matrix that a tensor may be packed as: a projection, by its name, of whole bytes.
    pub(crate) fn of_projection(tensor: &TensorInfo) -> Option<Matrix> {
        Named::of_default_target(&tensor.name)?;
        Matrix::of(tensor.dtype, &tensor.shape)
    }

    /// The matrix of a shape, if a tensor of it can be packed.
    pub(crate) fn of(dtype: Dtype, shape: &[u64]) -> Option<Matrix> {
        let [leading @ .., cols] = shape else { return None };
        let width = dtype.bits() / 8;
        let rows = leading.iter().try_fold(1u64, |rows, dim| rows.checked_mul(*dim))?;
        let fits = !leading.is_empty()
            && matches!((dtype.bits() % 8, width), (0, 1 | 2 | 4 | 8))
            && (1..=MAX_BYTES).contains(&rows.checked_mul(*cols)?.checked_mul(width)?)
            && *cols <= MAX_ROW_BYTES / width;
        fits.then_some(Matrix { rows, cols: *cols, width })
    }

    pub(crate) fn row_bytes(self) -> u64 {
        self.cols * self.width
    }

    pub(crate) fn size_bytes(self) -> u64 {
        self.rows * self.row_bytes()
    }

    /// Words of mask of a row.
    pub(crate) fn words(self) -> u64 {
        self.cols.div_ceil(WORD)
    }

    /// Bytes of all masks.
    pub(crate) fn mask_bytes(self) -> u64 {
        self.rows * self.words() * (WORD / 8)
    }

    /// Rows that are worked on at once.
    pub(crate) fn band_rows(self) -> u64 {
        (BAND_BYTES / self.row_bytes()).max(1)
    }
}

/// Appends the masks of dense rows: ones where an element has a bit that is one.
pub(crate) fn masks_of(matrix: Matrix, rows: &[u8], masks: &mut Vec<u32>) {
    match matrix.width {
        1 => masks_of_width::<1>(matrix, rows, masks),
        2 => masks_of_width::<2>(matrix, rows, masks),
        4 => masks_of_width::<4>(matrix, rows, masks),
        _ => masks_of_width::<8>(matrix, rows, masks),
    }
}

fn masks_of_width<const W: usize>(matrix: Matrix, rows: &[u8], masks: &mut Vec<u32>) {
    for row in rows.chunks_exact(matrix.row_bytes() as usize) {
        for word in row.chunks(WORD as usize * W) {
            let elements = word.as_chunks::<W>().0;
            let bits = elements
                .iter()
                .enumerate()
                .map(|(at, element)| u32::from(*element != [0; W]) << at);
            masks.push(bits.fold(0, |mask, bit| mask | bit));
        }
    }
}

/// Appends the elements that the masks have ones for.
pub(crate) fn select(matrix: Matrix, masks: &[u32], rows: &[u8], values: &mut Vec<u8>) {
    match matrix.width {
        1 => select_width::<1>(matrix, masks, rows, values),
        2 => select_width::<2>(matrix, masks, rows, values),
        4 => select_width::<4>(matrix, masks, rows, values),
        _ => select_width::<8>(matrix, masks, rows, values),
    }
}

fn select_width<const W: usize>(matrix: Matrix, masks: &[u32], rows: &[u8], values: &mut Vec<u8>) {
    let mut masks = masks.iter();
    for row in rows.chunks_exact(matrix.row_bytes() as usize) {
        for word in row.chunks(WORD as usize * W) {
            let mask = *masks.next().expect("a mask for each word");
            let mut there = [[0; W]; WORD as usize];
            let mut count = 0;
            // Each element is written; the next one overwrites it where it does not belong.
            for (at, element) in word.as_chunks::<W>().0.iter().enumerate() {
                there[count] = *element;
                count += (mask >> at & 1) as usize;
                count &= WORD as usize - 1;
            }
            let count = mask.count_ones() as usize;
            values.extend_from_slice(there[..count].as_flattened());
        }
    }
}

/// Writes dense rows from masks and the values that they have ones for.
///
/// # Panics
/// If there are fewer values.
pub(crate) fn place(matrix: Matrix, masks: &[u32], values: &[u8], rows: &mut [u8]) {
    match matrix.width {
        1 => place_width::<1>(matrix, masks, values, rows),
        2 => place_width::<2>(matrix, masks, values, rows),
        4 => place_width::<4>(matrix, masks, values, rows),
        _ => place_width::<8>(matrix, masks, values, rows),
    }
}

fn place_width<const W: usize>(matrix: Matrix, masks: &[u32], values: &[u8], rows: &mut [u8]) {
    let (mut masks, mut values) = (masks.iter(), values.as_chunks::<W>().0);
    for row in rows.chunks_exact_mut(matrix.row_bytes() as usize) {
        for word in row.chunks_mut(WORD as usize * W) {
            let mut mask = *masks.next().expect("a mask for each word");
            let elements = word.as_chunks_mut::<W>().0;
            elements.fill([0; W]);
            let (here, rest) = values.split_at(mask.count_ones() as usize);
            for value in here {
                elements[mask.trailing_zeros() as usize] = *value;
                mask &= mask - 1;
            }
            values = rest;
        }
    }
}
