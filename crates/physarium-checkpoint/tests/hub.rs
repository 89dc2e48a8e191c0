//! Models of the hub: what is an id, where the cache is, and which snapshot a revision means.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{
    Checkpoint, Found, FoundModel, HubCache, HubId, HubSource, LinkPolicy, ModelName, ModelSource,
    Purpose, Sidecar,
};
use physarium_fixtures::{Fill, Kind, llama_tensors, write_checkpoint};

const COMMITS: [&str; 3] = [
    "12fd25f77366fa6b3b4b768ec3050bf629380bac",
    "12fd99f77366fa6b3b4b768ec3050bf629380bac",
    "abcdef0123456789abcdef0123456789abcdef01",
];

/// A cache with one model of two shards, at the first commit in full; the other snapshots are empty.
struct Cache(tempfile::TempDir);

impl Cache {
    fn new() -> Cache {
        let cache = Cache(tempfile::tempdir().unwrap());
        let blobs = cache.model().join("blobs");
        write_checkpoint(&blobs, &llama_tensors(Kind::Bf16, 1, [32, 16, 48]), 2, Fill::Sparse)
            .unwrap();
        for commit in COMMITS {
            fs::create_dir_all(cache.snapshot(commit)).unwrap();
        }
        for file in fs::read_dir(&blobs).unwrap() {
            let name = file.unwrap().file_name();
            let target = Path::new("../../blobs").join(&name);
            symlink(target, cache.snapshot(COMMITS[0]).join(&name)).unwrap();
        }
        for (name, commit) in [("main", 0), ("v1.0", 1), ("refs/pr/1", 2)] {
            let path = cache.model().join("refs").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, COMMITS[commit]).unwrap();
        }
        cache
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("models--org--name")
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.model().join("snapshots").join(commit)
    }

    /// The cache as an environment with these variables names it.
    fn with(&self, more: &[(&str, &str)]) -> HubCache {
        let dir = self.0.path().to_str().unwrap();
        environment(&[&[("HF_HUB_CACHE", dir)], more].concat())
    }

    fn find(&self, id: &str) -> Result<FoundModel, String> {
        let id = HubId::parse(id).map_err(|e| e.to_string())?.expect("an id");
        self.with(&[]).find(&id).map_err(|e| e.to_string())
    }
}

fn environment(variables: &[(&str, &str)]) -> HubCache {
    let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
    HubCache::of_environment(&|name| find(name).map(|(_, value)| OsString::from(value)))
}

#[test]
fn an_id_is_told_from_a_path() {
    for (text, name, revision) in [
        ("org/name", "org/name", None),
        ("Qwen/Qwen2.5-0.5B@main", "Qwen/Qwen2.5-0.5B", Some("main")),
        ("gpt2", "gpt2", None),
        ("org/name@refs/pr/1", "org/name", Some("refs/pr/1")),
        ("org/n_a.m-e@v1.0+x", "org/n_a.m-e", Some("v1.0+x")),
    ] {
        let id = HubId::parse(text).unwrap().unwrap();
        assert_eq!((id.name(), id.revision()), (name, revision), "{text}");
        assert_eq!(id.to_string(), text);
    }
    let long = "n".repeat(97);
    for text in [
        "",
        "/",
        "org/",
        "/name",
        "./name",
        "../name",
        "org/..",
        "org/../x",
        "a/b/c",
        "org/na me",
        "org//name",
        "org/name/",
        "org/-name",
        "org/na--me",
        "org/name.git",
        "org/n\0",
        "org/nä",
        &long,
        "~/model",
    ] {
        assert_eq!(HubId::parse(text).unwrap(), None, "{text:?}");
    }
}

#[test]
fn a_revision_stays_below_the_refs_and_is_safe_in_a_command() {
    for revision in [
        "",
        "../main",
        "a/../b",
        "/etc/passwd",
        "a//b",
        ".hidden",
        "-x",
        "a b",
        "a\0",
        "a\nb",
        "$(x)",
    ] {
        let error = HubId::parse(&format!("org/name@{revision}")).unwrap_err().to_string();
        assert!(error.starts_with("org/name: not a revision, expected a branch"), "{error}");
    }
    let id = || HubId::parse("org/name@main").unwrap().unwrap();
    assert_eq!(id().at("main").unwrap(), id());
    let error = id().at("v1.0").unwrap_err().to_string();
    assert_eq!(error, "org/name: two revisions, expected main, found v1.0");
}

