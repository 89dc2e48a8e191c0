//! Prunes one tensor in memory with the library's maths: `cargo run --example prune_one_tensor`.

use physarium::flow::{Census, Conductance, FloatFormat, FlowParams, TileView, apply_cut};

fn main() -> Result<(), String> {
    // 64 x 64 weights whose magnitudes fall off like 1/n, as little-endian binary32.
    let (rows, cols) = (64, 64);
    let format = FloatFormat::F32;
    let mut weights: Vec<u8> =
        (1..=rows * cols).flat_map(|n| (1.0 / n as f32).to_le_bytes()).collect();

    let params = FlowParams::new(30, 2.0, FlowParams::DEFAULT_INFLOW)?;
    let tile = TileView::new(&weights, format, [rows, cols], cols * format.size_bytes());
    let mut census = Census::default();
    let [cut] = Conductance::default().cuts([census.take(&tile)], format, params);
    let counts = apply_cut(&mut weights, format, cut, 0);

    let line = format.magnitude(cut.below);
    let text = format!("{} of {} weights died: all below {line:.6}", counts.pruned, rows * cols);
    eprintln!("{text}");
    Ok(())
}
