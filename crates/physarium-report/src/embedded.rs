/*!
The data in a page: the JSON that it was made from, gzip in base64, so that many tensors take little space and no text in it
can end the element that holds it.
*/

use std::io::{BufWriter, Read};

use base64::write::EncoderStringWriter;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;

use crate::error::Error;

/// What the data begins with in a page; `frame.html` writes it.
const BEGIN: &str = "<script id=\"data\" type=\"application/gzip\">";
const END: &str = "</script>";
/// Most bytes of JSON that are read back.
const MOST: u64 = 1 << 30;

/// The data of a page. Nothing larger than what is returned is held in memory.
pub(crate) fn embed(data: &impl Serialize) -> String {
    let base64 = EncoderStringWriter::new(base64::STANDARD);
    let mut gzip = GzEncoder::new(base64, Compression::best());
    serde_json::to_writer(BufWriter::new(&mut gzip), data).expect("documents are plain JSON");
    gzip.finish().expect("a string takes what is written").into_inner()
}

/// The JSON of a page that [`audit_page`](crate::audit_page) or one of its siblings made.
///
/// # Errors
/// `Page` for a text without such data.
pub fn read_back(page: &str) -> Result<String, Error> {
    let fault = |found: &str| Error::Page { found: found.to_owned() };
    let (_, after) = page.split_once(BEGIN).ok_or_else(|| fault("none"))?;
    let (data, _) = after.split_once(END).ok_or_else(|| fault("data without an end"))?;
    let data = base64::decode(data.trim()).map_err(|e| fault(&format!("no base64: {e}")))?;
    let mut json = String::new();
    let read = GzDecoder::new(&data[..]).take(MOST).read_to_string(&mut json);
    let length = read.map_err(|e| fault(&format!("no gzip of text: {e}")))?;
    if length as u64 == MOST {
        return Err(fault("more than 1 GiB"));
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_embedded_is_read_back() {
        let json = r#"{"name":"</script><script>alert(1)</script>"}"#;
        let data: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let page = format!("<html>{BEGIN}{}{END}</html>", embed(&data));
        assert!(!page.contains("alert"));
        assert_eq!(read_back(&page).expect("a page"), json);
    }

    #[test]
    fn other_texts_are_refused_by_what_they_hold() {
        let found = |page: &str| match read_back(page) {
            Err(Error::Page { found }) => found,
            other => panic!("{other:?}"),
        };
        assert_eq!(found("<html></html>"), "none");
        assert_eq!(found(BEGIN), "data without an end");
        assert!(found(&format!("{BEGIN}!!{END}")).starts_with("no base64"));
        assert!(found(&format!("{BEGIN}AAAA{END}")).starts_with("no gzip"));
    }
}
