/*!
Files of solved weights, one for each layer. A file is durable once its layer is solved, so that an interrupted run
loses at most one layer.

A file is in the safetensors format. It holds the layer's targets under their own names, in their own dtypes and
shapes. Its metadata is one JSON object (of several entries, the order would not be the same each time). That holds `key`, a
digest of everything that the layer was solved from ([`Staging::key`]), `stats`, JSON with the [`SolutionStats`] of
each target, and `blake3`, the digest of the targets' bytes in data-flow order, then of `key` and `stats`.

[`Staging::key`]: physarium_checkpoint::Staging::key
*/

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use physarium_checkpoint::{
    Blake3, Digest, Dtype, Error as CheckpointError, PlannedTensor, ScratchFile, Shard, Source,
    TensorInfo, write_whole_with,
};
use physarium_flow::FloatFormat;
use physarium_model::{Dense, Linear};
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Name of a run's scratch file beside the files of layers.
pub(super) const STREAMS_NAME: &str = "streams.f32";
/// Bytes of a header's length field.
const LENGTH_BYTES: usize = 8;
/// The entry of the metadata.
const SOLVED: &str = "solved";

/// Solved weights of targets.
#[derive(Default)]
pub(crate) struct SolvedWeights {
    tensors: HashMap<String, SolvedTensor>,
}

/// Figures of a target's solution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SolutionStats {
    /// Inputs that are always zero on the calibration text.
    pub dead_inputs: u64,
    /// Error of its outputs, as [`OutputErrors::after`](physarium_flow::activation::OutputErrors).
    pub output_error: f64,
    /// As [`OutputErrors::before_update`](physarium_flow::activation::OutputErrors).
    pub error_before_update: f64,
}

/// The place of a target's solved weights.
#[derive(Clone)]
pub(crate) struct SolvedTensor {
    /// The file of its layer.
    pub file: Arc<Source>,
    /// Its first byte in the file.
    pub begin: u64,
    /// Figures of its solution.
    pub stats: SolutionStats,
}

impl SolvedWeights {
    /// The solved weights of a target, by its tensor's name.
    pub fn of(&self, tensor: &str) -> &SolvedTensor {
        &self.tensors[tensor]
    }

    /// Forgets the solved weights of tensors that the output holds, and removes each file of which nothing is left.
    ///
    /// # Errors
    /// `Checkpoint` if a file cannot be removed.
    pub fn release(&mut self, written: &[PlannedTensor]) -> Result<()> {
        for tensor in written {
            let Some(solved) = self.tensors.remove(&tensor.input.name) else { continue };
            if let Some(file) = Arc::into_inner(solved.file) {
                let path = file.path().to_owned();
                // Some systems do not remove a file that is open.
                drop(file);
                fs::remove_file(&path).map_err(|e| CheckpointError::io(&path, "remove", e))?;
            }
        }
        Ok(())
    }

    /// Remembers the places of solved weights, and returns these.
    pub fn remember(&mut self, stored: Stored) -> Vec<Dense> {
        let Stored { tensors, stats, weights, file } = stored;
        let file = Arc::new(file);
        for (info, stats) in tensors.into_iter().zip(stats) {
            let (file, begin) = (Arc::clone(&file), info.begin);
            self.tensors.insert(info.name, SolvedTensor { file, begin, stats });
        }
        weights
    }
}

/// A target with its solved weights, which it shares with the model's layer.
pub(crate) struct SolvedMap<'a> {
    pub target: &'a PlannedTensor,
    pub map: Linear,
    pub stats: SolutionStats,
}

/// Reads and writes the files of a run.
pub(super) struct LayerFiles {
    dir: PathBuf,
    /// Digest of everything that layers are solved from.
    key: Digest,
    solved: SolvedWeights,
}

/// The header of a layer's file.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: Entries,
}

#[derive(Deserialize)]
struct Entries {
    solved: String,
}

#[derive(Serialize, Deserialize)]
struct FileMetadata {
    key: Digest,
    stats: String,
    blake3: Digest,
}

impl LayerFiles {
    /// The files in `dir`, which is created if missing, of layers solved from what `key` is a digest of. The scratch file
    /// of an interrupted run is removed.
    ///
    /// # Errors
    /// `Checkpoint` if one cannot be created or removed.
    pub fn new(dir: PathBuf, key: Digest) -> Result<LayerFiles> {
        fs::create_dir_all(&dir).map_err(|e| CheckpointError::io(&dir, "create", e))?;
        ScratchFile::remove_left(&dir.join(STREAMS_NAME))?;
        Ok(LayerFiles { dir, key, solved: SolvedWeights::default() })
    }

