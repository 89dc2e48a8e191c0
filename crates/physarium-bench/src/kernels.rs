//! `cargo xtask bench kernels`: float32 products on one core, against the `gemm` crate.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use physarium_kernels::{Arithmetic, Compute, Left, Output, Right, VectorKind};

use crate::gemm::{self, Strided};

#[derive(Args)]
pub struct Arguments {
    /// Seconds for each product; both ways alternate, and the fastest of each counts
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
}

/// How the right factor is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    AsIs,
    Transposed,
}

/// A product of the solver, of a map or of attention: rows, depth, columns.
type Case = (&'static str, [usize; 3], Stored);

const CASES: [Case; 10] = [
    ("square", [576, 576, 576], Stored::Transposed),
    ("square", [1536, 1536, 1536], Stored::Transposed),
    ("step of a solve", [192, 576, 576], Stored::Transposed),
    ("step of a solve", [192, 1536, 1536], Stored::Transposed),
    ("demand of a solve", [192, 1536, 1536], Stored::AsIs),
    ("block of a map", [256, 1536, 256], Stored::Transposed),
    ("up of 256 tokens", [256, 1536, 8960], Stored::Transposed),
    ("down of 256 tokens", [256, 8960, 1536], Stored::Transposed),
    ("scores", [128, 64, 1024], Stored::Transposed),
    ("mixed values", [128, 1024, 64], Stored::AsIs),
];

/// Measures each product on AVX2 and AVX-512 and prints a table.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut kinds = VectorKind::available();
    kinds.retain(|kind| *kind != VectorKind::Portable);
    ensure!(!kinds.is_empty(), "expected a processor with AVX2 or AVX-512");
    println!(
        "| product | rows x depth x columns | instructions | gemm, GFLOP/s | own, GFLOP/s | own is |"
    );
    println!("|---|---|---|---:|---:|---:|");
    for (name, shape, stored) in CASES {
        let [rows, depth, cols] = shape;
        for kind in &kinds {
            let [baseline, own] = times(*kind, shape, stored, arguments.seconds)?;
            let rate = |time: Duration| 2e-9 * (rows * depth * cols) as f64 / time.as_secs_f64();
            println!(
                "| {name} | {rows} x {depth} x {cols} | {} | {:.0} | {:.0} | {:.2} x |",
                kind.name(),
                rate(baseline),
                rate(own),
                baseline.as_secs_f64() / own.as_secs_f64()
            );
        }
    }
    Ok(())
}

/// The shortest times of the `gemm` crate and of our product.
fn times(
    kind: VectorKind,
    [rows, depth, cols]: [usize; 3],
    stored: Stored,
    seconds: f64,
) -> anyhow::Result<[Duration; 2]> {
    let compute = Compute::with_arithmetic(1, Arithmetic::F32)?.with_vectors(kind);
    let number = |index: usize| ((index * 7919) % 10_007) as f32 / 5000.0 - 1.0;
    let left: Vec<f32> = (0..rows * depth).map(number).collect();
    let right: Vec<f32> = (0..depth * cols).map(number).collect();
    let mut out = vec![0.0; rows * cols];
    let mut best = [Duration::MAX; 2];
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < seconds {
        let begin = Instant::now();
        let strides = if stored == Stored::Transposed { [1, depth] } else { [cols, 1] };
        let factors =
            [Strided { data: &left, strides: [depth, 1] }, Strided { data: &right, strides }];
        gemm::product(kind, [rows, depth, cols], factors, black_box(&mut out));
        best[0] = best[0].min(begin.elapsed());
        let begin = Instant::now();
        let data = &right[..];
        let right = match stored {
            Stored::Transposed => Right::Transposed { data, stride: depth },
            Stored::AsIs => Right::AsIs { data, stride: cols },
        };
        let result = Output { data: black_box(&mut out), stride: cols };
        compute.multiply([rows, depth, cols], Left { data: &left, stride: depth }, right, result);
        best[1] = best[1].min(begin.elapsed());
    }
    Ok(best)
}
