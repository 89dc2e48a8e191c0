//! What the maps that add to the residual stream are to add, where the pruned stream has fallen behind the dense one.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;

use physarium_checkpoint::{Map, Site};
use physarium_model::{
    Capture, Compute, Decoder, Dense, Error, Linear, PrunedInputs, Residency, Shown, Stage,
    StreamPlace, Walk, Workspace,
};

/// Keeps the outputs that o and down are to have, and replaces each o by zeros.
#[derive(Default)]
struct Outputs(Vec<Vec<f32>>);

impl Capture for Outputs {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        true
    }

    fn begin_layer(&mut self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn inputs(&mut self, _: &Stage, shown: Shown<'_>) -> Result<(), Error> {
        self.0.extend(shown.dense.unwrap().outputs.map(<[f32]>::to_vec));
        Ok(())
    }

    fn finish_group(&mut self) {}

    fn finish(&mut self, stage: &mut Stage) -> Result<(), Error> {
        let of_o = |(site, _): &&(Site, Linear)| site.map == Map::O;
        if let Some((site, map)) = stage.maps().iter().find(of_o).cloned() {
            let zeros = Dense::F32(vec![0.0; map.weights().len()]);
            stage.replace(&site, map.with_weights(zeros));
        }
        Ok(())
    }

    fn finish_layer(&mut self, _: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// The outputs that o and down of the first layer are to have.
fn outputs(model: &str, stream_share: f32) -> [Vec<f32>; 2] {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model);
    let decoder = &Decoder::open(&dir, Residency::Streamed).unwrap();
    let compute = Compute::new(1).unwrap();
    let workspace = &Workspace::new(&compute, decoder.config(), 40);
    let tokens: Vec<u32> = (0..40).map(|token| token * 7 % 60).collect();
    let (windows, streams) = (&[&tokens[..]][..], StreamPlace::Memory);
    let mut seen = Outputs::default();
    let pruned_inputs = PrunedInputs::Kept;
    Walk { decoder, windows, workspace, streams, pruned_inputs, stream_share }
        .run(1, &mut seen)
        .unwrap();
    let mut outputs = seen.0.into_iter();
    [(); 2].map(|()| outputs.next().unwrap())
}

#[test]
fn outputs_make_up_for_a_share_of_what_the_pruned_stream_lacks() {
    // With a bias on o and without: a bias is no part of what the weights are to do.
    for model in ["llama3-rope", "qwen3"] {
        let [o, down] = outputs(model, 0.0);
        assert!(o.iter().any(|y| *y != 0.0));
        for share in [0.25, 1.0] {
            let [same, more] = outputs(model, share);
            let close =
                |found: f32, wanted: f32| (found - wanted).abs() < 1e-5 * (1.0 + wanted.abs());
            // Before the first o nothing is pruned; then all that it would have added is missing.
            assert!(same.iter().zip(&o).all(|(same, o)| close(*same, *o)), "{model}");
            for ((more, down), o) in more.iter().zip(&down).zip(&o) {
                assert!(
                    close(*more, down + share * o),
                    "{model}: {more}, not {down} + {share} · {o}"
                );
            }
        }
    }
}

#[test]
fn outputs_that_are_normalised_make_up_for_a_share_too() {
    let [o, down] = outputs("gemma3", 0.0);
    let [_, whole] = outputs("gemma3", 1.0);
    let [same, quarter] = outputs("gemma3", 0.25);
    assert!(same.iter().zip(&o).all(|(same, o)| (same - o).abs() < 1e-5 * (1.0 + o.abs())));
    let mut along = 0.0;
    for ((whole, quarter), (down, o)) in whole.iter().zip(&quarter).zip(down.iter().zip(&o)) {
        let (all, part) = (whole - down, quarter - down);
        assert!((all - 4.0 * part).abs() < 1e-4 * (1.0 + all.abs()), "{all}, {part}");
        along += all * o;
    }
    // What o would have added is missing.
    assert!(along > 0.0, "{along}");
}
