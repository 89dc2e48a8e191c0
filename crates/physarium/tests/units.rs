//! A run as units of work gives the bytes of a run in one process, for every method, in any order, on any number of processes;
//! what does not fit the plan is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use physarium::checkpoint::{ErrorKind, Overwrite};
use physarium::{
    Allocation, CalibrationOptions, CalibrationText, Cancel, Error, Event, MemoryLimit, MethodName,
    Options, Output, Progress, RecipeOptions, ScopeName, Share, Silent, Surgery, Unit, UnitEnded,
    WorkPlan, Worker, Workplace,
};

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../demo/model")
}

/// A method with half of the weights pruned, on two groups of windows where it is activation-aware.
fn options(method: MethodName) -> RecipeOptions {
    let is_calibrated = !matches!(method, MethodName::MagnitudeFlow | MethodName::Magnitude);
    let calibration = match is_calibrated {
        true => CalibrationOptions { tokens: Some(9216), window: Some(256), seed: Some(7) },
        false => CalibrationOptions::default(),
    };
    let sparsity = Some("0.5".parse().unwrap());
    RecipeOptions { method, sparsity, calibration, ..RecipeOptions::default() }
}

fn surgery(model: &Path, options: &RecipeOptions) -> Surgery {
    let text = CalibrationText::bundled();
    let recipe = options.recipe(model, Some(&text)).unwrap();
    let is_calibrated = recipe.needs().calibration.is_some();
    let mut surgery = Surgery::plan(model, recipe, Options::default()).unwrap();
    if is_calibrated {
        surgery.calibrate(&text).unwrap();
    }
    surgery
}

/// Writes the plan of a run into `out`, and returns its path.
fn plan(model: &Path, options: &RecipeOptions, out: &Path) -> PathBuf {
    try_plan(model, options, (out, Overwrite::Refuse)).unwrap()
}

fn try_plan(
    model: &Path,
    options: &RecipeOptions,
    (out, overwrite): (&Path, Overwrite),
) -> Result<PathBuf, Error> {
    let surgery = surgery(model, options);
    let plan = WorkPlan::new(&surgery, (out, overwrite), &Cancel::default(), &mut Silent)?;
    let path = out.with_extension("plan.json");
    fs::write(&path, plan.encode()).unwrap();
    Ok(path)
}

fn open(plan: &Path) -> Result<Workplace, Error> {
    Workplace::open(WorkPlan::read(plan)?, plan, 2, MemoryLimit::Free)
}

fn run(place: &Workplace, id: &str) -> Result<UnitEnded, Error> {
    place.run(id, &Cancel::default(), &mut Silent)
}

fn finish(place: &Workplace) -> Result<(), Error> {
    let output = Output::new(&place.plan().out);
    place.finish(output, &Cancel::default(), &mut Silent).map(|_| ())
}

/// Runs all units, the last that is ready first, each twice.
fn run_all_backwards(place: &Workplace) {
    let mut left: Vec<&Unit> = place.plan().units.iter().collect();
    while !left.is_empty() {
        let is_done = |id: &String| left.iter().all(|unit| unit.id != *id);
        let at = left.iter().rposition(|unit| unit.needs.iter().all(is_done)).unwrap();
        let unit = left.remove(at);
        assert_eq!(run(place, &unit.id).unwrap(), UnitEnded::Done, "{}", unit.id);
        assert_eq!(run(place, &unit.id).unwrap(), UnitEnded::Before, "{}", unit.id);
    }
}

/// All files of a directory, by name.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.file_name().unwrap().into(), fs::read(&path).unwrap()));
    }
    files.sort();
    files
}

