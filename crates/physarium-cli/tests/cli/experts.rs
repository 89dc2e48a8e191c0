//! Stacked experts, pruned, counted and packed one by one; and tensors that the user names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use physarium_fixtures::{Kind, Tensor};
use serde_json::Value;

use super::Work;

const LAYERS: u64 = 2;
const EXPERTS: usize = 4;
const HIDDEN: u64 = 32;
const INTERMEDIATE: u64 = 24;

/// A way to store stacked experts.
struct Stack {
    /// Name of the checkpoint directory.
    dir: &'static str,
    /// `model_type` of its config.
    model_type: &'static str,
    /// Shapes of one expert, as stored.
    gate_up: [u64; 2],
    down: [u64; 2],
    /// Matrices of an expert of `gate_up_proj`, in the order of its elements.
    maps: &'static [&'static str],
}

/// `[experts, out_features, in_features]`.
const OUT_IN: Stack = Stack {
    dir: "qwen",
    model_type: "qwen3_moe",
    gate_up: [2 * INTERMEDIATE, HIDDEN],
    down: [HIDDEN, INTERMEDIATE],
    maps: &["gate_proj", "up_proj"],
};

/// `[experts, in_features, out_features]`: gate and up are not apart, because each row has both.
const IN_OUT: Stack = Stack {
    dir: "gpt",
    model_type: "gpt_oss",
    gate_up: [HIDDEN, 2 * INTERMEDIATE],
    down: [INTERMEDIATE, HIDDEN],
    maps: &["gate_up_proj"],
};

/// Name of a stacked tensor.
fn name(layer: u64, map: &str) -> String {
    format!("model.layers.{layer}.mlp.experts.{map}")
}

impl Stack {
    /// Writes the checkpoint.
    fn write(&self, work: &Work) {
        let mut tensors = vec![
            Tensor::new("model.embed_tokens.weight", Kind::Bf16, &[64, HIDDEN]),
            Tensor::new("model.norm.weight", Kind::Bf16, &[HIDDEN]),
        ];
        for layer in 0..LAYERS {
            for (map, [rows, cols]) in [("gate_up_proj", self.gate_up), ("down_proj", self.down)] {
                let shape = [EXPERTS as u64, rows, cols];
                tensors.push(Tensor::new(name(layer, map), Kind::Bf16, &shape));
            }
        }
        work.write(self.dir, &tensors, 1);
        let config = serde_json::json!({"model_type": self.model_type, "hidden_size": HIDDEN});
        fs::write(work.path(self.dir).join("config.json"), config.to_string()).unwrap();
    }

    /// Names of the stacked tensors, with the matrices of one expert.
    fn tensors(&self) -> Vec<(String, &'static [&'static str])> {
        let of_layer = |layer| {
            let down: &[&str] = &["down_proj"];
            [(name(layer, "gate_up_proj"), self.maps), (name(layer, "down_proj"), down)]
        };
        (0..LAYERS).flat_map(of_layer).collect()
    }
}

/// Position of a tensor's bytes in a file with one shard, and the file.
fn locate(dir: &Path, tensor: &str) -> (std::ops::Range<usize>, Vec<u8>) {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let offset = |i: usize| header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    (data + offset(0)..data + offset(1), bytes)
}

/// Which weights of a BF16 tensor are zero, as its bytes say.
fn zeros(dir: &Path, tensor: &str) -> Vec<bool> {
    let (range, bytes) = locate(dir, tensor);
    let weights = bytes[range].as_chunks::<2>().0.iter();
    weights.map(|weight| u16::from_le_bytes(*weight) & 0x7fff == 0).collect()
}

fn count(zeros: &[bool]) -> u64 {
    zeros.iter().filter(|zero| **zero).count() as u64
}

/// Zeros of each matrix of a stacked tensor, counted from its bytes, in the order of its elements.
fn zeros_by_matrix(dir: &Path, tensor: &str, matrices: usize) -> Vec<u64> {
    let zeros = zeros(dir, tensor);
    assert!(zeros.len().is_multiple_of(matrices), "{tensor}");
    zeros.chunks(zeros.len() / matrices).map(count).collect()
}

