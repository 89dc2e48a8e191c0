//! What must be the same however it is come by: pruner, auditor, verifier and naive loops.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use physarium::audit::{Audit, AuditRequest, Base, Evidence, audit, verify};
use physarium::checkpoint::manifest::Manifest;
use physarium::checkpoint::{
    Blake3, Checkpoint, Dtype, FlowRecipe, Method, NonFinite, Overwrite, Recipe, Resume, Scope,
    Sha256, Sparsity,
};
use physarium::flow::{
    Census, Conductance, FloatFormat, FlowParams, TileView, apply_cut, exact_cut,
};
use physarium::{Cancel, Options, Silent, Surgery, default_method};
use physarium_fixtures::{Fill, Kind, Noise, Tensor, llama_tensors, with_length, write_checkpoint};
use serde_json::{Value, json};

fn recipe(method: Method) -> Recipe {
    Recipe { method, target: vec![], skip: vec![], non_finite: NonFinite::Refuse }
}

/// The magnitude flow with small tiles.
fn flow(block_size: u64) -> Method {
    let flow = FlowRecipe { iterations: 30, beta: 2.0, inflow: FlowParams::DEFAULT_INFLOW };
    Method::MagnitudeFlow { block_size, flow }
}

fn methods() -> Vec<(&'static str, Method)> {
    let exact = |scope| Method::Exact { sparsity: "0.5".parse().unwrap(), scope };
    vec![
        ("flow", default_method()),
        ("tile", exact(Scope::Tile { block_size: 24 })),
        ("tensor", exact(Scope::Tensor)),
        ("model", exact(Scope::Model)),
        ("2:4", Method::Pattern { pattern: "2:4".parse().unwrap() }),
        ("3:7", Method::Pattern { pattern: "3:7".parse().unwrap() }),
        ("small-flow", flow(24)),
    ]
}

/// Mixed element types, shapes that no tile or group divides, an FP8 projection, a mask with NaN.
fn tensors() -> Vec<Tensor> {
    let mut tensors = llama_tensors(Kind::Bf16, 2, 48, 24, 70);
    tensors.extend(llama_tensors(Kind::F32, 1, 33, 7, 50).into_iter().map(|mut tensor| {
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

    /// On a file system in memory where there is one: for many small writes.
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
    let cancel = Cancel::default();
    surgery.prune(out, Overwrite::Refuse, Resume::Continue, &cancel, &mut Silent).unwrap();
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

/// Every file below a directory with its bytes.
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

/// Zero, pruned, already zero, sign-bit zero, changed otherwise: weight by weight, in a plain loop.
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

#[test]
fn pruned_audited_and_verified_for_every_method() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 3);
    for (name, method) in methods() {
        let out = work.path(&format!("out-{name}"));
        prune(&model, &out, method, 2);
        assert_eq!(findings(&model, &out), [""; 0], "{name}");
        let against = audit_of(&out, Some(&model));
        assert!(against.denominator_correct, "{name}: {:#?}", against.identities);
        assert_eq!(against.changed.as_ref().unwrap().elements, 0);
        let alone = audit_of(&out, None);
        assert!(alone.denominator_correct && alone.base == Base::Journal, "{name}");
        assert_eq!(alone.pruned, against.pruned, "{name}");
        let (before, after) = (by_tensor(&model), by_tensor(&out));
        for tensor in &against.tensors {
            let (before, after) = (&before[&tensor.name], &after[&tensor.name]);
            let counted = counted(before, after, tensor.dtype);
            let found = [
                tensor.zero,
                tensor.pruned.unwrap(),
                tensor.already_zero.unwrap(),
                tensor.sign_bit_zero.unwrap(),
                tensor.changed.unwrap(),
            ];
            assert_eq!(found, counted, "{name} {}", tensor.name);
            assert_eq!(tensor.processed, Some(tensor.elements));
        }
        for projection in &against.projections {
            let inside = against.tensors.iter().filter(|t| t.role == projection.projection);
            let (elements, pruned) = inside.fold((0, 0), |(elements, pruned), tensor| {
                (elements + tensor.elements, pruned + tensor.pruned.unwrap())
            });
            assert_eq!((projection.elements, projection.pruned), (elements, Some(pruned)));
        }
        let sum: u64 = against.tensors.iter().map(|t| t.pruned.unwrap()).sum();
        assert!(sum > 0 && against.pruned.as_ref().unwrap().elements == sum, "{name}");
        assert_eq!(audit_with(&out, Some(&model), 1), against, "{name} on one thread");
        assert_eq!(audit_with(&out, None, 1), alone, "{name} on one thread");
        assert!(!out.join("pytorch_model.bin").exists() && out.join("extra/notes.txt").exists());
    }
}

/// Writes every header of a checkpoint anew with its keys in reverse order; the data stays.
fn reverse_keys(dir: &Path) {
    for shard in Checkpoint::open(dir).unwrap().shards() {
        let bytes = fs::read(&shard.path).unwrap();
        let (header, data) = bytes.split_at(shard.data_begin as usize);
        let entries: serde_json::Map<String, Value> = serde_json::from_slice(&header[8..]).unwrap();
        let reversed: serde_json::Map<String, Value> = entries.into_iter().rev().collect();
        let reversed = with_length(Value::Object(reversed).to_string());
        assert_ne!(reversed, header);
        fs::write(&shard.path, [&reversed, data].concat()).unwrap();
    }
}

#[test]
fn threads_sharding_and_order_change_no_weight() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let mut backwards = tensors();
    backwards.reverse();
    let others = [
        ("single", work.model("single", &tensors(), 1)),
        ("five", work.model("five", &tensors(), 5)),
        ("backwards", work.model("backwards", &backwards, 3)),
        ("keys", work.model("keys", &tensors(), 2)),
    ];
    reverse_keys(&work.path("keys"));
    for (name, method) in methods() {
        let out = |suffix: &str| work.path(&format!("{name}-{suffix}"));
        prune(&model, &out("1"), method, 1);
        let files_of_one = files(&out("1"));
        for threads in [2, 8] {
            let other = out(&threads.to_string());
            prune(&model, &other, method, threads);
            assert!(files(&other) == files_of_one, "{name} on {threads} threads");
        }
        let expected = by_tensor(&out("1"));
        for (suffix, other) in &others {
            prune(other, &out(suffix), method, 2);
            assert!(by_tensor(&out(suffix)) == expected, "{name}, {suffix}");
            assert_eq!(findings(other, &out(suffix)), [""; 0], "{name}, {suffix}");
        }
    }
}

#[test]
fn pruning_again_at_the_same_sparsity_changes_nothing() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    for (name, method) in methods().into_iter().filter(|(name, _)| !name.contains("flow")) {
        let (once, twice) = (work.path(&format!("{name}-1")), work.path(&format!("{name}-2")));
        prune(&model, &once, method, 2);
        prune(&once, &twice, method, 2);
        assert!(by_tensor(&once) == by_tensor(&twice), "{name}");
    }
}

