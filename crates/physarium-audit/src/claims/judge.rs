//! Claims against the numbers of an audit.

use physarium_checkpoint::printable;

use super::claim::{Claim, Claims, Countable};
use super::value::Value;
use crate::error::{Error, Lacking, Result};
use crate::notes::words::names;
use crate::report::audit::{Audit, Base, Basis, Model, Projection, Tensor};
use crate::report::judgement::{Judgement, Verdict};
use crate::report::share::{Share, grouped, rounds_to};

/// A denominator: the target, the model, the original model, or one projection.
#[derive(Clone, Copy)]
enum Whole<'a> {
    Target,
    Model,
    Original(&'a Model),
    Projection(&'a Projection),
}

impl<'a> Whole<'a> {
    /// All denominators that a sentence may mean, the likeliest first.
    fn all(audit: &'a Audit) -> impl Iterator<Item = Whole<'a>> {
        let wholes = [Whole::Target, Whole::Model].into_iter();
        let original = audit.original.as_ref().filter(|original| **original != audit.model);
        let wholes = wholes.chain(original.map(Whole::Original));
        wholes.chain(audit.projections.iter().map(Whole::Projection))
    }

    /// Its name, tensors and elements.
    fn size(self, audit: &'a Audit) -> (&'a str, u64, u64) {
        match self {
            Whole::Target => ("target", audit.target.tensors, audit.target.elements),
            Whole::Model => ("model", audit.model.tensors, audit.model.elements),
            Whole::Original(original) => ("original", original.tensors, original.elements),
            Whole::Projection(p) => (&p.projection, p.tensors, p.elements),
        }
    }

    /// Whether it includes a target.
    fn includes(self, tensor: &Tensor) -> bool {
        match self {
            Whole::Target | Whole::Model | Whole::Original(_) => true,
            Whole::Projection(projection) => tensor.role == projection.projection,
        }
    }

    /// What `count` counts in it of tensors that are not targets; `None` if that is not known.
    fn outside(self, count: Countable, audit: &Audit) -> Option<u64> {
        let (Whole::Model | Whole::Original(_)) = self else { return Some(0) };
        let outside = audit.outside.as_ref();
        match count {
            Countable::Processed | Countable::Target | Countable::Tensors => Some(0),
            Countable::Untouched => Some(audit.untouched.elements),
            Countable::Zero => outside.map(|outside| outside.zero.elements),
            // Only targets were processed, as the journal states.
            Countable::Pruned if audit.base == Base::Journal => Some(0),
            Countable::Pruned => Some(outside?.pruned.as_ref()?.elements),
            Countable::AlreadyZero => Some(outside?.already_zero.as_ref()?.elements),
        }
    }
}

impl Claims {
    /// Judges every claim.
    ///
    /// # Errors
    /// `Claims` if a claim names a denominator that the audit does not have, `Unmeasured` if the audit has
    /// no count of what the claim counts in it.
    pub fn judge(&self, audit: &Audit) -> Result<Vec<Judgement>> {
        self.claims.iter().map(|claim| self.judge_one(claim, audit)).collect()
    }

    fn judge_one(&self, claim: &Claim, audit: &Audit) -> Result<Judgement> {
        if let Some(reason) = nothing_to_judge_by(claim, audit) {
            return Ok(Judgement {
                verdict: Verdict::CannotBeJudged,
                reason: Some(reason),
                ..unjudged(claim)
            });
        }
        let share = |whole| self.share(claim, audit, whole);
        let measured = match &claim.of {
            Some(of) => vec![share(self.whole(claim, audit, of)?)?],
            None => vec![share(Whole::Target)?, share(Whole::Model)?],
        };
        let mut judgement = Judgement { measured, ..unjudged(claim) };
        match claim.value {
            Value::Count(value) => {
                // Without a denominator, the last is the model, which includes everything that is counted.
                let counted = judgement.measured[judgement.measured.len() - 1].part;
                if counted != value {
                    judgement.verdict = Verdict::Wrong;
                    judgement.should_say = Some(grouped(counted));
                }
            }
            Value::Percent { units, decimals } => {
                let is_true = |share: &Share| rounds_to(share.part, share.whole, units, decimals);
                // Of a whole with a tensor that cannot be compared, nothing is true.
                let all: Vec<Share> =
                    Whole::all(audit).filter_map(|whole| share(whole).ok()).collect();
                let truths: Vec<&Share> = all.iter().filter(|share| is_true(share)).collect();
                judgement.true_of = truths.iter().map(|share| share.of.clone()).collect();
                if claim.of.is_some() && is_true(&judgement.measured[0]) {
                    return Ok(judgement);
                }
                let (verdict, say) = match truths.as_slice() {
                    [] => (Verdict::Wrong, judgement.measured.iter().collect()),
                    truths => (Verdict::Denominator, truths.to_vec()),
                };
                let sentences: Vec<String> =
                    say.into_iter().map(|share| sentence(share, decimals.max(2))).collect();
                judgement.verdict = verdict;
                judgement.should_say = Some(sentences.join(", or "));
            }
        }
        Ok(judgement)
    }

    /// The denominator that a claim names.
    fn whole<'a>(&self, claim: &Claim, audit: &'a Audit, of: &str) -> Result<Whole<'a>> {
        let last = |p: &Projection| p.projection.rsplit('.').next() == Some(of);
        let matching: Vec<&Projection> =
            audit.projections.iter().filter(|p| p.projection == of || last(p)).collect();
        match (of, matching.as_slice(), &audit.original) {
            ("target", ..) => Ok(Whole::Target),
            ("model", ..) => Ok(Whole::Model),
            ("original", _, Some(original)) => Ok(Whole::Original(original)),
            (_, [one], _) => Ok(Whole::Projection(one)),
            (_, found, _) => {
                let names: Vec<&str> =
                    audit.projections.iter().map(|p| p.projection.as_str()).collect();
                let what = format!(
                    "claim {}: of = \"{of}\" matches {} projections, expected target, model, original (with an \
                     original) or one of {}",
                    printable(&claim.id),
                    found.len(),
                    printable(&names.join(", "))
                );
                Err(Error::Claims { path: self.path.clone(), what })
            }
        }
    }

    /// What the claim counts within `whole`, as a share of it.
    fn share(&self, claim: &Claim, audit: &Audit, whole: Whole<'_>) -> Result<Share> {
        let part = match claim.count {
            // Nobody has seen that they are as before.
            Countable::Untouched if !audit.untouched.compared => None,
            count => {
                let inside = audit.tensors.iter().filter(|tensor| whole.includes(tensor));
                let targets: Option<u64> = inside.map(|tensor| count.of_target(tensor)).sum();
                targets.zip(whole.outside(count, audit)).map(|(targets, others)| targets + others)
            }
        };
        let part = part.ok_or_else(|| Error::Unmeasured {
            path: self.path.clone(),
            id: claim.id.clone(),
            count: claim.count.to_string(),
            lacking: lacking(claim.count, audit, whole),
        })?;
        let (of, tensors, elements) = whole.size(audit);
        let by_tensor = claim.count == Countable::Tensors;
        Ok(Share::new(part, if by_tensor { tensors } else { elements }, of))
    }
}

