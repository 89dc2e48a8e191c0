/*!
A model's tokenizer, with all its special tokens.

In: `tokenizer.json` and the files beside it that add tokens (`tokenizer_config.json`, `added_tokens.json`,
`special_tokens_map.json`). Out: a [`ModelTokenizer`], which gives the tokens that transformers' gives.
*/

mod added;
mod config;
mod files;
mod shape;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use physarium_checkpoint::{BosPlace, Digest, Malformed, Sha256, printable};
use physarium_model::ModelFiles;
use serde::{Deserialize, Serialize};
use tokenizers::tokenizer::DecodeStream;
use tokenizers::{
    DecoderWrapper, Encoding, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper,
    PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
};

use crate::bounded::{Bounds, caught};
use crate::error::{Error, Result};

pub(crate) use config::TokenizerConfig;
pub(crate) use files::{CONFIG_NAME, FILE_NAME, TOKENIZER_FILES, digests};

use files::{MAX_BYTES, fault};

/// Files of tokenizers in other formats, and what they are.
const OTHER_FORMATS: [(&str, &str); 5] = [
    ("tokenizer.model", "a SentencePiece model"),
    ("spiece.model", "a SentencePiece model"),
    ("tekken.json", "Mistral's format"),
    ("vocab.json", "a vocabulary in transformers' older format"),
    ("vocab.txt", "a vocabulary in transformers' older format"),
];

/// Bounds of reading a tokenizer. It takes a second for 262,144 tokens.
const READING: Bounds = Bounds { stack: 16 << 20, time: Duration::from_secs(6) };
/// Bounds of making tokens of a short text.
const ENCODING: Bounds = Bounds { stack: 16 << 20, time: Duration::from_secs(3) };
/// Bytes of text that add a second to them.
const BYTES_PER_SECOND: usize = 128 << 10;
/// Bytes that a normalizer may make of a byte, and bytes of text that are tried at once. A space becomes 3 bytes.
const MAX_GROWTH: usize = 4;
const TRIED: usize = 64 << 10;

/// A model's tokenizer.
pub(crate) struct ModelTokenizer {
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether its normalizer may make a text much longer.
    may_grow: bool,
    pub(crate) config: TokenizerConfig,
    /// Digest of `tokenizer.json`.
    pub(crate) sha256: Digest,
    /// Ids that no file states: the model's vocabulary may not have them.
    invented: HashSet<u32>,
    path: PathBuf,
}

impl ModelTokenizer {
    /// Reads a model's tokenizer.
    ///
    /// # Errors
    /// `Checkpoint` when it is missing or cannot be read, and when another file gives a token another id.
    pub(crate) fn read(files: &ModelFiles) -> Result<ModelTokenizer> {
        let bytes = match files.find(FILE_NAME, MAX_BYTES)? {
            Some(bytes) => bytes,
            None => return Err(missing(files)),
        };
        let path = files.path_of(FILE_NAME);
        let fault = |found: String| fault(&path, &found);
        let sha256 = Sha256::of(&bytes);
        let shaped = READING.run(move || shape::read(&bytes));
        let shaped = shaped.map_err(|e| fault(e.to_string()))?.map_err(fault)?;
        let (mut tokenizer, may_grow) = (shaped.tokenizer, shaped.may_grow);
        let config = TokenizerConfig::read(files)?;
        let invented = caught(|| added::add_missing(&mut tokenizer, files, &config));
        let invented = invented.map_err(|e| fault(e.to_string()))??;
        let tokenizer = Arc::new(tokenizer);
        Ok(ModelTokenizer { tokenizer, may_grow, config, sha256, invented, path })
    }

    /// Tokens of a text. None are added at its beginning or end.
    ///
    /// # Errors
    /// `Checkpoint` naming the tokenizer's file, if it fails on the text, which `what` names, or takes much time or
    /// memory for it.
    pub(crate) fn encode(&self, text: &str, what: &str) -> Result<Encoding> {
        self.encoding(text, Specials::Left).map_err(|e| self.fault(&format!("on {what}: {e}")))
    }