/// How a tile is decided in [`tile_by_tile`].
#[derive(Clone, Copy)]
enum Rule {
    Flow(FlowParams),
    Exact(Sparsity),
}

/// What pruning a matrix tile by tile gives: each is copied out, decided, cut and put back.
fn tile_by_tile(
    bytes: &[u8],
    format: FloatFormat,
    [rows, cols]: [usize; 2],
    edge: usize,
    rule: Rule,
) -> Vec<u8> {
    let size = format.size_bytes();
    let mut out = bytes.to_vec();
    let (mut census, mut conductance) = (Census::default(), Conductance::default());
    for top in (0..rows).step_by(edge) {
        for left in (0..cols).step_by(edge) {
            let (n_rows, n_cols) = (edge.min(rows - top), edge.min(cols - left));
            let row = |row: usize| {
                let begin = ((top + row) * cols + left) * size;
                begin..begin + n_cols * size
            };
            let mut tile: Vec<u8> = (0..n_rows).flat_map(|r| bytes[row(r)].to_vec()).collect();
            let view = TileView::new(&tile, format, [n_rows, n_cols], n_cols * size);
            let cut = match rule {
                Rule::Flow(params) => conductance.cuts([census.take(&view)], format, params)[0],
                Rule::Exact(share) => exact_cut(&view, census.take(&view), share.count(view.len())),
            };
            apply_cut(&mut tile, format, cut, 0);
            for (r, weights) in tile.chunks(n_cols * size).enumerate() {
                out[row(r)].copy_from_slice(weights);
            }
        }
    }
    out
}

fn default_flow() -> Rule {
    let (beta, inflow) = (FlowParams::DEFAULT_BETA, FlowParams::DEFAULT_INFLOW);
    Rule::Flow(FlowParams::new(FlowParams::DEFAULT_ITERATIONS, beta, inflow).unwrap())
}

