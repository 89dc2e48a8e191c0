//! The gate: `.ci/run` calls it, so that a run by hand checks the same.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::browser::Browser;

/// Runs every check and stops at the first that fails.
pub fn run() -> anyhow::Result<()> {
    cargo("format", &["fmt", "--all", "--check"], &[])?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    cargo("clippy", &clippy, &[])?;
    cargo("tests", &["test", "--workspace", "--locked"], &[])?;
    let doc = ["doc", "--workspace", "--no-deps", "--locked"];
    cargo("documentation", &doc, &[("RUSTDOCFLAGS", "-D warnings")])?;
    crate::layers::run()?;
    Browser::default().run()
}

fn cargo(what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    println!("== {what}: cargo {}", arguments.join(" "));
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("{what}: cannot start cargo"))?;
    ensure!(status.success(), "{what}: failed");
    Ok(())
}
