//! Takes a packed file apart, lets a test change it, and writes it again with digests and seal.

use std::fs;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Blake3, Checkpoint, Digest, LinkPolicy, Overwrite, Sha256};
use physarium_fixtures::{Fill, Kind, Tensor, with_length, write_checkpoint};
use physarium_pack::{PackRequest, pack};
use serde_json::{Value, json};

pub const Q: &str = "model.layers.0.self_attn.q_proj.weight";
pub const DOWN: &str = "model.layers.0.mlp.down_proj.weight";
pub const NORM: &str = "model.norm.weight";
pub const HEAD: &str = "lm_head.weight";
pub const SHARDS: [&str; 2] =
    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
pub const INDEX: &str = "model.safetensors.index.json";

const CONTENTS: &str = "physarium.physpack/1:contents";
const SEAL: &str = "physarium.physpack/1:seal";

/// A packed file in its parts.
pub struct Forge {
    pub contents: Value,
    /// Name and bytes of each blob but contents and seal, without padding.
    blobs: Vec<(String, Vec<u8>)>,
    /// What follows a blob up to the next multiple of 64 bytes.
    pub padding: u8,
}

impl Forge {
    /// A packed checkpoint of two shards with two tensors each: one projection is stored as a mask, one as groups.
    pub fn two_shards(temp: &Path) -> Forge {
        let dir = temp.join("in");
        let tensors = [
            Tensor::new(Q, Kind::Bf16, &[16, 32]),
            Tensor::new(DOWN, Kind::Bf16, &[4, 8]),
            Tensor::new(HEAD, Kind::Bf16, &[16]),
            Tensor::new(NORM, Kind::Bf16, &[16]),
        ];
        write_checkpoint(&dir, &tensors, 2, Fill::Gaussian(5)).unwrap();
        thin(&dir.join(SHARDS[0]));
        let path = temp.join("model.physpack");
        let request = PackRequest {
            checkpoint: &Checkpoint::open(&dir).unwrap(),
            out: &path,
            overwrite: Overwrite::Refuse,
            links: LinkPolicy::LeaveOut,
            tool: "test",
        };
        pack(&request, &mut |_| Ok(())).unwrap();
        let forge = Forge::read(&fs::read(path).unwrap());
        let forms = forge.contents["files"][0]["tensors"].as_array().unwrap();
        assert!(forms[0]["form"]["mask"].is_object(), "{forms:?}");
        assert!(forms[1]["form"]["groups"].is_object(), "{forms:?}");
        forge
    }

    fn read(packed: &[u8]) -> Forge {
        let begin = 8 + u64::from_le_bytes(*packed.first_chunk().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&packed[8..begin]).unwrap();
        let blob = |name: &str| {
            let at = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
            &packed[begin + at(0)..begin + at(1)]
        };
        let contents: Value = serde_json::from_slice(blob(CONTENTS)).unwrap();
        let sizes = contents["blobs"].as_object().unwrap().iter();
        let blobs = sizes.map(|(name, record)| {
            let size = record["size_bytes"].as_u64().unwrap() as usize;
            (name.clone(), blob(name)[..size].to_vec())
        });
        Forge { blobs: blobs.collect(), padding: 0, contents }
    }

