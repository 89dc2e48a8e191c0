/*!
`model.safetensors.index.json`: which shard holds which tensor.

Duplicate keys are errors, as in headers: a map would silently keep the last. Unknown fields are accepted. A
`metadata.total_size` that is wrong, absent or not an integer is a warning: loaders only display it, and the index is
copied byte for byte.
*/

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Malformed, Result};
use crate::escape::printable;
use crate::open::json::{Unread, json_offset, without_position};
use crate::open::source::Source;

/// Name of the index in a checkpoint.
pub(crate) const INDEX_NAME: &str = "model.safetensors.index.json";
/// Largest index that is read, in bytes; one takes some 100 bytes per tensor.
pub(crate) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The index. Its shard names are plain file names.
pub(crate) struct Index {
    /// Tensor name to shard name.
    pub weight_map: BTreeMap<String, String>,
    /// `metadata.total_size` as written, if it is a number.
    pub total_size: Option<serde_json::Number>,
}

impl Index {
    /// Reads and checks the index file.
    ///
    /// # Errors
    /// `Malformed` for invalid JSON, a duplicate key, or a shard name that is not a plain file name; `Io`.
    pub fn read(source: &Source) -> Result<Index> {
        Index::parse(source.path(), &source.read_all(MAX_INDEX_BYTES)?)
    }

    /// Checks the text of an index; `path` is for messages.
    ///
    /// # Errors
    /// As [`Index::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Index> {
        let raw: RawIndex = serde_json::from_slice(bytes).map_err(|e| {
            let found = without_position(&e);
            Malformed::new(path, "index is not valid", "an object with weight_map", found)
                .with_offset(json_offset(bytes, &e))
        })?;
        for (tensor, shard) in &raw.weight_map.0 {
            check_shard_name(path, tensor, shard)?;
        }
        let total_size = raw.metadata.and_then(|mut m| m.0.remove("total_size"));
        let total_size = total_size.and_then(|MaybeNumber(number)| number);
        Ok(Index { weight_map: raw.weight_map.0, total_size })
    }
}

/// Fails unless a shard name is one plain file name: it is joined to the checkpoint's path.
fn check_shard_name(path: &Path, tensor: &str, shard: &str) -> Result<()> {
    let why = if shard.is_empty() {
        Some("an empty name")
    } else if shard == "." || shard == ".." {
        Some("a directory")
    } else if shard.contains(['/', '\\']) {
        Some("a path that may leave the checkpoint")
    } else if shard.chars().any(|c| c.is_control()) {
        Some("a control character")
    } else if shard.len() > 255 {
        Some("a name over 255 bytes")
    } else if !shard.ends_with(".safetensors") {
        Some("a name without .safetensors")
    } else {
        None
    };
    match why {
        None => Ok(()),
        Some(why) => {
            let found = format!("{why}: \"{}\"", printable(shard));
            Err(Malformed::new(path, "bad shard name", "a plain *.safetensors file name", found)
                .with_tensor(tensor)
                .into())
        }
    }
}

/// The fields of the index that are read.
struct RawIndex {
    metadata: Option<UniqueMap<MaybeNumber>>,
    weight_map: UniqueMap<String>,
}

impl<'de> Deserialize<'de> for RawIndex {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawIndex;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with weight_map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawIndex, A::Error> {
                let (mut metadata, mut weight_map) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    let twice = match key.as_str() {
                        "metadata" => metadata
                            .replace(map.next_value::<Option<UniqueMap<MaybeNumber>>>()?)
                            .is_some(),
                        "weight_map" => weight_map.replace(map.next_value()?).is_some(),
                        _ => {
                            map.next_value::<Unread>()?;
                            false
                        }
                    };
                    if twice {
                        return Err(de::Error::custom(format!("field {key:?} twice")));
                    }
                }
                let weight_map =
                    weight_map.ok_or_else(|| de::Error::missing_field("weight_map"))?;
                Ok(RawIndex { metadata: metadata.flatten(), weight_map })
            }
        }
        d.deserialize_map(Fields)
    }
}

/// A number, or another value that is validated and not kept.
struct MaybeNumber(Option<serde_json::Number>);

impl<'de> Deserialize<'de> for MaybeNumber {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = MaybeNumber;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_u64<E>(self, number: u64) -> Result<MaybeNumber, E> {
                Ok(MaybeNumber(Some(number.into())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<MaybeNumber, E> {
                Ok(MaybeNumber(Some(number.into())))
            }
            fn visit_f64<E>(self, number: f64) -> Result<MaybeNumber, E> {
                Ok(MaybeNumber(serde_json::Number::from_f64(number)))
            }
            fn visit_bool<E>(self, _: bool) -> Result<MaybeNumber, E> {
                Ok(MaybeNumber(None))
            }
            fn visit_unit<E>(self) -> Result<MaybeNumber, E> {
                Ok(MaybeNumber(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<MaybeNumber, E> {
                Ok(MaybeNumber(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MaybeNumber, A::Error> {
                while seq.next_element::<Unread>()?.is_some() {}
                Ok(MaybeNumber(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MaybeNumber, A::Error> {
                while map.next_entry::<Unread, Unread>()?.is_some() {}
                Ok(MaybeNumber(None))
            }
        }
        d.deserialize_any(Any)
    }
}

/// A JSON object in which a duplicate key is an error.
struct UniqueMap<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = UniqueMap<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.contains_key(&key) {
                        let shown = printable(&key);
                        return Err(de::Error::custom(format!("key \"{shown}\" twice")));
                    }
                    entries.insert(key, value);
                }
                Ok(UniqueMap(entries))
            }
        }
        d.deserialize_map(Entries(std::marker::PhantomData))
    }
}
