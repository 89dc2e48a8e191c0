//! The components of a tokenizer: which there are, and what their fields may hold.

use serde_json::{Map, Value};

use super::charsmap;

/// Most components of a kind.
const MAX_PARTS: usize = 32;
/// Most sequences within each other.
const MAX_DEPTH: usize = 3;
/// Longest pattern, in bytes. GPT-4o's has 500.
const MAX_PATTERN: usize = 4096;
/// Longest string of any other field, in bytes.
const MAX_TEXT: usize = 256;
/// Most bytes that a byte of text may become by replacements.
const MAX_GROWTH: usize = 16;
/// Most entries of a list or an object.
const MAX_ENTRIES: usize = 4096;
/// Most numbers to cut off or skip.
const MAX_NUMBER: u64 = 1 << 20;
/// Most items of a template around a text.
const MAX_TEMPLATE: usize = 64;
/// Most components of which each may make a text longer.
const MAX_MULTIPLIERS: usize = 3;

/// A place in a tokenizer that has a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normalizer,
    PreTokenizer,
    PostProcessor,
    Decoder,
}

impl Kind {
    /// The field of the file.
    pub(super) fn field(self) -> &'static str {
        match self {
            Kind::Normalizer => "normalizer",
            Kind::PreTokenizer => "pre_tokenizer",
            Kind::PostProcessor => "post_processor",
            Kind::Decoder => "decoder",
        }
    }

    /// The field of a sequence with its components.
    fn members(self) -> &'static str {
        match self {
            Kind::Normalizer => "normalizers",
            Kind::PreTokenizer => "pretokenizers",
            Kind::PostProcessor => "processors",
            Kind::Decoder => "decoders",
        }
    }

    /// The types of components.
    fn types(self) -> &'static [&'static str] {
        match self {
            Kind::Normalizer => &[
                "BertNormalizer",
                "ByteLevel",
                "Lowercase",
                "NFC",
                "NFD",
                "NFKC",
                "NFKD",
                "Nmt",
                "Precompiled",
                "Prepend",
                "Replace",
                "Strip",
                "StripAccents",
            ],
            Kind::PreTokenizer => &[
                "BertPreTokenizer",
                "ByteLevel",
                "CharDelimiterSplit",
                "Delimiter",
                "Digits",
                "FixedLength",
                "Metaspace",
                "Punctuation",
                "Split",
                "UnicodeScripts",
                "Whitespace",
                "WhitespaceSplit",
            ],
            Kind::PostProcessor => {
                &["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"]
            }
            Kind::Decoder => &[
                "BPEDecoder",
                "ByteFallback",
                "ByteLevel",
                "CTC",
                "Fuse",
                "Metaspace",
                "Replace",
                "Strip",
                "WordPiece",
            ],
        }
    }
}

/// What has been seen of a tree of components.
pub(super) struct Parts {
    count: usize,
    /// Components of which each multiplies or copies a text.
    multipliers: usize,
    /// Bytes that a byte may become by replacements.
    growth: usize,
    /// Whether characters are replaced by a map.
    mapped: bool,
}

impl Default for Parts {
    fn default() -> Parts {
        Parts { count: 0, multipliers: 0, growth: 1, mapped: false }
    }
}

impl Parts {
    /// Whether a text may become several times as long.
    pub(super) fn may_grow(&self) -> bool {
        self.growth > 4 || self.mapped
    }

