/*!
The files of a checkpoint that are not its weights: what is copied, what is left out and why.

Copied byte for byte: regular files of the directory and of its plain sub-directories. Left out,
and said so: other copies of the weights (`*.bin`, `*.gguf`, a stray `.safetensors`: they would be
the model *before* the surgery under the name of the result), hidden directories, anything that is
not a file, links that leave the checkpoint, and the records of an earlier physarium run.
*/

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::open::checkpoint::Checkpoint;
use crate::open::index::INDEX_NAME;
use crate::open::source::Source;
use crate::records::{journal, manifest};

/// What to do with links whose target is outside the checkpoint (and outside a hub cache's blobs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Leave them out and say so.
    LeaveOut,
    /// Copy what they point to.
    Follow,
}

/// What a listing is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Files to put beside new weights: no other copies of the old ones, no records of an earlier run.
    NewWeights,
    /// Files to keep as they are, all of them.
    Archive,
}

/// What happens to a file beside the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Copied byte for byte.
    Copy,
    /// Not in the output, for this reason.
    LeftOut(&'static str),
}

/// A file of the checkpoint that is not one of its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Its path relative to the checkpoint.
    pub path: PathBuf,
    /// What happens to it.
    pub disposition: Disposition,
    /// Size in bytes, of files that are copied.
    pub size_bytes: u64,
}

/// Endings of files that hold weights in another format.
const OTHER_WEIGHTS: [&str; 11] = [
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".gguf",
    ".ggml",
    ".onnx",
    ".onnx_data",
    ".h5",
    ".msgpack",
    ".bin.index.json",
];
/// Deepest directory that is copied; a checkpoint has one level at most.
const MAX_DEPTH: usize = 8;

impl Sidecar {
    /// Lists the files beside the weights, sorted by path.
    ///
    /// # Errors
    /// `Io` when a directory cannot be listed.
    pub fn list(
        checkpoint: &Checkpoint,
        purpose: Purpose,
        links: LinkPolicy,
    ) -> Result<Vec<Sidecar>> {
        let root = checkpoint.dir();
        let root_real = fs::canonicalize(root).map_err(|e| Error::io(root, "resolve", e))?;
        let mut lister = Lister { checkpoint, purpose, links, root_real, found: Vec::new() };
        lister.directory(Path::new(""), 0)?;
        lister.found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(lister.found)
    }
}

struct Lister<'a> {
    checkpoint: &'a Checkpoint,
    purpose: Purpose,
    links: LinkPolicy,
    root_real: PathBuf,
    found: Vec<Sidecar>,
}

impl Lister<'_> {
    fn directory(&mut self, relative: &Path, depth: usize) -> Result<()> {
        let dir = self.checkpoint.dir().join(relative);
        let io = |e| Error::io(&dir, "list", e);
        for entry in fs::read_dir(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = relative.join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            if depth == 0 && self.checkpoint.is_weights_file(&name) {
                continue;
            }
            let kind = entry.file_type().map_err(io)?;
            let descend = !name.starts_with('.') && depth < MAX_DEPTH && !self.is_own_record(&name);
            if kind.is_dir() && descend {
                self.directory(&path, depth + 1)?;
                continue;
            }
            let disposition = self.disposition(&path, &name, kind);
            let size_bytes = match disposition {
                // Opened here, so that one that cannot be read stops the run before its work.
                Disposition::Copy => Source::open(&entry.path())?.len(),
                Disposition::LeftOut(_) => 0,
            };
            self.found.push(Sidecar { path, disposition, size_bytes });
        }
        Ok(())
    }

    fn disposition(&self, path: &Path, name: &str, kind: fs::FileType) -> Disposition {
        let left_out = |why| Disposition::LeftOut(why);
        if self.is_own_record(name) {
            return left_out("the record of an earlier physarium run; this run writes its own");
        }
        if kind.is_dir() {
            return left_out("a hidden directory, or one too deep");
        }
        if path.to_str().is_none() {
            return left_out("its name is not UTF-8");
        }
        // Opened and checked with the shards; the output is no checkpoint without it.
        if path == Path::new(INDEX_NAME) {
            return Disposition::Copy;
        }
        if let (Purpose::NewWeights, Some(why)) = (self.purpose, old_weights(name)) {
            return left_out(why);
        }
        if kind.is_symlink() {
            return self.link(path);
        }
        if kind.is_file() { Disposition::Copy } else { left_out("not a regular file") }
    }

    /// Names that the output needs for itself, whatever has them in the input.
    fn is_own_record(&self, name: &str) -> bool {
        let own = name == journal::FILE_NAME || name == manifest::FILE_NAME;
        own && self.purpose == Purpose::NewWeights
    }

    /// A link is copied as the file it points to when that is inside the checkpoint, or in the
    /// `blobs` of the hub cache that the checkpoint is a snapshot of.
    fn link(&self, path: &Path) -> Disposition {
        let Ok(target) = fs::canonicalize(self.checkpoint.dir().join(path)) else {
            return Disposition::LeftOut("a link that leads nowhere");
        };
        if !target.is_file() {
            return Disposition::LeftOut("a link to something that is not a file");
        }
        let hub_blobs = self.root_real.parent().and_then(Path::parent).map(|p| p.join("blobs"));
        let inside = target.starts_with(&self.root_real)
            || hub_blobs.is_some_and(|blobs| target.starts_with(blobs));
        match (inside, self.links) {
            (true, _) | (_, LinkPolicy::Follow) => Disposition::Copy,
            (false, LinkPolicy::LeaveOut) => {
                Disposition::LeftOut("a link out of the checkpoint; --follow-links copies it")
            }
        }
    }
}

/// Why a file of this name is not put beside new weights, if it is not.
fn old_weights(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if lower.ends_with(".safetensors") {
        Some("weights that the checkpoint's index does not name")
    } else if lower.ends_with(".safetensors.index.json") && name != INDEX_NAME {
        Some("an index of weights that are not copied")
    } else if OTHER_WEIGHTS.iter().any(|end| lower.ends_with(end)) {
        Some("the same weights in another format, not pruned")
    } else {
        None
    }
}
