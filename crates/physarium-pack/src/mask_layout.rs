//! Masks of rows of elements: computed, and applied to select values or to place them.

use physarium_checkpoint::Dtype;

/// Elements per word of a mask.
pub(crate) const WORD: u64 = 32;
/// Bytes of dense rows that are processed at once, unless a single row is longer.
const BAND_BYTES: u64 = 1 << 20;
/// Longest row that is packed, in bytes: a whole row must be in memory.
const MAX_ROW_BYTES: u64 = 64 << 20;
/// Largest tensor that is packed, in bytes, so that the sizes of its parts cannot overflow.
const MAX_BYTES: u64 = 1 << 56;

/// A tensor `[…, cols]` as rows of `cols` elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaskLayout {
    pub rows: u64,
    pub cols: u64,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub width: u64,
}

impl MaskLayout {
    /// The layout of a tensor; `None` if it can only be stored dense.
    pub(crate) fn of(dtype: Dtype, shape: &[u64]) -> Option<MaskLayout> {
        let [leading @ .., cols] = shape else { return None };
        let width = dtype.bits() / 8;
        let rows = leading.iter().try_fold(1u64, |rows, dim| rows.checked_mul(*dim))?;
        let fits = !leading.is_empty()
            && matches!((dtype.bits() % 8, width), (0, 1 | 2 | 4 | 8))
            && (1..=MAX_BYTES).contains(&rows.checked_mul(*cols)?.checked_mul(width)?)
            && *cols <= MAX_ROW_BYTES / width;
        fits.then_some(MaskLayout { rows, cols: *cols, width })
    }

    pub(crate) fn row_bytes(self) -> u64 {
        self.cols * self.width
    }

    pub(crate) fn size_bytes(self) -> u64 {
        self.rows * self.row_bytes()
    }

    /// Words of the mask of a row.
    pub(crate) fn words(self) -> u64 {
        self.cols.div_ceil(WORD)
    }

    /// Bytes of all masks.
    pub(crate) fn mask_bytes(self) -> u64 {
        self.rows * self.words() * (WORD / 8)
    }

    /// Rows that are processed at once.
    pub(crate) fn band_rows(self) -> u64 {
        (BAND_BYTES / self.row_bytes()).max(1)
    }
}

/// Appends the masks of dense rows: a one for each element that is not all zero bits.
pub(crate) fn masks_of(layout: MaskLayout, rows: &[u8], masks: &mut Vec<u32>) {
    match layout.width {
        1 => masks_of_width::<1>(layout, rows, masks),
        2 => masks_of_width::<2>(layout, rows, masks),
        4 => masks_of_width::<4>(layout, rows, masks),
        _ => masks_of_width::<8>(layout, rows, masks),
    }
}

fn masks_of_width<const W: usize>(layout: MaskLayout, rows: &[u8], masks: &mut Vec<u32>) {
    for row in rows.chunks_exact(layout.row_bytes() as usize) {
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

/// Number of elements that are −0.0: the sign bit alone. Zero for types without such a number.
pub(crate) fn count_negative_zeros(dtype: Dtype, rows: &[u8]) -> u64 {
    match dtype {
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => count_sign_bits::<1>(rows),
        Dtype::F16 | Dtype::BF16 => count_sign_bits::<2>(rows),
        Dtype::F32 => count_sign_bits::<4>(rows),
        Dtype::F64 => count_sign_bits::<8>(rows),
        _ => 0,
    }
}

fn count_sign_bits<const W: usize>(rows: &[u8]) -> u64 {
    let mut sign = [0; W];
    sign[W - 1] = 0x80;
    rows.as_chunks::<W>().0.iter().filter(|element| **element == sign).count() as u64
}

/// Appends the elements whose bits in the masks are ones.
pub(crate) fn select(layout: MaskLayout, masks: &[u32], rows: &[u8], values: &mut Vec<u8>) {
    match layout.width {
        1 => select_width::<1>(layout, masks, rows, values),
        2 => select_width::<2>(layout, masks, rows, values),
        4 => select_width::<4>(layout, masks, rows, values),
        _ => select_width::<8>(layout, masks, rows, values),
    }
}

fn select_width<const W: usize>(
    layout: MaskLayout,
    masks: &[u32],
    rows: &[u8],
    values: &mut Vec<u8>,
) {
    let mut masks = masks.iter();
    for row in rows.chunks_exact(layout.row_bytes() as usize) {
        for word in row.chunks(WORD as usize * W) {
            let mask = *masks.next().expect("a mask for each word");
            let mut selected = [[0; W]; WORD as usize];
            let mut count = 0;
            // Without a branch: each element is written, and overwritten by the next if its bit is zero.
            for (at, element) in word.as_chunks::<W>().0.iter().enumerate() {
                selected[count] = *element;
                count += (mask >> at & 1) as usize;
                count &= WORD as usize - 1;
            }
            let count = mask.count_ones() as usize;
            values.extend_from_slice(selected[..count].as_flattened());
        }
    }
}

/// Writes dense rows from masks and the values of their ones.
///
/// # Panics
/// If there are fewer values than ones.
pub(crate) fn place(layout: MaskLayout, masks: &[u32], values: &[u8], rows: &mut [u8]) {
    match layout.width {
        1 => place_width::<1>(layout, masks, values, rows),
        2 => place_width::<2>(layout, masks, values, rows),
        4 => place_width::<4>(layout, masks, values, rows),
        _ => place_width::<8>(layout, masks, values, rows),
    }
}

fn place_width<const W: usize>(layout: MaskLayout, masks: &[u32], values: &[u8], rows: &mut [u8]) {
    let (mut masks, mut values) = (masks.iter(), values.as_chunks::<W>().0);
    for row in rows.chunks_exact_mut(layout.row_bytes() as usize) {
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
