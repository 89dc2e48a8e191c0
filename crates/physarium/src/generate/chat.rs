//! What a user says, in the form that a chat model was trained on: its own template, by `minijinja`.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use physarium_checkpoint::{Malformed, printable};
use physarium_model::ModelFiles;

use crate::error::Result;
use crate::tokenizer::TokenizerConfig;

/// Largest template that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// The file of a template.
const TEMPLATE: &str = "chat_template.jinja";
/// Tokens that templates name.
const TOKENS: [&str; 5] = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token"];

/// The text of a conversation in which a user has said `says`, up to where the model answers.
///
/// The template is `chat_template.jinja`, or else the default one of `tokenizer_config.json`.
///
/// # Errors
/// `Malformed` for a model without a template, or one that fails.
pub(crate) fn render(files: &ModelFiles, config: &TokenizerConfig, says: &str) -> Result<String> {
    let (name, template) = template(files, config)?;
    let fault = |e: &minijinja::Error| {
        let found = printable(&format!("{e:#}"));
        Malformed::new(&files.path_of(name), "chat template", "one that renders", found)
    };
    let mut environment = Environment::new();
    // As transformers sets Jinja up.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|e| fault(&e))?);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_function("raise_exception", |what: String| -> Result<String, _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
    });
    environment.add_template("chat", &template).map_err(|e| fault(&e))?;
    let message = Value::from_pairs([("role", "user"), ("content", says)]);
    let mut context = vec![
        ("messages", Value::from(vec![message])),
        ("add_generation_prompt", Value::from(true)),
    ];
    let tokens = TOKENS.into_iter().filter_map(|name| Some((name, config.token(name)?)));
    context.extend(tokens.map(|(name, token)| (name, Value::from(token))));
    let template = environment.get_template("chat").map_err(|e| fault(&e))?;
    Ok(template.render(Value::from_pairs(context)).map_err(|e| fault(&e))?)
}

/// The template, and the file that it is in.
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
                .with_hint("without --chat the prompt is the beginning of a text to go on with")
                .into())
        }
    }
}