/// Two directories hold the same files.
fn assert_same_files(one: &Path, other: &Path) {
    let files = |dir: &Path| -> BTreeMap<_, _> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
    };
    let (one, other) = (files(one), files(other));
    assert!(one.keys().eq(other.keys()), "{:?} and {:?}", one.keys(), other.keys());
    assert!(one == other, "bytes differ");
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// The output `out` of a stack is verified; its audit counts each matrix, as its bytes do; packed and unpacked
/// it is the same. Returns the audit.
fn check(work: &Work, stack: &Stack, out: &str) -> Value {
    let verified = work.json(&format!("verify {out} --against {} --format json", stack.dir));
    assert_eq!(verified["verified"], true);
    let audit = work.json(&format!("audit {out} --against {} --format json", stack.dir));
    assert_eq!(audit["denominator_correct"], true, "{audit}");
    let audited = audit["tensors"].as_array().unwrap();
    assert_eq!(audited.len(), stack.tensors().len());
    for (name, maps) in stack.tensors() {
        let tensor = audited.iter().find(|tensor| tensor["name"] == *name).unwrap();
        let matrices = tensor["matrices"].as_array().unwrap();
        let found: Vec<(u64, &str)> = matrices
            .iter()
            .map(|matrix| (number(matrix, "expert"), matrix["map"].as_str().unwrap()))
            .collect();
        let expected: Vec<(u64, &str)> = (0..EXPERTS as u64)
            .flat_map(|expert| maps.iter().map(move |map| (expert, *map)))
            .collect();
        assert_eq!(found, expected, "{name}");
        for field in ["elements", "zero", "pruned"] {
            let sum: u64 = matrices.iter().map(|matrix| number(matrix, field)).sum();
            assert_eq!(sum, number(tensor, field), "{name}: {field}");
        }
        let zero: Vec<u64> = matrices.iter().map(|matrix| number(matrix, "zero")).collect();
        assert_eq!(zero, zeros_by_matrix(&work.path(out), &name, matrices.len()), "{name}");
    }
    for projection in audit["projections"].as_array().unwrap() {
        let of_projection = |tensor: &&Value| tensor["role"] == projection["projection"];
        let sparsities: Vec<f64> = audited
            .iter()
            .filter(of_projection)
            .flat_map(|tensor| tensor["matrices"].as_array().unwrap())
            .map(|matrix| number(matrix, "zero") as f64 / number(matrix, "elements") as f64)
            .collect();
        let least = sparsities.iter().copied().fold(1.0, f64::min);
        let most = sparsities.iter().copied().fold(0.0, f64::max);
        assert_eq!(projection["sparsity_min"], least, "{projection}");
        assert_eq!(projection["sparsity_max"], most, "{projection}");
    }
    work.ok(&format!("pack {out} --out {out}.physpack"));
    work.ok(&format!("unpack {out}.physpack --out {out}-back"));
    assert_same_files(&work.path(out), &work.path(&format!("{out}-back")));
    audit
}

#[test]
fn the_default_method_prunes_stacked_experts_in_either_orientation() {
    let work = Work::new();
    for stack in [OUT_IN, IN_OUT] {
        stack.write(&work);
        let out = format!("{}-flow", stack.dir);
        let pruned =
            work.json(&format!("prune {} --out {out} --block-size 16 --format json", stack.dir));
        let audit = check(&work, &stack, &out);
        assert_eq!(audit["pruned"]["elements"], pruned["pruned"]["elements"]);
        // Every matrix loses weights, and no tile crosses its border: a matrix of 24 x 32 has four tiles of
        // 16 x 16 or less, one of 32 x 48 has six.
        let tiles = match stack.maps {
            [_, _] => LAYERS * EXPERTS as u64 * (4 + 4 + 4),
            _ => LAYERS * EXPERTS as u64 * (6 + 4),
        };
        assert_eq!(number(&audit["tiles"], "expected"), tiles);
        assert_eq!(number(&audit["tiles"], "visited"), tiles);
        let tensors = audit["tensors"].as_array().unwrap();
        let mut matrices = tensors.iter().flat_map(|t| t["matrices"].as_array().unwrap());
        assert!(matrices.all(|matrix| number(matrix, "pruned") > 0), "{audit}");
    }
}

#[test]
fn an_exact_sparsity_is_exact_in_every_expert() {
    let work = Work::new();
    for stack in [OUT_IN, IN_OUT] {
        stack.write(&work);
        let out = format!("{}-half", stack.dir);
        let options = "--method magnitude --sparsity 0.5";
        work.ok(&format!("prune {} --out {out} {options}", stack.dir));
        check(&work, &stack, &out);
        for (name, maps) in stack.tensors() {
            let matrices = EXPERTS * maps.len();
            let elements = zeros(&work.path(&out), &name).len() / matrices;
            let half = vec![elements as u64 / 2; matrices];
            assert_eq!(zeros_by_matrix(&work.path(&out), &name, matrices), half, "{name}");
        }
    }
}

