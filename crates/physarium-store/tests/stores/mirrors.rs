//! A directory in a store, read as a checkpoint.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use physarium_checkpoint::{
    Checkpoint, Disposition, Error, HubSource, LinkPolicy, ModelSource, Purpose, RemoteLink,
    Sidecar, Source,
};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};
use physarium_store::Client;

use crate::{CACHE, Store};

const SHARD: &str = "model-00001-of-00002.safetensors";
const LARGE: &str = "model-00002-of-00002.safetensors";

/// A model of two shards, the second with 24 MB.
fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let name = |layer: usize| format!("model.layers.{layer}.self_attn.q_proj.weight");
    let tensors = [
        Tensor::new(name(0), Kind::F32, &[64, 256]),
        Tensor::new(name(1), Kind::F32, &[1500, 4000]),
    ];
    write_checkpoint(dir.path(), &tensors, 2, Fill::Gaussian(7)).unwrap();
    fs::create_dir(dir.path().join("original")).unwrap();
    fs::write(dir.path().join("original/params.json"), "{}").unwrap();
    fs::write(dir.path().join("pytorch_model.bin"), "the old weights").unwrap();
    dir
}

/// All files of a directory by path.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = files(&entry.path()).into_iter();
            found.extend(below.map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            found.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

fn stored(bucket: &str, dir: &Path) -> Store {
    let store = Store::new(bucket);
    files(dir).into_iter().for_each(|(path, bytes)| store.put(&path, bytes));
    store
}

#[test]
fn a_mirror_is_read_as_the_model_in_the_store() {
    let model = model();
    let store = stored("read", model.path());
    // What consoles make for directories.
    store.put("original", "");
    let mirror = store.mirror().unwrap();
    let (here, there) =
        (Checkpoint::open(model.path()).unwrap(), Checkpoint::open(&mirror).unwrap());
    for (a, b) in here.shards().iter().zip(there.shards()) {
        assert_eq!(
            (&a.name, a.size_bytes(), a.header_sha256),
            (&b.name, b.size_bytes(), b.header_sha256)
        );
        let sha256 = |source: Source| source.sha256::<Error>(&mut |_| Ok(())).unwrap();
        assert_eq!(sha256(a.reopen().unwrap()), sha256(b.reopen().unwrap()));
    }
    assert_eq!(fs::read_to_string(mirror.join("original/params.json")).unwrap(), "{}");
    assert!(fs::read_link(mirror.join("pytorch_model.bin")).is_ok());
    let listed = |purpose| {
        let files = Sidecar::list(&there, purpose, LinkPolicy::LeaveOut).unwrap().into_iter();
        let copied = files.filter(|file| file.disposition == Disposition::Copy);
        copied.map(|file| file.path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let copied = ["config.json", "model.safetensors.index.json", "original/params.json"];
    assert_eq!(listed(Purpose::NewWeights), copied);
    assert_eq!(listed(Purpose::Archive), [&copied[..], &["pytorch_model.bin"]].concat());
    let source = ModelSource::of_dir(&mirror).unwrap();
    assert_eq!(source.short(), "s3://read/models/one");
    assert_eq!(source.hub(), None::<&HubSource>);
    assert_eq!(serde_json::to_string(&source).unwrap(), r#"{"store":"s3://read/models/one"}"#);
}

#[test]
fn any_range_can_be_read_in_any_order() {
    let model = model();
    let store = stored("ranges", model.path());
    let bytes = fs::read(model.path().join(LARGE)).unwrap();
    let source = Source::open(&store.mirror().unwrap().join(LARGE)).unwrap();
    assert_eq!(source.len(), bytes.len() as u64);
    let read = |begin: usize, length: usize| {
        let mut found = vec![0; length];
        source.read_exact_at(&mut found, begin as u64).unwrap();
        assert!(found == bytes[begin..begin + length], "{length} bytes at {begin}");
    };
    // Forward in small pieces, over the borders of chunks.
    (0..3_000_000).step_by(10_000).for_each(|begin| read(begin, 10_000));
    // More than a chunk, all of it, nothing, the end.
    read(5_000_000, 15_000_000);
    read(0, bytes.len());
    read(bytes.len(), 0);
    read(bytes.len() - 1, 1);
    // Several readers, each forward at its own place.
    std::thread::scope(|scope| {
        for reader in 0..6 {
            let begin = reader * 3_000_000;
            scope.spawn(move || {
                (begin..begin + 2_000_000).step_by(100_000).for_each(|at| read(at, 100_000));
            });
        }
    });
    let beyond = source.read_exact_at(&mut [0; 2], bytes.len() as u64 - 1).unwrap_err();
    assert!(matches!(&beyond, Error::FileShrank { .. }), "{beyond}");
}

#[test]
fn an_object_that_changes_is_noticed() {
    let model = model();
    let store = stored("changes", model.path());
    let mirror = store.mirror().unwrap();
    assert_eq!(store.mirror().unwrap(), mirror, "nothing has changed");
    let checkpoint = Checkpoint::open(&mirror).unwrap();
    let mut changed = fs::read(model.path().join(LARGE)).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    store.put(LARGE, changed.clone());
    let source = checkpoint.shards()[1].reopen().unwrap();
    let error = source.sha256::<Error>(&mut |_| Ok(())).unwrap_err().to_string();
    let expected = format!("s3://changes/models/one/{LARGE}: input changed during the run: ETag");
    assert!(error.starts_with(&expected), "{error}");

    let other = store.mirror().unwrap();
    assert_ne!(other, mirror);
    let source = Source::open(&other.join(LARGE)).unwrap();
    assert_eq!(source.read_all(1 << 30).unwrap(), changed);
    let identity = checkpoint.shards()[1].identity.clone();
    let error = source.check_unchanged(&identity).unwrap_err().to_string();
    assert!(error.contains("ETag"), "{error}");

    store.delete(LARGE);
    // A client of its own has nothing of it.
    Client::register(&store.address, store.memory.clone());
    let source = Source::open(&other.join(LARGE)).unwrap();
    let error = source.read_all(1 << 30).err().unwrap().to_string();
    let expected = format!("s3://changes/models/one/{LARGE}: cannot read: ");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn listings_that_are_no_directory_are_refused() {
    let store = Store::new("listings");
    let error = store.mirror().unwrap_err().to_string();
    assert!(error.contains("s3://listings/models/one: nothing in the store"), "{error}");
    store.put("config.json", "{}");
    let error = store.mirror().unwrap_err().to_string();
    assert!(
        error.contains("no model in the store") && error.contains("1 other objects"),
        "{error}"
    );
    store.put("config.json/x", "{}");
    let error = store.mirror().unwrap_err().to_string();
    assert!(error.contains("both on the way to config.json/x"), "{error}");
}

#[test]
fn directories_of_killed_processes_are_removed() {
    let store = Store::new("killed");
    store.put("model.safetensors", "");
    let stores = CACHE.path().join("stores");
    let [old, young] = [".new-old", ".new-young"].map(|name| stores.join(name));
    for dir in [&old, &young] {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.json"), "{}").unwrap();
    }
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    fs::File::open(&old).unwrap().set_modified(yesterday).unwrap();
    store.mirror().unwrap();
    assert!(!old.exists() && young.exists());
}

#[test]
fn a_mirror_of_which_a_part_was_removed_is_made_again() {
    let store = Store::new("half-removed");
    store.put("model.safetensors", "");
    let mirror = store.mirror().unwrap();
    fs::remove_file(mirror.parent().unwrap().join("store.json")).unwrap();
    fs::remove_file(mirror.join("model.safetensors")).unwrap();
    assert_eq!(store.mirror().unwrap(), mirror);
    assert!(fs::read_link(mirror.join("model.safetensors")).is_ok());
}

#[test]
fn links_into_stores_are_followed_in_mirrors_only() {
    let model = model();
    let store = stored("links", model.path());
    let link = RemoteLink::at(&store.mirror().unwrap().join(SHARD)).unwrap();
    assert_eq!(link.address, format!("s3://links/models/one/{SHARD}"));
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("model.safetensors");
    symlink(link.target(), &path).unwrap();
    let error = Source::open(&path).unwrap_err().to_string();
    assert!(error.contains("not made by physarium"), "{error}");
}
