//! Gradients against autograd (`reference/sensitivity_golden.py`), and what drawn labels are.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};

use physarium_model::{
    Compute, Decoder, Error, Labels, Projection, Residency, Run, Sensitivity, sensitivities,
};
use serde_json::Value;

const MODELS: [&str; 7] =
    ["llama", "llama3-rope", "mistral", "mistral-linear", "qwen2", "qwen2-yarn", "qwen3"];
const WINDOW: usize = 48;

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn measure(name: &str, compute: &Compute, labels: Labels) -> Vec<[Sensitivity; 7]> {
    let tokens: Vec<u32> =
        serde_json::from_value(json(dir(name).join("golden.json"))["tokens"].clone()).unwrap();
    let decoder = Decoder::open(&dir(name), Residency::Streamed).unwrap();
    let run = Run::new(compute, decoder.config(), WINDOW);
    let windows: Vec<&[u32]> = tokens.chunks(WINDOW).collect();
    let mut steps = 0;
    let step = || -> Result<(), Error> {
        steps += 1;
        Ok(())
    };
    let felt = sensitivities(&decoder, &windows, &run, labels, step).unwrap();
    assert_eq!(steps, 2 * decoder.config().layers() * windows.len());
    felt
}

#[test]
fn every_family_gives_the_gradients_of_autograd() {
    for name in MODELS {
        let golden = json(dir(name).join("sensitivity.json"));
        for compute in [Compute::new(2).unwrap(), Compute::portable(1).unwrap()] {
            let layers = measure(name, &compute, Labels::Next);
            for (index, layer) in layers.iter().enumerate() {
                for (projection, found) in Projection::ALL.iter().zip(layer) {
                    let module = format!("model.layers.{index}.{}", projection.module());
                    let expected: [Vec<f64>; 2] =
                        serde_json::from_value(golden[&module].clone()).unwrap();
                    for (found, expected) in
                        [&found.inputs, &found.outputs].into_iter().zip(expected)
                    {
                        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
                        assert_eq!(found.len(), expected.len());
                        for (found, expected) in found.iter().zip(expected) {
                            let off = (found - expected).abs() / (expected + 1e-2 * mean);
                            assert!(off < 1e-3, "{name}, {module}: {found}, not {expected}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn drawn_labels_are_their_seeds_whatever_the_threads() {
    let draw =
        |seed, threads| measure("llama", &Compute::new(threads).unwrap(), Labels::Drawn { seed });
    let one = draw(1, 1);
    assert_eq!(one, draw(1, 3));
    assert_ne!(one, draw(2, 1));
}
