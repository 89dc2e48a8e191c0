/*!
A finished output into a store.

The objects are the files that the manifest lists, each checked against its SHA-256 while it is read, and the manifest itself, last: a
reader who sees the manifest sees the whole output. Large files go up in parts. A part that fails is repeated; a file that fails leaves
no object. Each object carries its SHA-256, so that an upload that was interrupted is resumed with what is missing.
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, PutMultipartOptions, PutOptions, WriteMultipart,
};
use physarium_checkpoint::manifest::{self, Manifest};
use physarium_checkpoint::{Checkpoint, Digest, Error, Malformed, Sha256, Source, printable};
use tokio::task::block_in_place;

use crate::address::StoreAddress;
use crate::client::{Client, failed, wait};
use crate::mirror::{is_marker, list};
use crate::runtime::runtime;

/// Bytes of a part, unless the file would have too many.
const PART: u64 = 16 << 20;
/// Most parts of a file; S3 takes 10,000.
const MAX_PARTS: u64 = 9_000;
/// Parts that are on their way at once.
const AT_ONCE: usize = 4;
/// Name of the metadata with an object's SHA-256.
const SHA256: &str = "sha256";

/// An upload that can begin.
#[derive(Debug)]
pub struct Upload {
    dir: PathBuf,
    /// All files, the manifest last.
    files: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    /// Path below the directory, and below the address.
    path: String,
    size: u64,
    sha256: Digest,
}

/// What an upload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// Objects that this call wrote.
    pub written: usize,
    /// Objects that were there before, with the right SHA-256.
    pub kept: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Receives the number of bytes that are about to be written; an error stops the upload before that.
pub type OnBytes<'a> = &'a mut dyn FnMut(u64) -> Result<(), Error>;

impl Upload {
    /// Lists the files of a finished output.
    ///
    /// # Errors
    /// `Unfinished` for an output that is none yet; `Record` and `Malformed` for a directory without a manifest, or with a wrong one.
    pub fn of(dir: &Path) -> Result<Upload, Error> {
        if !dir.is_dir() {
            let found = if dir.exists() { "a file" } else { "nothing here" };
            let expected = "a directory on this machine, an output of physarium prune";
            return Err(Malformed::new(dir, "no output", expected, found).into());
        }
        Checkpoint::open(dir)?;
        let path = dir.join(manifest::FILE_NAME);
        if path.symlink_metadata().is_err() {
            let expected = format!("an output of physarium prune, with {}", manifest::FILE_NAME);
            let fault = Malformed::new(dir, "no manifest", expected, "none");
            return Err(fault.into());
        }
        let manifest = Manifest::read(&path)?;
        let shards = manifest.shards.into_iter().map(|shard| Planned {
            path: shard.name,
            size: shard.size_bytes,
            sha256: shard.output_sha256,
        });
        let others = manifest.files.into_iter().map(|file| Planned {
            path: file.path,
            size: file.size_bytes,
            sha256: file.sha256,
        });
        let source = Source::open(&path)?;
        let last = Planned {
            path: manifest::FILE_NAME.to_owned(),
            size: source.len(),
            sha256: source.sha256::<Error>(&mut |_| Ok(()))?,
        };
        let files = shards.chain(others).chain([last]).collect();
        Ok(Upload { dir: dir.to_owned(), files })
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Uploads the files to a directory in a store, which must be empty but for what the same upload has brought there.
    ///
    /// # Errors
    /// `Output` for an address with other objects; `Malformed` for a file that is not what the manifest says; `Io` when the store refuses,
    /// and for a file that cannot be read; what `on_bytes` returns. No manifest is then at the address.
    pub fn run(&self, address: &StoreAddress, on_bytes: OnBytes<'_>) -> Result<Uploaded, Error> {
        let client = Client::of(address)?;
        let there = self.found(address, &client)?;
        let mut done = Uploaded { written: 0, kept: 0, bytes: self.bytes() };
        for (file, is_there) in self.files.iter().zip(there) {
            if is_there {
                done.kept += 1;
                on_bytes(file.size)?;
                continue;
            }
            let object = Object {
                store: Arc::clone(&client.store),
                key: address.key(&file.path)?,
                address: format!("{address}/{}", file.path),
                attributes: attributes(file),
            };
            object.put(&self.dir.join(&file.path), file, on_bytes)?;
            done.written += 1;
        }
        Ok(done)
    }

    /// For each file, whether its object is there.
    ///
    /// # Errors
    /// `Output` for an object that is none of the files, or has other bytes.
    fn found(&self, address: &StoreAddress, client: &Client) -> Result<Vec<bool>, Error> {
        let keys = self.files.iter().map(|file| address.key(&file.path));
        let keys = keys.collect::<Result<Vec<Key>, Error>>()?;
        let mut there = vec![false; keys.len()];
        for object in list(address, &*client.at_first)? {
            if is_marker(address, &object) {
                continue;
            }
            let in_the_way = |found: String| Error::Output {
                path: PathBuf::from(address.to_string()),
                what: "not empty",
                expected: "nothing at the address, or a part of the same upload".to_owned(),
                found,
            };
            let Some(index) = keys.iter().position(|key| *key == object.location) else {
                return Err(in_the_way(format!(
                    "the object {}",
                    printable(object.location.as_ref())
                )));
            };
            let options = GetOptions { head: true, ..GetOptions::default() };
            let head = wait(address, "look at", client.at_first.get_opts(&keys[index], options))?;
            let file = &self.files[index];
            let sha256 = head.attributes.get(&Attribute::Metadata(SHA256.into()));
            let is_same = sha256.is_some_and(|sha256| **sha256 == file.sha256.to_string());
            if !is_same || head.meta.size != file.size {
                return Err(in_the_way(format!("another {}", printable(&file.path))));
            }
            there[index] = true;
        }
        Ok(there)
    }
}

fn attributes(file: &Planned) -> Attributes {
    let sha256 = (Attribute::Metadata(SHA256.into()), file.sha256.to_string());
    [sha256].into_iter().collect()
}

/// An object to be.
struct Object {
    store: Arc<dyn ObjectStore>,
    key: Key,
    address: String,
    attributes: Attributes,
}

impl Object {
    /// Writes a file.
    ///
    /// # Errors
    /// As [`Upload::run`].
    fn put(&self, path: &Path, file: &Planned, on_bytes: OnBytes<'_>) -> Result<(), Error> {
        let source = Source::open(path)?;
        if source.len() != file.size {
            let (expected, found) = (file.size, source.len());
            return Err(changed(path, format!("{expected} bytes"), format!("{found} bytes")));
        }
        if file.size <= PART {
            let bytes = source.read_all(PART)?;
            check(path, file, Sha256::of(&bytes))?;
            on_bytes(file.size)?;
            let options =
                PutOptions { attributes: self.attributes.clone(), ..PutOptions::default() };
            let put = self.store.put_opts(&self.key, Bytes::from(bytes).into(), options);
            return wait(&self.address, "write", put).map(drop);
        }
        runtime()?.block_on(self.put_parts(&source, file, on_bytes))
    }

    /// Writes a file in parts. If it fails, the parts that were written are discarded.
    async fn put_parts(
        &self,
        source: &Source,
        file: &Planned,
        on_bytes: OnBytes<'_>,
    ) -> Result<(), Error> {
        let store = |e| failed(&self.address, "write", &e);
        let options = PutMultipartOptions {
            attributes: self.attributes.clone(),
            ..PutMultipartOptions::default()
        };
        let upload = self.store.put_multipart_opts(&self.key, options).await.map_err(store)?;
        let part = PART.max(file.size.div_ceil(MAX_PARTS));
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part as usize);
        let written = self.write(&mut writer, (source, file, part), on_bytes).await;
        match written {
            Ok(()) => writer.finish().await.map(drop).map_err(store),
            Err(e) => {
                // The first error is told.
                let _ = writer.abort().await;
                Err(e)
            }
        }
    }

    /// Hands on the parts of a file.
    async fn write(
        &self,
        writer: &mut WriteMultipart,
        (source, file, part): (&Source, &Planned, u64),
        on_bytes: OnBytes<'_>,
    ) -> Result<(), Error> {
        let mut hasher = Sha256::default();
        for start in (0..file.size).step_by(part as usize) {
            let mut bytes = vec![0; part.min(file.size - start) as usize];
            // The file may be in a store itself: its requests are waited for.
            block_in_place(|| source.read_exact_at(&mut bytes, start))?;
            hasher.update(&bytes);
            let capacity = writer.wait_for_capacity(AT_ONCE).await;
            capacity.map_err(|e| failed(&self.address, "write", &e))?;
            on_bytes(bytes.len() as u64)?;
            writer.put(Bytes::from(bytes));
        }
        check(source.path(), file, hasher.finish())
    }
}

/// Fails if a file is not what the manifest says.
fn check(path: &Path, file: &Planned, sha256: Digest) -> Result<(), Error> {
    match sha256 == file.sha256 {
        true => Ok(()),
        false => Err(changed(path, file.sha256.to_string(), sha256.to_string())),
    }
}

fn changed(path: &Path, expected: String, found: String) -> Error {
    let fault = Malformed::new(path, "not what the manifest says", expected, found);
    fault.with_hint("physarium verify says what was changed").into()
}
