//! `cargo xtask bench prune`: inspect, prune, audit and verify end to end, against `cp -r` + `sync`
//! and `cat`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;
use physarium_fixtures::{Fill, qwen2_5_7b_tensors, write_checkpoint};

use crate::run::{self, Usage, drop_caches, sync, timed};

#[derive(Args)]
pub struct Arguments {
    /// Fraction of Qwen2.5-7B's 28 layers and of its vocabulary
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Directory for the checkpoint and the outputs; needs three times the checkpoint's size
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Runs of each step; the median is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure only with data in the page cache
    #[arg(long)]
    warm_only: bool,
}

/// One measured step.
struct Row {
    step: &'static str,
    state: &'static str,
    usage: Usage,
    /// Seconds and name of the step it is compared with.
    baseline: Option<(f64, &'static str)>,
}

/// Writes the checkpoint if it does not exist, measures and prints a table.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.scale > 0.0 && arguments.scale <= 1.0, "--scale must be in (0, 1]");
    let model = arguments.dir.join(format!("qwen2.5-7b-x{}", arguments.scale));
    write_model(&model, arguments.scale)?;
    let bytes = size(&model)?;
    let mut states = vec!["warm"];
    if !arguments.warm_only && drop_caches()? {
        states.insert(0, "cold");
    }
    let mut rows = Vec::new();
    for state in states {
        rows.extend(measure(arguments, &model, state)?);
    }
    println!("{:.2} GB, {}\n", bytes as f64 / 1e9, machine());
    println!("| step | cache | seconds | GB/s of the checkpoint | peak memory | ratio |");
    println!("|---|---|---:|---:|---:|---|");
    for row in rows {
        let ratio = row.baseline.map_or(String::new(), |(seconds, name)| {
            format!("{:.2} x {name}", row.usage.seconds / seconds)
        });
        println!(
            "| {} | {} | {:.2} | {:.2} | {} MB | {ratio} |",
            row.step,
            row.state,
            row.usage.seconds,
            bytes as f64 / 1e9 / row.usage.seconds,
            row.usage.peak_bytes / 1_000_000,
        );
    }
    Ok(())
}

fn write_model(model: &Path, scale: f64) -> anyhow::Result<()> {
    if model.join("config.json").is_file() {
        return Ok(());
    }
    println!("writing {} ...", model.display());
    let layers = (28.0 * scale).round().max(1.0) as u64;
    let mut tensors = qwen2_5_7b_tensors(layers);
    for tensor in &mut tensors {
        if tensor.shape.first() == Some(&152_064) {
            tensor.shape[0] = (152_064.0 * scale).round() as u64;
        }
    }
    let part = model.with_extension("part");
    let _ = fs::remove_dir_all(&part);
    write_checkpoint(&part, &tensors, 4, Fill::Gaussian(1))?;
    fs::rename(&part, model).context("cannot finish the checkpoint")
}

fn size(dir: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

/// Measures all steps with the page cache in one state.
fn measure(arguments: &Arguments, model: &Path, state: &'static str) -> anyhow::Result<Vec<Row>> {
    let program = run::physarium()?;
    let copy = arguments.dir.join("copy");
    let out = arguments.dir.join("pruned");
    let shards = |dir: &Path| format!("cat {0}/*.safetensors > /dev/null", dir.display());
    let shell = |script: String| {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    };
    let median = |prepare: &dyn Fn() -> anyhow::Result<()>, make: &dyn Fn() -> Command| {
        let mut usage = Vec::new();
        for _ in 0..arguments.rounds.max(1) {
            prepare()?;
            match state {
                "cold" => drop_caches().map(|_| ())?,
                _ => timed(&mut shell(shards(model))).map(|_| ())?,
            }
            usage.push(timed(&mut make())?);
        }
        let peak_bytes = usage.iter().map(|t| t.peak_bytes).max().unwrap_or(0);
        usage.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        anyhow::Ok(Usage { peak_bytes, ..usage[usage.len() / 2] })
    };
    let remove = |dir: &Path| match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    let fresh = |dir: &PathBuf| -> anyhow::Result<()> {
        remove(dir)?;
        sync()
    };
    let nothing = || Ok(());
    let physarium = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).arg("--quiet");
        command
    };
    let (model_text, out_text) = (model.to_string_lossy(), out.to_string_lossy());
    let both = format!("{} && {}", shards(model), shards(&out));
    let row = |step, usage, baseline| Row { step, state, usage, baseline };

    let inspect = median(&nothing, &|| physarium(&["inspect", &model_text]))?;
    let cp_script = format!("cp -r {} {} && sync", model.display(), copy.display());
    let cp = median(&|| fresh(&copy), &|| shell(cp_script.clone()))?;
    remove(&copy)?;
    let prune =
        median(&|| fresh(&out), &|| physarium(&["prune", &model_text, "--out", &out_text]))?;
    // The output is read into the cache too, as far as it fits in memory.
    let warm_out =
        || if state == "warm" { timed(&mut shell(shards(&out))).map(|_| ()) } else { Ok(()) };
    let cat = median(&warm_out, &|| shell(both.clone()))?;
    let audit = median(&warm_out, &|| physarium(&["audit", &out_text, "--against", &model_text]))?;
    let verify =
        median(&warm_out, &|| physarium(&["verify", &out_text, "--against", &model_text]))?;
    remove(&out)?;
    let (cp_s, cat_s) = (cp.seconds, cat.seconds);
    Ok(vec![
        row("inspect", inspect, None),
        row("cp -r + sync", cp, None),
        row("prune", prune, Some((cp_s, "cp -r + sync"))),
        row("cat both > /dev/null", cat, None),
        row("audit --against", audit, Some((cat_s, "cat"))),
        row("verify", verify, Some((cat_s, "cat"))),
    ])
}

/// Processor, cores and commit, for the record.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |m| m.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    format!("{model}, {cores} cores, commit {commit}")
}
