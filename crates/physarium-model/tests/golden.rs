//! The decoder gives the results of transformers on tiny random models of each family (`reference/decoder_golden.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod families;

use std::path::{Path, PathBuf};

use physarium_checkpoint::{Map, Site};
use physarium_model::{
    Arithmetic, Buffer, Capture, Compute, Decoder, Dense, Error, Linear, PrunedInputs, Residency,
    Shown, ShownDense, Stage, StageKind, StreamPlace, Walk, Workspace, vector,
};
use serde_json::Value;

use families::MODELS;

/// Maximum error of a token's NLL, in nats.
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
fn logits(decoder: &Decoder, workspace: &Workspace<'_>, tokens: &[u32]) -> Buffer {
    let mut hidden = decoder.embedding().unwrap().of(tokens).unwrap();
    for layer in 0..decoder.config().layers() {
        decoder.layer(layer).unwrap().forward(workspace, &mut hidden);
    }
    let mut logits = Buffer::default();
    decoder.head().unwrap().logits(workspace, &hidden, &mut logits);
    logits
}

fn nll(logits: &[f32], vocabulary: usize, tokens: &[u32]) -> Vec<f64> {
    let rows = logits.chunks_exact(vocabulary).zip(&tokens[1..]);
    rows.map(|(row, next)| vector::LogSum::of(row).nll(row[*next as usize])).collect()
}

#[test]
fn every_family_matches_transformers() {
    for name in MODELS {
        let golden = golden(name);
        let decoder = Decoder::open(&golden.dir, Residency::Streamed).unwrap();
        for compute in
            [Compute::new(2).unwrap(), Compute::with_arithmetic(1, Arithmetic::F32).unwrap()]
        {
            let workspace = Workspace::new(&compute, decoder.config(), golden.tokens.len());
            let logits = logits(&decoder, &workspace, &golden.tokens);
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
fn results_do_not_depend_on_threads_or_residency() {
    for name in MODELS {
        let golden = golden(name);
        let logits_of = |residency, threads| {
            let decoder = Decoder::open(&golden.dir, residency).unwrap();
            let compute = Compute::new(threads).unwrap();
            let workspace = Workspace::new(&compute, decoder.config(), golden.tokens.len());
            let first = logits(&decoder, &workspace, &golden.tokens);
            assert!(first[..] == logits(&decoder, &workspace, &golden.tokens)[..]);
            first
        };
        let one = logits_of(Residency::Streamed, 1);
        assert!(one[..] == logits_of(Residency::Resident, 3)[..], "{name}");
    }
}

/// Records what it receives, and replaces the maps for which `change` returns another one.
struct Seen<F> {
    stages: Vec<(Vec<Site>, usize)>,
    differs: Vec<(usize, StageKind)>,
    layers: usize,
    change: F,
}

impl<F: FnMut(&Site) -> Option<Linear>> Seen<F> {
    fn new(change: F) -> Seen<F> {
        Seen { stages: vec![], differs: vec![], layers: 0, change }
    }
}

fn sites(stage: &Stage) -> Vec<Site> {
    stage.maps().iter().map(|(site, _)| site.clone()).collect()
}

impl<F: FnMut(&Site) -> Option<Linear>> Capture for Seen<F> {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        true
    }

    fn begin_layer(&mut self, layer: usize) -> Result<(), Error> {
        assert_eq!(layer, self.layers);
        Ok(())
    }

    fn inputs(&mut self, stage: &Stage, shown: Shown<'_>) -> Result<(), Error> {
        let Shown { windows, pruned, dense } = shown;
        let ShownDense { inputs: dense, outputs } = dense.unwrap();
        assert_eq!(windows, 2);
        assert_eq!(dense.len(), pruned.len());
        let (_, map) = &stage.maps()[0];
        let rows = dense.len() / map.inputs();
        // Those of the stage's only map, where the stream needs them.
        let has_outputs = stage.kind().adds_to_stream();
        assert_eq!(outputs.map(<[f32]>::len), has_outputs.then_some(rows * map.outputs()));
        self.stages.push((sites(stage), dense.len()));
        let here = (stage.layer(), stage.kind());
        if dense != pruned && self.differs.last() != Some(&here) {
            self.differs.push(here);
        }
        Ok(())
    }

    fn finish_group(&mut self) {}

    fn finish(&mut self, stage: &mut Stage) -> Result<(), Error> {
        for site in sites(stage) {
            if let Some(map) = (self.change)(&site) {
                stage.replace(&site, map);
            }
        }
        Ok(())
    }

    fn finish_layer(&mut self, layer: usize) -> Result<(), Error> {
        assert_eq!(layer, self.layers);
        self.layers += 1;
        Ok(())
    }
}

#[test]
fn a_walk_visits_every_stage_and_replaced_maps_change_the_pruned_stream_only() {
    let golden = golden("qwen3");
    let decoder = Decoder::open(&golden.dir, Residency::Streamed).unwrap();
    let compute = Compute::new(2).unwrap();
    let config = decoder.config().clone();
    let workspace = Workspace::new(&compute, &config, 48);
    let windows: Vec<&[u32]> = golden.tokens.chunks(48).collect();

    let walk = Walk {
        decoder: &decoder,
        windows: &windows,
        workspace: &workspace,
        streams: StreamPlace::Memory,
        pruned_inputs: PrunedInputs::Kept,
        stream_share: 1.0,
    };
    let mut untouched = Seen::new(|_: &Site| None);
    walk.run(config.layers(), &mut untouched).unwrap();
    assert_eq!(untouched.differs, []);
    assert_eq!(untouched.layers, config.layers());
    let mut expected = Vec::new();
    for layer in 0..config.layers() {
        for stage in config.stages() {
            let sites: Vec<Site> = stage.maps.iter().map(|shape| shape.site(layer)).collect();
            expected.push((sites, golden.tokens.len() * stage.inputs()));
        }
    }
    assert_eq!(untouched.stages, expected);
    let order = [Map::Q, Map::K, Map::V, Map::O, Map::Gate, Map::Up, Map::Down];
    let seen = expected.iter().flat_map(|(sites, _)| sites).map(|site| &site.map);
    assert!(seen.eq((0..config.layers()).flat_map(|_| &order)));

    // The o of the first layer is replaced by zeros: the pruned stream of later stages changes, that of earlier
    // ones and the dense stream do not.
    let first = Site { layer: Some(0), map: Map::O, expert: None };
    let [outputs, inputs] = [config.hidden, config.attention_width()];
    let zeros = Linear::new(outputs, inputs, Dense::F32(vec![0.0; outputs * inputs]), None);
    let mut seen = Seen::new(|site: &Site| (*site == first).then(|| zeros.clone()));
    walk.run(config.layers(), &mut seen).unwrap();
    assert_eq!(seen.stages, expected);
    assert_eq!(seen.differs.len(), 4 * config.layers() - 2);
    assert_eq!(seen.differs[0], (0, StageKind::BeforeMlp));
}
