//! Files beside the weights that decide what a model computes, against the original's.

use std::path::Path;

use physarium_checkpoint::{Checkpoint, Source, config_json, printable};
use serde_json::Value;

use super::words::names;

/// The files; the config is compared by field.
const CONFIG: &str = "config.json";
const OTHERS: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];
/// Fields of a config that say who wrote it and how, not what the model is.
const OF_THE_WRITER: [&str; 4] = ["_name_or_path", "transformers_version", "torch_dtype", "dtype"];
/// Largest file that is compared, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// The files that both have and that differ, and the fields in which the configs do; `None` if there are none.
pub(crate) fn files_note([here, original]: [&Checkpoint; 2]) -> Option<String> {
    let [here, original] = [here.dir(), original.dir()];
    let mut differing = Vec::new();
    if let [Value::Object(now), Value::Object(before)] = [here, original].map(config_json) {
        let fields = now.keys().chain(before.keys().filter(|field| !now.contains_key(*field)));
        let fields = fields.filter(|field| !OF_THE_WRITER.contains(&field.as_str()));
        let fields = fields.filter(|field| now.get(*field) != before.get(*field));
        let fields: Vec<&str> = fields.map(String::as_str).collect();
        if !fields.is_empty() {
            differing.push(format!("{CONFIG} ({})", names(&fields)));
        }
    }
    let content = |dir: &Path, name: &str| Source::open(&dir.join(name))?.read_all(MAX_BYTES);
    for name in OTHERS {
        if let (Ok(now), Ok(before)) = (content(here, name), content(original, name))
            && now != before
        {
            differing.push(printable(name));
        }
    }
    let verb = if differing.len() == 1 { "differs" } else { "differ" };
    (!differing.is_empty()).then(|| format!("{} {verb} from the original's", differing.join(", ")))
}