    /// The solved weights of a layer's targets, if an interrupted run left a complete file.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read.
    pub fn take(&mut self, layer: usize, targets: &[&PlannedTensor]) -> Result<Option<Vec<Dense>>> {
        let Some(stored) = Stored::read(&self.path(layer), self.key, targets)? else {
            return Ok(None);
        };
        Ok(Some(self.solved.remember(stored)))
    }

    /// Whether there is a file of a layer, complete or not.
    pub fn has(&self, layer: usize) -> bool {
        self.path(layer).symlink_metadata().is_ok()
    }

    /// Writes the file of a layer and makes it durable. `maps` are in data-flow order.
    ///
    /// # Errors
    /// `Checkpoint` if it cannot be written.
    pub fn keep(&mut self, layer: usize, maps: &[SolvedMap<'_>]) -> Result<()> {
        let path = self.path(layer);
        write_whole_with(&path, |part| write_solved(part, self.key, maps))?;
        let shard = Shard::open(&path)?;
        let targets: Vec<&PlannedTensor> = maps.iter().map(|map| map.target).collect();
        let tensors = find(&shard, &targets).expect("the file holds what was written to it");
        let tensors = tensors.into_iter().cloned().collect();
        let stats = maps.iter().map(|map| map.stats).collect();
        let file = shard.reopen()?;
        self.solved.remember(Stored { tensors, stats, weights: Vec::new(), file });
        Ok(())
    }

    /// The figures of a target that was taken or kept.
    pub fn stats_of(&self, tensor: &str) -> SolutionStats {
        self.solved.of(tensor).stats
    }

    /// The solved weights of all layers that were taken or kept.
    pub fn finish(self) -> SolvedWeights {
        self.solved
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.dir.join(format!("layer-{layer:05}.safetensors"))
    }
}

/// A file of solved weights that is what it says.
pub(crate) struct Stored {
    tensors: Vec<TensorInfo>,
    stats: Vec<SolutionStats>,
    /// As many, or none if they are not needed.
    weights: Vec<Dense>,
    file: Source,
}

impl Stored {
    /// Reads a file of solved weights. `targets` and the weights are in data-flow order. A file that is missing, incomplete
    /// or damaged, of another key, or that holds other tensors or a weight that is not finite, counts as none.
    ///
    /// # Errors
    /// `Checkpoint` if the file cannot be read.
    pub fn read(path: &Path, key: Digest, targets: &[&PlannedTensor]) -> Result<Option<Stored>> {
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let shard = match Shard::open(path) {
            Ok(shard) => shard,
            Err(CheckpointError::Malformed(_)) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let file = shard.reopen()?;
        let (Some(stored), Some(metadata)) = (find(&shard, targets), metadata(&shard, &file)?)
        else {
            return Ok(None);
        };
        if metadata.key != key {
            return Ok(None);
        }
        let mut digest = Blake3::default();
        let mut weights = Vec::new();
        for info in &stored {
            let mut bytes = vec![0; info.size_bytes() as usize];
            file.read_exact_at(&mut bytes, info.begin)?;
            digest.update(&bytes);
            weights.push(dense_of(&bytes, info.dtype));
        }
        digest.update(&key.0);
        digest.update(metadata.stats.as_bytes());
        if digest.finish() != metadata.blake3 || !weights.iter().all(is_finite) {
            return Ok(None);
        }
        let stats: HashMap<String, SolutionStats> =
            serde_json::from_str(&metadata.stats).unwrap_or_default();
        let stats: Option<Vec<_>> = stored.iter().map(|i| stats.get(&i.name).copied()).collect();
        let Some(stats) = stats else { return Ok(None) };
        let tensors = stored.into_iter().cloned().collect();
        Ok(Some(Stored { tensors, stats, weights, file }))
    }
}

/// Writes a file of solved weights; the caller makes it durable.
///
/// # Errors
/// `Checkpoint` if it cannot be written.
pub(crate) fn write_solved(path: &Path, key: Digest, maps: &[SolvedMap<'_>]) -> Result<()> {
    let stats: BTreeMap<&str, SolutionStats> =
        maps.iter().map(|map| (map.target.input.name.as_str(), map.stats)).collect();
    let failed = |e: io::Error| CheckpointError::io(path, "write", e);
    let stats = serde_json::to_string(&stats).map_err(|e| failed(e.into()))?;
    let mut digest = Blake3::default();
    let mut views = Vec::new();
    let weights: Vec<_> = maps.iter().map(|solved| solved.map.weights()).collect();
    for (SolvedMap { target, .. }, weights) in maps.iter().zip(&weights) {
        let (dtype, bytes) = stored_form(weights);
        digest.update(bytes);
        let shape = target.input.shape.iter().map(|size| *size as usize).collect();
        let view = TensorView::new(dtype, shape, bytes).map_err(|e| failed(io::Error::other(e)))?;
        views.push((target.input.name.as_str(), view));
    }
    digest.update(&key.0);
    digest.update(stats.as_bytes());
    let metadata = FileMetadata { key, stats, blake3: digest.finish() };
    let metadata = serde_json::to_string(&metadata).map_err(|e| failed(e.into()))?;
    let metadata = [(SOLVED.to_owned(), metadata)].into();
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|e| failed(io::Error::other(e)).into())
}

/// The tensors of a layer's file, one for each target; `None` if it does not hold exactly these.
fn find<'a>(shard: &'a Shard, targets: &[&PlannedTensor]) -> Option<Vec<&'a TensorInfo>> {
    let of = |target: &&PlannedTensor| {
        shard.tensors.iter().find(|info| {
            let expected = &target.input;
            (&info.name, info.dtype, &info.shape)
                == (&expected.name, expected.dtype, &expected.shape)
        })
    };
    let found: Vec<&TensorInfo> = targets.iter().map(of).collect::<Option<_>>()?;
    (found.len() == shard.tensors.len()).then_some(found)
}

