//! What must be the same however it is come by: pruner, auditor, verifier and naive loops.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use physarium::audit::{Audit, AuditRequest, Base, Evidence, audit, verify};
use physarium::checkpoint::manifest::Manifest;
use physarium::checkpoint::{Checkpoint, Method, NonFinite, Overwrite, Recipe, Resume, Scope};
use physarium::{Cancel, Options, Silent, Surgery, default_method};
use physarium_fixtures::{Fill, Kind, Noise, Tensor, llama_tensors, write_checkpoint};

fn recipe(method: Method) -> Recipe {
    Recipe { method, target: vec![], skip: vec![], non_finite: NonFinite::Refuse }
}

fn methods() -> Vec<(&'static str, Method)> {
    let exact = |scope| Method::Exact { sparsity: "0.5".parse().unwrap(), scope };
    vec![
        ("flow", default_method()),
        ("tile", exact(Scope::Tile { block_size: 24 })),
        ("tensor", exact(Scope::Tensor)),
        ("model", exact(Scope::Model)),
        ("2:4", Method::Pattern { pattern: "2:4".parse().unwrap() }),
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

fn audit_of(dir: &Path, against: Option<&Path>) -> Audit {
    let request =
        AuditRequest { dir, against, evidence: Evidence::Bytes, selection: None, threads: 2 };
    audit(&request, &mut |_| Ok(())).unwrap()
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
        // The literal count.
        let (before, after) = (by_tensor(&model), by_tensor(&out));
        for tensor in &against.tensors {
            let size = (tensor.dtype.bits() / 8) as usize;
            let pairs = before[&tensor.name].chunks(size).zip(after[&tensor.name].chunks(size));
            let pruned = pairs.filter(|(a, b)| a != b && b.iter().all(|byte| *byte == 0)).count();
            assert_eq!(tensor.pruned, Some(pruned as u64), "{name} {}", tensor.name);
        }
        assert!(!out.join("pytorch_model.bin").exists() && out.join("extra/notes.txt").exists());
    }
}

#[test]
fn threads_and_sharding_change_no_byte() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 3);
    let single = work.model("single", &tensors(), 1);
    let mut reversed = tensors();
    reversed.reverse();
    let reversed = work.model("reversed", &reversed, 5);
    for (name, method) in methods() {
        let out = |suffix: &str| work.path(&format!("{name}-{suffix}"));
        prune(&model, &out("1"), method, 1);
        prune(&model, &out("2"), method, 2);
        prune(&model, &out("8"), method, 8);
        assert!(files(&out("1")) == files(&out("2")) && files(&out("1")) == files(&out("8")));
        prune(&single, &out("single"), method, 2);
        prune(&reversed, &out("reversed"), method, 2);
        let expected = by_tensor(&out("1"));
        assert!(by_tensor(&out("single")) == expected, "{name} in one file");
        assert!(by_tensor(&out("reversed")) == expected, "{name} in another order");
    }
}

#[test]
fn pruning_again_at_the_same_sparsity_changes_nothing() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    for (name, method) in methods().into_iter().filter(|(name, _)| *name != "flow") {
        let (once, twice) = (work.path(&format!("{name}-1")), work.path(&format!("{name}-2")));
        prune(&model, &once, method, 2);
        prune(&once, &twice, method, 2);
        assert!(by_tensor(&once) == by_tensor(&twice), "{name}");
    }
}

