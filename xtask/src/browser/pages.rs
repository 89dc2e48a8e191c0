//! Makes the pages that the browser tests open.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::made_up::{hostile, large};

/// Reports of the demo, in a directory that holds `demo/` and `claims.toml`.
const DEMO: [&str; 4] = [
    "prune demo/model --out pruned --quiet",
    "audit pruned --against demo/model --claims claims.toml --report audit --quiet",
    "compare demo/model --out compare --text demo/heldout.txt --calibration demo/calibration.txt --methods \
     magnitude,wanda --sparsity 0.3,0.5 --limit 2048 --quiet",
    "report audit compare --out overview.html",
];
/// Reports of made-up audits.
const MADE_UP: [&str; 2] = ["report hostile --out hostile.html", "report large --out large.html"];
/// What an audit returns if a claim is false.
const FALSE_CLAIM: i32 = 1;
/// Claims that are false, so that these verdicts are shown too.
const FALSE_CLAIMS: &str = r#"
[[claim]]
id = "false"
source = "the browser tests"
sentence = "30 % of the target weights are pruned."
count = "pruned"
value = "30 %"
of = "target"

[[claim]]
id = "denominator"
source = "the browser tests"
sentence = "22.41 % of the model is pruned."
count = "pruned"
value = "22.41 %"
of = "model"
"#;
/// Name of an audit's JSON.
const AUDIT: &str = "physarium.audit.json";

/// Makes the pages in a directory that is new or empty.
///
/// # Errors
/// A command that fails, or a file that cannot be written.
pub fn make(program: &Path, root: &Path, pages: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(pages)?;
    ensure!(pages.read_dir()?.next().is_none(), "{}: not empty", pages.display());
    symlink(root.join("demo"), pages.join("demo"))?;
    let claims = fs::read_to_string(root.join("demo/claims.toml"))?;
    fs::write(pages.join("claims.toml"), claims + FALSE_CLAIMS)?;
    for command in DEMO {
        run(program, command, pages)?;
    }
    let audit = serde_json::from_str(&fs::read_to_string(pages.join("audit").join(AUDIT))?)?;
    write(&pages.join("hostile"), &hostile(&audit)?)?;
    write(&pages.join("large"), &large(&audit)?)?;
    for command in MADE_UP {
        run(program, command, pages)?;
    }
    Ok(())
}

fn write(dir: &Path, audit: &Value) -> anyhow::Result<()> {
    fs::create_dir(dir)?;
    fs::write(dir.join(AUDIT), serde_json::to_string_pretty(audit)? + "\n")?;
    Ok(())
}

fn run(program: &Path, command: &str, dir: &Path) -> anyhow::Result<()> {
    println!("physarium {command}");
    let output = Command::new(program)
        .args(command.split_whitespace())
        .current_dir(dir)
        .output()
        .with_context(|| format!("{}: cannot be started", program.display()))?;
    let false_claim = command.starts_with("audit") && output.status.code() == Some(FALSE_CLAIM);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() || false_claim, "physarium {command}: {said}");
    Ok(())
}
