/*!
Chat templates as transformers renders them: Jinja2 with its extensions, in `minijinja`.
*/

use std::time::Duration;

use jiff::ZonedDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, State, Value};

use super::python::{as_python, failed, join_filter, method, string, to_json};
use crate::bounded::{Bounds, Failure};

/// Largest template, in bytes. Those of published models have up to 30 kB; one operator in two bytes nests once.
const MAX_TEMPLATE: usize = 128 << 10;
/// Fuel of a template, before the message. A template of a published model takes a few hundred units of it. One
/// pays for an instruction or for 64 bytes of text, so it bounds memory (6.4 MB of text) as well as time.
const FUEL: u64 = 100_000;
/// Bytes of the message that add a unit of fuel: a template may copy the message 16 times.
const MESSAGE_BYTES_PER_FUEL: u64 = 4;
/// Longest format of a date, in bytes.
const MAX_DATE_FORMAT: usize = 256;
/// Calls of macros, includes and loops within each other.
const MAX_RECURSION: usize = 100;
/// Stack: values that are nested as deeply as the fuel allows are dropped, compared and written recursively.
const STACK: usize = 256 << 20;
/// Processor time. Fuel runs out sooner, but for what it does not see: a list that holds another one twice, which
/// does so too, is exponentially long when it is compared or becomes a string. In this time such a string gets some
/// hundred MB.
const TIME: Duration = Duration::from_millis(500);
/// Bytes of the message that add a second to it.
const BYTES_PER_SECOND: usize = 4 << 20;
/// Filters that Jinja2 does not have, and that make long values out of short ones.
const REMOVED_FILTERS: [&str; 2] = ["chain", "zip"];

/// Renders a template in an environment like the one that transformers sets up, within bounds of size, time and
/// memory: it comes from a stranger.
///
/// # Errors
/// What is wrong with a template that is malformed, raises an exception, or exceeds its bounds.
pub(super) fn apply(
    template: &str,
    message_bytes: usize,
    variables: impl FnOnce() -> Value + Send + 'static,
) -> Result<String, String> {
    if template.len() > MAX_TEMPLATE {
        return Err(format!("{} bytes, more than {MAX_TEMPLATE}", template.len()));
    }
    let template = without_generation_marks(template);
    let fuel = FUEL + message_bytes as u64 / MESSAGE_BYTES_PER_FUEL;
    let further = Duration::from_secs((message_bytes / BYTES_PER_SECOND) as u64);
    let bounds = Bounds { stack: STACK, time: TIME + further };
    let rendered = bounds.run(move || {
        let rendered = environment(fuel).and_then(|mut environment| {
            environment.add_template("chat", &template)?;
            environment.get_template("chat")?.render(variables())
        });
        rendered.map_err(|e| format!("{e:#}"))
    });
    rendered.unwrap_or_else(|failure: Failure| Err(failure.to_string()))
}

/// The environment, without a template.
fn environment<'a>(fuel: u64) -> Result<Environment<'a>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_debug(false);
    environment.remove_global("debug");
    environment.set_unknown_method_callback(method);
    environment.set_formatter(as_python);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", string);
    environment.add_filter("pprint", string);
    environment.add_filter("join", join_filter);
    REMOVED_FILTERS.into_iter().for_each(|name| environment.remove_filter(name));
    environment
        .add_function("raise_exception", |what: String| -> Result<String, _> { Err(failed(what)) });
    environment.add_function("strftime_now", |_: &State<'_, '_>, format: String| {
        if format.len() > MAX_DATE_FORMAT {
            return Err(failed(format!("a date format of {} bytes", format.len())));
        }
        jiff::fmt::strtime::format(format, &ZonedDateTime::now()).map_err(|e| failed(e.to_string()))
    });
    Ok(environment)
}

/// A template with `{% generation %}` blocks as plain blocks: they mark the assistant's words for training and do
/// not change the text.
fn without_generation_marks(template: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        let Some(length) = tag[2..].find("%}").map(|at| at + 2) else { break };
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
mod tests {
    use super::*;

    fn rendered(template: &str) -> String {
        let message = minijinja::context! { role => "user", content => "It's" };
        let variables = minijinja::context! { messages => vec![message], tools => () };
        apply(template, 4, move || variables).unwrap()
    }

    #[test]
    fn generation_marks_leave_no_trace() {
        let template = "{% for m in messages %}\n  {%- generation -%}\n {{ m.role }}{% set x = 1 %} \
                        {%- endgeneration %}{{ x }}|{% endfor %}";
        assert_eq!(rendered(template), "user|");
        assert_eq!(rendered("a {% generation %}b{% endgeneration %} c"), "a b c");
        for plain in ["{%}{%", "{%}", "{% raw", "a %} b {# {% #}", "no tags"] {
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
        assert!(apply("{{ strftime_now('%!') }}", 0, || Value::UNDEFINED).is_err());
    }
}