/// The metadata of a layer's file; `None` if it is malformed.
fn metadata(shard: &Shard, file: &Source) -> Result<Option<FileMetadata>> {
    let mut header = vec![0; shard.data_begin as usize];
    file.read_exact_at(&mut header, 0)?;
    let header: Option<Header> = serde_json::from_slice(&header[LENGTH_BYTES..]).ok();
    Ok(header.and_then(|header| serde_json::from_str(&header.metadata.solved).ok()))
}

fn stored_form(weights: &Dense) -> (safetensors::Dtype, &[u8]) {
    match weights {
        Dense::Bf16(weights) => (safetensors::Dtype::BF16, bytemuck::cast_slice(weights)),
        Dense::F16(weights) => (safetensors::Dtype::F16, bytemuck::cast_slice(weights)),
        Dense::F32(weights) => (safetensors::Dtype::F32, bytemuck::cast_slice(weights)),
    }
}

/// Whether no weight is NaN or infinite.
fn is_finite(weights: &Dense) -> bool {
    match weights {
        Dense::Bf16(bits) => bits.iter().all(|bits| FloatFormat::Bf16.is_finite((*bits).into())),
        Dense::F16(weights) => weights.iter().all(|weight| weight.is_finite()),
        Dense::F32(weights) => weights.iter().all(|weight| weight.is_finite()),
    }
}

