/*!
Commands for another program, such as the Python package, in its own process.

In: a command's name and arguments as on the command line, without its program. Out: the JSON that `--format json` writes,
or a [`Failure`] in parts. Options are named as in other languages, `block_size` instead of `--block-size`. Nothing is
written to stdout or stderr, and no signal handler is installed.
*/

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};
use physarium::checkpoint::{ErrorKind, Fault};
use physarium::{Cancel, Error, RecipeOptions};
use serde_json::Value;

use crate::arguments::ThreadsArgument;
use crate::host::Host;
use crate::program::{self, Cli};
use crate::recipe::RecipeArguments;

/// Takes events as `--progress json` writes them: progress, notes and errors.
pub type Listener = Box<dyn FnMut(&Value)>;

/// A command to run.
pub struct Call {
    /// The command's name and its arguments.
    pub arguments: Vec<OsString>,
    /// Stops the command.
    pub cancel: Cancel,
    /// Is told of events.
    pub listener: Listener,
}

/// The result of a command.
pub struct Answer {
    /// The program's exit code: 0 success, 1 a check failed, 2 there was nothing to check, above 128 stopped with a part
    /// of the result.
    pub exit_code: u8,
    /// The result in JSON.
    pub json: String,
}

/// Why there is no result.
#[derive(Debug)]
pub struct Failure {
    /// The kind of error; `None` if the program does not tell it.
    pub kind: Option<ErrorKind>,
    /// The whole message.
    pub message: String,
    /// Its parts.
    pub fault: Box<Fault>,
}

impl Call {
    /// Runs the command on this thread.
    ///
    /// # Errors
    /// For arguments that are not the command's, and for what stops it.
    pub fn run(self) -> Result<Answer, Failure> {
        let Call { mut arguments, cancel, mut listener } = self;
        // Before what may follow `--`.
        arguments.insert(1.min(arguments.len()), "--format=json".into());
        let cli = parse::<Cli>(arguments)?;
        let spelled: Listener = Box::new(move |event| match event["text"].as_str() {
            Some(text) => {
                let mut event = event.clone();
                event["text"] = respelled(text).into();
                listener(&event);
            }
            None => listener(event),
        });
        let host = Host { cancel, listener: spelled, result: None };
        let (outcome, host) = host.during(|| program::execute(cli.command));
        let exit_code = program::code(outcome?);
        Ok(Answer { exit_code, json: host.result.unwrap_or_else(|| "null".to_owned()) })
    }
}

/// Options for a matrix in memory.
#[derive(Parser)]
struct MatrixCli {
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    threads: ThreadsArgument,
}

/// The options of a recipe, and the number of threads, in arguments.
///
/// # Errors
/// For other arguments.
pub fn matrix_options(arguments: Vec<OsString>) -> Result<(RecipeOptions, usize), Failure> {
    let MatrixCli { recipe, threads } = parse(arguments)?;
    Ok((recipe.options(), threads.count()))
}

fn parse<P: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<P, Failure> {
    P::try_parse_from(std::iter::once("physarium".into()).chain(arguments)).map_err(Failure::from)
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        use physarium::{audit, checkpoint};
        let message = match error.downcast_ref::<Error>() {
            Some(Error::Recipe(fault)) => fault.to_string(),
            _ => respelled(&program::chain(&error)),
        };
        let (kind, fault) = if let Some(e) = error.downcast_ref::<Error>() {
            (Some(e.kind()), e.fault())
        } else if let Some(e) = error.downcast_ref::<audit::Error>() {
            (Some(e.kind()), e.fault())
        } else if let Some(e) = error.downcast_ref::<checkpoint::Error>() {
            (Some(e.kind()), e.fault())
        } else if error.root_cause().is::<std::io::Error>() {
            (Some(ErrorKind::Environment), Fault::default())
        } else {
            (None, Fault::default())
        };
        Failure { kind, message, fault: Box::new(fault) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        anyhow::Error::from(error).into()
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Failure {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
            _ => None,
        };
        let usage = |message: String, fault| Failure {
            kind: Some(ErrorKind::Usage),
            message,
            fault: Box::new(fault),
        };
        let Some(argument) = text(ContextKind::InvalidArg).map(|argument| named(&argument)) else {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            return usage(respelled(first.trim_start_matches("error: ")), Fault::default());
        };
        if let Some(prior) = text(ContextKind::PriorArg) {
            let message = format!("{argument} cannot be combined with {}", named(&prior));
            return usage(message, Fault::default());
        }
        if error.kind() == clap::error::ErrorKind::UnknownArgument {
            let message = format!("{argument} is no option of this command");
            return usage(message, Fault::default());
        }
        let Some(value) = text(ContextKind::InvalidValue) else {
            return usage(format!("{argument} is needed"), Fault::default());
        };
        let valid = text(ContextKind::ValidValue).filter(|valid| !valid.is_empty());
        let why = std::error::Error::source(&error).map(ToString::to_string);
        let (expected, found) = match (valid, &why) {
            (Some(valid), _) => (format!("one of {valid}"), format!("'{value}'")),
            (None, Some(why)) => match wanted(why, &argument) {
                Some((expected, found)) => (expected, found.unwrap_or(format!("'{value}'"))),
                None => return usage(format!("{argument}: {why}"), Fault::default()),
            },
            (None, None) => ("a value".to_owned(), "none".to_owned()),
        };
        let message = format!("{argument}: expected {expected}, found {found}");
        usage(message, Fault::default().with(&expected, &found))
    }
}

