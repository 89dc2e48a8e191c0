//! Benchmarks: separate commands that print ratios against a baseline measured in the same run.
//! Never part of the gate.

mod calibrate;
mod decode;
mod eval;
mod products;
mod prune;
mod run;
mod solve;

use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Deciding and pruning tiles in memory, against copying the same bytes
    Solve(solve::Arguments),
    /// inspect, prune, audit and verify of a Qwen2.5-7B-shaped checkpoint, against cp and cat
    Prune(prune::Arguments),
    /// Tokens per second of eval, against transformers
    Eval(eval::Arguments),
    /// Whole runs of wanda, sparsegpt and activation-flow, against SparseGPT in PyTorch
    Calibrate(calibrate::Arguments),
    /// Milliseconds per token, dense and packed, against memory, transformers and llama.cpp
    Run(decode::Arguments),
}

/// Measures.
pub fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Solve(arguments) => solve::run(&arguments),
        Bench::Prune(arguments) => prune::run(&arguments),
        Bench::Eval(arguments) => eval::run(&arguments),
        Bench::Calibrate(arguments) => calibrate::run(&arguments),
        Bench::Run(arguments) => decode::run(&arguments),
    }
}
