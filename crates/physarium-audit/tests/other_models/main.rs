//! Audits of models that other tools have made: other element types, other formats, another original.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod encoded;
mod originals;
mod values;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};

use physarium_audit::{Audit, AuditRequest, Claims, Evidence, Judgement, audit};
use physarium_fixtures::{Kind, Tensor, header, llama_tensors};
use tempfile::TempDir;

/// Directories of checkpoints.
struct Models(TempDir);

impl Models {
    fn new() -> Models {
        Models(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a checkpoint whose weights are `value(name, index)`.
    fn write(&self, dir: &str, tensors: &[Tensor], value: impl Fn(&str, u64) -> f32) -> PathBuf {
        let bytes = |tensor: &Tensor| {
            let values = (0..tensor.elements()).map(|at| value(&tensor.name, at));
            values.flat_map(|value| encode(value, tensor.kind)).collect::<Vec<u8>>()
        };
        let path = self.path(dir);
        fs::create_dir(&path).unwrap();
        let data: Vec<u8> = tensors.iter().flat_map(bytes).collect();
        fs::write(path.join("model.safetensors"), [header(tensors), data].concat()).unwrap();
        path
    }

    fn claim(&self, count: &str, value: &str, of: &str, audit: &Audit) -> Judgement {
        let file = self.path("claims.toml");
        let toml = format!(
            "[[claim]]\nid = \"a\"\nsource = \"card\"\nsentence = \"said\"\ncount = \"{count}\"\n\
             value = \"{value}\"\nof = \"{of}\"\n"
        );
        fs::write(&file, toml).unwrap();
        Claims::read(&file).unwrap().judge(audit).unwrap().remove(0)
    }
}

/// The bytes of a value that is exact in every float type; of other types the lowest byte is the value.
fn encode(value: f32, kind: Kind) -> Vec<u8> {
    let bits = value.to_bits();
    match kind {
        Kind::F32 => value.to_le_bytes().to_vec(),
        Kind::Bf16 => ((bits >> 16) as u16).to_le_bytes().to_vec(),
        Kind::F16 if value == 0.0 => vec![0, (bits >> 24) as u8],
        Kind::F16 => {
            let exponent = (bits >> 23 & 0xff) + 15 - 127;
            let half = (bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3ff);
            (half as u16).to_le_bytes().to_vec()
        }
        Kind::Bytes(_) => vec![value as u8],
    }
}

/// Two layers: 14 projections with 4,608 weights, an embedding, a head and five norms.
fn llama(kind: Kind) -> Vec<Tensor> {
    llama_tensors(kind, 2, [16, 8, 32])
}

/// A weight between 1/8 and 7/8, of either sign; never zero.
fn weight(name: &str, at: u64) -> f32 {
    let magnitude = ((at + name.len() as u64) % 7 + 1) as f32 / 8.0;
    if at.is_multiple_of(3) { -magnitude } else { magnitude }
}

fn is_projection(name: &str) -> bool {
    name.ends_with("_proj.weight")
}

fn audit_of(dir: &Path, against: Option<&Path>) -> Audit {
    let evidence = Evidence::Bytes;
    let request = AuditRequest { dir, against, evidence, selection: None, threads: 2 };
    let audit = audit(&request, &mut |_| Ok(())).unwrap();
    assert_eq!(audit.contradiction(), None);
    audit
}
