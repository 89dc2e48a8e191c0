//! Stacked experts: how many a projection has, and which of them is pruned least and which most.

use std::cmp::Ordering;

use physarium_checkpoint::printable;

use super::audit::{Audit, Matrix, Tensor};
use super::share::{grouped, percent};

/// One line for each projection that has stacked experts.
pub(super) fn expert_lines(audit: &Audit) -> Vec<String> {
    let line = |projection: &str| {
        let of_projection = audit.tensors.iter().filter(|tensor| tensor.role == projection);
        let stacks: Vec<&Tensor> = of_projection.filter(|tensor| tensor.experts() > 0).collect();
        let experts: u64 = stacks.iter().map(|tensor| tensor.experts()).sum();
        (experts > 0).then(|| {
            let (projection, experts) = (printable(projection), grouped(experts));
            format!("{projection}: {experts} experts; {}", extremes(&stacks))
        })
    };
    audit.projections.iter().filter_map(|projection| line(&projection.projection)).collect()
}

/// A matrix of an expert, and how many of its weights are pruned or zero.
#[derive(Clone, Copy)]
struct Expert<'a> {
    tensor: &'a Tensor,
    matrix: &'a Matrix,
    part: u64,
}

/// The least and the most pruned matrix of some stacks; by zeros if pruned weights are unknown.
fn extremes(stacks: &[&Tensor]) -> String {
    if stacks.iter().any(|tensor| tensor.matrices.is_empty()) {
        return "zeros of single experts are unknown".to_owned();
    }
    let matrices = || stacks.iter().flat_map(|tensor| tensor.matrices.iter().map(|m| (*tensor, m)));
    let pruned = matrices()
        .map(|(tensor, matrix)| matrix.pruned.map(|part| Expert { tensor, matrix, part }));
    let zero = matrices().map(|(tensor, matrix)| Expert { tensor, matrix, part: matrix.zero });
    let (experts, least, most): (Vec<Expert<'_>>, _, _) = match pruned.collect() {
        Some(experts) => (experts, "least pruned", "most pruned"),
        None => (zero.collect(), "fewest zeros", "most zeros"),
    };
    // The first of several that are equal.
    let minimum = experts.iter().copied().reduce(|a, b| if b.compare(a).is_lt() { b } else { a });
    let maximum = experts.iter().copied().reduce(|a, b| if b.compare(a).is_gt() { b } else { a });
    let shown = |expert: Option<Expert<'_>>| expert.map_or_else(String::new, Expert::shown);
    format!("{least} {}; {most} {}", shown(minimum), shown(maximum))
}

impl Expert<'_> {
    /// Compares shares of the matrices.
    fn compare(self, other: Expert<'_>) -> Ordering {
        let scaled = |part: u64, elements: u64| u128::from(part) * u128::from(elements);
        let left = scaled(self.part, other.matrix.elements);
        left.cmp(&scaled(other.part, self.matrix.elements))
    }

    /// `12.50 % of model.layers.3.mlp.experts.gate_up_proj, expert 17 (up_proj)`; the map is left out if it is
    /// the whole expert.
    fn shown(self) -> String {
        let Expert { tensor, matrix, part } = self;
        let (share, name) = (percent(part, matrix.elements, 2), printable(&tensor.name));
        let expert = matrix.expert.map_or_else(String::new, |expert| format!(", expert {expert}"));
        let whole = tensor.name.rsplit('.').next() == Some(&matrix.map);
        let map = if whole { String::new() } else { format!(" ({})", printable(&matrix.map)) };
        format!("{share} % of {name}{expert}{map}")
    }
}
