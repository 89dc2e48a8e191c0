//! The vocabulary and the merges of a model, read within bounds: nothing is kept of a file that exceeds them.

use std::fmt;

use ahash::AHashMap;
use serde::Deserialize;
use serde::de::{self, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Most tokens, most merges, and the bound of ids. The largest published vocabularies have 262,144 tokens; a decoder
/// takes as many.
pub(crate) const MAX_TOKENS: u32 = 1 << 20;
/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// The tokens of a model.
pub(super) enum Vocabulary {
    /// With their ids.
    Ids(AHashMap<String, u32>),
    /// With their scores, in the order of their ids.
    Scores(Vec<(String, f64)>),
}

fn check_token<E: de::Error>(token: &str, count: usize) -> Result<(), E> {
    if token.len() > MAX_TOKEN_BYTES {
        let length = token.len();
        return Err(E::custom(format!("a token of {length} bytes, more than {MAX_TOKEN_BYTES}")));
    }
    if count >= MAX_TOKENS as usize {
        return Err(E::custom(format!("more than {MAX_TOKENS} tokens or merges")));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tokens to ids, or a list of tokens with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = AHashMap::new();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    check_token(&token, tokens.len())?;
                    if id >= MAX_TOKENS {
                        let what = format!("id {id}, expected one below {MAX_TOKENS}");
                        return Err(A::Error::custom(what));
                    }
                    tokens.insert(token, id);
                }
                Ok(Vocabulary::Ids(tokens))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                let mut tokens = Vec::new();
                while let Some((token, score)) = seq.next_element::<(String, f64)>()? {
                    check_token(&token, tokens.len())?;
                    tokens.push((token, score));
                }
                Ok(Vocabulary::Scores(tokens))
            }
        }
        d.deserialize_any(Tokens)
    }
}

/// The merges of a model, in the order of their ranks.
pub(super) struct Merges(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = seq.next_element::<Merge>()? {
                    if let Merge(Some((left, right))) = pair {
                        check_token(&left, pairs.len())?;
                        check_token(&right, pairs.len())?;
                        pairs.push((left, right));
                    }
                }
                Ok(Merges(pairs))
            }
        }
        d.deserialize_seq(Pairs)
    }
}

/// A merge: `["a", "b"]`, or `"a b"`; none in a line that states a version.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of tokens, or two tokens with a space between them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                if text.starts_with("#version") {
                    return Ok(Merge(None));
                }
                let pair = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
                let (left, right) =
                    pair.ok_or_else(|| E::invalid_value(de::Unexpected::Str("a merge"), &self))?;
                Ok(Merge(Some((left.to_owned(), right.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let left = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let right =
                    seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                match seq.next_element::<de::IgnoredAny>()? {
                    None => Ok(Merge(Some((left, right)))),
                    Some(_) => Err(A::Error::invalid_length(3, &self)),
                }
            }
        }
        d.deserialize_any(Pair)
    }
}
