//! `cargo xtask bench run`: milliseconds per token, dense and packed, against the memory's speed and against
//! transformers and llama.cpp on the dense model.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use physarium_fixtures::{Fill, Tensor, qwen2_5_7b_tensors, write_shard};
use physarium_model::{Compute, Decoder, Generation, Residency, large_zeroed, vector};
use serde_json::json;

use super::run::{build_physarium, printed};

/// Shares of zeros, of target.
const SPARSITIES: [&str; 4] = ["0.22", "0.5", "0.6", "0.7"];
/// Tokens before the ones that are timed.
const PROMPT: std::ops::Range<u32> = 100..108;
/// Tokens of a variant before the next one's turn.
const TURN: usize = 4;
/// Vocabulary of the slice: its head is no part of what is measured.
const SLICE_VOCABULARY: u64 = 2048;
/// Bytes that the memory's speed is measured with.
const READ_BYTES: usize = 1 << 30;

#[derive(Args)]
pub struct Arguments {
    /// A checkpoint to measure, beside a slice of Qwen2.5-7B's shapes that is made up
    #[arg(long)]
    model: Option<PathBuf>,
    /// Layers of the slice; none leaves it out
    #[arg(long, default_value_t = 4)]
    layers: u64,
    /// A Python with transformers or llama-cpp-python, or both, to compare with
    #[arg(long)]
    python: Option<PathBuf>,
    /// Tokens that are timed of each
    #[arg(long, default_value_t = 48)]
    tokens: usize,
    /// Threads of each
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where checkpoints and packed files are made, and removed again
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Measures and prints tables.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = build_physarium()?;
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("physarium-bench").tempdir_in(parent)?;
    if let Some(model) = &arguments.model {
        measure(&program, model, dir.path(), arguments)?;
    }
    if arguments.layers > 0 {
        let slice = dir.path().join(format!("qwen2.5-7b-{}-layers", arguments.layers));
        write_slice(&slice, arguments.layers)?;
        measure(&program, &slice, dir.path(), arguments)?;
    }
    Ok(())
}

/// Some layers of Qwen2.5-7B's shapes with Gaussian weights, under a head of few tokens.
fn write_slice(dir: &Path, layers: u64) -> anyhow::Result<()> {
    let mut tensors = qwen2_5_7b_tensors(layers);
    for Tensor { name, shape, .. } in &mut tensors {
        if name == "lm_head.weight" || name == "model.embed_tokens.weight" {
            shape[0] = SLICE_VOCABULARY;
        }
    }
    std::fs::create_dir_all(dir)?;
    write_shard(&dir.join("model.safetensors"), &tensors, Fill::Gaussian(1))?;
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": layers,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": SLICE_VOCABULARY,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": false,
        "use_sliding_window": false,
        "torch_dtype": "bfloat16",
    });
    Ok(std::fs::write(dir.join("config.json"), config.to_string())?)
}

/// One way to store a model, at work.
struct Variant<'a> {
    name: String,
    file_bytes: u64,
    generation: Generation<'a>,
    token: u32,
    milliseconds: Vec<f64>,
}

