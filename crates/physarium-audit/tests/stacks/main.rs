//! A model of two stacked experts, pruned, with journal and manifest written by other code than the pruner's.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod records;
mod reports;

use std::fs;
use std::path::{Path, PathBuf};

use physarium_audit::{Audit, AuditRequest, Evidence, audit, verify};
use physarium_checkpoint::journal::{self, Record, RunRecord, TensorRecord, Totals};
use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{Blake3, Checkpoint, Sha256};
use physarium_fixtures::{Kind, Tensor, header};
use serde_json::{Value, json};
use tempfile::TempDir;

const DOWN: &str = "model.layers.3.mlp.experts.down_proj";
const GATE_UP: &str = "model.layers.3.mlp.experts.gate_up_proj";
const NORM: &str = "model.norm.weight";
const SHARD: &str = "model.safetensors";

/// A matrix of 12 weights: how many were zero before, how many are pruned.
struct Matrix {
    map: &'static str,
    expert: u32,
    already_zero: u64,
    pruned: u64,
}

const fn matrix(map: &'static str, expert: u32, already_zero: u64, pruned: u64) -> Matrix {
    Matrix { map, expert, already_zero, pruned }
}

const DOWN_MATRICES: [Matrix; 2] = [matrix("down_proj", 0, 0, 2), matrix("down_proj", 1, 1, 4)];
const GATE_UP_MATRICES: [Matrix; 4] = [
    matrix("gate_proj", 0, 0, 3),
    matrix("up_proj", 0, 0, 6),
    matrix("gate_proj", 1, 0, 1),
    matrix("up_proj", 1, 0, 4),
];

/// An input (`base`) and its pruned output (`out`), with the output's journal as JSON.
struct Stacks {
    dir: TempDir,
    records: Vec<Value>,
}

impl Stacks {
    /// Experts stored `[out_features, in_features]`: `hidden_size` is 4, an expert has 3 features inside.
    fn new() -> Stacks {
        let stacks = Stacks { dir: tempfile::tempdir().unwrap(), records: Vec::new() };
        let down = Tensor::new(DOWN, Kind::Bf16, &[2, 4, 3]);
        let gate_up = Tensor::new(GATE_UP, Kind::Bf16, &[2, 6, 4]);
        let config = json!({"model_type": "qwen3_moe", "hidden_size": 4});
        stacks.with([down, gate_up], &config)
    }

