//! Sums and means over the inputs of a stage's maps.

use physarium_flow::activation::Inputs;
use physarium_model::{Compute, Gram, Shown, add_cross};

/// Sums that one task merges.
const MERGED: usize = 1 << 16;

/// Sums over the inputs of a stage's maps, of a group of windows.
#[derive(Default)]
pub(crate) struct GroupSums {
    pub tokens: usize,
    /// XᵀX `[inputs, inputs]` of the pruned stream; absent before the first window.
    pub gram: Option<Gram>,
    pub dense: DenseMeans,
}

/// What the dense model says about the outputs that the maps are to have: sums over tokens, then means.
#[derive(Default)]
pub(crate) enum DenseMeans {
    /// Nothing: the method does not use the dense stream.
    #[default]
    Unused,
    /// X_denseᵀX `[inputs, inputs]`.
    Inputs(Vec<f32>),
    /// Y_denseᵀX `[outputs, inputs]`, of a stage with one map: fewer operations where there are fewer outputs than
    /// inputs.
    Outputs(Vec<f32>),
}

/// Sums over the inputs of a stage's maps, of the groups of windows so far. They are added in the order of the groups.
#[derive(Default)]
pub(crate) struct StageSums(Option<GroupSums>);

/// Means over the tokens at a stage.
pub(crate) struct Statistics {
    /// Number of inputs.
    width: usize,
    /// XᵀX ÷ tokens `[inputs, inputs]`; empty if there are no sums.
    pub gram: Vec<f32>,
    pub dense: DenseMeans,
}

impl GroupSums {
    /// Adds the inputs of some windows to maps of `width` inputs.
    pub fn add(&mut self, compute: &Compute, width: usize, shown: Shown<'_>) {
        let Shown { pruned, dense, .. } = shown;
        let tokens = pruned.len() / width;
        self.tokens += tokens;
        self.gram.get_or_insert_with(|| Gram::new(width)).add(compute, pruned);
        let Some(dense) = dense else { return };
        if let DenseMeans::Unused = self.dense {
            let rows = dense.outputs.unwrap_or(dense.inputs).len() / tokens.max(1);
            let sums = vec![0.0; rows * width];
            self.dense = match dense.outputs {
                Some(_) => DenseMeans::Outputs(sums),
                None => DenseMeans::Inputs(sums),
            };
        }
        let (rows, sums) = match (&mut self.dense, dense.outputs) {
            (DenseMeans::Outputs(sums), Some(outputs)) => (outputs, sums),
            (DenseMeans::Inputs(sums), _) => (dense.inputs, sums),
            _ => unreachable!("a stage has outputs for all windows or for none"),
        };
        add_cross(compute, [rows, pruned], tokens, sums);
    }

    /// Adds the sums of the group that follows.
    fn merge(&mut self, compute: &Compute, next: GroupSums) {
        self.tokens += next.tokens;
        match (&mut self.gram, next.gram) {
            (Some(gram), Some(next)) => gram.merge(compute, &next),
            (gram @ None, next) => *gram = next,
            (Some(_), None) => {}
        }
        match (&mut self.dense, next.dense) {
            (DenseMeans::Inputs(sums), DenseMeans::Inputs(next))
            | (DenseMeans::Outputs(sums), DenseMeans::Outputs(next)) => {
                assert_eq!(sums.len(), next.len(), "sums of one stage");
                compute.each_chunk(sums, MERGED, |chunk, sums| {
                    let next = &next[chunk * MERGED..][..sums.len()];
                    sums.iter_mut().zip(next).for_each(|(sum, next)| *sum += next);
                });
            }
            (dense @ DenseMeans::Unused, next) => *dense = next,
            (_, DenseMeans::Unused) => {}
            _ => unreachable!("a stage has outputs for all windows or for none"),
        }
    }
}

impl StageSums {
    /// Adds the sums of the next group.
    pub fn add(&mut self, compute: &Compute, group: GroupSums) {
        match &mut self.0 {
            Some(sums) => sums.merge(compute, group),
            none => *none = Some(group),
        }
    }

    /// The means over all tokens.
    pub fn mean(self, compute: &Compute) -> Statistics {
        let GroupSums { tokens, gram, mut dense } = self.0.unwrap_or_default();
        let part = 1.0 / tokens.max(1) as f32;
        if let DenseMeans::Inputs(sums) | DenseMeans::Outputs(sums) = &mut dense {
            sums.iter_mut().for_each(|sum| *sum *= part);
        }
        let gram = gram.map_or_else(Vec::new, |gram| gram.finish(compute, part));
        Statistics { width: gram.len().isqrt(), gram, dense }
    }
}

impl Statistics {
    /// The inputs of the stage's maps.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { cols: self.width, gram: &self.gram }
    }

    /// Whether all means are finite.
    pub fn are_finite(&self) -> bool {
        let dense = match &self.dense {
            DenseMeans::Unused => &[][..],
            DenseMeans::Inputs(means) | DenseMeans::Outputs(means) => means,
        };
        self.gram.iter().chain(dense).all(|mean| mean.is_finite())
    }
}
