//! What the templates of jobs say.

use std::num::NonZeroUsize;
use std::path::Path;

use physarium::WorkPlan;

/// What a template says.
pub(super) struct Job<'a> {
    pub plan: &'a WorkPlan,
    /// The plan's file.
    pub path: &'a Path,
    pub workers: NonZeroUsize,
}

impl Job<'_> {
    /// Most memory that a unit takes, in MiB.
    pub fn mebibytes(&self) -> u64 {
        let most = memory(self.plan);
        // What the page cache of files that are read and written needs besides.
        (most + most / 4).div_ceil(1 << 20).max(256)
    }

    /// The directory that holds the plan, the model and the output.
    pub fn mount(&self) -> String {
        let (model, out) = (&self.plan.model, &self.plan.out);
        let holds = |dir: &&Path| model.starts_with(dir) && out.starts_with(dir);
        let dir = self.path.ancestors().skip(1).find(holds).unwrap_or(Path::new("/"));
        dir.to_string_lossy().into_owned()
    }

    /// Seconds of the longest way through the units.
    pub fn seconds(&self) -> f64 {
        let waves = self.plan.waves();
        let mut of_wave = vec![0.0f64; waves.iter().max().map_or(0, |last| last + 1)];
        for (unit, wave) in self.plan.units.iter().zip(waves) {
            of_wave[wave] = of_wave[wave].max(unit.cost.seconds);
        }
        of_wave.iter().sum()
    }
}

/// Most memory of a unit in bytes.
pub(super) fn memory(plan: &WorkPlan) -> u64 {
    plan.units.iter().map(|unit| unit.cost.memory_bytes).max().unwrap_or(0)
}
