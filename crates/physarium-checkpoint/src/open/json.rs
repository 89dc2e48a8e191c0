//! Shared by the readers of headers and of the index: offsets in errors, and values that are not kept.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Longest text of a serde_json error in a message, in characters: it may quote the input.
const MAX_ERROR_CHARS: usize = 300;

/// The error's text without serde_json's line and column, which are of little use in a one-line header.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(cut) = text.rfind(" at line ") {
        text.truncate(cut);
    }
    // serde has escaped quoted strings, but they may be megabytes long.
    if let Some((cut, _)) = text.char_indices().nth(MAX_ERROR_CHARS) {
        text.truncate(cut);
        text.push('\u{2026}');
    }
    text
}

/// The byte offset of a serde_json error in `json`.
pub(crate) fn json_offset(json: &[u8], error: &serde_json::Error) -> u64 {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => {
            let newline = json.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(line - 2);
            newline.map_or(json.len(), |(at, _)| at + 1)
        }
    };
    (line_start + error.column().saturating_sub(1)).min(json.len()) as u64
}

/// A value that is not kept, but validated like one that is.
///
/// serde's `IgnoredAny` makes serde_json skip text without validating it: it accepts bytes that are not UTF-8,
/// unpaired surrogates and any depth of nesting. The reference implementation rejects them.
pub(crate) struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(UnreadVisitor)
    }
}

struct UnreadVisitor;

impl<'de> Visitor<'de> for UnreadVisitor {
    type Value = Unread;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Unread, E> {
        Ok(Unread)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Unread, E> {
        Ok(Unread)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Unread, E> {
        Ok(Unread)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Unread, E> {
        Ok(Unread)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Unread, E> {
        Ok(Unread)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Unread, E> {
        Ok(Unread)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unread, A::Error> {
        while seq.next_element::<Unread>()?.is_some() {}
        Ok(Unread)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unread, A::Error> {
        while map.next_entry::<Unread, Unread>()?.is_some() {}
        Ok(Unread)
    }
}
