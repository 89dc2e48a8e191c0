//! Models in object stores by address. With `PHYSARIUM_S3`, the URL of an S3 server that has the bundled model at `s3://models/demo`
//! (`.ci/object_store` starts one), every command that takes a MODEL; without, only what needs no server.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// A working directory, in which mirrors are too.
struct Work(tempfile::TempDir);

fn demo(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo").join(name);
    path.to_str().unwrap().to_owned()
}

impl Work {
    fn new() -> Work {
        Work(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command against a server. Returns its exit code and what it said.
    fn run(&self, server: &str, arguments: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_physarium"));
        command.current_dir(self.0.path()).args(arguments.split_whitespace());
        command.env("PHYSARIUM_CACHE", self.path("cache")).env("AWS_ENDPOINT_URL", server);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        command.env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1");
        let ran = command.output().unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    fn fails(&self, arguments: &str, needles: &[&str]) {
        // Nothing listens there.
        let (code, said) = self.run("http://127.0.0.1:9", arguments);
        assert_eq!(code, 2, "{arguments}: {said}");
        for needle in needles {
            assert!(said.contains(needle), "no {needle:?} in {said}");
        }
        assert_eq!(fs::read_dir(self.path("")).unwrap().count(), 0, "{arguments}");
    }
}

#[test]
fn an_address_is_no_place_for_an_output() {
    let work = Work::new();
    let hint = "physarium upload DIR ADDRESS";
    work.fails(
        &format!("prune {} --out s3://bucket/out", demo("model")),
        &["s3://bucket/out", hint],
    );
}

#[cfg(feature = "object-stores")]
mod with_stores {
    use super::*;

    #[test]
    fn addresses_and_directories_that_are_none_are_refused() {
        let work = Work::new();
        work.fails("inspect s3://user:password@bucket/model", &["not the name of a bucket"]);
        work.fails("inspect s3://bucket/../model", &["not a path in a bucket"]);
        let model = demo("model");
        work.fails(&format!("upload {model} s3://bucket/model"), &["no manifest"]);
        work.fails(&format!("upload {model} bucket/model"), &["not an address of an object store"]);
    }

    #[test]
    fn a_store_that_cannot_be_reached_is_an_error_with_its_address() {
        Work::new()
            .fails("inspect s3://bucket/model", &["s3://bucket/model: cannot list: ", "refused"]);
    }

    /// All commands, each compared with the same command on the model in a directory.
    #[test]
    fn every_command_reads_a_model_in_a_store() {
        let Ok(server) = std::env::var("PHYSARIUM_S3") else {
            eprintln!("skipped: PHYSARIUM_S3 names no S3 server");
            return;
        };
        let work = Work::new();
        let ok = |arguments: &str| {
            let (code, said) = work.run(&server, arguments);
            assert_eq!(code, 0, "{arguments}: {said}");
            said
        };
        let (model, stored) = (demo("model"), "s3://models/demo");
        let text = demo("heldout.txt");
        assert!(ok(&format!("inspect {stored}")).starts_with("s3://models/demo\n"));
        let (code, said) = work.run(&server, "inspect s3://models/broken");
        let index = "error: s3://models/broken/model.safetensors.index.json: shards are missing";
        assert!(code == 2 && said.starts_with(index), "{said}");
        let calibrated = format!(
            "--calibration {} --calibration-tokens 2048 --window 256 --sparsity 0.5 --method",
            demo("calibration.txt")
        );
        for (name, options) in [
            ("flow", String::new()),
            ("wanda", format!("{calibrated} wanda")),
            ("activation", format!("{calibrated} activation-flow --effort quick")),
        ] {
            ok(&format!("prune {model} --out here-{name} {options}"));
            ok(&format!("prune {stored} --out there-{name} {options}"));
            same_weights(&work.path(&format!("here-{name}")), &work.path(&format!("there-{name}")));
            ok(&format!("verify there-{name} --against {stored}"));
        }
        let eval = format!("--text {text} --window 256 --limit 2048 --format json --quiet");
        let perplexity = |model: &str| {
            let said = ok(&format!("eval {model} {eval}"));
            serde_json::from_str::<serde_json::Value>(&said).unwrap()["perplexity"].clone()
        };
        assert_eq!(perplexity(stored), perplexity(&model));

        ok(&format!("plan {stored} --out units --plan plan.json {calibrated} wanda --threads 1"));
        ok("unit plan.json --worker 0/1");
        ok("finish plan.json");
        same_weights(&work.path("here-wanda"), &work.path("units"));

        ok("upload there-wanda s3://models/half");
        let again = ok("upload there-wanda s3://models/half");
        assert!(again.contains("were there before"), "{again}");
        ok(&format!("verify s3://models/half --against {stored}"));
        let audit = ok(&format!("audit s3://models/half --against {stored}"));
        assert!(audit.contains("50.00 %"), "{audit}");
        let (code, said) = work.run(&server, "upload here-flow s3://models/half");
        assert!(code == 2 && said.contains("not empty"), "{said}");
        ok("pack s3://models/half --out half.physpack");
        assert_eq!(perplexity("half.physpack"), perplexity("s3://models/half"));
    }

    /// Compares all files but the records that name the model's place.
    fn same_weights(one: &Path, other: &Path) {
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(one), names(other));
        for name in names(one) {
            let text = name.to_str().unwrap();
            if !["physarium.manifest.json", "physarium.card.md"].contains(&text) {
                assert!(
                    fs::read(one.join(text)).unwrap() == fs::read(other.join(text)).unwrap(),
                    "{text}"
                );
            }
        }
    }
}
