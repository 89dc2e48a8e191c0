/*!
The README.md of a model: metadata in YAML between two lines of `---`, then text in Markdown.

`prune --card` rewrites it: the section for the model card with its own metadata, an empty line, and the text of the
input's README.md.
*/

/// Name of the README in a checkpoint.
pub const FILE_NAME: &str = "README.md";
/// Largest README that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// What surrounds the metadata.
const FENCE: &[u8] = b"---";
/// Byte-order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The two parts of a README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readme<'a> {
    /// The lines between the fences; `None` without both of them.
    pub front_matter: Option<&'a [u8]>,
    /// The rest.
    pub text: &'a [u8],
}

impl<'a> Readme<'a> {
    /// Divides a README. One without metadata is all text.
    pub fn of(bytes: &'a [u8]) -> Readme<'a> {
        let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
        let all_text = Readme { front_matter: None, text: bytes };
        let is_fence = |line: &[u8]| line.trim_ascii_end() == FENCE;
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let Some(first) = lines.next().filter(|line| is_fence(line)) else { return all_text };
        let mut end = first.len();
        for line in lines {
            if is_fence(line) {
                let front_matter = Some(&bytes[first.len()..end]);
                return Readme { front_matter, text: &bytes[end + line.len()..] };
            }
            end += line.len();
        }
        all_text
    }

    /// The README of a pruned model with this card.
    pub fn with_card(&self, card: &[u8]) -> Vec<u8> {
        let text = self.text.trim_ascii_start();
        if text.is_empty() { card.to_vec() } else { [card, b"\n", text].concat() }
    }
}

#[cfg(test)]
mod tests {
    use super::Readme;

    #[test]
    fn metadata_is_between_two_fences_at_the_start() {
        for (readme, front_matter, text) in [
            ("---\na: b\n---\n# T\n", Some("a: b\n"), "# T\n"),
            ("---\r\na: b\r\n--- \r\n# T\r\n", Some("a: b\r\n"), "# T\r\n"),
            ("\u{feff}---\n---\nT", Some(""), "T"),
            ("---\na\n---", Some("a\n"), ""),
            ("---\na: b\n# no end\n", None, "---\na: b\n# no end\n"),
            ("# T\n---\na: b\n---\n", None, "# T\n---\na: b\n---\n"),
            ("----\na\n---\n", None, "----\na\n---\n"),
            ("", None, ""),
        ] {
            let found = Readme::of(readme.as_bytes());
            let expected =
                Readme { front_matter: front_matter.map(str::as_bytes), text: text.as_bytes() };
            assert_eq!(found, expected, "{readme:?}");
        }
    }

    #[test]
    fn a_card_is_before_the_text() {
        let with = |readme: &str| {
            let bytes = Readme::of(readme.as_bytes()).with_card(b"card\n");
            String::from_utf8(bytes).expect("both are UTF-8")
        };
        assert_eq!(with("---\na: b\n---\n\n# T\n"), "card\n\n# T\n");
        assert_eq!(with("---\na: b\n---\n"), "card\n");
    }
}
