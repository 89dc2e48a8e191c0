//! The commit protocol through the public API: an output is absent, visibly unfinished, or complete.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod foreign;
mod places;
mod publish;
mod records;
mod resume;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use physarium_checkpoint::journal::{
    self, InputShard, Outcome, Processed, RunRecord, ShardRecord, TensorRecord, Tiles, Totals,
};
use physarium_checkpoint::manifest::{self, FileEntry, LeftOut, Manifest, TensorEntry};
use physarium_checkpoint::{
    Amount, Blake3, Checkpoint, Criterion, Digest, Disposition, Error, Inputs, LinkPolicy, Method,
    Named, NonFinite, Overwrite, Purpose, Recipe, Resume, Scope, Sha256, Shard, ShardInputs,
    Sidecar, Staging, StagingRequest,
};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const MARKER: &str = "physarium.unfinished.json";

/// The files below a directory with their bytes. Names of directories end in `/`, those of links in `@`.
type Tree = BTreeMap<String, Vec<u8>>;

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
            let kind = path.symlink_metadata().unwrap();
            if kind.is_dir() {
                found.insert(name + "/", Vec::new());
                left.push(path);
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.insert(name + "@", target.to_string_lossy().into_owned().into_bytes());
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A directory with a checkpoint `model` of two shards, and runs that write `out` next to it.
struct Work {
    root: tempfile::TempDir,
    tool: &'static str,
    sparsity: &'static str,
    overwrite: Overwrite,
    resume: Resume,
    shard_inputs: ShardInputs,
    calibration_tokens: Option<Digest>,
}

impl Work {
    fn new() -> Work {
        let root = tempfile::tempdir().unwrap();
        let tensors = [
            Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[8, 8]),
            Tensor::new("model.norm.weight", Kind::F32, &[8]),
            Tensor::new("model.layers.1.mlp.up_proj.weight", Kind::Bf16, &[8, 8]),
        ];
        let model = root.path().join("model");
        write_checkpoint(&model, &tensors, 2, Fill::Gaussian(1)).unwrap();
        fs::create_dir_all(model.join("a/b")).unwrap();
        fs::write(model.join("a/b/notes.txt"), "notes").unwrap();
        fs::write(model.join("old.bin"), "left out").unwrap();
        fs::write(model.join("tokenizer.json"), "{}").unwrap();
        Work {
            root,
            tool: "physarium test",
            sparsity: "0.5",
            overwrite: Overwrite::Refuse,
            resume: Resume::Continue,
            shard_inputs: ShardInputs::Own,
            calibration_tokens: None,
        }
    }

    /// A run whose shards all depend on the whole input, as those of an activation-aware method.
    fn calibrated() -> Work {
        Work {
            shard_inputs: ShardInputs::All,
            calibration_tokens: Some(Sha256::of(b"tokens")),
            ..Work::new()
        }
    }

    fn inputs(&self) -> Inputs<'static> {
        Inputs {
            files: &["tokenizer.json", "added_tokens.json"],
            shards: self.shard_inputs,
            calibration_tokens: self.calibration_tokens,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn model(&self) -> PathBuf {
        self.at("model")
    }

    fn out(&self) -> PathBuf {
        self.at("out")
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.at(".out.physarium-partial").join(name)
    }

    fn journal(&self) -> PathBuf {
        self.partial(journal::FILE_NAME)
    }

    /// Begins a run into `out`.
    fn begin(&self) -> Result<Staging, Error> {
        self.begin_at(&self.out(), &mut |_| Ok(()))
    }

    fn begin_at(
        &self,
        out: &Path,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Staging, Error> {
        let checkpoint = Checkpoint::open(&self.model()).unwrap();
        let request = StagingRequest {
            out,
            checkpoint: &checkpoint,
            run: self.run_record(&checkpoint),
            inputs: self.inputs(),
            output_bytes: 10_000,
            solved_bytes: 0,
            overwrite: self.overwrite,
            resume: self.resume,
        };
        Staging::begin(request, on_bytes)
    }

    fn run_record(&self, checkpoint: &Checkpoint) -> RunRecord {
        let input = |shard: &Shard| InputShard {
            name: shard.name.clone(),
            size_bytes: shard.size_bytes(),
            header_sha256: shard.header_sha256,
        };
        RunRecord {
            schema: journal::SCHEMA.to_owned(),
            tool: self.tool.to_owned(),
            recipe: self.recipe(),
            input: checkpoint.shards().iter().map(input).collect(),
        }
    }

    fn recipe(&self) -> Recipe {
        let (sparsity, scope) = (self.sparsity.parse().unwrap(), Scope::Tile { block_size: 4 });
        let amount = Amount::Sparsity { sparsity, scope };
        Recipe {
            method: Method::new(Criterion::Magnitude, amount).unwrap(),
            target: Vec::new(),
            skip: vec!["*.layers.7.*".to_owned()],
            non_finite: NonFinite::Refuse,
            arithmetic: None,
        }
    }

    /// Does the first `steps` steps of a run and stops like a killed process; returns whether the output was
    /// published.
    fn run(&self, steps: usize) -> Result<bool, Error> {
        self.run_from(self.begin()?, steps)
    }

    fn finish(&self) {
        assert!(self.run(usize::MAX).unwrap());
    }

    /// As [`Work::run`], from the state of `staging`. Every call that writes is a step.
    fn run_from(&self, mut staging: Staging, steps: usize) -> Result<bool, Error> {
        let checkpoint = Checkpoint::open(&self.model()).unwrap();
        let mut left = steps;
        let mut step = || left.checked_sub(1).map(|rest| left = rest);
        macro_rules! step {
            () => {
                if step().is_none() {
                    return Ok(false);
                }
            };
        }
        let mut tensors: Vec<TensorRecord> = Vec::new();
        let mut shards: Vec<ShardRecord> = Vec::new();
        for done in staging.finished() {
            tensors.extend(done.tensors.iter().cloned());
            shards.push(done.shard.clone());
        }
        for shard in &checkpoint.shards()[shards.len()..] {
            let (input, output) = (fs::read(&shard.path).unwrap(), pruned(shard));
            step!();
            let mut part = staging.create_shard(&shard.name, shard.size_bytes())?;
            for half in output.chunks(output.len().div_ceil(2)) {
                step!();
                part.write_all(half)?;
            }
            for record in tensor_records(shard, &output) {
                step!();
                staging.record_tensor(record.clone())?;
                tensors.push(record);
            }
            let record = ShardRecord {
                name: shard.name.clone(),
                size_bytes: shard.size_bytes(),
                input_sha256: Sha256::of(&input),
                output_sha256: Sha256::of(&output),
            };
            step!();
            staging.finish_shard(&shard.path, part, record.clone())?;
            shards.push(record);
        }
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        for sidecar in
            Sidecar::list(&checkpoint, Purpose::NewWeights, LinkPolicy::LeaveOut).unwrap()
        {
            match sidecar.disposition {
                Disposition::Copy => {
                    step!();
                    let path = &sidecar.path;
                    files.push(staging.copy_sidecar(checkpoint.dir(), path, &mut |_| Ok(()))?);
                }
                Disposition::LeftOut(reason) => left_out.push(LeftOut {
                    path: sidecar.path.to_str().unwrap().to_owned(),
                    reason: reason.to_owned(),
                }),
            }
        }
        step!();
        let totals = Totals::of(&tensors);
        staging.publish(totals, |journal: FileEntry| {
            files.push(journal);
            Manifest {
                schema: manifest::SCHEMA.to_owned(),
                tool: self.tool.to_owned(),
                recipe: self.recipe(),
                source: None,
                totals,
                shards,
                files,
                rewritten: Vec::new(),
                left_out,
                tensors: tensors.iter().filter_map(TensorEntry::of).collect(),
                check: String::new(),
            }
        })?;
        Ok(true)
    }
}

/// A shard's bytes with every projection set to zero, which takes the place of pruning.
fn pruned(shard: &Shard) -> Vec<u8> {
    let mut bytes = fs::read(&shard.path).unwrap();
    for tensor in shard.tensors.iter().filter(|tensor| tensor.name.contains("proj")) {
        bytes[tensor.begin as usize..tensor.end as usize].fill(0);
    }
    bytes
}

fn tensor_records(shard: &Shard, output: &[u8]) -> Vec<TensorRecord> {
    let record = |tensor: &physarium_checkpoint::TensorInfo| {
        let mut digest = Blake3::default();
        digest.update(&output[tensor.begin as usize..tensor.end as usize]);
        let outcome = match Named::of_default_target(&tensor.name) {
            Some(named) => Outcome::Processed(Processed {
                projection: named.projection,
                layer: named.site.layer,
                processed: tensor.elements,
                pruned: tensor.elements,
                already_zero: 0,
                non_finite: 0,
                refitted: 0,
                dead_inputs: 0,
                output_error: None,
                error_before_update: None,
                tiles: Some(Tiles { expected: 4, visited: 4 }),
                matrices: Vec::new(),
            }),
            None => Outcome::Skipped { reason: "not a target projection".to_owned() },
        };
        TensorRecord {
            name: tensor.name.clone(),
            shard: shard.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            elements: tensor.elements,
            outcome,
            output_blake3: Some(digest.finish()),
        }
    };
    shard.tensors.iter().map(record).collect()
}

/// Changes one bit of a file in place.
fn flip(path: &Path, at: usize, bit: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

#[track_caller]
fn says(error: &Error, needles: &[&str]) {
    let text = error.to_string();
    for needle in needles {
        assert!(text.contains(needle), "no {needle:?} in: {text}");
    }
    assert!(!text.contains('\u{1b}'), "raw ESC in {text:?}");
}