/// Names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn units_in_any_order_give_the_bytes_of_one_process() {
    let all = [
        options(MethodName::MagnitudeFlow),
        RecipeOptions { sparsity: None, ..options(MethodName::MagnitudeFlow) },
        options(MethodName::Magnitude),
        RecipeOptions { scope: Some(ScopeName::Model), ..options(MethodName::Magnitude) },
        RecipeOptions {
            sparsity: None,
            pattern: Some("2:4".parse().unwrap()),
            ..options(MethodName::Magnitude)
        },
        options(MethodName::Wanda),
        options(MethodName::SparseGpt),
        options(MethodName::ActivationFlow),
        RecipeOptions {
            sparsity: None,
            pattern: Some("2:4".parse().unwrap()),
            ..options(MethodName::ActivationFlow)
        },
        // Stages without a target, and layers behind the last one.
        RecipeOptions {
            allocation: Some(Allocation::Flow),
            target: vec!["model.layers.[0-2].*.[vu]*_proj.weight".to_owned()],
            ..options(MethodName::ActivationFlow)
        },
    ];
    for options in all {
        let dir = tempfile::tempdir().unwrap();
        let (whole, out) = (dir.path().join("whole"), dir.path().join("units"));
        let surgery = surgery(&demo(), &options);
        surgery.prune(Output::new(&whole), &Cancel::default(), &mut Silent).unwrap();
        let place = open(&plan(&demo(), &options, &out)).unwrap();
        run_all_backwards(&place);
        finish(&place).unwrap();
        assert!(files(&whole) == files(&out), "{options:?}");
        assert_eq!(names(dir.path()), ["units", "units.plan.json", "whole"]);
    }
}

#[test]
fn workers_give_the_bytes_of_one_process_also_when_one_is_gone() {
    let options = options(MethodName::ActivationFlow);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let surgery = surgery(&demo(), &options);
    surgery.prune(Output::new(&whole), &Cancel::default(), &mut Silent).unwrap();
    for (count, present) in [(1, 1), (3, 3), (3, 2)] {
        let out = dir.path().join(format!("of-{present}-{count}"));
        let path = plan(&demo(), &options, &out);
        let ran: Vec<usize> = std::thread::scope(|scope| {
            let worker = |index| {
                let path = &path;
                move || {
                    let place = open(path).unwrap();
                    let share = Share::new(index, count).unwrap();
                    let patience = match count == present {
                        true => Duration::from_secs(3600),
                        false => Duration::ZERO,
                    };
                    let worker = Worker { share, patience };
                    worker.run(&place, &Cancel::default(), &mut Silent).unwrap()
                }
            };
            let threads: Vec<_> = (0..present).map(|i| scope.spawn(worker(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let place = open(&path).unwrap();
        let units = place.plan().units.len();
        match count == present {
            true => assert_eq!(ran.iter().sum::<usize>(), units, "{ran:?}"),
            false => assert!(ran.iter().sum::<usize>() >= units, "{ran:?}"),
        }
        finish(&place).unwrap();
        assert!(files(&whole) == files(&out), "{present} of {count}");
    }
}

#[test]
fn a_unit_that_is_not_ready_or_not_in_the_plan_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = plan(&demo(), &options(MethodName::Wanda), &dir.path().join("out"));
    let place = open(&path).unwrap();
    let refused = |error: Error, what: &str| {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(what), "{error}");
    };
    refused(run(&place, "shard-00001").unwrap_err(), "shard-00001 needs layer-00000-");
    let last =
        "layer-00000-o-proj-solve needs layer-00000-o-statistics-0, expected that to be done";
    refused(run(&place, "layer-00000-o-proj-solve").unwrap_err(), last);
    refused(run(&place, "../../x").unwrap_err(), "not a unit of this plan");
    refused(finish(&place).unwrap_err(), "units are not done, expected all, the first is layer-");
    assert_eq!(names(dir.path()), ["out.plan.json"]);
}

#[test]
fn attempts_at_one_unit_compare_their_results() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let path = plan(&demo(), &options(MethodName::Magnitude), &out);
    let ended: Vec<UnitEnded> = std::thread::scope(|scope| {
        let attempt = || run(&open(&path).unwrap(), "shard-00001").unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempt)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ended.iter().filter(|ended| **ended == UnitEnded::Done).count(), 1, "{ended:?}");
    assert_eq!(names(&dir.path().join(".out.physarium-units/attempts")), [""; 0]);

    // Another attempt finds another result there.
    let place = open(&path).unwrap();
    let done = dir.path().join(".out.physarium-units/done/shard-00001/unit.json");
    let record = fs::read_to_string(&done).unwrap();
    let pruned = record.find("\"pruned\": ").unwrap() + "\"pruned\": ".len();
    let mut other = record.clone();
    other.insert(pruned, '1');
    struct Forge<'a>(&'a Path, &'a str);
    impl Progress for Forge<'_> {
        fn event(&mut self, event: Event<'_>) {
            if let Event::Finished = event {
                fs::create_dir_all(self.0.parent().unwrap()).unwrap();
                fs::write(self.0, self.1).unwrap();
            }
        }
    }
    fs::remove_dir_all(done.parent().unwrap()).unwrap();
    let error = place.run("shard-00001", &Cancel::default(), &mut Forge(&done, &other));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Output);
    assert!(error.to_string().contains("different results, expected model-0"), "{error}");
    fs::write(&done, &record).unwrap();

    // A shard that was damaged since is found when all is published.
    for unit in &place.plan().units {
        run(&place, &unit.id).unwrap();
    }
    let shard = done.with_file_name("model-00001-of-00002.safetensors");
    let error = finish(&place).unwrap_err();
    assert!(error.to_string().contains("model-00001-of-00002.safetensors"), "{error}");
    assert!(!out.exists());
    fs::remove_dir_all(shard.parent().unwrap()).unwrap();
    run(&place, "shard-00001").unwrap();
    finish(&place).unwrap();
    assert!(out.exists());
}

