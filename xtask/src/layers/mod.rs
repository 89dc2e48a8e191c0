/*!
Rules that no compiler checks: which crate may depend on which, which file on which, and how source
files are kept.

Data flows left to right (ARCHITECTURE.md). The auditor must be able to prove the pruner wrong, so
it must not depend on it; that is checked here for dev-dependencies too.
*/

mod attributes;
mod circles;
mod edges;
mod imports;
mod modules;
mod parameters;
mod paths;
mod references;
mod resolve;
mod shape;

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use cargo_metadata::{MetadataCommand, Package, Target, TargetKind};

use modules::Modules;

/// Checks every rule and prints the faults.
///
/// # Errors
/// If a rule is broken, or a file or the workspace's metadata cannot be read.
pub fn run() -> anyhow::Result<()> {
    println!("== layers");
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    let base = metadata.workspace_root.as_std_path();
    let mut found = Faults { edges: edges::faults(&metadata)?, ..Faults::default() };
    for package in &metadata.packages {
        found.package(package, base)?;
    }
    let count = found.print();
    ensure!(count == 0, "layers: {count} faults");
    Ok(())
}

/// Descriptions of all faults, by rule.
#[derive(Default)]
struct Faults {
    edges: Vec<String>,
    circles: Vec<String>,
    parameters: Vec<String>,
    shape: Vec<String>,
}

impl Faults {
    fn package(&mut self, package: &Package, base: &Path) -> anyhow::Result<()> {
        let root = package.manifest_path.parent().context("a manifest has a directory")?;
        self.shape.extend(shape::faults(root.as_std_path(), base)?);
        for target in &package.targets {
            let read = |path: &Path| fs::read_to_string(path);
            let modules = Modules::load(target.src_path.as_std_path(), &read)?;
            for fault in parameters::faults(&modules, base) {
                // Two test programs can share a file.
                if !self.parameters.contains(&fault) {
                    self.parameters.push(fault);
                }
            }
            if is_in_src(target) {
                let circles = circles::circles(&modules);
                let described = circles.iter().map(|c| circles::describe(c, &modules, base));
                self.circles.extend(described.map(|text| format!("{}: {text}", package.name)));
            }
        }
        Ok(())
    }

    /// Prints the faults of each rule under its name; returns their number.
    fn print(&self) -> usize {
        let rules = [
            ("dependencies between crates", &self.edges),
            ("circles between files", &self.circles),
            ("parameters", &self.parameters),
            ("names and sizes of files", &self.shape),
        ];
        for (rule, faults) in rules.iter().filter(|(_, faults)| !faults.is_empty()) {
            println!("-- {rule}: {}", faults.len());
            faults.iter().for_each(|fault| println!("{fault}"));
        }
        rules.iter().map(|(_, faults)| faults.len()).sum()
    }
}

/// Whether a target is a library or a program, not a test, an example or a benchmark.
fn is_in_src(target: &Target) -> bool {
    target.kind.iter().any(|kind| matches!(kind, TargetKind::Lib | TargetKind::Bin))
}
