/*!
Chat templates as transformers renders them: Jinja2 with its extensions, in `minijinja`.
*/

use std::io::{self, Write};

use jiff::ZonedDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Renders a template in an environment like the one that transformers sets up.
///
/// # Errors
/// For a template that is malformed, or raises an exception.
pub(super) fn apply(template: &str, variables: Value) -> Result<String, Error> {
    let template = without_generation_marks(template);
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_formatter(as_python);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => python_str(value),
    });
    environment
        .add_function("raise_exception", |what: String| -> Result<String, _> { Err(failed(what)) });
    environment.add_function("strftime_now", |format: String| {
        jiff::fmt::strtime::format(format, &ZonedDateTime::now()).map_err(|e| failed(e.to_string()))
    });
    environment.add_template("chat", &template)?;
    environment.get_template("chat")?.render(variables)
}

fn failed(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// A template with `{% generation %}` blocks as plain blocks: they mark the assistant's words for training and do
/// not change the text.
fn without_generation_marks(template: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        let Some(length) = tag.find("%}") else { break };
        text += before;
        let inside = &tag[2..length];
        let word = inside.trim_matches(['-', '+']).trim();
        text += &match word {
            "generation" => tag[..length].replace(word, "with"),
            "endgeneration" => tag[..length].replace(word, "endwith"),
            _ => tag[..length].to_owned(),
        };
        rest = &tag[length..];
    }
    text + rest
}

/// Writes a value as Python's `str` does: `None`, `True`, `['a']`.
fn as_python(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            out.write_str(&python_str(value)).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// A value as Python's `repr` writes it.
fn python_str(value: &Value) -> String {
    let listed = |items: Vec<String>| items.join(", ");
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool if value.is_true() => "True".to_owned(),
        ValueKind::Bool => "False".to_owned(),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            let escaped = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
            let escaped = match quote {
                '\'' => escaped.replace('\'', "\\'"),
                _ => escaped,
            };
            format!("{quote}{escaped}{quote}")
        }
        ValueKind::Seq => format!("[{}]", listed(items().map(|item| python_str(&item)).collect())),
        ValueKind::Map => {
            let pair = |key: Value| {
                let item = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", python_str(&key), python_str(&item))
            };
            format!("{{{}}}", listed(items().map(pair).collect()))
        }
        _ => value.to_string(),
    }
}

/// JSON as Python writes it: spaces after commas and colons, no escapes for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    fn rendered(template: &str) -> String {
        let message = minijinja::context! { role => "user", content => "It's" };
        let variables = minijinja::context! { messages => vec![message], tools => () };
        apply(template, variables).unwrap()
    }

    #[test]
    fn generation_marks_leave_no_trace() {
        let template = "{% for m in messages %}\n  {%- generation -%}\n {{ m.role }}{% set x = 1 %} \
                        {%- endgeneration %}{{ x }}|{% endfor %}";
        assert_eq!(rendered(template), "user|");
        assert_eq!(rendered("a {% generation %}b{% endgeneration %} c"), "a b c");
        for plain in ["{% raw", "a %} b {# {% #}", "no tags"] {
            assert_eq!(without_generation_marks(plain), plain);
        }
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        assert_eq!(
            rendered("{{ tools }} {{ true }} {{ missing }} {{ 1.5 }} {{ tools|string }}"),
            "None True  1.5 None"
        );
        assert_eq!(rendered("{{ messages }}"), "[{'role': 'user', 'content': \"It's\"}]");
        assert_eq!(rendered("{{ ['a', none, 2] }}"), "['a', None, 2]");
    }

    #[test]
    fn the_date_is_the_local_one() {
        let before = ZonedDateTime::now();
        let found = rendered("{{ strftime_now('%d %B %Y') }}");
        let dates = [before, ZonedDateTime::now()].map(|now| now.strftime("%d %B %Y").to_string());
        assert!(dates.contains(&found), "{found}");
        assert!(apply("{{ strftime_now('%!') }}", Value::UNDEFINED).is_err());
    }
}