    /// Writes input and output, and the records that are true of them.
    fn with(mut self, stacks: [Tensor; 2], config: &Value) -> Stacks {
        let norm = Tensor::new(NORM, Kind::Bf16, &[4]);
        let tensors: Vec<Tensor> = stacks.into_iter().chain([norm]).collect();
        let (before, after): (Zeros, Zeros) = (|m| m.already_zero, |m| m.already_zero + m.pruned);
        for (name, zeros) in [("base", before), ("out", after)] {
            let dir = self.path(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("config.json"), config.to_string()).unwrap();
            let data = [weights(&DOWN_MATRICES, zeros), weights(&GATE_UP_MATRICES, zeros)];
            let data = [data.concat(), 0x3f80u16.to_le_bytes().repeat(4)].concat();
            fs::write(dir.join(SHARD), [header(&tensors), data].concat()).unwrap();
        }
        self.records = self.true_records();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn true_records(&self) -> Vec<Value> {
        let (base, out) = (self.path("base"), self.path("out"));
        let checkpoint = Checkpoint::open(&base).unwrap();
        let shard = &checkpoint.shards()[0];
        let [before, after] = [&base, &out].map(|dir| fs::read(dir.join(SHARD)).unwrap());
        let recipe = json!({
            // A method that requests no number of zeros: the matrices have any.
            "method": {"name": "wanda", "price": 0.02, "calibration": {
                "text_sha256": "0".repeat(64), "tokens": 4, "window": 4, "seed": 0,
            }},
            "target": [], "skip": [], "non_finite": "refuse",
        });
        let input = json!([{
            "name": SHARD, "size_bytes": before.len(), "header_sha256": shard.header_sha256,
        }]);
        let mut records = vec![json!({
            "record": "run", "schema": "physarium.journal/1", "tool": "other", "recipe": recipe,
            "input": input,
        })];
        for tensor in &shard.tensors {
            let mut digest = Blake3::default();
            digest.update(&after[tensor.begin as usize..tensor.end as usize]);
            let mut record = json!({
                "record": "tensor", "name": tensor.name, "shard": SHARD, "dtype": "BF16",
                "shape": tensor.shape, "elements": tensor.elements,
            });
            let fields = match tensor.name.as_str() {
                DOWN => processed("down_proj", &DOWN_MATRICES),
                GATE_UP => processed("gate_up_proj", &GATE_UP_MATRICES),
                _ => json!({"status": "skipped", "reason": "not a target projection"}),
            };
            record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            record["output_blake3"] = json!(digest.finish());
            records.push(record);
        }
        records.push(json!({
            "record": "shard", "name": SHARD, "size_bytes": before.len(),
            "input_sha256": Sha256::of(&before), "output_sha256": Sha256::of(&after),
        }));
        records
    }

    /// The journal's record of a tensor.
    fn record(&mut self, name: &str) -> &mut Value {
        self.records.iter_mut().find(|record| record["name"] == name).unwrap()
    }

    /// Writes the journal, complete with totals and checks, and a manifest that agrees with it.
    fn write_records(&self, dir: &Path) {
        let (run, tensors) = self.parsed();
        let mut records: Vec<Record> =
            self.records.iter().map(|r| serde_json::from_value(r.clone()).unwrap()).collect();
        let totals = Totals::of(&tensors);
        records.push(Record::Totals(totals));
        let (mut journal, mut check) = (String::new(), String::new());
        for record in &records {
            let body = serde_json::to_string(record).unwrap();
            let mut hasher = Blake3::default();
            hasher.update(check.as_bytes());
            hasher.update(body.as_bytes());
            check = hasher.finish().to_string()[..16].to_owned();
            journal += &format!("{},\"check\":\"{check}\"}}\n", &body[..body.len() - 1]);
        }
        fs::write(dir.join(journal::FILE_NAME), &journal).unwrap();
        let shards = records.iter().filter_map(|record| match record {
            Record::Shard(shard) => Some(shard.clone()),
            _ => None,
        });
        let files = ["config.json", journal::FILE_NAME].map(|path| {
            let bytes = fs::read(dir.join(path)).unwrap();
            let (size_bytes, sha256) = (bytes.len() as u64, Sha256::of(&bytes));
            manifest::FileEntry { path: path.to_owned(), size_bytes, sha256 }
        });
        let manifest = Manifest {
            schema: manifest::SCHEMA.to_owned(),
            tool: run.tool,
            recipe: run.recipe,
            source: None,
            totals,
            shards: shards.collect(),
            files: files.to_vec(),
            rewritten: Vec::new(),
            left_out: Vec::new(),
            tensors: tensors.iter().map(|r| manifest::TensorEntry::of(r).unwrap()).collect(),
            check: String::new(),
        };
        fs::write(dir.join(manifest::FILE_NAME), manifest.encode()).unwrap();
    }

    fn parsed(&self) -> (RunRecord, Vec<TensorRecord>) {
        let (mut run, mut tensors) = (None, Vec::new());
        for record in &self.records {
            match serde_json::from_value(record.clone()).unwrap() {
                Record::Run(record) => run = Some(record),
                Record::Tensor(record) => tensors.push(record),
                Record::Shard(_) | Record::Totals(_) => {}
            }
        }
        (run.unwrap(), tensors)
    }

    /// An audit of the output's weights, with the records in place.
    fn audit(&self, against: Option<&Path>) -> Audit {
        self.write_records(&self.path("out"));
        self.audit_by(against, Evidence::Bytes).unwrap()
    }

    /// An audit of the output's headers and the journal.
    fn audit_from_journal(&self) -> Result<Audit, physarium_audit::Error> {
        let dir = self.path("records");
        fs::create_dir_all(&dir).unwrap();
        fs::copy(self.path("out/config.json"), dir.join("config.json")).unwrap();
        self.write_records(&dir);
        self.audit_by(None, Evidence::Journal(dir.join(journal::FILE_NAME)))
    }

    fn audit_by(
        &self,
        against: Option<&Path>,
        evidence: Evidence,
    ) -> Result<Audit, physarium_audit::Error> {
        let dir = self.path("out");
        let request = AuditRequest { dir: &dir, against, evidence, selection: None, threads: 2 };
        audit(&request, &mut |_| Ok(())).inspect(|audit| assert_eq!(audit.contradiction(), None))
    }

    /// The findings of a verification, with the records in place.
    fn findings(&self) -> Vec<String> {
        self.write_records(&self.path("out"));
        let found = verify(&self.path("base"), &self.path("out"), &mut |_| Ok(())).unwrap();
        found.findings.iter().map(ToString::to_string).collect()
    }
}

/// Number of zeros of a matrix.
type Zeros = fn(&Matrix) -> u64;

/// The weights of a stack as BF16: each matrix begins with its zeros; the other weights are 1.
fn weights(matrices: &[Matrix], zeros: Zeros) -> Vec<u8> {
    let weight = |matrix: &Matrix, at: u64| if at < zeros(matrix) { 0u16 } else { 0x3f80 };
    let all = matrices.iter().flat_map(|matrix| (0..12).map(move |at| weight(matrix, at)));
    all.flat_map(u16::to_le_bytes).collect()
}

/// The fields of a processed tensor's record.
fn processed(projection: &str, matrices: &[Matrix]) -> Value {
    let sum = |count: fn(&Matrix) -> u64| matrices.iter().map(count).sum::<u64>();
    let record = |matrix: &Matrix| {
        json!({
            "map": matrix.map, "expert": matrix.expert, "elements": 12, "pruned": matrix.pruned,
            "already_zero": matrix.already_zero,
        })
    };
    json!({
        "status": "processed", "projection": format!("mlp.experts.{projection}"), "layer": 3,
        "processed": 12 * matrices.len(), "pruned": sum(|m| m.pruned),
        "already_zero": sum(|m| m.already_zero), "non_finite": 0,
        "matrices": matrices.iter().map(record).collect::<Vec<Value>>(),
    })
}

/// The identities that do not hold.
fn failed(audit: &Audit) -> Vec<&str> {
    audit.identities.iter().filter(|i| !i.holds).map(|i| i.says.as_str()).collect()
}
