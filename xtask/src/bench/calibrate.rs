//! `cargo xtask bench calibrate`: whole runs of the methods that see activations, against SparseGPT in PyTorch on
//! the same tokens, and the solvers' products against a large one.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use physarium_kernels::{Compute, Gram, Precision, Symmetric};
use serde_json::Value;

use super::run::timed;

/// What a product is timed for, in seconds.
const SECONDS: f64 = 0.5;
/// Rows and width of a product that shows what the machine can do.
const LARGE: [usize; 2] = [4096, 4096];
/// Rows that the solver multiplies at once.
const ROWS: usize = 192;

#[derive(Args)]
pub struct Arguments {
    /// Checkpoint to prune
    #[arg(long)]
    model: PathBuf,
    /// Text to calibrate on
    #[arg(long)]
    calibration: PathBuf,
    /// A Python with torch and transformers to compare with
    #[arg(long)]
    python: Option<PathBuf>,
    /// Tokens of a window
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Windows
    #[arg(long, default_value_t = 64)]
    windows: usize,
    /// Threads of each
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Measures and prints tables.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let built = Command::new(env!("CARGO")).args(["build", "--locked", "--release"]).status()?;
    ensure!(built.success(), "cannot build physarium");
    let baseline =
        arguments.python.as_ref().map(|python| pytorch(python, arguments)).transpose()?;
    println!("| what | seconds | peak memory, MB | of PyTorch's |");
    println!("|---|---:|---:|---:|");
    if let Some((seconds, solver)) = baseline {
        println!(
            "| SparseGPT in PyTorch, float32 ({solver:.1} s in its solver) | {seconds:.1} | | |"
        );
    }
    for method in ["wanda", "sparsegpt", "activation-flow"] {
        let taken = physarium(arguments, method)?;
        let ratio = baseline.map_or(String::new(), |(s, _)| format!("{:.2} x", taken.seconds / s));
        let memory = taken.peak_bytes / 1_000_000;
        println!("| physarium, {method} | {:.1} | {memory} | {ratio} |", taken.seconds);
    }
    println!();
    products(arguments)
}

fn physarium(arguments: &Arguments, method: &str) -> anyhow::Result<super::run::Taken> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let out = PathBuf::from(&target).join("bench-calibrate");
    let tokens = arguments.window * arguments.windows;
    let taken = timed(
        Command::new(PathBuf::from(&target).join("release/physarium"))
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
    Ok(taken)
}

/// Seconds in all and in the solver.
fn pytorch(python: &PathBuf, arguments: &Arguments) -> anyhow::Result<(f64, f64)> {
    let output = Command::new(python)
        .arg("reference/sparsegpt_torch.py")
        .arg(&arguments.model)
        .arg("--calibration")
        .arg(&arguments.calibration)
        .args(["--windows", &arguments.windows.to_string()])
        .args(["--window", &arguments.window.to_string()])
        .args(["--threads", &arguments.threads.to_string()])
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let line: Value = serde_json::from_str(text.lines().last().context("no output")?)?;
    let number = |field: &str| line[field].as_f64().with_context(|| format!("no {field}"));
    Ok((number("seconds")?, number("solver_seconds")?))
}

/// GFLOP/s, of float32 products, that the solver's steps and Gram matrices reach.
fn products(arguments: &Arguments) -> anyhow::Result<()> {
    let config = std::fs::read_to_string(arguments.model.join("config.json"))?;
    let config: Value = serde_json::from_str(&config)?;
    let size = |field: &str| {
        config[field].as_u64().map(|n| n as usize).with_context(|| format!("no {field}"))
    };
    let (hidden, inner) = (size("hidden_size")?, size("intermediate_size")?);
    let compute = Compute::new(arguments.threads)?;
    let coarse = |[rows, width]: [usize; 2]| {
        let matrix = Symmetric::new(&compute, vec![0.01; width * width], width);
        let (x, mut y) = (vec![0.37; rows * width], vec![0.0; rows * width]);
        let product =
            || matrix.multiply(&compute, black_box(&x), Precision::Coarse, black_box(&mut y));
        rate(2 * rows * width * width, product)
    };
    let gram = |[tokens, width]: [usize; 2]| {
        let x = vec![0.37; tokens * width];
        let mut sums = Gram::new(&compute, width);
        rate(2 * tokens * width * width, || sums.add(&compute, black_box(&x)))
    };
    let peak = coarse(LARGE).max(coarse(LARGE));
    println!("| product ({}) | rows x width | GFLOP/s | of large |", compute.instructions().name());
    println!("|---|---|---:|---:|");
    let row = |name: &str, [rows, width]: [usize; 2], rate: f64| {
        println!("| {name} | {rows} x {width} | {rate:.0} | {:.0} % |", 100.0 * rate / peak);
    };
    for shape in [[ROWS, hidden], [ROWS, inner], LARGE] {
        row("step of a solve", shape, coarse(shape));
    }
    for shape in [[arguments.window, hidden], [arguments.window, inner]] {
        row("Gram matrix of a window, both halves counted", shape, gram(shape));
    }
    Ok(())
}

/// GFLOP/s of something that takes so many operations.
fn rate(operations: usize, mut product: impl FnMut()) -> f64 {
    product();
    let (began, mut times) = (Instant::now(), 0);
    while times == 0 || began.elapsed().as_secs_f64() < SECONDS {
        product();
        times += 1;
    }
    (operations * times) as f64 / began.elapsed().as_secs_f64() / 1e9
}
