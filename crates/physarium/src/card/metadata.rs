//! The metadata at the head of a card, in YAML, as the hub reads it.

use physarium_checkpoint::HubSource;

use super::front_matter::{FrontMatter, Value};

/// What the hub calls a model whose weights were changed and that has the same architecture and element types. Its other
/// relations are `quantized`, `adapter` and `merge`; it has none for pruned models.
const RELATION: &str = "finetune";
/// Tags that every pruned model gets, after those of the base model.
const TAGS: [&str; 3] = ["physarium", "pruned", "sparse"];
/// Where the key goes if the base model's id is not known.
const PLACE: &str = "# base_model: ORG/NAME\n";

/// The metadata between its fences.
pub(super) fn metadata(source: Option<&HubSource>, base: &FrontMatter) -> String {
    let mut text = "---\n".to_owned();
    match source {
        Some(source) => text += &format!("base_model: {}\n", scalar(&source.hub)),
        None => text += PLACE,
    }
    text += &format!("base_model_relation: {RELATION}\n");
    for (key, value) in &base.kept {
        match value {
            // With those of the pruned model, below.
            _ if *key == "tags" => {}
            Value::Text(value) => text += &format!("{key}: {}\n", scalar(value)),
            Value::List(values) => text += &list(key, values.iter().map(String::as_str)),
        }
    }
    let tags = base.kept.iter().find(|(key, _)| *key == "tags").map(|(_, value)| value);
    let mut tags: Vec<&str> = match tags {
        None => Vec::new(),
        Some(Value::Text(tag)) => vec![tag],
        Some(Value::List(tags)) => tags.iter().map(String::as_str).collect(),
    };
    tags.extend(TAGS.iter().filter(|tag| !tags.contains(tag)).copied().collect::<Vec<_>>());
    text + &list("tags", tags.into_iter()) + "---\n"
}

fn list<'a>(key: &str, values: impl Iterator<Item = &'a str>) -> String {
    let lines = values.map(|value| format!("- {}\n", scalar(value)));
    format!("{key}:\n{}", lines.collect::<String>())
}

/// A text in YAML: plain if every version of YAML takes it for a text, else in quotes as in JSON.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    // YAML 1.1 takes some words for truth values: `no`, which is also the code of a language.
    let word = text.to_ascii_lowercase();
    let is_word = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    match begins && text.chars().all(is_plain) && !is_word.contains(&word.as_str()) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use physarium_checkpoint::HubSource;

    use super::{FrontMatter, metadata};

    #[test]
    fn metadata_keeps_the_base_models_and_adds_its_own() {
        let base = FrontMatter::read(
            b"tags: [chat, pruned]\nlanguage: [en, no]\nlicense: other\nlicense_name: 'a: b'\n",
        );
        let source =
            HubSource { hub: "org/name".to_owned(), revision: None, commit: "0".repeat(40) };
        assert_eq!(
            metadata(Some(&source), &base),
            "---\nbase_model: org/name\nbase_model_relation: finetune\nlanguage:\n- en\n- \"no\"\nlicense: other\n\
             license_name: \"a: b\"\ntags:\n- chat\n- pruned\n- physarium\n- sparse\n---\n"
        );
        assert_eq!(
            metadata(None, &FrontMatter::default()),
            "---\n# base_model: ORG/NAME\nbase_model_relation: finetune\ntags:\n- physarium\n- pruned\n- sparse\n---\n"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let base =
            FrontMatter::read(b"license: '2.0'\nlanguage:\n- 'yes'\n- \"~\"\ntags: 'a # b'\n");
        assert!(base.notes.is_empty(), "{:?}", base.notes);
        let text = metadata(None, &base);
        let inner = text.strip_prefix("---\n").unwrap().strip_suffix("---\n").unwrap();
        let again = FrontMatter::read(inner.as_bytes());
        let value = |of: &FrontMatter, key| of.kept.iter().find(|(k, _)| *k == key).cloned();
        for key in ["license", "language"] {
            assert_eq!(value(&again, key), value(&base, key), "{text}");
        }
    }
}
