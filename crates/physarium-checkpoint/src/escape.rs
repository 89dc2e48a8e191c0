//! Escaping of names that come from a file, for messages.

/// Longest name that is printed in full, in characters.
const MAX_CHARS: usize = 200;

/// A name from a checkpoint, safe to show on a terminal or in a log.
///
/// Control characters (ESC, newline), bidirectional overrides and other invisible format
/// characters are written as `\u{…}`. A name over 200 characters is truncated, and its length is added.
pub fn printable(name: &str) -> String {
    let mut out = String::with_capacity(name.len().min(4 * MAX_CHARS));
    for c in name.chars().take(MAX_CHARS) {
        if c.is_control() || is_invisible_format(c) || c == '\\' {
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

/// Zero-width and bidirectional controls, line and paragraph separators, byte order mark.
fn is_invisible_format(c: char) -> bool {
    matches!(c,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::printable;

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
