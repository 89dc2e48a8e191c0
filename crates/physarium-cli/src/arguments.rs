//! Arguments that several commands share.

use clap::{Args, ValueEnum};
use physarium::Options;

use crate::terminal;

/// Options that every command has.
#[derive(Args)]
pub struct Display {
    /// How the result is written to stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How progress is shown on stderr
    #[arg(long, value_enum, default_value_t = terminal::Style::Auto)]
    pub progress: terminal::Style,
    /// No progress and no notes on stderr; errors are still printed
    #[arg(short, long)]
    pub quiet: bool,
}

impl Display {
    /// How progress is shown.
    pub fn style(&self) -> terminal::Style {
        if self.quiet { terminal::Style::None } else { self.progress }
    }
}

/// How a result is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading.
    Text,
    /// For programs; the fields are in docs/FORMATS.md.
    Json,
}

/// Threads that work; every command that has them gives the same result for any number.
#[derive(Args, Clone, Copy)]
pub struct ThreadsArgument {
    /// Threads that work; the result is the same for any number [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ThreadsArgument {
    /// The number of threads.
    pub fn count(self) -> usize {
        self.threads.map_or(Options::default().threads, usize::from)
    }
}

/// Which tensors are targets.
#[derive(Args, Clone)]
pub struct SelectionArguments {
    /// Prune the tensors that this glob takes, instead of the q/k/v/o and gate/up/down projections
    /// (may be given more than once)
    #[arg(long, value_name = "GLOB")]
    pub target: Vec<String>,
    /// Leave alone the tensors that this glob takes (may be given more than once)
    #[arg(long, value_name = "GLOB")]
    pub skip: Vec<String>,
}
