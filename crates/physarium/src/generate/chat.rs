//! The prompt of a chat model: a user's message in the model's own template, rendered by `minijinja`.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use physarium_checkpoint::{Malformed, printable};
use physarium_model::ModelFiles;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::error::Result;
use crate::tokenizer::TokenizerConfig;

/// Largest template that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// File name of a template.
const TEMPLATE: &str = "chat_template.jinja";
/// Special tokens that templates use.
const TOKENS: [&str; 5] = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token"];

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
    apply(&template, message, tokens).map_err(|e| {
        let found = printable(&format!("{e:#}"));
        Malformed::new(&files.path_of(name), "chat template", "a template that renders", found)
            .into()
    })
}

/// Renders a template in an environment like the one that transformers sets up.
fn apply<'a>(
    template: &str,
    message: &str,
    tokens: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |what: String| -> Result<String, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
    });
    environment.add_template("chat", template)?;
    let message = Value::from_pairs([("role", "user"), ("content", message)]);
    let mut context = vec![
        ("messages", Value::from(vec![message])),
        ("add_generation_prompt", Value::from(true)),
    ];
    context.extend(tokens.map(|(name, token)| (name, Value::from(token))));
    environment.get_template("chat")?.render(Value::from_pairs(context))
}

/// JSON as Python writes it: spaces after commas and colons, no escapes for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(spaces) => {
            let spaces = " ".repeat(spaces);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut text, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut text, OneLine)),
    };
    let failed = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    written.map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8(text).map_err(|e| failed(e.to_string()))?;
    Ok(Value::from_safe_string(text))
}

/// A formatter with Python's separators.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
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
    use super::apply;

    /// Features that templates of chat models use; transformers 5.23 gives the same text.
    #[test]
    fn templates_render_as_in_transformers() {
        let message = "  What is a slime mould? ";
        let tokens = || [("bos_token", "<s>"), ("eos_token", "</s>")].into_iter();
        let simple = "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m.content + '<|end|>\n' }}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
        let expected = "<|user|>\n  What is a slime mould? <|end|>\n<|assistant|>\n";
        assert_eq!(apply(simple, message, tokens()).unwrap(), expected);
        let blocks = include_str!("../../tests/chat/blocks.jinja");
        let expected = "<s><<SYS>>\nBe of use.\n<</SYS>>\n[1/1] WHAT IS A SLIME MOULD?</s>words: 8 \
                        {\"role\": \"user\", \"deep\": [1, 2.5, null, true]}\nanswer: ";
        assert_eq!(apply(blocks, message, tokens()).unwrap(), expected);
    }

    #[test]
    fn the_error_of_a_template_is_passed_on() {
        let refuses = "{{ raise_exception('no users here') }}";
        let error = apply(refuses, "x", [].into_iter()).unwrap_err().to_string();
        assert!(error.contains("no users here"), "{error}");
        assert!(apply("{% if %}", "x", [].into_iter()).is_err());
    }
}