    /// Writes the file with right digests of blobs, contents and header, and right sizes in the container.
    pub fn write(&mut self, temp: &Path) -> PathBuf {
        let padded = |bytes: &[u8], with: u8| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(64), with);
            bytes
        };
        let mut stored: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, bytes) in &self.blobs {
            let bytes = padded(bytes, self.padding);
            if let Some(record) = self.contents["blobs"].get_mut(name) {
                record["blake3"] = json!(blake3(&bytes).to_string());
            }
            stored.push((name.clone(), bytes));
        }
        stored.push((CONTENTS.to_owned(), padded(self.contents.to_string().as_bytes(), b' ')));
        let Digest(of_contents) = blake3(&stored.last().unwrap().1);
        stored.push((SEAL.to_owned(), vec![0; 64]));
        let (mut header, mut begin) = (serde_json::Map::new(), 0);
        for (name, bytes) in &stored {
            let end = begin + bytes.len();
            let entry =
                json!({"dtype": "U8", "shape": [bytes.len()], "data_offsets": [begin, end]});
            header.insert(name.clone(), entry);
            begin = end;
        }
        let mut text = Value::Object(header).to_string();
        while !(text.len() + 8).is_multiple_of(64) {
            text.push(' ');
        }
        let header = with_length(text);
        let Digest(of_header) = Sha256::of(&header);
        stored.last_mut().unwrap().1 = [of_header, of_contents].concat();
        let blobs = stored.into_iter().flat_map(|(_, bytes)| bytes);
        let path = temp.join("forged.physpack");
        fs::write(&path, header.into_iter().chain(blobs).collect::<Vec<u8>>()).unwrap();
        path
    }

    pub fn files(&mut self) -> &mut Vec<Value> {
        self.contents["files"].as_array_mut().unwrap()
    }

    /// The record of a file.
    pub fn file(&mut self, path: &str) -> &mut Value {
        self.files().iter_mut().find(|file| file["path"] == path).unwrap()
    }

    /// The records of a shard's tensors.
    pub fn tensors(&mut self, shard: usize) -> &mut Vec<Value> {
        self.file(SHARDS[shard])["tensors"].as_array_mut().unwrap()
    }

    /// The record of a tensor.
    pub fn tensor(&mut self, name: &str) -> &mut Value {
        let tensors = self.files().iter_mut().filter_map(|file| file["tensors"].as_array_mut());
        tensors.flatten().find(|tensor| tensor["name"] == name).unwrap()
    }

    /// The bytes of a blob.
    pub fn blob(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.blobs.iter_mut().find(|(blob, _)| blob == name).unwrap().1
    }

    pub fn add_blob(&mut self, name: &str, bytes: Vec<u8>) {
        self.contents["blobs"][name] = json!({"size_bytes": bytes.len(), "blake3": ""});
        self.blobs.push((name.to_owned(), bytes));
    }

    pub fn only_in_container(&mut self, name: &str, bytes: Vec<u8>) {
        self.blobs.push((name.to_owned(), bytes));
    }

    pub fn remove_blob(&mut self, name: &str) {
        self.blobs.retain(|(blob, _)| blob != name);
        self.contents["blobs"].as_object_mut().unwrap().remove(name);
    }

    pub fn add_file(&mut self, path: &str, bytes: Vec<u8>) {
        let sha256 = Sha256::of(&bytes).to_string();
        let record = json!({"path": path, "size_bytes": bytes.len(), "sha256": sha256});
        self.files().push(record);
        self.add_blob(&format!("file:{path}"), bytes);
    }

    pub fn remove_file(&mut self, path: &str) {
        self.files().retain(|file| file["path"] != path);
        self.remove_blob(&format!("file:{path}"));
    }

    /// Adds to the size of a shard.
    pub fn grow_file(&mut self, shard: usize, bytes: u64) {
        let size = &mut self.file(SHARDS[shard])["size_bytes"];
        *size = json!(size.as_u64().unwrap() + bytes);
    }

    /// Stores a shard as a file like any other; its tensors are gone.
    pub fn make_plain(&mut self, shard: &str) {
        let names: Vec<String> = self.file(shard)["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tensor| tensor["name"].as_str().unwrap().to_owned())
            .collect();
        let of_tensor = |blob: &str| names.iter().any(|name| blob.ends_with(&format!(":{name}")));
        let gone: Vec<String> = self
            .blobs
            .iter()
            .map(|(name, _)| name.clone())
            .filter(|name| of_tensor(name))
            .collect();
        gone.iter().for_each(|name| self.remove_blob(name));
        self.remove_blob(&format!("header:{shard}"));
        self.files().retain(|file| file["path"] != shard);
        self.add_file(shard, vec![9; 40]);
    }

    /// Changes the map of the index.
    pub fn edit_index(&mut self, edit: impl FnOnce(&mut Value)) {
        let name = INDEX;
        let mut index: Value = serde_json::from_slice(self.blob(&format!("file:{name}"))).unwrap();
        edit(&mut index["weight_map"]);
        self.remove_file(name);
        self.add_file(name, index.to_string().into_bytes());
    }

    /// Changes the text of a shard's header, and its length.
    pub fn header_text(&mut self, shard: usize, edit: impl FnOnce(&str) -> String) {
        let name = format!("header:{}", SHARDS[shard]);
        let before = self.blob(&name).len();
        let text = edit(std::str::from_utf8(&self.blob(&name)[8..]).unwrap());
        let header = with_length(text.trim_end().to_owned());
        let size = &mut self.file(SHARDS[shard])["size_bytes"];
        *size = json!(size.as_u64().unwrap() + header.len() as u64 - before as u64);
        self.contents["blobs"][&name]["size_bytes"] = json!(header.len());
        *self.blob(&name) = header;
    }

    fn header(&mut self, shard: usize, edit: impl FnOnce(&mut Value)) {
        self.header_text(shard, |text| {
            let mut header = serde_json::from_str(text).unwrap();
            edit(&mut header);
            header.to_string()
        });
    }

    /// Changes an entry of a shard's header.
    pub fn header_entry(&mut self, shard: usize, name: &str, edit: impl FnOnce(&mut Value)) {
        self.header(shard, |header| edit(&mut header[name]));
    }

    pub fn rename_in_header(&mut self, shard: usize, name: &str, to: &str) {
        self.header(shard, |header| {
            let entry = header.as_object_mut().unwrap().remove(name).unwrap();
            header[to] = entry;
        });
    }

    /// Exchanges the offsets of the two tensors of the second shard, which have one size.
    pub fn swap_in_header(&mut self, shard: usize) {
        self.header(shard, |header| {
            let head = header[HEAD]["data_offsets"].take();
            header[HEAD]["data_offsets"] = header[NORM]["data_offsets"].take();
            header[NORM]["data_offsets"] = head;
        });
    }

    pub fn add_to_header(&mut self, shard: usize, name: &str, entry: Value) {
        self.header(shard, |header| header[name] = entry);
    }

    /// Renames a dense tensor in the record, and its blob.
    pub fn rename_in_record(&mut self, name: &str, to: &str) {
        self.tensor(name)["name"] = json!(to);
        let blob = format!("dense:{name}");
        let bytes = self.blob(&blob).clone();
        self.remove_blob(&blob);
        self.add_blob(&format!("dense:{to}"), bytes);
    }
}

fn blake3(bytes: &[u8]) -> Digest {
    let mut blake3 = Blake3::default();
    blake3.update(bytes);
    blake3.finish()
}

/// Sets weights to zero, so that the first projection is best stored as a mask and the second as groups.
fn thin(shard: &Path) {
    let mut bytes = fs::read(shard).unwrap();
    let begin = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    for (at, weight) in bytes[begin..].chunks_exact_mut(2).enumerate() {
        let keep = if at < 16 * 32 { at % 7 < 3 } else { at % 4 < 2 };
        if keep {
            weight[0] |= 1;
        } else {
            weight.fill(0);
        }
    }
    fs::write(shard, bytes).unwrap();
}