#[test]
fn wide_bands_give_what_small_pieces_give() {
    // 1024 x 17,000 F32 is a band of 69 MB, over what is held at once.
    let work = Work::new();
    let name = "model.layers.0.mlp.down_proj.weight";
    let tensors = [Tensor::new(name, Kind::F32, &[1030, 17_000])];
    let model = work.path("model");
    write_checkpoint(&model, &tensors, 1, Fill::Gaussian(9)).unwrap();
    let sparsity = "0.3".parse().unwrap();
    let scope = Scope::Tile { block_size: 1024 };
    let out = work.path("out");
    prune(&model, &out, Method::Exact { sparsity, scope }, 2);
    let (before, after) = (by_tensor(&model), by_tensor(&out));
    let weights = |bytes: &[u8]| -> Vec<u32> {
        bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (before, after) = (weights(&before[name]), weights(&after[name]));
    for (rows, cols) in [(0..1024, 0..1024), (1024..1030, 16_384..17_000)] {
        let positions: Vec<usize> =
            rows.flat_map(|row| cols.clone().map(move |col| row * 17_000 + col)).collect();
        let mut order = positions.clone();
        order.sort_by_key(|&at| before[at] << 1);
        let dead = (0.3 * positions.len() as f64).round() as usize;
        for (rank, &at) in order.iter().enumerate() {
            let was_zero = before[at] << 1 == 0;
            let expected = if rank < dead && !was_zero { 0 } else { before[at] };
            assert_eq!(after[at], expected, "weight {at}");
        }
    }
    assert_eq!(findings(&model, &out), [""; 0]);
}

#[test]
fn every_bit_of_a_small_output_counts() {
    let work = Work::new();
    let tensors = [
        Tensor::new("model.layers.0.mlp.up_proj.weight", Kind::Bf16, &[6, 8]),
        Tensor::new("model.norm.weight", Kind::F32, &[4]),
    ];
    let model = work.path("model");
    write_checkpoint(&model, &tensors, 1, Fill::Gaussian(2)).unwrap();
    let out = work.path("out");
    prune(&model, &out, default_method(), 1);
    let mut flips = 0;
    for (name, bytes) in files(&out) {
        let path = out.join(&name);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            assert_ne!(findings(&model, &out), [""; 0], "{} bit {bit}", name.display());
            flips += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(flips > 20_000, "{flips}");
    assert_eq!(findings(&model, &out), [""; 0]);
}

#[test]
fn random_flips_in_a_larger_output_are_found() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 3);
    let out = work.path("out");
    prune(&model, &out, default_method(), 2);
    let files: Vec<(PathBuf, Vec<u8>)> = files(&out).into_iter().collect();
    let mut noise = Noise::new(42);
    for _ in 0..1000 {
        let (name, bytes) = &files[noise.below(files.len() as u64) as usize];
        let bit = noise.below(8 * bytes.len() as u64) as usize;
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(out.join(name), flipped).unwrap();
        assert_ne!(findings(&model, &out), [""; 0], "{} bit {bit}", name.display());
        fs::write(out.join(name), bytes).unwrap();
    }
}

#[test]
fn tampering_is_named() {
    let work = Work::new();
    let model = work.model("model", &tensors(), 2);
    let clean = work.path("clean");
    prune(&model, &clean, default_method(), 2);
    let names: Vec<PathBuf> = files(&clean).into_keys().collect();
    let tampered = |what: &str, change: &dyn Fn(&Path), needle: &str| {
        let out = work.path(what);
        for name in &names {
            fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
            fs::copy(clean.join(name), out.join(name)).unwrap();
        }
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
    let journal = |out: &Path| {
        let name = "physarium.journal.jsonl";
        fs::copy(other.join(name), out.join(name)).unwrap();
    };
    tampered("journal", &journal, "recipe: not as in the journal");
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
    assert!(found.sign_bit_zero.as_ref().unwrap().elements >= 512);
    assert_eq!(found.changed.as_ref().unwrap().elements, 1);
    assert_eq!(found.untouched.differing, ["model.norm.weight"]);
    let processed = found.processed.as_ref().unwrap();
    assert_eq!((processed.tensors, processed.elements), (2, 32 * 32 + 40 * 32));
    let q_found = found.tensors.iter().find(|t| t.name == q).unwrap();
    assert_eq!(q_found.pruned.unwrap() + q_found.already_zero.unwrap(), q_found.zero);
    assert!(found.warnings.iter().any(|w| w.contains("model.layers.1.input_layernorm.weight")));
    let alone = audit_of(&other, None);
    assert_eq!((alone.base, alone.pruned), (Base::None, None));
}
