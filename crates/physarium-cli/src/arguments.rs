//! Arguments that several commands share.

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use physarium::checkpoint::{Arithmetic, BosPlace, Overwrite};
use physarium::{MemoryLimit, Options, Share};

use crate::terminal;

// Headings of options in `--help`.

/// What a command reads beside its positional arguments.
pub const INPUT: &str = "Input";
/// How weights are chosen, and how many.
pub const METHOD: &str = "Method";
/// Which tensors are targets.
pub const SELECTION: &str = "Selection";
/// The text that statistics come from.
pub const CALIBRATION: &str = "Calibration";
/// Parameters of the magnitude flow.
pub const FLOW: &str = "Magnitude flow";
/// The text that perplexity is measured on, and its windows.
pub const EVALUATION: &str = "Evaluation";
/// The prompt, and how tokens are chosen.
pub const GENERATION: &str = "Generation";
/// What is written.
pub const OUTPUT: &str = "Output";
/// Result and progress on the terminal, and threads.
pub const DISPLAY: &str = "Display";

/// What `--force` says of a finished output.
pub fn overwrite(force: bool) -> Overwrite {
    if force { Overwrite::Replace } else { Overwrite::Refuse }
}

/// The format of a result; every command that has a result takes it.
#[derive(Args, Clone, Copy)]
pub struct FormatArgument {
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t = Format::Text, help_heading = DISPLAY)]
    pub format: Format,
}

/// Result and progress of a command that takes a while.
#[derive(Args)]
#[command(next_help_heading = DISPLAY)]
pub struct Display {
    #[command(flatten)]
    result: FormatArgument,
    /// Style of progress on stderr
    #[arg(long, value_enum, default_value_t = terminal::Style::Auto)]
    progress: terminal::Style,
    /// Only errors on stderr: no progress, no notes
    #[arg(short, long, conflicts_with = "progress")]
    pub quiet: bool,
}

impl Display {
    /// The format of the result.
    pub fn format(&self) -> Format {
        self.result.format
    }

    /// How progress is shown.
    pub fn style(&self) -> terminal::Style {
        if self.quiet { terminal::Style::None } else { self.progress }
    }
}

/// How a result is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text and tables
    Text,
    /// One JSON object; docs/FORMATS.md lists the fields
    Json,
}

/// Worker threads; every command that takes them gives the same result for any number.
#[derive(Args, Clone, Copy)]
pub struct ThreadsArgument {
    /// Number of worker threads; any number gives the same result [default: all cores]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1024),
        help_heading = DISPLAY
    )]
    threads: Option<u16>,
}

impl ThreadsArgument {
    /// The number of threads.
    pub fn count(self) -> usize {
        self.given().unwrap_or(Options::default().threads)
    }

    /// The number of threads, if one was given.
    pub fn given(self) -> Option<usize> {
        self.threads.map(usize::from)
    }
}

/// Most resident memory; every command that takes it gives the same result for any.
#[derive(Args, Clone, Copy)]
pub struct MemoryArgument {
    /// Most resident memory while pruning, e.g. 8GB or 512MiB: what does not fit is kept in a scratch file beside the
    /// output, fewer threads run, or the run is refused; any gives the same result [default: what is free, less 5 %]
    #[arg(long, value_name = "SIZE", value_parser = memory_limit, help_heading = DISPLAY)]
    memory: Option<MemoryLimit>,
}

impl MemoryArgument {
    /// The limit.
    pub fn limit(self) -> MemoryLimit {
        self.memory.unwrap_or_default()
    }
}

/// A share of the work as it is typed.
pub fn share(text: &str) -> Result<Share, &'static str> {
    let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let share = numbers.and_then(|(index, count)| Share::new(index, count));
    share.ok_or("expected a number below N, and N: 0/4 to 3/4")
}

/// A size of memory as it is typed.
pub fn memory_limit(text: &str) -> Result<MemoryLimit, &'static str> {
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    match text.parse() {
        // Who writes 8 does not mean bytes.
        Ok(ByteSize(bytes)) if bytes >= 1_000_000 || (has_unit && bytes > 0) => {
            Ok(MemoryLimit::Bytes(bytes))
        }
        _ => Err("expected a number with a unit, such as 8GB or 512MiB"),
    }
}

/// An arithmetic on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArithmeticChoice {
    /// Float32; on every machine
    F32,
    /// Float32, but a calibration rounds activations to BF16; needs AVX-512 BF16
    Bf16,
    /// Activations as sums of two BF16 numbers; needs Intel AMX
    Bf16x2,
}

impl From<ArithmeticChoice> for Arithmetic {
    fn from(choice: ArithmeticChoice) -> Arithmetic {
        match choice {
            ArithmeticChoice::F32 => Arithmetic::F32,
            ArithmeticChoice::Bf16 => Arithmetic::Bf16,
            ArithmeticChoice::Bf16x2 => Arithmetic::Bf16x2,
        }
    }
}

/// Where a text's first special token stands, on the command line.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BosChoice {
    /// Before the text only
    #[default]
    Text,
    /// At the beginning of each window, as the first of its tokens
    EachWindow,
}

impl From<BosChoice> for BosPlace {
    fn from(choice: BosChoice) -> BosPlace {
        match choice {
            BosChoice::Text => BosPlace::Text,
            BosChoice::EachWindow => BosPlace::EachWindow,
        }
    }
}

/// An arithmetic of `eval` and `run`, which round no more than they have to.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OfEvaluation {
    /// Float32; on every machine
    F32,
    /// Activations as sums of two BF16 numbers; needs Intel AMX
    Bf16x2,
}

impl From<OfEvaluation> for Arithmetic {
    fn from(choice: OfEvaluation) -> Arithmetic {
        match choice {
            OfEvaluation::F32 => Arithmetic::F32,
            OfEvaluation::Bf16x2 => Arithmetic::Bf16x2,
        }
    }
}

/// The arithmetic of a command that evaluates a decoder.
#[derive(Args, Clone, Copy)]
pub struct ArithmeticArgument {
    /// Arithmetic of products with activations; one gives the same result on every machine that has it [default:
    /// bf16x2 on Intel AMX, f32 elsewhere]
    #[arg(long = "arithmetic", value_enum, help_heading = DISPLAY)]
    choice: Option<OfEvaluation>,
}

impl ArithmeticArgument {
    /// The arithmetic, if one was given.
    pub fn given(self) -> Option<Arithmetic> {
        self.choice.map(Arithmetic::from)
    }
}

/// Which tensors are targets.
#[derive(Args, Clone)]
pub struct SelectionArguments {
    /// Target the tensors matching this glob instead of q/k/v/o and gate/up/down (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = SELECTION)]
    pub target: Vec<String>,
    /// Exclude tensors matching this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = SELECTION)]
    pub skip: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_is_a_size() {
        let gib = 1 << 30;
        for (text, bytes) in [
            ("8GB", 8_000_000_000),
            ("8 gb", 8_000_000_000),
            ("8G", 8_000_000_000),
            ("1.5GB", 1_500_000_000),
            ("512MiB", gib / 2),
            ("2GiB", 2 * gib),
            ("1TB", 1_000_000_000_000),
            ("1000kB", 1_000_000),
            ("123456789", 123_456_789),
            ("123456789B", 123_456_789),
        ] {
            assert_eq!(memory_limit(text), Ok(MemoryLimit::Bytes(bytes)), "{text}");
        }
        for text in ["", "0", "0GB", "GB", "-1GB", "8GX", "8 GB free", "1e9", "nan", "inf", "½GB"]
        {
            assert!(memory_limit(text).is_err(), "{text}");
        }
    }
}
