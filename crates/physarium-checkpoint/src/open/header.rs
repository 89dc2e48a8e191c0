/*!
The header of a safetensors file: parsed, then checked against the file.

In: the file. Out: its tensors in the order of their bytes, which are contiguous from the end of the header to the
end of the file. Stricter than the `safetensors` crate in three points: duplicate names and metadata keys are errors
(a map would keep the last), the rank is limited, and spellings of an entry that serde derives besides the format's
own are errors (`["F32", [1], [0, 4]]` for an entry, `{"F32": null}` for a dtype).

Leading and trailing spaces, and unknown fields of an entry, are accepted as by that crate. They are kept in the
output, because header bytes are copied.
*/

use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};

use crate::error::{Malformed, Result};
use crate::open::digest::{Digest, Sha256};
use crate::open::dtype::Dtype;
use crate::open::json::{Unread, json_offset, without_position};
use crate::open::source::Source;

/// Longest header that is accepted, in bytes; the limit of the reference implementation.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most tensors of a checkpoint, and keys of a shard's `__metadata__`. The largest published model has 140,000 tensors;
/// this many take some 400 MB of memory.
pub(crate) const MAX_TENSORS: usize = 400_000;
/// Most dimensions of a tensor. The format has no limit; this one bounds memory.
const MAX_RANK: usize = 1024;
/// Bytes of the length field in front of the header.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// A tensor of a shard, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, exactly as in the header.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Number of elements: the product of `shape`.
    pub elements: u64,
    /// Its first byte, counted from the start of the file.
    pub begin: u64,
    /// One past its last byte, counted from the start of the file.
    pub end: u64,
}

impl TensorInfo {
    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.end - self.begin
    }
}

/// The header of a shard, checked against its file.
#[derive(Debug)]
pub(crate) struct Header {
    /// Tensors in the order of their bytes in the file.
    pub tensors: Vec<TensorInfo>,
    /// Where the first tensor's bytes begin: after the length field and the header.
    pub data_begin: u64,
    /// Digest of the header with its length field.
    pub sha256: Digest,
}

impl Header {
    /// Reads and checks the header of `source`.
    ///
    /// # Errors
    /// `Malformed` for anything that the format does not allow; `FileShrank`, `Io`.
    pub fn read(source: &Source) -> Result<Header> {
        let path = source.path();
        let header_bytes = header_length(source)?;
        let mut bytes = Vec::new();
        let total = (LENGTH_BYTES + header_bytes) as usize;
        bytes.try_reserve_exact(total).map_err(|_| {
            let found = format!("a header of {header_bytes} bytes");
            Malformed::new(path, "header does not fit in memory", "enough memory", found)
        })?;
        bytes.resize(total, 0);
        source.read_exact_at(&mut bytes, 0)?;
        Header::of(path, &bytes, source.len())
    }

    /// Checks a header with its length field, which is all that precedes the tensors in a file of `file_len` bytes.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn of(path: &Path, bytes: &[u8], file_len: u64) -> Result<Header> {
        let (stated, json) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (stated, length) = (u64::from_le_bytes(*stated), json.len() as u64);
        if stated != length || length == 0 {
            let expected = format!("{length} bytes and not 0");
            let found = format!("{stated} bytes");
            return Err(Malformed::new(path, "header length out of range", expected, found)
                .with_offset(0)
                .into());
        }
        let data_begin = LENGTH_BYTES + length;
        let tensors = check(path, parse(path, json)?, data_begin, file_len)?;
        Ok(Header { tensors, data_begin, sha256: Sha256::of(bytes) })
    }
}

/// The length of the header, checked against file and limit before anything is allocated.
fn header_length(source: &Source) -> Result<u64> {
    let (path, file_len) = (source.path(), source.len());
    let mut start = [0u8; 64];
    let known = file_len.min(64) as usize;
    source.read_exact_at(&mut start[..known], 0)?;
    let fault = |what, expected: String, found: String| {
        let fault = Malformed::new(path, what, expected, found);
        match recognise(&start[..known]) {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        }
    };
    if file_len < LENGTH_BYTES {
        let found = format!("{file_len} bytes");
        return Err(fault(
            "file too short for a safetensors file",
            "at least 8 bytes".into(),
            found,
        )
        .into());
    }
    let mut length = [0; 8];
    length.copy_from_slice(&start[..8]);
    let length = u64::from_le_bytes(length);
    let room = file_len - LENGTH_BYTES;
    if length == 0 || length > MAX_HEADER_BYTES || length > room {
        let expected = format!(
            "1 to {} bytes (the file has {file_len} bytes, the format allows {MAX_HEADER_BYTES})",
            room.min(MAX_HEADER_BYTES)
        );
        return Err(fault("header length out of range", expected, format!("{length} bytes"))
            .with_offset(0)
            .into());
    }
    Ok(length)
}

