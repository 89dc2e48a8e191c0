//! Pruner, auditor, verifier and plain loops agree.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod flips;
mod forged;
mod methods;
mod other_tools;
mod places;
mod requests;
mod tampering;
mod tiles;
mod views;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use physarium::audit::{Audit, AuditRequest, Evidence, audit, verify};
use physarium::checkpoint::{
    Amount, Checkpoint, Criterion, Dtype, FlowRecipe, Method, NonFinite, Recipe, Scope,
};
use physarium::flow::FlowParams;
use physarium::{Cancel, Options, Output, RecipeOptions, Silent, Surgery};
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

const JOURNAL: &str = "physarium.journal.jsonl";
const MANIFEST: &str = "physarium.manifest.json";

fn recipe(method: Method) -> Recipe {
    Recipe { method, target: vec![], skip: vec![], non_finite: NonFinite::Refuse, arithmetic: None }
}

fn default_method() -> Method {
    RecipeOptions::default().build(None).unwrap().method
}

/// The magnitude flow in tiles of this side length.
fn flow(block_size: u64) -> Method {
    let flow = FlowRecipe { iterations: 30, beta: 2.0, inflow: FlowParams::DEFAULT_INFLOW };
    Method::new(Criterion::MagnitudeFlow { block_size, flow }, Amount::Emergent).unwrap()
}

/// The smallest magnitudes, to an exact sparsity.
fn exact(sparsity: &str, scope: Scope) -> Method {
    let sparsity = sparsity.parse().unwrap();
    Method::new(Criterion::Magnitude, Amount::Sparsity { sparsity, scope }).unwrap()
}

/// The largest magnitudes of each group.
fn pattern(pattern: &str) -> Method {
    let amount = Amount::Pattern(pattern.parse().unwrap());
    Method::new(Criterion::Magnitude, amount).unwrap()
}

/// Every kind of method that uses magnitudes only.
fn methods() -> Vec<(&'static str, Method)> {
    vec![
        ("flow", default_method()),
        ("tile", exact("0.5", Scope::Tile { block_size: 24 })),
        ("tensor", exact("0.5", Scope::Tensor)),
        ("model", exact("0.5", Scope::Model)),
        ("2:4", pattern("2:4")),
        ("3:7", pattern("3:7")),
        ("small-flow", flow(24)),
    ]
}

/// Mixed element types, shapes that are not a multiple of any tile or group, an FP8 projection.
fn tensors() -> Vec<Tensor> {
    let mut tensors = llama_tensors(Kind::Bf16, 2, [48, 24, 70]);
    tensors.extend(llama_tensors(Kind::F32, 1, [33, 7, 50]).into_iter().map(|mut tensor| {
        tensor.name = tensor.name.replace("layers.0", "layers.7").replace("model.", "model.b.");
        tensor.name = tensor.name.replace("lm_head", "other_head");
        tensor
    }));
    tensors.push(Tensor::new("model.layers.8.mlp.up_proj.weight", Kind::F16, &[40, 31]));
    tensors.push(Tensor::new(
        "model.layers.8.mlp.down_proj.weight",
        Kind::Bytes("F8_E4M3"),
        &[8, 8],
    ));
    tensors
}

struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Work {
        Work(tempfile::tempdir().unwrap())
    }

    /// In memory if the system has a file system there: for tests with many small writes.
    fn in_memory() -> Work {
        let shared = Path::new("/dev/shm");
        let made = if shared.is_dir() { tempfile::tempdir_in(shared).ok() } else { None };
        made.map_or_else(Work::new, Work)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self, name: &str, tensors: &[Tensor], shards: usize) -> PathBuf {
        let dir = self.path(name);
        write_checkpoint(&dir, tensors, shards, Fill::Gaussian(5)).unwrap();
        fs::create_dir(dir.join("extra")).unwrap();
        fs::write(dir.join("extra/notes.txt"), "kept").unwrap();
        fs::write(dir.join("pytorch_model.bin"), "left out").unwrap();
        dir
    }
}

fn prune(model: &Path, out: &Path, method: Method, threads: usize) {
    let options = Options { threads, ..Options::default() };
    let surgery = Surgery::plan(model, recipe(method), options).unwrap();
    surgery.prune(Output::new(out), &Cancel::default(), &mut Silent).unwrap();
}

fn audit_with(dir: &Path, against: Option<&Path>, threads: usize) -> Audit {
    let evidence = Evidence::Bytes;
    let request = AuditRequest { dir, against, evidence, selection: None, threads };
    audit(&request, &mut |_| Ok(())).unwrap()
}

fn audit_of(dir: &Path, against: Option<&Path>) -> Audit {
    audit_with(dir, against, 2)
}

fn findings(model: &Path, out: &Path) -> Vec<String> {
    let result = verify(model, out, &mut |_| Ok(())).unwrap();
    result.findings.iter().map(ToString::to_string).collect()
}

/// Every file in a directory and below, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(current) = open.pop() {
        for entry in fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// Every tensor's bytes by name.
fn by_tensor(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let shards = checkpoint.shards().iter();
    let one = |shard: &physarium::checkpoint::Shard| {
        let bytes = fs::read(&shard.path).unwrap();
        let cut = |t: &physarium::checkpoint::TensorInfo| {
            (t.name.clone(), bytes[t.begin as usize..t.end as usize].to_vec())
        };
        shard.tensors.iter().map(cut).collect::<Vec<_>>()
    };
    shards.flat_map(one).collect()
}

/// Numbers of weights that are zero, pruned, already zero, zero with a sign bit, and changed to another value; counted
/// in a plain loop.
fn counted(before: &[u8], after: &[u8], dtype: Dtype) -> [u64; 5] {
    let size = (dtype.bits() / 8) as usize;
    let is_zero =
        |w: &[u8]| w[..size - 1].iter().all(|b| *b == 0) && matches!(w[size - 1], 0 | 128);
    let mut counts = [0; 5];
    for (before, after) in before.chunks(size).zip(after.chunks(size)) {
        let (was, is) = (is_zero(before), is_zero(after));
        let negative = is && after[size - 1] == 128;
        let changed = !is && before != after;
        for (count, yes) in counts.iter_mut().zip([is, is && !was, is && was, negative, changed]) {
            *count += u64::from(yes);
        }
    }
    counts
}

fn copy_files(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(&name), bytes).unwrap();
    }
}
