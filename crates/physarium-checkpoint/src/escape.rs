/*!
Escaping of what comes from a file, at the boundary where it is shown.

[`printable`] is for a name within a sentence, [`visible`] for everything that goes to a terminal, [`json_visible`] for
JSON, and [`markdown`] for text within Markdown. Each leaves ordinary text as it is.
*/

use std::borrow::Cow;
use std::path::Path;

/// Longest name that is printed in full, in characters.
const MAX_CHARS: usize = 200;

/// A name from a checkpoint, safe to show on a terminal or in a log.
///
/// Control characters (ESC, newline), bidirectional overrides and other invisible format
/// characters are written as `\u{…}`. A name over 200 characters is truncated, and its length is added.
pub fn printable(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(4 * MAX_CHARS));
    for c in name.chars().take(MAX_CHARS) {
        if is_unsafe(c) || c == '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    let total = name.chars().count();
    if total > MAX_CHARS {
        out.push_str(&format!("… ({total} characters)"));
    }
    out
}

/// A path, safe to show; each of its names is escaped by itself, as a path may be longer than the limit for a name.
pub fn printable_path(path: &Path) -> String {
    path.to_string_lossy().split('/').map(printable).collect::<Vec<_>>().join("/")
}

/// A text of several lines, safe to show on a terminal: as [`printable`], but newlines and tabs stay, and it is not
/// truncated. A text that is escaped already does not change.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| is_unsafe(c) && !matches!(c, '\n' | '\t');
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_bad(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// An error of a parser, which may quote a line of the file: as [`visible`], each line cut at 200 characters.
pub fn excerpt(text: &str) -> String {
    let cut = |line: &str| -> String {
        let rest = if line.chars().nth(MAX_CHARS).is_some() { "…" } else { "" };
        line.chars().take(MAX_CHARS).chain(rest.chars()).collect()
    };
    let lines: Vec<String> = text.trim_end().lines().map(cut).collect();
    visible(&lines.join("\n")).into_owned()
}

/// JSON whose strings hold no character that is invisible or controls a terminal. JSON itself only requires that
/// for the characters below U+0020.
pub fn json_visible(json: String) -> String {
    let is_bad = |c: char| is_unsafe(c) && c != '\n';
    if !json.contains(is_bad) {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match is_bad(c) {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                out.push_str(&format!("\\u{unit:04x}"));
            }),
            false => out.push(c),
        }
    }
    out
}

/// A text of one line for a paragraph or a table of Markdown: without HTML, links, code, and ends of cells or lines.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '|' | '[' | ']' => out.extend(['\\', c]),
            '`' => out.push('\''),
            '<' => out.push_str("&lt;"),
            '\n' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// Whether a character must not be shown as it is.
fn is_unsafe(c: char) -> bool {
    c.is_control() || is_invisible_format(c)
}

/// Zero-width and bidirectional controls, line and paragraph separators, byte order mark.
fn is_invisible_format(c: char) -> bool {
    matches!(c,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_boundary_escapes_what_it_must_and_nothing_else() {
        let plain = "größe: 3 ≠ 4\n\tmodel-00001-of-00002.safetensors, 50 % (of `target`)\n";
        assert_eq!(visible(plain), plain);
        assert_eq!(json_visible(format!("{{\n  \"a\": \"{}\"\n}}", "ü")), "{\n  \"a\": \"ü\"\n}");
        let hostile = "a\u{1b}[2J\u{9b}1m\u{7f}\r\u{202e}b\u{2028}\u{e0041}";
        let shown = "a\\u{1b}[2J\\u{9b}1m\\u{7f}\\r\\u{202e}b\\u{2028}\\u{e0041}";
        assert_eq!(visible(hostile), shown);
        assert_eq!(visible(shown), shown);
        let json = json_visible(serde_json::to_string(hostile).expect("JSON"));
        assert!(json.is_ascii(), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), hostile);
        let row = markdown("a|b`c`<script>[x](http://e)\n| y");
        assert_eq!(row, "a\\|b'c'&lt;script>\\[x\\](http://e) \\| y");
        assert_eq!(markdown("model-00001_q.weight (50 %)"), "model-00001_q.weight (50 %)");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("größe.weight"), "größe.weight");
    }

    #[test]
    fn long_names_are_truncated_and_counted() {
        let shown = printable(&"n".repeat(65_536));
        assert!(shown.chars().count() < 230 && shown.ends_with("(65536 characters)"), "{shown}");
    }
}
