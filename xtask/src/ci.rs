//! The gate: `.ci/run` calls it, so that a run by hand checks the same.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::browser::Browser;

/// The features of the program that are off by default.
const FEATURES: &str = "physarium-cli/object-stores";

/// Runs every check and stops at the first that fails.
pub fn run() -> anyhow::Result<()> {
    cargo("format", &["fmt", "--all", "--check"], &[])?;
    let all = ["--workspace", "--all-targets", "--locked"];
    let warnings = ["--", "-D", "warnings"];
    cargo("clippy", &[&["clippy"], &all[..], &warnings].concat(), &[])?;
    // Tests too run with the program's features: `.ci/object_store` uses what is compiled here.
    let clippy = [&["clippy"], &all[..], &["--features", FEATURES], &warnings].concat();
    cargo("clippy with all features", &clippy, &[])?;
    cargo("tests", &["test", "--workspace", "--locked", "--features", FEATURES], &[])?;
    let doc = ["doc", "--workspace", "--no-deps", "--locked"];
    cargo("documentation", &doc, &[("RUSTDOCFLAGS", "-D warnings")])?;
    crate::layers::run()?;
    Browser::default().run()
}

fn cargo(what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    println!("== {what}: cargo {}", arguments.join(" "));
    let begun = Instant::now();
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("{what}: cannot start cargo"))?;
    println!("== {what}: {} s", begun.elapsed().as_secs());
    ensure!(status.success(), "{what}: failed");
    Ok(())
}
