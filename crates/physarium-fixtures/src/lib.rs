/*!
Seeded checkpoints for tests and benchmarks: same seed, same bytes, on every machine.

Its writer is deliberately not the product's: what physarium reads in a test was put together by
other code.
*/
#![forbid(unsafe_code)]

mod noise;
mod shapes;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

pub use noise::Noise;
pub use shapes::{llama_tensors, qwen2_5_7b_tensors};

/// Element types that fixtures are filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bf16,
    F16,
    F32,
    /// Bytes that no float reader should look at.
    Bytes(&'static str),
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bf16 => "BF16",
            Kind::F16 => "F16",
            Kind::F32 => "F32",
            Kind::Bytes(name) => name,
        }
    }

    pub fn size_bytes(self) -> u64 {
        match self {
            Kind::Bf16 | Kind::F16 => 2,
            Kind::F32 => 4,
            Kind::Bytes(_) => 1,
        }
    }
}

/// A tensor to be made.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    pub kind: Kind,
    pub shape: Vec<u64>,
}

impl Tensor {
    pub fn new(name: impl Into<String>, kind: Kind, shape: &[u64]) -> Tensor {
        Tensor { name: name.into(), kind, shape: shape.to_vec() }
    }

    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    pub fn size_bytes(&self) -> u64 {
        self.elements() * self.kind.size_bytes()
    }
}

/// What the tensors hold.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Gaussian weights of standard deviation 0.02 from this seed, some of them zero.
    Gaussian(u64),
    /// Nothing: a sparse file of zeros, which costs no disk.
    Sparse,
}

/// The 8-byte length, the header and its padding for these tensors, in the order given.
pub fn header(tensors: &[Tensor]) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    entries.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + tensor.size_bytes();
        let entry = serde_json::json!({
            "dtype": tensor.kind.name(), "shape": tensor.shape, "data_offsets": [begin, end],
        });
        entries.insert(tensor.name.clone(), entry);
        begin = end;
    }
    with_length(serde_json::Value::Object(entries).to_string())
}

/// A header from its JSON, padded with blanks to a multiple of eight.
pub fn with_length(mut json: String) -> Vec<u8> {
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

/// Writes one shard.
pub fn write_shard(path: &Path, tensors: &[Tensor], fill: Fill) -> io::Result<()> {
    let header = header(tensors);
    let file = fs::File::create(path)?;
    let mut writer = io::BufWriter::with_capacity(1 << 20, file);
    writer.write_all(&header)?;
    match fill {
        Fill::Sparse => {
            let data: u64 = tensors.iter().map(Tensor::size_bytes).sum();
            writer.flush()?;
            writer.get_ref().set_len(header.len() as u64 + data)?;
        }
        Fill::Gaussian(seed) => {
            for tensor in tensors {
                // Seeded by name, so that a tensor is the same however the model is sharded.
                let mut noise = Noise::named(seed, &tensor.name);
                noise.write(&mut writer, tensor.kind, tensor.elements())?;
            }
        }
    }
    writer.flush()
}

/// Writes a checkpoint: `shards` files with an index, or a single `model.safetensors` for one,
/// and a `config.json`.
pub fn write_checkpoint(
    dir: &Path,
    tensors: &[Tensor],
    shards: usize,
    fill: Fill,
) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("config.json"), "{\"model_type\": \"llama\"}\n")?;
    if shards == 1 {
        return write_shard(&dir.join("model.safetensors"), tensors, fill);
    }
    let mut weight_map = BTreeMap::new();
    let per_shard = tensors.len().div_ceil(shards);
    for (i, part) in tensors.chunks(per_shard).enumerate() {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
        write_shard(&dir.join(&name), part, fill)?;
        weight_map.extend(part.iter().map(|tensor| (tensor.name.clone(), name.clone())));
    }
    let total: u64 = tensors.iter().map(Tensor::size_bytes).sum();
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string())
}
