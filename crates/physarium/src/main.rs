//! The program: arguments in, exit code out. Everything else is in the library or under `cli`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
