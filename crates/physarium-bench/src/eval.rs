//! `cargo xtask bench eval`: tokens per second of `physarium eval`, against transformers in the same run.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use clap::Args;
use physarium_kernels::{Arithmetic, Compute, Dense, Linear};
use serde_json::Value;

use crate::products::{config_sizes, rate};
use crate::run::{self, printed};

/// Rows, inputs and outputs of a product large enough to reach the machine's peak rate.
const LARGE: [usize; 3] = [4096, 4096, 4096];

#[derive(Args)]
pub struct Arguments {
    /// Checkpoint to evaluate
    #[arg(long)]
    model: PathBuf,
    /// Evaluation text
    #[arg(long)]
    text: PathBuf,
    /// Python interpreter with torch and transformers, for the baseline
    #[arg(long)]
    python: Option<PathBuf>,
    /// Tokens per window
    #[arg(long, default_value_t = 1024)]
    window: usize,
    /// Number of windows
    #[arg(long, default_value_t = 16)]
    windows: usize,
    /// Number of threads, for physarium and the baseline
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Runs of physarium; the median is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One evaluation: its speed and its result.
struct Row {
    what: String,
    /// Tokens per second.
    rate: f64,
    nll: f64,
}

/// Measures and prints tables.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let own = physarium(arguments)?;
    let others = arguments.python.as_ref().map(|python| transformers(python, arguments));
    let others = others.transpose()?.unwrap_or_default();
    println!("| what | tokens/s | mean NLL, nats | physarium is |");
    println!("|---|---:|---:|---:|");
    println!("| {} | {:.0} | {:.5} | |", own.what, own.rate, own.nll);
    for row in &others {
        let ratio = own.rate / row.rate;
        println!("| {} | {:.0} | {:.5} | {ratio:.2} x |", row.what, row.rate, row.nll);
    }
    println!();
    products(arguments)
}

fn physarium(arguments: &Arguments) -> anyhow::Result<Row> {
    let program = run::physarium()?;
    let mut runs = Vec::new();
    for _ in 0..arguments.rounds.max(1) {
        let text = printed(
            Command::new(&program)
                .arg("eval")
                .arg(&arguments.model)
                .arg("--text")
                .arg(&arguments.text)
                .args(["--window", &arguments.window.to_string()])
                .args(["--limit", &(arguments.window * arguments.windows).to_string()])
                .args(["--threads", &arguments.threads.to_string()])
                .args(["--format", "json", "--quiet"]),
        )?;
        runs.push(serde_json::from_str::<Value>(&text)?);
    }
    let rate = |run: &Value| run["tokens_per_second"].as_f64().unwrap_or(f64::NAN);
    runs.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let median = &runs[runs.len() / 2];
    let weights = median["protocol"]["weights"].as_str().unwrap_or("?");
    let instructions = median["protocol"]["instructions"].as_str().unwrap_or("?");
    Ok(Row {
        what: format!("physarium eval, {weights} weights, float32 arithmetic ({instructions})"),
        rate: rate(median),
        nll: median["mean_nll_nats"].as_f64().context("no mean_nll_nats")?,
    })
}

fn transformers(python: &PathBuf, arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let text = printed(
        Command::new(python)
            .arg("reference/transformers_eval.py")
            .arg(&arguments.model)
            .arg(&arguments.text)
            .args([arguments.window, arguments.windows, arguments.threads].map(|n| n.to_string())),
    )?;
    let row = |line: &str| -> anyhow::Result<Row> {
        let line: Value = serde_json::from_str(line)?;
        let number = |field: &str| line[field].as_f64().with_context(|| format!("no {field}"));
        Ok(Row {
            what: format!("transformers, {}", line["dtype"].as_str().unwrap_or("?")),
            rate: number("tokens_per_second")?,
            nll: number("mean_nll_nats")?,
        })
    };
    text.lines().map(row).collect()
}

/// Prints GFLOP/s of the products of a layer and of the head, and of a large product.
fn products(arguments: &Arguments) -> anyhow::Result<()> {
    let [hidden, inner, vocabulary] =
        config_sizes(&arguments.model, ["hidden_size", "intermediate_size", "vocab_size"])?;
    let shapes = [
        ("q, o", [arguments.window, hidden, hidden]),
        ("gate, up", [arguments.window, hidden, inner]),
        ("down", [arguments.window, inner, hidden]),
        ("head", [256, hidden, vocabulary]),
        ("large", LARGE),
    ];
    let ways = [
        Compute::new(arguments.threads)?,
        Compute::with_arithmetic(arguments.threads, Arithmetic::F32)?,
    ];
    println!("| product | rows x inputs x outputs | instructions | GFLOP/s | of large |");
    println!("|---|---|---|---:|---:|");
    for compute in &ways {
        let peak = gflops(compute, LARGE).max(gflops(compute, LARGE));
        for (name, shape) in shapes {
            let rate = gflops(compute, shape);
            let [rows, inputs, outputs] = shape;
            let by = compute.instructions();
            let share = 100.0 * rate / peak;
            println!(
                "| {name} | {rows} x {inputs} x {outputs} | {by} | {rate:.0} | {share:.0} % |"
            );
        }
    }
    Ok(())
}

/// GFLOP/s of a product of float32 activations and BF16 weights.
fn gflops(compute: &Compute, [rows, inputs, outputs]: [usize; 3]) -> f64 {
    // 0.37 uses all 24 bits of a float32 significand; the weights are 0.0089.
    let (x, mut y) = (vec![0.37; rows * inputs], vec![0.0; rows * outputs]);
    let map = Linear::new(outputs, inputs, Dense::Bf16(vec![0x3c11; outputs * inputs]), None);
    rate(2 * rows * inputs * outputs, || {
        map.forward(compute, black_box(&x), black_box(&mut y));
    })
}
