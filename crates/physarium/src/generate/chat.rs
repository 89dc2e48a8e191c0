//! The prompt of a chat model: a user's message in the model's own template.

use minijinja::Value;
use physarium_checkpoint::{Malformed, printable};
use physarium_model::ModelFiles;

use super::template::apply;
use crate::error::Result;
use crate::tokenizer::TokenizerConfig;

/// Largest template that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// File name of a template.
const TEMPLATE: &str = "chat_template.jinja";
/// Special tokens that templates use.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A conversation with one message of the user, up to the model's answer.
///
/// The template is `chat_template.jinja`, or else the default one of `tokenizer_config.json`.
///
/// # Errors
/// `Checkpoint` for a model without a template, and for a template that fails.
pub(crate) fn render(
    files: &ModelFiles,
    config: &TokenizerConfig,
    message: &str,
) -> Result<String> {
    let (name, template) = template(files, config)?;
    let tokens = TOKENS.into_iter().filter_map(|name| Some((name, config.token(name)?)));
    let variables = variables(message, tokens);
    apply(&template, message.len(), move || variables).map_err(|e| {
        let expected = "a template that renders, in bounded time and memory";
        Malformed::new(&files.path_of(name), "chat template", expected, printable(&e)).into()
    })
}

/// The variables that transformers gives a template: without tools and documents, both are none, not undefined.
fn variables<'a>(message: &str, tokens: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let message = Value::from_pairs([("role", "user"), ("content", message)]);
    let mut variables = vec![
        ("messages", Value::from(vec![message])),
        ("tools", Value::from(())),
        ("documents", Value::from(())),
        ("add_generation_prompt", Value::from(true)),
    ];
    variables.extend(tokens.map(|(name, token)| (name, Value::from(token))));
    Value::from_pairs(variables)
}

/// The file name and the text of the template.
fn template(files: &ModelFiles, config: &TokenizerConfig) -> Result<(&'static str, String)> {
    if let Some(bytes) = files.find(TEMPLATE, MAX_BYTES)? {
        let text = String::from_utf8(bytes).map_err(|e| {
            Malformed::new(&files.path_of(TEMPLATE), "chat template", "UTF-8", e.to_string())
        })?;
        return Ok((TEMPLATE, text));
    }
    let stated = config.get("chat_template");
    let named = |entry: &&serde_json::Value| entry["name"] == "default";
    let default = stated.as_array().and_then(|all| all.iter().find(named));
    let text = stated.as_str().or(default.and_then(|entry| entry["template"].as_str()));
    match text {
        Some(text) => Ok((crate::tokenizer::CONFIG_NAME, text.to_owned())),
        None => {
            let expected = format!("{TEMPLATE}, or chat_template in tokenizer_config.json");
            Err(Malformed::new(files.path(), "no chat template", expected, "none")
                .with_hint("without --chat the prompt is the beginning of a text to continue")
                .into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    fn rendered<'a>(
        template: &str,
        message: &str,
        tokens: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<String, String> {
        let variables = variables(message, tokens);
        apply(template, message.len(), move || variables)
    }

    /// Features that templates of chat models use; transformers 5.23 gives the same text.
    #[test]
    fn templates_render_as_in_transformers() {
        let message = "  What is a slime mould? ";
        let tokens = || [("bos_token", "<s>"), ("eos_token", "</s>")].into_iter();
        let simple = "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m.content + '<|end|>\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
        let expected = "<|user|>\n  What is a slime mould? <|end|>\n<|assistant|>\n";
        assert_eq!(rendered(simple, message, tokens()).unwrap(), expected);
        let blocks = include_str!("../../tests/chat/blocks.jinja");
        let expected = "<s><<SYS>>\nBe of use.\n<</SYS>>\n[1/1] WHAT IS A SLIME MOULD?</s>words: 8 \
                        {\"role\": \"user\", \"deep\": [1, 2.5, null, true]}\nanswer: ";
        assert_eq!(rendered(blocks, message, tokens()).unwrap(), expected);
    }

    #[test]
    fn the_error_of_a_template_is_passed_on() {
        let refuses = "{{ raise_exception('no users here') }}";
        let error = rendered(refuses, "x", [].into_iter()).unwrap_err();
        assert!(error.contains("no users here"), "{error}");
        assert!(rendered("{% if %}", "x", [].into_iter()).is_err());
    }

    /// transformers passes none for both.
    #[test]
    fn tools_and_documents_are_none() {
        let rendered = |template| rendered(template, "x", [].into_iter()).unwrap();
        assert_eq!(rendered("{% if tools is not none %}tools{% endif %}."), ".");
        assert_eq!(rendered("{% if tools is none %}no tools{% endif %}"), "no tools");
        assert_eq!(rendered("{% if documents is not none %}documents{% endif %}."), ".");
        assert_eq!(rendered("{% if tools is defined and tools %}tools{% endif %}."), ".");
    }
}
