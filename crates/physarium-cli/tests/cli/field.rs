//! Checkpoints and configs as people have them, made of the demo model: the right number, and a note where a user may
//! expect another. Perplexities are those of transformers 5 in float32.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Work;

const WINDOW: &str = "--text text.txt --window 256";
const HEAD: &str = "lm_head.weight";
const CALIBRATED: &str = "--method wanda --sparsity 0.5 --calibration-tokens 1024 --window 256";

/// The demo model, to be written with changes.
#[derive(Clone)]
struct Model {
    config: Value,
    /// Names with entries of the header and bytes.
    tensors: Vec<(String, Value, Vec<u8>)>,
}

impl Model {
    fn demo() -> Model {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
        let config = fs::read_to_string(from.join("config.json")).unwrap();
        let mut tensors = Vec::new();
        for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            let bytes = fs::read(from.join(shard)).unwrap();
            let (length, rest) = bytes.split_first_chunk().unwrap();
            let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let header: Map<String, Value> = serde_json::from_slice(header).unwrap();
            for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
                let at = |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize;
                let bytes = data[at(0)..at(1)].to_vec();
                tensors.push((name, entry, bytes));
            }
        }
        Model { config: serde_json::from_str(&config).unwrap(), tensors }
    }

    fn with(mut self, field: &str, value: Value) -> Model {
        self.config[field] = value;
        self
    }

    fn without(mut self, name: &str) -> Model {
        self.tensors.retain(|(other, ..)| other != name);
        self
    }

    fn renamed(mut self, rename: impl Fn(&str) -> String) -> Model {
        self.tensors.iter_mut().for_each(|(name, ..)| *name = rename(name));
        self
    }

    /// Stores a tensor under another name too.
    fn copied(mut self, from: &str, to: &str) -> Model {
        let (_, entry, bytes) = self.tensors.iter().find(|(name, ..)| name == from).unwrap();
        self.tensors.push((to.to_owned(), entry.clone(), bytes.clone()));
        self
    }

    /// Writes it as one file.
    fn save(&self, work: &Work, name: &str) {
        let bytes = physarium_fixtures::shard_of(&self.tensors);
        let dir = work.path(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("model.safetensors"), bytes).unwrap();
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/model");
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            fs::copy(demo.join(file), dir.join(file)).unwrap();
        }
    }

    /// Writes an index beside it that lists these tensors in these files.
    fn save_index(&self, work: &Work, name: &str, more: &[&str]) {
        let names = self.tensors.iter().map(|(name, ..)| name.as_str()).chain(more.iter().copied());
        let map: Map<String, Value> =
            names.map(|name| (name.to_owned(), json!("model.safetensors"))).collect();
        let bytes: usize = self.tensors.iter().map(|(.., bytes)| bytes.len()).sum();
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": map});
        let path = work.path(name).join("model.safetensors.index.json");
        fs::write(path, index.to_string()).unwrap();
    }
}

fn work() -> Work {
    let work = Work::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
    let text = fs::read(demo.join("heldout.txt")).unwrap();
    fs::write(work.path("text.txt"), &text[..20_000]).unwrap();
    work
}

/// A perplexity to four places, and the notes of the result, which are on stderr too.
#[track_caller]
fn eval(work: &Work, arguments: &str) -> (String, Vec<String>) {
    let ran = work.run(&format!("eval {arguments} --format json"));
    assert_eq!(ran.code, 0, "{arguments}: {}", ran.stderr);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let notes = json["notes"].as_array().into_iter().flatten();
    let notes: Vec<String> = notes.map(|note| note.as_str().unwrap().to_owned()).collect();
    let shown = notes.iter().map(|note| format!("note: {note}"));
    assert!(
        shown.eq(ran.stderr.lines().filter(|line| line.starts_with("note:"))),
        "{}",
        ran.stderr
    );
    (format!("{:.4}", json["perplexity"].as_f64().unwrap()), notes)
}

#[test]
fn a_scaling_beside_rope_parameters_is_not_dropped() {
    let work = work();
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
    let plain = json!({"rope_type": "default", "rope_theta": 10000.0});
    Model::demo().with("rope_parameters", plain.clone()).save(&work, "plain");
    let scaled = Model::demo().with("rope_scaling", yarn);
    scaled.save(&work, "yarn");
    scaled.with("rope_parameters", plain).save(&work, "both");
    assert_eq!(eval(&work, &format!("plain {WINDOW}")), ("1.2845".to_owned(), vec![]));
    assert_eq!(eval(&work, &format!("yarn {WINDOW}")), ("1.6563".to_owned(), vec![]));
    let (perplexity, notes) = eval(&work, &format!("both {WINDOW}"));
    assert_eq!((perplexity.as_str(), notes.len()), ("1.6563", 1));
    assert!(notes[0].contains("rope_scaling") && notes[0].contains("rope_parameters"));
    let partial = Model::demo().with("partial_rotary_factor", json!(0.5));
    partial.save(&work, "partial");
    work.fails(2, &format!("eval partial {WINDOW}"), &["config.json", "partial_rotary_factor 0.5"]);
}