    /// Ids of the tokens of each of some texts, as of [`ModelTokenizer::encode`].
    ///
    /// # Errors
    /// As [`ModelTokenizer::encode`].
    pub(crate) fn ids_of_each(&self, texts: Vec<String>, what: &str) -> Result<Vec<Vec<u32>>> {
        let encodings = self.encodings(texts, Specials::Left);
        let encodings = encodings.map_err(|e| self.fault(&format!("on {what}: {e}")))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    fn encoding(&self, text: &str, specials: Specials) -> Result<Encoding, String> {
        let encodings = self.encodings(vec![text.to_owned()], specials)?;
        encodings.into_iter().next().ok_or_else(|| "no tokens".to_owned())
    }

    /// The tokens of each text, made within the bounds for all of them together.
    fn encodings(&self, texts: Vec<String>, specials: Specials) -> Result<Vec<Encoding>, String> {
        let bytes: usize = texts.iter().map(String::len).sum();
        let further = Duration::from_secs((bytes / BYTES_PER_SECOND) as u64);
        let bounds = Bounds { time: ENCODING.time + further, ..ENCODING };
        let (tokenizer, may_grow) = (self.tokenizer.clone(), self.may_grow);
        let encode = move |text: &String| {
            if may_grow {
                refuse_growth(&tokenizer, text)?;
            }
            let encoding = tokenizer.encode(text.as_str(), specials == Specials::Added);
            encoding.map_err(|e| e.to_string())
        };
        let encodings = bounds.run(move || texts.iter().map(encode).collect());
        encodings.unwrap_or_else(|failure| Err(failure.to_string()))
    }

    /// The next piece of a text, once its characters are complete.
    ///
    /// # Errors
    /// `Checkpoint` naming the tokenizer's file, if its decoder fails.
    pub(crate) fn step(&self, stream: &mut ModelStream<'_>, token: u32) -> Result<Option<String>> {
        let piece = caught(|| stream.step(token)).map_err(|e| self.fault(&e.to_string()))?;
        piece.map_err(|e| self.fault(&e.to_string()))
    }

    /// An error about this tokenizer.
    pub(crate) fn fault(&self, found: &str) -> Error {
        fault(&self.path, found)
    }

    /// Whether a text begins with a special token, and the id of that token.
    ///
    /// # Errors
    /// `Checkpoint` if the config asks for a token that the vocabulary does not have.
    pub(crate) fn bos(&self) -> Result<(BosRule, Option<u32>)> {
        let (config, tokenizer) = (&self.config, &self.tokenizer);
        let none = |said_by: &'static str| {
            let (added, place) = (false, BosPlace::Text);
            (BosRule { added, place, said_by: said_by.into(), token: None }, None)
        };
        let added = |said_by: &'static str, token: String, id| {
            let (added, place) = (true, BosPlace::Text);
            (BosRule { added, place, said_by: said_by.into(), token: Some(token) }, Some(id))
        };
        match config.get("add_bos_token").as_bool() {
            Some(false) => Ok(none(CONFIG_NAME)),
            Some(true) => {
                let token = config.token("bos_token").unwrap_or_default();
                let id = self.special("bos_token").ok_or_else(|| {
                    let expected = "a bos_token of the vocabulary, as add_bos_token is true";
                    let found = printable(&config.get("bos_token").to_string());
                    Malformed::new(config.path(), "bos_token", expected, found)
                })?;
                Ok(added(CONFIG_NAME, token.to_owned(), id))
            }
            None => Ok(match self.added_by_post_processor() {
                Some(id) => added(FILE_NAME, tokenizer.id_to_token(id).unwrap_or_default(), id),
                None => none(FILE_NAME),
            }),
        }
    }

    /// The id of a special token by its field, such as `bos_token`, if the vocabulary has it.
    pub(crate) fn special(&self, field: &str) -> Option<u32> {
        let id = self.tokenizer.token_to_id(self.config.token(field)?);
        id.filter(|id| !self.invented.contains(id))
    }

    /// The token that the tokenizer's post-processor adds before a text.
    fn added_by_post_processor(&self) -> Option<u32> {
        let with = self.encoding("a", Specials::Added).ok()?;
        let without = self.encoding("a", Specials::Left).ok()?;
        let (first, plain) = (with.get_ids().first()?, without.get_ids().first());
        (Some(first) != plain).then_some(*first)
    }
}

/// The error for a model without `tokenizer.json`; says which other tokenizer it has.
fn missing(files: &ModelFiles) -> Error {
    let mut found = "none".to_owned();
    let mut hint = "copy tokenizer.json and tokenizer_config.json from the model's repository";
    for (name, what) in OTHER_FORMATS {
        if files.has(name) {
            found = format!("only {name}, {what}");
            hint = "transformers converts it: \
                    AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes tokenizer.json";
            break;
        }
    }
    let expected = "tokenizer.json, in the tokenizers library's format";
    let fault = Malformed::new(files.path(), "tokenizer is missing", expected, found);
    fault.with_hint(hint).into()
}

/// The text of tokens that come one by one.
pub(crate) type ModelStream<'a> = DecodeStream<
    'a,
    ModelWrapper,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// Whether the special tokens around a text are added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Specials {
    Added,
    Left,
}

/// Fails if the normalizer makes a text many times as long: what follows takes memory for each byte.
fn refuse_growth(tokenizer: &Tokenizer, text: &str) -> Result<(), String> {
    let Some(normalizer) = tokenizer.get_normalizer() else { return Ok(()) };
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(TRIED));
        let mut normalized = NormalizedString::from(piece);
        normalizer.normalize(&mut normalized).map_err(|e| e.to_string())?;
        let length = normalized.get().len();
        if length > MAX_GROWTH * piece.len() + 1024 {
            return Err(format!("the normalizer makes {length} bytes of {}", piece.len()));
        }
        rest = after;
    }
    Ok(())
}

