//! Thousands of damaged headers: opening never panics, and never reads a file differently from the reference
//! implementation (the `safetensors` crate).
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use physarium_checkpoint::Checkpoint;
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Errors of files that the reference implementation accepts.
const STRICTER: [&str; 5] = [
    "duplicate tensor name",
    // A duplicate key of `__metadata__`, of which a map would keep the last.
    "\" twice",
    "over 1024 dimensions",
    // Two spellings that serde derives besides the format's own: an entry as a list ...
    "invalid type: sequence, expected an object with dtype, shape and data_offsets",
    // ... and a dtype as the only key of an object.
    "invalid type: map, expected a string",
];

/// Name, dtype, shape and byte range of every tensor, by name.
type Tensors = Vec<(String, String, Vec<u64>, [u64; 2])>;

/// What the reference implementation reads. It panics if offsets wrap, which counts as an error.
fn reference(bytes: &[u8]) -> Option<Tensors> {
    let (_, metadata) =
        catch_unwind(|| safetensors::SafeTensors::read_metadata(bytes)).ok()?.ok()?;
    let mut all: Tensors = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let shape = info.shape.iter().map(|dim| *dim as u64).collect();
            let (begin, end) = info.data_offsets;
            (name, info.dtype.to_string(), shape, [begin as u64, end as u64])
        })
        .collect();
    all.sort();
    Some(all)
}

fn ours(dir: &Path) -> Result<Tensors, String> {
    let checkpoint = Checkpoint::open(dir).map_err(|e| e.to_string())?;
    let mut all: Tensors = checkpoint
        .tensors()
        .map(|(shard, tensor)| {
            let range = [tensor.begin - shard.data_begin, tensor.end - shard.data_begin];
            (tensor.name.clone(), tensor.dtype.to_string(), tensor.shape.clone(), range)
        })
        .collect();
    all.sort();
    Ok(all)
}

/// A checkpoint of one file, which tests damage in place.
struct Victim {
    dir: tempfile::TempDir,
    file: PathBuf,
}

/// Numbers of files that were read, rejected by both implementations, and rejected only by physarium.
#[derive(Debug, Default)]
struct Outcomes {
    read: Cell<u64>,
    refused: Cell<u64>,
    stricter: Cell<u64>,
}

