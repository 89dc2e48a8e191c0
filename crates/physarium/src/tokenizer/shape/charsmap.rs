//! The map of characters of a SentencePiece normalizer.

/// Longest text that a character becomes, in bytes; the longest of Unicode's compatibility forms has 33.
const MAX_REPLACEMENT: usize = 128;

/// Fails for a map that the crate would read out of bounds, or that turns a character into a long text.
pub(super) fn check(base64: &str) -> Result<(), String> {
    let bytes = base64::decode(base64).map_err(|e| format!("precompiled_charsmap: {e}"))?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("precompiled_charsmap: too short")?;
    let size = u32::from_le_bytes(*size) as usize;
    if !size.is_multiple_of(4) || size == 0 || size > rest.len() {
        let found = rest.len();
        return Err(format!("precompiled_charsmap: a trie of {size} bytes in {found} bytes"));
    }
    let texts = std::str::from_utf8(&rest[size..])
        .map_err(|_| "precompiled_charsmap: texts that are not UTF-8".to_owned())?;
    let longest = texts.split('\0').map(str::len).max().unwrap_or(0);
    if longest > MAX_REPLACEMENT {
        return Err(format!(
            "precompiled_charsmap: a character that becomes {longest} bytes, more than {MAX_REPLACEMENT}"
        ));
    }
    Ok(())
}