/// Whether a text begins with a special token, or each of its windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BosRule {
    /// Whether one was added.
    pub added: bool,
    /// Where it would stand. Records of earlier versions, in which it stood before the text, do not have it.
    #[serde(default)]
    pub place: BosPlace,
    /// The file that decides this.
    pub said_by: Cow<'static, str>,
    /// The token.
    pub token: Option<String>,
}

/// Where the token stands: `<s> before the text`.
impl fmt::Display for BosRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            None => f.write_str("none added"),
            Some(token) => write!(f, "{token} {}", self.place),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn rules_of_earlier_versions_are_read() {
        let earlier = r#"{"added": true, "said_by": "tokenizer.json", "token": "<s>"}"#;
        let rule: BosRule = serde_json::from_str(earlier).unwrap();
        assert_eq!(rule.place, BosPlace::Text);
        assert_eq!(rule.to_string(), "<s> before the text");
    }

    /// The bundled model with `edit` done to its tokenizer, and these files beside it.
    fn model(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
        for entry in fs::read_dir(demo).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        for (name, content) in files {
            match content.is_empty() {
                true => fs::remove_file(dir.path().join(name)).unwrap(),
                false => fs::write(dir.path().join(name), content).unwrap(),
            }
        }
        dir
    }

    fn ids(files: &[(&str, &str)], text: &str) -> Result<Vec<u32>, String> {
        let dir = model(files);
        let files = ModelFiles::open(dir.path()).unwrap();
        let tokenizer = ModelTokenizer::read(&files).map_err(|e| e.to_string())?;
        Ok(tokenizer.encode(text, "this text").unwrap().get_ids().to_vec())
    }

    const TEXT: &str = "a<|user|> b</s>";
    const CONFIG: &str = "tokenizer_config.json";

    #[test]
    fn tokens_of_the_other_files_are_whole_tokens() {
        let plain = ids(&[], TEXT).unwrap();
        assert!(plain.len() > 6, "{plain:?}");
        let a = plain[0];
        let decoder = r#"{"added_tokens_decoder": {"512": {"content": "<|user|>", "lstrip": false,
            "normalized": false, "rstrip": false, "single_word": false, "special": true}}}"#;
        let named = r#"{"bos_token": "<s>", "additional_special_tokens": ["<|user|>"]}"#;
        let dictionary = r#"{"extra_special_tokens": {"user_token": "<|user|>"}}"#;
        let object = r#"{"pad_token": {"content": "<|user|>", "special": true}}"#;
        let cases: [&[(&str, &str)]; 6] = [
            &[(CONFIG, decoder)],
            &[(CONFIG, named)],
            &[(CONFIG, dictionary)],
            &[(CONFIG, "{}"), ("special_tokens_map.json", named)],
            &[(CONFIG, "{}"), ("special_tokens_map.json", object)],
            &[("added_tokens.json", r#"{"<|user|>": 512}"#)],
        ];
        for case in cases {
            let found = ids(case, TEXT).unwrap();
            assert_eq!((found[0], found[1], found[found.len() - 1]), (a, 512, 1), "{case:?}");
        }
        // It takes the space on its right, as its entry says.
        let strips = decoder.replace("\"rstrip\": false", "\"rstrip\": true");
        let (kept, stripped) =
            (ids(&[(CONFIG, decoder)], TEXT).unwrap(), ids(&[(CONFIG, &strips)], TEXT).unwrap());
        assert_ne!(kept, stripped);
    }

    #[test]
    fn a_token_that_would_get_another_id_is_refused() {
        let moved = r#"{"added_tokens_decoder": {"600": {"content": "<|user|>"}}}"#;
        let error = ids(&[(CONFIG, moved)], TEXT).unwrap_err();
        for needle in [CONFIG, "<|user|>", "600", "512"] {
            assert!(error.contains(needle), "{error}");
        }
        let error = ids(&[("added_tokens.json", r#"{"<|user|>": "x"}"#)], TEXT).unwrap_err();
        assert!(error.contains("added_tokens.json"), "{error}");
    }

    #[test]
    fn a_missing_tokenizer_is_named_with_what_is_there() {
        let none: (&str, &str) = (FILE_NAME, "");
        let error = ids(&[none], TEXT).unwrap_err();
        assert!(error.contains("tokenizer.json") && error.contains("found none"), "{error}");
        let error = ids(&[none, ("tokenizer.model", "x")], TEXT).unwrap_err();
        assert!(error.contains("SentencePiece") && error.contains("save_pretrained"), "{error}");
    }
}
