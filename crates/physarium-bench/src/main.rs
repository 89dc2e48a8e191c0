/*!
Benchmarks: separate commands, each printing ratios against a baseline measured in the same run.

They are not part of the gate. `cargo xtask bench` builds physarium, and runs this program with its path in `PHYSARIUM`.
*/
#![allow(clippy::print_stdout, reason = "a program that prints its result")]

mod calibrate;
mod decode;
mod eval;
#[cfg(target_arch = "x86_64")]
mod gemm;
#[cfg(target_arch = "x86_64")]
mod kernels;
mod products;
mod prune;
mod run;
mod solve;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask bench",
    about = "Benchmarks, each against a baseline measured in the same run"
)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Pruning tiles in memory, against copying the same bytes
    Solve(solve::Arguments),
    /// inspect, prune, audit and verify on a checkpoint with Qwen2.5-7B's shapes, against cp and cat
    Prune(prune::Arguments),
    /// Tokens per second of eval, against transformers
    Eval(eval::Arguments),
    /// Whole runs of wanda, sparsegpt and activation-flow, against SparseGPT in PyTorch
    Calibrate(calibrate::Arguments),
    /// Float32 products on one core, against the gemm crate
    #[cfg(target_arch = "x86_64")]
    Kernels(kernels::Arguments),
    /// Milliseconds per token, dense and packed, against memory bandwidth, transformers and llama.cpp
    Run(decode::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Solve(arguments) => solve::run(&arguments),
        Bench::Prune(arguments) => prune::run(&arguments),
        Bench::Eval(arguments) => eval::run(&arguments),
        Bench::Calibrate(arguments) => calibrate::run(&arguments),
        #[cfg(target_arch = "x86_64")]
        Bench::Kernels(arguments) => kernels::run(&arguments),
        Bench::Run(arguments) => decode::run(&arguments),
    }
}
