//! The gate: `.ci/run` calls it, so that a run by hand checks the same.

use std::time::Instant;

use anyhow::{Context, ensure};

use crate::browser::Browser;
use crate::cargo::cargo;

/// The features of the program that are off by default.
const FEATURES: &str = "physarium-cli/object-stores";

/// Runs every check and stops at the first that fails.
pub fn run() -> anyhow::Result<()> {
    check("format", &["fmt", "--all", "--check"], &[])?;
    let all = ["--workspace", "--all-targets", "--locked"];
    let warnings = ["--", "-D", "warnings"];
    check("clippy", &[&["clippy"], &all[..], &warnings].concat(), &[])?;
    // Tests too run with the program's features: `.ci/object_store` uses what is compiled here.
    let clippy = [&["clippy"], &all[..], &["--features", FEATURES], &warnings].concat();
    check("clippy with all features", &clippy, &[])?;
    let test = ["test", "--workspace", "--locked", "--features", FEATURES];
    check("compiling tests", &[&test[..], &["--no-run"]].concat(), &[])?;
    check("tests", &test, &[])?;
    let doc = ["doc", "--workspace", "--no-deps", "--locked"];
    check("documentation", &doc, &[("RUSTDOCFLAGS", "-D warnings")])?;
    timed("layers", crate::layers::run)?;
    timed("browser", || Browser::default().run())
}

/// A check that cargo makes.
fn check(what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    println!("== {what}: cargo {}", arguments.join(" "));
    timed(what, || {
        let status = cargo()?
            .args(arguments)
            .envs(environment.iter().copied())
            .status()
            .with_context(|| format!("{what}: cannot start cargo"))?;
        ensure!(status.success(), "{what}: failed");
        Ok(())
    })
}

/// Does some work and says how long it took, also if it failed.
fn timed(what: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let result = work();
    println!("== {what}: {} s", begun.elapsed().as_secs());
    result
}