fn dense_of(bytes: &[u8], dtype: Dtype) -> Dense {
    match dtype {
        Dtype::BF16 => Dense::Bf16(bytemuck::pod_collect_to_vec(bytes)),
        Dtype::F16 => Dense::F16(bytemuck::pod_collect_to_vec(bytes)),
        _ => Dense::F32(bytemuck::pod_collect_to_vec(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use physarium_checkpoint::Action;

    use super::*;

    fn target(name: &str, dtype: Dtype, shape: [u64; 2]) -> PlannedTensor {
        let elements = shape[0] * shape[1];
        let end = elements * dtype.bits() / 8;
        let shape = shape.to_vec();
        let input = TensorInfo { name: name.to_owned(), dtype, shape, elements, begin: 0, end };
        PlannedTensor { shard: 0, input, named: None, views: Vec::new(), action: Action::Prune }
    }

    const RUN: Digest = Digest([7; 32]);

    fn take(dir: &Path, targets: &[&PlannedTensor]) -> Option<(Vec<Dense>, SolvedWeights)> {
        let mut files = LayerFiles::new(dir.to_owned(), RUN).expect("a directory");
        let weights = files.take(3, targets).expect("a readable file")?;
        Some((weights, files.finish()))
    }

    fn map(target: &PlannedTensor, weights: &Dense) -> Linear {
        let [rows, cols] = [0, 1].map(|axis| target.input.shape[axis] as usize);
        Linear::new(rows, cols, weights.clone(), None)
    }

    #[test]
    fn a_layer_reads_back_exactly_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        // Not in the order in which safetensors writes them.
        let targets = [target("q", Dtype::BF16, [2, 3]), target("a \"b\"", Dtype::F32, [1, 2])];
        let solved = [
            (Dense::Bf16(vec![1, 2, 3, 0, 0x8000, 0xff7f]), 2, 0.1 + 0.2),
            (Dense::F32(vec![f32::MIN_POSITIVE, -0.0]), 0, f64::MIN_POSITIVE / 3.0),
        ];
        let maps: Vec<SolvedMap<'_>> = targets
            .iter()
            .zip(&solved)
            .map(|(target, (weights, dead_inputs, output_error))| SolvedMap {
                target,
                map: map(target, weights),
                stats: SolutionStats {
                    dead_inputs: *dead_inputs,
                    output_error: *output_error,
                    error_before_update: *output_error,
                },
            })
            .collect();
        let both: Vec<&PlannedTensor> = targets.iter().collect();
        assert!(take(dir.path(), &both).is_none());
        let mut files = LayerFiles::new(dir.path().to_owned(), RUN).expect("a directory");
        files.keep(3, &maps).expect("written");
        let kept = files.finish();
        let (weights, taken) = take(dir.path(), &both).expect("a complete file");
        for (index, (target, (expected, ..))) in targets.iter().zip(&solved).enumerate() {
            assert_eq!(stored_form(&weights[index]), stored_form(expected));
            for all in [&kept, &taken] {
                let SolvedTensor { file, begin, stats } = all.of(&target.input.name);
                assert_eq!(*stats, maps[index].stats);
                let mut bytes = vec![0; target.input.size_bytes() as usize];
                file.read_exact_at(&mut bytes, *begin).expect("in the file");
                assert_eq!(bytes, stored_form(expected).1);
            }
        }

        let mut of_other =
            LayerFiles::new(dir.path().to_owned(), Digest([8; 32])).expect("a directory");
        assert!(of_other.take(3, &both).expect("readable").is_none(), "solved by another run");
        assert!(take(dir.path(), &both[..1]).is_none(), "the file holds another tensor too");
        let other = target("q", Dtype::BF16, [3, 2]);
        assert!(take(dir.path(), &[&other, both[1]]).is_none(), "a target of another shape");
        let path = dir.path().join("layer-00003.safetensors");
        let whole = fs::read(&path).expect("the file");
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).expect("written");
            assert!(take(dir.path(), &both).is_none(), "truncated after {end} bytes");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("written");
            assert!(take(dir.path(), &both).is_none(), "byte {at} is changed");
        }
    }

    #[test]
    fn a_layer_with_a_weight_that_is_not_finite_is_solved_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let f16 = |bits: &[u16]| Dense::F16(bytemuck::pod_collect_to_vec(bits));
        let bf16 = [Dense::Bf16(vec![0x7f80, 1]), Dense::Bf16(vec![1, 0xffc0])];
        let half = [f16(&[0xfc00, 1]), f16(&[0x7e00, 1])];
        let f32 = [Dense::F32(vec![f32::NAN, 1.0]), Dense::F32(vec![1.0, f32::NEG_INFINITY])];
        let largest = [
            Dense::Bf16(vec![0x7f7f, 1]),
            f16(&[0x7bff, 1]),
            Dense::F32(vec![f32::MAX, -f32::MAX]),
        ];
        let all = bf16.iter().chain(&half).chain(&f32).map(|w| (w, false));
        for (weights, is_kept) in all.chain(largest.iter().map(|w| (w, true))) {
            let dtype = match weights {
                Dense::Bf16(_) => Dtype::BF16,
                Dense::F16(_) => Dtype::F16,
                Dense::F32(_) => Dtype::F32,
            };
            let target = target("q", dtype, [1, 2]);
            let stats =
                SolutionStats { dead_inputs: 0, output_error: 0.0, error_before_update: 0.0 };
            let map = SolvedMap { target: &target, map: map(&target, weights), stats };
            let mut files = LayerFiles::new(dir.path().to_owned(), RUN).expect("a directory");
            files.keep(3, &[map]).expect("written");
            assert_eq!(take(dir.path(), &[&target]).is_some(), is_kept, "{weights:?}");
        }
    }
}
