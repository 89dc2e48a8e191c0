/*!
Pictures of the documentation, made anew from what the program prints.

In: the release build of the program and the demo model. Out, in `docs/pictures/`: `session.svg`, a terminal session
whose commands were run for it, and the charts that `physarium report --pictures` draws of the same run and of a
comparison.
*/

use std::fs;
use std::process::Command;

use anyhow::Context;

use crate::cargo::{build_physarium, printed, root};

/// The session, in a directory that holds `demo/`.
const SESSION: [&str; 3] = [
    "physarium prune demo/model --out pruned",
    "physarium audit pruned --against demo/model",
    "physarium verify pruned --against demo/model",
];
/// What the charts are drawn of, in the same directory.
const CHARTED: [&str; 3] = [
    "physarium audit pruned --against demo/model --report audit",
    "physarium compare demo/model --out comparison --text demo/heldout.txt --calibration demo/calibration.txt \
     --methods magnitude,wanda,sparsegpt,activation-flow --sparsity 0.3,0.5,0.7 --pattern 2:4 --limit 8192",
    "physarium report audit comparison --out charts.html --pictures PICTURES",
];
/// Where the pictures are, from the root of the workspace.
const PICTURES: &str = "docs/pictures";
/// Size of a character cell in pixels, and of the margin around all of them.
const CELL: [f64; 2] = [7.83, 18.0];
const MARGIN: f64 = 20.0;

/// Runs the session and writes its picture.
pub fn run() -> anyhow::Result<()> {
    let program = build_physarium()?.canonicalize()?;
    let root = root()?;
    let work = tempfile::tempdir()?;
    std::os::unix::fs::symlink(root.join("demo"), work.path().join("demo"))?;
    let pictures = root.join(PICTURES);
    fs::create_dir_all(&pictures)?;
    let ran = |command: &str| {
        let words = command.split_whitespace().skip(1).map(|word| match word {
            "PICTURES" => pictures.as_os_str(),
            word => word.as_ref(),
        });
        let arguments = words.chain(["--quiet".as_ref()]);
        printed(Command::new(&program).args(arguments).current_dir(work.path()))
    };
    let mut lines = Vec::new();
    for command in SESSION {
        let text = ran(command)?;
        lines.push(format!("$ {command}"));
        lines.extend(text.trim_end().lines().map(str::to_owned));
        lines.push(String::new());
    }
    lines.pop();
    for command in CHARTED {
        ran(command)?;
    }
    let picture = pictures.join("session.svg");
    fs::write(&picture, svg(&lines)).with_context(|| picture.display().to_string())?;
    println!("wrote {}", pictures.display());
    Ok(())
}

/// Lines of text on a dark background; commands, which begin with `$`, stand out.
fn svg(lines: &[String]) -> String {
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let width = (columns as f64 * CELL[0] + 2.0 * MARGIN).ceil();
    let height = (lines.len() as f64 * CELL[1] + 2.0 * MARGIN).ceil();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"A terminal session: prune, audit, verify\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16202a\"/>\n\
         <g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\" \
         xml:space=\"preserve\">\n"
    );
    for (row, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        let y = MARGIN + (row as f64 + 0.75) * CELL[1];
        let color = if line.starts_with('$') { "#ffd166" } else { "#dbe5ee" };
        // The length keeps columns aligned whatever font is there.
        let length = line.chars().count() as f64 * CELL[0];
        out += &format!(
            "<text x=\"{MARGIN}\" y=\"{y:.1}\" fill=\"{color}\" textLength=\"{length:.1}\" \
             lengthAdjust=\"spacingAndGlyphs\">{}</text>\n",
            escaped(line)
        );
    }
    out + "</g>\n</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::svg;

    #[test]
    fn text_is_escaped_and_commands_stand_out() {
        let picture = svg(&["$ a <b> & c".to_owned(), String::new(), "d".to_owned()]);
        assert!(picture.contains("$ a &lt;b&gt; &amp; c</text>"));
        assert_eq!(picture.matches("<text").count(), 2);
        assert_eq!(picture.matches("#ffd166").count(), 1);
    }
}
