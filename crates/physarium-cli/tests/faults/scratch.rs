//! Runs with residual streams in a scratch file that are killed, meet a full disk, or find something of its name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use physarium_fixtures::write_wide_model;

use super::{Files, Ran, files, prepare, program, signal};

const SCRATCH: &str = ".out.physarium-partial/physarium.solved/streams.f32";

/// A directory with a model that is wide in its streams, a text, and `expected`, the output of a run in memory.
struct Wide {
    dir: tempfile::TempDir,
    expected: Files,
    /// Options of a limit that forces the streams into a file.
    limit: Vec<String>,
}

impl Wide {
    fn new() -> Wide {
        let dir = tempfile::tempdir().unwrap();
        write_wide_model(&dir.path().join("wide")).unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        fs::copy(demo.join("calibration.txt"), dir.path().join("text.txt")).unwrap();
        let mut wide = Wide { dir, expected: Files::new(), limit: Vec::new() };
        // First inputs are computed twice, then the streams leave memory.
        for part in [4, 3] {
            let limit: Vec<&str> = wide.limit.iter().map(String::as_str).collect();
            let dry = [&["--dry-run", "--format", "json"], &limit[..]].concat();
            let dry = wide.json(&mut wide.prune("out", &dry));
            let number = |value: &serde_json::Value| value.as_u64().unwrap();
            let limit = number(&dry["resident_bytes"]) - number(&dry["streams"]["bytes"]) / part;
            wide.limit = vec!["--memory".to_owned(), limit.to_string()];
        }
        let ran = Ran::of(&mut wide.prune("expected", &[]));
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        wide.expected = files(&wide.path("expected"));
        wide
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn prune(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(program());
        let run =
            ["prune", "wide", "--out", out, "--method", "activation-flow", "--sparsity", "0.5"];
        let text = ["--calibration", "text.txt", "--window", "512", "--threads", "1"];
        let tokens = ["--calibration-tokens", "32768"];
        prepare(command.args(run).args(text).args(tokens).args(more), self.dir.path());
        command
    }

    fn json(&self, command: &mut Command) -> serde_json::Value {
        let ran = Ran::of(command);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn limited(&self) -> Command {
        self.prune("out", &[&self.limit[0], &self.limit[1]])
    }

    /// Kills a run with a scratch file once `begun` holds.
    fn killed_when(&self, begun: impl Fn() -> bool) {
        for _ in 0..50 {
            let _ = fs::remove_dir_all(self.path("out"));
            let _ = fs::remove_dir_all(self.path(".out.physarium-partial"));
            let mut child = self.limited().spawn().unwrap();
            while !(begun() && self.path(SCRATCH).exists()) && child.try_wait().unwrap().is_none() {
            }
            child.kill().unwrap();
            child.wait().unwrap();
            if begun() && self.path(SCRATCH).exists() {
                return;
            }
        }
        panic!("every run ended before it could be killed");
    }

    /// The run ends with the bytes of one in memory, and nothing is left beside them.
    fn finishes(&self, mut command: Command, context: &str) {
        let ran = Ran::of(&mut command);
        assert_eq!(ran.code(), 0, "{context}: {}", ran.stderr);
        assert!(files(&self.path("out")) == self.expected, "{context}");
        assert!(!self.path(".out.physarium-partial").exists(), "{context}");
        fs::remove_dir_all(self.path("out")).unwrap();
    }
}

#[test]
fn a_killed_run_is_resumed_with_or_without_its_scratch_file() {
    let wide = Wide::new();
    let first = wide.path(".out.physarium-partial/physarium.solved/layer-00000.safetensors");
    wide.killed_when(|| true);
    wide.finishes(wide.limited(), "killed in the pass over gradients");
    wide.killed_when(|| first.exists());
    wide.finishes(wide.limited(), "killed after a layer");
    // Resumed in memory: what was left of the file is removed.
    wide.killed_when(|| first.exists());
    wide.finishes(wide.prune("out", &[]), "resumed in memory");

    // Something else has the name of the file: a link stops the run, and nothing is written through it.
    wide.killed_when(|| first.exists());
    let (scratch, other) = (wide.path(SCRATCH), wide.path("other"));
    fs::remove_file(&scratch).unwrap();
    fs::write(&other, "kept").unwrap();
    symlink(&other, &scratch).unwrap();
    let ran = Ran::of(&mut wide.limited());
    ran.fails("a link", &["streams.f32: a link in an unfinished run", "--restart"]);
    assert_eq!(fs::read(&other).unwrap(), b"kept");
    fs::remove_file(&scratch).unwrap();
    // A directory is an error; a hard link loses its name only.
    fs::create_dir(&scratch).unwrap();
    Ran::of(&mut wide.limited()).fails("a directory", &["streams.f32: cannot remove"]);
    fs::remove_dir(&scratch).unwrap();
    fs::hard_link(&other, &scratch).unwrap();
    wide.finishes(wide.limited(), "a hard link");
    assert_eq!(fs::read(&other).unwrap(), b"kept");
}

#[test]
fn a_disk_without_room_for_the_scratch_file() {
    let wide = Wide::new();
    fs::create_dir(wide.path("small")).unwrap();
    let bytes: usize = wide.expected.values().map(Vec::len).sum();
    let scratch = 2 * 32_768 * 256 * 4;
    let limited = wide.limited();
    let arguments: Vec<&str> = limited.get_args().map(|arg| arg.to_str().unwrap()).collect();
    let prune = format!("{} {}", program(), arguments.join(" ").replace(" out ", " small/out "));
    // Room for output and solved layers only: refused before the run.
    let text = format!(
        "mount -t tmpfs -o size={} none small\n\
         if {prune}; then exit 9; else code=$?; fi; ls -A small; exit $code",
        3 * bytes,
    );
    let Some(ran) = super::disk::in_namespace_at(wide.dir.path(), &text) else { return };
    ran.fails("refused", &["not enough free space"]);
    assert_eq!(ran.stdout, "", "something was written");
    // The disk is filled once the run has begun: reported at once, and resumed once there is room.
    let text = format!(
        "mount -t tmpfs -o size={} none small\n\
         {prune} 2> said & run=$!\n\
         i=0; while [ ! -e small/.out.physarium-partial/{} ] && [ $i -lt 1000000 ]; do\n\
             i=$((i + 1))\n\
         done\n\
         kill -STOP $run\n\
         head -c {} /dev/zero > small/filler 2> /dev/null || true\n\
         kill -CONT $run\n\
         if wait $run; then exit 9; fi\n\
         cat said; rm small/filler; {prune} -q >&2; diff -r small/out expected >&2; ls -A small >&2",
        3 * bytes + 2 * scratch,
        super::JOURNAL,
        3 * bytes + 2 * scratch,
    );
    let Some(ran) = super::disk::in_namespace_at(wide.dir.path(), &text) else { return };
    assert_eq!(ran.code(), 0, "{}{}", ran.stdout, ran.stderr);
    // Before the file is there, or after it.
    let space = ["not enough free space", "No space left on device"];
    assert!(space.iter().any(|s| ran.stdout.contains(s)), "{}", ran.stdout);
    assert!(!ran.stderr.contains("physarium-partial"), "{}", ran.stderr);
}

/// Stopped by a signal, the run takes its scratch file with it.
#[test]
fn a_stopped_run_leaves_no_scratch_file() {
    let wide = Wide::new();
    let mut child = wide.limited().spawn().unwrap();
    while !wide.path(SCRATCH).exists() && child.try_wait().unwrap().is_none() {}
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!wide.path(SCRATCH).exists());
    wide.finishes(wide.limited(), "stopped");
}
