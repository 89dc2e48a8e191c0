/*!
Opening a checkpoint: everything is checked here, before any weight is read or written.

In: a directory. Out: a [`Checkpoint`] whose shards, headers, index and file sizes are consistent. One file is open at
a time.
*/

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Malformed, Result};
use crate::escape::printable;
use crate::open::digest::Digest;
use crate::open::header::{Header, MAX_HEADER_BYTES, MAX_TENSORS, TensorInfo};
use crate::open::hub::snapshot::incomplete_hint;
use crate::open::index::{INDEX_NAME, Index};
use crate::open::source::{FileIdentity, Source};
use crate::open::tied::{is_head, says_tied};
use crate::open::unfinished::{UNFINISHED_NAME, is_unfinished};

/// Name of the weights file of a checkpoint that is not sharded.
pub(super) const SINGLE_NAME: &str = "model.safetensors";
/// Beginning of the names of an adapter's weights. They belong to `adapter_config.json` and are none of the model's.
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.";

/// A `.safetensors` file of a checkpoint, with its header checked.
#[derive(Debug)]
pub struct Shard {
    /// Its plain file name in the checkpoint.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its tensors in the order of their bytes, which are contiguous from `data_begin` to the end.
    pub tensors: Vec<TensorInfo>,
    /// Where the first tensor begins, in bytes from the start of the file.
    pub data_begin: u64,
    /// Digest of the bytes before `data_begin`.
    pub header_sha256: Digest,
    /// The file as it was when its header was read.
    pub identity: FileIdentity,
}

impl Shard {
    /// Opens a file in the safetensors format, of any name, and checks its header.
    ///
    /// # Errors
    /// `Malformed` with file and tensor for anything that violates the format; `InputChanged`, `FileShrank`, `Io`.
    pub fn open(path: &Path) -> Result<Shard> {
        let source = Source::open(path)?;
        let header = Header::read(&source)?;
        source.check_unchanged(source.identity())?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Shard {
            name: name.to_string_lossy().into_owned(),
            tensors: header.tensors,
            data_begin: header.data_begin,
            header_sha256: header.sha256,
            identity: source.identity().clone(),
            path: path.to_owned(),
        })
    }

    /// Size of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.identity.size
    }

    /// Opens the shard's file again and checks that it is the one whose header was read.
    ///
    /// # Errors
    /// `InputChanged` with the property that differs; `Malformed`, `Io`.
    pub fn reopen(&self) -> Result<Source> {
        let source = Source::open(&self.path)?;
        source.check_unchanged(&self.identity)?;
        Ok(source)
    }
}

/// How the weights are divided into files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One `model.safetensors`.
    Single,
    /// Shards with an index.
    Sharded,
}

/// An oddity of a checkpoint that is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A tensor is in a shard, but the index does not list it.
    Unlisted {
        /// The tensor.
        tensor: String,
        /// The shard that holds it.
        shard: String,
    },
    /// The index lists a head that no shard holds, and the config says that it is the embedding.
    TiedHead {
        /// The head's tensor.
        tensor: String,
        /// The shard that should hold it.
        shard: String,
    },
    /// `metadata.total_size` of the index is not the sum of the tensors' bytes.
    TotalSize {
        /// The index's value, if it has one.
        stated: Option<String>,
        /// The sum over the headers.
        actual: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Unlisted { tensor, shard } => write!(
                f,
                "{}: tensor {} is not in {INDEX_NAME}; copied byte for byte, not pruned",
                printable(shard),
                printable(tensor)
            ),
            Warning::TiedHead { tensor, shard } => write!(
                f,
                "{INDEX_NAME}: tensor {} is not in {}; config.json says tie_word_embeddings, so \
                 the embedding is the head",
                printable(tensor),
                printable(shard)
            ),
            Warning::TotalSize { stated: None, actual } => {
                write!(f, "{INDEX_NAME}: no metadata.total_size (the tensors have {actual} bytes)")
            }
            Warning::TotalSize { stated: Some(stated), actual } => write!(
                f,
                "{INDEX_NAME}: metadata.total_size is {stated}, the tensors have {actual} bytes"
            ),
        }
    }
}

/// A validated checkpoint directory.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    layout: Layout,
    shards: Vec<Shard>,
    warnings: Vec<Warning>,
    listed: Option<std::collections::BTreeMap<String, String>>,
}

