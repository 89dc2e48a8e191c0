/*!
What the metadata in a model's README.md says that holds for the pruned model too: licence, language, task, tags.

The file is a stranger's, and YAML is a large language, of which these keys need a small part: texts on one line, plain
or quoted, and lists of them, `[a, b]` or a line each. A value of another form is not kept, which a note says; keys
that are not kept are skipped, whatever they hold.
*/

use physarium_checkpoint::visible;

/// Keys that are kept, in the order of the card.
pub(super) const KEPT: [&str; 7] =
    ["language", "library_name", "license", "license_name", "license_link", "pipeline_tag", "tags"];
/// Keys that the card says itself.
const OWN: [&str; 2] = ["base_model", "base_model_relation"];
/// Largest front matter that is read, in bytes; widgets and results can make it long.
const MAX_BYTES: usize = 256 << 10;
/// Longest text of a value, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Most texts in a list.
const MAX_TEXTS: usize = 1000;
/// Most keys that are named as not kept.
const MAX_OTHERS: usize = 20;

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
}

/// The metadata that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FrontMatter {
    /// Values of keys of [`KEPT`].
    pub(super) kept: Vec<(&'static str, Value)>,
    /// Keys that are not kept, because they are about the base model only or not known.
    pub(super) others: Vec<String>,
    /// Why something is not kept that would have been.
    pub(crate) notes: Vec<String>,
}

impl FrontMatter {
    /// Reads the lines between the fences.
    pub fn read(bytes: &[u8]) -> FrontMatter {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if bytes.len() <= MAX_BYTES => text,
            Ok(_) => return FrontMatter::unread(&format!("it has over {MAX_BYTES} bytes")),
            Err(_) => return FrontMatter::unread("it is not UTF-8"),
        };
        let mut found = FrontMatter::default();
        let entries = match entries(text) {
            Ok(entries) => entries,
            Err(why) => return FrontMatter::unread(&why),
        };
        for entry in &entries {
            found.take(entry);
        }
        found.kept.sort_by_key(|(key, _)| KEPT.iter().position(|other| other == key));
        found
    }

    /// Metadata of which nothing is kept.
    pub fn unread(why: &str) -> FrontMatter {
        let note = format!("README.md: its metadata is not in the model card: {why}");
        FrontMatter { notes: vec![note], ..FrontMatter::default() }
    }

    fn take(&mut self, entry: &Entry<'_>) {
        let Some(key) = KEPT.into_iter().find(|key| *key == entry.key) else {
            if !OWN.contains(&entry.key) && self.others.len() < MAX_OTHERS {
                self.others.push(entry.key.to_owned());
            }
            return;
        };
        match entry.value() {
            Ok(Some(value)) => self.kept.push((key, value)),
            Ok(None) => {}
            Err(why) => {
                self.notes.push(format!("README.md: `{key}` is not in the model card: {why}"));
            }
        }
    }
}

/// A key of the outermost level, with the lines of its value.
struct Entry<'a> {
    key: &'a str,
    /// What follows the colon.
    first: &'a str,
    /// Lines below, which are indented or parts of a list.
    below: Vec<&'a str>,
}

/// The keys of the outermost level.
///
/// # Errors
/// In words, for a line that is none of it, and for a key that is there twice.
fn entries(text: &str) -> Result<Vec<Entry<'_>>, String> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let is_below = line.starts_with([' ', '\t']) || line == "-" || line.starts_with("- ");
        let fault = |what: &str| format!("line {} of the metadata {what}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if is_below || line == "]" {
            let Some(entry) = entries.last_mut() else {
                return Err(fault("belongs to no key"));
            };
            entry.below.push(line);
            continue;
        }
        let Some((key, first)) = key(line) else { return Err(fault("is not `key: value`")) };
        if entries.iter().any(|entry| entry.key == key) {
            return Err(fault("has a key for the second time"));
        }
        entries.push(Entry { key, first, below: Vec::new() });
    }
    Ok(entries)
}