fn exact_tiles(sparsity: &str, block_size: u64) -> (Method, Rule) {
    let sparsity = sparsity.parse().unwrap();
    (Method::Exact { sparsity, scope: Scope::Tile { block_size } }, Rule::Exact(sparsity))
}

/// Every target of `out` is what [`tile_by_tile`] makes of it; nothing else differs.
fn assert_tiled(model: &Path, out: &Path, edge: usize, rule: Rule) {
    let (before, after) = (by_tensor(model), by_tensor(out));
    let targets = audit_of(out, Some(model)).tensors;
    for target in &targets {
        let format = match target.dtype {
            Dtype::BF16 => FloatFormat::Bf16,
            Dtype::F16 => FloatFormat::F16,
            _ => FloatFormat::F32,
        };
        let shape = [target.shape[0] as usize, target.shape[1] as usize];
        let expected = tile_by_tile(&before[&target.name], format, shape, edge, rule);
        assert!(after[&target.name] == expected, "{} in tiles of {edge}", target.name);
        assert!(after[&target.name] != before[&target.name]);
    }
    assert_eq!(findings(model, out), [""; 0]);
}

#[test]
fn every_tile_is_solved_by_itself() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    for edge in [1, 7, 24, 256] {
        let (exact, share) = exact_tiles("0.6", edge);
        for (name, method, rule) in [("flow", flow(edge), default_flow()), ("exact", exact, share)]
        {
            // A tube alone carries all: nothing dies in tiles of one.
            if edge > 1 || name == "exact" {
                let out = work.path(&format!("{name}-{edge}"));
                prune(&model, &out, method, 2);
                assert_tiled(&model, &out, edge as usize, rule);
            }
        }
    }
}

#[test]
fn wide_bands_are_solved_tile_by_tile_too() {
    // 1024 x 16,500 BF16 is a band of 33.8 MB, over the 32 MiB that are held at once.
    let work = Work::new();
    let tensors = [Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bf16, &[1030, 16_500])];
    let model = work.path("model");
    write_checkpoint(&model, &tensors, 1, Fill::Gaussian(9)).unwrap();
    let (exact, share) = exact_tiles("0.3", 1024);
    for (name, method, rule) in [("flow", flow(1024), default_flow()), ("exact", exact, share)] {
        let out = work.path(name);
        prune(&model, &out, method, 2);
        assert_tiled(&model, &out, 1024, rule);
        let tiles = audit_of(&out, None).tiles.unwrap();
        assert_eq!((tiles.expected, tiles.visited, tiles.elements), (34, 34, 1030 * 16_500));
    }
}

/// An output of which single bits are flipped, in a copy for each thread.
struct Flips {
    model: PathBuf,
    out: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Flips {
    fn new(work: &Work, tensors: &[Tensor], shards: usize) -> Flips {
        let (model, out) = (work.model("model", tensors, shards), work.path("out"));
        prune(&model, &out, flow(24), 2);
        assert_eq!(findings(&model, &out), [""; 0]);
        let files = files(&out).into_iter().collect();
        Flips { model, out, files }
    }

    fn bits(&self, file: usize) -> u64 {
        8 * self.files[file].1.len() as u64
    }

    /// Flips one bit after the other (file, bit) and asserts that each is found.
    fn assert_found(&self, flips: &[(usize, u64)]) {
        const THREADS: usize = 2;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let mine = flips.iter().skip(thread).step_by(THREADS);
                scope.spawn(move || self.assert_found_in_copy(&format!("copy-{thread}"), mine));
            }
        });
    }

    fn assert_found_in_copy<'a>(&self, name: &str, flips: impl Iterator<Item = &'a (usize, u64)>) {
        let copy = self.out.with_file_name(name);
        copy_files(&self.out, &copy);
        let open = |(name, _): &(PathBuf, _)| {
            fs::OpenOptions::new().write(true).open(copy.join(name)).unwrap()
        };
        let handles: Vec<fs::File> = self.files.iter().map(open).collect();
        for &(file, bit) in flips {
            let (name, bytes) = &self.files[file];
            let at = bit / 8;
            let byte = bytes[at as usize];
            handles[file].write_all_at(&[byte ^ 1 << (bit % 8)], at).unwrap();
            assert_ne!(findings(&self.model, &copy), [""; 0], "{} bit {bit}", name.display());
            handles[file].write_all_at(&[byte], at).unwrap();
        }
        assert_eq!(findings(&self.model, &copy), [""; 0]);
    }
}

fn copy_files(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(&name), bytes).unwrap();
    }
}