#[test]
fn positions_are_those_of_the_scaling_and_have_no_limit() {
    let work = work();
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512});
    let model = Model::demo().with("rope_scaling", yarn);
    model.save(&work, "yarn");
    model.with("max_position_embeddings", json!(2048)).save(&work, "stated");
    for name in ["yarn", "stated"] {
        let longer = format!("{name} --text text.txt --window 1024");
        assert_eq!(eval(&work, &longer), ("1.3639".to_owned(), vec![]));
        let beyond = format!("eval {name} --text text.txt --window 4096");
        work.fails(2, &beyond, &["a window of 4096 tokens", "at most 2048 positions"]);
    }
    let million = Model::demo().with("max_position_embeddings", json!(4_194_304));
    million.save(&work, "million");
    assert_eq!(eval(&work, &format!("million {WINDOW}")).0, "1.2845");
    work.ok("run million --prompt Once --max-tokens 2");
    work.ok(&format!("prune million --out out {CALIBRATED}"));
}

#[test]
fn a_stored_head_is_read_from_directories_and_packed_files() {
    let work = work();
    let tied = Model::demo().with("tie_word_embeddings", json!(true));
    tied.save(&work, "tied");
    let (perplexity, notes) = eval(&work, &format!("tied {WINDOW}"));
    assert_eq!((perplexity.as_str(), notes.len()), ("1.2845", 1));
    assert!(notes[0].contains(HEAD) && notes[0].contains("tie_word_embeddings"), "{notes:?}");
    work.ok("pack tied --out tied.physpack");
    assert_eq!(eval(&work, &format!("tied.physpack {WINDOW}")), (perplexity, notes.clone()));
    // The other model's notes are those that differ.
    let against = format!("tied --against tied.physpack {WINDOW} --limit 600");
    assert_eq!(eval(&work, &against).1, notes);
    Model::demo().save(&work, "plain");
    let (_, of_other) = eval(&work, &format!("plain --against tied {WINDOW} --limit 600"));
    assert_eq!(of_other, [format!("tied: {}", notes[0])]);
    assert_eq!(work.run(&format!("eval tied {WINDOW} --limit 600 --quiet")).stderr, "");

    // Without a head, or with one that equals the embedding, the embedding is the head.
    let without = tied.without(HEAD);
    without.save(&work, "without");
    without.copied("model.embed_tokens.weight", HEAD).save(&work, "equal");
    work.ok("pack equal --out equal.physpack");
    let expected = eval(&work, &format!("without {WINDOW}"));
    assert_eq!(expected.1, Vec::<String>::new());
    assert_ne!(expected.0, "1.2845");
    for name in ["equal", "equal.physpack"] {
        assert_eq!(eval(&work, &format!("{name} {WINDOW}")), expected);
    }
}

#[test]
fn an_index_of_one_file_and_one_that_lists_a_tied_head_are_accepted() {
    let work = work();
    let model = Model::demo();
    model.save(&work, "single");
    model.save_index(&work, "single", &[]);
    assert_eq!(eval(&work, &format!("single {WINDOW}")).0, "1.2845");
    work.ok("prune single --out half --method magnitude --sparsity 0.5");
    assert!(work.path("half/model.safetensors.index.json").exists());
    work.ok("verify single half");
    work.ok("pack half --out half.physpack");

    let tied = model.clone().without(HEAD).with("tie_word_embeddings", json!(true));
    tied.save(&work, "tied");
    let expected = eval(&work, &format!("tied {WINDOW}"));
    tied.save_index(&work, "tied", &[HEAD]);
    assert_eq!(eval(&work, &format!("tied {WINDOW}")), expected);
    let ran = work.run("prune tied --out out --method magnitude --sparsity 0.5");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let said = format!("note: model.safetensors.index.json: tensor {HEAD} is not in");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    work.ok("verify tied out");
    work.ok("audit out --against tied");
    let untied = model.without(HEAD);
    untied.save(&work, "untied");
    untied.save_index(&work, "untied", &[HEAD]);
    work.fails(2, "inspect untied", &[HEAD, "not found in any shard"]);
}

