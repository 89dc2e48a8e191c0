//! A packed file. Input: the record of its contents, a line, and then the bytes of blobs, each after a line `#NAME`.
//! Digests and container are made here, so that only the structure can be wrong.
//!
//! What is accepted and unpacked opens as a checkpoint with exactly the tensors that the packed file lists.
#![no_main]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use physarium::checkpoint::{Checkpoint, LinkPolicy, Overwrite};
use physarium::pack::{PackRequest, Packed, pack, unpack};
use physarium_fixtures::with_length;
use physarium_fuzz::{
    half, prune, read_twice, scratch, two_of_four, write_fused_model, write_model, write_seeds,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CONTENTS: &str = "physarium.physpack/1:contents";
const SEAL: &str = "physarium.physpack/1:seal";
/// Most bytes of a blob, and of all.
const MOST: u64 = 1 << 20;

static DIR: OnceLock<PathBuf> = OnceLock::new();

/// A packed file in its parts.
struct Parts {
    contents: Value,
    blobs: Vec<(String, Vec<u8>)>,
}

impl Parts {
    /// The parts that the input stands for. A blob has the bytes that it is given, then a pattern up to its size.
    fn of(data: &[u8]) -> Option<Parts> {
        let end = data.iter().position(|byte| *byte == b'\n')?;
        let mut contents: Value = serde_json::from_slice(&data[..end]).ok()?;
        let mut given = HashMap::new();
        let (mut rest, separator) = (&data[end..], b"\n#");
        while let Some(at) = rest.windows(2).position(|two| two == separator) {
            rest = &rest[at + 2..];
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let next = rest.windows(2).position(|two| two == separator).unwrap_or(rest.len());
            given.insert(rest[..end].to_vec(), rest.get(end + 1..next).unwrap_or_default());
        }
        let (mut blobs, mut total) = (Vec::new(), 0);
        for (name, record) in contents["blobs"].as_object_mut()? {
            let size = record["size_bytes"].as_u64().unwrap_or(0);
            total += size.min(MOST);
            if size > MOST || total > MOST {
                return None;
            }
            let mut bytes = given.get(name.as_bytes()).copied().unwrap_or_default().to_vec();
            bytes.resize(size as usize, 0x55);
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            if let Some(record) = record.as_object_mut() {
                record.insert("blake3".into(), blake3::hash(&bytes).to_hex().as_str().into());
            }
            blobs.push((name.clone(), bytes));
        }
        Some(Parts { contents, blobs })
    }

    /// The file, with its seal.
    fn file(&self) -> Vec<u8> {
        let mut contents = self.contents.to_string().into_bytes();
        contents.resize(contents.len().next_multiple_of(64), b' ');
        let mut header = serde_json::Map::new();
        let mut begin = 0;
        let named = self.blobs.iter().map(|(name, bytes)| (name.as_str(), bytes.len()));
        for (name, size) in named.chain([(CONTENTS, contents.len()), (SEAL, 64)]) {
            let entry =
                json!({"dtype": "U8", "shape": [size], "data_offsets": [begin, begin + size]});
            header.insert(name.to_owned(), entry);
            begin += size;
        }
        let mut text = Value::Object(header).to_string();
        // The first blob begins at a multiple of 64.
        text.extend(std::iter::repeat_n(
            ' ',
            (text.len() + 8).next_multiple_of(64) - text.len() - 8,
        ));
        let header = with_length(text);
        let seal = [&Sha256::digest(&header)[..], blake3::hash(&contents).as_bytes()].concat();
        let blobs: Vec<u8> = self.blobs.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        [header, blobs, contents, seal].concat()
    }

    /// Sets the digest of a file to the one that unpacking found. Says whether there was one to set.
    fn correct(&mut self, message: &str) -> bool {
        let found = |before: &str| Some(message.split_once(before)?.1.get(..64)?.to_owned());
        let (Some(expected), Some(found)) = (found("expected SHA-256 "), found("found ")) else {
            return false;
        };
        let files = self.contents["files"].as_array_mut().into_iter().flatten();
        let mut changed = false;
        for file in files.filter(|file| file["sha256"] == expected.as_str()) {
            file["sha256"] = found.as_str().into();
            changed = true;
        }
        changed
    }
}

/// A packed file as input of this target.
fn input_of(packed: &[u8]) -> Vec<u8> {
    let size = u64::from_le_bytes(*packed.first_chunk().expect("a length")) as usize;
    let header: Value = serde_json::from_slice(&packed[8..8 + size]).expect("JSON");
    let blob = |name: &str| {
        let at = |i: usize| header[name]["data_offsets"][i].as_u64().expect("an offset") as usize;
        &packed[8 + size + at(0)..8 + size + at(1)]
    };
    let contents: Value = serde_json::from_slice(blob(CONTENTS)).expect("JSON");
    let mut input = contents.to_string().into_bytes();
    for (name, record) in contents["blobs"].as_object().expect("an object") {
        input.extend_from_slice(format!("\n#{name}\n").as_bytes());
        input.extend_from_slice(
            &blob(name)[..record["size_bytes"].as_u64().expect("a size") as usize],
        );
    }
    input
}

fn seeds() {
    let dir = scratch("packed-seeds");
    let seed = |name: &str, write: fn(&Path), options| {
        let (model, out) = (dir.join(format!("{name}-model")), dir.join(name));
        write(&model);
        prune(&model, &out, &options);
        let packed = dir.join(format!("{name}.physpack"));
        let request = PackRequest {
            checkpoint: &Checkpoint::open(&out).expect("a checkpoint"),
            out: &packed,
            overwrite: Overwrite::Refuse,
            links: LinkPolicy::LeaveOut,
            tool: "fuzz",
        };
        pack(&request, &mut |_| Ok(())).expect("a packed file");
        input_of(&fs::read(packed).expect("a packed file"))
    };
    write_seeds(&[
        ("half", seed("half", write_model, half())),
        ("pattern", seed("pattern", write_model, two_of_four())),
        ("fused", seed("fused", write_fused_model, half())),
    ]);
    let _ = fs::remove_dir_all(dir);
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let dir = DIR.get_or_init(|| scratch("packed"));
    let (path, out) = (dir.join("x.physpack"), dir.join("out"));
    let Some(mut parts) = Parts::of(data) else { return };
    let files = parts.contents["files"].as_array().map_or(0, Vec::len);
    fs::write(&path, parts.file()).expect("the packed file is written");
    let open = || Packed::open(&path).map(|packed| packed.tensors().cloned().collect::<Vec<_>>());
    let Some(tensors) = read_twice(open) else { return };
    let bounded: u64 = tensors.iter().map(|tensor| tensor.stored_bytes()).sum();
    assert!(bounded <= MOST, "tensors of {bounded} bytes in a file of at most {MOST}");
    for _ in 0..=files {
        fs::write(&path, parts.file()).expect("the packed file is written");
        let packed = Packed::open(&path).expect("it opened before");
        match unpack(&packed, &out, &mut |_| Ok(())) {
            Ok(_) => {
                let there = Checkpoint::open(&out).expect("what is unpacked is a checkpoint");
                let face: Vec<_> =
                    there.tensors().map(|(_, t)| (t.name.clone(), t.dtype, t.shape.clone())).collect();
                let mut listed: Vec<_> =
                    tensors.iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone())).collect();
                // Files are listed in any order, shards sorted by name.
                let mut face = face;
                face.sort_by(|a, b| a.0.cmp(&b.0));
                listed.sort_by(|a, b| a.0.cmp(&b.0));
                assert_eq!(face, listed, "two faces");
                fs::remove_dir_all(&out).expect("the directory is removed");
                return;
            }
            Err(e) => {
                assert!(!out.exists(), "nothing is left");
                if !parts.correct(&e.to_string()) {
                    return;
                }
            }
        }
    }
});