impl Checkpoint {
    /// Opens a directory, reads every header, and checks everything that can be checked without reading weights.
    /// Takes milliseconds, and memory for the headers only.
    ///
    /// # Errors
    /// `Malformed` with file and tensor for anything that violates the formats; `Unfinished` for the output of an
    /// interrupted run; `InputChanged`, `FileShrank`, `Io`.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        Checkpoint::require_directory(dir)?;
        if is_unfinished(dir) {
            return Err(Error::Unfinished { path: dir.to_owned() });
        }
        let single = dir.join(SINGLE_NAME);
        let index = dir.join(INDEX_NAME);
        let has_single = single.symlink_metadata().is_ok();
        if index.symlink_metadata().is_err() {
            return if has_single { Self::open_single(dir) } else { Err(no_weights(dir)?.into()) };
        }
        let read = Index::read(&Source::open(&index)?)?;
        if has_single {
            refuse_two_sets(dir, &read)?;
        }
        Self::open_sharded(dir, &index, read)
    }

    /// Fails unless something that is to be a checkpoint is a directory.
    ///
    /// # Errors
    /// `Malformed` for nothing and for a file; `Io`.
    pub fn require_directory(dir: &Path) -> Result<()> {
        let meta = std::fs::metadata(dir).map_err(|e| not_opened(dir, e))?;
        if meta.is_dir() {
            return Ok(());
        }
        let expected = "a checkpoint directory (config.json, *.safetensors)";
        let hint = "run, eval and unpack read packed files";
        Err(Malformed::new(dir, "not a directory", expected, "a file").with_hint(hint).into())
    }

    fn open_single(dir: &Path) -> Result<Checkpoint> {
        let shards = vec![open_shard(dir, SINGLE_NAME)?];
        Ok(Checkpoint {
            dir: dir.to_owned(),
            layout: Layout::Single,
            shards,
            warnings: Vec::new(),
            listed: None,
        })
    }

    fn open_sharded(dir: &Path, index_path: &Path, index: Index) -> Result<Checkpoint> {
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            let fault = Malformed::new(index_path, "empty weight_map", "at least one tensor", "{}");
            return Err(fault.into());
        }
        refuse_missing_shards(dir, index_path, &names)?;
        let mut shards = Vec::with_capacity(names.len());
        let (mut tensors, mut header_bytes) = (0, 0);
        for name in &names {
            let shard = open_shard(dir, name)?;
            tensors += shard.tensors.len();
            header_bytes += shard.data_begin;
            refuse_too_many(index_path, tensors, header_bytes)?;
            shards.push(shard);
        }
        let held =
            shards.iter().map(|s| Held { name: &s.name, path: &s.path, tensors: &s.tensors });
        let is_tied = || says_tied(dir);
        let mut warnings = check_index(index_path, &index, &held.collect::<Vec<_>>(), &is_tied)?;
        let actual = shards.iter().map(|s| s.size_bytes() - s.data_begin).sum::<u64>();
        let stated = index.total_size.as_ref();
        if stated.is_none_or(|n| n.as_u64() != Some(actual)) {
            warnings.push(Warning::TotalSize { stated: stated.map(ToString::to_string), actual });
        }
        Ok(Checkpoint {
            dir: dir.to_owned(),
            layout: Layout::Sharded,
            shards,
            warnings,
            listed: Some(index.weight_map),
        })
    }

    /// Whether a directory has the weights of a checkpoint, be they whole or damaged, or is an output that is not finished.
    /// Reads no file.
    pub fn is_at(dir: &Path) -> bool {
        let names = [SINGLE_NAME, INDEX_NAME, UNFINISHED_NAME];
        names.iter().any(|name| dir.join(name).symlink_metadata().is_ok())
    }

    /// The directory, as the caller spelt it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How the weights are divided into files.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The shards, sorted by name.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Oddities that are not errors but must be reported.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Every tensor with its shard, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = (&Shard, &TensorInfo)> + Clone {
        self.shards.iter().flat_map(|shard| shard.tensors.iter().map(move |t| (shard, t)))
    }

    /// Whether loaders find this tensor: the index lists it, or there is no index.
    pub(crate) fn is_listed(&self, tensor: &str) -> bool {
        self.listed.as_ref().is_none_or(|map| map.contains_key(tensor))
    }

    /// Whether a file of the directory is one of the shards.
    pub(crate) fn is_shard(&self, name: &str) -> bool {
        self.shards.iter().any(|shard| shard.name == name)
    }
}

/// The error for a directory that cannot be looked at.
fn not_opened(dir: &Path, e: std::io::Error) -> Error {
    if e.kind() != std::io::ErrorKind::NotFound {
        return Error::io(dir, "open the checkpoint", e);
    }
    let hint =
        "a model of the hub is fetched by `hf download ORG/NAME`, and then given as ORG/NAME";
    let expected = "a directory, or the id of a model of the hub";
    Malformed::new(dir, "cannot open the checkpoint", expected, "nothing there")
        .with_hint(hint)
        .into()
}

fn open_shard(dir: &Path, name: &str) -> Result<Shard> {
    Ok(Shard { name: name.to_owned(), ..Shard::open(&dir.join(name))? })
}