#[test]
fn every_bit_of_a_small_output_counts() {
    let work = Work::in_memory();
    let tensors = [
        Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[6, 8]),
        Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bytes("F8_E4M3"), &[3, 3]),
        Tensor::new("model.norm.weight", Kind::F32, &[4]),
    ];
    let flips = Flips::new(&work, &tensors, 2);
    let all: Vec<(usize, u64)> = (0..flips.files.len())
        .flat_map(|file| (0..flips.bits(file)).map(move |bit| (file, bit)))
        .collect();
    assert!(all.len() > 40_000, "{}", all.len());
    flips.assert_found(&all);
}

#[test]
fn random_flips_in_a_larger_output_are_found() {
    let work = Work::in_memory();
    let flips = Flips::new(&work, &tensors(), 2);
    let mut noise = Noise::new(42);
    let files = flips.files.len() as u64;
    let all: u64 = (0..flips.files.len()).map(|file| flips.bits(file)).sum();
    let mut anywhere = || {
        let mut bit = noise.below(all);
        let file = (0..flips.files.len()).find(|&file| {
            let here = bit < flips.bits(file);
            bit -= if here { 0 } else { flips.bits(file) };
            here
        });
        (file.unwrap(), bit)
    };
    // Half by size, so that weights have their share; half by file.
    let mut some: Vec<(usize, u64)> = (0..RANDOM_FLIPS / 2).map(|_| anywhere()).collect();
    some.extend((0..RANDOM_FLIPS / 2).map(|_| {
        let file = noise.below(files) as usize;
        (file, noise.below(flips.bits(file)))
    }));
    flips.assert_found(&some);
}

/// Bits that [`random_flips_in_a_larger_output_are_found`] tries.
const RANDOM_FLIPS: usize = 10_000;

#[test]
fn tampering_is_named() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let clean = work.path("clean");
    prune(&model, &clean, default_method(), 2);
    let tampered = |what: &str, change: &dyn Fn(&Path), needle: &str| {
        let out = work.path(what);
        copy_files(&clean, &out);
        change(&out);
        let found = findings(&model, &out);
        assert!(found.iter().any(|f| f.contains(needle)), "{what}: no {needle:?} in {found:?}");
    };
    let first = "model-00001-of-00002.safetensors";
    let second = "model-00002-of-00002.safetensors";
    tampered(
        "drop",
        &|out| fs::remove_file(out.join("config.json")).unwrap(),
        "config.json: file is missing",
    );
    tampered("drop-shard", &|out| fs::remove_file(out.join(first)).unwrap(), "file is missing");
    tampered(
        "add",
        &|out| fs::write(out.join("x.py"), "x").unwrap(),
        "x.py: file is in the output and not",
    );
    let sidecar =
        |text: &'static str| move |out: &Path| fs::write(out.join("config.json"), text).unwrap();
    tampered("shorter", &sidecar("{}"), "config.json: expected 24 bytes, found 2");
    tampered("sidecar", &sidecar("{ model_type\": \"llama\"}\n"), "first at byte 1");
    let resize = |grow: i64| {
        move |out: &Path| {
            let file = fs::OpenOptions::new().write(true).open(out.join(second)).unwrap();
            file.set_len((file.metadata().unwrap().len() as i64 + grow) as u64).unwrap();
        }
    };
    tampered("truncate", &resize(-1), "model-00002-of-00002.safetensors: expected");
    tampered("extend", &resize(1), "model-00002-of-00002.safetensors: expected");
    let swap = |out: &Path| {
        fs::rename(out.join(first), out.join("t")).unwrap();
        fs::rename(out.join(second), out.join(first)).unwrap();
        fs::rename(out.join("t"), out.join(second)).unwrap();
    };
    tampered("swap", &swap, "model-00001-of-00002.safetensors");
    // Sealed again, so that only the comparison with the bytes can tell.
    let forge = |out: &Path| {
        let path = out.join("physarium.manifest.json");
        let mut manifest = Manifest::read(&path).unwrap();
        manifest.totals.pruned += 1;
        fs::write(&path, manifest.encode()).unwrap();
    };
    tampered("forge", &forge, "totals: not as in the journal");
    let weight = |out: &Path| {
        let checkpoint = Checkpoint::open(out).unwrap();
        let (shard, tensor) = checkpoint
            .tensors()
            .find(|(_, t)| t.name == "model.layers.0.self_attn.q_proj.weight")
            .unwrap();
        let mut bytes = fs::read(&shard.path).unwrap();
        let at = tensor.begin as usize + 2 * 77;
        bytes[at..at + 2].copy_from_slice(&[0x34, 0x12]);
        fs::write(&shard.path, bytes).unwrap();
    };
    tampered(
        "weight",
        &weight,
        "tensor model.layers.0.self_attn.q_proj.weight: weight 77 is neither",
    );
    let other = work.path("other");
    prune(&model, &other, methods()[2].1, 2);
    let take = |name: &'static str| {
        let other = &other;
        move |out: &Path| {
            fs::copy(other.join(name), out.join(name)).unwrap();
        }
    };
    tampered("journal", &take(JOURNAL), "recipe: not as in the journal");
    tampered("manifest", &take(MANIFEST), "recipe: not as in the journal");
    tampered("shard", &take(second), "SHA-256 of the output, expected");
    let remove = |name: &'static str| move |out: &Path| fs::remove_file(out.join(name)).unwrap();
    tampered("no-journal", &remove(JOURNAL), "physarium.journal.jsonl: file is missing");
    tampered("no-manifest", &remove(MANIFEST), "physarium.manifest.json: file is missing");
    tampered("no-norm", &|out| drop_tensor(out, "model.norm.weight"), "bytes, found");
    // What is there under the name, but is not a file that can be read.
    let instead = |name: &'static str, make: fn(&Path)| {
        move |out: &Path| {
            fs::remove_file(out.join(name)).unwrap();
            make(&out.join(name));
        }
    };
    let dangling = |path: &Path| std::os::unix::fs::symlink("nowhere", path).unwrap();
    let socket = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let directory = |path: &Path| fs::create_dir(path).unwrap();
    tampered("link", &instead("config.json", dangling), "config.json: cannot be read");
    tampered("socket", &instead("config.json", socket), "config.json: cannot be read");
    tampered("directory", &instead("config.json", directory), "config.json: file is missing");
    tampered("shard-link", &instead(first, dangling), "model-00001-of-00002.safetensors: cannot");
    tampered("shard-socket", &instead(second, socket), "model-00002-of-00002.safetensors: cannot");
    tampered("journal-link", &instead(JOURNAL, dangling), "physarium.journal.jsonl: ");
}