#[test]
fn a_pattern_needs_rows_along_the_inputs() {
    let work = Work::new();
    OUT_IN.write(&work);
    work.ok("prune qwen --out out --pattern 2:4");
    check(&work, &OUT_IN, "out");
    for (name, _) in OUT_IN.tensors() {
        let zeros = zeros(&work.path("out"), &name);
        assert!(zeros.chunks(4).all(|group| count(group) >= 2), "{name}");
    }
    let packed = work.json("pack out --out again.physpack --format json");
    let forms = ["mask", "groups"].map(|form| number(&packed["projections"][form], "tensors"));
    assert_eq!(forms.iter().sum::<u64>(), 2 * LAYERS, "{packed}");
    IN_OUT.write(&work);
    let needles = [&name(0, "gate_up_proj"), "[in_features, out_features]"];
    work.fails(2, "prune gpt --out other --pattern 2:4", &needles);
    work.nothing_was_written("other");
}

#[test]
fn activation_aware_methods_refuse_stacked_experts_by_name() {
    let work = Work::new();
    for stack in [OUT_IN, IN_OUT] {
        stack.write(&work);
        for method in ["wanda", "sparsegpt", "activation-flow"] {
            let options = "--sparsity 0.5 --calibration-tokens 64 --window 32";
            let prune = format!("prune {} --out out --method {method} {options}", stack.dir);
            work.fails(2, &prune, &["error: ", &name(0, "gate_up_proj")]);
            work.nothing_was_written("out");
        }
    }
}

#[test]
fn a_changed_count_of_a_matrix_is_found() {
    let work = Work::new();
    OUT_IN.write(&work);
    work.ok("prune qwen --out out --block-size 16");
    let path = work.path("out/physarium.journal.jsonl");
    let journal = fs::read_to_string(&path).unwrap();
    let at = journal.find("\"matrices\":[").unwrap();
    let field = "\"pruned\":";
    let digit = at + journal[at..].find(field).unwrap() + field.len();
    let flipped = if &journal[digit..=digit] == "1" { "2" } else { "1" };
    fs::write(&path, [&journal[..digit], flipped, &journal[digit + 1..]].concat()).unwrap();
    let ran = work.run("verify out --against qwen");
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("physarium.journal.jsonl"), "{}", ran.stdout);
    fs::write(&path, journal).unwrap();
    work.ok("verify out --against qwen");
}

#[test]
fn an_expert_of_zeros_shows_in_the_sparsities() {
    let work = Work::new();
    OUT_IN.write(&work);
    let down = name(1, "down_proj");
    let (range, mut bytes) = locate(&work.path("qwen"), &down);
    let expert = range.len() / EXPERTS;
    bytes[range.start + 2 * expert..][..expert].fill(0);
    fs::write(work.path("qwen/model.safetensors"), bytes).unwrap();
    work.ok("prune qwen --out out --method magnitude --sparsity 0.25");
    let audit = check(&work, &OUT_IN, "out");
    let tensors = audit["tensors"].as_array().unwrap();
    let tensor = tensors.iter().find(|tensor| tensor["name"] == *down).unwrap();
    let matrix = &tensor["matrices"][2];
    assert_eq!((number(matrix, "pruned"), number(matrix, "zero")), (0, HIDDEN * INTERMEDIATE));
    let projections = audit["projections"].as_array().unwrap();
    let by_name = |name: &str| projections.iter().find(|p| p["projection"] == name).unwrap();
    assert_eq!(by_name("mlp.experts.down_proj")["sparsity_max"], 1.0);
    assert_eq!(by_name("mlp.experts.down_proj")["sparsity_min"], 0.25);
    assert_eq!(by_name("mlp.experts.gate_up_proj")["sparsity_max"], 0.25);
}

#[test]
fn a_tensor_named_as_target_is_packed_like_a_projection() {
    let work = Work::new();
    work.ok("prune model --out out --target *embed_tokens* --sparsity 0.5");
    work.ok("verify out --against model");
    let packed = work.json("pack out --out out.physpack --format json");
    let mask = &packed["projections"]["mask"];
    assert_eq!(number(mask, "tensors"), 1, "{packed}");
    assert_eq!(number(mask, "dense_bytes"), 2 * 128 * 32);
    assert!(number(mask, "packed_bytes") < number(mask, "dense_bytes") * 6 / 10, "{packed}");
    let text = work.ok("pack out --out out.physpack --force");
    assert!(text.contains("1 tensor stored as masks and values"), "{text}");
    work.ok("unpack out.physpack --out back");
    assert_same_files(&work.path("out"), &work.path("back"));
}
