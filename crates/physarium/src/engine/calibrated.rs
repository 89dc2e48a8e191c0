/*!
Solving projections by what passes through them, layer by layer, before shards are written.

In: a decoder, windows of calibration tokens, the plan. Out: for each target, solved weights in its own dtype
in a file of its layer ([`SolvedWeights`]). A continued run walks through the layers whose files are there
without solving.
*/

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use physarium_checkpoint::{Amount, Calibrated, Method, PlannedTensor, Recipe, TargetPlan};
use physarium_flow::activation::{
    ActivationFlow, Keep, Problem, activation_flow, sparsegpt, wanda,
};
use physarium_model::{
    Capture, Compute, Decoder, Dense, Gram, Labels, Layer, Place, Projection, Residency, Run,
    Sensitivity, Stage, add_cross, sensitivities, walk,
};

use super::allocation::{Targets, Zeros, allocate};
use super::solved::{Fresh, LayerFiles, SolvedWeights, Trace};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Calibration tokens that gradients are taken at: enough for means over them, few enough that all their
/// activations fit into memory.
pub(crate) const GRADIENT_TOKENS: usize = 8192;

/// What is solved.
pub(crate) struct Solving<'a> {
    pub model: &'a Path,
    pub plan: &'a TargetPlan,
    pub recipe: &'a Recipe,
    pub windows: &'a [Vec<u32>],
    pub threads: usize,
    /// Where files of layers are kept.
    pub dir: PathBuf,
}

impl Solving<'_> {
    /// Fails if a target is no projection of the decoder.
    ///
    /// # Errors
    /// `Usage` naming the tensor.
    pub fn check(plan: &TargetPlan) -> Result<()> {
        for (tensor, _) in plan.targets() {
            if place_of(&tensor.info.name).is_none() {
                return Err(Error::Usage(format!(
                    "{}: not a projection of a decoder layer, and nothing is known of what passes \
                     through it; leave it out, or use a method that sees weights only",
                    physarium_checkpoint::printable(&tensor.info.name)
                )));
            }
        }
        Ok(())
    }

    /// Solves all layers that no file is there for yet.
    ///
    /// # Errors
    /// `Model` and `Checkpoint` for what is wrong with files, `Unsolvable` for statistics that no method
    /// can work with.
    pub fn run(&self, cancel: &Cancel, progress: &mut dyn Progress) -> Result<SolvedWeights> {
        let files = LayerFiles::new(self.dir.clone())?;
        let decoder = Decoder::open(self.model, Residency::Streamed)?;
        let compute = Compute::new(self.threads)?;
        let windows: Vec<&[u32]> = self.windows.iter().map(Vec::as_slice).collect();
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
        let run = Run::new(&compute, decoder.config(), longest);
        let targets = targets(self.plan);
        let calibrated = *self.recipe.calibrated().expect("only calibrated methods are solved");
        let felt = match self.needs_gradients(&calibrated) {
            true => Some(self.feel(&decoder, &windows, &run, cancel, progress)?),
            false => None,
        };
        let zeros = match (calibrated.amount, &felt) {
            (Amount::Pattern(_), _) => Zeros::new(),
            (Amount::Sparsity(sparsity), _) => {
                let zeros = |t: &PlannedTensor| sparsity.count(t.info.elements);
                targets.iter().map(|(place, tensor)| (*place, zeros(tensor))).collect()
            }
            (amount, Some(felt)) => allocate(&decoder, &compute, &targets, felt, amount)?,
            (_, None) => unreachable!("a budget of the whole model needs gradients"),
        };
        let tokens: usize = windows.iter().map(|window| window.len()).sum();
        let steps = decoder.config().layers() * Stage::ALL.len();
        progress.event(Event::TokensStarted { task: "calibrate", tokens: (steps * tokens) as u64 });
        let mut solver = LayerSolver {
            method: self.recipe.method,
            calibrated,
            compute: &compute,
            targets,
            zeros,
            felt,
            sums: Sums::default(),
            kept: None,
            fresh: Vec::new(),
            files,
            cancel,
            progress,
        };
        walk(&decoder, &windows, &run, &mut solver)?;
        Ok(solver.files.finish())
    }

    /// Whether the model's gradients decide what is pruned.
    fn needs_gradients(&self, calibrated: &Calibrated) -> bool {
        match calibrated.amount {
            Amount::ModelSparsity(_) | Amount::Price(_) => true,
            Amount::Sparsity(_) => matches!(self.recipe.method, Method::ActivationFlow(_)),
            // Outputs do not compete with each other for what stays.
            Amount::Pattern(_) => false,
        }
    }

    /// Measures what the model's predictions feel, on windows from all over the calibration text.
    fn feel(
        &self,
        decoder: &Decoder,
        windows: &[&[u32]],
        run: &Run<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<[Sensitivity; 7]>> {
        let window = windows.first().map_or(1, |window| window.len());
        let count = (GRADIENT_TOKENS / window).clamp(1, windows.len());
        let some: Vec<&[u32]> =
            (0..count).map(|index| windows[index * windows.len() / count]).collect();
        let passes = 2 * decoder.config().layers();
        let tokens = (passes * count * window) as u64;
        progress.event(Event::TokensStarted { task: "gradients", tokens });
        let seed = self.recipe.calibrated().map_or(0, |calibrated| calibrated.calibration.seed);
        sensitivities(decoder, &some, run, Labels::Drawn { seed }, || {
            cancel.check()?;
            progress.event(Event::Tokens(window as u64));
            Ok(())
        })
    }
}

