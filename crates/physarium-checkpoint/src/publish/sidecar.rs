/*!
The files of a checkpoint that are not its weights: which are copied, which are left out, and why.

Regular files of the directory and of its subdirectories are copied byte for byte. Left out and listed are other
copies of the weights (`*.bin`, `*.gguf`, a stray `.safetensors`; not those of an adapter), which would be the
unpruned model in the pruned one's directory; hidden directories; anything that is not a file; links to a place
outside the checkpoint; and the records of an earlier physarium run.

The reasons are written into manifests, so that they must not change.
*/

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::open::checkpoint::{ADAPTER_WEIGHTS, Checkpoint};
use crate::open::index::INDEX_NAME;
use crate::open::source::Source;
use crate::open::store::remote::RemoteLink;
use crate::records::{journal, manifest};

/// What to do with links to files outside the checkpoint (and outside the blobs of its hub cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Leave them out and list them.
    LeaveOut,
    /// Copy the files that they point to.
    Follow,
}

/// The purpose of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To accompany new weights: without other copies of the old ones, and without records of an earlier run.
    NewWeights,
    /// To archive the checkpoint: all files.
    Archive,
}

/// What happens to a file that is not a shard.
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
    /// Size in bytes of a file that is copied; zero otherwise.
    pub size_bytes: u64,
}

/// Endings of the names of files that hold weights in another format.
const OTHER_WEIGHTS: [&str; 20] = [
    ".bin",
    ".bin.index.json",
    ".ckpt",
    ".ggml",
    ".gguf",
    ".h5",
    ".h5.index.json",
    ".keras",
    ".llamafile",
    ".msgpack",
    ".msgpack.index.json",
    ".nemo",
    ".npz",
    ".ot",
    ".pdparams",
    ".physpack",
    ".pt",
    ".pth",
    ".pth.index.json",
    ".tflite",
];
/// In the names of ONNX models and of the parts of their weights: `model.onnx`, `model.onnx_data_1`.
const ONNX: &str = ".onnx";
/// Levels of subdirectories that are copied; checkpoints usually have at most one.
const MAX_DEPTH: usize = 8;

impl Sidecar {
    /// Whether a file of this path holds weights, by its name.
    pub fn is_weights(path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.ends_with(".safetensors") || old_weights(name).is_some()
    }

    /// Lists the files that are not shards, sorted by path.
    ///
    /// # Errors
    /// `Io` when a directory cannot be listed, or a file that is to be copied cannot be opened.
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
            if depth == 0 && self.checkpoint.is_shard(&name) {
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
                // Opened here, so that an unreadable file stops the run before any work is done.
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
        // Copied even if it is a link: it was checked with the shards, and without it they are no checkpoint.
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

    /// Whether a run writes a file of this name itself.
    fn is_own_record(&self, name: &str) -> bool {
        let own = [journal::FILE_NAME, manifest::FILE_NAME, manifest::CARD_NAME];
        own.contains(&name) && self.purpose == Purpose::NewWeights
    }

    /// A link is copied as the file that it points to if that is inside the checkpoint, or in the `blobs` of the hub
    /// cache that the checkpoint is a snapshot of, or an object of the store that the checkpoint is a mirror of.
    fn link(&self, path: &Path) -> Disposition {
        let link = self.checkpoint.dir().join(path);
        if RemoteLink::at(&link).is_some() && Source::open(&link).is_ok() {
            return Disposition::Copy;
        }
        let Ok(target) = fs::canonicalize(link) else {
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

/// Why a file of this name must not accompany new weights, if so.
fn old_weights(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with(ADAPTER_WEIGHTS) {
        None
    } else if lower.ends_with(".safetensors") {
        Some("weights that the checkpoint's index does not name")
    } else if lower.ends_with(".safetensors.index.json") && name != INDEX_NAME {
        Some("an index of weights that are not copied")
    } else if lower.contains(ONNX) || OTHER_WEIGHTS.iter().any(|end| lower.ends_with(end)) {
        Some("the same weights in another format, not pruned")
    } else {
        None
    }
}
