//! The model of a tokenizer: BPE, WordPiece, WordLevel or Unigram.

use ahash::AHashMap;
use serde::Deserialize;
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;

use super::vocabulary::{Merges, Vocabulary};

/// Longest prefix or suffix of tokens, in bytes; it is added to each character of a text.
const MAX_AFFIX: usize = 64;
/// Longest word that WordPiece divides, in characters; its work is quadratic in it.
const MAX_WORD: usize = 1000;
/// Longest token of a Unigram model, in bytes. The crate nests a node in a node for each of them.
const MAX_PIECE: usize = 512;
/// Most nodes of a Unigram model's tree of bytes, each of some 300 bytes. XLM-R's 250,000 tokens have about 700,000.
const MAX_NODES: usize = 2_000_000;

/// A model's fields; each kind has some of them.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Option<Vocabulary>,
    merges: Option<Merges>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    unk_id: Option<usize>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

/// Reads a model.
pub(super) fn read(json: &str) -> Result<ModelWrapper, String> {
    let fault = |what: String| format!("model: {what}");
    let fields: Fields = serde_json::from_str(json).map_err(|e| fault(e.to_string()))?;
    fields.model().map_err(fault)
}

impl Fields {
    fn model(mut self) -> Result<ModelWrapper, String> {
        for affix in [&self.continuing_subword_prefix, &self.end_of_word_suffix] {
            let length = affix.as_ref().map_or(0, String::len);
            if length > MAX_AFFIX {
                return Err(format!("a prefix or suffix of {length} bytes, more than {MAX_AFFIX}"));
            }
        }
        let vocabulary = self.vocab.take().ok_or("no vocab")?;
        match (self.kind(&vocabulary)?, vocabulary) {
            ("BPE", Vocabulary::Ids(ids)) => self.bpe(ids),
            ("WordPiece", Vocabulary::Ids(ids)) => self.word_piece(ids),
            ("WordLevel", Vocabulary::Ids(ids)) => {
                let unk = self.unk_token.ok_or("no unk_token")?;
                let model = WordLevel::builder().vocab(ids).unk_token(unk).build();
                model.map(ModelWrapper::WordLevel).map_err(|e| e.to_string())
            }
            ("Unigram", Vocabulary::Scores(scores)) => self.unigram(scores),
            (kind, _) => Err(format!("{kind} with a vocab of another kind of model")),
        }
    }

    /// The kind of model; older files do not state it.
    fn kind(&self, vocabulary: &Vocabulary) -> Result<&'static str, String> {
        let kinds = ["BPE", "WordPiece", "WordLevel", "Unigram"];
        match (&self.kind, vocabulary) {
            (Some(stated), _) => kinds
                .into_iter()
                .find(|kind| kind == stated)
                .ok_or_else(|| format!("type {stated}, expected one of {}", kinds.join(", "))),
            (None, Vocabulary::Scores(_)) => Ok("Unigram"),
            (None, _) if self.merges.is_some() => Ok("BPE"),
            (None, _) if self.max_input_chars_per_word.is_some() => Ok("WordPiece"),
            (None, _) => Ok("WordLevel"),
        }
    }

    fn bpe(self, ids: AHashMap<String, u32>) -> Result<ModelWrapper, String> {
        let Merges(merges) = self.merges.ok_or("no merges")?;
        if self.dropout.is_some_and(|share| share != 0.0) {
            return Err("dropout: it makes tokens random, expected none".to_owned());
        }
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or_default();
        for (left, right) in &merges {
            let whole = right.strip_prefix(prefix).map(|right| [left, right].concat());
            if whole.is_none_or(|whole| !ids.contains_key(&whole)) {
                return Err(format!(
                    "merge of {left:?} and {right:?}: the vocab has no such token"
                ));
            }
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(ids, merges)
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(unk) = self.unk_token {
            builder = builder.unk_token(unk);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build().map(ModelWrapper::BPE).map_err(|e| e.to_string())
    }

    fn word_piece(self, ids: AHashMap<String, u32>) -> Result<ModelWrapper, String> {
        let longest = self.max_input_chars_per_word.ok_or("no max_input_chars_per_word")?;
        if longest > MAX_WORD {
            return Err(format!("max_input_chars_per_word {longest}, more than {MAX_WORD}"));
        }
        let model = WordPiece::builder()
            .vocab(ids)
            .unk_token(self.unk_token.ok_or("no unk_token")?)
            .continuing_subword_prefix(
                self.continuing_subword_prefix.ok_or("no continuing_subword_prefix")?,
            )
            .max_input_chars_per_word(longest)
            .build();
        model.map(ModelWrapper::WordPiece).map_err(|e| e.to_string())
    }

    fn unigram(self, scores: Vec<(String, f64)>) -> Result<ModelWrapper, String> {
        if let Some((token, _)) = scores.iter().find(|(token, _)| token.len() > MAX_PIECE) {
            return Err(format!("a token of {} bytes, more than {MAX_PIECE}", token.len()));
        }
        let nodes = nodes(&scores);
        if nodes > MAX_NODES {
            return Err(format!(
                "a vocab with {nodes} different beginnings, more than {MAX_NODES}"
            ));
        }
        let model = Unigram::from(scores, self.unk_id, self.byte_fallback.unwrap_or(false));
        model.map(ModelWrapper::Unigram).map_err(|e| e.to_string())
    }
}

/// Nodes of the tree of all tokens' bytes.
fn nodes(scores: &[(String, f64)]) -> usize {
    let mut tokens: Vec<&[u8]> = scores.iter().map(|(token, _)| token.as_bytes()).collect();
    tokens.sort_unstable();
    let mut before: &[u8] = &[];
    let mut nodes = 0;
    for token in tokens {
        let common = token.iter().zip(before).take_while(|(a, b)| a == b).count();
        nodes += token.len() - common;
        before = token;
    }
    nodes
}
