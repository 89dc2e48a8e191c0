//! `cargo xtask bench run`: milliseconds per token, dense and packed, against memory bandwidth, and against
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

use crate::run::{self, printed};

/// Sparsities of the packed variants.
const SPARSITIES: [&str; 4] = ["0.22", "0.5", "0.6", "0.7"];
/// The prompt's token ids.
const PROMPT: std::ops::Range<u32> = 100..108;
/// Tokens that one variant generates before the next one continues.
const TURN: usize = 4;
/// Vocabulary of the slice; small, because the output head is not under test.
const SLICE_VOCABULARY: u64 = 2048;
/// Size of the buffer that memory bandwidth is measured on.
const READ_BYTES: usize = 1 << 30;

#[derive(Args)]
pub struct Arguments {
    /// Checkpoint to measure, beside a slice of Qwen2.5-7B's shapes with random weights
    #[arg(long)]
    model: Option<PathBuf>,
    /// Layers of the slice; 0 omits it
    #[arg(long, default_value_t = 4)]
    layers: u64,
    /// Python interpreter with transformers or llama-cpp-python, or both, for the baselines
    #[arg(long)]
    python: Option<PathBuf>,
    /// Timed tokens of each variant
    #[arg(long, default_value_t = 48)]
    tokens: usize,
    /// Number of threads, for physarium and the baselines
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Directory for temporary checkpoints and packed files
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Measures and prints tables.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = run::physarium()?;
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

/// Writes layers of Qwen2.5-7B's shapes with Gaussian weights and a small vocabulary.
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

/// A model in one storage form, and its times.
struct Variant<'a> {
    name: String,
    file_bytes: u64,
    generation: Generation<'a>,
    /// The last token, which is fed next.
    token: u32,
    /// Of each timed token.
    milliseconds: Vec<f64>,
}

/// The dense model and its packed variants, measured side by side.
struct Measurement<'a> {
    model: &'a Path,
    compute: &'a Compute,
    variants: Vec<Variant<'a>>,
    /// Best rate at which memory was read, in GB/s.
    bandwidth: f64,
}

fn measure(program: &Path, model: &Path, dir: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let packed: Vec<(String, PathBuf)> = SPARSITIES
        .into_iter()
        .map(|sparsity| Ok((sparsity.to_owned(), pack(program, model, dir, sparsity)?)))
        .collect::<anyhow::Result<_>>()?;
    let compute = Compute::new(arguments.threads)?.sparing_memory();
    let paths = std::iter::once(("dense".to_owned(), model.to_owned())).chain(packed);
    let decoders: Vec<(String, Decoder)> = paths
        .map(|(name, path)| Ok((name, Decoder::open(&path, Residency::Resident)?)))
        .collect::<anyhow::Result<_>>()?;
    let positions = PROMPT.len() + arguments.tokens + 2 * TURN;
    let mut variants = Vec::new();
    for (name, decoder) in &decoders {
        let mut generation = Generation::new(&compute, decoder, positions)?;
        let prompt: Vec<u32> = PROMPT.collect();
        let token = vector::argmax(generation.feed(&prompt)?) as u32;
        let file_bytes = decoder.files().stored_bytes();
        let name = name.clone();
        variants.push(Variant { name, file_bytes, generation, token, milliseconds: Vec::new() });
    }
    let mut measurement = Measurement { model, compute: &compute, variants, bandwidth: 0.0 };
    measurement.take_turns(arguments.tokens)?;
    let dense_ms = measurement.print();
    arguments
        .python
        .as_ref()
        .map_or(Ok(()), |python| print_baselines(python, model, arguments, dense_ms))
}

impl Measurement<'_> {
    /// Times each variant for some tokens, in turns: other load on the machine then slows all of them alike.
    fn take_turns(&mut self, tokens: usize) -> anyhow::Result<()> {
        let mut memory = large_zeroed::<u64>(READ_BYTES / 8);
        // Untouched zero pages all map to one physical page.
        memory.fill(1);
        for turn in 0..tokens.div_ceil(TURN) + 1 {
            for variant in &mut self.variants {
                for _ in 0..TURN {
                    let begin = Instant::now();
                    let logits = variant.generation.feed(&[variant.token])?;
                    variant.token = vector::argmax(logits) as u32;
                    if turn > 0 {
                        variant.milliseconds.push(1e3 * begin.elapsed().as_secs_f64());
                    }
                }
            }
            self.bandwidth = self.bandwidth.max(read_speed(self.compute, &memory));
        }
        Ok(())
    }

    /// Prints a row per variant; returns the dense model's milliseconds per token.
    fn print(&mut self) -> f64 {
        let name = self.model.file_name().unwrap_or_default().to_string_lossy();
        let (threads, vectors) = (self.compute.threads(), self.compute.vectors().name());
        println!(
            "\n{name}, {threads} threads, {vectors}: memory reads reach {:.1} GB/s\n",
            self.bandwidth
        );
        println!(
            "| zeros, of target weights | tensors, MB | ms per token | weights, GB/s \
             | of memory bandwidth | speed-up |"
        );
        println!("|---|---:|---:|---:|---:|---:|");
        let medians: Vec<f64> =
            self.variants.iter_mut().map(|v| median(&mut v.milliseconds)).collect();
        let dense_ms = medians[0];
        for (variant, ms) in self.variants.iter().zip(&medians) {
            let rate = variant.generation.weights_bytes() as f64 / ms / 1e6;
            println!(
                "| {} | {:.1} | {ms:.2} | {rate:.1} | {:.0} % | {:.2} x |",
                variant.name,
                variant.file_bytes as f64 / 1e6,
                100.0 * rate / self.bandwidth,
                dense_ms / ms,
            );
        }
        dense_ms
    }
}

/// Measures transformers and llama.cpp on the dense model and prints a row for each.
fn print_baselines(
    python: &Path,
    model: &Path,
    arguments: &Arguments,
    dense_ms: f64,
) -> anyhow::Result<()> {
    let lines = printed(
        Command::new(python)
            .arg("reference/decode_baselines.py")
            .arg(model)
            .args(["--tokens", &arguments.tokens.to_string()])
            .args(["--threads", &arguments.threads.to_string()]),
    )?;
    println!("\n| dense model, BF16 | ms per token | speed of physarium, dense |");
    println!("|---|---:|---:|");
    for line in lines.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            [name, version, ms] => {
                let ms: f64 = ms.parse().with_context(|| line.to_owned())?;
                println!("| {name} {version} | {ms:.2} | {:.2} x |", ms / dense_ms);
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

/// Prunes the model by magnitude, packs the result and returns the packed file.
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

/// GB/s at which all threads read `memory` once.
fn read_speed(compute: &Compute, memory: &[u64]) -> f64 {
    const TASK: usize = 1 << 20;
    let begin = Instant::now();
    compute.each(memory.len() / TASK, |task| {
        let words = &memory[task * TASK..(task + 1) * TASK];
        black_box(words.iter().fold(0, |all, word| all ^ word));
    });
    size_of_val(memory) as f64 / begin.elapsed().as_secs_f64() / 1e9
}
