//! Finished outputs into a store.

use std::fs;
use std::path::Path;

use physarium::audit::verify;
use physarium::{Cancel, Options, Output, RecipeOptions, Silent, Surgery};
use physarium_checkpoint::{Error, manifest};
use physarium_fixtures::{Fill, Kind, Tensor, write_checkpoint};
use physarium_store::{Upload, Uploaded};

use crate::Store;
use crate::mirrors::files;
use crate::watched::Watched;

/// A model and its pruned output, whose second shard has 24 MB: two parts.
struct Pruned {
    model: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Pruned {
    fn new() -> Pruned {
        let (model, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = |layer: usize| format!("model.layers.{layer}.self_attn.q_proj.weight");
        let tensors = [
            Tensor::new(name(0), Kind::F32, &[64, 256]),
            Tensor::new(name(1), Kind::F32, &[1500, 4000]),
        ];
        write_checkpoint(model.path(), &tensors, 2, Fill::Gaussian(7)).unwrap();
        prune(model.path(), &out.path().join("out"));
        Pruned { model, out }
    }

    fn out(&self) -> std::path::PathBuf {
        self.out.path().join("out")
    }
}

fn prune(model: &Path, out: &Path) {
    let options =
        RecipeOptions { sparsity: Some("0.5".parse().unwrap()), ..RecipeOptions::default() };
    let recipe = options.recipe(model, None).unwrap();
    let surgery = Surgery::plan(model, recipe, Options::default()).unwrap();
    surgery.prune(Output::new(out), &Cancel::default(), &mut Silent).unwrap();
}

fn upload(dir: &Path, store: &Store) -> Result<Uploaded, Error> {
    Upload::of(dir)?.run(&store.address, &mut |_| Ok(()))
}

#[test]
fn an_uploaded_output_is_verified_in_the_store() {
    let pruned = Pruned::new();
    let store = Store::new("uploads");
    let done = upload(&pruned.out(), &store).unwrap();
    let names: Vec<String> = files(&pruned.out()).into_iter().map(|(path, _)| path).collect();
    assert_eq!((done.written, done.kept), (names.len(), 0));
    assert_eq!(store.paths(), names);
    let mirror = store.mirror().unwrap();
    let verification = verify(pruned.model.path(), &mirror, &mut |_| Ok(())).unwrap();
    assert!(verification.findings.is_empty(), "{:?}", verification.findings);
    let again = upload(&pruned.out(), &store).unwrap();
    assert_eq!(again, Uploaded { written: 0, kept: names.len(), ..done });
    // From store to store.
    let copy = Store::new("copies");
    copy.put_key("models/one/", "");
    assert_eq!(upload(&mirror, &copy).unwrap(), done);
    assert_eq!(copy.paths(), [&[String::new()], &names[..]].concat());
    // The model in the store gives the output that the model here gives.
    let input = Store::new("inputs");
    files(pruned.model.path()).into_iter().for_each(|(path, bytes)| input.put(&path, bytes));
    let other = pruned.out.path().join("other");
    prune(&input.mirror().unwrap(), &other);
    for (path, bytes) in files(&pruned.out()) {
        if ![manifest::FILE_NAME, manifest::CARD_NAME].contains(&&path[..]) {
            assert!(fs::read(other.join(&path)).unwrap() == bytes, "{path}");
        }
    }
    let manifest = manifest::Manifest::read(&other.join(manifest::FILE_NAME)).unwrap();
    assert_eq!(manifest.source.unwrap().short(), "s3://inputs/models/one");
}

#[test]
fn an_interrupted_upload_goes_on_with_what_is_missing() {
    let pruned = Pruned::new();
    let store = Store::new("interrupted");
    let whole = Upload::of(&pruned.out()).unwrap();
    // In the first part of the second shard; then after it.
    for (calls, objects) in [(2, 1), (4, 2)] {
        let mut left = calls;
        let stopped = whole.run(&store.address, &mut |_| {
            left -= 1;
            if left == 0 { Err(Error::Interrupted) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
        assert_eq!(store.paths().len(), objects);
        assert!(!store.paths().iter().any(|path| path == manifest::FILE_NAME));
    }
    let done = upload(&pruned.out(), &store).unwrap();
    assert_eq!(done.kept, 2);
    let mirror = store.mirror().unwrap();
    assert!(verify(pruned.model.path(), &mirror, &mut |_| Ok(())).unwrap().findings.is_empty());
}

#[test]
fn an_upload_to_a_store_that_fails_goes_on_with_what_is_missing() {
    let pruned = Pruned::new();
    let count =
        Upload::of(&pruned.out()).unwrap().run(&Store::new("whole").address, &mut |_| Ok(()));
    for puts in 0..count.unwrap().written {
        let store = Store::new(&format!("fails-{puts}"));
        let watched = Watched::before(&store);
        watched.fail_after_puts(puts);
        let error = upload(&pruned.out(), &store).unwrap_err().to_string();
        assert!(error.contains(": cannot write: the store has failed"), "{error}");
        assert_eq!(store.paths().len(), puts);
        assert!(!store.paths().iter().any(|path| path == manifest::FILE_NAME));
        assert_eq!(upload(&pruned.out(), &store).unwrap().kept, puts);
    }
}

#[test]
fn what_is_not_of_the_same_upload_is_in_the_way() {
    let pruned = Pruned::new();
    let store = Store::new("foreign");
    store.put("notes.txt", "mine");
    let error = upload(&pruned.out(), &store).unwrap_err().to_string();
    assert!(error.contains("found the object models/one/notes.txt"), "{error}");
    store.delete("notes.txt");
    store.put("config.json", "{}");
    let error = upload(&pruned.out(), &store).unwrap_err().to_string();
    assert!(error.contains("found another config.json"), "{error}");
    assert_eq!(store.paths(), ["config.json"]);
}

#[test]
fn a_file_that_was_changed_is_not_uploaded() {
    let pruned = Pruned::new();
    for (bucket, shard) in [("small", "model-00001-of-00002"), ("large", "model-00002-of-00002")] {
        let path = pruned.out().join(format!("{shard}.safetensors"));
        let right = fs::read(&path).unwrap();
        let mut wrong = right.clone();
        *wrong.last_mut().unwrap() ^= 1;
        fs::write(&path, wrong).unwrap();
        let store = Store::new(bucket);
        let error = upload(&pruned.out(), &store).unwrap_err().to_string();
        assert!(error.contains(shard) && error.contains("not what the manifest says"), "{error}");
        assert!(!store.paths().iter().any(|path| path.starts_with(shard)), "{:?}", store.paths());
        fs::write(&path, right).unwrap();
    }
}

#[test]
fn only_a_finished_output_is_uploaded() {
    let pruned = Pruned::new();
    let store = Store::new("unfinished");
    let error = upload(pruned.model.path(), &store).unwrap_err().to_string();
    assert!(error.contains("no manifest, expected an output of physarium prune"), "{error}");
    let error = upload(Path::new("s3://unfinished/models/one"), &store).unwrap_err().to_string();
    assert!(
        error.contains("expected a directory on this machine") && error.contains("nothing here"),
        "{error}"
    );
    fs::write(pruned.out().join("physarium.unfinished.json"), "{}").unwrap();
    let error = upload(&pruned.out(), &store).unwrap_err().to_string();
    assert!(error.contains("unfinished output"), "{error}");
    assert_eq!(store.paths(), [""; 0]);
}