impl Victim {
    fn new() -> Victim {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [
            Tensor::new("model.embed_tokens.weight", Kind::Bf16, &[16, 8]),
            Tensor::new("model.layers.0.input_layernorm.weight", Kind::F32, &[8]),
            Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::F16, &[8, 24]),
            Tensor::new("model.layers.0.self_attn.q_proj.weight", Kind::Bf16, &[8, 8]),
            Tensor::new("model.layers.0.self_attn.rotary.mask", Kind::Bytes("BOOL"), &[0, 4]),
            Tensor::new("model.norm.weight", Kind::F32, &[100, 4]),
            Tensor::new("scale", Kind::Bytes("F8_E4M3"), &[]),
        ];
        write_checkpoint(dir.path(), &tensors, 1, Fill::Gaussian(1)).unwrap();
        let file = dir.path().join("model.safetensors");
        Victim { dir, file }
    }

    /// Fails unless physarium reads a file as the reference implementation does, or rejects it; if only physarium
    /// rejects it, the error must be one of [`STRICTER`].
    fn agree(&self, bytes: &[u8], outcomes: &Outcomes) -> Result<(), String> {
        let (ours, theirs) = (ours(self.dir.path()), reference(bytes));
        let counter = match (&ours, &theirs) {
            (Ok(_), _) => &outcomes.read,
            (Err(_), None) => &outcomes.refused,
            (Err(_), Some(_)) => &outcomes.stricter,
        };
        counter.set(counter.get() + 1);
        match (ours, theirs) {
            (Ok(ours), theirs) if Some(&ours) != theirs.as_ref() => {
                Err(format!("we read {ours:?}, the reference {theirs:?}"))
            }
            (Err(why), Some(_)) if !STRICTER.iter().any(|reason| why.contains(reason)) => {
                Err(format!("only we refuse: {why}"))
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn every_truncation() {
    let victim = Victim::new();
    let bytes = fs::read(&victim.file).unwrap();
    assert!((2800..4000).contains(&bytes.len()), "{} bytes", bytes.len());
    let file = File::options().write(true).open(&victim.file).unwrap();
    let outcomes = Outcomes::default();
    for length in (0..=bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        victim.agree(&bytes[..length], &outcomes).unwrap_or_else(|e| panic!("at {length}: {e}"));
    }
    assert_eq!((outcomes.read.get(), outcomes.stricter.get()), (1, 0));
}

#[test]
fn every_bit_of_a_header() {
    let victim = Victim::new();
    let mut bytes = fs::read(&victim.file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let file = File::options().write(true).open(&victim.file).unwrap();
    let outcomes = Outcomes::default();
    for at in 0..header {
        let good = bytes[at];
        for bit in 0..8 {
            bytes[at] = good ^ 1 << bit;
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
            victim.agree(&bytes, &outcomes).unwrap_or_else(|e| panic!("bit {bit} of {at}: {e}"));
        }
        bytes[at] = good;
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    // Both outcomes occur: a bit may change a name, but not the structure.
    assert!(outcomes.read.get() > 500 && outcomes.refused.get() > 2000, "{outcomes:?}");
}

/// Unknown fields of an entry, with values that parsers treat differently.
const UNKNOWN: [&str; 10] = [
    r#""x":null"#,
    r#""x":[1,-2.5e3,true]"#,
    r#""x":{"dtype":"F32"}"#,
    r#""x":1e999"#,
    r#""x":"\ud800""#,
    r#""x":"\u00e9\n""#,
    r#""x":123456789012345678901234567890"#,
    r#""x":1,"x":2"#,
    r#""":"""#,
    "\"x\":\"\u{1}\"",
];

/// An entry of a header, without its offsets.
#[derive(Debug, Clone)]
struct Entry {
    name: &'static str,
    dtype: (&'static str, u64),
    shape: Vec<u64>,
    twist: Twist,
}

/// An oddity of an entry.
#[derive(Debug, Clone)]
enum Twist {
    None,
    Unknown(&'static str),
    Nested(usize),
    List,
    DtypeAsMap,
    FieldTwice,
    Rank(usize),
    Shift(i64),
    Offsets(u64, u64),
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "model.layers.0.mlp.up_proj.weight",
        r"\u0061",
        r"\u001b[31m",
        "",
        "é",
        r"\ud83d\ude00",
    ]);
    let dtype = prop::sample::select(vec![
        ("F32", 32),
        ("BF16", 16),
        ("U8", 8),
        ("F4", 4),
        ("F6_E3M2", 6),
        ("C64", 64),
        ("F8_E8M0", 8),
        ("f32", 32),
    ]);
    let dim = prop_oneof![8 => 0..5u64, 1 => Just(1 << 32), 1 => any::<u64>()];
    let edge = prop_oneof![0..64u64, Just(u64::MAX), Just(u64::MAX - 7), Just(1 << 63)];
    let twist = prop_oneof![
        30 => Just(Twist::None),
        3 => prop::sample::select(UNKNOWN.to_vec()).prop_map(Twist::Unknown),
        1 => (120..132usize).prop_map(Twist::Nested),
        1 => Just(Twist::List),
        1 => Just(Twist::DtypeAsMap),
        1 => Just(Twist::FieldTwice),
        1 => (1020..1030usize).prop_map(Twist::Rank),
        1 => (-3..3i64).prop_map(Twist::Shift),
        1 => (edge.clone(), edge).prop_map(|(begin, end)| Twist::Offsets(begin, end)),
    ];
    (name, dtype, prop::collection::vec(dim, 0..4), twist)
        .prop_map(|(name, dtype, shape, twist)| Entry { name, dtype, shape, twist })
}

impl Entry {
    /// The entry as JSON, with data that begins at `at`, and the end of its data.
    fn encode(&self, at: u64) -> (String, u64) {
        let (name, (dtype, bits)) = (self.name, self.dtype);
        let mut shape = self.shape.clone();
        if let Twist::Rank(rank) = self.twist {
            shape.resize(rank, 1);
        }
        let product = shape.iter().fold(1u64, |product, dim| product.wrapping_mul(*dim));
        let end = at.wrapping_add(product.wrapping_mul(bits) / 8);
        let (first, last) = match self.twist {
            Twist::Shift(by) => (at.wrapping_add_signed(by), end.wrapping_add_signed(by)),
            Twist::Offsets(first, last) => (first, last),
            _ => (at, end),
        };
        let dtype = match self.twist {
            Twist::DtypeAsMap => format!(r#"{{"{dtype}":null}}"#),
            _ => format!("\"{dtype}\""),
        };
        let more = match &self.twist {
            Twist::Unknown(field) => format!("{field},"),
            Twist::Nested(depth) => format!("\"x\":{}{},", "[".repeat(*depth), "]".repeat(*depth)),
            Twist::FieldTwice => format!("\"dtype\":{dtype},"),
            _ => String::new(),
        };
        let value = match self.twist {
            Twist::List => format!("[{dtype},{shape:?},[{first},{last}]]"),
            _ => format!(
                r#"{{{more}"dtype":{dtype},"shape":{shape:?},"data_offsets":[{first},{last}]}}"#
            ),
        };
        (format!("\"{name}\":{value}"), end)
    }
}

/// A change to the bytes of a well-formed file.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index),
    Length(i64),
    Data(i64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = || any::<prop::sample::Index>();
    let token = prop::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"", " ", "0", "-", "\\"]);
    prop_oneof![
        3 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => (index(), token).prop_map(|(at, token)| Damage::Insert(at, token)),
        3 => index().prop_map(Damage::Remove),
        1 => (-2..3i64).prop_map(Damage::Length),
        1 => (-2..3i64).prop_map(Damage::Data),
    ]
}

const METADATA: [&str; 7] = [
    r#""__metadata__":{"format":"pt"}"#,
    r#""__metadata__":{"k":"1","k":"2"}"#,
    r#""__metadata__":{"k":1}"#,
    r#""__metadata__":null"#,
    r#""__metadata__":{}"#,
    r#""__metadata__":{},"__metadata__":{}"#,
    r#""__metadata__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#,
];

/// The file with these parts.
fn file(metadata: Option<&str>, blanks: usize, entries: &[Entry], damage: &[Damage]) -> Vec<u8> {
    let mut parts: Vec<String> = metadata.iter().map(|text| (*text).to_owned()).collect();
    let mut data = 0;
    for entry in entries {
        let (text, end) = entry.encode(data);
        parts.push(text);
        data = end;
    }
    let pad = " ".repeat(blanks);
    let mut header = format!("{pad}{{{}}}{pad}", parts.join(",")).into_bytes();
    let (mut wrong_length, mut wrong_data) = (0, 0);
    for damage in damage {
        match damage {
            Damage::Set(at, byte) if !header.is_empty() => {
                let at = at.index(header.len());
                header[at] = *byte;
            }
            Damage::Insert(at, token) => {
                let at = at.index(header.len() + 1);
                header.splice(at..at, token.bytes());
            }
            Damage::Remove(at) if !header.is_empty() => {
                header.remove(at.index(header.len()));
            }
            Damage::Length(by) => wrong_length = *by,
            Damage::Data(by) => wrong_data = *by,
            Damage::Set(..) | Damage::Remove(_) => {}
        }
    }
    let length = (header.len() as u64).wrapping_add_signed(wrong_length);
    let data = data.min(4096).saturating_add_signed(wrong_data) as usize;
    [&length.to_le_bytes()[..], &header, &vec![0; data]].concat()
}

#[test]
fn random_headers() {
    let victim = Victim::new();
    let outcomes = Outcomes::default();
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let parts = (
        prop::option::weighted(0.3, prop::sample::select(METADATA.to_vec())),
        prop_oneof![4 => Just(0), 1 => 0..9usize],
        prop::collection::vec(entry(), 0..5),
        prop_oneof![1 => Just(Vec::new()), 1 => prop::collection::vec(damage(), 0..3)],
    );
    let result = TestRunner::new_with_rng(config, seed).run(
        &parts,
        |(metadata, blanks, entries, damage)| {
            let bytes = file(metadata, blanks, &entries, &damage);
            fs::write(&victim.file, &bytes).unwrap();
            victim.agree(&bytes, &outcomes).map_err(|why| {
                let header = String::from_utf8_lossy(&bytes).into_owned();
                TestCaseError::fail(format!("{why}\nin {header:?}"))
            })
        },
    );
    result.unwrap_or_else(|e| panic!("{e}"));
    let [read, refused, stricter] =
        [&outcomes.read, &outcomes.refused, &outcomes.stricter].map(Cell::get);
    assert!(read > 200 && refused > 200 && stricter > 20, "{outcomes:?}");
}
