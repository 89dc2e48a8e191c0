//! What is not the output's own: links, added directories, files that are none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::forged::forge_manifest;
use super::{JOURNAL, MANIFEST, Work, copy_files, exact, findings, prune, tensors};
use physarium::checkpoint::Scope;

/// A change to an output; beside it is a directory `elsewhere` with the same files.
type Change = fn(&Path);

const SHARD: &str = "model-00001-of-00002.safetensors";

fn elsewhere(out: &Path) -> std::path::PathBuf {
    out.parent().unwrap().join("elsewhere")
}

/// Replaces a file by a link to its copy elsewhere.
fn link_out(out: &Path, name: &str) {
    fs::remove_file(out.join(name)).unwrap();
    symlink(elsewhere(out).join(name), out.join(name)).unwrap();
}

#[test]
fn what_is_not_the_outputs_own_is_named() {
    let work = Work::in_memory();
    let model = work.model("model", &tensors(), 2);
    let clean = work.path("elsewhere");
    prune(&model, &clean, exact("0.5", Scope::Tensor), 2);
    let cases: [(&str, Change, &[&str]); 15] = [
        (
            "shard",
            |out| link_out(out, SHARD),
            &["00001-of-00002.safetensors: link out of the output, to "],
        ),
        ("config", |out| link_out(out, "config.json"), &["config.json: link out of the output"]),
        ("index", |out| link_out(out, "model.safetensors.index.json"), &["link out of the output"]),
        ("journal", |out| link_out(out, JOURNAL), &["journal.jsonl: link out of the output"]),
        ("manifest", |out| link_out(out, MANIFEST), &["manifest.json: link out of the output"]),
        (
            "relative",
            |out| {
                fs::remove_file(out.join("config.json")).unwrap();
                symlink("../elsewhere/config.json", out.join("config.json")).unwrap();
            },
            &["config.json: link out of the output"],
        ),
        (
            "parent",
            |out| {
                fs::remove_dir_all(out.join("extra")).unwrap();
                symlink(elsewhere(out).join("extra"), out.join("extra")).unwrap();
            },
            &["extra: link to a directory", "extra/notes.txt: link out of the output"],
        ),
        (
            "dangling",
            |out| {
                fs::remove_file(out.join("config.json")).unwrap();
                symlink("nowhere", out.join("config.json")).unwrap();
            },
            &["config.json: cannot be read"],
        ),
        (
            "empty directory",
            |out| fs::create_dir(out.join("added")).unwrap(),
            &["added: directory is in the output and not in the input"],
        ),
        (
            "nested directories",
            |out| fs::create_dir_all(out.join("added/deeper/deepest")).unwrap(),
            &["added: directory is in the output"],
        ),
        (
            "directory beside listed files",
            |out| fs::create_dir(out.join("extra/more")).unwrap(),
            &["extra/more: directory is in the output"],
        ),
        (
            "directory with a file",
            |out| {
                fs::create_dir(out.join("added")).unwrap();
                fs::write(out.join("added/x.py"), "x").unwrap();
            },
            &["added: directory is in", "added/x.py: file is in the output and not in the input"],
        ),
        (
            "fifo",
            |out| fifo(&out.join("pipe")),
            &["pipe: file is in the output and not in the input"],
        ),
        (
            "config is a fifo",
            |out| {
                fs::remove_file(out.join("config.json")).unwrap();
                fifo(&out.join("config.json"));
            },
            &["config.json: cannot be read", "a FIFO"],
        ),
        (
            "device",
            |out| {
                fs::remove_file(out.join(SHARD)).unwrap();
                symlink("/dev/zero", out.join(SHARD)).unwrap();
            },
            &["00001-of-00002.safetensors: link out of the output, to /dev/zero"],
        ),
    ];
    for (name, change, needles) in cases {
        let out = work.path("out");
        copy_files(&clean, &out);
        assert_eq!(findings(&model, &out), [""; 0]);
        change(&out);
        let found = findings(&model, &out);
        for needle in needles {
            assert!(found.iter().any(|f| f.contains(needle)), "{name}: no {needle:?} in {found:?}");
        }
        fs::remove_dir_all(out).unwrap();
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_listed_path_that_leads_out_is_not_read() {
    let work = Work::in_memory();
    let model = work.model("model", &tensors(), 2);
    let clean = work.path("elsewhere");
    prune(&model, &clean, exact("0.5", Scope::Tensor), 2);
    for path in ["../elsewhere/config.json", "/etc/hostname", "extra/../config.json", ".", ""] {
        let out = work.path("out");
        copy_files(&clean, &out);
        forge_manifest(&out, |manifest| {
            let files = manifest["files"].as_array_mut().unwrap();
            let mut entry = files[0].clone();
            entry["path"] = json!(path);
            files.push(entry);
        });
        let found = findings(&model, &out);
        assert!(
            found.iter().any(|f| f.contains("path leads out of the output")),
            "{path}: {found:?}"
        );
        fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn a_manifest_without_entries_proves_nothing() {
    let work = Work::in_memory();
    let model = work.model("model", &tensors(), 2);
    let clean = work.path("elsewhere");
    prune(&model, &clean, exact("0.5", Scope::Tensor), 2);
    let out = work.path("out");
    copy_files(&clean, &out);
    let whole = fs::read(out.join(MANIFEST)).unwrap();
    for end in [0, 1, 2, whole.len() / 2, whole.len() - 1] {
        fs::write(out.join(MANIFEST), &whole[..end]).unwrap();
        assert_ne!(findings(&model, &out), [""; 0], "the first {end} bytes");
    }
    fs::write(out.join(MANIFEST), "{}").unwrap();
    assert_ne!(findings(&model, &out), [""; 0]);
    fs::write(out.join(MANIFEST), &whole).unwrap();
    assert_eq!(findings(&model, &out), [""; 0]);
    forge_manifest(&out, |manifest| {
        for list in ["shards", "files", "tensors"] {
            manifest[list] = json!([]);
        }
    });
    assert_ne!(findings(&model, &out), [""; 0]);
}
