//! Encoding of a record, and the check that chains its line to the line before.

use super::record::Record;

/// Bytes of the text `,"check":"0123456789abcdef"}` that ends a line.
const CHECK_SUFFIX_BYTES: usize = 28;

/// Splits a line into its body (with the closing brace) and its check.
pub(super) fn split_check(line: &str) -> Option<(String, &str)> {
    let at = line.len().checked_sub(CHECK_SUFFIX_BYTES)?;
    let suffix = line.get(at..)?;
    let check = suffix.strip_prefix(",\"check\":\"")?.strip_suffix("\"}")?;
    Some((format!("{}}}", &line[..at]), check))
}

/// The check of a line: the first 64 bits of BLAKE3 over the previous check and the body.
pub(super) fn chain(previous: &str, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous.as_bytes()).update(body.as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The body of a line: the record as JSON.
pub(super) fn encode(record: &Record) -> String {
    serde_json::to_string(record).expect("records hold nothing that JSON cannot")
}
