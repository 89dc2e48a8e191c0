//! Addresses of directories in object stores.

use std::fmt;
use std::path::Path;

use object_store::path::Path as Key;
use physarium_checkpoint::{Error, Malformed, StoreSource, printable};

/// The form of an address, for messages.
const FORM: &str = "s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH";

/// A directory in an object store: a bucket (a container in Azure), and the beginning of the keys of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAddress {
    scheme: &'static str,
    bucket: String,
    prefix: Key,
}

impl StoreAddress {
    /// Parses an address.
    ///
    /// # Errors
    /// `Malformed` for another form, for a bucket that is none, and for a path with empty parts or `..`.
    pub fn parse(path: &Path) -> Result<StoreAddress, Error> {
        let fault = |what| {
            let shown = printable(&path.to_string_lossy());
            Error::from(Malformed::new(path, what, FORM, shown))
        };
        let text = path.to_str().ok_or_else(|| fault("not an address of an object store"))?;
        let (scheme, rest) =
            scheme_of(text).ok_or_else(|| fault("not an address of an object store"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if bucket.is_empty() || !bucket.chars().all(plain) {
            return Err(fault("not the name of a bucket"));
        }
        let prefix = Key::parse(path).map_err(|_| fault("not a path in a bucket"))?;
        Ok(StoreAddress { scheme, bucket: bucket.to_owned(), prefix })
    }

    /// The address of the whole bucket.
    pub(crate) fn root(&self) -> String {
        format!("{}://{}", self.scheme, self.bucket)
    }

    /// The scheme: `s3`, `gs` or `az`.
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The beginning of the keys of its objects.
    pub(crate) fn prefix(&self) -> &Key {
        &self.prefix
    }

    /// The key of the object at a path below this address.
    ///
    /// # Errors
    /// `Malformed` for a path that is no key.
    pub(crate) fn key(&self, path: &str) -> Result<Key, Error> {
        let text = match self.prefix.as_ref() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        };
        Key::parse(&text).map_err(|e| {
            let found = printable(&e.to_string());
            Malformed::new(Path::new(path), "not a name in a store", "a plain path", found).into()
        })
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.as_ref() {
            "" => write!(f, "{}", self.root()),
            prefix => write!(f, "{}/{prefix}", self.root()),
        }
    }
}

/// The scheme of an address, and what follows `://`.
fn scheme_of(text: &str) -> Option<(&'static str, &str)> {
    StoreSource::SCHEMES.iter().find_map(|scheme| {
        let rest = text.strip_prefix(scheme)?.strip_prefix("://")?;
        Some((*scheme, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreAddress, Error> {
        StoreAddress::parse(Path::new(text))
    }

    #[test]
    fn addresses_have_one_form() {
        for (text, shown) in [
            ("s3://bucket/models/llama/", "s3://bucket/models/llama"),
            ("gs://a.b-c", "gs://a.b-c"),
            ("az://container/x y", "az://container/x y"),
        ] {
            assert_eq!(parse(text).expect("an address").to_string(), shown);
        }
        assert!(StoreSource::is_address(Path::new("gs://a.b-c")));
        let address = parse("s3://bucket/models").expect("an address");
        assert_eq!(address.key("a/b.json").expect("a key").as_ref(), "models/a/b.json");
        for refused in
            ["s3://", "s3:///x", "s3://key:secret@bucket/x", "s3://b/a//c", "s3://b/../c"]
        {
            let error = parse(refused).expect_err(refused).to_string();
            assert!(error.contains("expected s3://BUCKET/PATH"), "{error}");
        }
    }

    #[test]
    fn a_path_is_no_address() {
        for path in ["models/llama", "/s3://bucket", "http://host/x", "s3:/bucket"] {
            assert!(!StoreSource::is_address(Path::new(path)), "{path}");
        }
    }
}
