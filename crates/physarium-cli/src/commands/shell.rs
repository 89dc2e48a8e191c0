//! `physarium completions` and `physarium man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};

use crate::model::refuse_in_model;
use crate::output::{self, Outcome};

/// Print shell completions
#[derive(Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub struct CompletionArguments {
    /// Shell to complete for
    shell: clap_complete::Shell,
}

const COMPLETION_EXAMPLES: &str = "\
Examples:
  physarium completions bash > ~/.local/share/bash-completion/completions/physarium
  physarium completions fish > ~/.config/fish/completions/physarium.fish";

/// Write the manual pages into a directory
#[derive(Args)]
#[command(after_help = MAN_EXAMPLES)]
pub struct ManArguments {
    /// Directory, created if missing
    dir: PathBuf,
}

const MAN_EXAMPLES: &str = "\
Examples:
  physarium man ~/.local/share/man/man1";

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

/// Writes the manual pages.
pub fn man(arguments: ManArguments, program: Command) -> anyhow::Result<Outcome> {
    let dir = &arguments.dir;
    refuse_in_model(dir)?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(program, dir)
    };
    write().with_context(|| format!("{}: cannot write manual pages", dir.display()))?;
    Ok(Outcome::True)
}