#[test]
fn an_attempt_whose_inputs_a_faster_one_removed_ends_as_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = plan(&demo(), &options(MethodName::Wanda), &dir.path().join("out"));
    let place = open(&path).unwrap();
    struct Faster<'a>(&'a Path, &'a str);
    impl Progress for Faster<'_> {
        fn event(&mut self, event: Event<'_>) {
            if let Event::LayersStarted { .. } = event {
                assert_eq!(run(&open(self.0).unwrap(), self.1).unwrap(), UnitEnded::Done);
            }
        }
    }
    let mut overtaken = Vec::new();
    for unit in &place.plan().units {
        let ended = place.run(&unit.id, &Cancel::default(), &mut Faster(&path, &unit.id)).unwrap();
        overtaken.push(ended);
    }
    let statistics = place.plan().units.iter().filter(|unit| unit.id.contains("statistics"));
    let elsewhere = overtaken.iter().filter(|ended| **ended == UnitEnded::Elsewhere);
    assert_eq!(elsewhere.count(), statistics.count(), "{overtaken:?}");
    finish(&place).unwrap();

    // A worker that comes too late finds the output published.
    let worker = Worker { share: Share::ALL, patience: Duration::ZERO };
    assert_eq!(worker.run(&place, &Cancel::default(), &mut Silent).unwrap(), 0);
    assert_eq!(names(dir.path()), ["out", "out.plan.json"]);
}

#[test]
fn a_damaged_file_between_units_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = plan(&demo(), &options(MethodName::Wanda), &dir.path().join("out"));
    let place = open(&path).unwrap();
    for id in ["layer-00000-qkv-statistics-0", "layer-00000-qkv-statistics-1"] {
        run(&place, id).unwrap();
    }
    let done = dir.path().join(".out.physarium-units/done");
    let sums = done.join("layer-00000-qkv-statistics-1/sums.safetensors");
    let mut bytes = fs::read(&sums).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&sums, bytes).unwrap();
    let error = run(&place, "layer-00000-q-proj-solve").unwrap_err().to_string();
    assert!(
        error.contains("sums.safetensors: file of a unit of work, expected SHA-256"),
        "{error}"
    );
    fs::remove_dir_all(sums.parent().unwrap()).unwrap();
    run(&place, "layer-00000-qkv-statistics-1").unwrap();
    run(&place, "layer-00000-q-proj-solve").unwrap();
    let solved = done.join("layer-00000-q-proj-solve/solved.safetensors");
    fs::write(&solved, fs::read(&solved).unwrap().split_last().unwrap().1).unwrap();
    run(&place, "layer-00000-k-proj-solve").unwrap();
    run(&place, "layer-00000-v-proj-solve").unwrap();
    let error = run(&place, "layer-00000-o-statistics-0").unwrap_err().to_string();
    assert!(error.contains("solved weights of model.layers.0.self_attn.q_proj.weight"), "{error}");
}

