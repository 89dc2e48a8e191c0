//! The verdict on a model: what was pruned, of what, and whether counts and claims are true.

use physarium::audit::{Audit, Base, Basis, Verdict, grouped};
use physarium::checkpoint::visible;
use serde::Serialize;

use crate::words::counted;

/// The verdict in a sentence.
#[derive(Serialize)]
pub(super) struct Summary {
    /// Of all findings together.
    pub(super) class: &'static str,
    pub(super) headline: String,
    pub(super) basis: String,
    pub(super) findings: Vec<Finding>,
}

/// A part of the verdict: whether the counts agree, whether the claims are true.
#[derive(Serialize)]
pub(super) struct Finding {
    /// `good`, `bad` or `unknown`.
    pub(super) class: &'static str,
    pub(super) mark: &'static str,
    pub(super) says: String,
}

impl Finding {
    fn new(is_good: bool, says: String) -> Finding {
        let (class, mark) = if is_good { ("good", "✓") } else { ("bad", "✗") };
        Finding { class, mark, says }
    }
}

/// What a reader takes away.
pub(super) fn verdict(audit: &Audit) -> Summary {
    let findings = match &audit.unrelated {
        Some(unrelated) => vec![Finding::new(false, visible(unrelated).into_owned())],
        None => std::iter::once(of_checks(audit)).chain(of_claims(audit)).collect(),
    };
    let class = match findings.iter().any(|finding| finding.class == "bad") {
        true => "bad",
        false if audit.target.elements == 0 => "unknown",
        false => "good",
    };
    Summary { class, headline: headline(audit), basis: basis(audit), findings }
}

pub(super) fn headline(audit: &Audit) -> String {
    match (&audit.pruned, audit.target.elements) {
        _ if audit.unrelated.is_some() => {
            "The checkpoint was compared with one that is not its original.".to_owned()
        }
        (_, 0) => "Nothing can be counted: no tensor is a target.".to_owned(),
        (Some(pruned), _) => format!(
            "{} weights were pruned: {} = {}.{}",
            grouped(pruned.elements),
            pruned.of_target.sentence(),
            pruned.of_model.sentence(),
            pruned_outside(audit)
        ),
        (None, _) => format!(
            "{} weights are zero: {}. How many of them were pruned is not known{}.",
            grouped(audit.zero.elements),
            audit.zero.of_target.sentence(),
            match audit.base {
                Base::Original => ": some targets cannot be compared with the original",
                Base::Journal | Base::None => " without the original",
            }
        ),
    }
}

/// A sentence on weights that were pruned in tensors that are not targets; empty if there are none.
fn pruned_outside(audit: &Audit) -> String {
    let pruned = audit.outside.as_ref().and_then(|outside| outside.pruned.as_ref());
    let pruned = pruned.filter(|pruned| pruned.elements > 0);
    pruned.map_or(String::new(), |pruned| {
        let (weights, share) = (grouped(pruned.elements), pruned.of_model.sentence());
        format!(" So were {weights} in tensors that are not targets: {share}.")
    })
}

fn of_checks(audit: &Audit) -> Finding {
    let failing = audit.identities.iter().filter(|identity| !identity.holds).count();
    let all = counted(audit.identities.len(), "check");
    let says = match failing {
        0 => format!("All {all} of the counts hold."),
        n => format!("{n} of {all} of the counts are false."),
    };
    Finding::new(failing == 0, says)
}

/// `None` without claims.
fn of_claims(audit: &Audit) -> Option<Finding> {
    let with =
        |is: fn(Verdict) -> bool| audit.claims.iter().filter(|claim| is(claim.verdict)).count();
    let (all, correct) = (audit.claims.len(), with(|verdict| verdict == Verdict::Correct));
    let unjudged = with(|verdict| verdict == Verdict::CannotBeJudged);
    let is = |claims: usize| if claims == 1 { "is" } else { "are" };
    let correct_of = format!("{correct} of {} {} correct", counted(all, "claim"), is(correct));
    let says = match (correct == all, unjudged) {
        (true, _) => format!("All {} {} correct.", counted(all, "claim"), is(all)),
        (false, 0) => format!("{correct_of}."),
        (false, n) => format!("{correct_of}; {n} cannot be judged."),
    };
    let finding = match with(Verdict::is_false) {
        0 if correct < all => Finding { class: "unknown", mark: "?", says },
        wrong => Finding::new(wrong == 0, says),
    };
    (all > 0).then_some(finding)
}

fn basis(audit: &Audit) -> String {
    match (audit.basis, audit.base) {
        (Basis::Journal, _) => "From headers and journal; no weights were read.",
        (Basis::Bytes, Base::Original) => "Counted from the bytes of the checkpoint and of its original.",
        (Basis::Bytes, Base::Journal) => {
            "Counted from the bytes of the checkpoint; its journal says how many weights were zero before."
        }
        (Basis::Bytes, Base::None) => "Counted from the bytes of the checkpoint, without its original.",
    }
    .to_owned()
}