/// Layer and projection that a tensor's name stands for.
fn place_of(name: &str) -> Option<(usize, Projection)> {
    let (layer, module) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let module = module.strip_suffix(".weight")?;
    let projection = Projection::ALL.into_iter().find(|p| p.module() == module)?;
    Some((layer.parse().ok()?, projection))
}

fn targets(plan: &TargetPlan) -> Targets<'_> {
    let targets = plan.targets().map(|(tensor, _)| tensor);
    targets.filter_map(|tensor| Some((place_of(&tensor.info.name)?, tensor))).collect()
}

/// Sums over the inputs of a stage's projections.
#[derive(Default)]
struct Sums {
    tokens: usize,
    /// XᵀX of the pruned stream; none before the first window.
    gram: Option<Gram>,
    /// X_denseᵀX `[inputs, inputs]`; empty where the dense stream is not looked at.
    dense: Vec<f32>,
}

/// Means over the tokens at a stage, `[inputs, inputs]`; empty where nothing was looked at.
struct Statistics {
    gram: Vec<f32>,
    dense: Vec<f32>,
}

/// Collects statistics stage by stage, solves, and keeps a file per layer.
struct LayerSolver<'a> {
    method: Method,
    calibrated: Calibrated,
    compute: &'a Compute,
    targets: Targets<'a>,
    zeros: Zeros,
    /// What the model's predictions feel, where that decides.
    felt: Option<Vec<[Sensitivity; 7]>>,
    sums: Sums,
    /// The weights of the layer at hand, when an earlier run has solved it.
    kept: Option<HashMap<Projection, Dense>>,
    /// What this run has solved of the layer at hand.
    fresh: Vec<Fresh>,
    files: LayerFiles,
    cancel: &'a Cancel,
    progress: &'a mut dyn Progress,
}

impl Capture for LayerSolver<'_> {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        matches!(self.method, Method::ActivationFlow(_))
    }

    fn inputs(&mut self, place: Place, dense: Option<&[f32]>, pruned: &[f32]) -> Result<()> {
        self.cancel.check()?;
        if place.stage == Stage::Qkv && self.sums.tokens == 0 {
            self.kept = self.files.take(place.layer, &self.order(place.layer))?;
        }
        let stage = place.stage.projections();
        let wanted = stage.iter().any(|p| self.targets.contains_key(&(place.layer, *p)));
        if self.kept.is_none() && wanted {
            let window = self.calibrated.calibration.window as usize;
            self.sums.add(self.compute, window, dense, pruned);
        } else {
            self.sums.tokens += 1;
        }
        self.progress.event(Event::Tokens(self.calibrated.calibration.window));
        Ok(())
    }

    fn finish(&mut self, place: Place, pruned: &mut Layer) -> Result<()> {
        let statistics = std::mem::take(&mut self.sums).mean();
        for projection in place.stage.projections() {
            let Some(target) = self.targets.get(&(place.layer, *projection)).copied() else {
                continue;
            };
            let map = match &mut self.kept {
                Some(kept) => {
                    let weights = kept.remove(projection).expect("a kept layer has all targets");
                    pruned.map(*projection).with_weights(weights)
                }
                None => {
                    let map = pruned.map(*projection);
                    let at = (place.layer, *projection);
                    let (weights, trace) = self.solve(target, at, &map.weights(), &statistics)?;
                    let map = map.with_weights(weights.clone());
                    self.fresh.push(Fresh { projection: *projection, weights, trace });
                    map
                }
            };
            pruned.replace(*projection, map);
        }
        if place.stage == Stage::Down {
            if self.kept.is_none() {
                let fresh = std::mem::take(&mut self.fresh);
                self.files.keep(place.layer, &self.order(place.layer), &fresh)?;
            }
            self.kept = None;
        }
        Ok(())
    }
}