const JOURNAL: &str = "physarium.journal.jsonl";
const MANIFEST: &str = "physarium.manifest.json";

/// Takes a tensor out of the shard that holds it, so that what is left is well-formed.
fn drop_tensor(dir: &Path, name: &str) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let (shard, dropped) = checkpoint.tensors().find(|(_, t)| t.name == name).unwrap();
    let mut bytes = fs::read(&shard.path).unwrap();
    let mut header: serde_json::Map<String, Value> =
        serde_json::from_slice(&bytes[8..shard.data_begin as usize]).unwrap();
    header.remove(name).unwrap();
    for entry in header.values_mut().filter(|entry| entry["dtype"].is_string()) {
        for offset in entry["data_offsets"].as_array_mut().unwrap() {
            let at = offset.as_u64().unwrap();
            if at > dropped.begin - shard.data_begin {
                *offset = json!(at - dropped.size_bytes());
            }
        }
    }
    bytes.drain(dropped.begin as usize..dropped.end as usize);
    let header = with_length(Value::Object(header).to_string());
    fs::write(&shard.path, [&header, &bytes[shard.data_begin as usize..]].concat()).unwrap();
}

/// Rewrites the journal with right checks, and the manifest with the journal's digest: what
/// somebody would do who knows the formats.
fn forge_journal(out: &Path, change: impl FnOnce(&mut Vec<Value>)) {
    let path = out.join(JOURNAL);
    let text = fs::read_to_string(&path).unwrap();
    let mut records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &mut records {
        record.as_object_mut().unwrap().shift_remove("check");
    }
    change(&mut records);
    let (mut forged, mut check) = (String::new(), String::new());
    for record in &records {
        let body = record.to_string();
        let mut hasher = Blake3::default();
        hasher.update(check.as_bytes());
        hasher.update(body.as_bytes());
        check = hasher.finish().to_string()[..16].to_owned();
        forged += &format!("{},\"check\":\"{check}\"}}\n", &body[..body.len() - 1]);
    }
    fs::write(&path, &forged).unwrap();
    forge_manifest(out, |manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        let entry = files.iter_mut().find(|entry| entry["path"] == JOURNAL).unwrap();
        entry["sha256"] = json!(Sha256::of(forged.as_bytes()).to_string());
        entry["size_bytes"] = json!(forged.len());
    });
}

