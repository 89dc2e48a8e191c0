/*!
Fuzzing: builds a target of `fuzz/` with coverage instrumentation, on stable Rust, and runs it.

In: the names of targets and minutes for each. Out: the corpus in `target/fuzz/TARGET/corpus`, which the next run begins
with, and inputs that failed in `target/fuzz/TARGET/found`. libFuzzer is part of the crate `libfuzzer-sys`, whose build
needs a C++ compiler.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cargo::{cargo, root};

/// What `cargo fuzz` passes on nightly, in the spelling of stable, without the address sanitizer: there is no unsafe
/// code in the readers. Not for build scripts, hence the explicit target.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// Memory of the process and of one allocation in MiB, and seconds for one input.
const LIMITS: [&str; 3] = ["-rss_limit_mb=1024", "-malloc_limit_mb=512", "-timeout=10"];
/// The platform that targets are built for.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Which targets to fuzz, and for how long.
#[derive(clap::Args)]
pub struct Fuzz {
    /// Targets; all of `fuzz/targets` by default
    targets: Vec<String>,
    /// Minutes for each target
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
}

impl Fuzz {
    /// Builds and runs the targets one after the other, and stops at the first that fails.
    pub fn run(&self) -> anyhow::Result<()> {
        ensure!(self.minutes > 0.0, "--minutes must be above 0");
        let root = root()?;
        let all = targets(&root.join("fuzz/targets"))?;
        if let Some(unknown) = self.targets.iter().find(|target| !all.contains(target)) {
            bail!("no target {unknown}; there are {}", all.join(", "));
        }
        let chosen = if self.targets.is_empty() { &all } else { &self.targets };
        let work = root.join("target/fuzz");
        let built = work.join("build");
        for target in chosen {
            build(&root.join("fuzz"), &built, target)?;
        }
        for target in chosen {
            let program = built.join(PLATFORM).join("release").join(target);
            self.fuzz(&program, &work.join(target)).with_context(|| target.clone())?;
        }
        Ok(())
    }

    fn fuzz(&self, program: &Path, work: &Path) -> anyhow::Result<()> {
        let [corpus, found] = ["corpus", "found"].map(|name| work.join(name));
        for dir in [&corpus, &found] {
            fs::create_dir_all(dir)?;
        }
        let seconds = (self.minutes * 60.0).ceil();
        println!("== {}: {seconds} s", program.display());
        let status = Command::new(program)
            .arg(&corpus)
            .args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg("-print_final_stats=1")
            .env("PHYSARIUM_FUZZ_SEEDS", &corpus)
            .status()
            .context("the target cannot be started")?;
        ensure!(status.success(), "{status}; the input is in {}", found.display());
        Ok(())
    }
}

/// The names of the targets.
fn targets(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn build(fuzz: &Path, built: &Path, target: &str) -> anyhow::Result<()> {
    println!("== build {target}");
    let status = cargo()?
        .args(["build", "--release", "--locked", "--target", PLATFORM, "--bin", target])
        .current_dir(fuzz)
        .env("CARGO_TARGET_DIR", built)
        .env("RUSTFLAGS", INSTRUMENTATION)
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "{target} does not build");
    Ok(())
}
