/*!
Files of solved weights, one for each layer: made durable when the layer is done, so that a crash costs one
layer.

A file holds the weights of the layer's targets in their own dtypes, in the order of the data, then for each of
them its [`Trace`] (a u64 and an f64, little-endian), then the BLAKE3 digest of all that.
*/

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use physarium_checkpoint::{
    Blake3, Digest, Dtype, Error as CheckpointError, PlannedTensor, Source,
};
use physarium_model::{Dense, Projection};

use crate::error::Result;

/// Bytes of the digest that ends a layer's file.
const DIGEST_BYTES: u64 = 32;
/// Bytes of a target's [`Trace`].
const TRACE_BYTES: u64 = 16;

/// Solved weights of all targets, in files.
pub(crate) struct SolvedWeights {
    places: HashMap<String, SolvedTensor>,
}

/// What is to be known of a solution beside its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace {
    /// Inputs that were nought on all of the text.
    pub dead_inputs: u64,
    /// As [`Problem::output_error`](physarium_flow::activation::Problem::output_error).
    pub output_error: f64,
}

impl Trace {
    fn to_bytes(self) -> [u8; TRACE_BYTES as usize] {
        let mut bytes = [0; TRACE_BYTES as usize];
        bytes[..8].copy_from_slice(&self.dead_inputs.to_le_bytes());
        bytes[8..].copy_from_slice(&self.output_error.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; TRACE_BYTES as usize]) -> Trace {
        let [dead_inputs, error] = [0, 8].map(|at| std::array::from_fn(|i| bytes[at + i]));
        let dead_inputs = u64::from_le_bytes(dead_inputs);
        Trace { dead_inputs, output_error: f64::from_le_bytes(error) }
    }
}

/// Where a target's solved weights are.
#[derive(Clone)]
pub(crate) struct SolvedTensor {
    pub file: Arc<Source>,
    pub begin: u64,
    pub trace: Trace,
}

impl SolvedWeights {
    /// The solved weights of a target.
    pub fn of(&self, tensor: &str) -> &SolvedTensor {
        &self.places[tensor]
    }
}

/// A layer's targets, in the order of the data.
pub(super) type Targets<'a> = [(Projection, &'a PlannedTensor)];

/// A target as the solver left it.
pub(super) struct Fresh {
    pub projection: Projection,
    pub weights: Dense,
    pub trace: Trace,
}

/// The files of a run.
pub(super) struct LayerFiles {
    dir: PathBuf,
    places: HashMap<String, SolvedTensor>,
}

impl LayerFiles {
    /// In `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(dir: PathBuf) -> Result<LayerFiles> {
        fs::create_dir_all(&dir).map_err(|e| CheckpointError::io(&dir, "create", e))?;
        Ok(LayerFiles { dir, places: HashMap::new() })
    }

    /// Takes a layer's file, if an earlier run left a whole one.
    ///
    /// # Errors
    /// If a file that is there cannot be read.
    pub fn take(
        &mut self,
        layer: usize,
        targets: &Targets<'_>,
    ) -> Result<Option<HashMap<Projection, Dense>>> {
        let path = self.path(layer);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let source = Source::open(&path)?;
        let expected = weight_bytes(targets) + targets.len() as u64 * TRACE_BYTES + DIGEST_BYTES;
        if source.len() != expected || !digest_is_right(&source)? {
            return Ok(None);
        }
        let mut weights = HashMap::new();
        let mut begin = 0;
        for (projection, tensor) in targets {
            let mut bytes = vec![0; tensor.info.size_bytes() as usize];
            source.read_exact_at(&mut bytes, begin)?;
            weights.insert(*projection, dense_of(&bytes, tensor));
            begin += tensor.info.size_bytes();
        }
        self.remember(source, targets)?;
        Ok(Some(weights))
    }

    /// Makes what was solved of a layer durable; `fresh` in the order of `targets`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, layer: usize, targets: &Targets<'_>, fresh: &[Fresh]) -> Result<()> {
        assert!(fresh.iter().map(|f| f.projection).eq(targets.iter().map(|(p, _)| *p)));
        let path = self.path(layer);
        let part = path.with_extension("part");
        let io = |e| CheckpointError::io(&part, "write", e);
        let mut digest = Blake3::default();
        let mut file = fs::File::create(&part).map_err(io)?;
        let traces: Vec<u8> = fresh.iter().flat_map(|f| f.trace.to_bytes()).collect();
        for bytes in fresh.iter().map(|f| bytes_of(&f.weights)).chain([&traces[..]]) {
            digest.update(bytes);
            file.write_all(bytes).map_err(io)?;
        }
        file.write_all(&digest.finish().0).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&part, &path).map_err(|e| CheckpointError::io(&path, "create", e))?;
        self.remember(Source::open(&path)?, targets)
    }

    /// All that was taken and kept.
    pub fn finish(self) -> SolvedWeights {
        SolvedWeights { places: self.places }
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.dir.join(format!("layer-{layer:05}"))
    }

    /// Notes where a layer's solved weights are.
    fn remember(&mut self, source: Source, targets: &Targets<'_>) -> Result<()> {
        let (file, traces) = (Arc::new(source), weight_bytes(targets));
        let mut begin = 0;
        for (index, (_, tensor)) in targets.iter().enumerate() {
            let mut trace = [0; TRACE_BYTES as usize];
            file.read_exact_at(&mut trace, traces + index as u64 * TRACE_BYTES)?;
            let (file, trace) = (Arc::clone(&file), Trace::from_bytes(trace));
            let place = SolvedTensor { file, begin, trace };
            self.places.insert(tensor.info.name.clone(), place);
            begin += tensor.info.size_bytes();
        }
        Ok(())
    }
}

fn weight_bytes(targets: &Targets<'_>) -> u64 {
    targets.iter().map(|(_, tensor)| tensor.info.size_bytes()).sum()
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

fn bytes_of(weights: &Dense) -> &[u8] {
    match weights {
        Dense::Bf16(weights) => bytemuck::cast_slice(weights),
        Dense::F16(weights) => bytemuck::cast_slice(weights),
        Dense::F32(weights) => bytemuck::cast_slice(weights),
    }
}

fn dense_of(bytes: &[u8], tensor: &PlannedTensor) -> Dense {
    match tensor.info.dtype {
        Dtype::BF16 => Dense::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        Dtype::F16 => Dense::F16(bytemuck::pod_collect_to_vec(bytes)),
        _ => Dense::F32(bytemuck::pod_collect_to_vec(bytes)),
    }
}