impl Sums {
    fn add(&mut self, compute: &Compute, window: usize, dense: Option<&[f32]>, pruned: &[f32]) {
        let width = pruned.len() / window;
        self.tokens += window;
        self.gram.get_or_insert_with(|| Gram::new(compute, width)).add(compute, pruned);
        if let Some(dense) = dense {
            self.dense.resize(width * width, 0.0);
            add_cross(compute, dense, pruned, &mut self.dense);
        }
    }

    fn mean(mut self) -> Statistics {
        let part = 1.0 / self.tokens.max(1) as f32;
        self.dense.iter_mut().for_each(|sum| *sum *= part);
        let gram = self.gram.map_or_else(Vec::new, |gram| gram.finish(part));
        Statistics { gram, dense: self.dense }
    }
}

impl<'a> LayerSolver<'a> {
    fn solve(
        &self,
        target: &PlannedTensor,
        place: (usize, Projection),
        weights: &Dense,
        statistics: &Statistics,
    ) -> Result<(Dense, Trace)> {
        let unsolvable = |what: &str| Error::Unsolvable {
            tensor: target.info.name.clone(),
            what: what.to_owned(),
        };
        if statistics.gram.iter().any(|sum| !sum.is_finite()) {
            return Err(unsolvable(
                "expected finite activations, found NaN or infinite ones on this text",
            ));
        }
        let mut wide = vec![0.0; weights.len()];
        weights.widen(0, &mut wide);
        if wide.iter().any(|weight| !weight.is_finite()) {
            return Err(unsolvable("expected finite weights, found NaN or infinite ones"));
        }
        let felt = self.felt.as_ref().map(|felt| &felt[place.0][place.1 as usize].outputs);
        let felt: Option<Vec<f32>> =
            felt.map(|felt| felt.iter().map(|cost| *cost as f32).collect());
        let problem = Problem {
            weights: &wide,
            cols: statistics.gram.len().isqrt(),
            gram: &statistics.gram,
            cross_gram: (!statistics.dense.is_empty()).then_some(&statistics.dense[..]),
            output_costs: felt.as_deref(),
        };
        let keep = match self.calibrated.amount {
            Amount::Pattern(pattern) => {
                Keep::Pattern { keep: pattern.keep(), group: pattern.group() }
            }
            Amount::Sparsity(_) | Amount::ModelSparsity(_) | Amount::Price(_) => {
                Keep::AllBut(self.zeros[&place] as usize)
            }
        };
        let solution = match self.method {
            Method::Wanda(_) => wanda(&problem, keep),
            Method::SparseGpt(_) => sparsegpt(self.compute, &problem, keep).ok_or_else(|| {
                unsolvable("expected a positive definite Gram matrix, found none after damping")
            })?,
            Method::ActivationFlow(_) => {
                activation_flow(self.compute, &problem, keep, &ActivationFlow::default())
            }
            Method::MagnitudeFlow { .. } | Method::Exact { .. } | Method::Pattern { .. } => {
                unreachable!("these see no activations")
            }
        };
        let weights = narrow(&solution.weights, weights);
        // As it will be computed with: rounded.
        let mut pruned = solution.weights;
        weights.widen(0, &mut pruned);
        let output_error = problem.output_error(self.compute, &pruned);
        Ok((weights, Trace { dead_inputs: solution.dead_inputs as u64, output_error }))
    }

    /// A layer's targets in the order of its file.
    fn order(&self, layer: usize) -> Vec<(Projection, &'a PlannedTensor)> {
        let target = |p: Projection| Some((p, *self.targets.get(&(layer, p))?));
        Projection::ALL.into_iter().filter_map(target).collect()
    }
}

/// Rounds to the dtype of `like`, to nearest even. What is nought becomes +0.0; weights that the solver
/// left as they were keep their bits.
fn narrow(weights: &[f32], like: &Dense) -> Dense {
    let positive = |weight: f32| if weight == 0.0 { 0.0 } else { weight };
    match like {
        Dense::Bf16(_) => {
            let bits = |weight: &f32| match bf16::from_f32(*weight).to_bits() {
                0x8000 => 0,
                bits => bits,
            };
            Dense::Bf16(weights.iter().map(bits).collect())
        }
        Dense::F16(_) => {
            let round = |weight: &f32| match f16::from_f32(*weight) {
                zero if zero.to_bits() == 0x8000 => f16::ZERO,
                round => round,
            };
            Dense::F16(weights.iter().map(round).collect())
        }
        Dense::F32(_) => Dense::F32(weights.iter().map(|weight| positive(*weight)).collect()),
    }
}
