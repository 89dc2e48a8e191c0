/*!
The mirror of a directory in a store: what of it must be here, so that it can be read as a checkpoint.

In: the listing of the directory. Out: `CACHE/stores/KEY/files`, where `KEY` is the digest of the listing with sizes and ETags: an object
that changes makes another mirror. Small files are copies; each file of weights is a link to its object. `store.json` beside
`files` is the listing. A mirror appears as a whole by one rename, and is never changed afterwards.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use physarium_checkpoint::{
    Error, Malformed, RemoteLink, Sha256, Sidecar, StoreSource, printable, write_whole,
};
use serde::Serialize;

use crate::address::StoreAddress;
use crate::client::{Client, wait};

/// Most objects below an address.
const MAX_OBJECTS: usize = 20_000;
/// Most bytes of a file that is copied: far more than any tokenizer has.
const MAX_COPY: u64 = 256 << 20;
/// Directory of the mirrors in the cache.
const STORES: &str = "stores";
/// How the name of a directory begins that is becoming a mirror.
const NEW: &str = ".new-";
/// Age at which nobody makes a mirror of it any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The cache that environment variables name: `PHYSARIUM_CACHE`; else `physarium` in `XDG_CACHE_HOME` or in `HOME/.cache`. Empty ones
/// count as not set.
pub fn cache_of_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || Some(set("HOME")?.join(".cache"));
    set("PHYSARIUM_CACHE").or_else(|| Some(set("XDG_CACHE_HOME").or_else(home)?.join("physarium")))
}

/// Whether the link at `path` is in a mirror of the cache.
pub(crate) fn is_mirrored(cache: &Path, path: &Path) -> bool {
    let stores = fs::canonicalize(cache.join(STORES));
    let dir = path.parent().map(fs::canonicalize);
    matches!((stores, dir), (Ok(stores), Some(Ok(dir))) if dir.starts_with(&stores))
}

/// A directory in a store, as a directory here.
#[derive(Debug)]
pub struct Mirror {
    /// The directory, which is read as a checkpoint.
    pub dir: PathBuf,
}

/// The record of a mirror.
#[derive(Serialize)]
struct Listing {
    store: String,
    /// By path below the address.
    objects: BTreeMap<String, Listed>,
}

#[derive(Serialize)]
struct Listed {
    size: u64,
    etag: String,
}

impl Mirror {
    /// Lists the objects below an address, and finds or makes their mirror in `cache`.
    ///
    /// # Errors
    /// `Malformed` for an address with nothing below it, for names that are no paths, and for a store without ETags; `Io` when the store
    /// or the cache cannot be used, and if an object changes meanwhile.
    pub fn of(address: &StoreAddress, cache: &Path) -> Result<Mirror, Error> {
        let client = Client::of(address)?;
        let listing = Listing::of(address, &*client.at_first)?;
        let record = serde_json::to_string(&listing).expect("a listing is plain JSON") + "\n";
        let stores = cache.join(STORES);
        let place = stores.join(Sha256::of(record.as_bytes()).to_string());
        let dir = place.join(StoreSource::FILES);
        if place.join(StoreSource::RECORD).is_file() {
            return Ok(Mirror { dir });
        }
        fs::create_dir_all(&stores).map_err(|e| Error::io(&stores, "create", e))?;
        let new = New::begin(&stores)?;
        listing.fill(&new.0.join(StoreSource::FILES), address, &client)?;
        write_whole(&new.0.join(StoreSource::RECORD), record.as_bytes())?;
        match fs::rename(&new.0, &place) {
            // Another process was first.
            Err(_) if place.join(StoreSource::RECORD).is_file() => {}
            // Somebody removed a part of it.
            Err(_) if place.is_dir() => {
                fs::remove_dir_all(&place).map_err(|e| Error::io(&place, "remove", e))?;
                fs::rename(&new.0, &place).map_err(|e| Error::io(&place, "create", e))?;
            }
            renamed => renamed.map_err(|e| Error::io(&place, "create", e))?,
        }
        Ok(Mirror { dir })
    }
}

/// A directory that is removed unless it gets another name.
struct New(PathBuf);

impl New {
    /// A new directory; those that killed processes left are removed.
    fn begin(stores: &Path) -> Result<New, Error> {
        remove_abandoned(stores);
        // A process on another host may have the same number.
        let random = RandomState::new().hash_one(std::process::id());
        let dir = stores.join(format!("{NEW}{random:016x}"));
        fs::create_dir(&dir).map_err(|e| Error::io(&dir, "create", e))?;
        Ok(New(dir))
    }
}

/// Removes the directories that were begun long ago and have not become mirrors. What cannot be removed stays: it is in nobody's way.
fn remove_abandoned(stores: &Path) {
    let is_abandoned = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes())
            && age.is_some_and(|age| age > ABANDONED)
    };
    for entry in fs::read_dir(stores).into_iter().flatten().flatten().filter(is_abandoned) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

impl Drop for New {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Listing {
    /// The objects below an address.
    ///
    /// # Errors
    /// As [`Mirror::of`].
    fn of(address: &StoreAddress, store: &dyn ObjectStore) -> Result<Listing, Error> {
        let mut objects = BTreeMap::new();
        for object in list(address, store)? {
            if !is_marker(address, &object) {
                let (path, listed) = Listing::object(address, object)?;
                objects.insert(path, listed);
            }
        }
        remove_directories(&mut objects);
        refuse_file_in_file(address, &objects)?;
        if objects.is_empty() {
            let expected = "objects below this address";
            return Err(fault(address, "nothing in the store", expected, "none".to_owned()));
        }
        // Else all of a directory of other things would be copied.
        if !objects.keys().any(|path| Sidecar::is_weights(path)) {
            let expected = "a file of weights below this address, such as model.safetensors";
            let found = format!("{} other objects", objects.len());
            return Err(fault(address, "no model in the store", expected, found));
        }
        Ok(Listing { store: address.to_string(), objects })
    }

    /// An object's path, and what identifies its bytes.
    fn object(address: &StoreAddress, object: ObjectMeta) -> Result<(String, Listed), Error> {
        let key = object.location.as_ref();
        let prefix = address.prefix().as_ref();
        let path = key.strip_prefix(prefix).unwrap_or(key).trim_start_matches('/');
        let is_plain = |part| matches!(part, Component::Normal(_));
        if path.is_empty() || path.contains('\0') || !Path::new(path).components().all(is_plain) {
            let found = printable(key);
            return Err(fault(address, "not a name of a file", "a plain relative path", found));
        }
        let Some(etag) = object.e_tag else {
            let found = format!("none for {}", printable(key));
            return Err(fault(address, "no ETag", "an ETag of each object", found));
        };
        Ok((path.to_owned(), Listed { size: object.size, etag }))
    }

    /// Makes the files.
    fn fill(&self, dir: &Path, address: &StoreAddress, client: &Client) -> Result<(), Error> {
        fs::create_dir(dir).map_err(|e| Error::io(dir, "create", e))?;
        for (path, listed) in &self.objects {
            let file = dir.join(path);
            let parent = file.parent().expect("a file in a directory");
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, "create", e))?;
            let link = RemoteLink {
                address: format!("{address}/{path}"),
                size: listed.size,
                etag: listed.etag.clone(),
            };
            if Sidecar::is_weights(path) {
                symlink(link.target(), &file).map_err(|e| Error::io(&file, "create", e))?;
            } else {
                match copy(address, client, path, &link) {
                    // A directory without files: its key ends with a slash, which the listing does not say.
                    Err(Error::Io { source, .. })
                        if listed.size == 0 && source.kind() == ErrorKind::NotFound => {}
                    bytes => write_whole(&file, &bytes?)?,
                }
            }
        }
        Ok(())
    }
}

/// Everything below an address.
pub(crate) fn list(
    address: &StoreAddress,
    store: &dyn ObjectStore,
) -> Result<Vec<ObjectMeta>, Error> {
    let prefix = Some(address.prefix()).filter(|prefix| !prefix.as_ref().is_empty());
    let mut objects = Vec::new();
    let mut listed = store.list(prefix);
    while let Some(object) = wait(address, "list", listed.try_next())? {
        objects.push(object);
        if objects.len() > MAX_OBJECTS {
            let expected = format!("at most {MAX_OBJECTS} objects below the address of a model");
            return Err(fault(address, "too many objects", &expected, "more".to_owned()));
        }
    }
    Ok(objects)
}

/// Whether an object stands for the directory at an address, as consoles make it.
pub(crate) fn is_marker(address: &StoreAddress, object: &ObjectMeta) -> bool {
    object.size == 0 && object.location == *address.prefix()
}

/// The directories that a path leads through.
fn above(path: &str) -> impl Iterator<Item = &str> {
    Path::new(path).ancestors().skip(1).filter_map(Path::to_str)
}

/// Removes empty objects whose paths lead to others: they stand for directories.
fn remove_directories(objects: &mut BTreeMap<String, Listed>) {
    let above = objects.keys().flat_map(|path| above(path)).map(str::to_owned);
    let directories: BTreeSet<String> = above.collect();
    objects.retain(|path, listed| listed.size > 0 || !directories.contains(path));
}

/// The bytes of an object that is not weights.
fn copy(
    address: &StoreAddress,
    client: &Client,
    path: &str,
    link: &RemoteLink,
) -> Result<Vec<u8>, Error> {
    if link.size > MAX_COPY {
        let expected = format!("at most {MAX_COPY} bytes of a file that is not weights");
        let file = PathBuf::from(&link.address);
        return Err(
            Malformed::new(&file, "too large", expected, format!("{} bytes", link.size)).into()
        );
    }
    let key = address.key(path)?;
    let options = GetOptions { if_match: Some(link.etag.clone()), ..GetOptions::default() };
    let read = async { client.at_first.get_opts(&key, options).await?.bytes().await };
    Ok(wait(&link.address, "read", read)?.into())
}

/// Fails if an object's path leads through another object.
fn refuse_file_in_file(
    address: &StoreAddress,
    objects: &BTreeMap<String, Listed>,
) -> Result<(), Error> {
    let leads_through = |path: &&String| above(path).any(|dir| objects.contains_key(dir));
    match objects.keys().find(leads_through) {
        None => Ok(()),
        Some(path) => {
            let expected = "a file or a directory of each name";
            let found = format!("both on the way to {}", printable(path));
            Err(fault(address, "not files and directories", expected, found))
        }
    }
}

fn fault(address: &StoreAddress, what: &'static str, expected: &str, found: String) -> Error {
    Malformed::new(Path::new(&address.to_string()), what, expected, found).into()
}
