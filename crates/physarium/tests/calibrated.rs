//! A run that is cancelled within a layer and resumed writes the bytes of an uninterrupted run.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use physarium::{
    CalibrationOptions, CalibrationText, Cancel, Error, Event, Kept, MethodName, Options, Output,
    Progress, RecipeOptions, Silent, Strictness, Surgery, checkpoint::Checkpoint,
};

/// Raises `cancel` after this many steps of the work on layers.
struct StopAfter {
    steps: u64,
    cancel: Cancel,
}

impl Progress for StopAfter {
    fn event(&mut self, event: Event<'_>) {
        if let Event::LayerStep = event {
            // Windows of a batch are told of together.
            self.steps = self.steps.saturating_sub(1);
            if self.steps == 0 {
                self.cancel.raise();
            }
        }
    }
}

/// When a run is cancelled.
enum Stop {
    AfterSteps(u64),
    AtShard,
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

/// Files of solved layers.
fn layer_files(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("layer-")).count()
}

#[test]
fn a_resumed_run_reuses_solved_layers() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    prune(&whole, &Cancel::default(), &mut Silent).unwrap();
    // Eight windows pass five layers twice for gradients, then four stages of five layers. The runs are cancelled among
    // the gradients, in the first layer, in the third and in the last. Gradients are measured once.
    let gradients = 2 * 5 * 8;
    for steps in [40, gradients + 12, 79, 157] {
        let cancel = Cancel::default();
        let mut progress = StopAfter { steps, cancel: cancel.clone() };
        let stop = prune(&stopped, &cancel, &mut progress);
        assert!(matches!(stop, Err(Error::Interrupted { .. })), "{stop:?}");
        assert!(!stopped.exists());
    }
    let staging = dir.path().join(".stopped.physarium-partial/physarium.solved");
    assert_eq!(layer_files(&staging), 4);
    // A layer with a damaged file is solved again, and so are gradients measured.
    let damaged = staging.join("layer-00001.safetensors");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let budget = fs::read_to_string(staging.join("budget.json")).unwrap();
    let changed = budget.replacen("\"zeros\":", "\"zeros\":1", 1);
    assert_ne!(budget, changed);
    fs::write(staging.join("budget.json"), changed).unwrap();
    let mut kept = KeptLayers::default();
    prune(&stopped, &Cancel::default(), &mut kept).unwrap();
    // What is said to be kept is kept: not the damaged layer, nor the last, which was not solved.
    assert_eq!(kept.0, 3);
    assert!(files(&whole) == files(&stopped));
}

/// Raises `cancel` once a shard is written, and remembers whether layers were computed.
#[derive(Default)]
struct StopAtShard {
    cancel: Cancel,
    computed: bool,
    kept: KeptLayers,
}

impl Progress for StopAtShard {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Shard(_) => self.cancel.raise(),
            Event::LayersStarted { .. } => self.computed = true,
            other => self.kept.event(other),
        }
    }
}

/// Solved weights are removed with the last shard that holds them; those that are left are enough to write the others.
#[test]
fn solved_layers_are_removed_with_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    prune(&whole, &Cancel::default(), &mut Silent).unwrap();
    let mut first = StopAtShard::default();
    let stop = prune(&stopped, &first.cancel.clone(), &mut first);
    assert!(matches!(stop, Err(Error::Interrupted { .. })), "{stop:?}");
    assert!(first.computed);
    let staging = dir.path().join(".stopped.physarium-partial");
    let left = layer_files(&staging.join("physarium.solved"));
    assert!((1..5).contains(&left), "{left} files");

    let copy = |name: &str| {
        let to = dir.path().join(format!(".{name}.physarium-partial"));
        fs::create_dir_all(to.join("physarium.solved")).unwrap();
        for from in [staging.clone(), staging.join("physarium.solved")] {
            for entry in fs::read_dir(from).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::copy(&path, to.join(path.strip_prefix(&staging).unwrap())).unwrap();
                }
            }
        }
        (dir.path().join(name), to)
    };
    // Nothing is computed again.
    let mut rest = StopAtShard::default();
    let (out, _) = copy("resumed");
    prune(&out, &Cancel::default(), &mut rest).unwrap();
    assert!(!rest.computed);
    assert_eq!(rest.kept.0, left);
    assert!(files(&whole) == files(&out));

    // A damaged shard is written again: its layers are solved anew, the others are kept.
    let (out, staging) = copy("damaged");
    let shard = staging.join("model-00001-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let mut again = StopAtShard::default();
    prune(&out, &Cancel::default(), &mut again).unwrap();
    assert!(again.computed);
    assert_eq!(again.kept.0, left);
    assert!(files(&whole) == files(&out));
}

