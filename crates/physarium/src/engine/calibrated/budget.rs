//! How many weights of each target are pruned, and what an error of its outputs costs.

use std::collections::BTreeMap;

use physarium_checkpoint::{Amount, PlannedTensor, Recipe, Scope, Site};
use physarium_flow::activation::Keep;
use physarium_model::{Compute, Decoder, Sensitivity};

use crate::engine::allocation::{Allocation, TargetsBySite, ZerosBySite};
use crate::error::Result;

/// What is decided for all targets before the first is solved.
pub(crate) struct Budget {
    amount: Amount,
    /// Number of zeros of each target; empty for a pattern, which fixes them itself.
    pub zeros: ZerosBySite,
    /// How much predictions depend on each output of each target, for methods that use gradients.
    pub output_costs: Option<BTreeMap<Site, Vec<f32>>>,
}

impl Budget {
    /// Decides. `sensitivities` has an entry for each target if the recipe needs gradients. Ends early once `compute` is
    /// stopped.
    ///
    /// # Errors
    /// `Model` if weights cannot be read.
    pub fn new(
        recipe: &Recipe,
        (decoder, targets): (&Decoder, &TargetsBySite<'_>),
        compute: &Compute,
        sensitivities: Option<BTreeMap<Site, Sensitivity>>,
    ) -> Result<Budget> {
        let amount = recipe.method.amount();
        let allocation = || {
            let sensitivities = sensitivities.as_ref();
            let sensitivities = sensitivities.expect("a model-wide budget needs gradients");
            Allocation::new(decoder, compute, targets, sensitivities)
        };
        let zeros = match amount {
            Amount::Sparsity { sparsity, scope: Scope::Model } => {
                allocation()?.by_sparsity(sparsity)
            }
            Amount::Sparsity { sparsity, .. } => {
                let zeros = |target: &PlannedTensor| sparsity.count(target.input.elements);
                targets.iter().map(|(site, target)| (site.clone(), zeros(target))).collect()
            }
            Amount::Price(price) => allocation()?.by_price(price),
            Amount::Pattern(_) | Amount::Emergent => ZerosBySite::new(),
        };
        let costs = |sensitivity: &Sensitivity| -> Vec<f32> {
            sensitivity.outputs.iter().map(|cost| *cost as f32).collect()
        };
        let of_target = |(site, sensitivity)| (site, costs(&sensitivity));
        let output_costs = sensitivities.map(|all| all.into_iter().map(of_target).collect());
        Ok(Budget { amount, zeros, output_costs })
    }

    /// What an earlier run decided, with gradients: each target's zeros, which a pattern has not, and its output costs.
    pub fn decided(recipe: &Recipe, targets: Vec<(Site, Option<u64>, Vec<f32>)>) -> Budget {
        let of_site = |(site, zeros, _): &(Site, Option<u64>, _)| Some((site.clone(), (*zeros)?));
        Budget {
            amount: recipe.method.amount(),
            zeros: targets.iter().filter_map(of_site).collect(),
            output_costs: Some(targets.into_iter().map(|(site, _, costs)| (site, costs)).collect()),
        }
    }

    /// Which weights of a target are kept.
    pub fn keep(&self, site: &Site) -> Keep {
        match self.amount {
            Amount::Pattern(pattern) => {
                Keep::Pattern { keep: pattern.keep(), group: pattern.group() }
            }
            _ => Keep::AllBut(self.zeros[site] as usize),
        }
    }

    /// How much predictions depend on each output of a target, for methods that use gradients.
    pub fn output_costs(&self, site: &Site) -> Option<&[f32]> {
        self.output_costs.as_ref().map(|costs| &costs[site][..])
    }
}
