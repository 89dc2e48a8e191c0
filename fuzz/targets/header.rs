//! The header of a shard. Input: its JSON, then two bytes for the number of bytes after it; or, after a zero, a
//! whole file.
//!
//! What is accepted, the `safetensors` crate reads the same way.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use physarium::checkpoint::{Error, Shard, TensorInfo};
use physarium_fixtures::{Kind, Tensor, header, llama_tensors};
use physarium_fuzz::{read_twice, scratch, write_seeds};
use safetensors::SafeTensors;

static FILE: OnceLock<PathBuf> = OnceLock::new();

fn seeds() {
    let seed = |tensors: &[Tensor]| {
        let size: u64 = tensors.iter().map(Tensor::size_bytes).sum();
        [&header(tensors)[8..], &(size as u16).to_le_bytes()].concat()
    };
    let odd = [
        Tensor::new("scalar", Kind::F32, &[]),
        Tensor::new("empty \u{1b}[1m", Kind::Bytes("BOOL"), &[0, 7]),
        Tensor::new("model.layers.0.mlp.down_proj.weight", Kind::Bytes("F8_E5M2"), &[3, 5]),
    ];
    let whole = [&[0][..], &header(&odd), &[1; 19]].concat();
    write_seeds(&[
        ("llama", seed(&llama_tensors(Kind::Bf16, 1, [8, 4, 8]))),
        ("odd", seed(&odd)),
        ("none", b"{}\0\0".to_vec()),
        ("whole", whole),
    ]);
}

/// The file that the input stands for.
fn file_of(data: &[u8]) -> Option<Vec<u8>> {
    if let [0, whole @ ..] = data {
        return Some(whole.to_vec());
    }
    let (json, size) = data.split_last_chunk::<2>()?;
    let length = (json.len() as u64).to_le_bytes();
    Some([&length[..], json, &vec![0; u16::from_le_bytes(*size).into()]].concat())
}

/// Name, dtype, shape and byte range of each tensor, by name.
fn by_name(tensors: Vec<TensorInfo>, data_begin: u64) -> Vec<(String, String, Vec<u64>, [u64; 2])> {
    let mut all: Vec<_> = tensors
        .into_iter()
        .map(|t| (t.name, t.dtype.to_string(), t.shape, [t.begin - data_begin, t.end - data_begin]))
        .collect();
    all.sort();
    all
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let file = FILE.get_or_init(|| scratch("header").join("x.safetensors"));
    let Some(bytes) = file_of(data) else { return };
    fs::write(file, &bytes).expect("the shard is written");
    let open = || Ok::<_, Error>(Shard::open(file)?).map(|shard| (shard.tensors, shard.data_begin));
    let Some((tensors, data_begin)) = read_twice(open) else { return };
    assert_eq!(tensors.last().map_or(data_begin, |last| last.end), bytes.len() as u64);
    let (_, reference) = SafeTensors::read_metadata(&bytes).expect("the reference accepts it too");
    let mut theirs: Vec<_> = reference
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let shape = info.shape.iter().map(|dim| *dim as u64).collect::<Vec<_>>();
            let (begin, end) = info.data_offsets;
            (name, info.dtype.to_string(), shape, [begin as u64, end as u64])
        })
        .collect();
    theirs.sort();
    assert_eq!(by_name(tensors, data_begin), theirs);
});
