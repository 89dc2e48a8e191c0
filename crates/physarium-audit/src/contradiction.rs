//! Whether the numbers of an audit agree with one another. An audit that was read from a file may have been changed.

use std::collections::{HashMap, HashSet};

use physarium_checkpoint::printable;

use crate::count::coverage::projections;
use crate::report::audit::{
    Audit, Base, Basis, Changed, Matrix, OfModel, Outside, Projection, SCHEMA, Skipped, Tensor,
};
use crate::report::share::Share;
use crate::tiles::TileMap;

impl Audit {
    /// What in an audit cannot be as [`audit`](crate::audit()) would have counted it: sums that are not the sums of their
    /// parts, shares of other numbers, checks that do not say what their sides say. `None` if there is nothing. A journal
    /// may state more than there is, so only what was counted in bytes is compared with the number of elements.
    ///
    /// Numbers that were changed consistently are not found: only an audit of the bytes finds them.
    pub fn contradiction(&self) -> Option<String> {
        if self.schema != SCHEMA {
            return Some(format!("expected schema {SCHEMA}, found {}", self.schema));
        }
        // What is added up later was found here to have a sum.
        self.sums()
            .or_else(|| self.parts())
            .or_else(|| self.others())
            .or_else(|| self.by_projection())
            .or_else(|| self.shares())
            .or_else(|| self.checks())
    }

    /// Totals that are not the sums over the targets.
    fn sums(&self) -> Option<String> {
        let sum = |field: fn(&Tensor) -> Option<u64>| checked_sum(self.tensors.iter().map(field));
        let elements = |count: &Option<Changed>| count.as_ref().map(|count| count.elements);
        let processed = self.processed.as_ref();
        let totals = [
            ("target elements", Some(self.target.elements), sum(|t| Some(t.elements))),
            ("target tensors", Some(self.target.tensors), sum(|_| Some(1))),
            ("zeros", Some(self.zero.elements), sum(|t| Some(t.zero))),
            ("pruned weights", self.pruned.as_ref().map(|p| p.elements), sum(|t| t.pruned)),
            ("processed weights", processed.map(|p| p.elements), sum(|t| t.processed)),
            (
                "processed tensors",
                processed.map(|p| p.tensors),
                sum(|t| Some(u64::from(t.processed? > 0))),
            ),
            ("weights that were zero", elements(&self.already_zero), sum(|t| t.already_zero)),
            (
                "weights that were zero before",
                elements(&self.zero_before),
                sum(|t| t.already_zero?.checked_add(t.no_longer_zero.unwrap_or(0))),
            ),
            (
                "weights that are no longer zero",
                elements(&self.no_longer_zero),
                sum(|t| t.no_longer_zero),
            ),
            ("zeros with a sign bit", elements(&self.sign_bit_zero), sum(|t| t.sign_bit_zero)),
            ("changed weights", elements(&self.changed), sum(|t| t.changed)),
        ];
        first_unequal(totals, "by tensor")
    }

    /// Parts of a target that are more than it has.
    fn parts(&self) -> Option<String> {
        let mut all = self.tensors.iter();
        let of_tensors = all.find_map(|tensor| {
            let what = tensor.contradiction(self)?;
            Some(format!("{}: {what}", printable(&tensor.name)))
        });
        let of_conversion = || {
            let converted = self.pruned_by_conversion.as_ref()?.elements;
            let pruned = self.pruned.as_ref().map_or(self.zero.elements, |p| p.elements);
            (converted > pruned)
                .then(|| format!("{converted} weights pruned by conversion, of {pruned} pruned"))
        };
        of_tensors.or_else(of_conversion)
    }

