/*!
Checkpoints from strangers: every file that may be hostile gets an answer, within 1 GB of memory and 10 s.

Each case is a name, the bytes of one file of the demo model, and what the answer must say; an empty answer means that
the command succeeds. The program runs as a child with limits of the system, so that an abort, a stack overflow and a
signal are failures.
*/
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod checkpoints;
mod escapes;
mod records;
mod templates;
mod tokenizers;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/model");
/// Address space in kB, and processor time in seconds.
const LIMITS: &str = "ulimit -v 1048576; ulimit -t 10; exec \"$0\" \"$@\"";

/// A hostile file.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// What the error says beside the file's name; empty if there is none.
    says: &'static str,
}

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, says: &'static str) -> Case {
    Case { name, bytes: bytes.into(), says }
}

/// The result of a run.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A copy of the demo model.
struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Model {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(MODEL).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Model(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Runs the program under the limits.
fn physarium(arguments: &[&str]) -> Ran {
    let output = Command::new("sh")
        .args(["-c", LIMITS, env!("CARGO_BIN_EXE_physarium")])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `arguments` on a model with each case's bytes in `file`, and checks the answers.
fn check(file: &str, arguments: &[&str], cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for Case { name, bytes, says } in cases {
        let model = Model::new();
        model.write(file, &bytes);
        let dir = model.path().to_str().unwrap();
        let whole: Vec<&str> =
            arguments.iter().map(|word| if *word == "MODEL" { dir } else { word }).collect();
        let ran = physarium(&whole);
        let told =
            ran.stderr.contains(file) && ran.stderr.contains(says) && ran.stderr.len() < 2000;
        let right = match says {
            "" => ran.code == Some(0),
            _ => ran.code == Some(2) && told && !ran.stderr.contains("panicked"),
        };
        if !right {
            wrong.push(format!("{name}: {:?}, {:.300}", ran.code, ran.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
