//! What all pages have in common: templates, style, script, data, and the policy that nothing else is loaded.

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::embedded::embed;
use crate::palette;

const TEMPLATES: [(&str, &str); 5] = [
    ("frame.html", include_str!("../templates/frame.html")),
    ("audit.html", include_str!("../templates/audit.html")),
    ("comparison.html", include_str!("../templates/comparison.html")),
    ("overview.html", include_str!("../templates/overview.html")),
    ("macros.html", include_str!("../templates/macros.html")),
];
const SCRIPT: &str = include_str!("../templates/page.js");
const STYLE: [&str; 2] =
    [include_str!("../templates/page.css"), include_str!("../templates/chart.css")];

/// A page of one of the templates; `data` is what it shows.
pub(crate) fn render(template: &str, page: &impl Serialize, data: &impl Serialize) -> String {
    let mut templates = Environment::new();
    for (name, text) in TEMPLATES {
        templates.add_template(name, text).expect("the templates are tested");
    }
    let style = STYLE.concat() + &palette_style();
    let page = context! {
        policy => policy(&style),
        style => Value::from_safe_string(style),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        data => Value::from_safe_string(embed(data)),
        page => Value::from(Serde(page)),
    };
    let rendered = templates.get_template(template).and_then(|template| template.render(page));
    rendered.expect("the templates are tested with all that a page may lack")
}

/// Only this style and this script, and nothing from elsewhere.
fn policy(style: &str) -> String {
    let hash = |text: &str| base64::encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(style),
        hash(SCRIPT)
    )
}

/// The heat colours as variables, which the script reads, and as classes.
fn palette_style() -> String {
    let colors = palette::colors();
    let variables = colors.iter().enumerate().map(|(i, c)| format!("--h{i}:{};", c.background));
    let classes = colors.iter().enumerate().map(|(i, c)| {
        format!(".h{i}{{background:{};color:{};fill:{}}}\n", c.background, c.text, c.background)
    });
    format!(":root{{{}}}\n{}", variables.collect::<String>(), classes.collect::<String>())
}

/// A chart as a file of its own, with the style that it needs.
pub(crate) fn picture(chart: &str) -> String {
    let style = include_str!("../templates/chart.css");
    let paper = "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>";
    let (head, body) = chart.split_once('>').expect("a chart is an element");
    format!("{head}><style>{style}</style>{paper}{body}\n")
}

/// HTML that is made here and escaped already.
pub(crate) fn safe(html: String) -> Value {
    Value::from_safe_string(html)
}