    /// Model and untouched tensors that are not what is listed.
    fn others(&self) -> Option<String> {
        let (model, target, untouched) = (&self.model, &self.target, &self.untouched);
        let sum = |skipped: &mut dyn Iterator<Item = &Skipped>| {
            checked_sum(skipped.map(|tensor| Some(tensor.elements)))
        };
        let skipped = self.skipped.len() as u64;
        let skipped_elements = sum(&mut self.skipped.iter());
        let not_as_before = || untouched.differing.iter().chain(&untouched.uncompared);
        let names: HashSet<&str> = not_as_before().map(String::as_str).collect();
        let as_before = |tensor: &&Skipped| !names.contains(tensor.name.as_str());
        let as_before = sum(&mut self.skipped.iter().filter(as_before));
        let tensors = skipped.checked_sub(not_as_before().count() as u64);
        let model_elements = skipped_elements.and_then(|n| n.checked_add(target.elements));
        let model_tensors = skipped.checked_add(target.tensors);
        let totals = [
            ("model elements", Some(model.elements), model_elements),
            ("model tensors", Some(model.tensors), model_tensors),
            ("untouched elements", Some(untouched.elements), as_before),
            ("untouched tensors", Some(untouched.tensors), tensors),
        ];
        first_unequal(totals, "as listed")
            .or_else(|| self.outside.as_ref()?.too_much(skipped_elements))
    }

