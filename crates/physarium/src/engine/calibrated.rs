/*!
Solving projections by what passes through them, layer by layer, before shards are written.

In: a decoder, windows of calibration tokens, the plan. Out: for each target, solved weights in its own dtype
in a file of its layer ([`SolvedWeights`]). A layer's file is made durable when the layer is done, so a
crash costs one layer: a continued run walks through the finished ones without solving.
*/

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};
use physarium_checkpoint::{
    Amount, Blake3, Calibrated, Digest, Error as CheckpointError, Method, PlannedTensor, Recipe,
    Source, TargetPlan,
};
use physarium_flow::activation::{
    ActivationFlow, Keep, Problem, Solution, activation_flow, sparsegpt, wanda,
};
use physarium_model::{
    Capture, Compute, Decoder, Dense, Gram, Layer, Place, Projection, Residency, Run, Stage,
    add_cross, walk,
};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};

/// Bytes of the digest that ends a layer's file.
const DIGEST_BYTES: u64 = 32;
/// Bytes of a count of dead inputs before it, one for each target.
const COUNT_BYTES: u64 = 8;

/// Solved weights of all targets, in files.
pub(crate) struct SolvedWeights {
    places: HashMap<String, SolvedTensor>,
}

/// Where a target's solved weights are.
#[derive(Clone)]
pub(crate) struct SolvedTensor {
    pub file: Arc<Source>,
    pub begin: u64,
    pub dead_inputs: u64,
}

impl SolvedWeights {
    /// The solved weights of a target.
    pub fn of(&self, tensor: &str) -> &SolvedTensor {
        &self.places[tensor]
    }
}

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
        let io = |e| CheckpointError::io(&self.dir, "create", e);
        fs::create_dir_all(&self.dir).map_err(io)?;
        let decoder = Decoder::open(self.model, Residency::Streamed)?;
        let compute = Compute::new(self.threads)?;
        let windows: Vec<&[u32]> = self.windows.iter().map(Vec::as_slice).collect();
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);
        let run = Run::new(&compute, decoder.config(), longest);
        let layers = decoder.config().layers();
        let steps = layers * Stage::ALL.len();
        let tokens: usize = windows.iter().map(|window| window.len()).sum();
        progress.event(Event::TokensStarted { task: "calibrate", tokens: (steps * tokens) as u64 });
        let mut solver = LayerSolver {
            solving: self,
            method: self.recipe.method,
            calibrated: *self.recipe.calibrated().expect("only calibrated methods are solved"),
            compute: &compute,
            targets: targets(self.plan),
            sums: Sums::default(),
            kept: None,
            fresh: Vec::new(),
            places: HashMap::new(),
            cancel,
            progress,
        };
        walk(&decoder, &windows, &run, &mut solver)?;
        Ok(SolvedWeights { places: solver.places })
    }
}

/// Layer and projection that a tensor's name stands for.
fn place_of(name: &str) -> Option<(usize, Projection)> {
    let (layer, module) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let module = module.strip_suffix(".weight")?;
    let projection = Projection::ALL.into_iter().find(|p| p.module() == module)?;
    Some((layer.parse().ok()?, projection))
}

fn targets(plan: &TargetPlan) -> HashMap<(usize, Projection), &PlannedTensor> {
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
    solving: &'a Solving<'a>,
    method: Method,
    calibrated: Calibrated,
    compute: &'a Compute,
    targets: HashMap<(usize, Projection), &'a PlannedTensor>,
    sums: Sums,
    /// The layer at hand and its file, when an earlier run has solved it.
    kept: Option<(usize, HashMap<Projection, Dense>)>,
    /// What this run has solved of the layer at hand.
    fresh: Vec<(Projection, Vec<u8>, u64)>,
    places: HashMap<String, SolvedTensor>,
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
            self.look_for(place.layer)?;
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
                Some((_, kept)) => {
                    let weights = kept.remove(projection).expect("a kept layer has all targets");
                    pruned.map(*projection).with_weights(weights)
                }
                None => {
                    let map = pruned.map(*projection);
                    let solution = self.solve(target, map.weights(), map.inputs(), &statistics)?;
                    let weights = narrow(&solution.weights, map.weights());
                    let dead = solution.dead_inputs as u64;
                    self.fresh.push((*projection, bytes_of(&weights).to_vec(), dead));
                    map.with_weights(weights)
                }
            };
            pruned.replace(*projection, map);
        }
        if place.stage == Stage::Down {
            if self.kept.is_none() {
                self.keep(place.layer)?;
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
            add_cross(compute, dense, pruned, width, &mut self.dense);
        }
    }

    fn mean(mut self) -> Statistics {
        let part = 1.0 / self.tokens.max(1) as f32;
        self.dense.iter_mut().for_each(|sum| *sum *= part);
        let gram = self.gram.map_or_else(Vec::new, |gram| gram.finish(part));
        Statistics { gram, dense: self.dense }
    }
}

