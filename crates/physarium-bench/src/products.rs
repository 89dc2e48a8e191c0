//! Rate of a matrix product, and the sizes of a model's products.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde_json::Value;

/// How long a product is repeated, in seconds.
const SECONDS: f64 = 0.5;

/// GFLOP/s of `product`, which does `operations` floating-point operations.
pub fn rate(operations: usize, mut product: impl FnMut()) -> f64 {
    product();
    let (began, mut times) = (Instant::now(), 0);
    while times == 0 || began.elapsed().as_secs_f64() < SECONDS {
        product();
        times += 1;
    }
    (operations * times) as f64 / began.elapsed().as_secs_f64() / 1e9
}

/// Integer fields of a model's `config.json`.
pub fn config_sizes<const N: usize>(model: &Path, fields: [&str; N]) -> anyhow::Result<[usize; N]> {
    let config: Value = serde_json::from_str(&std::fs::read_to_string(model.join("config.json"))?)?;
    let mut sizes = [0; N];
    for (size, field) in sizes.iter_mut().zip(fields) {
        *size = config[field].as_u64().with_context(|| format!("no {field}"))? as usize;
    }
    Ok(sizes)
}
