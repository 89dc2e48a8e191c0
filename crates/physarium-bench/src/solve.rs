//! `cargo xtask bench solve`: prunes tiles in memory on one core.

use std::time::Instant;

use clap::Args;
use physarium_fixtures::{Kind, Noise};
use physarium_flow::{Census, Conductance, FloatFormat, FlowParams, TileView, apply_cut};

#[derive(Args)]
pub struct Arguments {
    /// Size of the weights per format, in MB
    #[arg(long, default_value_t = 256)]
    megabytes: usize,
}

/// Side length of a tile.
const EDGE: usize = 256;

/// Measures each format and prints a table.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let formats = [
        (Kind::Bf16, FloatFormat::Bf16),
        (Kind::F16, FloatFormat::F16),
        (Kind::F32, FloatFormat::F32),
    ];
    println!("| format | copy GB/s | prune GB/s, one core | pruned | ratio to copy |");
    println!("|---|---:|---:|---:|---:|");
    for (kind, format) in formats {
        let tile_bytes = EDGE * EDGE * format.size_bytes();
        let tiles = 2 * (arguments.megabytes * 1_000_000 / tile_bytes / 2).max(1);
        let mut weights = Vec::with_capacity(tiles * tile_bytes);
        Noise::new(1).write(&mut weights, kind, (tiles * EDGE * EDGE) as u64)?;
        let begin = Instant::now();
        let mut copy = weights.clone();
        let copied = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let pruned = prune(&mut copy, format);
        let solved = begin.elapsed().as_secs_f64();
        let gigabytes = weights.len() as f64 / 1e9;
        println!(
            "| {} | {:.2} | {:.2} | {:.2} % of weights | {:.1} |",
            kind.name(),
            gigabytes / copied,
            gigabytes / solved,
            100.0 * pruned as f64 / (tiles * EDGE * EDGE) as f64,
            solved / copied,
        );
    }
    Ok(())
}

/// Prunes tiles in place with the default flow, two at once as the engine does. Returns the number of
/// pruned weights.
fn prune(weights: &mut [u8], format: FloatFormat) -> u64 {
    let params = FlowParams::new(
        FlowParams::DEFAULT_ITERATIONS,
        FlowParams::DEFAULT_BETA,
        FlowParams::DEFAULT_INFLOW,
    )
    .expect("the defaults are valid");
    let (mut first, mut second) = (Census::default(), Census::default());
    let mut conductance = Conductance::default();
    let stride = EDGE * format.size_bytes();
    let mut pruned = 0;
    for tiles in weights.chunks_exact_mut(2 * EDGE * stride) {
        let (left, right) = tiles.split_at_mut(EDGE * stride);
        let view = |tile| TileView::new(tile, format, [EDGE, EDGE], stride);
        let magnitudes = [first.take(&view(left)), second.take(&view(right))];
        let [a, b] = conductance.cuts(magnitudes, format, params);
        pruned += apply_cut(left, format, a, 0).pruned + apply_cut(right, format, b, 0).pruned;
    }
    pruned
}
