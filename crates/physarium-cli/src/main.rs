//! The program `physarium`: arguments in, exit code out. The library `physarium` does the work.

mod arguments;
mod commands;
mod model;
mod output;
mod program;
mod recipe;
mod signals;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::run()
}
