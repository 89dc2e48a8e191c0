/*!
Shared by the fuzz targets: a directory in memory, seeds, and the properties that every reader has.

A target writes its input into files, reads them with the public functions of physarium, and fails on more than a
panic: what is read twice is the same twice, what is accepted round-trips, and an error has no raw control characters.

`cargo xtask fuzz` builds and runs the targets. It sets `PHYSARIUM_FUZZ_SEEDS` to the directory of the corpus, into
which a target writes its seeds before libFuzzer reads it.
*/

use std::fmt::{Debug, Display};
use std::fs;
use std::path::{Path, PathBuf};

use physarium::checkpoint::Recipe;
use physarium::{Cancel, Options, Output, RecipeOptions, Silent, Surgery};
use physarium_fixtures::{Fill, Kind, Tensor, llama_tensors, write_checkpoint};

/// A new empty directory for this process, in memory where that is possible.
pub fn scratch(target: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = root.join(format!("physarium-fuzz-{target}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for the target's files");
    dir
}

/// Writes the seeds of a target, by name, into the corpus.
pub fn write_seeds(seeds: &[(&str, Vec<u8>)]) {
    let Some(dir) = std::env::var_os("PHYSARIUM_FUZZ_SEEDS").map(PathBuf::from) else { return };
    fs::create_dir_all(&dir).expect("the directory of the corpus");
    for (name, bytes) in seeds {
        fs::write(dir.join(name), bytes).expect("a seed is written");
    }
}

/// What a reader returns, which must be the same each time. An error must be fit to print.
///
/// # Panics
/// If the second result differs, or the error holds a control character.
pub fn read_twice<T: PartialEq + Debug, E: Display>(read: impl Fn() -> Result<T, E>) -> Option<T> {
    let [first, second] = [read(), read()].map(|result| result.map_err(|e| e.to_string()));
    assert_eq!(first, second, "the same bytes, read twice");
    match first {
        Ok(value) => Some(value),
        Err(message) => {
            let raw = message.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(raw, None, "a control character in the message {message:?}");
            assert!(message.len() < 10_000, "a message of {} bytes", message.len());
            None
        }
    }
}

/// A checkpoint of one layer with 16 features that a decoder can run.
pub fn write_model(dir: &Path) {
    let tensors = llama_tensors(Kind::Bf16, 1, [16, 8, 32]);
    write_checkpoint(dir, &tensors, 2, Fill::Gaussian(1)).expect("a checkpoint is written");
    fs::write(dir.join("config.json"), CONFIG).expect("a config is written");
}

/// The config of [`write_model`].
pub const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "vocab_size": 64,
"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "hidden_act": "silu",
"max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#;

/// A checkpoint with a fused tensor and a stack of experts beside plain projections, in one file.
pub fn write_fused_model(dir: &Path) {
    let name = |rest: &str| format!("model.layers.0.{rest}");
    let tensors = [
        Tensor::new("model.embed_tokens.weight", Kind::F16, &[8, 8]),
        Tensor::new(name("self_attn.qkv_proj.weight"), Kind::F16, &[16, 8]),
        Tensor::new(name("self_attn.o_proj.weight"), Kind::F32, &[8, 8]),
        Tensor::new(name("mlp.experts.down_proj"), Kind::Bf16, &[2, 8, 8]),
        Tensor::new(name("mlp.gate.weight"), Kind::Bytes("F8_E4M3"), &[2, 8]),
    ];
    write_checkpoint(dir, &tensors, 1, Fill::Gaussian(2)).expect("a checkpoint is written");
}

/// Prunes a checkpoint by magnitude with these options.
pub fn prune(model: &Path, out: &Path, options: &RecipeOptions) -> Recipe {
    let recipe = options.recipe(model, None).expect("options of a recipe");
    let surgery =
        Surgery::plan(model, recipe.clone(), Options { threads: 1, ..Options::default() });
    let surgery = surgery.expect("a plan");
    surgery.prune(Output::new(out), &Cancel::default(), &mut Silent).expect("a pruned checkpoint");
    recipe
}

/// Options that prune half of each tensor.
pub fn half() -> RecipeOptions {
    RecipeOptions {
        method: physarium::MethodName::Magnitude,
        sparsity: Some("0.5".parse().expect("a share")),
        ..RecipeOptions::default()
    }
}

/// Options that prune to 2:4.
pub fn two_of_four() -> RecipeOptions {
    RecipeOptions {
        method: physarium::MethodName::Magnitude,
        pattern: Some("2:4".parse().expect("a pattern")),
        ..RecipeOptions::default()
    }
}
