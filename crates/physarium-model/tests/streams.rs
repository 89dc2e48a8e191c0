//! Residual streams in a file give the same activations as those in memory, and inputs that are kept the same as those that
//! are computed twice, bit for bit. A file leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use physarium_checkpoint::{ErrorKind, Map, Site};
use physarium_model::{
    Capture, Compute, Decoder, Dense, Error, Linear, PrunedInputs, Residency, Shown, Stage,
    StreamPlace, Walk, Workspace,
};

/// Tokens of a walk: two batches of windows.
const TOKENS: u32 = 2731;

/// Keeps all inputs, and replaces each o by zeros.
struct Inputs<F> {
    wants_dense: bool,
    all: Vec<Vec<u32>>,
    /// Called before each layer.
    before: F,
}

impl<F: FnMut(usize)> Capture for Inputs<F> {
    type Error = Error;

    fn wants_dense(&self) -> bool {
        self.wants_dense
    }

    fn begin_layer(&mut self, layer: usize) -> Result<(), Error> {
        (self.before)(layer);
        Ok(())
    }

    fn inputs(&mut self, _: &Stage, shown: Shown<'_>) -> Result<(), Error> {
        let Shown { pruned, dense, .. } = shown;
        assert_eq!(dense.is_some(), self.wants_dense);
        let bits = |inputs: &[f32]| inputs.iter().map(|input| input.to_bits()).collect();
        self.all.extend(dense.map(|dense| bits(dense.inputs)));
        self.all.extend(dense.and_then(|dense| dense.outputs).map(bits));
        self.all.push(bits(pruned));
        Ok(())
    }

    fn finish_group(&mut self) {}

    fn finish(&mut self, stage: &mut Stage) -> Result<(), Error> {
        let sites = stage.maps().iter().map(|(site, map)| (site.clone(), map.clone()));
        let of_o = |(site, _): &(Site, Linear)| site.map == Map::O;
        if let Some((site, map)) = sites.into_iter().find(of_o) {
            let zeros = Dense::F32(vec![0.0; map.weights().len()]);
            stage.replace(&site, map.with_weights(zeros));
        }
        Ok(())
    }

    fn finish_layer(&mut self, _: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// The inputs of a walk in batches of windows of different lengths.
fn walk(
    (streams, pruned_inputs): (StreamPlace<'_>, PrunedInputs),
    threads: usize,
    wants_dense: bool,
    before: impl FnMut(usize),
) -> Result<Vec<Vec<u32>>, Error> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/qwen3");
    let decoder = Decoder::open(&dir, Residency::Streamed)?;
    let compute = Compute::new(threads).unwrap();
    let workspace = Workspace::new(&compute, decoder.config(), 900);
    let tokens: Vec<u32> = (0..TOKENS).map(|token| token * 7 % 60).collect();
    let windows: Vec<&[u32]> = tokens.chunks(900).collect();
    let mut inputs = Inputs { wants_dense, all: Vec::new(), before };
    let (decoder, windows, workspace) = (&decoder, &windows[..], &workspace);
    let stream_share = 0.5;
    let layers = decoder.config().layers();
    Walk { decoder, windows, workspace, streams, pruned_inputs, stream_share }
        .run(layers, &mut inputs)?;
    Ok(inputs.all)
}

#[test]
fn a_file_gives_the_same_bits_as_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("streams"), dir.path().join("other"));
    fs::write(&other, "kept").unwrap();
    for wants_dense in [false, true] {
        let expected =
            walk((StreamPlace::Memory, PrunedInputs::Kept), 1, wants_dense, |_| ()).unwrap();
        for threads in [1, 2, 5] {
            // What a killed run left, or a link, is not used.
            fs::write(&path, "torn").unwrap();
            if threads == 2 {
                fs::remove_file(&path).unwrap();
                symlink(&other, &path).unwrap();
            }
            let mut sizes = Vec::new();
            let size = |_: usize| sizes.push(path.symlink_metadata().unwrap().len());
            let place = (StreamPlace::File(&path), PrunedInputs::ComputedTwice);
            let found = walk(place, threads, wants_dense, size).unwrap();
            assert!(found == expected, "{threads} threads, dense stream: {wants_dense}");
            let hidden = 32;
            let bytes = u64::from(TOKENS) * hidden * 4 * if wants_dense { 2 } else { 1 };
            assert!(sizes.iter().all(|size| *size == bytes), "{sizes:?}, not {bytes}");
            assert!(path.symlink_metadata().is_err());
            assert_eq!(fs::read(&other).unwrap(), b"kept");
        }
    }
}

#[test]
fn bytes_that_others_changed_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streams");
    for threads in [1, 2] {
        let change = |layer: usize| {
            if layer == 1 {
                let mut bytes = fs::read(&path).unwrap();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        };
        let error = walk((StreamPlace::File(&path), PrunedInputs::Kept), threads, false, change)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Output);
        let error = error.to_string();
        assert!(error.contains("streams: scratch file of this run, "), "{error}");
        assert!(error.contains("found other bytes"), "{error}");
        assert!(!path.exists());
    }
}
