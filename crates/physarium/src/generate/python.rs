/*!
Values as Python writes them, and the methods of Python's strings and lists that may do much for little.

All of it is paid with the fuel of the template: text by its bytes, lists by their items.
*/

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Bytes that one unit of fuel pays for.
const BYTES_PER_FUEL: usize = 64;
/// Largest indent of JSON.
const MAX_INDENT: usize = 32;
/// Digits of the largest width in a format string.
const MAX_WIDTH_DIGITS: usize = 3;

pub(super) fn failed(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// A text that is paid for while it grows.
struct Paid<'a> {
    state: &'a State<'a, 'a>,
    text: String,
    /// Bytes that are not paid for yet.
    unpaid: usize,
    /// Why the text ends early.
    failure: Option<Error>,
}

impl<'a> Paid<'a> {
    fn new(state: &'a State<'_, '_>) -> Paid<'a> {
        Paid { state, text: String::new(), unpaid: 0, failure: None }
    }

    /// Pays for bytes that are read or written.
    fn pay(&mut self, bytes: usize) -> fmt::Result {
        self.unpaid = self.unpaid.saturating_add(bytes);
        let fuel = self.unpaid / BYTES_PER_FUEL;
        self.unpaid %= BYTES_PER_FUEL;
        match self.state.consume_fuel(fuel as u64) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.failure = Some(e);
                Err(fmt::Error)
            }
        }
    }

    /// The text, if `write` could pay for it.
    fn written(mut self, write: impl FnOnce(&mut Self) -> fmt::Result) -> Result<String, Error> {
        match (write(&mut self), self.failure) {
            (_, Some(failure)) => Err(failure),
            (Err(fmt::Error), None) => Err(failed("a value that cannot be written".to_owned())),
            (Ok(()), None) => Ok(self.text),
        }
    }
}

impl fmt::Write for Paid<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.pay(text.len())?;
        self.text.push_str(text);
        Ok(())
    }
}

/// Writes a value as Python's `str` does: `None`, `True`, `['a']`.
pub(super) fn as_python(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            let text = Paid::new(state).written(|to| repr(to, value))?;
            out.write_str(&text).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// The filter `string`: a value as Python's `str` writes it.
pub(super) fn string(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Paid::new(state).written(|to| repr(to, value)),
    }
}

/// Writes a value as Python's `repr` does.
fn repr(to: &mut Paid<'_>, value: &Value) -> fmt::Result {
    let items = || value.try_iter().into_iter().flatten().enumerate();
    let comma = |at| if at > 0 { ", " } else { "" };
    match value.kind() {
        ValueKind::None => to.write_str("None"),
        ValueKind::Bool if value.is_true() => to.write_str("True"),
        ValueKind::Bool => to.write_str("False"),
        ValueKind::String => quoted(to, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            to.write_str("[")?;
            for (at, item) in items() {
                to.write_str(comma(at))?;
                repr(to, &item)?;
            }
            to.write_str("]")
        }
        ValueKind::Map => {
            to.write_str("{")?;
            for (at, key) in items() {
                to.write_str(comma(at))?;
                repr(to, &key)?;
                to.write_str(": ")?;
                repr(to, &value.get_item(&key).unwrap_or_default())?;
            }
            to.write_str("}")
        }
        _ => write!(to, "{value}"),
    }
}

fn quoted(to: &mut Paid<'_>, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    to.pay(3 * text.len())?;
    let escaped = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
    let escaped = match quote {
        '\'' => escaped.replace('\'', "\\'"),
        _ => escaped,
    };
    write!(to, "{quote}{escaped}{quote}")
}

/// JSON as Python writes it: spaces after commas and colons, no escapes for HTML.
pub(super) fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let text = Paid::new(state).written(|to| {
        let bytes = Bytes(to);
        let written = match indent {
            Some(spaces) => {
                let spaces = " ".repeat(spaces.min(MAX_INDENT));
                let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
                value.serialize(&mut Serializer::with_formatter(bytes, formatter))
            }
            None => value.serialize(&mut Serializer::with_formatter(bytes, OneLine)),
        };
        written.map_err(|_| fmt::Error)
    })?;
    Ok(Value::from_safe_string(text))
}

/// A paid text as a writer of bytes. serde_json writes whole characters.
struct Bytes<'a, 'b>(&'a mut Paid<'b>);

impl Write for Bytes<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_str(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

/// The methods of Python's values. `minijinja-contrib` does not charge for what they read, nor for the items of a
/// list that they join.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    let read = args.iter().map(text).fold(text(value), usize::saturating_add);
    // A set of characters to strip is compared with every character.
    let by_set = matches!(name, "strip" | "lstrip" | "rstrip");
    let passes = if by_set { 1 + args.first().map_or(0, text) } else { 1 };
    state.consume_fuel((read.saturating_mul(passes) / BYTES_PER_FUEL) as u64)?;
    match (name, value.as_str(), args) {
        ("join", Some(between), [items]) => join(state, between, items),
        ("format", Some(format), _) if !is_modest(format) => {
            Err(failed("a format with a width over 999, or one that is an argument".to_owned()))
        }
        ("count", None, [what]) => {
            let mut count = 0;
            for item in paid_items(state, value)? {
                count += u64::from(item? == *what);
            }
            Ok(Value::from(count))
        }
        ("startswith" | "endswith", Some(text), [list]) if list.as_str().is_none() => {
            let mut items = Vec::new();
            for item in paid_items(state, list)? {
                state.consume_fuel((text.len() / BYTES_PER_FUEL) as u64)?;
                items.push(item?);
            }
            unknown_method_callback(state, value, name, &[Value::from(items)])
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// The items of a value, each for a unit of fuel.
fn paid_items<'a>(
    state: &'a State<'_, '_>,
    value: &Value,
) -> Result<impl Iterator<Item = Result<Value, Error>> + 'a, Error> {
    let items = value.try_iter()?.checked();
    Ok(items.map(move |item| state.consume_fuel(1).and(item)))
}

/// The filter `join`: the items of a list, or an attribute of each, with a text between them.
pub(super) fn join_filter(
    state: &State<'_, '_>,
    value: &Value,
    between: Option<String>,
    options: Kwargs,
) -> Result<Value, Error> {
    let named: Option<String> = options.get("d")?;
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let between = between.or(named).unwrap_or_default();
    let Some(attribute) = attribute else { return join(state, &between, value) };
    let items: Result<Vec<Value>, Error> =
        paid_items(state, value)?.map(|item| item?.get_attr(&attribute)).collect();
    join(state, &between, &Value::from(items?))
}

/// `between.join(items)`.
fn join(state: &State<'_, '_>, between: &str, items: &Value) -> Result<Value, Error> {
    let items = paid_items(state, items)?;
    let mut failure = None;
    let text = Paid::new(state).written(|to| {
        for (at, item) in items.enumerate() {
            match item {
                Ok(item) if at == 0 => write!(to, "{item}")?,
                Ok(item) => write!(to, "{between}{item}")?,
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        Ok(())
    })?;
    failure.map_or_else(|| Ok(Value::from(text)), Err)
}

/// Whether a format string has only short widths, and none that is an argument.
fn is_modest(format: &str) -> bool {
    let (mut inside, mut digits) = (false, 0);
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        match c {
            // `{{` stands for a brace.
            '{' if !inside && rest.peek() == Some(&'{') => _ = rest.next(),
            '{' if inside => return false,
            '{' => inside = true,
            '}' => inside = false,
            _ if digits > MAX_WIDTH_DIGITS => return false,
            _ => {}
        }
    }
    true
}