/// A hint for a file that is not in the safetensors format: what it most likely is.
fn recognise(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start();
    if text.starts_with(b"version https://git-lfs") {
        Some("this is a git-lfs pointer, not the weights: run `git lfs pull` in the checkpoint")
    } else if text.starts_with(b"<") {
        Some("this is a web page, not the weights: the download failed; fetch the file again")
    } else if start.starts_with(b"PK\x03\x04") {
        Some("this is a zip file, probably a PyTorch .bin: convert it with safetensors first")
    } else if start.starts_with(b"GGUF") {
        Some("this is a GGUF file: physarium reads Hugging Face safetensors checkpoints")
    } else if start.starts_with(b"\x80") && start.get(1).is_some_and(|v| (2..=5).contains(v)) {
        Some("this is a Python pickle: convert it with safetensors first")
    } else if !start.is_empty() && start.iter().all(|&byte| byte == 0) {
        Some("the file begins with zeros, probably an incomplete download: fetch it again")
    } else {
        None
    }
}

/// One entry of the header, as written.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    offsets: [u64; 2],
}

/// Parses the header's JSON. Names may still be duplicates.
fn parse(path: &Path, json: &[u8]) -> Result<Vec<Entry>> {
    let mut current = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = HeaderSeed { current: &mut current }
        .deserialize(&mut deserializer)
        .and_then(|entries| deserializer.end().map(|()| entries));
    parsed.map_err(|e| {
        let offset = LENGTH_BYTES + json_offset(json, &e);
        let found = without_position(&e);
        let fault = Malformed::new(path, "header is not valid", "safetensors header JSON", found)
            .with_offset(offset);
        match current {
            Some(name) => fault.with_tensor(name).into(),
            None => fault.into(),
        }
    })
}

/// Sorts entries by offset; checks names, sizes and contiguity.
fn check(
    path: &Path,
    mut entries: Vec<Entry>,
    data_begin: u64,
    file_len: u64,
) -> Result<Vec<TensorInfo>> {
    refuse_duplicate_names(path, &mut entries)?;
    entries.sort_by_key(|entry| entry.offsets);
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(entries.len());
    let mut at = data_begin;
    for entry in entries {
        let (elements, size) = sizes(path, &entry)?;
        let [begin, end] = entry.offsets;
        let absolute = |offset: u64| offset.checked_add(data_begin).filter(|at| *at <= file_len);
        let fault = |what, expected: String, found: String| {
            Malformed::new(path, what, expected, found).with_tensor(&entry.name)
        };
        let (Some(first), Some(last)) = (absolute(begin), absolute(end)) else {
            let expected = format!("at most {} bytes of data", file_len - data_begin);
            let found = format!("data_offsets [{begin}, {end}]");
            return Err(fault("data lies outside the file", expected, found).into());
        };
        if first > last || last - first != size {
            let expected = format!("{size} bytes for {} {:?}", entry.dtype, entry.shape);
            let found = format!("data_offsets [{begin}, {end}]");
            return Err(fault("size does not match dtype and shape", expected, found).into());
        }
        if first != at {
            let what = if first < at { "overlaps the tensor before it" } else { "gap before it" };
            let before = tensors.last().map_or("the header".to_owned(), |t: &TensorInfo| {
                format!("tensor {}", crate::escape::printable(&t.name))
            });
            let expected = format!("byte {} (the end of {before})", at - data_begin);
            return Err(fault(what, expected, format!("byte {begin}")).with_offset(first).into());
        }
        at = last;
        let Entry { name, dtype, shape, .. } = entry;
        tensors.push(TensorInfo { name, dtype, shape, elements, begin: first, end: last });
    }
    if at != file_len {
        let expected = format!("{at} bytes (the end of the last tensor)");
        let found = format!("{file_len} bytes");
        return Err(Malformed::new(path, "bytes after the last tensor", expected, found)
            .with_offset(at)
            .into());
    }
    Ok(tensors)
}

