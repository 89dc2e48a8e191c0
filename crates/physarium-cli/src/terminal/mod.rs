//! Progress on stderr: a bar on a terminal, plain lines otherwise, JSON lines for programs.

mod bar;
mod lines;
mod work;

use std::io::IsTerminal;

use clap::ValueEnum;
use physarium::audit::Step;
use physarium::{Cancel, Event, Progress, Silent};

use crate::host;
use bar::Bar;
use lines::{Lines, Shape};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// A bar on a terminal, plain lines otherwise
    Auto,
    /// A progress bar
    Bar,
    /// Periodic lines
    Plain,
    /// JSON objects, one per line; notes and errors too
    Json,
    /// No progress
    None,
}

/// What shows the progress of a command. A host is told in JSON.
pub fn progress(style: Style) -> Box<dyn Progress> {
    if host::is_present() {
        return Box::new(Lines::new(Shape::Json));
    }
    match style {
        Style::Auto if std::io::stderr().is_terminal() => Box::new(Bar::new()),
        Style::Auto | Style::Plain => Box::new(Lines::new(Shape::Plain)),
        Style::Bar => Box::new(Bar::new()),
        Style::Json => Box::new(Lines::new(Shape::Json)),
        Style::None => Box::new(Silent),
    }
}

/// Shows the steps of an audit or a verification, and stops it on a signal.
pub fn steps<'a>(
    task: &'static str,
    progress: &'a mut dyn Progress,
    cancel: &'a Cancel,
) -> impl FnMut(Step) -> Result<(), physarium::checkpoint::Error> + 'a {
    move |step| {
        match step {
            Step::Total(bytes) => progress.event(Event::Started { task, bytes, tensors: 0 }),
            Step::Read(bytes) => progress.event(Event::Bytes(bytes)),
        }
        match cancel.is_raised() {
            true => Err(physarium::checkpoint::Error::Interrupted),
            false => Ok(()),
        }
    }
}
