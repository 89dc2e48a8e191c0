//! Chat templates.

use super::{Case, Model, case, check, physarium};

const RUN: [&str; 9] =
    ["run", "MODEL", "--chat", "--prompt", "Hello", "--max-tokens", "1", "--threads", "1"];
const FUEL: &str = "ran out of fuel";
const TIME: &str = "no result after 0.5 s";

/// A loop that replaces `ns.s` again and again, and then what is done with it.
fn grown(begin: &str, rounds: usize, step: &str, then: &str) -> String {
    format!(
        "{{% set ns = namespace(s={begin}) %}}{{% for i in range({rounds}) %}}{{% set ns.s = {step} %}}\
         {{% endfor %}}{{{{ {then} }}}}"
    )
}

/// Uses of a list that holds the list before twice, 34 times over.
fn doubled(then: &str) -> String {
    grown("['xxxxxxxxxxxxxxxx']", 34, "[ns.s, ns.s]", then)
}

fn cases() -> Vec<Case> {
    let long = "{% set x = 'x' * 1000000 %}";
    let nest = |rounds, then| grown("[]", rounds, "[ns.s]", then);
    vec![
        case("a long string", "{{ 'x' * 1000000000 }}", FUEL),
        case("a long list", "{{ [1] * 1000000000 }}", "too large"),
        case("a long range", "{{ range(1000000000) | list }}", "too many elements"),
        case(
            "loops in loops",
            "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
            FUEL,
        ),
        case("a recursive macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        case(
            "a recursive loop",
            "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
            "recursion",
        ),
        case("itself included", "{% include 'chat' %}", "include"),
        case("a doubled string", grown("'xxxxxxxx'", 60, "ns.s ~ ns.s", "ns.s"), FUEL),
        case("a doubled list", doubled("ns.s"), FUEL),
        case("a doubled list as JSON", doubled("ns.s | tojson"), FUEL),
        case("a doubled list as a string", doubled("ns.s | string"), FUEL),
        case("a doubled list joined", doubled("ns.s | join"), FUEL),
        case("a doubled list printed", doubled("ns.s | pprint"), FUEL),
        case("a doubled list added to a text", doubled("ns.s ~ ''"), TIME),
        case("a doubled list formatted", doubled("'{}'.format(ns.s)"), TIME),
        case("a doubled list as an exception", doubled("raise_exception(ns.s)"), TIME),
        case("a doubled list as a key", doubled("{ns.s: 1}"), TIME),
        case("lists in lists", nest(90_000, "ns.s | length"), FUEL),
        case("lists in lists, dropped", nest(8_000, "1"), ""),
        case("lists in lists, compared", nest(8_000, "ns.s == [ns.s]"), ""),
        case("lists in lists as JSON", nest(8_000, "(ns.s | tojson | length) > 0"), ""),
        case(
            "slices of slices",
            grown("[1, 2]", 12_000, "ns.s[0:]", "ns.s | length"),
            "that renders",
        ),
        case(
            "a list after itself",
            grown("[1]", 60, "ns.s | chain(ns.s)", "1"),
            "chain is unknown",
        ),
        case("a method that joins", format!("{long}{{{{ ''.join([x] * 100000) }}}}"), FUEL),
        case("a filter that joins", format!("{long}{{{{ ([x] * 100000) | join }}}}"), FUEL),
        case("a wide format", "{{ '{:999999999}'.format(1) }}", "width"),
        case("a width as an argument", "{{ '{:{}}'.format(1, 999999999) }}", "width"),
        case("a wide printf format", "{{ '%999999999d' | format(1) }}", FUEL),
        case("a wide indent", "{{ ('a\n' * 1000) | indent(1000000) }}", FUEL),
        case("a filter that replaces", format!("{long}{{{{ x | replace('x', x) }}}}"), FUEL),
        case("a method that replaces", format!("{long}{{{{ x.replace('x', x) }}}}"), FUEL),
        case(
            "a text read again and again",
            format!(
                "{long}{{% for i in range(9999) %}}{{% if x.count('y') %}}{{% endif %}}{{% endfor %}}"
            ),
            FUEL,
        ),
        case("a set to strip", format!("{long}{{{{ x.strip(x) }}}}"), FUEL),
        case("a long date", "{{ strftime_now('%c' * 10000) }}", "date format"),
        case("a wide date", "{{ strftime_now('%999999999Y') }}", "width"),
        case("a long power", "{{ 10 ** 1000000000 }}", "unable to calculate"),
        case("a long exception", "{{ raise_exception('x' * 1000000) }}", "(1000"),
        case("a debugger", "{{ debug() }}", "unknown function"),
        case("sums of sums", format!("{{{{ 1{} }}}}", "+1".repeat(60_000)), ""),
        case("filters of filters", format!("{{{{ 1{} }}}}", "|e".repeat(60_000)), ""),
        case("signs before signs", format!("{{{{ {}1 }}}}", "-".repeat(120_000)), ""),
        case("brackets in brackets", format!("{{{{ {} }}}}", "[".repeat(60_000)), "recursion"),
        case("a large template", "x".repeat(200_000), "more than 131072"),
        case("a large file", "x".repeat(2_000_000), "at most 1048576 bytes"),
        case("no text", [0xff, 0xfe], "UTF-8"),
    ]
}

#[test]
fn hostile_templates_are_answered() {
    check("chat_template.jinja", &RUN, cases());
}

#[test]
fn templates_of_the_configuration_have_the_same_bounds() {
    let config = |template: &str| serde_json::json!({ "chat_template": template }).to_string();
    let named =
        serde_json::json!({"chat_template": [{"name": "default", "template": doubled("ns.s")}]});
    let cases = vec![
        case("a template", config(&doubled("ns.s")), FUEL),
        case("a named template", named.to_string(), FUEL),
        case("a large template", config(&"x".repeat(200_000)), "more than 131072"),
        case("lists in lists", "[".repeat(1_000_000), "recursion limit"),
        case("a large file", " ".repeat(9 << 20), "at most 8388608 bytes"),
    ];
    check("tokenizer_config.json", &RUN, cases);
}

/// A long message has fuel for being copied.
#[test]
fn a_long_message_renders() {
    let model = Model::new();
    model.write(
        "chat_template.jinja",
        b"{% for m in messages %}{% set c = m.content | trim %}{{ ('<' + m.role + '>' + c.strip())[:9] }}{% endfor %}",
    );
    let message = "word ".repeat(20_000);
    let dir = model.path().to_str().unwrap();
    let ran = physarium(&["run", dir, "--chat", "--prompt", &message, "--max-tokens", "1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}