#[test]
fn the_cache_is_where_the_hubs_own_library_has_it() {
    let home = tempfile::tempdir().unwrap();
    let base = home.path().to_str().unwrap();
    let below = |path: &str| format!("{base}/{path}");
    let [hub, old, hf, xdg] = ["hub", "old", "hf", "xdg"].map(below);
    let all = [
        ("HF_HUB_CACHE", hub.as_str()),
        ("HUGGINGFACE_HUB_CACHE", &old),
        ("HF_HOME", &hf),
        ("XDG_CACHE_HOME", &xdg),
        ("HOME", base),
    ];
    let places = ["hub", "old", "hf/hub", "xdg/huggingface/hub", ".cache/huggingface/hub"];
    for (begin, place) in places.into_iter().enumerate() {
        let model = below(&format!("{place}/models--org--name"));
        let commit = Path::new(&model).join("snapshots").join(COMMITS[0]);
        fs::create_dir_all(&commit).unwrap();
        fs::create_dir_all(format!("{model}/refs")).unwrap();
        fs::write(format!("{model}/refs/main"), COMMITS[0]).unwrap();
        let id = HubId::parse("org/name").unwrap().unwrap();
        assert_eq!(environment(&all[begin..]).find(&id).unwrap().path, commit, "{place}");
        // Empty variables count as not set, and ~ is the home directory.
        let mut emptied = all.map(|(name, value)| (name, if name == "HOME" { value } else { "" }));
        emptied[begin] = (all[begin].0, all[begin].1);
        assert_eq!(environment(&emptied).find(&id).unwrap().path, commit, "{place}");
    }
    let id = HubId::parse("org/name").unwrap().unwrap();
    let tilde = environment(&[("HF_HOME", "~/hf"), ("HOME", base)]);
    assert!(tilde.find(&id).unwrap().path.starts_with(&hf));
    let error = environment(&[]).find(&id).unwrap_err().to_string();
    assert!(error.contains("no hub cache, expected HF_HUB_CACHE, HF_HOME or HOME"), "{error}");
}

#[test]
fn a_revision_is_a_ref_a_commit_or_the_beginning_of_one() {
    let cache = Cache::new();
    for (id, revision, commit) in [
        ("org/name", "main", 0),
        ("org/name@main", "main", 0),
        ("org/name@v1.0", "v1.0", 1),
        ("org/name@refs/pr/1", "refs/pr/1", 2),
        ("org/name@12fd25", "12fd25", 0),
        ("org/name@abcdef0123456789abcdef0123456789abcdef01", COMMITS[2], 2),
    ] {
        let found = cache.find(id).unwrap();
        assert_eq!(found.path, cache.snapshot(COMMITS[commit]), "{id}");
        let source = HubSource {
            hub: "org/name".to_owned(),
            revision: Some(revision.to_owned()),
            commit: COMMITS[commit].to_owned(),
        };
        assert_eq!(found.source, Some(ModelSource::Hub(source)), "{id}");
    }
    for (id, needles) in [
        ("org/other", &["no such model here", "hint: hf download org/other"][..]),
        ("org/name@12fd", &["several commits begin so", "12fd25f77366, 12fd99f77366"]),
        ("org/name@abc", &["no abc; commits there", "hf download org/name --revision abc"]),
        ("org/name@refs", &["revision is not in the hub cache"]),
        ("org/name@0000000000000000000000000000000000000000", &["not downloaded", "nothing there"]),
    ] {
        let error = cache.find(id).unwrap_err();
        needles.iter().for_each(|needle| assert!(error.contains(needle), "{id}: {error}"));
    }
}

#[test]
fn a_ref_that_leads_elsewhere_is_refused() {
    let cache = Cache::new();
    let long = "a".repeat(100_000);
    for text in [
        "../../../elsewhere",
        "",
        "/etc",
        "12fd25",
        "12FD25F77366FA6B3B4B768EC3050BF629380BAC",
        &long,
    ] {
        fs::write(cache.model().join("refs/main"), text).unwrap();
        let error = cache.find("org/name").unwrap_err();
        assert!(error.contains("refs/main") && error.len() < 500, "{error}");
    }
    fs::write(cache.model().join("refs/main"), format!("{}\n", COMMITS[0])).unwrap();
    assert!(cache.find("org/name").is_ok());
}

