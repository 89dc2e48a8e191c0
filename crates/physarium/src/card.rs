/*!
A section for the model card of a pruned model, in Markdown.

In: what a run records. Out: `physarium.card.md`, beside the model's own README.md, which stays as it is. The text
depends on the records and the model's config only, so that the same run writes the same bytes everywhere.
*/

use physarium_audit::{Share, grouped};
use physarium_checkpoint::journal::{ShardRecord, Totals};
use physarium_checkpoint::{Amount, Criterion, FlowSteps, Recipe, Scope, markdown, printable};
use serde_json::Value;

use crate::recipe::effort::Effort;

/// What a card is made of.
pub(crate) struct Card<'a> {
    /// `config.json` of the model; null if there is none.
    pub config: &'a Value,
    /// Program and version.
    pub tool: &'a str,
    pub recipe: &'a Recipe,
    pub totals: Totals,
    pub shards: &'a [ShardRecord],
}

impl Card<'_> {
    /// The card as Markdown.
    pub fn text(&self) -> String {
        let mut text = format!("## Pruned with {}\n\n| | |\n|---|---|\n", self.tool);
        for (name, value) in self.rows() {
            text += &format!("| {name} | {value} |\n");
        }
        text += "\nAll shares are of element counts. Target: the tensors that were pruned; model: all tensors.\n\n\
                 | file | SHA-256 of the base model's | SHA-256 of this model's |\n|---|---|---|\n";
        for shard in self.shards {
            let name = in_cell(&shard.name);
            text += &format!("| {name} | {} | {} |\n", shard.input_sha256, shard.output_sha256);
        }
        text += "\nWith the base model in BASE and this model in DIR, this verifies every byte, and counts again:\n\n\
                 ```\nphysarium verify DIR --against BASE\nphysarium audit DIR --against BASE\n```\n";
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let totals = self.totals;
        let of = |count, whole, name| Share::new(count, whole, name).sentence();
        let base = self.config["_name_or_path"].as_str().filter(|name| !name.is_empty());
        let base = base.map_or_else(
            || "the one with the digests below".to_owned(),
            |name| format!("{} (`_name_or_path` in config.json)", in_cell(name)),
        );
        let zero_now = totals.pruned + totals.already_zero;
        let mut rows = vec![
            ("base model", base),
            ("method", method_in_words(self.recipe)),
            (
                "target",
                format!(
                    "{} of {} tensors, {} elements = {}",
                    grouped(totals.processed_tensors),
                    grouped(totals.tensors),
                    grouped(totals.processed),
                    of(totals.processed, totals.elements, "model"),
                ),
            ),
            (
                "pruned",
                format!(
                    "{} weights = {} = {}",
                    grouped(totals.pruned),
                    of(totals.pruned, totals.processed, "target"),
                    of(totals.pruned, totals.elements, "model"),
                ),
            ),
            (
                "zero before, zero now",
                format!(
                    "{}, {} = {}",
                    grouped(totals.already_zero),
                    grouped(zero_now),
                    of(zero_now, totals.processed, "target"),
                ),
            ),
        ];
        let others = match totals.refitted {
            0 => "as in the base model, bit by bit".to_owned(),
            updated => format!(
                "{} updated to compensate = {}; all others as in the base model, bit by bit",
                grouped(updated),
                of(updated, totals.processed, "target"),
            ),
        };
        rows.push(("other weights", others));
        rows
    }
}

/// A name from a file, safe in a cell of a table.
fn in_cell(name: &str) -> String {
    markdown(&printable(name))
}

/// The effort of the activation flow, after its name.
fn effort_in_words(flow: Option<&FlowSteps>) -> String {
    // Of its earlier dynamics there was one kind.
    let Some(flow) = flow else { return String::new() };
    match Effort::of(flow) {
        Some(effort) => format!(" with {} effort", effort.text()),
        None => format!(" with {} steps", flow.steps),
    }
}

/// The method of a recipe in words: `sparsegpt, sparsity 0.5 of each tensor, calibrated on 8,192 tokens in windows
/// of 512`.
pub fn method_in_words(recipe: &Recipe) -> String {
    let mut text = recipe.method.criterion().name().to_owned();
    match recipe.method.criterion() {
        Criterion::MagnitudeFlow { block_size, .. } => {
            text += &format!(" in tiles of {block_size} x {block_size}");
        }
        Criterion::ActivationFlow { flow, .. } => text += &effort_in_words(flow.as_ref()),
        _ => {}
    }
    text += &match recipe.method.amount() {
        Amount::Emergent => ", the sparsity emerges from the flow".to_owned(),
        Amount::Price(price) => {
            format!(", price {}: the sparsity emerges from the model", f64::from(price))
        }
        Amount::Pattern(pattern) => format!(", pattern {pattern}"),
        Amount::Sparsity { sparsity, scope } => {
            let of = match scope {
                Scope::Tile { block_size } => format!("each tile of {block_size} x {block_size}"),
                Scope::Tensor => "each tensor".to_owned(),
                Scope::Model => "all targets together".to_owned(),
            };
            format!(", sparsity {} of {of}", f64::from(sparsity))
        }
    };
    if let Some(calibration) = recipe.needs().calibration {
        text += &format!(
            ", calibrated on {} tokens in windows of {}",
            grouped(calibration.tokens),
            grouped(calibration.window)
        );
    }
    text
}
