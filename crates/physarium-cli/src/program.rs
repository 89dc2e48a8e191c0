/*!
The command line: runs the command, and turns its result into an exit code.

stdout carries results only; progress, notes and errors go to stderr. Exit codes: 0 success, 1 a check
failed, 2 error, 130 and 143 interrupted.
*/

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use physarium::Error;
use physarium::model::check_instructions;

use crate::arguments::Display;
#[cfg(feature = "object-stores")]
use crate::commands::upload;
use crate::commands::{
    audit, compare, demo, eval, inspect, pack, prune, report, run, shell, units, verify,
};
use crate::output::{self, Outcome};
use crate::recipe::spelled;
use crate::terminal::Style;
use crate::{signals, stores};

/// Prune language models with a Physarum-inspired algorithm and verify the result
#[derive(Parser)]
#[command(name = "physarium", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  physarium demo                                           all commands, on a small bundled model
  physarium inspect models/llama                           tensors, targets, why others are skipped
  physarium prune models/llama --out models/pruned         prune (no target sparsity: it emerges)
  physarium audit models/pruned --against models/llama     what was pruned, of what
  physarium verify models/pruned --against models/llama    prove that nothing else changed
  physarium eval models/pruned --against models/llama --text FILE            quality loss
  physarium compare models/llama --out table --text FILE --sparsity 0.5      quality loss by method
  physarium report reports table --out page.html           audits and tables in one page
  physarium pack models/pruned --out pruned.physpack       one file without zeros
  physarium run pruned.physpack --prompt TEXT              generate text
  physarium plan models/llama --out models/pruned          the same run for several machines

MODEL is a directory in Hugging Face layout: config.json and model.safetensors, or shards with
model.safetensors.index.json; or the id ORG/NAME[@REVISION] of a model that `hf download` has put
into the hub cache; or, in a program built with object-stores, the address of such a directory:
s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH. It is never written to. A target is a
tensor that is pruned: by default the q/k/v/o and gate/up/down weights of the decoder.

Exit codes: 0 success, 1 a check failed or the original is another model, 2 error or nothing that `audit` could
count, 130 or 143 interrupted (rerun the same command to resume `prune`, `compare`, `eval --parts`, `unit`, `finish`).";

#[derive(Subcommand)]
pub enum Command {
    Inspect(inspect::Arguments),
    Prune(prune::Arguments),
    Audit(audit::Arguments),
    Verify(verify::Arguments),
    Eval(eval::Arguments),
    Compare(compare::Arguments),
    Report(report::Arguments),
    Pack(pack::PackArguments),
    Unpack(pack::UnpackArguments),
    Run(run::Arguments),
    Plan(units::plan::Arguments),
    Unit(units::unit::Arguments),
    Finish(units::finish::Arguments),
    #[cfg(feature = "object-stores")]
    Upload(upload::Arguments),
    Demo(demo::Arguments),
    Completions(shell::CompletionArguments),
    Man(shell::ManArguments),
}

impl Command {
    /// How a command shows its progress, if it has any.
    fn display(&self) -> Option<&Display> {
        match self {
            Command::Prune(arguments) => Some(&arguments.display),
            Command::Audit(arguments) => Some(&arguments.display),
            Command::Verify(arguments) => Some(&arguments.display),
            Command::Eval(arguments) => Some(&arguments.display),
            Command::Compare(arguments) => Some(&arguments.display),
            Command::Pack(arguments) => Some(&arguments.display),
            Command::Unpack(arguments) => Some(&arguments.display),
            Command::Plan(arguments) => Some(&arguments.display),
            Command::Unit(arguments) => Some(&arguments.display),
            Command::Finish(arguments) => Some(&arguments.display),
            #[cfg(feature = "object-stores")]
            Command::Upload(arguments) => Some(&arguments.display),
            Command::Inspect(_)
            | Command::Report(_)
            | Command::Run(_)
            | Command::Demo(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        }
    }
}

/// Runs the program with its arguments, the first of which is its name. Returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version go to stdout with 0; a bad command line to stderr with 2.
        Err(e) => {
            let code = if e.use_stderr() { 2 } else { 0 };
            let _ = e.print();
            return code;
        }
    };
    if cli.command.display().is_some_and(|display| display.style() == Style::Json) {
        output::use_json_on_stderr();
    }
    let again = match cli.command {
        Command::Prune(_) | Command::Compare(_) | Command::Unit(_) | Command::Finish(_) => {
            "to resume"
        }
        #[cfg(feature = "object-stores")]
        Command::Upload(_) => "to resume",
        _ => "to start again",
    };
    match execute(cli.command) {
        Ok(outcome) => code(outcome),
        Err(e) => fail(&e, again),
    }
}

/// The exit code of a command that met no error.
pub fn code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::True => 0,
        Outcome::False => 1,
        Outcome::Undecided | Outcome::Failed => 2,
        Outcome::Partial => 128 + signals::caught(),
    }
}

/// Runs a command.
pub fn execute(command: Command) -> anyhow::Result<Outcome> {
    // Tests choose an instruction set; one that the processor does not have must not pass for the one it has.
    check_instructions()?;
    stores::register();
    match command {
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Prune(arguments) => prune::run(arguments),
        Command::Audit(arguments) => audit::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Pack(arguments) => pack::run(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Plan(arguments) => units::plan::run(arguments),
        Command::Unit(arguments) => units::unit::run(arguments),
        Command::Finish(arguments) => units::finish::run(arguments),
        #[cfg(feature = "object-stores")]
        Command::Upload(arguments) => upload::run(arguments),
        Command::Unpack(arguments) => pack::run_unpack(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Completions(arguments) => shell::completions(arguments, Cli::command()),
        Command::Man(arguments) => shell::man(arguments, Cli::command()),
    }
}

/// Reports an error. `again` is the purpose of the same command after an interrupt.
fn fail(error: &anyhow::Error, again: &str) -> u8 {
    // The reader of stdout has closed it: `physarium inspect MODEL | head` is no failure.
    let pipe = error.downcast_ref::<std::io::Error>();
    if pipe.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
        return 0;
    }
    if is_interrupt(error) {
        output::note(&format!("{error:#}\n{again}: {}", signals::command_line()));
        return 128 + signals::caught();
    }
    output::note(&format!("error: {}", chain(error)));
    2
}

/// An error with its causes, without those that its own text contains.
pub fn chain(error: &anyhow::Error) -> String {
    if let Some(Error::Recipe(fault)) = error.downcast_ref::<Error>() {
        return fault.message(spelled);
    }
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    stores::by_address(text)
}

fn is_interrupt(error: &anyhow::Error) -> bool {
    use physarium::checkpoint::ErrorKind::Interrupted;
    let kind = error.downcast_ref::<Error>().map(Error::kind);
    let audit = error.downcast_ref::<physarium::audit::Error>().map(|e| e.kind());
    let checkpoint = error.downcast_ref::<physarium::checkpoint::Error>().map(|e| e.kind());
    [kind, audit, checkpoint].contains(&Some(Interrupted))
}
