//! Where the elements of a model went: the parts of the picture at the top of the page.

use physarium::audit::{Audit, Share, Tensor, grouped};

use super::verdict::headline;
use crate::chart::{Flow, Part};
use crate::words::with_share;

/// Model, target, processed, and what the processed weights are now.
pub(super) fn elements(audit: &Audit) -> Flow {
    let (model, target) = (audit.model.elements, audit.target.elements);
    let of_model = |elements| Share::new(elements, model, "model");
    let of_target = |elements| Share::new(elements, target, "target");
    let idle: u64 =
        audit.tensors.iter().filter(|tensor| tensor.processed == Some(0)).map(|t| t.elements).sum();
    let mut targets = part("target", "target", of_model(target));
    let parts = what_became(audit, &of_target);
    match audit.processed.is_some() {
        true => {
            let mut processed = part("processed", "processed", of_target(target - idle));
            processed.parts = parts;
            targets.parts = vec![processed];
            if idle > 0 {
                targets.parts.push(part("idle", "not processed", of_target(idle)));
            }
        }
        false => targets.parts = parts,
    }
    let untouched = audit.untouched.elements;
    let name = if audit.untouched.compared { "untouched" } else { "not targets" };
    let [differing, uncompared] = audit.not_untouched();
    let mut parts = vec![
        targets,
        part("idle", name, of_model(untouched)),
        part("other", "not targets, changed", of_model(differing.elements)),
        part("other", "not targets, not comparable", of_model(uncompared.elements)),
    ];
    parts.retain(|part| part.elements > 0);
    let says = format!("{} elements", grouped(model));
    let whole = Part { class: "model", name: "model".to_owned(), elements: model, says, parts };
    let label = format!("Where the elements of the model went. {}", headline(audit));
    Flow { label, model: whole }
}

/// The parts of the processed targets by what their weights are now. A journal may state more zeros than a target has
/// weights; the picture has no more parts than the target.
fn what_became(audit: &Audit, of_target: &dyn Fn(u64) -> Share) -> Vec<Part> {
    let is_shown = |tensor: &&Tensor| audit.processed.is_none() || tensor.processed != Some(0);
    let (mut elements, mut zero, mut already, mut changed) = (0, 0, Some(0), 0);
    for tensor in audit.tensors.iter().filter(is_shown) {
        elements += tensor.elements;
        changed += tensor.changed.unwrap_or(0);
        let zeros = tensor.zero.min(tensor.elements);
        zero += zeros;
        already = already.zip(tensor.already_zero).map(|(sum, more)| sum + more.min(zeros));
    }
    let already = already.filter(|_| audit.pruned.is_some());
    let kept = elements - zero;
    // If some targets cannot be compared, nobody knows which of the others are as before.
    let changed = audit.changed.as_ref().map_or(0, |_| changed.min(kept));
    let of_kept = match changed {
        0 if already.is_none() => vec![("kept", "not zero", kept)],
        0 => vec![("kept", "kept (not zero)", kept)],
        _ => vec![("kept", "kept as before", kept - changed), ("changed", "changed", changed)],
    };
    let zeros = match already {
        Some(already) => ("pruned", "pruned", zero - already),
        None => ("pruned", "zero", zero),
    };
    let before = ("already", "zero before", already.unwrap_or(0));
    let kinds = std::iter::once(zeros).chain(of_kept).chain([before]);
    let kinds = kinds.filter(|(_, _, elements)| *elements > 0);
    kinds.map(|(class, name, elements)| part(class, name, of_target(elements))).collect()
}

/// A part without parts of its own.
fn part(class: &'static str, name: &str, share: Share) -> Part {
    Part {
        class,
        name: name.to_owned(),
        elements: share.part,
        says: with_share(&share),
        parts: Vec::new(),
    }
}
