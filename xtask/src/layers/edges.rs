//! Which crate may depend on which.

use cargo_metadata::{DependencyKind, Metadata, Package};

use crate::cargo::{cargo, printed};

/// Edges that are allowed between crates of the workspace.
const ALLOWED: [(&str, &[&str]); 14] = [
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
    ("physarium-store", &["physarium-checkpoint"]),
    ("physarium-report", &["physarium"]),
    ("physarium-cli", &["physarium", "physarium-report", "physarium-store"]),
    ("physarium-python", &["physarium", "physarium-cli"]),
    (
        "physarium-bench",
        &["physarium-fixtures", "physarium-flow", "physarium-kernels", "physarium-model"],
    ),
    ("xtask", &[]),
];
/// The crate that any other may use in tests.
const FOR_TESTS: &str = "physarium-fixtures";
/// Other edges that are allowed in tests.
const IN_TESTS: [(&str, &str); 1] = [("physarium-store", "physarium")];
/// The library, which other programs embed.
const LIBRARY: &str = "physarium";
/// Crates that only a program needs: the library must not depend on them, directly or through others.
const NOT_IN_LIBRARY: [&str; 4] = ["clap", "indicatif", "comfy-table", "signal-hook"];

/// Forbidden dependencies between the workspace's crates and of the library, and rules without a crate.
///
/// # Errors
/// `cargo tree` fails.
pub fn faults(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let names: Vec<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut faults = absent(&names);
    for package in &metadata.packages {
        faults.extend(package_faults(package, &names));
    }
    faults.extend(program_dependencies(&library_tree()?));
    Ok(faults)
}

fn absent(workspace: &[&str]) -> Vec<String> {
    let absent = ALLOWED.iter().filter(|(name, _)| !workspace.contains(name));
    absent.map(|(name, _)| format!("{name}: has a rule but is not in the workspace")).collect()
}

fn package_faults(package: &Package, workspace: &[&str]) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = ALLOWED.iter().find(|(rule, _)| *rule == name) else {
        return vec![format!("{name}: no rule in xtask/src/layers/edges.rs")];
    };
    let edges = package.dependencies.iter().filter(|edge| workspace.contains(&edge.name.as_str()));
    edges
        .filter(|edge| !may_use((name, allowed), &edge.name, edge.kind))
        .map(|edge| format!("{name} must not depend on {} ({:?})", edge.name, edge.kind))
        .collect()
}

fn may_use((user, allowed): (&str, &[&str]), name: &str, kind: DependencyKind) -> bool {
    let in_tests = || name == FOR_TESTS || IN_TESTS.contains(&(user, name));
    allowed.contains(&name) || kind == DependencyKind::Development && in_tests()
}

/// The library's normal dependencies, one a line: depth, then name and version.
fn library_tree() -> anyhow::Result<String> {
    let mut tree = cargo()?;
    tree.args(["tree", "--locked", "--package", LIBRARY, "--edges", "normal"]);
    printed(tree.args(["--prefix", "depth", "--format", " {p}"]))
}

/// What the library must not depend on, each with the chain of crates that leads to it.
fn program_dependencies(tree: &str) -> Vec<String> {
    let (mut chain, mut faults) = (Vec::new(), Vec::new());
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let depth = words.next().and_then(|depth| depth.parse::<usize>().ok());
        let (Some(depth), Some(name)) = (depth, words.next()) else { continue };
        chain.truncate(depth);
        chain.push(name);
        if NOT_IN_LIBRARY.contains(&name) {
            faults.push(format!("{LIBRARY} must not depend on {name}: {}", chain.join(" -> ")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use cargo_metadata::DependencyKind;

    use super::{ALLOWED, absent, may_use, program_dependencies};

    #[test]
    fn every_crate_with_a_rule_exists() {
        let names = ALLOWED.map(|(name, _)| name);
        assert_eq!(absent(&names), Vec::<String>::new());
        let expected = format!("{}: has a rule but is not in the workspace", names[0]);
        assert_eq!(absent(&names[1..]), [expected]);
    }

    #[test]
    fn some_edges_are_for_tests_only() {
        let (fixtures, store) = ("physarium-fixtures", ("physarium-store", &[][..]));
        let (test, normal) = (DependencyKind::Development, DependencyKind::Normal);
        assert!(may_use(("x", &[]), fixtures, test));
        assert!(!may_use(("x", &[]), fixtures, normal));
        assert!(may_use(store, "physarium", test));
        assert!(!may_use(store, "physarium", normal));
        assert!(!may_use(("x", &["physarium-flow"]), "physarium-audit", test));
        assert!(may_use(("x", &["physarium-flow"]), "physarium-flow", normal));
    }

    #[test]
    fn a_program_crate_is_reported_with_the_chain_to_it() {
        let tree = "0 physarium v0.1.0 (/w)\n1 rayon v1.12.0\n2 either v1.0.0\n1 tokenizers v0.23.0\n\
                    2 indicatif v0.18.6\n3 console v0.16.0\n1 serde v1.0.0 (*)\n";
        let expected =
            "physarium must not depend on indicatif: physarium -> tokenizers -> indicatif";
        assert_eq!(program_dependencies(tree), [expected]);
    }
}
