//! Tables as text for a terminal and as Markdown.

use physarium_checkpoint::markdown;

/// Columns padded to their widest cell; the first is left-aligned, the others right-aligned.
pub(super) fn aligned(rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match i {
                0 => line += &format!("{cell:<width$}"),
                _ => line += &format!("  {cell:>width$}"),
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// A row of a Markdown table. What a cell holds is text: names come from files.
pub(super) fn markdown_row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| markdown(cell)).collect();
    format!("| {} |\n", cells.join(" | "))
}
