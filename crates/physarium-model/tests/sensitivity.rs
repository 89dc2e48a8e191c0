//! Gradients against autograd (`reference/sensitivity_golden.py`), and how labels are sampled.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod families;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use physarium_checkpoint::{Named, Site};
use physarium_model::{
    Arithmetic, Compute, Decoder, Error, GradientPass, Labelled, Labels, Residency, Sensitivity,
    StreamPlace, Workspace,
};
use serde_json::Value;

use families::MODELS;

const WINDOW: usize = 48;

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn measure(name: &str, compute: &Compute, labels: Labels) -> BTreeMap<Site, Sensitivity> {
    measure_with(StreamPlace::Memory, name, compute, labels)
}

fn measure_with(
    streams: StreamPlace<'_>,
    name: &str,
    compute: &Compute,
    labels: Labels,
) -> BTreeMap<Site, Sensitivity> {
    let tokens: Vec<u32> =
        serde_json::from_value(json(dir(name).join("golden.json"))["tokens"].clone()).unwrap();
    let decoder = Decoder::open(&dir(name), Residency::Streamed).unwrap();
    let workspace = Workspace::new(compute, decoder.config(), WINDOW);
    let windows: Vec<&[u32]> = tokens.chunks(WINDOW).collect();
    let mut steps = 0;
    let step = |windows| -> Result<(), Error> {
        steps += windows;
        Ok(())
    };
    let text = Labelled { windows: &windows, labels };
    let pass = GradientPass { decoder: &decoder, text, workspace: &workspace, streams };
    let found = pass.run(step).unwrap();
    assert_eq!(steps, 2 * decoder.config().layers() * windows.len());
    found
}

#[test]
fn every_family_matches_autograd() {
    for name in MODELS {
        let golden = json(dir(name).join("sensitivity.json"));
        for compute in
            [Compute::new(2).unwrap(), Compute::with_arithmetic(1, Arithmetic::F32).unwrap()]
        {
            let all = measure(name, &compute, Labels::Next);
            let golden = golden.as_object().unwrap();
            assert_eq!(all.len(), golden.len());
            for (module, expected) in golden {
                let found = &all[&Named::of(&format!("{module}.weight")).site];
                let expected: [Vec<f64>; 2] = serde_json::from_value(expected.clone()).unwrap();
                for (found, expected) in [&found.inputs, &found.outputs].into_iter().zip(expected) {
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

#[test]
fn streams_in_a_file_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streams");
    std::fs::write(&path, "what a killed run left").unwrap();
    for threads in [1, 2] {
        let compute = Compute::new(threads).unwrap();
        let expected = measure("qwen3", &compute, Labels::Next);
        let found = measure_with(StreamPlace::File(&path), "qwen3", &compute, Labels::Next);
        assert_eq!(found, expected);
        assert!(!path.exists());
    }
}

#[test]
fn sampled_labels_depend_on_the_seed_and_not_on_threads() {
    let draw =
        |seed, threads| measure("llama", &Compute::new(threads).unwrap(), Labels::Drawn { seed });
    let one = draw(1, 1);
    assert_eq!(one, draw(1, 3));
    assert_ne!(one, draw(2, 1));
}