/// What a parser's error expected of an argument, and what it found, as far as it says so: `expected A, found B` or
/// `NAME must be A, found B`.
fn wanted(why: &str, argument: &str) -> Option<(String, Option<String>)> {
    let (said, found) = match why.split_once(", found ") {
        Some((said, found)) => (said, Some(found.to_owned())),
        None => (why, None),
    };
    let must_be = said.strip_prefix(argument).and_then(|rest| rest.strip_prefix(" must be "));
    Some((said.strip_prefix("expected ").or(must_be)?.to_owned(), found))
}

/// An argument as clap shows it, `--block-size <N>` or `<MODEL>`, by its name.
fn named(argument: &str) -> String {
    let name = argument.split([' ', '=']).next().unwrap_or(argument);
    name.trim_matches(['<', '>', '[', ']', '-']).to_lowercase().replace('-', "_")
}

/// A text that says `block_size` where it said `--block-size`, for every option of the program.
fn respelled(text: &str) -> String {
    let program = Cli::command();
    let options = program.get_subcommands().flat_map(|command| command.get_arguments());
    let names: Vec<&str> = options.filter_map(|option| option.get_long()).collect();
    let (mut spelled, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("--") {
        let (before, after) = rest.split_at(at);
        let is_in_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let end = after[2..].find(|c| !is_in_name(c)).map_or(after.len(), |end| end + 2);
        let name = &after[2..end];
        let begins = before.chars().next_back().is_none_or(|c| " `'\"(\n".contains(c));
        spelled += before;
        match begins && names.contains(&name) {
            true => spelled += &name.replace('-', "_"),
            false => spelled += &after[..end],
        }
        rest = &after[end..];
    }
    spelled + rest
}

#[cfg(test)]
mod tests {
    use super::{Call, named, respelled};

    #[test]
    fn options_are_spelled_as_names() {
        let text =
            "--calibration-tokens has no effect; try `--threads 1` (not --nothing, a--force)";
        let expected =
            "calibration_tokens has no effect; try `threads 1` (not --nothing, a--force)";
        assert_eq!(respelled(text), expected);
        assert_eq!(named("--block-size <N>"), "block_size");
        assert_eq!(named("<MODEL>"), "model");
    }

    #[test]
    fn a_refused_argument_says_what_was_expected() {
        let failure = |arguments: &[&str]| {
            let arguments = arguments.iter().map(Into::into).collect();
            let call = Call { arguments, cancel: Default::default(), listener: Box::new(|_| {}) };
            call.run().err().expect("a failure").message
        };
        let allocation = ["prune", "--out=o", "--allocation=all", "m"];
        assert_eq!(failure(&allocation), "allocation: expected one of uniform, flow, found 'all'");
        let memory = ["prune", "--out=o", "--memory=8XB", "m"];
        let expected = "memory: expected a number with a unit, such as 8GB or 512MiB, found '8XB'";
        assert_eq!(failure(&memory), expected);
        let both = ["audit", "--against=m", "--from-journal=j", "m"];
        assert_eq!(failure(&both), "against cannot be combined with from_journal");
        assert_eq!(failure(&["prune", "m"]), "out is needed");
        assert_eq!(failure(&["verify", "--out=o"]), "out is no option of this command");
        let sparsity = failure(&["prune", "--out=o", "--sparsity=-1", "m"]);
        assert_eq!(sparsity, "sparsity: expected between 0 and 1, found -1");
        let threads = failure(&["audit", "--threads=0", "m"]);
        assert_eq!(threads, "threads: 0 is not in 1..=1024");
        assert_eq!(failure(&["eval", "--text=", "m"]), "text: expected a value, found none");
    }
}
