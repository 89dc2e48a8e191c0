//! An activation-aware run is killed, an input changes, and the run continues: solved layers are reused only if
//! everything that they were solved from is the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Files, Ran, files, prepare, program};

const TEXT: &str = "text.txt";
const METHOD: [&str; 2] = ["--method", "sparsegpt"];

/// A directory with a copy of the demo model, a text, and `expected`, the output of an undisturbed run.
struct Calibrated {
    dir: tempfile::TempDir,
    expected: Files,
}

impl Calibrated {
    fn new() -> Calibrated {
        let dir = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        for (name, bytes) in files(&demo.join("model")) {
            let path = dir.path().join("model").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::copy(demo.join("calibration.txt"), dir.path().join(TEXT)).unwrap();
        let mut calibrated = Calibrated { dir, expected: Files::new() };
        let ran = Ran::of(&mut calibrated.prune("expected", &METHOD));
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        calibrated.expected = files(&calibrated.path("expected"));
        calibrated
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn prune(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(program());
        let run = ["prune", "model", "--out", out, "--sparsity", "0.5", "--calibration", TEXT];
        let windows = ["--calibration-tokens", "8192", "--window", "256"];
        prepare(command.args(run).args(windows).args(more), self.dir.path());
        command
    }

    /// Kills a run once it has solved two layers, before its output exists.
    fn killed(&self) {
        let staging = self.path(".out.physarium-partial");
        for _ in 0..50 {
            let _ = fs::remove_dir_all(self.path("out"));
            let mut child = self.prune("out", &METHOD).spawn().unwrap();
            let second = staging.join("physarium.solved/layer-00001.safetensors");
            while !second.exists() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if second.exists() {
                return;
            }
        }
        panic!("every run ended before it could be killed");
    }

    /// The run is refused with these words, and nothing in the staging directory changes.
    fn refused(&self, more: &[&str], needles: &[&str]) {
        let staging = self.path(".out.physarium-partial");
        let before = files(&staging);
        let ran = Ran::of(&mut self.prune("out", more));
        ran.fails(&format!("{needles:?}"), needles);
        ran.fails(&format!("{needles:?}"), &["another run", "--restart"]);
        assert!(files(&staging) == before && !self.path("out").exists(), "{needles:?}");
    }
}

#[test]
fn solved_layers_are_reused_only_for_the_same_inputs() {
    let run = Calibrated::new();
    run.killed();
    let change = |name: &str, from: &str, to: &str| {
        let path = run.path(name);
        let before = fs::read(&path).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let text = String::from_utf8(before.clone()).unwrap();
        assert!(text.contains(from), "{name} without {from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        before
    };
    let refused_with = |name: &str, from: &str, to: &str| {
        let before = change(name, from, to);
        let file = name.rsplit('/').next().unwrap();
        run.refused(&METHOD, &[&format!("the SHA-256 of {file} was")]);
        fs::write(run.path(name), before).unwrap();
    };
    refused_with("model/config.json", "\"rope_theta\": 10000.0", "\"rope_theta\": 10000.5");
    refused_with("model/tokenizer.json", "\"truncation\": null,", "\"truncation\":  null,");

    // A shard, in place, of the same size and times: a weight that no target reads.
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let path = run.path("model").join(shard);
        let (before, time) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified());
        let mut bytes = before.clone();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time.unwrap()).unwrap();
        run.refused(&METHOD, &[&format!("the SHA-256 of {shard} was")]);
        fs::write(&path, before).unwrap();
    }

    // The text, its choice of windows, and the recipe.
    let text = fs::read_to_string(run.path(TEXT)).unwrap();
    fs::write(run.path(TEXT), text.replacen("the", "The", 1)).unwrap();
    run.refused(&METHOD, &["recipe.method.calibration.text_sha256 was"]);
    fs::write(run.path(TEXT), text).unwrap();
    run.refused(&[&METHOD[..], &["--seed", "3"]].concat(), &["calibration.seed was"]);
    run.refused(&["--method", "wanda"], &["recipe.method.name was"]);

    // With all inputs as they were, layers are kept and the bytes are those of an undisturbed run.
    let ran = Ran::of(&mut run.prune("out", &METHOD));
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("layers kept"), "{}", ran.stderr);
    assert!(files(&run.path("out")) == run.expected);
}

/// One threshold for the model: every shard of the output depends on every shard of the input.
#[test]
fn a_model_wide_threshold_is_not_mixed_with_another() {
    let fixture = super::Fixture::new(256);
    let mut prune = super::prune(fixture.path(), "out");
    let over_model = ["--method", "magnitude", "--sparsity", "0.5", "--scope", "model"];
    prune.args(over_model);
    for _ in 0..100 {
        fixture.clean();
        let mut child = prune.spawn().unwrap();
        while fixture.journalled_shards() == 0 && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        if fixture.journalled_shards() > 0 && !fixture.out().exists() {
            break;
        }
    }
    let last = fixture.shard(3);
    let bytes = fs::read(&last).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&last, changed).unwrap();
    let needle = format!("the SHA-256 of {} was", super::shard_name(3));
    Ran::of(&mut prune).fails("changed", &[&needle, "another run", "--restart"]);
    fs::write(&last, bytes).unwrap();
    let ran = Ran::of(&mut prune);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("shards kept"), "{}", ran.stderr);
}
