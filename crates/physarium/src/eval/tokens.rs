//! Tokens of a text, by the model's own tokenizer.

use physarium_checkpoint::{BosPlace, Digest, Malformed};
use physarium_model::ModelFiles;

use super::text::Text;
use crate::error::Result;
use crate::tokenizer::{self, BosRule, ModelTokenizer};

/// First guess of the bytes per token, if only the first tokens of a text are wanted.
const BYTES_PER_TOKEN: usize = 8;
/// Tokens at the end of a piece of text that may change if more text follows.
const UNSETTLED: usize = 256;

/// Tokens of a text.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Their ids.
    pub(crate) ids: Vec<u32>,
    /// For each token, the end of its bytes in the text (exclusive).
    pub(crate) ends: Vec<usize>,
    /// Whether the text begins with a special token.
    pub(crate) bos: BosRule,
    /// That token.
    first: Option<u32>,
    /// Digest of `tokenizer.json`.
    pub(crate) tokenizer_sha256: String,
    /// Digests of all files of the tokenizer.
    tokenizer_digests: Option<[Option<Digest>; 4]>,
}

impl Tokens {
    /// The first `limit` tokens of a text, or all, by the tokenizer of a model.
    ///
    /// The first token is the one for the beginning of a text if `add_bos_token` in `tokenizer_config.json` says so,
    /// or, if it is absent, if the tokenizer's post-processor adds one. No other special token is added.
    ///
    /// # Errors
    /// `Checkpoint` if the tokenizer is missing, malformed, or fails on the text.
    pub(crate) fn of(files: &ModelFiles, text: &Text, limit: Option<usize>) -> Result<Tokens> {
        let tokenizer = ModelTokenizer::read(files)?;
        let (bos, first) = tokenizer.bos()?;
        let wanted = limit.unwrap_or(usize::MAX).saturating_sub(first.iter().len());
        let (ids, ends) = encode(&tokenizer, &text.characters, wanted)?;
        Ok(Tokens {
            ids: first.into_iter().chain(ids).collect(),
            ends: first.map(|_| 0).into_iter().chain(ends).collect(),
            bos,
            first,
            tokenizer_sha256: tokenizer.sha256.to_string(),
            tokenizer_digests: tokenizer::digests(files)?,
        })
    }

    /// Puts the token for the beginning of a text at the beginning of each window of `window` tokens, if the tokenizer adds one
    /// before the text. There are as many more tokens as windows.
    ///
    /// # Panics
    /// For a window of one token.
    pub(crate) fn begin_windows(&mut self, window: usize) {
        self.bos.place = BosPlace::EachWindow;
        let Some(first) = self.first else { return };
        let (of_text, ends) = (&self.ids[1..], &self.ends[1..]);
        let most = self.ids.len() + self.ids.len().div_ceil(window - 1);
        let mut ids = Vec::with_capacity(most);
        let mut all_ends = Vec::with_capacity(most);
        for (of_window, ends) in of_text.chunks(window - 1).zip(ends.chunks(window - 1)) {
            all_ends.push(all_ends.last().copied().unwrap_or(0));
            all_ends.extend_from_slice(ends);
            ids.push(first);
            ids.extend_from_slice(of_window);
        }
        (self.ids, self.ends) = (ids, all_ends);
    }

    /// How many tokens of whole windows there are once each window begins so.
    pub(crate) fn in_whole_windows(&self, window: u64) -> u64 {
        let (tokens, each) = match self.first {
            Some(_) => (self.ids.len() as u64 - 1, window - 1),
            None => (self.ids.len() as u64, window),
        };
        tokens / each * window
    }

    /// Keeps the first `limit` tokens.
    pub(crate) fn truncate(&mut self, limit: usize) {
        self.ids.truncate(limit);
        self.ends.truncate(limit);
    }

    /// Fails if the tokenizer of `other` gives other tokens for the same text. A model without a tokenizer passes;
    /// only the size of its vocabulary is compared.
    ///
    /// # Errors
    /// `Checkpoint` for other tokens.
    pub(crate) fn refuse_other_tokenizer(
        &self,
        text: &Text,
        limit: Option<usize>,
        other: &ModelFiles,
    ) -> Result<()> {
        let Some(digests) = tokenizer::digests(other)? else { return Ok(()) };
        if Some(digests) == self.tokenizer_digests
            || Tokens::of(other, text, limit)?.ids == self.ids
        {
            return Ok(());
        }
        let what = "the two models use different tokenizers";
        let path = other.path_of(tokenizer::FILE_NAME);
        Err(Malformed::new(&path, what, "the same tokens for this text", "others").into())
    }
}

/// Ids and ends of the first `wanted` tokens of a text.
fn encode(tokenizer: &ModelTokenizer, text: &str, wanted: usize) -> Result<(Vec<u32>, Vec<usize>)> {
    let mut bytes = wanted.saturating_add(UNSETTLED).saturating_mul(BYTES_PER_TOKEN);
    loop {
        let end = text.floor_char_boundary(bytes.min(text.len()));
        let encoding = tokenizer.encode(&text[..end], "this text")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(first: Option<u32>) -> Tokens {
        let ids = first.into_iter().chain(1..6).collect();
        let ends = first.map(|_| 0).into_iter().chain([3, 4, 8, 9, 12]).collect();
        let (place, said_by, token) = (BosPlace::Text, "tokenizer.json".into(), None);
        let bos = BosRule { added: first.is_some(), place, said_by, token };
        Tokens { ids, ends, bos, first, tokenizer_sha256: String::new(), tokenizer_digests: None }
    }

    #[test]
    fn each_window_begins_as_the_text_does() {
        let mut with = tokens(Some(7));
        with.begin_windows(3);
        assert_eq!(with.ids, [7, 1, 2, 7, 3, 4, 7, 5]);
        // A special token takes no bytes of the text.
        assert_eq!(with.ends, [0, 3, 4, 4, 8, 9, 9, 12]);
        with.truncate(6);
        assert_eq!((with.ids.len(), with.ends.len()), (6, 6));
        // No memory is reserved for a window that the text does not fill.
        let mut long = tokens(Some(7));
        long.begin_windows(usize::MAX);
        assert_eq!(long.ids, [7, 1, 2, 3, 4, 5]);
        let whole = |first| [2, 3, 4, 6, 7].map(|window| tokens(first).in_whole_windows(window));
        assert_eq!(whole(Some(7)), [10, 6, 4, 6, 0]);
        assert_eq!(whole(None), [4, 3, 4, 0, 0]);
        let mut without = tokens(None);
        without.begin_windows(3);
        assert_eq!(without.ids, [1, 2, 3, 4, 5]);
    }
}