impl Countable {
    /// What it counts in a target; `None` if that is not known.
    fn of_target(self, tensor: &Tensor) -> Option<u64> {
        match self {
            Countable::Pruned => tensor.pruned,
            Countable::Processed => tensor.processed,
            Countable::Target => Some(tensor.elements),
            Countable::AlreadyZero => tensor.already_zero,
            Countable::Zero => Some(tensor.zero),
            Countable::Tensors => Some(u64::from(tensor.processed? > 0)),
            Countable::Untouched => Some(0),
        }
    }
}

/// Why there is no count within `whole`.
fn lacking(count: Countable, audit: &Audit, whole: Whole<'_>) -> Lacking {
    let unknown = |tensor: &&Tensor| whole.includes(tensor) && count.of_target(tensor).is_none();
    let unknown: Vec<&str> =
        audit.tensors.iter().filter(unknown).map(|tensor| tensor.name.as_str()).collect();
    let uncompared = || audit.untouched.uncompared.iter().map(String::as_str).collect::<Vec<_>>();
    match audit.base {
        Base::Original if !unknown.is_empty() => Lacking::Counterparts(names(&unknown)),
        Base::Original if audit.outside.is_some() => Lacking::Counterparts(names(&uncompared())),
        _ if audit.basis == Basis::Journal && count != Countable::Untouched => Lacking::Weights,
        _ => Lacking::Original,
    }
}

/// A correct judgement without numbers.
fn unjudged(claim: &Claim) -> Judgement {
    Judgement {
        id: claim.id.clone(),
        source: claim.source.clone(),
        sentence: claim.sentence.clone(),
        verdict: Verdict::Correct,
        claimed: claim.value.written(claim.of.as_deref()),
        measured: Vec::new(),
        true_of: Vec::new(),
        should_say: None,
        reason: None,
    }
}

/// Why there is no verdict on a claim: its denominator is 0 of 0, or the original is none.
fn nothing_to_judge_by(claim: &Claim, audit: &Audit) -> Option<String> {
    if let Some(unrelated) = &audit.unrelated {
        return Some(unrelated.clone());
    }
    let formats = || {
        let formats: Vec<String> = audit.encoded.iter().map(ToString::to_string).collect();
        formats.join("; ")
    };
    if audit.target.elements == 0 {
        return Some(match audit.encoded.as_slice() {
            [] => format!(
                "nothing can be counted: none of the {} tensors is a target",
                grouped(audit.model.tensors)
            ),
            _ => format!("nothing can be counted: {}", formats()),
        });
    }
    let of = claim.of.as_deref()?;
    let is_named = |name: &str| name == of || name.rsplit('.').next() == Some(of);
    let counted = audit.projections.iter().any(|projection| is_named(&projection.projection));
    let encoded = audit.encoded.iter().flat_map(|encoded| &encoded.names);
    let is_encoded = encoded.into_iter().any(|name| is_named(name));
    (is_encoded && !counted).then(|| format!("no {of} can be counted: {}", formats()))
}

fn sentence(share: &Share, decimals: u32) -> String {
    let percent = share.with_decimals(decimals);
    let (of, part, whole) = (printable(&share.of), grouped(share.part), grouped(share.whole));
    format!("{percent} of {of} ({part} of {whole})")
}