/// Fails on a duplicate name; sorts the entries by name to find one.
fn refuse_duplicate_names(path: &Path, entries: &mut [Entry]) -> Result<()> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    match entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        None => Ok(()),
        Some(pair) => {
            let found = format!(
                "data_offsets {:?} and {:?} under one name",
                pair[0].offsets, pair[1].offsets
            );
            Err(Malformed::new(path, "duplicate tensor name", "each name once", found)
                .with_tensor(&pair[0].name)
                .into())
        }
    }
}

/// Number of elements and size in bytes of an entry.
fn sizes(path: &Path, entry: &Entry) -> Result<(u64, u64)> {
    let fault = |what, expected: &str| {
        let found = format!("{} {:?}", entry.dtype, entry.shape);
        Malformed::new(path, what, expected, found).with_tensor(&entry.name)
    };
    // A partial product that overflows is an error even if a later dimension is zero, as in the reference crate.
    let elements = entry
        .shape
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))
        .ok_or_else(|| fault("shape overflows", "a product below 2^64"))?;
    let bits = elements
        .checked_mul(entry.dtype.bits())
        .ok_or_else(|| fault("size overflows", "fewer than 2^64 bits"))?;
    if bits % 8 != 0 {
        return Err(fault("size is not whole bytes", "an even number of packed elements").into());
    }
    Ok((elements, bits / 8))
}

/// Reads the top-level object; keeps the name of the current entry for error messages.
struct HeaderSeed<'a> {
    current: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = Vec<Entry>;
    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut metadata_seen = false;
        while let Some(name) = map.next_key::<String>()? {
            *self.current = Some(name.clone());
            if name == "__metadata__" {
                if metadata_seen {
                    return Err(de::Error::custom("`__metadata__` twice"));
                }
                metadata_seen = true;
                map.next_value::<Option<Metadata>>()?;
            } else {
                if entries.len() == MAX_TENSORS {
                    return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                }
                let RawEntry { dtype, shape, offsets } = map.next_value()?;
                entries.push(Entry { name, dtype, shape, offsets });
            }
            *self.current = None;
        }
        Ok(entries)
    }
}

/// `__metadata__`: strings by string keys, each key once. It is only validated: header bytes are copied.
struct Metadata;

impl<'de> de::Deserialize<'de> for Metadata {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut seen = std::collections::HashSet::new();
                while let Some((key, _)) = map.next_entry::<String, String>()? {
                    if let Some(key) = seen.replace(key) {
                        let shown = crate::escape::printable(&key);
                        return Err(de::Error::custom(format!("key \"{shown}\" twice")));
                    }
                    if seen.len() > MAX_TENSORS {
                        return Err(de::Error::custom(format!("more than {MAX_TENSORS} keys")));
                    }
                }
                Ok(Metadata)
            }
        }
        d.deserialize_map(Texts)
    }
}

struct RawEntry {
    dtype: Dtype,
    shape: Vec<u64>,
    offsets: [u64; 2],
}

impl<'de> de::Deserialize<'de> for RawEntry {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(RawEntryVisitor)
    }
}

struct RawEntryVisitor;

impl<'de> Visitor<'de> for RawEntryVisitor {
    type Value = RawEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntry, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "dtype" => dtype.replace(map.next_value::<HeaderDtype>()?.0).is_some(),
                "shape" => shape.replace(map.next_value::<Shape>()?.0).is_some(),
                "data_offsets" => offsets.replace(map.next_value()?).is_some(),
                _ => {
                    map.next_value::<Unread>()?;
                    false
                }
            };
            if twice {
                return Err(de::Error::custom(format!("field {key:?} twice")));
            }
        }
        Ok(RawEntry {
            dtype: dtype.ok_or_else(|| de::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| de::Error::missing_field("shape"))?,
            offsets: offsets.ok_or_else(|| de::Error::missing_field("data_offsets"))?,
        })
    }
}

struct HeaderDtype(Dtype);

impl<'de> de::Deserialize<'de> for HeaderDtype {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        Dtype::from_header(&name).map(HeaderDtype).ok_or_else(|| {
            let shown = crate::escape::printable(&name);
            de::Error::invalid_value(de::Unexpected::Str(&shown), &"a safetensors dtype")
        })
    }
}

struct Shape(Vec<u64>);

impl<'de> de::Deserialize<'de> for Shape {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == MAX_RANK {
                        return Err(de::Error::custom(format!("over {MAX_RANK} dimensions")));
                    }
                    dims.push(dim);
                }
                Ok(Shape(dims))
            }
        }
        d.deserialize_seq(Dims)
    }
}