/// A copy of the demo model in which 51 inputs of gate and up of a layer are zero for every token.
fn with_dead_inputs(dir: &Path, layer: usize) -> PathBuf {
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
    for entry in fs::read_dir(demo).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let checkpoint = Checkpoint::open(&model).unwrap();
    let name = format!("model.layers.{layer}.post_attention_layernorm.weight");
    let (shard, norm) = checkpoint.tensors().find(|(_, tensor)| tensor.name == name).unwrap();
    let mut bytes = fs::read(&shard.path).unwrap();
    let width = (norm.size_bytes() / norm.elements) as usize;
    bytes[norm.begin as usize..][..51 * width].fill(0);
    fs::write(&shard.path, bytes).unwrap();
    model
}

/// Prunes with Wanda until it is to stop, and returns how that ended and after how many steps.
fn prune_strictly(
    model: &Path,
    out: &Path,
    strictness: Strictness,
    stop: Stop,
) -> (Result<(), Error>, u64) {
    let text = CalibrationText::bundled();
    let options = RecipeOptions {
        method: MethodName::Wanda,
        sparsity: Some("0.5".parse().unwrap()),
        calibration: CalibrationOptions { tokens: Some(1024), window: Some(256), seed: None },
        ..RecipeOptions::default()
    };
    let recipe = options.recipe(model, Some(&text)).unwrap();
    let options = Options { strictness, ..Options::default() };
    let mut surgery = Surgery::plan(model, recipe, options).unwrap();
    surgery.calibrate(&text).unwrap();
    let Stop::AfterSteps(steps) = stop else {
        let mut progress = StopAtShard::default();
        let ended = surgery.prune(Output::new(out), &progress.cancel.clone(), &mut progress);
        return (ended.map(|_| ()), 0);
    };
    let cancel = Cancel::default();
    let mut progress = StopAfter { steps, cancel: cancel.clone() };
    let ended = surgery.prune(Output::new(out), &cancel, &mut progress).map(|_| ());
    (ended, steps - progress.steps)
}

/// `--strict` ends a run at the stage with dead inputs, before that is solved; also a resumed one, whose layers another
/// run can still resume.
#[test]
fn strict_refuses_dead_inputs_as_soon_as_they_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_dead_inputs(dir.path(), 2);
    let run = |out: &Path, strictness, stop| prune_strictly(&model, out, strictness, stop);
    let (out, staging) = (dir.path().join("out"), dir.path().join(".out.physarium-partial"));
    // Four windows pass four stages of each layer; gate and up are in the third.
    let (ended, steps) = run(&out, Strictness::Refuse, Stop::AfterSteps(1000));
    let error = ended.unwrap_err();
    let said = "51 of 128 inputs are always zero on the calibration text";
    assert!(matches!(error, Error::DeadInputs { resumed: false, .. }), "{error}");
    assert!(error.to_string().contains(said) && error.to_string().contains("layers.2.mlp.gate"));
    assert_eq!(steps, 4 * (4 + 4 + 3));
    assert!(!staging.exists() && !out.exists());
    // Stopped in the last layer.
    let (ended, _) = run(&out, Strictness::Skip, Stop::AfterSteps(4 * (4 * 4 + 1)));
    assert!(matches!(ended, Err(Error::Interrupted { .. })), "{ended:?}");
    let (ended, steps) = run(&out, Strictness::Refuse, Stop::AfterSteps(1000));
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::DeadInputs { resumed: true, .. }), "{error}");
    assert_eq!(steps, 4 * (4 + 4));
    assert!(staging.join("physarium.solved/layer-00003.safetensors").exists());
    run(&out, Strictness::Skip, Stop::AfterSteps(1000)).0.unwrap();
}

/// Also if they are in a shard that another run has written, whose solved layers are removed.
#[test]
fn strict_refuses_dead_inputs_of_written_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (with_dead_inputs(dir.path(), 0), dir.path().join("out"));
    let (ended, _) = prune_strictly(&model, &out, Strictness::Skip, Stop::AtShard);
    assert!(matches!(ended, Err(Error::Interrupted { .. })), "{ended:?}");
    let solved = dir.path().join(".out.physarium-partial/physarium.solved");
    assert!(solved.exists() && !solved.join("layer-00000.safetensors").exists());
    let error = prune_strictly(&model, &out, Strictness::Refuse, Stop::AtShard).0.unwrap_err();
    assert!(matches!(error, Error::DeadInputs { resumed: true, .. }), "{error}");
    prune_strictly(&model, &out, Strictness::Skip, Stop::AfterSteps(1000)).0.unwrap();
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
