//! Sums of squares at the maps of a layer, and their means.

use std::collections::BTreeMap;

use physarium_checkpoint::Site;
use physarium_kernels::vector;

/// Mean squares over tokens at a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// Mean square of each input.
    pub inputs: Vec<f64>,
    /// Mean square of the gradient of a token's loss, in nats, at each output.
    pub outputs: Vec<f64>,
}

/// Sums of squares at the maps of a layer.
#[derive(Default)]
pub(super) struct Sums(BTreeMap<Site, Squares>);

/// Sums of squares at one map.
#[derive(Default)]
struct Squares {
    inputs: Vec<f64>,
    outputs: Vec<f64>,
}

/// Activations at one map: its inputs `[tokens, inputs]`, and the gradients at its outputs `[tokens, outputs]`.
pub(super) struct Rows<'a> {
    pub tokens: usize,
    pub inputs: &'a [f32],
    pub gradients: &'a [f32],
}

impl Sums {
    /// Adds the squares of the activations at `site`.
    pub fn add(&mut self, site: Site, rows: Rows<'_>) {
        let Squares { inputs, outputs } = self.0.entry(site).or_default();
        inputs.resize(rows.inputs.len() / rows.tokens, 0.0);
        outputs.resize(rows.gradients.len() / rows.tokens, 0.0);
        vector::add_squares(rows.inputs, inputs);
        vector::add_squares(rows.gradients, outputs);
    }

    /// Adds the sums of others.
    pub fn add_all(&mut self, others: Sums) {
        for (site, Squares { inputs, outputs }) in others.0 {
            let sums = self.0.entry(site).or_default();
            for (sums, others) in [(&mut sums.inputs, inputs), (&mut sums.outputs, outputs)] {
                sums.resize(others.len(), 0.0);
                sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
            }
        }
    }

    /// The means over `tokens`.
    pub fn means(self, tokens: usize) -> impl Iterator<Item = (Site, Sensitivity)> {
        let mean = move |sums: Vec<f64>| sums.into_iter().map(|sum| sum / tokens as f64).collect();
        self.0.into_iter().map(move |(site, sums)| {
            (site, Sensitivity { inputs: mean(sums.inputs), outputs: mean(sums.outputs) })
        })
    }
}