#[test]
fn names_without_a_prefix_are_those_of_the_decoder() {
    let work = work();
    let tied = Model::demo().without(HEAD).with("tie_word_embeddings", json!(true));
    tied.save(&work, "usual");
    let bare = tied.renamed(|name| name.strip_prefix("model.").unwrap_or(name).to_owned());
    bare.save(&work, "bare");
    let expected = eval(&work, &format!("usual {WINDOW}"));
    assert_eq!(eval(&work, &format!("bare {WINDOW}")), expected);
    let targets =
        |name: &str| work.json(&format!("inspect {name} --format json"))["target"].clone();
    assert_eq!(targets("bare"), targets("usual"));
    assert_eq!(targets("bare")["tensors"], 35);
    for name in ["usual", "bare"] {
        work.ok(&format!("prune {name} --out {name}-half {CALIBRATED}"));
    }
    let half = eval(&work, &format!("bare-half {WINDOW}"));
    assert_eq!(half, eval(&work, &format!("usual-half {WINDOW}")));
    // No head, and no embedding in its place.
    bare.with("tie_word_embeddings", json!(false)).save(&work, "headless");
    work.fails(2, &format!("eval headless {WINDOW}"), &[HEAD, "missing"]);
}

#[test]
fn tensors_that_are_not_used_are_noted_and_layers_beyond_the_last_are_refused() {
    let work = work();
    let norm = "model.layers.0.input_layernorm.weight";
    let bias = "model.layers.0.self_attn.q_proj.bias";
    Model::demo().copied(norm, bias).save(&work, "biased");
    let note = format!("1 tensor is not used by the decoder: {bias}");
    let expected = ("1.2845".to_owned(), vec![note.clone()]);
    assert_eq!(eval(&work, &format!("biased {WINDOW}")), expected);
    let ran = work.run("run biased --prompt Once --max-tokens 1 --format json");
    let generated: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(generated["notes"], json!([note]));
    assert!(ran.stderr.contains(&format!("note: {note}")), "{}", ran.stderr);
    let ran = work.run(
        "compare biased --out table --methods magnitude --sparsity 0.5 --text text.txt \
         --eval-window 256 --limit 600",
    );
    assert_eq!(ran.stderr.matches(&note).count(), 1, "{}", ran.stderr);

    Model::demo().with("num_hidden_layers", json!(3)).save(&work, "fewer");
    let refused = format!("prune fewer --out out --target *_proj.weight {CALIBRATED}");
    for command in [refused.clone(), format!("{refused} --dry-run")] {
        work.fails(
            2,
            &command,
            &["model.layers.3.", "asks for 3 layers", "--skip 'model.layers.4.*'"],
        );
        work.nothing_was_written("out");
    }
    let skipped = format!("{refused} --skip model.layers.3.* --skip model.layers.4.*");
    // They are no default targets.
    let by_default = format!("prune fewer --out default {CALIBRATED}");
    for command in [
        format!("{skipped} --dry-run --format json"),
        format!("{skipped} --format json"),
        format!("{by_default} --format json"),
    ] {
        let ran = work.run(&command);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let json: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(json["target"]["tensors"], 21);
        let note = json["notes"][0].as_str().unwrap();
        assert!(note.starts_with("18 tensors are not used by the decoder: model.layers.3."));
        assert!(ran.stderr.contains(&format!("note: {note}")), "{}", ran.stderr);
    }
    Model::demo().with("num_hidden_layers", json!(6)).save(&work, "more");
    work.fails(2, &format!("eval more {WINDOW}"), &["model.layers.5.", "missing"]);
    work.fails(2, &format!("prune more --out out2 {CALIBRATED}"), &["model.layers.5.", "missing"]);
}

#[test]
fn another_spelling_of_a_layer_is_another_module() {
    let work = work();
    let own = |name: &str| name.starts_with("model.layers.0.");
    let twin = |name: &str| name.replacen("layers.0.", "layers.00.", 1);
    let names: Vec<String> = Model::demo().tensors.into_iter().map(|(name, ..)| name).collect();
    let names = || names.iter().filter(|name| own(name));
    let model = names().fold(Model::demo(), |model, name| model.copied(name, &twin(name)));
    model.save(&work, "twin");
    let (perplexity, notes) = eval(&work, &format!("twin {WINDOW}"));
    assert_eq!(perplexity, "1.2845");
    let said = "9 tensors are not used by the decoder: model.layers.00.";
    assert!(notes[0].starts_with(said), "{notes:?}");
    let target = &work.json("inspect twin --format json")["target"]["tensors"];
    assert_eq!(*target, 42);
    let prune = format!("prune twin --out out {CALIBRATED}");
    work.fails(2, &prune, &["model.layers.00.", "activations not available"]);
    work.ok(&format!("{prune} --skip model.layers.00.*"));
    Model::demo().save(&work, "plain");
    work.ok(&format!("prune plain --out plain-out {CALIBRATED}"));
    let half = eval(&work, &format!("out {WINDOW}")).0;
    assert_eq!(half, eval(&work, &format!("plain-out {WINDOW}")).0);
    work.ok("verify twin out");
    let audited = work.json("audit out --against twin --format json");
    assert_eq!(audited["denominator_correct"], true);
    assert_eq!(audited["target"]["tensors"], 35);
}