    /// Projections that are not the sums over their targets.
    fn by_projection(&self) -> Option<String> {
        let counted = projections(&self.tensors);
        let stated: HashMap<&str, &Projection> =
            self.projections.iter().map(|p| (p.projection.as_str(), p)).collect();
        let (listed, expected) = (self.projections.len(), counted.len());
        if listed != expected {
            return Some(format!("{listed} projections, {expected} by tensor"));
        }
        counted.iter().find_map(|counted| {
            let name = printable(&counted.projection);
            match stated.get(counted.projection.as_str()) {
                None => Some(format!("no projection {name}, which tensors have")),
                Some(stated) => Some(format!("{name}: {}", stated.unlike(counted)?)),
            }
        })
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
        if let Some(Outside { zero, pruned, already_zero }) = &self.outside {
            let counts = std::iter::once(zero).chain(pruned).chain(already_zero);
            shares.extend(counts.map(|count| (&count.of_model, count.elements, model, "model")));
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
        shares.into_iter().find_map(|(share, part, whole, of)| share.unlike(part, whole, of))
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

impl Share {
    /// How this is no share of `part` in `whole`.
    fn unlike(&self, part: u64, whole: u64, of: &str) -> Option<String> {
        let right = Share::new(part, whole, of);
        let numbers = |share: &Share| {
            format!("{} in {} of {}", share.part, share.whole, printable(&share.of))
        };
        let quotient =
            |share: &Share| share.share.map_or("no number".to_owned(), |share| share.to_string());
        if *self == right {
            None
        } else if numbers(self) != numbers(&right) {
            Some(format!("a share of {}, not {}", numbers(self), numbers(&right)))
        } else {
            let [stated, right] = [quotient(self), quotient(&right)];
            Some(format!("a share of {} as {stated}, not {right}", numbers(self)))
        }
    }
}

impl Outside {
    /// A part that is more than its whole; `elements` are those of the tensors that are not targets.
    fn too_much(&self, elements: Option<u64>) -> Option<String> {
        let (zero, count) = (self.zero.elements, |count: &OfModel| count.elements);
        let [pruned, before] =
            [&self.pruned, &self.already_zero].map(|n| n.as_ref().map_or(0, count));
        if elements.is_some_and(|elements| zero > elements) {
            return Some(format!(
                "{zero} zeros in tensors that are not targets, which have fewer elements"
            ));
        }
        (pruned.checked_add(before).is_none_or(|sum| sum > zero)).then(|| {
            format!("{pruned} pruned and {before} that were zero before, of {zero} zeros in tensors that are not targets")
        })
    }
}

/// Sparsities are means: another version may have added them up in another order.
const ROUNDING: f64 = 1e-9;

impl Projection {
    /// How this is not what was counted.
    fn unlike(&self, counted: &Projection) -> Option<String> {
        let counts = [
            ("tensors", Some(self.tensors), Some(counted.tensors)),
            ("elements", Some(self.elements), Some(counted.elements)),
            ("pruned weights", self.pruned, counted.pruned),
        ];
        let sparsities = [
            ("sparsity_min", self.sparsity_min, counted.sparsity_min),
            ("sparsity_mean", self.sparsity_mean, counted.sparsity_mean),
            ("sparsity_max", self.sparsity_max, counted.sparsity_max),
        ];
        let sparsity = || {
            let wrong =
                |(_, stated, counted): &(&str, f64, f64)| (stated - counted).abs() > ROUNDING;
            let (what, stated, counted) = sparsities.into_iter().find(wrong)?;
            Some(format!("{what}: {stated}, {counted} by tensor"))
        };
        let share = || match (&self.of_projection, counted.pruned) {
            (Some(share), Some(pruned)) => share.unlike(pruned, self.elements, &self.projection),
            (Some(_), None) => Some("a share of pruned weights, which are unknown".to_owned()),
            (None, Some(_)) => Some("no share of pruned weights, which are known".to_owned()),
            (None, None) => None,
        };
        let unknown = || match (self.pruned, counted.pruned) {
            (None, Some(counted)) => {
                Some(format!("pruned weights: no number in all, {counted} by tensor"))
            }
            _ => None,
        };
        first_unequal(counts, "by tensor").or_else(unknown).or_else(share).or_else(sparsity)
    }
}

impl Tensor {
    fn contradiction(&self, audit: &Audit) -> Option<String> {
        let product = self.shape.iter().try_fold(1u64, |product, n| product.checked_mul(*n));
        if product != Some(self.elements) {
            return Some(format!("{} elements in the shape {:?}", self.elements, self.shape));
        }
        self.too_much(audit)
            .or_else(|| self.unlike_matrices(audit.basis))
            .or_else(|| self.unlike_tiles())
    }

    /// A part that is more than its whole.
    fn too_much(&self, audit: &Audit) -> Option<String> {
        let counted = audit.basis == Basis::Bytes;
        let compared = counted && audit.base == Base::Original;
        let by_bytes = audit.processed.as_ref().is_some_and(|p| p.basis == Basis::Bytes);
        let zero = ("zeros", self.zero);
        let elements = ("elements", self.elements);
        let not_zero = ("weights that are not zero", self.elements.saturating_sub(self.zero));
        let parts = [
            (true, "pruned", self.pruned, zero),
            (counted, "zeros", Some(self.zero), elements),
            (counted, "zeros with a sign bit", self.sign_bit_zero, zero),
            (counted, "changed", self.changed, not_zero),
            (counted, "no longer zero", self.no_longer_zero, not_zero),
            (compared, "zero before and now", self.already_zero, zero),
            (by_bytes, "processed", self.processed, elements),
        ];
        parts.into_iter().filter(|(applies, ..)| *applies).find_map(
            |(_, what, part, (of, whole))| {
                let part = part.filter(|part| *part > whole)?;
                Some(format!("{part} {what} among {whole} {of}"))
            },
        )
    }

    /// Matrices that do not add up to the tensor.
    fn unlike_matrices(&self, basis: Basis) -> Option<String> {
        let sum = |field: fn(&Matrix) -> u64| {
            checked_sum(self.matrices.iter().map(|matrix| Some(field(matrix))))
        };
        let zero = Some(self.zero).filter(|_| basis == Basis::Bytes);
        let totals = [
            ("elements", Some(self.elements), sum(|matrix| matrix.elements)),
            ("zeros", zero, sum(|matrix| matrix.zero)),
        ];
        first_unequal(totals, "by matrix").filter(|_| !self.matrices.is_empty())
    }

    fn unlike_tiles(&self) -> Option<String> {
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

/// The sum; `None` if a count is unknown, or the sum exceeds 64 bits.
fn checked_sum(mut counts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    counts.try_fold(0u64, |sum, count| sum.checked_add(count?))
}

/// The first total that is not the sum of its parts: what it counts, the total if it is stated, and the sum.
fn first_unequal<'a>(
    totals: impl IntoIterator<Item = (&'a str, Option<u64>, Option<u64>)>,
    by: &str,
) -> Option<String> {
    let mut wrong = totals.into_iter().filter(|(_, total, sum)| total.is_some() && total != sum);
    let (what, total, sum) = wrong.next()?;
    let [total, sum] = [total, sum].map(|n| n.map_or("no number".to_owned(), |n| n.to_string()));
    Some(format!("{what}: {total} in all, {sum} {by}"))
}
