//! A text as the tokens of a checkpoint's own tokenizer.

use physarium_checkpoint::Malformed;
use physarium_model::ModelFiles;
use tokenizers::Tokenizer;

use super::text::Text;
use crate::error::Result;
use crate::tokenizer::{self, BosRule, TokenizerConfig};

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
    /// Tokenizes a text with the tokenizer of a model, the first `limit` tokens of it.
    ///
    /// A token for the beginning of text is put first where `tokenizer_config.json` says so
    /// (`add_bos_token`), or, where it is silent, where the tokenizer's post-processor does. No other
    /// special token is added.
    ///
    /// # Errors
    /// `Checkpoint` when the tokenizer is missing or cannot be read, or fails on the text.
    pub fn of(files: &ModelFiles, text: &Text, limit: Option<usize>) -> Result<Tokens> {
        let (tokenizer, digest) = tokenizer::read(files)?;
        let (bos, first) = tokenizer::bos(&TokenizerConfig::read(files)?, &tokenizer)?;
        let wanted = limit.unwrap_or(usize::MAX).saturating_sub(first.iter().len());
        let (ids, ends) = encode(&tokenizer, &text.characters, wanted)
            .map_err(|e| tokenizer::fault(files, &format!("on this text: {e}")))?;
        Ok(Tokens {
            ids: first.into_iter().chain(ids).collect(),
            ends: first.map(|_| 0).into_iter().chain(ends).collect(),
            bos,
            tokenizer_sha256: digest.to_string(),
        })
    }

    /// Fails if the tokenizer of `other` makes other tokens of the same text. One
    /// without a tokenizer is taken at its vocabulary.
    pub(crate) fn refuse_other_tokenizer(
        &self,
        text: &Text,
        limit: Option<usize>,
        other: &ModelFiles,
    ) -> Result<()> {
        let Some(digest) = tokenizer::digest(other)? else { return Ok(()) };
        if digest.to_string() == self.tokenizer_sha256
            || Tokens::of(other, text, limit)?.ids == self.ids
        {
            return Ok(());
        }
        let expected = "the same tokens as the model's own tokenizer makes";
        Err(Malformed::new(&other.path_of(tokenizer::FILE_NAME), "tokenizer", expected, "others")
            .into())
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