/// The key of a line, and what follows its colon.
fn key(line: &str) -> Option<(&str, &str)> {
    let (key, rest) = line.split_once(':')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let is_key = !key.is_empty() && key.len() <= 100 && key.chars().all(is_plain);
    let is_apart = rest.is_empty() || rest.starts_with([' ', '\t']);
    (is_key && is_apart).then(|| (key, rest.trim()))
}

impl Entry<'_> {
    /// The value; `None` for null.
    ///
    /// # Errors
    /// In words, for a value that is not a text or a list of texts.
    fn value(&self) -> Result<Option<Value>, &'static str> {
        let below = || self.below.iter().map(|line| line.trim()).filter(|l| !l.starts_with('#'));
        if self.first.starts_with('[') {
            let whole = below().fold(self.first.to_owned(), |text, line| text + " " + line);
            return Ok(Some(Value::List(flow_list(&whole)?)));
        }
        let first = before_comment(self.first);
        if first.is_empty() {
            let texts: Vec<String> = below()
                .map(|line| text(line.strip_prefix('-').ok_or(NOT_A_TEXT)?.trim()))
                .collect::<Result<Option<Vec<String>>, _>>()?
                .ok_or(NOT_A_TEXT)?;
            return Ok((!texts.is_empty()).then_some(limited(texts)?).map(Value::List));
        }
        if below().next().is_some() {
            return Err("its value is on several lines");
        }
        Ok(text(first)?.map(Value::Text))
    }
}

/// Why a value is not kept.
const NOT_A_TEXT: &str = "its value is not a text or a list of texts";

/// A list in brackets.
fn flow_list(whole: &str) -> Result<Vec<String>, &'static str> {
    let mut rest = whole.strip_prefix('[').ok_or(NOT_A_TEXT)?.trim_start();
    let mut texts = Vec::new();
    while !rest.starts_with(']') {
        let end = end_of_item(rest).ok_or(NOT_A_TEXT)?;
        texts.push(text(rest[..end].trim())?.ok_or(NOT_A_TEXT)?);
        rest = rest[end..].trim_start_matches(',').trim_start();
    }
    let after = before_comment(rest[1..].trim());
    if after.is_empty() { limited(texts) } else { Err(NOT_A_TEXT) }
}

/// Where the first text of a list in brackets ends.
fn end_of_item(rest: &str) -> Option<usize> {
    let begin = match rest.chars().next()? {
        quote @ ('"' | '\'') => 1 + rest[1..].find(quote)? + 1,
        _ => 0,
    };
    Some(begin + rest[begin..].find([',', ']'])?)
}

fn limited(texts: Vec<String>) -> Result<Vec<String>, &'static str> {
    if texts.len() <= MAX_TEXTS { Ok(texts) } else { Err("it has over 1000 texts") }
}

/// A value without the comment after it.
fn before_comment(value: &str) -> &str {
    match value.starts_with(['"', '\'']) {
        true => value,
        false if value.starts_with('#') => "",
        false => value.split_once(" #").map_or(value, |(before, _)| before).trim_end(),
    }
}