#[test]
fn what_exists_is_a_path_and_an_old_name_needs_a_cache_that_has_it() {
    let cache = Cache::new();
    let there = cache.with(&[]);
    let path = |text: &str| ModelName::Path(PathBuf::from(text));
    let id = |text: &str| ModelName::Hub(HubId::parse(text).unwrap().unwrap());
    // Tests run in the crate's directory.
    for text in ["src/lib.rs", "tests/hub.rs", "src", "gpt2", "./org/name", "/org/name"] {
        assert_eq!(there.name(Path::new(text)).unwrap(), path(text));
    }
    fs::create_dir(cache.0.path().join("models--gpt2")).unwrap();
    for text in ["gpt2", "org/name", "org/other@main"] {
        assert_eq!(there.name(Path::new(text)).unwrap(), id(text));
    }
}

#[test]
fn offline_is_said_with_the_hint() {
    let cache = Cache::new();
    let id = HubId::parse("org/other").unwrap().unwrap();
    for (value, offline) in [("1", true), ("true", true), ("ON", true), ("0", false), ("", false)] {
        let error = cache.with(&[("HF_HUB_OFFLINE", value)]).find(&id).unwrap_err().to_string();
        assert_eq!(error.contains("HF_HUB_OFFLINE is set and the cache has no such"), offline);
        assert!(error.contains("hf download org/other"), "{error}");
    }
}

#[test]
fn a_snapshot_is_a_checkpoint_of_links_and_says_what_it_is() {
    let cache = Cache::new();
    let dir = cache.find("org/name").unwrap().path;
    let checkpoint = Checkpoint::open(&dir).unwrap();
    assert_eq!(checkpoint.shards().len(), 2);
    let files = Sidecar::list(&checkpoint, Purpose::NewWeights, LinkPolicy::LeaveOut).unwrap();
    assert_eq!(files.iter().filter(|file| file.size_bytes > 0).count(), 2, "{files:?}");
    let source = HubSource::of_snapshot(&dir).unwrap();
    assert_eq!((source.hub.as_str(), source.revision.as_deref()), ("org/name", None));
    assert_eq!(source.commit, COMMITS[0]);
    assert_eq!(source.short(), "org/name@12fd25f77366");
    let link = cache.0.path().join("link");
    symlink(&dir, &link).unwrap();
    assert_eq!(HubSource::of_snapshot(&link), Some(source));
    for other in [cache.model(), cache.model().join("blobs"), cache.0.path().to_owned()] {
        assert_eq!(HubSource::of_snapshot(&other), None);
    }
}

#[test]
fn an_incomplete_download_says_how_to_complete_it() {
    let cache = Cache::new();
    let hint = format!(
        "hint: the download is not complete: hf download org/name --revision {}",
        COMMITS[0]
    );
    let shard = "model-00002-of-00002.safetensors";
    let dir = cache.snapshot(COMMITS[0]);
    let error = || Checkpoint::open(&dir).unwrap_err().to_string();
    fs::remove_file(cache.model().join("blobs").join(shard)).unwrap();
    assert!(error().contains("broken link") && error().ends_with(&hint), "{}", error());
    fs::remove_file(dir.join(shard)).unwrap();
    assert!(error().contains(&format!("1 missing: {shard}")), "{}", error());
    assert!(error().ends_with(&hint), "{}", error());
    let error = Checkpoint::open(&cache.snapshot(COMMITS[1])).unwrap_err().to_string();
    let hint = format!("hf download org/name --revision {}", COMMITS[1]);
    assert!(error.contains("no checkpoint here") && error.ends_with(&hint), "{error}");
}

#[test]
fn nothing_is_written_into_a_cache() {
    let cache = Cache::new();
    let dir = cache.snapshot(COMMITS[0]);
    let there = cache.with(&[]);
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(Found::at(&elsewhere.path().join("out"), &dir).is_ok());
    assert!(there.refuse_output(&elsewhere.path().join("out")).is_ok());
    let link = elsewhere.path().join("link");
    symlink(cache.model(), &link).unwrap();
    for out in [cache.0.path().join("out"), cache.model().join("snapshots/out"), link.join("out")] {
        let error = Found::at(&out, &dir).unwrap_err().to_string();
        assert!(error.contains("output is inside the hub cache"), "{error}");
        let error = there.refuse_output(&out).unwrap_err().to_string();
        assert!(error.contains("output is inside the hub cache"), "{error}");
    }
}