/// Rewrites the manifest and seals it again; without a seal where it is no longer a manifest.
fn forge_manifest(out: &Path, change: impl FnOnce(&mut Value)) {
    let path = out.join(MANIFEST);
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    let text = match serde_json::from_value::<Manifest>(manifest.clone()) {
        Ok(manifest) => manifest.encode(),
        Err(_) => manifest.to_string(),
    };
    fs::write(&path, text).unwrap();
}

/// The path of every number, text and null.
fn leaves(value: &Value) -> Vec<String> {
    let inside = |key: &str, value: &Value| -> Vec<String> {
        leaves(value).into_iter().map(|path| format!("/{key}{path}")).collect()
    };
    match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, v)| inside(key, v)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(i, v)| inside(&i.to_string(), v)).collect()
        }
        _ => vec![String::new()],
    }
}

/// Another value of the same kind.
fn other(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(n) => json!(n + 1),
            None => json!(number.as_f64().unwrap() + 0.25),
        },
        Value::String(text) if text.len() == 64 => {
            let last = if text.ends_with('0') { "1" } else { "0" };
            json!(format!("{}{last}", &text[..63]))
        }
        Value::String(text) => json!(format!("{text}x")),
        _ => json!(0),
    }
}

/// A model pruned tile by tile, with something of everything that journal and manifest hold.
fn forgeable(work: &Work) -> (PathBuf, PathBuf) {
    let tensors = [
        Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[6, 8]),
        Tensor::new("model.layers.1.mlp.up_proj.weight", Kind::F16, &[9, 30]),
        Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bytes("F8_E4M3"), &[3, 3]),
        Tensor::new("model.norm.weight", Kind::F32, &[4]),
    ];
    let (model, out) = (work.model("model", &tensors, 2), work.path("out"));
    prune(&model, &out, flow(24), 1);
    (model, out)
}

#[test]
fn every_edited_field_of_a_forged_record_is_found() {
    let work = Work::in_memory();
    let (model, out) = forgeable(&work);
    let clean = files(&out);
    let restore = || {
        for name in [JOURNAL, MANIFEST] {
            fs::write(out.join(name), &clean[Path::new(name)]).unwrap();
        }
    };
    // Forging nothing gives the same bytes: what is found below is found for the edit.
    forge_journal(&out, |_| {});
    assert!(files(&out) == clean);

    let journal = String::from_utf8(clean[Path::new(JOURNAL)].clone()).unwrap();
    let mut edits = 0;
    for (at, line) in journal.lines().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        // Why a tensor is skipped is a sentence for people.
        let proven = |path: &String| !["/check", "/reason"].contains(&path.as_str());
        for path in leaves(&record).into_iter().filter(proven) {
            forge_journal(&out, |records| {
                let field = records[at].pointer_mut(&path).unwrap();
                *field = other(field);
            });
            assert_ne!(findings(&model, &out), [""; 0], "journal line {}: {path}", at + 1);
            restore();
            edits += 1;
        }
    }
    let manifest: Value = serde_json::from_slice(&clean[Path::new(MANIFEST)]).unwrap();
    // What was left out and why is not in the output to be compared.
    let proven = |path: &String| path != "/check" && !path.starts_with("/left_out");
    for path in leaves(&manifest).into_iter().filter(proven) {
        forge_manifest(&out, |manifest| {
            let field = manifest.pointer_mut(&path).unwrap();
            *field = other(field);
        });
        assert_ne!(findings(&model, &out), [""; 0], "manifest: {path}");
        restore();
        edits += 1;
    }
    for list in ["shards", "files", "tensors"] {
        for at in 0..manifest[list].as_array().unwrap().len() {
            forge_manifest(&out, |manifest| {
                drop(manifest[list].as_array_mut().unwrap().remove(at))
            });
            assert_ne!(findings(&model, &out), [""; 0], "manifest: {list} {at} dropped");
            restore();
            forge_manifest(&out, |manifest| {
                let twice = manifest[list][at].clone();
                manifest[list].as_array_mut().unwrap().push(twice);
            });
            assert_ne!(findings(&model, &out), [""; 0], "manifest: {list} {at} twice");
            restore();
            edits += 2;
        }
    }
    assert!(edits > 140, "{edits}");
    assert_eq!(findings(&model, &out), [""; 0]);
}

