//! The masks of a tensor, and its smallest form.

use crate::contents::Form;
use crate::groups::{Coder, Groups, SIZES};
use crate::mask_layout::MaskLayout;

/// The masks of a whole tensor.
pub(crate) struct Census {
    layout: MaskLayout,
    pub masks: Vec<u32>,
}

impl Census {
    pub(crate) fn new(layout: MaskLayout, masks: Vec<u32>) -> Census {
        Census { layout, masks }
    }

    fn values(&self) -> u64 {
        self.masks.iter().map(|mask| u64::from(mask.count_ones())).sum()
    }

    /// The form of the fewest bytes, and how many these are; among equals the first of dense, mask, groups.
    pub(crate) fn smallest(&self) -> (u64, Form) {
        let values = self.values();
        let mut best = (self.layout.size_bytes(), Form::Dense);
        let mask = self.layout.mask_bytes() + values * self.layout.width;
        if mask < best.0 {
            best = (mask, Form::Mask { values });
        }
        for groups in SIZES.into_iter().filter_map(|of| self.groups(of)) {
            let values = self.layout.rows
                * (self.layout.cols / u64::from(groups.of))
                * u64::from(groups.keep);
            let codes = self.layout.rows * groups.row_bytes(self.layout.cols);
            let bytes = codes + values * self.layout.width;
            if bytes < best.0 {
                best = (bytes, Form::Groups { keep: groups.keep, of: groups.of });
            }
        }
        best
    }

    /// The pattern of this group size that keeps the fewest, if rows consist of whole groups.
    fn groups(&self, of: u32) -> Option<Groups> {
        if !self.layout.cols.is_multiple_of(u64::from(of)) {
            return None;
        }
        let ones = (1u32 << of) - 1;
        let fullest = |word: &u32| {
            (0..32).step_by(of as usize).map(|at| (word >> at & ones).count_ones()).max()
        };
        let keep = self.masks.iter().filter_map(fullest).max().unwrap_or(0).max(1);
        let groups = Groups { keep, of };
        groups.has_codes().then_some(groups)
    }

    /// Adds ones to each group until it has as many as the pattern keeps.
    pub(crate) fn fill(&mut self, coder: &Coder) {
        let words = self.layout.words() as usize;
        let rest = self.layout.cols % 32;
        for row in self.masks.chunks_exact_mut(words) {
            for word in &mut *row {
                *word = coder.fill(*word);
            }
            // No ones after the end of a row.
            if let (Some(last), true) = (row.last_mut(), rest > 0) {
                *last &= (1 << rest) - 1;
            }
        }
    }
}
