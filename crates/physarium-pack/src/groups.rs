//! N:M patterns: the positions of N values among M, as the rank of the combination.

/// Supported group sizes, all of which divide a word of a mask.
pub(crate) const SIZES: [u32; 3] = [4, 8, 16];

/// A pattern of N values in each group of M consecutive elements of a row.
///
/// The code of a group is the rank of its mask among all masks of M bits with N ones, ordered as numbers. It takes
/// ⌈log₂ (M choose N)⌉ bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Groups {
    /// Values in each group (N).
    pub keep: u32,
    /// Elements of a group (M).
    pub of: u32,
}

impl Groups {
    /// Whether the format has codes for this pattern.
    pub(crate) fn has_codes(self) -> bool {
        SIZES.contains(&self.of) && (1..self.of).contains(&self.keep)
    }

    /// The masks of all codes, in the order of the codes.
    pub(crate) fn masks(self) -> Vec<u16> {
        (0..1u32 << self.of)
            .filter(|mask| mask.count_ones() == self.keep)
            .map(|mask| mask as u16)
            .collect()
    }

    /// Bits of a code.
    pub(crate) fn code_bits(self) -> u32 {
        let combinations =
            (0..u64::from(self.keep)).fold(1, |c, i| c * (u64::from(self.of) - i) / (i + 1));
        (combinations - 1).max(1).ilog2() + 1
    }

    /// Bytes of the codes of a row; each row begins at a byte boundary.
    pub(crate) fn row_bytes(self, cols: u64) -> u64 {
        (cols / u64::from(self.of) * u64::from(self.code_bits())).div_ceil(8)
    }
}

/// Encoder of masks as codes, and decoder.
pub(crate) struct Coder {
    groups: Groups,
    masks: Vec<u16>,
    /// The code of each mask of M bits; zero for masks without a code.
    codes: Vec<u16>,
}

impl Coder {
    pub(crate) fn new(groups: Groups) -> Coder {
        let masks = groups.masks();
        let mut codes = vec![0; 1 << groups.of];
        for (code, mask) in masks.iter().enumerate() {
            codes[usize::from(*mask)] = code as u16;
        }
        Coder { groups, masks, codes }
    }

    /// Adds ones to each group of a word, at the lowest positions first, until it has N.
    ///
    /// # Panics
    /// If a group has more than N.
    pub(crate) fn fill(&self, word: u32) -> u32 {
        let Groups { keep, of } = self.groups;
        let mut filled = 0;
        for begin in (0..32).step_by(of as usize) {
            let mut group = word >> begin & group_mask(of);
            assert!(group.count_ones() <= keep, "a group of more than {keep}");
            while group.count_ones() < keep {
                group |= 1 << (!group).trailing_zeros();
            }
            filled |= group << begin;
        }
        filled
    }

    /// Appends the codes of the `groups` groups of a row.
    pub(crate) fn encode(&self, words: &[u32], groups: usize, codes: &mut Vec<u8>) {
        let of = self.groups.of;
        let per_word = (32 / of) as usize;
        let (mut held, mut bits) = (0u64, 0);
        for group in 0..groups {
            let begin = (group % per_word) as u32 * of;
            let mask = words[group / per_word] >> begin & group_mask(of);
            held |= u64::from(self.codes[mask as usize]) << bits;
            bits += self.groups.code_bits();
            while bits >= 8 {
                codes.push(held as u8);
                held >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            codes.push(held as u8);
        }
    }

    /// Decodes the masks of the `groups` groups of a row into `words`; `None` if a code has no mask, or if there are
    /// too few bytes or ones after the last code.
    pub(crate) fn decode(&self, codes: &[u8], groups: usize, words: &mut [u32]) -> Option<()> {
        let of = self.groups.of;
        let (per_word, code_bits) = ((32 / of) as usize, self.groups.code_bits());
        let (mut held, mut bits) = (0u64, 0);
        let mut bytes = codes.iter();
        words.fill(0);
        for group in 0..groups {
            while bits < code_bits {
                held |= u64::from(*bytes.next()?) << bits;
                bits += 8;
            }
            let code = held & ((1 << code_bits) - 1);
            held >>= code_bits;
            bits -= code_bits;
            let mask = u32::from(*self.masks.get(code as usize)?);
            words[group / per_word] |= mask << ((group % per_word) as u32 * of);
        }
        (held == 0 && bytes.next().is_none()).then_some(())
    }
}

/// The ones of a whole group.
fn group_mask(of: u32) -> u32 {
    (1 << of) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_as_short_as_possible_and_decode_to_their_masks() {
        for of in SIZES {
            for keep in 1..of {
                let groups = Groups { keep, of };
                let (coder, masks) = (Coder::new(groups), groups.masks());
                assert!(masks.len() <= 1 << groups.code_bits());
                assert!(masks.len() == 2 || masks.len() > 1 << (groups.code_bits() - 1));
                let words: Vec<u32> = masks.iter().map(|mask| u32::from(*mask)).collect();
                for word in words.iter().step_by(7) {
                    let mut row = vec![coder.fill(*word)];
                    let mut codes = Vec::new();
                    let count = (32 / of) as usize;
                    coder.encode(&row, count, &mut codes);
                    assert_eq!(codes.len() as u64, groups.row_bytes(32));
                    let before = row.clone();
                    coder.decode(&codes, count, &mut row).expect("its own codes");
                    assert_eq!(row, before);
                }
            }
        }
        assert_eq!(Groups { keep: 2, of: 4 }.code_bits(), 3);
        assert_eq!(Groups { keep: 4, of: 8 }.code_bits(), 7);
    }

    #[test]
    fn codes_without_a_mask_are_refused() {
        let coder = Coder::new(Groups { keep: 2, of: 4 });
        let mut words = [0];
        assert_eq!(coder.decode(&[0b101], 1, &mut words), Some(()));
        assert_eq!(words, [0b1100]);
        assert_eq!(coder.decode(&[0b110], 1, &mut words), None);
        assert_eq!(coder.decode(&[0b1101], 1, &mut words), None);
        assert_eq!(coder.decode(&[], 1, &mut words), None);
        assert_eq!(coder.decode(&[0, 0], 1, &mut words), None);
    }
}
