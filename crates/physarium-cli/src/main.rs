//! The program `physarium`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(physarium_cli::run(std::env::args_os()))
}