    /// Checks a component and those that it consists of.
    pub(super) fn check(&mut self, kind: Kind, value: &Value, depth: usize) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_PARTS {
            return Err(format!("more than {MAX_PARTS} components"));
        }
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} sequences within each other"));
        }
        let fields = value.as_object().ok_or("not an object")?;
        let stated =
            fields.get("type").and_then(Value::as_str).ok_or("a component without a type")?;
        if stated == "Sequence" {
            let members = fields.get(kind.members()).and_then(Value::as_array);
            let members = members.filter(|_| fields.len() == 2);
            let expected = || format!("a Sequence, expected {} and nothing else", kind.members());
            let members = members.ok_or_else(expected)?;
            return members.iter().try_for_each(|member| self.check(kind, member, depth + 1));
        }
        if !kind.types().contains(&stated) {
            return Err(format!("unknown type {stated}"));
        }
        self.fields(stated, fields).map_err(|what| format!("{stated}: {what}"))
    }

    /// Checks the fields of a component that is no sequence. The crate goes by the fields, whatever the type says.
    fn fields(&mut self, stated: &str, fields: &Map<String, Value>) -> Result<(), String> {
        let has = |name: &str| fields.contains_key(name);
        let kinds = [Kind::Normalizer, Kind::PreTokenizer, Kind::PostProcessor, Kind::Decoder];
        if kinds.into_iter().any(|kind| has(kind.members())) {
            return Err("components in what is no Sequence".to_owned());
        }
        match (has("content"), has("pattern")) {
            (true, true) => self.replacement(fields)?,
            (false, true) => _ = pattern(fields)?,
            (_, false) => {}
        }
        if let Some(map) = fields.get("precompiled_charsmap") {
            self.mapped = true;
            charsmap::check(map.as_str().ok_or("precompiled_charsmap is no text")?)?;
        }
        if fields.get("length").and_then(Value::as_u64) == Some(0) {
            return Err("length 0, expected at least 1".to_owned());
        }
        // Applied again and again, these multiply a text.
        let multiplies = ["ByteLevel", "Metaspace", "TemplateProcessing"].contains(&stated);
        if multiplies || has("add_prefix_space") || has("replacement") || has("single") {
            self.multipliers += 1;
        }
        if self.multipliers > MAX_MULTIPLIERS {
            return Err(format!("more than {MAX_MULTIPLIERS} components that add to a text"));
        }
        for name in ["single", "pair"] {
            template(fields.get(name))?;
        }
        let checked = ["pattern", "precompiled_charsmap"];
        let rest = fields.iter().filter(|(name, _)| !checked.contains(&name.as_str()));
        rest.map(|(_, field)| field).try_for_each(plain)
    }

    /// Counts by how much a replacement multiplies a text.
    fn replacement(&mut self, fields: &Map<String, Value>) -> Result<(), String> {
        let shortest = pattern(fields)?;
        let content = fields.get("content").and_then(Value::as_str).ok_or("no content")?;
        // A pattern that may be empty matches before each character too.
        let growth = match shortest {
            0 => content.len() + 1,
            shortest => content.len().div_ceil(shortest).max(1),
        };
        self.growth = self.growth.saturating_mul(growth);
        if self.growth > MAX_GROWTH {
            return Err(format!("a text may become {} times as long by replacements", self.growth));
        }
        Ok(())
    }
}

/// Checks the pattern of a component. Returns the length of its shortest match in bytes, as far as that is known.
fn pattern(fields: &Map<String, Value>) -> Result<usize, String> {
    let pattern = fields.get("pattern").and_then(Value::as_object).ok_or("no pattern")?;
    let (text, shortest) = match (pattern.get("String"), pattern.get("Regex")) {
        (Some(Value::String(text)), None) => (text, text.len()),
        (None, Some(Value::String(regex))) => (regex, 0),
        _ => return Err("a pattern that is neither a String nor a Regex".to_owned()),
    };
    if text.len() > MAX_PATTERN {
        return Err(format!("a pattern of {} bytes, more than {MAX_PATTERN}", text.len()));
    }
    Ok(shortest)
}

/// Fails for a template around a text that has many items, or a text more than once.
fn template(template: Option<&Value>) -> Result<(), String> {
    let Some(template) = template else { return Ok(()) };
    let items = template.as_array().ok_or("a template that is no list")?;
    let texts = |name: &str| items.iter().filter(|item| item["Sequence"]["id"] == name).count();
    if items.len() > MAX_TEMPLATE || texts("A") > 1 || texts("B") > 1 {
        return Err(format!("a template with more than {MAX_TEMPLATE} items, or a text twice"));
    }
    Ok(())
}

/// Fails for a field with a long text, a large number or many entries.
fn plain(field: &Value) -> Result<(), String> {
    let entries = |count: usize| match count {
        0..=MAX_ENTRIES => Ok(()),
        _ => Err(format!("a list of {count} entries, more than {MAX_ENTRIES}")),
    };
    match field {
        Value::String(text) if text.len() > MAX_TEXT => {
            Err(format!("a text of {} bytes, more than {MAX_TEXT}", text.len()))
        }
        Value::Number(number) if number.as_u64().is_none_or(|number| number >= MAX_NUMBER) => {
            Err(format!("number {number}, expected one below {MAX_NUMBER}"))
        }
        Value::Array(items) => entries(items.len()).and(items.iter().try_for_each(plain)),
        Value::Object(items) => entries(items.len()).and(items.values().try_for_each(plain)),
        _ => Ok(()),
    }
}
