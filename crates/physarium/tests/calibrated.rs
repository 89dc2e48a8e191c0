//! A run that is cancelled within a layer and resumed writes the bytes of an uninterrupted run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use physarium::{
    CalibrationOptions, CalibrationText, Cancel, Error, Event, Kept, MethodName, Options, Output,
    Progress, RecipeOptions, Silent, Surgery,
};

/// Raises `cancel` after this many steps of the work on layers.
struct StopAfter {
    steps: u64,
    cancel: Cancel,
}

impl Progress for StopAfter {
    fn event(&mut self, event: Event<'_>) {
        if let Event::LayerStep = event {
            self.steps -= 1;
            if self.steps == 0 {
                self.cancel.raise();
            }
        }
    }
}

/// Layers that are said to be kept of an interrupted run.
#[derive(Default)]
struct KeptLayers(usize);

impl Progress for KeptLayers {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Resumed { kept: Kept::Layers, count, of } = event {
            assert_eq!(of, 5);
            self.0 += count;
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
    // Eight windows pass five layers twice for gradients, then four stages of five layers. The runs are cancelled among
    // the gradients, in the first layer, in the third and in the last.
    let gradients = 2 * 5 * 8;
    for steps in [40, gradients + 12, gradients + 79, gradients + 157] {
        let cancel = Cancel::default();
        let mut progress = StopAfter { steps, cancel: cancel.clone() };
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
    let mut kept = KeptLayers::default();
    prune(&stopped, &Cancel::default(), &mut kept).unwrap();
    // What is said to be kept is kept: not the damaged layer, nor the last, which was not solved.
    assert_eq!(kept.0, 3);
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