/// Changes a count of the second tensor in record, totals, manifest: all but the weights agree.
fn forge_count(out: &Path, field: &str, by: u64) {
    let name = "model.layers.1.mlp.up_proj.weight";
    let add = |value: &mut Value| *value = json!(value.as_u64().unwrap() + by);
    forge_journal(out, |records| {
        add(&mut records.iter_mut().find(|record| record["name"] == name).unwrap()[field]);
        add(&mut records.last_mut().unwrap()[field]);
    });
    forge_manifest(out, |manifest| {
        add(&mut manifest["totals"][field]);
        if field == "pruned" {
            let tensors = manifest["tensors"].as_array_mut().unwrap();
            add(&mut tensors.iter_mut().find(|tensor| tensor["name"] == name).unwrap()[field]);
        }
    });
}

#[test]
fn counts_that_agree_with_each_other_are_compared_with_the_weights() {
    let work = Work::new();
    let (model, clean) = forgeable(&work);
    let fields = [
        ("pruned", "pruned weights, expected"),
        ("already_zero", "weights zero before, expected"),
        ("non_finite", "infinite and NaN weights, expected 1, found 0"),
        ("processed", "record: not as headers and recipe say"),
    ];
    for (field, needle) in fields {
        let out = work.path(field);
        copy_files(&clean, &out);
        forge_count(&out, field, 1);
        let found = findings(&model, &out);
        assert!(found.iter().any(|finding| finding.contains(needle)), "{field}: {found:?}");
        assert!(!found.iter().any(|finding| finding.contains("not as in the journal")));
        // The audit counts too. It does not look for infinite weights.
        let audit = audit_of(&out, Some(&model));
        assert_eq!(audit.denominator_correct, field == "non_finite", "{field}");
    }
    // A journal whose patterns were made for another model.
    let out = work.path("patterns");
    copy_files(&clean, &out);
    forge_journal(&out, |records| records[0]["recipe"]["target"] = json!(["other.*"]));
    let found = findings(&model, &out);
    assert!(found.iter().any(|f| f.contains("recipe: ") && f.contains("other.*")), "{found:?}");
    // Numbers that no checkpoint has.
    let out = work.path("overflow");
    copy_files(&clean, &out);
    forge_journal(&out, |records| records[1]["pruned"] = json!(u64::MAX));
    assert!(findings(&model, &out).iter().any(|f| f.contains("fits in 64 bits")));
    assert!(!audit_of(&out, Some(&model)).denominator_correct);
}

#[test]
fn weights_that_are_not_finite_are_counted() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let name = "model.layers.8.mlp.up_proj.weight";
    let checkpoint = Checkpoint::open(&model).unwrap();
    let (shard, tensor) = checkpoint.tensors().find(|(_, t)| t.name == name).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&shard.path).unwrap();
    // Infinity, minus infinity and a NaN of F16.
    file.write_all_at(&[0, 0x7c, 0, 0xfc, 1, 0x7c], tensor.begin + 10).unwrap();
    for (index, (_, method)) in methods().into_iter().enumerate() {
        let out = work.path(&format!("out-{index}"));
        let keep = Recipe { non_finite: NonFinite::Keep, ..recipe(method) };
        let surgery = Surgery::plan(&model, keep, Options::default()).unwrap();
        let cancel = Cancel::default();
        let summary =
            surgery.prune(&out, Overwrite::Refuse, Resume::Continue, &cancel, &mut Silent).unwrap();
        assert_eq!(summary.totals.non_finite, 3);
        assert_eq!(findings(&model, &out), [""; 0]);
        assert!(audit_of(&out, Some(&model)).denominator_correct);
    }
}

#[test]
fn an_audit_does_not_believe_a_damaged_journal() {
    let work = Work::new();
    let (model, clean) = forgeable(&work);
    let journal = fs::read(clean.join(JOURNAL)).unwrap();
    let untouched = audit_of(&clean, Some(&model));
    let mut flipped = journal.clone();
    flipped[200] ^= 1;
    let half = &journal[..journal.len() / 2];
    for (what, bytes) in [("flipped", &flipped[..]), ("torn", half), ("empty", &[])] {
        let out = work.path(what);
        copy_files(&clean, &out);
        fs::write(out.join(JOURNAL), bytes).unwrap();
        let audit = audit_of(&out, Some(&model));
        assert!(!audit.denominator_correct, "{what}");
        assert!(audit.warnings.iter().any(|w| w.contains("journal cannot be read")), "{what}");
        // What bytes alone tell is told all the same.
        assert_eq!(audit.pruned, untouched.pruned);
        assert_eq!((audit_of(&out, None).base, audit_of(&out, None).pruned), (Base::None, None));
    }
}

