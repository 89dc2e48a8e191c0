//! Sums and means over the inputs of a stage's maps.

use physarium_checkpoint::Recipe;
use physarium_flow::activation::Inputs;
use physarium_model::{Compute, Gram, Shown, add_cross};

use super::squares::Squares;

/// Sums that one task merges.
const MERGED: usize = 1 << 16;

/// Sums over the inputs of a stage's maps, of a group of windows.
#[derive(Default)]
pub(crate) struct GroupSums {
    pub tokens: usize,
    /// Of the pruned stream; absent before the first window.
    pub inputs: Option<InputSums>,
    pub dense: DenseMeans,
}

/// Sums over the inputs X `[tokens, inputs]` of the pruned stream.
pub(crate) enum InputSums {
    /// XᵀX `[inputs, inputs]`.
    Products(Gram),
    Squares(Squares),
}

/// Which sums a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Summed {
    Products,
    Squares,
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
    pub inputs: InputMeans,
    pub dense: DenseMeans,
}

/// Means over the inputs X `[tokens, inputs]`.
pub(crate) enum InputMeans {
    /// XᵀX ÷ tokens `[inputs, inputs]`; empty if there are no sums.
    Gram(Vec<f32>),
    /// The sums are means.
    Squares(Squares),
}

impl Summed {
    /// What a recipe's method needs.
    pub fn of(recipe: &Recipe) -> Summed {
        if recipe.needs().gram { Summed::Products } else { Summed::Squares }
    }

    /// A sum of zero, for `width` inputs.
    fn none(self, width: usize) -> InputSums {
        match self {
            Summed::Products => InputSums::Products(Gram::new(width)),
            Summed::Squares => InputSums::Squares(Squares::new(width)),
        }
    }
}

impl InputSums {
    fn add(&mut self, compute: &Compute, x: &[f32]) {
        match self {
            InputSums::Products(gram) => gram.add(compute, x),
            InputSums::Squares(squares) => squares.add(compute, x),
        }
    }

    fn merge(&mut self, compute: &Compute, next: &InputSums) {
        match (self, next) {
            (InputSums::Products(gram), InputSums::Products(next)) => gram.merge(compute, next),
            (InputSums::Squares(squares), InputSums::Squares(next)) => squares.merge(next),
            _ => unreachable!("a method needs one kind of sums"),
        }
    }

    /// The sums times `part`.
    fn mean(self, compute: &Compute, part: f32) -> InputMeans {
        match self {
            InputSums::Products(gram) => InputMeans::Gram(gram.finish(compute, part)),
            InputSums::Squares(mut squares) => {
                squares.sums.iter_mut().for_each(|sum| *sum *= part);
                InputMeans::Squares(squares)
            }
        }
    }
}

impl InputMeans {
    /// Number of inputs that are zero for every token.
    pub fn dead(&self) -> usize {
        match self {
            InputMeans::Gram(gram) => Inputs { cols: gram.len().isqrt(), gram }.dead(),
            InputMeans::Squares(squares) => {
                squares.sums.iter().filter(|mean| **mean == 0.0).count()
            }
        }
    }
}

impl DenseMeans {
    /// The sums or means; none if the dense stream is not used.
    pub fn sums(&self) -> &[f32] {
        match self {
            DenseMeans::Unused => &[],
            DenseMeans::Inputs(sums) | DenseMeans::Outputs(sums) => sums,
        }
    }
}

impl GroupSums {
    /// Adds the inputs of some windows to maps of `width` inputs.
    pub fn add(&mut self, compute: &Compute, (summed, width): (Summed, usize), shown: Shown<'_>) {
        let Shown { pruned, dense, .. } = shown;
        let tokens = pruned.len() / width;
        self.tokens += tokens;
        self.inputs.get_or_insert_with(|| summed.none(width)).add(compute, pruned);
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
        match (&mut self.inputs, next.inputs) {
            (Some(sums), Some(next)) => sums.merge(compute, &next),
            (sums @ None, next) => *sums = next,
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
        let GroupSums { tokens, inputs, mut dense } = self.0.unwrap_or_default();
        let part = 1.0 / tokens.max(1) as f32;
        if let DenseMeans::Inputs(sums) | DenseMeans::Outputs(sums) = &mut dense {
            sums.iter_mut().for_each(|sum| *sum *= part);
        }
        let none = || InputMeans::Gram(Vec::new());
        Statistics { inputs: inputs.map_or_else(none, |sums| sums.mean(compute, part)), dense }
    }
}

impl Statistics {
    /// Whether all means are finite.
    pub fn are_finite(&self) -> bool {
        let inputs = match &self.inputs {
            InputMeans::Gram(gram) => gram,
            InputMeans::Squares(squares) => &squares.sums,
        };
        inputs.iter().chain(self.dense.sums()).all(|mean| mean.is_finite())
    }
}
