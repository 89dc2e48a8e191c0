//! Arguments that several commands share.

use clap::{Args, ValueEnum};
use physarium::Options;

use crate::terminal;

/// Headings of options in `--help`, in their order.
pub const METHOD: &str = "Method";
/// Which tensors are worked on.
pub const SELECTION: &str = "Selection";
/// What statistics come from.
pub const CALIBRATION: &str = "Calibration";
/// Parameters of the magnitude flow.
pub const FLOW: &str = "Flow";
/// What is measured.
pub const EVALUATION: &str = "Evaluation";
/// What is written.
pub const OUTPUT: &str = "Output";
/// What is shown, and how the work is done.
pub const DISPLAY: &str = "Display";

/// Options that every command has.
#[derive(Args)]
#[command(next_help_heading = DISPLAY)]
pub struct Display {
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Style of progress on stderr
    #[arg(long, value_enum, default_value_t = terminal::Style::Auto)]
    pub progress: terminal::Style,
    /// No progress and no notes on stderr; errors are printed
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

/// Worker threads; every command that has them gives the same result for any number.
#[derive(Args, Clone, Copy)]
pub struct ThreadsArgument {
    /// Number of worker threads; the result is the same for any number [default: all cores]
    #[arg(long, help_heading = DISPLAY, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
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
    /// Tensors matching this glob, instead of the q/k/v/o and gate/up/down projections (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = SELECTION)]
    pub target: Vec<String>,
    /// Exclude tensors matching this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = SELECTION)]
    pub skip: Vec<String>,
}
