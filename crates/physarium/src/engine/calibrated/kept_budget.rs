//! The file of a budget that took gradients: a resumed run does not measure them again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Digest, Recipe, Site};
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use crate::engine::allocation::TargetsBySite;
use crate::error::Result;
use crate::sealed::{read_sealed, write_sealed};

/// Name of the file beside those of layers.
const NAME: &str = "budget.json";
/// The largest file that is read: a hundred times that of a model of 7B.
const MAX_BYTES: u64 = 1 << 31;

/// Where the budget of a run is kept, and of what.
pub(super) struct KeptBudget<'a> {
    pub dir: &'a Path,
    /// Digest of everything that it depends on.
    pub key: Digest,
    pub recipe: &'a Recipe,
    pub targets: &'a TargetsBySite<'a>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    key: Digest,
    /// By tensor.
    targets: BTreeMap<String, Decided>,
}

#[derive(Serialize, Deserialize)]
struct Decided {
    /// Absent for a pattern.
    zeros: Option<u64>,
    /// Bits of the output costs.
    costs: Vec<u32>,
}

impl KeptBudget<'_> {
    /// The budget that an interrupted run left; `None` if there is none, or it is damaged, or of other inputs.
    pub fn read(&self) -> Option<Budget> {
        let Body { key, mut targets } = read_sealed(&self.path(), MAX_BYTES)?;
        if key != self.key {
            return None;
        }
        let decided = self.targets.iter().map(|(site, target)| {
            let Decided { zeros, costs } = targets.remove(&target.input.name)?;
            Some((site.clone(), zeros, costs.into_iter().map(f32::from_bits).collect()))
        });
        Some(Budget::decided(self.recipe, decided.collect::<Option<_>>()?))
    }

    /// Writes a budget and makes it durable.
    ///
    /// # Errors
    /// `Checkpoint` if it cannot be written.
    pub fn write(&self, budget: &Budget) -> Result<()> {
        let decided = |site: &Site| Decided {
            zeros: budget.zeros.get(site).copied(),
            costs: budget.output_costs(site).unwrap_or(&[]).iter().map(|c| c.to_bits()).collect(),
        };
        let of_target = self.targets.iter().map(|(site, t)| (t.input.name.clone(), decided(site)));
        write_sealed(&self.path(), &Body { key: self.key, targets: of_target.collect() })
    }

    fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }
}
