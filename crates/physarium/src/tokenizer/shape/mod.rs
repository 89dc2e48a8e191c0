/*!
A tokenizer from `tokenizer.json`, which may come from a stranger.

The `tokenizers` crate is made for files that its users trust: some values make it panic, overflow the stack, or take any
amount of memory or time. Here the file is read within bounds, and only a file of a shape that real tokenizers have is
given to the crate, part by part: at most [`MAX_TOKENS`] tokens and merges, known components, short patterns, and
normalizers that do not multiply a text. Padding and truncation are not read. What the shape cannot show, such as a
pattern that backtracks for long, is bounded when the tokenizer runs.
*/

mod charsmap;
mod model;
mod parts;
mod vocabulary;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer,
};

use parts::{Kind, Parts};
pub(super) use vocabulary::MAX_TOKENS;

/// Largest component, in bytes: a map of characters takes some 400 kB.
const MAX_COMPONENT: usize = 4 << 20;
/// Longest added token, in bytes.
const MAX_ADDED_BYTES: usize = 1024;
/// Most bytes of all added tokens.
const MAX_ADDED_TOTAL: usize = 2 << 20;

/// The parts of the file.
#[derive(Deserialize)]
struct File<'a> {
    version: Option<String>,
    #[serde(borrow)]
    added_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

/// A token and its id. The crate finds the id itself.
#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// A tokenizer, and how much its normalizer may multiply a text.
pub(super) struct Shaped {
    pub(super) tokenizer: Tokenizer,
    pub(super) may_grow: bool,
}

/// Reads a tokenizer.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Shaped, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if let Some(version) = file.version.filter(|version| version != "1.0") {
        return Err(format!("version {version}, expected 1.0"));
    }
    let mut tokenizer = Tokenizer::new(model::read(file.model.get())?);
    let (normalizer, parts): (Option<NormalizerWrapper>, _) =
        component(file.normalizer, Kind::Normalizer)?;
    tokenizer.with_normalizer(normalizer).map_err(|e| e.to_string())?;
    let (part, _): (Option<PreTokenizerWrapper>, _) =
        component(file.pre_tokenizer, Kind::PreTokenizer)?;
    tokenizer.with_pre_tokenizer(part);
    let (part, _): (Option<PostProcessorWrapper>, _) =
        component(file.post_processor, Kind::PostProcessor)?;
    tokenizer.with_post_processor(part);
    let (part, _): (Option<DecoderWrapper>, _) = component(file.decoder, Kind::Decoder)?;
    tokenizer.with_decoder(part);
    let added = added(file.added_tokens)?;
    tokenizer.add_tokens(added).map_err(|e| e.to_string())?;
    Ok(Shaped { tokenizer, may_grow: parts.may_grow() })
}

/// A component whose shape is as it should be.
fn component<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    kind: Kind,
) -> Result<(Option<T>, Parts), String> {
    let mut parts = Parts::default();
    let Some(raw) = raw else { return Ok((None, parts)) };
    let name = kind.field();
    let fault = |what: String| format!("{name}: {what}");
    let length = raw.get().len();
    if length > MAX_COMPONENT {
        return Err(fault(format!("{length} bytes, more than {MAX_COMPONENT}")));
    }
    let value = serde_json::from_str(raw.get()).map_err(|e| fault(e.to_string()))?;
    parts.check(kind, &value, 0).map_err(fault)?;
    let component = serde_json::from_value(value).map_err(|e| fault(e.to_string()))?;
    Ok((Some(component), parts))
}

fn added(raw: Option<&RawValue>) -> Result<Vec<AddedToken>, String> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let fault = |what: String| format!("added_tokens: {what}");
    if raw.get().len() > 2 * MAX_COMPONENT {
        return Err(fault(format!("{} bytes, more than {}", raw.get().len(), 2 * MAX_COMPONENT)));
    }
    let all: Vec<Added> = serde_json::from_str(raw.get()).map_err(|e| fault(e.to_string()))?;
    check_added(all.iter().map(|added| (added.token.content.as_str(), added.id))).map_err(fault)?;
    Ok(all.into_iter().map(|added| added.token).collect())
}

