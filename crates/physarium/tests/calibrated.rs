//! A run that is cancelled within a layer and resumed writes the bytes of an uninterrupted run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use physarium::{
    CalibrationOptions, CalibrationText, Cancel, Error, Event, MethodName, Options, Output,
    Progress, RecipeOptions, Silent, Surgery,
};

/// Raises `cancel` after this many tokens.
struct StopAfter {
    tokens: u64,
    cancel: Cancel,
}

impl Progress for StopAfter {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Tokens(tokens) = event {
            self.tokens = self.tokens.saturating_sub(tokens);
            if self.tokens == 0 {
                self.cancel.raise();
            }
        }
    }
}

fn prune(out: &Path, cancel: &Cancel, progress: &mut dyn Progress) -> Result<(), Error> {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let (model, text) = (demo.join("model"), demo.join("calibration.txt"));
    let text = CalibrationText::read(&text, None)?;
    let options = RecipeOptions {
        method: MethodName::ActivationFlow,
        sparsity: Some("0.5".parse().unwrap()),
        calibration: CalibrationOptions { tokens: Some(2048), window: Some(256), seed: Some(7) },
        skip: vec!["*.v_proj.weight".to_owned()],
        ..RecipeOptions::default()
    };
    let recipe = options.recipe(&model, Some(&text))?;
    let mut surgery = Surgery::plan(&model, recipe, Options::default())?;
    surgery.calibrate(&text)?;
    surgery.prune(Output::new(out), cancel, progress).map(|_| ())
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_resumed_run_reuses_solved_layers() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    prune(&whole, &Cancel::default(), &mut Silent).unwrap();
    // 2048 tokens pass five layers twice for gradients, then four stages of five layers. The runs are cancelled among
    // the gradients, in the first layer, in the third and in the last.
    let gradients = 2 * 5 * 2048;
    for tokens in [10_000, gradients + 3_000, gradients + 20_000, gradients + 40_000] {
        let cancel = Cancel::default();
        let mut progress = StopAfter { tokens, cancel: cancel.clone() };
        let stop = prune(&stopped, &cancel, &mut progress);
        assert!(matches!(stop, Err(Error::Interrupted { .. })), "{stop:?}");
        assert!(!stopped.exists());
    }
    let staging = dir.path().join(".stopped.physarium-partial/physarium.solved");
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 4);
    // A layer with a damaged file is solved again.
    let damaged = staging.join("layer-00001.safetensors");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    prune(&stopped, &Cancel::default(), &mut Silent).unwrap();
    assert!(files(&whole) == files(&stopped));
}

#[test]
fn a_calibration_window_out_of_range_is_refused() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let (model, text) = (demo.join("model"), CalibrationText::bundled());
    for window in [0, 1, 513] {
        let options =
            RecipeOptions { method: MethodName::ActivationFlow, ..RecipeOptions::default() };
        let recipe = options.build(Some(text.calibration(2048, window, 0))).unwrap();
        let mut surgery = Surgery::plan(&model, recipe, Options::default()).unwrap();
        let refused = surgery.calibrate(&text);
        assert!(matches!(refused, Err(Error::Usage(_))), "{window}: {refused:?}");
    }
}