#[test]
fn a_plan_of_another_input_or_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_of_demo(dir.path());
    let path = plan(&model, &options(MethodName::Wanda), &dir.path().join("out"));
    open(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let other = dir.path().join("other.json");
    for (from, to, expected) in [
        ("\"physarium.units/1\"", "\"physarium.units/9\"", "expected physarium.units/1"),
        ("\"tool\": \"physarium ", "\"tool\": \"physarium 9", "hint: make the plan again"),
        ("\"seed\": 7", "\"seed\": 8", "expected what has the key"),
        ("-00001\",\"kind\"", "-00009\",\"kind\"", "expected the list of units of this input"),
        ("\"group\":1", "\"group\":0", "expected the list of units of this input"),
        ("\n    [", "\n    [1,", "expected the calibration tokens of this input"),
        ("\"units\": [", "\"units\": [[", "expected what `physarium plan` printed"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&other, text.replacen(from, to, 1)).unwrap();
        let error = open(&other).err().unwrap();
        assert!(error.to_string().contains(expected), "{from}: {error}");
    }
    // The input changed: another header, and another file that tokens depend on.
    for name in ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors"] {
        let before = fs::read(model.join(name)).unwrap();
        let mut after = before.clone();
        match name.ends_with("json") {
            true => after.push(b'\n'),
            // The name of the first tensor.
            false => after[12] ^= 1,
        }
        fs::write(model.join(name), after).unwrap();
        let error = open(&path).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        fs::write(model.join(name), before).unwrap();
    }
    // Weights changed: the shard's unit finds it.
    let place = open(&path).unwrap();
    for unit in place.plan().units.iter().filter(|unit| !unit.id.starts_with("shard-")) {
        run(&place, &unit.id).unwrap();
    }
    change_a_weight(&model);
    let error = run(&open(&path).unwrap(), "shard-00001").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
}

/// A copy of the demo model.
fn copy_of_demo(dir: &Path) -> PathBuf {
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    for (name, bytes) in files(&demo()) {
        fs::write(model.join(name), bytes).unwrap();
    }
    model
}

/// Changes a weight of the first shard, and no header.
fn change_a_weight(model: &Path) {
    let shard = model.join("model-00001-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
}

#[test]
fn weights_that_changed_after_their_unit_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_of_demo(dir.path());
    let path = plan(&model, &options(MethodName::Magnitude), &dir.path().join("out"));
    run(&open(&path).unwrap(), "shard-00001").unwrap();
    change_a_weight(&model);
    let place = open(&path).unwrap();
    run(&place, "shard-00002").unwrap();
    let error = finish(&place).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InputChanged, "{error}");
    assert!(error.to_string().contains("model-00001-of-00002.safetensors"), "{error}");
    assert!(error.to_string().contains("new plan after .OUT.physarium-units is rem"), "{error}");
    assert!(!dir.path().join("out").exists());
    // The units of this plan are in the way of others.
    let changed = plan(&model, &options(MethodName::Wanda), &dir.path().join("out"));
    let changed = open(&changed).unwrap();
    let error = run(&changed, "shard-00001").unwrap_err().to_string();
    assert!(error.contains("units of another plan") && error.contains("remove this"), "{error}");
    assert!(!error.contains("--restart"), "{error}");
    fs::remove_dir_all(dir.path().join(".out.physarium-units")).unwrap();
    let again = plan(&model, &options(MethodName::Magnitude), &dir.path().join("out"));
    let changed = open(&again).unwrap();
    for unit in &changed.plan().units {
        assert_eq!(run(&changed, &unit.id).unwrap(), UnitEnded::Done, "{}", unit.id);
    }
    finish(&changed).unwrap();
}

