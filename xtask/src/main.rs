//! The project's own commands: `cargo xtask ci`, `layers`, `browser`, `bench`, `fuzz`, `pictures`, `python`.
#![allow(clippy::print_stdout, reason = "a program that prints its result")]

mod bench;
mod browser;
mod cargo;
mod ci;
mod external;
mod fuzz;
mod layers;
mod pictures;
mod python;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The gate: format, clippy, tests, documentation, layers, browser tests
    Ci,
    /// Check dependencies between crates and between files, parameter counts and file sizes
    Layers,
    /// Test the HTML reports in Chromium; skipped if there is none
    Browser(browser::Browser),
    /// Benchmark against a baseline measured in the same run
    Bench(bench::Bench),
    /// Fuzz the readers of files that strangers write
    Fuzz(fuzz::Fuzz),
    /// Make the pictures of the documentation anew
    Pictures,
    /// Build the wheel of the Python package and test it; skipped without python3 or PyPI
    Python,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Ci => ci::run(),
        Command::Layers => layers::run(),
        Command::Browser(browser) => browser.run(),
        Command::Bench(bench) => bench.run(),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Pictures => pictures::run(),
        Command::Python => python::run(),
    }
}
