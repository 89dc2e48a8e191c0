//! Models of the hub by id, in a cache that the test makes: every command that takes a MODEL.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use physarium::checkpoint::Sha256;
use physarium::checkpoint::manifest::Manifest;
use serde_json::{Value, json};

const COMMIT: &str = "12fd25f77366fa6b3b4b768ec3050bf629380bac";

/// A working directory, and a hub cache in `hf/hub` with the bundled model as `org/name`.
struct Work(tempfile::TempDir);

/// The result of a run.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo").join(name)
}

impl Work {
    fn new() -> Work {
        let work = Work(tempfile::tempdir().unwrap());
        work.cache("org--name", &demo("model"));
        work
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn snapshot(&self, model: &str) -> PathBuf {
        self.path(&format!("hf/hub/models--{model}/snapshots/{COMMIT}"))
    }

    /// Puts the files of a directory into the cache, as a download does.
    fn cache(&self, model: &str, from: &Path) {
        let folder = self.path(&format!("hf/hub/models--{model}"));
        let snapshot = self.snapshot(model);
        for dir in [folder.join("blobs"), folder.join("refs"), snapshot.clone()] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(folder.join("refs/main"), COMMIT).unwrap();
        for (blob, file) in fs::read_dir(from).unwrap().enumerate() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.join(format!("blobs/{blob}"))).unwrap();
            symlink(format!("../../blobs/{blob}"), snapshot.join(file.file_name())).unwrap();
        }
    }

    fn run(&self, arguments: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_physarium"));
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.path("hf"));
        command.current_dir(self.0.path()).args(arguments.split_whitespace());
        let output = command.output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn ok(&self, arguments: &str) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{arguments} --format json"))).unwrap()
    }

    fn fails(&self, arguments: &str, needle: &str) {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 2, "{arguments}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(needle), "{arguments}: no {needle:?} in {}", ran.stderr);
    }

    fn manifest(&self, dir: &str) -> Value {
        let text = fs::read(self.path(dir).join("physarium.manifest.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// Every path below a directory, with the digest of what is there.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.path().symlink_metadata().unwrap();
        found.push((entry.path(), meta.len()));
        if meta.is_dir() {
            found.extend(listing(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn every_command_takes_a_hub_id_and_none_writes_into_the_cache() {
    let work = Work::new();
    let before = listing(&work.path("hf"));
    let inspected = work.json("inspect org/name@main");
    let source = json!({"hub": "org/name", "revision": "main", "commit": COMMIT});
    assert_eq!(inspected["source"], source);
    assert!(work.ok("inspect org/name").starts_with(&format!("org/name at commit {COMMIT}\n")));
    let said = work.ok("prune org/name --out out");
    assert!(said.contains("next: physarium audit out --against org/name\n"), "{said}");
    let audited = work.json("audit out --against org/name --revision 12fd25f");
    assert_eq!(audited["provenance"]["against"], "org/name@12fd25f77366");
    let source = json!({"hub": "org/name", "revision": "12fd25f", "commit": COMMIT});
    assert_eq!(audited["provenance"]["against_source"], source);
    assert_eq!(work.json("verify out --against org/name")["verified"], true);
    let text = demo("heldout.txt");
    let text = text.display();
    work.ok(&format!("eval out --against org/name --text {text} --limit 256 --window 64"));
    work.ok("pack org/name --out dense.physpack");
    work.ok("run org/name --prompt Once --max-tokens 2");
    work.ok(&format!(
        "compare org/name --out table --methods magnitude --sparsity 0.5 --text {text} --limit 256 \
         --eval-window 64"
    ));
    assert_eq!(listing(&work.path("hf")), before);
}

#[test]
fn an_id_its_snapshot_and_a_copy_give_the_same_files_and_say_where_from() {
    let work = Work::new();
    work.ok("prune org/name --out by-id");
    let snapshot = work.snapshot("org--name");
    work.ok(&format!("prune {} --out by-snapshot", snapshot.display()));
    work.ok(&format!("prune {} --out by-copy", demo("model").display()));
    let mut manifests = ["by-id", "by-snapshot", "by-copy"].map(|dir| work.manifest(dir));
    for manifest in &manifests {
        assert_eq!(manifest["shards"], manifests[0]["shards"]);
        assert_eq!(manifest["tensors"], manifests[0]["tensors"]);
    }
    let source = |revision: Option<&str>| match revision {
        Some(revision) => json!({"hub": "org/name", "revision": revision, "commit": COMMIT}),
        None => json!({"hub": "org/name", "commit": COMMIT}),
    };
    assert_eq!(manifests[0]["source"], source(Some("main")));
    assert_eq!(manifests[1]["source"], source(None));
    let copy = manifests[2].as_object_mut().unwrap();
    assert!(!copy.contains_key("source"));
    // As documented.
    let text = fs::read_to_string(demo("../docs/FORMATS.md")).unwrap();
    let begin = text.find("```json source\n").unwrap() + "```json source\n".len();
    let example = &text[begin..begin + text[begin..].find("```").unwrap()];
    let example: Value = serde_json::from_str(example).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&example), keys(&manifests[0]["source"]));
}

#[test]
fn a_pruned_model_that_was_downloaded_is_verified_in_the_cache() {
    let work = Work::new();
    work.ok("prune org/name --out out");
    work.cache("me--pruned", &work.path("out"));
    let verified = work.json("verify me/pruned --against org/name");
    assert_eq!(verified["verified"], true, "{verified}");
    assert_eq!(work.json("audit me/pruned --against org/name")["denominator_correct"], true);
    // A link to another place than the cache's own blobs is a finding as ever.
    let config = work.snapshot("me--pruned").join("config.json");
    let elsewhere = work.path("config.json");
    fs::copy(&config, &elsewhere).unwrap();
    fs::remove_file(&config).unwrap();
    symlink(&elsewhere, &config).unwrap();
    let ran = work.run("verify me/pruned --against org/name");
    assert!(ran.code == 1 && ran.stdout.contains("link out of the output"), "{}", ran.stdout);
}

#[test]
fn a_directory_wins_and_what_is_missing_is_said() {
    let work = Work::new();
    work.fails("prune org/other --out out", "hint: hf download org/other\n");
    work.fails("prune org/name@v9 --out out", "hint: hf download org/name --revision v9\n");
    work.fails("prune org/name@v1 --revision v2 --out out", "org/name: two revisions");
    work.fails("verify me/pruned --against org/name --revision v1", "write ID@REVISION");
    work.fails("inspect ./org/name", "expected a directory, or the id of a model of the hub");
    work.fails("prune org/name --out hf/hub/out", "output is inside the hub cache");
    work.fails("pack org/name --out hf/hub/out.physpack", "output is inside the hub cache");
    work.fails("compare org/name --out hf/hub/t --text t --sparsity 0.5", "inside the hub cache");
    // A directory of that name is not the hub's model.
    fs::create_dir_all(work.path("org/name")).unwrap();
    work.fails("inspect org/name", "org/name: no checkpoint here");
    assert!(!work.path("out").exists());
}

const README: &str = "---\nlicense: apache-2.0\nlanguage:\n- en\ntags: [chat]\nmodel-index: [{name: x}]\n---\n\n# A model\n\nText.\n";

#[test]
fn a_card_in_the_readme_keeps_the_licence_and_the_text_and_is_verified() {
    let work = Work::new();
    let readme = work.snapshot("org--name").join("README.md");
    let _ = fs::remove_file(&readme);
    fs::write(&readme, README).unwrap();
    work.ok("prune org/name --out plain");
    assert_eq!(fs::read_to_string(work.path("plain/README.md")).unwrap(), README);
    assert!(work.ok("prune org/name --out out --card --dry-run").contains("head of README.md"));
    work.ok("prune org/name --out out --card");
    let text = |name: &str| fs::read_to_string(work.path(name)).unwrap();
    let card = text("out/physarium.card.md");
    assert_eq!(card, text("plain/physarium.card.md"));
    assert_eq!(text("out/README.md"), format!("{card}\n# A model\n\nText.\n"));
    let metadata = "---\nbase_model: org/name\nbase_model_relation: finetune\nlanguage:\n- en\nlicense: \
                    apache-2.0\ntags:\n- chat\n- physarium\n- pruned\n- sparse\n---\n";
    assert!(card.starts_with(metadata), "{card}");
    for needle in [
        "https://huggingface.co/org/name/tree/12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "| mlp.down_proj |",
        "% of projection |",
        "physarium verify DIR --against org/name@12fd25f77366\n",
        "not repeated here: model-index.\n",
    ] {
        assert!(card.contains(needle), "no {needle} in {card}");
    }
    assert_eq!(work.manifest("out")["rewritten"], json!(["README.md"]));
    assert!(work.manifest("plain").get("rewritten").is_none());
    let verified = work.ok("verify out --against org/name");
    assert!(verified.contains("nothing else differs but README.md, which has the model card"));
    assert_eq!(work.json("verify plain --against org/name")["rewritten"], json!([]));
    let audited = work.ok("audit out --against org/name");
    assert!(audited.contains("rewritten with the model card, by the manifest: README.md"));
}

#[test]
fn a_rewritten_readme_is_the_card_and_the_inputs_text_and_nothing_else() {
    let work = Work::new();
    let model = demo("model");
    let readme = work.path("hf/README.md");
    fs::write(&readme, "no metadata\n").unwrap();
    symlink(&readme, work.snapshot("org--name").join("README.md")).unwrap();
    // It is beyond a link, so that it does not go with the weights; verify knows both cases.
    for options in ["--card", "--card --follow-links --force"] {
        work.ok(&format!("prune org/name --out out {options}"));
        assert_eq!(work.json("verify out --against org/name")["verified"], true, "{options}");
    }
    // A manifest that declares a README with other words, or another file as rewritten.
    let forged = |change: &dyn Fn(&mut Manifest), needle: &str| {
        let path = work.path("out/physarium.manifest.json");
        let text = fs::read(&path).unwrap();
        let mut manifest = Manifest::read(&path).unwrap();
        change(&mut manifest);
        fs::write(&path, manifest.encode()).unwrap();
        let ran = work.run("verify out --against org/name");
        assert!(ran.code == 1 && ran.stdout.contains(needle), "{needle}: {}", ran.stdout);
        fs::write(&path, text).unwrap();
    };
    forged(
        &|m| m.rewritten.push("config.json".to_owned()),
        "expected README.md only, found config",
    );
    forged(&|m| m.rewritten.clear(), "README.md: ");
    let text = fs::read_to_string(work.path("out/README.md")).unwrap() + "Best model ever.\n";
    fs::write(work.path("out/README.md"), &text).unwrap();
    let entry = |m: &mut Manifest| {
        let entry = m.files.iter_mut().find(|entry| entry.path == "README.md").unwrap();
        (entry.size_bytes, entry.sha256) = (text.len() as u64, Sha256::of(text.as_bytes()));
    };
    forged(&entry, "README.md: is neither the input's, nor the card and the text of the input's");
    // Without a README in the input, it is the card; a directory's id is not known.
    let _ = fs::remove_dir_all(work.path("out"));
    work.ok(&format!("prune {} --out out --card", model.display()));
    let card = fs::read_to_string(work.path("out/physarium.card.md")).unwrap();
    assert_eq!(fs::read_to_string(work.path("out/README.md")).unwrap(), card);
    assert!(card.starts_with("---\n# base_model: ORG/NAME\n"), "{card}");
    assert!(card.contains("its id on the hub goes into `base_model`"), "{card}");
    assert_eq!(work.json(&format!("verify out --against {}", model.display()))["verified"], true);
}

#[test]
fn metadata_that_cannot_be_read_is_left_out_with_a_note() {
    let work = Work::new();
    let readme = work.snapshot("org--name").join("README.md");
    let _ = fs::remove_file(&readme);
    fs::write(&readme, "---\nlicense: &a mit\ntags: [x]\n---\nText.\n").unwrap();
    let ran = work.run("prune org/name --out out --card");
    let note = "README.md: `license` is not in the model card: its value is not a text";
    assert!(ran.code == 0 && ran.stderr.contains(note), "{}", ran.stderr);
    let card = fs::read_to_string(work.path("out/README.md")).unwrap();
    assert!(card.contains(note) && !card.contains("license:") && card.contains("- x\n"), "{card}");
    fs::write(&readme, vec![b'a'; (1 << 20) + 1]).unwrap();
    let ran = work.run("prune org/name --out large --card");
    assert!(ran.code == 2 && ran.stderr.contains("README.md: file is too large"), "{}", ran.stderr);
    let ran = work.run("prune org/name --out large");
    assert!(ran.code == 0 && ran.stderr.contains("over 1048576 bytes"), "{}", ran.stderr);
}