/// Fails for added tokens, with their ids, that are too long or too many.
pub(super) fn check_added<'a>(tokens: impl Iterator<Item = (&'a str, u32)>) -> Result<(), String> {
    let mut total = 0;
    for (content, id) in tokens {
        total += content.len();
        if content.len() > MAX_ADDED_BYTES {
            let length = content.len();
            return Err(format!("a token of {length} bytes, more than {MAX_ADDED_BYTES}"));
        }
        if id >= MAX_TOKENS {
            return Err(format!("id {id}, expected one below {MAX_TOKENS}"));
        }
        if total > MAX_ADDED_TOTAL {
            return Err(format!("tokens of more than {MAX_ADDED_TOTAL} bytes in all"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TEXT: &str = "Hello  World, it's 2024!\n\tÜber ▁ 慣例 \u{1f600} <s>x</s> ﬁne\r\n";

    /// The crate's own reader gives the same tokens.
    fn compare(bytes: &[u8], text: &str) {
        let mut theirs = Tokenizer::from_bytes(bytes).unwrap();
        theirs.with_padding(None).with_truncation(None).unwrap();
        let ours = read(bytes).unwrap().tokenizer;
        for specials in [false, true] {
            let [a, b] =
                [&theirs, &ours].map(|tokenizer| tokenizer.encode(text, specials).unwrap());
            assert_eq!((a.get_ids(), a.get_offsets()), (b.get_ids(), b.get_offsets()));
            let [a, b] = [&theirs, &ours].map(|t| t.decode(a.get_ids(), specials).unwrap());
            assert_eq!(a, b);
        }
    }

    fn tokenizer(model: Value, parts: [Value; 4]) -> Vec<u8> {
        let [normalizer, pre_tokenizer, post_processor, decoder] = parts;
        let added = json!([{"id": 1, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}]);
        let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
            "decoder": decoder, "model": model});
        file.to_string().into_bytes()
    }

    #[test]
    fn tokenizers_of_every_kind_give_the_tokens_that_they_gave() {
        let letters = "HeloWrdit's2024!,ÜberfnxM▁慣例 \n";
        let mut vocab: Vec<String> =
            ["<unk>", "<s>", "</s>", "▁W", "He"].map(str::to_owned).to_vec();
        vocab.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        for letter in letters.chars().map(String::from) {
            if !vocab.contains(&letter) {
                vocab.push(letter);
            }
        }
        let ids: Value = vocab
            .iter()
            .enumerate()
            .map(|(id, t)| (t.clone(), json!(id)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let scores: Value =
            vocab.iter().enumerate().map(|(id, t)| json!([t, -(id as f64) / 7.0])).collect();
        let none = Value::Null;
        let llama = json!({"dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": ids, "merges": ["▁ W", "H e"]});
        let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        let template = json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
        let fallback = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let map = base64::encode([&1024u32.to_le_bytes()[..], &[0; 1024], b"a\0"].concat());
        let precompiled = json!({"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": map}, {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let unigram =
            json!({"type": "Unigram", "unk_id": 0, "vocab": scores, "byte_fallback": true});
        let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": false});
        let words = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "",
            "max_input_chars_per_word": 100, "vocab": ids});
        let level = json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": ids});
        let processing = json!({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]});
        let pieces = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        for (model, parts) in [
            (llama, [prepend, none.clone(), template, fallback]),
            (unigram, [precompiled, metaspace.clone(), none.clone(), metaspace]),
            (words, [bert, json!({"type": "BertPreTokenizer"}), processing, pieces]),
            (
                level,
                [json!({"type": "Lowercase"}), json!({"type": "Whitespace"}), none.clone(), none],
            ),
        ] {
            compare(&tokenizer(model, parts), TEXT);
        }
    }

    /// The bundled model's, and those at the paths in PHYSARIUM_TOKENIZERS.
    #[test]
    fn real_tokenizers_give_the_tokens_that_they_gave() {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model/tokenizer.json");
        let more = std::env::var("PHYSARIUM_TOKENIZERS").unwrap_or_default();
        for path in more.split(':').filter(|path| !path.is_empty()).chain([demo]) {
            let text = include_str!("../mod.rs").repeat(10) + TEXT;
            compare(&std::fs::read(path).unwrap(), &text);
        }
    }
}
