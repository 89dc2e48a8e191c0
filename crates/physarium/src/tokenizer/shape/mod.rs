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
pub(super) fn check_added<'a>(
    tokens: impl Iterator<Item = (&'a str, u32)>,
) -> Result<(), String> {
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