#[test]
fn an_output_from_before_the_plan_is_not_that_of_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (copy_of_demo(dir.path()), dir.path().join("out"));
    let options = options(MethodName::Magnitude);
    let prune = |out: &Path| {
        let surgery = surgery(&model, &options);
        surgery.prune(Output::new(out), &Cancel::default(), &mut Silent).unwrap();
    };
    prune(&out);
    // The same headers and recipe, so that the two journals begin alike.
    change_a_weight(&model);
    let error = try_plan(&model, &options, (&out, Overwrite::Refuse)).unwrap_err().to_string();
    assert!(error.contains("found a finished physarium output"), "{error}");
    let place = open(&try_plan(&model, &options, (&out, Overwrite::Replace)).unwrap()).unwrap();
    let worker = Worker { share: Share::ALL, patience: Duration::ZERO };
    let work = || worker.run(&place, &Cancel::default(), &mut Silent).unwrap();
    assert_eq!(work(), place.plan().units.len());
    // The output that the plan found is replaced, another one is not.
    let aside = dir.path().join("aside");
    fs::rename(&out, &aside).unwrap();
    let other = RecipeOptions { sparsity: Some("0.25".parse().unwrap()), ..options.clone() };
    let other = surgery(&model, &other);
    other.prune(Output::new(&out), &Cancel::default(), &mut Silent).unwrap();
    let error = finish(&place).unwrap_err().to_string();
    assert!(error.contains("found a finished physarium output"), "{error}");
    fs::remove_dir_all(&out).unwrap();
    fs::rename(&aside, &out).unwrap();
    finish(&place).unwrap();
    let expected = dir.path().join("expected");
    prune(&expected);
    assert!(files(&out) == files(&expected));
    // Now it is published: there is nothing to do, and nothing to wait for.
    assert_eq!(work(), 0);
    place.wait(&Cancel::default()).unwrap();
    let error = finish(&place).unwrap_err().to_string();
    assert!(error.contains("the output of this plan is published already"), "{error}");
    // Made again it would be the same, and nobody could tell when it is.
    let again = try_plan(&model, &options, (&out, Overwrite::Replace)).unwrap_err().to_string();
    assert!(again.contains("an output of this recipe and input is there already"), "{again}");
    // It is to be replaced, but someone has added a file.
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let added = try_plan(&model, &options, (&out, Overwrite::Replace)).unwrap_err().to_string();
    assert!(added.contains("notes.txt"), "{added}");
}

#[test]
fn a_cancelled_finish_is_resumed() {
    struct StopAfterShard<'a>(&'a Cancel);
    impl Progress for StopAfterShard<'_> {
        fn event(&mut self, event: Event<'_>) {
            if let Event::Shard(_) = event {
                self.0.raise();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("out"));
    let options = options(MethodName::Magnitude);
    surgery(&demo(), &options).prune(Output::new(&whole), &Cancel::default(), &mut Silent).unwrap();
    let place = open(&plan(&demo(), &options, &out)).unwrap();
    for unit in &place.plan().units {
        run(&place, &unit.id).unwrap();
    }
    let cancel = Cancel::default();
    let error = place.finish(Output::new(&out), &cancel, &mut StopAfterShard(&cancel)).unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");
    assert!(!out.exists());
    finish(&place).unwrap();
    assert!(files(&whole) == files(&out));
    assert_eq!(names(dir.path()), ["out", "out.plan.json", "whole"]);
}

#[test]
fn a_plan_into_a_directory_of_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let refused = try_plan(&demo(), &options(MethodName::Magnitude), (&out, overwrite));
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("a directory with other files in it"), "{error}");
    }
}
