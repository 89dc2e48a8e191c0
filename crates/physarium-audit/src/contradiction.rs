//! Whether the numbers of an audit agree with one another. An audit that was read from a file may have been changed.

use crate::report::audit::{Audit, Changed, SCHEMA, Tensor};
use crate::report::share::Share;
use crate::tiles::TileMap;

impl Audit {
    /// What in an audit cannot be as [`audit`](crate::audit()) would have counted it: sums that are not the sums of their
    /// parts, shares of other numbers, checks that do not say what their sides say. `None` if there is nothing.
    ///
    /// Numbers that were changed consistently are not found: only an audit of the bytes finds them.
    pub fn contradiction(&self) -> Option<String> {
        if self.schema != SCHEMA {
            return Some(format!("expected schema {SCHEMA}, found {}", self.schema));
        }
        self.sums().or_else(|| self.shares()).or_else(|| self.checks()).or_else(|| {
            self.tensors.iter().find_map(|tensor| {
                let what = tensor.contradiction()?;
                Some(format!("{}: {what}", physarium_checkpoint::printable(&tensor.name)))
            })
        })
    }

    fn sums(&self) -> Option<String> {
        let sum = |field: fn(&Tensor) -> Option<u64>| {
            let mut counts = self.tensors.iter().map(field);
            counts.try_fold(0u64, |sum, count| count.and_then(|count| sum.checked_add(count)))
        };
        let elements = |count: &Option<Changed>| count.as_ref().map(|count| count.elements);
        let totals = [
            ("target elements", Some(self.target.elements), sum(|t| Some(t.elements))),
            ("zeros", Some(self.zero.elements), sum(|t| Some(t.zero))),
            ("pruned weights", self.pruned.as_ref().map(|p| p.elements), sum(|t| t.pruned)),
            (
                "processed weights",
                self.processed.as_ref().map(|p| p.elements),
                sum(|t| t.processed),
            ),
            ("weights that were zero", elements(&self.already_zero), sum(|t| t.already_zero)),
            ("changed weights", elements(&self.changed), sum(|t| t.changed)),
        ];
        let wrong = totals
            .into_iter()
            .find(|(_, total, sum)| total.is_some_and(|total| *sum != Some(total)));
        if let Some((what, total, sum)) = wrong {
            let [total, sum] =
                [total, sum].map(|n| n.map_or("no number".to_owned(), |n| n.to_string()));
            return Some(format!("{what}: {total} in all, {sum} by tensor"));
        }
        let listed = self.tensors.len() as u64;
        (self.target.tensors != listed)
            .then(|| format!("target: {} tensors, {listed} are listed", self.target.tensors))
    }

    fn shares(&self) -> Option<String> {
        let (model, target) = (self.model.elements, self.target.elements);
        let mut shares = vec![
            (&self.target.of_model, target, model, "model"),
            (&self.zero.of_target, self.zero.elements, target, "target"),
            (&self.untouched.of_model, self.untouched.elements, model, "model"),
        ];
        if let Some(count) = &self.pruned {
            shares.push((&count.of_target, count.elements, target, "target"));
            shares.push((&count.of_model, count.elements, model, "model"));
        }
        if let Some(count) = &self.processed {
            shares.push((&count.of_target, count.elements, target, "target"));
            shares.push((&count.of_model, count.elements, model, "model"));
        }
        let others = [
            &self.pruned_by_conversion,
            &self.already_zero,
            &self.zero_before,
            &self.no_longer_zero,
            &self.sign_bit_zero,
            &self.changed,
        ];
        let others = others.into_iter().flatten();
        shares.extend(others.map(|count| (&count.of_target, count.elements, target, "target")));
        let wrong = shares.into_iter().find(|(share, part, whole, of)| {
            **share != Share::new(*part, *whole, *of) || part > whole
        });
        wrong.map(|(share, part, whole, of)| {
            format!(
                "a share of {} in {} of {}, not {part} in {whole} of {of}",
                share.part, share.whole, share.of
            )
        })
    }

    fn checks(&self) -> Option<String> {
        let wrong = self.identities.iter().find(|check| check.holds != (check.left == check.right));
        if let Some(check) = wrong {
            return Some(format!(
                "a check of {} and {}, holds: {}",
                check.left, check.right, check.holds
            ));
        }
        let all_hold = self.identities.iter().all(|check| check.holds);
        (self.denominator_correct != all_hold).then(|| {
            format!(
                "denominator_correct: {}, all checks hold: {all_hold}",
                self.denominator_correct
            )
        })
    }
}

impl Tensor {
    fn contradiction(&self) -> Option<String> {
        let product = self.shape.iter().try_fold(1u64, |product, n| product.checked_mul(*n));
        if product != Some(self.elements) {
            return Some(format!("{} elements in the shape {:?}", self.elements, self.shape));
        }
        if self.zero > self.elements || self.pruned.is_some_and(|pruned| pruned > self.zero) {
            return Some(format!("{} zeros among {} elements", self.zero, self.elements));
        }
        if self.tile_map.as_ref().is_some_and(|map| !map.adds_up_to(self.zero)) {
            return Some(format!("tiles that do not have {} zeros", self.zero));
        }
        let maps = self
            .matrices
            .iter()
            .filter_map(|matrix| Some((matrix.tile_map.as_ref()?, matrix.zero)));
        let mut wrong = maps.filter(|(map, zero)| !map.adds_up_to(*zero));
        wrong.next().map(|(_, zero)| format!("a matrix whose tiles do not have {zero} zeros"))
    }
}

impl TileMap {
    fn adds_up_to(&self, zeros: u64) -> bool {
        self.tiles().is_some_and(|tiles| tiles.iter().map(|[zeros, _]| zeros).sum::<u64>() == zeros)
    }
}
