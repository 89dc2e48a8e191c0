//! The program: arguments in, exit code out. What it does is in the library `physarium`.

mod arguments;
mod commands;
mod output;
mod program;
mod recipe;
mod signals;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    program::run()
}
