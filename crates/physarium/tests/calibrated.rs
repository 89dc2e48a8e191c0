//! Killed in the middle of a layer and continued: the bytes of an undisturbed run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use physarium::{
    CalibrationOptions, CalibrationText, Cancel, Error, Event, MethodName, Options, Output,
    Progress, RecipeOptions, Silent, Surgery,
};

/// Raises a token once so many tokens are done.
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
fn a_run_stopped_in_a_layer_goes_on_with_the_layers_that_are_solved() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    prune(&whole, &Cancel::default(), &mut Silent).unwrap();
    // 2048 tokens; gradients pass five layers twice, then there are four stages of five layers: stopped among
    // the gradients, in the first layer, the third and the last.
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
    // A layer's file that is torn or forged is solved again.
    let torn = staging.join("layer-00001.safetensors");
    let mut bytes = fs::read(&torn).unwrap();
    bytes[100] ^= 1;
    fs::write(&torn, bytes).unwrap();
    prune(&stopped, &Cancel::default(), &mut Silent).unwrap();
    assert!(files(&whole) == files(&stopped));
}
