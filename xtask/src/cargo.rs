//! Cargo, started from here as from a shell in the root of the workspace.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

/// What the names of variables begin with that `cargo run` sets for this program, about its own package.
const OF_PACKAGE: [&str; 2] = ["CARGO_MANIFEST_", "CARGO_PKG_"];

/// The root of the workspace.
pub fn root() -> anyhow::Result<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    PathBuf::from(root).canonicalize().with_context(|| format!("{root}: cannot be found"))
}

/// The command `cargo`.
pub fn cargo() -> anyhow::Result<Command> {
    as_from_a_shell(env!("CARGO"))
}

/// A command in the root of the workspace, without the variables about this program's package. Build scripts whose result
/// depends on these (ring's) would run again, and what uses it be compiled again, whenever cargo is started now from here and
/// now from a shell.
pub fn as_from_a_shell(program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir(root()?);
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        if OF_PACKAGE.into_iter().any(|prefix| name_text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Cargo's build directory.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(root()?.join(target))
}

/// Builds the program; returns its path. Built as a default member of the workspace it shares all dependencies with the Python
/// package: their features depend on what is selected.
pub fn build_physarium() -> anyhow::Result<PathBuf> {
    let mut build = cargo()?;
    build.args(["build", "--locked", "--release", "--quiet", "--bin", "physarium"]);
    ensure!(build.status()?.success(), "cannot build physarium");
    Ok(target_dir()?.join("release/physarium"))
}

/// Runs a command to its end and returns its stdout.
pub fn printed(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
