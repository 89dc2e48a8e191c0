//! The characters of a text file. What is not UTF-8 text is refused by the name of its format.

use std::path::Path;

use physarium_checkpoint::Malformed;

use crate::error::Result;

/// Formats that texts come in, by the bytes they begin with: the bytes, the name, and what to do.
const FORMATS: [(&[u8], &str, &str); 10] = [
    (b"\x1f\x8b", "gzip-compressed", "decompress it first: gunzip --keep FILE"),
    (b"\x28\xb5\x2f\xfd", "Zstandard-compressed", "decompress it first: unzstd FILE"),
    (b"\xfd7zXZ\0", "xz-compressed", "decompress it first: unxz --keep FILE"),
    (b"BZh", "bzip2-compressed", "decompress it first: bunzip2 --keep FILE"),
    (b"PK\x03\x04", "a ZIP archive", "extract the text file first"),
    (b"PAR1", "Parquet", "export its text column as JSON Lines first"),
    (b"ARROW1", "Arrow", "export its text column as JSON Lines first"),
    (b"%PDF-", "a PDF document", "extract its text first"),
    (b"\xff\xfe", "UTF-16 or UTF-32 text", "convert it first: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it first: iconv -f UTF-16 -t UTF-8"),
];
/// Tables by the ending of their names.
const TABLES: [(&str, &str); 2] = [("csv", "CSV"), ("tsv", "TSV")];
const BYTE_ORDER_MARK: char = '\u{feff}';
const EXPECTED: &str = "UTF-8 text, or documents in JSON";

/// Refuses a table, which would be read as plain text.
///
/// # Errors
/// `Malformed` for a file that is one by its name.
pub(super) fn refuse_table(path: &Path) -> Result<()> {
    let extension = path.extension().unwrap_or_default();
    if let Some((_, name)) = TABLES.iter().find(|(end, _)| extension.eq_ignore_ascii_case(end)) {
        let found = format!("a {name} table by its name");
        let hint =
            "export its text column as JSON Lines; a file of another name is read as plain text";
        return Err(Malformed::new(path, "text", EXPECTED, found).with_hint(hint).into());
    }
    Ok(())
}

/// The characters of a file's bytes, without a byte-order mark.
///
/// # Errors
/// `Malformed` for compressed and binary files, and other encodings.
pub(super) fn decode(path: &Path, bytes: Vec<u8>) -> Result<String> {
    if let Some((_, name, hint)) = FORMATS.iter().find(|(begin, ..)| bytes.starts_with(begin)) {
        return Err(Malformed::new(path, "text", EXPECTED, *name).with_hint(*hint).into());
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let found = format!("byte {:#04x}", e.as_bytes()[at]);
        Malformed::new(path, "text", "UTF-8", found).with_offset(at as u64)
    })?;
    if let Some(at) = text.find('\0') {
        let fault = Malformed::new(path, "text", "UTF-8 text", "a zero byte, as in binary files");
        return Err(fault.with_offset(at as u64).into());
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}
