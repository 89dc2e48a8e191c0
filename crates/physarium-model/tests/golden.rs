//! The decoder against transformers, on tiny random models of each family (`reference/decoder_golden.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::{Path, PathBuf};

use physarium_model::{
    Buffer, Capture, Compute, Decoder, Dense, Error, Layer, Linear, Place, Projection, Residency,
    Run, Stage, vector, walk,
};
use serde_json::Value;

const MODELS: [&str; 7] =
    ["llama", "llama3-rope", "mistral", "mistral-linear", "qwen2", "qwen2-yarn", "qwen3"];
/// Nats that a token's NLL may be off.
const TOLERANCE: f64 = 1e-4;

struct Golden {
    dir: PathBuf,
    tokens: Vec<u32>,
    nll: Vec<f64>,
    last_logits: Vec<f64>,
}

fn golden(name: &str) -> Golden {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let numbers = |field: &str| -> Vec<f64> {
        golden[field].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
    };
    let tokens = numbers("tokens").into_iter().map(|n| n as u32).collect();
    Golden { tokens, nll: numbers("nll"), last_logits: numbers("last_logits"), dir }
}

/// Logits `[tokens, vocabulary]` of a window.
fn logits(decoder: &Decoder, run: &Run<'_>, tokens: &[u32]) -> Buffer {
    let mut hidden = decoder.embed(tokens).unwrap();
    for layer in 0..decoder.config().layers() {
        decoder.layer(layer).unwrap().forward(run, &mut hidden);
    }
    let mut logits = Buffer::default();
    decoder.head().unwrap().logits(run, &hidden, &mut logits);
    logits
}

fn nll(logits: &[f32], vocabulary: usize, tokens: &[u32]) -> Vec<f64> {
    let rows = logits.chunks_exact(vocabulary).zip(&tokens[1..]);
    rows.map(|(row, next)| vector::LogSum::of(row).nll(row[*next as usize])).collect()
}

#[test]
fn every_family_gives_the_numbers_of_transformers() {
    for name in MODELS {
        let golden = golden(name);
        let decoder = Decoder::open(&golden.dir, Residency::Streamed).unwrap();
        for compute in [Compute::new(2).unwrap(), Compute::portable(1).unwrap()] {
            let run = Run::new(&compute, decoder.config(), golden.tokens.len());
            let logits = logits(&decoder, &run, &golden.tokens);
            let vocabulary = decoder.config().vocabulary;
            let found = nll(&logits, vocabulary, &golden.tokens);
            assert_eq!(found.len(), golden.nll.len());
            for (at, (found, expected)) in found.iter().zip(&golden.nll).enumerate() {
                let off = (found - expected).abs();
                assert!(
                    off < TOLERANCE,
                    "{name}, token {at}, {compute:?}: {found}, not {expected}"
                );
            }
            let last = &logits[logits.len() - vocabulary..];
            for (found, expected) in last.iter().zip(&golden.last_logits) {
                assert!((f64::from(*found) - expected).abs() < 1e-3, "{name}: {found} {expected}");
            }
        }
    }
}

#[test]
fn threads_and_residency_change_no_bit() {
    for name in MODELS {
        let golden = golden(name);
        let logits_of = |residency, threads| {
            let decoder = Decoder::open(&golden.dir, residency).unwrap();
            let compute = Compute::new(threads).unwrap();
            let run = Run::new(&compute, decoder.config(), golden.tokens.len());
            let first = logits(&decoder, &run, &golden.tokens);
            assert!(first[..] == logits(&decoder, &run, &golden.tokens)[..]);
            first
        };
        let one = logits_of(Residency::Streamed, 1);
        assert!(one[..] == logits_of(Residency::Resident, 3)[..], "{name}");
    }
}

/// Keeps what it sees, and replaces maps by what `change` makes of them.
struct Seen<F> {
    places: Vec<(Place, usize)>,
    differs: Vec<Place>,
    change: F,
}

impl<F: FnMut(Projection) -> Option<Linear>> Capture for Seen<F> {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        true
    }

    fn inputs(&mut self, place: Place, dense: Option<&[f32]>, pruned: &[f32]) -> Result<(), Error> {
        let dense = dense.unwrap();
        assert_eq!(dense.len(), pruned.len());
        self.places.push((place, dense.len()));
        if dense != pruned && self.differs.last() != Some(&place) {
            self.differs.push(place);
        }
        Ok(())
    }

    fn finish(&mut self, place: Place, pruned: &mut Layer) -> Result<(), Error> {
        for projection in place.stage.projections() {
            if let Some(map) = (self.change)(*projection) {
                pruned.replace(*projection, map);
            }
        }
        Ok(())
    }
}

#[test]
fn a_walk_shows_each_stage_and_the_pruned_stream_follows_what_is_replaced() {
    let golden = golden("qwen3");
    let decoder = Decoder::open(&golden.dir, Residency::Streamed).unwrap();
    let compute = Compute::new(2).unwrap();
    let config = decoder.config().clone();
    let run = Run::new(&compute, &config, 48);
    let windows: Vec<&[u32]> = golden.tokens.chunks(48).collect();

    let mut untouched = Seen { places: vec![], differs: vec![], change: |_| None };
    walk(&decoder, &windows, &run, &mut untouched).unwrap();
    assert_eq!(untouched.differs, []);
    let mut expected = Vec::new();
    for layer in 0..config.layers() {
        for stage in Stage::ALL {
            let len = 48 * stage.inputs(&config);
            expected.extend([(Place { layer, stage }, len); 2]);
        }
    }
    assert_eq!(untouched.places, expected);

    // A map of nought in place of the first layer's o: what comes after sees another stream, what is
    // up to there does not, and the dense stream stays.
    let mut times = 0;
    let change = |projection| {
        let [outputs, inputs] = Projection::O.shape(&config);
        let zeros = Dense::F32(vec![0.0; outputs * inputs]);
        times += usize::from(projection == Projection::O);
        let first = projection == Projection::O && times == 1;
        first.then(|| Linear::new(outputs, inputs, zeros, None))
    };
    let mut seen = Seen { places: vec![], differs: vec![], change };
    walk(&decoder, &windows, &run, &mut seen).unwrap();
    assert_eq!(seen.places, expected);
    assert_eq!(seen.differs.len(), 4 * config.layers() - 2);
    assert_eq!(seen.differs[0], Place { layer: 0, stage: Stage::GateUp });
}