/// A text on one line, plain or in quotes; `None` for null.
///
/// # Errors
/// In words, for anything else, and for characters that no licence, language or tag has.
fn text(value: &str) -> Result<Option<String>, &'static str> {
    let value = before_comment(value);
    let found = match value.chars().next() {
        None | Some('~') => return Ok(None),
        Some(quote @ ('"' | '\'')) => {
            let inner = value[1..].strip_suffix(quote).ok_or("its quotes do not match")?;
            // Escapes are rare in these keys, and their meaning depends on the quote.
            if inner.contains([quote, '\\']) {
                return Err("it has an escape");
            }
            inner
        }
        Some(first) if "[]{},#&*!|>%@`?:-".contains(first) => return Err(NOT_A_TEXT),
        Some(_) if value.contains(": ") || value.ends_with(':') => return Err(NOT_A_TEXT),
        Some(_) if ["null", "Null", "NULL"].contains(&value) => return Ok(None),
        Some(_) => value,
    };
    if found.len() > MAX_TEXT_BYTES {
        return Err("it is too long");
    }
    if visible(found) != found || found.contains(['<', '>', '`', '\t']) {
        return Err("it has characters that do not belong there");
    }
    Ok(Some(found.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::{FrontMatter, Value};

    fn read(text: &str) -> FrontMatter {
        FrontMatter::read(text.as_bytes())
    }

    fn texts(list: &[&str]) -> Value {
        Value::List(list.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn texts_and_lists_are_read_in_each_of_their_forms() {
        let found = read(
            "# of the base\nlanguage:\n  - en\n  - \"no\"   \n- 'zh'\nlicense: apache-2.0 # SPDX\nlicense_name: \"My \
             licence\"\nlicense_link: https://x.org/a#b\ntags: [chat, 'text, long', \"c\"]\nlibrary_name: ~\n",
        );
        assert_eq!(found.notes, Vec::<String>::new());
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            ("language", texts(&["en", "no", "zh"])),
            ("license", text("apache-2.0")),
            ("license_name", text("My licence")),
            ("license_link", text("https://x.org/a#b")),
            ("tags", texts(&["chat", "text, long", "c"])),
        ];
        assert_eq!(found.kept, expected);
        let split = read("tags: [\n  a,\n  b\n]\n");
        assert_eq!(split.kept, [("tags", texts(&["a", "b"]))]);
    }

    #[test]
    fn other_keys_are_named_whatever_they_hold() {
        let found = read(
            "base_model: a/b\nmodel-index:\n- name: x\n  results: {a: [1, *y, !!z]}\nwidget: |\n  license: no\n  ---\n\
             license: mit\n",
        );
        assert_eq!(found.others, ["model-index", "widget"]);
        assert_eq!(found.kept, [("license", Value::Text("mit".to_owned()))]);
    }

    #[test]
    fn what_is_not_understood_is_not_kept_and_said() {
        for (value, why) in [
            ("license: &anchor mit", "not a text"),
            ("license: *alias", "not a text"),
            ("license: |\n  mit", "on several lines"),
            ("license: >-\n  mit", "on several lines"),
            ("license: {a: b}", "not a text"),
            ("license: a: b", "not a text"),
            ("license:\n  name: mit", "not a text"),
            ("license: mit\n  or so", "on several lines"),
            ("license: \"mit", "quotes do not match"),
            ("license: \"a\\x41\"", "an escape"),
            ("license: '''", "an escape"),
            ("license: <script>", "do not belong"),
            ("license: \"a\u{202e}b\"", "do not belong"),
            ("license: [a, [b]]", "not a text"),
            ("license: [a", "not a text"),
            ("license: [a] b", "not a text"),
            ("license: ['a' b]", "quotes do not match"),
            ("license:\n- a\n- - b", "not a text"),
            ("license:\n- a: b", "not a text"),
        ] {
            let found = read(&format!("{value}\ntags: [x]\n"));
            assert_eq!(found.kept, [("tags", texts(&["x"]))], "{value}");
            let note = found.notes.join("\n");
            let begin = "README.md: `license` is not in the model card: ";
            assert!(note.starts_with(begin) && note.contains(why), "{value}: {note}");
        }
        let long = format!("license: {}", "a".repeat(2000));
        assert!(read(&long).notes[0].ends_with("it is too long"));
    }

    #[test]
    fn metadata_that_is_not_keys_is_not_kept_at_all() {
        for (text, why) in [
            ("license: mit\njust words\n", "line 2 of the metadata is not `key: value`"),
            (
                "license: mit\nlicense: other\n",
                "line 2 of the metadata has a key for the second time",
            ),
            ("- a\n", "line 1 of the metadata belongs to no key"),
            ("{license: mit}\n", "line 1 of the metadata is not `key: value`"),
            ("? license\n", "line 1 of the metadata is not `key: value`"),
        ] {
            let found = read(text);
            assert!(found.kept.is_empty() && found.notes.len() == 1, "{text}");
            assert!(found.notes[0].ends_with(why), "{text}: {:?}", found.notes);
        }
        assert!(FrontMatter::read(b"license: \xff").notes[0].ends_with("not UTF-8"));
        assert!(read(&"a\n".repeat(1 << 18)).notes[0].contains("over 262144 bytes"));
    }
}
