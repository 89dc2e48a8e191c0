/*!
Seeded checkpoints for tests and benchmarks: same seed, same bytes, on every machine.

The writer shares no code with the product, so that tests check what physarium reads against an
independent implementation of the format.
*/
#![forbid(unsafe_code)]

mod noise;
mod shapes;
mod tensor;
mod wide;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

pub use noise::Noise;
pub use shapes::{llama_tensors, qwen2_5_7b_tensors};
pub use tensor::{Kind, Tensor};
pub use wide::write_wide_model;

/// The values of the tensors.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// Gaussian weights of standard deviation 0.02 from this seed; one in 1,024 is zero.
    Gaussian(u64),
    /// Zeros, as a sparse file that takes no disk space.
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

/// A header from its JSON, padded with spaces to a multiple of eight bytes, after its 8-byte length.
pub fn with_length(mut json: String) -> Vec<u8> {
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

/// The bytes of one shard with these tensors, in the order given: names, entries of another header, of which dtype and
/// shape are taken, and bytes.
pub fn shard_of(tensors: &[(String, serde_json::Value, Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, entry, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = serde_json::json!({"dtype": entry["dtype"], "shape": entry["shape"],
            "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    [with_length(serde_json::Value::Object(header).to_string()), data].concat()
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
                // Seeded by name, so that a tensor does not depend on how the model is sharded.
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