/// The fault of a directory without weights, with a hint that depends on its files.
fn no_weights(dir: &Path) -> Result<Malformed> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, "list", e))?;
    let mut found: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            [".safetensors", ".bin", ".gguf", ".pth"].iter().any(|end| name.ends_with(end))
        })
        .collect();
    found.sort();
    let shown = match found.as_slice() {
        [] => "no weights".to_owned(),
        names => names.iter().take(8).map(|n| printable(n)).collect::<Vec<_>>().join(", "),
    };
    let expected = format!("{SINGLE_NAME} or {INDEX_NAME}");
    let fault = Malformed::new(dir, "no checkpoint here", expected, shown);
    if let (true, Some(hint)) = (found.is_empty(), incomplete_hint(dir)) {
        return Ok(fault.with_hint(hint));
    }
    let is_adapter = |name: &String| name.starts_with(ADAPTER_WEIGHTS);
    Ok(if !found.is_empty() && found.iter().all(is_adapter) {
        fault.with_hint("an adapter is no model: merge it into its base model first, with peft")
    } else if found.iter().any(|name| name.ends_with(".safetensors")) {
        fault.with_hint("shards without their index cannot be checked: fetch the index too")
    } else if !found.is_empty() {
        fault.with_hint("physarium reads safetensors: convert the checkpoint first")
    } else {
        fault
    })
}

/// Fails if all shards so far have more tensors, or longer headers, than one file may have: memory is what headers take.
pub(super) fn refuse_too_many(path: &Path, tensors: usize, header_bytes: u64) -> Result<()> {
    if tensors <= MAX_TENSORS && header_bytes <= MAX_HEADER_BYTES {
        return Ok(());
    }
    let expected = format!("at most {MAX_TENSORS} tensors, in headers of {MAX_HEADER_BYTES} bytes");
    let found = format!("{tensors} tensors, in headers of {header_bytes} bytes");
    let hint = "more tensors than any published model has";
    Err(Malformed::new(path, "too many tensors", expected, found).with_hint(hint).into())
}

/// Fails if shards are missing, and lists them, up to a number.
fn refuse_missing_shards(dir: &Path, index_path: &Path, names: &[&String]) -> Result<()> {
    /// Most names in the error, long ones counted as several.
    const SHOWN: usize = 40;
    let mut missing: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    missing.retain(|name| dir.join(name).symlink_metadata().is_err());
    if missing.is_empty() {
        return Ok(());
    }
    let expected = format!("all {} shards that the index names", names.len());
    let shown = if missing.iter().all(|name| name.len() <= 50) { SHOWN } else { SHOWN / 5 };
    let names: Vec<String> = missing.iter().take(shown).map(|name| printable(name)).collect();
    let more = match missing.len().saturating_sub(shown) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let found = format!("{} missing: {}{more}", missing.len(), names.join(", "));
    let fault = Malformed::new(index_path, "shards are missing", expected, found);
    Err(match incomplete_hint(dir) {
        Some(hint) => fault.with_hint(hint).into(),
        None => fault.into(),
    })
}

/// Fails if an index names another file than `model.safetensors`, beside which it is. It may name nothing but that
/// file, as mlx-lm writes it.
pub(super) fn refuse_two_sets(dir: &Path, index: &Index) -> Result<()> {
    if index.weight_map.values().all(|shard| shard == SINGLE_NAME) {
        return Ok(());
    }
    let expected = format!("{SINGLE_NAME} or {INDEX_NAME}");
    let hint = "loaders disagree on which one to use: move one of them to another directory";
    Err(Malformed::new(dir, "two sets of weights", expected, "both").with_hint(hint).into())
}

/// The tensors of a shard.
pub(super) struct Held<'a> {
    pub name: &'a str,
    pub path: &'a Path,
    pub tensors: &'a [TensorInfo],
}

/// Compares the index with the headers: each listed tensor but a tied head must be in its shard, and no tensor in two
/// shards.
pub(super) fn check_index(
    index_path: &Path,
    index: &Index,
    shards: &[Held<'_>],
    is_tied: &dyn Fn() -> bool,
) -> Result<Vec<Warning>> {
    let mut holder: HashMap<&str, &str> = HashMap::new();
    let mut warnings = Vec::new();
    for shard in shards {
        for tensor in shard.tensors {
            if let Some(other) = holder.insert(&tensor.name, shard.name) {
                let found = format!("{} and {}", printable(other), printable(shard.name));
                return Err(Malformed::new(shard.path, "tensor in two shards", "one shard", found)
                    .with_tensor(&tensor.name)
                    .into());
            }
            if !index.weight_map.contains_key(&tensor.name) {
                let (tensor, shard) = (tensor.name.clone(), shard.name.to_owned());
                warnings.push(Warning::Unlisted { tensor, shard });
            }
        }
    }
    for (tensor, shard) in &index.weight_map {
        let (what, found) = match holder.get(tensor.as_str()) {
            Some(actual) if actual == shard => continue,
            None if is_head(tensor) && is_tied() => {
                let (tensor, shard) = (tensor.clone(), shard.clone());
                warnings.push(Warning::TiedHead { tensor, shard });
                continue;
            }
            Some(actual) => ("in another shard than the index says", printable(actual)),
            None => ("not found in any shard", "none".to_owned()),
        };
        return Err(Malformed::new(index_path, what, printable(shard), found)
            .with_tensor(tensor)
            .into());
    }
    Ok(warnings)
}
