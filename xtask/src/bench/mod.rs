//! Benchmarks: separate commands, each printing ratios against a baseline measured in the same run.
//! They are not part of the gate.

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

pub use run::{build_physarium, printed, target_dir};

use clap::Subcommand;

/// The benchmarks.
#[derive(Subcommand)]
pub enum Bench {
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

/// Runs one benchmark.
pub fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Solve(arguments) => solve::run(&arguments),
        Bench::Prune(arguments) => prune::run(&arguments),
        Bench::Eval(arguments) => eval::run(&arguments),
        Bench::Calibrate(arguments) => calibrate::run(&arguments),
        #[cfg(target_arch = "x86_64")]
        Bench::Kernels(arguments) => kernels::run(&arguments),
        Bench::Run(arguments) => decode::run(&arguments),
    }
}
