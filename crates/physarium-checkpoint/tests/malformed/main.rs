//! Malformed checkpoints that opening must reject, with their errors, and odd ones that it must accept.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod header;
mod hostile;
mod index;
mod places;

use std::fs;
use std::path::Path;

use physarium_checkpoint::{Checkpoint, Dtype, ErrorKind};
use physarium_fixtures::with_length;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory written by a test, and the file in it that an error must name.
struct Case {
    dir: tempfile::TempDir,
    fault: &'static str,
}

impl Case {
    /// An empty directory; errors name the directory itself.
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap(), fault: "" }
    }

    fn blames(self, fault: &'static str) -> Case {
        Case { fault, ..self }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Case {
        fs::write(self.path().join(name), bytes).unwrap();
        self
    }

    fn shard(self, name: &str, json: &str, data: usize) -> Case {
        self.file(name, shard(json, data))
    }

    /// Asserts that opening fails with an input error, whose message begins with the malformed file and contains all of
    /// `needles`.
    #[track_caller]
    fn refused(&self, needles: &[&str]) {
        let error = Checkpoint::open(self.path()).expect_err("must be refused");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Input, "{text}");
        let file = self.path().join(self.fault).display().to_string();
        let file = file.trim_end_matches('/');
        assert!(text.starts_with(&format!("{file}: ")), "no {file} in front of: {text}");
        for needle in needles {
            assert!(text.contains(needle), "no {needle:?} in: {text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "raw control in {text:?}");
    }

    #[track_caller]
    fn accepted(&self) -> Checkpoint {
        Checkpoint::open(self.path()).unwrap_or_else(|e| panic!("must be accepted: {e}"))
    }

    /// Name, dtype, shape and byte range in the data of every tensor, in file order.
    #[track_caller]
    fn read(&self) -> Vec<(String, Dtype, Vec<u64>, [u64; 2])> {
        let checkpoint = self.accepted();
        let one = |(shard, t): (&physarium_checkpoint::Shard, _)| {
            let t: &physarium_checkpoint::TensorInfo = t;
            let data = [t.begin - shard.data_begin, t.end - shard.data_begin];
            (t.name.clone(), t.dtype, t.shape.clone(), data)
        };
        checkpoint.tensors().map(one).collect()
    }

    #[track_caller]
    fn warnings(&self) -> Vec<String> {
        self.accepted().warnings().iter().map(ToString::to_string).collect()
    }
}

/// A shard of this header JSON and this many data bytes.
fn shard(json: &str, data: usize) -> Vec<u8> {
    [with_length(json.to_owned()), vec![1; data]].concat()
}

fn single(json: &str, data: usize) -> Case {
    Case::new().blames(SINGLE).shard(SINGLE, json, data)
}

fn raw(bytes: impl AsRef<[u8]>) -> Case {
    Case::new().blames(SINGLE).file(SINGLE, bytes)
}

/// A file of this header, without padding or data.
fn raw_header(json: &[u8]) -> Case {
    raw([&(json.len() as u64).to_le_bytes()[..], json].concat())
}

/// The header of a tensor `a` with these fields as JSON.
fn a(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

/// The header of a shard with one tensor of one byte.
fn holding(name: &str) -> String {
    format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#)
}

/// Two shards, `x` in `a.safetensors` and `y` in `b.safetensors`, and this index.
fn indexed(index: impl AsRef<[u8]>) -> Case {
    Case::new()
        .blames(INDEX)
        .shard("a.safetensors", &holding("x"), 1)
        .shard("b.safetensors", &holding("y"), 1)
        .file(INDEX, index)
}

fn sharded(weight_map: &str) -> Case {
    indexed(format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{weight_map}}}"#))
}

const GOOD_MAP: &str = r#"{"x":"a.safetensors","y":"b.safetensors"}"#;