#[test]
fn a_model_that_another_tool_pruned_is_audited() {
    let work = Work::new();
    let model = work.model("model", &llama_tensors(Kind::Bf16, 2, 32, 16, 40), 2);
    // Re-saved in one file, half of one projection zeroed as -0.0, one norm changed, one weight
    // changed otherwise, one tensor lost.
    let mut tensors = by_tensor(&model);
    let q = "model.layers.0.self_attn.q_proj.weight";
    for weight in tensors.get_mut(q).unwrap().chunks_mut(2).take(512) {
        weight.copy_from_slice(&[0, 0x80]);
    }
    tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap()[..2].copy_from_slice(&[1, 0x42]);
    tensors.get_mut("model.norm.weight").unwrap()[0] ^= 1;
    tensors.remove("model.layers.1.input_layernorm.weight");
    let shapes: BTreeMap<String, Vec<u64>> =
        llama_tensors(Kind::Bf16, 2, 32, 16, 40).into_iter().map(|t| (t.name, t.shape)).collect();
    let list: Vec<Tensor> =
        tensors.keys().map(|name| Tensor::new(name, Kind::Bf16, &shapes[name])).collect();
    let other = work.path("other");
    fs::create_dir(&other).unwrap();
    let data: Vec<u8> = tensors.values().flatten().copied().collect();
    let file = [physarium_fixtures::header(&list), data].concat();
    fs::write(other.join("model.safetensors"), file).unwrap();

    let found = audit_of(&other, Some(&model));
    assert!(found.denominator_correct, "{:#?}", found.identities);
    assert_eq!(found, audit_with(&other, Some(&model), 1));
    assert_eq!((found.base, found.tiles), (Base::Original, None));
    // Every target against a plain loop.
    let before = by_tensor(&model);
    let mut sums = [0; 5];
    for target in &found.tensors {
        let counted = counted(&before[&target.name], &tensors[&target.name], target.dtype);
        let of_audit = [
            target.zero,
            target.pruned.unwrap(),
            target.already_zero.unwrap(),
            target.sign_bit_zero.unwrap(),
            target.changed.unwrap(),
        ];
        assert_eq!(of_audit, counted, "{}", target.name);
        sums.iter_mut().zip(counted).for_each(|(sum, n)| *sum += n);
        // Processed by difference: it differs, so it was processed.
        let differs = before[&target.name] != tensors[&target.name];
        assert_eq!(target.processed, Some(if differs { target.elements } else { 0 }));
    }
    let audited = [
        found.zero.elements,
        found.pruned.as_ref().unwrap().elements,
        found.already_zero.as_ref().unwrap().elements,
        found.sign_bit_zero.as_ref().unwrap().elements,
        found.changed.as_ref().unwrap().elements,
    ];
    assert_eq!(audited, sums);
    assert!(sums[3] >= 512 && sums[4] == 1, "{sums:?}");
    assert_eq!(found.untouched.differing, ["model.norm.weight"]);
    let processed = found.processed.as_ref().unwrap();
    assert_eq!((processed.tensors, processed.elements), (2, 32 * 32 + 40 * 32));
    let lost = "model.layers.1.input_layernorm.weight: in the original, not in this checkpoint";
    assert!(found.warnings.iter().any(|w| w.contains(lost)), "{:?}", found.warnings);
    let alone = audit_of(&other, None);
    assert_eq!((alone.base, alone.pruned, alone.processed), (Base::None, None, None));
    assert_eq!((alone.zero, alone.sign_bit_zero), (found.zero, found.sign_bit_zero));
    // Nothing of it is physarium's: verify says so rather than failing.
    let said = findings(&model, &other);
    assert!(said.iter().any(|f| f.contains("physarium.journal.jsonl")), "{said:?}");

    // A target that the original has in another shape cannot be compared: the count is unknown.
    let wider = work.path("wider");
    let mut list = llama_tensors(Kind::Bf16, 2, 32, 16, 40);
    list.iter_mut().find(|tensor| tensor.name == q).unwrap().shape = vec![16, 64];
    write_checkpoint(&wider, &list, 1, Fill::Gaussian(5)).unwrap();
    let found = audit_of(&wider, Some(&model));
    assert_eq!((found.pruned, found.processed.unwrap().tensors), (None, 1));
    assert!(found.warnings.iter().any(|w| w.contains(q) && w.contains("cannot be compared")));
}
