/*!
What exists at an output's path, and whether it may be replaced.

An earlier output is replaced only if it is exactly what its manifest lists: a file that someone added or changed
stops the run before any work is done. It is refused rather than moved aside, so that the user decides where it goes,
and no output is taken apart.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::open::digest::Digest;
use crate::open::source::{FileIdentity, Source};
use crate::records::manifest::{self, Manifest};

/// What exists at the output's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing exists.
    Absent,
    /// An empty directory.
    Empty,
    /// A finished physarium output.
    Finished,
}

impl Occupant {
    /// What exists at `dir`. A link, a file, and a directory that is neither empty nor has a whole manifest are errors.
    pub(in crate::publish) fn of(dir: &Path) -> Result<Occupant> {
        let fault = |what, expected: &str, found: String| Error::Output {
            path: dir.to_owned(),
            what,
            expected: expected.to_owned(),
            found,
        };
        let new = "a new or empty directory";
        let meta = match dir.symlink_metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Occupant::Absent),
            Err(e) => return Err(Error::io(dir, "look at the output", e)),
            Ok(meta) => meta,
        };
        if meta.is_symlink() {
            return Err(fault("output is a link", new, "a symbolic link".to_owned()));
        }
        if !meta.is_dir() {
            return Err(fault("output exists", new, "a file".to_owned()));
        }
        let mut entries = fs::read_dir(dir).map_err(|e| Error::io(dir, "list the output", e))?;
        if entries.next().is_none() {
            return Ok(Occupant::Empty);
        }
        let manifest = dir.join(manifest::FILE_NAME);
        let what = "output exists and is not empty";
        let found = "a directory with other files in it (not a physarium output)";
        match manifest.symlink_metadata() {
            Ok(meta) if meta.is_file() => match Manifest::read(&manifest) {
                Ok(_) => Ok(Occupant::Finished),
                Err(e) => Err(fault(what, new, format!("{found}: {e}"))),
            },
            _ => Err(fault(what, new, found.to_owned())),
        }
    }
}

/// A finished output that is to be replaced: everything below its directory, and the files as they were.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::publish) struct Replaceable(BTreeMap<PathBuf, Option<FileIdentity>>);

impl Replaceable {
    /// Checks that a directory holds what its manifest lists, byte for byte, and nothing else. `on_bytes` is called
    /// with the number of bytes hashed.
    pub fn check(dir: &Path, on_bytes: &mut dyn FnMut(u64) -> Result<()>) -> Result<Replaceable> {
        let manifest = Manifest::read(&dir.join(manifest::FILE_NAME))?;
        let shards = manifest.shards.iter().map(|s| (&s.name, s.size_bytes, s.output_sha256));
        let files = manifest.files.iter().map(|f| (&f.path, f.size_bytes, f.sha256));
        let listed: BTreeMap<PathBuf, (u64, Digest)> = shards
            .chain(files)
            .map(|(path, size, digest)| (PathBuf::from(path), (size, digest)))
            .collect();
        let there = Replaceable::list(dir)?;
        for (path, (size, digest)) in &listed {
            if !there.0.contains_key(path) {
                return Err(kept(&dir.join(path), CHANGED, "nothing there"));
            }
            let file = Source::open(&dir.join(path))?;
            if file.len() != *size || file.sha256(on_bytes)? != *digest {
                return Err(kept(&dir.join(path), CHANGED, "other bytes"));
            }
        }
        let parents: BTreeSet<&Path> =
            listed.keys().flat_map(|path| path.ancestors().skip(1)).collect();
        for path in there.0.keys() {
            let is_listed = listed.contains_key(path)
                || parents.contains(path.as_path())
                || path == Path::new(manifest::FILE_NAME);
            if !is_listed {
                return Err(kept(&dir.join(path), ADDED, "something that was added"));
            }
        }
        Ok(there)
    }

    /// What is below a directory. A link is an error.
    pub fn list(dir: &Path) -> Result<Replaceable> {
        let mut found = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(relative) = left.pop() {
            let here = dir.join(&relative);
            let io = |e| Error::io(&here, "list the output", e);
            for entry in fs::read_dir(&here).map_err(io)? {
                let path = relative.join(entry.map_err(io)?.file_name());
                let meta = dir.join(&path).symlink_metadata().map_err(io)?;
                if meta.is_dir() {
                    left.push(path.clone());
                } else if !meta.is_file() {
                    return Err(kept(&dir.join(&path), ADDED, "a link or special file"));
                }
                // A directory is known by its entries.
                found.insert(path, meta.is_file().then(|| FileIdentity::of(&meta)));
            }
        }
        Ok(Replaceable(found))
    }
}

const ADDED: &str = "not in the manifest of the output that --force would replace";
const CHANGED: &str = "a changed file of the output that --force would replace";

fn kept(path: &Path, what: &'static str, found: &str) -> Error {
    Error::Output {
        path: path.to_owned(),
        what,
        expected: "the files that physarium wrote, unchanged".to_owned(),
        found: format!("{found}\nhint: move it to another directory, or choose another --out"),
    }
}
