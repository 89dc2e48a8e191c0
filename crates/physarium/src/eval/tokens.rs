//! A text as the tokens of a checkpoint's own tokenizer.

use std::path::Path;

use physarium_checkpoint::{Malformed, Sha256, Source, printable};
use serde_json::Value;
use tokenizers::Tokenizer;

use super::report::BosRule;
use super::text::Text;
use crate::error::Result;

/// Largest tokenizer file that is read, in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// Bytes of text that a token is first taken to have when only some tokens are wanted.
const BYTES_PER_TOKEN: usize = 8;
/// Tokens at the end of a piece of text that may come out otherwise when more text follows.
const UNSETTLED: usize = 256;

/// Tokens of a text.
#[derive(Debug)]
pub struct Tokens {
    /// Their ids.
    pub ids: Vec<u32>,
    /// For each token, one past the last byte of the text that it stands for.
    pub ends: Vec<usize>,
    /// How the text begins.
    pub bos: BosRule,
    /// Digest of `tokenizer.json`.
    pub tokenizer_sha256: String,
}

impl Tokens {
    /// Tokenizes a text with the tokenizer of the checkpoint in `dir`, the first `limit` tokens of it.
    ///
    /// A token for the beginning of text is put first where `tokenizer_config.json` says so
    /// (`add_bos_token`), or, where it is silent, where the tokenizer's post-processor does. No other
    /// special token is added.
    ///
    /// # Errors
    /// `Checkpoint` when the tokenizer is missing or cannot be read, or fails on the text.
    pub fn of(dir: &Path, text: &Text, limit: Option<usize>) -> Result<Tokens> {
        let path = dir.join("tokenizer.json");
        let bytes = Source::open(&path)?.read_all(MAX_BYTES)?;
        let fault = |found: String| {
            let expected = "a tokenizer in the tokenizers library's format";
            Malformed::new(&path, "tokenizer", expected, printable(&found))
        };
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| fault(e.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| fault(e.to_string()))?;
        let (bos, first) = bos(dir, &tokenizer)?;
        let wanted = limit.unwrap_or(usize::MAX).saturating_sub(first.iter().len());
        let (ids, ends) = encode(&tokenizer, &text.characters, wanted)
            .map_err(|e| fault(format!("on this text: {e}")))?;
        Ok(Tokens {
            ids: first.into_iter().chain(ids).collect(),
            ends: first.map(|_| 0).into_iter().chain(ends).collect(),
            bos,
            tokenizer_sha256: Sha256::of(&bytes).to_string(),
        })
    }

    /// Fails if the tokenizer of the checkpoint in `other` makes other tokens of the same text. One
    /// without a tokenizer is taken at its vocabulary.
    pub(crate) fn refuse_other_tokenizer(
        &self,
        text: &Text,
        limit: Option<usize>,
        other: &Path,
    ) -> Result<()> {
        let path = other.join("tokenizer.json");
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let digest = Sha256::of(&Source::open(&path)?.read_all(MAX_BYTES)?).to_string();
        if digest == self.tokenizer_sha256 || Tokens::of(other, text, limit)?.ids == self.ids {
            return Ok(());
        }
        let expected = "the same tokens as the model's own tokenizer makes";
        Err(Malformed::new(&path, "tokenizer", expected, "others").into())
    }
}

/// Ids and ends of the first `wanted` tokens of a text.
fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    wanted: usize,
) -> tokenizers::Result<(Vec<u32>, Vec<usize>)> {
    let mut bytes = wanted.saturating_add(UNSETTLED).saturating_mul(BYTES_PER_TOKEN);
    loop {
        let end = text.floor_char_boundary(bytes.min(text.len()));
        let encoding = tokenizer.encode(&text[..end], false)?;
        let ids = encoding.get_ids();
        if end < text.len() && ids.len() < wanted + UNSETTLED {
            bytes = bytes.saturating_mul(2);
            continue;
        }
        let count = ids.len().min(wanted);
        let ends = encoding.get_offsets()[..count].iter().map(|(_, end)| *end).collect();
        return Ok((ids[..count].to_vec(), ends));
    }
}

/// Whether a text begins with a special token, and which.
fn bos(dir: &Path, tokenizer: &Tokenizer) -> Result<(BosRule, Option<u32>)> {
    let path = dir.join("tokenizer_config.json");
    let config: Value = if path.symlink_metadata().is_ok() {
        let bytes = Source::open(&path)?.read_all(MAX_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Malformed::new(&path, "tokenizer config", "a JSON object", printable(&e.to_string()))
        })?
    } else {
        Value::Null
    };
    let added = |said_by, token: String, id| {
        (BosRule { added: true, said_by, token: Some(token) }, Some(id))
    };
    match config.get("add_bos_token").and_then(Value::as_bool) {
        Some(false) => {
            Ok((BosRule { added: false, said_by: "tokenizer_config.json", token: None }, None))
        }
        Some(true) => {
            let bos = &config["bos_token"];
            let token = bos.as_str().or(bos["content"].as_str()).unwrap_or_default();
            match tokenizer.token_to_id(token) {
                Some(id) => Ok(added("tokenizer_config.json", token.to_owned(), id)),
                None => {
                    let expected = "a bos_token of the vocabulary, as add_bos_token is true";
                    let found = printable(&bos.to_string());
                    Err(Malformed::new(&path, "bos_token", expected, found).into())
                }
            }
        }
        None => {
            // What the post-processor puts before a text.
            let with = tokenizer.encode("a", true).ok();
            let without = tokenizer.encode("a", false).ok();
            let first = with.zip(without).and_then(|(with, without)| {
                let (id, plain) = (*with.get_ids().first()?, without.get_ids().first());
                (Some(&id) != plain).then_some(id)
            });
            Ok(match first {
                Some(id) => {
                    added("tokenizer.json", tokenizer.id_to_token(id).unwrap_or_default(), id)
                }
                None => (BosRule { added: false, said_by: "tokenizer.json", token: None }, None),
            })
        }
    }
}
