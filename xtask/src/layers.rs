/*!
Rules that no compiler checks: who may depend on whom, and how source files are kept.

Data flows left to right (ARCHITECTURE.md). The auditor must be able to prove the pruner wrong, so
it may not know it; that is checked here for dev-dependencies too.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// Edges that are allowed between crates of the workspace.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("physarium-checkpoint", &[]),
    ("physarium-flow", &["physarium-kernels"]),
    ("physarium-kernels", &[]),
    ("physarium-fixtures", &[]),
    ("physarium-pack", &["physarium-checkpoint"]),
    ("physarium-model", &["physarium-checkpoint", "physarium-kernels", "physarium-pack"]),
    ("physarium-audit", &["physarium-checkpoint"]),
    (
        "physarium",
        &[
            "physarium-audit",
            "physarium-checkpoint",
            "physarium-flow",
            "physarium-model",
            "physarium-pack",
        ],
    ),
    ("physarium-cli", &["physarium"]),
    ("xtask", &["physarium-fixtures", "physarium-flow", "physarium-kernels", "physarium-model"]),
];
/// What any crate may use in tests.
const FOR_TESTS: &str = "physarium-fixtures";
/// Most lines of a source file before its tests begin.
const MAX_LINES: usize = 500;
/// File names that say nothing of what is in them.
const BAD_NAMES: [&str; 5] = ["utils.rs", "util.rs", "helpers.rs", "common.rs", "types.rs"];

/// Checks both.
pub fn run() -> anyhow::Result<()> {
    println!("== layers");
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    let names: Vec<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let rule = ALLOWED.iter().find(|(name, _)| *name == package.name.as_str());
        let Some((name, allowed)) = rule else {
            faults.push(format!("{}: no rule in xtask/src/layers.rs", package.name));
            continue;
        };
        for edge in package.dependencies.iter().filter(|d| names.contains(&d.name.as_str())) {
            let in_tests = edge.kind == DependencyKind::Development && edge.name == FOR_TESTS;
            if !in_tests && !allowed.contains(&edge.name.as_str()) {
                faults.push(format!("{name} must not depend on {} ({:?})", edge.name, edge.kind));
            }
        }
        let root = package.manifest_path.parent().context("a manifest has a directory")?;
        for file in sources(root.join("src").as_std_path())? {
            faults.extend(shape_fault(&file)?);
        }
    }
    for fault in &faults {
        println!("{fault}");
    }
    ensure!(faults.is_empty(), "layers: {} faults", faults.len());
    Ok(())
}

fn sources(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn shape_fault(file: &Path) -> anyhow::Result<Option<String>> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if BAD_NAMES.contains(&name.as_ref()) {
        return Ok(Some(format!("{}: a name that says nothing", file.display())));
    }
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let fault = format!("{}: {lines} lines before its tests, at most {MAX_LINES}", file.display());
    Ok((lines > MAX_LINES).then_some(fault))
}