fn measure(program: &Path, model: &Path, dir: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let packed: Vec<(String, PathBuf)> = SPARSITIES
        .into_iter()
        .map(|sparsity| Ok((sparsity.to_owned(), pack(program, model, dir, sparsity)?)))
        .collect::<anyhow::Result<_>>()?;
    let compute = Compute::new(arguments.threads)?.sparing_memory();
    let paths = std::iter::once(("dense".to_owned(), model.to_owned())).chain(packed);
    let decoders: Vec<(String, u64, Decoder)> = paths
        .map(|(name, path)| {
            let decoder = Decoder::open(&path, Residency::Resident)?;
            let bytes = decoder.files().stored_bytes();
            Ok((name, bytes, decoder))
        })
        .collect::<anyhow::Result<_>>()?;
    let positions = PROMPT.len() + arguments.tokens + 2 * TURN;
    let mut variants = Vec::new();
    for (name, file_bytes, decoder) in &decoders {
        let mut generation = Generation::new(&compute, decoder, positions)?;
        let prompt: Vec<u32> = PROMPT.collect();
        let token = vector::argmax(generation.feed(&prompt)?) as u32;
        let (name, milliseconds) = (name.clone(), Vec::new());
        variants.push(Variant { name, file_bytes: *file_bytes, generation, token, milliseconds });
    }
    let mut memory = large_zeroed::<u64>(READ_BYTES / 8);
    // Pages of nought that nobody has written to are one page.
    memory.fill(1);
    let mut bandwidth: f64 = 0.0;
    // In turns, so that what else the machine does is spread over all.
    for turn in 0..arguments.tokens.div_ceil(TURN) + 1 {
        for variant in &mut variants {
            for _ in 0..TURN {
                let begin = Instant::now();
                let logits = variant.generation.feed(&[variant.token])?;
                variant.token = vector::argmax(logits) as u32;
                if turn > 0 {
                    variant.milliseconds.push(1e3 * begin.elapsed().as_secs_f64());
                }
            }
        }
        bandwidth = bandwidth.max(read_speed(&compute, &memory));
    }
    print(model, &mut variants, bandwidth, &compute, arguments)
}

fn print(
    model: &Path,
    variants: &mut [Variant<'_>],
    bandwidth: f64,
    compute: &Compute,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    println!(
        "\n{name}, {} threads, {}: memory is read at {bandwidth:.1} GB/s at best\n",
        compute.threads(),
        compute.vectors().name(),
    );
    println!(
        "| zero, of target | tensors, MB | ms per token | weights, GB/s | of memory | speed-up |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    let medians: Vec<f64> = variants.iter_mut().map(|v| median(&mut v.milliseconds)).collect();
    let dense = medians[0];
    for (variant, ms) in variants.iter().zip(&medians) {
        let rate = variant.generation.weights_bytes() as f64 / ms / 1e6;
        println!(
            "| {} | {:.1} | {ms:.2} | {rate:.1} | {:.0} % | {:.2} x |",
            variant.name,
            variant.file_bytes as f64 / 1e6,
            100.0 * rate / bandwidth,
            dense / ms,
        );
    }
    let Some(python) = &arguments.python else { return Ok(()) };
    let lines = printed(
        Command::new(python)
            .arg("reference/decode_baselines.py")
            .arg(model)
            .args(["--tokens", &arguments.tokens.to_string()])
            .args(["--threads", &arguments.threads.to_string()]),
    )?;
    println!("\n| on the dense model, BF16 | ms per token | physarium, dense, is |");
    println!("|---|---:|---:|");
    for line in lines.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [name, version, ms] => {
                let ms: f64 = ms.parse().with_context(|| line.to_owned())?;
                println!("| {name} {version} | {ms:.2} | {:.2} x as fast |", ms / dense);
            }
            _ => println!("| {line} | | |"),
        }
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prunes by magnitude and packs.
fn pack(program: &Path, model: &Path, dir: &Path, sparsity: &str) -> anyhow::Result<PathBuf> {
    let physarium = || Command::new(program);
    let name = model.file_name().context("a model has a name")?.to_string_lossy().into_owned();
    let pruned = dir.join(format!("{name}-{sparsity}"));
    let file = dir.join(format!("{name}-{sparsity}.physpack"));
    let method = ["--method", "magnitude", "--sparsity", sparsity, "--out"];
    printed(physarium().args(["prune", "--quiet"]).arg(model).args(method).arg(&pruned))?;
    printed(physarium().args(["pack", "--quiet"]).arg(&pruned).arg("--out").arg(&file))?;
    std::fs::remove_dir_all(&pruned)?;
    Ok(file)
}

/// GB/s of reading memory from end to end, on all threads.
fn read_speed(compute: &Compute, memory: &[u64]) -> f64 {
    const TASK: usize = 1 << 20;
    let begin = Instant::now();
    compute.each(memory.len() / TASK, |task| {
        let words = &memory[task * TASK..(task + 1) * TASK];
        black_box(words.iter().fold(0, |all, word| all ^ word));
    });
    size_of_val(memory) as f64 / begin.elapsed().as_secs_f64() / 1e9
}
