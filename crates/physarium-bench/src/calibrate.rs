//! `cargo xtask bench calibrate`: whole runs of the activation-aware methods, against SparseGPT in
//! PyTorch on the same tokens, and the solvers' products against a large one.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use physarium_kernels::{Compute, Gram, Precision, Symmetric};
use serde_json::Value;

use crate::products::{config_sizes, rate};
use crate::run::{self, Usage, printed, timed};

/// Rows and width of a product large enough to reach the machine's peak rate.
const LARGE: [usize; 2] = [4096, 4096];
/// Rows that the solver multiplies in one product.
const ROWS: usize = 192;

#[derive(Args)]
pub struct Arguments {
    /// Checkpoint to prune
    #[arg(long)]
    model: PathBuf,
    /// Calibration text
    #[arg(long)]
    calibration: PathBuf,
    /// Python interpreter with torch and transformers, for the baseline
    #[arg(long)]
    python: Option<PathBuf>,
    /// Tokens per window
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Number of windows
    #[arg(long, default_value_t = 64)]
    windows: usize,
    /// Number of threads, for physarium and the baseline
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Measures and prints tables.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = run::physarium()?;
    let baseline =
        arguments.python.as_ref().map(|python| pytorch(python, arguments)).transpose()?;
    println!("| what | seconds | peak memory, MB | of PyTorch's seconds |");
    println!("|---|---:|---:|---:|");
    if let Some((seconds, solver)) = baseline {
        println!(
            "| SparseGPT in PyTorch, float32 ({solver:.1} s in its solver) | {seconds:.1} | | |"
        );
    }
    for method in ["wanda", "sparsegpt", "activation-flow"] {
        let usage = physarium(&program, arguments, method)?;
        let ratio = baseline.map_or(String::new(), |(s, _)| format!("{:.2} x", usage.seconds / s));
        let memory = usage.peak_bytes / 1_000_000;
        println!("| physarium, {method} | {:.1} | {memory} | {ratio} |", usage.seconds);
    }
    println!();
    products(arguments)
}

fn physarium(program: &Path, arguments: &Arguments, method: &str) -> anyhow::Result<Usage> {
    let out = program.with_file_name("bench-calibrate");
    let tokens = arguments.window * arguments.windows;
    let usage = timed(
        Command::new(program)
            .arg("prune")
            .arg(&arguments.model)
            .arg("--out")
            .arg(&out)
            .args(["--method", method, "--sparsity", "0.5", "--force", "--restart", "--quiet"])
            .arg("--calibration")
            .arg(&arguments.calibration)
            .args(["--calibration-tokens", &tokens.to_string()])
            .args(["--window", &arguments.window.to_string()])
            .args(["--threads", &arguments.threads.to_string()]),
    )?;
    std::fs::remove_dir_all(&out).with_context(|| format!("{}: cannot remove", out.display()))?;
    Ok(usage)
}

/// Total seconds, and those spent in the solver.
fn pytorch(python: &PathBuf, arguments: &Arguments) -> anyhow::Result<(f64, f64)> {
    let text = printed(
        Command::new(python)
            .arg("reference/sparsegpt_torch.py")
            .arg(&arguments.model)
            .arg("--calibration")
            .arg(&arguments.calibration)
            .args(["--windows", &arguments.windows.to_string()])
            .args(["--window", &arguments.window.to_string()])
            .args(["--threads", &arguments.threads.to_string()]),
    )?;
    let line: Value = serde_json::from_str(text.lines().last().context("no output")?)?;
    let number = |field: &str| line[field].as_f64().with_context(|| format!("no {field}"));
    Ok((number("seconds")?, number("solver_seconds")?))
}

/// Prints GFLOP/s of the solver's steps and of Gram matrices, counted as float32 products.
fn products(arguments: &Arguments) -> anyhow::Result<()> {
    let [hidden, inner] = config_sizes(&arguments.model, ["hidden_size", "intermediate_size"])?;
    let compute = Compute::new(arguments.threads)?;
    let step = |[rows, width]: [usize; 2]| {
        let matrix = Symmetric::new(&compute, vec![0.01; width * width], width);
        let (x, mut y) = (vec![0.37; rows * width], vec![0.0; rows * width]);
        let product =
            || matrix.multiply(&compute, black_box(&x), Precision::Full, black_box(&mut y));
        rate(2 * rows * width * width, product)
    };
    let gram = |[tokens, width]: [usize; 2]| {
        let x = vec![0.37; tokens * width];
        let mut sums = Gram::new(width);
        rate(2 * tokens * width * width, || sums.add(&compute, black_box(&x)))
    };
    let peak = step(LARGE).max(step(LARGE));
    println!("| product ({}) | rows x width | GFLOP/s | of large |", compute.instructions());
    println!("|---|---|---:|---:|");
    let row = |name: &str, [rows, width]: [usize; 2], rate: f64| {
        println!("| {name} | {rows} x {width} | {rate:.0} | {:.0} % |", 100.0 * rate / peak);
    };
    for shape in [[ROWS, hidden], [ROWS, inner], LARGE] {
        row("step of a solve", shape, step(shape));
    }
    for shape in [[arguments.window, hidden], [arguments.window, inner]] {
        row("Gram matrix of a window, both halves counted", shape, gram(shape));
    }
    Ok(())
}
