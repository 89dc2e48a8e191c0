//! The manifest of an output. Input: its JSON, of which the check is computed here.
//!
//! A manifest that is accepted reads back what it writes; `verify` does not panic on it, and proves no other one.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use physarium::audit::verify;
use physarium::checkpoint::manifest::{self, Manifest};
use physarium_fuzz::{half, prune, read_twice, scratch, write_fused_model, write_seeds};

struct Place {
    model: PathBuf,
    out: PathBuf,
    manifest: Manifest,
}

static PLACE: OnceLock<Place> = OnceLock::new();

fn place() -> &'static Place {
    PLACE.get_or_init(|| {
        let dir = scratch("manifest");
        let (model, out) = (dir.join("model"), dir.join("out"));
        write_fused_model(&model);
        prune(&model, &out, &half());
        let manifest = Manifest::read(&out.join(manifest::FILE_NAME)).expect("a manifest");
        Place { model, out, manifest }
    })
}

fn seeds() {
    let Place { manifest, .. } = place();
    let pretty = serde_json::to_vec_pretty(manifest).expect("JSON");
    let plain = serde_json::to_vec(manifest).expect("JSON");
    write_seeds(&[("pretty", pretty), ("plain", plain)]);
}

fuzz_target!(init: seeds(), |data: &[u8]| {
    let Place { model, out, manifest: original } = place();
    let path = out.join(manifest::FILE_NAME);
    fs::write(&path, data).expect("the manifest is written");
    read_twice(|| Manifest::read(&path));
    let Ok(changed) = serde_json::from_slice::<Manifest>(data) else { return };
    fs::write(&path, changed.encode()).expect("the manifest is written");
    let Some(read) = read_twice(|| Manifest::read(&path)) else { return };
    assert_eq!(Manifest { check: changed.check.clone(), ..read }, changed);
    let proven = read_twice(|| verify(model, out, &mut |_| Ok(())).map(|found| found.is_proven()));
    let same = Manifest { check: original.check.clone(), ..changed } == *original;
    // What nothing else says: reasons, and the version that wrote it.
    assert!(same || proven != Some(true), "another manifest is proven");
});
