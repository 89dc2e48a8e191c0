//! `physarium completions` and `physarium man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};

use crate::output::{self, Outcome};

/// Print shell completions
///
/// For bash: `physarium completions bash > ~/.local/share/bash-completion/completions/physarium`.
#[derive(Args)]
pub struct CompletionArguments {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write the manual pages into a directory
#[derive(Args)]
pub struct ManArguments {
    /// The directory; made if it is not there
    dir: PathBuf,
}

/// Prints completions.
pub fn completions(
    arguments: CompletionArguments,
    mut program: Command,
) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "physarium", &mut script);
    output::text(&String::from_utf8(script)?)?;
    Ok(Outcome::True)
}

/// Writes manual pages.
pub fn man(arguments: ManArguments, program: Command) -> anyhow::Result<Outcome> {
    let dir = &arguments.dir;
    let make = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(program, dir)
    };
    make().with_context(|| format!("{}: cannot write manual pages", dir.display()))?;
    Ok(Outcome::True)
}
