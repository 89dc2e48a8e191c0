//! What units are expected to take, from a second of the work.

use physarium_checkpoint::Site;
use physarium_model::{Decoder, MapShape, Residency, StageKind, StageShape, window_groups};

use super::plan::{Cost, Unit, Work};
use crate::cancel::Cancel;
use crate::engine::{MemoryPlan, TargetsBySite, targets_by_site};
use crate::error::Result;
use crate::estimate::Measured;
use crate::surgery::Surgery;

/// What the units of a run are expected to take.
pub(super) enum Costs<'a> {
    /// They are not asked for.
    Unasked,
    /// Measured.
    Measured(Box<Measurement<'a>>),
}

/// A measured second.
pub(super) struct Measurement<'a> {
    surgery: &'a Surgery,
    /// Seconds for each byte of a shard, and most resident bytes of a unit that writes one.
    shard: (f64, u64),
    calibrated: Option<Calibrated<'a>>,
}

struct Calibrated<'a> {
    decoder: Decoder,
    targets: TargetsBySite<'a>,
    measured: Measured,
}

/// Bytes of a shard that a process reads, replaces, hashes and writes in a second, where that is not measured: what a
/// disk of ordinary speed allows.
const BYTES_PER_SECOND: f64 = 5e8;

impl<'a> Costs<'a> {
    /// Measures a second of the work.
    ///
    /// # Errors
    /// Those of `Surgery::estimate`.
    pub fn measured(surgery: &'a Surgery, cancel: &Cancel) -> Result<Costs<'a>> {
        let is_calibrated = surgery.recipe.needs().calibration.is_some();
        let bytes: u64 = surgery.checkpoint.shards().iter().map(|shard| shard.size_bytes()).sum();
        let whole = if is_calibrated { None } else { surgery.estimate(cancel)? };
        let per_byte =
            whole.map_or(1.0 / BYTES_PER_SECOND, |time| time.as_secs_f64() / bytes.max(1) as f64);
        let within = (surgery.memory.workers, surgery.allowed);
        let memory = MemoryPlan::new(&surgery.checkpoint, &surgery.plan, &surgery.recipe, within);
        let calibrated = match is_calibrated {
            false => None,
            true => {
                let decoder = Decoder::open(surgery.checkpoint.dir(), Residency::Streamed)?;
                let targets = targets_by_site(&surgery.plan, decoder.config())?;
                let measured = Measured::of(&surgery.calibrated_run(&decoder, cancel)?)?;
                Some(Calibrated { decoder, targets, measured })
            }
        };
        let shard = (per_byte, memory.resident_bytes);
        Ok(Costs::Measured(Box::new(Measurement { surgery, shard, calibrated })))
    }

    /// A unit with its cost.
    ///
    /// # Errors
    /// `Usage` for an activation-aware method without a calibration text; `Model` for faults in headers.
    pub fn unit(&self, id: String, work: Work, needs: Vec<String>) -> Result<Unit> {
        let cost = match self {
            Costs::Unasked => Cost { seconds: 0.0, memory_bytes: 0 },
            Costs::Measured(measurement) => measurement.cost(&work)?,
        };
        Ok(Unit { id, work, needs, cost })
    }
}

impl Measurement<'_> {
    fn cost(&self, work: &Work) -> Result<Cost> {
        let (per_byte, memory_bytes) = self.shard;
        let shards = self.surgery.checkpoint.shards().iter();
        let bytes_of = |name: Option<&str>| -> u64 {
            shards
                .filter(|shard| name.is_none_or(|name| shard.name == name))
                .map(|shard| shard.size_bytes())
                .sum()
        };
        let by_bytes = |bytes: u64| Cost { seconds: bytes as f64 * per_byte, memory_bytes };
        match (work, &self.calibrated) {
            (Work::Shard { shard }, _) => Ok(by_bytes(bytes_of(Some(shard)))),
            (_, Some(calibrated)) => calibrated.cost(self.surgery, work),
            // The search reads all targets three times.
            (_, None) => Ok(by_bytes(3 * bytes_of(None))),
        }
    }
}

impl Calibrated<'_> {
    fn cost(&self, surgery: &Surgery, work: &Work) -> Result<Cost> {
        let all = surgery.windows()?;
        let (config, measured) = (self.decoder.config(), &self.measured);
        let tokens = |windows: &[Vec<u32>]| windows.iter().map(Vec::len).sum::<usize>();
        let stages = config.stages();
        Ok(match work {
            Work::Statistics { stage, group, .. } => {
                let slices: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
                let windows = &all[window_groups(&slices)[*group].clone()];
                let (dense, tokens) = (surgery.recipe.needs().dense_stream, tokens(windows));
                let passes = passes(&stages, *stage, dense) * tokens as f64;
                Cost {
                    seconds: measured.pass(passes) + measured.sums(&stages[*stage], dense, tokens),
                    memory_bytes: surgery
                        .footprint(&self.decoder, windows)?
                        .statistics_unit(&stages[*stage]),
                }
            }
            Work::Solve { tensor } => {
                let of_tensor =
                    |(site, target): (&Site, _)| (named(target) == tensor).then(|| site.clone());
                let site = self.targets.iter().find_map(of_tensor).expect("a target's unit");
                let (stage, map) = place(&stages, &site);
                let seconds = measured.inverse(stage.inputs())
                    + measured.solution(map.outputs as f64, map.inputs as f64);
                let memory_bytes = surgery.footprint(&self.decoder, all)?.solve_unit(stage, map);
                Cost { seconds, memory_bytes }
            }
            Work::Budget | Work::Threshold | Work::Shard { .. } => Cost {
                seconds: measured.gradients(config.layers(), tokens(all)),
                memory_bytes: surgery.footprint(&self.decoder, all)?.budget_unit(),
            },
        })
    }
}

fn named<'a>(target: &&'a physarium_checkpoint::PlannedTensor) -> &'a str {
    &target.input.name
}

/// The stage and the shape of a map.
fn place<'a>(stages: &'a [StageShape], site: &Site) -> (&'a StageShape, &'a MapShape) {
    let of_stage = |stage: &'a StageShape| {
        stage.maps.iter().find(|map| map.map == site.map).map(|map| (stage, map))
    };
    stages.iter().find_map(of_stage).expect("a target is a map of a stage")
}

/// Parts of a layer that a group passes on its way to a stage, of both streams.
fn passes(stages: &[StageShape], at: usize, dense: bool) -> f64 {
    let weights = |stage: &StageShape| stage.weights() as f64;
    let part = |stage: &StageShape| weights(stage) / stages.iter().map(weights).sum::<f64>();
    // The inputs of o and down are the outputs of the stage before.
    let inputs = |at: usize| match stages[at].kind {
        StageKind::BeforeAttention | StageKind::BeforeMlp => 0.0,
        StageKind::MixedValues | StageKind::Gated => part(&stages[at - 1]),
    };
    let before = (at + stages.len() - 1) % stages.len();
    let carried = match stages[before].kind.adds_to_stream() {
        true => inputs(before) + part(&stages[before]),
        false => 0.0,
    };
    let of_dense = match (dense, stages[at].kind.adds_to_stream()) {
        (false, _) => 0.0,
        (true, false) => inputs(at),
        (true, true) => inputs(at) + part(&stages[at]),
    };
    carried + inputs(at) + of_dense
}