impl LayerSolver<'_> {
    fn solve(
        &self,
        target: &PlannedTensor,
        weights: &Dense,
        inputs: usize,
        statistics: &Statistics,
    ) -> Result<Solution> {
        let unsolvable = |what: &str| Error::Unsolvable {
            tensor: target.info.name.clone(),
            what: what.to_owned(),
        };
        if statistics.gram.iter().any(|sum| !sum.is_finite()) {
            return Err(unsolvable("the model computes NaN or infinite activations on this text"));
        }
        let mut wide = vec![0.0; weights.len()];
        weights.widen(0, &mut wide);
        if wide.iter().any(|weight| !weight.is_finite()) {
            return Err(unsolvable("NaN or infinite weights"));
        }
        let dense = (!statistics.dense.is_empty()).then_some(&statistics.dense[..]);
        let problem = Problem { weights: &wide, cols: inputs, gram: &statistics.gram, dense };
        let keep = match self.calibrated.amount {
            Amount::Sparsity(sparsity) => Keep::AllBut(sparsity.count(wide.len() as u64) as usize),
            Amount::Pattern(pattern) => {
                Keep::Pattern { keep: pattern.keep(), group: pattern.group() }
            }
        };
        match self.method {
            Method::Wanda(_) => Ok(wanda(&problem, keep)),
            Method::SparseGpt(_) => sparsegpt(self.compute, &problem, keep)
                .ok_or_else(|| unsolvable("the Gram matrix has no Cholesky factor")),
            Method::ActivationFlow(_) => {
                Ok(activation_flow(self.compute, &problem, keep, &ActivationFlow::default()))
            }
            Method::MagnitudeFlow { .. } | Method::Exact { .. } | Method::Pattern { .. } => {
                unreachable!("these see no activations")
            }
        }
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.solving.dir.join(format!("layer-{layer:05}"))
    }

    /// A layer's targets in the order of its file.
    fn order(&self, layer: usize) -> Vec<(Projection, &PlannedTensor)> {
        let target = |p: Projection| Some((p, *self.targets.get(&(layer, p))?));
        Projection::ALL.into_iter().filter_map(target).collect()
    }

    /// Takes a layer's file, if an earlier run left a whole one.
    fn look_for(&mut self, layer: usize) -> Result<()> {
        let path = self.path(layer);
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let source = Source::open(&path)?;
        let order = self.order(layer);
        let weights: u64 = order.iter().map(|(_, tensor)| tensor.info.size_bytes()).sum();
        let expected = weights + order.len() as u64 * COUNT_BYTES + DIGEST_BYTES;
        if source.len() != expected || !digest_is_right(&source)? {
            return Ok(());
        }
        let mut maps = HashMap::new();
        let mut begin = 0;
        for (projection, tensor) in order {
            let mut bytes = vec![0; tensor.info.size_bytes() as usize];
            source.read_exact_at(&mut bytes, begin)?;
            maps.insert(projection, dense_of(&bytes, tensor));
            begin += tensor.info.size_bytes();
        }
        self.kept = Some((layer, maps));
        self.remember(layer, source)
    }

    /// Makes what was solved of a layer durable.
    fn keep(&mut self, layer: usize) -> Result<()> {
        let path = self.path(layer);
        let part = path.with_extension("part");
        let io = |e| CheckpointError::io(&part, "write", e);
        let mut digest = Blake3::default();
        let mut file = fs::File::create(&part).map_err(io)?;
        let fresh = std::mem::take(&mut self.fresh);
        let counts = fresh.iter().flat_map(|(_, _, dead)| dead.to_le_bytes()).collect();
        for bytes in fresh.iter().map(|(_, bytes, _)| bytes).chain([&counts]) {
            digest.update(bytes);
            file.write_all(bytes).map_err(io)?;
        }
        file.write_all(&digest.finish().0).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&part, &path).map_err(|e| CheckpointError::io(&path, "create", e))?;
        let source = Source::open(&path)?;
        self.remember(layer, source)
    }

    /// Notes where a layer's solved weights are.
    fn remember(&mut self, layer: usize, source: Source) -> Result<()> {
        let order = self.order(layer);
        let weights: u64 = order.iter().map(|(_, tensor)| tensor.info.size_bytes()).sum();
        let file = Arc::new(source);
        let mut begin = 0;
        let mut places = Vec::new();
        for (index, (_, tensor)) in order.into_iter().enumerate() {
            let mut dead = [0; COUNT_BYTES as usize];
            file.read_exact_at(&mut dead, weights + index as u64 * COUNT_BYTES)?;
            let (file, dead_inputs) = (Arc::clone(&file), u64::from_le_bytes(dead));
            places.push((tensor.info.name.clone(), SolvedTensor { file, begin, dead_inputs }));
            begin += tensor.info.size_bytes();
        }
        self.places.extend(places);
        Ok(())
    }
}

/// Whether a file ends with the digest of what is before it.
fn digest_is_right(source: &Source) -> Result<bool> {
    let mut digest = Blake3::default();
    let end = source.len() - DIGEST_BYTES;
    source.read_pieces(0..end, |piece| -> Result<()> {
        digest.update(piece);
        Ok(())
    })?;
    let mut stated = [0; DIGEST_BYTES as usize];
    source.read_exact_at(&mut stated, end)?;
    Ok(digest.finish() == Digest(stated))
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

fn bytes_of(weights: &Dense) -> &[u8] {
    match weights {
        Dense::Bf16(weights) => bytemuck::cast_slice(weights),
        Dense::F16(weights) => bytemuck::cast_slice(weights),
        Dense::F32(weights) => bytemuck::cast_slice(weights),
    }
}

fn dense_of(bytes: &[u8], tensor: &PlannedTensor) -> Dense {
    use physarium_checkpoint::Dtype;
    match tensor.info.dtype {
        Dtype::BF16 => Dense::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        Dtype::F16 => Dense::F16(bytemuck::pod_collect_to_vec(bytes)),
        _ => Dense::F32(bytemuck::pod_collect_to_vec(bytes)),
    }
}
